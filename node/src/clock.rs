//! The two clocks of a process, read for the engine.

use gramme_quorum::{Instant, Now};
use std::time::{SystemTime, UNIX_EPOCH};

/// Counts monotonic nanoseconds from its own start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: std::time::Instant,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock { start: std::time::Instant::now() }
    }

    /// Both clocks, now.
    pub(crate) fn now(&self) -> Now {
        let nanos = u64::try_from(self.start.elapsed().as_nanos()).expect("less than 584 years");
        Now { instant: Instant(nanos), wall_ms: wall_ms() }
    }

    /// An engine's instant on the system's own scale.
    pub(crate) fn to_system(self, instant: Instant) -> std::time::Instant {
        self.start + std::time::Duration::from_nanos(instant.0)
    }
}

/// Milliseconds since the Unix epoch; zero if the clock stands before it.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
