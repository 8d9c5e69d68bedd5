//! A small ext4 on a block device that logs every write and flush. Takes root, FUSE and qemu-storage-daemon.
//!
//! qemu-storage-daemon puts its `blklogwrites` filter before the image and shows the two as a file, which a loop device makes
//! a block device of.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::agent::Agent;
use super::block_log::{BlockLog, SECTOR};
use super::config::Config;
use super::namespace;
use super::process;
use super::small_disk::{self, SmallDisk};

/// Exports the logged image and mounts it. The daemon ends with the shell that started it.
const EXPORT_AND_MOUNT: &str = "\
    setpriv --pdeathsig KILL qemu-storage-daemon \
        --blockdev driver=file,node-name=disk,filename=disk.img \
        --blockdev driver=file,node-name=log,filename=log.img \
        --blockdev driver=blklogwrites,node-name=logged,file=disk,log=log,log-sector-size=512 \
        --export type=fuse,id=export,node-name=logged,mountpoint=export.img,writable=on & \
    tries=0; \
    until [ -s export.img ]; do kill -0 $! && [ $((tries += 1)) -le 1000 ] || exit 1; sleep 0.01; done; \
    mount -o loop export.img mnt";

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
        let path = |name: &str| folder.path().join(name);
        small_disk::make(&path("first.img"), mib);
        process::run(Command::new("cp").arg("--sparse=always").arg(path("first.img")).arg(path("disk.img")));
        File::create(path("log.img")).expect("a file of our own");
        File::create(path("export.img")).expect("a file of our own");
        let disk = SmallDisk::mounted(folder, EXPORT_AND_MOUNT);
        let log = File::open(disk.folder().join("log.img")).expect("the daemon's log");
        Self { disk, log }
    }

    /// An agent whose queue is on it.
    pub fn agent(&self, config: impl FnOnce(&Path) -> Config) -> Agent {
        self.disk.agent(config)
    }

    /// The queue's folder, as the agent sees it.
    pub fn place(&self) -> PathBuf {
        self.disk.queue()
    }

    /// The queue's folder, as this process sees it.
    pub fn queue(&self) -> PathBuf {
        self.disk.seen("queue")
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
