//! How protocol servers reach the engine: a request goes in with [`Handle::call`] and its reply comes out of a
//! future; what is fixed or slowly changing (the seal, the members, the engine's own account) can be looked at.
//!
//! Everything here lives on one thread. A request is *submitted* when `call` is called, not when its future is
//! first polled, so a connection can start a whole pipeline in order and await the answers in order.
//!
//! What bounds it: at most [`Bounds::requests`] requests and [`Bounds::bytes`] bytes of keys and values are in
//! flight; past either the answer is [`OpError::Overloaded`], at once, and nothing was done. What reads bring is
//! counted by a [`Budget`]: reads for which it has no room wait their turn, each at most [`Bounds::wait`].

use crate::book::Book;
use crate::budget::{ANSWERS, Budget, Charge, LARGE};
use crate::calls::{Calls, Share, Waits};
use crate::identity::members;
use crate::signal::Signal;
use bytes::Bytes;
use gramme_quorum::{ClusterError, ClusterOp, Engine, Op, OpError, Reply, RequestId};
use gramme_ring::{Layout, Member, Membership, NodeId, Slot};
use gramme_vclock::{GrowableContext as Context, SealError, SealKey, TokenError};
use smol::channel::{Sender, bounded};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// What an answer takes besides its values, roughly.
const OVERHEAD: usize = 256;

const LARGE_LANE: usize = 0;
const SMALL_LANE: usize = 1;

/// What a caller of [`Handle::call`] waits for besides the clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Requests in flight.
    pub(crate) requests: usize,
    /// Bytes of keys and values of requests in flight.
    pub(crate) bytes: usize,
    /// Bytes of answers that wait to be sent, or are being fetched.
    pub(crate) answers: usize,
    /// How long a read may wait for room among those, before it is answered that there was none.
    pub(crate) wait: Duration,
    /// How long a client may take nothing of its answers while others wait for the room that they take.
    pub(crate) patience: Duration,
}

impl Bounds {
    /// The default where values have this limit: at least four answers of the largest fit.
    pub(crate) fn for_values(value_limit: usize) -> Bounds {
        Bounds { answers: ANSWERS.max(4 * largest(value_limit)), ..Bounds::default() }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            requests: 16_384,
            bytes: 256 << 20,
            answers: ANSWERS,
            wait: Duration::from_secs(30),
            patience: Duration::from_secs(3),
        }
    }
}

/// A member of the cluster with the addresses at which it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberInfo {
    /// Who it is.
    pub(crate) id: NodeId,
    /// Its share of the data relative to others'.
    pub(crate) weight: u32,
    /// Where it stands; empty if nobody said.
    pub(crate) zone: String,
    /// Where it serves what.
    pub(crate) addresses: Addresses,
}

/// Which commit stands, as one node knows it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Committed {
    /// The version of the layout that it made, which follows that of the one before, and the layout's hash; 0 if nothing is committed.
    version: u64,
    hash: String,
    /// The commit's own, which tells it from any other: those that change settings alone, say, on one parent make equal layouts.
    commit: String,
}

impl Committed {
    pub(crate) fn of(ring: &Membership) -> Committed {
        Committed {
            version: ring.layout().map_or(0, |layout| layout.version().0),
            hash: format!("{:016x}", ring.layout().map_or(0, Layout::hash)),
            commit: format!("{:016x}", ring.commit_hash().unwrap_or(0)),
        }
    }
}

/// `host:port` of each of a member's servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Addresses {
    /// For other members.
    pub(crate) peer: String,
    /// For Redis clients.
    pub(crate) redis: String,
    /// For Redis clients in cluster mode.
    pub(crate) cluster_redis: String,
    /// For HTTP clients.
    pub(crate) http: String,
}

/// Lets a handle look at the engine, whatever store it is hosted with.
pub(crate) trait Inspect {
    /// Calls `look` once.
    fn inspect(&self, look: &mut dyn FnMut(&Engine));

    /// Bytes of this node's copy of a key, if it has one.
    fn size_of(&self, key: &[u8]) -> Option<usize>;

