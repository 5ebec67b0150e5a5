//! A disk in memory that forgets, fails and lies on demand, the same way each time for the same seed.
//!
//! It keeps two images of everything: what a running process sees, and what is durable. A power cut leaves the durable
//! image and any subset of what was changed since: each sector, length and name on its own.

mod faults;
mod image;

use crate::checksum::mix;
use crate::disk::{Disk, DiskError, DiskErrorKind, DiskFile};
use faults::Faults;
use image::{Change, Dice, DirChange, Inode};
use std::collections::{BTreeMap, BTreeSet};
use std::string::{String, ToString};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

/// Room is given in blocks of so many bytes.
const BLOCK_BYTES: u64 = 4096;

/// A disk in memory. Clones are handles to the same disk: a test keeps one and gives the store another.
#[derive(Clone, Debug, Default)]
pub struct MemDisk(Arc<Mutex<State>>);

/// An open file of a [`MemDisk`]. It is dead after a power cut.
#[derive(Clone, Debug)]
pub struct MemFile(Arc<OpenFile>);

/// What a file of so many bytes takes of the capacity.
fn in_blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES)
}

#[derive(Debug)]
struct OpenFile {
    disk: MemDisk,
    inode: u64,
    /// Which of the disk's lives the file was opened in.
    life: u64,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.life == self.life {
            file(&mut state, self.inode).open -= 1;
            state.sweep();
        }
    }
}

/// Holds a [`MemDisk`] for one opener.
#[derive(Debug)]
pub struct MemLock {
    disk: MemDisk,
    life: u64,
}

impl Drop for MemLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.life == self.life {
            state.locked = false;
        }
    }
}

#[derive(Clone, Debug, Default)]
struct State {
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Changes of names since the last sync of the directory.
    name_changes: Vec<DirChange>,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    life: u64,
    locked: bool,
    off: bool,
    operations: u64,
    faults: Faults,
}

/// What an operation is about to do, for the faults to act on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Read,
    Change,
}

impl State {
    /// Counts an operation, and cuts the power if its time has come. The operation that the power fails in has begun: it
    /// takes effect like any other unsynced change, but its caller sees an error.
    fn step(&mut self, step: Step, operation: &'static str) -> Result<Fate, DiskError> {
        if self.off {
            return Err(DiskError::new(DiskErrorKind::Unplugged, operation));
        }
        if step == Step::Read {
            return Ok(Fate::Goes);
        }
        self.operations += 1;
        match &mut self.faults.operations_to_power_cut {
            Some(0) => {
                self.off = true;
                Ok(Fate::LastGasp)
            }
            Some(left) => {
                *left -= 1;
                Ok(Fate::Goes)
            }
            None => Ok(Fate::Goes),
        }
    }

    /// A step that changes names or a length: it may be due to fail.
    fn step_of_names(&mut self, operation: &'static str) -> Result<Fate, DiskError> {
        let fate = self.step(Step::Change, operation)?;
        if self.faults.fails_change() { Err(DiskError::new(DiskErrorKind::Io, operation)) } else { Ok(fate) }
    }

    fn used_bytes(&self) -> u64 {
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        let there = self.inodes.iter().filter(|(inode, file)| file.open > 0 || named.contains(inode));
        there.map(|(_, file)| in_blocks(file.live.len)).sum()
    }

    /// How many bytes may be added.
    fn room(&self) -> u64 {
        let taken = self.used_bytes() + self.faults.withheld;
        self.faults.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(taken))
    }

    fn inode_of(&self, name: &str, operation: &'static str) -> Result<u64, DiskError> {
        self.names.get(name).copied().ok_or(DiskError::new(DiskErrorKind::NotFound, operation))
    }

    fn change_names(&mut self, change: DirChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }

    /// Files that a name may lead to after a power cut.
    fn survivors(&self) -> Vec<u64> {
        let pending = self.name_changes.iter().filter_map(DirChange::inode);
        let mut inodes: Vec<u64> = self.durable_names.values().copied().chain(pending).collect();
        inodes.sort_unstable();
        inodes.dedup();
        inodes
    }

    /// Forgets files that no name, durable or not, leads to, and that nobody has open.
    fn sweep(&mut self) {
        let durable = &self.durable_names;
        let pending = &self.name_changes;
        let names = &self.names;
        self.inodes.retain(|inode, file| {
            file.open > 0
                || names.values().any(|named| named == inode)
                || durable.values().any(|named| named == inode)
                || pending.iter().any(|change| change.inode() == Some(*inode))
        });
    }
}

