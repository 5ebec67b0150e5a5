//! What the checker asks of keyspaces.

use crate::history::{HINTS, History, KEY, dot, found, object, set, stamp, value};
use bytes::Bytes;
use gramme_quorum::object::encode;
use gramme_quorum::{
    Cover, Durability, Expiry, Keyspace, Level, Object, Op, Policy, ReadOptions, Reading, Reply, Version,
    WriteOptions,
};
use gramme_ring::LayoutVersion;
use gramme_sim::checker::{Circumstances, Invariant, OpId, View};
use gramme_vclock::{Dot, GrowableContext as Context};

/// A history in which these rules hold for the key, and node 0 to 2 go by them.
fn history(keyspace: &Keyspace) -> History {
    let mut h = History::new();
    h.checker.commits("ca", keyspace);
    for node in 0..3 {
        h.checker.goes_by(node, std::iter::once("ca"));
    }
    h
}

fn lww() -> Keyspace {
    Keyspace { policy: Policy::Lww, ..Keyspace::default() }
}

fn interval() -> Keyspace {
    Keyspace { durability: Durability::Interval, ..Keyspace::default() }
}

/// Two concurrent writes, the second with the larger stamp, each at the node that minted it.
fn two(h: &mut History) -> [(Dot, Version); 2] {
    let ids = [h.put(Cover::Nothing), h.put(Cover::Nothing)];
    let both = [(dot(0, 1), value(ids[0])), (dot(1, 1), value(ids[1]))];
    for (node, (at, version)) in both.iter().enumerate() {
        h.store(node, &object(&[(*at, version.clone())], &[*at]));
    }
    both
}

#[test]
fn where_the_last_write_wins_the_other_may_go() {
    let mut h = history(&lww());
    let [first, last] = two(&mut h);
    for node in 0..3 {
        h.store(node, &object(std::slice::from_ref(&last), &[first.0, last.0]));
    }
    h.ok(OpId(0), &[first.0]);
    h.ok(OpId(1), &[last.0]);
    h.rest();
    h.holds();
}

#[test]
fn the_earlier_write_must_not_win() {
    let mut h = history(&lww());
    let [first, last] = two(&mut h);
    h.store(2, &object(std::slice::from_ref(&first), &[first.0, last.0]));
    h.breaks(Invariant::LastWriteWins);
}

#[test]
fn nor_do_both_stay_where_the_rules_are_known() {
    let mut h = history(&lww());
    let both = two(&mut h);
    h.checker.goes_by(2, std::iter::empty());
    h.store(2, &object(&both, &[both[0].0, both[1].0]));
    h.holds();
    h.store(1, &object(&both, &[both[0].0, both[1].0]));
    h.breaks(Invariant::LastWriteWins);
}

#[test]
fn at_rest_there_is_no_reason_for_both() {
    let mut h = history(&lww());
    let both = two(&mut h);
    for node in 0..3 {
        h.checker.goes_by(node, std::iter::empty());
        h.store(node, &object(&both, &[both[0].0, both[1].0]));
    }
    h.holds();
    h.rest();
    h.breaks(Invariant::LastWriteWins);
}

#[test]
fn an_acknowledged_last_write_that_nothing_outranks_is_missed() {
    let mut h = history(&lww());
    let [_, last] = two(&mut h);
    h.store(2, &object(std::slice::from_ref(&last), &[last.0]));
    h.ok(OpId(1), &[last.0]);
    // At rest the owners have what node 0 has.
    let now = h.tick();
    h.checker.check_rest(now, |_| vec![0]);
    h.breaks(Invariant::AcknowledgedReadable);
}

fn shown(h: &mut History, shown: &[(Dot, Version)], context: &[Dot], top: u64) {
    let id = h.get();
    let layout = Some((LayoutVersion(1), (0..3).map(|node| (node, node as u64)).collect()));
    let circumstances = Circumstances { layout, walls: (5_000, 5_000), owners: vec![] };
    h.checker.begins(id, &circumstances);
    let siblings = shown.iter().map(found);
    let context = Context { seen: set(context), stamp: stamp(top) };
    let reading = Reading { siblings: siblings.collect(), context };
    let now = h.tick();
    h.checker.answers(now, id, &Reply::Read(reading), &circumstances);
}

#[test]
fn a_read_shows_the_last_write_alone() {
    for (at, breaks) in [(1, false), (0, true)] {
        let mut h = history(&lww());
        let both = two(&mut h);
        shown(&mut h, &both[at..=at], &[both[0].0, both[1].0], 2);
        if breaks { h.breaks(Invariant::LastWriteWins) } else { h.holds() }
    }
    let mut h = history(&lww());
    let both = two(&mut h);
    shown(&mut h, &both, &[both[0].0, both[1].0], 2);
    h.breaks(Invariant::LastWriteWins);
    let mut h = history(&lww());
    let both = two(&mut h);
    shown(&mut h, &[], &[both[0].0, both[1].0], 2);
    h.breaks(Invariant::LastWriteWins);
}

#[test]
fn what_is_not_synced_counts_where_the_keyspace_says_so() {
    for (keyspace, breaks) in [(interval(), false), (Keyspace::default(), true)] {
        let mut h = history(&keyspace);
        let id = h.put(Cover::Nothing);
        let at = dot(0, 1);
        for node in 0..2 {
            h.write(node, Some(&object(&[(at, value(id))], &[at])));
        }
        h.ok(id, &[at]);
        if breaks { h.breaks(Invariant::AcknowledgedCopies) } else { h.holds() }
    }
}

