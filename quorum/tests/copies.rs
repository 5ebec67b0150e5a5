//! The copies that a read looks at, answer by answer.

use gramme_quorum::{Answer, Copies, Need, Plan, Shortfall, Verdict};
use gramme_ring::NodeId;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);
const D: NodeId = NodeId(4);
const E: NodeId = NodeId(5);

fn read(r: u8, pr: u8, dead: &[NodeId]) -> Copies {
    let plan = Plan::new(3, [A, B, C, D, E], |node| !dead.contains(&node));
    Copies::new(plan, [(Need::R, r), (Need::Pr, pr)], A)
}

fn impossible(need: Need, have: u8, want: u8) -> Verdict {
    Verdict::Impossible(Shortfall { need, have, want })
}

#[test]
fn one_is_asked_for_the_object_and_the_others_for_digests() {
    assert!(read(2, 0, &[]).asked().eq([(A, true), (B, false), (C, false)]));
    // It is dead: the first that is asked is.
    assert!(read(2, 0, &[A]).asked().eq([(B, true), (C, false), (D, false)]));
    assert_eq!(read(2, 0, &[A, B, C, D]).verdict(), impossible(Need::R, 0, 2));
    assert_eq!(read(1, 2, &[A, B]).verdict(), impossible(Need::Pr, 0, 2));
}

#[test]
fn digests_count_once_their_object_is_merged() {
    let mut copies = read(2, 0, &[]);
    assert!(copies.take(B, Answer::Digest(7), false));
    assert!(copies.take(C, Answer::Digest(7), false));
    assert_eq!((copies.verdict(), copies.fetch()), (Verdict::Pending, None), "an object is on its way");
    assert!(copies.take(A, Answer::Object(7), false));
    assert_eq!((copies.verdict(), copies.fetch()), (Verdict::Met, None));
    assert!(copies.is_complete() && copies.agrees());
    assert_eq!(copies.stale(7).count(), 0);
}

#[test]
fn what_differs_is_fetched_one_at_a_time() {
    let mut copies = read(3, 0, &[]);
    for (node, answer) in [(A, Answer::Object(1)), (B, Answer::Digest(2)), (C, Answer::Digest(2))] {
        copies.take(node, answer, false);
    }
    assert_eq!((copies.fetch(), copies.fetch()), (Some(B), None));
    // What was asked before is overtaken, and what is repeated says nothing.
    assert!(!copies.take(B, Answer::Digest(2), false));
    assert!(!copies.take(A, Answer::Absent, false));
    assert!(!copies.take(D, Answer::Absent, false), "nobody has asked it");
    assert!(copies.asked().eq([(B, true)]));
    // It refuses, and the other one has the same.
    assert!(copies.no(B) && !copies.no(B));
    assert_eq!(copies.fetch(), Some(C));
    copies.take(C, Answer::Object(2), false);
    assert_eq!(copies.verdict(), impossible(Need::R, 2, 3));
    assert!(copies.stale(3).eq([A, C]));
}

#[test]
fn a_fallbacks_absence_and_a_replica_that_lost_something_count_for_nothing() {
    let mut copies = read(2, 0, &[C]);
    copies.take(A, Answer::Object(1), false);
    copies.take(D, Answer::Absent, false);
    assert_eq!(copies.verdict(), Verdict::Pending);
    copies.take(B, Answer::Object(1), true);
    assert_eq!(copies.verdict(), impossible(Need::R, 1, 2));
    // An owner knows that it has none.
    let mut copies = read(2, 0, &[]);
    copies.take(A, Answer::Absent, false);
    copies.take(B, Answer::Absent, false);
    assert_eq!(copies.verdict(), Verdict::Met);
    assert!(!copies.agrees());
}

#[test]
fn an_owner_and_its_stand_in_are_one_copy() {
    let mut copies = read(2, 2, &[]);
    copies.take(A, Answer::Object(1), false);
    assert_eq!(copies.late(), [B, C]);
    assert_eq!(copies.substitute(B), Some(D));
    assert_eq!(copies.substitute(B), None, "once");
    copies.take(D, Answer::Object(1), false);
    assert_eq!(copies.verdict(), Verdict::Pending, "primaries are asked for");
    copies.take(B, Answer::Digest(1), false);
    assert_eq!(copies.verdict(), Verdict::Met);
    copies.no(C);
    assert!(copies.is_complete());
    let mut copies = read(3, 0, &[]);
    for (node, answer) in [(A, Answer::Object(1)), (B, Answer::Digest(1))] {
        copies.take(node, answer, false);
    }
    assert_eq!(copies.substitute(B), Some(D));
    copies.take(D, Answer::Object(1), false);
    assert_eq!(copies.verdict(), Verdict::Pending);
    copies.no(C);
    assert_eq!(copies.verdict(), impossible(Need::R, 2, 3));
}

#[test]
fn what_takes_longer_than_usual_is_asked_of_a_second_one() {
    let mut copies = read(2, 0, &[]);
    assert_eq!(copies.hedge(), Some(B), "nobody has answered");
    let mut copies = read(2, 0, &[]);
    copies.take(C, Answer::Digest(1), false);
    assert_eq!(copies.hedge(), Some(C), "who has answered is quick");
    assert_eq!((copies.hedge(), copies.hedge()), (Some(B), None));
    // After their time is up it does the same by itself.
    let mut copies = read(2, 0, &[]);
    copies.take(B, Answer::Digest(1), false);
    assert_eq!((copies.fetch(), copies.late(), copies.fetch()), (None, vec![A, C], Some(B)));
}

#[test]
fn a_fallback_with_something_else_makes_the_merge_count() {
    let mut copies = read(2, 0, &[C]);
    copies.take(A, Answer::Object(1), false);
    copies.take(B, Answer::Digest(1), false);
    assert!(copies.agrees());
    copies.take(D, Answer::Object(2), false);
    assert!(!copies.agrees());
    // Owners are repaired; what a fallback has goes to the owner.
    assert!(copies.stale(3).eq([A, B]));
}
