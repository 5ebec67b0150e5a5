//! What nodes tell each other and hand to each other, and records that are damaged: judged at the step itself.

use crate::history::*;
use bytes::Bytes;
use core::time::Duration;
use gramme_quorum::message::{CallId, Message, Purpose, Syncing};
use gramme_quorum::object::encode;
use gramme_quorum::{AppendId, Cover, Object, OpError, Output, Place, Reply};
use gramme_ring::{ClusterId, Layout, LayoutVersion, Member, Membership, NodeId, Slot};
use gramme_sim::checker::{Checker, Coordination, Invariant, Quorum, Standing};
use gramme_sim::time::Time;
use gramme_vclock::{Dot, GrowableContext as Context};

fn slot() -> u16 {
    Slot::of(KEY).index()
}

/// A layout of these three members, whose ids are their numbers and one.
fn layout(members: [usize; 3]) -> Layout {
    let members = members.map(|node| Member::new(NodeId(node as u64 + 1)));
    Membership::found(ClusterId(1), 3, 8, &members).unwrap().layout().unwrap().clone()
}

/// Four nodes, of whom the first three are members.
fn four() -> History {
    let mut checker = Checker::new(4, 3, 2, 2);
    for node in 0..4 {
        checker.opened(Time(0), node, actor(node));
        checker.names(node, NodeId(node as u64 + 1));
        checker.goes_by_layout(node, Some(&layout([0, 1, 2])));
    }
    checker.set_layout(layout([0, 1, 2]), (0..3).map(|node| (node, node as u64 + 1)));
    History { checker, now: Time(0), appends: 0 }
}

/// A write by node 0, durable there and at node 1.
fn written(h: &mut History) -> (Object, Dot) {
    let id = h.put(Cover::Nothing);
    let at = dot(0, 1);
    let copy = object(&[(at, value(id))], &[at]);
    h.store(0, &copy);
    h.store(1, &copy);
    h.ok(id, &[at]);
    (copy, at)
}

fn write(object: &Object, sync: Syncing) -> Message {
    Message::Write {
        sync,
        call: CallId(7),
        layout: LayoutVersion(1),
        purpose: Purpose::Write,
        key: Bytes::from_static(KEY),
        object: encode(object),
        hints: vec![],
        outranked_by: None,
    }
}

fn acknowledge(h: &mut History, node: usize) {
    let written = Message::Written { call: CallId(7), hints: Vec::new(), outranking: None };
    let now = h.tick();
    h.checker.says(now, node, 0, &written);
}

#[test]
fn a_replica_that_acknowledges_before_it_has_synced() {
    let ways = [
        (Syncing::First, false, false),
        (Syncing::Later, true, false),
        // By the rules that it goes by that will do.
        (Syncing::Later, false, true),
    ];
    for (sync, synced, holds) in ways {
        for waits in [true, false] {
            let mut h = History::new();
            let id = h.put(Cover::Nothing);
            let copy = object(&[(dot(0, 1), value(id))], &[dot(0, 1)]);
            h.store(0, &copy);
            h.checker.asked(1, &write(&copy, sync), Standing { synced, ..Standing::default() });
            if waits {
                h.store(1, &copy)
            } else {
                h.write(1, Some(&copy))
            }
            acknowledge(&mut h, 1);
            if waits || holds { h.holds() } else { h.breaks(Invariant::AcknowledgedCopies) }
        }
    }
}

#[test]
fn a_write_by_a_layout_that_is_over_is_acknowledged() {
    for arrives_twice in [true, false] {
        let mut h = History::new();
        let id = h.put(Cover::Nothing);
        let copy = object(&[(dot(0, 1), value(id))], &[dot(0, 1)]);
        let write = write(&copy, Syncing::First);
        h.store(0, &copy);
        if arrives_twice {
            h.checker.asked(1, &write, Standing::default());
        }
        h.checker.asked(1, &write, Standing { retired: true, synced: true, held: false });
        h.store(1, &copy);
        acknowledge(&mut h, 1);
        if arrives_twice { h.holds() } else { h.breaks(Invariant::AcknowledgedCopies) }
    }
}

