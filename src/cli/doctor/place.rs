//! Where a folder lies: its file system, how that is mounted, and on what kind of medium. Only looks.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub point: PathBuf,
    pub kind: String,
    /// Those of the mount and of the file system.
    pub options: Vec<String>,
}

impl Mount {
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|own| own == option)
    }
}

/// What a block device says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Medium {
    /// Of the whole disk, such as `mmcblk0`.
    pub name: String,
    pub bytes: u64,
    pub removable: bool,
    /// Of a card: `SD` or `MMC`.
    pub card: Option<String>,
    /// An eMMC's use of its two kinds of memory, in steps of 10 %; 0 is unknown, 11 beyond its life.
    pub life: Option<(u8, u8)>,
    /// An eMMC's spare blocks: 1 normal, 2 used by 80 %, 3 nearly gone.
    pub pre_eol: Option<u8>,
    /// Behind USB.
    pub usb: bool,
}

/// The mount that `folder` lies in.
pub fn mount(folder: &Path) -> Option<Mount> {
    let device = fs::metadata(folder).ok()?.dev();
    let numbers = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let folder = fs::canonicalize(folder).ok()?;
    find(&fs::read_to_string("/proc/self/mountinfo").ok()?, &numbers, &folder)
}

/// Of the mounts of the device that lie above the folder, the nearest; the last of several at one place counts
/// (proc_pid_mountinfo(5)).
fn find(mounts: &str, device: &str, folder: &Path) -> Option<Mount> {
    let parse = |line: &str| {
        let (head, tail) = line.split_once(" - ")?;
        let head: Vec<_> = head.split(' ').collect();
        let tail: Vec<_> = tail.split(' ').collect();
        let (numbers, point, options) = (*head.get(2)?, unescaped(head.get(4)?), *head.get(5)?);
        let all = options.split(',').chain(tail.get(2)?.split(','));
        let point = PathBuf::from(point);
        let mount = Mount { point, kind: (*tail.first()?).to_owned(), options: all.map(str::to_owned).collect() };
        // btrfs gives each subvolume a device number that stands in no mount.
        (numbers == device || mount.kind == "btrfs").then_some(mount)
    };
    let above = mounts.lines().filter_map(parse).filter(|mount| folder.starts_with(&mount.point));
    above.max_by_key(|mount| mount.point.components().count())
}

/// Spaces and the like stand in octal.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
}

/// The disk below `folder`; none where there is no single one, as below btrfs or in a container.
pub fn medium(folder: &Path) -> Option<Medium> {
    let device = fs::metadata(folder).ok()?.dev();
    let numbers = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    of_device(&fs::canonicalize(Path::new("/sys/dev/block").join(numbers)).ok()?)
}

fn of_device(device: &Path) -> Option<Medium> {
    // A partition is a folder in that of its disk.
    let disk = if device.join("partition").exists() { device.parent()? } else { device };
    let text = |name: &str| fs::read_to_string(disk.join(name)).ok().map(|text| text.trim().to_owned());
    let hexadecimal = |text: &str| u8::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let life = text("device/life_time").and_then(|text| {
        let (first, second) = text.split_once(' ')?;
        Some((hexadecimal(first)?, hexadecimal(second.trim())?))
    });
    Some(Medium {
        name: disk.file_name()?.to_string_lossy().into_owned(),
        // In units of 512 bytes whatever the device's own sectors have.
        bytes: text("size").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0).saturating_mul(512),
        removable: text("removable").is_some_and(|text| text == "1"),
        card: text("device/type").filter(|kind| kind == "SD" || kind == "MMC"),
        life,
        pre_eol: text("device/pre_eol_info").and_then(|text| hexadecimal(&text)),
        usb: disk.components().any(|part| part.as_os_str().to_string_lossy().starts_with("usb")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 179:2 / / rw,noatime shared:1 - ext4 /dev/mmcblk0p2 rw,data=ordered
23 22 0:5 / /dev rw - devtmpfs udev rw
24 22 179:3 / /mnt/my\\040card ro,relatime - ext4 /dev/mmcblk0p3 rw
25 22 179:2 /var /srv/var rw - ext4 /dev/mmcblk0p2 rw
";

    /// Promise 9: the file system that is named is the one the folder lies on, also behind a bind mount and a space.
    #[test]
    fn the_nearest_mount_of_the_device() {
        let find = |device, folder: &str| find(MOUNTS, device, Path::new(folder)).expect("a mount");
        let root = find("179:2", "/var/lib/meterferry/queue");
        assert_eq!((root.point, root.kind.as_str()), (PathBuf::from("/"), "ext4"));
        assert_eq!(find("179:2", "/srv/var/lib").point, Path::new("/srv/var"));
        let card = find("179:3", "/mnt/my card/queue");
        assert!(card.has("ro") && card.has("relatime") && !card.has("sync"));
    }

    /// Promise 9: a card is known for what it is by what the kernel shows of it, for a partition as for the whole.
    #[test]
    fn a_card_is_known() {
        let sys = tempfile::tempdir().expect("a temporary folder");
        let partition = sys.path().join("mmcblk0/mmcblk0p2");
        fs::create_dir_all(sys.path().join("mmcblk0/device")).expect("made");
        fs::create_dir_all(&partition).expect("made");
        for (file, content) in [
            ("mmcblk0p2/partition", "2"),
            ("size", "62333952\n"),
            ("removable", "0\n"),
            ("device/type", "MMC\n"),
            ("device/life_time", "0x02 0x09\n"),
            ("device/pre_eol_info", "0x01\n"),
        ] {
            fs::write(sys.path().join("mmcblk0").join(file), content).expect("written");
        }
        let medium = of_device(&partition).expect("a device");
        assert_eq!((medium.name.as_str(), medium.bytes), ("mmcblk0", 31_914_983_424));
        assert_eq!((medium.card.as_deref(), medium.life, medium.pre_eol), (Some("MMC"), Some((2, 9)), Some(1)));
        assert!(!medium.removable && !medium.usb);
    }
}
