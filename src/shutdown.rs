//! One signal that every stage watches, asynchronous or not.

use tokio_util::sync::CancellationToken;

/// Tells every stage to stop. Clones share one state; once asked, it stays asked.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Not asked for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everybody to stop.
    pub fn ask(&self) {
        self.0.cancel();
    }

    /// For loops on threads of their own.
    pub fn is_asked(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Returns once a stop was asked for.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub async fn asked(&self) {
        self.0.cancelled().await;
    }
}