#[test]
fn a_definite_failure_of_what_somebody_has_or_stores_later() {
    for stored_before in [true, false] {
        let mut h = History::new();
        let id = h.put(Cover::Nothing);
        let copy = object(&[(dot(0, 1), value(id))], &[dot(0, 1)]);
        let now = h.tick();
        h.checker.acted(now, 0, &[Output::Send(NodeId(2), write(&copy, Syncing::First))]);
        if stored_before {
            h.write(1, Some(&copy));
        }
        h.reply(id, &Reply::Failed(OpError::Unwritable));
        if !stored_before {
            h.holds();
            h.write(1, Some(&copy));
            h.checker.check_not_undone(h.now, 1, &Bytes::from_static(KEY));
        }
        h.breaks(Invariant::RequestsEnd);
    }
}

#[test]
fn a_new_owner_that_says_it_has_everything() {
    for has in [true, false] {
        let mut h = four();
        let (copy, _) = written(&mut h);
        let (from, to) = (layout([0, 1, 2]), layout([1, 2, 3]));
        h.checker.change_begins(1, &from, &to, |_| None);
        // Node 2 has nothing, and copies from it alone are not enough.
        if has {
            h.store(3, &copy);
        }
        h.checker.has_gained(h.now, 3, 1, &from, &to);
        if has { h.holds() } else { h.breaks(Invariant::NothingDroppedEarly) }
    }
}

/// Reads will ask for one copy where two were written: who has none of it has nothing compared.
#[test]
fn an_owner_that_says_it_has_compared_what_reads_are_about_to_miss() {
    for (w, has, holds) in
        [(Some(2), true, true), (Some(2), false, false), (Some(3), false, true), (None, false, true)]
    {
        let mut h = four();
        let (copy, _) = written(&mut h);
        let owners = layout([0, 1, 2]);
        h.checker.change_begins(1, &owners, &owners, |_| w);
        if has {
            h.store(2, &copy);
        }
        h.checker.has_gained(h.now, 2, 1, &owners, &owners);
        if holds { h.holds() } else { h.breaks(Invariant::NothingDroppedEarly) }
    }
}

#[test]
fn what_one_owner_alone_had_a_new_one_may_miss() {
    let mut h = four();
    let id = h.put(Cover::Nothing);
    h.store(0, &object(&[(dot(0, 1), value(id))], &[dot(0, 1)]));
    let (from, to) = (layout([0, 1, 2]), layout([1, 2, 3]));
    h.checker.change_begins(1, &from, &to, |_| None);
    h.checker.has_gained(h.now, 3, 1, &from, &to);
    h.holds();
}

#[test]
fn a_node_that_says_it_has_recovered() {
    for (has, other_lost, holds) in [(true, false, true), (false, false, false), (false, true, true)] {
        let mut h = four();
        let (copy, _) = written(&mut h);
        h.checker.wiped(h.now, 0);
        if other_lost {
            h.checker.wiped(h.now, 1);
        }
        if has {
            h.store(0, &copy);
        }
        h.checker.has_recovered(h.now, 0, true);
        if holds { h.holds() } else { h.breaks(Invariant::Convergence) }
    }
}

#[test]
fn what_it_says_while_not_all_go_by_one_layout_is_judged_the_next_time() {
    let mut h = four();
    written(&mut h);
    h.checker.wiped(h.now, 0);
    h.checker.has_recovered(h.now, 0, false);
    h.holds();
    h.checker.has_recovered(h.now, 0, true);
    h.breaks(Invariant::Convergence);
}

#[test]
fn reads_move_without_a_word_of_keys_that_an_owner_has_lost() {
    for (sound, holds) in [(false, true), (true, false)] {
        let mut h = four();
        written(&mut h);
        h.checker.reads_move(h.now, |_| sound.then(|| (vec![1, 2, 3], vec![1, 2, 3])));
        if holds { h.holds() } else { h.breaks(Invariant::NothingDroppedEarly) }
    }
}

