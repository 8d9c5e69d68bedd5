//! Another view of the machine for a single process: mounts of its own, which are gone with it. Takes root.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Whether mounts of one's own can be had here; says why a test does nothing where they cannot.
pub fn available(test: &str) -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    let available = *AVAILABLE.get_or_init(|| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount -t tmpfs tmpfs /sys/firmware"]);
        let ended = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        ended.is_ok_and(|status| status.success())
    });
    if !available {
        eprintln!("{test}: SKIPPED, it needs root and mounts of its own (unshare --mount)");
    }
    available
}

/// What stands before a command that is to see this serial number of the hardware.
///
/// The kernel's own files cannot be changed: a file system of ours lies over their folder.
pub fn with_serial(serial: &str) -> Vec<String> {
    let script = "mount -t tmpfs tmpfs /sys/firmware && mkdir -p /sys/firmware/devicetree/base && \
                  printf '%s\\0' \"$0\" >/sys/firmware/devicetree/base/serial-number && exec \"$@\"";
    ["unshare", "--mount", "sh", "-c", script, serial].map(str::to_owned).to_vec()
}