    /// Records that this node has in a slot, those of deleted keys included.
    fn records_in(&self, slot: Slot) -> u64;

    /// Keys kept here of which nothing but tombstones is left.
    fn tombstones(&self) -> u64;

    /// Bytes of all that is kept here.
    fn stored_bytes(&self) -> u64;

    /// The disk has no room for another segment.
    fn disk_full(&self) -> bool;
}

/// What a handle is made of besides its queue.
pub(crate) struct Parts {
    /// This node.
    pub(crate) node: NodeId,
    /// This cluster.
    pub(crate) cluster: u64,
    /// The key with which the cluster's contexts are sealed.
    pub(crate) seal: SealKey,
    /// Where each node serves.
    pub(crate) book: Rc<Book>,
    /// The engine.
    pub(crate) engine: Rc<dyn Inspect>,
    /// The bounds.
    pub(crate) bounds: Bounds,
    /// Bytes of the longest value.
    pub(crate) value_limit: usize,
}

/// A cheap, cloneable way to the engine.
#[derive(Clone)]
pub(crate) struct Handle(Rc<Shared>);

struct Shared {
    node: NodeId,
    cluster: u64,
    seal: SealKey,
    book: Rc<Book>,
    engine: Rc<dyn Inspect>,
    bounds: Bounds,
    value_limit: usize,
    calls: RefCell<Calls>,
    submitted: RefCell<VecDeque<(RequestId, Op)>>,
    /// Operators' changes, and who waits for them.
    changes: RefCell<VecDeque<(RequestId, ClusterOp)>>,
    changing: RefCell<BTreeMap<RequestId, Sender<Result<Committed, ClusterError>>>>,
    next_change: Cell<u64>,
    /// Reads that wait for room, large ones and others, each in the order in which they came.
    lanes: RefCell<[VecDeque<Waiting>; 2]>,
    /// Large reads that need not wait.
    large: RefCell<VecDeque<(RequestId, Op)>>,
    budget: Rc<Budget>,
    /// What reads of keys without a copy here brought lately.
    elsewhere: Cell<usize>,
    bytes: Cell<usize>,
    forwarded: Cell<u64>,
    /// Others have removed this node.
    removed: Cell<bool>,
    /// Reads of the disk that the page cache could not answer.
    disk_reads: Cell<u64>,
    wake: Signal,
}

/// A read that waits for room.
struct Waiting {
    id: RequestId,
    op: Op,
    share: Share,
    until: Instant,
}

impl Handle {
    pub(crate) fn new(parts: Parts, wake: Signal) -> Handle {
        Handle(Rc::new(Shared {
            node: parts.node,
            cluster: parts.cluster,
            seal: parts.seal,
            book: parts.book,
            engine: parts.engine,
            bounds: parts.bounds,
            value_limit: parts.value_limit,
            calls: RefCell::default(),
            submitted: RefCell::default(),
            changes: RefCell::default(),
            changing: RefCell::default(),
            next_change: Cell::new(0),
            lanes: RefCell::default(),
            large: RefCell::default(),
            budget: Budget::new(parts.bounds.answers, wake.clone()),
            elsewhere: Cell::new(largest(parts.value_limit)),
            bytes: Cell::new(0),
            forwarded: Cell::new(0),
            removed: Cell::new(false),
            disk_reads: Cell::new(0),
            wake,
        }))
    }

    /// Submits a request, now. Dropping the future abandons the answer, not the request.
    pub(crate) fn call(&self, op: Op) -> Call {
        self.call_in(op, &Waits::default())
    }

