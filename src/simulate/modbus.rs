//! A SunSpec device on Modbus TCP: meters behind one address, each with a unit id of its own, and faults on demand.
//!
//! It speaks Modbus by itself, not by the library that the source uses, so that the one is held against the other.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::adapter::{self, Adapter, State};
use super::meter::{BASE, Meter, Tampering};
use super::modbus_fault::Fault;
use crate::shutdown::Shutdown;

/// Clients at one time; a real meter has room for one to four.
const MOST_CLIENTS: usize = 64;

/// How long a slow answer takes.
const SLOW: Duration = Duration::from_secs(20);

/// Bytes of an answer that never ends, after which the client is believed to have gone.
const ENDLESS: usize = 64 << 20;

/// A client that asks nothing for so long has gone.
const IDLE: Duration = Duration::from_secs(24 * 3600);

/// From one figure of the household to the next.
const STEP: Duration = Duration::from_secs(1);

/// What is simulated, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// Port 0: any free one.
    pub listen: SocketAddr,
    /// The SunSpec model: 201 to 204, 211 to 214.
    pub meter: Meter,
    /// Where the marker stands.
    pub base: u16,
    /// Of the first meter; the others follow.
    pub unit: u8,
    pub devices: u32,
    pub seed: u64,
    /// Tells the meters of one seed apart: of the first one; the others follow.
    pub index: u32,
    /// The meters' clock at the start, milliseconds since 1970; none: now.
    pub start_ms: Option<i64>,
    /// Readings that are answered, all meters together, after which it ends; none: until the stop.
    pub count: Option<u64>,
    pub fault: Option<Fault>,
    /// Every so many readings have the fault; at least 1.
    pub fault_every: u64,
    /// Each reading adds 1 Wh to the import counters: no two readings of a meter are the same.
    pub counts_readings: bool,
}

impl Options {
    /// One meter where devices usually have it, on any port of this machine, without faults, until the stop.
    pub fn of(meter: Meter) -> Self {
        Self {
            listen: ([127, 0, 0, 1], 0).into(),
            meter,
            base: BASE,
            unit: 1,
            devices: 1,
            seed: 1,
            index: 0,
            start_ms: None,
            count: None,
            fault: None,
            fault_every: 1,
            counts_readings: false,
        }
    }
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A meter's values were asked for, and answered.
    Read {
        client: SocketAddr,
        unit: u8,
        /// As the counter shows it, its turning over and its faults apart.
        imported_wh: u64,
        net_w: i64,
    },
    Faulted {
        fault: Fault,
    },
    Connected {
        client: SocketAddr,
    },
    Disconnected {
        client: SocketAddr,
    },
}

/// Who is told. It must not block.
pub type Observer = Arc<dyn Fn(Event) + Send + Sync>;

/// A device that listens.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    options: Options,
}

impl Server {
    /// # Errors
    ///
    /// The address cannot be listened at.
    pub async fn bind(options: Options) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(options.listen).await?, options })
    }

    /// # Errors
    ///
    /// The system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until the stop, or as many readings as asked for.
    pub async fn run(self, observe: Observer, shutdown: &Shutdown) {
        let enough = Shutdown::new();
        let device = Arc::new(Device::new(self.options, observe, enough.clone()));
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if clients.len() < MOST_CLIENTS => {
                    let Ok((stream, client)) = accepted else { continue };
                    let device = Arc::clone(&device);
                    clients.spawn(async move {
                        (device.observe)(Event::Connected { client });
                        // A client that has gone, or a fault that ends the connection.
                        let _ = device.serve(stream, client).await;
                        (device.observe)(Event::Disconnected { client });
                    });
                }
                Some(_) = clients.join_next(), if !clients.is_empty() => {}
                () = shutdown.asked() => break,
                () = enough.asked() => break,
            }
        }
        clients.shutdown().await;
    }
}

/// The meters, and how often they were read.
struct Device {
    options: Options,
    meters: Mutex<Vec<Adapter>>,
    began: Instant,
    /// Seconds that the meters have run on.
    ran: AtomicU64,
    read: AtomicU64,
    observe: Observer,
    enough: Shutdown,
}

/// Of a question to read registers.
struct Question {
    transaction: [u8; 2],
    unit: u8,
    function: u8,
    address: u16,
    count: u16,
}

impl Device {
    fn new(options: Options, observe: Observer, enough: Shutdown) -> Self {
        let start_ms = options.start_ms.unwrap_or_else(|| Timestamp::now().as_millisecond());
        let meter =
            |index| Adapter::new(&adapter::Options { seed: options.seed, index, name: None, start_ms, step: STEP });
        Self {
            meters: Mutex::new((options.index..).take(options.devices as usize).map(meter).collect()),
            options,
            began: Instant::now(),
            ran: AtomicU64::new(0),
            read: AtomicU64::new(0),
            observe,
            enough,
        }
    }

    async fn serve(&self, mut stream: TcpStream, client: SocketAddr) -> io::Result<()> {
        stream.set_nodelay(true)?;
        loop {
            let mut head = [0; 7];
            timeout(IDLE, stream.read_exact(&mut head)).await??;
            let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
            // Modbus TCP has 260 bytes at most.
            if !(2..=254).contains(&length) || head[2..4] != [0, 0] {
                return Ok(());
            }
            let mut pdu = vec![0; length - 1];
            timeout(IDLE, stream.read_exact(&mut pdu)).await??;
            let question = Question {
                transaction: [head[0], head[1]],
                unit: head[6],
                function: pdu[0],
                address: word(&pdu, 1),
                count: word(&pdu, 3),
            };
            if !self.answer(&mut stream, client, &question, pdu.len()).await? {
                return Ok(());
            }
        }
    }

