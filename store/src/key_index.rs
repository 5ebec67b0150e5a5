//! The index: where each key's record is, and its tag; no key bytes.
//!
//! One small table per slot, made when the slot gets its first key, so that no table is ever large enough for its
//! growth to be felt, and a slot goes at once. An entry is 22 bytes: 56 bits of the key's keyed fingerprint (with the slot's own
//! bits a match is as good as certain, and is confirmed on the disk when read), where the record is, a size class that
//! says how much to read, and the caller's tag.

use crate::slot_table::SlotTable;
use alloc::vec::Vec;

/// Bits of a fingerprint that the index keeps.
pub(crate) const FINGERPRINT_BITS: u32 = 56;
pub(crate) const FINGERPRINT_MASK: u64 = (1 << FINGERPRINT_BITS) - 1;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// The segment's place in the store's table.
    pub(crate) segment: u16,
    /// In units of 8 bytes.
    pub(crate) unit: u32,
    pub(crate) size: SizeClass,
}

impl Location {
    pub(crate) fn offset(self) -> u64 {
        u64::from(self.unit) * 8
    }
}

/// The length of a record, rounded up to one of a few classes: an eighth at most is read in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SizeClass(u8);

impl SizeClass {
    /// The smallest class that holds `bytes`, a multiple of 8.
    #[allow(clippy::cast_possible_truncation)] // A record is at most 2^24 units: the class stays below 180.
    pub(crate) fn of(bytes: usize) -> Self {
        let units = bytes.div_ceil(8) as u64;
        assert!(units <= 1 << 24, "no record is that long");
        if units < 16 {
            return Self(units as u8);
        }
        let shift = units.ilog2() - 3;
        let mantissa = units.div_ceil(1 << shift);
        // A mantissa of 16 is the next class's 8, and comes out as just that.
        Self((shift as u64 * 8 + mantissa) as u8)
    }

    /// That of no record at all.
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) const fn as_byte(self) -> u8 {
        self.0
    }

    /// `None` if no record is that long.
    pub(crate) fn of_byte(class: u8) -> Option<Self> {
        (class <= Self::of(8 << 24).0).then_some(Self(class))
    }

    /// The class's length in bytes.
    pub(crate) fn bytes(self) -> u64 {
        let class = u64::from(self.0);
        if class < 16 { class * 8 } else { ((8 + (class & 7)) << ((class >> 3) - 1)) * 8 }
    }
}

/// An index entry, packed: fingerprint 7 bytes, size class 1, tag 8, unit 4, segment 2.
#[derive(Clone, Copy)]
pub(crate) struct Entry([u8; 22]);

impl Entry {
    /// No entry: no record is of size class 0.
    pub(crate) const NONE: Self = Self([0; 22]);

    pub(crate) fn new(fingerprint: u64, location: Location, tag: u64) -> Self {
        let mut bytes = [0; 22];
        debug_assert!(location.size.0 != 0, "every record has a header");
        let word = fingerprint & FINGERPRINT_MASK | u64::from(location.size.0) << FINGERPRINT_BITS;
        bytes[..8].copy_from_slice(&word.to_le_bytes());
        bytes[8..16].copy_from_slice(&tag.to_le_bytes());
        bytes[16..20].copy_from_slice(&location.unit.to_le_bytes());
        bytes[20..].copy_from_slice(&location.segment.to_le_bytes());
        Self(bytes)
    }

    fn word(&self, at: usize) -> u64 {
        crate::record::word(&self.0, at)
    }

    pub(crate) fn is_none(&self) -> bool {
        self.0[7] == 0
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        self.word(0) & FINGERPRINT_MASK
    }

    pub(crate) fn tag(&self) -> u64 {
        self.word(8)
    }

    pub(crate) fn location(&self) -> Location {
        Location {
            segment: u16::from_le_bytes([self.0[20], self.0[21]]),
            unit: crate::record::half(&self.0, 16),
            size: SizeClass(self.0[7]),
        }
    }

    fn hit(&self) -> Hit {
        Hit { location: self.location(), tag: self.tag(), fingerprint: self.fingerprint() }
    }
}

