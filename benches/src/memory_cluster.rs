//! A cluster of engines with nothing beneath them: no sockets, no disks, no clock that runs.

use bytes::Bytes;
use gramme_quorum::{
    AppendId, Config, Engine, Input, Instant, Loaded, Now, Op, Output, Page, Place, Reply, RequestId,
};
use gramme_ring::{ClusterId, Member, Membership, NodeId};
use gramme_vclock::Actor;
use std::collections::{HashMap, VecDeque};

/// Engines that hand each other their messages as values, over maps in memory that are durable at once.
///
/// What is measured with it is the engines' own work: no encoding, no system calls, no waiting. Time stands still
/// but for the wall clock, which moves on by a millisecond with each request.
///
/// ```
/// use gramme_benches::MemoryCluster;
/// use gramme_quorum::{Op, ReadOptions, Reply};
///
/// let mut cluster = MemoryCluster::new(3);
/// cluster.run(0, MemoryCluster::set("cart", "2 apples"));
/// let reply = cluster.run(2, Op::Get { key: "cart".into(), options: ReadOptions::default() });
/// assert!(matches!(reply, Reply::Read(reading) if reading.siblings[0].value == "2 apples"));
/// ```
#[derive(Debug)]
pub struct MemoryCluster {
    nodes: Vec<Node>,
    wall_ms: u64,
    next: u64,
    pending: VecDeque<(usize, Input)>,
    reply: Option<(RequestId, Reply)>,
}

#[derive(Debug)]
struct Node {
    engine: Engine,
    records: HashMap<(Place, Bytes), Bytes>,
}

impl MemoryCluster {
    /// `nodes` connected members that share all data, three copies of each key, R = W = 2 (or what there is).
    ///
    /// # Panics
    /// If `nodes` is 0 or more than a layout may have.
    #[must_use]
    pub fn new(nodes: usize) -> MemoryCluster {
        let ids: Vec<NodeId> = (0..nodes).map(|at| NodeId(at as u64)).collect();
        let members: Vec<Member> = ids.iter().map(|id| Member::new(*id)).collect();
        let founded =
            Membership::found(ClusterId(1), 3, 256, &members).expect("a plain layout of so many nodes");
        let now = Now::default();
        let node = |id: &NodeId| {
            let engine = Engine::new(Config::new(*id, Actor(id.0 + 1)), founded.clone(), now);
            Node { engine, records: HashMap::new() }
        };
        let nodes: Vec<Node> = ids.iter().map(node).collect();
        let mut cluster = MemoryCluster { nodes, wall_ms: 0, next: 0, pending: VecDeque::new(), reply: None };
        for at in 0..cluster.nodes.len() {
            cluster.perform(at);
            let others = ids.iter().filter(|id| id.0 != at as u64);
            cluster.pending.extend(others.map(|id| (at, Input::Connected(*id))));
        }
        cluster.settle();
        assert!(cluster.nodes.iter().all(|n| n.engine.status(now.instant).ready));
        cluster
    }

    /// A plain write, as `SET` makes it.
    #[must_use]
    pub fn set(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Op {
        Op::Put {
            key: key.into(),
            value: value.into(),
            content_type: None,
            expiry: None,
            cover: gramme_quorum::Cover::Held,
            options: gramme_quorum::WriteOptions::default(),
        }
    }

    /// Performs a request at the node of this index, and everything that follows from it on all nodes, until nothing
    /// is left to do.
    ///
    /// # Panics
    /// If there is no such node, or an engine does not answer: nothing is lost here.
    pub fn run(&mut self, at: usize, op: Op) -> Reply {
        self.next += 1;
        self.wall_ms += 1;
        let request = RequestId(self.next);
        self.pending.push_back((at, Input::Client(request, op)));
        self.settle();
        let (answered, reply) = self.reply.take().expect("every request is answered");
        assert_eq!(answered, request);
        reply
    }

    fn settle(&mut self) {
        let now = Now { instant: Instant(0), wall_ms: self.wall_ms };
        while let Some((at, input)) = self.pending.pop_front() {
            self.nodes[at].engine.handle(now, input);
            self.perform(at);
        }
    }

    fn perform(&mut self, at: usize) {
        let from = NodeId(at as u64);
        let Node { engine, records } = &mut self.nodes[at];
        let mut appended: Option<AppendId> = None;
        while let Some(output) = engine.poll() {
            match output {
                Output::Send(to, message) => {
                    let to = usize::try_from(to.0).expect("ids are indices");
                    self.pending.push_back((to, Input::Peer(from, message)));
                }
                Output::Reply(request, reply) => {
                    assert!(self.reply.is_none(), "one request at a time, one answer each");
                    self.reply = Some((request, reply));
                }
                Output::Load { id, place, key } => {
                    let found = records.get(&(place, key)).cloned().map_or(Loaded::Absent, Loaded::Found);
                    self.pending.push_back((at, Input::Loaded(id, found)));
                }
                Output::Append { id, place, key, value, .. } => {
                    match value {
                        Some((bytes, _tag)) => records.insert((place, key), bytes),
                        None => records.remove(&(place, key)),
                    };
                    appended = Some(id);
                }
                Output::List { id, .. } => {
                    self.pending.push_back((at, Input::Listed(id, Some(Page::default()))));
                }
                Output::Sums { id, ranges } => {
                    // Its nodes never differ.
                    self.pending.push_back((at, Input::Summed(id, vec![0; ranges.len()])));
                }
                Output::Confirm(id) => self.pending.push_back((at, Input::Written(id))),
                // It syncs at once, and its members stay.
                Output::Sync | Output::Known(..) => {}
                other => panic!("an output that this cluster does not know: {other:?}"),
            }
        }
        if let Some(through) = appended {
            self.pending.push_back((at, Input::Synced(through, through.0)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gramme_quorum::{Cover, Level, ReadOptions, WriteOptions};

    fn all() -> ReadOptions {
        ReadOptions { r: Some(Level::All), ..ReadOptions::default() }
    }

    #[test]
    fn what_is_set_at_one_node_is_read_at_every_node_from_all_copies() {
        let mut cluster = MemoryCluster::new(5);
        for key in 0..200u32 {
            let name = Bytes::copy_from_slice(&key.to_le_bytes());
            let at = (key % 5) as usize;
            let reply = cluster.run(at, MemoryCluster::set(name.clone(), name.clone()));
            assert!(matches!(reply, Reply::Written { replaced: false, .. }), "{reply:?}");
            let reply = cluster.run(4 - at, Op::Get { key: name.clone(), options: all() });
            let Reply::Read(reading) = reply else { panic!("{reply:?}") };
            assert!(reading.siblings.iter().map(|s| &s.value).eq([&name]));
        }
    }

    #[test]
    fn writes_that_cover_nothing_stay_as_siblings_until_a_plain_write() {
        let mut cluster = MemoryCluster::new(3);
        let put = |value: &'static str| Op::Put {
            key: "k".into(),
            value: value.into(),
            content_type: None,
            expiry: None,
            cover: Cover::Nothing,
            options: WriteOptions::default(),
        };
        cluster.run(0, put("a"));
        cluster.run(1, put("b"));
        let get = || Op::Get { key: "k".into(), options: all() };
        assert!(matches!(cluster.run(2, get()), Reply::Read(r) if r.siblings.len() == 2));
        cluster.run(2, MemoryCluster::set("k", "c"));
        assert!(matches!(cluster.run(0, get()), Reply::Read(r) if r.siblings.len() == 1));
    }
}
