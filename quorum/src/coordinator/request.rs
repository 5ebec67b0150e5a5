//! A request's way in: checked, then coordinated here or forwarded to one of the key's coordinators.

use super::held::Request;
use super::read::heal;
use super::{Origin, Target};
use crate::engine::{Engine, Timer};
use crate::message::{CallId, Message, Refusal};
use crate::object::{self, Content, Object};
use crate::op::{Cover, Expiry, Need, Op, OpError, ReadOptions, Reply, RequestId};
use crate::planted::Bug;
use crate::task::Task;
use crate::time::{Duration, Instant, Now};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use gramme_ring::NodeId;

/// The longest that a client may make a request last.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// A request that another node coordinates.
#[derive(Debug)]
pub(crate) struct Forward {
    pub(crate) request: RequestId,
    op: Op,
    pub(crate) to: NodeId,
    tried: Vec<NodeId>,
    /// One of them could not write, nor can this node.
    unwritable: bool,
    /// What the last of them said that reached too few replicas.
    short: Option<OpError>,
    /// When it went to this one.
    sent: Instant,
    /// When another is asked besides, if it is a read.
    patience: Option<Instant>,
    deadline: Instant,
}

impl Engine {
    /// A client's request: coordinated here, or forwarded.
    pub(crate) fn client(&mut self, now: Now, request: RequestId, op: Op) {
        if let Err(error) = self.check(&op) {
            return self.out.reply(request, Reply::Failed(error));
        }
        self.open += 1;
        let deadline = self.deadline_of(now, &op);
        self.route(now, request, op, deadline);
    }

    /// A peer's request, which it thinks this node should coordinate.
    pub(crate) fn forwarded(&mut self, now: Now, from: NodeId, call: CallId, op: Op, heard: Option<Instant>) {
        if self.is_stale(now, from, heard) {
            return self.out.send(from, Message::Refused { call, why: Refusal::Overloaded });
        }
        let reply = match self.check(&op) {
            // Another coordinator may have room.
            Err(OpError::Overloaded) => Message::Refused { call, why: Refusal::Overloaded },
            Ok(()) if self.has_no_room(&op) => Message::Refused { call, why: Refusal::Overloaded },
            Err(error) => Message::Forwarded { call, reply: Reply::Failed(error) },
            Ok(()) if self.coordinates(&op) => {
                self.open += 1;
                let deadline = self.deadline_of(now, &op);
                return self.coordinate(now, Origin::Peer(from, call), op, deadline);
            }
            // Its disk was full when it started: others may have room.
            Ok(()) if op.is_write() && !self.ready => Message::Refused { call, why: Refusal::Unwritable },
            Ok(()) => Message::Refused { call, why: Refusal::NotCoordinator },
        };
        self.out.send(from, reply);
    }

    fn coordinates(&self, op: &Op) -> bool {
        (self.ready || !op.is_write()) && self.plan(op.key()).target(self.config.node).is_some()
    }

    fn deadline_of(&self, now: Now, op: &Op) -> Instant {
        let timeout = match op {
            Op::Get { options, .. } => options.timeout,
            Op::Put { options, .. } | Op::Delete { options, .. } => options.timeout,
        };
        now.instant + timeout.unwrap_or(self.config.timing.request).min(MAX_TIMEOUT)
    }

    fn route(&mut self, now: Now, request: RequestId, op: Op, deadline: Instant) {
        let plan = self.plan(op.key());
        let full = self.has_no_room(&op);
        let here = plan.target(self.config.node).is_some() && !full;
        let mut others = plan.targets;
        others.retain(|target| target.node != self.config.node);
        // A node that could not store this run's actor (its disk is full) can't mint; others can.
        let first = match here {
            true if op.is_write() && self.ready => self.faster(&others),
            true if !op.is_write() => None,
            _ => self.fastest(&others),
        };
        if here && first.is_none() {
            return self.coordinate(now, Origin::Client(request), op, deadline);
        }
        let Some(to) = first else {
            if full {
                return self.answer(Origin::Client(request), Reply::Failed(OpError::Overloaded));
            }
            let (rules, n) = (self.rules(op.key()), self.replicas());
            let (need, want) = if op.is_write() { (Need::W, rules.w(n)) } else { (Need::R, rules.r(n)) };
            let error = OpError::Quorum { need, have: 0, want };
            return self.answer(Origin::Client(request), Reply::Failed(error));
        };
        let call = self.out.call();
        self.timers.insert((deadline, Timer::Forward(call)));
        // The coordinator's own patience with its replicas comes first.
        let patience = Some(now.instant + self.config.timing.patience * 2);
        let patience = patience.filter(|at| !op.is_write() && *at < deadline);
        if let Some(at) = patience {
            self.timers.insert((at, Timer::ForwardPatience(call)));
        }
        self.send_forward(to, call, op.clone());
        self.open_bytes += op.bytes();
        self.forwards.insert(
            call,
            Forward {
                request,
                op,
                to,
                tried: Vec::from([to]),
                unwritable: false,
                short: None,
                sent: now.instant,
                patience,
                deadline,
            },
        );
    }

