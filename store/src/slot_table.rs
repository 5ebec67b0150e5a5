//! The table of one slot: entries in the order of their fingerprints, with gaps.
//!
//! A fingerprint is as good as random, so its own bits say where about in the order it stands: each entry has a home, and stands there or
//! after it with no gap between (linear probing in which the order of homes is the order of entries). A look-up
//! reads one or two neighbouring cache lines; a growth is one pass over old and new, so a table can grow by little at a
//! time; and a listing finds its place at once. A look-up of what is not there mostly ends at a filter before them.

use crate::key_index::{Entry, Location};
use alloc::boxed::Box;
use alloc::vec;

/// A table is grown when this part of it is full, numerator and denominator: 23 of 25.
const FULL: (usize, usize) = (23, 25);
/// A table that has so many times as many entries as come is not worth being laid out anew.
const FEW: usize = 8;

/// Places of a table for each word of its filter.
const PLACES_OF_A_WORD: usize = 10;
/// A table of no more places has no filter: it is looked through as soon.
const FEW_PLACES: usize = 16;

/// The entries of one slot.
#[derive(Default)]
pub(crate) struct SlotTable {
    entries: Box<[Entry]>,
    /// Places that are some entry's home: all but a few at the end.
    homes: u32,
    len: u32,
    filter: Filter,
}

impl SlotTable {
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// The last run has a few places to end in.
    fn homes_of(size: usize) -> u32 {
        u32::try_from(size.saturating_sub(4 + size / 64).max(1)).expect("the index holds fewer keys")
    }

    /// Of 56 bits the upper 32 say where; a greater fingerprint never has a smaller home.
    #[allow(clippy::cast_possible_truncation)] // Below `homes`.
    pub(crate) fn home(homes: u32, fingerprint: u64) -> usize {
        (((fingerprint >> 24) * u64::from(homes)) >> 32) as usize
    }

    /// Where the entry is, or else where it would have to be inserted.
    pub(crate) fn find(&self, fingerprint: u64) -> Result<usize, usize> {
        let mut at = Self::home(self.homes, fingerprint);
        while let Some(entry) = self.entries.get(at)
            && !entry.is_none()
        {
            let found = entry.fingerprint();
            if found >= fingerprint {
                return if found == fingerprint { Ok(at) } else { Err(at) };
            }
            at += 1;
        }
        Err(at)
    }

    pub(crate) fn get(&self, fingerprint: u64) -> Option<&Entry> {
        if !self.filter.may_have(fingerprint) {
            return None;
        }
        self.find(fingerprint).ok().map(|at| &self.entries[at])
    }

    /// The entry that was found here.
    pub(crate) fn at(&self, at: usize) -> &Entry {
        &self.entries[at]
    }

    /// Replaces the entry that was found here by one with its fingerprint.
    pub(crate) fn replace(&mut self, at: usize, entry: Entry) -> Entry {
        core::mem::replace(&mut self.entries[at], entry)
    }

    /// Inserts an entry where `find` said.
    pub(crate) fn insert(&mut self, mut at: usize, entry: Entry) {
        if (self.len() + 1) * FULL.1 > self.entries.len() * FULL.0 {
            self.grow();
            at = self.find(entry.fingerprint()).unwrap_or_else(|at| at);
        }
        loop {
            if let Some(gap) = self.entries.iter().skip(at).position(Entry::is_none) {
                self.entries.copy_within(at..at + gap, at + 1);
                self.entries[at] = entry;
                self.len += 1;
                if !self.filter.add(entry.fingerprint()) {
                    self.filter = Filter::of(&self.entries);
                }
                return;
            }
            // The last run has reached the end.
            self.grow();
            at = self.find(entry.fingerprint()).unwrap_or_else(|at| at);
        }
    }

    /// Removes the entry that was found here.
    pub(crate) fn remove(&mut self, at: usize) -> Entry {
        let removed = self.entries[at];
        // Those right behind that are not at home move up.
        let moves = |(place, entry): (usize, &Entry)| {
            !entry.is_none() && Self::home(self.homes, entry.fingerprint()) < at + 1 + place
        };
        let run = self.entries[at + 1..].iter().enumerate().take_while(|one| moves(*one)).count();
        self.entries.copy_within(at + 1..at + 1 + run, at);
        self.entries[at + run] = Entry::NONE;
        self.len -= 1;
        if self.len == 0 {
            *self = Self::default();
        } else if self.len() * 2 < self.entries.len() {
            self.rebuild(self.len() + self.len() / 5 + 2);
        }
        removed
    }

