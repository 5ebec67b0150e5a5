//! The wish to end, told to every server at once.

use smol::channel::{Receiver, Sender, bounded};

/// Seen by those who serve.
#[derive(Clone)]
pub(crate) struct Stop(Receiver<()>);

/// Held by whoever decides. Dropping it is the request.
pub(crate) struct StopSource(#[allow(dead_code)] Sender<()>); // never sent on: closing the channel is the message

/// A source and what it tells.
pub(crate) fn stop() -> (StopSource, Stop) {
    let (sender, receiver) = bounded(1);
    (StopSource(sender), Stop(receiver))
}

impl Stop {
    /// Returns once a stop was requested.
    pub(crate) async fn requested(&self) {
        // Nothing is ever sent; the error is the news.
        let _ = self.0.recv().await;
    }

    /// Whether it was.
    pub(crate) fn is_requested(&self) -> bool {
        self.0.is_closed()
    }
}
