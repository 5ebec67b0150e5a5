//! What was replaced stays so wherever what replaced it is known: in a copy, in a message, and in an answer.

use crate::history::*;
use bytes::Bytes;
use gramme_quorum::message::{CallId, Message, Purpose, Syncing};
use gramme_quorum::object::encode;
use gramme_quorum::{AppendId, Content, Cover, Op, OpError, Output, Place, Reply, Version};
use gramme_ring::{LayoutVersion, NodeId, Slot};
use gramme_sim::checker::{Invariant, OpId};
use gramme_sim::time::Time;
use gramme_vclock::Dot;

fn tombstone(millis: u64) -> Version {
    Version { stamp: stamp(millis), expiry: None, content: Content::Tombstone }
}

impl History {
    /// A strict plain delete through node 0, acknowledged: what it has deleted, and its tombstone.
    fn deleted(&mut self) -> (OpId, Dot, Dot) {
        let (first, a) = self.first_write();
        let plain =
            self.ask(Op::Delete { key: Bytes::from_static(KEY), cover: Cover::Held, options: strict().1 });
        let d = dot(0, 2);
        for node in 0..2 {
            self.store(node, &object(&[(d, tombstone(9))], &[a, d]));
        }
        self.ok(plain, &[a, d]);
        (first, a, d)
    }
}

#[test]
fn a_read_that_knows_of_a_delete_and_shows_what_it_deleted() {
    for (knows, holds) in [(true, false), (false, true)] {
        let mut h = History::new();
        let (first, a, d) = h.deleted();
        // A read of a single copy need not know of it.
        let read = h.ask(Op::Get { key: Bytes::from_static(KEY), options: Default::default() });
        let seen = if knows { vec![a, d] } else { vec![a] };
        h.read(read, &[(a, value(first))], &seen);
        if holds { h.holds() } else { h.breaks(Invariant::CoveredStaysGone) }
    }
}

#[test]
fn a_copy_that_takes_back_what_it_had_replaced() {
    let mut h = History::new();
    let (first, a) = h.first_write();
    // Nobody has answered the second write, so that the first one's value is not gone for good; only not here any more.
    let second = h.put_over(&[a]);
    let b = dot(1, 1);
    h.store(1, &object(&[(b, value(second))], &[a, b]));
    h.holds();
    h.store(1, &object(&[(a, value(first)), (b, value(second))], &[a, b]));
    h.breaks(Invariant::CoveredStaysGone);
}

#[test]
fn a_merge_of_two_copies_that_keeps_what_one_of_them_has_replaced() {
    let mut h = History::new();
    let (first, a) = h.first_write();
    let second = h.put_over(&[a]);
    let b = dot(1, 1);
    h.store(1, &object(&[(b, value(second))], &[a, b]));
    // It never had the second one before.
    h.store(2, &object(&[(a, value(first)), (b, value(second))], &[a, b]));
    h.breaks(Invariant::CoveredStaysGone);
}

#[test]
fn a_context_that_knows_of_a_write_need_not_know_what_that_replaced() {
    let mut h = History::new();
    let (first, a) = h.first_write();
    let second = h.put_over(&[a]);
    let b = dot(1, 1);
    h.store(1, &object(&[(b, value(second))], &[a, b]));
    // Whoever knows this dot alone writes through a node that has nothing, and then meets the first value.
    let third = h.put_over(&[b]);
    let c = dot(2, 1);
    h.checker.wiped(h.now, 2);
    h.store(2, &object(&[(c, value(third))], &[b, c]));
    h.store(2, &object(&[(a, value(first)), (c, value(third))], &[a, b, c]));
    h.holds();
}

#[test]
fn a_delete_that_was_surely_not_done_and_is_known_all_the_same() {
    for stored_first in [true, false] {
        let mut h = History::new();
        let (first, a) = h.first_write();
        let delete = h.delete(&[]);
        let d = dot(0, 2);
        let dead = object(&[(a, value(first)), (d, tombstone(9))], &[a, d]);
        h.store(0, &dead);
        if !stored_first {
            h.checker.wiped(h.now, 0);
        }
        h.reply(delete, &Reply::Failed(OpError::Overloaded));
        if !stored_first {
            h.holds();
            h.store(1, &dead);
            h.checker.check_not_undone(Time(9), 1, &Bytes::from_static(KEY));
        }
        h.breaks(Invariant::RequestsEnd);
    }
}

#[test]
fn a_tombstone_that_nobody_asked_for() {
    let mut h = History::new();
    let (_, a, d) = h.deleted();
    // The delete was answered long ago, and is done once more.
    let again = dot(0, 3);
    h.store(0, &object(&[(again, tombstone(10))], &[a, d, again]));
    h.breaks(Invariant::RequestsEnd);
}

#[test]
fn what_a_plain_delete_that_was_not_done_may_have_covered_is_open_again() {
    let mut h = History::new();
    let (_, a) = h.first_write();
    let plain = h.ask(Op::Delete { key: Bytes::from_static(KEY), cover: Cover::Held, options: strict().1 });
    let d = dot(0, 2);
    h.store(0, &object(&[(d, tombstone(9))], &[a, d]));
    h.checker.wiped(h.now, 0);
    h.reply(plain, &Reply::Failed(OpError::Overloaded));
    h.holds();
    h.store(1, &object(&[], &[a]));
    h.breaks(Invariant::OnlyCoveredDisappears);
}

#[test]
fn what_is_lost_costs_nothing_that_others_have() {
    for (lost, holds) in [(true, false), (false, true)] {
        let mut h = History::new();
        let (first, a) = h.first_write();
        // It may replace the first one, was never answered, and goes with the only disk that had it.
        let second = h.put_over(&[a]);
        let b = dot(0, 2);
        h.store(0, &object(&[(b, value(second))], &[a, b]));
        h.checker.wiped(h.now, 0);
        h.checker.lost(h.now, second);
        let left = if lost { object(&[], &[a]) } else { object(&[(a, value(first))], &[a]) };
        for node in 0..3 {
            h.store(node, &left);
        }
        h.rest();
        if holds { h.holds() } else { h.breaks(Invariant::AcknowledgedReadable) }
    }
}

#[test]
fn what_comes_in_the_breath_of_a_birth_is_not_replaced_by_it() {
    let mut h = History::new();
    let (first, a) = h.first_write();
    // Node 1 has something else in the first one's place.
    let second = h.put_over(&[a]);
    let b = dot(1, 1);
    h.store(1, &object(&[(b, value(second))], &[a, b]));
    // Node 0 mints beside the first one, sends that, and takes in what node 1 has before it writes anything down.
    let third = h.put(Cover::Nothing);
    let c = dot(0, 2);
    let minted = object(&[(a, value(first)), (c, value(third))], &[a, c]);
    let kept = object(&[(b, value(second)), (c, value(third))], &[a, b, c]);
    let append = Output::Append {
        id: AppendId(99),
        place: Place(Slot::of(KEY).index()),
        key: Bytes::from_static(KEY),
        value: Some((encode(&kept), 0)),
        shrink: None,
    };
    let write = Message::Write {
        sync: Syncing::First,
        call: CallId(1),
        layout: LayoutVersion(1),
        purpose: Purpose::Write,
        key: Bytes::from_static(KEY),
        object: encode(&minted),
        hints: vec![],
        outranked_by: None,
    };
    let now = h.tick();
    h.checker.acted(now, 0, &[append, Output::Send(NodeId(1), write)]);
    h.store(2, &minted);
    h.holds();
}
