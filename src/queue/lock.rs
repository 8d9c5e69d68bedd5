//! `lock`: one agent a folder.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use super::error::OpenError;

pub(super) const FILE: &str = "lock";

/// Held as long as it lives; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock(#[allow(dead_code, reason = "held, not read")] Flock<File>);

/// Takes the folder, or says which process has it.
pub(super) fn take(folder: &Path) -> Result<Lock, OpenError> {
    let unusable = |source| super::folder::unusable(folder, source);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(folder.join(FILE))
        .map_err(unusable)?;
    let mut pid = String::new();
    file.read_to_string(&mut pid).map_err(unusable)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut held) => {
            write_pid(&mut held).map_err(unusable)?;
            Ok(Lock(held))
        }
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
            let pid = pid.trim();
            let pid = if pid.is_empty() { "unknown" } else { pid };
            Err(OpenError::Locked { path: folder.to_owned(), pid: pid.to_owned() })
        }
        Err((_, error)) => Err(unusable(error.into())),
    }
}

/// Whether an agent has the folder.
pub(super) fn is_held(folder: &Path) -> bool {
    let Ok(file) = File::open(folder.join(FILE)) else { return false };
    Flock::lock(file, FlockArg::LockSharedNonblock).is_err()
}

/// A full disk keeps the old number: it is only told to people.
fn write_pid(file: &mut File) -> io::Result<()> {
    file.rewind()?;
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    match written {
        Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(error),
        _ => Ok(()),
    }
}
