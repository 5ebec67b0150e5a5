//! The judge is judged: hand-made histories, each with one wrong step, and the promise that it breaks.

mod background;
mod bounds;
mod covered;
mod excuses;
mod given_back;
mod history;
mod keyspaces;
mod losses;
mod steps;

use bytes::Bytes;
use gramme_quorum::message::{CallId, Message, Purpose, Syncing};
use gramme_quorum::object::encode;
use gramme_quorum::{
    AppendId, Content, Cover, Expiry, Found, Need, OpError, Output, Place, Reading, Reply, Version,
};
use gramme_ring::{ClusterId, LayoutVersion, Member, Membership, NodeId};
use gramme_sim::checker::{Circumstances, Invariant, OpId, value_of};
use gramme_sim::time::Time;
use gramme_vclock::{GrowableContext as Context, Stamp};
use history::*;
use std::collections::BTreeMap;

#[test]
fn a_good_history_passes() {
    let mut h = History::new();
    let (first, a) = h.first_write();
    let read = h.get();
    h.read(read, &[(a, value(first))], &[a]);
    let second = h.put_over(&[a]);
    let b = dot(1, 1);
    for node in [1, 0, 2] {
        h.store(node, &object(&[(b, value(second))], &[a, b]));
    }
    h.ok(second, &[a, b]);
    let plain = h.put(Cover::Held);
    let c = dot(2, 1);
    for node in [2, 0, 1] {
        h.store(node, &object(&[(c, value(plain))], &[a, b, c]));
    }
    h.ok(plain, &[a, b, c]);
    let delete = h.delete(&[a, b, c]);
    let d = dot(0, 2);
    let tombstone = Version { stamp: stamp(9), expiry: None, content: Content::Tombstone };
    for node in 0..3 {
        h.store(node, &object(&[(d, tombstone.clone())], &[a, b, c, d]));
    }
    h.ok(delete, &[a, b, c, d]);
    let read = h.get();
    h.read(read, &[], &[a, b, c, d]);
    h.rest();
    h.holds();
    assert_eq!(h.checker.acknowledged(), 4);
}

#[test]
fn a_value_that_vanishes_under_a_claim() {
    let mut h = History::new();
    let (_, a) = h.first_write();
    // A second sibling is added, and the node that adds it says that it has seen the first, and drops it.
    let second = h.put(Cover::Nothing);
    let b = dot(0, 2);
    h.store(0, &object(&[(b, value(second))], &[a, b]));
    h.breaks(Invariant::OnlyCoveredDisappears);
}

#[test]
fn a_message_that_claims_too_much() {
    let mut h = History::new();
    let (_, a) = h.first_write();
    let second = h.put(Cover::Nothing);
    let b = dot(1, 1);
    let write = Message::Write {
        sync: Syncing::First,
        call: CallId(1),
        layout: LayoutVersion(1),
        purpose: Purpose::Write,
        key: Bytes::from_static(KEY),
        object: encode(&object(&[(b, value(second))], &[a, b])),
        hints: vec![],
        outranked_by: None,
    };
    let now = h.tick();
    h.checker.acted(now, 1, &[Output::Send(NodeId(1), write)]);
    h.breaks(Invariant::OnlyCoveredDisappears);
}

#[test]
fn a_plain_write_covers_only_what_its_coordinator_had() {
    let mut h = History::new();
    let first = h.put(Cover::Nothing);
    let a = dot(0, 1);
    h.store(0, &object(&[(a, value(first))], &[a]));
    // Node 1 never had the first value, and claims to have replaced it.
    let plain = h.put(Cover::Held);
    let b = dot(1, 1);
    h.store(1, &object(&[(b, value(plain))], &[a, b]));
    h.breaks(Invariant::OnlyCoveredDisappears);
}

#[test]
fn an_acknowledged_write_whose_coverer_never_happened() {
    let mut h = History::new();
    let (_, a) = h.first_write();
    // A write with the first one's context was sent, and never took place; yet the first one's value is gone.
    let second = h.put_over(&[a]);
    let now = h.tick();
    h.checker.lost(now, second);
    for node in 0..3 {
        h.store(node, &object(&[], &[a]));
    }
    h.rest();
    h.breaks(Invariant::AcknowledgedReadable);
}

#[test]
fn what_was_covered_comes_back() {
    let mut h = History::new();
    let (first, a) = h.first_write();
    let second = h.put_over(&[a]);
    let b = dot(1, 1);
    for node in [1, 0] {
        h.store(node, &object(&[(b, value(second))], &[a, b]));
    }
    h.ok(second, &[a, b]);
    // The third node never heard, and repair spreads its old sibling beside the new one.
    let both = object(&[(a, value(first)), (b, value(second))], &[a, b]);
    for node in 0..3 {
        h.store(node, &both);
    }
    h.rest();
    h.breaks(Invariant::CoveredStaysGone);
}

