//! Reads: one full copy, digests from the others, the merge of what differs, and repair afterwards.

use super::needs::out_of_reach;
use super::{Origin, Plan};
use crate::engine::{Engine, Timer};
use crate::message::{CallId, Copy, Message, Purpose, Syncing, Want};
use crate::object::{self, Object};
use crate::op::{Level, Need, OpError, ReadOptions, Reply};
use crate::planted::Bug;
use crate::replica::{Held, Merge, Reader, Source, Task};
use crate::tally::Shortfall;
use crate::time::{Duration, Instant, Now};
use alloc::vec::Vec;
use bytes::Bytes;
use gramme_ring::{Layout, LayoutVersion, NodeId, Slot};

/// No spare request before this, however fast reads are: it would cost more than it brings.
const MIN_HEDGE: Duration = Duration::from_millis(1);

/// A read being coordinated here. It lives on after its answer until it has repaired what was stale.
#[derive(Debug)]
pub(crate) struct Read {
    /// Taken when it is answered.
    origin: Option<Origin>,
    key: Bytes,
    needs: [(Need, u8); 2],
    /// The layout that it goes by.
    layout: LayoutVersion,
    plan: Plan,
    copies: Vec<Asked>,
    /// The join of all copies that arrived in full.
    merged: Object,
    deadline: Instant,
    patience: Instant,
    /// When it began, and when it has taken longer than usual.
    began: Instant,
    hedge: Option<Instant>,
    /// Once it is answered and waits for the others, its bytes.
    lingers: usize,
}

/// One replica's part in a read.
#[derive(Debug)]
struct Asked {
    node: NodeId,
    /// Whose copy it is: its own, or that of the owner it stands in for.
    owner: NodeId,
    /// Until it has answered, or its time was up: when it was asked.
    asked: Option<Instant>,
    /// It says that it may miss what it acknowledged.
    incomplete: bool,
    /// It has kept the read waiting too long to wait for it alone.
    late: bool,
    answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Waiting(Want),
    /// It has an object with this digest.
    Digest(u64),
    /// Its object has this digest, and is merged.
    Merged(u64),
    Absent,
    /// It refused or was lost.
    None,
}

impl Engine {
    /// Starts a client's read at one of the key's coordinators.
    pub(crate) fn start_read(
        &mut self,
        now: Now,
        origin: Origin,
        key: Bytes,
        options: &ReadOptions,
        deadline: Instant,
    ) {
        let needs = match self.read_needs(&key, options) {
            Ok(needs) => needs,
            Err(error) => return self.answer(origin, Reply::Failed(error)),
        };
        let plan = self.plan(&key);
        if let Some(Shortfall { need, have, want }) = out_of_reach(&plan, needs) {
            return self.answer(origin, Reply::Failed(OpError::Quorum { need, have, want }));
        }
        self.ask_copies(now, origin, key, needs, plan, deadline);
    }

    /// Asks the other owners for enough to replace a damaged copy here: N−W+1 of them intersect every write
    /// quorum.
    pub(crate) fn start_heal(&mut self, now: Now, key: Bytes) {
        let want = if self.config.planted.is(Bug::HealedFromOne) { 1 } else { self.witnesses() };
        let mut plan = self.plan(&key);
        plan.targets.retain(|t| t.node != self.config.node && t.stands_for.is_none());
        plan.spares.clear();
        let needs = [(Need::R, want), (Need::Pr, want)];
        if out_of_reach(&plan, needs).is_some() {
            self.healing.remove(&key);
            return;
        }
        let deadline = now.instant + self.config.timing.request;
        self.ask_copies(now, Origin::Heal(key.clone()), key, needs, plan, deadline);
    }

