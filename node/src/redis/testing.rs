//! One node for tests: a real engine over a map in memory, pumped in this process, perhaps out of order. It is a cluster
//! of its own, or has peers that refuse what is forwarded to them and are silent otherwise.

use super::Mode;
use crate::book::Book;
use crate::clock::wall_ms;
use crate::handle::{Addresses, Bounds, Handle, Inspect, Parts};
use crate::identity::Membership;
use crate::signal::Signal;
use crate::spawn::Spawner;
use crate::stop::{StopSource, stop};
use bytes::Bytes;
use gramme_quorum::message::Message;
use gramme_quorum::{
    ClusterOp, Config, Engine, Input, Instant, Loaded, Now, Op, OpError, Output, Place, Reply, RequestId,
};
use gramme_ring::gossip::Gossip;
use gramme_ring::{ClusterId, Member, Membership as Ring, NodeId, Slot};
use gramme_vclock::{Actor, SealKey};
use smol::LocalExecutor;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::{TcpListener, TcpStream};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;

/// The monotonic clock stands still: no request times out because the machine is busy.
fn now() -> Now {
    Now { instant: Instant(0), wall_ms: wall_ms() }
}

struct EngineCell(RefCell<Engine>, RefCell<BTreeMap<(Place, Bytes), Bytes>>);

impl Inspect for EngineCell {
    fn inspect(&self, look: &mut dyn FnMut(&Engine)) {
        look(&self.0.borrow());
    }

    fn size_of(&self, key: &[u8]) -> Option<usize> {
        let place = Place(Slot::of(key).index());
        self.1.borrow().get(&(place, Bytes::copy_from_slice(key))).map(Bytes::len)
    }

    fn records_in(&self, slot: Slot) -> u64 {
        self.1.borrow().keys().filter(|(place, _)| *place == Place(slot.index())).count() as u64
    }

    fn tombstones(&self) -> u64 {
        0
    }

    fn stored_bytes(&self) -> u64 {
        self.1.borrow().values().map(|value| value.len() as u64).sum()
    }

    fn disk_full(&self) -> bool {
        false
    }
}

/// In which order requests reach the engine.
#[derive(Clone, Copy)]
pub(crate) enum Order {
    /// As submitted.
    Fifo,
    /// Any, one at a time, drawn from this seed: as if each met another coordinator.
    Shuffled(u64),
}

struct Node {
    handle: Handle,
    engine: Rc<EngineCell>,
    wake: Signal,
    /// A peer that has made a commit of its own, of which this node hears right after it has made one.
    rival: Option<(NodeId, Gossip)>,
}

/// This node.
pub(crate) const ME: NodeId = NodeId(0x1234);

/// The other members, by their ids, and whether each is up. This node's own copies are enough for a quorum.
pub(crate) type Others<'a> = &'a [(NodeId, bool)];

/// Where a member serves, for clients in cluster mode.
pub(crate) fn cluster_address(node: NodeId) -> String {
    format!("10.0.0.1:{}", node.0)
}

impl Node {
    fn new(bounds: Bounds, others: Others<'_>) -> Node {
        let ids: Vec<NodeId> = [ME].into_iter().chain(others.iter().map(|(id, _)| *id)).collect();
        let members: Vec<Member> = ids.iter().map(|id| Member::new(*id)).collect();
        let founded = Ring::found(ClusterId(99), 3, 16, &members).expect("one member is enough");
        let mut config = Config::new(ME, Actor(7));
        (config.r, config.w) = (1, 1);
        let engine = Engine::new(config, founded.clone(), now());
        let engine = Rc::new(EngineCell(RefCell::new(engine), RefCell::default()));
        let addresses = |id: &NodeId| Addresses {
            peer: "10.0.0.1:1".to_owned(),
            cluster_redis: cluster_address(*id),
            ..Addresses::default()
        };
        let addresses = ids.iter().map(|id| (*id, addresses(id))).collect();
        let known = Membership { node: ME, ring: founded, addresses };
        let inspect: Rc<dyn Inspect> = Rc::<EngineCell>::clone(&engine);
        let wake = Signal::default();
        let parts = Parts {
            node: ME,
            cluster: 99,
            seal: SealKey([5; 16]),
            book: Book::new(None, known),
            engine: inspect,
            bounds,
            value_limit: 16 << 20,
        };
        let handle = Handle::new(parts, wake.clone());
        let mut node = Node { handle, engine, wake, rival: None };
        node.settle();
        for (id, _) in others.iter().filter(|(_, up)| *up) {
            node.engine.0.borrow_mut().handle(now(), Input::Connected(*id));
            node.settle();
        }
        node
    }