#[test]
fn one_dot_for_two_values() {
    let mut h = History::new();
    let (_, a) = h.first_write();
    let second = h.put(Cover::Nothing);
    h.store(0, &object(&[(a, value(second))], &[a]));
    h.breaks(Invariant::DotNamesOneValue);
}

#[test]
fn an_actor_used_by_two_runs() {
    let mut h = History::new();
    h.checker.opened(Time(1), 2, actor(0));
    h.breaks(Invariant::DotNamesOneValue);
}

#[test]
fn a_value_that_nobody_wrote() {
    let mut h = History::new();
    h.store(0, &object(&[(dot(0, 1), value(OpId(7)))], &[dot(0, 1)]));
    h.breaks(Invariant::NothingInvented);
}

#[test]
fn a_value_with_one_byte_changed() {
    let mut h = History::new();
    let (first, a) = h.first_write();
    let mut bytes = value_of(first, 3).to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let read = h.get();
    let damaged =
        Version { content: Content::Value { bytes: Bytes::from(bytes), content_type: None }, ..value(first) };
    h.read(read, &[(a, damaged)], &[a]);
    h.breaks(Invariant::NothingInvented);
}

#[test]
fn a_synced_record_missing_after_a_crash() {
    let mut h = History::new();
    h.first_write();
    h.checker.recovered(Time(9), 0, &Bytes::from_static(KEY), None, false, false);
    h.breaks(Invariant::HistoryNeverShrinks);
}

#[test]
fn an_unsynced_record_may_be_missing_after_a_power_cut_but_not_after_a_kill() {
    for (kept_all, broken) in [(false, false), (true, true)] {
        let mut h = History::new();
        let first = h.put(Cover::Nothing);
        h.write(0, Some(&object(&[(dot(0, 1), value(first))], &[dot(0, 1)])));
        h.checker.recovered(Time(9), 0, &Bytes::from_static(KEY), None, kept_all, false);
        assert_eq!(h.checker.violation().is_some(), broken);
    }
}

#[test]
fn a_hint_missing_after_a_crash() {
    let mut h = History::new();
    h.hint(1);
    h.checker.sync_begun(1);
    h.checker.sync_done(1);
    h.checker.recovered_own(Time(9), 1, &BTreeMap::new(), (false, false), HINTS);
    h.breaks(Invariant::HistoryNeverShrinks);
}

#[test]
fn a_record_whose_history_shrinks() {
    let mut h = History::new();
    let (_, a) = h.first_write();
    let second = h.put_over(&[a]);
    let b = dot(0, 2);
    h.store(0, &object(&[(b, value(second))], &[b]));
    h.breaks(Invariant::HistoryNeverShrinks);
}

#[test]
fn a_context_that_forgets_what_was_handed_in() {
    let mut h = History::new();
    let (_, a) = h.first_write();
    let second = h.put_over(&[a]);
    let b = dot(1, 1);
    for node in [1, 0] {
        h.store(node, &object(&[(b, value(second))], &[a, b]));
    }
    h.ok(second, &[b]);
    h.breaks(Invariant::ContextCoversWhatWasShown);
}

#[test]
fn a_write_s_context_that_covers_a_sibling_not_shown() {
    let mut h = History::new();
    let (first, a) = h.first_write();
    let second = h.put(Cover::Nothing);
    let b = dot(0, 2);
    for node in 0..2 {
        h.store(node, &object(&[(a, value(first)), (b, value(second))], &[a, b]));
    }
    h.ok(second, &[a, b]);
    h.breaks(Invariant::ContextCoversWhatWasShown);
}

#[test]
fn a_read_s_context_that_covers_a_sibling_not_shown() {
    let mut h = History::new();
    let (_, a) = h.first_write();
    let read = h.get();
    h.read(read, &[], &[a]);
    h.breaks(Invariant::ContextCoversWhatWasShown);
}

#[test]
fn a_strict_read_that_misses_a_strict_write() {
    let mut h = History::new();
    h.first_write();
    let read = h.get();
    h.read(read, &[], &[]);
    h.breaks(Invariant::ReadYourWrites);
}

#[test]
fn a_strict_read_that_began_before_the_write_ended_may_miss_it() {
    let mut h = History::new();
    let read = h.get();
    h.first_write();
    h.read(read, &[], &[]);
    h.holds();
}

