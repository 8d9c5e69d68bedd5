//! A small ext4 of the test's own, to be filled, broken and repaired. Takes root.
//!
//! It is mounted in the mounts of a process that does nothing else, so that it is gone when that is killed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::agent::Agent;
use super::config::Config;
use super::process::{self, Running};
use super::wait::{self, SOON};

/// Mounts what it is told to, and waits to be killed. `$1` is the shell command that mounts.
const HOLDER: &str = "eval \"$1\" && echo mounted && exec sleep 2147483647";

/// A mounted file system.
pub struct SmallDisk {
    holder: Running,
    folder: TempDir,
}

impl SmallDisk {
    /// An empty ext4 of so many MiB.
    pub fn new(mib: u64) -> Self {
        let folder = process::scratch("disk");
        make(&folder.path().join("image"), mib);
        Self::mounted(folder, "mount -o loop,errors=remount-ro image mnt")
    }

    /// An ext4 that believes to have `mib` MiB, on a medium that has only `real` of them: what is written beyond fails
    /// with an I/O error, at the latest when it is synchronised. Two ways in which such a medium would lie about that are
    /// closed. It has no journal: what ext4 has synchronised into its journal, and cannot write to its place later, is lost
    /// without a word. And it is written page by page: of a request that fits in part, the loop device says that it is done.
    pub fn cheating(mib: u64, real: u64) -> Self {
        let folder = process::scratch("disk");
        fs::create_dir(folder.path().join("medium")).expect("a folder of our own");
        make_with(&folder.path().join("image"), mib, &["-O", "^has_journal"]);
        let mount = format!(
            "mount -t tmpfs -o size={real}m medium medium && cp --sparse=always image medium/ && \
             mount -o loop,errors=continue medium/image mnt && d=$(findmnt -n -o SOURCE mnt) && \
             echo 4 >/sys/block/${{d##*/}}/queue/max_sectors_kb"
        );
        Self::mounted(folder, &mount)
    }

    /// The file system in the file `image` of this folder, as a power cut has left it. Where it cannot be mounted it is
    /// checked first, as a Raspberry Pi does at its start.
    pub fn after_a_cut(folder: TempDir) -> Self {
        Self::mounted(folder, &mount_or_check("image"))
    }

    /// Whether it had to be checked before it could be mounted.
    pub fn was_checked(&self) -> bool {
        self.folder.path().join("fsck.log").exists()
    }

    /// What the shell command `mount`, run in this folder, mounts at `mnt`.
    pub(super) fn mounted(folder: TempDir, mount: &str) -> Self {
        fs::create_dir(folder.path().join("mnt")).expect("a folder of our own");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", HOLDER, "sh", mount]);
        command.current_dir(folder.path());
        let mut holder = Running::start("the small disk", &mut command, &folder.path().join("log"));
        wait::until_true("the small disk to be mounted", SOON, || {
            assert!(holder.ended().is_none(), "not mounted:\n{}", holder.tail(10));
            holder.log().contains("mounted\n")
        });
        Self { holder, folder }
    }

    /// An agent whose queue is on it.
    pub fn agent(&self, config: impl FnOnce(&Path) -> Config) -> Agent {
        let mut agent = Agent::new(|_| config(&self.queue()));
        agent.inside(self.inside());
        agent.queue_is_at(self.seen("queue"));
        agent
    }

    /// The queue's folder, as the agent sees it.
    pub fn queue(&self) -> PathBuf {
        self.folder.path().join("mnt/queue")
    }

