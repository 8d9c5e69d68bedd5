//! Whose permissions count: the doctor is often root, the agent never should be.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Uid, User};

/// The user of the package.
const PACKAGED: &str = "meterferry";
/// Where that user's queue is.
const HOME: &str = "/var/lib/meterferry";

/// A user and the groups it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gids: Vec<u32>,
}

/// Owner and mode of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owned {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

impl Owned {
    pub fn of(metadata: &fs::Metadata) -> Self {
        Self { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode() & 0o7777 }
    }
}

pub const READ: u32 = 4;
pub const WRITE: u32 = 2;
pub const ENTER: u32 = 1;

impl Account {
    /// The agent's: that of the process that runs, else the package's where the folder is its own or lies where its own
    /// does, else whoever asks.
    pub fn of_agent(process: Option<u32>, folder: &Path) -> Self {
        let running = process.and_then(|id| fs::metadata(format!("/proc/{id}")).ok()).map(|process| process.uid());
        let packaged = User::from_name(PACKAGED).ok().flatten().map(|user| user.uid.as_raw()).filter(|uid| {
            let owner = fs::metadata(folder).map(|folder| folder.uid());
            folder.starts_with(HOME) || owner.is_ok_and(|owner| owner == *uid)
        });
        Self::of(running.or(packaged).unwrap_or_else(|| Uid::effective().as_raw()))
    }

    fn of(uid: u32) -> Self {
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        let mut gids: Vec<u32> = user.iter().map(|user| user.gid.as_raw()).collect();
        if uid == Uid::effective().as_raw() {
            gids.push(Gid::effective().as_raw());
            gids.extend(nix::unistd::getgroups().unwrap_or_default().iter().map(|gid| gid.as_raw()));
        } else if let Some(user) = &user {
            gids.extend(supplementary(&user.name, &fs::read_to_string("/etc/group").unwrap_or_default()));
        }
        Self { name: user.map_or_else(|| format!("user {uid}"), |user| user.name), uid, gids }
    }

    /// Whether it is the one that asks.
    pub fn is_asking(&self) -> bool {
        self.uid == Uid::effective().as_raw()
    }

    /// Whether mode and owner let it do all of `wanted`; access control lists are not looked at.
    pub fn may(&self, owned: Owned, wanted: u32) -> bool {
        let bits = if self.uid == owned.uid {
            owned.mode >> 6
        } else if self.gids.contains(&owned.gid) {
            owned.mode >> 3
        } else {
            owned.mode
        };
        self.uid == 0 || bits & wanted == wanted
    }
}

/// The groups of `/etc/group` that name the user.
fn supplementary(user: &str, groups: &str) -> Vec<u32> {
    let member = |line: &str| -> Option<u32> {
        let fields: Vec<_> = line.split(':').collect();
        let [_, _, gid, members] = fields[..] else { return None };
        members.split(',').any(|member| member == user).then(|| gid.parse().ok())?
    };
    groups.lines().filter_map(member).collect()
}

/// How a user is called.
pub fn name_of(uid: u32) -> String {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| format!("user {uid}"), |user| user.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 9: owner, group and others are told apart as the kernel does it: the owner's bits are the owner's, also where
    /// others may more.
    #[test]
    fn permissions_as_the_kernel_sees_them() {
        let account = |uid, gids: &[u32]| Account { name: String::new(), uid, gids: gids.to_vec() };
        let owned = |mode| Owned { uid: 7, gid: 70, mode };
        assert!(account(7, &[]).may(owned(0o700), READ | WRITE | ENTER));
        assert!(!account(7, &[70]).may(owned(0o077), READ));
        assert!(account(8, &[70]).may(owned(0o640), READ));
        assert!(!account(8, &[70]).may(owned(0o640), WRITE));
        assert!(!account(8, &[71]).may(owned(0o640), READ));
        assert!(account(0, &[]).may(owned(0), READ | WRITE));
        assert_eq!(supplementary("meterferry", "adm:x:4:root\nssl:x:110:www,meterferry\nbad"), [110]);
    }
}
