//! A store under a sequence of operations and disk faults, against a map.
//!
//! While it runs it answers what the map says. After a power cut a key has its last durable value or one of the later
//! ones, and after a kill exactly what was seen; neither is ever reported as damage.

use crate::source::Source;
use gramme_store::{
    Cursor, Durable, MemDisk, Options, Position, Read, ReadError, Store, SyncDone, WriteError,
};
use std::collections::{BTreeMap, BTreeSet};

type Key = (u16, &'static [u8]);
type Value = Option<(Vec<u8>, u64)>;

const SLOTS: [u16; 4] = [0, 1, 16_384, 65_535];
const KEYS: [&[u8]; 5] = [b"a", b"b", b"bb", b"a longer key than the others", &[0; 300]];

/// What a write did to a key, unless it is durable.
struct Effect {
    at: Position,
    key: Key,
    value: Value,
}

struct Model {
    visible: BTreeMap<Key, (Vec<u8>, u64)>,
    durable: BTreeMap<Key, (Vec<u8>, u64)>,
    pending: Vec<Effect>,
    /// What may have happened all the same: a write that failed half-way.
    uncertain: Vec<(Key, Value)>,
    last: Option<Position>,
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
        pending: Vec::new(),
        uncertain: Vec::new(),
        last: None,
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
        match choice % 32 {
            0..=9 => self.put(key, source),
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
                self.put(key, source);
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
                    Ok(Read::Absent) => assert!(!self.model.visible.contains_key(&key)),
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

    fn put(&mut self, key: Key, source: &mut Source<'_>) {
        let length = usize::from(source.byte()) * [1, 1, 8, 40][source.below(4)];
        let tag = u64::from(source.byte());
        let mut value = vec![source.byte(); length];
        // No two values alike.
        let unique = self.openings << 32 | self.model.pending.len() as u64;
        value.extend_from_slice(&unique.to_le_bytes());
        let written = self.store().put(key.0, key.1, &value, tag);
        self.wrote(written, vec![(key, Some((value, tag)))]);
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
        let expected = self.model.visible.get(&key).cloned();
        assert_eq!(self.store().tag(key.0, key.1), expected.as_ref().map(|(_, tag)| *tag));
        if let Some(found) = self.read(key) {
            assert_eq!(found, expected, "{key:?}");
        }
    }

    /// `None` if there is no power to read with.
    fn read(&mut self, key: Key) -> Option<Value> {
        let powered = self.disk.is_powered();
        match self.store().get(key.0, key.1) {
            Ok(Read::Absent) => Some(None),
            Ok(Read::Value { value, tag, .. }) => Some(Some((value, tag))),
            Err(ReadError::Disk(_)) if !powered => None,
            other => panic!("{other:?}"),
        }
    }

    fn list(&mut self, slot: u16, limit: usize) {
        let mut found = BTreeSet::new();
        let mut cursor = Cursor::START;
        loop {
            let powered = self.disk.is_powered();
            let page = match self.store().list(slot, cursor, limit) {
                Ok(page) => page,
                Err(ReadError::Disk(_)) if !powered => return,
                Err(error) => panic!("{error}"),
            };
            assert_eq!(page.unreadable, 0);
            assert!(page.keys.len() <= limit);
            found.extend(page.keys);
            match page.next {
                Some(next) => cursor = next,
                None => break,
            }
        }
        let expected = self.model.visible.keys().filter(|(of, _)| *of == slot);
        assert!(found.iter().map(Vec::as_slice).eq(expected.clone().map(|(_, key)| *key)));
        assert_eq!(self.store().slot_len(slot), found.len() as u64);
        let keys = self.model.visible.len() as u64;
        assert_eq!((self.store().len(), self.store().stats().keys), (keys, keys));
    }

    fn sync(&mut self) {
        self.complete_sync();
        let done = self.store().sync();
        self.synced(done);
    }

    fn complete_sync(&mut self) {
        if let Some(done) = self.sync.take() {
            let done = self.store().complete_sync(done).map(Some);
            self.synced(done);
        }
    }

    fn synced(&mut self, done: Result<Option<Durable>, WriteError>) {
        match done {
            Ok(Some(durable)) => {
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
            Ok(None) => {}
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

    /// Opens until it succeeds. Whether the power was cut meanwhile.
    fn open(&mut self) -> bool {
        let mut tries = 0u64;
        let mut cut = false;
        loop {
            self.openings += 1;
            let seed = u128::from(self.openings).to_le_bytes();
            let options = Options::new(seed).with_segment_bytes(self.segment_bytes);
            match Store::open(self.disk.clone(), options) {
                Ok((store, recovery)) => {
                    assert!(recovery.damage.is_empty(), "{recovery:?}");
                    assert_eq!(recovery.keys, store.len());
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
                let allowed = candidates(&self.model, key);
                assert!(allowed.contains(&value), "{key:?} is {value:?} where it may be {allowed:?}");
                assert_eq!(self.store().tag(key.0, key.1), value.as_ref().map(|(_, tag)| *tag));
                found.extend(value.map(|held| (key, held)));
            }
        }
        assert_eq!(self.store().len(), found.len() as u64);
        self.model.durable = found.clone();
        self.model.visible = found;
        // Places of writes that a crash took are given again.
        self.model.last = Some(self.store().position());
        self.model.pending.clear();
        self.model.uncertain.clear();
    }
}

impl Model {
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