#[test]
fn a_plain_read_that_shows_what_was_overwritten() {
    let mut h = History::new();
    let (first, a) = h.first_write();
    let plain = h.put(Cover::Held);
    let b = dot(1, 1);
    // It was acknowledged without covering the older value, which has the larger stamp.
    let newer = Version { stamp: Stamp::ZERO, ..value(plain) };
    let both = [(a, value(first)), (b, newer)];
    for node in [1, 0, 2] {
        h.store(node, &object(&both, &[a, b]));
    }
    h.ok(plain, &[b]);
    let read = h.get();
    h.read(read, &both, &[a, b]);
    h.breaks(Invariant::ReadYourWrites);
}

#[test]
fn an_acknowledgement_before_the_sync() {
    let mut h = History::new();
    let first = h.put(Cover::Nothing);
    let a = dot(0, 1);
    h.store(0, &object(&[(a, value(first))], &[a]));
    h.write(1, Some(&object(&[(a, value(first))], &[a])));
    h.ok(first, &[a]);
    h.breaks(Invariant::AcknowledgedCopies);
}

#[test]
fn a_sync_counts_only_for_what_was_written_before_it_began() {
    let mut h = History::new();
    let first = h.put(Cover::Nothing);
    let a = dot(0, 1);
    h.store(0, &object(&[(a, value(first))], &[a]));
    h.checker.sync_begun(1);
    h.write(1, Some(&object(&[(a, value(first))], &[a])));
    h.checker.sync_done(1);
    h.ok(first, &[a]);
    h.breaks(Invariant::AcknowledgedCopies);
}

#[test]
fn a_copy_dropped_before_anyone_else_has_it() {
    let mut h = History::new();
    let first = h.put(Cover::Nothing);
    let a = dot(0, 1);
    h.store(0, &object(&[(a, value(first))], &[a]));
    h.write(1, Some(&object(&[(a, value(first))], &[a])));
    h.write(0, None);
    h.breaks(Invariant::NothingDroppedEarly);
}

#[test]
fn replicas_that_differ_at_rest() {
    let mut h = History::new();
    let first = h.put(Cover::Nothing);
    let a = dot(0, 1);
    h.store(0, &object(&[(a, value(first))], &[a]));
    h.rest();
    h.breaks(Invariant::Convergence);
}

#[test]
fn a_hint_left_at_rest() {
    let mut h = History::new();
    h.first_write();
    h.hint(2);
    h.rest();
    h.breaks(Invariant::HintsDrain);
}

#[test]
fn a_request_answered_twice_or_never_or_late() {
    let mut h = History::new();
    let (first, a) = h.first_write();
    h.ok(first, &[a]);
    h.breaks(Invariant::RequestsEnd);

    let mut h = History::new();
    h.get();
    h.checker.check_deadlines(h.now + LIMIT);
    h.holds();
    h.checker.check_deadlines(h.now + LIMIT + LIMIT);
    h.breaks(Invariant::RequestsEnd);

    let mut h = History::new();
    let read = h.get();
    h.now = h.now + LIMIT;
    h.read(read, &[], &[]);
    h.breaks(Invariant::RequestsEnd);
}

#[test]
fn a_definite_failure_that_is_read() {
    let mut h = History::new();
    let first = h.put(Cover::Nothing);
    let a = dot(0, 1);
    h.store(0, &object(&[(a, value(first))], &[a]));
    h.reply(first, &Reply::Failed(OpError::Quorum { need: Need::W, have: 1, want: 2 }));
    let read = h.get();
    h.read(read, &[(a, value(first))], &[a]);
    h.breaks(Invariant::RequestsEnd);
}

#[test]
fn a_definite_failure_covers_nothing() {
    let mut h = History::new();
    let (_, a) = h.first_write();
    let second = h.put_over(&[a]);
    h.reply(second, &Reply::Failed(OpError::Overloaded));
    h.store(0, &object(&[], &[a]));
    h.breaks(Invariant::OnlyCoveredDisappears);
}

#[test]
fn a_write_that_happens_again_after_its_acknowledgement() {
    let mut h = History::new();
    let (first, a) = h.first_write();
    let again = dot(1, 1);
    h.store(1, &object(&[(a, value(first)), (again, value(first))], &[a, again]));
    h.breaks(Invariant::RequestsEnd);
}

/// All three are owners by one layout, and their clocks show this.
fn settled(walls: (u64, u64)) -> Circumstances {
    Circumstances { layout: Some((LayoutVersion(1), vec![(0, 1), (1, 2), (2, 3)])), walls, owners: vec![] }
}

#[test]
fn an_absence_that_too_few_owners_can_have_stated() {
    for (holders, holds) in [(1, true), (2, false)] {
        let mut h = History::new();
        let first = h.put(Cover::Nothing);
        let a = dot(0, 1);
        for node in 0..holders {
            h.store(node, &object(&[(a, value(first))], &[a]));
        }
        let get = h.get();
        h.checker.begins(get, &settled((1, 1)));
        let nothing = Reply::Read(Reading { siblings: Vec::new(), context: Context::default() });
        h.checker.answers(h.now, get, &nothing, &settled((1, 1)));
        if holds { h.holds() } else { h.breaks(Invariant::AbsenceIsAQuorum) }
    }
}