    fn send_forward(&mut self, to: NodeId, call: CallId, op: Op) {
        let heard = self.peers.get(&to).and_then(|peer| peer.heard).map(|(_, at)| at);
        self.out.send(to, Message::Forward { call, op, heard });
    }

    /// The one of these that has answered fastest of late (Dynamo, section 5: load is unevenly spread, and reads are mostly
    /// followed by writes of the same key). An owner, if there is one: a fallback may not have what a write is to cover.
    fn fastest(&mut self, targets: &[Target]) -> Option<NodeId> {
        let pace = |node| self.peers.get(&node).map(|peer| peer.paces.total());
        let fastest =
            targets.iter().min_by_key(|target| (target.stands_for.is_some(), pace(target.node)))?.node;
        for target in targets.iter().filter(|target| target.node != fastest) {
            if let Some(peer) = self.peers.get_mut(&target.node) {
                peer.paces.passed_over();
            }
        }
        Some(fastest)
    }

    /// An owner whose copies were read so much faster of late than this node's own that a write is better coordinated there: here
    /// nothing could be sent before this node's copy was read.
    fn faster(&mut self, targets: &[Target]) -> Option<NodeId> {
        let owners =
            targets.iter().filter(|target| target.stands_for.is_none() && !self.is_congested(target.node));
        let paces =
            owners.filter_map(|target| Some((self.peers.get(&target.node)?.paces.copies, target.node)));
        let (pace, node) = paces.min()?;
        let left_behind = self.pace.is_left_behind_by(pace);
        if left_behind {
            self.pace.passed_over();
        }
        left_behind.then_some(node)
    }

    /// A write whose read went before finds that others coordinate the key by now. Nothing was done yet.
    fn reroute(&mut self, now: Now, origin: Origin, op: Op, deadline: Instant) {
        match origin {
            Origin::Client(request) => self.route(now, request, op, deadline),
            Origin::Peer(node, call) => {
                self.open -= 1;
                self.out.send(node, Message::Refused { call, why: Refusal::NotCoordinator });
            }
            Origin::Delete { .. } | Origin::Heal { .. } => unreachable!("only requests are rerouted"),
        }
    }

    fn check(&self, op: &Op) -> Result<(), OpError> {
        let length = op.key().len();
        if length == 0 || length > crate::MAX_KEY {
            return Err(OpError::KeyLength(length as u64));
        }
        match op {
            Op::Put { value, .. } if value.len() > self.config.limits.value => {
                return Err(OpError::ValueTooLarge(self.config.limits.value as u64));
            }
            Op::Put { content_type: Some(name), .. } if name.len() > crate::MAX_CONTENT_TYPE => {
                return Err(OpError::Misuse(String::from("a content type has at most 255 bytes")));
            }
            Op::Delete { cover: Cover::Nothing, .. } => {
                return Err(OpError::Misuse(String::from("a delete needs a context")));
            }
            _ => {}
        }
        let full = self.open_bytes >= self.config.limits.request_bytes
            && !self.config.planted.is(Bug::RequestBytesUnbounded);
        if self.open >= self.config.limits.requests || full {
            return Err(OpError::Overloaded);
        }
        Ok(())
    }

    /// Whether this node's own copies can't be asked for as much as this: others coordinate it.
    fn has_no_room(&self, op: &Op) -> bool {
        if op.is_write() { self.replica.is_behind() } else { self.replica.is_full() }
    }

