//! One connection's commands in flight: started as soon as they are read, answered in the order they came in.
//!
//! What bounds it: the parts (operations on one key) that are outstanding, fewer if the node is busy or short of
//! room for answers, or the values are large; the bytes of answers that wait for earlier ones. Past a bound no
//! further command is taken, so the client's own bytes wait in its socket: pressure instead of an error. All these
//! shape one connection; what all of them may hold together is the [budget](crate::budget)'s to say.

use super::answer::{Answer, Shape};
use super::key_order::{KeyHash, KeyOrder};
use super::many::Many;
use super::write::{Version, Writer};
use crate::budget::Charge;
use crate::calls::Waits;
use crate::handle::{Call, Handle, weight};
use gramme_quorum::{Op, Reply};
use std::collections::VecDeque;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Parts that one connection may have outstanding.
const WINDOW: usize = 256;
/// The same while the node as a whole is busy.
const SMALL_WINDOW: usize = 32;
/// The same until a first answer showed how large values are: each may be of the largest size.
const FIRST_WINDOW: usize = 4;
/// The node is busy when it has this many requests in flight.
const BUSY: usize = 8192;
/// Bytes of values that the outstanding reads of one connection may come to, by the sizes lately seen.
const REPLY_BYTES: usize = 16 << 20;
/// Bytes of answers past which nothing further is taken in until they were sent.
const ANSWER_BYTES: usize = 256 << 10;
/// Commands that wait, whatever they are.
const COMMANDS: usize = 4096;

/// Steps of a command on one key that takes several operations.
pub(super) type Flow = Pin<Box<dyn Future<Output = Answer>>>;

/// What a command comes to once its arguments are understood.
pub(super) enum Job {
    /// One operation.
    Op(Op, Shape),
    /// Several operations on one key, one after another.
    Flow(bytes::Bytes, Flow),
    /// The same operation on many keys.
    Many(Many),
}

pub(super) struct Pipeline {
    handle: Handle,
    hasher: RandomState,
    queue: VecDeque<Entry>,
    /// The number of the entry at the queue's front.
    front: u64,
    keys: KeyOrder<PartId>,
    outstanding: usize,
    /// Reads that wait for room; meanwhile nothing else is asked for.
    waits: Waits,
    /// Bytes of finished answers in the queue.
    waiting_bytes: usize,
    /// Counts those, and what was written and is not yet sent.
    charge: Charge,
    /// What a read weighed lately; `None` before the first.
    typical: Option<usize>,
}

/// A part's entry by number, and its index within a command of many keys.
#[derive(Clone, Copy, Debug)]
struct PartId {
    entry: u64,
    index: usize,
}

enum Entry {
    /// Answered already, behind others that are not.
    Answer(Vec<u8>),
    One {
        part: Part,
        shape: Shape,
        version: Version,
    },
    Flow {
        part: Part,
        version: Version,
    },
    Many {
        many: Box<Many>,
        parts: VecDeque<Part>,
        issued: usize,
        taken: usize,
        /// What was gathered of its answer is counted for this.
        charge: Charge,
        version: Version,
    },
}

struct Part {
    key: KeyHash,
    state: PartState,
}

enum PartState {
    /// Earlier commands on its key come first.
    Waiting(Box<Op>),
    Running(Call),
    WaitingFlow(Flow),
    RunningFlow(Flow),
    Ended,
}

enum End {
    Reply(Reply, Charge),
    Answer(Answer),
}

impl Part {
    fn start(&mut self, handle: &Handle, waits: &Waits) {
        self.state = match std::mem::replace(&mut self.state, PartState::Ended) {
            PartState::Waiting(op) => PartState::Running(handle.call_in(*op, waits)),
            PartState::WaitingFlow(flow) => PartState::RunningFlow(flow),
            _ => unreachable!("a part starts once"),
        };
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let end = match &mut self.state {
            PartState::Waiting(_) | PartState::WaitingFlow(_) => return Poll::Pending,
            PartState::Running(call) => {
                Pin::new(call).poll(cx).map(|(reply, charge)| End::Reply(reply, charge))
            }
            PartState::RunningFlow(flow) => flow.as_mut().poll(cx).map(End::Answer),
            PartState::Ended => unreachable!("an ended part is taken off"),
        };
        if end.is_ready() {
            self.state = PartState::Ended;
        }
        end
    }

