//! One node without its sockets: the engine and its store, composed.
//!
//! The server pumps it with real sockets and clocks, the simulator with simulated ones. It performs the
//! engine's disk outputs and feeds the results back; what is left for its caller are [`Effect`]s and syncs.

use bytes::Bytes;
use gramme_quorum::message::Message;
use gramme_quorum::{
    AppendId, ClusterError, Engine, HINT_PLACES, Input, Instant, ListCursor, ListId, LoadId, Loaded, Now,
    Opening, Output, Page, Place, RUN_KEY, RUN_PLACE, Reply, RequestId, Shrink,
};
use gramme_ring::gossip::GossipError;
use gramme_ring::{Membership, NodeId};
use gramme_store::{
    Cursor, DamageKind, Disk, Position, Read, ReadAhead, ReadDone, ReadError, ReadJob, Store, SyncDone,
    SyncJob,
};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;

/// What the host asks of its caller.
pub enum Effect<D: Disk> {
    /// Send to a peer, or forget it if there is no connection.
    Send(NodeId, Message),
    /// Answer a client.
    Reply(RequestId, Reply),
    /// What came of an operator's change.
    Cluster(RequestId, Result<(), ClusterError>),
    /// Write this down, durably, and say so with [`Host::saved`] before anything else is done.
    Save(Box<Membership>),
    /// A node says this of itself.
    Known(NodeId, Vec<u8>),
    /// This node's store is older than others remember it: its next runs may miss something, until it has recovered.
    Incomplete,
    /// Run this read, here or on another thread, and hand it to [`Host::finish_read`].
    Fetch(LoadId, ReadJob<D>),
    /// Run this, here or on another thread, and then have [`Host::finish_list`] make this listing.
    ReadAhead(List, ReadAhead<D>),
    /// Nothing that this node acknowledged is missing here any more: its next run is complete.
    Recovered,
}

impl<D: Disk> fmt::Debug for Effect<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::Send(to, message) => f.debug_tuple("Send").field(to).field(message).finish(),
            Effect::Reply(to, reply) => f.debug_tuple("Reply").field(to).field(reply).finish(),
            Effect::Fetch(id, job) => f.debug_tuple("Fetch").field(id).field(job).finish(),
            Effect::ReadAhead(list, job) => f.debug_tuple("ReadAhead").field(list).field(job).finish(),
            Effect::Cluster(id, done) => f.debug_tuple("Cluster").field(id).field(done).finish(),
            Effect::Save(membership) => f.debug_tuple("Save").field(membership).finish(),
            Effect::Known(node, facts) => f.debug_tuple("Known").field(node).field(facts).finish(),
            Effect::Incomplete => f.write_str("Incomplete"),
            Effect::Recovered => f.write_str("Recovered"),
        }
    }
}

/// A listing that waits until its keys are at hand.
#[derive(Debug)]
pub struct List {
    id: ListId,
    from: ListCursor,
    last: Place,
    limit: usize,
}

/// Listings that may wait for the disk. It may hang, and the engine give them up and ask anew: beyond so many it is told that the
/// store can't.
const MAX_LISTS: usize = 256;

/// An engine and its store.
pub struct Host<D: Disk> {
    engine: Engine,
    store: Store<D>,
    inputs: VecDeque<Input>,
    effects: VecDeque<Effect<D>>,
    /// Listings that wait for the disk.
    lists: usize,
    /// The tags of the records that are being read, which the store knows without reading.
    tags: BTreeMap<LoadId, u64>,
    /// Appends that the store has taken and no sync has covered, oldest first.
    unsynced: VecDeque<(AppendId, Position)>,
    /// Everything up to here is on the disk.
    durable: Position,
    /// The last append performed, and the last one reported synced.
    performed: AppendId,
    synced: AppendId,
    syncing: bool,
    /// A sync was asked for and not begun.
    wanted: bool,
    /// A membership is being written down; what comes next waits for that.
    saving: bool,
    /// Since when the caller is writing down that this node's store is an old one, which comes before all else.
    warning: Option<Now>,
    /// What the store was told of the time.
    settled: u64,
    observer: Option<Observer>,
}

/// Sees every output of the engine before it is performed.
pub type Observer = Box<dyn FnMut(&Output)>;

impl<D: Disk> fmt::Debug for Host<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("performed", &self.performed)
            .field("synced", &self.synced)
            .finish_non_exhaustive()
    }
}

