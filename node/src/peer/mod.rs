//! Connections to the other members.
//!
//! Every node dials every other, and each connection carries messages one way only, from the node that dialed. So
//! there are two between a pair, nothing has to be settled when both dial at once, and *connected* means exactly
//! "can be sent to". What arrives goes to the driver through its [mailbox](crate::mail); what is to be sent is
//! appended to the peer's buffer, and one task per peer writes the whole buffer at a time.
//!
//! What is bounded: connections that have not proved themselves ([`UNPROVED`], and how long they may take), bytes
//! that wait for one peer (past one of the largest frames the engine is told that the peer is congested, and sends no more
//! than it has promised; past three the connection is dropped and the messages with it), a frame, and how long a connection may be silent ([`SILENCE`]).

mod accept;
mod dial;
mod frame;
mod handshake;

pub(crate) use handshake::{Local, sound};

use crate::facts::Facts;
use crate::handle::{Addresses, Handle};
use crate::identity::members;
use crate::log::say;
use crate::mail::Mailbox;
use crate::signal::Signal;
use crate::spawn::Spawner;
use crate::stop::Stop;
use accept::Incoming;
use gramme_quorum::{Input, message::Message, wire};
use gramme_ring::NodeId;
use smol::Timer;
use smol::channel::{Receiver, Sender, bounded};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Connections in their handshake; one more ends the oldest of them.
const UNPROVED: usize = 32;

/// A connection on which nothing was heard for so long is closed; peers beat several times a second.
const SILENCE: Duration = Duration::from_secs(10);

/// How long a node that starts waits for those that it dials, before it serves.
const MEETING: Duration = Duration::from_millis(500);

/// A write that makes no progress for so long ends its connection.
const STALL: Duration = Duration::from_secs(10);

/// What the connections are made with.
pub(crate) struct Setting {
    /// What this node says of itself.
    pub(crate) local: Local,
    /// Knows members and their addresses.
    pub(crate) handle: Handle,
    /// Where inputs go.
    pub(crate) mail: Mailbox,
    /// Runs the tasks.
    pub(crate) spawn: Spawner,
    /// When to end.
    pub(crate) stop: Stop,
    /// Bytes of the largest frame.
    pub(crate) max_frame: usize,
}

/// All connections of this node.
#[derive(Clone)]
pub(crate) struct Peers(Rc<Inner>);

struct Inner {
    setting: Setting,
    links: RefCell<BTreeMap<NodeId, Rc<Link>>>,
    incoming: RefCell<BTreeMap<NodeId, Incoming>>,
    unproved: RefCell<VecDeque<(u64, Signal)>>,
    accepted: Cell<u64>,
    complained: Cell<Option<Instant>>,
    /// Peers that became congested, until the engine is told.
    congested: RefCell<Vec<NodeId>>,
    /// Dropped when this node has met whom it can.
    settling: RefCell<Option<Sender<()>>>,
    settled: Receiver<()>,
}

/// What goes to one peer.
struct Link {
    peer: NodeId,
    outbox: RefCell<Outbox>,
    /// There is something to write, or the connection is to end.
    flush: Signal,
    /// The peer seems to be there: dial now.
    nudge: Signal,
    /// The connection stands.
    up: Signal,
    /// It stood, or could not be had, at least once.
    dialed: Cell<bool>,
    /// It is no peer any more.
    end: Cell<bool>,
}

#[derive(Default)]
struct Outbox {
    connected: bool,
    overflowed: bool,
    congested: bool,
    buffer: Vec<u8>,
    /// Bytes that the writing task has taken and the system has not.
    writing: usize,
}

impl Peers {
    /// Starts to dial every other member, for as long as it is one and the executor runs.
    pub(crate) fn start(setting: Setting) -> Peers {
        let (settling, settled) = bounded(1);
        let peers = Peers(Rc::new(Inner {
            setting,
            links: RefCell::default(),
            incoming: RefCell::default(),
            unproved: RefCell::default(),
            accepted: Cell::new(0),
            complained: Cell::new(None),
            congested: RefCell::default(),
            settling: RefCell::new(Some(settling)),
            settled,
        }));
        peers.follow();
        peers.settle_if_met();
        let late = peers.clone();
        let meeting = async move {
            Timer::after(MEETING).await;
            late.0.settling.take();
        };
        peers.0.setting.spawn.spawn(meeting).detach();
        peers
    }

    /// Returns once every member known at the start was dialed, or [`MEETING`] has passed. Whoever coordinates requests before that
    /// takes for dead whom it has not met: it refuses what could be done, or lets others stand in for those.
    pub(crate) async fn settled(&self) {
        // Nothing is ever sent; the error is the news.
        let _ = self.0.settled.recv().await;
    }

    /// A peer is connected, or can't be reached.
    fn dialed(&self, link: &Link) {
        link.dialed.set(true);
        self.settle_if_met();
    }

    fn settle_if_met(&self) {
        if self.0.links.borrow().values().all(|link| link.dialed.get()) {
            self.0.settling.take();
        }
    }

    /// Looks for the cluster at these addresses. One's own may be among them: the same list then suits all.
    pub(crate) fn join(&self, seeds: &[String]) {
        for seed in seeds.iter().filter(|seed| **seed != self.0.setting.local.addresses.peer) {
            self.0.setting.spawn.spawn(dial::find(self.clone(), seed.clone())).detach();
        }
    }