    /// Runs the engine for ever.
    async fn pump(mut self, order: Order) {
        let mut waiting: Vec<(RequestId, Op)> = Vec::new();
        let mut random = match order {
            Order::Fifo => 0,
            Order::Shuffled(seed) => seed | 1,
        };
        loop {
            let next = || self.handle.next_submitted().or_else(|| self.handle.next_large());
            waiting.extend(std::iter::from_fn(next));
            while let Some((id, op)) = self.handle.next_change() {
                let commits = matches!(op, ClusterOp::Commit(_));
                self.engine.0.borrow_mut().handle(now(), Input::Cluster(id, op));
                self.settle();
                if let Some((rival, gossip)) = self.rival.as_ref().filter(|_| commits) {
                    let said = Input::Peer(*rival, Message::Gossip(gossip.summary()));
                    self.engine.0.borrow_mut().handle(now(), said);
                    self.settle();
                }
            }
            if waiting.is_empty() {
                let late = async {
                    match self.handle.deadline() {
                        Some(at) => drop(smol::Timer::at(at).await),
                        None => std::future::pending().await,
                    }
                };
                smol::future::or(self.wake.wait(), late).await;
                continue;
            }
            let at = match order {
                Order::Fifo => 0,
                Order::Shuffled(_) => {
                    smol::future::yield_now().await;
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    usize::try_from(random % waiting.len() as u64).expect("an index")
                }
            };
            let (id, op) = waiting.remove(at);
            self.engine.0.borrow_mut().handle(now(), Input::Client(id, op));
            self.settle();
        }
    }

    /// Performs what the engine asks for, and what follows from it.
    fn settle(&mut self) {
        let mut engine = self.engine.0.borrow_mut();
        let mut disk = self.engine.1.borrow_mut();
        let mut inputs: Vec<Input> = Vec::new();
        loop {
            while let Some(output) = engine.poll() {
                match output {
                    Output::Reply(id, reply) => self.handle.answer(id, reply),
                    Output::Append { id, place, key, value, .. } => {
                        match value {
                            Some((bytes, _)) => disk.insert((place, key), bytes),
                            None => disk.remove(&(place, key)),
                        };
                        inputs.push(Input::Synced(id, id.0));
                    }
                    Output::Load { id, place, key } => {
                        let found = disk.get(&(place, key)).cloned();
                        inputs.push(Input::Loaded(id, found.map_or(Loaded::Absent, Loaded::Found)));
                    }
                    Output::Send(to, Message::Forward { call, .. }) => {
                        self.handle.count_forward();
                        let reply = Reply::Failed(OpError::Misuse("forwarded".to_owned()));
                        inputs.push(Input::Peer(to, Message::Forwarded { call, reply }));
                    }
                    Output::Send(to, Message::Gossip(said)) => {
                        let answer =
                            self.rival.as_mut().filter(|(rival, _)| *rival == to).and_then(|(_, gossip)| {
                                gossip.receive(ME, said).expect("it is understood").reply
                            });
                        inputs.extend(answer.map(|said| Input::Peer(to, Message::Gossip(said))));
                    }
                    Output::Confirm(id) => inputs.push(Input::Written(id)),
                    Output::Save(_) => inputs.push(Input::Saved(true)),
                    Output::Cluster(id, done) => {
                        self.handle.cluster_answered(id, done, engine.membership());
                    }
                    _ => {}
                }
            }
            let Some(input) = inputs.pop() else { return };
            engine.handle(now(), input);
        }
    }
}

