//! Who is let in by the listener, and how the others are refused. Pure, but for the name of a nameless client.

use std::fmt;

use rumqttc::{Connect, ConnectReturnCode};

use crate::config::settings::{Login, MqttListener};
use crate::reading::Fingerprint;

/// A client id may have this many bytes: it is logged, and stands in every record.
const MAX_CLIENT_ID: usize = 256;

/// How the names of nameless clients begin.
const GENERATED: &str = "generated-";

/// A client that is let in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Guest {
    pub(super) client_id: String,
    /// Seconds; 0: none.
    pub(super) keep_alive: u16,
}

/// Why a client is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Version,
    NoClientId,
    ClientIdTooLong,
    ClientIdWithNul,
    LoginNeeded,
    WrongLogin,
    Full,
}

impl Refusal {
    pub(super) fn code(self) -> ConnectReturnCode {
        match self {
            Self::Version => ConnectReturnCode::RefusedProtocolVersion,
            Self::NoClientId | Self::ClientIdTooLong | Self::ClientIdWithNul => ConnectReturnCode::BadClientId,
            Self::LoginNeeded => ConnectReturnCode::NotAuthorized,
            Self::WrongLogin => ConnectReturnCode::BadUserNamePassword,
            Self::Full => ConnectReturnCode::ServiceUnavailable,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "it does not speak MQTT 3.1.1",
            Self::NoClientId => "it has no client id, and wants a session kept: set a client id there",
            Self::ClientIdTooLong => "its client id is longer than 256 bytes",
            Self::ClientIdWithNul => "its client id holds a NUL, which no text of MQTT may (3.1.1, 1.5.3)",
            Self::LoginNeeded => "it shows no user: set user and password there, or allow_anonymous = true here",
            Self::WrongLogin => "its user or password is wrong",
            Self::Full => "max_clients is reached",
        })
    }
}

/// Whether the client is let in, and under which name.
pub(super) fn judge(connect: Connect, settings: &MqttListener) -> Result<Guest, Refusal> {
    match &connect.login {
        None if settings.allow_anonymous => {}
        None => return Err(Refusal::LoginNeeded),
        Some(shown) if knows(&settings.logins, &shown.username, &shown.password) => {}
        // A client that was given a user although none is needed.
        Some(_) if settings.logins.is_empty() && settings.allow_anonymous => {}
        Some(_) => return Err(Refusal::WrongLogin),
    }
    let client_id = match connect.client_id {
        id if id.len() > MAX_CLIENT_ID => return Err(Refusal::ClientIdTooLong),
        id if id.contains('\0') => return Err(Refusal::ClientIdWithNul),
        id if !id.is_empty() => id,
        _ if !connect.clean_session => return Err(Refusal::NoClientId),
        _ => format!("{GENERATED}{:016x}", rand::random::<u64>()),
    };
    Ok(Guest { client_id, keep_alive: connect.keep_alive })
}

/// Whether a client came without a name; one that calls itself so is treated the same.
pub(super) fn is_generated(client_id: &str) -> bool {
    client_id.starts_with(GENERATED)
}

/// Looks at every login and every byte, so that the time it takes tells nothing.
fn knows(logins: &[Login], username: &str, password: &str) -> bool {
    let shown = Fingerprint::of(&[username.as_bytes(), password.as_bytes()]);
    logins.iter().fold(false, |known, login| {
        let login = Fingerprint::of(&[login.username.as_bytes(), login.password.0.as_bytes()]);
        let difference = login.0.iter().zip(shown.0).fold(0, |difference, (a, b)| difference | (a ^ b));
        known | (std::hint::black_box(difference) == 0)
    })
}
