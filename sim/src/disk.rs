//! A node's disk: the store's own memory disk, which knows what is durable and what only seems so.

use crate::swarm::Harm;
use core::ops::Range;
use core::time::Duration;
use gramme_store::{Disk as _, MemDisk};

/// What comes before the first record of the store's segments, and in each record before its key; records begin at multiples of the third.
const SEGMENT_HEADER: usize = 64;
const RECORD_HEADER: usize = 40;
const UNIT: usize = 8;

/// A disk that outlives its node's processes.
#[derive(Debug, Default)]
pub(crate) struct SimDisk {
    disk: MemDisk,
    /// It may refuse writes, for want of room or after a failed sync: not every append is performed.
    pub(crate) refuses: bool,
    /// It has room again, and its store has yet to find that out.
    pub(crate) lags: bool,
    /// Its next syncs fail, or have failed.
    pub(crate) fails: bool,
    /// It refuses to read anything, and nothing on it is damaged.
    refuses_reads: bool,
    /// It was taken away, and no store was made on the new one yet.
    pub(crate) blank: bool,
    /// The power is to fail at one of the next operations; the machine starts again so long after.
    pub(crate) armed: Option<Duration>,
}

impl SimDisk {
    /// Whether not every append is performed.
    pub(crate) const fn may_refuse(&self) -> bool {
        self.refuses || self.lags
    }
}

impl From<MemDisk> for SimDisk {
    /// Another machine's: what was planned for the disk that was copied does not come with it.
    fn from(disk: MemDisk) -> SimDisk {
        disk.set_capacity(None);
        disk.fail_next_syncs(0);
        disk.cut_power_after(u64::MAX);
        disk.fail_next_reads(0);
        SimDisk { disk, ..SimDisk::default() }
    }
}

/// Where a record stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    name: String,
    /// From its header on.
    bytes: Range<usize>,
    /// Nobody writes to its segment any more, which has an index file: whatever becomes of the record, an opening knows that it
    /// was there.
    pub(crate) sealed: bool,
}

/// What stood where something was overwritten: file, place, bytes.
pub(crate) type Scars = Vec<(String, usize, Vec<u8>)>;

impl SimDisk {
    /// A new disk in the place of one that had a store.
    pub(crate) fn blank() -> SimDisk {
        SimDisk { blank: true, ..SimDisk::default() }
    }

    /// The same disk at another moment.
    pub(crate) fn replace(&mut self, disk: MemDisk) {
        self.disk = disk;
    }

    pub(crate) const fn inner(&self) -> &MemDisk {
        &self.disk
    }

    /// Where the record of this key and value stands, if there is just one.
    pub(crate) fn find(&self, key: &[u8], value: &[u8]) -> Option<Extent> {
        let all = self.disk.list().unwrap_or_default();
        let body = [key, value].concat();
        let mut found = None;
        for name in all.iter().filter(|name| name.ends_with(".seg")) {
            let contents = self.disk.contents(name).unwrap_or_default();
            for (at, _) in contents.windows(body.len()).enumerate().filter(|(_, window)| *window == body) {
                let is_record =
                    at >= SEGMENT_HEADER + RECORD_HEADER && (at - RECORD_HEADER).is_multiple_of(UNIT);
                if found.is_some() || !is_record {
                    return None;
                }
                // Until later segments are sealed too the log may not say durably that this one was.
                let index = name.replace(".seg", ".idx");
                let later = all.iter().filter(|other| other.ends_with(".idx") && **other > index).count();
                let sealed = later >= 2 && all.contains(&index);
                let bytes = at - RECORD_HEADER..at + body.len();
                found = Some(Extent { name: name.clone(), bytes, sealed });
            }
        }
        found
    }

    /// Does harm to a record; `other`: one that is at least as long, to whose place it may have gone. What it takes to undo it.
    pub(crate) fn harm(&self, record: &Extent, harm: Harm, other: Option<&Extent>, bits: u64) -> Scars {
        let mut scars = Vec::new();
        let whole = self.contents(record);
        match harm {
            // One bit alone may be mended, and so may one of the header.
            Harm::Rot => {
                let mut body = whole[RECORD_HEADER..].to_vec();
                let first = bits % (body.len() as u64 * 8 - 1);
                for bit in [first, first + 1] {
                    let byte = usize::try_from(bit / 8).expect("it is one of the record's");
                    body[byte] ^= 1 << (bit % 8);
                }
                self.put(&mut scars, record, RECORD_HEADER, &body);
            }
            // Where nothing was ever written there are zeros.
            Harm::Lost => self.put(&mut scars, record, 0, &vec![0; whole.len()]),
            Harm::Misdirected => {
                self.put(&mut scars, record, 0, &vec![0; whole.len()]);
                if let Some(other) = other {
                    self.put(&mut scars, other, 0, &whole);
                }
            }
        }
        scars
    }

    fn contents(&self, at: &Extent) -> Vec<u8> {
        self.disk.contents(&at.name).expect("the record is there")[at.bytes.clone()].to_vec()
    }

    fn put(&self, scars: &mut Scars, at: &Extent, offset: usize, bytes: &[u8]) {
        let before = self.contents(at)[offset..offset + bytes.len()].to_vec();
        let from = at.bytes.start + offset;
        scars.push((at.name.clone(), from, before));
        assert!(self.disk.overwrite(&at.name, from as u64, bytes), "the record is there");
    }

    /// Undoes it.
    pub(crate) fn undo(&self, scars: Scars) {
        for (name, from, before) in scars.into_iter().rev() {
            assert!(self.disk.overwrite(&name, from as u64, &before), "the record is there");
        }
    }

    /// Whether it refuses to read anything from now on. Nothing on it is damaged by that.
    pub(crate) fn refuse_reads(&mut self, refuse: bool) {
        self.refuses_reads = refuse;
        self.disk.fail_next_reads(if refuse { u64::MAX } else { 0 });
    }

    /// Looks at it whether or not it refuses.
    pub(crate) fn looking<T>(&self, look: impl FnOnce() -> T) -> T {
        self.disk.fail_next_reads(0);
        let seen = look();
        self.disk.fail_next_reads(if self.refuses_reads { u64::MAX } else { 0 });
        seen
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

impl Extent {
    /// Whether another record's bytes fit into its place.
    pub(crate) fn holds(&self, other: &Extent) -> bool {
        self != other && other.bytes.len() <= self.bytes.len()
    }
}
