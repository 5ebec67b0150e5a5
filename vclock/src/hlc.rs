//! The clock that mints stamps.

use crate::stamp::Stamp;

/// A hybrid logical clock: it follows the wall clock handed in, never goes back, and never answers twice alike.
///
/// Persist [`Hlc::last`] (or any stamp at or past it) and hand it in as the floor at the next start, and the clock does
/// not go backwards across a restart either.
///
/// ```
/// use gramme_vclock::{Hlc, Stamp};
///
/// let mut clock = Hlc::new(Stamp::ZERO);
/// let a = clock.tick(1_000);
/// let b = clock.tick(990); // the wall clock was set back
/// assert!(a < b);
/// clock.observe(1_000, Stamp::from_parts(u64::MAX, 0)); // a peer whose clock is wild
/// assert_eq!(clock.last(), b);
/// ```
#[derive(Clone, Debug)]
pub struct Hlc {
    last: Stamp,
    max_drift: u64,
}

impl Hlc {
    /// How far ahead of our wall clock a peer's stamp may be and still be followed, in milliseconds, unless
    /// [`Hlc::with_max_drift`] says otherwise.
    pub const MAX_DRIFT: u64 = 10_000;

    /// A clock whose every stamp is past `floor`.
    #[must_use]
    pub const fn new(floor: Stamp) -> Hlc {
        Hlc::with_max_drift(floor, Hlc::MAX_DRIFT)
    }

    /// A clock whose every stamp is past `floor`, and which follows peers at most `max_drift` milliseconds ahead of
    /// its own wall clock.
    #[must_use]
    pub const fn with_max_drift(floor: Stamp, max_drift: u64) -> Hlc {
        Hlc { last: floor, max_drift }
    }

    /// A new stamp, past every one given before; at least `wall_ms` (milliseconds since the Unix epoch).
    pub fn tick(&mut self, wall_ms: u64) -> Stamp {
        self.last = self.last.next().max(Stamp::from_parts(wall_ms, 0));
        self.last
    }

    /// Takes note of a peer's stamp, so that the next [`Hlc::tick`] is past it, and says whether it did. A stamp
    /// further ahead of `wall_ms` than the drift allowed is ignored.
    pub fn observe(&mut self, wall_ms: u64, seen: Stamp) -> bool {
        let follow = seen.millis() <= wall_ms.saturating_add(self.max_drift);
        if follow {
            self.last = self.last.max(seen);
        }
        follow
    }

    /// The last stamp given or followed, or the floor.
    #[must_use]
    pub const fn last(&self) -> Stamp {
        self.last
    }
}
