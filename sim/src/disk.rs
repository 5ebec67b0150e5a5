//! A node's disk: the store's own memory disk, which knows what is durable and what only seems so.

use core::time::Duration;
use gramme_store::{Disk as _, MemDisk};

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

    /// Turns two bits of these bytes over, if they lie on the disk just once, in a segment that nobody writes to any more: those have
    /// index files. One bit alone may be mended.
    pub(crate) fn rot(&self, bytes: &[u8], bits: u64) -> Option<(String, [u64; 2])> {
        let all = self.disk.list().unwrap_or_default();
        let mut found = Vec::new();
        for name in all.iter().filter(|name| name.ends_with(".seg")) {
            let contents = self.disk.contents(name).unwrap_or_default();
            let places = contents.windows(bytes.len()).enumerate().filter(|(_, window)| *window == bytes);
            found.extend(places.map(|(at, _)| (name.clone(), at as u64 * 8)));
        }
        let [(name, at)] = &found[..] else { return None };
        if !all.contains(&name.replace(".seg", ".idx")) {
            return None;
        }
        let first = bits % (bytes.len() as u64 * 8 - 1);
        let rot = (name.clone(), [at + first, at + first + 1]);
        self.flip(&rot);
        Some(rot)
    }

    /// Turns them over, or back.
    pub(crate) fn flip(&self, (name, bits): &(String, [u64; 2])) {
        bits.iter().for_each(|bit| assert!(self.disk.flip_bit(name, *bit), "the record is there"));
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
