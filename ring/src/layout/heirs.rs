//! Seeing to it that what a member leaves behind can go straight to those who grow when it goes.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use super::budget::Budget;
use super::quota::{self, Shape};
use crate::member::Member;
use crate::mix::mix2;

/// Most members looked after: a set of them is a word. Among more, few pairs meet so often that it matters.
const MOST_MEMBERS: usize = 64;
const ROUNDS: u64 = 8;
/// Partitions tried as the other side of an exchange.
const TRIES: u64 = 16;

/// A set of members, one bit for each.
type Set = u64;

/// Exchanges owners between partitions until, as far as can be, a departure of any one member moves only what quotas
/// demand. No exchange moves more away from former owners (of whom there are none if `former` is empty).
///
/// Each partition that the departed owns needs an heir that does not own it yet and whose quota grows. By Hall's theorem
/// all find one if every set of heirs is missing, at least one of it, from as many of the departed's partitions as it is to
/// gain. Sets that fall short are found by matching, and exchanges then lessen what they lack. It can't always be had:
/// a member that owns nearly everything is missing from few partitions, and grows by its share of any other's.
pub(super) fn provide(
    budget: Budget,
    table: &mut [u16],
    replicas: u8,
    shape: &Shape,
    members: &[Member],
    quotas: &[usize],
    former: &[Vec<u16>],
) {
    // With one owner to spare, or one of each zone, whoever is missing is an heir.
    let spare = shape.members() <= shape.owners + 1 || shape.zones.iter().all(|zone| zone.most == 1);
    if spare || shape.members() > MOST_MEMBERS {
        return;
    }
    let set = |row: &[u16]| row.iter().fold(0, |set: Set, &m| set | 1 << m);
    let mut rows: Vec<Set> = table.chunks_exact(shape.owners).map(set).collect();
    let zones: Vec<Set> =
        shape.members_of_zones().iter().map(|list| list.iter().fold(0, |set, &m| set | 1 << m)).collect();
    let mut heirs = Heirs {
        held: former.iter().map(|row| set(row)).collect(),
        zone_mates: shape.zone_of.iter().map(|&zone| zones[zone]).collect(),
        departures: departures(replicas, shape, members, quotas),
        left: budget.heirs,
    };
    let Some(mut least) = heirs.note_shortages(&rows) else { return };
    let mut best = None;
    for round in 0..ROUNDS {
        if least == 0 || !heirs.exchange(&mut rows, round) {
            break;
        }
        let Some(strain) = heirs.note_shortages(&rows) else { break };
        if strain < least {
            least = strain;
            best = Some(rows.clone());
        }
    }
    for (row, owners) in table.chunks_exact_mut(shape.owners).zip(best.into_iter().flatten()) {
        if set(row) != owners {
            let mut owners = bits(owners);
            row.fill_with(|| u16::try_from(owners.next().expect("as many as before")).expect("below 64"));
        }
    }
}

fn bits(mut set: Set) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let next = (set != 0).then(|| set.trailing_zeros() as usize);
        set &= set.wrapping_sub(1);
        next
    })
}

struct Heirs {
    /// Who owned each partition before; empty if nobody owned anything.
    held: Vec<Set>,
    /// Each member's zone.
    zone_mates: Vec<Set>,
    /// What would follow if the member of this place departed.
    departures: Vec<Departure>,
    /// Of the budget.
    left: u64,
}

struct Departure {
    departed: usize,
    quota: usize,
    /// How many partitions each member would gain.
    gains: Vec<usize>,
    demands: Vec<Demand>,
}

/// A set of heirs that fell short once.
struct Demand {
    heirs: Set,
    /// What they gain together.
    need: usize,
    /// The departed's partitions that one of them does not own.
    met: usize,
}

