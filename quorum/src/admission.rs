//! Admission control: background work yields to the requests of clients (Dynamo, section 6.5).

use crate::time::{Duration, Instant};

/// How long a window of observation is.
const WINDOW: Duration = Duration::from_secs(1);

/// Decides how much of what it may do at the most background work gets: handoff, recovery, transfers, anti-entropy, and the
/// store's compaction.
///
/// It looks at the requests of one second at a time. If more than one in a hundred took longer than they should, background work
/// gets half of its share, down to a hundredth; otherwise a tenth of all more. Where no client asks for anything it soon has all.
///
/// ```
/// use gramme_quorum::{Admission, Duration, Instant};
///
/// let mut admission = Admission::new(Duration::from_millis(50), Instant(0));
/// let second = Duration::from_secs(1);
/// let mut now = Instant(0);
/// for _ in 0..3 {
///     for _ in 0..100 {
///         admission.saw(now, Duration::from_millis(80));
///     }
///     now = now + second;
/// }
/// assert_eq!(admission.percent(now), 12);
/// assert_eq!(admission.percent(now + 3 * second), 42);
/// assert_eq!(admission.percent(now + 60 * second), 100);
/// ```
#[derive(Clone, Debug)]
pub struct Admission {
    bound: Duration,
    /// When the window ends.
    until: Instant,
    requests: u32,
    slow: u32,
    percent: u8,
}

impl Admission {
    /// A controller for requests that should take no longer than `bound`, 99 of 100 of them.
    #[must_use]
    pub fn new(bound: Duration, now: Instant) -> Admission {
        Admission { bound, until: now + WINDOW, requests: 0, slow: 0, percent: 100 }
    }

    /// A client's request took so long.
    pub fn saw(&mut self, now: Instant, took: Duration) {
        self.turn(now);
        self.requests = self.requests.saturating_add(1);
        self.slow = self.slow.saturating_add(u32::from(took > self.bound));
    }

    /// The share of background work: 1 to 100.
    pub fn percent(&mut self, now: Instant) -> u8 {
        self.turn(now);
        self.percent
    }

    /// So much of `most`, but something.
    pub(crate) fn part(&mut self, now: Instant, most: usize) -> usize {
        (most / 100 * usize::from(self.percent(now)) + most % 100 * usize::from(self.percent) / 100).max(1)
    }

    fn turn(&mut self, now: Instant) {
        if now < self.until {
            return;
        }
        // Windows in which nobody asked for anything are as good as fast ones.
        let windows = 1 + now.since(self.until).as_secs();
        let (mut percent, mut good) = (u64::from(self.percent), windows);
        if u64::from(self.slow) * 100 > u64::from(self.requests) {
            percent = (percent / 2).max(1);
            good -= 1;
        }
        percent = percent.saturating_add(good.saturating_mul(10)).min(100);
        self.percent = u8::try_from(percent).unwrap_or(100);
        (self.requests, self.slow) = (0, 0);
        self.until = now + WINDOW;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_request_in_a_hundred_is_no_reason() {
        let mut admission = Admission::new(Duration::from_millis(10), Instant(0));
        for i in 0..200 {
            admission.saw(Instant(0), Duration::from_millis(if i < 2 { 11 } else { 10 }));
        }
        assert_eq!(admission.percent(Instant(0) + WINDOW), 100);
        for i in 0..200 {
            admission.saw(Instant(0) + WINDOW, Duration::from_millis(if i < 3 { 11 } else { 10 }));
        }
        assert_eq!(admission.percent(Instant(0) + WINDOW), 100, "not before the window has ended");
        assert_eq!(admission.percent(Instant(0) + 2 * WINDOW), 50);
        assert_eq!((admission.part(Instant(0), 33), admission.part(Instant(0), 1)), (16, 1));
    }

    #[test]
    fn it_never_comes_to_a_stop() {
        let mut admission = Admission::new(Duration::ZERO, Instant(0));
        for second in 0..20 {
            admission.saw(Instant(0) + second * WINDOW, Duration::from_secs(1));
        }
        assert_eq!(admission.percent(Instant(0) + 20 * WINDOW), 1);
        assert_eq!(admission.part(Instant(0), 16 << 20), (16 << 20) / 100);
        assert_eq!(admission.percent(Instant(u64::MAX)), 100);
    }
}
