//! Reads: one full copy, digests from the others, the merge of what differs, and repair afterwards.

use super::needs::out_of_reach;
use super::{Answer, Copies, Origin, Plan};
use crate::engine::{Engine, Timer};
use crate::message::{CallId, Copy, Message, Purpose, Syncing, Want};
use crate::object::{self, Object};
use crate::op::{Level, Need, OpError, ReadOptions, Reply};
use crate::outcome::Held;
use crate::planted::Bug;
use crate::tally::{Shortfall, Verdict};
use crate::task::{Merge, Reader, Source, Task};
use crate::time::{Duration, Instant, Now};
use alloc::vec::Vec;
use bytes::Bytes;
use gramme_ring::{Layout, LayoutVersion, NodeId, Slot};

/// No spare request before this, however fast reads are: it would cost more than it brings.
const MIN_HEDGE: Duration = Duration::from_millis(1);

/// Bytes of copies that are to heal others, at one time; the last one may go beyond. A damaged record for which there is no room is
/// found again when it is read or scrubbed.
const MAX_HEAL_BYTES: usize = 64 << 20;

/// A read being coordinated here. It lives on after its answer until it has repaired what was stale.
#[derive(Debug)]
pub(crate) struct Read {
    /// Taken when it is answered.
    origin: Option<Origin>,
    key: Bytes,
    /// The layout that it goes by.
    layout: LayoutVersion,
    copies: Copies,
    /// When those were asked that have not answered, nor had all their time.
    asked: Vec<(NodeId, Instant)>,
    /// The join of all copies that arrived in full.
    merged: Object,
    deadline: Instant,
    patience: Instant,
    /// When it began, and when it has taken longer than usual.
    began: Instant,
    hedge: Option<Instant>,
    /// Its bytes until it is answered, and once it waits for the others after that.
    weighs: usize,
    lingers: usize,
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
    /// quorum of owners. (What a fallback acknowledged in an owner's place they may lack.) Where so many were given up that there are not enough, it takes all that are left.
    pub(crate) fn start_heal(&mut self, now: Now, key: Bytes, for_good: bool) {
        let left = self.other_owners(Slot::of(&key)).len();
        let mut plan = self.plan(&key);
        plan.targets.retain(|t| t.node != self.config.node && t.stands_for.is_none());
        plan.spares.clear();
        // What one of them has under the same tag is enough where the disk only refuses to read: whoever there is is asked.
        let want = if for_good { usize::from(self.witnesses()).min(left) } else { plan.targets.len() };
        let want = u8::try_from(want).unwrap_or(u8::MAX).max(1);
        let want = if self.config.planted.is(Bug::HealedFromOne) { 1 } else { want };
        let needs = [(Need::R, want), (Need::Pr, want)];
        if out_of_reach(&plan, needs).is_some() {
            return;
        }
        // If it fails it is not tried again before: asking makes the others look at copies of theirs that may be damaged too.
        let deadline = now.instant + self.config.timing.request;
        if let Some(healing) = self.healing.get_mut(&key) {
            (healing.again, healing.lost) = (deadline, self.config.planted.is(Bug::LostUnasked));
        }
        self.ask_copies(now, Origin::Heal { key: key.clone(), for_good }, key, needs, plan, deadline);
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
        let copies = Copies::new(plan, needs, me);
        let targets: Vec<(NodeId, bool)> = copies.asked().collect();
        let asked = targets.iter().map(|(node, _)| (*node, now.instant)).collect();
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
        let (weighs, lingers) = (0, 0);
        let mut read = Read {
            origin,
            key,
            layout,
            copies,
            asked,
            merged,
            deadline,
            patience,
            began,
            hedge,
            weighs,
            lingers,
        };
        read.weighs = read.bytes();
        *self.bytes_of(read.origin.as_ref()) += read.weighs;
        self.reads.insert(call, read);
        for (node, whole) in targets {
            self.ask_copy(call, node, if whole { Want::Object } else { Want::Digest });
        }
    }

    fn ask_copy(&mut self, call: CallId, node: NodeId, want: Want) {
        let Some(read) = self.reads.get(&call) else { return };
        let (key, layout) = (read.key.clone(), read.layout);
        let want = if matches!(read.origin, Some(Origin::Heal { .. })) { Want::Source } else { want };
        if node == self.config.node {
            self.replica.start(&mut self.out, &key, Task::Read(Reader::Coordinator(call)));
        } else {
            self.out.send(node, Message::Read { call, layout, key, want });
        }
    }

