//! Images of files, and what a power cut makes of them.

use crate::checksum::mix;
use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

const SECTOR: u64 = 512;

/// A file's bytes; past those that were written they are zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Image {
    bytes: Vec<u8>,
    pub(super) len: u64,
}

impl Image {
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        let Ok(offset) = usize::try_from(offset.min(self.len)) else { return 0 };
        let count = into.len().min(usize::try_from(self.len).unwrap_or(usize::MAX) - offset);
        let into = &mut into[..count];
        let written = self.bytes.get(offset..).unwrap_or(&[]);
        let copied = written.len().min(count);
        into[..copied].copy_from_slice(&written[..copied]);
        into[copied..].fill(0);
        count
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let start = usize::try_from(offset).expect("a file in memory fits into memory");
        let end = start + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(bytes);
        self.len = self.len.max(end as u64);
    }

    fn set_len(&mut self, len: u64) {
        self.len = len;
        if let Ok(len) = usize::try_from(len) {
            self.bytes.truncate(len);
        }
    }
}

/// A change that is not durable yet.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Length(u64),
}

/// A change of names that is not durable yet.
#[derive(Clone, Debug)]
pub(super) enum DirChange {
    Link { name: String, inode: u64 },
    Unlink { name: String },
    Rename { from: String, to: String, inode: u64 },
}

impl DirChange {
    pub(super) fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Link { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            Self::Unlink { name } => {
                names.remove(name);
            }
            Self::Rename { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }

    pub(super) fn inode(&self) -> Option<u64> {
        match self {
            Self::Link { inode, .. } | Self::Rename { inode, .. } => Some(*inode),
            Self::Unlink { .. } => None,
        }
    }
}

/// A file, as seen and as durable.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) live: Image,
    pub(super) durable: Image,
    changes: Vec<Change>,
    /// Handles given out in this life of the disk.
    pub(super) open: u64,
}

impl Inode {
    pub(super) fn durable(bytes: &[u8]) -> Self {
        let mut image = Image::default();
        image.write(0, bytes);
        Self { live: image.clone(), durable: image, ..Self::default() }
    }

    pub(super) fn change(&mut self, change: Change) {
        apply(&mut self.live, &change);
        self.changes.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.changes.drain(..) {
            apply(&mut self.durable, &change);
        }
    }

    /// These bytes stand there from now on, whatever was written there and is not synced yet.
    pub(super) fn overwrite(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        let change = Change::Write { offset, bytes: bytes.to_vec() };
        for pending in &mut self.changes {
            let Change::Write { offset: at, bytes: written } = pending else { continue };
            let (from, to) = (offset.max(*at), end.min(*at + written.len() as u64));
            if from < to {
                let part = |start: u64| {
                    let within = |position: u64| usize::try_from(position - start).expect("inside the write");
                    within(from)..within(to)
                };
                written[part(*at)].copy_from_slice(&bytes[part(offset)]);
            }
        }
        for image in [&mut self.live, &mut self.durable] {
            write_clipped(image, &change, offset, end);
        }
    }

    /// A failed sync: the pages count as clean, and their contents never get to the disk.
    pub(super) fn forget_changes(&mut self) {
        self.changes.clear();
    }

    /// The lengths that the file has had since its last sync.
    fn lengths(&self) -> Vec<u64> {
        let mut seen = self.durable.len;
        let lengths = self.changes.iter().map(|change| {
            match change {
                Change::Length(len) => seen = *len,
                Change::Write { offset, bytes } => seen = seen.max(offset + bytes.len() as u64),
            }
            seen
        });
        lengths.collect()
    }

    /// The unsynced writes to each sector, in order.
    fn sectors(&self) -> BTreeMap<u64, Vec<&Change>> {
        let mut sectors: BTreeMap<u64, Vec<&Change>> = BTreeMap::new();
        for change in &self.changes {
            if let Change::Write { offset, bytes } = change
                && !bytes.is_empty()
            {
                for sector in offset / SECTOR..=(offset + bytes.len() as u64 - 1) / SECTOR {
                    sectors.entry(sector).or_default().push(change);
                }
            }
        }
        sectors
    }