    /// Whether so many entries that come together are best [filled in](Self::begin_fill): few beside those that there are
    /// are better inserted.
    pub(crate) fn is_worth_filling(&self, more: usize) -> bool {
        more * FEW >= self.len()
    }

    /// Homes of a table with so many entries more.
    pub(crate) fn homes_with(&self, more: usize) -> u32 {
        Self::homes_of(((self.len() + more) * FULL.1).div_ceil(FULL.0) + 1)
    }

    /// Begins to fill the table anew, with what it has and what comes. `places` has a number for each home: how many of those that come
    /// have it. It is for [`fill`](Self::fill) then.
    pub(crate) fn begin_fill(&mut self, places: &mut [u32]) {
        let homes = u32::try_from(places.len()).expect("the index holds fewer keys");
        let old = core::mem::take(&mut self.entries);
        for entry in old.iter().filter(|entry| !entry.is_none()) {
            places[Self::home(homes, entry.fingerprint())] += 1;
        }
        let mut free = 0;
        for (home, place) in (0..).zip(&mut *places) {
            let start = free.max(home);
            free = start + core::mem::replace(place, start);
        }
        self.entries = vec![Entry::NONE; free.max(homes) as usize + 1].into_boxed_slice();
        self.homes = homes;
        self.len = 0;
        old.iter().filter(|entry| !entry.is_none()).for_each(|entry| self.fill(places, *entry));
    }

    /// Puts an entry into a place that [`begin_fill`](Self::begin_fill) made for it.
    pub(crate) fn fill(&mut self, places: &mut [u32], entry: Entry) {
        let place = &mut places[Self::home(self.homes, entry.fingerprint())];
        self.entries[*place as usize] = entry;
        *place += 1;
        self.len += 1;
    }

    /// Puts what was filled in in order. Of entries with the same fingerprint the first one stays; `refused` gets where the others are.
    pub(crate) fn end_fill(&mut self, mut refused: impl FnMut(Location)) {
        let (mut above, mut doubles) = (0, false);
        for at in 0..self.entries.len() {
            let entry = self.entries[at];
            let fingerprint = entry.fingerprint();
            if entry.is_none() {
                continue;
            }
            if fingerprint >= above {
                above = fingerprint + 1;
                continue;
            }
            // Only those of one home are not in order, and no gap is between them.
            let greater = |before: &Entry| before.fingerprint() > fingerprint;
            let to = at - self.entries[..at].iter().rev().take_while(|before| greater(before)).count();
            self.entries.copy_within(to..at, to + 1);
            self.entries[to] = entry;
            doubles |= to > 0
                && !self.entries[to - 1].is_none()
                && self.entries[to - 1].fingerprint() == fingerprint;
        }
        if doubles {
            let mut above = 0;
            for entry in self.entries.iter_mut().filter(|entry| !entry.is_none()) {
                if entry.fingerprint() < above {
                    refused(core::mem::replace(entry, Entry::NONE).location());
                    self.len -= 1;
                } else {
                    above = entry.fingerprint() + 1;
                }
            }
            self.rebuild((self.len() * FULL.1).div_ceil(FULL.0) + 1);
        } else {
            self.filter = Filter::of(&self.entries);
        }
    }

    fn next_size(&self) -> usize {
        let size = self.entries.len();
        size + size / 5 + 2
    }

    fn grow(&mut self) {
        self.rebuild(self.next_size());
    }

    /// Lays the entries out anew in so many places.
    fn rebuild(&mut self, size: usize) {
        let entries = core::mem::take(&mut self.entries);
        self.lay_out(size, entries.iter().filter(|entry| !entry.is_none()));
    }

    /// Lays entries out in so many places, or a few more where a run would not end in time.
    fn lay_out<'e>(&mut self, mut size: usize, all: impl Iterator<Item = &'e Entry> + Clone) {
        'again: loop {
            let homes = Self::homes_of(size);
            let mut entries = vec![Entry::NONE; size].into_boxed_slice();
            let mut free = 0;
            for entry in all.clone() {
                let at = Self::home(homes, entry.fingerprint()).max(free);
                let Some(place) = entries.get_mut(at) else {
                    size += size / 5 + 2;
                    continue 'again;
                };
                *place = *entry;
                free = at + 1;
            }
            self.filter = Filter::of(&entries);
            (self.entries, self.homes) = (entries, homes);
            return;
        }
    }

    /// The entries from this fingerprint on, in order.
    pub(crate) fn from(&self, fingerprint: u64) -> impl Iterator<Item = &Entry> {
        let start = Self::home(self.homes, fingerprint).min(self.entries.len());
        self.entries[start..]
            .iter()
            .filter(move |entry| !entry.is_none() && entry.fingerprint() >= fingerprint)
    }
}

