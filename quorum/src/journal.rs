//! The order *written, durable, acknowledged* as types: what waits for the disk comes out of the journal
//! only inside a [`Kept`], and only the journal makes one.

use crate::anti_entropy::SumsId;
use crate::input::{AppendId, Input, ListCursor, ListId, LoadId, Output, Place};
use crate::membership::ClusterError;
use crate::message::{CallId, Message};
use crate::object::Shrink;
use crate::op::{Reply, RequestId};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use bytes::Bytes;
use gramme_ring::{Membership, NodeId};

/// Something whose writes are kept as its mode asks for: on stable storage, or, where it was held with
/// [`Journal::hold_written`], in the log. There is no other way to get one.
#[derive(Debug)]
pub(crate) struct Kept<T>(T);

impl<T> Kept<T> {
    pub(crate) fn into_inner(self) -> T {
        self.0
    }
}

/// What takes memory as long as it is held.
pub(crate) trait Weight {
    /// Bytes of what comes from clients and peers.
    fn weight(&self) -> usize;
}

/// What is appended and not yet durable.
#[derive(Debug)]
pub(crate) struct Journal<T> {
    /// `T` waits for this append to be performed and synced.
    written: BTreeMap<AppendId, Vec<T>>,
    /// `T` changed nothing itself and waits for what was appended before it.
    after: BTreeMap<AppendId, Vec<T>>,
    /// `T` waits for this append to be performed, and no longer.
    eager: BTreeMap<AppendId, Vec<T>>,
    /// What waits for the second append waits for the first as well.
    links: BTreeMap<AppendId, AppendId>,
    synced: AppendId,
    failed: bool,
    /// Somebody waits for a sync that was not asked for yet.
    wanted: bool,
    /// How many wait, and their bytes.
    held: usize,
    bytes: usize,
}

impl<T: Weight> Journal<T> {
    pub(crate) const fn new() -> Journal<T> {
        Journal {
            written: BTreeMap::new(),
            after: BTreeMap::new(),
            eager: BTreeMap::new(),
            links: BTreeMap::new(),
            synced: AppendId(0),
            failed: false,
            wanted: false,
            held: 0,
            bytes: 0,
        }
    }

    /// How many wait for the disk.
    pub(crate) const fn held(&self) -> usize {
        self.held
    }

    /// Their bytes.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    fn came(&mut self, what: &T) {
        self.held += 1;
        self.bytes += what.weight();
    }

    fn went(&mut self, gone: &[T]) {
        self.held -= gone.len();
        self.bytes -= gone.iter().map(Weight::weight).sum::<usize>();
    }

    /// `what` is durable once `append` is.
    pub(crate) fn hold(&mut self, append: AppendId, what: T) {
        self.wanted = true;
        self.came(&what);
        self.written.entry(append).or_default().push(what);
    }

    /// `what` is kept well enough once `append` is performed. The caller asks to be told of that.
    pub(crate) fn hold_written(&mut self, append: AppendId, what: T) {
        self.came(&what);
        self.eager.entry(append).or_default().push(what);
    }

    /// `what` waits for nothing but that which was performed before.
    pub(crate) const fn pass(&self, what: T) -> Kept<T> {
        Kept(what)
    }

    /// All that was appended is to be synced at once.
    pub(crate) const fn want_sync(&mut self) {
        self.wanted = true;
    }

    /// Whether a sync is wanted that was not asked for yet.
    pub(crate) const fn take_wanted(&mut self) -> bool {
        core::mem::replace(&mut self.wanted, false)
    }

    /// Whatever is held for `second` fails if `first` does.
    pub(crate) fn link(&mut self, first: AppendId, second: AppendId) {
        self.links.insert(first, second);
    }

    /// `what` is durable once everything up to `last` is; whether `last` itself fails does not matter.
    pub(crate) fn hold_after(&mut self, last: AppendId, what: T) -> Option<Kept<T>> {
        if last <= self.synced {
            return Some(Kept(what));
        }
        self.wanted = true;
        self.came(&what);
        self.after.entry(last).or_default().push(what);
        None
    }

    /// Whether all appends up to this one are durable.
    pub(crate) fn is_synced(&self, through: AppendId) -> bool {
        through <= self.synced
    }

    /// Takes out what became durable.
    pub(crate) fn synced(&mut self, through: AppendId) -> Vec<Kept<T>> {
        if self.failed || through <= self.synced {
            return Vec::new();
        }
        self.synced = through;
        let next = AppendId(through.0 + 1);
        let rest = self.written.split_off(&next);
        self.links = self.links.split_off(&next);
        let rest_after = self.after.split_off(&next);
        let done = core::mem::replace(&mut self.written, rest).into_values();
        let done_after = core::mem::replace(&mut self.after, rest_after).into_values();
        let done: Vec<T> = done.chain(done_after).flatten().collect();
        self.went(&done);
        done.into_iter().map(Kept).collect()
    }

    /// Takes out what waited for these appends to be performed.
    pub(crate) fn written(&mut self, through: AppendId) -> Vec<Kept<T>> {
        let rest = self.eager.split_off(&AppendId(through.0 + 1));
        let done: Vec<T> = core::mem::replace(&mut self.eager, rest).into_values().flatten().collect();
        self.went(&done);
        done.into_iter().map(Kept).collect()
    }

    /// Takes out what an append that failed would have made durable.
    pub(crate) fn append_failed(&mut self, append: AppendId) -> Vec<T> {
        let mut failed = Vec::new();
        let mut next = Some(append);
        while let Some(append) = next {
            failed.extend(self.written.remove(&append).unwrap_or_default());
            failed.extend(self.eager.remove(&append).unwrap_or_default());
            next = self.links.remove(&append);
        }
        self.went(&failed);
        failed
    }

    /// A sync failed: takes out all that waits; nothing becomes durable any more.
    pub(crate) fn sync_failed(&mut self) -> Vec<T> {
        self.failed = true;
        let all = [&mut self.written, &mut self.after, &mut self.eager];
        let all: Vec<T> =
            all.into_iter().flat_map(core::mem::take).flat_map(|(_, waiting)| waiting).collect();
        self.went(&all);
        all
    }

    /// Whether the store still takes writes.
    pub(crate) const fn is_writable(&self) -> bool {
        !self.failed
    }
}

