//! A TCP proxy between the agent and a server: cuts after so many bytes, holds, swallows, delays, slows down.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

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
    /// Milliseconds that what was read at once waits.
    delay: AtomicU64,
}

#[derive(Debug)]
struct State {
    to_server: Way,
    from_server: Way,
    refuse: AtomicBool,
    resets: AtomicBool,
    closing: AtomicBool,
    accepted: AtomicU64,
    cuts: AtomicU64,
    connections: Mutex<Vec<Connection>>,
}

/// One connection's two sockets.
#[derive(Debug)]
struct Connection {
    client: TcpStream,
    server: TcpStream,
    /// It ends with a reset: nobody may say an orderly end before.
    reset: Arc<AtomicBool>,
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
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            to_server: Way { left: AtomicI64::new(-1), ..Way::default() },
            from_server: Way { left: AtomicI64::new(-1), ..Way::default() },
            refuse: AtomicBool::new(false),
            resets: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
            connections: Mutex::new(Vec::new()),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || accept(&listener, server, &shared));
        Self { port: address.port(), state }
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

    /// Times that a limit of [`Proxy::cut_after`] was reached.
    pub fn cuts(&self) -> u64 {
        self.state.cuts.load(Ordering::SeqCst)
    }

    /// Cuts every connection once `bytes` more have passed that way; connections made after that are not limited.
    pub fn cut_after(&self, direction: Direction, bytes: u32) {
        self.state.way(direction).left.store(i64::from(bytes), Ordering::SeqCst);
    }

    /// Whether connections are cut with a reset (RST), or with an orderly end (FIN).
    pub fn resets(&self, on: bool) {
        self.state.resets.store(on, Ordering::SeqCst);
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

    /// Everything comes so much later, each way.
    pub fn delay(&self, delay: Duration) {
        let millis = u64::try_from(delay.as_millis()).expect("a short delay");
        self.state.to_server.delay.store(millis, Ordering::SeqCst);
        self.state.from_server.delay.store(millis, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The thread that accepts looks at it within its poll's time.
        self.state.closing.store(true, Ordering::SeqCst);
        self.state.cut();
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
        let reset = self.resets.load(Ordering::SeqCst);
        for connection in self.connections.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            connection.reset.store(reset, Ordering::SeqCst);
            for stream in [&connection.client, &connection.server] {
                // Shut down for reading, it says nothing to the other side, but wakes the thread that reads. The reset is
                // sent when the last handle is closed.
                let how = if reset { Shutdown::Read } else { Shutdown::Both };
                if reset {
                    let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
                    setsockopt(stream, sockopt::Linger, &at_once).expect("an open socket");
                }
                let _ = stream.shutdown(how);
            }
        }
    }
}

fn accept(listener: &TcpListener, server: u16, state: &Arc<State>) {
    listener.set_nonblocking(true).expect("an open socket");
    while !state.closing.load(Ordering::SeqCst) {
        let Ok((client, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        client.set_nonblocking(false).expect("an open socket");
        state.accepted.fetch_add(1, Ordering::SeqCst);
        if state.refuse.load(Ordering::SeqCst) {
            continue;
        }
        // A server that is down is a connection that closes at once.
        let Ok(upstream) = TcpStream::connect(("127.0.0.1", server)) else { continue };
        for stream in [&client, &upstream] {
            stream.set_nodelay(true).expect("an open socket");
            stream.set_read_timeout(Some(Duration::from_millis(50))).expect("an open socket");
        }
        let clone = |stream: &TcpStream| stream.try_clone().expect("a second handle");
        let reset = Arc::new(AtomicBool::new(false));
        let connection = Connection { client: clone(&client), server: clone(&upstream), reset: Arc::clone(&reset) };
        state.connections.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        let ways = [(clone(&client), clone(&upstream), Direction::ToServer), (upstream, client, Direction::FromServer)];
        for (from, to, direction) in ways {
            let (state, reset) = (Arc::clone(state), Arc::clone(&reset));
            thread::spawn(move || {
                pass(&from, &to, direction, &state);
                if !reset.load(Ordering::SeqCst) {
                    let _ = from.shutdown(Shutdown::Both);
                    let _ = to.shutdown(Shutdown::Both);
                }
            });
        }
    }
}

/// Carries bytes one way until either side closes.
fn pass(mut from: &TcpStream, mut to: &TcpStream, direction: Direction, state: &State) {
    let way = state.way(direction);
    let mut buffer = vec![0; 16 * 1024];
    while !state.closing.load(Ordering::SeqCst) {
        let wanted = match way.rate.load(Ordering::SeqCst) {
            0 => buffer.len(),
            rate => usize::try_from(rate / 20).expect("a sane rate").clamp(1, buffer.len()),
        };
        let count = match from.read(&mut buffer[..wanted]) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => return,
        };
        // Held bytes are taken from the socket, a buffer of them, and wait here.
        while way.hold.load(Ordering::SeqCst) && !state.closing.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        if way.swallow.load(Ordering::SeqCst) {
            continue;
        }
        thread::sleep(Duration::from_millis(way.delay.load(Ordering::SeqCst)));
        let (allowed, cut) = allowed(way, count);
        if to.write_all(&buffer[..allowed]).is_err() {
            return;
        }
        way.passed.fetch_add(allowed as u64, Ordering::SeqCst);
        if cut {
            state.cut();
            state.cuts.fetch_add(1, Ordering::SeqCst);
            return;
        }
        if way.rate.load(Ordering::SeqCst) != 0 {
            thread::sleep(Duration::from_millis(50));
        }
    }
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
