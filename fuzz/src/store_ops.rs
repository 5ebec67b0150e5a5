//! A store under a sequence of operations and disk faults, against a map.
//!
//! While it runs it answers what the map says, by a clock that goes on. After a power cut a key has its last durable value or one
//! of the later ones, and after a kill exactly what was seen; neither is ever reported as damage. Where files rot a key shows what
//! it was or is unknown; an earlier value, or none, only if the report says that it can't know whose records are gone.

use crate::source::Source;
use gramme_store::{
    Cursor, DamageKind, Disk, Durable, MemDisk, Options, Position, Read, ReadError, Recovery, Store,
    SyncDone, WriteError,
};
use std::collections::{BTreeMap, BTreeSet};

type Key = (u16, &'static [u8]);
/// Value, tag, and what time does to it.
type Held = (Vec<u8>, u64, Term);
type Value = Option<Held>;

/// What time does to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Term {
    None,
    /// It is gone from this moment on.
    Expires(u64),
    /// From this moment on only so many bytes may be left.
    Shrinks(u64, usize),
}

/// What a key holds whose record is damaged.
fn unknown() -> Held {
    (b"unknown".to_vec(), u64::MAX, Term::None)
}

/// Bytes at the beginning of each value that no other has.
const UNIQUE_BYTES: usize = 8;

const SLOTS: [u16; 4] = [0, 1, 16_384, 65_535];
const KEYS: [&[u8]; 5] = [b"a", b"b", b"bb", b"a longer key than the others", &[0; 300]];

/// What a write did to a key, unless it is durable.
struct Effect {
    at: Position,
    key: Key,
    value: Value,
}

struct Model {
    visible: BTreeMap<Key, Held>,
    durable: BTreeMap<Key, Held>,
    /// Everything that was ever put.
    written: BTreeMap<Key, Vec<Held>>,
    time: u64,
    pending: Vec<Effect>,
    /// What may have happened all the same: a write that failed half-way.
    uncertain: Vec<(Key, Value)>,
    last: Option<Position>,
    /// Damage to what was durable may be reported from now on.
    has_rotted: bool,
}

struct World {
    disk: MemDisk,
    store: Option<Store<MemDisk>>,
    sync: Option<SyncDone>,
    model: Model,
    openings: u64,
    segment_bytes: u64,
}

/// One sequence.
///
/// # Panics
/// If the store's answers are not the model's.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let disk = MemDisk::new();
    let model = Model {
        visible: BTreeMap::new(),
        durable: BTreeMap::new(),
        written: BTreeMap::new(),
        time: 0,
        pending: Vec::new(),
        uncertain: Vec::new(),
        last: None,
        has_rotted: false,
    };
    let segment_bytes = [4096, 8192, 65_536][source.below(3)];
    let mut world = World { disk, store: None, sync: None, model, openings: 0, segment_bytes };
    world.open();
    for _ in 0..200 {
        if source.is_empty() {
            break;
        }
        world.step(&mut source);
    }
    world.disk.crash(1);
    world.lost_power();
}

impl World {
    fn store(&mut self) -> &mut Store<MemDisk> {
        self.store.as_mut().expect("it is open")
    }

