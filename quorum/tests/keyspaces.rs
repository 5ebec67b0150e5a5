//! Keyspaces: rules by prefix, committed to like members; `lww` keeps the last write, whoever made it.

mod common;

use bytes::Bytes;
use common::{A, B, C, Cluster, commit, delete, lww, put};
use gramme_quorum::message::{Message, Purpose};
use gramme_quorum::*;
use gramme_ring::{Change, Member, NodeId};
use gramme_vclock::{Actor, GrowableDotSet, Minter, Stamp};

/// A cluster with an `lww` keyspace.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new(3);
    commit(&mut cluster, A, &[("last:", lww())]);
    cluster
}

fn expiries(cluster: &mut Cluster, key: &str) -> Vec<Option<Expiry>> {
    let get = Op::Get { key: Bytes::copy_from_slice(key.as_bytes()), options: ReadOptions::default() };
    match cluster.request(A, get) {
        Reply::Read(reading) => reading.siblings.into_iter().map(|found| found.expiry).collect(),
        other => panic!("get {key}: {other:?}"),
    }
}

#[test]
fn the_longest_prefix_names_the_rules() {
    let mut cluster = Cluster::new(3);
    let short = Keyspace { w: Some(Level::One), ..Keyspace::default() };
    let long = Keyspace { w: Some(Level::All), ..Keyspace::default() };
    commit(&mut cluster, B, &[("a", short), ("a/b", long)]);
    cluster.crash(C);
    cluster.cut(A, B, true);
    // A is alone.
    let have = |reply| match reply {
        Reply::Failed(OpError::Quorum { need: Need::W, have, want }) => (have, want),
        Reply::Written { .. } => (1, 1),
        other => panic!("{other:?}"),
    };
    assert_eq!(have(cluster.request(A, put("a", "x", Cover::Held))), (1, 1));
    assert_eq!(have(cluster.request(A, put("a/", "x", Cover::Held))), (1, 1));
    assert_eq!(have(cluster.request(A, put("a/b", "x", Cover::Held))), (1, 3));
    assert_eq!(have(cluster.request(A, put("b", "x", Cover::Held))), (1, 2));
}

#[test]
fn the_empty_prefix_gives_r_and_w_to_all_that_say_nothing_of_them() {
    let mut cluster = Cluster::new(3);
    let others = Keyspace { r: Some(Level::One), w: Some(Level::All), ..Keyspace::default() };
    let own = Keyspace { w: Some(Level::Count(1)), ..Keyspace::default() };
    commit(&mut cluster, A, &[("", others), ("own", own)]);
    cluster.crash(C);
    cluster.pass(Duration::from_secs(5));
    let short = OpError::Quorum { need: Need::W, have: 2, want: 3 };
    assert_eq!(cluster.request(A, put("key", "x", Cover::Held)), Reply::Failed(short));
    cluster.cut(A, B, true);
    cluster.put(A, "own key", "x", Cover::Held);
    assert_eq!(cluster.get(A, "own key").0, ["x"], "R = 1 holds there as well");
}

#[test]
fn a_time_to_live_is_for_values_whose_writers_say_nothing_of_it() {
    let mut cluster = Cluster::new(3);
    commit(&mut cluster, A, &[("brief", Keyspace { ttl_ms: Some(60_000), ..Keyspace::default() })]);
    cluster.put(A, "brief 1", "x", Cover::Held);
    let at = cluster.now.wall_ms + 60_000;
    assert!(
        matches!(expiries(&mut cluster, "brief 1")[..], [Some(Expiry(ms))] if ms <= at && at - ms < 1000)
    );
    for (expiry, kept) in [(Expiry(at * 2), Some(Expiry(at * 2))), (Expiry::NEVER, None)] {
        let Op::Put { key, value, content_type, cover, options, .. } = put("brief 2", "x", Cover::Held)
        else {
            unreachable!()
        };
        let op = Op::Put { key, value, content_type, expiry: Some(expiry), cover, options };
        assert!(matches!(cluster.request(A, op), Reply::Written { .. }));
        assert_eq!(expiries(&mut cluster, "brief 2"), [kept]);
    }
    cluster.pass(Duration::from_secs(61));
    assert_eq!(cluster.get(B, "brief 1").0, [""; 0]);
    assert_eq!(cluster.get(B, "brief 2").0, ["x"]);
}