    /// Goes by the engine's peers: dials those that are new, and lets go of those that are gone.
    pub(crate) fn follow(&self) {
        let wanted: BTreeSet<NodeId> = self.0.setting.handle.engine(|engine| {
            // Whoever was removed is not even listened to.
            for (id, entry) in self.0.incoming.borrow().iter() {
                if engine.membership().is_removed(*id) {
                    entry.end.raise();
                }
            }
            engine.peers().collect()
        });
        let connected = |id: &NodeId| {
            let incoming = self.0.incoming.borrow();
            incoming.contains_key(id) && !self.0.setting.handle.engine(|e| e.membership().is_removed(*id))
        };
        let gone = |id: &NodeId| !wanted.contains(id) && !connected(id);
        self.0.links.borrow_mut().retain(|id, link| {
            let gone = gone(id);
            if gone {
                link.end.set(true);
                link.nudge.raise();
                link.flush.raise();
            }
            !gone
        });
        for id in wanted {
            self.link(id);
        }
    }

    /// Whether there is a connection to another member, or to the node that was found at a seed's address.
    fn hears(&self, found: Option<NodeId>) -> bool {
        let members = self.0.setting.handle.engine(|engine| members(engine.membership()));
        let links = self.0.links.borrow();
        let mut connected =
            links.values().filter(|link| link.outbox.borrow().connected).map(|link| link.peer);
        connected.any(|id| found == Some(id) || members.iter().any(|m| m.id == id))
    }

    /// The way to a node; one is begun where there is none.
    fn link(&self, id: NodeId) -> Rc<Link> {
        let mut links = self.0.links.borrow_mut();
        let link = links.entry(id).or_insert_with(|| {
            let link = Rc::new(Link::new(id));
            let dialing = dial::keep_connected(self.clone(), Rc::clone(&link));
            self.0.setting.spawn.spawn(dialing).detach();
            link
        });
        Rc::clone(link)
    }

    /// Sends, if there is a connection; otherwise the message is forgotten.
    pub(crate) fn send(&self, to: NodeId, message: &Message) {
        let Some(link) = self.0.links.borrow().get(&to).cloned() else { return };
        let mut outbox = link.outbox.borrow_mut();
        if !outbox.connected {
            return;
        }
        let idle = outbox.buffer.is_empty();
        if !frame::append(&mut outbox.buffer, self.0.setting.max_frame, |out| wire::encode(message, out)) {
            // Coordinators refuse objects long before that.
            say!("a message to node {to} is larger than a frame may be; it was not sent");
            return;
        }
        let waiting = outbox.buffer.len() + outbox.writing;
        if waiting > self.0.setting.max_frame && !outbox.congested {
            outbox.congested = true;
            self.0.congested.borrow_mut().push(to);
        }
        if waiting > 3 * self.0.setting.max_frame {
            outbox.connected = false;
            outbox.overflowed = true;
            outbox.buffer = Vec::new();
        }
        if idle || outbox.overflowed {
            link.flush.raise();
        }
    }

    /// A peer that has become congested, and of which the engine does not know yet.
    pub(crate) fn next_congested(&self) -> Option<NodeId> {
        self.0.congested.borrow_mut().pop()
    }

    /// The system has taken bytes: is there room again?
    fn relieve(&self, link: &Link, writing: usize) {
        let mut outbox = link.outbox.borrow_mut();
        outbox.writing = writing;
        if outbox.congested && outbox.buffer.len() + writing < self.0.setting.max_frame / 4 {
            outbox.congested = false;
            self.0.setting.mail.deliver(Input::Congested(link.peer, false), 0);
        }
    }

    /// Whether everything was handed to the system, or has nowhere to go.
    pub(crate) fn flushed(&self) -> bool {
        let empty = |outbox: &Outbox| outbox.buffer.is_empty() && outbox.writing == 0;
        self.0.links.borrow().values().all(|link| empty(&link.outbox.borrow()))
    }

    /// How many of the other members can be sent to, and how many there are.
    pub(crate) fn connected(&self) -> (usize, usize) {
        let me = self.0.setting.local.node;
        let others = self.0.setting.handle.engine(|engine| {
            let ring = engine.membership();
            let others = members(ring).into_iter().map(|member| member.id);
            others.filter(|id| *id != me && !ring.is_removed(*id)).collect::<Vec<_>>()
        });
        let links = self.0.links.borrow();
        let connected = |id: &&NodeId| links.get(id).is_some_and(|link| link.outbox.borrow().connected);
        (others.iter().filter(connected).count(), others.len())
    }

    /// A node says where it serves, by gossip.
    pub(crate) fn known(&self, node: NodeId, facts: &[u8]) {
        if let Some(facts) = Facts::from_bytes(facts) {
            self.learn(node, &facts.addresses);
        }
    }

    fn learn(&self, node: NodeId, addresses: &Addresses) {
        if self.0.setting.handle.learn_addresses(node, addresses) {
            say!(
                "node {node} now serves peers at {}, redis at {}, its cluster mode at {}, http at {}",
                addresses.peer,
                addresses.redis,
                addresses.cluster_redis,
                addresses.http
            );
        }
    }
}

impl Link {
    fn new(peer: NodeId) -> Link {
        Link {
            peer,
            outbox: RefCell::default(),
            flush: Signal::default(),
            nudge: Signal::default(),
            up: Signal::default(),
            dialed: Cell::new(false),
            end: Cell::new(false),
        }
    }
}
