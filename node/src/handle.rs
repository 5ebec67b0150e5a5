//! How protocol servers reach the engine: a request goes in with [`Handle::call`] and its reply comes out of a
//! future; what is fixed or slowly changing (the seal, the members, the engine's own account) can be looked at.
//!
//! Everything here lives on one thread. A request is *submitted* when `call` is called, not when its future is
//! first polled, so a connection can start a whole pipeline in order and await the answers in order.
//!
//! What bounds it: at most [`Bounds::requests`] requests and [`Bounds::bytes`] bytes of keys and values are in
//! flight; past either the answer is [`OpError::Overloaded`], at once, and nothing was done.

use crate::signal::Signal;
use gramme_quorum::{Engine, Op, OpError, Reply, RequestId};
use gramme_ring::NodeId;
use gramme_vclock::{GrowableContext as Context, SealError, SealKey, TokenError};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// What a caller of [`Handle::call`] waits for besides the clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Requests in flight.
    pub(crate) requests: usize,
    /// Bytes of keys and values of requests in flight.
    pub(crate) bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { requests: 16_384, bytes: 256 << 20 }
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

/// `host:port` of each of a member's servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Addresses {
    /// For other members.
    pub(crate) peer: String,
    /// For Redis clients.
    pub(crate) redis: String,
    /// For HTTP clients.
    pub(crate) http: String,
}

/// Lets a handle look at the engine, whatever store it is hosted with.
pub(crate) trait Inspect {
    /// Calls `look` once.
    fn inspect(&self, look: &mut dyn FnMut(&Engine));
}

/// What a handle is made of besides its queue.
pub(crate) struct Parts {
    /// This node.
    pub(crate) node: NodeId,
    /// This cluster.
    pub(crate) cluster: u64,
    /// The key with which the cluster's contexts are sealed.
    pub(crate) seal: SealKey,
    /// All members, this node included.
    pub(crate) members: Vec<MemberInfo>,
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
    members: RefCell<Rc<[MemberInfo]>>,
    engine: Rc<dyn Inspect>,
    bounds: Bounds,
    value_limit: usize,
    calls: RefCell<Calls>,
    submitted: RefCell<VecDeque<(RequestId, Op)>>,
    bytes: Cell<usize>,
    wake: Signal,
}

impl Handle {
    pub(crate) fn new(parts: Parts, wake: Signal) -> Handle {
        Handle(Rc::new(Shared {
            node: parts.node,
            cluster: parts.cluster,
            seal: parts.seal,
            members: RefCell::new(parts.members.into()),
            engine: parts.engine,
            bounds: parts.bounds,
            value_limit: parts.value_limit,
            calls: RefCell::default(),
            submitted: RefCell::default(),
            bytes: Cell::new(0),
            wake,
        }))
    }

