//! N falls: what was acknowledged by some of the former owners is met by reads that ask fewer of fewer.

mod common;

use common::changes::commit;
use common::{A, Cluster, put};
use gramme_quorum::message::Message;
use gramme_quorum::*;
use gramme_ring::{Change, NodeId};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

thread_local! {
    /// Who is to have the write.
    static HAS: RefCell<BTreeSet<NodeId>> = const { RefCell::new(BTreeSet::new()) };
}

/// Writes reach W of so many replicas, those among them whose part is over in the end, and N falls. Every read from then on finds them, by whichever
/// owners answer.
fn falls(from: u8, to: u8) {
    let mut cluster = Cluster::found(5, from, |config| config.timing.exchange = Duration::from_secs(3600));
    let quorum = Keyspace { r: Some(Level::Quorum), w: Some(Level::Quorum), ..Keyspace::default() };
    commit(&mut cluster, A, vec![quorum.change("").unwrap()]);
    cluster.pass(Duration::from_secs(30));
    assert!(cluster.nodes[&A].engine.membership().transition().is_none());
    let keys: Vec<String> = (0..40).map(|i| format!("key {i}")).collect();
    for key in &keys {
        let list = cluster.preference(key);
        let (stay, go) = (&list[..usize::from(to)], &list[usize::from(to)..usize::from(from)]);
        let w = usize::from(from) / 2 + 1;
        // Of those that stay the last ones have it.
        let has: BTreeSet<NodeId> = go.iter().chain(stay.iter().rev()).take(w).copied().collect();
        let at = *has.first().unwrap();
        HAS.set(has);
        cluster.loses = |_, to, message| {
            matches!(message, Message::Write { .. }) && !HAS.with_borrow(|has| has.contains(&to))
        };
        let reply = cluster.request(at, put(key, "v", Cover::Held));
        assert!(matches!(reply, Reply::Written { .. }), "{reply:?}");
    }
    // Nobody offers what is not its own any more, nor hands anything over.
    cluster.loses = |_, _, message| matches!(message, Message::Offer { .. } | Message::Write { .. });
    commit(&mut cluster, A, vec![Change::Replicas(to)]);
    let moved = |cluster: &Cluster| {
        let membership = cluster.nodes[&A].engine.membership();
        membership.transition().is_none_or(|t| t.step() >= gramme_ring::Step::Moving)
    };
    for _ in 0..600 {
        if moved(&cluster) {
            break;
        }
        cluster.pass(Duration::from_millis(100));
    }
    assert!(moved(&cluster));
    for key in &keys {
        let list = cluster.preference(key);
        let have = list[..usize::from(to)].iter().filter(|id| cluster.copy(**id, key).is_some()).count();
        let r = usize::from(to) / 2 + 1;
        assert!(usize::from(to) - have < r, "{have} of {to} owners have {key}, and reads ask {r}");
    }
}

#[test]
fn what_those_had_who_go_is_met_by_who_asks_those_that_stay() {
    for (from, to) in [(3, 1), (3, 2), (4, 3), (5, 3), (5, 4), (5, 1)] {
        falls(from, to);
    }
}
