//! What is wrong with a configuration, in words: the place, the key, the value, the limit, and the cure as a hint.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// A line of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Number of the file in the order of reading.
    pub file: usize,
    /// Counted from 1; 0 is the file as a whole.
    pub line: usize,
}

/// One thing that is wrong, or worth a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// None where no file can be named.
    pub file: Option<PathBuf>,
    pub line: Option<usize>,
    pub message: String,
    pub hint: Option<String>,
}

impl Problem {
    /// `file:line: message`.
    pub fn text(&self) -> String {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => format!("{}:{line}: {}", file.display(), self.message),
            (Some(file), None) => format!("{}: {}", file.display(), self.message),
            (None, _) => self.message.clone(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.text())?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong, in the order of the files and their lines. The Display lists it all and ends with a count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    pub errors: Vec<Problem>,
    pub warnings: Vec<Problem>,
}

impl Problems {
    /// `3 problems`, and the warnings where there are any.
    pub fn count(&self) -> String {
        let files: BTreeSet<_> = self.errors.iter().filter_map(|problem| problem.file.as_ref()).collect();
        let mut text = plural(self.errors.len(), "problem");
        if !files.is_empty() {
            text += &format!(" in {}", plural(files.len(), "file"));
        }
        if !self.warnings.is_empty() {
            text += &format!(", {}", plural(self.warnings.len(), "warning"));
        }
        text
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.errors {
            writeln!(f, "error: {problem}")?;
        }
        for problem in &self.warnings {
            writeln!(f, "warning: {problem}")?;
        }
        write!(f, "{}", self.count())
    }
}

fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Collects what the checks find.
#[derive(Debug, Default)]
pub struct Report {
    files: Vec<PathBuf>,
    /// Files that keys name, and that were read.
    named: Vec<PathBuf>,
    errors: Vec<(Option<Place>, Problem)>,
    warnings: Vec<(Option<Place>, Problem)>,
}

impl Report {
    /// The next file to be read; its number is that of its places.
    pub fn file(&mut self, path: &Path) -> usize {
        self.files.push(path.to_owned());
        self.files.len() - 1
    }

    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// A file that a key names was read.
    pub fn was_read(&mut self, path: &Path) {
        self.named.push(path.to_owned());
    }

    pub fn named(&self) -> &[PathBuf] {
        &self.named
    }

    /// `file:line` of a place, for messages about two of them.
    pub fn name(&self, place: Place) -> String {
        format!("{}:{}", self.files[place.file].display(), place.line)
    }

    pub fn error(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        let problem = self.problem(Some(place), message.into(), hint.into());
        self.errors.push((Some(place), problem));
    }

    /// One that belongs to no file that was read.
    pub fn error_elsewhere(&mut self, message: impl Into<String>, hint: impl Into<String>) {
        let problem = self.problem(None, message.into(), hint.into());
        self.errors.push((None, problem));
    }

    pub fn warning(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        let problem = self.problem(Some(place), message.into(), hint.into());
        self.warnings.push((Some(place), problem));
    }

    pub fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    fn problem(&self, place: Option<Place>, message: String, hint: String) -> Problem {
        Problem {
            file: place.and_then(|place| self.files.get(place.file).cloned()),
            line: place.map(|place| place.line).filter(|line| *line > 0),
            message,
            hint: Some(hint).filter(|hint| !hint.is_empty()),
        }
    }

    /// Everything found, in the order of the files; what belongs to none comes last.
    pub fn finish(mut self) -> Problems {
        let sorted = |list: &mut Vec<(Option<Place>, Problem)>| {
            list.sort_by_key(|(place, _)| (place.is_none(), *place));
            list.drain(..).map(|(_, problem)| problem).collect()
        };
        Problems { errors: sorted(&mut self.errors), warnings: sorted(&mut self.warnings) }
    }
}