    /// Submits a request, now. Dropping the future abandons the answer, not the request.
    pub(crate) fn call(&self, op: Op) -> Call {
        let size = size_of_op(&op);
        let bytes = self.0.bytes.get().saturating_add(size);
        let mut calls = self.0.calls.borrow_mut();
        if calls.in_flight >= self.0.bounds.requests || bytes > self.0.bounds.bytes {
            return Call(CallState::Refused);
        }
        self.0.bytes.set(bytes);
        let id = calls.open(size);
        self.0.submitted.borrow_mut().push_back((id, op));
        self.0.wake.raise();
        Call(CallState::Open { shared: Rc::clone(&self.0), id })
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
    pub(crate) fn members(&self) -> Rc<[MemberInfo]> {
        Rc::clone(&self.0.members.borrow())
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

    /// A member told us where it serves now. Says whether that was news.
    pub(crate) fn learn_addresses(&self, id: NodeId, addresses: &Addresses) -> bool {
        let mut members = self.0.members.borrow_mut();
        let stale = members.iter().position(|m| m.id == id && m.addresses != *addresses);
        if let Some(at) = stale {
            let mut changed = members.to_vec();
            changed[at].addresses = addresses.clone();
            *members = changed.into();
        }
        stale.is_some()
    }

    /// The next submitted request: the driver's side.
    pub(crate) fn next_submitted(&self) -> Option<(RequestId, Op)> {
        self.0.submitted.borrow_mut().pop_front()
    }

    /// Delivers a reply: the driver's side.
    ///
    /// # Panics
    /// If `id` names no open request: the engine answers each exactly once.
    pub(crate) fn answer(&self, id: RequestId, reply: Reply) {
        let (size, waker) = self.0.calls.borrow_mut().answer(id, reply);
        self.0.bytes.set(self.0.bytes.get() - size);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The answer to one request, once it is there.
pub(crate) struct Call(CallState);

enum CallState {
    Open { shared: Rc<Shared>, id: RequestId },
    Refused,
    Done,
}

impl Future for Call {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Reply> {
        let reply = match &self.0 {
            CallState::Open { shared, id } => match shared.calls.borrow_mut().poll(*id, cx.waker()) {
                Some(reply) => reply,
                None => return Poll::Pending,
            },
            CallState::Refused => Reply::Failed(OpError::Overloaded),
            CallState::Done => panic!("a call was polled after its answer"),
        };
        self.0 = CallState::Done;
        Poll::Ready(reply)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let CallState::Open { shared, id } = &self.0 {
            // The reply may be large; it is dropped after the table is let go.
            let unread = shared.calls.borrow_mut().abandon(*id);
            drop(unread);
        }
    }
}

/// Open requests: a slab whose cells carry a generation, so that an id is never mistaken for a later one.
#[derive(Default)]
struct Calls {
    cells: Vec<CallCell>,
    free: Vec<u32>,
    in_flight: usize,
}

struct CallCell {
    generation: u32,
    size: usize,
    state: State,
}

enum State {
    Vacant,
    Waiting(Option<Waker>),
    Answered(Reply),
    /// Nobody waits any more; the cell is freed by the answer.
    Abandoned,
}

impl Calls {
    fn open(&mut self, size: usize) -> RequestId {
        self.in_flight += 1;
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.cells.len()).expect("fewer calls than 2^32");
                self.cells.push(CallCell { generation: 0, size: 0, state: State::Vacant });
                index
            }
        };
        let cell = &mut self.cells[index as usize];
        cell.size = size;
        cell.state = State::Waiting(None);
        RequestId(u64::from(cell.generation) << 32 | u64::from(index))
    }

    #[allow(clippy::cast_possible_truncation)] // the two halves of an id
    fn cell(&mut self, id: RequestId) -> (u32, &mut CallCell) {
        let (generation, index) = ((id.0 >> 32) as u32, id.0 as u32);
        let cell = &mut self.cells[index as usize];
        assert_eq!(cell.generation, generation, "a request was answered twice");
        (index, cell)
    }

    fn close(&mut self, index: u32) {
        let cell = &mut self.cells[index as usize];
        cell.state = State::Vacant;
        cell.generation = cell.generation.wrapping_add(1);
        self.free.push(index);
    }

    fn answer(&mut self, id: RequestId, reply: Reply) -> (usize, Option<Waker>) {
        let (index, cell) = self.cell(id);
        let size = cell.size;
        let waker = match std::mem::replace(&mut cell.state, State::Answered(reply)) {
            State::Waiting(waker) => waker,
            State::Abandoned => {
                self.close(index);
                None
            }
            State::Vacant | State::Answered(_) => panic!("a request was answered twice"),
        };
        self.in_flight -= 1;
        (size, waker)
    }

    fn poll(&mut self, id: RequestId, waker: &Waker) -> Option<Reply> {
        let (index, cell) = self.cell(id);
        match &mut cell.state {
            State::Waiting(current) => {
                if !current.as_ref().is_some_and(|w| w.will_wake(waker)) {
                    *current = Some(waker.clone());
                }
                None
            }
            State::Answered(_) => {
                let State::Answered(reply) = std::mem::replace(&mut cell.state, State::Vacant) else {
                    unreachable!("matched above")
                };
                self.close(index);
                Some(reply)
            }
            State::Vacant | State::Abandoned => unreachable!("only its call frees a cell"),
        }
    }

    fn abandon(&mut self, id: RequestId) -> Option<Reply> {
        let (index, cell) = self.cell(id);
        match std::mem::replace(&mut cell.state, State::Abandoned) {
            State::Waiting(_) => None,
            State::Answered(reply) => {
                self.close(index);
                Some(reply)
            }
            State::Vacant | State::Abandoned => unreachable!("only its call frees a cell"),
        }
    }
}

fn size_of_op(op: &Op) -> usize {
    match op {
        Op::Put { key, value, .. } => key.len() + value.len(),
        other => other.key().len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(calls: &mut Calls, id: RequestId) -> (usize, Option<Waker>) {
        calls.answer(id, Reply::Failed(OpError::Unwritable))
    }

    #[test]
    fn an_abandoned_call_frees_its_cell_when_it_is_answered() {
        let mut calls = Calls::default();
        let first = calls.open(3);
        assert!(calls.abandon(first).is_none());
        assert_eq!(calls.in_flight, 1);
        assert_eq!(ok(&mut calls, first).0, 3);
        let second = calls.open(5);
        assert_ne!(first, second, "an id is not used again");
        assert_eq!(calls.cells.len(), 1, "but its cell is");
    }

    #[test]
    fn an_answer_waits_for_its_caller() {
        let mut calls = Calls::default();
        let (a, b) = (calls.open(1), calls.open(1));
        ok(&mut calls, b);
        assert!(calls.poll(a, Waker::noop()).is_none());
        assert!(matches!(calls.poll(b, Waker::noop()), Some(Reply::Failed(OpError::Unwritable))));
        assert!(ok(&mut calls, a).1.is_some(), "the caller that polled is woken");
        assert_eq!(calls.in_flight, 0);
    }

    #[test]
    #[should_panic(expected = "answered twice")]
    fn a_second_answer_is_a_defect() {
        let mut calls = Calls::default();
        let id = calls.open(1);
        assert!(calls.abandon(id).is_none());
        ok(&mut calls, id);
        ok(&mut calls, id);
    }
}
