//! Histories on full disks, of stores of any shape: whatever came before, a delete that is refused goes after upkeep, nothing is lost,
//! and once all is deleted as much can be put again.
//!
//! `GRAMME_STORE_FULL_HISTORIES=n` sets how many, `GRAMME_STORE_FULL_FIRST=n` with which seed they begin.

use gramme_store::{Disk, MemDisk, Options, Read, Snapshot, Store, WriteError};
use std::collections::BTreeMap;

/// xorshift64*
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, some: &[T]) -> T {
        some[usize::try_from(self.below(some.len() as u64)).expect("few")]
    }
}

/// A store, and the disk that it is on.
#[derive(Clone, Copy, Debug)]
struct Shape {
    segment: u64,
    value: usize,
    mixed: bool,
    capacity: u64,
    indexed: bool,
    tree: bool,
    reserves: bool,
    buffer: usize,
    expiring: bool,
    /// Others take whatever room there is, at once.
    pinned: bool,
}

impl Shape {
    fn of(dice: &mut Dice) -> Self {
        let segment = dice.of(&[4 << 10, 4 << 10, 8 << 10, 16 << 10, 64 << 10, 256 << 10]);
        let value = dice.of(&[0, 8, 40, 100, 300, 1000, 3000]);
        let most = (6000 * (56 + value as u64)).max(128 << 10);
        Self {
            segment,
            value,
            mixed: dice.one_in(3),
            capacity: (segment * (32 + dice.below(200))).min(most.max(segment * 32)) & !4095,
            indexed: dice.one_in(2),
            tree: dice.one_in(3),
            reserves: !dice.one_in(3),
            buffer: dice.of(&[0, 0, 0, 1 << 10, 5000]),
            expiring: dice.one_in(4),
            pinned: dice.one_in(3),
        }
    }

    fn options(&self, seed: u64) -> Options {
        let mut bytes = [7; 16];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let options = Options::new(bytes).with_segment_bytes(self.segment).with_write_buffer(self.buffer);
        let options = options.with_index_files(self.indexed).with_open_threads(1);
        if self.tree { options.with_tree_key([7; 16]) } else { options }
    }
}

const SLOTS: u64 = 50;

fn slot(n: u64) -> u16 {
    u16::try_from(n % SLOTS).expect("few")
}

