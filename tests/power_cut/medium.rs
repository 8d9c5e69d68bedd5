//! What a power cut leaves: plays a disk's log and rebuilds the states that the medium may be in.
//!
//! Durable is what was synchronised. Of the changes since, any may be there or not: whole, in part (sectors of 512
//! bytes), the later without the earlier. Names change in order, as a journal keeps them, each folder for itself, and a
//! file's name says nothing about its content: what was not synchronised is empty, zero or short.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::content::{Content, PAGE};
use crate::tree::{Inode, Tree};

/// The unit that a medium writes whole or not at all.
const SECTOR: usize = 512;

/// One change of the medium.
#[derive(Debug, Clone)]
pub enum Op {
    Folder(PathBuf),
    Create(PathBuf, Inode),
    Rename(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Remove(PathBuf),
    Write(Inode, u64, Arc<[u8]>),
    SetLen(Inode, u64),
    Sync(Inode),
    /// A failed synchronisation: a page that it was for becomes durable by a later one only where it is written again.
    Doom(Inode),
    /// The file is, for whoever reads it and for good, what the medium has.
    Settle(Inode, Content),
    SyncFolder(PathBuf),
}

impl Op {
    /// Whether it is rare and changes more than bytes: the states around it are looked at more often.
    pub fn is_turn(&self) -> bool {
        !matches!(self, Self::Write(..) | Self::Sync(_))
    }

    fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(path) | Self::Create(path, _) | Self::Rename(path, _) | Self::Link(path, _) => path.parent(),
            Self::Remove(path) => path.parent(),
            _ => None,
        }
    }
}

/// The medium after some of a log's operations.
#[derive(Debug, Clone)]
pub struct Medium {
    durable: Tree,
    /// Changes of names, by folder, not synchronised.
    names: BTreeMap<PathBuf, Vec<Op>>,
    /// Changes of content, by file, not synchronised.
    changes: BTreeMap<Inode, Vec<Change>>,
}

#[derive(Debug, Clone)]
struct Change {
    what: What,
    doomed: bool,
}

#[derive(Debug, Clone)]
enum What {
    Write(u64, Arc<[u8]>),
    SetLen(u64),
}

impl Medium {
    pub fn new(tree: Tree) -> Self {
        Self { durable: tree, names: BTreeMap::new(), changes: BTreeMap::new() }
    }

    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Write(inode, offset, data) => self.change(*inode, What::Write(*offset, Arc::clone(data))),
            Op::SetLen(inode, len) => self.change(*inode, What::SetLen(*len)),
            Op::Sync(inode) => {
                let content = self.durable.files.entry(*inode).or_default();
                if let Some(changes) = self.changes.get_mut(inode) {
                    changes.iter().filter(|change| !change.doomed).for_each(|change| change.what.apply(content));
                    changes.retain(|change| change.doomed);
                }
            }
            Op::Doom(inode) => {
                let changes = self.changes.entry(*inode).or_default();
                *changes = changes.drain(..).flat_map(Change::doom).collect();
            }
            Op::Settle(inode, content) => {
                self.durable.files.insert(*inode, content.clone());
                self.changes.remove(inode);
            }
            Op::SyncFolder(folder) => {
                for op in self.names.remove(folder).unwrap_or_default() {
                    apply_name(&mut self.durable, &op);
                }
            }
            name => {
                let folder = name.folder().expect("a change of a name").to_owned();
                self.names.entry(folder).or_default().push(name.clone());
            }
        }
    }

    fn change(&mut self, inode: Inode, what: What) {
        let changes = self.changes.entry(inode).or_default();
        changes.iter_mut().for_each(|change| change.doomed &= !what.dirties(&change.what));
        changes.push(Change { what, doomed: false });
    }

    /// What the medium has of a file that was just synchronised, as well as that went: of what is doomed, anything.
    pub fn settled(&self, inode: Inode, random: &mut StdRng) -> Option<Content> {
        let doomed = self.changes.get(&inode).filter(|changes| !changes.is_empty())?;
        let mut content = self.durable.files.get(&inode).cloned().unwrap_or_default();
        let share = [0.0, 0.5, 0.9][random.random_range(0..3)];
        for change in doomed.iter().filter(|_| random.random_bool(share)) {
            change.what.apply(&mut content);
        }
        Some(content)
    }

    /// What a kill leaves: everything, since the kernel goes on.
    pub fn kill(&self) -> Tree {
        let mut tree = self.durable.clone();
        self.names.values().flatten().for_each(|op| apply_name(&mut tree, op));
        for (inode, changes) in &self.changes {
            let content = tree.files.entry(*inode).or_default();
            changes.iter().for_each(|change| change.what.apply(content));
        }
        finish(tree)
    }

    /// One of the states that a power cut may leave.
    pub fn cut(&self, random: &mut StdRng) -> Tree {
        let mut tree = self.durable.clone();
        for ops in self.names.values() {
            let kept = match random.random_range(0..4) {
                0 => 0,
                1 => ops.len(),
                _ => random.random_range(0..=ops.len()),
            };
            ops[..kept].iter().for_each(|op| apply_name(&mut tree, op));
        }
        for (inode, changes) in &self.changes {
            survive(tree.files.entry(*inode).or_default(), changes, random);
        }
        finish(tree)
    }
}