/// What becomes of an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Goes,
    /// It is under way as the power fails.
    LastGasp,
}

impl Fate {
    fn end<T>(self, value: T, operation: &'static str) -> Result<T, DiskError> {
        match self {
            Self::Goes => Ok(value),
            Self::LastGasp => Err(DiskError::new(DiskErrorKind::Unplugged, operation)),
        }
    }
}

/// Faults and power.
impl MemDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts the power and restores it. Of what was not synced any subset survives, chosen by the seed: each sector of 512
    /// bytes as it was at any moment since the last sync, or torn; lengths and names each on their own. Files that were
    /// open are dead, the lock is free, planned faults are forgotten.
    pub fn crash(&self, seed: u64) {
        let mut state = self.state();
        let mut dice = Dice::new(seed);
        let style = dice.style();
        let mut names = state.durable_names.clone();
        for change in &state.name_changes {
            if dice.survives(style) {
                change.apply(&mut names);
            }
        }
        let mut inodes = BTreeMap::new();
        for inode in names.values() {
            let file = state.inodes.get(inode).expect("no file that a name may lead to is swept away");
            inodes.insert(*inode, file.after_power_cut(&mut dice, style));
        }
        *state = State {
            names: names.clone(),
            durable_names: names,
            inodes,
            next_inode: state.next_inode,
            life: state.life + 1,
            operations: state.operations,
            faults: state.faults.lasting(),
            ..State::default()
        };
    }

    /// A disk of its own with what [`crash`](Self::crash) would leave here; this one goes on.
    #[must_use]
    pub fn crash_image(&self, seed: u64) -> Self {
        let copy = self.fork();
        copy.crash(seed);
        copy
    }

    /// What a power cut at this moment could choose: for each change of a name, each file's length and each sector that was written
    /// to since the last sync, how many outcomes there are. The product of all is the number of
    /// [images](Self::crash_image_of) that it could leave.
    pub fn crash_outcomes(&self) -> Vec<u64> {
        let state = self.state();
        let mut outcomes = std::vec![2; state.name_changes.len()];
        outcomes.extend(state.survivors().into_iter().flat_map(|inode| state.inodes[&inode].outcomes()));
        outcomes
    }

    /// A disk of its own with what a power cut with just these outcomes would leave, each less than the number that
    /// [`crash_outcomes`](Self::crash_outcomes) has in its place; this one goes on. Outcome 0 is as if the change had not been made; for
    /// sectors the greater ones are moments since the last sync, and those beyond are the same moments torn: the
    /// last write got as far as byte `tear` of the sector.
    ///
    /// # Panics
    /// If there are too few outcomes.
    #[must_use]
    pub fn crash_image_of(&self, outcomes: &[u64], tear: u64) -> Self {
        let state = self.state();
        let (of_names, of_files) = outcomes.split_at(state.name_changes.len());
        let mut names = state.durable_names.clone();
        for (change, outcome) in state.name_changes.iter().zip(of_names) {
            if *outcome > 0 {
                change.apply(&mut names);
            }
        }
        let mut of_files = of_files.iter().copied();
        let mut inodes = BTreeMap::new();
        for inode in state.survivors() {
            let file = state.inodes[&inode].after_outcomes(&mut of_files, tear);
            if names.values().any(|named| *named == inode) {
                inodes.insert(inode, file);
            }
        }
        Self(Arc::new(Mutex::new(State {
            durable_names: names.clone(),
            names,
            inodes,
            next_inode: state.next_inode,
            faults: state.faults.lasting(),
            ..State::default()
        })))
    }

    /// A disk of its own that is now like this one, its unsynced changes included, with nobody holding it.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut state = self.state().clone();
        state.locked = false;
        state.life += 1;
        state.inodes.values_mut().for_each(|file| file.open = 0);
        Self(Arc::new(Mutex::new(state)))
    }

    /// Ends the process that holds the disk, as `kill -9` does: nothing is lost or synced, open files are dead, the lock is
    /// free.
    pub fn kill(&self) {
        let mut state = self.state();
        state.life += 1;
        state.locked = false;
        state.inodes.values_mut().for_each(|file| file.open = 0);
        state.sweep();
    }

    /// Cuts the power in the midst of a changing operation (write, sync, create, rename, remove, truncate) after `count` more.
    /// From then on everything fails with [`DiskErrorKind::Unplugged`] until [`crash`](Self::crash).
    pub fn cut_power_after(&self, count: u64) {
        self.state().faults.operations_to_power_cut = Some(count);
    }

    /// Whether the power is on: it has not been [cut](Self::cut_power_after), or it was [restored](Self::crash).
    pub fn is_powered(&self) -> bool {
        !self.state().off
    }

    /// Changing operations so far.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Bytes that all files take together, each a whole number of blocks of 4 KiB as on most file systems. One that was removed takes them until
    /// nobody has it open.
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// Turns one bit of a file round, durably; answers whether there is such a bit.
    pub fn flip_bit(&self, name: &str, bit: u64) -> bool {
        let mut state = self.state();
        let Some(inode) = state.names.get(name).copied() else { return false };
        let file = state.inodes.get_mut(&inode).expect("names lead to files");
        if bit / 8 >= file.live.len {
            return false;
        }
        let mask = 1 << (bit % 8);
        for image in [&mut file.live, &mut file.durable] {
            if bit / 8 < image.len {
                let mut byte = [0];
                image.read(bit / 8, &mut byte);
                image.write(bit / 8, &[byte[0] ^ mask]);
            }
        }
        true
    }

    /// Puts these bytes over what stands in a file, durably, and under whoever has it open: what a write leaves that went to the wrong place,
    /// or, told with what stood there before, one that was lost. What was written there and not synced is gone. Answers whether the
    /// file reaches so far.
    pub fn overwrite(&self, name: &str, offset: u64, bytes: &[u8]) -> bool {
        let mut state = self.state();
        let Some(inode) = state.names.get(name).copied() else { return false };
        let file = state.inodes.get_mut(&inode).expect("names lead to files");
        let reaches = offset + bytes.len() as u64 <= file.live.len;
        if reaches {
            file.overwrite(offset, bytes);
        }
        reaches
    }

    /// A file's bytes as a reader sees them.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        let file = state.inodes.get(state.names.get(name)?)?;
        let mut bytes = std::vec![0; usize::try_from(file.live.len).ok()?];
        file.live.read(0, &mut bytes);
        Some(bytes)
    }

    /// Puts a file with these bytes on the disk, durably, in the place of one that has the name.
    pub fn plant(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state();
        let inode = state.next_inode;
        state.next_inode += 1;
        state.inodes.insert(inode, Inode::durable(bytes));
        state.names.insert(name.to_string(), inode);
        state.durable_names.insert(name.to_string(), inode);
    }
}