/// What time does to what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Term {
    None,
    Expires(u64),
    /// To so many bytes.
    Shrinks(u64, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stored {
    len: usize,
    term: Term,
}

impl Stored {
    /// The lengths that may be found by now.
    fn is_as_it_may_be(&self, found: Option<usize>, now: u64) -> bool {
        match self.term {
            Term::Expires(at) if at <= now => found.is_none(),
            Term::Shrinks(at, kept) if at <= now && found == Some(kept.min(self.len)) => true,
            _ => found == Some(self.len),
        }
    }
}

struct World {
    seed: u64,
    dice: Dice,
    shape: Shape,
    disk: MemDisk,
    store: Option<Store<MemDisk>>,
    snapshot: Option<Snapshot<MemDisk>>,
    /// What is stored, expired or not.
    model: BTreeMap<u64, Stored>,
    next_key: u64,
    now: u64,
    openings: u64,
    resized: bool,
    told: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..4 {
            dice.next();
        }
        let shape = Shape::of(&mut dice);
        let disk = MemDisk::new();
        disk.reserve_room(shape.reserves);
        disk.set_capacity(Some(shape.capacity));
        let store = Store::open(disk.clone(), shape.options(1)).expect("opens").0;
        Self {
            seed,
            dice,
            shape,
            disk,
            store: Some(store),
            snapshot: None,
            model: BTreeMap::new(),
            next_key: 0,
            now: 0,
            openings: 1,
            resized: false,
            told: Vec::new(),
        }
    }

    fn store(&mut self) -> &mut Store<MemDisk> {
        self.store.as_mut().expect("open")
    }

    fn put_aside(&self) -> usize {
        self.disk.contents("RESERVE").map_or(0, |bytes| bytes.len())
    }

    fn fails(&mut self, what: &str) -> ! {
        let (aside, used) = (self.put_aside(), self.disk.used_bytes());
        let stats = self.store.as_ref().map(Store::stats);
        panic!(
            "seed {}: {what}; {:?}; {} keys, {aside} put aside, {used} used, {stats:?}; {:?}",
            self.seed,
            self.shape,
            self.model.len(),
            self.told
        );
    }

    fn pin(&mut self) {
        self.disk.set_capacity(Some(self.disk.used_bytes()));
    }

    fn pin_if_so(&mut self) {
        if self.shape.pinned {
            self.pin();
        }
    }

    fn upkeep(&mut self) {
        for _ in 0..20_000 {
            let synced = self.store().sync();
            if !matches!(synced, Ok(_) | Err(WriteError::NoSpace)) {
                self.fails(&format!("sync: {synced:?}"));
            }
            match self.store().maintain(1 << 20) {
                Ok(done) if done.more || done.needs_sync => {}
                Ok(_) | Err(WriteError::NoSpace) => return,
                Err(error) => self.fails(&format!("maintain: {error}")),
            }
        }
        self.fails("upkeep comes to no end");
    }

    /// Whether a write went, after upkeep if need be.
    fn goes(&mut self, write: impl Fn(&mut Store<MemDisk>) -> Result<(), WriteError>) -> bool {
        for tries in 0..2 {
            match write(self.store()) {
                Ok(()) => return true,
                Err(WriteError::NoSpace) if tries == 0 => self.upkeep(),
                Err(WriteError::NoSpace) => {}
                Err(error) => self.fails(&format!("a write: {error}")),
            }
        }
        false
    }

    fn put(&mut self, n: u64) -> bool {
        let len = match self.shape.mixed {
            true if self.dice.one_in(300) => usize::try_from(self.shape.segment * 3).expect("short"),
            true => usize::try_from(self.dice.below(2 * self.shape.value as u64 + 8)).expect("short"),
            false => self.shape.value,
        };
        let mut term = Term::None;
        if self.shape.expiring && self.dice.one_in(2) {
            let at = self.now + self.dice.below(1000);
            let kept = usize::try_from(self.dice.below(200)).expect("short");
            term = if self.dice.one_in(2) { Term::Expires(at) } else { Term::Shrinks(at, kept) };
        }
        let value = vec![1; len];
        let done = self.goes(|store| {
            match term {
                Term::Expires(at) => store.put_expiring(slot(n), &n.to_le_bytes(), &value, 1, at),
                Term::Shrinks(at, kept) => {
                    store.put_shrinking(slot(n), &n.to_le_bytes(), &value, 1, at, kept)
                }
                Term::None => store.put(slot(n), &n.to_le_bytes(), &value, 1),
            }
            .map(drop)
        });
        if done {
            self.model.insert(n, Stored { len, term });
        }
        done
    }

    /// New keys until there is no room; how many.
    fn fill(&mut self) -> u64 {
        let from = self.next_key;
        while self.put(self.next_key) {
            self.next_key += 1;
            if self.next_key.is_multiple_of(100) {
                self.step();
            }
        }
        self.next_key - from
    }

    fn step(&mut self) {
        let synced = self.store().sync();
        if !matches!(synced, Ok(_) | Err(WriteError::NoSpace)) {
            self.fails(&format!("sync: {synced:?}"));
        }
        let budget = 1 << self.dice.below(18);
        let step = self.store().maintain(budget);
        if !matches!(step, Ok(_) | Err(WriteError::NoSpace)) {
            self.fails(&format!("maintain: {step:?}"));
        }
    }

    fn delete(&mut self, n: u64) {
        if !self.goes(|store| store.delete(slot(n), &n.to_le_bytes()).map(drop)) {
            self.fails(&format!("the delete of {n} is refused"));
        }
        self.model.remove(&n);
    }

    /// Some keys, in some order.
    fn some_keys(&mut self) -> Vec<u64> {
        let keys: Vec<u64> = self.model.keys().copied().collect();
        let (step, most) = (1 + self.dice.below(60), 1 + self.dice.below(keys.len() as u64 + 1));
        let from = self.dice.below(step);
        let mut some: Vec<u64> = keys.iter().copied().filter(|n| n % step == from).collect();
        match self.dice.below(3) {
            0 => {}
            1 => some.reverse(),
            _ => some.sort_by_key(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        }
        some.truncate(usize::try_from(most).expect("few"));
        some
    }

    fn reopen(&mut self) {
        // What is not synced is nobody's promise.
        let synced = self.store().sync();
        if synced == Err(WriteError::NoSpace) {
            return;
        }
        synced.unwrap_or_else(|error| self.fails(&format!("sync: {error}")));
        let way = self.dice.below(4);
        self.told.push(format!("reopens {way}"));
        match way {
            0 => {
                let closed = self.store.take().expect("open").close();
                if closed.is_err() {
                    self.fails(&format!("close: {closed:?}"));
                }
            }
            1 => {
                drop(self.store.take());
                self.disk.kill();
            }
            2 => {
                drop(self.store.take());
                self.disk.crash(self.seed ^ self.openings);
            }
            _ => {
                self.disk.cut_power_after(self.dice.below(200));
                for _ in 0..50 {
                    let _ = self.store().maintain(1 << 12);
                    let _ = self.store().sync();
                }
                drop(self.store.take());
                self.disk.crash(self.seed ^ self.openings);
            }
        }
        self.pin_if_so();
        self.openings += 1;
        if self.dice.one_in(6) {
            self.shape.segment = self.dice.of(&[4 << 10, 16 << 10, 64 << 10, 1 << 20]);
            self.resized = true;
            self.told.push(format!("segments of {}", self.shape.segment));
        }
        let (store, recovery) =
            Store::open(self.disk.clone(), self.shape.options(self.openings)).expect("opens");
        self.store = Some(store);
        if recovery.is_lossy() || !recovery.damage.is_empty() {
            self.fails(&format!("{recovery:?}"));
        }
        let now = self.now;
        self.store().set_time(now);
        self.check();
    }

    fn check(&mut self) {
        let expected = self.model.clone();
        for n in 0..self.next_key {
            let found = match self.store().get(slot(n), &n.to_le_bytes()) {
                Ok(Read::Value { value, .. }) => Some(value.len()),
                Ok(Read::Absent) => None,
                other => self.fails(&format!("key {n}: {other:?}")),
            };
            let now = self.now;
            let due = expected.get(&n);
            if due.map_or(found.is_some(), |due| !due.is_as_it_may_be(found, now)) {
                self.fails(&format!("key {n} by {now}: {found:?}, not {due:?}"));
            }
        }
        if self
            .disk
            .list()
            .expect("lists")
            .iter()
            .any(|name| name == "RESERVE.new" || name == "MANIFEST.next")
        {
            self.fails("something is left behind");
        }
    }

    fn act(&mut self) {
        match self.dice.below(12) {
            0..=3 => {
                let some = self.some_keys();
                self.told.push(format!("deletes {}", some.len()));
                for n in some {
                    self.delete(n);
                    self.pin_if_so();
                    if self.dice.one_in(40) {
                        self.step();
                        self.pin_if_so();
                    }
                }
            }
            4 => {
                let some = self.some_keys();
                let put = some.into_iter().take(200).filter(|n| self.put(*n)).count();
                self.told.push(format!("puts {put} anew"));
                self.pin_if_so();
            }
            5 => {
                let slot = u16::try_from(self.dice.below(SLOTS)).expect("few");
                self.told.push(format!("drops slot {slot}"));
                if !self.goes(|store| store.drop_slot(slot).map(drop)) {
                    self.fails(&format!("the drop of slot {slot} is refused"));
                }
                self.model.retain(|n, _| n % SLOTS != u64::from(slot));
                self.pin_if_so();
            }
            6 => {
                self.now += self.dice.below(500);
                let now = self.now;
                self.store().set_time(now);
                self.told.push(format!("it is {now}"));
            }
            7 | 8 => self.reopen(),
            9 if self.dice.one_in(2) => {
                let more = self.dice.below(8) * self.shape.segment;
                let used = self.disk.used_bytes();
                // A power cut may bring back what was given up, so that more is used than the disk had; it does not shrink below that.
                self.disk.set_capacity(Some((used + more).min(self.shape.capacity.max(used))));
                let put = self.fill();
                self.told.push(format!("{more} bytes of room: {put} keys"));
            }
            9 => {
                self.pin();
                self.told.push("others take the room".into());
            }
            10 => {
                let taken = self.snapshot.take();
                self.told.push(format!("snapshot {}", taken.is_none()));
                if taken.is_none() {
                    self.snapshot = self.store().snapshot().ok();
                    // It may keep room for as long as it is there: little is done meanwhile.
                    (0..self.dice.below(30)).for_each(|_| self.step());
                }
            }
            _ => {
                let budget = 1 + usize::try_from(self.dice.below(1 << 16)).expect("little");
                self.store().scrub(budget).expect("readable");
                self.told.push("scrubs".into());
            }
        }
        let aside = self.put_aside();
        self.told.push(format!("{aside} put aside"));
        // What it keeps is not there for anybody.
        if self.snapshot.take().is_some() {
            self.upkeep();
        }
    }

    fn run(seed: u64) {
        let mut world = Self::new(seed);
        let stored = world.fill();
        if stored < 12 {
            // The disk is too small for what is put aside.
            return;
        }
        world.told.push(format!("{stored} keys"));
        world.upkeep();
        world.pin_if_so();
        for _ in 0..4 + world.dice.below(12) {
            world.act();
        }
        world.check();
        let keys: Vec<u64> = world.model.keys().copied().collect();
        for n in keys {
            world.delete(n);
            world.pin_if_so();
        }
        world.upkeep();
        if !world.store().is_empty() {
            world.fails("keys are left");
        }
        world.disk.set_capacity(Some(world.shape.capacity));
        let again = world.fill();
        let chain = world.disk.contents("CHAIN").map_or(0, |bytes| bytes.len() as u64);
        let missing = stored.saturating_sub(again) * (56 + world.shape.value as u64);
        let most = chain + (2 * world.shape.segment).max(world.shape.capacity / 10);
        if !world.resized && !world.shape.mixed && missing > most {
            world.fails(&format!("{stored} keys, then {again}"));
        }
        world.reopen();
        world.check();
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn whatever_came_before_a_full_store_is_emptied() {
    let first = number("GRAMME_STORE_FULL_FIRST").unwrap_or(1);
    let count = number("GRAMME_STORE_FULL_HISTORIES").unwrap_or(60);
    let fails = |seed: &u64| std::panic::catch_unwind(|| World::run(*seed)).is_err();
    let failed: Vec<u64> = (first..first + count).filter(fails).collect();
    assert!(failed.is_empty(), "seeds {failed:?}");
}
