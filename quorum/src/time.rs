//! The engine's notion of time, handed in with every input.

use core::ops::Add;
pub use core::time::Duration;
use serde::{Deserialize, Serialize};

/// A monotonic moment: nanoseconds since some fixed start of the caller's choosing.
///
/// The engine only compares instants and adds durations to them, so the origin does not matter; it must
/// never run backwards within one engine's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instant(pub u64);

impl Instant {
    /// The time passed since `earlier`, zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, rhs: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Both clocks, read once for each input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time: deadlines, failure detection.
    pub instant: Instant,
    /// Wall time in milliseconds since the Unix epoch: stamps and expiry. It may jump either way.
    pub wall_ms: u64,
}
