//! The store on flash, as on a microcontroller: no file system and no standard library below it, only a chip with erase
//! blocks of a fixed size, whose bits a program can turn from 1 to 0 and only the erasing of a whole block back to 1.
//!
//! The disk below is one file per run of blocks, with a table of contents that is written to two blocks in turn. Everything
//! but `main` uses `core` and `alloc` alone, and so does the store in
//! `cargo run -p gramme-store --no-default-features --example flash`.
//!
//! It shows what a `Disk` has to promise: names and bytes survive a power cut once they are synced, a rename is all or
//! nothing. Writes over what was written (the store makes few: manifests, and the tail that an opening writes again) are
//! made by erasing; all others just program the chip. The power is cut again and again, in the midst of whatever the chip is at.

extern crate alloc;

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use gramme_store::{Disk, DiskError, DiskErrorKind, DiskFile, OpenError, Options, Read, Store, WriteError};
use spin::Mutex;

/// Bytes of an erase block.
const BLOCK: usize = 4096;
/// Blocks of the chip: half a megabyte.
const BLOCKS: usize = 128;
/// Blocks that hold the table of contents, in turn.
const TABLES: usize = 2;

/// The chip. It panics where a program would need an erasing first: real ones store garbage.
struct Chip {
    cells: Vec<u8>,
    erasures: usize,
    /// Bytes that it will program or erase until the power fails.
    power: usize,
}

impl Chip {
    /// How many of so many bytes it gets done.
    fn spend(&mut self, bytes: usize) -> (usize, Result<(), DiskError>) {
        let done = bytes.min(self.power);
        self.power -= done;
        (done, if done < bytes { Err(failed(DiskErrorKind::Unplugged, "use the chip")) } else { Ok(()) })
    }

    fn program(&mut self, at: usize, bytes: &[u8]) -> Result<(), DiskError> {
        let (done, outcome) = self.spend(bytes.len());
        for (cell, byte) in self.cells[at..].iter_mut().zip(&bytes[..done]) {
            assert_eq!(*cell & *byte, *byte, "a bit would have to go from 0 to 1");
            *cell &= *byte;
        }
        outcome
    }

    fn erase(&mut self, block: usize) -> Result<(), DiskError> {
        let (done, outcome) = self.spend(BLOCK);
        self.cells[block * BLOCK..][..done].fill(0xff);
        self.erasures += 1;
        outcome
    }
}

/// A file: its length and its blocks. What is not programmed yet reads as zeros: bytes are kept inverted.
#[derive(Clone, Debug, Default)]
struct Entry {
    len: usize,
    blocks: Vec<usize>,
}

struct State {
    chip: Chip,
    /// By number; names lead to numbers, so that a file that was removed can be read as long as it is open.
    files: BTreeMap<usize, Entry>,
    names: BTreeMap<String, usize>,
    next_file: usize,
    /// Blocks of the last table: after a power cut they are the files' again.
    kept: Vec<usize>,
    generation: u32,
    locked: bool,
}

/// A disk on the chip.
#[derive(Clone)]
struct FlashDisk(Arc<Mutex<State>>);

fn failed(kind: DiskErrorKind, operation: &'static str) -> DiskError {
    DiskError::new(kind, operation)
}

impl State {
    fn free_block(&self) -> Option<usize> {
        let in_use = |block: &usize| self.files.values().any(|file| file.blocks.contains(block));
        (TABLES..BLOCKS).find(|block| !in_use(block) && !self.kept.contains(block))
    }

    /// Gives a file blocks for so many bytes. Blocks are erased when they are taken.
    fn grow(&mut self, file: usize, len: usize) -> Result<(), DiskError> {
        while self.files[&file].blocks.len() * BLOCK < len {
            let block = self.free_block().ok_or(failed(DiskErrorKind::NoSpace, "take a block"))?;
            self.chip.erase(block)?;
            self.files.get_mut(&file).expect("open").blocks.push(block);
        }
        Ok(())
    }

    fn write(&mut self, file: usize, mut at: usize, mut bytes: &[u8]) -> Result<(), DiskError> {
        self.grow(file, at + bytes.len())?;
        while !bytes.is_empty() {
            let block = self.files[&file].blocks[at / BLOCK];
            let (start, len) = (at % BLOCK, bytes.len().min(BLOCK - at % BLOCK));
            let inverted: Vec<u8> = bytes[..len].iter().map(|byte| !byte).collect();
            let cell = block * BLOCK + start;
            let fits =
                self.chip.cells[cell..cell + len].iter().zip(&inverted).all(|(cell, new)| cell & new == *new);
            if fits {
                self.chip.program(cell, &inverted)?;
            } else {
                // Over something else: into a fresh block, and only then is the old one let go.
                let fresh = self.free_block().ok_or(failed(DiskErrorKind::NoSpace, "take a block"))?;
                let mut content = self.chip.cells[block * BLOCK..(block + 1) * BLOCK].to_vec();
                content[start..start + len].copy_from_slice(&inverted);
                self.chip.erase(fresh)?;
                self.chip.program(fresh * BLOCK, &content)?;
                self.files.get_mut(&file).expect("open").blocks[at / BLOCK] = fresh;
            }
            at += len;
            bytes = &bytes[len..];
        }
        let file = self.files.get_mut(&file).expect("open");
        file.len = file.len.max(at);
        Ok(())
    }

