//! Conflicts: who sees what, and what a write replaces.

mod common;

use common::*;
use gramme_quorum::message::Message;
use gramme_quorum::{Cover, Level, Need, Op, OpError, Reply, WriteOptions};
use gramme_vclock::Causality;
use std::time::Duration;

/// Figure 3 of the paper: D1, D2 through Sx; then D3 through Sy and D4 through Sz, both over D2; then D5
/// through Sx, reconciling them.
#[test]
fn the_papers_figure_3() {
    let (sx, sy, sz) = (A, B, C);
    let mut cluster = Cluster::new(3);
    let d1 = cluster.put(sx, "cart", "D1", Cover::Nothing);
    let d2 = cluster.put(sx, "cart", "D2", Cover::Context(d1.clone()));
    assert_eq!(d2.seen.compare(&d1.seen), Causality::After);
    let (values, context) = cluster.get(sy, "cart");
    assert_eq!(values, ["D2"]);

    let d3 = cluster.put(sy, "cart", "D3", Cover::Context(context.clone()));
    let d4 = cluster.put(sz, "cart", "D4", Cover::Context(context));
    assert_eq!(d3.seen.compare(&d2.seen), Causality::After);
    assert_eq!(d4.seen.compare(&d2.seen), Causality::After);
    assert_eq!(d3.seen.compare(&d4.seen), Causality::Concurrent);
    let (mut values, merged) = cluster.get(sx, "cart");
    values.sort();
    assert_eq!(values, ["D3", "D4"]);

    let d5 = cluster.put(sx, "cart", "D5", Cover::Context(merged));
    for earlier in [&d1, &d2, &d3, &d4] {
        assert_eq!(d5.seen.compare(&earlier.seen), Causality::After);
    }
    // The paper's clock of D5 has one entry for each of the three coordinators.
    assert_eq!(d5.seen.spans().len(), 3);
    for node in [A, B, C] {
        assert_eq!(cluster.get_with(node, "cart", r(Level::All)).0, ["D5"]);
    }
}

#[test]
fn two_writers_with_one_context_leave_two_siblings() {
    for (first, second) in [(A, A), (A, B)] {
        let mut cluster = Cluster::new(3);
        let base = cluster.put(A, "k", "base", Cover::Nothing);
        cluster.put(first, "k", "one", Cover::Context(base.clone()));
        cluster.put(second, "k", "two", Cover::Context(base));
        let (mut values, context) = cluster.get(C, "k");
        values.sort();
        assert_eq!(values, ["one", "two"], "through {first} and {second}");
        cluster.put(B, "k", "merged", Cover::Context(context));
        for node in [A, B, C] {
            assert_eq!(cluster.get(node, "k").0, ["merged"]);
            assert_eq!(cluster.copy(node, "k").unwrap(), ["merged"]);
        }
    }
}

/// A writer that never reads, each write with the context its last one returned, replaces only its own.
#[test]
fn a_chained_writer_never_erases_what_it_was_not_shown() {
    for other in [A, B] {
        let mut cluster = Cluster::new(3);
        let mut context = cluster.put(A, "k", "mine 0", Cover::Nothing);
        cluster.put(other, "k", "theirs", Cover::Nothing);
        for i in 1..50 {
            context = cluster.put(A, "k", &format!("mine {i}"), Cover::Context(context));
            assert!(context.seen.spans().len() <= 3, "contexts stay bounded: {:?}", context.seen);
        }
        let (mut values, _) = cluster.get(C, "k");
        values.sort();
        assert_eq!(values, ["mine 49", "theirs"], "the other writer went through {other}");
    }
}

/// Two writers who each chain their own contexts leave two siblings, not a hundred.
#[test]
fn siblings_do_not_explode() {
    for coordinators in [[A, A], [A, B]] {
        let mut cluster = Cluster::new(3);
        let mut contexts = coordinators.map(|at| cluster.put(at, "k", "start", Cover::Nothing));
        for i in 0..100 {
            let writer = i % 2;
            let cover = Cover::Context(contexts[writer].clone());
            contexts[writer] = cluster.put(coordinators[writer], "k", &format!("{i}"), cover);
        }
        let (mut values, _) = cluster.get(C, "k");
        values.sort();
        assert_eq!(values, ["98", "99"]);
    }
}