    fn coordinate(&mut self, now: Now, origin: Origin, op: Op, deadline: Instant) {
        match op {
            Op::Get { key, options } => self.start_read(now, origin, key, &options, deadline),
            Op::Put { key, value, content_type, expiry, cover, options } => {
                let expiry = match expiry {
                    Some(at) => Some(at).filter(|at| *at != Expiry::NEVER),
                    None if self.config.planted.is(Bug::TtlIgnored) => None,
                    None => self.rules(&key).ttl_ms.map(|ms| Expiry(now.wall_ms.saturating_add(ms))),
                };
                let content = Content::Value { bytes: value, content_type };
                let also = None;
                self.start_write(
                    now,
                    Request { origin, key, content, expiry, cover, options, also, deadline, until: None },
                );
            }
            // Whether there is anything to delete is a question to a read quorum, not to one copy.
            Op::Delete { key, cover: Cover::Held, options }
                if !self.config.planted.is(Bug::PlainDeleteUnread) =>
            {
                // If there is nothing to delete, nobody else looks at what the writer asks for.
                if let Err(error) = self.write_needs(&key, &options, self.replicas()) {
                    return self.answer(origin, Reply::Failed(error));
                }
                let origin = Origin::Delete { origin: Box::new(origin), key: key.clone(), options, deadline };
                let read = ReadOptions { pr: options.pw, ..ReadOptions::default() };
                self.start_read(now, origin, key, &read, deadline);
            }
            Op::Delete { key, cover, options } => {
                let content = Content::Tombstone;
                let (expiry, also) = (None, None);
                self.start_write(
                    now,
                    Request { origin, key, content, expiry, cover, options, also, deadline, until: None },
                );
            }
        }
    }

    pub(crate) fn read_succeeded(&mut self, now: Now, origin: Origin, object: Object) {
        match origin {
            Origin::Delete { origin, key, options, deadline } => {
                // Even what is deleted already is deleted again: this tombstone may not have reached a quorum.
                if object.is_empty() {
                    let context = object::reading(&object, now.wall_ms).context;
                    self.answer(*origin, Reply::Written { context, replaced: false });
                } else if self.plan(&key).target(self.config.node).is_none() {
                    let op = Op::Delete { key, cover: Cover::Held, options };
                    self.reroute(now, *origin, op, deadline);
                } else {
                    let request = Request {
                        origin: *origin,
                        key,
                        content: Content::Tombstone,
                        expiry: None,
                        cover: Cover::Held,
                        options,
                        also: Some(object),
                        deadline,
                        until: None,
                    };
                    self.start_write(now, request);
                }
            }
            // Each object was tried as it came.
            Origin::Heal { for_good: false, .. } => {}
            Origin::Heal { key, for_good: true } => {
                let task = if object.is_empty() { Task::ForgetDamaged } else { heal(object) };
                self.replica.start(&mut self.out, &key, task);
            }
            Origin::Client(_) | Origin::Peer(..) => {
                let reading = object::reading(&object, now.wall_ms);
                self.answer(origin, Reply::Read(self.config.planted.show(&object, reading)));
            }
        }
    }

    /// Ends a request, whatever stage it is in. Each is ended once.
    pub(crate) fn answer(&mut self, origin: Origin, reply: Reply) {
        match origin {
            Origin::Client(request) => {
                self.open -= 1;
                self.out.reply(request, reply);
            }
            Origin::Peer(node, call) => {
                self.open -= 1;
                self.out.send(node, Message::Forwarded { call, reply });
            }
            Origin::Delete { origin, .. } => self.answer(*origin, reply),
            // It is found again.
            Origin::Heal { .. } => {}
        }
    }

    /// The coordinator's answer to a forwarded request.
    pub(crate) fn forward_answered(&mut self, now: Now, call: CallId, from: NodeId, reply: Reply) {
        let Some(forward) = self.forwards.get_mut(&call) else { return };
        // The first one's late answer is as good as the second one's.
        let late = matches!(reply, Reply::Read(_)) && forward.tried.contains(&from);
        if forward.to != from && !late {
            return;
        }
        // It may have just started, and be connected with few yet. Nothing was done.
        let short = match &reply {
            Reply::Failed(error @ OpError::Quorum { .. }) => Some(error.clone()),
            _ => None,
        };
        let again = short.is_some() && now.instant < forward.deadline;
        forward.short = short;
        if forward.to == from {
            self.forward_took(now, call);
        }
        if again {
            self.forward_elsewhere(now, call, None);
        } else {
            self.end_forward(call, reply);
        }
    }