    fn ask_copies(
        &mut self,
        now: Now,
        origin: Origin,
        key: Bytes,
        needs: [(Need, u8); 2],
        plan: Plan,
        deadline: Instant,
    ) {
        let call = self.out.call();
        let me = self.config.node;
        // The local copy comes whole; without one, the first replica's does.
        let mut whole = plan.targets.iter().find(|t| t.node == me).or(plan.targets.first()).map(|t| t.node);
        let mut copies = Vec::with_capacity(plan.targets.len());
        let targets = plan.targets.clone();
        for target in &targets {
            let want = if whole == Some(target.node) { Want::Object } else { Want::Digest };
            copies.push(Asked {
                node: target.node,
                owner: target.stands_for.unwrap_or(target.node),
                asked: Some(now.instant),
                incomplete: false,
                late: false,
                answer: Answer::Waiting(want),
            });
        }
        let patience = now.instant + self.config.timing.patience;
        self.timers.insert((patience, Timer::ReadPatience(call)));
        self.timers.insert((deadline, Timer::ReadDeadline(call)));
        let (origin, merged) = (Some(origin), Object::new());
        let layout = self.view.reading().map_or(LayoutVersion(0), Layout::version);
        let began = now.instant;
        let hedge = self.usual.p95().map(|p95| began + p95.max(MIN_HEDGE)).filter(|at| *at < patience);
        if let Some(at) = hedge {
            self.timers.insert((at, Timer::ReadHedge(call)));
        }
        self.reads.insert(
            call,
            Read {
                origin,
                key,
                needs,
                layout,
                plan,
                copies,
                merged,
                deadline,
                patience,
                began,
                hedge,
                lingers: 0,
            },
        );
        for target in targets {
            let want =
                if whole.take_if(|n| *n == target.node).is_some() { Want::Object } else { Want::Digest };
            self.ask_copy(call, target.node, want);
        }
    }

    fn ask_copy(&mut self, call: CallId, node: NodeId, want: Want) {
        let Some(read) = self.reads.get(&call) else { return };
        let (key, layout) = (read.key.clone(), read.layout);
        let want = if matches!(read.origin, Some(Origin::Heal(_))) { Want::Source } else { want };
        if node == self.config.node {
            self.replica.start(&mut self.out, &key, Task::Read(Reader::Coordinator(call)));
        } else {
            self.out.send(node, Message::Read { call, layout, key, want });
        }
    }

    /// The local copy.
    pub(crate) fn read_held(&mut self, now: Now, call: CallId, held: Held) {
        let me = self.config.node;
        let incomplete = self.reads.get(&call).is_some_and(|read| self.is_incomplete(Slot::of(&read.key)));
        match held {
            Held::Object { object, digest, .. } => {
                self.take_copy(now, call, me, incomplete, Answer::Merged(digest), Some(*object));
            }
            Held::Absent => self.take_copy(now, call, me, incomplete, Answer::Absent, None),
            Held::Unknown => self.take_copy(now, call, me, incomplete, Answer::None, None),
        }
    }

    /// A peer's copy.
    pub(crate) fn read_copied(&mut self, now: Now, call: CallId, from: NodeId, copy: Copy, incomplete: bool) {
        let (answer, object) = match copy {
            Copy::Absent => (Answer::Absent, None),
            Copy::Digest(digest) => (Answer::Digest(digest), None),
            Copy::Object(bytes) => match object::decode(&bytes) {
                Ok(object) => {
                    let digest = object::digest(&self.config.digest_key, &object, &bytes);
                    (Answer::Merged(digest), Some(object))
                }
                Err(_) => (Answer::None, None),
            },
        };
        self.take_copy(now, call, from, incomplete, answer, object);
    }

    fn take_copy(
        &mut self,
        now: Now,
        call: CallId,
        from: NodeId,
        incomplete: bool,
        answer: Answer,
        object: Option<Object>,
    ) {
        let Some(read) = self.reads.get_mut(&call) else { return };
        let Some(asked) = read.copies.iter_mut().find(|c| c.node == from) else { return };
        if answer != Answer::None
            && let Some(at) = asked.asked.take()
        {
            self.answered_read(from, now.instant.since(at));
        }
        let Some(read) = self.reads.get_mut(&call) else { return };
        let Some(asked) = read.copies.iter_mut().find(|c| c.node == from) else { return };
        match (asked.answer, answer) {
            // Repeated by the network, or overtaken by the full copy.
            (Answer::Merged(_), _) | (_, Answer::Waiting(_)) => return,
            (Answer::Waiting(Want::Object), Answer::Digest(_)) => return,
            _ => {}
        }
        asked.answer = match answer {
            Answer::Absent if self.config.planted.is(Bug::FallbackAbsentCounts) => Answer::Merged(0),
            Answer::Digest(_) if self.config.planted.is(Bug::DigestUnchecked) => Answer::Merged(0),
            answer => answer,
        };
        asked.incomplete = incomplete && !self.config.planted.is(Bug::IncompleteCounts);
        if let Some(object) = object {
            let Ok(_) = read.merged.merge(object);
            if !self.config.planted.is(Bug::LwwUnsettled) {
                self.replica.keyspaces.of(&read.key).policy.settle(&mut read.merged);
            }
        }
        if answer == Answer::None {
            self.replace_copy(now, call, from);
        }
        self.advance_read(now, call);
    }