/// A plain read after a plain write shows that write, however far the clocks are apart.
#[test]
fn plain_writes_are_read_back_under_any_skew() {
    let mut cluster = Cluster::new(3);
    cluster.skew.insert(A, 315_360_000_000); // ten years ahead
    cluster.skew.insert(B, -315_360_000_000);
    // A writes while B can't hear it, so B has nothing to lift its stamps by.
    cluster.cut(A, B, true);
    cluster.put(A, "k", "from the future", Cover::Held);
    cluster.cut(A, B, false);
    cluster.lose(|_, to, _| to == B);
    cluster.put(B, "k", "from the past", Cover::Held);
    for node in [A, B, C] {
        assert_eq!(cluster.get(node, "k").0, ["from the past"], "read at {node}");
    }
}

#[test]
fn a_delete_covers_what_its_context_covers() {
    let mut cluster = Cluster::new(3);
    let seen = cluster.put(A, "k", "old", Cover::Nothing);
    cluster.put(B, "k", "unseen", Cover::Nothing);
    let reply = cluster.request(C, delete("k", Cover::Context(seen)));
    assert!(matches!(reply, Reply::Written { .. }), "{reply:?}");
    assert_eq!(cluster.get(A, "k").0, ["unseen"]);
}

#[test]
fn a_plain_delete_says_whether_there_was_anything() {
    let mut cluster = Cluster::new(3);
    let replaced = |reply| match reply {
        Reply::Written { replaced, .. } => replaced,
        other => panic!("{other:?}"),
    };
    assert!(!replaced(cluster.request(A, delete("k", Cover::Held))));
    cluster.put(B, "k", "v", Cover::Held);
    assert!(replaced(cluster.request(C, delete("k", Cover::Held))));
    assert!(!replaced(cluster.request(A, delete("k", Cover::Held))));
    let (values, context) = cluster.get(B, "k");
    assert!(values.is_empty());
    assert!(!context.seen.is_empty(), "a deleted key has a context");
}

#[test]
fn a_delete_of_nothing_refuses_what_cannot_be() {
    let mut cluster = Cluster::new(3);
    let four = Some(Level::Count(4));
    for (need, options) in [
        (Need::W, WriteOptions { w: four, ..WriteOptions::default() }),
        (Need::Pw, WriteOptions { pw: Some(Level::Count(0)), ..WriteOptions::default() }),
        (Need::Dw, WriteOptions { dw: four, ..WriteOptions::default() }),
    ] {
        let op = Op::Delete { key: "nothing".into(), cover: Cover::Held, options };
        assert_eq!(cluster.request(A, op), Reply::Failed(OpError::Level { need, replicas: 3 }));
    }
}

/// A tombstone that only one replica holds does not pass for a deletion.
#[test]
fn deleting_what_one_replica_believes_deleted_deletes_it() {
    let mut cluster = Cluster::new(3);
    cluster.put(A, "k", "v", Cover::Held);
    let request = cluster.start_request(A, delete("k", Cover::Held));
    // The read goes through; the tombstone reaches nobody but A.
    while cluster.copy(A, "k").unwrap() != ["(deleted)"] {
        assert!(cluster.deliver());
    }
    cluster.lose(|_, _, message| matches!(message, Message::Write { .. }));
    cluster.pass(Duration::from_millis(300));
    assert!(!cluster.replies.contains_key(&request), "nobody else knows");
    let again = cluster.start_request(A, delete("k", Cover::Held));
    // This time C is not reached.
    while !cluster.replies.contains_key(&again) {
        cluster.lose(|_, to, message| to == C && matches!(message, Message::Write { .. }));
        assert!(cluster.deliver());
    }
    assert!(matches!(cluster.replies[&again], Reply::Written { .. }));
    cluster.lose(|_, _, _| true);
    cluster.cut(A, C, true);
    cluster.cut(A, B, true);
    assert_eq!(cluster.get(C, "k").0, [""; 0], "B and C are a quorum that must know");
}

/// A context is flattened over a gap whose dead sibling was replaced by one that only the coordinator holds.
/// If the write is then all that other replicas get, both would be gone.
#[test]
fn a_flattened_context_takes_its_replacement_along() {
    let mut cluster = Cluster::new(3);
    let start = cluster.put(A, "k", "start", Cover::Nothing);
    let theirs = cluster.put(A, "k", "theirs 1", Cover::Nothing);
    let mine = cluster.put(A, "k", "mine 1", Cover::Context(start));
    // The replacement of "theirs 1" stays at A.
    cluster.start_request(A, put("k", "theirs 2", Cover::Context(theirs)));
    cluster.lose(|_, _, message| matches!(message, Message::Write { .. }));
    // "mine 2" is chained to "mine 1"; between them lies "theirs 1", dead at A.
    cluster.put(A, "k", "mine 2", Cover::Context(mine));
    cluster.crash(A);
    let (mut values, _) = cluster.get(B, "k");
    values.sort();
    assert_eq!(values, ["mine 2", "theirs 2"]);
}