#[test]
fn of_concurrent_writes_the_last_one_stays_at_every_replica() {
    let mut cluster = cluster();
    for (a, b) in [("kept", "siblings"), ("last:key", "one")] {
        cluster.cut(A, C, true);
        cluster.cut(A, B, true);
        let one = WriteOptions { w: Some(Level::One), ..WriteOptions::default() };
        let with = |value: &str| match put(a, value, Cover::Nothing) {
            Op::Put { key, value, content_type, expiry, cover, .. } => {
                Op::Put { key, value, content_type, expiry, cover, options: one }
            }
            _ => unreachable!(),
        };
        assert!(matches!(cluster.request(A, with("first")), Reply::Written { .. }));
        cluster.pass(Duration::from_secs(1));
        assert!(matches!(cluster.request(B, with("second")), Reply::Written { .. }));
        cluster.cut(A, C, false);
        cluster.cut(A, B, false);
        cluster.pass(Duration::from_secs(30));
        let want = if b == "one" { vec!["second"] } else { vec!["first", "second"] };
        for id in [A, B, C] {
            let held = cluster.copy(id, a).expect("handed over");
            assert_eq!(held, want, "{a} at {id}");
        }
    }
}

#[test]
fn whoever_was_told_ok_reads_its_write_whatever_the_clocks_say() {
    let mut cluster = cluster();
    cluster.skew.insert(A, 3_600_000);
    cluster.put(A, "last:key", "from the future", Cover::Held);
    for cover in [Cover::Held, Cover::Nothing, Cover::Context(Default::default())] {
        cluster.put(B, "last:key", "now", cover.clone());
        assert_eq!(cluster.get(C, "last:key").0, ["now"], "{cover:?}");
        cluster.put(A, "last:key", "from the future", Cover::Held);
    }
    // B's copy lacks what it is to outrank: the acknowledgements say so.
    cluster.put(A, "last:other", "kept by B as well", Cover::Held);
    cluster.cut(A, B, true);
    let fast = WriteOptions { w: Some(Level::Count(2)), ..WriteOptions::default() };
    let Op::Put { key, value, content_type, expiry, cover, .. } =
        put("last:other", "missed by B", Cover::Held)
    else {
        unreachable!()
    };
    let op = Op::Put { key, value, content_type, expiry, cover, options: fast };
    assert!(matches!(cluster.request(A, op), Reply::Written { .. }));
    cluster.put(B, "last:other", "now", Cover::Held);
    cluster.cut(A, B, false);
    cluster.pass(Duration::from_secs(30));
    assert_eq!(cluster.get(A, "last:other").0, ["now"]);
    for id in [A, B, C] {
        assert_eq!(cluster.copy(id, "last:other").unwrap(), ["now"], "at {id}");
    }
}

#[test]
fn the_last_delete_wins_as_well() {
    let mut cluster = cluster();
    cluster.put(A, "last:key", "old", Cover::Held);
    let (_, context) = cluster.get(A, "last:key");
    cluster.put(B, "last:key", "not seen by who deletes", Cover::Held);
    assert!(matches!(cluster.request(C, delete("last:key", Cover::Context(context))), Reply::Written { .. }));
    assert_eq!(cluster.get(A, "last:key").0, [""; 0]);
    cluster.put(B, "last:key", "later", Cover::Held);
    assert_eq!(cluster.get(A, "last:key").0, ["later"]);
}

