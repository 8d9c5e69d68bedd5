//! `[privacy]`: what must not leave the house is taken out before anything is stored.

use ring::hmac;

use crate::config::settings::{Privacy, Secret};
use crate::decode::{Code, Decoded};
use crate::obis::{Obis, Quantity};

/// How the reason of a dead letter ends whose payload was cut short.
pub(in crate::agent) const KEPT: &str = "bytes are kept";

/// Bytes of a pseudonym: no two devices of the world share one.
const PSEUDONYM: usize = 16;

/// What is taken out.
#[derive(Debug)]
pub struct Withheld {
    /// Canonical.
    codes: Option<Vec<Obis>>,
    key: Option<hmac::Key>,
    /// Of the hash of what is no reading: a plain one would tell a short message to whoever tries them all.
    seal: hmac::Key,
    set: bool,
}

impl Withheld {
    pub fn new(privacy: &Privacy) -> Self {
        let of_secret = |key: &Secret| hmac::Key::new(hmac::HMAC_SHA256, key.0.as_bytes());
        let key = privacy.pseudonym_key.as_ref().map(of_secret);
        let random: [u8; 32] = rand::random();
        Self {
            codes: privacy.codes.as_ref().map(|codes| codes.iter().map(Obis::canonical).collect()),
            seal: key.clone().unwrap_or_else(|| hmac::Key::new(hmac::HMAC_SHA256, &random)),
            key,
            set: privacy.is_set(),
        }
    }

    /// Whether anything is.
    pub fn is_set(&self) -> bool {
        self.set
    }

    /// Whether only some codes may leave.
    pub fn chooses(&self) -> bool {
        self.codes.is_some()
    }

    /// The device's name as it may be known: a keyed hash of it (HMAC-SHA-256, 16 bytes, hexadecimal) where there is a key.
    pub fn device(&self, device: String) -> String {
        let Some(key) = &self.key else { return device };
        let tag = hmac::sign(key, device.as_bytes());
        tag.as_ref().iter().take(PSEUDONYM).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Leaves what may be known. None where nothing is left.
    pub fn filter(&self, mut decoded: Decoded) -> Option<Decoded> {
        decoded.measurements.retain(|measurement| self.may_leave(&measurement.code));
        (!decoded.measurements.is_empty()).then_some(decoded)
    }

    fn may_leave(&self, code: &Code) -> bool {
        let allowed = match (code, &self.codes) {
            (_, None) => true,
            (Code::Obis(code), Some(codes)) => codes.contains(&code.canonical()),
            (Code::Other(_), Some(_)) => false,
        };
        // With a pseudonym, nothing else may say whose meter it is. What is unknown may be its number too.
        allowed && (self.key.is_none() || !names_the_device(code))
    }

    /// What is said of a message that is no reading, in place of the message. Its hash is keyed: with the key of the
    /// pseudonyms, else with one that is forgotten when the agent ends.
    pub fn instead_of(&self, payload: &[u8], reason: &str) -> String {
        let tag = hmac::sign(&self.seal, payload);
        let tag: String = tag.as_ref().iter().take(PSEUDONYM).map(|byte| format!("{byte:02x}")).collect();
        format!("{reason}; of its {} bytes with the keyed hash {tag} no {KEPT}", payload.len())
    }
}

fn names_the_device(code: &Code) -> bool {
    match code {
        Code::Obis(code) => code
            .meaning()
            .is_none_or(|meaning| matches!(meaning.quantity, Quantity::MeterNumber | Quantity::DeviceName)),
        Code::Other(_) => true,
    }
}
