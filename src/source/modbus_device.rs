//! One connection to a Modbus device: finding its meter, and reading it.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_modbus::client::{Client, Context, tcp};
use tokio_modbus::{Error, Request, Response, Slave};

use crate::config::settings::{Function, Modbus, Register};
use crate::config::{show_address, show_duration};
use crate::source::measured::Picture;
use crate::source::modbus_answer::Malformed;
use crate::source::modbus_fault::Fault;
use crate::source::modbus_wire::Wire;
use crate::source::registers::{self, Block, MAX_BLOCK};
use crate::source::sunspec::{BASES, COMMON_LENGTH, Chain, Common, MARKER, Model, is_meter, meter_words};
use crate::source::sunspec_meter::{self, FLOAT_LENGTH, INTEGER_LENGTH};

/// A model's id and length.
const HEAD: u16 = 2;

/// A device, and what was found in it.
pub struct Device {
    line: Line,
    pub identity: Identity,
}

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Its meter model, the register of its marker, and who made it, as far as it says so.
    SunSpec { base: u16, models: Vec<Model>, meter: Model, common: Common },
    /// What the configuration says.
    Registers { registers: Vec<Register>, blocks: Vec<Block> },
}

impl Identity {
    /// The meter's serial number; none where it is not told.
    pub fn serial(&self) -> Option<&str> {
        match self {
            Self::SunSpec { common, .. } => Some(&*common.serial).filter(|serial| !serial.is_empty()),
            Self::Registers { .. } => None,
        }
    }
}

/// `Fronius Smart Meter, serial number 1, SunSpec model 203 (three phases with neutral) at register 40069`
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SunSpec { meter, common, models, .. } => {
                let words = meter_words(meter.id);
                write!(f, "{common}, SunSpec model {} ({words}) at register {}", meter.id, meter.address - 2)?;
                let others = models.iter().filter(|model| is_meter(model.id) && *model != meter);
                let others: Vec<_> = others.map(|model| format!("{} at {}", model.id, model.address - 2)).collect();
                if others.is_empty() { Ok(()) } else { write!(f, "; not read: its meter {}", others.join(", ")) }
            }
            Self::Registers { registers, blocks } => {
                write!(f, "{} registers of the configuration, in {} requests", registers.len(), blocks.len())
            }
        }
    }
}

/// Where a marker is looked for, over several connections: some devices hang up, or are silent, where there are no registers.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Where it was the last time.
    known: Option<u16>,
    /// What the places said that were tried in vain in this round.
    tried: Vec<String>,
}

impl Device {
    /// Connects, and finds the meter.
    ///
    /// # Errors
    ///
    /// Why there is none. The connection is gone then.
    pub async fn connect(settings: &Modbus, search: &mut Search) -> Result<Self, Fault> {
        let connecting = TcpStream::connect((&*settings.host, settings.port));
        let stream = timeout(settings.timeout, connecting)
            .await
            .map_err(|_| Fault::Unreachable(format!("no answer within {}", show_duration(settings.timeout))))?
            .map_err(|error| Fault::Unreachable(plain(&error)))?;
        let _ = stream.set_nodelay(true);
        Self::over(stream, settings, search).await
    }

    /// The same over a connection that is there.
    ///
    /// # Errors
    ///
    /// As [`Device::connect`].
    pub async fn over<S>(stream: S, settings: &Modbus, search: &mut Search) -> Result<Self, Fault>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug + 'static,
    {
        let wire = Wire::new(stream);
        let came = wire.came();
        let mut line = Line { context: tcp::attach_slave(wire, Slave(settings.unit)), timeout: settings.timeout, came };
        let identity = if settings.registers.is_empty() {
            line.sunspec(settings.base, search).await?
        } else {
            let blocks = registers::blocks(&settings.registers);
            Identity::Registers { registers: settings.registers.clone(), blocks }
        };
        Ok(Self { line, identity })
    }

    /// Reads the meter once.
    ///
    /// A meter model fits one answer with its scale factors, so that all values are of one moment as far as the device
    /// makes them so; registers of the configuration may need several.
    ///
    /// # Errors
    ///
    /// Why there are no values. Where [`Fault::keeps_connection`] denies it, the device must be dropped.
    pub async fn read(&mut self) -> Result<Picture, Fault> {
        let line = &mut self.line;
        Ok(match &self.identity {
            Identity::SunSpec { meter, .. } => {
                // What a gateway shows behind one connection may be another meter the next time.
                let known = if meter.id >= 211 { FLOAT_LENGTH } else { INTEGER_LENGTH };
                let count = meter.length.min(known);
                let body = if count + HEAD <= MAX_BLOCK {
                    line.model(meter, count).await?
                } else {
                    // One word too long for one answer with its head.
                    line.model(meter, 0).await?;
                    line.registers(Block { function: Function::Holding, address: meter.address, count }).await?
                };
                sunspec_meter::read(meter.id, &body)
            }
            Identity::Registers { registers, blocks } => {
                let mut answers = Vec::with_capacity(blocks.len());
                for block in blocks {
                    answers.push((*block, line.registers(*block).await?));
                }
                registers::read(registers, &answers)
            }
        })
    }

    /// Says goodbye, for as long as one answer may take.
    pub async fn close(mut self) {
        let _ = timeout(self.line.timeout, self.line.context.disconnect()).await;
    }
}

/// A connection.
struct Line {
    context: Context,
    timeout: Duration,
    /// Bytes of the present answer.
    came: Arc<AtomicUsize>,
}