#[test]
fn a_policy_stays_and_so_does_a_keyspace() {
    let mut cluster = cluster();
    let stage = |keyspace: Keyspace, prefix| ClusterOp::Stage(keyspace.change(prefix).unwrap());
    let refused = |error| Err(ClusterError::Keyspace(error));
    let siblings = Keyspace::default();
    let stays = KeyspaceError::PolicyStays(Policy::Lww);
    assert_eq!(cluster.change(A, stage(siblings, "last:")), refused(stays));
    // By a longer prefix its keys would leave it, and a node that has yet to hear of that would discard what they keep.
    assert_eq!(cluster.change(A, stage(siblings, "last:cart:")), refused(stays));
    cluster.change(A, stage(lww(), "last:cart:")).unwrap();
    cluster.change(A, ClusterOp::Clear).unwrap();
    // Nor has that of all other keys ever been another one.
    let stays = KeyspaceError::PolicyStays(Policy::Siblings);
    assert_eq!(cluster.change(A, stage(lww(), "")), refused(stays));
    let Change::Setting { name, .. } = lww().change("last:").unwrap() else { unreachable!() };
    let gone = Change::Setting { name: name.clone(), value: None };
    assert_eq!(cluster.change(B, ClusterOp::Stage(gone)), refused(KeyspaceError::Stays));
    let garbage = Change::Setting { name, value: Some(vec![9; 9]) };
    assert_eq!(cluster.change(B, ClusterOp::Stage(garbage)), refused(KeyspaceError::Malformed));
    let too_many = Keyspace { w: Some(Level::Count(4)), ..lww() };
    assert_eq!(cluster.change(C, stage(too_many, "last:")), refused(KeyspaceError::Level(3)));
    // R, W and the time to live may change.
    commit(&mut cluster, C, &[("last:", Keyspace { ttl_ms: Some(1), w: Some(Level::All), ..lww() })]);

    // Staged at C before it has heard of A's commit: the policy is looked at once more.
    cluster.cut(A, C, true);
    cluster.cut(B, C, true);
    let change = siblings.change("new:").unwrap();
    cluster.change(C, ClusterOp::Stage(change)).unwrap();
    cluster.change(A, stage(lww(), "new:")).unwrap();
    let hash = cluster.nodes[&A].engine.membership().propose().unwrap().hash();
    cluster.change(A, ClusterOp::Commit(hash)).unwrap();
    cluster.cut(A, C, false);
    cluster.cut(B, C, false);
    cluster.pass(Duration::from_secs(20));
    match cluster.nodes[&A].engine.membership().propose() {
        // Staged later than what was committed, so still there: it can't be committed.
        Ok(proposal) => assert_eq!(
            cluster.change(A, ClusterOp::Commit(proposal.hash())),
            refused(KeyspaceError::PolicyStays(Policy::Lww))
        ),
        Err(error) => assert_eq!(error.to_string(), "nothing is staged"),
    }
    let all: Vec<_> = Keyspace::all(cluster.nodes[&B].engine.membership())
        .map(|(prefix, keyspace)| (prefix.to_owned(), keyspace.policy))
        .collect();
    assert_eq!(all, [("last:".to_owned(), Policy::Lww), ("new:".to_owned(), Policy::Lww)]);
}

/// What was acknowledged by a smaller W is looked for at as many nodes as that takes, whatever W is now.
#[test]
fn a_larger_w_is_not_taken_for_the_one_that_older_writes_had() {
    let quorum = Keyspace { w: Some(Level::Quorum), ..Keyspace::default() };
    // The rules change once more after it, or not; and not only the keyspace's own W counts.
    let later = Keyspace { ttl_ms: Some(60_000), ..quorum };
    for commits in
        [&[("", quorum)][..], &[("", quorum), ("", later)], &[("k", quorum), ("", quorum), ("k", later)]]
    {
        let mut cluster = Cluster::found(5, 5, |config| (config.r, config.w) = (4, 2));
        // A and C have it, and nobody hands it on.
        cluster.loses = |_, to, message| {
            let sums = matches!(message, message::Message::Sums { .. } | message::Message::Summed { .. });
            sums || to != C && matches!(message, message::Message::Write { .. })
        };
        cluster.put(A, "k", "v", Cover::Held);
        for one in commits {
            commit(&mut cluster, A, &[*one]);
        }
        cluster.crash(C);
        cluster.wipe(C);
        cluster.crash(A);
        cluster.start(C);
        cluster.pass(Duration::from_secs(10));
        let incomplete = cluster.nodes[&C].engine.status(cluster.now.instant).incomplete_partitions;
        assert_ne!(incomplete, 0, "{commits:?}");
        cluster.loses = |_, _, _| false;
        cluster.start(A);
        cluster.pass(Duration::from_secs(20));
        assert!(cluster.copy(C, "k").is_some());
        assert_eq!(cluster.nodes[&C].engine.status(cluster.now.instant).incomplete_partitions, 0);
    }
}

