//! A store on mapped segments: against a model, and under kill -9.

#![allow(clippy::cast_possible_truncation)] // Bytes of numbers are as good as others.

use gramme_store::{Disk, DiskError, DiskFile, FileDisk, Options, Read, Store};
use gramme_store_mapped::MappedDisk;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

const DIRECTORY: &str = "GRAMME_STORE_MAPPED_KILL_DIRECTORY";

fn mapped(directory: &Path) -> MappedDisk {
    // SAFETY: the directory is this test's, and one store's at a time.
    unsafe { MappedDisk::open(directory) }.expect("a directory")
}

fn options(seed: u64) -> Options {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    Options::new(bytes).with_segment_bytes(64 << 10)
}

/// A fixed sequence that looks random.
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

type Model = BTreeMap<(u16, u64), Vec<u8>>;

fn check<D: Disk>(store: &mut Store<D>, model: &Model) {
    assert_eq!(store.len(), model.len() as u64);
    for slot in 0..4 {
        for key in 0..64u64 {
            let due = model.get(&(slot, key)).map(Vec::as_slice);
            let held = store.get_with(slot, &key.to_le_bytes(), |value| assert_eq!(Some(value.bytes), due));
            assert_eq!(held.expect("readable").is_some(), due.is_some());
            let copied = match store.get(slot, &key.to_le_bytes()).expect("readable") {
                Read::Value { value, .. } => Some(value),
                _ => None,
            };
            assert_eq!(copied.as_deref(), due);
        }
    }
}

/// Puts of all lengths, deletes, drops, upkeep with compaction, syncs.
fn change<D: Disk>(store: &mut Store<D>, model: &mut Model, random: &mut Sequence) {
    for _ in 0..400 {
        let (slot, key) = (random.below(4) as u16, random.below(64));
        match random.below(40) {
            0..30 => {
                let len = random.below(9).pow(4) as usize;
                let value = vec![random.below(256) as u8; len];
                let put = match random.below(4) {
                    0 => store.put_shrinking(slot, &key.to_le_bytes(), &value, 0, 1, len / 2),
                    _ => store.put(slot, &key.to_le_bytes(), &value, 0),
                };
                put.expect("room");
                model.insert((slot, key), value);
            }
            30..36 => {
                store.delete(slot, &key.to_le_bytes()).expect("room");
                model.remove(&(slot, key));
            }
            36 => drop(store.sync().expect("a disk that syncs")),
            37 if random.below(20) == 0 => {
                store.drop_slot(slot).expect("room");
                model.retain(|(of, _), _| *of != slot);
            }
            _ => drop(store.maintain(256 << 10).expect("a disk that takes it")),
        }
    }
}

/// An opening, changes, and an end.
fn live<D: Disk>(disk: D, options: Options, closed: bool, model: &mut Model, random: &mut Sequence) {
    let (mut store, found) = Store::open(disk, options).expect("opens");
    assert!(found.damage.is_empty() && found.torn.is_empty(), "{found:?}");
    check(&mut store, model);
    change(&mut store, model, random);
    check(&mut store, model);
    if closed {
        store.close().expect("closes");
    }
}

#[test]
fn any_history_agrees_with_a_model_whichever_disk_opens_it() {
    for seed in 0..6 {
        let directory = tempfile::tempdir().expect("room for a store");
        let (mut model, mut random) = (Model::new(), Sequence(seed));
        for opening in 0..6 {
            // Ended in good order, or just dropped.
            let (plain, closed) = (random.below(3) == 0, random.below(2) == 0);
            let options = options(seed << 8 | opening);
            if plain {
                let disk = FileDisk::open(directory.path()).expect("a directory");
                live(disk, options, closed, &mut model, &mut random);
            } else {
                live(mapped(directory.path()), options, closed, &mut model, &mut random);
            }
        }
    }
}

#[test]
fn a_bit_that_turns_over_under_the_map_is_damage_and_not_a_value() {
    let directory = tempfile::tempdir().expect("room for a store");
    let (mut store, _) = Store::open(mapped(directory.path()), options(1)).expect("opens");
    for key in 0..50u64 {
        store.put(1, &key.to_le_bytes(), &[key as u8; 200], 0).expect("room");
    }
    store.close().expect("closes");
    let (mut store, _) = Store::open(mapped(directory.path()), options(2)).expect("opens");
    let segment = directory.path().join("0000000000000001.seg");
    let mut bytes = std::fs::read(&segment).expect("there");
    let at = bytes.windows(200).position(|window| window == [7; 200]).expect("the value of key 7");
    bytes[at + 99] ^= 4;
    // In place, as rot comes: the file stays the file that is mapped.
    let file = std::fs::File::options().write(true).open(&segment).expect("there");
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes[at..at + 200], at as u64).expect("room");
    for key in 0..50u64 {
        let read = store.get_with(1, &key.to_le_bytes(), |value| assert_eq!(value.bytes, [key as u8; 200]));
        assert_eq!(read.is_err(), key == 7, "{read:?}");
    }
}

