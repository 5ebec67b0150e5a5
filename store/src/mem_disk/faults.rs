//! What a [`MemDisk`] does wrong on demand.

use super::MemDisk;

#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    pub(super) capacity: Option<u64>,
    /// Of the capacity, what the store may not have.
    pub(super) withheld: u64,
    pub(super) syncs_to_fail: u64,
    pub(super) writes_to_fail: u64,
    pub(super) writes_to_lose: u64,
    /// Writes that go elsewhere, and what chooses where.
    pub(super) writes_to_misdirect: (u64, u64),
    pub(super) reads_to_fail: u64,
    /// Reads that turn a bit round, and what chooses it.
    pub(super) reads_to_spoil: (u64, u64),
    /// Reads that come short, and what chooses by how much.
    pub(super) reads_to_shorten: (u64, u64),
    /// Changes of names and lengths that go well, and those that fail after them.
    changes_to_fail: (u64, u64),
    pub(super) reserves_nothing: bool,
    pub(super) lying: bool,
    pub(super) operations_to_power_cut: Option<u64>,
}

impl Faults {
    /// What the disk is like, whatever was planned.
    pub(super) fn lasting(&self) -> Self {
        Self {
            capacity: self.capacity,
            withheld: self.withheld,
            reserves_nothing: self.reserves_nothing,
            ..Self::default()
        }
    }

    /// Whether the change of a name or a length that is about to be made fails.
    pub(super) fn fails_change(&mut self) -> bool {
        match &mut self.changes_to_fail {
            (0, 0) => false,
            (0, failing) => {
                *failing -= 1;
                true
            }
            (before, _) => {
                *before -= 1;
                false
            }
        }
    }
}

impl MemDisk {
    /// The next `count` syncs fail, and what they were to make durable never will be, though reads go on seeing it: a
    /// later sync "succeeds" without it, as on Linux.
    pub fn fail_next_syncs(&self, count: u64) {
        self.state().faults.syncs_to_fail = count;
    }

    /// The next `count` writes write half of their bytes and fail.
    pub fn fail_next_writes(&self, count: u64) {
        self.state().faults.writes_to_fail = count;
    }

    /// The next `count` writes succeed and write nothing.
    pub fn lose_next_writes(&self, count: u64) {
        self.state().faults.writes_to_lose = count;
    }

    /// The next `count` writes succeed, and are written elsewhere in their file, which the seed chooses, over what stands there.
    pub fn misdirect_next_writes(&self, count: u64, seed: u64) {
        self.state().faults.writes_to_misdirect = (count, seed);
    }

    /// The next `count` reads fail.
    pub fn fail_next_reads(&self, count: u64) {
        self.state().faults.reads_to_fail = count;
    }

    /// The next `count` reads get one bit wrong that is right on the disk, chosen by the seed.
    pub fn spoil_next_reads(&self, count: u64, seed: u64) {
        self.state().faults.reads_to_spoil = (count, seed);
    }

    /// The next `count` reads of more than one byte give fewer than there are, one at least; how many the seed chooses.
    pub fn shorten_next_reads(&self, count: u64, seed: u64) {
        self.state().faults.reads_to_shorten = (count, seed);
    }

    /// Whether files that are made have the room reserved that was asked for, as they do at first. Otherwise they are empty, and a write may
    /// find the disk full and write what fits.
    pub fn reserve_room(&self, reserve: bool) {
        self.state().faults.reserves_nothing = !reserve;
    }

    /// Syncs succeed without making anything durable, or tell the truth again.
    pub fn lie_about_syncs(&self, lie: bool) {
        self.state().faults.lying = lie;
    }

    /// Bytes that all files together may [take](Self::used_bytes); `None`: no bound. A write that finds no room for all writes what fits.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().faults.capacity = bytes;
    }

    /// Keeps the last bytes of the [capacity](Self::set_capacity) from the store, as file systems keep some for root: what is given back while
    /// there are fewer is nobody's to have again.
    pub fn withhold(&self, bytes: u64) {
        self.state().faults.withheld = bytes;
    }

    /// After `before` more, `count` creations, renames, removals, cuts of a file and syncs of the directory fail and change nothing.
    pub fn fail_changes_after(&self, before: u64, count: u64) {
        self.state().faults.changes_to_fail = (before, count);
    }
}