#[test]
fn a_damaged_copy_that_is_replaced_by_less() {
    for whole in [true, false] {
        let mut h = four();
        let (first, a) = written(&mut h);
        let id = h.put(Cover::Nothing);
        let b = dot(2, 1);
        h.checker.damaged(h.now, 0, slot(), &Bytes::from_static(KEY), true);
        // From node 2, which has never heard of the first, or from node 1 as well.
        let mut healed = object(&[(b, value(id))], &[b]);
        h.store(2, &healed);
        if whole {
            let Ok(_) = healed.merge(first);
            assert!(healed.seen().contains(a));
        }
        h.store(0, &healed);
        if whole { h.holds() } else { h.breaks(Invariant::Convergence) }
    }
}

#[test]
fn a_slot_that_is_dropped_while_one_of_its_owners_has_it() {
    for (owners, holds) in [(&[0, 1][..], true), (&[0], false)] {
        let mut h = four();
        let id = h.put(Cover::Nothing);
        let copy = object(&[(dot(0, 1), value(id))], &[dot(0, 1)]);
        for node in owners.iter().chain(&[3]) {
            h.store(*node, &copy);
        }
        let now = h.tick();
        h.checker.acted(now, 3, &[Output::DropSlot { id: AppendId(99), place: Place(slot()) }]);
        if holds { h.holds() } else { h.breaks(Invariant::NothingDroppedEarly) }
    }
}

#[test]
fn a_node_that_may_go_and_keeps_a_hint() {
    for owner in [2u64, 9] {
        let mut h = four();
        let key = Bytes::from([&owner.to_be_bytes()[..], KEY].concat());
        let place = Place(HINTS | 2);
        let hint =
            Output::Append { id: AppendId(1), place, key, value: Some((Bytes::new(), 0)), shrink: None };
        let now = h.tick();
        h.checker.acted(now, 3, &[hint]);
        h.checker.leaves(h.now, 3);
        // What it keeps for somebody who is no member is nobody's.
        if owner == 9 { h.holds() } else { h.breaks(Invariant::NothingDroppedEarly) }
    }
}

#[test]
fn an_acknowledgement_by_the_old_owners_alone() {
    let owners = |nodes: [usize; 3]| nodes.map(|node| (node, node as u64 + 1)).to_vec();
    let two = |layout| Quorum { layout, r: 2, w: 2 };
    // Node 0 owns it no more; as long as it has not heard of that, what it keeps it keeps for whoever owns it.
    for (second, heard, holds) in [(2, true, true), (0, true, false), (0, false, true)] {
        let mut h = four();
        if heard {
            h.checker.goes_by_layout(0, Some(&layout([1, 2, 3])));
        }
        let id = h.put(Cover::Nothing);
        let copy = object(&[(dot(1, 1), value(id))], &[dot(1, 1)]);
        for node in [1, second] {
            h.store(node, &copy);
        }
        let context = Context { seen: set(&[dot(1, 1)]), stamp: stamp(1) };
        let reply = Reply::Written { context, replaced: false };
        let by =
            Coordination { writing: vec![(two(7), owners([0, 1, 2]))], copies: 2, ..Coordination::default() };
        h.checker.coordinated(h.now, id, &reply, &by);
        h.holds();
        // It has declared that its writes go by both.
        let by =
            Coordination { writing: vec![(two(7), owners([0, 1, 2])), (two(8), owners([1, 2, 3]))], ..by };
        h.checker.coordinated(h.now, id, &reply, &by);
        if holds { h.holds() } else { h.breaks(Invariant::AcknowledgedCopies) }
    }
}

