//! The table of one slot: entries in the order of their fingerprints, with gaps.
//!
//! A fingerprint is as good as random, so its own bits say where about in the order it stands: each entry has a home, and stands there or
//! after it with no gap between (linear probing in which the order of homes is the order of entries). A look-up
//! reads one or two neighbouring cache lines; a growth is one pass over old and new, so a table can grow by little at a
//! time; and a listing finds its place at once.

use crate::key_index::{Entry, Placed};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

/// A table is grown when this part of it is full, numerator and denominator: 23 of 25.
const FULL: (usize, usize) = (23, 25);

/// The entries of one slot.
#[derive(Default)]
pub(crate) struct SlotTable {
    entries: Box<[Entry]>,
    /// Places that are some entry's home: all but a few at the end.
    homes: u32,
    len: u32,
}

impl SlotTable {
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// Of 56 bits the upper 32 say where; a greater fingerprint never has a smaller home.
    #[allow(clippy::cast_possible_truncation)] // Below `homes`.
    fn home(homes: u32, fingerprint: u64) -> usize {
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

    /// Takes in entries in the order of their fingerprints, in one pass over old and new. `taken` gets for each whether it was; it was
    /// not if there is one with its fingerprint. `scratch` is overwritten.
    pub(crate) fn merge(&mut self, new: &[Placed], scratch: &mut Vec<Entry>, taken: &mut Vec<bool>) {
        scratch.clear();
        let mut old = self.from(0).peekable();
        for Placed { entry, .. } in new {
            let fingerprint = entry.fingerprint();
            while let Some(there) = old.next_if(|there| there.fingerprint() <= fingerprint) {
                scratch.push(*there);
            }
            let is_new = scratch.last().is_none_or(|last| last.fingerprint() != fingerprint);
            if is_new {
                scratch.push(*entry);
            }
            taken.push(is_new);
        }
        scratch.extend(old);
        let wanted = (scratch.len() * FULL.1).div_ceil(FULL.0) + 1;
        self.len = u32::try_from(scratch.len()).expect("the index holds fewer keys");
        self.lay_out(wanted.max(self.entries.len()), scratch.iter());
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
            // The last run has a few places to end in.
            let homes =
                u32::try_from(size.saturating_sub(4 + size / 64).max(1)).expect("the index holds fewer keys");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::mix;
    use crate::key_index::{FINGERPRINT_MASK, Location, SizeClass};
    use alloc::collections::BTreeMap;

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
        }
    }

    /// Many entries at once, some of them there already and some twice.
    fn merge(table: &mut SlotTable, model: &mut BTreeMap<u64, u64>, narrow: u64, step: u64) {
        let new = |n: u64| entry(mix(mix(step + n) % 900) & narrow, 1 << 40 | n);
        let mut all: Vec<Placed> = (0..100).map(|n| Placed { entry: new(n), line: 0 }).collect();
        all.sort_by_key(|placed| placed.entry.fingerprint());
        let (mut scratch, mut taken) = (Vec::new(), Vec::new());
        table.merge(&all, &mut scratch, &mut taken);
        assert_eq!(taken.len(), all.len());
        for (Placed { entry, .. }, taken) in all.iter().zip(taken) {
            let there = model.contains_key(&entry.fingerprint());
            assert_eq!(taken, !there, "what is there stays, and of two the first");
            model.entry(entry.fingerprint()).or_insert(entry.tag());
        }
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
                    merge(&mut table, &mut model, narrow, step);
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
            let bytes = size_of_val(&*table.entries) as u64;
            assert!(n < 16 || bytes <= 34 * n, "{bytes} bytes for {n}");
            sum += bytes / n;
        }
        assert!(sum / keys < 28, "{} in the mean", sum / keys);
        // And gives the memory back.
        for n in 1..=keys {
            let at = table.find(mix(n) & FINGERPRINT_MASK).expect("still there");
            table.remove(at);
            let bytes = size_of_val(&*table.entries) as u64;
            assert!(bytes <= 44 * (keys - n) + 66, "{bytes} bytes for {}", keys - n);
        }
        assert_eq!(table.entries.len(), 0);
    }
}