/// Nor is the W of all requests that say nothing of it taken for that of one that named a majority.
#[test]
fn a_request_that_names_a_majority_is_found_again_where_w_is_larger() {
    let mut cluster = Cluster::with(3, |config| config.w = 3);
    let Op::Put { key, value, content_type, expiry, cover, .. } = put("k", "v", Cover::Held) else {
        unreachable!()
    };
    let options = WriteOptions { w: Some(Level::Quorum), ..WriteOptions::default() };
    let op = Op::Put { key, value, content_type, expiry, cover, options };
    cluster.loses = |_, to, message| to == B && matches!(message, message::Message::Write { .. });
    assert!(matches!(cluster.request(A, op), Reply::Written { .. }));
    cluster.crash(C);
    cluster.wipe(C);
    cluster.crash(A);
    cluster.start(C);
    cluster.pass(Duration::from_secs(10));
    let read = Op::Get { key: "k".into(), options: common::r(Level::Quorum) };
    assert!(matches!(cluster.request(C, read), Reply::Failed(OpError::Quorum { .. })));
}

/// Staged where a smaller W was not heard of yet, it can't be committed as it is after that.
#[test]
fn a_change_that_does_not_know_of_a_smaller_w_is_staged_anew() {
    let with = |w| Keyspace { w: Some(Level::Count(w)), ..Keyspace::default() };
    let stage = |w, prefix| ClusterOp::Stage(with(w).change(prefix).unwrap());
    let others = [B, C, NodeId(4), NodeId(5)];
    let mut cluster = Cluster::found(5, 5, |config| config.w = 3);
    for id in others {
        cluster.cut(id, A, true);
    }
    cluster.change(A, stage(3, "k")).unwrap();
    cluster.change(B, stage(2, "")).unwrap();
    let hash = cluster.nodes[&B].engine.membership().propose().unwrap().hash();
    cluster.change(B, ClusterOp::Commit(hash)).unwrap();
    cluster.pass(Duration::from_secs(5));
    for id in others {
        cluster.cut(id, A, false);
    }
    cluster.pass(Duration::from_secs(20));
    let hash = cluster.nodes[&A].engine.membership().propose().unwrap().hash();
    let refused = cluster.change(A, ClusterOp::Commit(hash)).unwrap_err();
    let hash = cluster.nodes[&A].engine.membership().propose().unwrap().hash();
    assert_eq!(refused, ClusterError::Commit(gramme_ring::membership::CommitError::Changed(hash)));
    assert_eq!(cluster.change(A, ClusterOp::Commit(hash)), Ok(()));
}

/// A write that one owner misses, acknowledged by the two others, and handed on by nobody.
fn missed_by_c(cluster: &mut Cluster) -> bool {
    cluster.loses = |_, to, message| {
        let sums = matches!(message, message::Message::Sums { .. } | message::Message::Summed { .. });
        sums || to == C && matches!(message, message::Message::Write { .. })
    };
    matches!(cluster.request(A, put("k", "v", Cover::Held)), Reply::Written { .. })
}

/// R = 1 meets what W = 3 writes. What W = 2 wrote before has to come to all for that.
#[test]
fn when_r_falls_every_owner_gets_what_was_written_before() {
    let all = Keyspace { r: Some(Level::One), w: Some(Level::All), ..Keyspace::default() };
    for (prefix, restarts) in [("", false), ("k", false), ("", true)] {
        let mut cluster = Cluster::new(3);
        assert!(missed_by_c(&mut cluster));
        if restarts {
            // All have forgotten what held before when the change is carried out.
            cluster.pause(B);
            let change = all.change(prefix).unwrap();
            cluster.change(A, ClusterOp::Stage(change)).unwrap();
            let hash = cluster.nodes[&A].engine.membership().propose().unwrap().hash();
            cluster.change(A, ClusterOp::Commit(hash)).unwrap();
            cluster.pass(Duration::from_secs(5));
            assert!(cluster.nodes[&C].engine.membership().transition().is_some());
            for id in [A, C] {
                cluster.crash(id);
                cluster.start(id);
            }
            cluster.resume(B);
            cluster.pass(Duration::from_secs(20));
        } else {
            commit(&mut cluster, B, &[(prefix, all)]);
        }
        assert!(cluster.nodes[&C].engine.membership().transition().is_none());
        cluster.cut(C, A, true);
        cluster.cut(C, B, true);
        assert_eq!(cluster.get(C, "k").0, ["v"], "{prefix:?} {restarts}");
    }
}

