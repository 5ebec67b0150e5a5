//! Slots that are about to be dropped, and whether something came into them meanwhile.

use crate::input::Place;
use alloc::collections::BTreeMap;

/// Ranges of slots that don't overlap, by their first slot: the last one, and whether anything was put there, or is kept for others by now.
#[derive(Debug, Default)]
pub(crate) struct Watch(BTreeMap<u16, (u16, bool)>);

impl Watch {
    /// From now on it is noted, if it was not before.
    pub(crate) fn begin(&mut self, (first, last): (u16, u16)) {
        self.0.entry(first).or_insert((last, false));
    }

    /// It is no more. Whether anything was.
    pub(crate) fn end(&mut self, (first, _): (u16, u16)) -> bool {
        self.0.remove(&first).is_none_or(|(_, touched)| touched)
    }

    pub(crate) fn is_touched(&self, (first, _): (u16, u16)) -> bool {
        self.0.get(&first).is_none_or(|(_, touched)| *touched)
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn touch(&mut self, place: Place) {
        if let Some((_, (last, touched))) = self.0.range_mut(..=place.0).next_back() {
            *touched |= place.0 <= *last;
        }
    }

    /// The range that a slot is in.
    pub(crate) fn of(&self, place: Place) -> Option<(u16, u16)> {
        let (first, (last, _)) = self.0.range(..=place.0).next_back()?;
        (place.0 <= *last).then_some((*first, *last))
    }
}
