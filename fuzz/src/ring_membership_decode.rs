//! Arbitrary bytes as what a node knows of the cluster. Whatever it says, it merges with what others know, as a join.

use gramme_ring::membership::Progress;
use gramme_ring::{Change, ClusterId, Member, Membership, NodeId, Phase};

/// Decodes and merges.
///
/// # Panics
/// If a state that decodes can't be worked with, or merging is no join.
pub fn run(data: &[u8]) {
    let (plain, busy) = (founded(ClusterId(1)), busy(&founded(ClusterId(1))));
    told(&plain, data);
    told(&busy, data);
    let bound = 16_384 + 64 * data.len();
    let data = &crate::ring_layout_decode::right_hashes::<Membership>(data);
    let Ok(read) = crate::meter::within(bound, || postcard::from_bytes::<Membership>(data)) else { return };
    let bytes = postcard::to_allocvec(&read).expect("an encoding");
    let again: Membership = postcard::from_bytes(&bytes).expect("it can be read back");
    assert!(again == read && again.digest() == read.digest());
    work(&read);

    let mut own = founded(read.cluster().unwrap_or(ClusterId(1)));
    let busy = self::busy(&own);
    own.stage(NodeId(2), Change::Replicas(2)).expect("a good N");
    for mine in [&own, &busy] {
        let (Some(ab), Some(ba)) = (joined(mine, &read), joined(&read, mine)) else { continue };
        assert!(ab == ba, "the order matters");
        assert!(joined(&ab, &read).as_ref() == Some(&ab), "hearing it again changes something");
        work(&ab);
    }
    if let (Some(a), Some(b)) = (joined(&own, &read), joined(&read, &busy)) {
        assert!(joined(&a, &busy) == joined(&own, &b), "the grouping matters");
    }
}

/// The same bytes as what somebody says who has the same commit: refused, or it changes nothing of that.
fn told(mine: &Membership, data: &[u8]) {
    let commit = postcard::to_allocvec(&mine.commit_hash()).expect("an encoding");
    let Ok(said) = postcard::from_bytes::<Progress>(&[&commit, data].concat()) else { return };
    let mut told = mine.clone();
    let result = told.merge_progress(&said);
    assert_eq!(result.is_ok_and(|merged| merged.changed), told != *mine, "refused and changed all the same");
    assert_eq!(told.commit_hash(), mine.commit_hash());
    assert!(told.layout() == mine.layout());
    let bytes = postcard::to_allocvec(&told).expect("an encoding");
    assert!(postcard::from_bytes::<Membership>(&bytes).as_ref() == Ok(&told), "it can't be read back");
    // Said once more it is no news.
    assert!(result.is_err() || told.merge_progress(&said).is_ok_and(|merged| !merged.changed));
    work(&told);
}

/// The same cluster on its way to do without the third node.
fn busy(founded: &Membership) -> Membership {
    let mut busy = founded.clone();
    busy.stage(NodeId(2), Change::Remove(NodeId(3))).expect("a member");
    let seen = busy.propose().expect("a proposal").hash();
    busy.commit(ClusterId(0), seen).expect("as proposed");
    busy.advance(NodeId(1), Phase::Acknowledged).expect("it takes part");
    busy
}

/// A cluster of three with a small Q.
pub(crate) fn founded(cluster: ClusterId) -> Membership {
    let mut m = Membership::new();
    m.stage(NodeId(1), Change::Partitions(8)).expect("a good Q");
    for id in 1..=3 {
        m.stage(NodeId(1), Change::Member(Member::new(NodeId(id)))).expect("a good member");
    }
    let seen = m.propose().expect("a proposal").hash();
    m.commit(cluster, seen).expect("as proposed");
    m
}

fn joined(a: &Membership, b: &Membership) -> Option<Membership> {
    let mut joined = a.clone();
    match joined.merge(b) {
        Ok(merged) => {
            assert_eq!(merged.changed, joined != *a);
            Some(joined)
        }
        Err(_) => {
            assert!(joined == *a, "refused and changed all the same");
            None
        }
    }
}

/// Asks it everything that a node asks.
fn work(m: &Membership) {
    let changes = m.staged();
    assert!(changes.iter().all(|change| match change {
        Change::Replicas(n) => *n > 0,
        Change::Partitions(q) => q.is_power_of_two() && *q <= 16_384,
        Change::Member(member) => member.weight > 0 && !m.is_removed(member.id),
        Change::Leave(_) | Change::Remove(_) | Change::Setting { .. } => true,
    }));
    if let Some(t) = m.transition() {
        let (step, waiting) = (t.step(), t.waiting_for());
        assert!(waiting.iter().all(|&node| t.takes_part(node) && !m.is_removed(node)), "{step}: {waiting:?}");
    }
    // What a hostile state can make expensive is bounded, but not what this is looking for.
    let large = |change: &Change| matches!(change, Change::Partitions(q) if *q > 64);
    if changes.iter().any(large) || m.layout().is_some_and(|l| l.partitions() > 64) {
        return;
    }
    if let Ok(proposal) = m.propose() {
        let mut next = m.clone();
        let hash = next.commit(ClusterId(5), proposal.hash()).expect("as proposed").hash();
        assert_eq!(hash, proposal.layout().hash());
        assert!(next.staged().is_empty(), "all of it is committed");
    }
}
