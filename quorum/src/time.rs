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

/// Whether the wall clock has gone evenly for a while.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Evenness {
    /// Since when it has, and what it showed then.
    since: Option<Now>,
}

impl Evenness {
    /// Looks at the clocks. Whether for as long as `patience` at least no look has found the wall clock off by more than a quarter of that
    /// against the monotonic one, in one jump or by and by.
    pub(crate) fn look(&mut self, now: Now, patience: Duration) -> bool {
        let is_even = |since: &Now| {
            let passed = now.instant.since(since.instant).as_millis();
            let walked = i128::from(now.wall_ms) - i128::from(since.wall_ms);
            walked.abs_diff(i128::try_from(passed).unwrap_or(i128::MAX)) <= patience.as_millis() / 4
        };
        let since = self.since.filter(is_even).unwrap_or(now);
        self.since = Some(since);
        now.instant.since(since.instant) >= patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumped_is_not_believed_at_once() {
        let hour = Duration::from_secs(3600);
        let at = |minute: u64, wall_minute: u64| Now {
            instant: Instant(minute * 60_000_000_000),
            wall_ms: wall_minute * 60_000,
        };
        let mut evenness = Evenness::default();
        assert!(!evenness.look(at(0, 1000), hour));
        assert!(!evenness.look(at(59, 1059), hour));
        // It may drift.
        assert!(evenness.look(at(60, 1061), hour));
        assert!(evenness.look(at(300, 1300), hour));
        let mut drifting = evenness;
        assert!((6..=15).all(|hours| drifting.look(at(60 * hours, 1000 + 61 * hours), hour)));
        assert!(!drifting.look(at(60 * 16, 1000 + 61 * 16), hour), "that makes more than a quarter by now");
        for wall in [5_000_000, 2, 400] {
            let mut jumped = evenness;
            assert!(!jumped.look(at(301, wall), hour), "{wall}");
            assert!(!jumped.look(at(360, wall + 59), hour), "{wall}");
            assert!(jumped.look(at(361, wall + 60), hour), "{wall}");
        }
        // Away and back, between two looks or seen.
        assert!(!evenness.look(at(302, 9000), hour));
        assert!(!evenness.look(at(303, 1303), hour));
        assert!(!evenness.look(at(362, 1362), hour));
        assert!(evenness.look(at(363, 1363), hour));
    }
}
