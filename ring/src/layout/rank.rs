//! Which of a partition's owners comes first.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

/// Ranks that are balanced. Beyond these an owner's place hardly matters, and large replica counts stay cheap.
const BALANCED: usize = 3;

/// Puts each row of `owners` members in order, so that every member is first in as many partitions as its share says,
/// second likewise, and so on.
///
/// `wanted` gives the former order of a partition's owners (members that are none any more left out); it is kept where
/// balance allows, so that clients' maps change little.
pub(super) fn order(table: &mut [u16], owners: usize, members: usize, wanted: &[Vec<u16>]) {
    // Beginning with the former order also keeps it beyond the balanced ranks.
    for (row, wanted) in table.chunks_exact_mut(owners).zip(wanted) {
        let place = |m: &u16| wanted.iter().position(|w| w == m).unwrap_or(usize::MAX);
        row.sort_by_key(place);
    }
    for rank in 0..owners.saturating_sub(1).min(BALANCED) {
        balance_rank(table, owners, members, rank, wanted);
    }
}

/// Chooses for every partition which of its owners from `rank` on takes that rank. A member that stands in `k` rows
/// gets it in the floor or the ceiling of k / (owners − rank) of them; spreading evenly shows that this can be had, and
/// moving along alternating paths finds it.
fn balance_rank(table: &mut [u16], owners: usize, members: usize, rank: usize, wanted: &[Vec<u16>]) {
    let rest = owners - rank;
    let mut rows_of: Vec<Vec<u32>> = vec![Vec::new(); members];
    for (p, row) in (0u32..).zip(table.chunks_exact(owners)) {
        for &m in &row[rank..] {
            rows_of[usize::from(m)].push(p);
        }
    }
    let floor: Vec<usize> = rows_of.iter().map(|rows| rows.len() / rest).collect();
    let ceiling: Vec<usize> = rows_of.iter().map(|rows| rows.len().div_ceil(rest)).collect();

    let mut chosen: Vec<u16> = Vec::with_capacity(table.len() / owners);
    let mut count = vec![0usize; members];
    for (p, row) in table.chunks_exact(owners).enumerate() {
        let rest = &row[rank..];
        let kept = wanted.get(p).and_then(|w| w.get(rank)).copied();
        let choice = match kept {
            Some(kept) if rest.contains(&kept) && count[usize::from(kept)] < ceiling[usize::from(kept)] => {
                kept
            }
            // The one that is furthest from its share.
            _ => *rest
                .iter()
                .min_by_key(|&&m| ((count[usize::from(m)] << 16) / ceiling[usize::from(m)].max(1), m))
                .expect("a row has owners"),
        };
        chosen.push(choice);
        count[usize::from(choice)] += 1;
    }

    let rows = Rows { table, owners, rank, rows_of: &rows_of };
    for m in 0..members {
        while count[m] > ceiling[m] {
            let to = rows.shift(&mut chosen, m, Direction::Away, |other| count[other] < ceiling[other]);
            count[m] -= 1;
            count[to] += 1;
        }
    }
    for m in 0..members {
        while count[m] < floor[m] {
            let from = rows.shift(&mut chosen, m, Direction::Toward, |other| count[other] > floor[other]);
            count[m] += 1;
            count[from] -= 1;
        }
    }

    for (row, &choice) in table.chunks_exact_mut(owners).zip(&chosen) {
        let at = row.iter().position(|&m| m == choice).expect("chosen from the row");
        // The others keep their order.
        row[rank..=at].rotate_right(1);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    /// The member gives up a row.
    Away,
    /// The member gains a row.
    Toward,
}

struct Rows<'a> {
    table: &'a [u16],
    owners: usize,
    rank: usize,
    rows_of: &'a [Vec<u32>],
}

impl Rows<'_> {
    /// Moves one choice along a shortest path from `start` to a member for which `end` holds, which it returns.
    fn shift(
        &self,
        chosen: &mut [u16],
        start: usize,
        direction: Direction,
        end: impl Fn(usize) -> bool,
    ) -> usize {
        let mut reached_by: Vec<Option<(usize, u32)>> = vec![None; self.rows_of.len()];
        let mut queue = VecDeque::from([start]);
        while let Some(m) = queue.pop_front() {
            for &p in &self.rows_of[m] {
                let choice = usize::from(chosen[p as usize]);
                let row = &self.table[p as usize * self.owners + self.rank..(p as usize + 1) * self.owners];
                let next: &[u16] = match direction {
                    Direction::Away if choice == m => row,
                    Direction::Toward if choice != m => &chosen[p as usize..=p as usize],
                    _ => continue,
                };
                for &next in next {
                    let next = usize::from(next);
                    if next == start || reached_by[next].is_some() {
                        continue;
                    }
                    reached_by[next] = Some((m, p));
                    if end(next) {
                        let mut at = next;
                        while let Some((before, p)) = reached_by[at] {
                            let takes = if direction == Direction::Away { at } else { before };
                            chosen[p as usize] = u16::try_from(takes).expect("members are counted by u16");
                            at = before;
                        }
                        return next;
                    }
                    queue.push_back(next);
                }
            }
        }
        unreachable!("an even spread exists, so a path to it does")
    }
}