    /// A replica has answered, or was waited for, so long: that tells who is to coordinate the next write.
    fn answered_read(&mut self, node: NodeId, took: Duration) {
        if node == self.config.node {
            self.pace.saw(took);
        } else if let Some(peer) = self.peers.get_mut(&node) {
            peer.paces.copies.saw(took);
        }
    }

    /// A replica refused, or can't be asked any more.
    pub(crate) fn read_failed(&mut self, now: Now, call: CallId, node: NodeId) {
        let Some(read) = self.reads.get_mut(&call) else { return };
        let Some(asked) = read.copies.iter_mut().find(|c| c.node == node) else { return };
        if !matches!(asked.answer, Answer::Waiting(_)) {
            return;
        }
        asked.answer = Answer::None;
        self.replace_copy(now, call, node);
        self.advance_read(now, call);
    }

    fn replace_copy(&mut self, now: Now, call: CallId, node: NodeId) {
        let Some(read) = self.reads.get_mut(&call) else { return };
        if let Some(target) = read.plan.substitute(node) {
            let answer = Answer::Waiting(Want::Object);
            let node = target.node;
            let owner = target.stands_for.unwrap_or(node);
            let asked = Some(now.instant);
            read.copies.push(Asked { node, owner, asked, incomplete: false, late: false, answer });
            self.ask_copy(call, target.node, Want::Object);
        }
    }

    fn advance_read(&mut self, now: Now, call: CallId) {
        let Some(read) = self.reads.get_mut(&call) else { return };
        if read.origin.is_some() {
            if read.has_quorum() {
                let origin = read.origin.take();
                let took = now.instant.since(read.began);
                self.usual.saw(took);
                if !matches!(origin, Some(Origin::Heal(_))) {
                    self.admission.saw(now.instant, took);
                }
                let object = read.merged.clone();
                if let Some(origin) = origin {
                    self.read_succeeded(now, origin, object);
                }
            } else if let Some(Shortfall { need, have, want }) = read.shortfall_for_good()
                && let Some(origin) = read.origin.take()
            {
                self.answer(origin, Reply::Failed(OpError::Quorum { need, have, want }));
            }
        }
        let Some(read) = self.reads.get_mut(&call) else { return };
        let differing = read.differing();
        if differing.is_none() && read.is_complete() {
            assert!(read.origin.is_none(), "a read that nobody else can answer has failed");
            return self.end_lingering_read(call);
        }
        if read.origin.is_none() {
            let bytes = read.bytes();
            self.lingering_reads.set(core::mem::replace(&mut read.lingers, bytes), bytes);
        }
        if let Some(node) = differing {
            self.ask_copy(call, node, Want::Object);
        }
        self.bound_lingering_reads();
    }

    /// Ends a read that is answered: who has answered with something else is repaired.
    pub(super) fn end_lingering_read(&mut self, call: CallId) {
        if let Some(read) = self.remove_read(call) {
            self.repair(read);
        }
    }

    fn remove_read(&mut self, call: CallId) -> Option<Read> {
        let read = self.reads.remove(&call)?;
        self.lingering_reads.set(read.lingers, 0);
        self.timers.remove(&(read.patience, Timer::ReadPatience(call)));
        if let Some(at) = read.hedge {
            self.timers.remove(&(at, Timer::ReadHedge(call)));
        }
        self.timers.remove(&(read.deadline, Timer::ReadDeadline(call)));
        Some(read)
    }

    /// The read takes longer than usual: a second replica is asked for the value, one that has answered if there is one. (The
    /// others are asked for digests in any case.)
    pub(crate) fn hedge_read(&mut self, call: CallId) {
        let Some(read) = self.reads.get_mut(&call) else { return };
        read.hedge = None;
        if read.origin.is_none() {
            return;
        }
        for copy in &mut read.copies {
            copy.late |= copy.answer == Answer::Waiting(Want::Object);
        }
        let spare = read.differing().or_else(|| {
            let next = read.copies.iter_mut().find(|c| c.answer == Answer::Waiting(Want::Digest))?;
            next.answer = Answer::Waiting(Want::Object);
            Some(next.node)
        });
        if let Some(node) = spare {
            self.hedges += 1;
            self.ask_copy(call, node, Want::Object);
        }
    }

