//! The store on flash, as on a microcontroller: no file system and no standard library below it, only a chip with erase
//! blocks of a fixed size, whose bits a program can turn from 1 to 0 and only the erasing of a whole block back to 1.
//!
//! The disk below is one file per run of blocks, with a table of contents that is written to two blocks in turn. Everything
//! but `main` uses `core` and `alloc` alone. Run it with `cargo run -p gramme-store --example flash`.
//!
//! It shows what a `Disk` has to promise: names and bytes survive a power cut once they are synced, a rename is all or
//! nothing. Writes over what was written (the store makes few: manifests, and the tail that an opening writes again) are
//! made by erasing; all others just program the chip.

extern crate alloc;

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use gramme_store::{Disk, DiskError, DiskErrorKind, DiskFile, Options, Read, Store};
use std::sync::{Mutex, MutexGuard};

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
}

impl Chip {
    fn program(&mut self, at: usize, bytes: &[u8]) {
        for (cell, byte) in self.cells[at..].iter_mut().zip(bytes) {
            assert_eq!(*cell & *byte, *byte, "a bit would have to go from 0 to 1");
            *cell &= *byte;
        }
    }

    fn erase(&mut self, block: usize) {
        self.cells[block * BLOCK..(block + 1) * BLOCK].fill(0xff);
        self.erasures += 1;
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
        (TABLES..BLOCKS).find(|block| !self.files.values().any(|file| file.blocks.contains(block)))
    }

    /// Gives a file blocks for so many bytes. Blocks are erased when they are taken.
    fn grow(&mut self, file: usize, len: usize) -> Result<(), DiskError> {
        while self.files[&file].blocks.len() * BLOCK < len {
            let block = self.free_block().ok_or(failed(DiskErrorKind::NoSpace, "take a block"))?;
            self.chip.erase(block);
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
                self.chip.program(cell, &inverted);
            } else {
                // Over something else: into a fresh block, and only then is the old one let go.
                let fresh = self.free_block().ok_or(failed(DiskErrorKind::NoSpace, "take a block"))?;
                let mut content = self.chip.cells[block * BLOCK..(block + 1) * BLOCK].to_vec();
                content[start..start + len].copy_from_slice(&inverted);
                self.chip.erase(fresh);
                self.chip.program(fresh * BLOCK, &content);
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
        self.chip.erase(block);
        self.chip
            .program(block * BLOCK, &[&len.to_le_bytes(), &sum.to_le_bytes(), table.as_slice()].concat());
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
                let blocks = blocks.iter().map(|block| usize::from(*block)).collect();
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic in here")
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
        self.0.state().locked = false;
    }
}

impl Disk for FlashDisk {
    type File = FlashFile;
    type Lock = Lock;

    fn lock(&self) -> Result<Lock, DiskError> {
        if core::mem::replace(&mut self.state().locked, true) {
            return Err(failed(DiskErrorKind::Locked, "lock"));
        }
        Ok(Lock(self.clone()))
    }

    fn list(&self) -> Result<Vec<String>, DiskError> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> Result<FlashFile, DiskError> {
        let file = self.state().names.get(name).copied().ok_or(failed(DiskErrorKind::NotFound, "open"))?;
        Ok(FlashFile { disk: self.clone(), file })
    }

    fn create(&self, name: &str, bytes: u64) -> Result<FlashFile, DiskError> {
        let mut state = self.state();
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
        drop(state);
        Ok(FlashFile { disk: self.clone(), file })
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut state = self.state();
        let file = state.names.remove(from).ok_or(failed(DiskErrorKind::NotFound, "rename"))?;
        if let Some(old) = state.names.insert(to.to_string(), file) {
            state.files.remove(&old);
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        let mut state = self.state();
        // This store reads no file that it has removed, so the blocks are free at once.
        let file = state.names.remove(name).ok_or(failed(DiskErrorKind::NotFound, "remove"))?;
        state.files.remove(&file);
        Ok(())
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        self.state().save()
    }
}

impl DiskFile for FlashFile {
    fn size(&self) -> Result<u64, DiskError> {
        let state = self.disk.state();
        Ok(state.files.get(&self.file).map_or(0, |file| file.len as u64))
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        let state = self.disk.state();
        let file = state.files.get(&self.file).ok_or(failed(DiskErrorKind::NotFound, "read"))?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(file.len);
        let len = into.len().min(file.len - offset);
        for (at, byte) in (offset..).zip(&mut into[..len]) {
            *byte =
                file.blocks.get(at / BLOCK).map_or(0, |block| !state.chip.cells[block * BLOCK + at % BLOCK]);
        }
        Ok(len)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let offset = usize::try_from(offset).map_err(|_| failed(DiskErrorKind::NoSpace, "write"))?;
        self.disk.state().write(self.file, offset, bytes)
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        // Programmed cells stay. A length or a block that is new is the table's to say.
        self.disk.state().save()
    }

    fn truncate(&self, bytes: u64) -> Result<(), DiskError> {
        let mut state = self.disk.state();
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        if let Some(file) = state.files.get_mut(&self.file) {
            file.len = file.len.min(len);
            file.blocks.truncate(file.len.div_ceil(BLOCK));
        }
        Ok(())
    }
}

/// A store small enough for the chip: segments of four blocks.
fn options(seed: u8) -> Options {
    Options::new([seed; 16]).with_segment_bytes(4 * BLOCK as u64).with_index_files(false)
}

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let mut disk = FlashDisk::start(Chip { cells: vec![0xff; BLOCK * BLOCKS], erasures: 0 });
    for life in 0..20u8 {
        let (mut store, recovery) = Store::open(disk.clone(), options(life + 1))?;
        assert!(!recovery.is_lossy() && recovery.torn.is_empty());
        // A logger: a hundred readings of a few sensors, the last of each to be kept.
        for reading in 0..100u16 {
            let sensor = [b's', b'0' + u8::try_from(reading % 10)?];
            store.put(0, &sensor, &[life; 120], u64::from(life) << 16 | u64::from(reading))?;
            if reading % 10 == 9 {
                store.sync()?;
                while store.maintain(4096)?.more {}
            }
        }
        store.sync()?;
        // Pull the plug: what comes up again is what the chip holds.
        drop(store);
        let chip = {
            let mut state = disk.state();
            core::mem::replace(&mut state.chip, Chip { cells: Vec::new(), erasures: 0 })
        };
        disk = FlashDisk::start(chip);
    }
    let (mut store, recovery) = Store::open(disk.clone(), options(99))?;
    assert_eq!(recovery.keys, 10);
    for sensor in 0..10u8 {
        match store.get(0, &[b's', b'0' + sensor])? {
            Read::Value { value, tag, .. } => {
                assert_eq!((value, tag), (vec![19; 120], 19 << 16 | u64::from(90 + sensor)));
            }
            other => panic!("{other:?}"),
        }
    }
    println!(
        "20 power cuts, 2,000 readings, 10 sensors: {} bytes of log on a chip of {} with {} erasures",
        store.stats().log_bytes,
        BLOCK * BLOCKS,
        disk.state().chip.erasures
    );
    Ok(())
}