    /// What a power cut leaves.
    pub(super) fn after_power_cut(&self, dice: &mut Dice, style: Style) -> Self {
        let mut image = self.durable.clone();
        // The length is one of those that the file has had since.
        for len in self.lengths() {
            if dice.survives(style) {
                image.set_len(len);
            }
        }
        // Each sector stops at some moment of its own.
        for (sector, writes) in self.sectors() {
            let moment = dice.moment(style, writes.len());
            let torn = moment > 0 && dice.one_in(16);
            let until = if torn { dice.below(SECTOR) } else { SECTOR };
            write_sector(&mut image, sector, &writes[..moment], until);
            // New room that was never written may hold what some other file left there.
            if moment == 0 && sector * SECTOR >= self.durable.len && dice.one_in(8) {
                let stale: Vec<u8> = (0..SECTOR).map(|_| dice.byte()).collect();
                let change = Change::Write { offset: sector * SECTOR, bytes: stale };
                write_clipped(&mut image, &change, sector * SECTOR, (sector + 1) * SECTOR);
            }
        }
        Self { live: image.clone(), durable: image, ..Self::default() }
    }

    /// How many outcomes a power cut has for the file's length and for each sector that was written to.
    pub(super) fn outcomes(&self) -> Vec<u64> {
        let mut lengths = self.lengths();
        lengths.dedup();
        let mut outcomes = Vec::from([lengths.len() as u64 + 1]);
        // As it was, whole at each of its moments, or torn at each.
        outcomes.extend(self.sectors().values().map(|writes| 2 * writes.len() as u64 + 1));
        outcomes
    }

    /// What a power cut with these outcomes leaves; as many as [`Inode::outcomes`] has. Torn sectors are cut at `tear`.
    pub(super) fn after_outcomes(&self, outcomes: &mut impl Iterator<Item = u64>, tear: u64) -> Self {
        let mut image = self.durable.clone();
        let mut lengths = self.lengths();
        lengths.dedup();
        let mut choose = || usize::try_from(outcomes.next().expect("one for each piece")).expect("few");
        if let Some(at) = choose().checked_sub(1) {
            image.set_len(lengths[at]);
        }
        for (sector, writes) in self.sectors() {
            let outcome = choose();
            let (moment, until) = if outcome > writes.len() {
                (outcome - writes.len(), tear % SECTOR)
            } else {
                (outcome, SECTOR)
            };
            write_sector(&mut image, sector, &writes[..moment], until);
        }
        Self { live: image.clone(), durable: image, ..Self::default() }
    }
}

/// Writes these writes' parts of a sector; of the last one only what lies before byte `until` of the sector.
fn write_sector(image: &mut Image, sector: u64, writes: &[&Change], until: u64) {
    for (number, write) in writes.iter().enumerate() {
        let until = if number + 1 == writes.len() { until } else { SECTOR };
        write_clipped(image, write, sector * SECTOR, sector * SECTOR + until);
    }
}

fn apply(image: &mut Image, change: &Change) {
    match change {
        Change::Write { offset, bytes } => image.write(*offset, bytes),
        Change::Length(len) => image.set_len(*len),
    }
}

/// Writes the part of a write that lies between `start` and `end` and inside the file.
fn write_clipped(image: &mut Image, change: &Change, start: u64, end: u64) {
    let Change::Write { offset, bytes } = change else { return };
    let from = start.max(*offset);
    let to = end.min(offset + bytes.len() as u64).min(image.len);
    if from < to {
        let at = |position: u64| usize::try_from(position - offset).expect("inside the write");
        image.write(from, &bytes[at(from)..at(to)]);
    }
}

/// How much of the unsynced survives. The extremes are drawn as often as the mixtures.
#[derive(Clone, Copy, Debug)]
pub(super) enum Style {
    Nothing,
    Everything,
    /// This share of 256.
    Some(u64),
}

/// Randomness from a seed.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub(super) fn style(&mut self) -> Style {
        match self.below(8) {
            0 => Style::Nothing,
            1 => Style::Everything,
            _ => Style::Some(self.below(257)),
        }
    }

    pub(super) fn survives(&mut self, style: Style) -> bool {
        match style {
            Style::Nothing => false,
            Style::Everything => true,
            Style::Some(share) => self.below(256) < share,
        }
    }

    /// How many of `count` writes to one sector took place.
    fn moment(&mut self, style: Style, count: usize) -> usize {
        match style {
            Style::Nothing => 0,
            Style::Everything => count,
            Style::Some(_) if self.survives(style) => count,
            Style::Some(_) => usize::try_from(self.below(count as u64 + 1)).expect("at most the count"),
        }
    }
}
