//! The queue's folder: may the agent use it, is there room, and what does it lie on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::account::{self, Account, ENTER, Owned, READ, WRITE};
use super::check::Check;
use super::place::{self, Medium, Mount};
use crate::cli::units::{bytes, chain};
use crate::config::settings;
use crate::queue::inspect::Inspector;
use crate::queue::{self, OpenError};

/// Files of others that are looked for in the folder: one is enough.
const FILES: usize = 100_000;

/// Below this an SD card is written to much more often than the default does it.
const SHORT_DELAY: Duration = Duration::from_secs(1);

/// What the folder shows.
#[derive(Debug, Clone)]
struct Facts {
    path: PathBuf,
    account: Account,
    /// Whoever asks may not look at it.
    hidden: bool,
    /// The folder itself, if it is there.
    owned: Option<Owned>,
    /// The folder or, where it is missing, the nearest one above it that is there.
    nearest: (PathBuf, Option<Owned>),
    /// A folder on the way there that the agent may not pass.
    closed: Option<(PathBuf, Owned)>,
    /// A file in it that the agent may not write.
    foreign: Option<(String, Owned)>,
    /// What stops it being used as a queue, as the agent would say it.
    refused: Option<String>,
    used: u64,
    free: Option<u64>,
    mount: Option<Mount>,
    medium: Option<Medium>,
}

/// All that can be said of the queue's folder without touching it.
pub fn look(settings: &settings::Queue, account: &Account) -> Vec<Check> {
    verdicts(settings, &facts(&settings.path, account))
}

fn facts(path: &Path, account: &Account) -> Facts {
    let owned = |path: &Path| fs::metadata(path).ok().map(|metadata| Owned::of(&metadata));
    let nearest = path.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/")).to_owned();
    // What is above a folder that may not be passed is seen; what is below is not.
    let above: Vec<_> = path.ancestors().skip(1).filter_map(|above| Some((above.to_owned(), owned(above)?))).collect();
    let closed = above.into_iter().rev().find(|(_, owned)| !account.may(*owned, ENTER));
    let refused = match Inspector::open(path) {
        Ok(_) | Err(OpenError::NoQueue { .. } | OpenError::Forbidden { .. } | OpenError::Folder { .. }) => None,
        Err(error) => Some(chain(&error)),
    };
    Facts {
        path: path.to_owned(),
        account: account.clone(),
        hidden: is_hidden(path),
        owned: owned(path),
        nearest: (nearest.clone(), owned(&nearest)),
        closed,
        foreign: foreign(path, account),
        refused,
        used: queue::bytes_there(path),
        free: queue::bytes_free(&nearest).ok(),
        mount: place::mount(&nearest),
        medium: place::medium(&nearest),
    }
}

