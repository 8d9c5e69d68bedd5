//! Which files are read, and in which order.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::files;
use super::problem::{Place, Report};
use super::raw::{self, Table};

/// Files in `conf.d`.
const MOST: usize = 256;

/// The configuration file; none (reported) where there is none.
pub fn main_file(explicit: Option<&Path>, environment: &Environment, report: &mut Report) -> Option<PathBuf> {
    if let Some(path) = explicit {
        return Some(path.to_owned());
    }
    let candidates = environment.candidates();
    // One that exists and may not be read is reported later: going on to the next would hide it.
    let found = candidates.iter().find(|path| !matches!(path.try_exists(), Ok(false)));
    if found.is_none() {
        let tried: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
        report.error_elsewhere(
            "there is no configuration file",
            format!("looked for {}; name another with --config FILE", tried.join(" and ")),
        );
    }
    found.cloned()
}

/// All tables: those of `main`, with those of `conf.d` beside it laid over them. None where `main` cannot be read
/// (reported): what it might say is not missing.
pub fn tables(main: &Path, report: &mut Report) -> Option<Table> {
    let mut root = file(main, true, report);
    for path in drop_ins(main, report) {
        let later = file(&path, false, report);
        if let (Some(root), Some(later)) = (&mut root, later) {
            root.overlay(later);
        }
    }
    root
}

/// The tables of one file; none where it cannot be read (reported).
pub fn file(path: &Path, main: bool, report: &mut Report) -> Option<Table> {
    let number = report.file(path);
    let place = Place { file: number, line: 0 };
    match files::read(path) {
        Ok(content) => Some(raw::parse(&content, number, report)),
        Err(error) => {
            let hint = match error.kind() {
                io::ErrorKind::NotFound if main => "name the file with --config FILE",
                io::ErrorKind::NotFound => "remove the link, or put there what it leads to",
                io::ErrorKind::PermissionDenied => "run as the user meterferry, or as root",
                _ if main => "name a file with --config FILE",
                _ => "every *.toml in conf.d is read: give it another ending, or move it away",
            };
            report.error(place, format!("cannot be read: {error}"), hint);
            None
        }
    }
}

/// The files of `conf.d` in the order of their names; hidden ones and other endings are not read.
fn drop_ins(main: &Path, report: &mut Report) -> Vec<PathBuf> {
    let folder = main.parent().unwrap_or(Path::new("")).join("conf.d");
    let listing = fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut paths: Vec<_> = match listing {
        Ok(entries) => entries.into_iter().map(|entry| entry.path()).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            let hint = "it is a folder that the agent's user may read, or not there";
            report.error_elsewhere(format!("{} cannot be read: {error}", folder.display()), hint);
            return Vec::new();
        }
    };
    paths.retain(|path| {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        path.extension().is_some_and(|ending| ending == "toml") && !hidden
    });
    paths.sort();
    if paths.len() > MOST {
        report.error_elsewhere(
            format!("{} holds {} files: at most {MOST}", folder.display(), paths.len()),
            "join some of them",
        );
        paths.truncate(MOST);
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::super::settings::{Delivery, Interface};
    use super::super::{Loaded, load};
    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        for (name, content) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("make the folder");
            fs::write(path, content).expect("write");
        }
    }

    fn loaded(explicit: Option<&Path>, environment: &Environment) -> Loaded {
        load(explicit, environment).unwrap_or_else(|problems| panic!("{problems}"))
    }

    const MAIN: &str = "[queue]\nmax_size = \"1 GiB\"\nmin_free = \"1 GiB\"\n[kafka]\ndelivery = \"at-least-once\"\n\
        [kafka.properties]\n\"client.rack\" = \"a\"\n[[source]]\nname = \"one\"\ntype = \"mqtt\"\n";

    /// A drop-in changes the keys that it names and no other, the last one wins, and sources are added in order.
    #[test]
    fn drop_ins_override_key_by_key() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let files = [
            ("meterferry.toml", MAIN),
            ("conf.d/20.toml", "queue.max_size = \"3 GiB\"\n[kafka.properties]\nclient.rack = \"b\"\n"),
            (
                "conf.d/10.toml",
                "[queue]\nmax_size = \"2 GiB\"\n[[source]]\nname = \"two\"\ntype = \"mqtt\"\nhost = \"b\"\n",
            ),
            ("conf.d/README", "not TOML"),
        ];
        write(folder.path(), &files);
        let environment = Environment::of(folder.path(), [("STATE_DIRECTORY", "/var/lib/meterferry")]);
        let Loaded { settings, files, .. } = loaded(None, &environment);
        assert_eq!((settings.queue.max_size, settings.queue.min_free), (3 << 30, 1 << 30));
        assert_eq!(settings.kafka.delivery, Delivery::AtLeastOnce);
        assert_eq!(settings.kafka.properties, [("client.rack".to_owned(), "b".to_owned())]);
        let names: Vec<_> = settings.sources.iter().map(|source| &*source.name).collect();
        assert_eq!(names, ["one", "two"]);
        let read: Vec<_> = files.iter().map(|file| file.strip_prefix(folder.path()).expect("inside")).collect();
        assert_eq!(read, [Path::new("meterferry.toml"), Path::new("conf.d/10.toml"), Path::new("conf.d/20.toml")]);
    }

    /// `--config` comes before the system's file, the system's before the user's; each has its own `conf.d`.
    #[test]
    fn files_are_looked_for_in_order() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let text = |topic: &str| format!("[kafka]\ntopic = \"{topic}\"\n");
        let (etc, user) = (folder.path().join("etc"), folder.path().join("user"));
        write(folder.path(), &[("own.toml", &text("own")), ("user/meterferry/meterferry.toml", &text("user"))]);
        let variables = [("XDG_CONFIG_HOME", user), ("STATE_DIRECTORY", PathBuf::from("/state"))];
        let environment = Environment::of(&etc, variables);
        let topic = |explicit: Option<&str>| {
            loaded(explicit.map(|name| folder.path().join(name)).as_deref(), &environment).settings.kafka.topic
        };
        assert_eq!(topic(None), "user");
        write(&etc, &[("meterferry.toml", &text("etc"))]);
        assert_eq!(topic(None), "etc");
        write(&etc, &[("conf.d/x.toml", &text("drop-in"))]);
        assert_eq!(topic(None), "drop-in");
        assert_eq!(topic(Some("own.toml")), "own");
    }

    /// A secret is systemd's credential before it is a file beside the configuration, and loses its last newline only.
    #[test]
    fn secrets_are_looked_for_in_order() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let source = "[[source]]\nname = \"sma\"\ntype = \"mqtt\"\nusername = \"u\"\npassword_file = \"secret\"\n";
        write(folder.path(), &[("meterferry.toml", source), ("secret", "beside"), ("credentials/other", "")]);
        let variables =
            [("CREDENTIALS_DIRECTORY", folder.path().join("credentials")), ("STATE_DIRECTORY", "/s".into())];
        let environment = Environment::of(folder.path(), variables);
        let password = || match &loaded(None, &environment).settings.sources[0].interface {
            Interface::Mqtt(mqtt) => mqtt.login.clone().expect("a login").password.0,
            _ => panic!("not a broker"),
        };
        assert_eq!(password(), "beside");
        write(folder.path(), &[("credentials/secret", " a b \r\n")]);
        assert_eq!(password(), " a b ");
    }
}