impl Disk for MemDisk {
    type File = MemFile;
    type Lock = MemLock;

    fn lock(&self) -> Result<MemLock, DiskError> {
        let mut state = self.state();
        state.step(Step::Read, "lock")?;
        if state.locked {
            return Err(DiskError::new(DiskErrorKind::Locked, "lock"));
        }
        state.locked = true;
        Ok(MemLock { disk: self.clone(), life: state.life })
    }

    fn list(&self) -> Result<Vec<String>, DiskError> {
        let mut state = self.state();
        state.step(Step::Read, "list")?;
        Ok(state.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> Result<MemFile, DiskError> {
        let mut state = self.state();
        state.step(Step::Read, "open a file")?;
        let inode = state.inode_of(name, "open a file")?;
        Ok(self.handle(&mut state, inode))
    }

    fn create(&self, name: &str, bytes: u64) -> Result<MemFile, DiskError> {
        let mut state = self.state();
        let fate = state.step_of_names("create a file")?;
        if state.names.contains_key(name) {
            return Err(DiskError::new(DiskErrorKind::AlreadyExists, "create a file"));
        }
        let bytes = if state.faults.reserves_nothing { 0 } else { bytes };
        if state.room() < in_blocks(bytes) {
            return Err(DiskError::new(DiskErrorKind::NoSpace, "create a file"));
        }
        let inode = state.next_inode;
        state.next_inode += 1;
        let mut file = Inode::default();
        file.change(Change::Length(bytes));
        state.inodes.insert(inode, file);
        state.change_names(DirChange::Link { name: name.to_string(), inode });
        let handle = self.handle(&mut state, inode);
        drop(state);
        fate.end(handle, "create a file")
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut state = self.state();
        let fate = state.step_of_names("rename a file")?;
        let inode = state.inode_of(from, "rename a file")?;
        state.change_names(DirChange::Rename { from: from.to_string(), to: to.to_string(), inode });
        fate.end((), "rename a file")
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        let mut state = self.state();
        let fate = state.step_of_names("remove a file")?;
        state.inode_of(name, "remove a file")?;
        state.change_names(DirChange::Unlink { name: name.to_string() });
        fate.end((), "remove a file")
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        let mut state = self.state();
        let fate = state.step_of_names("sync the directory")?;
        if fate == Fate::Goes && !state.faults.lying {
            state.durable_names = state.names.clone();
            state.name_changes.clear();
            state.sweep();
        }
        fate.end((), "sync the directory")
    }
}

impl MemDisk {
    fn handle(&self, state: &mut State, inode: u64) -> MemFile {
        state.inodes.get_mut(&inode).expect("opened by a name that leads to it").open += 1;
        MemFile(Arc::new(OpenFile { disk: self.clone(), inode, life: state.life }))
    }
}

impl MemFile {
    fn with<T>(
        &self,
        operation: &'static str,
        act: impl FnOnce(&mut State, u64) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let mut state = self.0.disk.state();
        if state.life != self.0.life {
            return Err(DiskError::new(DiskErrorKind::Unplugged, operation));
        }
        act(&mut state, self.0.inode)
    }
}

/// The file of a handle that is alive.
fn file(state: &mut State, inode: u64) -> &mut Inode {
    state.inodes.get_mut(&inode).expect("an open file is not swept away")
}

impl DiskFile for MemFile {
    fn size(&self) -> Result<u64, DiskError> {
        self.with("size", |state, inode| {
            state.step(Step::Read, "size")?;
            Ok(file(state, inode).live.len)
        })
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        self.with("read", |state, inode| {
            state.step(Step::Read, "read")?;
            if state.faults.reads_to_fail > 0 {
                state.faults.reads_to_fail -= 1;
                return Err(DiskError::new(DiskErrorKind::Io, "read"));
            }
            let mut read = file(state, inode).live.read(offset, into);
            let (shortened, seed) = state.faults.reads_to_shorten;
            if shortened > 0 && read > 1 {
                state.faults.reads_to_shorten.0 -= 1;
                let fewer = mix(seed ^ shortened) % (read as u64 - 1) + 1;
                read = usize::try_from(fewer).expect("fewer than were read");
                // What is not told of is not given.
                into[read..].fill(0xa5);
            }
            let (spoiled, seed) = state.faults.reads_to_spoil;
            if spoiled > 0 && read > 0 {
                state.faults.reads_to_spoil.0 -= 1;
                let bit =
                    usize::try_from(mix(seed ^ spoiled) % (read as u64 * 8)).expect("inside what was read");
                into[bit / 8] ^= 1 << (bit % 8);
            }
            Ok(read)
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.with("write", |state, inode| {
            let fate = state.step(Step::Change, "write")?;
            if state.faults.writes_to_lose > 0 {
                state.faults.writes_to_lose -= 1;
                return fate.end((), "write");
            }
            let (mut bytes, mut offset) = (bytes, offset);
            let (misdirected, seed) = state.faults.writes_to_misdirect;
            if misdirected > 0 {
                state.faults.writes_to_misdirect.0 -= 1;
                let places = file(state, inode).live.len.saturating_sub(bytes.len() as u64) / 8;
                let elsewhere = mix(seed ^ misdirected) % places.max(1) * 8;
                offset = if elsewhere == offset { 0 } else { elsewhere };
            }
            let mut failure = None;
            if state.faults.writes_to_fail > 0 {
                state.faults.writes_to_fail -= 1;
                bytes = &bytes[..bytes.len() / 2];
                failure = Some(DiskErrorKind::Io);
            }
            let end = in_blocks(file(state, inode).live.len).saturating_add(state.room());
            if offset + bytes.len() as u64 > end {
                let fits = end.saturating_sub(offset);
                bytes = &bytes[..usize::try_from(fits).unwrap_or(bytes.len()).min(bytes.len())];
                failure = Some(DiskErrorKind::NoSpace);
            }
            file(state, inode).change(Change::Write { offset, bytes: bytes.to_vec() });
            match failure {
                Some(kind) => Err(DiskError::new(kind, "write")),
                None => fate.end((), "write"),
            }
        })
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.with("sync", |state, inode| {
            let fate = state.step(Step::Change, "sync")?;
            if fate == Fate::LastGasp || state.faults.lying {
                return fate.end((), "sync");
            }
            if state.faults.syncs_to_fail > 0 {
                state.faults.syncs_to_fail -= 1;
                file(state, inode).forget_changes();
                return Err(DiskError::new(DiskErrorKind::Io, "sync"));
            }
            file(state, inode).sync();
            Ok(())
        })
    }

    fn truncate(&self, bytes: u64) -> Result<(), DiskError> {
        self.with("truncate", |state, inode| {
            let fate = state.step_of_names("truncate")?;
            file(state, inode).change(Change::Length(bytes));
            fate.end((), "truncate")
        })
    }
}