/// Whether whoever asks may not look at the folder, or into it.
pub fn is_hidden(path: &Path) -> bool {
    fs::read_dir(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

fn foreign(path: &Path, account: &Account) -> Option<(String, Owned)> {
    fs::read_dir(path).ok()?.take(FILES).flatten().find_map(|entry| {
        let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        let owned = Owned::of(&metadata);
        let name = entry.file_name().to_string_lossy().into_owned();
        (!account.may(owned, READ | WRITE)).then_some((name, owned))
    })
}

fn verdicts(settings: &settings::Queue, facts: &Facts) -> Vec<Check> {
    let mut checks = vec![permissions(facts), room(settings, facts), file_system(facts)];
    checks.extend(medium(settings, facts));
    checks
}

fn belongs(owned: Owned) -> String {
    format!("belongs to {} with mode {:04o}", account::name_of(owned.uid), owned.mode)
}

fn permissions(facts: &Facts) -> Check {
    const NAME: &str = "folder";
    let (path, who) = (facts.path.display(), &facts.account.name);
    let give = format!("sudo chown -R {who}: {path}");
    if let Some((above, owned)) = &facts.closed {
        let message = format!("{path}: {who} may not pass {}, which {}", above.display(), belongs(*owned));
        return Check::wrong(NAME, message, "let others pass it").run(format!("sudo chmod a+x {}", above.display()));
    }
    if facts.hidden && !facts.account.is_asking() {
        return Check::skipped(NAME, format!("{path} belongs to others, and you may not look into it; try sudo"));
    }
    let Some(owned) = facts.owned else {
        let (nearest, owned) = (facts.nearest.0.display(), facts.nearest.1);
        return match owned {
            Some(owned) if facts.account.may(owned, WRITE | ENTER) => {
                Check::ok(NAME, format!("{path} is not there yet; {who} may make it"))
            }
            Some(_) if facts.path.starts_with("/var/lib/meterferry") => {
                Check::ok(NAME, format!("{path} is not there yet; systemd makes its place when the agent starts"))
            }
            Some(owned) => {
                let message = format!("{path} is not there, and {who} may not make it: {nearest} {}", belongs(owned));
                let make = format!("sudo install -d -o {who} -m 0700 {path}");
                Check::wrong(NAME, message, "make it for the agent's user").run(make)
            }
            None => Check::skipped(NAME, format!("{path} cannot be looked at; try sudo")),
        };
    };
    if !facts.account.may(owned, READ | WRITE | ENTER) {
        let message = format!("{path} {}: {who} may not use it", belongs(owned));
        if facts.hidden {
            // Whoever asks is taken for the agent's user for want of a better guess.
            let hint = format!("run this as the agent's user, or with sudo; if {who} is that user, give it the folder");
            return Check::wrong(NAME, message, hint).run(give);
        }
        return Check::wrong(NAME, message, "give it to the agent's user").run(give);
    }
    if let Some((file, owned)) = &facts.foreign {
        let message = format!("{file} in {path} {}: {who} may not write it", belongs(*owned));
        return Check::wrong(NAME, message, "give it to the agent's user").run(give);
    }
    if let Some(refused) = &facts.refused {
        let (message, hint) = refused.split_once("\n  hint: ").unwrap_or((refused, "see meterferry queue verify"));
        return Check::wrong(NAME, message, hint);
    }
    if owned.mode & 0o077 != 0 && owned.uid != 0 {
        let message = format!("{path} {}: others on this machine may look into it", belongs(owned));
        return Check::warning(NAME, message, "close it to them").run(format!("sudo chmod 0700 {path}"));
    }
    Check::ok(NAME, format!("{path} {}", belongs(owned)))
}

fn room(settings: &settings::Queue, facts: &Facts) -> Check {
    const NAME: &str = "room";
    let Some(free) = facts.free else { return Check::skipped(NAME, "the file system does not say what is free") };
    let (used, most, spare) = (facts.used, settings.max_size, settings.min_free);
    if facts.hidden {
        return Check::skipped(
            NAME,
            format!("{} free on the disk; what the queue takes is not to be seen", bytes(free)),
        );
    }
    if free < spare {
        let message = format!("{} free, and queue.min_free keeps {}: no reading is taken", bytes(free), bytes(spare));
        return Check::wrong(NAME, message, "delete what else is on this disk, or lower queue.min_free");
    }
    let reachable = used.saturating_add(free - spare);
    if reachable < most {
        let message = format!(
            "queue.max_size is {}, but only {} are there for it before queue.min_free ({}) ends it",
            bytes(most),
            bytes(reachable),
            bytes(spare)
        );
        return Check::warning(NAME, message, "lower queue.max_size to what the disk has, or take a larger one");
    }
    Check::ok(NAME, format!("{} used of {}, {} free on the disk", bytes(used), bytes(most), bytes(free)))
}

fn file_system(facts: &Facts) -> Check {
    const NAME: &str = "file system";
    let Some(mount) = &facts.mount else { return Check::skipped(NAME, "its mount was not found") };
    let (kind, point) = (mount.kind.as_str(), mount.point.display());
    let what = format!("{kind} at {point}");
    if mount.has("ro") {
        let hint = format!(
            "sudo mount -o remount,rw {point}; if the kernel did it after errors (dmesg), the card is dying: \
             meterferry rescue"
        );
        return Check::wrong(NAME, format!("{what} is mounted read-only"), hint);
    }
    match kind {
        "tmpfs" | "ramfs" => Check::wrong(
            NAME,
            format!("{what} is memory: what waits there is gone with the power"),
            "name a folder on a disk in queue.path",
        ),
        "overlay" => Check::warning(
            NAME,
            format!(
                "{what}: where its upper layer is memory (raspi-config's overlay), what waits is gone with the power"
            ),
            "mount a partition of its own for queue.path",
        ),
        "vfat" | "exfat" | "msdos" | "ntfs" | "ntfs3" | "fuseblk" => Check::warning(
            NAME,
            format!("{what} keeps no journal and no owners: a power cut may damage all that is on it"),
            "put the queue on ext4",
        ),
        "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "fuse.sshfs" => Check::warning(
            NAME,
            format!("{what} is another machine's disk: when that or the network is gone, readings are not taken"),
            "put the queue on a disk of this machine",
        ),
        _ if ["nobarrier", "barrier=0"].iter().any(|option| mount.has(option)) => Check::warning(
            NAME,
            format!("{what} is mounted without barriers: after a power cut, what was flushed may not be there"),
            "take nobarrier (barrier=0) out of /etc/fstab",
        ),
        _ if mount.has("sync") => Check::warning(
            NAME,
            format!("{what} is mounted with sync: each small write wears the disk"),
            "take sync out of /etc/fstab; the agent flushes what has to be flushed",
        ),
        _ => Check::ok(NAME, what),
    }
}

fn medium(settings: &settings::Queue, facts: &Facts) -> Option<Check> {
    const NAME: &str = "disk";
    let medium = facts.medium.as_ref()?;
    let size = if medium.bytes > 0 { format!(", {}", bytes(medium.bytes)) } else { String::new() };
    let kind = match (medium.card.as_deref(), medium.usb, medium.removable) {
        (Some("SD"), ..) => "an SD card",
        (Some(_), ..) => "eMMC",
        (None, true, true) => "a USB stick",
        (None, true, false) => "a USB disk",
        (None, false, true) => "a removable disk",
        (None, false, false) => "a disk",
    };
    let what = format!("{kind} ({}{size})", medium.name);
    let worn = medium.life.map_or(0, |(first, second)| first.max(second));
    let replace = "plan its replacement: stop the agent once the queue is empty, and copy the system to a new one";
    if worn >= 11 || medium.pre_eol == Some(3) {
        return Some(Check::wrong(NAME, format!("{what} says that it is worn out"), replace));
    }
    if worn >= 9 || medium.pre_eol == Some(2) {
        let used = if worn > 0 {
            format!("{} % of its life are used", u32::from(worn) * 10)
        } else {
            "80 % of its spare blocks are used".to_owned()
        };
        return Some(Check::warning(NAME, format!("{what}: {used}"), replace));
    }
    let flash = medium.card.is_some() || (medium.usb && medium.removable);
    if flash && settings.commit_delay < SHORT_DELAY {
        let message = format!("{what}, and queue.commit_delay is {:?}: each commit wears it", settings.commit_delay);
        return Some(Check::warning(NAME, message, "leave queue.commit_delay at its default, 5s"));
    }
    let life =
        if worn > 0 { format!("; at most {} % of its life are used", u32::from(worn) * 10) } else { String::new() };
    Some(Check::ok(NAME, format!("{what}{life}")))
}

#[cfg(test)]
mod tests {
    use super::super::print::shown;
    use super::*;
    use crate::config::{Environment, defaults};

    const AGENT: u32 = 4_000_000_001;

    fn settings() -> settings::Queue {
        defaults(&Environment::of("/etc/meterferry", [("STATE_DIRECTORY", "/var/lib/meterferry")])).queue
    }

    fn well() -> Facts {
        let path = PathBuf::from("/var/lib/meterferry/queue");
        let owned = Owned { uid: AGENT, gid: AGENT, mode: 0o700 };
        Facts {
            path: path.clone(),
            account: Account { name: "meterferry".into(), uid: AGENT, gids: vec![AGENT] },
            hidden: false,
            owned: Some(owned),
            nearest: (path, Some(owned)),
            closed: None,
            foreign: None,
            refused: None,
            used: 48 << 20,
            free: Some(20 << 30),
            mount: Some(Mount { point: "/".into(), kind: "ext4".into(), options: vec!["rw".into(), "noatime".into()] }),
            medium: Some(Medium {
                name: "mmcblk0".into(),
                bytes: 32 << 30,
                card: Some("SD".into()),
                ..Medium::default()
            }),
        }
    }

    fn said(change: impl FnOnce(&mut Facts, &mut settings::Queue)) -> String {
        let (mut facts, mut settings) = (well(), settings());
        change(&mut facts, &mut settings);
        shown(verdicts(&settings, &facts))
    }

    /// Promise 9: a folder on a good card is four short lines.
    #[test]
    fn all_well() {
        insta::assert_snapshot!(said(|_, _| {}));
    }

    /// Promise 9: each thing that can be wrong with the folder, as a person reads it.
    #[test]
    fn permissions_and_room() {
        let other = Owned { uid: 0, gid: 0, mode: 0o700 };
        let cases = [
            said(|facts, _| facts.owned = Some(other)),
            said(|facts, _| facts.closed = Some(("/var/lib/meterferry".into(), other))),
            said(|facts, _| facts.foreign = Some(("dead-letters.redb".into(), Owned { mode: 0o600, ..other }))),
            said(|facts, _| facts.owned = Some(Owned { uid: AGENT, gid: AGENT, mode: 0o755 })),
            said(|facts, _| facts.refused = Some("/q holds agent id \"a\"\n  hint: remove agent.id".into())),
            said(|facts, _| facts.hidden = true),
            said(|facts, _| facts.owned = None),
            said(|facts, _| {
                (facts.owned, facts.path) = (None, "/srv/queue".into());
                facts.nearest = ("/srv".into(), Some(Owned { mode: 0o755, ..other }));
            }),
            said(|facts, _| {
                (facts.owned, facts.path) = (None, "/srv/queue".into());
                facts.nearest = ("/srv".into(), Some(other));
                facts.account.uid = 0;
            }),
            said(|facts, _| facts.free = Some(100 << 20)),
            said(|facts, _| facts.free = Some(1 << 30)),
            said(|facts, _| facts.free = None),
        ];
        insta::assert_snapshot!(cases.join("\n"));
    }

    /// Promise 9: file systems and media that lose readings or wear out are named, with the cure.
    #[test]
    fn file_systems_and_media() {
        let kind = |kind: &'static str| said(move |facts, _| facts.mount.as_mut().expect("a mount").kind = kind.into());
        let option = |option: &'static str| {
            said(move |facts, _| facts.mount.as_mut().expect("a mount").options.push(option.into()))
        };
        let emmc = |life, pre_eol| {
            said(move |facts, _| {
                let card = Some("MMC".into());
                facts.medium = Some(Medium { name: "mmcblk0".into(), card, life, pre_eol, ..Medium::default() });
            })
        };
        let cases = [
            kind("tmpfs"),
            kind("overlay"),
            kind("vfat"),
            kind("nfs4"),
            option("ro"),
            option("sync"),
            option("barrier=0"),
            said(|facts, _| facts.mount = None),
            emmc(Some((1, 2)), Some(1)),
            emmc(Some((1, 9)), Some(1)),
            emmc(Some((0, 0)), Some(2)),
            emmc(Some((11, 2)), Some(1)),
            said(|facts, _| facts.medium.as_mut().expect("a medium").card = None),
            said(|facts, _| {
                let medium = facts.medium.as_mut().expect("a medium");
                (medium.card, medium.usb, medium.removable) = (None, true, true);
            }),
            said(|_, settings| settings.commit_delay = Duration::from_millis(100)),
            said(|facts, _| facts.medium = None),
        ];
        insta::assert_snapshot!(cases.join("\n"));
    }
}