/// So has what W = 2 wrote before another change, in two steps, and what a majority of three wrote where N is 4 and has no fourth member.
#[test]
fn when_r_falls_what_was_written_by_still_older_rules_counts_and_by_fewer_members_than_n() {
    let rules = |r, w| Keyspace { r: Some(r), w: Some(w), ..Keyspace::default() };
    let quorum = rules(Level::Quorum, Level::Quorum);
    let steps = [(3, vec![], vec![rules(Level::Quorum, Level::All)]), (4, vec![quorum], vec![])];
    for (replicas, before, then) in steps {
        let mut cluster = Cluster::found(3, replicas, |_| {});
        for keyspace in before {
            commit(&mut cluster, B, &[("", keyspace)]);
        }
        assert!(missed_by_c(&mut cluster));
        for keyspace in then.into_iter().chain([rules(Level::One, Level::All)]) {
            commit(&mut cluster, B, &[("", keyspace)]);
        }
        cluster.cut(C, A, true);
        cluster.cut(C, B, true);
        assert_eq!(cluster.get(C, "k").0, ["v"], "N = {replicas}");
    }
}

/// Who has not heard of the change reads by R = 1: until all have, W stays 3.
#[test]
fn while_r_and_w_change_the_larger_ones_count() {
    let mut cluster = Cluster::new(3);
    let all = Keyspace { r: Some(Level::One), w: Some(Level::All), ..Keyspace::default() };
    let inherits = Keyspace { ttl_ms: Some(60_000), ..Keyspace::default() };
    commit(&mut cluster, A, &[("", all), ("k", inherits)]);
    let change = Keyspace { r: Some(Level::Quorum), w: Some(Level::Quorum), ..Keyspace::default() };
    cluster.loses = |_, to, message| {
        to == C && matches!(message, message::Message::Gossip(_) | message::Message::Write { .. })
    };
    cluster.change(A, ClusterOp::Stage(change.change("").unwrap())).unwrap();
    let hash = cluster.nodes[&A].engine.membership().propose().unwrap().hash();
    cluster.change(A, ClusterOp::Commit(hash)).unwrap();
    cluster.run();
    let reply = cluster.request(A, put("k", "v", Cover::Held));
    cluster.cut(C, A, true);
    cluster.cut(C, B, true);
    assert_eq!(cluster.get(C, "k").0, [""; 0], "C goes by R = 1");
    assert_eq!(reply, Reply::Failed(OpError::Indeterminate { need: Need::W, have: 2, want: 3 }));
    for id in [A, B] {
        cluster.cut(C, id, false);
    }
    cluster.loses = |_, _, _| false;
    cluster.pass(Duration::from_secs(20));
    assert!(cluster.nodes[&A].engine.membership().transition().is_none());
    assert!(missed_by_c(&mut cluster), "two are enough now");
}

#[test]
fn what_can_t_be_a_keyspace_is_refused_by_name() {
    let change = |prefix: &str, keyspace: Keyspace| keyspace.change(prefix).map(|_| ());
    let long = "p".repeat(MAX_PREFIX + 1);
    assert_eq!(change(&long, lww()), Err(KeyspaceError::Prefix(MAX_PREFIX + 1)));
    assert_eq!(change(&long[1..], lww()), Ok(()));
    for ttl_ms in [Some(0), Some(MAX_TTL_MS + 1), Some(u64::MAX)] {
        assert_eq!(change("", Keyspace { ttl_ms, ..lww() }), Err(KeyspaceError::Ttl));
    }
    let none = Some(Level::Count(0));
    assert_eq!(change("", Keyspace { r: none, ..lww() }), Err(KeyspaceError::Level(u8::MAX)));
    // What a keyspace is written as, and nothing else, is read.
    let Ok(Change::Setting { name, value: Some(value) }) = lww().change("x") else { unreachable!() };
    assert_eq!(Keyspace::read(&name, &value), Some(("x", lww())));
    assert_eq!(Keyspace::read("other/x", &value), None);
    assert_eq!(Keyspace::read(&name, &[&value[..], &[0]].concat()), None);
    for cut in 0..value.len() {
        assert_eq!(Keyspace::read(&name, &value[..cut]), None);
    }
}

