//! A disk in memory, below the queue: keeps a log of every change, and fails when it is told to.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use meterferry::queue::disk::{Access, Disk, Held, Item, Locked};
use rand::SeedableRng;
use rand::rngs::StdRng;
use redb::StorageBackend;

use crate::content::Content;
use crate::fault::{ENOSPC, Fault, Kind};
use crate::handle::{Handle, RangeLock};
use crate::medium::{Medium, Op, apply_name};
use crate::tree::{Inode, Tree};

/// Says how many messages have been acknowledged so far.
pub type Witness = Box<dyn FnMut() -> usize + Send>;

/// Clones are the same disk.
#[derive(Clone)]
pub struct SimulatedDisk(Arc<Shared>);

pub struct Shared {
    state: Mutex<State>,
    pub unlocked: Condvar,
}

pub struct State {
    /// As processes see it.
    pub live: Tree,
    start: Tree,
    log: Vec<Op>,
    /// For each entry of the log: what had been acknowledged when it began.
    acknowledged: Vec<usize>,
    witness: Option<Witness>,
    next_inode: Inode,
    pub locks: BTreeMap<Inode, Vec<RangeLock>>,
    held: Vec<PathBuf>,
    faults: Vec<Fault>,
    capacity: Option<u64>,
    /// Something did not fit.
    was_full: bool,
    /// Bytes read, by file.
    pub reads: BTreeMap<Inode, u64>,
}

/// Everything that a disk has been through.
pub struct Log {
    pub start: Tree,
    pub ops: Vec<Op>,
    pub acknowledged: Vec<usize>,
}

impl SimulatedDisk {
    pub fn new(tree: Tree) -> Self {
        let next_inode = tree.files.keys().next_back().map_or(1, |last| last + 1);
        let state = State {
            start: tree.clone(),
            live: tree,
            log: Vec::new(),
            acknowledged: Vec::new(),
            witness: None,
            next_inode,
            locks: BTreeMap::new(),
            held: Vec::new(),
            faults: Vec::new(),
            capacity: None,
            was_full: false,
            reads: BTreeMap::new(),
        };
        Self(Arc::new(Shared { state: Mutex::new(state), unlocked: Condvar::new() }))
    }

    /// Asked before each change of the medium.
    pub fn set_witness(&self, witness: Witness) {
        self.0.state().witness = Some(witness);
    }

    /// From now on.
    pub fn inject(&self, fault: Fault) {
        self.0.state().faults.push(fault);
    }

    /// Every fault is over.
    pub fn heal(&self) {
        let mut state = self.0.state();
        state.faults.clear();
        state.capacity = None;
        state.was_full = false;
    }

    /// Whether an injected fault has struck, or something did not fit.
    pub fn has_struck(&self) -> bool {
        let state = self.0.state();
        state.was_full || state.faults.iter().any(Fault::has_struck)
    }

    /// Bytes that all files together may take from now on.
    pub fn set_capacity(&self, bytes: u64) {
        self.0.state().capacity = Some(bytes);
    }

    pub fn used(&self) -> u64 {
        self.0.state().used()
    }

    /// Changes of the medium so far.
    pub fn position(&self) -> usize {
        self.0.state().log.len()
    }

    pub fn live(&self) -> Tree {
        self.0.state().live.clone()
    }

    /// Files whose making was never finished.
    pub fn unfinished(&self) -> Vec<(PathBuf, Inode)> {
        let state = self.0.state();
        let all = state.live.names.iter().map(|(path, inode)| (path.clone(), *inode));
        all.filter(|(path, _)| path.extension().is_some_and(|extension| extension == "new")).collect()
    }

    /// What is read is counted anew.
    pub fn forget_reads(&self) {
        self.0.state().reads.clear();
    }

    /// Names of the files of which something was read.
    pub fn files_read(&self) -> Vec<PathBuf> {
        let state = self.0.state();
        state
            .live
            .names
            .iter()
            .filter(|(_, inode)| state.reads.contains_key(inode))
            .map(|(path, _)| path.clone())
            .collect()
    }

    pub fn log(&self) -> Log {
        let state = self.0.state();
        Log { start: state.start.clone(), ops: state.log.clone(), acknowledged: state.acknowledged.clone() }
    }
}

