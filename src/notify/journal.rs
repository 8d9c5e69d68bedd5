//! The journal, in its own words: a field for each value, so that `journalctl METERFERRY_SOURCE=sma` finds it.
//!
//! Protocol: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>: a datagram of fields to a socket. MESSAGE is the line as a person
//! reads it, values included.

use std::fmt::{self, Write as _};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::fstat;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// How long a line waits for a journal that does not read; then it is lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of one value; longer ones are cut.
const LONGEST: usize = 16 << 10;

/// The way to the journal.
#[derive(Debug)]
pub struct Journal(UnixDatagram);

impl Journal {
    /// The journal, if it is what standard error goes to: `stream` is `$JOURNAL_STREAM`, device and inode (systemd.exec(5)).
    pub fn of_standard_error(stream: Option<&str>) -> Option<Self> {
        let (device, inode) = stream?.split_once(':')?;
        let own = fstat(io::stderr().as_fd()).ok()?;
        let same = device.parse() == Ok(own.st_dev) && inode.parse() == Ok(own.st_ino);
        same.then(|| Self::at(Path::new(SOCKET)).ok()).flatten()
    }

    fn at(socket: &Path) -> io::Result<Self> {
        let datagram = UnixDatagram::unbound()?;
        datagram.connect(socket)?;
        datagram.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(datagram))
    }

    /// What the journal does not take goes to standard error, which the journal reads too.
    fn send(&self, entry: &Entry, metadata: &Metadata<'_>) {
        let refused = match self.0.send(&entry.datagram(metadata)) {
            Ok(_) => return,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => error,
        };
        let too_long = refused.raw_os_error() == Some(Errno::EMSGSIZE as i32);
        if !too_long || self.0.send(&Entry { fields: Vec::new(), ..entry.clone() }.datagram(metadata)).is_err() {
            let mut error = anstream::stderr().lock();
            // There is nowhere left to say that this fails.
            let _ =
                io::Write::write_fmt(&mut error, format_args!("<{}>{}\n", priority(metadata.level()), entry.line()));
        }
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut entry = Entry::default();
        event.record(&mut entry);
        self.send(&entry, event.metadata());
    }
}

/// One event.
#[derive(Debug, Clone, Default)]
struct Entry {
    message: String,
    /// Behind the message, as in `source="sma" delay_ms=20`.
    tail: String,
    fields: Vec<(String, String)>,
}

impl Entry {
    fn line(&self) -> String {
        format!("{}{}", self.message, self.tail)
    }

    fn datagram(&self, metadata: &Metadata<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&mut bytes, "MESSAGE", &self.line());
        put(&mut bytes, "PRIORITY", priority(metadata.level()));
        put(&mut bytes, "SYSLOG_IDENTIFIER", "meterferry");
        put(&mut bytes, "METERFERRY_TARGET", metadata.target());
        for (name, value) in &self.fields {
            put(&mut bytes, &format!("METERFERRY_{name}"), value);
        }
        bytes
    }

    fn take(&mut self, field: &Field, text: String, shown: &str) {
        if field.name() == "message" {
            self.message = text;
            return;
        }
        // A string takes everything.
        let _ = write!(self.tail, " {}={shown}", field.name());
        let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        self.fields.push((field.name().chars().map(letter).collect(), text));
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.to_owned(), &format!("{value:?}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        self.take(field, text.clone(), &text);
    }
}

/// A value with a line break has its length before it, the others end with the line.
fn put(bytes: &mut Vec<u8>, name: &str, value: &str) {
    let end = (0..=value.len().min(LONGEST)).rev().find(|end| value.is_char_boundary(*end)).unwrap_or(0);
    let value = &value[..end];
    bytes.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        bytes.push(b'\n');
        bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        bytes.push(b'=');
    }
    bytes.extend_from_slice(value.as_bytes());
    bytes.push(b'\n');
}

/// syslog(3).
fn priority(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

#[cfg(test)]
mod tests {
    use tracing::{info, warn};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn sent(say: impl FnOnce()) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("socket");
        let journal = UnixDatagram::bind(&path).expect("bound");
        let subscriber = tracing_subscriber::registry().with(Journal::at(&path).expect("connected"));
        tracing::subscriber::with_default(subscriber, say);
        let mut buffer = vec![0; 1 << 20];
        let length = journal.recv(&mut buffer).expect("received");
        buffer.truncate(length);
        buffer
    }

    /// Promise 9: a person reads the line with its values, a program the values.
    #[test]
    fn fields_are_native() {
        let bytes = sent(|| warn!(source = "sma", delay_ms = 20, error = %"no route", "connection lost"));
        let text = String::from_utf8(bytes).expect("UTF-8");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "MESSAGE=connection lost source=\"sma\" delay_ms=20 error=no route");
        for line in ["PRIORITY=4", "METERFERRY_SOURCE=sma", "METERFERRY_DELAY_MS=20", "METERFERRY_ERROR=no route"] {
            assert!(lines.contains(&line), "{line} is missing in {text}");
        }
    }

    /// Promise 5: whatever a device's name holds, it makes no field of its own; whatever its length, it is told.
    #[test]
    fn line_breaks_and_lengths_are_taken() {
        let bytes = sent(|| info!(topic = "a\nPRIORITY=0", "new"));
        let expected = [b"METERFERRY_TOPIC\n".as_slice(), &12_u64.to_le_bytes(), b"a\nPRIORITY=0\n"].concat();
        assert!(bytes.windows(expected.len()).any(|window| window == expected), "{}", bytes.escape_ascii());
        let long = "ü".repeat(1 << 20);
        let bytes = sent(|| info!(topic = long, "new"));
        assert!(bytes.len() < 5 * LONGEST, "{} bytes", bytes.len());
    }
}