    /// The local copy.
    pub(crate) fn read_held(&mut self, now: Now, call: CallId, held: Held) {
        let me = self.config.node;
        let incomplete = self.reads.get(&call).is_some_and(|read| self.is_incomplete(&read.key));
        match held {
            Held::Object { object, digest, .. } => {
                self.take_copy(now, call, me, incomplete, Answer::Object(digest), Some(*object));
            }
            Held::Absent => self.take_copy(now, call, me, incomplete, Answer::Absent, None),
            Held::Unknown { for_good } => self.read_failed(now, call, me, for_good),
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
                    (Answer::Object(digest), Some(object))
                }
                Err(_) => return self.read_failed(now, call, from, false),
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
        self.answered_read(now, call, from);
        let answer = match answer {
            Answer::Absent if self.config.planted.is(Bug::FallbackAbsentCounts) => Answer::Object(0),
            Answer::Digest(_) if self.config.planted.is(Bug::DigestUnchecked) => Answer::Object(0),
            answer => answer,
        };
        let incomplete = incomplete && !self.config.planted.is(Bug::IncompleteCounts);
        let Some(read) = self.reads.get_mut(&call) else { return };
        if !read.copies.take(from, answer, incomplete) {
            return;
        }
        if let (Some(object), Some(Origin::Heal { key, for_good: false })) = (&object, &read.origin) {
            let (key, task) = (key.clone(), heal(object.clone()));
            self.replica.start(&mut self.out, &key, task);
        }
        let Some(read) = self.reads.get_mut(&call) else { return };
        if let Some(object) = object {
            let (open, most) = match &read.origin {
                Some(Origin::Heal { .. }) => (&mut self.heal_bytes, MAX_HEAL_BYTES),
                _ => (&mut self.open_bytes, self.config.limits.request_bytes),
            };
            let others = *open - read.weighs;
            if read.origin.is_some() && others >= most && !self.config.planted.is(Bug::RequestBytesUnbounded)
            {
                return self.refuse_read(call);
            }
            let Ok(_) = read.merged.merge(object);
            if !self.config.planted.is(Bug::LwwUnsettled) {
                self.replica.keyspaces.of(&read.key).policy.settle(&mut read.merged);
            }
            if read.origin.is_some() {
                read.weighs = read.bytes();
                *open = others + read.weighs;
            }
        }
        self.advance_read(now, call);
    }

    /// A replica has answered, or was waited for as long as one is: that tells who is to coordinate the next write.
    fn answered_read(&mut self, now: Now, call: CallId, node: NodeId) {
        let Some(read) = self.reads.get_mut(&call) else { return };
        let Some(at) = read.asked.iter().position(|(asked, _)| *asked == node) else { return };
        let took = now.instant.since(read.asked.swap_remove(at).1);
        if node == self.config.node {
            self.pace.saw(took);
        } else if let Some(peer) = self.peers.get_mut(&node) {
            peer.paces.copies.saw(took);
        }
    }

    /// A replica refused, or can't be asked any more; `for_good`: its copy is damaged.
    pub(crate) fn read_failed(&mut self, now: Now, call: CallId, node: NodeId, for_good: bool) {
        let Some(read) = self.reads.get_mut(&call) else { return };
        if if for_good { read.copies.damaged(node) } else { read.copies.no(node) } {
            read.asked.retain(|(asked, _)| *asked != node);
            self.replace_copy(now, call, node);
            self.advance_read(now, call);
        }
    }

    fn replace_copy(&mut self, now: Now, call: CallId, node: NodeId) {
        let Some(read) = self.reads.get_mut(&call) else { return };
        if let Some(node) = read.copies.substitute(node) {
            read.asked.push((node, now.instant));
            self.ask_copy(call, node, Want::Object);
        }
    }

