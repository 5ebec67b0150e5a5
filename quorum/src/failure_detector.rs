//! Local failure detection: phi accrual (Hayashibara et al., SRDS 2004) over all traffic from a peer.

use crate::time::{Duration, Instant};
use alloc::collections::VecDeque;

/// Arrivals remembered.
const WINDOW: usize = 64;
/// Suspicion past which a peer counts as failed: about one wrong suspicion in 10^8 intervals.
const THRESHOLD: f64 = 8.0;

/// Judges one peer by the rhythm of what arrives from it.
///
/// ```
/// use gramme_quorum::{Duration, FailureDetector, Instant};
/// let beat = Duration::from_millis(250);
/// let mut detector = FailureDetector::new(beat, Instant(0));
/// let mut now = Instant(0);
/// for _ in 0..20 {
///     now = now + beat;
///     detector.heard(now);
/// }
/// assert!(!detector.suspects(now + 2 * beat));
/// assert!(detector.suspects(now + 8 * beat));
/// ```
#[derive(Clone, Debug)]
pub struct FailureDetector {
    expected: Duration,
    last: Instant,
    intervals: VecDeque<u64>,
    sum: u64,
}

impl FailureDetector {
    /// A detector for a peer that should be heard every `expected`, last heard now.
    #[must_use]
    pub const fn new(expected: Duration, now: Instant) -> FailureDetector {
        FailureDetector { expected, last: now, intervals: VecDeque::new(), sum: 0 }
    }

    /// Something arrived. Bursts count as one arrival, so that traffic does not teach impatience.
    pub fn heard(&mut self, now: Instant) {
        let interval = now.since(self.last);
        if interval < self.expected / 2 {
            return;
        }
        self.last = now;
        let micros = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
        // A pause is not a rhythm: one long silence must not make the detector blind.
        let micros = micros.min(self.micros() * 4);
        if self.intervals.len() == WINDOW {
            self.sum -= self.intervals.pop_front().unwrap_or(0);
        }
        self.intervals.push_back(micros);
        self.sum += micros;
    }

    /// The suspicion: −log10 of the chance that a live peer is silent this long, its intervals taken as
    /// exponential about their mean. Integer mean, one division: no transcendental functions, so every
    /// platform agrees bit for bit.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "microseconds stay far below 2^53")]
    pub fn phi(&self, now: Instant) -> f64 {
        let count = self.intervals.len() as u64;
        // The expected interval takes part as half a window of arrivals: a young detector is not hasty.
        let prior = WINDOW as u64 / 2;
        let mean = (self.sum + self.micros() * prior) / (count + prior);
        let silent = u64::try_from(now.since(self.last).as_micros()).unwrap_or(u64::MAX);
        silent as f64 * LOG10_E_SHARPENED / mean.max(1) as f64
    }

    /// Whether the peer counts as failed.
    #[must_use]
    pub fn suspects(&self, now: Instant) -> bool {
        self.phi(now) >= THRESHOLD
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.expected.as_micros()).unwrap_or(u64::MAX).clamp(1, 1 << 40)
    }
}

/// log10(e), times the three phases of an Erlang rhythm: heartbeats come from a timer, so their intervals
/// vary far less than exponential ones, and a silence of 6.2 mean intervals is as telling as one of 18.
const LOG10_E_SHARPENED: f64 = 3.0 * core::f64::consts::LOG10_E;
