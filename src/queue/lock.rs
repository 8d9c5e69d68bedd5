//! `lock`: one agent a folder.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use super::disk::{Held, Locked};
use super::error::OpenError;
use super::folder::Folder;

pub(super) const FILE: &str = "lock";

/// Held as long as it lives; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock(#[allow(dead_code, reason = "held, not read")] Box<dyn Held>);

/// A look from outside ([`is_held`]) holds the lock for a moment: an agent that starts then tries again this often.
const TRIES: (u32, Duration) = (10, Duration::from_millis(20));

/// Takes the folder, or says which process has it.
pub(super) fn take(folder: &Folder) -> Result<Lock, OpenError> {
    for _ in 1..TRIES.0 {
        match try_take(folder) {
            Err(OpenError::Locked { .. }) => std::thread::sleep(TRIES.1),
            result => return result,
        }
    }
    try_take(folder)
}

fn try_take(folder: &Folder) -> Result<Lock, OpenError> {
    let path = || folder.path().to_owned();
    match folder.disk.lock(&folder.file(FILE), &std::process::id().to_string()) {
        Ok(Locked::Taken(held)) => Ok(Lock(held)),
        Ok(Locked::By(owner)) => {
            let pid = if owner.is_empty() { "unknown".to_owned() } else { owner };
            Err(OpenError::Locked { path: path(), pid })
        }
        Err(source) => Err(OpenError::Folder { path: path(), source }),
    }
}

/// Whether an agent has the folder.
pub(super) fn is_held(folder: &Folder) -> bool {
    folder.disk.is_locked(&folder.file(FILE))
}

impl Held for Flock<File> {}

/// [`super::disk::Disk::lock`] of the machine's own file system.
pub(super) fn flock(path: &Path, owner: &str) -> io::Result<Locked> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let mut holder = String::new();
    file.read_to_string(&mut holder)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut held) => {
            write_owner(&mut held, owner)?;
            Ok(Locked::Taken(Box::new(held)))
        }
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(Locked::By(holder.trim().to_owned())),
        Err((_, error)) => Err(error.into()),
    }
}

/// [`super::disk::Disk::is_locked`] of the machine's own file system.
pub(super) fn is_flocked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    Flock::lock(file, FlockArg::LockSharedNonblock).is_err()
}

/// A full disk keeps the old owner: it is only told to people.
fn write_owner(file: &mut File, owner: &str) -> io::Result<()> {
    file.rewind()?;
    let written = file.set_len(0).and_then(|()| writeln!(file, "{owner}"));
    match written {
        Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(error),
        _ => Ok(()),
    }
}
