//! What tells this machine from another.

use std::fs;

use sha2::{Digest, Sha256};

/// Facts of the machine the agent runs on.
#[derive(Debug, Clone)]
pub struct Machine {
    pub host_name: String,
    /// systemd's machine id: the same on a cloned card.
    pub machine_id: String,
    /// The hardware's own serial number, which a cloned card does not bring along; none where there is none.
    pub hardware_serial: Option<String>,
}

impl Machine {
    /// Asks the kernel and `/etc/machine-id`.
    pub fn here() -> Self {
        let host_name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        Self {
            host_name,
            machine_id: fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned(),
            hardware_serial: serial(),
        }
    }

    /// The agent id of a queue for which none is configured: host name and six hexadecimal digits of the machine's id
    /// (hashed: machine-id(5) asks not to show it), since every Pi is called raspberrypi.
    pub fn default_agent_id(&self) -> String {
        let first = self.host_name.split('.').next().unwrap_or_default();
        let mut name: String = first
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' })
            .take(48)
            .collect();
        if name.is_empty() {
            name.push_str("meterferry");
        }
        let digest = Sha256::digest(format!("meterferry {}", self.machine_id));
        format!("{name}-{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2])
    }
}

/// A Raspberry Pi's serial number stands in the device tree, that of a PC in its firmware's tables.
fn serial() -> Option<String> {
    ["/sys/firmware/devicetree/base/serial-number", "/sys/class/dmi/id/product_uuid"].iter().find_map(|path| {
        let text = fs::read_to_string(path).ok()?;
        let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
        (!text.is_empty()).then(|| text.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 3: the id is legal in every place it stands in (no dot), and two Pis differ.
    #[test]
    fn default_agent_id_is_legal_and_differs() {
        let machine =
            |host: &str, id: &str| Machine { host_name: host.into(), machine_id: id.into(), hardware_serial: None };
        let one = machine("raspberrypi.local", "a").default_agent_id();
        let two = machine("raspberrypi.local", "b").default_agent_id();
        assert_ne!(one, two);
        for id in [one, two, machine("", "").default_agent_id(), machine("hö ß", "c").default_agent_id()] {
            assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'), "{id}");
        }
    }
}