/// Two bits of one word for each entry (a blocked Bloom filter): most keys that are not there are known to be absent by a word of a small
/// array, which the processor's caches hold longer than the entries. What was removed keeps its bits until the filter is made anew.
#[derive(Default)]
struct Filter {
    words: Box<[u64]>,
    /// Entries that may still be added before the filter is to be made anew.
    room: u32,
}

impl Filter {
    fn of(entries: &[Entry]) -> Self {
        if entries.len() <= FEW_PLACES {
            return Self::default();
        }
        let mut words = vec![0; entries.len().div_ceil(PLACES_OF_A_WORD)].into_boxed_slice();
        for entry in entries.iter().filter(|entry| !entry.is_none()) {
            let (at, mask) = Self::bits(words.len(), entry.fingerprint());
            words[at] |= mask;
        }
        let room = u32::try_from(entries.len()).expect("the index holds fewer keys");
        Self { words, room }
    }

    /// Which word, and which bits of it.
    #[allow(clippy::cast_possible_truncation)] // Fewer words than homes.
    fn bits(words: usize, fingerprint: u64) -> (usize, u64) {
        let at = SlotTable::home(words as u32, fingerprint);
        (at, 1 << (fingerprint & 63) | 1 << (fingerprint >> 6 & 63))
    }

    fn may_have(&self, fingerprint: u64) -> bool {
        let (at, mask) = Self::bits(self.words.len(), fingerprint);
        self.words.get(at).is_none_or(|word| word & mask == mask)
    }

