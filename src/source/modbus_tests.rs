//! A Modbus device as a script: what becomes of its answers, and when it is asked.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::config::settings::Modbus;
use crate::metrics::SourceMetrics;
use crate::shutdown::Shutdown;
use crate::simulate::adapter::State;
use crate::simulate::meter::{BASE, Meter, Tampering};
use crate::simulate::modbus::{Options, Server};
use crate::source::modbus::ModbusSource;
use crate::source::modbus_answer::Malformed;
use crate::source::modbus_device::{Device, Identity, Search};
use crate::source::modbus_fault::Fault;

fn settings(port: u16) -> Modbus {
    Modbus {
        host: "127.0.0.1".to_owned(),
        port,
        unit: 1,
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(3),
        reconnect_max_delay: Duration::from_secs(1),
        device: None,
        base: None,
        registers: Vec::new(),
    }
}

/// The registers of a simulated meter, from [`BASE`] on.
fn image(model: u16) -> Vec<u16> {
    let state = State { number: "7".to_owned(), imported_wh: 1_000, exported_wh: 2_000, net_w: 300 };
    Meter::new(model).expect("a model").registers(&state, Tampering::default())
}

/// What becomes of a question for registers that are not there.
#[derive(Clone, Copy, PartialEq)]
enum Missing {
    Refused,
    Silence,
    /// Silence at register 0 only.
    SilenceAtFirst,
    /// The first bytes of an answer, then silence.
    Half,
}

/// Answers from `registers`.
async fn answer(mut stream: DuplexStream, registers: Arc<Mutex<Vec<u16>>>, missing: Missing) {
    let mut question = [0; 12];
    while stream.read_exact(&mut question).await.is_ok() {
        let word = |at: usize| u16::from_be_bytes([question[at], question[at + 1]]);
        let (address, count) = (word(8), word(10));
        let found = address.checked_sub(BASE).and_then(|from| {
            let registers = registers.lock().unwrap_or_else(PoisonError::into_inner);
            registers.get(usize::from(from)..usize::from(from + count)).map(<[u16]>::to_vec)
        });
        let pdu = match found {
            Some(words) => {
                let bytes = words.iter().flat_map(|word| word.to_be_bytes());
                [question[7], u8::try_from(count * 2).expect("a block")].into_iter().chain(bytes).collect()
            }
            None if missing == Missing::Silence || missing == Missing::SilenceAtFirst && address == 0 => continue,
            None if missing == Missing::Half => {
                stream.write_all(&[question[0], question[1], 0, 0, 0, 7]).await.expect("it is listened to");
                continue;
            }
            None => vec![question[7] | 0x80, 2],
        };
        let length = u16::try_from(pdu.len() + 1).expect("an answer").to_be_bytes();
        let head = [question[0], question[1], 0, 0, length[0], length[1], question[6]];
        stream.write_all(&[&head[..], &pdu].concat()).await.expect("it is listened to");
    }
}

/// Promise 5: behind one connection another meter may stand some day: its registers are not taken for those of the first.
#[tokio::test(start_paused = true)]
async fn a_meter_that_moved_is_found_anew() {
    for model in [203, 213] {
        let registers = Arc::new(Mutex::new(image(model)));
        let (ours, theirs) = duplex(1024);
        tokio::spawn(answer(theirs, Arc::clone(&registers), Missing::Refused));
        let mut device = Device::over(ours, &settings(502), &mut Search::default()).await.expect("a meter");
        assert_eq!(device.read().await.expect("values").measured.len(), 74);
        // An inverter's model comes before it.
        let mut changed = image(model);
        changed.splice(70..70, [103, 50].into_iter().chain([0; 50]));
        *registers.lock().expect("nobody panicked") = changed;
        let fault = device.read().await.expect_err("another model");
        assert_eq!(fault, Fault::Moved { was: model, now: 103 });
        assert!(!fault.keeps_connection());
    }
}