fn value(number: u64) -> Vec<u8> {
    let mut value = vec![number.to_le_bytes()[0]; 8 + (number % 1500) as usize];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

/// The child: puts until it is killed, and says each that has returned. It syncs nothing.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let (mut store, _) =
        Store::open(mapped(directory.as_ref()), options(std::process::id().into())).expect("opens");
    let mut out = std::io::stdout().lock();
    let first = store.len();
    for number in first.. {
        store.put(1, &number.to_le_bytes(), &value(number), number).expect("room");
        writeln!(out, "put {number}").expect("a pipe");
        if number.is_multiple_of(16) {
            store.maintain(64 << 10).expect("maintains");
        }
    }
}

#[test]
fn kill_9_takes_nothing_that_was_put() {
    let directory = tempfile::tempdir().expect("room for a store");
    for kill in 0..8 {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let number =
            |line: String| line.rsplit_once("put ").and_then(|(_, number)| number.parse::<u64>().ok());
        let mut last = lines.by_ref().filter_map(number).nth(kill * 97).expect("puts");
        child.kill().expect("killed");
        last = lines.filter_map(number).last().unwrap_or(last);
        child.wait().expect("dead");
        let (mut store, found) = Store::open(mapped(directory.path()), options(kill as u64)).expect("opens");
        assert!(found.damage.is_empty(), "{found:?}");
        // One more may be there, whose line was not written.
        assert!((last + 1..=last + 2).contains(&store.len()), "{last} was put, {} are there", store.len());
        for number in 0..store.len() {
            let held = store.get_with(1, &number.to_le_bytes(), |held| held.bytes == value(number));
            assert_eq!(held, Ok(Some(true)), "kill {kill}: {number}");
        }
    }
}

/// A mapped disk that remembers what it has lent, and to which nothing may be written there.
struct Lender(MappedDisk);

#[derive(Clone)]
struct LenderFile {
    file: <MappedDisk as Disk>::File,
    lent: Arc<Mutex<Vec<(u64, u64)>>>,
}

impl Lender {
    fn file(file: <MappedDisk as Disk>::File) -> LenderFile {
        LenderFile { file, lent: Arc::default() }
    }
}

impl Disk for Lender {
    type File = LenderFile;
    type Lock = <MappedDisk as Disk>::Lock;

    fn lock(&self) -> Result<Self::Lock, DiskError> {
        self.0.lock()
    }
    fn list(&self) -> Result<Vec<String>, DiskError> {
        self.0.list()
    }
    fn open(&self, name: &str) -> Result<LenderFile, DiskError> {
        self.0.open(name).map(Self::file)
    }
    fn create(&self, name: &str, bytes: u64) -> Result<LenderFile, DiskError> {
        self.0.create(name, bytes).map(Self::file)
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.0.remove(name)
    }
    fn sync_dir(&self) -> Result<(), DiskError> {
        self.0.sync_dir()
    }
}

impl DiskFile for LenderFile {
    fn size(&self) -> Result<u64, DiskError> {
        self.file.size()
    }
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        self.file.read_at(offset, into)
    }
    fn lend(&self, offset: u64, len: usize) -> Option<&[u8]> {
        self.lent.lock().expect("no panic").push((offset, offset + len as u64));
        self.file.lend(offset, len)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let end = offset + bytes.len() as u64;
        for (from, to) in self.lent.lock().expect("no panic").iter() {
            assert!(end <= *from || *to <= offset, "{offset} to {end} is written, {from} to {to} was lent");
        }
        self.file.write_at(offset, bytes)
    }
    fn sync_data(&self) -> Result<(), DiskError> {
        self.file.sync_data()
    }
    fn truncate(&self, bytes: u64) -> Result<(), DiskError> {
        self.file.truncate(bytes)
    }
}

#[test]
fn nothing_is_written_where_bytes_were_lent_with_a_write_buffer_or_without() {
    for buffer in [0, 2000] {
        let (directory, mut random) = (tempfile::tempdir().expect("room for a store"), Sequence(buffer));
        let options = options(1).with_write_buffer(buffer as usize);
        let (mut store, _) = Store::open(Lender(mapped(directory.path())), options).expect("opens");
        let mut model = Model::new();
        for _ in 0..3000 {
            let (slot, key) = (random.below(4) as u16, random.below(64));
            // Lengths of which most are rounded up by the size that the index knows.
            let value = vec![random.below(256) as u8; 100 + random.below(300) as usize];
            store.put(slot, &key.to_le_bytes(), &value, 0).expect("room");
            model.insert((slot, key), value);
            let (slot, key) = (random.below(4) as u16, random.below(64));
            let due = model.get(&(slot, key)).map(Vec::as_slice);
            let held = store.get_with(slot, &key.to_le_bytes(), |value| assert_eq!(Some(value.bytes), due));
            assert_eq!(held.expect("readable").is_some(), due.is_some());
            if random.below(50) == 0 {
                store.sync().expect("a disk that syncs");
                store.maintain(64 << 10).expect("room");
            }
        }
    }
}
