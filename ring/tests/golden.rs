//! The bytes and hashes of layouts and memberships, frozen: nodes of different versions and platforms must agree on both.
//!
//! A difference in what is computed only means that the algorithm places differently, which is allowed and deserves a line
//! in the changelog (`layout_computed.txt`, `layout_of_5.txt`, `layout_of_7.txt`, `membership_made.txt` and in `tokens.txt` who has the tokens of equal partitions hold what it does now); a difference in decoding or
//! hash breaks clusters. `layout.txt` and `membership.txt` were made by an earlier algorithm, and stay.

use gramme_ring::gossip::{Head, Message, Record, Told};
use gramme_ring::membership::{Progress, Standing};
use gramme_ring::token::{EqualPartitions, TokenRing};
use gramme_ring::{
    Change, ClusterId, Layout, LayoutVersion, Member, Membership, NodeId, PartitionCount, Phase, Slot, Zone,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

fn golden(text: &str) -> (u64, Vec<u8>) {
    let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
    let hex = field("bytes:");
    let bytes = (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
    (u64::from_str_radix(&field("hash:"), 16).unwrap(), bytes)
}

fn computed() -> Layout {
    let member = |id, weight, zone: &str| Member { id: NodeId(id), weight, zone: Zone::new(zone).unwrap() };
    let mut members = vec![
        member(1, 1, ""),
        member(0x1234_5678_9abc_def0, 2, "north"),
        member(u64::MAX, 1000, "ein Saal in Lüttich"),
        member(77, 1, "north"),
    ];
    let first = Layout::compute(3, 16, &members, None).unwrap();
    members.push(member(300, 3, "south"));
    Layout::compute(3, 16, &members, Some(&first)).unwrap()
}

/// Of a cluster that had a few others before, and in which one had another weight. More stand in a zone than a library sorts whole where it
/// is asked to select.
fn of_many(replicas: u8, zones: &[&str]) -> Layout {
    let member = |n: u16| {
        let zone = Zone::new(zones[usize::from(n) % zones.len()]).unwrap();
        Member { id: NodeId(u64::from(n * n + 7)), weight: 1 + u32::from(n) % 3, zone }
    };
    let first: Vec<Member> = (0..60).map(member).collect();
    let mut next: Vec<Member> = (3..64).map(member).collect();
    next[20].weight += 2;
    let first = Layout::compute(replicas, 64, &first, None).unwrap();
    Layout::compute(replicas, 64, &next, Some(&first)).unwrap()
}

#[test]
fn decoded() {
    for text in [include_str!("golden/layout.txt"), include_str!("golden/layout_computed.txt")] {
        let (hash, bytes) = golden(text);
        let layout: Layout = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(layout.hash(), hash);
        assert_eq!(postcard::to_allocvec(&layout).unwrap(), bytes);
        assert_eq!(layout.version().0, 2);
        assert_eq!(layout.members().len(), 5);
        // Whoever computed it, it is followed like any other.
        let next = Layout::compute(3, 16, layout.members(), Some(&layout)).unwrap();
        assert_eq!((next.parent(), layout.plan(&next).is_empty()), (hash, true));
    }
}

#[test]
fn computed_alike_everywhere() {
    for (text, layout) in [
        (include_str!("golden/layout_computed.txt"), computed()),
        (include_str!("golden/layout_of_5.txt"), of_many(5, &[""])),
        (include_str!("golden/layout_of_7.txt"), of_many(7, &["north", "south"])),
    ] {
        let (hash, bytes) = golden(text);
        let now = postcard::to_allocvec(&layout).unwrap();
        let hex: String = now.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!((layout.hash(), now), (hash, bytes), "hash: {:016x}\nbytes: {hex}", layout.hash());
    }
}

/// One of everything: a live transition, trackers, a removed node, a setting, N and Q, something staged.
fn membership() -> Membership {
    let mut m = Membership::new();
    for id in 1..=4 {
        m.stage(NodeId(9), Change::Member(Member::new(NodeId(id)))).unwrap();
    }
    m.stage(NodeId(9), Change::Partitions(2)).unwrap();
    m.stage(NodeId(9), Change::Setting { name: "keyspace/a".into(), value: Some(vec![1, 2, 3]) }).unwrap();
    let hash = m.propose().unwrap().hash();
    m.commit(ClusterId(0xc1), hash).unwrap();
    m.stage(NodeId(8), Change::Remove(NodeId(4))).unwrap();
    m.stage(NodeId(8), Change::Replicas(2)).unwrap();
    let hash = m.propose().unwrap().hash();
    m.commit(ClusterId(0), hash).unwrap();
    m.advance(NodeId(2), Phase::Acknowledged).unwrap();
    m.stage(NodeId(1), Change::Leave(NodeId(3))).unwrap();
    m.stage(NodeId(1), Change::Setting { name: "keyspace/a".into(), value: None }).unwrap();
    m
}

#[test]
fn membership_decoded() {
    for text in [include_str!("golden/membership.txt"), include_str!("golden/membership_made.txt")] {
        let (digest, bytes) = golden(text);
        let m: Membership = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(m.digest(), digest);
        assert_eq!(postcard::to_allocvec(&m).unwrap(), bytes);
        assert_eq!(m.cluster(), Some(ClusterId(0xc1)));
        assert!(m.is_removed(NodeId(4)));
        assert_eq!(m.transition().unwrap().phase(NodeId(2)), Some(Phase::Acknowledged));
        assert_eq!(m.staged().len(), 2);
    }
}

#[test]
fn membership_made_alike_everywhere() {
    let (digest, bytes) = golden(include_str!("golden/membership_made.txt"));
    let m = membership();
    let now: String = postcard::to_allocvec(&m).unwrap().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        (m.digest(), postcard::to_allocvec(&m).unwrap()),
        (digest, bytes),
        "hash: {:016x}\nbytes: {now}",
        m.digest()
    );
}

/// Of the state in `membership.txt`: its commit's hash, the transition is live, one tracker; then as in the membership.
#[test]
fn progress_bytes() {
    let (_, whole) = golden(include_str!("golden/membership.txt"));
    let m: Membership = postcard::from_bytes(&whole).unwrap();
    let tracker = [1, 2, 0];
    let tail = &whole[whole.len() - 26..];
    assert_eq!(tail[..3], tracker);
    let commit = m.commit_hash().unwrap();
    assert_eq!(commit, 2_346_469_373_598_106_684);
    let bytes = [&[1][..], &postcard::to_allocvec(&commit).unwrap(), &[0], tail].concat();
    assert_eq!(postcard::to_allocvec(&m.progress()).unwrap(), bytes);
    assert_eq!(postcard::from_bytes::<Progress>(&bytes).unwrap(), m.progress());
}

/// FORMAT.md's rule for a token's position, once more, and the positions themselves: who knows the members knows the ring.
#[test]
fn tokens_are_placed_alike_everywhere() {
    let member = |id, weight| Member::new(NodeId(id)).with_weight(weight);
    let members = [member(1, 1), member(0x1234_5678_9abc_def0, 2), member(u64::MAX, 1)];
    let mix = |mut x: u64| {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let both = |a: u64, b: u64| mix(mix(a.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ b);
    let mut expected = Vec::new();
    for m in &members {
        for i in 0..u64::from(m.weight) * 3 {
            expected.push((both(both(42, m.id.0), i), m.id));
        }
    }
    expected.sort_unstable();
    let tokens = |ring: &TokenRing| -> Vec<(u64, NodeId)> {
        ring.table().tokens().iter().map(|t| (t.position, ring.nodes()[t.node as usize])).collect()
    };
    let random = TokenRing::random(3, 42, &members).unwrap();
    assert_eq!(tokens(&random), expected);

    // Where tokens of equal partitions stand is frozen, too; who has which is what it is now, as with layouts.
    let partitions = EqualPartitions::new(24).unwrap();
    let before = TokenRing::equal(partitions, 42, &members, None).unwrap();
    let changed = [member(1, 3), member(7, 2), member(9, 1), member(u64::MAX, 1)];
    let after = TokenRing::equal(partitions, 43, &changed, Some(&before)).unwrap();
    for (p, (position, _)) in (1u128..).zip(tokens(&after)) {
        assert_eq!(u128::from(position), (p << 64).div_ceil(24) - 1);
    }
    let lines = |name: &str, ring: &TokenRing| {
        let line = |(position, id): (u64, NodeId)| format!("{name} {position:016x} {id}\n");
        tokens(ring).into_iter().map(line).collect::<String>()
    };
    let now = lines("random", &random) + &lines("equal", &before) + &lines("followed", &after);
    assert_eq!(now, include_str!("golden/tokens.txt"), "{now}");
}

/// Written down from FORMAT.md.
#[test]
fn gossip_bytes() {
    let head = Head { incarnation: 3, version: 300 };
    let delta = |membership| Message::Delta {
        membership,
        records: vec![(NodeId(1), Record { head, facts: vec![0xaa, 0xbb] })],
        ask_membership: true,
        ask: vec![NodeId(2), NodeId(128)],
    };
    let cases: [(Message, &[u8]); 6] = [
        (Message::Summary { membership: 5, records: 127 }, &[0, 5, 127]),
        (
            Message::Heads { membership: 5, commit: None, heads: vec![(NodeId(9), head)] },
            &[1, 5, 0, 1, 9, 3, 0xac, 2],
        ),
        (Message::Heads { membership: 5, commit: Some(6), heads: vec![] }, &[1, 5, 1, 6, 0]),
        (delta(None), &[2, 0, 1, 1, 3, 0xac, 2, 2, 0xaa, 0xbb, 1, 2, 2, 0x80, 1]),
        // A membership of which nothing is known.
        (
            delta(Some(Told::All(Box::new(Membership::new())))),
            &[2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 3, 0xac, 2, 2, 0xaa, 0xbb, 1, 2, 2, 0x80, 1],
        ),
        (
            delta(Some(Told::Progress(Box::new(Membership::new().progress())))),
            &[2, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 3, 0xac, 2, 2, 0xaa, 0xbb, 1, 2, 2, 0x80, 1],
        ),
    ];
    for (message, bytes) in cases {
        assert_eq!(postcard::to_allocvec(&message).unwrap(), bytes);
        assert_eq!(postcard::from_bytes::<Message>(bytes).unwrap(), message);
    }
}

/// The forms in formats for people: ids and hashes are hexadecimal digits there.
#[test]
fn json_is_frozen() {
    let member = Member::new(NodeId(0x2a)).with_weight(2).with_zone(Zone::new("north").unwrap());
    frozen("node_id", &member.id);
    frozen("slot", &Slot::of(b"foo"));
    frozen("partition", &PartitionCount::new(4).unwrap().partition(2).unwrap());
    frozen("zone", &member.zone);
    frozen("member", &member);
    let standing = Standing::Member { weight: member.weight, zone: member.zone };
    frozen("standings", &[standing, Standing::Left, Standing::Removed]);
    frozen("phases", &[Phase::Acknowledged, Phase::Synced, Phase::Moved]);
    frozen("layout_version", &LayoutVersion(3));
    frozen("cluster_id", &ClusterId(0xc1));

    let layout: Layout = postcard::from_bytes(&golden(include_str!("golden/layout.txt")).1).unwrap();
    frozen("layout", &layout);
    let m: Membership = postcard::from_bytes(&golden(include_str!("golden/membership.txt")).1).unwrap();
    frozen("membership", &m);
    frozen("progress", &m.progress());

    let head = Head { incarnation: 3, version: 300 };
    let record = Record { head, facts: vec![0xaa, 0xbb] };
    frozen("head", &head);
    frozen("record", &record);
    frozen("summary", &Message::Summary { membership: 5, records: 127 });
    frozen("heads", &Message::Heads { membership: 5, commit: Some(6), heads: vec![(NodeId(9), head)] });
    frozen("heads_without_commit", &Message::Heads { membership: 5, commit: None, heads: vec![] });
    let delta = |membership| Message::Delta {
        membership,
        records: vec![(NodeId(1), record.clone())],
        ask_membership: true,
        ask: vec![NodeId(2)],
    };
    frozen("delta", &delta(None));
    frozen("delta_all", &delta(Some(Told::All(Box::new(Membership::new())))));
    frozen("delta_progress", &delta(Some(Told::Progress(Box::new(Membership::new().progress())))));
}

fn frozen<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, value: &T) {
    let lines = include_str!("golden/json.txt").lines().filter_map(|line| line.split_once(' '));
    let line = lines.filter(|(named, _)| *named == name).map(|(_, json)| json).next();
    let written = serde_json::to_string(value).unwrap();
    assert_eq!(Some(&*written), line, "{name}");
    assert_eq!(&serde_json::from_str::<T>(&written).unwrap(), value, "{name}");
}
