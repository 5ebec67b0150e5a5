//! Openings of a store, numbered so that a store put back from an older copy is found out.
//!
//! A run's number exceeds every [mark](crate::message::Message::Heartbeat) that earlier runs of the same store told: a mark
//! is the position of the log up to which it is durable, and the next opening comes after that. An old
//! copy's log is shorter than peers have heard, an empty store's is empty. A node that owns nothing (yet, or any more) starts
//! over past all of that: whatever it told before, nobody misses it.

use gramme_ring::LayoutVersion;
use gramme_ring::gossip::INCARNATION_END;
use gramme_vclock::Actor;
use serde::{Deserialize, Serialize};

/// No log comes so far: a larger mark is a lie, which would put a node beyond all numbers.
pub(crate) const MAX_MARK: u64 = 1 << 62;
/// More writes than a store takes while its node is a member: six years of 100,000 a second.
const STAY_BITS: u32 = 44;

/// Where a run begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    base: u64,
    position: u64,
}

impl Opening {
    /// For a store that was opened at this position of its log (each write since its creation counted, those that a crash
    /// took with it excepted), and that holds this record at [`RUN_PLACE`](crate::RUN_PLACE) under
    /// [`RUN_KEY`](crate::RUN_KEY).
    #[must_use]
    pub fn new(record: Option<&[u8]>, position: u64) -> Opening {
        let base = record.and_then(|bytes| bytes.get(8..16)).and_then(|bytes| bytes.try_into().ok());
        Opening { base: base.map_or(0, u64::from_be_bytes), position }
    }

    /// The run's number, 1 or more. Below [`INCARNATION_END`], as gossip wants it: no log comes so far, but a spoilt record may.
    #[must_use]
    pub const fn number(self) -> u64 {
        let number = self.base.saturating_add(self.position).saturating_add(1);
        if number < INCARNATION_END { number } else { INCARNATION_END - 1 }
    }

    /// What may be told when the log is durable up to here: less than the next opening's number.
    pub(crate) fn mark(self, position: u64) -> u64 {
        self.base.saturating_add(position).max(self.number() - 1)
    }

    /// The same run under a number past `mark`, which others have heard.
    pub(crate) const fn past(self, mark: u64) -> Opening {
        Opening { base: mark.saturating_sub(self.position), position: self.position }
    }

    /// The same run under a number past all that the node told as an owner by layouts before this one, by which it owns nothing and
    /// nobody misses anything of it, wiped or not.
    pub(crate) fn past_layout(self, free: LayoutVersion) -> Opening {
        let stay = free.0.min((MAX_MARK >> STAY_BITS) - 1);
        Opening { base: self.base.max(stay << STAY_BITS), position: self.position }
    }

    pub(crate) const fn base(self) -> u64 {
        self.base
    }
}

/// A run of a node, as its peers know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The [number](Opening::number) of the opening.
    pub number: u64,
    /// What it mints dots as: tells two runs of one number apart.
    pub actor: Actor,
}

/// What a peer has told of its runs.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    run: Option<Run>,
    mark: u64,
}

impl Seen {
    /// Whether a run holds less than this one told.
    pub(crate) fn outdates(&self, run: Run) -> bool {
        self.run.is_some_and(|seen| {
            run.number < seen.number || run.actor != seen.actor && run.number <= self.mark
        })
    }

    /// Takes in what a run that is not outdated tells, and whether it is another one.
    pub(crate) fn see(&mut self, run: Run, mark: u64) -> bool {
        let other = self.run != Some(run);
        // A run that was found out goes on under a larger number.
        let same = self.run.is_some_and(|seen| seen.actor == run.actor);
        self.mark = if same { self.mark.max(mark) } else { mark };
        self.run = Some(run);
        other
    }

    /// Takes in what was written down before this node's last restart.
    pub(crate) fn recall(&mut self, written: Seen) {
        if self.run.is_none_or(|run| written.outdates(run)) {
            *self = written;
        }
    }

    pub(crate) const fn mark(self) -> u64 {
        self.mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The next run of a store, one of another actor.
    fn run(opening: Opening, actor: u64) -> Run {
        Run { number: opening.number(), actor: Actor(actor) }
    }

    #[test]
    fn an_old_copy_is_found_out_and_a_restart_is_not() {
        let mut seen = Seen::default();
        let first = Opening::new(None, 0);
        seen.see(run(first, 1), first.mark(10));
        assert!(!seen.outdates(run(Opening::new(None, 10), 2)), "ten writes are durable, and ten were told");
        let copy = Opening::new(None, 9);
        assert!(seen.outdates(run(copy, 3)));
        assert!(seen.outdates(run(first, 4)), "as it was when it was opened");
        assert!(!seen.outdates(run(first, 1)), "a late message");
        let found_out = copy.past(seen.mark());
        assert!(!seen.outdates(run(found_out, 3)));
        // Those who had taken it for sound see nothing new in that.
        let mut deceived = Seen::default();
        deceived.see(run(copy, 3), copy.mark(100));
        assert!(!deceived.outdates(run(found_out, 3)));
        // At its next opening it goes on from there.
        let record = [0u64.to_be_bytes(), found_out.base().to_be_bytes()].concat();
        let next = Opening::new(Some(&record), 12);
        assert_eq!(next.number(), found_out.number() + 3);
    }

    #[test]
    fn a_spoilt_record_makes_no_number_that_gossip_refuses() {
        let spoilt = Opening::new(Some(&[0xff; 16]), 5);
        assert_eq!(spoilt.number(), INCARNATION_END - 1);
    }

    #[test]
    fn a_run_that_wrote_nothing_leaves_nothing_to_be_missed() {
        let mut seen = Seen::default();
        let opening = Opening::new(None, 5);
        seen.see(run(opening, 1), opening.mark(0));
        assert!(!seen.outdates(run(opening, 2)));
    }
}