    /// `false` if there was no room.
    fn add(&mut self, fingerprint: u64) -> bool {
        let (at, mask) = Self::bits(self.words.len(), fingerprint);
        let Some(word) = self.words.get_mut(at) else { return true };
        *word |= mask;
        self.room = self.room.saturating_sub(1);
        self.room > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::mix;
    use crate::key_index::{FINGERPRINT_MASK, SizeClass};
    use alloc::collections::BTreeMap;
    use alloc::vec::Vec;

    fn bytes_of(table: &SlotTable) -> usize {
        size_of_val(&*table.entries) + size_of_val(&*table.filter.words)
    }

    fn entry(fingerprint: u64, tag: u64) -> Entry {
        Entry::new(fingerprint, Location { segment: 1, unit: 2, size: SizeClass::of(40) }, tag)
    }

    /// Entries are in order, none before its home, and no gap between.
    fn check(table: &SlotTable, model: &BTreeMap<u64, u64>) {
        let listed = table.from(0).map(|entry| (entry.fingerprint(), entry.tag()));
        assert!(listed.eq(model.iter().map(|(fingerprint, tag)| (*fingerprint, *tag))));
        assert_eq!(table.len(), model.len());
        for (at, entry) in table.entries.iter().enumerate().filter(|(_, entry)| !entry.is_none()) {
            let home = SlotTable::home(table.homes, entry.fingerprint());
            assert!(home <= at && table.entries[home..at].iter().all(|between| !between.is_none()));
            assert_eq!(table.get(entry.fingerprint()).map(Entry::tag), Some(entry.tag()));
        }
    }

    /// Many entries at once, some of them there already and some twice.
    fn put_many(table: &mut SlotTable, model: &mut BTreeMap<u64, u64>, narrow: u64, step: u64) {
        let new = |n: u64| {
            let location = Location { segment: 2, unit: u32::try_from(n).unwrap(), size: SizeClass::of(40) };
            Entry::new(mix(mix(step + n) % 900) & narrow, location, 1 << 40 | n)
        };
        let homes = table.homes_with(100);
        let mut places = vec![0; homes as usize];
        (0..100).for_each(|n| places[SlotTable::home(homes, new(n).fingerprint())] += 1);
        table.begin_fill(&mut places);
        (0..100).for_each(|n| table.fill(&mut places, new(n)));
        let mut refused = Vec::new();
        table.end_fill(|location| refused.push(location));
        for entry in (0..100).map(new) {
            let there = model.contains_key(&entry.fingerprint());
            let is_refused = refused.contains(&entry.location());
            assert_eq!(is_refused, there, "what is there stays, and of two the first");
            model.entry(entry.fingerprint()).or_insert(entry.tag());
        }
        let bytes = bytes_of(table);
        assert!(bytes <= 35 * table.len() + 150 || narrow == 0xff, "{bytes} bytes for {}", table.len());
    }

    #[test]
    fn any_history_agrees_with_a_model() {
        // Whole fingerprints; few different ones; all at one end.
        for narrow in [FINGERPRINT_MASK, 0x3f << 50, 0xff] {
            let (mut table, mut model) = (SlotTable::default(), BTreeMap::new());
            for step in 0..6000u64 {
                let word = mix(step);
                let fingerprint = mix(word % 700) & narrow;
                // Grows for a while, then shrinks.
                let puts = if step / 1000 % 2 == 0 { 7 } else { 3 };
                match (table.find(fingerprint), word >> 32 & 7 < puts) {
                    (Ok(at), true) => {
                        let old = table.replace(at, entry(fingerprint, step));
                        assert_eq!(model.insert(fingerprint, step), Some(old.tag()));
                    }
                    (Err(at), true) => {
                        table.insert(at, entry(fingerprint, step));
                        assert_eq!(model.insert(fingerprint, step), None);
                    }
                    (Ok(at), false) => assert_eq!(model.remove(&fingerprint), Some(table.remove(at).tag())),
                    (Err(_), false) => assert_eq!(model.remove(&fingerprint), None),
                }
                if step % 16 == 0 {
                    check(&table, &model);
                    let from = mix(step) & FINGERPRINT_MASK;
                    let listed = table.from(from).map(Entry::fingerprint);
                    assert!(listed.eq(model.range(from..).map(|(fingerprint, _)| *fingerprint)));
                }
                if step % 500 == 0 {
                    put_many(&mut table, &mut model, narrow, step);
                    check(&table, &model);
                }
            }
        }
    }

    #[test]
    fn a_key_takes_little_more_than_its_entry_at_every_size() {
        let mut table = SlotTable::default();
        let (mut sum, keys) = (0, 20_000);
        for n in 1..=keys {
            let fingerprint = mix(n) & FINGERPRINT_MASK;
            let at = table.find(fingerprint).expect_err("each is there once");
            table.insert(at, entry(fingerprint, n));
            let bytes = bytes_of(&table) as u64;
            assert!(n < 16 || bytes <= 35 * n, "{bytes} bytes for {n}");
            sum += bytes / n;
        }
        assert!(sum / keys < 28, "{} in the mean", sum / keys);
        // And gives the memory back.
        for n in 1..=keys {
            let at = table.find(mix(n) & FINGERPRINT_MASK).expect("still there");
            table.remove(at);
            let bytes = bytes_of(&table) as u64;
            assert!(bytes <= 46 * (keys - n) + 74, "{bytes} bytes for {}", keys - n);
        }
        assert_eq!(bytes_of(&table), 0);
    }

    #[test]
    fn the_filter_ends_most_look_ups_of_what_is_not_there() {
        let mut table = SlotTable::default();
        let nth = |n: u64| mix(n) & FINGERPRINT_MASK;
        let passed =
            |table: &SlotTable| (0..10_000).filter(|n| table.filter.may_have(nth(1 << 40 | n))).count();
        for n in 0..2_000 {
            let at = table.find(nth(n)).expect_err("each is there once");
            table.insert(at, entry(nth(n), n));
        }
        assert!(passed(&table) < 1_000, "{} in 10,000", passed(&table));
        // As many come and go, many times over: bits of those that went don't add up.
        for n in 2_000..100_000 {
            let at = table.find(nth(n)).expect_err("each is there once");
            table.insert(at, entry(nth(n), n));
            let at = table.find(nth(n - 2_000)).expect("still there");
            table.remove(at);
        }
        assert!(passed(&table) < 2_500, "{} in 10,000", passed(&table));
    }

    #[test]
    fn no_put_moves_more_entries_than_its_slot_has() {
        // As many slots as a store has, sixteen keys in each.
        let (slots, keys) = (1usize << 12, 1u64 << 16);
        let mut tables: Vec<SlotTable> = (0..slots).map(|_| SlotTable::default()).collect();
        let (mut most, mut all) = (0, 0);
        for n in 0..keys {
            let fingerprint = mix(n) & FINGERPRINT_MASK;
            let table = &mut tables[usize::try_from(mix(!n)).expect("a word") % slots];
            let at = table.find(fingerprint).expect_err("each is there once");
            let places = table.entries.len();
            let run = table.entries[at..].iter().take_while(|entry| !entry.is_none()).count();
            table.insert(at, entry(fingerprint, n));
            let moved = if table.entries.len() == places { run } else { table.len() };
            (most, all) = (most.max(moved), all + moved as u64);
        }
        let longest = tables.iter().map(SlotTable::len).max().expect("some");
        assert!(
            most <= longest && longest < 64,
            "{most} entries moved by one put, {longest} in the fullest slot"
        );
        assert!(all < 6 * keys, "{all} moved by {keys} puts");
    }
}