/// The engine's outputs and the numbers it gives them.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    outputs: VecDeque<Output>,
    /// The time of the input in work.
    pub(crate) now: Instant,
    /// Listings that are open, and since when.
    pub(crate) lists: BTreeMap<ListId, Instant>,
    append: u64,
    load: u64,
    list: u64,
    sums: u64,
    call: u64,
}

impl Outbox {
    pub(crate) fn new(first_call: u64, now: Instant) -> Outbox {
        Outbox { call: first_call, now, ..Outbox::default() }
    }

    pub(crate) fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// One input, then all its outputs: a caller that breaks this rule would see stale decisions.
    pub(crate) fn assert_drained(&self, input: &Input) {
        assert!(self.outputs.is_empty(), "outputs must be polled before the next input ({input:?})");
    }

    pub(crate) fn send(&mut self, to: NodeId, message: Message) {
        self.outputs.push_back(Output::Send(to, message));
    }

    pub(crate) fn reply(&mut self, to: RequestId, reply: Reply) {
        self.outputs.push_back(Output::Reply(to, reply));
    }

    pub(crate) fn append(&mut self, place: Place, key: Bytes, value: Option<(Bytes, u64)>) -> AppendId {
        self.append_shrinking(place, key, value, None)
    }

    pub(crate) fn append_shrinking(
        &mut self,
        place: Place,
        key: Bytes,
        value: Option<(Bytes, u64)>,
        shrink: Option<Shrink>,
    ) -> AppendId {
        self.append += 1;
        let id = AppendId(self.append);
        self.outputs.push_back(Output::Append { id, place, key, value, shrink });
        id
    }

    /// Asks to be told when everything appended so far was performed.
    pub(crate) fn confirm(&mut self) {
        self.outputs.push_back(Output::Confirm(AppendId(self.append)));
    }

    /// Asks for a sync of all that was appended.
    pub(crate) fn sync(&mut self) {
        self.outputs.push_back(Output::Sync);
    }

    pub(crate) const fn last_load(&self) -> LoadId {
        LoadId(self.load)
    }

    pub(crate) const fn last_append(&self) -> AppendId {
        AppendId(self.append)
    }

    pub(crate) fn load(&mut self, place: Place, key: Bytes) -> LoadId {
        self.load += 1;
        let id = LoadId(self.load);
        self.outputs.push_back(Output::Load { id, place, key });
        id
    }

    pub(crate) fn list(
        &mut self,
        first: Place,
        last: Place,
        cursor: Option<ListCursor>,
        limit: usize,
    ) -> ListId {
        self.list += 1;
        let id = ListId(self.list);
        self.lists.insert(id, self.now);
        self.outputs.push_back(Output::List { id, first, last, cursor, limit });
        id
    }

    pub(crate) fn sums(&mut self, ranges: Vec<(u16, u16)>) -> SumsId {
        self.sums += 1;
        let id = SumsId(self.sums);
        self.outputs.push_back(Output::Sums { id, ranges });
        id
    }

    pub(crate) fn save(&mut self, membership: Box<Membership>) {
        self.outputs.push_back(Output::Save(membership));
    }

    pub(crate) fn known(&mut self, node: NodeId, facts: Vec<u8>) {
        self.outputs.push_back(Output::Known(node, facts));
    }

    pub(crate) fn cluster(&mut self, id: RequestId, done: Result<(), ClusterError>) {
        self.outputs.push_back(Output::Cluster(id, done));
    }

    pub(crate) fn incomplete(&mut self) {
        self.outputs.push_back(Output::Incomplete);
    }

    pub(crate) fn drop_slot(&mut self, place: Place) -> AppendId {
        self.append += 1;
        let id = AppendId(self.append);
        self.outputs.push_back(Output::DropSlot { id, place });
        id
    }

    pub(crate) fn recovered(&mut self) {
        self.outputs.push_back(Output::Recovered);
    }

    /// Call ids go on from a random start, so that an answer to a former run's call is never taken for
    /// an answer to one of this run's.
    pub(crate) const fn call(&mut self) -> CallId {
        self.call = self.call.wrapping_add(1);
        CallId(self.call)
    }
}
