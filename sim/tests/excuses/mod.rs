//! How far an excuse reaches: one request's, one tombstone's, one layout's, and no further.

use crate::history::*;
use bytes::Bytes;
use core::time::Duration;
use gramme_quorum::message::{CallId, Message, Purpose, Syncing};
use gramme_quorum::object::encode;
use gramme_quorum::{
    AppendId, Content, Cover, Level, Op, OpError, Output, Place, ReadOptions, Reading, Reply, Version,
};
use gramme_ring::{ClusterId, Layout, LayoutVersion, Member, Membership, NodeId};
use gramme_sim::checker::{Circumstances, Coordination, Invariant, OpId, Quorum, Standing};
use gramme_vclock::GrowableContext as Context;

#[test]
fn a_node_that_stands_still_is_no_excuse_for_another_s_request() {
    for (excused, holds) in [(0, true), (1, false)] {
        let mut h = History::new();
        let late = h.get();
        h.get();
        // One of the two nodes stands still for an hour, and ends what it has when it goes on.
        let hour = Duration::from_secs(3600);
        h.checker.ends_by([late, OpId(1)][excused], h.now + hour);
        h.now = h.now + LIMIT;
        let other = [OpId(1), late][excused];
        h.checker.lost(h.now, other);
        h.holds();
        h.checker.check_deadlines(h.now + LIMIT);
        h.holds();
        h.checker.check_deadlines(h.now + hour + LIMIT);
        h.breaks(Invariant::RequestsEnd);
        // The other one has no such time.
        let mut h = History::new();
        let asked = [h.get(), h.get()];
        h.checker.ends_by(asked[excused], h.now + hour);
        h.checker.lost(h.now, asked[0]);
        h.checker.check_deadlines(h.now + LIMIT + LIMIT);
        if holds { h.breaks(Invariant::RequestsEnd) } else { h.holds() }
    }
}

#[test]
fn a_plain_delete_of_long_ago_is_no_excuse() {
    for over in [false, true] {
        let mut h = History::new();
        let (_, a) = h.first_write();
        let key = Bytes::from_static(KEY);
        let plain = h.ask(Op::Delete { key, cover: Cover::Held, options: strict().1 });
        if over {
            h.reply(plain, &Reply::Failed(OpError::Overloaded));
        }
        // A tombstone of a delete over nothing that covers all that is there.
        h.delete(&[]);
        let d = dot(0, 2);
        let tombstone = Version { stamp: stamp(9), expiry: None, content: Content::Tombstone };
        h.store(0, &object(&[(d, tombstone)], &[a, d]));
        if over { h.breaks(Invariant::OnlyCoveredDisappears) } else { h.holds() }
    }
}

#[test]
fn a_tombstone_of_before_is_no_reason_for_a_value_to_be_gone() {
    for (earlier, holds) in [(true, false), (false, true)] {
        let mut h = History::new();
        let tombstone = |millis| Version { stamp: stamp(millis), expiry: None, content: Content::Tombstone };
        let (first, a) = h.first_write();
        // A delete of something else, before.
        h.delete(&[]);
        let old = dot(2, 1);
        h.store(2, &object(&[(a, value(first)), (old, tombstone(1))], &[a, old]));
        let key = Bytes::from_static(KEY);
        let plain = h.ask(Op::Delete { key, cover: Cover::Held, options: strict().1 });
        let new = dot(0, 2);
        let write = Message::Write {
            sync: Syncing::First,
            call: CallId(1),
            layout: LayoutVersion(1),
            purpose: Purpose::Write,
            key: Bytes::from_static(KEY),
            object: encode(&object(&[(new, tombstone(9))], &[a, new])),
            hints: vec![],
            outranked_by: None,
        };
        let now = h.tick();
        h.checker.acted(now, 0, &[Output::Send(NodeId(1), write)]);
        h.checker.lost(now, plain);
        let (dot, version) = if earlier { (old, tombstone(1)) } else { (new, tombstone(9)) };
        for node in 0..3 {
            let seen = if node == 2 { vec![a, old, dot] } else { vec![a, dot] };
            h.store(node, &object(&[(dot, version.clone())], &seen));
        }
        let now = h.tick();
        h.checker.check_rest(now, |_| vec![0, 1, 2]);
        if holds { h.holds() } else { h.breaks(Invariant::AcknowledgedReadable) }
    }
}

