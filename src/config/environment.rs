//! What the configuration takes from its surroundings, handed in so that nothing else reads it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What systemd gives to meterferry.service.
const SERVICE: [(&str, &str); 2] =
    [("STATE_DIRECTORY", "/var/lib/meterferry"), ("CREDENTIALS_DIRECTORY", "/run/credentials/meterferry.service")];

/// Environment variables, and the folder of the system's configuration.
#[derive(Debug, Clone)]
pub struct Environment {
    variables: HashMap<String, PathBuf>,
    system: PathBuf,
}

impl Environment {
    /// That of this process, with `/etc/meterferry`.
    pub fn of_process() -> Self {
        let folders = [
            "STATE_DIRECTORY",
            "RUNTIME_DIRECTORY",
            "CREDENTIALS_DIRECTORY",
            "XDG_CONFIG_HOME",
            "XDG_STATE_HOME",
            "HOME",
        ];
        let service_manager = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "JOURNAL_STREAM"];
        let variables = folders
            .into_iter()
            .chain(service_manager)
            .filter_map(|name| Some((name.to_owned(), PathBuf::from(std::env::var_os(name)?))))
            .collect();
        Self { variables, system: PathBuf::from("/etc/meterferry") }
    }

    /// For a person who looks after a service from outside: where the packaged configuration is used, the service's own
    /// folders stand in for variables that only its process has.
    #[must_use]
    pub fn beside_service(mut self, explicit: Option<&Path>) -> Self {
        let packaged = self.system.join("meterferry.toml");
        if explicit.map_or_else(|| packaged.exists(), |file| file.starts_with(&self.system)) {
            for (name, folder) in SERVICE {
                let folder = Path::new(folder);
                if !self.variables.contains_key(name) && folder.is_dir() {
                    self.variables.insert(name.to_owned(), folder.to_owned());
                }
            }
        }
        self
    }

    /// One with `variables` only, whose system folder is `system`.
    pub fn of<N: Into<String>, V: Into<PathBuf>>(
        system: impl Into<PathBuf>,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { variables, system: system.into() }
    }

    /// A variable that the service manager sets: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `JOURNAL_STREAM`.
    pub fn variable(&self, name: &str) -> Option<&std::ffi::OsStr> {
        self.variables.get(name).map(|value| value.as_os_str())
    }

    /// Files that are the configuration where none is named, the first that exists wins.
    pub fn candidates(&self) -> Vec<PathBuf> {
        let user = self.folder("XDG_CONFIG_HOME").or_else(|| Some(self.folder("HOME")?.join(".config")));
        let mut found = vec![self.system.join("meterferry.toml")];
        found.extend(user.map(|folder| folder.join("meterferry/meterferry.toml")));
        found
    }

    /// The folder for data: `$STATE_DIRECTORY` (the first of systemd's colon list), else `meterferry` in the XDG state
    /// folder. None where neither these nor `$HOME` are set.
    pub fn state(&self) -> Option<PathBuf> {
        if let Some(list) = self.variables.get("STATE_DIRECTORY") {
            let first = list.to_string_lossy().split(':').next().map(PathBuf::from);
            if let Some(first) = first.filter(|path| path.is_absolute()) {
                return Some(first);
            }
        }
        let user = self.folder("XDG_STATE_HOME").or_else(|| Some(self.folder("HOME")?.join(".local/state")))?;
        Some(user.join("meterferry"))
    }

    /// `$RUNTIME_DIRECTORY`, the first of systemd's colon list: where a running agent's socket is. None outside of systemd.
    pub fn runtime(&self) -> Option<PathBuf> {
        let list = self.variables.get("RUNTIME_DIRECTORY")?;
        let first = list.to_string_lossy().split(':').next().map(PathBuf::from);
        first.filter(|path| path.is_absolute())
    }

    /// Where a relative file of `[…] password_file` and its like may stand: `$CREDENTIALS_DIRECTORY`, then `beside`.
    pub fn places_of(&self, file: &Path, beside: &Path) -> Vec<PathBuf> {
        if file.is_absolute() {
            return vec![file.to_owned()];
        }
        let mut places: Vec<_> =
            self.folder("CREDENTIALS_DIRECTORY").map(|folder| folder.join(file)).into_iter().collect();
        places.push(beside.join(file));
        places
    }

    /// The XDG specification ignores relative folders.
    fn folder(&self, name: &str) -> Option<PathBuf> {
        self.variables.get(name).filter(|path| path.is_absolute()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Environment {
        Environment::of("/etc/meterferry", variables.iter().copied())
    }

    /// The data folder is systemd's, else the user's; nothing is guessed from a relative path.
    #[test]
    fn state_is_found_in_order() {
        let all = [("STATE_DIRECTORY", "/var/lib/a:/var/lib/b"), ("XDG_STATE_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(with(&all).state(), Some("/var/lib/a".into()));
        assert_eq!(with(&all[1..]).state(), Some("/x/meterferry".into()));
        assert_eq!(with(&all[2..]).state(), Some("/h/.local/state/meterferry".into()));
        assert_eq!(with(&[("STATE_DIRECTORY", ""), ("XDG_STATE_HOME", "rel"), ("HOME", "")]).state(), None);
    }

    /// The system's file comes before the user's.
    #[test]
    fn candidates_are_in_order() {
        let found = with(&[("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")]).candidates();
        assert_eq!(found, [PathBuf::from("/etc/meterferry/meterferry.toml"), "/x/meterferry/meterferry.toml".into()]);
        let found = with(&[("HOME", "/h")]).candidates();
        assert_eq!(found[1], PathBuf::from("/h/.config/meterferry/meterferry.toml"));
    }
}
