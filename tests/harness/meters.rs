//! SunSpec meters on Modbus TCP: those of `meterferry simulate`, in this process.

use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use meterferry::shutdown::Shutdown;
use meterferry::simulate::meter::Meter;
use meterferry::simulate::modbus::{Event, Options, Server};
use meterferry::simulate::modbus_fault::Fault;

/// A running device; it ends when this is dropped.
pub struct Meters {
    pub port: u16,
    shutdown: Shutdown,
    thread: Option<JoinHandle<()>>,
    events: Arc<Mutex<Vec<Event>>>,
}

/// A meter of this model, on any port.
pub fn options(model: u16) -> Options {
    Options { seed: u64::from(model), ..Options::of(Meter::new(model).expect("a meter's model")) }
}

impl Meters {
    pub fn start(options: Options) -> Self {
        let (told, address) = sync_channel(1);
        let shutdown = Shutdown::new();
        let asked = shutdown.clone();
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&events);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let server = Server::bind(options).await.expect("a port to listen at");
                told.send(server.address().expect("an address").port()).expect("somebody waits for it");
                let observe = move |event| seen.lock().unwrap_or_else(PoisonError::into_inner).push(event);
                server.run(Arc::new(observe), &asked).await;
            });
        });
        let port = address.recv().expect("it listens");
        Self { port, shutdown, thread: Some(thread), events }
    }

    /// One that does this wrong at every `every`-th reading.
    pub fn faulty(fault: Fault, every: u64) -> Self {
        Self::start(Options { fault: Some(fault), fault_every: every, ..options(203) })
    }

    /// Readings answered so far.
    pub fn read(&self) -> usize {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().filter(|event| matches!(event, Event::Read { .. })).count()
    }
}

impl Drop for Meters {
    fn drop(&mut self) {
        self.shutdown.ask();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
