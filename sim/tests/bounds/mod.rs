//! Bounds, and excuses that have an end.

use super::history::*;
use gramme_quorum::message::{CallId, Message};
use gramme_quorum::{Config, Cover, Engine, Limits, OpError, Reply, Status};
use gramme_ring::{Membership, NodeId};
use gramme_sim::checker::{Invariant, Load, value_of};
use gramme_vclock::Actor;

const IDLE: Load =
    Load { requests: 0, request_bytes: 0, local: 0, unsynced: 0, copies: 0, bytes: 0, congested: false };

#[test]
fn bounds_that_are_passed_and_errors_that_name_none() {
    let idle = IDLE;
    let overloaded = Reply::Failed(OpError::Overloaded);
    for (before, answer, holds) in [
        (idle, None, true),
        (Load { requests: 2, ..idle }, Some(&overloaded), true),
        (Load { requests: 2, ..idle }, None, false),
        (idle, Some(&overloaded), false),
        (Load { congested: true, ..idle }, Some(&overloaded), true),
        (Load { local: 1, unsynced: 2, ..idle }, Some(&overloaded), true),
        (Load { local: 1, unsynced: 2, ..idle }, None, false),
        (Load { local: 1, unsynced: 1, ..idle }, None, true),
        (Load { bytes: 100, ..idle }, Some(&overloaded), true),
        (Load { bytes: 100, ..idle }, None, false),
        (Load { bytes: 99, ..idle }, Some(&overloaded), false),
        (Load { request_bytes: 50, ..idle }, Some(&overloaded), true),
        (Load { request_bytes: 50, ..idle }, None, false),
        (Load { request_bytes: 49, ..idle }, Some(&overloaded), false),
        (Load { copies: 12, ..idle }, Some(&overloaded), true),
        (Load { copies: 12, ..idle }, None, false),
        (Load { copies: 11, ..idle }, Some(&overloaded), false),
    ] {
        let mut h = History::new();
        h.checker.set_limits(Limits {
            requests: 2,
            request_bytes: 50,
            local: 3,
            local_bytes: 100,
            ..Limits::default()
        });
        let id = h.put(Cover::Nothing);
        h.checker.took(h.now, id, before, false, answer);
        if holds { h.holds() } else { h.breaks(Invariant::Bounds) }
    }
    // Another node may take what waits for no room of its own here.
    for (before, holds) in
        [(Load { local: 1, unsynced: 2, ..idle }, true), (Load { requests: 2, ..idle }, false)]
    {
        let mut h = History::new();
        h.checker.set_limits(Limits { requests: 2, local: 3, local_bytes: 100, ..Limits::default() });
        let id = h.put(Cover::Nothing);
        h.checker.took(h.now, id, before, true, None);
        if holds { h.holds() } else { h.breaks(Invariant::Bounds) }
    }
}

#[test]
fn reads_are_taken_while_a_sync_hangs() {
    let mut h = History::new();
    h.checker.set_limits(Limits { local: 3, ..Limits::default() });
    let id = h.get();
    let hangs = Load { local: 2, unsynced: 3, ..IDLE };
    h.checker.took(h.now, id, hangs, false, None);
    h.holds();
    h.checker.took(h.now, id, hangs, false, Some(&Reply::Failed(OpError::Overloaded)));
    h.breaks(Invariant::Bounds);
}

#[test]
fn more_in_hand_than_there_may_be() {
    let engine =
        Engine::new(Config::new(NodeId(1), Actor(1)), Membership::default(), gramme_quorum::Now::default());
    let idle = engine.status(gramme_quorum::Instant::default());
    let more: [fn(&mut Status); 5] = [
        |status| status.requests = 3,
        |status| status.request_bytes = 51,
        |status| status.lingering_writes = 3,
        |status| status.lingering_reads = 3,
        |status| status.unsynced = 10_000,
    ];
    for more in more {
        let mut h = History::new();
        h.checker.set_limits(Limits { requests: 2, request_bytes: 50, local: 100, ..Limits::default() });
        let mut full = idle.clone();
        (full.requests, full.lingering_writes, full.lingering_reads, full.request_bytes) = (2, 2, 2, 50);
        h.checker.check_load(h.now, 0, &full);
        h.holds();
        let mut over = full;
        more(&mut over);
        h.checker.check_load(h.now, 0, &over);
        h.breaks(Invariant::Bounds);
    }
}

/// A node that writes down something of the cluster takes a request when that is done, and nobody sees it.
#[test]
fn the_last_request_may_go_beyond_by_its_own_bytes_whenever_it_was_taken() {
    let engine =
        Engine::new(Config::new(NodeId(1), Actor(1)), Membership::default(), gramme_quorum::Now::default());
    for (beyond, holds) in [(0, true), (1, false)] {
        let mut h = History::new();
        h.checker.set_limits(Limits { request_bytes: 50, ..Limits::default() });
        let id = h.put(Cover::Nothing);
        let own = KEY.len() + value_of(id, 3).len();
        let mut status = engine.status(gramme_quorum::Instant::default());
        status.request_bytes = 50 + own + beyond;
        h.checker.check_load(h.now, 0, &status);
        if holds { h.holds() } else { h.breaks(Invariant::Bounds) }
    }
}

#[test]
fn a_value_past_the_limit_that_is_taken() {
    let mut h = History::new();
    h.checker.set_limits(Limits { value: 1, ..Limits::default() });
    let id = h.put(Cover::Nothing);
    h.checker.took(h.now, id, IDLE, false, Some(&Reply::Failed(OpError::ValueTooLarge(1))));
    h.holds();
    h.checker.took(h.now, id, IDLE, false, None);
    h.breaks(Invariant::Bounds);
}

#[test]
fn more_siblings_than_a_coordinator_admits() {
    let mut h = History::new();
    h.checker.set_limits(Limits { siblings: 1, ..Limits::default() });
    let (one, two) = (h.put(Cover::Nothing), h.put(Cover::Nothing));
    let (a, b) = (dot(0, 1), dot(0, 2));
    h.store(0, &object(&[(a, value(one))], &[a]));
    h.holds();
    h.store(0, &object(&[(a, value(one)), (b, value(two))], &[a, b]));
    h.breaks(Invariant::Bounds);
}

#[test]
fn what_a_disk_lost_long_ago_excuses_no_later_loss() {
    let mut h = History::new();
    // Node 1 loses its disk and has all again. What is written then, and dropped by both, is lost.
    h.checker.wiped(h.now, 1);
    h.checker.has_recovered(h.now, 1, true);
    let id = h.put(Cover::Nothing);
    let a = dot(0, 1);
    for node in [0, 1] {
        h.store(node, &object(&[(a, value(id))], &[a]));
    }
    h.ok(id, &[a]);
    h.write(1, None);
    h.checker.sync_begun(1);
    h.checker.sync_done(1);
    h.holds();
    h.write(0, None);
    h.breaks(Invariant::NothingDroppedEarly);
}

#[test]
fn a_message_longer_than_a_frame() {
    let mut h = History::new();
    let message = Message::Written { call: CallId(1), outranking: None, hints: Vec::new() };
    h.checker.check_message(h.now, 0, &message, 100);
    h.holds();
    h.checker.check_message(h.now, 0, &message, usize::MAX);
    h.breaks(Invariant::Bounds);
}