    fn step(&mut self, source: &mut Source<'_>) {
        let choice = source.byte();
        let slot = SLOTS[usize::from(choice >> 6)];
        let key = (slot, KEYS[source.below(KEYS.len())]);
        if choice & 32 > 0 {
            // Whatever is read next is to be read on.
            self.disk.shorten_next_reads(8, u64::from(choice));
        }
        match choice % 32 {
            0..=6 => self.put(key, source, Term::None),
            7 => {
                let (after, kept) = (u64::from(source.byte()), UNIQUE_BYTES + source.below(40));
                self.put(key, source, Term::Shrinks(self.model.time + after, kept));
            }
            8 => {
                let after = 1 + u64::from(source.byte());
                self.put(key, source, Term::Expires(self.model.time + after));
            }
            9 if source.byte().is_multiple_of(4) => self.rot(source),
            9 => {
                self.model.time += u64::from(source.byte());
                let time = self.model.time;
                self.store().set_time(time);
            }
            10 | 11 => self.delete(key),
            12 => self.drop_slot(slot),
            13 | 14 => self.get(key),
            15 => self.list(slot, 1 + source.below(4)),
            16..=18 => self.sync(),
            19 => {
                // Begun, and completed later.
                if self.sync.is_none() {
                    self.sync = self.store().begin_sync().map(|job| job.run());
                }
            }
            20 => self.complete_sync(),
            21 | 22 => {
                let budget = usize::from(source.byte()) * 100;
                self.maintain(budget);
            }
            23 => {
                let seed = u64::from(source.byte());
                self.disk.crash(seed);
                self.lost_power();
            }
            24 => {
                self.disk.kill();
                self.restarted();
            }
            25 => self.close(),
            26 => {
                self.disk.fail_next_syncs(1);
                self.sync();
                self.disk.fail_next_syncs(0);
            }
            27 => {
                self.disk.fail_next_writes(1);
                self.put(key, source, Term::None);
                self.disk.fail_next_writes(0);
            }
            28 => {
                let room = source.flag().then(|| self.disk.used_bytes() + u64::from(source.byte()) * 64);
                self.disk.set_capacity(room);
            }
            29 => self.disk.cut_power_after(u64::from(source.byte() % 16)),
            30 => {
                self.disk.fail_next_reads(1);
                match self.store().get(key.0, key.1) {
                    Err(ReadError::Disk(_)) => {}
                    Ok(Read::Absent) | Err(ReadError::Unknown) => assert_eq!(self.model.now(key), None),
                    other => panic!("{other:?} from a disk that can't read"),
                }
                self.disk.fail_next_reads(0);
            }
            // The power fails once more while the store opens.
            _ => {
                let seed = u64::from(source.byte());
                self.disk.crash(seed);
                self.disk.cut_power_after(u64::from(source.byte() % 12));
                self.lost_power();
            }
        }
        if !self.disk.is_powered() {
            self.disk.crash(u64::from(source.byte()));
            self.lost_power();
        }
    }

    fn put(&mut self, key: Key, source: &mut Source<'_>, term: Term) {
        let length = usize::from(source.byte()) * [1, 1, 8, 40][source.below(4)];
        let tag = u64::from(source.byte());
        let fill = source.byte();
        // No two values alike, nor what may be left of them.
        let unique = self.openings << 32 | self.model.written.get(&key).map_or(0, Vec::len) as u64;
        let mut value = unique.to_le_bytes().to_vec();
        value.resize(UNIQUE_BYTES + length, fill);
        let written = match term {
            Term::None => self.store().put(key.0, key.1, &value, tag),
            Term::Expires(at) => self.store().put_expiring(key.0, key.1, &value, tag, at),
            Term::Shrinks(at, kept) => self.store().put_shrinking(key.0, key.1, &value, tag, at, kept),
        };
        let held = (value, tag, term);
        self.model.written.entry(key).or_default().push(held.clone());
        self.wrote(written, vec![(key, Some(held))]);
    }

    fn delete(&mut self, key: Key) {
        let written = self.store().delete(key.0, key.1);
        self.wrote(written, vec![(key, None)]);
    }

    fn drop_slot(&mut self, slot: u16) {
        let written = self.store().drop_slot(slot);
        self.wrote(written, KEYS.iter().map(|key| ((slot, *key), None)).collect());
    }