/// What the index knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) location: Location,
    pub(crate) tag: u64,
    /// 56 bits.
    pub(crate) fingerprint: u64,
}

/// The index of all slots.
#[derive(Default)]
pub(crate) struct KeyIndex {
    tables: Vec<SlotTable>,
    keys: u64,
}

impl KeyIndex {
    fn table(&self, slot: u16) -> Option<&SlotTable> {
        self.tables.get(usize::from(slot))
    }

    /// The entry of a key with this fingerprint.
    pub(crate) fn get(&self, slot: u16, fingerprint: u64) -> Option<Hit> {
        Some(self.table(slot)?.get(fingerprint & FINGERPRINT_MASK)?.hit())
    }

    /// Sets the entry; returns what it was.
    pub(crate) fn set(&mut self, slot: u16, fingerprint: u64, location: Location, tag: u64) -> Option<Hit> {
        let entry = Entry::new(fingerprint, location, tag);
        let table = self.table_mut(slot);
        match table.find(entry.fingerprint()) {
            Ok(at) => Some(table.replace(at, entry).hit()),
            Err(at) => {
                table.insert(at, entry);
                self.keys += 1;
                None
            }
        }
    }

    /// Sets the entry unless there is one; then returns that.
    pub(crate) fn set_new(
        &mut self,
        slot: u16,
        fingerprint: u64,
        location: Location,
        tag: u64,
    ) -> Option<Hit> {
        let entry = Entry::new(fingerprint, location, tag);
        let table = self.table_mut(slot);
        match table.find(entry.fingerprint()) {
            Ok(at) => return Some(table.at(at).hit()),
            Err(at) => table.insert(at, entry),
        }
        self.keys += 1;
        None
    }

    /// The tables of so many slots, at most all, for who tells [`note_taken`](Self::note_taken) what is put there.
    pub(crate) fn tables_of(&mut self, slots: usize) -> &mut [SlotTable] {
        self.make_tables(slots);
        &mut self.tables[..slots]
    }

    /// So many keys were put into tables.
    pub(crate) fn note_taken(&mut self, keys: u64) {
        self.keys += keys;
    }

    fn table_mut(&mut self, slot: u16) -> &mut SlotTable {
        self.make_tables(usize::from(slot) + 1);
        &mut self.tables[usize::from(slot)]
    }

    fn make_tables(&mut self, slots: usize) {
        if slots > self.tables.len() {
            // To 1,024s: a node that has few slots pays for few.
            self.tables.resize_with(slots.next_multiple_of(1024), SlotTable::default);
        }
    }

    /// Removes the entry; returns what it was.
    pub(crate) fn remove(&mut self, slot: u16, fingerprint: u64) -> Option<Hit> {
        let table = self.tables.get_mut(usize::from(slot))?;
        let at = table.find(fingerprint & FINGERPRINT_MASK).ok()?;
        self.keys -= 1;
        Some(table.remove(at).hit())
    }

    /// Forgets a slot; `each` sees the location of every entry it had.
    pub(crate) fn drop_slot(&mut self, slot: u16, mut each: impl FnMut(Location)) {
        let Some(table) = self.tables.get_mut(usize::from(slot)).map(core::mem::take) else { return };
        self.keys -= table.len() as u64;
        table.from(0).for_each(|entry| each(entry.location()));
    }

    /// Keys in all slots.
    pub(crate) fn len(&self) -> u64 {
        self.keys
    }

    /// Keys in one slot.
    pub(crate) fn slot_len(&self, slot: u16) -> u64 {
        self.table(slot).map_or(0, |table| table.len() as u64)
    }

    /// The slots of a range that have keys, in order.
    pub(crate) fn slots(&self, first: u16, last: u16) -> impl Iterator<Item = u16> {
        let tables = self.tables.get(usize::from(first)..).unwrap_or_default();
        let filled = (first..=last).zip(tables).filter(|(_, table)| table.len() > 0);
        filled.map(|(slot, _)| slot)
    }