    /// The same; a read for which there is no room waits for it, and is one of `waits` meanwhile. Writes, and small
    /// reads behind large ones, pass it.
    pub(crate) fn call_in(&self, op: Op, waits: &Waits) -> Call {
        let size = size_of_op(&op);
        let bytes = self.0.bytes.get().saturating_add(size);
        let mut calls = self.0.calls.borrow_mut();
        if self.is_removed() {
            let why = OpError::Misuse("this node was removed from the cluster, for good".to_owned());
            return Call { shared: Rc::clone(&self.0), state: CallState::Refused(why) };
        }
        if calls.in_flight >= self.0.bounds.requests || bytes > self.0.bounds.bytes {
            return Call { shared: Rc::clone(&self.0), state: CallState::Refused(OpError::Overloaded) };
        }
        self.0.bytes.set(bytes);
        let id = calls.open(size);
        drop(calls);
        self.0.wake.raise();
        if let Op::Get { key, .. } = &op {
            let share = self.estimate(key);
            let mut lanes = self.0.lanes.borrow_mut();
            let lane = &mut lanes[if share.bytes > LARGE { LARGE_LANE } else { SMALL_LANE }];
            if !lane.is_empty() || !self.0.budget.admits(share.bytes) {
                let until = Instant::now() + self.0.bounds.wait;
                lane.push_back(Waiting { id, op, share, until });
                self.0.calls.borrow_mut().cell(id).1.waits = Some(waits.enter());
                self.0.budget.set_waiting(lanes.iter().map(VecDeque::len).sum());
                return Call { shared: Rc::clone(&self.0), state: CallState::Open(id) };
            }
            self.begin(id, share);
            if share.known && share.bytes > LARGE {
                self.0.large.borrow_mut().push_back((id, op));
                return Call { shared: Rc::clone(&self.0), state: CallState::Open(id) };
            }
        }
        self.0.submitted.borrow_mut().push_back((id, op));
        Call { shared: Rc::clone(&self.0), state: CallState::Open(id) }
    }

    /// Makes an operator's change of the cluster. Answers which commit stood when it was made: its own, if it was one. Whoever looks later
    /// may see another that has displaced it.
    pub(crate) async fn change(&self, op: ClusterOp) -> Result<Committed, ClusterError> {
        let id = RequestId(self.0.next_change.get());
        self.0.next_change.set(id.0 + 1);
        let (sender, answer) = bounded(1);
        self.0.changing.borrow_mut().insert(id, sender);
        self.0.changes.borrow_mut().push_back((id, op));
        self.0.wake.raise();
        // Without an answer the node is stopping.
        answer.recv().await.unwrap_or(Err(ClusterError::NotSaved))
    }

    /// The next change for the engine: the driver's side.
    pub(crate) fn next_change(&self) -> Option<(RequestId, ClusterOp)> {
        self.0.changes.borrow_mut().pop_front()
    }

    /// What came of a change, just now: the driver's side.
    pub(crate) fn cluster_answered(&self, id: RequestId, done: Result<(), ClusterError>, now: &Membership) {
        let done = done.map(|()| Committed::of(now));
        if let Some(sender) = self.0.changing.borrow_mut().remove(&id) {
            // Whoever asked may be gone.
            let _ = sender.try_send(done);
        }
    }

    /// Requests submitted and not yet answered.
    pub(crate) fn in_flight(&self) -> usize {
        self.0.calls.borrow().in_flight
    }

    /// The printable, sealed form of a context of `key`; an error if it is longer than a token may be.
    pub(crate) fn seal(&self, key: &[u8], context: &Context) -> Result<String, SealError> {
        context.to_token(&self.0.seal, self.0.cluster, key)
    }

    /// Opens what [`seal`](Self::seal) made, for the same key, by any node of this cluster.
    pub(crate) fn open(&self, key: &[u8], token: &[u8]) -> Result<Context, TokenError> {
        Context::open(token, &self.0.seal, self.0.cluster, key)
    }

    /// This node.
    pub(crate) fn node(&self) -> NodeId {
        self.0.node
    }

    /// Bytes of the longest value.
    pub(crate) fn value_limit(&self) -> usize {
        self.0.value_limit
    }

    /// This cluster.
    pub(crate) fn cluster(&self) -> u64 {
        self.0.cluster
    }

    /// All members with their addresses as last heard, by id.
    pub(crate) fn members(&self) -> Vec<MemberInfo> {
        let members = self.engine(|engine| members(engine.membership()));
        let info = |member: Member| MemberInfo {
            id: member.id,
            weight: member.weight,
            zone: member.zone.as_str().to_owned(),
            addresses: self.addresses(member.id).unwrap_or_default(),
        };
        members.into_iter().map(info).collect()
    }

