//! What has expired is missed only where some store was told to give it back: one node's copy, one key's.

use crate::history::*;
use bytes::Bytes;
use gramme_quorum::message::{CallId, Message, Purpose, Syncing};
use gramme_quorum::object::encode;
use gramme_quorum::{Cover, Expiry, Object, Op, Reading, Reply, Version};
use gramme_ring::LayoutVersion;
use gramme_sim::checker::{Circumstances, EXPIRED, Invariant, OpId, value_of};
use gramme_vclock::{Actor, Dot, GrowableContext as Context};

/// When values expire here, and when what has may go.
const AT: u64 = 100_000;

fn goes() -> u64 {
    AT + u64::try_from(EXPIRED.as_millis()).unwrap()
}

/// A write of what expires then, which this node mints, and what is kept of it by all three.
fn write(h: &mut History, node: usize, at: u64, others: &[(Dot, Version)]) -> (Dot, Version, OpId) {
    let id = OpId(h.checker.requests() as u64);
    let key = Bytes::from_static(KEY);
    let value = value_of(id, 3);
    let (cover, options) = (Cover::Nothing, strict().1);
    h.ask(Op::Put { key, value, content_type: None, expiry: Some(Expiry(at)), cover, options });
    let version = Version { expiry: Some(Expiry(at)), ..crate::history::value(id) };
    let mut all = others.to_vec();
    all.push((dot(node, 1), version.clone()));
    let seen: Vec<Dot> = all.iter().map(|(dot, _)| *dot).collect();
    for taker in [node, (node + 1) % 3, (node + 2) % 3] {
        h.store(taker, &object(&all, &seen));
    }
    (dot(node, 1), version, id)
}

/// A read through this node, by clocks on which nothing has expired, that knows these writes and shows none.
fn miss(h: &mut History, node: usize, seen: &[Dot]) {
    let get = h.get();
    let early = Circumstances { walls: (1, 1), ..Circumstances::default() };
    h.checker.begins(get, &early);
    let context = Context { seen: set(seen), stamp: stamp(1) };
    let reply = Reply::Read(Reading { siblings: Vec::new(), context });
    h.checker.hides(node, get, &reply);
    h.reply(get, &reply);
}

/// The write as it is when its value was given back.
fn rest_of((dot, version): (Dot, &Version)) -> Object {
    object(&[(dot, version.given_back().unwrap())], &[dot])
}

/// A node is shown this by another.
fn shown(h: &mut History, node: usize, object: &Object) {
    let message = Message::Write {
        sync: Syncing::First,
        call: CallId(1),
        layout: LayoutVersion(1),
        purpose: Purpose::Write,
        key: Bytes::from_static(KEY),
        object: encode(object),
        hints: vec![],
        outranked_by: None,
    };
    let now = h.tick();
    h.checker.delivered(now, node, &message);
}

#[test]
fn it_is_no_excuse_that_another_s_store_has_given_it_back() {
    for (told, asked, holds) in [(1, 1, true), (1, 0, false), (2, 1, false)] {
        let mut h = History::new();
        let (a, ..) = write(&mut h, 0, AT, &[]);
        h.checker.settled(told, goes());
        miss(&mut h, asked, &[a]);
        if holds { h.holds() } else { h.breaks(Invariant::ContextCoversWhatWasShown) }
    }
}

#[test]
fn nor_that_it_is_about_to_nor_that_other_keys_are_gone() {
    let mut h = History::new();
    let (a, ..) = write(&mut h, 0, AT, &[]);
    h.checker.settled(1, goes() - 1);
    miss(&mut h, 1, &[a]);
    h.breaks(Invariant::ContextCoversWhatWasShown);
    // What came after the store was told goes as well, if it has expired by then.
    for (at, holds) in [(AT, true), (AT + 1, false)] {
        let mut h = History::new();
        h.checker.settled(1, goes());
        let (a, ..) = write(&mut h, 0, at, &[]);
        miss(&mut h, 1, &[a]);
        if holds { h.holds() } else { h.breaks(Invariant::ContextCoversWhatWasShown) }
    }
}

#[test]
fn siblings_go_together_with_the_last_of_them() {
    for (until, holds) in [(AT + 499, false), (AT + 500, true)] {
        let mut h = History::new();
        let (a, first, _) = write(&mut h, 0, AT, &[]);
        let (b, ..) = write(&mut h, 1, AT + 500, &[(a, first)]);
        h.checker.settled(2, until - AT + goes());
        miss(&mut h, 2, &[a, b]);
        if holds { h.holds() } else { h.breaks(Invariant::ContextCoversWhatWasShown) }
    }
}

#[test]
fn a_new_process_and_a_new_disk_have_what_they_are_given() {
    for (wiped, holds) in [(false, true), (true, false)] {
        let mut h = History::new();
        let (a, version, _) = write(&mut h, 0, AT, &[]);
        h.checker.settled(1, goes());
        if wiped {
            let now = h.tick();
            h.checker.wiped(now, 1);
        }
        let now = h.tick();
        h.checker.opened(now, 1, Actor(77));
        h.store(1, &object(&[(a, version)], &[a]));
        miss(&mut h, 1, &[a]);
        if holds { h.holds() } else { h.breaks(Invariant::ContextCoversWhatWasShown) }
    }
}

#[test]
fn nobody_has_it_without_its_value_before_a_store_was_told() {
    for (until, holds) in [(goes() - 1, false), (goes(), true)] {
        let mut h = History::new();
        let (a, version, _) = write(&mut h, 0, AT, &[]);
        h.checker.settled(1, until);
        h.store(1, &rest_of((a, &version)));
        if holds { h.holds() } else { h.breaks(Invariant::ExpiryHides) }
    }
    // And whoever has not given it back has been shown it so.
    for (is_shown, holds) in [(false, false), (true, true)] {
        let mut h = History::new();
        let (a, version, _) = write(&mut h, 0, AT, &[]);
        h.checker.settled(1, goes());
        if is_shown {
            shown(&mut h, 2, &rest_of((a, &version)));
        }
        h.store(2, &rest_of((a, &version)));
        if holds {
            h.holds()
        } else {
            h.breaks(Invariant::ExpiryHides)
        }
        miss(&mut h, 2, &[a]);
        if holds {
            h.holds()
        }
    }
}

#[test]
fn what_an_opening_finds_was_given_back_when_it_was_time() {
    for (until, holds) in [(goes() - 1, false), (goes(), true)] {
        let mut h = History::new();
        let (a, version, _) = write(&mut h, 0, AT, &[]);
        h.checker.settled(1, until);
        let now = h.tick();
        let found = encode(&rest_of((a, &version)));
        h.checker.recovered(now, 1, &Bytes::from_static(KEY), Some(&found), true, false);
        if holds { h.holds() } else { h.breaks(Invariant::ExpiryHides) }
    }
}
