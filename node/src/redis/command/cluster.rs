//! `CLUSTER …`, and the one redirection that a client of the cluster port may be sent.

use super::arguments::{Options, integer, is};
use super::connection::unknown_subcommand;
use super::{Next, ONE_KEY, Outcome, Refusal, Session, Spec};
use crate::redis::Mode;
use crate::redis::cluster_map::{ClusterMap, MapNode, elsewhere, name};
use crate::redis::resp::Command;
use crate::redis::write::Writer;
use gramme_ring::{SLOTS, Slot};
use std::fmt::Write as _;

pub(super) fn cluster(session: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    let handle = &session.server.handle;
    let out = &mut *session.writer;
    let mut options = Options::from(command, 1);
    let what = options.value()?;
    let exactly = |count: usize| {
        let name = format!("cluster|{}", what.to_ascii_lowercase().escape_ascii());
        if command.len() == count { Ok(()) } else { Err(Refusal::arity(&name)) }
    };
    if is(what, "SLOTS") {
        exactly(2)?;
        slots(&ClusterMap::of(handle), out);
    } else if is(what, "SHARDS") {
        exactly(2)?;
        shards(&ClusterMap::of(handle), out);
    } else if is(what, "NODES") {
        exactly(2)?;
        let map = ClusterMap::of(handle);
        let myself = name(handle.node());
        let lines: String = (0..map.nodes.len()).map(|at| described(&map, at, &myself)).collect();
        out.text(&lines);
    } else if is(what, "INFO") {
        exactly(2)?;
        out.text(&info(&ClusterMap::of(handle)));
    } else if is(what, "MYID") {
        exactly(2)?;
        out.bulk(name(handle.node()).as_bytes());
    } else if is(what, "KEYSLOT") {
        exactly(3)?;
        out.integer(Slot::of(options.value()?).index().into());
    } else if is(what, "COUNTKEYSINSLOT") {
        exactly(3)?;
        let slot = u16::try_from(integer(options.value()?)?).ok().and_then(Slot::new);
        let slot = slot.ok_or_else(|| Refusal::new("ERR Invalid slot"))?;
        out.integer(i64::try_from(handle.records_in(slot)).unwrap_or(i64::MAX));
    } else {
        return Err(unknown_subcommand("CLUSTER", what));
    }
    Ok(Next::Answered)
}

/// For each run: its first and its last slot, its master, its replicas.
fn slots(map: &ClusterMap, out: &mut Writer) {
    let runs = map.introduced();
    out.array(runs.len());
    for run in runs {
        out.array(2 + run.coordinators.len());
        out.integer(run.first.into());
        out.integer(run.last.into());
        for at in run.coordinators {
            let node = &map.nodes[at];
            out.array(4);
            out.bulk(node.host.as_bytes());
            out.integer(node.port.into());
            out.bulk(node.name().as_bytes());
            // Other names of it.
            out.array(0);
        }
    }
}

/// For each node that is alive, a shard of the slots of which it is the master. Clients give a node the role in which this
/// names it first, and it should be a master to all of them; so replicas are not named here.
fn shards(map: &ClusterMap, out: &mut Writer) {
    let alive: Vec<usize> = (0..map.nodes.len()).filter(|at| map.nodes[*at].alive).collect();
    out.array(alive.len());
    for at in alive {
        let node = &map.nodes[at];
        let ranges = map.mastered(at);
        out.map(2);
        out.bulk(b"slots");
        out.array(2 * ranges.len());
        for (first, last) in ranges {
            out.integer(first.into());
            out.integer(last.into());
        }
        out.bulk(b"nodes");
        out.array(1);
        out.map(7);
        let (id, host) = (node.name(), node.host.as_str());
        let texts =
            [("id", id.as_str()), ("ip", host), ("endpoint", host), ("role", "master"), ("health", "online")];
        for (field, text) in texts {
            out.bulk(field.as_bytes());
            out.bulk(text.as_bytes());
        }
        for (field, number) in [("port", i64::from(node.port)), ("replication-offset", 0)] {
            out.bulk(field.as_bytes());
            out.integer(number);
        }
    }
}

/// A node's line of `CLUSTER NODES`: all are masters, of the slots of which they are the first to be asked.
fn described(map: &ClusterMap, at: usize, myself: &str) -> String {
    let node = &map.nodes[at];
    let id = node.name();
    let me = if id == myself { "myself," } else { "" };
    let (failed, link) = if node.alive { ("", "connected") } else { (",fail", "disconnected") };
    let MapNode { host, port, peer_port, .. } = node;
    let mut line = format!("{id} {host}:{port}@{peer_port} {me}master{failed} - 0 0 {} {link}", map.version);
    for (first, last) in map.mastered(at) {
        // A String takes everything.
        let _ = if first == last { write!(line, " {first}") } else { write!(line, " {first}-{last}") };
    }
    line.push('\n');
    line
}

fn info(map: &ClusterMap) -> String {
    let served: u16 = map.runs.iter().map(|run| run.last - run.first + 1).sum();
    let ok = if map.serves { served } else { 0 };
    let masters = (0..map.nodes.len()).filter(|at| !map.mastered(*at).is_empty()).count();
    let state = if ok == SLOTS { "ok" } else { "fail" };
    format!(
        "cluster_state:{state}\r\ncluster_slots_assigned:{SLOTS}\r\ncluster_slots_ok:{ok}\r\n\
         cluster_slots_pfail:0\r\ncluster_slots_fail:{}\r\ncluster_known_nodes:{}\r\ncluster_size:{masters}\r\n\
         cluster_current_epoch:{}\r\ncluster_my_epoch:{}\r\n",
        SLOTS - ok,
        map.nodes.len(),
        map.version,
        map.version
    )
}

/// `MOVED`, if the client of the cluster port is to learn that its map is old: it reads a key for which this node is no
/// coordinator. A hint, since the request could be forwarded as well: once for each connection and version of the ring.
///
/// Only for a read that is alone. What a client sends behind a command that it will repeat elsewhere takes effect before
/// it; that must not happen to a write, and should not to what was sent along with another command.
pub(super) fn redirect(session: &Session<'_>, spec: &Spec, command: &Command<'_>) -> Option<Refusal> {
    if session.client.mode == Mode::Plain || !session.alone || spec.keys != ONE_KEY {
        return None;
    }
    if !spec.flags.contains(&"readonly") {
        return None;
    }
    let handle = &session.server.handle;
    let version = handle.engine(|engine| engine.reading().map(|layout| layout.version()))?;
    if session.client.redirected.get() == Some(version) {
        return None;
    }
    let (slot, address) = elsewhere(handle, command.get(1)?)?;
    session.client.redirected.set(Some(version));
    Some(Refusal::new(format!("MOVED {slot} {address}")))
}
