//! Pulls that wait: for this node's own budget, or for a peer that has too much to do.

mod common;

use common::*;
use gramme_quorum::message::{CallId, Message, Refusal, Want};
use gramme_quorum::*;
use gramme_ring::NodeId;
use std::time::Duration;

/// C has lost its disk, on which so many keys of one slot were.
fn wiped(config: fn(&mut Config), count: usize, size: usize) -> Cluster {
    let mut cluster = Cluster::with(3, config);
    for i in 0..count {
        cluster.put(A, &format!("{{k}}{i}"), &"v".repeat(size), Cover::Held);
    }
    cluster.crash(C);
    cluster.wipe(C);
    cluster.delivered.clear();
    cluster.start(C);
    cluster
}

/// C has missed the writes of so many keys of one slot, and nobody knows that.
fn missed(config: fn(&mut Config), count: usize, size: usize) -> Cluster {
    let mut cluster = Cluster::with(3, config);
    for i in 0..count {
        cluster.start_request(A, put(&format!("{{k}}{i}"), &"v".repeat(size), Cover::Held));
        cluster.lose(|_, to, message| to == C && matches!(message, Message::Write { .. }));
        cluster.run();
    }
    // The coordinator, which waits for C, is gone before it leaves hints.
    cluster.crash(A);
    cluster.start(A);
    cluster.run();
    assert_eq!(missing(&cluster, count), count);
    cluster.delivered.clear();
    cluster
}

fn missing(cluster: &Cluster, count: usize) -> usize {
    (0..count).filter(|i| cluster.copy(C, &format!("{{k}}{i}")).is_none()).count()
}

/// How many messages C has sent that `which` names.
fn said(cluster: &Cluster, which: impl Fn(&Message) -> bool) -> usize {
    cluster.delivered.iter().filter(|(from, _, message)| *from == C && which(message)).count()
}

/// Whether C asks for the first page of these keys.
fn begins(message: &Message) -> bool {
    let here = place("{k}").0;
    matches!(message, Message::List { slots, cursor: None, .. } if (slots.0..=slots.1).contains(&here))
}

#[test]
fn a_pull_whose_last_object_has_spent_the_budget_goes_on() {
    let slow: fn(&mut Config) = |config| {
        if config.node == C {
            config.limits.repair = 20_000;
        }
    };
    let mut cluster = missed(slow, 400, 200);
    // No recovery looks after this pull. What it has fetched is durable only when the budget's next slice has come and gone.
    cluster.nodes.get_mut(&C).unwrap().syncs = false;
    for _ in 0..200 {
        cluster.pass(Duration::from_millis(150));
        cluster.sync(C);
        cluster.nodes.get_mut(&C).unwrap().syncs = false;
    }
    assert_eq!(missing(&cluster, 400), 0, "a round is due after ten seconds, and its objects take five");
    assert_eq!(said(&cluster, begins), 1);
}

#[test]
fn a_pull_that_waits_for_its_budget_is_not_begun_anew() {
    let slow: fn(&mut Config) = |config| {
        if config.node == C {
            config.limits.repair = 1_000;
        }
    };
    // The second page comes with its objects, which take the budget of half a minute.
    let mut cluster = wiped(slow, 260, 200);
    cluster.pass(Duration::from_secs(120));
    assert_eq!(missing(&cluster, 260), 0);
    assert_eq!(said(&cluster, begins), 2, "once at each of two owners");
}

#[test]
fn what_is_asked_for_after_a_wait_is_not_taken_for_lost() {
    let slow: fn(&mut Config) = |config| {
        if config.node == C {
            config.limits.repair = 20_000;
        }
    };
    let mut cluster = wiped(slow, 2, 100_000);
    cluster.pass(Duration::from_secs(1));
    assert_eq!(missing(&cluster, 2), 1, "the other one is five seconds later");
    for peer in [A, B] {
        cluster.nodes.get_mut(&peer).unwrap().loads = false;
    }
    let fetched = |message: &Message| matches!(message, Message::Read { want: Want::Object, .. });
    while said(&cluster, fetched) < 2 {
        cluster.pass(Duration::from_millis(100));
    }
    cluster.pass(Duration::from_millis(1_500));
    for peer in [A, B] {
        cluster.load(peer);
    }
    cluster.pass(Duration::from_secs(20));
    assert_eq!(missing(&cluster, 2), 0);
    assert_eq!((said(&cluster, fetched), said(&cluster, begins)), (2, 2), "nothing is fetched twice");
}

#[test]
fn a_peer_that_never_has_time_is_let_go() {
    let mut cluster = missed(|_| {}, 1, 1);
    // What asks A for much is refused, time and again, and A is whom C asks first.
    cluster.input(A, Input::Congested(C, true));
    cluster.pass(Duration::from_secs(45));
    assert!(said(&cluster, |message| matches!(message, Message::List { .. })) > 50);
    assert_eq!(missing(&cluster, 1), 0, "B has it, too");
}

#[test]
fn objects_for_which_a_peer_has_no_time_are_asked_for_again() {
    let narrow: fn(&mut Config) = |config| config.limits.local = 4;
    let mut cluster = missed(narrow, 40, 200);
    for peer in [A, B] {
        cluster.nodes.get_mut(&peer).unwrap().loads = false;
    }
    for _ in 0..600 {
        cluster.pass(Duration::from_millis(50));
        for peer in [A, B] {
            for load in std::mem::take(&mut cluster.nodes.get_mut(&peer).unwrap().held_loads) {
                cluster.input(peer, load);
            }
        }
    }
    let refused = |(_, to, message): &(NodeId, NodeId, Message)| {
        *to == C && matches!(message, Message::Refused { why: Refusal::Overloaded, .. })
    };
    assert!(cluster.delivered.iter().any(refused), "this proves nothing");
    assert_eq!(missing(&cluster, 40), 0);
    assert_eq!(said(&cluster, begins), 1, "it goes on where it was");
}

/// The page was read before this node had everything again, and is sent afterwards.
#[test]
fn a_page_says_what_held_when_it_was_read() {
    // So long it waits for the page itself.
    let mut cluster = wiped(|config| config.timing.request = Duration::from_secs(120), 20, 10);
    cluster.nodes.get_mut(&C).unwrap().lists = false;
    let layout = cluster.memberships[&C].layout().unwrap().version();
    let here = place("{k}").0;
    let list = |call| Message::List { call, layout, slots: (here, here), cursor: None, objects: false };
    cluster.input(C, Input::Peer(A, list(CallId(1))));
    cluster.pass(Duration::from_secs(60));
    assert_eq!(missing(&cluster, 20), 0);
    cluster.delivered.clear();
    cluster.list(C);
    cluster.input(C, Input::Peer(A, list(CallId(2))));
    cluster.run();
    let pages = cluster.delivered.iter().filter_map(|(_, _, message)| match message {
        Message::Listed { call, keys, complete, .. } if call.0 <= 2 => Some((call.0, keys.len(), *complete)),
        _ => None,
    });
    assert_eq!(pages.collect::<Vec<_>>(), [(1, 0, false), (2, 20, true)]);
}
