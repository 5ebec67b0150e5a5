//! A node's disk: the store's own memory disk, which knows what is durable and what only seems so.

use core::time::Duration;
use gramme_store::MemDisk;

/// A disk that outlives its node's processes.
#[derive(Debug, Default)]
pub(crate) struct SimDisk {
    disk: MemDisk,
    /// It may refuse writes, for want of room or after a failed sync: not every append is performed.
    pub(crate) refuses: bool,
    /// Its next syncs fail, or have failed.
    pub(crate) fails: bool,
    /// It was taken away, and no store was made on the new one yet.
    pub(crate) blank: bool,
    /// The power is to fail at one of the next operations; the machine starts again so long after.
    pub(crate) armed: Option<Duration>,
}

impl From<MemDisk> for SimDisk {
    /// Another machine's: what was planned for the disk that was copied does not come with it.
    fn from(disk: MemDisk) -> SimDisk {
        disk.set_capacity(None);
        disk.fail_next_syncs(0);
        disk.cut_power_after(u64::MAX);
        SimDisk { disk, ..SimDisk::default() }
    }
}

impl SimDisk {
    /// A new disk in the place of one that had a store.
    pub(crate) fn blank() -> SimDisk {
        SimDisk { blank: true, ..SimDisk::default() }
    }

    pub(crate) const fn inner(&self) -> &MemDisk {
        &self.disk
    }

    /// No power cut is planned any more.
    pub(crate) fn disarm(&mut self) {
        self.armed = None;
        // One that has happened is not undone by this.
        self.disk.cut_power_after(u64::MAX);
    }

    /// The power has failed in the midst of an operation.
    pub(crate) fn has_failed(&self) -> bool {
        self.armed.is_some() && !self.disk.is_powered()
    }
}