/// Copies at three nodes, each minting under an actor of its own and merging others' at random, with clocks far apart: in
/// whatever order they are merged in the end, one and the same version is left, the one that ranks highest of all.
#[test]
fn merging_and_settling_is_a_join() {
    for seed in 0..500_u64 {
        let mut random = seed;
        let mut draw = |bound: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        let mut copies: Vec<(Object, Minter)> =
            (1..=3).map(|actor| (Object::new(), Minter::new(Actor(actor)))).collect();
        let mut highest = None;
        for write in 0..12_u8 {
            let at = usize::try_from(draw(3)).unwrap();
            if draw(2) == 0 {
                let other = copies[usize::try_from(draw(3)).unwrap()].0.clone();
                let (copy, _) = &mut copies[at];
                let Ok(_) = copy.merge(other);
                Policy::Lww.settle(copy);
                continue;
            }
            let (copy, minter) = &mut copies[at];
            let covered = copy.iter().map(|(_, v)| v.stamp).max().unwrap_or(Stamp::ZERO);
            let clock = Stamp::from_parts(draw(100), 0);
            let content = match draw(3) {
                0 => Content::Tombstone,
                _ => Content::Value { bytes: Bytes::copy_from_slice(&[write]), content_type: None },
            };
            let version = Version { stamp: clock.max(covered.next()), expiry: None, content };
            let seen: GrowableDotSet = copy.seen().clone();
            let dot = copy.write(&seen, minter, version.clone()).unwrap().dot;
            highest = highest.max(Some(Policy::Lww.rank(&version, dot)));
            Policy::Lww.settle(copy);
        }
        let mut ends = Vec::new();
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut all = Object::new();
            for at in order {
                let Ok(_) = all.merge(copies[at].0.clone());
                Policy::Lww.settle(&mut all);
                // Once more changes nothing.
                let before = all.clone();
                let Ok(_) = all.merge(copies[at].0.clone());
                Policy::Lww.settle(&mut all);
                assert_eq!(all, before, "seed {seed}");
            }
            let left: Vec<Rank> = all.iter().map(|(dot, v)| Policy::Lww.rank(v, dot)).collect();
            assert_eq!(left.first().copied(), highest, "seed {seed}");
            assert!(left.len() <= 1, "seed {seed}");
            ends.push(object::encode(&all));
        }
        assert!(ends.windows(2).all(|pair| pair[0] == pair[1]), "seed {seed}");
    }
}

/// One owner of each key does not hear of writes to it at once.
fn misses(to: NodeId, message: &Message) -> bool {
    matches!(message, Message::Write { purpose: Purpose::Write, key, .. } if to == misser(key))
}

fn misser(key: &[u8]) -> NodeId {
    NodeId(u64::from(key[key.len() - 1] % 5) + 1)
}

