//! A change to what was read (`EXPIRE`, `GETDEL`) leaves alone what its reader has not seen, and does not hide it either.

mod common;

use common::{A, B, C, Cluster, commit, delete, lww, put};
use gramme_quorum::*;
use gramme_vclock::GrowableContext as Context;
use std::time::Duration;

/// In a keyspace of each policy.
const KEYS: [&str; 2] = ["k", "last:k"];

fn cluster() -> Cluster {
    let mut cluster = Cluster::new(3);
    commit(&mut cluster, A, &[("last:", lww())]);
    cluster
}

/// The value once more, with another expiry.
fn amend(key: &str, value: &str, read: &Context) -> Op {
    let Op::Put { key, value, content_type, cover, options, .. } =
        put(key, value, Cover::Amends(read.clone()))
    else {
        unreachable!("it is a put")
    };
    Op::Put { key, value, content_type, expiry: Some(Expiry(u64::MAX - 1)), cover, options }
}

fn written(reply: Reply) -> Context {
    match reply {
        Reply::Written { context, .. } => context,
        other => panic!("{other:?}"),
    }
}

/// Every node shows this value, and nobody has lost it.
fn assert_shown(cluster: &mut Cluster, key: &str, value: &str, what: &str) {
    for node in [A, B, C] {
        let shown = cluster.get(node, key).0;
        assert_eq!(shown.first().map(String::as_str), Some(value), "{key} at {node}, {what}: {shown:?}");
    }
}

#[test]
fn an_amendment_replaces_what_it_was_read_from() {
    for key in KEYS {
        let mut cluster = cluster();
        cluster.put(A, key, "v", Cover::Held);
        let (_, read) = cluster.get(B, key);
        let amended = written(cluster.request(B, amend(key, "v", &read)));
        assert!(amended.stamp > read.stamp);
        assert_eq!(cluster.get(C, key).0, ["v"]);
        written(cluster.request(C, delete(key, Cover::Amends(amended))));
        assert_eq!(cluster.get(A, key).0, [""; 0]);
        cluster.put(B, key, "w", Cover::Held);
        assert_eq!(cluster.get(A, key).0, ["w"]);
    }
}

#[test]
fn a_write_in_between_is_shown_whatever_the_clocks_say() {
    // How far ahead the clocks of the three are, and how long after the write the amendment comes.
    for (skew, wait) in [([0, 0, 0], 50), ([0, 0, 0], 0), ([60_000, 0, 0], 50), ([0, -60_000, 60_000], 50)] {
        for key in KEYS {
            for (writer, amender) in [(A, A), (A, B), (B, A), (B, C), (C, C)] {
                let mut cluster = cluster();
                cluster.skew = [A, B, C].into_iter().zip(skew).collect();
                cluster.put(A, key, "old", Cover::Held);
                let (_, mut read) = cluster.get(amender, key);
                cluster.put(writer, key, "new", Cover::Held);
                cluster.pass(Duration::from_millis(wait));
                // A few in a row, none of which has seen it.
                for _ in 0..3 {
                    read = written(cluster.request(amender, amend(key, "old", &read)));
                }
                let what = format!("written at {writer}, amended at {amender}, clocks {skew:?}, {wait} ms");
                assert_shown(&mut cluster, key, "new", &what);
                let all = cluster.get(C, key).0;
                assert_eq!(all, if key == "k" { vec!["new", "old"] } else { vec!["new"] }, "{what}");
                for node in [A, B, C] {
                    assert_eq!(cluster.copy(node, key).unwrap(), all, "the copy of {node}, {what}");
                }
                written(cluster.request(amender, delete(key, Cover::Amends(read))));
                assert_shown(&mut cluster, key, "new", &what);
                assert_eq!(cluster.get(A, key).0, ["new"]);
            }
        }
    }
}

/// Nor does it matter which of the two came to a replica first.
#[test]
fn neither_need_reach_the_others_coordinator() {
    for key in KEYS {
        for write_first in [true, false] {
            let mut cluster = cluster();
            cluster.put(A, key, "old", Cover::Held);
            let (_, read) = cluster.get(C, key);
            cluster.cut(B, C, true);
            if write_first {
                cluster.put(B, key, "new", Cover::Held);
            }
            written(cluster.request(C, amend(key, "old", &read)));
            if !write_first {
                cluster.put(B, key, "new", Cover::Held);
            }
            cluster.cut(B, C, false);
            cluster.pass(Duration::from_secs(2));
            assert_shown(
                &mut cluster,
                key,
                "new",
                if write_first { "written first" } else { "amended first" },
            );
        }
    }
}
