//! What a lost disk excuses, and what it does not.

use crate::history::*;
use bytes::Bytes;
use gramme_quorum::Cover;
use gramme_quorum::message::{CallId, Message, Purpose, Syncing};
use gramme_quorum::object::encode;
use gramme_ring::LayoutVersion;
use gramme_sim::checker::{Invariant, Standing};

/// A node is asked to take a write, to be synced first.
fn asked(h: &mut History, node: usize, object: &gramme_quorum::Object) {
    let write = Message::Write {
        sync: Syncing::First,
        call: CallId(1),
        layout: LayoutVersion(1),
        purpose: Purpose::Handoff,
        key: Bytes::from_static(KEY),
        object: encode(object),
        hints: vec![],
        outranked_by: None,
    };
    h.checker.asked(node, &write, Standing::default());
}

fn acknowledges(h: &mut History, node: usize, to: usize) {
    let written = Message::Written { call: CallId(1), hints: vec![], outranking: None };
    let now = h.tick();
    h.checker.says(now, node, to, &written);
}

#[test]
fn the_last_copy_goes_only_if_who_lost_the_other_had_acknowledged_it() {
    // Nobody had, it had itself, or another had that has let go of it since.
    for (who, holds) in [(None, false), (Some(1), true), (Some(2), false)] {
        let mut h = History::new();
        let id = h.put(Cover::Nothing);
        let a = dot(0, 1);
        let one = object(&[(a, value(id))], &[a]);
        h.store(0, &one);
        asked(&mut h, 1, &one);
        h.store(1, &one);
        asked(&mut h, 2, &one);
        h.store(2, &one);
        if let Some(who) = who {
            acknowledges(&mut h, who, 0);
        }
        h.write(2, None);
        h.checker.sync_begun(2);
        h.checker.sync_done(2);
        h.checker.wiped(h.now, 1);
        h.write(0, None);
        if holds { h.holds() } else { h.breaks(Invariant::NothingDroppedEarly) }
    }
}

#[test]
fn who_has_stored_nothing_acknowledges_nothing() {
    let mut h = History::new();
    let id = h.put(Cover::Nothing);
    let a = dot(0, 1);
    let one = object(&[(a, value(id))], &[a]);
    h.store(0, &one);
    asked(&mut h, 1, &one);
    acknowledges(&mut h, 1, 0);
    h.breaks(Invariant::AcknowledgedCopies);
}

#[test]
fn with_limits_on_faults_no_strict_write_is_lost() {
    for (limited, holds) in [(true, false), (false, true)] {
        let mut h = History::new();
        if limited {
            h.checker.set_limited();
        }
        h.first_write();
        for node in 0..3 {
            h.holds();
            h.checker.wiped(h.now, node);
        }
        if holds { h.holds() } else { h.breaks(Invariant::AcknowledgedReadable) }
    }
}

#[test]
fn a_copy_that_was_damaged_and_is_whole_again_is_judged_again() {
    let mut h = History::new();
    let (first, a) = h.first_write();
    h.checker.damaged(h.now, 1, gramme_ring::Slot::of(KEY).index(), &Bytes::from_static(KEY), true);
    h.store(1, &object(&[(a, value(first))], &[a]));
    let second = h.put(Cover::Nothing);
    let b = dot(0, 2);
    let both = object(&[(a, value(first)), (b, value(second))], &[a, b]);
    h.store(0, &both);
    asked(&mut h, 1, &both);
    h.write(1, Some(&both));
    acknowledges(&mut h, 1, 0);
    h.breaks(Invariant::AcknowledgedCopies);
}

#[test]
fn an_owner_drops_no_copy_that_is_whole() {
    use gramme_ring::{ClusterId, Member, Membership, NodeId};
    for (owners, holds) in [([1, 2, 3], true), ([0, 1, 2], false)] {
        let mut h = History::new();
        (0..4).for_each(|node| h.checker.names(node, NodeId(node as u64 + 1)));
        let members = owners.map(|node| Member::new(NodeId(node + 1)));
        let membership = Membership::found(ClusterId(1), 3, 8, &members).unwrap();
        h.checker.goes_by_layout(0, membership.layout());
        h.first_write();
        h.write(0, None);
        if holds { h.holds() } else { h.breaks(Invariant::HistoryNeverShrinks) }
    }
}