/// What each departure would give to members of the same zone.
fn departures(replicas: u8, shape: &Shape, members: &[Member], quotas: &[usize]) -> Vec<Departure> {
    let departure = |departed: usize| {
        let others: Vec<usize> = (0..members.len()).filter(|&m| m != departed).collect();
        let rest: Vec<Member> = others.iter().map(|&m| members[m].clone()).collect();
        let held: Vec<usize> = others.iter().map(|&m| quotas[m]).collect();
        let after = quota::quotas(&Shape::new(replicas, shape.partitions, &rest), &held);
        let mut gains = vec![0; members.len()];
        for (&m, after) in others.iter().zip(after) {
            if shape.zone_of[m] == shape.zone_of[departed] {
                gains[m] = after.saturating_sub(quotas[m]);
            }
        }
        Departure { departed, quota: quotas[departed], gains, demands: Vec::new() }
    };
    (0..members.len()).map(departure).collect()
}

/// What it costs that heirs lack so many of the departed's partitions: a steep function of their part of these, so that
/// the worst departures are mended first.
fn cost(lack: usize, quota: usize) -> i64 {
    let part = ((lack << 14) / quota.max(1)).min(1 << 14) as i64;
    part * part * part * part
}

impl Departure {
    /// The set of heirs that lacks most, and how much.
    ///
    /// A maximum matching of the departed's partitions with heirs, by augmenting paths; where partitions are left over, all
    /// heirs out of their reach together are that set (König).
    fn shortage(&self, rows: &[Set], left: &mut u64) -> Option<(Set, usize)> {
        let heirs = (0..self.gains.len()).filter(|&m| self.gains[m] > 0).fold(0, |set: Set, m| set | 1 << m);
        let mut room = self.gains.clone();
        let mut given: Vec<Vec<Set>> = vec![Vec::new(); room.len()];
        // Heirs that can't take more, nor hand anything to others that can.
        let mut full: Set = 0;
        for &row in rows.iter().filter(|&&row| row >> self.departed & 1 == 1) {
            if *left == 0 {
                return None;
            }
            let missing = heirs & !row & !full;
            match bits(missing).max_by_key(|&m| room[m]) {
                Some(m) if room[m] > 0 => {
                    room[m] -= 1;
                    given[m].push(row);
                }
                _ => full |= augment(row, missing, heirs & !full, &mut room, &mut given, left),
            }
        }
        let short = heirs & !full;
        let lack = bits(short).map(|m| room[m]).sum();
        (full != 0 && lack > 0).then_some((short, lack))
    }
}

/// Gives a partition to one of the heirs `missing` from it, who pass others on until one has room. Without success, answers
/// all heirs that were asked.
fn augment(
    row: Set,
    missing: Set,
    heirs: Set,
    room: &mut [usize],
    given: &mut [Vec<Set>],
    left: &mut u64,
) -> Set {
    let mut by: Vec<Option<(usize, usize)>> = vec![None; room.len()];
    let mut queue: VecDeque<usize> = bits(missing).collect();
    let mut seen = missing;
    while let Some(m) = queue.pop_front() {
        if room[m] > 0 {
            room[m] -= 1;
            let mut at = m;
            while let Some((from, i)) = by[at] {
                let passed_on = given[from].swap_remove(i);
                given[at].push(passed_on);
                at = from;
            }
            given[at].push(row);
            return 0;
        }
        *left = left.saturating_sub(given[m].len() as u64);
        for (i, &other) in given[m].iter().enumerate() {
            let next = heirs & !other & !seen;
            seen |= next;
            for n in bits(next) {
                by[n] = Some((m, i));
                queue.push_back(n);
            }
        }
    }
    seen
}

impl Heirs {
    /// Adds the sets that fall short now to the demands; answers what all that is lacking costs, or `None` once the budget
    /// is spent.
    fn note_shortages(&mut self, rows: &[Set]) -> Option<i64> {
        let mut strain = 0;
        for departure in &mut self.departures {
            if let Some((heirs, lack)) = departure.shortage(rows, &mut self.left) {
                strain += cost(lack, departure.quota);
                if departure.demands.iter().all(|demand| demand.heirs != heirs) {
                    let need = bits(heirs).map(|m| departure.gains[m]).sum();
                    departure.demands.push(Demand { heirs, need, met: 0 });
                }
            }
            let own = |row: &&Set| **row >> departure.departed & 1 == 1;
            for demand in &mut departure.demands {
                demand.met = rows.iter().filter(own).filter(|&row| demand.heirs & !row != 0).count();
            }
        }
        (self.left > 0).then_some(strain)
    }

