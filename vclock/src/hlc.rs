//! The clock that mints stamps.

use crate::stamp::Stamp;

/// A hybrid logical clock (Kulkarni et al., 2014): it follows the wall clock handed in and never goes back, and its [ticks](Hlc::tick)
/// are all different before [`Stamp::MAX`].
///
/// Only what [`Hlc::tick_past`] answers over a stamp beyond the drift allowed is not the clock's own: two writes over one such stamp
/// may have the same, and later ticks are below it.
///
/// A peer's stamp is followed only within a bound, so a wild clock elsewhere can't drag this one along. And the clock does
/// not go back across a restart, whatever the wall clock shows then, if its stamps are reserved: [`Hlc::reserve`] names a
/// floor to make durable, once in [`Hlc::LEAD`] milliseconds; [`Hlc::reserved`] tells that it is; and the next start hands it to [`Hlc::new`].
/// It is asked after a stamp was taken, before that is used; and after a peer's was followed, before what came with it is kept.
///
/// ```
/// use gramme_vclock::{Hlc, Stamp};
///
/// let mut on_disk = Stamp::ZERO;
/// let mut clock = Hlc::new(on_disk);
/// let mut stamp = |clock: &mut Hlc, wall_ms| {
///     let stamp = clock.tick(wall_ms);
///     if let Some(floor) = clock.reserve(wall_ms) {
///         on_disk = floor; // and synced
///         clock.reserved(floor);
///     }
///     stamp // not before
/// };
/// let a = stamp(&mut clock, 1_000);
/// let b = stamp(&mut clock, 990); // the wall clock was set back
/// assert!(a < b);
///
/// let followed = clock.observe(990, Stamp::from_parts(u64::MAX, 0)); // a peer whose clock is wild
/// assert!(!followed && clock.last() == b);
///
/// clock = Hlc::new(on_disk); // a crash, and the wall clock starts at zero
/// assert!(b < clock.tick(0));
/// ```
#[derive(Clone, Debug)]
pub struct Hlc {
    last: Stamp,
    /// What is durable: no stamp past this one is safe from being answered again after a restart.
    reserved: Stamp,
    /// The greatest of a peer's that was followed.
    followed: Stamp,
    max_drift: u64,
}

impl Hlc {
    /// How far ahead of our wall clock a peer's stamp may be and still be followed, in milliseconds, unless
    /// [`Hlc::with_max_drift`] says otherwise.
    pub const MAX_DRIFT: u64 = 10_000;

    /// How far [`Hlc::reserve`] reaches ahead, in milliseconds. With a smaller drift allowed it is half of
    /// that, so that peers with the same bound follow a clock that has just restarted, if it had followed nobody, and their wall clocks are no more
    /// than the other half behind.
    pub const LEAD: u64 = 1_000;

    /// A clock whose every stamp is past `floor`: [`Stamp::ZERO`], or what was last made durable for [`Hlc::reserve`].
    #[must_use]
    pub const fn new(floor: Stamp) -> Hlc {
        Hlc::with_max_drift(floor, Hlc::MAX_DRIFT)
    }

    /// A clock whose every stamp is past `floor`, and which follows peers at most `max_drift` milliseconds ahead of
    /// its own wall clock. Peers should have the same bound, of at least 4: a clock that restarts again and again within
    /// one millisecond is ahead by one more each time.
    #[must_use]
    pub const fn with_max_drift(floor: Stamp, max_drift: u64) -> Hlc {
        Hlc { last: floor, reserved: floor, followed: Stamp::ZERO, max_drift }
    }

    /// A new stamp, past every one that this answered or that was followed before; at least `wall_ms` (milliseconds since the Unix epoch), unless that is
    /// later than any stamp, as no clock shows before the year 6429: such a reading counts as none.
    ///
    /// Any other reading is believed, and since a clock never goes back, a wild one is kept for good. Where the wall clock may be
    /// wild (set by hand, or read before it is set), hold it against what is known, such as [`Hlc::last`] or the date of the build, before it
    /// is handed in.
    pub fn tick(&mut self, wall_ms: u64) -> Stamp {
        self.last = self.next(wall_ms);
        self.last
    }