    /// Who has not answered by now gets a stand-in; if the read is answered, it is not waited for any more.
    pub(crate) fn read_patience(&mut self, now: Now, call: CallId) {
        let Some(read) = self.reads.get_mut(&call) else { return };
        let waited = |copy: &mut Asked| Some((copy.node, now.instant.since(copy.asked.take()?)));
        let silent: Vec<(NodeId, Duration)> = read.copies.iter_mut().filter_map(waited).collect();
        for (node, took) in silent {
            self.answered_read(node, took);
        }
        let Some(read) = self.reads.get_mut(&call) else { return };
        if read.origin.is_none() {
            return self.end_lingering_read(call);
        }
        for copy in &mut read.copies {
            copy.late = matches!(copy.answer, Answer::Waiting(_));
        }
        let silent: Vec<NodeId> = read.waiting().collect();
        read.patience = now.instant + self.config.timing.patience;
        self.timers.insert((read.patience, Timer::ReadPatience(call)));
        for node in silent {
            self.replace_copy(now, call, node);
        }
        self.advance_read(now, call);
    }

    pub(crate) fn read_deadline(&mut self, now: Now, call: CallId) {
        let Some(mut read) = self.remove_read(call) else { return };
        if !matches!(read.origin, None | Some(Origin::Heal(_))) {
            self.admission.saw(now.instant, now.instant.since(read.began));
        }
        let Shortfall { need, have, want } = read.shortfall();
        if let Some(origin) = read.origin.take() {
            self.answer(origin, Reply::Failed(OpError::Quorum { need, have, want }));
        }
        self.repair(read);
    }

    pub(crate) fn reads_lost_peer(&mut self, now: Now, node: NodeId) {
        let calls: Vec<CallId> =
            self.reads.iter().filter(|(_, r)| r.waiting().any(|n| n == node)).map(|(c, _)| *c).collect();
        for call in calls {
            self.read_failed(now, call, node);
        }
    }

    /// Hands the merged object to every owner that answered with something else.
    fn repair(&mut self, read: Read) {
        if read.merged.is_empty() || matches!(read.origin, Some(Origin::Heal(_))) {
            return;
        }
        if read.agrees() {
            return;
        }
        let encoded = object::encode(&read.merged);
        let digest = object::digest(&self.config.digest_key, &read.merged, &encoded);
        for copy in &read.copies {
            let stale = match copy.answer {
                Answer::Merged(theirs) | Answer::Digest(theirs) => theirs != digest,
                Answer::Absent => true,
                Answer::Waiting(_) | Answer::None => false,
            };
            let full = copy.node == self.config.node && self.replica.is_behind();
            if !stale || !copy.is_primary() || self.is_congested(copy.node) || full {
                continue;
            }
            self.repairs += 1;
            if copy.node == self.config.node {
                let merge = Merge {
                    source: Source::Repair,
                    object: read.merged.clone(),
                    outranked_by: None,
                    hints: Vec::new(),
                    heals: false,
                };
                self.replica.start(&mut self.out, &read.key, Task::Merge(merge));
            } else {
                // Nobody waits for the acknowledgement: a repair that is lost is made again by the next read.
                let call = self.out.call();
                self.out.send(
                    copy.node,
                    Message::Write {
                        sync: Syncing::Later,
                        call,
                        layout: self.view.version(),
                        purpose: Purpose::Repair,
                        key: read.key.clone(),
                        object: encoded.clone(),
                        hints: Vec::new(),
                        outranked_by: None,
                    },
                );
            }
        }
    }

    fn read_needs(&self, key: &[u8], options: &ReadOptions) -> Result<[(Need, u8); 2], OpError> {
        let replicas = self.replicas();
        let less = u8::from(self.config.planted.is(Bug::RTooLow));
        let resolve = |need, level: Option<Level>, default: u8| match level {
            None => Ok(default - less.min(default)),
            Some(level) => {
                level.resolve(replicas).map(|count| count - less).ok_or(OpError::Level { need, replicas })
            }
        };
        Ok([
            (Need::R, resolve(Need::R, options.r, self.rules(key).r(replicas))?),
            (Need::Pr, resolve(Need::Pr, options.pr, 0)?),
        ])
    }
}

impl Asked {
    fn is_primary(&self) -> bool {
        self.node == self.owner
    }
}