#[test]
fn an_acknowledgement_by_another_s_rules() {
    // Its coordinator asks for three copies, or for two, whatever others ask for.
    for (w, holds) in [(2, true), (3, false)] {
        for owners in [vec![], vec![(Quorum { layout: 7, r: 2, w }, vec![(0, 1), (1, 2), (2, 3)])]] {
            let mut h = four();
            let id = h.put(Cover::Nothing);
            for node in [0, 1] {
                h.store(node, &object(&[(dot(0, 1), value(id))], &[dot(0, 1)]));
            }
            let context = Context { seen: set(&[dot(0, 1)]), stamp: stamp(1) };
            let reply = Reply::Written { context, replaced: false };
            let by = Coordination { writing: owners, copies: w, ..Coordination::default() };
            h.checker.coordinated(h.now, id, &reply, &by);
            h.checker.answering(h.now, id, &reply);
            if holds { h.holds() } else { h.breaks(Invariant::AcknowledgedCopies) }
        }
    }
}

#[test]
fn a_node_that_may_go_with_the_only_copy() {
    // It was acknowledged, or nobody knows; it is elsewhere as well, or was.
    for (acknowledged, elsewhere, holds) in [(true, false, false), (true, true, true), (false, false, true)] {
        let mut h = four();
        let id = h.put(Cover::Nothing);
        let copy = object(&[(dot(3, 1), value(id))], &[dot(3, 1)]);
        h.store(3, &copy);
        if elsewhere {
            h.store(0, &copy);
        }
        if acknowledged {
            let context = Context { seen: set(&[dot(3, 1)]), stamp: stamp(1) };
            h.checker.replied(h.now, id, &Reply::Written { context, replaced: false });
        }
        h.checker.leaves(h.now, 3);
        if holds { h.holds() } else { h.breaks(Invariant::NothingDroppedEarly) }
    }
}

/// What a node finds as it opens in the place of a record that was damaged.
fn reopened_without(sealed: bool, told: bool) -> History {
    let mut h = four();
    written(&mut h);
    h.checker.damaged(h.now, 0, slot(), &Bytes::from_static(KEY), sealed);
    h.checker.recovered(h.now, 0, &Bytes::from_static(KEY), None, true, told);
    // A strict read that asks it and node 2.
    if h.checker.violation().is_none() {
        let read = h.get();
        h.read(read, &[], &[]);
    }
    h
}

#[test]
fn an_opening_that_takes_a_damaged_record_for_absent() {
    reopened_without(true, false).breaks(Invariant::HistoryNeverShrinks);
    // It knows that something is missing, and counts toward no quorum: whoever reads all the same has read too little.
    reopened_without(true, true).breaks(Invariant::ReadYourWrites);
    reopened_without(false, true).breaks(Invariant::ReadYourWrites);
    // The end of the log is gone, and nothing is left to say so.
    reopened_without(false, false).holds();
}

/// Node 0 keeps a hint for one that has left; of its heirs node 1 lacks a write that has come to the copy beside it since.
#[test]
fn a_hint_for_one_that_has_left_goes_though_a_write_is_under_way() {
    for (answered, later, holds) in [(false, 0, true), (true, 500, true), (true, 700, false)] {
        let mut h = History::new();
        let founded = layout([0, 1, 2]);
        for node in 0..3 {
            h.checker.names(node, NodeId(node as u64 + 1));
            h.checker.goes_by_layout(node, Some(&founded));
        }
        let (first, a) = h.first_write();
        let id = h.put(Cover::Nothing);
        let b = dot(0, 2);
        for node in [0, 2] {
            h.store(node, &object(&[(a, value(first)), (b, value(id))], &[a, b]));
        }
        if answered {
            h.ok(id, &[b]);
        }
        h.now = h.now + Duration::from_millis(later);
        let record = [&9u64.to_be_bytes()[..], KEY].concat();
        let gone = Output::Append {
            id: AppendId(77),
            place: Place(HINTS | 9),
            key: record.into(),
            value: None,
            shrink: None,
        };
        h.checker.acted(h.now, 0, &[gone]);
        if holds { h.holds() } else { h.breaks(Invariant::NothingDroppedEarly) }
    }
}