    /// Where a node serves, as last heard.
    pub(crate) fn addresses(&self, node: NodeId) -> Option<Addresses> {
        self.0.book.addresses(node)
    }

    /// Looks at the engine: its layout, its peers, its counters. `look` must not call back into this handle's
    /// `engine`.
    pub(crate) fn engine<T>(&self, look: impl FnOnce(&Engine) -> T) -> T {
        let mut look = Some(look);
        let mut seen = None;
        self.0.engine.inspect(&mut |engine| {
            if let Some(look) = look.take() {
                seen = Some(look(engine));
            }
        });
        seen.expect("inspect calls its argument")
    }

    /// Records that this node has in a slot, those of deleted keys included.
    pub(crate) fn records_in(&self, slot: Slot) -> u64 {
        self.0.engine.records_in(slot)
    }

    /// Reads that have waited, or wait, for the disk.
    pub(crate) fn disk_reads(&self) -> u64 {
        self.0.disk_reads.get()
    }

    pub(crate) fn count_disk_read(&self) {
        self.0.disk_reads.set(self.0.disk_reads.get() + 1);
    }

    /// A peer says that this node was removed: what it acknowledged from now on nobody would ever get.
    pub(crate) fn note_removed(&self) {
        self.0.removed.set(true);
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.0.removed.get()
    }

    /// Times that a request was handed to another node to coordinate, since the start.
    pub(crate) fn forwarded(&self) -> u64 {
        self.0.forwarded.get()
    }

    /// A request was handed to another node: the driver's side.
    pub(crate) fn count_forward(&self) {
        self.0.forwarded.set(self.0.forwarded.get() + 1);
    }

    /// Keys kept here of which nothing but tombstones is left.
    pub(crate) fn tombstones(&self) -> u64 {
        self.0.engine.tombstones()
    }

