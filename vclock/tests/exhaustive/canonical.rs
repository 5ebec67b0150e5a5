//! Which of the histories that differ only by names of replicas, and by the order of writes that know nothing of each other,
//! is looked at.

use std::cmp::Ordering;

use super::{Copy, REPLICAS, Writes, bits};

/// What makes a write this one, in terms of earlier writes.
pub(crate) struct Plan {
    pub(crate) replica: usize,
    pub(crate) copy: Copy,
    pub(crate) discards: bool,
    pub(crate) knows: Writes,
    /// The writes that its context covers.
    pub(crate) covers: Writes,
    /// The first and the last write of each span of its context.
    pub(crate) spans: Vec<(usize, usize)>,
}

/// The same under other names.
type Key = (usize, Copy, bool, Writes, Writes, u64);

impl Plan {
    fn key(&self, replica: usize, place: impl Fn(usize) -> usize) -> Key {
        let set = |writes: Writes| bits(writes).fold(0, |all, w| all | 1 << place(w));
        let spans =
            self.spans.iter().fold(0, |all, (first, last)| all | 1 << (8 * place(*first) + place(*last)));
        (replica, self.copy, self.discards, set(self.knows), set(self.covers), spans)
    }
}

/// How many orders and names let the history read as it does, one at least; `None` if it reads smaller, write by write, in
/// another order with other names. Of one that doesn't, no beginning does: what follows it would follow the smaller one, too.
pub(crate) fn readings(history: &[Plan]) -> Option<u64> {
    Names { history, placed: 0, places: [0; 8], replicas: [None; REPLICAS], used: 0 }.readings(0)
}

/// How many histories are this one under other names and in other orders, if it is the smallest of them.
pub(crate) fn variants(history: &[Plan]) -> Option<u64> {
    let used = history.iter().map(|plan| plan.replica + 1).max().unwrap_or(0);
    let names: usize = (REPLICAS + 1 - used..=REPLICAS).product();
    readings(history).map(|same| orders(history, 0) * names as u64 / same)
}

/// In how many orders the writes that are not placed can follow.
fn orders(history: &[Plan], placed: Writes) -> u64 {
    let next: Vec<usize> = (0..history.len()).filter(|w| may_follow(history, placed, *w)).collect();
    let after = next.iter().map(|w| orders(history, placed | 1 << w));
    if next.is_empty() { 1 } else { after.sum() }
}

/// Whether all comes before it that has to: what it knows or covers, and what its replica wrote earlier.
fn may_follow(history: &[Plan], placed: Writes, w: usize) -> bool {
    let plan = &history[w];
    let earlier = (0..w).filter(|before| history[*before].replica == plan.replica);
    let before = earlier.fold(plan.knows | plan.covers, |all, w| all | 1 << w);
    placed >> w & 1 == 0 && before & !placed == 0
}

/// The first few writes in another order.
struct Names<'a> {
    history: &'a [Plan],
    placed: Writes,
    places: [usize; 8],
    replicas: [Option<usize>; REPLICAS],
    used: usize,
}

impl Names<'_> {
    /// See [`readings`], where all that is placed reads the same.
    fn readings(&mut self, at: usize) -> Option<u64> {
        let Some(own) = self.history.get(at) else { return Some(1) };
        let own = own.key(own.replica, |w| w);
        let mut same = 0;
        for w in 0..self.history.len() {
            if !may_follow(self.history, self.placed, w) {
                continue;
            }
            let plan = &self.history[w];
            let known = self.replicas[plan.replica];
            let replica = known.unwrap_or(self.used);
            match plan.key(replica, |w| self.places[w]).cmp(&own) {
                Ordering::Less => return None,
                Ordering::Greater => continue,
                Ordering::Equal => {}
            }
            let before = (self.placed, self.used);
            self.places[w] = at;
            self.placed |= 1 << w;
            self.replicas[plan.replica] = Some(replica);
            self.used += usize::from(known.is_none());
            same += self.readings(at + 1)?;
            (self.placed, self.used) = before;
            self.replicas[plan.replica] = known;
        }
        Some(same)
    }
}
