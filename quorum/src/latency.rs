//! How long things take, and what to make of it: whom to ask, and when to ask another.

use crate::time::Duration;

/// Times that are remembered.
const SAMPLES: usize = 64;
/// What a hop costs, in microseconds, before it is worth while.
const HOP_MICROS: u64 = 1000;
/// The percentile is looked up anew after so many.
const RENEW: usize = 16;

/// The last reads' times, and the one that 95 in 100 stay under.
#[derive(Debug)]
pub(crate) struct Usual {
    micros: [u32; SAMPLES],
    count: usize,
    p95: Option<Duration>,
}

impl Usual {
    pub(crate) const fn new() -> Usual {
        Usual { micros: [0; SAMPLES], count: 0, p95: None }
    }

    pub(crate) fn saw(&mut self, took: Duration) {
        self.micros[self.count % SAMPLES] = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.count += 1;
        if self.count >= SAMPLES && self.count.is_multiple_of(RENEW) {
            let mut sorted = self.micros;
            sorted.sort_unstable();
            self.p95 = Some(Duration::from_micros(sorted[SAMPLES * 95 / 100].into()));
        }
    }

    /// `None` until enough is known.
    pub(crate) const fn p95(&self) -> Option<Duration> {
        self.p95
    }
}

/// How fast a node has answered of late, in microseconds; of one that has not answered at all, how long that was waited for. What is
/// not asked becomes faster little by little, until it is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pace(u64);

/// How fast a node has answered reads of its copy, and requests that were forwarded to it. Each is as good as the other to tell the
/// fast from the slow, and only their sum can be compared: the latter take longer everywhere.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Paces {
    pub(crate) copies: Pace,
    pub(crate) requests: Pace,
}

impl Paces {
    pub(crate) const fn total(self) -> u64 {
        self.copies.0.saturating_add(self.requests.0)
    }

    pub(crate) const fn passed_over(&mut self) {
        self.copies.passed_over();
        self.requests.passed_over();
    }
}

impl Pace {
    pub(crate) fn saw(&mut self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX) / 8;
        self.0 = (self.0 - self.0 / 8).saturating_add(took).max(1);
    }

    /// Far slower than that one: twice, and by more than a hop within a data centre takes.
    pub(crate) const fn is_left_behind_by(self, other: Pace) -> bool {
        self.0 > other.0.saturating_mul(2).saturating_add(HOP_MICROS)
    }

    pub(crate) const fn passed_over(&mut self) {
        self.0 -= self.0.div_ceil(64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_in_a_hundred_take_longer_than_usual() {
        let mut usual = Usual::new();
        for micros in 0..63 {
            usual.saw(Duration::from_micros(micros));
        }
        assert_eq!(usual.p95(), None, "too little is known");
        usual.saw(Duration::from_micros(63));
        assert_eq!(usual.p95(), Some(Duration::from_micros(60)));
        // What was long ago is forgotten.
        for _ in 0..64 {
            usual.saw(Duration::from_millis(5));
        }
        assert_eq!(usual.p95(), Some(Duration::from_millis(5)));
        usual.saw(Duration::from_secs(1 << 40));
    }

    #[test]
    fn the_slow_are_tried_again_in_time() {
        let (mut fast, mut slow) = (Pace::default(), Pace::default());
        for _ in 0..100 {
            fast.saw(Duration::from_micros(200));
            slow.saw(Duration::from_millis(20));
        }
        assert!(fast < slow);
        let passed = (1..10_000).find(|_| {
            slow.passed_over();
            slow <= fast
        });
        assert!(passed.is_some_and(|times| times > 100), "{passed:?}");
    }
}