    /// Bytes of all that is kept here.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.0.engine.stored_bytes()
    }

    /// The disk has no room for another segment.
    pub(crate) fn disk_full(&self) -> bool {
        self.0.engine.disk_full()
    }

    /// A node told us where it serves now. Says whether that was news.
    pub(crate) fn learn_addresses(&self, id: NodeId, addresses: &Addresses) -> bool {
        self.0.book.learn(id, addresses)
    }

    /// The account of what answers take.
    pub(crate) fn budget(&self) -> &Rc<Budget> {
        &self.0.budget
    }

    /// How long a client may take nothing of its answers while others wait.
    pub(crate) fn patience(&self) -> Duration {
        self.0.bounds.patience
    }

    /// The next request for the engine, but for large reads: the driver's side.
    pub(crate) fn next_submitted(&self) -> Option<(RequestId, Op)> {
        self.next_waiting(SMALL_LANE).or_else(|| self.0.submitted.borrow_mut().pop_front())
    }

    /// The next large read. Each keeps the engine busy for long, so that others should have their turn between two.
    pub(crate) fn next_large(&self) -> Option<(RequestId, Op)> {
        self.0.large.borrow_mut().pop_front().or_else(|| self.next_waiting(LARGE_LANE))
    }

    /// The next read that has waited for room and has it.
    fn next_waiting(&self, lane: usize) -> Option<(RequestId, Op)> {
        loop {
            let mut lanes = self.0.lanes.borrow_mut();
            let first = lanes[lane].front()?;
            // Nobody waits for it, or nobody does any longer.
            let over = self.0.calls.borrow_mut().is_abandoned(first.id) || first.until <= Instant::now();
            if !over && !self.0.budget.admits(first.share.bytes) {
                return None;
            }
            let Waiting { id, op, share, .. } = lanes[lane].pop_front().expect("there is a first");
            self.0.budget.set_waiting(lanes.iter().map(VecDeque::len).sum());
            drop(lanes);
            if !over {
                self.begin(id, share);
                return Some((id, op));
            }
            self.answer(id, Reply::Failed(OpError::Overloaded));
        }
    }

    /// When to ask for the next request at the latest: the driver's side.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.lanes.borrow().iter().filter_map(|lane| lane.front()).map(|first| first.until).min()
    }

    /// What a read will bring, at most if possible.
    fn estimate(&self, key: &Bytes) -> Share {
        let most = largest(self.0.value_limit);
        // With large reads still waiting, room that has just come back is theirs: it tells nothing of what may pass them.
        if self.0.budget.is_plentiful(most) && self.0.lanes.borrow()[LARGE_LANE].is_empty() {
            return Share { bytes: most, ..Share::default() };
        }
        match self.0.engine.size_of(key) {
            Some(bytes) => Share { bytes: bytes + OVERHEAD, known: true, ..Share::default() },
            None => Share { bytes: self.0.elsewhere.get(), guessed: true, ..Share::default() },
        }
    }

    fn begin(&self, id: RequestId, share: Share) {
        self.0.budget.change(0, share.bytes);
        let mut calls = self.0.calls.borrow_mut();
        let cell = calls.cell(id).1;
        cell.share = share;
        cell.waits = None;
    }

    /// Counts an answer in place of its estimate. Whether there is room for it; there is unless it was guessed.
    fn weigh(&self, id: RequestId, reply: &Reply) -> bool {
        let mut calls = self.0.calls.borrow_mut();
        let share = &mut calls.cell(id).1.share;
        let bytes = match reply {
            Reply::Read(_) => OVERHEAD + weight(reply),
            _ => 0,
        };
        if share.guessed {
            // Large ones count at once and are forgotten slowly.
            let before = self.0.elsewhere.get();
            self.0.elsewhere.set(bytes.max(before - before.div_ceil(16)));
        }
        let before = share.bytes;
        let fits = bytes <= before || before == self.0.budget.used() || self.0.budget.fits(bytes - before);
        share.bytes = if fits { bytes } else { 0 };
        let after = share.bytes;
        drop(calls);
        self.0.budget.change(before, after);
        fits
    }

    /// Delivers a reply: the driver's side.
    ///
    /// # Panics
    /// If `id` names no open request: the engine answers each exactly once.
    pub(crate) fn answer(&self, id: RequestId, reply: Reply) {
        let fits = self.weigh(id, &reply);
        let reply = if fits { reply } else { Reply::Failed(OpError::Overloaded) };
        let (size, waker, unread) = self.0.calls.borrow_mut().answer(id, reply);
        self.0.bytes.set(self.0.bytes.get() - size);
        self.0.budget.change(unread, 0);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The answer to one request, once it is there, and what it takes until it is sent.
pub(crate) struct Call {
    shared: Rc<Shared>,
    state: CallState,
}

enum CallState {
    Open(RequestId),
    Refused(OpError),
    Done,
}

impl Future for Call {
    type Output = (Reply, Charge);

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<(Reply, Charge)> {
        let (reply, bytes) = match &self.state {
            CallState::Open(id) => match self.shared.calls.borrow_mut().poll(*id, cx.waker()) {
                Some(answered) => answered,
                None => return Poll::Pending,
            },
            CallState::Refused(why) => (Reply::Failed(why.clone()), 0),
            CallState::Done => panic!("a call was polled after its answer"),
        };
        self.state = CallState::Done;
        Poll::Ready((reply, Charge::counted(&self.shared.budget, bytes)))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let CallState::Open(id) = self.state {
            // The reply may be large; it is dropped after the table is let go.
            let unread = self.shared.calls.borrow_mut().abandon(id);
            if let Some((reply, bytes)) = unread {
                drop(reply);
                self.shared.budget.change(bytes, 0);
            }
        }
    }
}

/// Bytes of the largest object that a node takes from a client, its siblings included.
fn largest(value_limit: usize) -> usize {
    value_limit + value_limit / 4 + OVERHEAD
}

/// Bytes of values in a reply.
pub(crate) fn weight(reply: &Reply) -> usize {
    match reply {
        Reply::Read(reading) => reading.siblings.iter().map(|found| found.value.len()).sum(),
        _ => 0,
    }
}

fn size_of_op(op: &Op) -> usize {
    match op {
        Op::Put { key, value, .. } => key.len() + value.len(),
        other => other.key().len(),
    }
}
