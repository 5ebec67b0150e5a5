//! Receives a request's body within bounds.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use smol::future::or;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// Bytes of all bodies being received at one time.
const TOTAL: usize = 256 << 20;
/// How long a body may pause.
const PAUSE: Duration = Duration::from_secs(30);
/// How long a body may take in all.
const WHOLE: Duration = Duration::from_secs(600);

/// Bytes of bodies being received.
#[derive(Default)]
pub(super) struct Budget(Cell<usize>);

/// One body's share of the budget.
struct Share {
    budget: Rc<Budget>,
    bytes: usize,
}

impl Share {
    fn take(&mut self, more: usize) -> Result<(), BodyError> {
        let total = self.budget.0.get() + more;
        if total > TOTAL {
            return Err(BodyError::Overloaded);
        }
        self.budget.0.set(total);
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.set(self.budget.0.get() - self.bytes);
    }
}

/// Why a body was not received.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// It is longer than it may be.
    TooLarge,
    /// Too many bodies are being received.
    Overloaded,
    /// It paused or took too long.
    TooSlow,
    /// The client broke off, or its framing made no sense.
    Broken,
}

/// The whole body, of at most `limit` bytes. What is announced is checked before anything is read.
pub(super) async fn receive(
    mut body: Incoming,
    limit: usize,
    budget: &Rc<Budget>,
) -> Result<Bytes, BodyError> {
    if body.size_hint().lower() > limit as u64 {
        return Err(BodyError::TooLarge);
    }
    let mut share = Share { budget: Rc::clone(budget), bytes: 0 };
    let whole = async {
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(data) = next(&mut body).await? {
            if share.bytes + data.len() > limit {
                return Err(BodyError::TooLarge);
            }
            share.take(data.len())?;
            // A body of one piece is passed on as it is.
            if first.is_empty() && all.is_empty() {
                first = data;
                continue;
            }
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    };
    or(whole, too_slow(WHOLE)).await
}

/// The next piece of data; `None` at the end.
async fn next(body: &mut Incoming) -> Result<Option<Bytes>, BodyError> {
    let piece = async {
        loop {
            match body.frame().await {
                None => return Ok(None),
                Some(Err(_)) => return Err(BodyError::Broken),
                // Trailers say nothing that is asked for.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    };
    or(piece, too_slow(PAUSE)).await
}

async fn too_slow<T>(after: Duration) -> Result<T, BodyError> {
    smol::Timer::after(after).await;
    Err(BodyError::TooSlow)
}