#[test]
fn one_written_copy_is_not_two() {
    let mut h = history(&interval());
    let id = h.put(Cover::Nothing);
    let at = dot(0, 1);
    h.write(0, Some(&object(&[(at, value(id))], &[at])));
    h.ok(id, &[at]);
    h.breaks(Invariant::AcknowledgedCopies);
}

/// One write, acknowledged by nodes 0 and 1, which have it in their logs.
fn buffered() -> (History, Object) {
    let mut h = history(&interval());
    let id = h.put(Cover::Nothing);
    let at = dot(0, 1);
    let copy = object(&[(at, value(id))], &[at]);
    h.write(0, Some(&copy));
    h.write(1, Some(&copy));
    h.ok(id, &[at]);
    (h, copy)
}

fn reopened(h: &mut History, node: usize, found: Option<&Object>, kept_all: bool) {
    let (now, found) = (h.tick(), found.map(encode));
    h.checker.recovered(now, node, &Bytes::from_static(KEY), found.as_ref(), kept_all, false);
    h.checker.recovered_own(now, node, &Default::default(), (kept_all, false), HINTS);
}

#[test]
fn what_all_machines_lost_before_they_synced_is_let_go() {
    let (mut h, _) = buffered();
    reopened(&mut h, 0, None, false);
    reopened(&mut h, 1, None, false);
    h.rest();
    h.holds();
}

#[test]
fn what_a_machine_without_power_may_have_kept_counts_when_it_opens() {
    for (dark, holds) in [(true, true), (false, false)] {
        let (mut h, _) = buffered();
        if dark {
            h.checker.goes_dark(1);
        }
        reopened(&mut h, 0, None, false);
        let read = h.get();
        h.read(read, &[], &[]);
        if holds { h.holds() } else { h.breaks(Invariant::ReadYourWrites) }
    }
}

#[test]
fn what_one_machine_has_kept_is_not() {
    let (mut h, copy) = buffered();
    reopened(&mut h, 0, None, false);
    reopened(&mut h, 1, Some(&copy), false);
    // Nobody looked for it.
    let now = h.tick();
    h.checker.check_rest(now, |_| vec![0]);
    h.breaks(Invariant::AcknowledgedReadable);
}

#[test]
fn a_process_that_ends_takes_nothing_with_it() {
    let (mut h, _) = buffered();
    reopened(&mut h, 0, None, true);
    h.breaks(Invariant::HistoryNeverShrinks);
}

#[test]
fn before_long_everything_is_synced() {
    let (mut h, copy) = buffered();
    h.write(2, Some(&copy));
    h.rest();
    h.breaks(Invariant::AcknowledgedCopies);
}

#[test]
fn a_value_expires_when_its_keyspace_says() {
    for (at, holds) in [(Some(Expiry(61_000)), true), (None, false), (Some(Expiry(5_000)), false)] {
        let mut h = history(&Keyspace { ttl_ms: Some(60_000), ..Keyspace::default() });
        let id = h.put(Cover::Nothing);
        h.checker.begins(id, &Circumstances { walls: (1_000, 1_000), ..Circumstances::default() });
        let version = Version { expiry: at, ..value(id) };
        h.write(0, Some(&object(&[(dot(0, 1), version)], &[dot(0, 1)])));
        if holds { h.holds() } else { h.breaks(Invariant::ExpiryHides) }
    }
}

#[test]
fn what_a_node_asks_for_is_what_it_sees_of_the_rules_itself() {
    let key = || Bytes::from_static(KEY);
    let get = |r, pr| Op::Get { key: key(), options: ReadOptions { r, pr, timeout: None } };
    let delete = |w, pw, dw| {
        let options = WriteOptions { w, pw, dw, timeout: None };
        Op::Delete { key: key(), cover: Cover::Held, options }
    };
    let named = |prefix: &str, r, w| (prefix.to_owned(), Keyspace { r, w, ..Keyspace::default() });
    let (one, all, quorum) = (Some(Level::One), Some(Level::All), Some(Level::Quorum));
    let asks = |view: &View, op: &Op, n| {
        let quorum = view.quorum(op, 7, n);
        (quorum.r, quorum.w)
    };
    let mut view = View { founding: (2, 2), ..View::default() };
    assert_eq!(asks(&view, &get(None, None), 3), (2, 0));
    assert_eq!(asks(&view, &delete(None, None, None), 1), (1, 1));
    // The longest prefix counts, and says nothing of what it leaves to the others.
    view.keyspaces = vec![named("", all, one), named("c", one, one), named("car", None, all)];
    assert_eq!(asks(&view, &delete(None, None, None), 3), (3, 3));
    assert_eq!(asks(&view, &get(one, None), 3), (1, 0));
    assert_eq!(asks(&view, &get(one, quorum), 3), (2, 0));
    assert_eq!(asks(&view, &delete(one, quorum, all), 4), (4, 4));
    // While rules change the larger ones count, the former ones as N was then.
    view.keyspaces = vec![named("", one, one)];
    view.before = Some((vec![named("", quorum, all)], 2));
    assert_eq!(asks(&view, &delete(None, None, None), 4), (2, 2));
    // If only N changes, each layout has its own.
    view.keyspaces = vec![named("", quorum, quorum)];
    view.before = Some((view.keyspaces.clone(), 4));
    assert_eq!(asks(&view, &delete(None, None, None), 3), (2, 2));
}