    /// The node that was asked has answered, or it has had all this time to.
    fn forward_took(&mut self, now: Now, call: CallId) {
        if let Some(forward) = self.forwards.get(&call)
            && let Some(peer) = self.peers.get_mut(&forward.to)
        {
            peer.paces.requests.saw(now.instant.since(forward.sent));
        }
    }

    fn end_forward(&mut self, call: CallId, reply: Reply) {
        if let Some(forward) = self.remove_forward(call) {
            self.answer(Origin::Client(forward.request), reply);
        }
    }

    fn remove_forward(&mut self, call: CallId) -> Option<Forward> {
        let forward = self.forwards.remove(&call)?;
        self.open_bytes -= forward.op.bytes();
        self.timers.remove(&(forward.deadline, Timer::Forward(call)));
        if let Some(at) = forward.patience {
            self.timers.remove(&(at, Timer::ForwardPatience(call)));
        }
        Some(forward)
    }

    /// A read's coordinator is silent: it hangs, or its answer is lost. Another is asked, once, if there is one.
    pub(crate) fn forward_patience(&mut self, now: Now, call: CallId) {
        self.forward_took(now, call);
        let Some(forward) = self.forwards.get_mut(&call) else { return };
        forward.patience = None;
        let Some(forward) = self.forwards.get(&call) else { return };
        let others = self.plan(forward.op.key()).targets;
        if others.iter().any(|target| !forward.tried.contains(&target.node)) {
            self.forward_elsewhere(now, call, None);
        }
    }

    /// The coordinator refused before it did anything: another one may be asked.
    pub(crate) fn forward_elsewhere(&mut self, now: Now, call: CallId, why: Option<Refusal>) {
        let Some(forward) = self.forwards.get_mut(&call) else { return };
        forward.unwritable |= why == Some(Refusal::Unwritable);
        let Some(forward) = self.forwards.get(&call) else { return };
        let mut untried = self.plan(forward.op.key()).targets;
        let here = untried.iter().any(|target| target.node == self.config.node);
        if here && (self.ready || !forward.op.is_write()) && !self.has_no_room(&forward.op) {
            // It went to another since that is faster, not since it must.
            return self.coordinate_after_all(now, call);
        }
        untried.retain(|target| !forward.tried.contains(&target.node) && target.node != self.config.node);
        let error = match &forward.short {
            Some(short) => short.clone(),
            None if forward.unwritable => OpError::Unwritable,
            None => OpError::Overloaded,
        };
        let Some(node) = self.fastest(&untried) else {
            return self.end_forward(call, Reply::Failed(error));
        };
        if let Some(forward) = self.forwards.get_mut(&call) {
            forward.to = node;
            forward.sent = now.instant;
            forward.tried.push(node);
            let op = forward.op.clone();
            self.send_forward(node, call, op);
        }
    }

    fn coordinate_after_all(&mut self, now: Now, call: CallId) {
        if let Some(Forward { request, op, deadline, .. }) = self.remove_forward(call) {
            self.coordinate(now, Origin::Client(request), op, deadline);
        }
    }

    /// A forwarded request whose coordinator is lost or late: a read may be asked again, a write may have
    /// happened.
    pub(crate) fn forward_lost(&mut self, now: Now, call: CallId, expired: bool) {
        if expired {
            self.forward_took(now, call);
        }
        let Some(forward) = self.forwards.get(&call) else { return };
        let (rules, n) = (self.rules(forward.op.key()), self.replicas());
        let error = if forward.op.is_write() {
            OpError::Indeterminate { need: Need::W, have: 0, want: rules.w(n) }
        } else if expired {
            OpError::Quorum { need: Need::R, have: 0, want: rules.r(n) }
        } else {
            return self.forward_elsewhere(now, call, None);
        };
        self.end_forward(call, Reply::Failed(error));
    }
}