    /// Writes the table of contents into the older of its two blocks: all or nothing, by its checksum.
    fn save(&mut self) -> Result<(), DiskError> {
        self.generation += 1;
        let mut table = Vec::new();
        table.extend_from_slice(&self.generation.to_le_bytes());
        for (name, number) in &self.names {
            let file = &self.files[number];
            table.push(u8::try_from(name.len()).expect("names are short"));
            table.extend_from_slice(name.as_bytes());
            table.extend_from_slice(&u32::try_from(file.len).expect("a small chip").to_le_bytes());
            table.push(u8::try_from(file.blocks.len()).expect("a small chip"));
            table.extend(file.blocks.iter().map(|block| u8::try_from(*block).expect("a small chip")));
        }
        table.push(0);
        if table.len() + 8 > BLOCK {
            return Err(failed(DiskErrorKind::NoSpace, "write the table"));
        }
        let sum = crc32fast::hash(&table);
        let len = u32::try_from(table.len()).expect("less than a block");
        let block = self.generation as usize % TABLES;
        self.chip.erase(block)?;
        self.chip
            .program(block * BLOCK, &[&len.to_le_bytes(), &sum.to_le_bytes(), table.as_slice()].concat())?;
        self.kept = self.names.values().flat_map(|number| &self.files[number].blocks).copied().collect();
        Ok(())
    }

    /// The chip after the power came back: what the newer whole table says.
    fn start(chip: Chip) -> Self {
        let word = |at: usize| {
            let bytes = [chip.cells[at], chip.cells[at + 1], chip.cells[at + 2], chip.cells[at + 3]];
            u32::from_le_bytes(bytes) as usize
        };
        let tables = (0..TABLES).filter_map(|block| {
            let at = block * BLOCK;
            let table = chip.cells[at + 8..(block + 1) * BLOCK].get(..word(at))?;
            (crc32fast::hash(table) as usize == word(at + 4)).then(|| (word(at + 8), table.to_vec()))
        });
        let newest = tables.max_by_key(|(generation, _)| *generation);
        let mut state = Self {
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            next_file: 0,
            kept: Vec::new(),
            generation: 0,
            locked: false,
            chip,
        };
        if let Some((generation, table)) = newest {
            state.generation = u32::try_from(generation).expect("four bytes");
            let mut rest = &table[4..];
            while rest[0] > 0 {
                let (name, after) = rest[1..].split_at(usize::from(rest[0]));
                let len = u32::from_le_bytes([after[0], after[1], after[2], after[3]]) as usize;
                let (blocks, after) = after[5..].split_at(usize::from(after[4]));
                let blocks: Vec<usize> = blocks.iter().map(|block| usize::from(*block)).collect();
                state.kept.extend(&blocks);
                state.names.insert(String::from_utf8_lossy(name).to_string(), state.next_file);
                state.files.insert(state.next_file, Entry { len, blocks });
                state.next_file += 1;
                rest = after;
            }
        }
        state
    }
}

impl FlashDisk {
    fn start(chip: Chip) -> Self {
        Self(Arc::new(Mutex::new(State::start(chip))))
    }

    fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        act(&mut self.0.lock())
    }
}

/// An open file.
#[derive(Clone)]
struct FlashFile {
    disk: FlashDisk,
    file: usize,
}

/// Held while the store is open.
struct Lock(FlashDisk);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.with(|state| state.locked = false);
    }
}

impl Disk for FlashDisk {
    type File = FlashFile;
    type Lock = Lock;

    fn lock(&self) -> Result<Lock, DiskError> {
        if self.with(|state| core::mem::replace(&mut state.locked, true)) {
            return Err(failed(DiskErrorKind::Locked, "lock"));
        }
        Ok(Lock(self.clone()))
    }

    fn list(&self) -> Result<Vec<String>, DiskError> {
        Ok(self.with(|state| state.names.keys().cloned().collect()))
    }

    fn open(&self, name: &str) -> Result<FlashFile, DiskError> {
        let file = self.with(|state| state.names.get(name).copied());
        Ok(FlashFile { disk: self.clone(), file: file.ok_or(failed(DiskErrorKind::NotFound, "open"))? })
    }