    /// False: the connection is over.
    async fn answer(
        &self,
        stream: &mut TcpStream,
        client: SocketAddr,
        question: &Question,
        length: usize,
    ) -> io::Result<bool> {
        let (values, state) = match self.values(question, length) {
            Ok(answer) => answer,
            Err(exception) => {
                stream.write_all(&exception_of(question, exception)).await?;
                return Ok(true);
            }
        };
        // What finds the meter is not what reads it: faults come with readings.
        let reading = question.count > 2 && self.is_meter(question);
        let number = if reading { self.read.fetch_add(1, Ordering::Relaxed) + 1 } else { 0 };
        let due = reading && number.is_multiple_of(self.options.fault_every);
        match self.options.fault.filter(|_| due) {
            Some(Fault::TurnOver | Fault::WentBack) | None => stream.write_all(&answer_of(question, &values)).await?,
            Some(fault) => {
                (self.observe)(Event::Faulted { fault });
                if !misbehave(stream, question, &values, fault).await? {
                    return Ok(false);
                }
            }
        }
        if reading {
            let State { imported_wh, net_w, .. } = state;
            (self.observe)(Event::Read { client, unit: question.unit, imported_wh, net_w });
            if self.options.count.is_some_and(|count| number >= count) {
                self.enough.ask();
            }
        }
        Ok(true)
    }

    fn is_meter(&self, question: &Question) -> bool {
        let meter = self.options.base.saturating_add(Meter::offset());
        question.address.saturating_add(question.count) > meter
    }

    /// The registers asked for and what they show, or the exception that says why there are none.
    fn values(&self, question: &Question, length: usize) -> Result<(Vec<u16>, State), u8> {
        if question.function != 3 {
            return Err(1);
        }
        if length != 5 || !(1..=125).contains(&question.count) {
            return Err(3);
        }
        let index = question.unit.checked_sub(self.options.unit).map(usize::from);
        let seconds = self.began.elapsed().as_secs();
        let mut meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        let ran = self.ran.swap(seconds, Ordering::Relaxed);
        meters.iter_mut().for_each(|meter| meter.skip(seconds.saturating_sub(ran)));
        // A gateway says so of a unit that is not there.
        let meter = index.and_then(|index| meters.get(index)).ok_or(11)?;
        let mut state = meter.state();
        if self.options.counts_readings {
            state.imported_wh += self.read.load(Ordering::Relaxed);
        }
        let registers = self.options.meter.registers(&state, self.tampering(state.imported_wh));
        let from = question.address.checked_sub(self.options.base).map(usize::from).ok_or(2)?;
        let asked = registers.get(from..from + usize::from(question.count)).map(<[u16]>::to_vec).ok_or(2)?;
        Ok((asked, state))
    }

    /// What the next reading's counter shows.
    fn tampering(&self, imported_wh: u64) -> Tampering {
        let next = self.read.load(Ordering::Relaxed) + 1;
        match self.options.fault {
            // Just below its end before the fault is due, and past it from then on.
            Some(Fault::TurnOver) => {
                let before = (1 << 32) - 1 - imported_wh % (1 << 32);
                let beyond = if next >= self.options.fault_every { 100 + next } else { 0 };
                Tampering { offset: before + beyond, halved: false }
            }
            Some(Fault::WentBack) => Tampering { offset: 0, halved: next.is_multiple_of(self.options.fault_every) },
            _ => Tampering::default(),
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    match bytes.get(at..at + 2) {
        Some(pair) => u16::from_be_bytes([pair[0], pair[1]]),
        None => 0,
    }
}

fn frame(question: &Question, pdu: &[u8]) -> Vec<u8> {
    let length = u16::try_from(pdu.len() + 1).unwrap_or(u16::MAX).to_be_bytes();
    let mut frame = vec![question.transaction[0], question.transaction[1], 0, 0, length[0], length[1], question.unit];
    frame.extend(pdu);
    frame
}

fn answer_of(question: &Question, values: &[u16]) -> Vec<u8> {
    let mut pdu = vec![question.function, u8::try_from(values.len() * 2).unwrap_or(u8::MAX)];
    pdu.extend(values.iter().flat_map(|value| value.to_be_bytes()));
    frame(question, &pdu)
}

fn exception_of(question: &Question, code: u8) -> Vec<u8> {
    frame(question, &[question.function | 0x80, code])
}

/// False: the connection is over.
async fn misbehave(stream: &mut TcpStream, question: &Question, values: &[u16], fault: Fault) -> io::Result<bool> {
    let mut answer = answer_of(question, values);
    let half = answer.len() / 2;
    match fault {
        Fault::Exception(code) => answer = exception_of(question, code),
        Fault::Slow => sleep(SLOW).await,
        Fault::Half => answer.truncate(half),
        Fault::Cut => {
            stream.write_all(&answer[..half]).await?;
            return Ok(false);
        }
        Fault::Reset => {
            stream.set_zero_linger()?;
            return Ok(false);
        }
        Fault::WrongUnit => answer[6] = answer[6].wrapping_add(1),
        Fault::WrongTransaction => answer[1] = answer[1].wrapping_sub(1),
        Fault::WrongFunction => answer[7] = 4,
        Fault::Short => answer = answer_of(question, &values[1..]),
        Fault::Garbage => answer = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec(),
        Fault::Oversized => {
            answer[4..6].copy_from_slice(&[0xff, 0xff]);
            answer.resize(6 + 0xffff, 0x55);
        }
        Fault::Endless => {
            for _ in 0..ENDLESS / answer.len() {
                stream.write_all(&answer).await?;
            }
            return Ok(false);
        }
        Fault::TurnOver | Fault::WentBack => {}
    }
    stream.write_all(&answer).await?;
    Ok(true)
}