/// A server of the plain port.
pub(crate) fn plain(
    listener: TcpListener,
    handle: Handle,
    spawn: Spawner,
    stop: crate::stop::Stop,
) -> impl Future<Output = ()> {
    super::serve([(Mode::Plain, listener)], handle, spawn, stop)
}

/// Starts a node and a server made by `serve` on a free port, and runs `test` with the server's address.
pub(crate) fn with_server<F, S, T>(
    bounds: Bounds,
    order: Order,
    serve: F,
    test: impl FnOnce(SocketAddr, StopSource) -> T,
) where
    F: FnOnce(TcpListener, Handle, Spawner, crate::stop::Stop) -> S,
    S: Future<Output = ()> + 'static,
    T: Future<Output = ()>,
{
    with_server_among(&[], bounds, order, serve, test);
}

/// The same for a node with peers.
pub(crate) fn with_server_among<F, S, T>(
    others: Others<'_>,
    bounds: Bounds,
    order: Order,
    serve: F,
    test: impl FnOnce(SocketAddr, StopSource) -> T,
) where
    F: FnOnce(TcpListener, Handle, Spawner, crate::stop::Stop) -> S,
    S: Future<Output = ()> + 'static,
    T: Future<Output = ()>,
{
    with_server_of(Node::new(bounds, others), order, serve, test);
}

/// The same for a node with a peer that has committed this at the same time, of which it hears right after its own commit.
pub(crate) fn with_server_beside<F, S, T>(
    rival: NodeId,
    committed: Ring,
    serve: F,
    test: impl FnOnce(SocketAddr, StopSource) -> T,
) where
    F: FnOnce(TcpListener, Handle, Spawner, crate::stop::Stop) -> S,
    S: Future<Output = ()> + 'static,
    T: Future<Output = ()>,
{
    let mut node = Node::new(Bounds::default(), &[(rival, true)]);
    let mut gossip = Gossip::new(rival, 1, 1).expect("it is in range");
    *gossip.membership_mut() = committed;
    node.rival = Some((rival, gossip));
    with_server_of(node, Order::Fifo, serve, test);
}

fn with_server_of<F, S, T>(node: Node, order: Order, serve: F, test: impl FnOnce(SocketAddr, StopSource) -> T)
where
    F: FnOnce(TcpListener, Handle, Spawner, crate::stop::Stop) -> S,
    S: Future<Output = ()> + 'static,
    T: Future<Output = ()>,
{
    let (executor, handle) = (Rc::new(LocalExecutor::new()), node.handle.clone());
    let (source, stop) = stop();
    smol::block_on(executor.run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        executor.spawn(node.pump(order)).detach();
        let server = executor.spawn(serve(listener, handle, Spawner::new(&executor), stop));
        test(address, source).await;
        // The test dropped or moved the source: the server ends.
        server.await;
    }));
}

/// Sends bytes and reads exactly as many as the expected answer has.
pub(crate) async fn expect(stream: &mut TcpStream, send: &[u8], answer: &[u8]) {
    stream.write_all(send).await.expect("the server listens");
    let mut got = vec![0; answer.len()];
    let mut at = 0;
    while at < got.len() && got[..at] == answer[..at] {
        match stream.read(&mut got[at..]).await.expect("the server answers") {
            0 => break,
            n => at += n,
        }
    }
    assert_eq!(
        got[..at].escape_ascii().to_string(),
        answer.escape_ascii().to_string(),
        "after {}",
        send[..send.len().min(200)].escape_ascii()
    );
}

/// Reads until the server closes.
pub(crate) async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("the server closes in good order");
    rest
}