impl Read {
    /// Whether the owners by this layout are asked.
    pub(crate) fn goes_by(&self, layout: LayoutVersion) -> bool {
        self.layout == layout
    }

    /// Its bytes if it is answered and waits for the rest of its replicas, else 0.
    pub(super) const fn lingers(&self) -> usize {
        self.lingers
    }

    /// What it takes: what was read so far.
    fn bytes(&self) -> usize {
        let versions = self.merged.iter().map(|(_, version)| object::weigh(version));
        self.key.len() + versions.sum::<usize>()
    }

    fn waiting(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.copies.iter().filter(|c| matches!(c.answer, Answer::Waiting(_))).map(|c| c.node)
    }

    fn is_merged(&self, digest: u64) -> bool {
        self.copies.iter().any(|c| c.answer == Answer::Merged(digest))
    }

    /// Whether a replica's answer is complete knowledge, and part of `merged`. A fallback's absence and an
    /// incomplete replica's anything never count.
    fn counts(&self, copy: &Asked) -> bool {
        !copy.incomplete
            && match copy.answer {
                Answer::Merged(_) => true,
                Answer::Digest(digest) => self.is_merged(digest),
                Answer::Absent => copy.is_primary(),
                Answer::Waiting(_) | Answer::None => false,
            }
    }

    /// How many owners' copies have such an answer: an owner and its stand-in are one.
    fn count(&self, is: impl Fn(&Asked) -> bool) -> u8 {
        let earlier = |at: usize, owner| self.copies[..at].iter().any(|c| c.owner == owner && is(c));
        let counted = self.copies.iter().enumerate().filter(|(at, c)| is(c) && !earlier(*at, c.owner));
        u8::try_from(counted.count()).unwrap_or(u8::MAX)
    }

    fn has_quorum(&self) -> bool {
        let [(_, r), (_, pr)] = self.needs;
        self.count(|c| self.counts(c)) >= r && self.count(|c| c.is_primary() && self.counts(c)) >= pr
    }

    fn shortfall(&self) -> Shortfall {
        let [(r_need, r), (pr_need, pr)] = self.needs;
        let have = self.count(|c| self.counts(c));
        if have < r {
            return Shortfall { need: r_need, have, want: r };
        }
        Shortfall { need: pr_need, have: self.count(|c| c.is_primary() && self.counts(c)), want: pr }
    }

    /// The condition that can't hold any more, whoever still answers.
    fn shortfall_for_good(&self) -> Option<Shortfall> {
        let open = |c: &Asked| {
            !self.counts(c) && matches!(c.answer, Answer::Waiting(_) | Answer::Digest(_)) && !c.incomplete
        };
        let [(_, r), (_, pr)] = self.needs;
        // Whoever fails is replaced at once while there are spares, so a copy nobody is asked for is lost.
        let all = self.count(|c| self.counts(c) || open(c));
        let primaries = self.count(|c| c.is_primary() && (self.counts(c) || open(c)));
        (all < r || primaries < pr).then(|| self.shortfall())
    }

    /// A replica whose object is not merged and has not been asked for; it counts as asked from now on.
    /// Replicas with the same digest are asked one at a time.
    fn differing(&mut self) -> Option<NodeId> {
        if self.copies.iter().any(|c| c.answer == Answer::Waiting(Want::Object) && !c.late) {
            return None;
        }
        let index = self.copies.iter().position(|c| match c.answer {
            Answer::Digest(digest) => !self.is_merged(digest),
            _ => false,
        })?;
        self.copies[index].answer = Answer::Waiting(Want::Object);
        Some(self.copies[index].node)
    }

    /// Every owner that answered has the same object: the merge is that object, and nobody needs it.
    fn agrees(&self) -> bool {
        let mut digests = self.copies.iter().filter(|c| c.is_primary()).filter_map(|c| match c.answer {
            Answer::Merged(digest) | Answer::Digest(digest) => Some(Some(digest)),
            Answer::Absent => Some(None),
            Answer::Waiting(_) | Answer::None => None,
        });
        let first = digests.next();
        let fallbacks_too = self.copies.iter().all(|c| match c.answer {
            Answer::Merged(digest) => Some(Some(digest)) == first,
            _ => true,
        });
        first.is_some_and(|d| d.is_some()) && fallbacks_too && digests.all(|d| Some(d) == first)
    }

    /// Nothing more is to come.
    fn is_complete(&self) -> bool {
        self.waiting().next().is_none()
    }
}