#[test]
fn an_owner_and_its_stand_in_are_one_copy() {
    let mut h = History::new();
    let id = h.put(Cover::Nothing);
    h.checker.begins(id, &settled((1, 1)));
    let a = dot(0, 1);
    // By this layout the third node is no owner, and keeps no hint.
    for node in [0, 2] {
        h.store(node, &object(&[(a, value(id))], &[a]));
    }
    let owners = Some((LayoutVersion(1), vec![(0, 1), (1, 2)]));
    let two = Circumstances { layout: owners, ..settled((1, 1)) };
    let written = Reply::Written { context: Context { seen: set(&[a]), stamp: stamp(1) }, replaced: false };
    h.checker.answers(h.now, id, &written, &two);
    h.breaks(Invariant::AcknowledgedCopies);
}

#[test]
fn a_value_shown_after_it_expired_on_every_clock() {
    for (walls, holds) in [((9, 20), true), ((10, 20), false)] {
        let mut h = History::new();
        let get = h.get();
        h.checker.begins(get, &settled(walls));
        let found = Found {
            dot: dot(0, 1),
            stamp: stamp(1),
            value: Bytes::new(),
            content_type: None,
            expiry: Some(Expiry(10)),
        };
        let reading = Reading { siblings: vec![found], context: Context::default() };
        h.checker.answers(h.now, get, &Reply::Read(reading), &settled(walls));
        if holds { h.holds() } else { h.breaks(Invariant::ExpiryHides) }
    }
}

#[test]
fn a_write_whose_stamp_is_older_than_what_it_covers() {
    let mut h = History::new();
    let (_, a) = h.first_write();
    let second = h.put_over(&[a]);
    let b = dot(1, 1);
    h.store(1, &object(&[(b, Version { stamp: stamp(0), ..value(second) })], &[a, b]));
    h.breaks(Invariant::StampsRise);
}

#[test]
fn one_request_that_is_shown_as_two_values() {
    let mut h = History::new();
    let id = h.put(Cover::Nothing);
    let dots = [dot(0, 1), dot(1, 1)];
    for (node, dot) in dots.iter().enumerate() {
        h.store(node, &object(&[(*dot, value(id))], &[*dot]));
    }
    let get = h.get();
    h.read(get, &[(dots[0], value(id)), (dots[1], value(id))], &dots);
    h.breaks(Invariant::RequestsEnd);
}

#[test]
fn a_hint_that_goes_before_its_owner_has_the_write() {
    for (heard, holds) in [(true, true), (false, false)] {
        let mut h = History::new();
        let ids = [NodeId(1), NodeId(2), NodeId(3)];
        let members = ids.map(Member::new);
        let founded = Membership::found(ClusterId(1), 3, 8, &members).unwrap();
        h.checker.set_layout(founded.layout().unwrap().clone(), [(0, 1), (1, 2), (2, 3)]);
        let id = h.put(Cover::Nothing);
        let a = dot(0, 1);
        h.store(0, &object(&[(a, value(id))], &[a]));
        if heard {
            h.store(1, &object(&[(a, value(id))], &[a]));
        }
        let record = Bytes::from([&2u64.to_be_bytes()[..], KEY].concat());
        for value in [Some((Bytes::new(), 0)), None] {
            h.appends += 1;
            let (id, place, key) = (AppendId(h.appends), Place(HINTS | 2), record.clone());
            let now = h.tick();
            h.checker.acted(now, 0, &[Output::Append { id, place, key, value, shrink: None }]);
        }
        if holds { h.holds() } else { h.breaks(Invariant::NothingDroppedEarly) }
    }
}

#[test]
fn reads_that_move_to_owners_of_whom_a_majority_may_lack_the_write() {
    let mut h = History::new();
    let id = h.put(Cover::Nothing);
    let a = dot(0, 1);
    for node in [0, 1] {
        h.store(node, &object(&[(a, value(id))], &[a]));
    }
    h.ok(id, &[a]);
    h.checker.reads_move(h.now, |_| Some((vec![0, 1, 2], vec![0, 1, 2])));
    h.holds();
    // With N = 2 both are asked.
    h.checker.reads_move(h.now, |_| Some((vec![1, 2], vec![1, 2])));
    h.holds();
    h.checker.reads_move(h.now, |_| Some((vec![2], vec![2])));
    h.breaks(Invariant::NothingDroppedEarly);
}
