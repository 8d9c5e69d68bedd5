//! What a simulated device does wrong on demand.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

/// How long a slow device thinks; longer than anybody waits.
pub const SLOW: Duration = Duration::from_secs(600);

/// Between two bytes of a slow body.
const DRIP: Duration = Duration::from_secs(1);

/// In which the head and the pieces of a body that breaks off are sent.
const FLUSH: Duration = Duration::from_millis(100);

/// One piece of an endless body.
const PIECE: usize = 4096;

/// Something that is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No answer for [`SLOW`].
    Slow,
    /// A body of one byte a second.
    SlowBody,
    /// This status, with an error page.
    Status(u16),
    BrokenJson,
    /// A web page with status 200.
    Html,
    Empty,
    /// Half a body, then the connection ends.
    Truncated,
    /// A body of 32 MiB with its length in the head.
    Huge,
    Endless,
    /// The connection ends without an answer.
    Reset,
    Gzip,
    /// Latin-1 in place of UTF-8.
    Latin1,
    /// JSON that is no measurement.
    Foreign,
}

impl Fault {
    /// Each under the name by which it is asked for, besides a status of three digits.
    pub const NAMES: [(&str, Self); 12] = [
        ("slow", Self::Slow),
        ("slow-body", Self::SlowBody),
        ("broken-json", Self::BrokenJson),
        ("html", Self::Html),
        ("empty", Self::Empty),
        ("truncated", Self::Truncated),
        ("huge", Self::Huge),
        ("endless", Self::Endless),
        ("reset", Self::Reset),
        ("gzip", Self::Gzip),
        ("latin1", Self::Latin1),
        ("foreign-json", Self::Foreign),
    ];
}

impl std::str::FromStr for Fault {
    type Err = String;

    /// `html`, `401`
    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::NAMES.iter().find(|(known, _)| *known == text).map(|(_, fault)| *fault);
        let status = || text.parse().ok().filter(|status| (300..600).contains(status)).map(Self::Status);
        known.or_else(status).ok_or_else(|| {
            let names: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            format!("must be a status from 300 to 599, or one of {}", names.join(", "))
        })
    }
}

/// How a body goes on behind its pieces.
#[derive(Debug)]
pub enum Then {
    Ends,
    /// What came before is sent first.
    Breaks(Pin<Box<Sleep>>),
    /// The last piece again and again.
    Repeats,
    /// A byte now and then.
    Drips(Pin<Box<Sleep>>),
}

/// A body that may be wrong.
#[derive(Debug)]
pub struct FaultyBody {
    pieces: VecDeque<Bytes>,
    then: Then,
    /// What the head says.
    length: Option<u64>,
}

impl FaultyBody {
    pub fn whole(body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self { length: Some(body.len() as u64), pieces: [body].into(), then: Then::Ends }
    }

    pub fn truncated(body: Vec<u8>) -> Self {
        let half = Bytes::from(body[..body.len() / 2].to_vec());
        Self { length: Some(body.len() as u64), pieces: [half].into(), then: Then::Breaks(Box::pin(sleep(FLUSH))) }
    }

    pub fn huge() -> Self {
        Self { length: Some(32 << 20), pieces: [vec![b' '; PIECE].into()].into(), then: Then::Repeats }
    }

    pub fn endless() -> Self {
        Self { length: None, pieces: [vec![b' '; PIECE].into()].into(), then: Then::Repeats }
    }

    pub fn dripping() -> Self {
        Self { length: None, pieces: VecDeque::new(), then: Then::Drips(Box::pin(sleep(DRIP))) }
    }
}

impl Body for FaultyBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let repeats = matches!(self.then, Then::Repeats);
        let piece = if repeats { self.pieces.front().cloned() } else { self.pieces.pop_front() };
        if let Some(piece) = piece {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match &mut self.then {
            Then::Ends | Then::Repeats => Poll::Ready(None),
            Then::Breaks(pause) => {
                pause.as_mut().poll(context).map(|()| Some(Err(std::io::Error::other("as asked for"))))
            }
            Then::Drips(pause) => pause.as_mut().poll(context).map(|()| {
                pause.set(sleep(DRIP));
                Some(Ok(Frame::data(Bytes::from_static(b" "))))
            }),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map(SizeHint::with_exact).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is asked for is understood, or said how to ask for it.
    #[test]
    fn faults_are_asked_for_by_name() {
        assert_eq!(("html".parse(), "401".parse()), (Ok(Fault::Html), Ok(Fault::Status(401))));
        for wrong in ["", "200", "html:1", "soon"] {
            assert!(wrong.parse::<Fault>().is_err(), "{wrong}");
        }
    }
}