    fn create(&self, name: &str, bytes: u64) -> Result<FlashFile, DiskError> {
        let file = self.with(|state| {
            if state.names.contains_key(name) {
                return Err(failed(DiskErrorKind::AlreadyExists, "create"));
            }
            let (file, len) = (state.next_file, usize::try_from(bytes).unwrap_or(usize::MAX));
            state.next_file += 1;
            state.files.insert(file, Entry::default());
            if let Err(error) = state.grow(file, len) {
                state.files.remove(&file);
                return Err(error);
            }
            state.files.get_mut(&file).expect("just made").len = len;
            state.names.insert(name.to_string(), file);
            Ok(file)
        })?;
        Ok(FlashFile { disk: self.clone(), file })
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.with(|state| {
            let file = state.names.remove(from).ok_or(failed(DiskErrorKind::NotFound, "rename"))?;
            if let Some(old) = state.names.insert(to.to_string(), file) {
                state.files.remove(&old);
            }
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        // This store reads no file that it has removed, so the blocks are free with the next table.
        self.with(|state| {
            let file = state.names.remove(name).ok_or(failed(DiskErrorKind::NotFound, "remove"))?;
            state.files.remove(&file);
            Ok(())
        })
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        self.with(State::save)
    }
}

impl DiskFile for FlashFile {
    fn size(&self) -> Result<u64, DiskError> {
        Ok(self.disk.with(|state| state.files.get(&self.file).map_or(0, |file| file.len as u64)))
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        self.disk.with(|state| {
            let file = state.files.get(&self.file).ok_or(failed(DiskErrorKind::NotFound, "read"))?;
            let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(file.len);
            let len = into.len().min(file.len - offset);
            for (at, byte) in (offset..).zip(&mut into[..len]) {
                let block = file.blocks.get(at / BLOCK);
                *byte = block.map_or(0, |block| !state.chip.cells[block * BLOCK + at % BLOCK]);
            }
            Ok(len)
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let offset = usize::try_from(offset).map_err(|_| failed(DiskErrorKind::NoSpace, "write"))?;
        self.disk.with(|state| state.write(self.file, offset, bytes))
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        // Programmed cells stay. A length or a block that is new is the table's to say.
        self.disk.with(State::save)
    }

    fn truncate(&self, bytes: u64) -> Result<(), DiskError> {
        self.disk.with(|state| {
            let len = usize::try_from(bytes).unwrap_or(usize::MAX);
            if let Some(file) = state.files.get_mut(&self.file) {
                file.len = file.len.min(len);
                file.blocks.truncate(file.len.div_ceil(BLOCK));
            }
            Ok(())
        })
    }
}

/// A store small enough for the chip: segments of four blocks.
fn options(life: u32) -> Options {
    let mut seed = [0; 16];
    seed[..4].copy_from_slice(&life.to_le_bytes());
    Options::new(seed).with_segment_bytes(4 * BLOCK as u64).with_index_files(false)
}

/// Sensors, of which the last reading is to be kept.
const SENSORS: u8 = 10;
/// How often the power fails.
const LIVES: u32 = 300;

/// What a logger does until the power fails: readings of all sensors in turn, each round synced. `last` is the last reading that
/// was taken, `kept` the last that is known to be durable.
fn log(disk: &FlashDisk, life: u32, last: &mut u64, kept: &mut [u64]) -> Result<(), WriteError> {
    let mut store = match Store::open(disk.clone(), options(life)) {
        Ok((store, recovery)) => {
            assert!(recovery.damage.is_empty(), "a power cut is not damage: {recovery:?}");
            store
        }
        Err(OpenError::Disk(error)) if error.kind() == DiskErrorKind::Unplugged => {
            return Err(WriteError::Disk(error));
        }
        Err(error) => panic!("{error}"),
    };
    for sensor in 0..SENSORS {
        let found = match store.get(0, &[b's', sensor]).expect("readable") {
            Read::Value { value, tag, .. } => {
                assert_eq!(value, [tag.to_le_bytes()[0]; 120]);
                tag
            }
            _ => 0,
        };
        let kept = &mut kept[usize::from(sensor)];
        assert!((*kept..=*last).contains(&found), "sensor {sensor}: {found}, and {kept} was durable");
        *kept = found;
    }
    loop {
        let mut round = [0; SENSORS as usize];
        for sensor in 0..SENSORS {
            *last += 1;
            round[usize::from(sensor)] = *last;
            store.put(0, &[b's', sensor], &[last.to_le_bytes()[0]; 120], *last)?;
        }
        store.sync()?;
        kept.copy_from_slice(&round);
        while store.maintain(4096)?.more {}
    }
}

fn main() {
    let mut chip = Chip { cells: vec![0xff; BLOCK * BLOCKS], erasures: 0, power: 0 };
    let (mut last, mut kept, mut random) = (0, [0; SENSORS as usize], 1u32);
    for life in 0..LIVES {
        // A fixed sequence that looks random: up to a megabyte until the power fails.
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        chip.power = random as usize >> 12;
        let disk = FlashDisk::start(chip);
        let ended = log(&disk, life, &mut last, &mut kept);
        let powerless = disk.with(|state| state.chip.power == 0);
        assert!(powerless, "the power is all that fails: {ended:?}");
        // What comes up again is what the chip holds.
        chip = disk.with(|state| {
            core::mem::replace(&mut state.chip, Chip { cells: Vec::new(), erasures: 0, power: 0 })
        });
    }
    assert!(kept.iter().all(|reading| *reading > 0));
    println!("{LIVES} power cuts, {last} readings, nothing durable lost; {} erasures", chip.erasures);
}
