//! `meterferry simulate --interface modbus`

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;

use super::Asked;
use crate::cli::terminal;
use crate::shutdown::Shutdown;
use crate::simulate::meter::{BASE, Meter};
use crate::simulate::modbus::{Event, Options, Server};
use crate::simulate::modbus_fault::Fault;

/// Below 1024 only root may listen, so that it is not 502.
const LISTEN: &str = "127.0.0.1:1502";

/// Unit ids behind one address.
const MOST: u32 = 247;

/// With `--interface modbus`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Modbus")]
#[group(skip)]
pub struct Args {
    /// SunSpec meter model: 201 to 204, or 211 to 214 for floats [default: 203]
    #[arg(long, value_name = "MODEL", value_parser = meter)]
    model: Option<Meter>,

    /// Unit id of the first meter; those of --devices follow [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=247))]
    unit: Option<u8>,

    /// The register of the SunSpec marker [default: 40000]
    #[arg(long, value_name = "REGISTER", value_parser = clap::value_parser!(u16).range(0..=65_000))]
    base: Option<u16>,
}

fn meter(text: &str) -> Result<Meter, String> {
    text.parse().ok().and_then(Meter::new).ok_or_else(|| "201 to 204, or 211 to 214".to_owned())
}

impl Args {
    /// An option that was given, for a message.
    pub fn given(&self) -> Option<&'static str> {
        let given =
            [("--model", self.model.is_some()), ("--unit", self.unit.is_some()), ("--base", self.base.is_some())];
        given.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }

    /// Answers until the stop.
    ///
    /// # Errors
    ///
    /// Why it cannot.
    pub async fn run(
        self,
        asked: &Asked,
        devices: u32,
        count: Option<u64>,
        seed: u64,
        start: Option<Timestamp>,
        shutdown: &Shutdown,
    ) -> Result<ExitCode, String> {
        let unit = self.unit.unwrap_or(1);
        if devices > MOST || u32::from(unit) + devices - 1 > MOST {
            return Err(format!("--devices is {devices}: the unit ids from {unit} on end at {MOST}"));
        }
        let (fault, fault_every) = asked.fault::<Fault>()?.unzip();
        let listen = match asked.listen {
            Some(listen) => listen,
            None => LISTEN.parse().map_err(|error| format!("{LISTEN}: {error}"))?,
        };
        let options = Options {
            listen,
            meter: self.model.unwrap_or_else(Meter::three_phase),
            base: self.base.unwrap_or(BASE),
            unit,
            devices,
            seed,
            index: 0,
            start_ms: start.map(Timestamp::as_millisecond),
            count,
            fault,
            fault_every: fault_every.unwrap_or(10),
            counts_readings: false,
        };
        let server = Server::bind(options).await.map_err(|error| format!("cannot listen at {listen}: {error}"))?;
        let address = server.address().map_err(|error| format!("cannot tell where it listens: {error}"))?;
        terminal::say(format_args!("listening at {address}"));
        let readings = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&readings);
        let observe = Arc::new(move |event: Event| match event {
            Event::Read { .. } => {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            Event::Faulted { fault } => terminal::say(format_args!("this reading is {fault}")),
            Event::Connected { client } => terminal::say(format_args!("{client} has connected")),
            Event::Disconnected { client } => terminal::say(format_args!("{client} has gone")),
        });
        server.run(observe, shutdown).await;
        terminal::say(format_args!("{} readings answered", readings.load(Ordering::Relaxed)));
        Ok(ExitCode::SUCCESS)
    }
}