impl Line {
    async fn holding(&mut self, address: u16, count: u16) -> Result<Vec<u16>, Fault> {
        self.registers(Block { function: Function::Holding, address, count }).await
    }

    async fn sunspec(&mut self, base: Option<u16>, search: &mut Search) -> Result<Identity, Fault> {
        let base = self.marker(base, search).await?;
        let mut chain = Chain::new(base);
        loop {
            let head = match self.holding(chain.next(), 2).await {
                // Some end behind their last register, without an end marker.
                Err(Fault::Exception { code: 2, .. }) if chain.meter().is_some() => break,
                head => head?,
            };
            if chain.take(head[0], head[1])? {
                break;
            }
        }
        let Some((common, meter)) = chain.meter() else { return Err(Fault::no_meter(chain.models())) };
        let common = match common {
            Some(model) => Common::read(&self.holding(model.address, COMMON_LENGTH).await?),
            None => Common::default(),
        };
        Ok(Identity::SunSpec { base, models: chain.models().to_vec(), meter, common })
    }

    /// Looks for the marker where it may stand.
    async fn marker(&mut self, base: Option<u16>, search: &mut Search) -> Result<u16, Fault> {
        let places: Vec<u16> = match base {
            Some(base) => vec![base],
            None => {
                search.known.iter().chain(BASES.iter().filter(|base| search.known != Some(**base))).copied().collect()
            }
        };
        if search.tried.len() >= places.len() {
            search.tried.clear();
        }
        let first = search.tried.len();
        let mut refusals = Vec::new();
        for place in &places[first..] {
            let said = match self.holding(*place, 2).await {
                Ok(found) if found == MARKER => {
                    *search = Search { known: Some(*place), tried: Vec::new() };
                    return Ok(*place);
                }
                Ok(_) => "something else".to_owned(),
                Err(Fault::Exception { code, what }) => {
                    refusals.push((code, what));
                    format!("exception {code}")
                }
                // The next connection begins with the next place.
                Err(fault) => {
                    search.tried.push(format!("{place}: {fault}"));
                    return Err(fault);
                }
            };
            search.tried.push(format!("{place}: {said}"));
        }
        let tried = std::mem::take(search).tried;
        // Where it refuses everything alike, that is what is wrong; registers that are not there are no wonder.
        match refusals.split_first() {
            Some(((code, what), rest))
                if *code != 2
                    && rest.len() + 1 == places.len() - first
                    && rest.iter().all(|(other, _)| other == code) =>
            {
                Err(Fault::Exception { code: *code, what: what.clone() })
            }
            _ => Err(Fault::NoMarker(tried.join("; "))),
        }
    }

    /// The first `count` registers of a model, if it still stands where it stood.
    async fn model(&mut self, model: &Model, count: u16) -> Result<Vec<u16>, Fault> {
        let block = Block { function: Function::Holding, address: model.address - HEAD, count: count + HEAD };
        let mut words = self.registers(block).await?;
        if words[..usize::from(HEAD)] != [model.id, model.length] {
            return Err(Fault::Moved { was: model.id, now: words[0] });
        }
        Ok(words.split_off(HEAD.into()))
    }

    /// The words of a block, exactly as many as were asked for.
    async fn registers(&mut self, block: Block) -> Result<Vec<u16>, Fault> {
        let Block { function, address, count } = block;
        let request = match function {
            Function::Holding => Request::ReadHoldingRegisters(address, count),
            Function::Input => Request::ReadInputRegisters(address, count),
        };
        // Not by the library's own readers: in a debug build they panic at an answer of another size.
        let answer = timeout(self.timeout, self.context.call(request)).await;
        let what = || match count {
            1 => format!("register {address}"),
            _ => format!("registers {address} to {}", u32::from(address) + u32::from(count) - 1),
        };
        let late = |_| match self.came.load(Ordering::Relaxed) {
            0 => Fault::Silent(show_duration(self.timeout)),
            came => Fault::Malformed(Malformed::Stalled(came)),
        };
        let words = match answer.map_err(late)?.map_err(fault)? {
            Ok(Response::ReadHoldingRegisters(words) | Response::ReadInputRegisters(words)) => words,
            Ok(_) => return Err(Fault::Malformed(Malformed::Surplus)),
            Err(exception) => return Err(Fault::Exception { code: exception.into(), what: what() }),
        };
        if words.len() == usize::from(count) {
            Ok(words)
        } else {
            let got = u8::try_from(words.len() * 2).unwrap_or(u8::MAX);
            Err(Fault::Malformed(Malformed::Count { asked: count * 2, got }))
        }
    }
}

fn fault(error: Error) -> Fault {
    match error {
        Error::Transport(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<Malformed>()) {
            Some(malformed) => Fault::Malformed(*malformed),
            None if error.kind() == io::ErrorKind::InvalidData => Fault::Malformed(Malformed::Surplus),
            None => Fault::Closed(plain(&error)),
        },
        // The wire has compared them before.
        Error::Protocol(_) => Fault::Malformed(Malformed::Surplus),
    }
}

/// Without Rust's prefix and number.
fn plain(error: &io::Error) -> String {
    let text = match error.kind() {
        io::ErrorKind::UnexpectedEof => "it hung up".to_owned(),
        _ => error.source().map_or_else(|| error.to_string(), ToString::to_string),
    };
    let text = text.strip_prefix("failed to lookup address information: ").unwrap_or(&text);
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// `127.0.0.1:502 unit 1`
pub fn show_device(settings: &Modbus) -> String {
    format!("{} unit {}", show_address(&settings.host, settings.port), settings.unit)
}