    fn wrote(&mut self, written: Result<Position, WriteError>, effects: Vec<(Key, Value)>) {
        match written {
            Ok(at) => {
                assert!(self.model.last.is_none_or(|last| last <= at), "positions go up");
                self.model.last = Some(at);
                for (key, value) in effects {
                    match &value {
                        Some(held) => self.model.visible.insert(key, held.clone()),
                        None => self.model.visible.remove(&key),
                    };
                    self.model.pending.push(Effect { at, key, value });
                }
            }
            Err(WriteError::Disk(_)) => {
                assert!(!self.store().writable(), "a write failed, and writing goes on");
                self.model.uncertain.extend(effects);
            }
            Err(WriteError::Poisoned) => assert!(!self.store().writable()),
            Err(WriteError::NoSpace | WriteError::NewSegment(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn get(&mut self, key: Key) {
        let expected = self.model.now(key);
        let tag = self.store().tag(key.0, key.1);
        if self.is_exact(key) {
            assert_eq!(tag, expected.as_ref().map(|(_, tag, _)| *tag));
        }
        if let Some(found) = self.read(key) {
            assert_eq!(found, expected, "{key:?}");
        }
    }

    /// Whether what is stored of a key is what is seen: it has not expired, and is known.
    fn is_exact(&self, key: Key) -> bool {
        let stored = self.model.visible.get(&key);
        stored.is_none_or(|held| *held != unknown() && self.model.seen(stored.cloned()).is_some())
            && (stored.is_some() || self.model.time == 0)
    }

    /// `None` if there is no power to read with.
    fn read(&mut self, key: Key) -> Option<Value> {
        let (powered, has_rotted) = (self.disk.is_powered(), self.model.has_rotted);
        match self.store().get(key.0, key.1) {
            Ok(Read::Absent) => Some(None),
            Err(ReadError::Unknown) if has_rotted => Some(None),
            Ok(Read::Value { value, tag, expires }) => Some(Some(self.model.known(key, value, tag, expires))),
            Err(ReadError::Damaged { .. }) if has_rotted => Some(Some(unknown())),
            Err(ReadError::Disk(_)) if !powered => None,
            other => panic!("{other:?}"),
        }
    }

    fn list(&mut self, slot: u16, limit: usize) {
        let (mut found, mut unreadable) = (BTreeSet::new(), 0);
        let mut cursor = Cursor::START;
        loop {
            let powered = self.disk.is_powered();
            let page = match self.store().list(slot, cursor, limit) {
                Ok(page) => page,
                Err(ReadError::Disk(_)) if !powered => return,
                Err(error) => panic!("{error}"),
            };
            unreadable += page.unreadable;
            assert!(page.keys.len() <= limit);
            found.extend(page.keys);
            match page.next {
                Some(next) => cursor = next,
                None => break,
            }
        }
        let there: Vec<(&[u8], bool)> = KEYS
            .iter()
            .filter_map(|key| self.model.now((slot, key)).map(|held| (*key, held == unknown())))
            .collect();
        // The key of a damaged record may be whole, and its stamp past.
        let unknown = there.iter().filter(|(_, unknown)| *unknown).count() as u64;
        for (key, is_unknown) in &there {
            assert!(*is_unknown || found.contains(*key), "{key:?} is not listed");
        }
        assert!(unreadable <= unknown);
        assert!(
            found.iter().all(|key| there.iter().any(|(other, _)| other == key)),
            "{found:?} of {there:?}"
        );
        let (in_slot, keys) = (there.len() as u64, self.model.visible.len() as u64);
        if self.model.time == 0 {
            assert_eq!(self.store().slot_len(slot), in_slot);
            assert_eq!((self.store().len(), self.store().stats().keys), (keys, keys));
        } else {
            // What has expired counts until it is compacted away.
            assert!(self.store().slot_len(slot) >= in_slot);
        }
    }

    fn sync(&mut self) {
        self.complete_sync();
        let done = self.store().sync();
        self.synced(done);
    }

    fn complete_sync(&mut self) {
        if let Some(done) = self.sync.take() {
            let done = self.store().complete_sync(done);
            self.synced(done);
        }
    }

    fn synced(&mut self, done: Result<Durable, WriteError>) {
        match done {
            Ok(durable) => {
                let (now, later) = core::mem::take(&mut self.model.pending)
                    .into_iter()
                    .partition::<Vec<_>, _>(|effect| durable.covers(effect.at));
                for Effect { key, value, .. } in now {
                    match value {
                        Some(held) => self.model.durable.insert(key, held),
                        None => self.model.durable.remove(&key),
                    };
                }
                self.model.pending = later;
            }
            Err(WriteError::Disk(_) | WriteError::Poisoned) => assert!(!self.store().writable()),
            Err(error) => panic!("{error}"),
        }
    }

    fn maintain(&mut self, budget: usize) {
        for _ in 0..4 {
            match self.store().maintain(budget) {
                Ok(done) if done.more => {}
                Ok(_) | Err(WriteError::NoSpace | WriteError::NewSegment(_)) => return,
                Err(WriteError::Disk(_) | WriteError::Poisoned) => return assert!(!self.store().writable()),
                Err(WriteError::Unreadable(_)) => {
                    return assert!(!self.disk.is_powered(), "the disk can be read");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn close(&mut self) {
        self.sync = None;
        let closed = self.store.take().expect("it is open").close();
        self.disk.kill();
        match closed {
            Ok(()) => self.model.durable = self.model.visible.clone(),
            Err(_) => return self.restarted(),
        }
        self.model.pending.clear();
        self.open();
        self.check(|model, key| vec![model.visible.get(&key).cloned()]);
    }

    /// The process was killed; the disk has all that it was given.
    fn restarted(&mut self) {
        self.sync = None;
        self.store = None;
        if !self.disk.is_powered() {
            self.disk.crash(7);
            return self.lost_power();
        }
        let candidates = if self.open() { Model::after_power_cut } else { Model::after_kill };
        self.check(candidates);
    }

    /// The power was cut.
    fn lost_power(&mut self) {
        self.sync = None;
        self.store = None;
        self.open();
        self.check(Model::after_power_cut);
    }

    /// All is synced, the store closed, and its files rot.
    fn rot(&mut self, source: &mut Source<'_>) {
        self.sync();
        if !self.disk.is_powered() || !self.store().writable() {
            return;
        }
        self.disk.cut_power_after(u64::MAX);
        self.disk.set_capacity(None);
        self.store.take().expect("it is open").close().expect("the disk is well");
        self.disk.kill();
        self.model.durable = self.model.visible.clone();
        self.model.pending.clear();
        self.model.has_rotted = true;
        let mut names = self.disk.list().expect("the disk is well");
        names.retain(|name| name.ends_with(".seg") || name.ends_with(".idx") || name == "CHAIN");
        for _ in 0..1 + source.below(3) {
            // One that was opened on a full disk has none yet.
            if names.is_empty() {
                break;
            }
            let name = &names[source.below(names.len())];
            let mut bytes = self.disk.contents(name).unwrap_or_default();
            let place = usize::from(source.u16()) % bytes.len().max(1);
            match source.byte() % 8 {
                0..=3 => {
                    let mask = source.byte().max(1);
                    bytes.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= mask);
                }
                4 | 5 => {
                    let (length, new) = (usize::from(source.byte()) * 4, source.byte());
                    bytes.iter_mut().skip(place).take(length).for_each(|byte| *byte = new);
                }
                6 => bytes.truncate(place),
                _ if name.ends_with(".idx") => {
                    self.disk.remove(name).expect("it is there");
                    names.retain(|name| self.disk.contents(name).is_some());
                    continue;
                }
                _ => {}
            }
            self.disk.plant(name, &bytes);
        }
        self.openings += 1;
        let (store, recovery) =
            Store::open(self.disk.clone(), self.options()).expect("opens, whatever has rotted");
        self.store = Some(store);
        let time = self.model.time;
        self.store().set_time(time);
        self.check_rotten(&recovery);
    }

    fn check_rotten(&mut self, recovery: &Recovery) {
        let any_key =
            |kind| matches!(kind, DamageKind::Unknown | DamageKind::Unreadable | DamageKind::CutOff);
        let any_key = recovery.damage.iter().any(|damage| any_key(damage.kind));
        self.check(|model, key| {
            let mut allowed = vec![model.now(key)];
            // An opening by index files has not read the records.
            if recovery.affects(key.0) || recovery.index_files > 0 {
                allowed.push(Some(unknown()));
            }
            if any_key {
                allowed.push(None);
            }
            // A byte that is changed twice may be as it was.
            if any_key || allowed[0] == Some(unknown()) {
                allowed.extend(model.written.get(&key).into_iter().flatten().cloned().map(Some));
            }
            allowed
        });
    }

    fn options(&self) -> Options {
        Options::new(u128::from(self.openings).to_le_bytes()).with_segment_bytes(self.segment_bytes)
    }

    /// Opens until it succeeds. Whether the power was cut meanwhile.
    fn open(&mut self) -> bool {
        let mut tries = 0u64;
        let mut cut = false;
        loop {
            self.openings += 1;
            if self.openings.is_multiple_of(2) {
                self.disk.shorten_next_reads(8, self.openings);
            }
            match Store::open(self.disk.clone(), self.options()) {
                Ok((mut store, recovery)) => {
                    assert!(self.model.has_rotted || recovery.damage.is_empty(), "{recovery:?}");
                    assert_eq!(recovery.keys, store.len());
                    store.set_time(self.model.time);
                    self.store = Some(store);
                    if self.disk.is_powered() {
                        return cut;
                    }
                    self.store = None;
                }
                Err(error) => {
                    let hindered = !self.disk.is_powered() || tries == 0;
                    assert!(hindered, "a healthy disk does not open: {error}");
                }
            }
            if !self.disk.is_powered() {
                self.disk.crash(tries);
                cut = true;
            }
            // A full disk may refuse what an opening needs.
            self.disk.set_capacity(None);
            tries += 1;
        }
    }

    /// After an opening every key is one of what it may be; from now on it is that, and durable.
    fn check(&mut self, candidates: impl Fn(&Model, Key) -> Vec<Value>) {
        let mut found = BTreeMap::new();
        for slot in SLOTS {
            for key in KEYS {
                let key = (slot, key);
                let value = self.read(key).expect("there is power");
                let mut allowed =
                    candidates(&self.model, key).into_iter().map(|value| self.model.seen(value));
                assert!(allowed.any(|one| one == value), "{key:?} is {value:?}");
                found.extend(value.map(|held| (key, held)));
            }
        }
        let len = self.store().len();
        assert!(len == found.len() as u64 || (self.model.time > 0 && len > found.len() as u64));
        self.model.durable = found.clone();
        self.model.visible = found;
        // Places of writes that a crash took are given again.
        self.model.last = Some(self.store().position());
        self.model.pending.clear();
        self.model.uncertain.clear();
    }
}

impl Model {
    /// What is to be seen of a value by now.
    fn seen(&self, value: Value) -> Value {
        value.filter(|(_, _, term)| !matches!(term, Term::Expires(at) if *at <= self.time))
    }

    /// The value that was put and was read now, whole or what may be left of it.
    fn known(&self, key: Key, found: Vec<u8>, tag: u64, expires: Option<u64>) -> Held {
        let is_it = |(value, _, term): &&Held| match *term {
            Term::Shrinks(at, kept) => {
                found == *value || (at <= self.time && value.get(..kept) == Some(&found))
            }
            _ => false,
        };
        match (expires, self.written.get(&key).into_iter().flatten().find(is_it)) {
            (None, Some((value, _, term))) => (value.clone(), tag, *term),
            _ => (found, tag, expires.map_or(Term::None, Term::Expires)),
        }
    }

    fn now(&self, key: Key) -> Value {
        self.seen(self.visible.get(&key).cloned())
    }

    fn after_kill(&self, key: Key) -> Vec<Value> {
        let uncertain = self.uncertain.iter().filter(|(of, _)| *of == key).map(|(_, value)| value.clone());
        uncertain.chain([self.visible.get(&key).cloned()]).collect()
    }

    fn after_power_cut(&self, key: Key) -> Vec<Value> {
        let pending =
            self.pending.iter().filter(|effect| effect.key == key).map(|effect| effect.value.clone());
        let durable = self.durable.get(&key).cloned();
        let uncertain = self.uncertain.iter().filter(|(of, _)| *of == key).map(|(_, value)| value.clone());
        pending.chain(uncertain).chain([durable]).collect()
    }
}