#[test]
fn an_acknowledgement_speaks_for_each_of_its_dots() {
    for (copies, holds) in [(2, true), (1, false)] {
        let mut h = History::new();
        let id = h.put(Cover::Held);
        let (first, second) = (dot(0, 1), dot(0, 2));
        for node in 0..3 {
            h.store(node, &object(&[(first, value(id))], &[first]));
        }
        // Once more, above what outranked it.
        let later = Version { stamp: stamp(5), ..value(id) };
        for node in 0..copies {
            h.store(node, &object(&[(second, later.clone())], &[first, second]));
        }
        h.ok(id, &[first, second]);
        if holds { h.holds() } else { h.breaks(Invariant::AcknowledgedCopies) }
    }
}

#[test]
fn what_a_coordinator_replaced_in_the_same_breath_was_written_all_the_same() {
    for (counter, holds) in [(1, true), (3, false)] {
        let mut h = History::new();
        let (early, late) = (h.put(Cover::Held), h.put(Cover::Held));
        // The first one's dot is seen, and was never there.
        let copy = object(&[(dot(0, 2), value(late))], &[dot(0, 1), dot(0, 2)]);
        for node in 0..2 {
            h.store(node, &copy);
        }
        h.ok(early, &[dot(0, counter)]);
        if holds { h.holds() } else { h.breaks(Invariant::AcknowledgedCopies) }
    }
}

#[test]
fn an_absence_by_whatever_layout_its_coordinator_goes() {
    // Two layouts are in use: by one all three are owners, by the other nodes 0 and 1 alone, who have it.
    for (by, holds) in [(vec![7], true), (vec![8], false), (vec![7, 8], true), (vec![8, 9], true)] {
        let mut h = History::new();
        let first = h.put(Cover::Nothing);
        let a = dot(0, 1);
        for node in 0..2 {
            h.store(node, &object(&[(a, value(first))], &[a]));
        }
        let get = h.get();
        let read = |r| ReadOptions { r: Some(Level::Count(r)), ..ReadOptions::default() };
        let one = h.ask(Op::Get { key: Bytes::from_static(KEY), options: read(1) });
        let differ =
            Circumstances { owners: vec![(7, vec![0, 1, 2]), (8, vec![0, 1])], ..Circumstances::default() };
        let nothing = Reply::Read(Reading { siblings: Vec::new(), context: Context::default() });
        let asks = |r| by.iter().map(|layout| Quorum { layout: *layout, r, w: 2 }).collect();
        let two = Coordination { reading: asks(2), ..Coordination::default() };
        let one_of = Coordination { reading: asks(1), ..Coordination::default() };
        h.checker.begins(one, &differ);
        h.checker.answers(h.now, one, &nothing, &differ);
        h.checker.coordinated(h.now, one, &nothing, &one_of);
        if holds {
            h.holds()
        } else {
            h.breaks(Invariant::AbsenceIsAQuorum)
        }
        // Two of three are no more than one.
        if by == [7] {
            h.checker.begins(get, &differ);
            h.checker.coordinated(h.now, get, &nothing, &two);
            h.breaks(Invariant::AbsenceIsAQuorum);
        }
    }
}

/// Node 0 forgets a hint for node 1, which does not have the write. By the newest layout node 1 is an owner.
#[test]
fn a_hint_for_an_owner_that_has_yet_to_hear_of_it() {
    let layout = |ids: [u64; 3]| -> Layout {
        let members = ids.map(|id| Member::new(NodeId(id)));
        Membership::found(ClusterId(1), 3, 8, &members).unwrap().layout().unwrap().clone()
    };
    for (heard, holds) in [(true, false), (false, true)] {
        let mut h = History::new();
        h.checker.set_layout(layout([1, 2, 3]), [(0, 1), (1, 2), (2, 3)]);
        h.checker.goes_by_layout(0, Some(&layout([1, 2, 3])));
        h.checker.goes_by_layout(1, Some(&if heard { layout([1, 2, 3]) } else { layout([1, 3, 4]) }));
        let id = h.put(Cover::Nothing);
        let a = dot(0, 1);
        h.store(0, &object(&[(a, value(id))], &[a]));
        let key = Bytes::from([&2u64.to_be_bytes()[..], KEY].concat());
        for value in [Some((Bytes::new(), 0)), None] {
            h.appends += 1;
            let (id, place, key) = (AppendId(h.appends), Place(HINTS | 2), key.clone());
            let now = h.tick();
            h.checker.acted(now, 0, &[Output::Append { id, place, key, value, shrink: None }]);
        }
        if holds { h.holds() } else { h.breaks(Invariant::NothingDroppedEarly) }
    }
}

