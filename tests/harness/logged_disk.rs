//! A small ext4 on a block device that logs every write and flush. Takes root, FUSE and qemu-storage-daemon.
//!
//! qemu-storage-daemon puts its `blklogwrites` filter before the image and shows the two as a file, which a loop device makes
//! a block device of.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;

use tempfile::TempDir;

use super::block_log::{BlockLog, SECTOR};
use super::namespace;
use super::process;
use super::small_disk::{self, SmallDisk};

/// Exports the logged image. The daemon ends with the shell that started it.
const EXPORT: &str = "\
    setpriv --pdeathsig KILL qemu-storage-daemon \
        --blockdev driver=file,node-name=disk,filename=disk.img \
        --blockdev driver=file,node-name=log,filename=log.img \
        --blockdev driver=blklogwrites,node-name=logged,file=disk,log=log,log-sector-size=512 \
        --export type=fuse,id=export,node-name=logged,mountpoint=export.img,writable=on & \
    tries=0; \
    until [ -s export.img ]; do kill -0 $! && [ $((tries += 1)) -le 1000 ] || exit 1; sleep 0.01; done";

/// Whether such a disk can be had here; says why a test does nothing where it cannot.
pub fn available(test: &str) -> bool {
    if !namespace::available(test) {
        return false;
    }
    let fuse = File::options().read(true).write(true).open("/dev/fuse").is_ok();
    if !fuse {
        eprintln!("{test}: SKIPPED, it needs FUSE (/dev/fuse)");
    }
    fuse
}

/// A mounted file system whose blocks are logged.
pub struct LoggedDisk {
    disk: SmallDisk,
    log: File,
}

impl LoggedDisk {
    /// An empty ext4 of so many MiB. What makes it is not logged, what mounts it is.
    pub fn new(mib: u64) -> Self {
        let folder = process::scratch("logged-disk");
        small_disk::make(&folder.path().join("image"), mib);
        Self::after_a_cut(folder)
    }

    /// The file system in the file `image` of this folder, as another power cut has left it.
    pub fn after_a_cut(folder: TempDir) -> Self {
        let path = |name: &str| folder.path().join(name);
        process::run(Command::new("cp").arg("--sparse=always").arg(path("image")).arg(path("disk.img")));
        File::create(path("log.img")).expect("a file of our own");
        File::create(path("export.img")).expect("a file of our own");
        let disk = SmallDisk::mounted(folder, &format!("{EXPORT}; {}", small_disk::mount_or_check("export.img")));
        let log = File::open(disk.folder().join("log.img")).expect("the daemon's log");
        Self { disk, log }
    }

    /// What is mounted.
    pub fn disk(&self) -> &SmallDisk {
        &self.disk
    }

    /// The entries of the log up to the last flush, at least: whatever was durable before this was asked is among them.
    pub fn logged(&self) -> usize {
        let mut count = [0; 8];
        // Zero until the first flush.
        self.log.read_exact_at(&mut count, 16).map_or(0, |()| usize::try_from(u64::from_le_bytes(count)).expect("few"))
    }

    /// Unmounts it; what is left is the log. Nobody may use it.
    pub fn into_log(self) -> BlockLog {
        self.disk.run("umount \"$1\"");
        let folder = self.disk.into_folder();
        let bytes = fs::metadata(folder.path().join("log.img")).expect("the daemon's log").len();
        assert!(bytes > SECTOR as u64, "nothing was logged");
        BlockLog::read(folder)
    }
}