impl<D: Disk> Host<D> {
    /// Composes an engine, fresh from [`Engine::new`], with its opened store.
    ///
    /// # Panics
    /// If the store was opened without a tree key.
    pub fn new(engine: Engine, store: Store<D>, now: Now) -> Host<D> {
        assert!(store.tree().is_some(), "anti-entropy compares hash trees");
        let durable = store.position();
        let mut host = Host {
            engine,
            store,
            inputs: VecDeque::new(),
            effects: VecDeque::new(),
            lists: 0,
            tags: BTreeMap::new(),
            unsynced: VecDeque::new(),
            durable,
            performed: AppendId(0),
            synced: AppendId(0),
            syncing: false,
            wanted: false,
            saving: false,
            warning: None,
            settled: 0,
            observer: None,
        };
        host.pump(now);
        host
    }

    /// Takes one input and does all that follows from it on the disk.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.inputs.push_back(input);
        self.pump(now);
    }

    /// What was to be saved is, or could not be.
    pub fn saved(&mut self, now: Now, done: bool) {
        self.saving = false;
        self.inputs.push_front(Input::Saved(done));
        self.pump(now);
    }

    /// Whether all else waits for the caller to do [`Effect::Incomplete`].
    pub fn is_warning(&self) -> bool {
        self.warning.is_some()
    }

    /// The next thing for the caller to do. Asking for it says that what was named before is done: nothing is performed past
    /// [`Effect::Incomplete`] until then.
    pub fn poll(&mut self) -> Option<Effect<D>> {
        if self.effects.is_empty()
            && let Some(now) = self.warning.take()
        {
            self.pump(now);
        }
        self.effects.pop_front()
    }

    /// Begins to make durable what was appended, after a batch of inputs. `None` while a sync is under way
    /// or when there is nothing that is to be synced by now.
    pub fn begin_sync(&mut self) -> Option<SyncJob<D>> {
        if self.syncing || !std::mem::take(&mut self.wanted) {
            return None;
        }
        let job = self.store.begin_sync()?;
        self.syncing = true;
        Some(job)
    }

    /// Takes back a sync that was run.
    pub fn finish_sync(&mut self, now: Now, done: SyncDone) {
        self.syncing = false;
        match self.store.complete_sync(done) {
            Ok(durable) => {
                while let Some((append, position)) = self.unsynced.front().copied()
                    && durable.covers(position)
                {
                    self.unsynced.pop_front();
                    self.synced = append;
                    self.durable = self.durable.max(position);
                }
                if self.unsynced.is_empty() {
                    self.synced = self.performed;
                }
                self.inputs.push_back(Input::Synced(self.synced, self.durable.as_u64()));
            }
            Err(_) => self.inputs.push_back(Input::SyncFailed),
        }
        self.pump(now);
    }

    /// Takes back a read that was run.
    pub fn finish_read(&mut self, now: Now, id: LoadId, done: ReadDone) {
        let tag = self.tags.remove(&id);
        let loaded = loaded(self.store.finish_read(done), tag);
        self.inputs.push_back(Input::Loaded(id, loaded));
        self.pump(now);
    }

    /// Makes a listing whose keys were read ahead.
    pub fn finish_list(&mut self, now: Now, list: List) {
        self.lists -= 1;
        self.make_list(list);
        self.pump(now);
    }

    /// A bounded step of the store's own work: sealing, preallocation, compaction. Whether there is more.
    pub fn maintain(&mut self, now: Now, budget_bytes: usize) -> bool {
        self.settled = self.engine.settled_wall(now);
        self.store.set_time(self.settled);
        let Ok(step) = self.store.maintain(budget_bytes) else { return false };
        self.wanted |= step.needs_sync;
        step.more
    }

    /// Reads on through what was written long ago, about so many bytes of it, and has damage healed by the other owners. How many
    /// damaged records there were.
    pub fn scrub(&mut self, now: Now, budget_bytes: usize) -> usize {
        // What the disk refuses to read comes again.
        let Ok(found) = self.store.scrub(budget_bytes) else { return 0 };
        let slots = found.damage.iter().filter_map(|damage| match damage.kind {
            DamageKind::Record { slot, .. } => Some(slot),
            // It can still be read.
            _ => None,
        });
        let before = self.inputs.len();
        self.inputs.extend(slots.map(|slot| Input::Damaged(Place(slot))));
        let damaged = self.inputs.len() - before;
        self.pump(now);
        damaged
    }

    /// How much of its time background work is to get now, in percent.
    pub fn background(&mut self, now: Now) -> u8 {
        self.engine.background(now.instant)
    }

    /// When to hand in [`Input::Tick`] at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.engine.deadline()
    }

    /// The engine.
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Changes what this node says of itself to all others.
    ///
    /// # Errors
    /// As [`Engine::set_facts`].
    pub fn set_facts(&mut self, facts: Vec<u8>) -> Result<(), GossipError> {
        self.engine.set_facts(facts)
    }

    /// The store.
    pub const fn store(&self) -> &Store<D> {
        &self.store
    }

    /// The store, for looking at copies from outside.
    pub const fn store_mut(&mut self) -> &mut Store<D> {
        &mut self.store
    }

    /// The wall time by which the store gives back what has expired; 0 if it is not certain.
    pub const fn settled(&self) -> u64 {
        self.settled
    }

    /// Shows every output of the engine from now on to `observer`, before it is performed.
    pub fn observe(&mut self, observer: Observer) {
        self.observer = Some(observer);
    }

    /// Hints in the store, for all owners together.
    pub fn hints(&self) -> u64 {
        let filled = self.store.slots(HINT_PLACES.0.0, HINT_PLACES.1.0);
        filled.map(|place| self.store.slot_len(place)).sum()
    }

    /// Ends the run and gives the store back.
    pub fn into_store(self) -> Store<D> {
        self.store
    }

    fn pump(&mut self, now: Now) {
        self.perform(now);
        while !self.saving
            && self.warning.is_none()
            && let Some(input) = self.inputs.pop_front()
        {
            self.engine.handle(now, input);
            self.perform(now);
        }
    }

    fn perform(&mut self, now: Now) {
        while !self.saving
            && self.warning.is_none()
            && let Some(output) = self.engine.poll()
        {
            if let Some(observer) = &mut self.observer {
                observer(&output);
            }
            match output {
                Output::Send(to, message) => self.effects.push_back(Effect::Send(to, message)),
                Output::Reply(to, reply) => self.effects.push_back(Effect::Reply(to, reply)),
                Output::Load { id, place, key } => match self.store.get(place.0, &key) {
                    // What it has noted of its peers, which is asked for once, at the start.
                    Ok(Read::Pending(job)) if place == RUN_PLACE => {
                        let loaded = loaded(self.store.finish_read(job.run()), None);
                        self.feed_load(id, loaded);
                    }
                    Ok(Read::Pending(job)) => {
                        self.tags.extend(self.store.tag(place.0, &key).map(|tag| (id, tag)));
                        self.effects.push_back(Effect::Fetch(id, job));
                    }
                    Ok(Read::Value { value, .. }) => self.feed_load(id, Loaded::Found(Bytes::from(value))),
                    // The engine was told that its node is incomplete, and by that what an absence is worth.
                    Ok(Read::Absent) => self.feed_load(id, Loaded::Absent),
                    // Hints are not what it is incomplete in.
                    Err(ReadError::Unknown) if place < HINT_PLACES.0 => self.feed_load(id, Loaded::Absent),
                    Err(error) => {
                        let tag = self.store.tag(place.0, &key);
                        self.feed_load(id, refused(&error, tag));
                    }
                },
                Output::Append { id, place, key, value, shrink } => {
                    self.performed = id;
                    let done = match &value {
                        // What the engine notes of itself: without it a node that starts on a full disk could not even delete.
                        Some((bytes, tag)) if place == RUN_PLACE => {
                            self.store.put_urgent(place.0, &key, bytes, *tag)
                        }
                        Some((bytes, tag)) => match shrink {
                            None => self.store.put(place.0, &key, bytes, *tag),
                            Some(Shrink { at_ms, kept }) => {
                                self.store.put_shrinking(place.0, &key, bytes, *tag, at_ms, kept)
                            }
                        },
                        None => self.store.delete(place.0, &key),
                    };
                    match done {
                        Ok(position) => self.performed(id, position),
                        // Before anything else, so that the engine mints no dot on top of one that is lost.
                        Err(_) => self.inputs.push_front(Input::AppendFailed(id)),
                    }
                }
                Output::Confirm(id) => self.inputs.push_back(Input::Written(id)),
                Output::Sync => self.wanted = true,
                Output::List { id, first, last, cursor, limit } => {
                    let from = cursor.unwrap_or(ListCursor { place: first, at: 0 });
                    let (list, at) = (List { id, from, last, limit }, Cursor::from_u64(from.at));
                    match self.store.read_ahead(from.place.0, at, last.0, limit) {
                        None => self.make_list(list),
                        Some(_) if self.lists >= MAX_LISTS => self.inputs.push_back(Input::Listed(id, None)),
                        Some(job) => {
                            self.lists += 1;
                            self.effects.push_back(Effect::ReadAhead(list, job));
                        }
                    }
                }
                Output::Sums { id, ranges } => {
                    let tree = self.store.tree().expect("a host's store has a hash tree");
                    let sums = ranges.iter().map(|(first, last)| tree.range(*first..=*last)).collect();
                    self.inputs.push_back(Input::Summed(id, sums));
                }
                Output::DropSlot { id, place } => {
                    self.performed = id;
                    match self.store.drop_slot(place.0) {
                        Ok(position) => self.performed(id, position),
                        Err(_) => self.inputs.push_front(Input::AppendFailed(id)),
                    }
                }
                Output::Save(membership) => {
                    self.saving = true;
                    self.effects.push_back(Effect::Save(membership));
                }
                Output::Known(node, facts) => self.effects.push_back(Effect::Known(node, facts)),
                Output::Cluster(id, done) => self.effects.push_back(Effect::Cluster(id, done)),
                Output::Incomplete => {
                    self.warning = Some(now);
                    self.effects.push_back(Effect::Incomplete);
                }
                Output::Recovered => {
                    self.store.accept_losses();
                    self.effects.push_back(Effect::Recovered);
                }
                other => unreachable!("an output that this host does not know: {other:?}"),
            }
        }
        // With nothing left to sync, what merely waits for its turn is durable.
        if self.unsynced.is_empty() && !self.syncing && self.synced < self.performed {
            self.synced = self.performed;
            self.inputs.push_back(Input::Synced(self.synced, self.durable.as_u64()));
        }
    }

    /// An append was performed. One that changed nothing has the position of an earlier one, and needs no sync if that had
    /// its own: none would come.
    fn performed(&mut self, id: AppendId, position: Position) {
        if !self.unsynced.is_empty() || position > self.durable {
            self.unsynced.push_back((id, position));
        }
    }

    fn feed_load(&mut self, id: LoadId, loaded: Loaded) {
        self.inputs.push_back(Input::Loaded(id, loaded));
    }

    fn make_list(&mut self, List { id, from, last, limit }: List) {
        let page = self.list(from, last, limit);
        self.inputs.push_back(Input::Listed(id, page));
    }

    fn list(&mut self, from: ListCursor, last: Place, limit: usize) -> Option<Page> {
        // What damage may have taken, from slots that look empty, too, is as missing as what can't be read.
        let mut listed = Page { unreadable: u64::from(self.store.has_unknown()), ..Page::default() };
        let mut next = Some(from.place.0);
        while let Some(place) = next.and_then(|first| self.store.slots(first, last.0).next()).map(Place) {
            next = place.0.checked_add(1);
            let at = if place == from.place { from.at } else { 0 };
            if listed.keys.len() >= limit {
                listed.next = Some(ListCursor { place, at });
                break;
            }
            let room = limit - listed.keys.len();
            let page = self.store.list(place.0, Cursor::from_u64(at), room).ok()?;
            listed.keys.extend(page.keys.into_iter().map(Bytes::from).zip(page.tags));
            listed.unreadable += page.unreadable;
            if let Some(next) = page.next {
                listed.next = Some(ListCursor { place, at: next.as_u64() });
                break;
            }
        }
        Some(listed)
    }
}