#[test]
fn what_was_refused_and_arrives_once_more_may_be_done() {
    for (arrivals, holds) in [(1, false), (2, true)] {
        let mut h = History::new();
        let id = h.put(Cover::Nothing);
        let a = dot(0, 1);
        let copy = object(&[(a, value(id))], &[a]);
        let write = Message::Write {
            sync: Syncing::First,
            call: CallId(1),
            layout: LayoutVersion(1),
            purpose: Purpose::Write,
            key: Bytes::from_static(KEY),
            object: encode(&copy),
            hints: vec![],
            outranked_by: None,
        };
        let now = h.tick();
        h.checker.acted(now, 0, &[Output::Send(NodeId(2), write.clone())]);
        h.checker.asked(1, &write, Standing::default());
        h.reply(id, &Reply::Failed(OpError::Unwritable));
        for _ in 1..arrivals {
            h.checker.asked(1, &write, Standing::default());
        }
        h.write(1, Some(&copy));
        h.checker.check_not_undone(h.now, 1, &Bytes::from_static(KEY));
        if holds { h.holds() } else { h.breaks(Invariant::RequestsEnd) }
    }
}

#[test]
fn the_removal_of_a_hint_is_synced_unless_it_was_gone_already() {
    for (synced, holds) in [(true, true), (false, false)] {
        let mut h = History::new();
        h.first_write();
        h.hint(1);
        h.checker.sync_begun(1);
        h.checker.sync_done(1);
        for sync in [synced, false] {
            h.appends += 1;
            let (id, place, key) = (AppendId(h.appends), Place(HINTS | 9), Bytes::from_static(b"hint"));
            let now = h.tick();
            h.checker.acted(now, 1, &[Output::Append { id, place, key, value: None, shrink: None }]);
            if sync {
                h.checker.sync_begun(1);
                h.checker.sync_done(1);
            }
        }
        h.rest();
        if holds { h.holds() } else { h.breaks(Invariant::AcknowledgedCopies) }
    }
}

#[test]
fn a_value_that_only_its_coordinator_ever_saw_is_shown_under_a_dot_of_its_own() {
    for (actor, failed, holds) in [(0, false, Ok(())), (7, false, Err(6)), (0, true, Err(6))] {
        let mut h = History::new();
        let id = h.put(Cover::Held);
        if failed {
            h.reply(id, &Reply::Failed(OpError::Overloaded));
        }
        let read = h.get();
        h.read(read, &[(dot(actor, 5), value(id))], &[dot(actor, 5)]);
        let broken = h.checker.violation().map_or(Ok(()), |violation| Err(violation.invariant.number()));
        assert_eq!(broken, holds);
    }
}

#[test]
fn a_node_that_has_yet_to_hear_that_its_disk_is_an_old_one() {
    for (heard, holds) in [(false, true), (true, false)] {
        let mut h = History::new();
        h.first_write();
        h.checker.set_back(h.now, 0);
        if heard {
            h.checker.warned(0);
        }
        let read = h.get();
        h.read(read, &[], &[]);
        if holds { h.holds() } else { h.breaks(Invariant::ReadYourWrites) }
    }
}

#[test]
fn an_old_disk_excuses_what_went_with_it_and_nothing_else() {
    let mut h = History::new();
    h.checker.set_back(h.now, 0);
    // It never had this.
    let id = h.put(Cover::Nothing);
    let a = dot(1, 1);
    for node in [1, 2] {
        h.store(node, &object(&[(a, value(id))], &[a]));
    }
    h.ok(id, &[a]);
    let read = h.get();
    h.read(read, &[], &[]);
    h.breaks(Invariant::ReadYourWrites);
}

#[test]
fn an_old_disk_makes_one_absence_and_no_more() {
    for (others_have_it, holds) in [(false, true), (true, false)] {
        let mut h = History::new();
        let id = h.put(Cover::Nothing);
        let a = dot(0, 1);
        let copy = object(&[(a, value(id))], &[a]);
        let holders = if others_have_it { 3 } else { 2 };
        (0..holders).for_each(|node| h.store(node, &copy));
        let read = h.ask(Op::Get { key: Bytes::from_static(KEY), options: ReadOptions::default() });
        let owners = (0..3).map(|node| (node, node as u64)).collect();
        let layout = Some((LayoutVersion(1), owners));
        let circumstances = Circumstances { layout, walls: (0, u64::MAX), owners: Vec::new() };
        h.checker.begins(read, &circumstances);
        h.checker.set_back(h.now, 0);
        let nothing = Reply::Read(Reading { siblings: Vec::new(), context: Context::default() });
        h.checker.answers(h.now, read, &nothing, &circumstances);
        if holds { h.holds() } else { h.breaks(Invariant::AbsenceIsAQuorum) }
    }
}