/// N, R and W change in one commit, of which some nodes hear later than others. Whatever is acknowledged meanwhile is read by all, by the
/// rules that each of them goes by.
#[test]
fn quorums_meet_while_n_r_and_w_change_at_once() {
    let levels = |r, w| Keyspace { r: Some(r), w: Some(w), ..Keyspace::default() };
    let (one, all, quorum) = (Level::One, Level::All, Level::Quorum);
    let changes = [
        ((3, levels(quorum, quorum)), (5, levels(one, all))),
        ((3, levels(one, all)), (5, levels(quorum, quorum))),
        ((5, levels(one, all)), (3, levels(all, one))),
        ((5, levels(quorum, quorum)), (3, levels(one, all))),
    ];
    for ((n, before), (then, after)) in changes {
        let mut cluster = Cluster::found(5, n, |_| {});
        commit(&mut cluster, A, &[("", before)]);
        cluster.put(A, "quiet", "as it was", Cover::Held);
        let what = format!("N {n} to {then}, {after:?}");
        cluster.change(B, ClusterOp::Stage(Change::Replicas(then))).unwrap();
        cluster.change(B, ClusterOp::Stage(after.change("").unwrap())).unwrap();
        let hash = cluster.nodes[&B].engine.membership().propose().unwrap().hash();
        cluster.loses =
            |_, to, message| matches!(message, Message::Gossip(_)) && to.0 >= 4 || misses(to, message);
        cluster.change(B, ClusterOp::Commit(hash)).unwrap();
        let (mut live, mut acknowledged) = (0, 0);
        for round in 0..400_u64 {
            if round == 30 {
                cluster.loses = |_, to, message| misses(to, message);
            }
            let (key, value) = (format!("key {}", round % 7), format!("{round}"));
            let request = cluster.start_request(NodeId(round % 5 + 1), put(&key, &value, Cover::Held));
            cluster.run();
            let told = cluster.replies.get(&request).cloned();
            // Otherwise it waits for who does not hear of it, and may be acknowledged by a fallback: no promise is made then.
            if let Some(Reply::Written { .. }) = told {
                acknowledged += 1;
                for reader in [NodeId(round * 3 % 5 + 1), misser(key.as_bytes())] {
                    let get = Op::Get { key: key.clone().into(), options: ReadOptions::default() };
                    if let Reply::Read(reading) = cluster.request(reader, get) {
                        assert_eq!(&reading.siblings[0].value[..], value.as_bytes(), "{what}, round {round}");
                    }
                }
            }
            assert_eq!(
                cluster.get(NodeId(round * 3 % 5 + 1), "quiet").0,
                ["as it was"],
                "{what}, round {round}"
            );
            let going = cluster.nodes.values().any(|node| node.engine.membership().transition().is_some());
            if !going && round > 30 {
                break;
            }
            live += u64::from(going);
            cluster.pass(if told.is_some() { Duration::from_millis(20) } else { Duration::from_secs(5) });
        }
        assert!((30..400).contains(&live) && acknowledged > 5, "{what}: {live}, {acknowledged}");
        let layout = cluster.nodes[&C].engine.layout().unwrap();
        assert_eq!(layout.replicas(), then, "{what}");
    }
}

/// Rules that promise that reads meet writes among as many replicas as there are, and would not among as many as are staged with them.
#[test]
fn rules_that_are_committed_with_other_replicas_are_to_meet_among_those() {
    let mut cluster = Cluster::new(5);
    let quorums = Keyspace { r: Some(Level::Quorum), w: Some(Level::Quorum), ..Keyspace::default() };
    commit(&mut cluster, A, &[("", quorums)]);
    let two = Keyspace { r: Some(Level::Count(2)), w: Some(Level::Count(2)), ..Keyspace::default() };
    cluster.change(A, ClusterOp::Stage(Change::Replicas(4))).unwrap();
    cluster.change(A, ClusterOp::Stage(two.change("k").unwrap())).unwrap();
    let proposed = |cluster: &Cluster| cluster.nodes[&A].engine.membership().propose().unwrap().hash();
    let hash = proposed(&cluster);
    let refused = cluster.change(A, ClusterOp::Commit(hash));
    assert!(matches!(&refused, Err(ClusterError::Apart(prefix)) if prefix == "k"), "{refused:?}");
    cluster.change(A, ClusterOp::Clear).unwrap();
    // Each by itself can be committed, as can both where they meet.
    let three = Keyspace { w: Some(Level::Count(3)), ..two };
    cluster.change(A, ClusterOp::Stage(Change::Replicas(4))).unwrap();
    cluster.change(A, ClusterOp::Stage(three.change("k").unwrap())).unwrap();
    let hash = proposed(&cluster);
    cluster.change(A, ClusterOp::Commit(hash)).unwrap();
}

/// A cluster of one, whose R and W are one each, has never promised that reads meet writes among three copies: that forbids no change.
#[test]
fn few_members_change_what_they_like() {
    let mut cluster = Cluster::with(1, |config| (config.r, config.w) = (1, 1));
    let heavier = Change::Member(Member { weight: 9, ..Member::new(A) });
    cluster.change(A, ClusterOp::Stage(heavier)).unwrap();
    let hash = cluster.nodes[&A].engine.membership().propose().unwrap().hash();
    cluster.change(A, ClusterOp::Commit(hash)).unwrap();
}
