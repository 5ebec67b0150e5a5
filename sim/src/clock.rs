//! A node's two clocks: a monotonic one that drifts, and a wall clock that may be wrong by years and jump.

use crate::time::Time;
use core::time::Duration;
use gramme_quorum::{Instant, Now};

/// What every wall clock would show at the start if it were right: 2024-01-01, in milliseconds since the Unix epoch.
pub const EPOCH_MS: u64 = 1_704_067_200_000;

/// The clocks of one node.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// When this clock was last set right or started.
    since: Time,
    /// What the monotonic clock showed then, in nanoseconds.
    base: u64,
    /// How much it runs fast (or slow), in millionths; above −1,000,000.
    drift: i64,
    /// How far the wall clock is off, in milliseconds, and the most that it ever was.
    skew_ms: i64,
    most_skew_ms: i64,
}

impl Clock {
    /// A clock that starts now, its monotonic side showing `base` nanoseconds.
    #[must_use]
    pub const fn new(now: Time, base: u64) -> Clock {
        Clock { since: now, base, drift: 0, skew_ms: 0, most_skew_ms: 0 }
    }

    /// What an engine is told.
    #[must_use]
    pub fn now(&self, now: Time) -> Now {
        Now { instant: self.instant(now), wall_ms: wall(now, self.skew_ms) }
    }

    /// No less than the latest time that the wall clock has shown up to now.
    #[must_use]
    pub fn latest_wall(&self, now: Time) -> u64 {
        wall(now, self.most_skew_ms)
    }

    fn instant(&self, now: Time) -> Instant {
        let real = i128::from(now.0.saturating_sub(self.since.0));
        let shown = i128::from(self.base) + real * i128::from(1_000_000 + self.drift) / 1_000_000;
        Instant(u64::try_from(shown).unwrap_or(u64::MAX))
    }

    /// The first moment at which the monotonic clock shows at least `instant`, never before `now`.
    #[must_use]
    pub fn when(&self, instant: Instant, now: Time) -> Time {
        let shown = i128::from(instant.0.saturating_sub(self.base));
        let rate = i128::from(1_000_000 + self.drift);
        let real = (shown * 1_000_000 + rate - 1) / rate;
        let at = Time(self.since.0.saturating_add(u64::try_from(real).unwrap_or(u64::MAX)));
        at.max(now)
    }

    /// From now on the monotonic clock runs fast by this many millionths.
    pub fn set_drift(&mut self, now: Time, drift: i64) {
        assert!(drift > -1_000_000, "a monotonic clock does not run backwards");
        self.base = self.instant(now).0;
        self.since = now.max(self.since);
        self.drift = drift;
    }

    /// The machine is suspended: its monotonic clock stands still until then. The wall clock, which its battery drives, does not.
    pub fn suspend(&mut self, now: Time, until: Time) {
        self.base = self.instant(now).0;
        self.since = until.max(self.since);
    }

    /// The machine starts anew.
    pub fn resume(&mut self, now: Time) {
        self.since = self.since.min(now);
    }

    /// From now on the wall clock is off by this much.
    pub fn set_skew(&mut self, skew_ms: i64) {
        self.skew_ms = skew_ms;
        self.most_skew_ms = self.most_skew_ms.max(skew_ms);
    }

    /// How far the wall clock is off, in milliseconds.
    #[must_use]
    pub const fn skew_ms(&self) -> i64 {
        self.skew_ms
    }
}

/// What a wall clock shows that is off by so many milliseconds.
fn wall(now: Time, skew_ms: i64) -> u64 {
    let ms = i64::try_from((EPOCH_MS * 1_000_000 + now.0) / 1_000_000).unwrap_or(i64::MAX);
    u64::try_from(ms.saturating_add(skew_ms)).unwrap_or(0)
}

/// Ten years, the largest skew that the swarm sets.
pub const DECADE: Duration = Duration::from_secs(3652 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_set_by_a_drifting_clock_rings_when_that_clock_says_so() {
        for drift in [-100_000, -333, 0, 7, 999_999] {
            let mut clock = Clock::new(Time(5), 1_000);
            clock.set_drift(Time(50), drift);
            for target in [1_001, 1_046, 77_777, 123_456_789] {
                let at = clock.when(Instant(target), Time(50));
                assert!(clock.now(at).instant >= Instant(target), "rings too early at drift {drift}");
                if at > Time(50) {
                    assert!(
                        clock.now(Time(at.0 - 1)).instant < Instant(target),
                        "rings too late at drift {drift}"
                    );
                }
            }
        }
    }

    #[test]
    fn changing_the_rate_never_moves_the_monotonic_clock_back() {
        let mut clock = Clock::new(Time(0), 0);
        let mut last = Instant(0);
        for (at, drift) in [(10, 500_000), (20, -900_000), (21, 0), (1_000_000, -1)] {
            clock.set_drift(Time(at), drift);
            assert!(clock.now(Time(at)).instant >= last);
            last = clock.now(Time(at)).instant;
        }
    }

    #[test]
    fn a_machine_that_is_suspended_counts_on_where_it_stood() {
        let mut clock = Clock::new(Time(0), 1_000);
        clock.set_drift(Time(0), 500_000);
        let before = clock.now(Time(100));
        clock.suspend(Time(100), Time(9_000_100));
        for at in [101, 4_000_000, 9_000_100] {
            assert_eq!(clock.now(Time(at)).instant, before.instant);
        }
        assert_eq!(clock.now(Time(9_000_102)).instant, before.instant + Duration::from_nanos(3));
        assert!(clock.when(before.instant + Duration::from_nanos(3), Time(9_000_100)) == Time(9_000_102));
        assert_eq!(clock.now(Time(9_000_100)).wall_ms, EPOCH_MS + 9);
    }

    #[test]
    fn a_wall_clock_ten_years_off_still_counts_milliseconds() {
        let mut clock = Clock::new(Time(0), 0);
        clock.set_skew(-i64::try_from(DECADE.as_millis()).unwrap());
        let early = clock.now(Time(0)).wall_ms;
        assert_eq!(clock.now(Time(3_000_000)).wall_ms, early + 3);
        assert!(early < EPOCH_MS);
    }
}
