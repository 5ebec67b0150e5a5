//! Exchanges that bring replicas back to where they were.

use alloc::vec;
use alloc::vec::Vec;
use core::iter;

use super::super::tally::Tally;
use super::{Costs, Reassignment, Source, Step};

impl Reassignment<'_> {
    /// Turns cycles that lessen what moves, until nothing more moves than has to, none is found, or the budget is spent.
    pub(super) fn turn_cycles(&mut self) {
        self.end = self.work + self.budget.exchanges;
        let mut avoidable = self.moved_beyond_bound();
        self.turn_free_cycles(&mut avoidable);
        while avoidable > 0 && self.turn_cheaper_cycle() {
            avoidable = self.moved_beyond_bound();
        }
    }

    /// Brings replicas back to former holders where an exchange allows it without moving another.
    fn turn_free_cycles(&mut self, avoidable: &mut usize) {
        let mut counts = Tally::new(self.shape);
        for partition in 0..self.rows.len() {
            'row: for from in self.rows[partition].clone().into_iter().map(usize::from) {
                if *avoidable == 0 || self.work >= self.end {
                    return;
                }
                if self.held_before(from, partition) {
                    continue;
                }
                for to in self.former[partition].iter().map(|&m| usize::from(m)) {
                    let back = Step { from: Some(from), partition, to };
                    self.work += 1 + self.shape.owners as u64 / 16;
                    if !self.may_take(back, &mut counts) {
                        continue;
                    }
                    self.apply(back);
                    // `from` now lacks one and `to` has one too many: a path that costs nothing closes the cycle.
                    let closed = self
                        .search(Source::Surplus(to), Costs::Counted, 0, |_, m| m == from)
                        .is_some_and(|path| self.try_path(&path));
                    if closed {
                        *avoidable -= 1;
                        continue 'row;
                    }
                    self.undo(back);
                }
            }
        }
    }

    /// How many more replicas moved than members lacked to their quotas, which is the least that can move and mostly
    /// all that does.
    fn moved_beyond_bound(&self) -> usize {
        let mut held = vec![0usize; self.quotas.len()];
        for &m in self.former.iter().flatten() {
            held[usize::from(m)] += 1;
        }
        let bound: usize =
            self.quotas.iter().zip(&held).map(|(&quota, &held)| quota.saturating_sub(held)).sum();
        let moved: usize = (0..self.rows.len())
            .map(|p| self.rows[p].iter().filter(|&&m| !self.held_before(usize::from(m), p)).count())
            .sum();
        moved - bound
    }

    /// Turns a cycle in which more replicas come back than others move, if there is one, and says whether it did. It is Bellman and Ford's
    /// search for a negative cycle: a step costs 1 if it takes a replica to who did not hold it before, and 1 less if it takes it from
    /// such a one.
    fn turn_cheaper_cycle(&mut self) -> bool {
        let members = self.quotas.len();
        let mut costs = vec![0i64; members];
        let mut by: Vec<Option<Step>> = vec![None; members];
        let mut counts = Tally::new(self.shape);
        for _ in 0..members {
            let mut cheaper = false;
            for from in 0..members {
                if self.work >= self.end {
                    return false;
                }
                self.work += (self.rows_of[from].len() * members) as u64;
                for partition in self.rows_of[from].iter().map(|&p| usize::from(p)) {
                    let room = self.tally(partition, Some(from), &mut counts);
                    let cost = |member| i64::from(!self.held_before(member, partition));
                    let left = costs[from] - cost(from);
                    for to in 0..members {
                        // What it costs at least tells most of them apart.
                        if left >= costs[to]
                            || left + cost(to) >= costs[to]
                            || counts.has(to)
                            || !self.admits(self.shape.zone_of[to], room, &counts)
                        {
                            continue;
                        }
                        costs[to] = left + cost(to);
                        by[to] = Some(Step { from: Some(from), partition, to });
                        cheaper = true;
                    }
                }
            }
            if !cheaper {
                return false;
            }
            if let Some(cycle) = cycle_of(&by) {
                return self.try_path(&cycle);
            }
        }
        false
    }
}

/// The steps of a cycle among these, each the last on the way to a member, if there is one.
fn cycle_of(by: &[Option<Step>]) -> Option<Vec<Step>> {
    let mut seen = vec![None; by.len()];
    for start in 0..by.len() {
        let mut at = start;
        while let (None, Some(step)) = (seen[at], by[at]) {
            seen[at] = Some(start);
            at = step.from?;
        }
        if seen[at] == Some(start) {
            let before = |step: &Step| by[step.from?].filter(|_| step.from != Some(at));
            let mut cycle: Vec<Step> = iter::successors(by[at], before).collect();
            cycle.reverse();
            return Some(cycle);
        }
    }
    None
}
