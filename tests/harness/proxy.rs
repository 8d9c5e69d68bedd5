//! A TCP proxy between the agent and a server: cuts after so many bytes, holds, swallows, slows down.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Which bytes: those to the server, or those from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    FromServer,
}

/// What happens to bytes that come.
#[derive(Debug, Default)]
struct Way {
    /// Bytes passed on so far, over all connections.
    passed: AtomicU64,
    /// Bytes that may still pass before every connection is cut; negative: no such limit.
    left: AtomicI64,
    /// Bytes are read and thrown away: the network that answers nothing and refuses nothing.
    swallow: AtomicBool,
    /// Bytes are not passed on.
    hold: AtomicBool,
    /// Bytes per second; 0: no limit.
    rate: AtomicU64,
}

#[derive(Debug)]
struct State {
    to_server: Way,
    from_server: Way,
    refuse: AtomicBool,
    closing: AtomicBool,
    accepted: AtomicU64,
    streams: Mutex<Vec<TcpStream>>,
}

/// A running proxy; ends when dropped.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

impl Proxy {
    /// Listens on a free port and passes everything on to `server` (a port on 127.0.0.1).
    pub fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Self::on(listener, server)
    }

    /// Like [`Proxy::start`], on a port that had to be known before.
    pub fn on(listener: TcpListener, server: u16) -> Self {
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State {
            to_server: Way { left: AtomicI64::new(-1), ..Way::default() },
            from_server: Way { left: AtomicI64::new(-1), ..Way::default() },
            refuse: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            streams: Mutex::new(Vec::new()),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || accept(&listener, server, &shared));
        Self { port, state }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.state.accepted.load(Ordering::SeqCst)
    }

    /// Bytes passed on so far.
    pub fn passed(&self, direction: Direction) -> u64 {
        self.state.way(direction).passed.load(Ordering::SeqCst)
    }

    /// Cuts every connection once `bytes` more have passed that way; connections made after that are not limited.
    pub fn cut_after(&self, direction: Direction, bytes: u32) {
        self.state.way(direction).left.store(i64::from(bytes), Ordering::SeqCst);
    }

    /// Cuts every connection now.
    pub fn cut(&self) {
        self.state.cut();
    }

    /// Closes new connections at once (true), and cuts the present ones; false: accepts again.
    pub fn refuse(&self, on: bool) {
        self.state.refuse.store(on, Ordering::SeqCst);
        if on {
            self.cut();
        }
    }

    /// Swallows everything, both ways (true). When it ends, connections that lost bytes are cut.
    pub fn black_hole(&self, on: bool) {
        self.state.to_server.swallow.store(on, Ordering::SeqCst);
        self.state.from_server.swallow.store(on, Ordering::SeqCst);
        if !on {
            self.cut();
        }
    }

    /// Holds bytes back one way (true), or lets them go.
    pub fn hold(&self, direction: Direction, on: bool) {
        self.state.way(direction).hold.store(on, Ordering::SeqCst);
    }

    /// At most so many bytes per second each way; 0: no limit.
    pub fn throttle(&self, rate: u64) {
        self.state.to_server.rate.store(rate, Ordering::SeqCst);
        self.state.from_server.rate.store(rate, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.closing.store(true, Ordering::SeqCst);
        self.state.cut();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl State {
    fn way(&self, direction: Direction) -> &Way {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::FromServer => &self.from_server,
        }
    }

    fn cut(&self) {
        for stream in self.streams.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, server: u16, state: &Arc<State>) {
    while let Ok((client, _)) = listener.accept() {
        if state.closing.load(Ordering::SeqCst) {
            return;
        }
        state.accepted.fetch_add(1, Ordering::SeqCst);
        if state.refuse.load(Ordering::SeqCst) {
            continue;
        }
        // A server that is down is a connection that closes at once.
        let Ok(upstream) = TcpStream::connect(("127.0.0.1", server)) else { continue };
        let pair = [&client, &upstream].map(|stream| {
            stream.set_nodelay(true).expect("an open socket");
            stream.set_read_timeout(Some(Duration::from_millis(50))).expect("an open socket");
            stream.try_clone().expect("a second handle")
        });
        let copies = pair.each_ref().map(|stream| stream.try_clone().expect("a second handle"));
        state.streams.lock().unwrap_or_else(PoisonError::into_inner).extend(copies);
        let [to_client, to_server] = pair;
        for (from, to, direction) in
            [(client, to_server, Direction::ToServer), (upstream, to_client, Direction::FromServer)]
        {
            let state = Arc::clone(state);
            thread::spawn(move || pass(from, to, direction, &state));
        }
    }
}

/// Carries bytes one way until either side closes.
fn pass(mut from: TcpStream, mut to: TcpStream, direction: Direction, state: &State) {
    let way = state.way(direction);
    let mut buffer = vec![0; 16 * 1024];
    while !state.closing.load(Ordering::SeqCst) {
        let wanted = match way.rate.load(Ordering::SeqCst) {
            0 => buffer.len(),
            rate => usize::try_from(rate / 20).expect("a sane rate").clamp(1, buffer.len()),
        };
        let count = match from.read(&mut buffer[..wanted]) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        // Held bytes are taken from the socket, a buffer of them, and wait here.
        while way.hold.load(Ordering::SeqCst) && !state.closing.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        if way.swallow.load(Ordering::SeqCst) {
            continue;
        }
        let (allowed, cut) = allowed(way, count);
        if to.write_all(&buffer[..allowed]).is_err() {
            break;
        }
        way.passed.fetch_add(allowed as u64, Ordering::SeqCst);
        if cut {
            state.cut();
            break;
        }
        if way.rate.load(Ordering::SeqCst) != 0 {
            thread::sleep(Duration::from_millis(50));
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// How many of `count` bytes may pass, and whether the cut comes after them.
fn allowed(way: &Way, count: usize) -> (usize, bool) {
    let count_i64 = i64::try_from(count).expect("a buffer's size");
    let before = way.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| match left {
        ..0 => None,
        0.. if left <= count_i64 => Some(-1),
        _ => Some(left - count_i64),
    });
    match before {
        Ok(left) if left <= count_i64 => (usize::try_from(left).expect("not negative"), true),
        _ => (count, false),
    }
}