    /// A path on it, as this process sees it.
    pub fn seen(&self, path: &str) -> PathBuf {
        let mounted = self.folder.path().join("mnt").join(path);
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.pid()));
        root.join(mounted.strip_prefix("/").expect("an absolute path"))
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        let stat = nix::sys::statvfs::statvfs(&self.seen("")).expect("mounted");
        stat.blocks_available() * stat.fragment_size()
    }

    /// Fills it with another program's file but for so many bytes.
    pub fn fill(&self, but_for: u64) {
        let bytes = self.free().saturating_sub(but_for);
        // Until nothing goes in any more: the file system's own estimate of what is free is not exact.
        let mut file = File::options().create(true).append(true).open(self.seen("ballast")).expect("a file");
        let chunk = vec![0xa5_u8; 64 * 1024];
        let mut left = bytes;
        while left > 0 {
            let size = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            match std::io::Write::write(&mut file, &chunk[..size]) {
                Ok(written) => left -= written as u64,
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                Err(error) => panic!("cannot fill the disk: {error}"),
            }
        }
        // A file system that keeps something back for the last moment reports it here.
        let _ = file.sync_all();
    }

    /// Fills it to the last block.
    pub fn fill_up(&self) {
        self.fill(0);
        let mut number = 0;
        while fs::write(self.seen(&format!("filler-{number}")), [0xa5; 1]).is_ok() {
            number += 1;
            assert!(number < 10_000, "the disk is never full");
        }
    }

    /// Removes the other program's files.
    pub fn clean(&self) {
        for entry in fs::read_dir(self.seen("")).expect("mounted") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name == "ballast" || name.starts_with("filler-") {
                fs::remove_file(path).expect("our own file");
            }
        }
    }

    /// Has ext4 find an error in itself, at which it makes itself read-only, as on a card that dies.
    pub fn becomes_read_only(&self) {
        let script = "d=$(findmnt -n -o SOURCE \"$1\") && echo 1 >/sys/fs/ext4/${d##*/}/trigger_fs_error";
        self.run(script);
    }

    /// Unmounts it, has it checked and repaired, and mounts it anew. Nobody may use it.
    pub fn repair(&self) {
        self.run("umount \"$1\" && cd \"$1/..\" && { fsck.ext4 -fy image >fsck.log || [ $? = 1 ]; mount -o loop,errors=remount-ro image mnt; }");
    }

    /// Gives the medium of a [`SmallDisk::cheating`] one so many MiB more, and has the file system repaired.
    pub fn enlarge(&self, mib: u64) {
        self.run(&format!(
            "umount \"$1\" && cd \"$1/..\" && mount -o remount,size={mib}m medium && {{ fsck.ext4 -fy medium/image >fsck.log || [ $? = 1 ]; \
             mount -o loop,errors=remount-ro medium/image mnt; }}"
        ));
    }

    /// Mounts it with these options instead. Nobody may write on it.
    pub fn remount(&self, options: &str) {
        self.run(&format!("mount -o remount,{options} \"$1\""));
    }

    /// Ends everything that holds it, and leaves what it was made of.
    pub(super) fn into_folder(self) -> TempDir {
        self.folder
    }

    /// Where its image is.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a shell script that sees it; `$1` is where it is mounted.
    pub(super) fn run(&self, script: &str) -> String {
        let mut command = self.inside().into_iter();
        let mut command_line = Command::new(command.next().expect("nsenter"));
        command_line.args(command).args(["sh", "-ec", script, "sh"]).arg(self.folder.path().join("mnt"));
        process::run(&mut command_line)
    }

    /// What stands before a command that is to see it.
    fn inside(&self) -> Vec<String> {
        ["nsenter", "--target", &self.holder.pid().to_string(), "--mount", "--"].map(str::to_owned).to_vec()
    }
}

/// The shell command that mounts this image at `mnt`, after a check if it must be.
pub(super) fn mount_or_check(image: &str) -> String {
    let mount = format!("mount -o loop,errors=remount-ro {image} mnt");
    format!("{{ {mount} || {{ fsck.ext4 -p {image} >fsck.log; [ $? -le 1 ] && {mount}; }}; }}")
}

/// An empty ext4 of so many MiB.
pub(super) fn make(image: &Path, mib: u64) {
    make_with(image, mib, &[]);
}

fn make_with(image: &Path, mib: u64, options: &[&str]) {
    File::create(image).and_then(|file| file.set_len(mib << 20)).expect("a sparse file");
    // Nothing is kept back for root, who runs these tests.
    process::run(Command::new("mkfs.ext4").args(["-q", "-m", "0", "-b", "4096"]).args(options).arg(image));
}
