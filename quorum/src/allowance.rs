//! How much background work may be done in a time: bytes, slice by slice.

use crate::time::{Duration, Instant};

/// It is renewed this often.
pub(crate) const SLICE: Duration = Duration::from_millis(100);

/// Bytes that may be spent in a slice of time. What is large may overdraw; then the next slices pay for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    slice: i64,
    left: i64,
    until: Instant,
}

impl Allowance {
    pub(crate) fn new(now: Instant, per_second: u32) -> Allowance {
        let slice = i64::from(per_second / 10).max(1);
        Allowance { slice, left: slice, until: now + SLICE }
    }

    pub(crate) const fn is_spent(&self) -> bool {
        self.left <= 0
    }

    /// When there is more, if it was renewed in this slice.
    pub(crate) const fn until(&self) -> Instant {
        self.until
    }

    pub(crate) fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// New slices of time, of whose allowance the controller grants some percent. What is not spent is not kept.
    pub(crate) fn renew(&mut self, now: Instant, percent: u8) {
        if now >= self.until {
            let slices = 1 + now.since(self.until).as_nanos() / SLICE.as_nanos();
            let slice = (self.slice * i64::from(percent) / 100).max(1);
            let more = slice.saturating_mul(i64::try_from(slices).unwrap_or(i64::MAX));
            self.left = self.left.saturating_add(more).min(slice);
            self.until = now + SLICE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_overdrawn_is_paid_for() {
        let mut allowance = Allowance::new(Instant(0), 1000);
        allowance.spend(99);
        assert!(!allowance.is_spent());
        allowance.spend(151);
        assert!(allowance.is_spent());
        allowance.renew(Instant(0) + SLICE, 100);
        assert!(allowance.is_spent(), "50 are still owed");
        allowance.renew(Instant(0) + 2 * SLICE, 50);
        assert!(allowance.is_spent(), "and nothing is left");
        allowance.renew(Instant(0) + 2 * SLICE, 100);
        assert!(allowance.is_spent(), "once in a slice");
        allowance.renew(Instant(0) + 3 * SLICE, 1);
        assert!(!allowance.is_spent());
        // Nothing is saved up.
        allowance.renew(Instant(u64::MAX), 100);
        allowance.spend(100);
        assert!(allowance.is_spent());
    }
}