impl Change {
    /// Page by page: each is lost, or written again, for itself. A length is in the journal, and not lost.
    fn doom(self) -> Vec<Self> {
        match self.what {
            What::Write(offset, data) if !self.doomed => {
                let mut pieces = Vec::new();
                let mut start = 0;
                while start < data.len() {
                    let at = offset + start as u64;
                    let end = (start + PAGE - at as usize % PAGE).min(data.len());
                    pieces.push(Self { what: What::Write(at, data[start..end].into()), doomed: true });
                    start = end;
                }
                pieces
            }
            what => vec![Self { what, ..self }],
        }
    }
}

impl What {
    /// Whether it makes a page of an earlier change be written again, or be gone.
    fn dirties(&self, earlier: &Self) -> bool {
        let page = PAGE as u64;
        match (self, earlier) {
            (Self::Write(offset, data), Self::Write(piece, _)) => {
                (offset / page..(offset + data.len() as u64).div_ceil(page)).contains(&(piece / page))
            }
            (Self::SetLen(len), Self::Write(piece, _)) => *len < (piece / page + 1) * page,
            (_, Self::SetLen(_)) => false,
        }
    }

    fn apply(&self, content: &mut Content) {
        match self {
            Self::Write(offset, data) => content.write(*offset, data),
            Self::SetLen(len) => content.set_len(*len),
        }
    }

    /// Only some of the sectors that it touches.
    fn apply_torn(&self, content: &mut Content, random: &mut StdRng, share: f64) {
        let Self::Write(offset, data) = self else { return self.apply(content) };
        let mut start = 0;
        while start < data.len() {
            let at = offset + start as u64;
            let end = (start + SECTOR - at as usize % SECTOR).min(data.len());
            if random.random_bool(share) {
                content.write(at, &data[start..end]);
            }
            start = end;
        }
    }
}

/// Applies a part of the unsynchronised changes, in one of the ways in which caches let them survive.
fn survive(content: &mut Content, changes: &[Change], random: &mut StdRng) {
    let lengths: Vec<u64> = lengths(content.len(), changes);
    let mut kept: Vec<&What> = changes.iter().map(|change| &change.what).collect();
    match random.random_range(0..7) {
        0 => kept.clear(),
        1 => {}
        2 => {
            let whole = random.random_range(0..=kept.len());
            kept[..whole].iter().for_each(|what| what.apply(content));
            if let Some(torn) = kept.get(whole) {
                torn.apply_torn(content, random, 0.5);
            }
            kept.clear();
        }
        3 => {
            // All but one or two.
            for _ in 0..random.random_range(1..=2) {
                if !kept.is_empty() {
                    kept.remove(random.random_range(0..kept.len()));
                }
            }
        }
        4 => {
            let share = random.random_range(0.1..0.9);
            kept.retain(|_| random.random_bool(share));
        }
        5 => {
            kept.shuffle(random);
            kept.truncate(random.random_range(0..=changes.len()));
        }
        _ => {
            let share = random.random_range(0.1..0.95);
            kept.drain(..).for_each(|what| what.apply_torn(content, random, share));
        }
    }
    kept.into_iter().for_each(|what| what.apply(content));
    // A file's length is written in its own time.
    if random.random_bool(0.2) {
        content.set_len(lengths[random.random_range(0..lengths.len())]);
    }
}

/// Every length that the file had since it was last synchronised.
fn lengths(durable: u64, changes: &[Change]) -> Vec<u64> {
    let mut lengths = vec![durable];
    for change in changes {
        let before = lengths[lengths.len() - 1];
        lengths.push(match &change.what {
            What::Write(offset, data) => before.max(offset + data.len() as u64),
            What::SetLen(len) => *len,
        });
    }
    lengths
}

/// A change of a name, as it is seen or as it survives. A change of what did not survive does not either.
pub fn apply_name(tree: &mut Tree, op: &Op) {
    match op {
        Op::Folder(path) => {
            tree.folders.insert(path.clone());
        }
        Op::Create(path, inode) => {
            tree.names.insert(path.clone(), *inode);
        }
        Op::Rename(from, to) => {
            if let Some(inode) = tree.names.remove(from) {
                tree.names.insert(to.clone(), inode);
            }
        }
        Op::Link(from, to) => {
            if let Some(inode) = tree.names.get(from).copied() {
                tree.names.insert(to.clone(), inode);
            }
        }
        Op::Remove(path) => {
            tree.names.remove(path);
        }
        _ => unreachable!("no change of a name: {op:?}"),
    }
}

/// Names in folders that are not there are not there either; every name has a file.
fn finish(mut tree: Tree) -> Tree {
    let folders = tree.folders.clone();
    tree.names.retain(|path, _| path.parent().is_some_and(|folder| folders.contains(folder)));
    let named: Vec<Inode> = tree.names.values().copied().collect();
    for inode in named {
        tree.files.entry(inode).or_default();
    }
    tree.drop_nameless();
    tree
}