    fn advance_read(&mut self, now: Now, call: CallId) {
        let others = self.others_to_heal_from(call);
        let Some(read) = self.reads.get_mut(&call) else { return };
        if read.origin.is_some() {
            let early = self.config.planted.is(Bug::FirstValueAnswers)
                && !matches!(read.origin, Some(Origin::Heal { .. }))
                && read.copies.has_value();
            let verdict = match read.copies.verdict() {
                _ if early => Verdict::Met,
                // There are no more whole copies than these: so many disks have failed that something may be lost, and what is left is to
                // be had again. Where nothing is, what comes next takes its place.
                Verdict::Impossible(_)
                    if others.as_ref().is_some_and(|o| self.config.planted.all(read.copies.are_all(o))) =>
                {
                    if let Some(healing) = self.healing.get_mut(&read.key) {
                        healing.lost = read.merged.is_empty() && !self.config.planted.is(Bug::LossForgotten);
                    }
                    if read.merged.is_empty() { read.copies.verdict() } else { Verdict::Met }
                }
                Verdict::Impossible(_) if others.is_some() && !read.copies.is_complete() => Verdict::Pending,
                verdict => verdict,
            };
            match verdict {
                Verdict::Met => {
                    let origin = read.origin.take();
                    let weighs = core::mem::take(&mut read.weighs);
                    let took = now.instant.since(read.began);
                    self.usual.saw(took);
                    *self.bytes_of(origin.as_ref()) -= weighs;
                    if !matches!(origin, Some(Origin::Heal { .. })) {
                        self.admission.saw(now.instant, took);
                    }
                    let Some(read) = self.reads.get(&call) else { return };
                    let object = read.merged.clone();
                    if let Some(origin) = origin {
                        self.read_succeeded(now, origin, object);
                    }
                }
                Verdict::Impossible(Shortfall { need, have, want }) => {
                    let (weighs, merged) = (core::mem::take(&mut read.weighs), read.merged.clone());
                    let Some(origin) = read.origin.take() else { return };
                    *self.bytes_of(Some(&origin)) -= weighs;
                    match origin {
                        // To write takes no more than there are to write to.
                        Origin::Before(request) if !request.is_plain_delete() => {
                            self.read_before(now, *request, merged);
                        }
                        origin => self.answer(origin, Reply::Failed(OpError::Quorum { need, have, want })),
                    }
                }
                Verdict::Pending => {}
            }
        }
        let Some(read) = self.reads.get_mut(&call) else { return };
        let differing = read.copies.fetch();
        if differing.is_none() && read.copies.is_complete() {
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

    /// For a read that replaces a copy which is damaged for good: the other owners.
    fn others_to_heal_from(&self, call: CallId) -> Option<Vec<NodeId>> {
        let read = self.reads.get(&call)?;
        let for_good = matches!(read.origin, Some(Origin::Heal { for_good: true, .. }));
        for_good.then(|| self.other_owners(Slot::of(&read.key)))
    }

    /// Where the bytes of reads for this are counted until they are answered: what heals a copy here is no request.
    const fn bytes_of(&mut self, origin: Option<&Origin>) -> &mut usize {
        if matches!(origin, Some(Origin::Heal { .. })) { &mut self.heal_bytes } else { &mut self.open_bytes }
    }

    /// A copy came for which there is no room beside those of other requests.
    fn refuse_read(&mut self, call: CallId) {
        if let Some(origin) = self.remove_read(call).and_then(|read| read.origin) {
            self.answer(origin, Reply::Failed(OpError::Overloaded));
        }
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
        *self.bytes_of(read.origin.as_ref()) -= read.weighs;
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
        if let Some(node) = read.copies.hedge() {
            self.hedges += 1;
            self.ask_copy(call, node, Want::Object);
        }
    }

    /// Who has not answered by now gets a stand-in; if the read is answered, it is not waited for any more.
    pub(crate) fn read_patience(&mut self, now: Now, call: CallId) {
        let Some(read) = self.reads.get_mut(&call) else { return };
        let silent = read.copies.late();
        for node in &silent {
            self.answered_read(now, call, *node);
        }
        let Some(read) = self.reads.get_mut(&call) else { return };
        if read.origin.is_none() {
            return self.end_lingering_read(call);
        }
        read.patience = now.instant + self.config.timing.patience;
        self.timers.insert((read.patience, Timer::ReadPatience(call)));
        for node in silent {
            self.replace_copy(now, call, node);
        }
        self.advance_read(now, call);
    }

    pub(crate) fn read_deadline(&mut self, now: Now, call: CallId) {
        let Some(mut read) = self.remove_read(call) else { return };
        if !matches!(read.origin, None | Some(Origin::Heal { .. })) {
            self.admission.saw(now.instant, now.instant.since(read.began));
        }
        let Shortfall { need, have, want } = read.copies.shortfall();
        if let Some(origin) = read.origin.take() {
            self.answer(origin, Reply::Failed(OpError::Quorum { need, have, want }));
        }
        self.repair(read);
    }

    pub(crate) fn reads_lost_peer(&mut self, now: Now, node: NodeId) {
        let calls: Vec<CallId> = self
            .reads
            .iter()
            .filter(|(_, r)| r.copies.asked().any(|(n, _)| n == node))
            .map(|(c, _)| *c)
            .collect();
        for call in calls {
            self.read_failed(now, call, node, false);
        }
    }

    /// Hands the merged object to every owner that answered with something else.
    fn repair(&mut self, read: Read) {
        if read.merged.is_empty() || matches!(read.origin, Some(Origin::Heal { .. })) {
            return;
        }
        if read.copies.agrees() || self.config.planted.is(Bug::NoReadRepair) {
            return;
        }
        let encoded = object::encode(&read.merged);
        let digest = object::digest(&self.config.digest_key, &read.merged, &encoded);
        for node in read.copies.stale(digest) {
            let full = node == self.config.node && self.replica.is_behind();
            if self.is_congested(node) || full {
                continue;
            }
            self.repairs += 1;
            if node == self.config.node {
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
                    node,
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

/// What replaces a copy that can't be read.
pub(super) fn heal(object: Object) -> Task {
    let source = Source::Repair;
    Task::Merge(Merge { source, object, outranked_by: None, hints: Vec::new(), heals: true })
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

    /// What it takes: what was read so far, and what is to be written then.
    fn bytes(&self) -> usize {
        let versions = self.merged.iter().map(|(_, version)| object::weigh(version));
        let written = match &self.origin {
            Some(Origin::Before(request)) => request.content.size(),
            _ => 0,
        };
        self.key.len() + written + versions.sum::<usize>()
    }
}
