//! What a source remembers of its device over a restart: which paths and header it understands, and the certificate that
//! it showed at first use. A small file beside the queue, written when that changes, which is next to never.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::debug;

use super::rest_paths::Way;
use super::rest_trouble::CertificateHash;
use crate::config::{parse_fingerprint, show_fingerprint};
use crate::wear;

/// Bytes of the longest file that is read.
const LARGEST: u64 = 4096;

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// `host:port` that all of it is about.
    device: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    way: Option<Way>,
}

/// The memory of one source. Without a file it lasts as long as this.
#[derive(Debug)]
pub(super) struct Memory {
    file: Option<PathBuf>,
    kept: Kept,
    /// There is something that cannot be read: nothing new is trusted in its stead.
    damaged: Option<String>,
}

/// Where the source named `source` keeps what it remembers, in the queue's folder.
pub(super) fn file_of(folder: &Path, source: &str) -> PathBuf {
    folder.join(format!("rest-{source}"))
}

impl Memory {
    /// For as long as the process runs.
    pub(super) fn fleeting(device: String) -> Self {
        Self { file: None, kept: Kept { device, ..Kept::default() }, damaged: None }
    }

    /// Reads `file`, which may be missing. What is about another device than `device` (`host:port`) is forgotten.
    pub(super) async fn of(file: PathBuf, device: String) -> Self {
        let path = file.clone();
        let read = tokio::task::spawn_blocking(move || read(&path)).await;
        let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
        let mut memory = Self { file: Some(file), ..Self::fleeting(device) };
        match read {
            Ok(Some(kept)) if kept.device == memory.kept.device => memory.kept = kept,
            Ok(_) => {}
            Err(error) => memory.damaged = Some(error.to_string()),
        }
        memory
    }

    pub(super) fn way(&self) -> Option<Way> {
        self.kept.way
    }

    /// The certificate of the first use; none before that.
    pub(super) fn certificate(&self) -> Option<CertificateHash> {
        parse_fingerprint(self.fingerprint()?).ok()
    }

    /// The same, as text.
    pub(super) fn fingerprint(&self) -> Option<&str> {
        self.kept.certificate.as_deref()
    }

    /// Remembers the way. A file that cannot be written costs a few requests after the next restart, and no more.
    pub(super) async fn found(&mut self, way: Way) {
        if self.kept.way == Some(way) {
            return;
        }
        self.kept.way = Some(way);
        if let Err(error) = self.keep().await {
            debug!(%error, file = ?self.file, "which way the device speaks is not remembered");
        }
    }

    /// Trusts this certificate from now on, once that is on disk.
    ///
    /// # Errors
    ///
    /// It cannot be written, or what was there cannot be read. Then it is not trusted.
    pub(super) async fn trust(&mut self, certificate: &CertificateHash) -> Result<(), String> {
        if let Some(error) = &self.damaged {
            let file = self.file.as_deref().unwrap_or(Path::new("")).display();
            return Err(format!("{file} cannot be read ({error}); delete it to trust the device anew"));
        }
        let before = self.kept.certificate.replace(show_fingerprint(certificate));
        self.keep().await.map_err(|error| {
            self.kept.certificate = before;
            error.to_string()
        })
    }

    async fn keep(&self) -> io::Result<()> {
        let Some(file) = self.file.clone().filter(|_| self.damaged.is_none()) else { return Ok(()) };
        let text = toml::to_string(&self.kept).map_err(io::Error::other)?;
        let written = tokio::task::spawn_blocking(move || replace(&file, text.as_bytes())).await;
        written.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

fn read(path: &Path) -> io::Result<Option<Kept>> {
    use std::io::Read as _;
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => file.take(LARGEST).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    toml::from_str(&text).map(Some).map_err(|error| io::Error::other(error.message().to_owned()))
}

/// So that a power cut leaves the old one or the new one. The queue removes what it leaves unfinished, by its extension.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let mut file = File::create(&unfinished)?;
    file.write_all(content)?;
    file.sync_all()?;
    wear::flushed();
    fs::rename(&unfinished, path)?;
    File::open(folder)?.sync_all()?;
    wear::flushed();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::rest_paths::{Header, Paths};
    use super::*;

    const WAY: Way = Way { paths: Paths::Old, header: Header::AuthorizationToken };

    /// Promises 5 and 9: what is found out is there after a restart, for this device only.
    #[tokio::test]
    async fn what_is_found_out_outlives_a_restart() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = file_of(folder.path(), "meter.1");
        let open = |device: &str| Memory::of(file.clone(), device.to_owned());
        let mut memory = open("meter.lan:443").await;
        assert_eq!((memory.way(), memory.certificate()), (None, None));
        memory.trust(&[0xab; 32]).await.expect("written");
        memory.found(WAY).await;
        let again = open("meter.lan:443").await;
        assert_eq!((again.way(), again.certificate()), (Some(WAY), Some([0xab; 32])));
        let other = open("meter.lan:444").await;
        assert_eq!((other.way(), other.certificate()), (None, None));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing unfinished is left");
    }

    /// A certificate that cannot be remembered is not trusted: neither where the disk refuses, nor in place of one that
    /// cannot be read.
    #[tokio::test]
    async fn nothing_is_trusted_that_is_not_remembered() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut nowhere = Memory::of(folder.path().join("none/rest-meter"), String::new()).await;
        nowhere.trust(&[1; 32]).await.expect_err("there is no folder");
        assert_eq!(nowhere.certificate(), None);
        let file = file_of(folder.path(), "meter");
        fs::write(&file, b"\xff\0 torn").expect("write");
        let mut damaged = Memory::of(file.clone(), String::new()).await;
        let error = damaged.trust(&[1; 32]).await.expect_err("damaged");
        assert!(error.contains("rest-meter") && error.contains("delete it"), "{error}");
        damaged.found(WAY).await;
        assert_eq!(damaged.way(), Some(WAY));
        assert_eq!(fs::read(&file).expect("as it was"), b"\xff\0 torn");
    }
}
