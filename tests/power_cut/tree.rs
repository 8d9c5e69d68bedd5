//! Everything on a simulated medium at one moment: names, and the files behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::content::Content;

/// A file's number: a name leads to it, and more than one name may.
pub type Inode = u64;

#[derive(Debug, Clone, Default)]
pub struct Tree {
    pub folders: BTreeSet<PathBuf>,
    pub names: BTreeMap<PathBuf, Inode>,
    pub files: BTreeMap<Inode, Content>,
}

impl Tree {
    /// Nothing but one folder.
    pub fn root(folder: &str) -> Self {
        Self { folders: BTreeSet::from([PathBuf::from(folder)]), ..Self::default() }
    }

    pub fn content(&self, path: &Path) -> Option<&Content> {
        self.files.get(self.names.get(path)?)
    }

    /// The names in a folder that fulfil a condition, whole.
    pub fn names_where(&self, condition: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        let fits = |path: &&PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(&condition);
        self.names.keys().filter(fits).cloned().collect()
    }

    /// A file under a name, made or replaced.
    pub fn put(&mut self, path: &Path, content: Content) {
        let inode = self.files.keys().next_back().map_or(1, |last| last + 1);
        self.names.insert(path.to_owned(), inode);
        self.files.insert(inode, content);
    }

    /// Forgets the files that no name leads to.
    pub fn drop_nameless(&mut self) {
        let named: BTreeSet<Inode> = self.names.values().copied().collect();
        self.files.retain(|inode, _| named.contains(inode));
    }
}