    /// Exchanges owners wherever that lowers the cost of what is demanded, until the budget is spent; answers whether it
    /// did anywhere.
    fn exchange(&mut self, rows: &mut [Set], round: u64) -> bool {
        let mut exchanged = false;
        for p in 0..rows.len() {
            if self.left == 0 {
                break;
            }
            let movable = self.movable(rows[p]);
            if movable == 0 {
                continue;
            }
            let mut best = (0, p, 0);
            for attempt in 0..TRIES {
                let q = usize::try_from(mix2(mix2(round, p as u64), attempt) % rows.len() as u64)
                    .expect("a place in the table");
                let demands =
                    bits(rows[p] | rows[q]).map(|m| 1 + self.departures[m].demands.len() as u64).sum::<u64>();
                for x in bits(movable & !rows[q]) {
                    for y in bits(rows[q] & !rows[p] & self.zone_mates[x]) {
                        self.left = self.left.saturating_sub(demands);
                        let swap = 1 << x | 1 << y;
                        let gain = self.change([rows[p], rows[q]], swap);
                        if gain < best.0 && !self.moves_more((p, rows[p]), (q, rows[q]), swap) {
                            best = (gain, q, swap);
                        }
                    }
                }
            }
            let (_, q, swap) = best;
            if swap != 0 {
                let pair = [rows[p], rows[q]];
                for member in bits(pair[0] | pair[1]) {
                    let departed = 1 << member;
                    for demand in &mut self.departures[member].demands {
                        demand.met = demand.met.saturating_add_signed(demand.change(departed, pair, swap));
                    }
                }
                rows[p] ^= swap;
                rows[q] ^= swap;
                exchanged = true;
            }
        }
        exchanged
    }

    /// Owners of a partition that meets no demand where more should: without them, or elsewhere, it might.
    fn movable(&self, row: Set) -> Set {
        bits(row)
            .flat_map(|m| self.departures[m].demands.iter().map(move |demand| (m, demand)))
            .filter(|(_, demand)| demand.met < demand.need && demand.heirs & !row == 0)
            .fold(0, |movable, (m, demand)| movable | 1 << m | demand.heirs)
    }

    /// By how much an exchange changes the cost.
    fn change(&self, pair: [Set; 2], swap: Set) -> i64 {
        let mut change = 0;
        for member in bits(pair[0] | pair[1]) {
            let departure = &self.departures[member];
            for demand in &departure.demands {
                let more = demand.change(1 << member, pair, swap);
                if more != 0 {
                    let lack = |met: usize| demand.need.saturating_sub(met);
                    change += cost(lack(demand.met.saturating_add_signed(more)), departure.quota)
                        - cost(lack(demand.met), departure.quota);
                }
            }
        }
        change
    }

    fn moves_more(&self, (p, row): (usize, Set), (q, other): (usize, Set), swap: Set) -> bool {
        let (Some(held), Some(other_held)) = (self.held.get(p), self.held.get(q)) else { return false };
        let moved = |row: Set, other: Set| (row & !held).count_ones() + (other & !other_held).count_ones();
        moved(row ^ swap, other ^ swap) > moved(row, other)
    }
}

impl Demand {
    /// How many more partitions meet the demand after an exchange between two.
    fn change(&self, departed: Set, pair: [Set; 2], swap: Set) -> isize {
        let meets = |row: Set| isize::from(row & departed != 0 && self.heirs & !row != 0);
        pair.into_iter().map(|row| meets(row ^ swap) - meets(row)).sum()
    }
}
