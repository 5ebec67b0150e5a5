//! Writes that end at their deadline: what came of them by then reaches all owners by hints alone, and nothing more comes of them.

mod common;

use common::*;
use gramme_quorum::message::Message;
use gramme_quorum::planted::Planted;
use gramme_quorum::*;
use std::time::Duration;

/// Five nodes without anti-entropy, so that what has no hint stays where it is.
fn cluster() -> Cluster {
    Cluster::with(5, |config| config.timing.exchange = Duration::from_secs(3600))
}

/// Starts a write that ends after a tenth of a second.
fn start(cluster: &mut Cluster, value: &str) -> RequestId {
    let Op::Put { key, value, content_type, expiry, cover, .. } = put("k", value, Cover::Held) else {
        unreachable!()
    };
    let options = WriteOptions { timeout: Some(Duration::from_millis(100)), ..WriteOptions::default() };
    let at = cluster.preference("k")[0];
    cluster.start_request(at, Op::Put { key, value, content_type, expiry, cover, options })
}

fn is_indeterminate(cluster: &Cluster, request: RequestId) -> bool {
    matches!(cluster.replies.get(&request), Some(Reply::Failed(OpError::Indeterminate { .. })))
}

/// All owners have the same by now.
fn assert_equal(cluster: &Cluster, value: Option<&str>) {
    for owner in &cluster.preference("k")[..3] {
        let value = value.map(|value| vec![String::from(value)]);
        assert_eq!(cluster.copy(*owner, "k"), value, "at {owner}");
    }
}

#[test]
fn a_write_that_ends_at_its_deadline_reaches_all_by_hints() {
    let mut cluster = cluster();
    let at = cluster.preference("k")[0];
    // Nothing gets anywhere, and nobody is told.
    cluster.loses = |_, _, message| matches!(message, Message::Write { .. });
    let request = start(&mut cluster, "v");
    cluster.pass(Duration::from_millis(200));
    assert!(is_indeterminate(&cluster, request));
    assert_eq!(cluster.hints(at), 2);
    cluster.loses = |_, _, _| false;
    cluster.pass(Duration::from_secs(60));
    assert_equal(&cluster, Some("v"));
}

fn its_record_comes_late(planted: Planted) {
    let mut cluster = cluster();
    let at = cluster.preference("k")[0];
    cluster.crash(at);
    cluster.start_planted(at, planted);
    cluster.pass(Duration::from_secs(2));
    cluster.nodes.get_mut(&at).unwrap().loads = false;
    let request = start(&mut cluster, "v");
    cluster.pass(Duration::from_millis(200));
    assert!(is_indeterminate(&cluster, request));
    cluster.load(at);
    cluster.pass(Duration::from_secs(60));
    assert_equal(&cluster, None);
}

#[test]
fn a_write_whose_record_comes_after_its_deadline_is_not_done() {
    its_record_comes_late(Planted::default());
}

#[cfg(feature = "planted")]
#[test]
#[should_panic(expected = "at 0000")]
fn that_it_is_done_is_found() {
    its_record_comes_late(Planted::one(gramme_quorum::planted::Bug::MintedLate));
}