impl Shared {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Fails where a fault is due.
    pub fn strike(&mut self, kind: Kind) -> io::Result<()> {
        match self.faults.iter_mut().find_map(|fault| fault.strike(kind)) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    pub fn record(&mut self, op: Op) {
        let acknowledged = self.witness.as_mut().map_or(0, |witness| witness());
        self.log.push(op);
        self.acknowledged.push(acknowledged);
    }

    fn used(&self) -> u64 {
        self.live.files.values().map(Content::room).sum()
    }

    /// Fails where `more` bytes do not fit.
    pub fn take_room(&mut self, more: u64) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if more > 0 && self.used() + more > capacity => {
                self.was_full = true;
                Err(io::Error::from_raw_os_error(ENOSPC))
            }
            _ => Ok(()),
        }
    }

    fn inode(&self, path: &Path) -> io::Result<Inode> {
        self.live.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn folder_of(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(folder) if self.live.folders.contains(folder) => Ok(()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn create(&mut self, path: &Path) -> io::Result<Inode> {
        self.folder_of(path)?;
        self.strike(Kind::Name)?;
        let inode = self.next_inode;
        self.next_inode += 1;
        self.live.files.insert(inode, Content::default());
        self.rename_op(Op::Create(path.to_owned(), inode));
        Ok(inode)
    }

    fn rename_op(&mut self, op: Op) {
        apply_name(&mut self.live, &op);
        self.record(op);
    }

    pub fn write(&mut self, inode: Inode, offset: u64, data: &[u8]) -> io::Result<()> {
        let content = self.live.files.get(&inode).ok_or(io::ErrorKind::NotFound)?;
        let more = content.room_for(offset, data.len());
        self.strike(Kind::Write)?;
        self.take_room(more)?;
        self.live.files.entry(inode).or_default().write(offset, data);
        self.record(Op::Write(inode, offset, data.into()));
        Ok(())
    }

    pub fn set_len(&mut self, inode: Inode, len: u64) -> io::Result<()> {
        self.strike(Kind::Write)?;
        self.live.files.entry(inode).or_default().set_len(len);
        self.record(Op::SetLen(inode, len));
        Ok(())
    }

    pub fn sync(&mut self, inode: Inode) -> io::Result<()> {
        if let Err(error) = self.strike(Kind::Sync) {
            self.record(Op::Doom(inode));
            return Err(error);
        }
        self.record(Op::Sync(inode));
        Ok(())
    }

    /// Memory forgets what the medium may not have.
    fn settle(&mut self, inode: Inode) {
        let concerns = |op: &&Op| match op {
            Op::Write(of, ..) | Op::SetLen(of, _) | Op::Sync(of) | Op::Doom(of) | Op::Settle(of, _) => *of == inode,
            _ => false,
        };
        if !self.log.iter().any(|op| matches!(op, Op::Doom(of) if *of == inode)) {
            return;
        }
        let mut medium = Medium::new(self.start.clone());
        self.log.iter().filter(concerns).for_each(|op| medium.apply(op));
        let mut random = StdRng::seed_from_u64(self.log.len() as u64);
        if let Some(content) = medium.settled(inode, &mut random) {
            self.live.files.insert(inode, content.clone());
            self.record(Op::Settle(inode, content));
        }
    }

    pub fn read(&mut self, inode: Inode, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.strike(Kind::Read)?;
        *self.reads.entry(inode).or_default() += out.len() as u64;
        self.live.files.get(&inode).ok_or(io::ErrorKind::NotFound)?.read(offset, out)
    }
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedDisk")
    }
}

impl Disk for SimulatedDisk {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.0.state();
        state.folder_of(folder)?;
        if state.live.folders.contains(folder) || state.live.names.contains_key(folder) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.strike(Kind::Name)?;
        state.rename_op(Op::Folder(folder.to_owned()));
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Item>> {
        let mut state = self.0.state();
        state.strike(Kind::Read)?;
        if !state.live.folders.contains(folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let here = state.live.names.iter().filter(|(path, _)| path.parent() == Some(folder));
        Ok(here
            .map(|(path, inode)| Item {
                name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                size: state.live.files.get(inode).map(Content::len),
            })
            .collect())
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        let state = self.0.state();
        let inode = state.inode(path)?;
        Ok(state.live.files.get(&inode).map_or(0, Content::len))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut state = self.0.state();
        let inode = state.inode(path)?;
        let mut bytes = vec![0; state.live.files.get(&inode).map_or(0, Content::len) as usize];
        state.read(inode, 0, &mut bytes)?;
        Ok(bytes)
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut state = self.0.state();
        let inode = match state.inode(path) {
            Ok(inode) => {
                state.set_len(inode, 0)?;
                inode
            }
            Err(_) => state.create(path)?,
        };
        state.write(inode, 0, content)
    }

    fn overwrite(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut state = self.0.state();
        let inode = state.inode(path)?;
        state.write(inode, 0, content)?;
        state.sync(inode)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.state();
        let inode = state.inode(path)?;
        state.sync(inode)
    }

    fn drop_cache(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.state();
        let inode = state.inode(path)?;
        let _ = state.sync(inode);
        state.settle(inode);
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.0.state();
        state.strike(Kind::Sync)?;
        state.record(Op::SyncFolder(folder.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.state();
        state.inode(from)?;
        state.strike(Kind::Name)?;
        state.rename_op(Op::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.state();
        state.inode(from)?;
        if state.live.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.strike(Kind::Name)?;
        state.rename_op(Op::Link(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.state();
        state.inode(path)?;
        state.strike(Kind::Name)?;
        state.rename_op(Op::Remove(path.to_owned()));
        Ok(())
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn StorageBackend>> {
        let mut state = self.0.state();
        let inode = match state.inode(path) {
            Err(_) if access == Access::Create => state.create(path)?,
            inode => inode?,
        };
        if access != Access::Read {
            state.strike(Kind::Open)?;
        }
        drop(state);
        Ok(Box::new(Handle::new(Arc::clone(&self.0), inode)))
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Locked> {
        if self.0.state().held.iter().any(|held| held == path) {
            return Ok(Locked::By(String::from_utf8_lossy(&self.read(path)?).into_owned()));
        }
        match self.write(path, owner.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::StorageFull => return Err(error),
            _ => {}
        }
        self.0.state().held.push(path.to_owned());
        Ok(Locked::Taken(Box::new(Claim(Arc::clone(&self.0), path.to_owned()))))
    }

    fn is_locked(&self, path: &Path) -> bool {
        self.0.state().held.iter().any(|held| held == path)
    }

    fn free(&self, _folder: &Path) -> io::Result<u64> {
        let mut state = self.0.state();
        state.strike(Kind::Read)?;
        Ok(state.capacity.map_or(1 << 40, |capacity| capacity.saturating_sub(state.used())))
    }
}

/// A lock file that is held.
struct Claim(Arc<Shared>, PathBuf);

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claim({})", self.1.display())
    }
}

impl Held for Claim {}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.state().held.retain(|held| *held != self.1);
    }
}
