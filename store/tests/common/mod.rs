//! A model of what a store may hold after a crash.
#![allow(dead_code, unreachable_pub)] // Each test file takes in a part of it.

use gramme_store::{Disk, Durable, Options, Position, Read, ReadError, Store, SyncDone, SyncJob, WriteError};
use std::collections::BTreeMap;

pub const SLOTS: u16 = 3;
pub const KEYS: u8 = 6;

pub fn options(seed: u8) -> Options {
    Options::new([seed; 16]).with_segment_bytes(4096)
}

/// One operation of a workload.
#[derive(Clone, Debug)]
pub enum Op {
    Put {
        slot: u16,
        key: u8,
        len: usize,
    },
    /// Expires so long after now.
    PutExpiring {
        slot: u16,
        key: u8,
        len: usize,
        after: u64,
    },
    /// May shrink so long after now.
    PutShrinking {
        slot: u16,
        key: u8,
        len: usize,
        after: u64,
    },
    /// The clock goes on.
    Tick {
        by: u64,
    },
    Delete {
        slot: u16,
        key: u8,
    },
    DropSlot {
        slot: u16,
    },
    Sync,
    /// Begun here, run and completed a few operations later: writes come in between.
    BeginSync,
    RunSync,
    /// Runs it before, if nothing has.
    EndSync,
    Maintain {
        budget: usize,
    },
}

/// What a key may hold: the value's number, or nothing.
pub type Content = Option<u64>;

/// The number of a value that damage has made unknown.
pub const UNKNOWN: u64 = u64::MAX;

/// Of a moment: the value may shrink at it, and does not expire.
const SHRINKS: u64 = 1 << 15;

/// A value's number says its length and its moment (0: none), besides being one of a kind.
fn number(moment: u64, len: usize, writes: u64) -> u64 {
    assert!(moment < 0xffff && writes < 1 << 32);
    moment << 48 | (len as u64) << 32 | writes
}

/// When the value of this number expires; 0: never.
fn expires(number: u64) -> u64 {
    if shrinks(number).is_some() { 0 } else { number >> 48 }
}

/// When it may shrink.
fn shrinks(number: u64) -> Option<u64> {
    (number >> 48 & SHRINKS != 0).then_some(number >> 48 & (SHRINKS - 1))
}

/// How much is to stay of a value that may shrink: its number at least, and sometimes all.
fn kept(number: u64) -> usize {
    8 + usize::try_from(number % 50).expect("little")
}

/// For each key what was durable last, and what was written since.
#[derive(Clone, Debug, Default)]
pub struct Model {
    durable: BTreeMap<(u16, u8), Content>,
    /// In order; a crash may leave the key as any of these, or as it was durable.
    pending: BTreeMap<(u16, u8), Vec<(u64, Content)>>,
    /// The clock.
    pub time: u64,
}

impl Model {
    /// What is to be seen of this content by now.
    fn seen(&self, content: Content) -> Content {
        content.filter(|number| *number == UNKNOWN || expires(*number) == 0 || expires(*number) > self.time)
    }

    pub fn write(&mut self, slot: u16, key: u8, position: u64, content: Content) {
        self.pending.entry((slot, key)).or_default().push((position, content));
    }

    /// The content that a running store must show.
    pub fn now(&self, slot: u16, key: u8) -> Content {
        self.seen(match self.pending.get(&(slot, key)).and_then(|writes| writes.last()) {
            Some((_, content)) => *content,
            None => self.durable.get(&(slot, key)).copied().flatten(),
        })
    }

    pub fn synced(&mut self, durable: Durable) {
        for (key, writes) in &mut self.pending {
            while let Some((position, content)) = writes.first().copied()
                && position <= durable.through().as_u64()
            {
                self.durable.insert(*key, content);
                writes.remove(0);
            }
        }
    }

    pub fn allows(&self, slot: u16, key: u8, content: Content) -> bool {
        content == self.seen(self.durable.get(&(slot, key)).copied().flatten())
            || self
                .pending
                .get(&(slot, key))
                .is_some_and(|writes| writes.iter().any(|(_, written)| self.seen(*written) == content))
    }

    /// After a recovery: what was found is durable.
    pub fn settle(&mut self, found: &BTreeMap<(u16, u8), Content>) {
        self.durable.clone_from(found);
        self.pending.clear();
    }
}

pub fn key_bytes(slot: u16, key: u8) -> Vec<u8> {
    [b"key".as_slice(), &slot.to_le_bytes(), &[key]].concat()
}

