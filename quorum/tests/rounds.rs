//! Plain writes that are repeated, since acknowledgements showed what outranks them.

mod common;

use common::{A, Cluster, commit, lww, put, r};
use gramme_quorum::message::{Message, Purpose};
use gramme_quorum::*;

/// The second round waits for its disk while the owners that are to have it go: copies of the first round are none of the second.
#[test]
fn copies_of_the_first_round_are_none_of_the_second() {
    for key in ["k", "last:k"] {
        let mut cluster = Cluster::new(5);
        commit(&mut cluster, A, &[("last:", lww())]);
        let list = cluster.preference(key);
        // What outranks the write is on two owners, an hour ahead; the one reaches nobody else and keeps the third's hint itself.
        for id in [list[1], list[2]] {
            cluster.skew.insert(id, 3_600_000);
        }
        for other in [list[0], list[3], list[4]] {
            cluster.cut(list[1], other, true);
        }
        cluster.put(list[1], key, "older", Cover::Held);
        cluster.pass(Duration::from_secs(1));
        cluster.loses = |_, _, message| matches!(message, Message::Write { purpose: Purpose::Handoff, .. });
        for other in [list[0], list[3], list[4]] {
            cluster.cut(list[1], other, false);
        }
        cluster.run();
        let request = cluster.start_request(list[0], put(key, "newer", Cover::Held));
        cluster.nodes.get_mut(&list[0]).unwrap().loads = false;
        cluster.run();
        assert!(!cluster.replies.contains_key(&request), "it is to be repeated");
        cluster.cut(list[0], list[1], true);
        cluster.cut(list[0], list[2], true);
        cluster.run();
        let acknowledged = matches!(cluster.replies.get(&request), Some(Reply::Written { .. }));
        cluster.crash(list[0]);
        cluster.loses = |_, _, _| false;
        cluster.start(list[0]);
        cluster.cut(list[0], list[1], false);
        cluster.cut(list[0], list[2], false);
        cluster.pass(Duration::from_secs(60));
        let (values, _) = cluster.get_with(list[1], key, r(Level::All));
        let shown = values.first().map(String::as_str);
        assert!(!acknowledged || shown == Some("newer"), "{key}: {values:?}");
    }
}
