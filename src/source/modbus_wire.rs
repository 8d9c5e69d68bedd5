//! The connection that tokio-modbus is given: each byte of an answer is looked at before the library sees it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::source::modbus_answer::Answer;

/// A stream whose reader gets answers only. An error of [`crate::source::modbus_answer::Malformed`] is inside the I/O error.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    answer: Answer,
    came: Arc<AtomicUsize>,
}

impl<S> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, answer: Answer::default(), came: Arc::default() }
    }

    /// How many bytes of the present answer have come, for whoever has given the wire away.
    pub(super) fn came(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.came)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let checked = match &buffer.filled()[before..] {
            // The library would tell the end as whatever the last system error was.
            [] => self.answer.end().and(Ok(true)),
            bytes => self.answer.take(bytes).and(Ok(false)),
        };
        self.came.store(self.answer.came(), Ordering::Relaxed);
        Poll::Ready(match checked {
            Ok(false) => Ok(()),
            Ok(true) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(malformed) => Err(io::Error::new(io::ErrorKind::InvalidData, malformed)),
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.answer.asks(&bytes[..written]);
        self.came.store(self.answer.came(), Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