/// The value of a number: known to the last byte, and long or short as the number says.
pub fn value_bytes(number: u64) -> Vec<u8> {
    let len = usize::try_from(number >> 32 & 0xffff).expect("a length");
    let mut value = vec![number.to_le_bytes()[0]; len.max(8)];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

/// A sync that is under way.
enum Phase<D: Disk> {
    Begun(SyncJob<D>),
    Run(SyncDone),
}

impl<D: Disk> Phase<D> {
    fn run(self) -> SyncDone {
        match self {
            Self::Begun(job) => job.run(),
            Self::Run(done) => done,
        }
    }
}

/// A store under test with its model.
pub struct Run<D: Disk> {
    pub store: Store<D>,
    pub model: Model,
    /// Every value that a key ever was to have.
    pub written: BTreeMap<(u16, u8), Vec<u64>>,
    sync: Option<Phase<D>>,
    writes: u64,
}

impl<D: Disk> Run<D> {
    pub fn new(store: Store<D>, model: Model, first_number: u64) -> Self {
        Self { store, model, written: BTreeMap::new(), sync: None, writes: first_number }
    }

    /// Does one operation. An error must leave what can be seen as it was; what was under way may yet turn up after a crash.
    pub fn step(&mut self, op: &Op) -> Result<(), WriteError> {
        let at = self.store.position().as_u64() + 1;
        match op {
            Op::Put { slot, key, len } => {
                let number = self.next_number(*slot, *key, 0, *len);
                let outcome = self.store.put(*slot, &key_bytes(*slot, *key), &value_bytes(number), number);
                self.note(outcome, &[(*slot, *key)], at, Some(number))
            }
            Op::PutExpiring { slot, key, len, after } => {
                let expires = self.model.time + after;
                let number = self.next_number(*slot, *key, expires, *len);
                let (key_bytes, value) = (key_bytes(*slot, *key), value_bytes(number));
                let outcome = self.store.put_expiring(*slot, &key_bytes, &value, number, expires);
                self.note(outcome, &[(*slot, *key)], at, Some(number))
            }
            Op::PutShrinking { slot, key, len, after } => {
                let shrinks = self.model.time + after;
                let number = self.next_number(*slot, *key, SHRINKS | shrinks, *len);
                let (key_bytes, value) = (key_bytes(*slot, *key), value_bytes(number));
                let outcome =
                    self.store.put_shrinking(*slot, &key_bytes, &value, number, shrinks, kept(number));
                self.note(outcome, &[(*slot, *key)], at, Some(number))
            }
            Op::Tick { by } => {
                self.model.time += by;
                self.store.set_time(self.model.time);
                Ok(())
            }
            Op::Delete { slot, key } => {
                let outcome = self.store.delete(*slot, &key_bytes(*slot, *key));
                self.note(outcome, &[(*slot, *key)], at, None)
            }
            Op::DropSlot { slot } => {
                let outcome = self.store.drop_slot(*slot);
                let keys: Vec<(u16, u8)> = (0..KEYS).map(|key| (*slot, key)).collect();
                self.note(outcome, &keys, at, None)
            }
            Op::Sync => {
                self.end_sync()?;
                self.model.synced(self.store.sync()?);
                Ok(())
            }
            Op::BeginSync => {
                if self.sync.is_none() {
                    self.sync = self.store.begin_sync().map(Phase::Begun);
                }
                Ok(())
            }
            Op::RunSync => {
                self.sync = self.sync.take().map(|phase| Phase::Run(phase.run()));
                Ok(())
            }
            Op::EndSync => self.end_sync(),
            Op::Maintain { budget } => self.store.maintain(*budget).map(|_| ()),
        }
    }

    fn next_number(&mut self, slot: u16, key: u8, moment: u64, len: usize) -> u64 {
        self.writes += 1;
        let number = number(moment, len, self.writes);
        self.written.entry((slot, key)).or_default().push(number);
        number
    }

    fn end_sync(&mut self) -> Result<(), WriteError> {
        if let Some(phase) = self.sync.take() {
            self.model.synced(self.store.complete_sync(phase.run())?);
        }
        Ok(())
    }

    fn note(
        &mut self,
        outcome: Result<Position, WriteError>,
        keys: &[(u16, u8)],
        at: u64,
        content: Content,
    ) -> Result<(), WriteError> {
        match outcome {
            Ok(position) => {
                for (slot, key) in keys {
                    // A removal of what is not there is no write; its position is an earlier one's.
                    if position.as_u64() >= at {
                        self.model.write(*slot, *key, position.as_u64(), content);
                    }
                }
                Ok(())
            }
            // Nothing of it may ever be seen.
            Err(error @ (WriteError::NoSpace | WriteError::NewSegment(_))) => Err(error),
            Err(error) => {
                for (slot, key) in keys {
                    let before = self.model.now(*slot, *key);
                    self.model.write(*slot, *key, at, content);
                    self.model.write(*slot, *key, at, before);
                }
                Err(error)
            }
        }
    }

    /// The running store must show exactly what was written last.
    pub fn check_now(&mut self) {
        for slot in 0..SLOTS {
            for key in 0..KEYS {
                let expected = self.model.now(slot, key);
                let found = content(&mut self.store, self.model.time, slot, key);
                assert_eq!(found, expected, "slot {slot}, key {key}");
            }
        }
    }
}

/// What a store shows of a key by now, checked to the last byte. What may have shrunk may be whole, too.
pub fn content<D: Disk>(store: &mut Store<D>, now: u64, slot: u16, key: u8) -> Content {
    match store.get(slot, &key_bytes(slot, key)) {
        Ok(Read::Value { value, tag, expires: found }) => {
            let mut whole = value_bytes(tag);
            if shrinks(tag).is_some_and(|at| at <= now) && value.len() < whole.len() {
                whole.truncate(kept(tag));
            }
            assert_eq!(value, whole, "slot {slot}, key {key}");
            assert_eq!(found.unwrap_or(0), expires(tag), "slot {slot}, key {key}");
            assert_eq!(store.tag(slot, &key_bytes(slot, key)), Some(tag));
            Some(tag)
        }
        // Only after damage, which `open_rotten` sees to.
        Ok(Read::Absent) | Err(ReadError::Unknown) => None,
        Err(ReadError::Damaged { .. }) => Some(UNKNOWN),
        other => panic!("{other:?}"),
    }
}

pub fn contents<D: Disk>(store: &mut Store<D>, now: u64) -> BTreeMap<(u16, u8), Content> {
    let keys = (0..SLOTS).flat_map(|slot| (0..KEYS).map(move |key| (slot, key)));
    keys.map(|(slot, key)| ((slot, key), content(store, now, slot, key))).collect()
}

/// Everything found must be allowed, and listed.
pub fn check_recovered<D: Disk>(store: &mut Store<D>, model: &Model) -> BTreeMap<(u16, u8), Content> {
    store.set_time(model.time);
    let found = contents(store, model.time);
    for ((slot, key), content) in &found {
        assert!(
            model.allows(*slot, *key, *content),
            "slot {slot}, key {key}: {content:?} of {:?} and then {:?}",
            model.durable.get(&(*slot, *key)),
            model.pending.get(&(*slot, *key))
        );
    }
    check_listed(store, model, &found);
    found
}

/// The listings must be of what was found.
pub fn check_listed<D: Disk>(store: &mut Store<D>, model: &Model, found: &BTreeMap<(u16, u8), Content>) {
    for slot in 0..SLOTS {
        let page = store.list(slot, gramme_store::Cursor::START, 100).expect("readable");
        let count = |wanted: &dyn Fn(u64) -> bool| {
            found.iter().filter(|((at, _), content)| *at == slot && content.is_some_and(wanted)).count()
                as u64
        };
        let (present, unknown) = (count(&|_| true), count(&|number| number == UNKNOWN));
        let listed = page.keys.len() as u64 + page.unreadable;
        // Of what is unknown the key and the stamp may be whole, and have expired.
        assert!(listed <= present && listed + unknown >= present, "slot {slot}: {page:?} of {found:?}");
        assert!(page.unreadable <= unknown, "slot {slot}: {page:?} of {found:?}");
        // What has expired counts until it is compacted away.
        let len = store.slot_len(slot);
        assert!(len == present || (model.time > 0 && len > present), "slot {slot}: {len} of {present}");
    }
}

/// A small generator of numbers, so that a seed says everything.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % bound
    }

    #[allow(clippy::cast_possible_truncation)] // Bounded by what is asked for.
    pub fn op(&mut self) -> Op {
        let (slot, key) = (self.below(u64::from(SLOTS)) as u16, self.below(u64::from(KEYS)) as u8);
        match self.below(100) {
            0..42 => Op::Put { slot, key, len: [8, 100, 300, 700, 2000][self.below(5) as usize] },
            42..50 => {
                let (len, after) = ([8, 300, 2000][self.below(3) as usize], self.below(4));
                Op::PutShrinking { slot, key, len, after }
            }
            50..63 => Op::Delete { slot, key },
            63..66 => Op::DropSlot { slot },
            66..72 => Op::Sync,
            72..77 => Op::BeginSync,
            77..82 => Op::RunSync,
            82..86 => Op::EndSync,
            86..88 => Op::Tick { by: 1 },
            _ => Op::Maintain { budget: [1, 500, 1 << 16][self.below(3) as usize] },
        }
    }

    pub fn ops(&mut self, count: usize) -> Vec<Op> {
        (0..count).map(|_| self.op()).collect()
    }
}
