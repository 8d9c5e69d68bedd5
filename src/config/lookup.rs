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

/// All tables: those of `main`, with those of `conf.d` beside it laid over them. None where a file cannot be read
/// (reported): what it might say is not missing.
pub fn tables(main: &Path, report: &mut Report) -> Option<Table> {
    let mut root = file(main, report);
    for path in drop_ins(main, report) {
        let later = file(&path, report);
        if let (Some(root), Some(later)) = (&mut root, later) {
            root.overlay(later);
        } else {
            root = None;
        }
    }
    root
}

fn file(path: &Path, report: &mut Report) -> Option<Table> {
    let number = report.file(path);
    let place = Place { file: number, line: 0 };
    match files::read(path) {
        Ok(content) => Some(raw::parse(&content, number, report)),
        Err(error) => {
            let hint = match error.kind() {
                io::ErrorKind::NotFound => "name the file with --config FILE",
                io::ErrorKind::PermissionDenied => "run as the user meterferry, or as root",
                _ => "",
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
            report.error_elsewhere(format!("{} cannot be read: {error}", folder.display()), "");
            return Vec::new();
        }
    };
    paths.retain(|path| {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        path.extension().is_some_and(|ending| ending == "toml") && !hidden
    });
    paths.sort();
    if paths.len() > MOST {
        report.error_elsewhere(format!("{} holds {} files: at most {MOST}", folder.display(), paths.len()), "");
        paths.truncate(MOST);
    }
    paths
}