    /// A new stamp as of [`Hlc::tick`] that is past `covered` as well, however far ahead that is: for a write that is to rank above what it
    /// replaces ([`Context::stamp`](crate::Context::stamp)). Beyond the drift allowed the clock itself does not follow, or one wild stamp would
    /// raise those of every other key: its next tick may be below, and another write over the same stamp is answered the same. Dots tell the
    /// two apart. Of [`Stamp::MAX`] there is no next, and the answer is that.
    ///
    /// Within the drift allowed the clock follows `covered`, past whatever was reserved before: [`Hlc::reserve`] comes after this, before the
    /// stamp is used.
    pub fn tick_past(&mut self, wall_ms: u64, covered: Stamp) -> Stamp {
        self.observe(wall_ms, covered);
        self.tick(wall_ms).max(covered.next())
    }

    fn next(&self, wall_ms: u64) -> Stamp {
        self.last.next().max(Stamp::from_parts(believable(wall_ms), 0))
    }

    /// The floor to make durable before any stamp that was taken is used, and for the clock to stay past what it has followed; `None` if what
    /// is durable reaches that far. It is asked for again until [`Hlc::reserved`] tells that it is. It serves the next [`Hlc::tick`] at
    /// `wall_ms` as well, so that it may be asked for before such a one, but no [`Hlc::tick_past`].
    ///
    /// It is [`Hlc::LEAD`] (or half the drift allowed, if that is less) ahead of the wall clock or of the greatest stamp followed, if that is later, but
    /// of the wall clock by the drift allowed at most. Where the clock is already past that, it is ahead of the clock by one
    /// millisecond and its 65,536 stamps: restarts in quick succession don't run away from the wall clock. So it is asked for about once in `LEAD`;
    /// more often, up to each millisecond, while a peer is followed that is ahead by the drift allowed less `LEAD` or more.
    #[must_use = "the floor has to be made durable"]
    pub fn reserve(&self, wall_ms: u64) -> Option<Stamp> {
        let next = self.next(wall_ms);
        if next <= self.reserved {
            return None;
        }
        let (wall, lead) = (believable(wall_ms), Hlc::LEAD.min(self.max_drift / 2));
        let from = self.followed.millis().min(wall.saturating_add(self.max_drift - lead)).max(wall);
        let lead = Stamp::from_parts(from.saturating_add(lead), 0);
        Some(lead.max(Stamp::from_parts(next.millis() + 1, u16::MAX)))
    }

    /// Takes note that a floor which [`Hlc::reserve`] named is durable: the next start will have it, or a later one.
    pub fn reserved(&mut self, floor: Stamp) {
        self.reserved = self.reserved.max(floor);
    }

    /// Takes note of a peer's stamp, so that the next [`Hlc::tick`] is past it, and says whether it did. A stamp
    /// further ahead of `wall_ms` than the drift allowed is ignored.
    ///
    /// It may be past what is reserved. For the first stamp after a restart to be past it too, [`Hlc::reserve`] comes after it,
    /// before what carried the stamp is kept.
    pub fn observe(&mut self, wall_ms: u64, seen: Stamp) -> bool {
        let follow = seen.millis() <= believable(wall_ms).saturating_add(self.max_drift);
        if follow {
            self.followed = self.followed.max(seen);
            self.last = self.last.max(seen);
        }
        follow
    }

    /// The last tick or the greatest stamp followed, whichever is later, or the floor.
    #[must_use]
    pub const fn last(&self) -> Stamp {
        self.last
    }
}

/// A reading of the wall clock, or none (0) if it is later than any stamp.
const fn believable(wall_ms: u64) -> u64 {
    if wall_ms <= Stamp::MAX.millis() { wall_ms } else { 0 }
}