    /// The `limit` entries with the smallest fingerprints from `from` on, in order. This order does not change when the
    /// table grows, so it can be gone through in steps while the slot is written to.
    pub(crate) fn page(&self, slot: u16, from: u64, limit: usize) -> Vec<Hit> {
        let Some(table) = self.table(slot) else { return Vec::new() };
        let mut page = Vec::with_capacity(limit.min(table.len()));
        page.extend(table.from(from).take(limit).map(Entry::hit));
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(unit: u32) -> Location {
        Location { segment: 3, unit, size: SizeClass::of(160) }
    }

    #[test]
    fn what_is_smaller_by_a_ninth_is_of_a_smaller_class() {
        for units in (2..5000).chain([1 << 20, (1 << 24) - 1, 1 << 24]) {
            assert!(SizeClass::of(units * 8 / 9 * 8).bytes() < SizeClass::of(units * 8).bytes(), "{units}");
        }
    }

    #[test]
    fn a_size_class_holds_its_bytes_with_an_eighth_to_spare() {
        for units in (1..5000).chain([8192 * 1024, (64 << 20) / 8 + 8 * 1024 + 13]) {
            let bytes = units * 8;
            let class = SizeClass::of(bytes).bytes();
            assert!(class >= bytes as u64, "{bytes} in {class}");
            assert!(class <= bytes as u64 * 9 / 8, "{bytes} in {class}");
            assert_eq!(
                SizeClass::of(usize::try_from(class).unwrap()).bytes(),
                class,
                "a class is its own class"
            );
        }
        assert_eq!(SizeClass::of(160).bytes(), 160);
    }

    #[test]
    fn entries_keep_what_they_are_given() {
        let mut index = KeyIndex::default();
        let location = Location { segment: u16::MAX, unit: u32::MAX, size: SizeClass::of(64 << 20) };
        assert_eq!(index.set(65_535, u64::MAX, location, u64::MAX), None);
        let hit = index.get(65_535, u64::MAX).expect("set");
        assert_eq!((hit.location, hit.tag), (location, u64::MAX));
        assert_eq!(
            index.set(65_535, u64::MAX, at(1), 7),
            Some(Hit { location, tag: u64::MAX, fingerprint: FINGERPRINT_MASK })
        );
        assert_eq!(index.get(65_534, u64::MAX), None, "another slot");
        assert_eq!((index.len(), index.slot_len(65_535)), (1, 1));
        assert_eq!(index.remove(65_535, u64::MAX).map(|was| was.location), Some(at(1)));
        assert_eq!(index.remove(65_535, u64::MAX), None);
        assert_eq!((index.len(), index.slot_len(65_535)), (0, 0));
    }

    #[test]
    fn pages_go_through_all_entries_in_order_while_the_table_grows() {
        let mut index = KeyIndex::default();
        let key = |n: u64| crate::checksum::mix(n);
        for n in 0..500 {
            index.set(9, key(n), at(0), n);
        }
        let (mut from, mut seen) = (0, Vec::new());
        for round in 0.. {
            let page = index.page(9, from, 7);
            let Some(last) = page.last() else { break };
            from = last.fingerprint + 1;
            seen.extend(page.iter().map(|hit| hit.tag));
            // Keys that come meanwhile may be seen or not; those that were there must be.
            index.set(9, key(1000 + round), at(0), 1000 + round);
        }
        let mut old: Vec<u64> = seen.into_iter().filter(|tag| *tag < 1000).collect();
        old.sort_unstable();
        assert_eq!(old, (0..500).collect::<Vec<_>>());
    }

    #[test]
    fn dropping_a_slot_leaves_the_others() {
        let mut index = KeyIndex::default();
        index.set(1, 10, at(1), 0);
        index.set(1, 11, at(2), 0);
        index.set(2, 10, at(3), 0);
        let mut gone = Vec::new();
        index.drop_slot(1, |location| gone.push(location.unit));
        gone.sort_unstable();
        assert_eq!(gone, [1, 2]);
        assert_eq!(index.len(), 1);
        assert!(index.get(2, 10).is_some());
        index.drop_slot(40_000, |_| panic!("a slot that was never there"));
    }
}