    /// Ends a read that nobody wants any more. Says whether it could: what waits for its key has to begin first.
    fn give_up(&mut self) -> bool {
        let running = matches!(self.state, PartState::Running(_));
        if running {
            self.state = PartState::Ended;
        }
        running
    }
}

impl Pipeline {
    pub(super) fn new(handle: Handle, hasher: RandomState) -> Pipeline {
        Pipeline {
            charge: Charge::counted(handle.budget(), 0),
            handle,
            hasher,
            queue: VecDeque::new(),
            front: 0,
            keys: KeyOrder::default(),
            outstanding: 0,
            waits: Waits::default(),
            waiting_bytes: 0,
            typical: None,
        }
    }

    /// Whether nothing is in flight: an answer may be written at once.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether another command may be taken, with `unsent` bytes of answers not yet sent.
    pub(super) fn accepts(&self, unsent: usize) -> bool {
        self.queue.len() < COMMANDS
            && self.waiting_bytes + unsent < ANSWER_BYTES
            && self.outstanding < self.window()
            && self.waits.is_empty()
            && !matches!(self.queue.back(), Some(Entry::Many { many, issued, .. }) if many.wants(*issued))
    }

    /// Counts what the connection holds besides answers that are not yet written: these queued here, and `unsent`.
    pub(super) fn count(&mut self, unsent: usize) {
        self.charge.set(self.waiting_bytes + unsent);
    }

    fn window(&self) -> usize {
        match self.typical {
            None => FIRST_WINDOW,
            Some(typical) => {
                let most = if self.handle.in_flight() < BUSY { WINDOW } else { SMALL_WINDOW };
                (REPLY_BYTES / typical.max(1)).clamp(1, most)
            }
        }
    }

    /// Queues an answer that is known already.
    pub(super) fn answered(&mut self, bytes: Vec<u8>) {
        self.waiting_bytes += bytes.len();
        self.queue.push_back(Entry::Answer(bytes));
    }

    /// Starts a command; its answer will be in the given protocol.
    pub(super) fn start(&mut self, job: Job, version: Version) {
        let id = PartId { entry: self.front + self.queue.len() as u64, index: 0 };
        let entry = match job {
            Job::Op(op, shape) => {
                let (key, write) = (self.hash(op.key()), op.is_write());
                Entry::One { part: self.begin_op(id, key, write, op), shape, version }
            }
            Job::Flow(key, flow) => {
                let key = self.hash(&key);
                self.outstanding += 1;
                let free = self.keys.begin(key, true, id);
                let state = if free { PartState::RunningFlow(flow) } else { PartState::WaitingFlow(flow) };
                Entry::Flow { part: Part { key, state }, version }
            }
            Job::Many(many) => {
                let charge = Charge::counted(self.handle.budget(), 0);
                let (many, parts) = (Box::new(many), VecDeque::new());
                Entry::Many { many, parts, issued: 0, taken: 0, charge, version }
            }
        };
        self.queue.push_back(entry);
        self.issue();
    }

    fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash(self.hasher.hash_one(key))
    }

    fn begin_op(&mut self, id: PartId, key: KeyHash, write: bool, op: Op) -> Part {
        self.outstanding += 1;
        let state = if self.keys.begin(key, write, id) {
            PartState::Running(self.handle.call_in(op, &self.waits))
        } else {
            PartState::Waiting(Box::new(op))
        };
        Part { key, state }
    }

    /// Issues further parts of the last command, as far as the window allows. Only the last can have any left.
    fn issue(&mut self) {
        let window = self.window();
        while self.outstanding < window && self.waits.is_empty() {
            let queued = self.queue.len() as u64;
            let Some(Entry::Many { many, issued, .. }) = self.queue.back_mut() else { return };
            let (entry, index) = (self.front + queued - 1, *issued);
            if !many.wants(index) {
                return;
            }
            *issued += 1;
            let (op, write) = (many.op(index), many.is_write());
            let key = self.hash(op.key());
            let part = self.begin_op(PartId { entry, index }, key, write, op);
            let Some(Entry::Many { parts, .. }) = self.queue.back_mut() else {
                unreachable!("it was the last")
            };
            parts.push_back(part);
        }
    }

    /// Takes finished answers off the front and writes them, until `out` holds enough. Says whether there were any.
    pub(super) fn collect(&mut self, cx: &mut Context<'_>, out: &mut Writer) -> bool {
        let mut progress = false;
        while out.out.len() < ANSWER_BYTES && self.step(cx, out) {
            progress = true;
        }
        progress
    }

    fn step(&mut self, cx: &mut Context<'_>, out: &mut Writer) -> bool {
        let Some(entry) = self.queue.front_mut() else { return false };
        let current = out.version;
        let ended = match entry {
            Entry::Answer(bytes) => {
                out.out.extend_from_slice(bytes);
                self.waiting_bytes -= bytes.len();
                self.pop();
                return true;
            }
            Entry::One { part, shape, version } => {
                let Poll::Ready(End::Reply(reply, _charge)) = part.poll(cx) else { return false };
                let weight = weight(&reply);
                out.version = *version;
                shape.write(&self.handle, reply, out);
                let key = part.key;
                self.pop();
                (key, Some(weight))
            }
            Entry::Flow { part, version } => {
                let Poll::Ready(End::Answer(answer)) = part.poll(cx) else { return false };
                out.version = *version;
                answer.write(out);
                let key = part.key;
                self.pop();
                (key, Some(0))
            }
            Entry::Many { many, parts, taken, charge, version, .. } => {
                let part = parts.front_mut().expect("a command of many keys has parts in flight");
                let key = part.key;
                let weight = if many.is_refused() && part.give_up() {
                    None
                } else {
                    let Poll::Ready(End::Reply(reply, part_charge)) = part.poll(cx) else { return false };
                    let weight = weight(&reply);
                    many.take(*taken, reply);
                    charge.absorb(part_charge);
                    if many.is_refused() {
                        // Nothing of it is kept.
                        charge.set(0);
                    }
                    Some(weight)
                };
                parts.pop_front();
                *taken += 1;
                if parts.is_empty() && !many.wants(*taken) {
                    out.version = *version;
                    many.write(out);
                    self.pop();
                }
                (key, weight)
            }
        };
        out.version = current;
        self.end(ended.0, ended.1);
        true
    }

    fn pop(&mut self) {
        self.queue.pop_front();
        self.front += 1;
    }

    /// A part has ended: its key is free for those that wait, the window for those not yet issued.
    fn end(&mut self, key: KeyHash, weight: Option<usize>) {
        self.outstanding -= 1;
        if let Some(weight) = weight {
            // Large values count at once and are forgotten slowly.
            let before = self.typical.unwrap_or(0);
            self.typical = Some(weight.max(before - before.div_ceil(16)));
        }
        let (queue, front) = (&mut self.queue, self.front);
        let (handle, waits) = (&self.handle, &self.waits);
        self.keys.end(key, |id| {
            let at = usize::try_from(id.entry - front).expect("an index into the queue");
            let part = match &mut queue[at] {
                Entry::One { part, .. } | Entry::Flow { part, .. } => part,
                Entry::Many { parts, taken, .. } => &mut parts[id.index - *taken],
                Entry::Answer(_) => unreachable!("an answer waits for no key"),
            };
            part.start(handle, waits);
        });
        self.issue();
    }
}
