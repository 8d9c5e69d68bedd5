//! One visit to a Modbus device: what it is, and what it says, for `meterferry doctor`.

use crate::config::settings::Modbus;
use crate::source::measured::{self, Counters, Picture};
use crate::source::modbus_device::{Device, Identity, Search};
use crate::source::modbus_fault::Fault;
use crate::source::sunspec::BASES;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub identity: Identity,
    /// One poll's values, or why there are none.
    pub picture: Result<Picture, Fault>,
    /// Its document.
    pub document: Vec<u8>,
}

/// Connects, finds the meter and reads it once.
///
/// # Errors
///
/// Why no meter was found.
pub async fn visit(settings: &Modbus) -> Result<Found, Fault> {
    let mut search = Search::default();
    let mut device = connect(settings, &mut search).await?;
    let identity = device.identity.clone();
    let mut picture = device.read().await;
    let mut document = Vec::new();
    if let Ok(found) = &mut picture {
        Counters::default().judge(found);
    }
    picture = picture.and_then(|found| if found.measured.is_empty() { Err(Fault::Nothing) } else { Ok(found) });
    if let Ok(picture) = &picture {
        document = measured::document(identity.serial(), settings.device.as_deref(), picture);
    }
    device.close().await;
    Ok(Found { identity, picture, document })
}

/// Where there are no registers some devices are silent or hang up: then the next place is looked at on a connection of its
/// own, as the agent does.
async fn connect(settings: &Modbus, search: &mut Search) -> Result<Device, Fault> {
    let places = if settings.base.is_none() && settings.registers.is_empty() { BASES.len() } else { 1 };
    let mut result = Device::connect(settings, search).await;
    for _ in 1..places {
        match result {
            Err(Fault::Silent(_) | Fault::Closed(_)) => result = Device::connect(settings, search).await,
            _ => break,
        }
    }
    result
}