/// Which opening of its store this is, for the engine's configuration.
pub fn opening<D: Disk>(store: &mut Store<D>) -> Opening {
    let position = store.position().as_u64();
    let record = match store.get(RUN_PLACE.0, RUN_KEY) {
        Ok(Read::Pending(job)) => store.finish_read(job.run()),
        other => other,
    };
    match record {
        Ok(Read::Value { value, .. }) => Opening::new(Some(&value), position),
        // A record that can't be read is like one of an old copy: peers find out what it is worth.
        Ok(Read::Absent | Read::Pending(_)) | Err(_) => Opening::new(None, position),
    }
}

fn loaded(read: Result<Read<impl Disk>, ReadError>, tag: Option<u64>) -> Loaded {
    match read {
        Ok(Read::Value { value, .. }) => Loaded::Found(Bytes::from(value)),
        Ok(Read::Absent) | Err(ReadError::Unknown) => Loaded::Absent,
        Ok(Read::Pending(_)) => Loaded::Unknown(tag),
        Err(error) => refused(&error, tag),
    }
}

/// What a disk refuses to read comes again, perhaps; not so a record that is damaged, or whose place in the index another key has taken.
const fn refused(error: &ReadError, tag: Option<u64>) -> Loaded {
    match error {
        ReadError::Damaged { .. } | ReadError::Collision => Loaded::Damaged,
        _ => Loaded::Unknown(tag),
    }
}

#[cfg(all(test, feature = "server"))]
#[path = "host_tests.rs"]
mod tests;