/// Promise 5: a device that is silent where it has no registers is found on the next connection.
#[tokio::test(start_paused = true)]
async fn silence_at_one_place_leads_to_the_next() {
    let registers = Arc::new(Mutex::new(image(204)));
    let mut search = Search::default();
    for attempt in 0..3 {
        let (ours, theirs) = duplex(1024);
        tokio::spawn(answer(theirs, Arc::clone(&registers), Missing::Silence));
        match (attempt, Device::over(ours, &settings(502), &mut search).await) {
            (0, Err(fault)) => assert_eq!(fault, Fault::Silent("3s".to_owned())),
            // Where it was found the last time is looked at first.
            (1 | 2, Ok(device)) => assert!(matches!(device.identity, Identity::SunSpec { base: BASE, .. })),
            (_, other) => panic!("attempt {attempt}: {:?}", other.map(|device| device.identity)),
        }
    }
}

/// Promise 5: a device that shows no models says for each place what was there, also where it was silent at one of them.
#[tokio::test(start_paused = true)]
async fn each_place_of_a_vain_search_is_told() {
    let registers = Arc::new(Mutex::new(vec![1, 2, 3]));
    let mut search = Search::default();
    let mut faults = Vec::new();
    for _ in 0..4 {
        let (ours, theirs) = duplex(1024);
        tokio::spawn(answer(theirs, Arc::clone(&registers), Missing::SilenceAtFirst));
        faults.push(Device::over(ours, &settings(502), &mut search).await.err());
    }
    let silent = Some(Fault::Silent("3s".to_owned()));
    let none = Fault::NoMarker("0: no answer within 3s; 40000: something else; 50000: exception 2".to_owned());
    assert_eq!(faults, [silent.clone(), Some(none.clone()), silent, Some(none)]);
}

/// Promise 5: an answer that stops in the middle is told from a device that does not answer.
#[tokio::test(start_paused = true)]
async fn half_an_answer_is_not_silence() {
    let (ours, theirs) = duplex(1024);
    tokio::spawn(answer(theirs, Arc::default(), Missing::Half));
    let fault = Device::over(ours, &settings(502), &mut Search::default()).await.err();
    assert_eq!(fault, Some(Fault::Malformed(Malformed::Stalled(6))));
}

/// Promise 1: the next reading is asked for when this one is durable, and not before; what was due meanwhile is counted, and
/// not made up for.
#[tokio::test]
async fn a_reading_waits_for_its_receipt() {
    let shutdown = Shutdown::new();
    let options = Options::of(Meter::new(203).expect("a model"));
    let server = Server::bind(options).await.expect("a free port");
    let port = server.address().expect("an address").port();
    let asked = shutdown.clone();
    let served = tokio::spawn(async move { server.run(Arc::new(|_| {}), &asked).await });
    let (raws, mut received) = mpsc::channel(1);
    let metrics = Arc::new(SourceMetrics::default());
    let source = ModbusSource {
        name: "meter".into(),
        settings: settings(port),
        metrics: Arc::clone(&metrics),
        raws,
        clock: Clock::new(),
    };
    let polling = tokio::spawn(source.run(shutdown.clone()));

    let limit = Duration::from_secs(30);
    let first = timeout(limit, received.recv()).await.expect("in time").expect("a reading");
    assert!(first.receipt.is_awaited());
    assert!(timeout(Duration::from_millis(2_500), received.recv()).await.is_err(), "asked before it was durable");
    assert_eq!((metrics.received.get(), metrics.acknowledged.get()), (1, 0));
    first.receipt.redeem();
    let second = timeout(limit, received.recv()).await.expect("in time").expect("a reading");
    assert_eq!(metrics.acknowledged.get(), 1);
    assert!(metrics.skipped.get() >= 2, "{}", metrics.skipped.get());
    // Whoever drops a receipt holds nobody up.
    drop(second.receipt);
    let third = timeout(limit, received.recv()).await.expect("in time").expect("a reading");
    assert_eq!((metrics.received.get(), metrics.acknowledged.get()), (3, 1));
    drop(third);

    shutdown.ask();
    timeout(limit, polling).await.expect("it stops").expect("without a panic");
    timeout(limit, served).await.expect("it stops").expect("without a panic");
    assert!(!metrics.connected.get());
}
