//! Placing replicas when most are held already: as few as possible move.

mod anew;
mod cycles;

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use super::budget::Budget;
use super::quota::Shape;
use super::tally::Tally;
use crate::member::Member;
use crate::mix::mix2;

/// Owners for each partition, `shape.owners` in a row, meeting `quotas` exactly; `former` lists who held each partition
/// before (members that are none any more left out), and as many as possible stay.
///
/// This is a transportation problem with costs 0 (held before) and 1. What is held is kept as far as the bounds of each
/// partition allow; then every replica that is missing, or that a member holds beyond its quota, is moved along a
/// cheapest alternating path to a member below its quota (Dynamo's tokens stolen and given, section 6.2, made exact);
/// last, cycles that bring replicas back to former holders for fewer that go are turned. Where there are none, no
/// assignment moves less.
///
/// If that takes too long, a part of the partitions that has room for what is left is placed anew, without search. A
/// replica that can't be placed is excluded by the theory.
pub(super) fn reassign(
    budget: Budget,
    shape: &Shape,
    members: &[Member],
    quotas: &[usize],
    former: &[Vec<u16>],
) -> Vec<u16> {
    let mut plan = Reassignment::keep(budget, shape, former, quotas);
    plan.fill_holes_directly();
    plan.shed_surplus_directly();
    if plan.place_rest().is_none() {
        plan.place_anew(members);
    }
    plan.turn_cycles();
    assert!((0..quotas.len()).all(|m| plan.rows_of[m].len() == quotas[m]), "every quota is met");
    plan.rows.into_iter().flatten().collect()
}

/// A replica that has to go to a member below its quota.
#[derive(Clone, Copy)]
enum Source {
    /// The partition lacks an owner.
    Hole(usize),
    /// The member holds more than its quota.
    Surplus(usize),
}

/// One step of an alternating path: `to` takes `partition` over from `from`, or fills a hole.
#[derive(Clone, Copy)]
struct Step {
    from: Option<usize>,
    partition: usize,
    to: usize,
}

struct Reassignment<'a> {
    budget: Budget,
    shape: &'a Shape,
    former: &'a [Vec<u16>],
    quotas: &'a [usize],
    rows: Vec<Vec<u16>>,
    rows_of: Vec<Vec<u16>>,
    /// Former owners that each partition could not keep.
    dropped: Vec<Vec<u16>>,
    /// Replicas looked at by searches so far.
    work: u64,
    /// How many may be.
    end: u64,
}

impl<'a> Reassignment<'a> {
    /// Keeps of each partition's former owners all that its bounds allow; those most in surplus give way.
    fn keep(budget: Budget, shape: &'a Shape, former: &'a [Vec<u16>], quotas: &'a [usize]) -> Self {
        let mut surplus: Vec<i64> =
            quotas.iter().map(|&q| -(i64::try_from(q).expect("at most 2^14"))).collect();
        for &m in former.iter().flatten() {
            surplus[usize::from(m)] += 1;
        }
        let mut rows = former.to_vec();
        let mut dropped = vec![Vec::new(); rows.len()];
        let mut counts = Tally::new(shape);
        for (row, dropped) in rows.iter_mut().zip(&mut dropped) {
            loop {
                counts.clear();
                row.iter().for_each(|&m| counts.add(shape, usize::from(m)));
                let too_long = row.len() + counts.unmet(shape) > shape.owners;
                let goes = row
                    .iter()
                    .enumerate()
                    .filter(|&(_, &m)| {
                        let zone = shape.zone_of[usize::from(m)];
                        counts[zone] > shape.zones[zone].most
                            || (too_long && counts[zone] > shape.zones[zone].least)
                    })
                    .max_by_key(|&(at, &m)| (surplus[usize::from(m)], at));
                let Some((at, _)) = goes else { break };
                let gone = row.remove(at);
                surplus[usize::from(gone)] -= 1;
                dropped.push(gone);
            }
        }
        let mut rows_of = vec![Vec::new(); quotas.len()];
        for (p, row) in (0u16..).zip(&rows) {
            for &m in row {
                rows_of[usize::from(m)].push(p);
            }
        }
        Reassignment { budget, shape, former, quotas, rows, rows_of, dropped, work: 0, end: budget.paths }
    }

    fn surplus(&self, member: usize) -> usize {
        self.rows_of[member].len().saturating_sub(self.quotas[member])
    }

    fn has_room(&self, member: usize) -> bool {
        self.rows_of[member].len() < self.quotas[member]
    }

    fn held_before(&self, member: usize, partition: usize) -> bool {
        self.former[partition].iter().any(|&m| usize::from(m) == member)
    }

    fn owns(&self, member: usize, partition: usize) -> bool {
        self.rows[partition].iter().any(|&m| usize::from(m) == member)
    }

    /// The zones' counts in a partition and the places that zones not yet represented claim, without `leaving`.
    fn tally(&self, partition: usize, leaving: Option<usize>, counts: &mut Tally) -> Room {
        counts.clear();
        let mut owners = 0;
        for m in self.rows[partition].iter().map(|&m| usize::from(m)).filter(|&m| Some(m) != leaving) {
            counts.add(self.shape, m);
            owners += 1;
        }
        Room { free: self.shape.owners - owners > counts.unmet(self.shape) }
    }

    /// Whether one more replica may go to this zone.
    fn admits(&self, zone: usize, room: Room, counts: &Tally) -> bool {
        let bounds = self.shape.zones[zone];
        counts[zone] < bounds.most && (room.free || counts[zone] < bounds.least)
    }

    /// Whether `to` may take the partition over from `from` (or fill a hole in it).
    fn may_take(&self, step: Step, counts: &mut Tally) -> bool {
        if self.owns(step.to, step.partition)
            || step.from.is_some_and(|from| !self.owns(from, step.partition))
            || (step.from.is_none() && self.rows[step.partition].len() >= self.shape.owners)
        {
            return false;
        }
        let room = self.tally(step.partition, step.from, counts);
        self.admits(self.shape.zone_of[step.to], room, counts)
    }

    fn apply(&mut self, step: Step) {
        let held = step.from.map_or(&[][..], |from| &self.rows_of[from]);
        let at = held.iter().position(|&p| usize::from(p) == step.partition);
        self.apply_at(step, at);
    }

    /// Knows where the partition stands among those of the member that it is taken from.
    fn apply_at(&mut self, step: Step, at: Option<usize>) {
        let partition = u16::try_from(step.partition).expect("partitions are counted by u16");
        if let Some(from) = step.from {
            let row = &mut self.rows[step.partition];
            let owner = row.iter().position(|&m| usize::from(m) == from).expect("it owns the partition");
            row.swap_remove(owner);
            self.rows_of[from].swap_remove(at.expect("both lists agree"));
        }
        self.rows[step.partition].push(u16::try_from(step.to).expect("members are counted by u16"));
        self.rows_of[step.to].push(partition);
    }

    fn undo(&mut self, step: Step) {
        match step.from {
            Some(from) => self.apply(Step { from: Some(step.to), to: from, ..step }),
            None => {
                self.rows[step.partition].retain(|&m| usize::from(m) != step.to);
                self.rows_of[step.to].retain(|&p| usize::from(p) != step.partition);
            }
        }
    }

    /// Gives missing replicas to members below their quota, those furthest below first.
    fn fill_holes_directly(&mut self) {
        let mut counts = Tally::new(self.shape);
        let mut wanting = Wanting::new(self);
        for partition in 0..self.rows.len() {
            while self.rows[partition].len() < self.shape.owners {
                let room = self.tally(partition, None, &mut counts);
                let Some(to) = self.taker(&wanting, partition, room, &counts) else { break };
                self.apply(Step { from: None, partition, to });
                wanting.served(self, to);
            }
        }
    }

    /// Hands what members hold beyond their quota straight to members below theirs.
    fn shed_surplus_directly(&mut self) {
        let mut counts = Tally::new(self.shape);
        let mut wanting = Wanting::new(self);
        // Where each partition stands among the giver's: to look for it each time takes long where one holds nearly all.
        let mut places = vec![0; self.rows.len()];
        for from in 0..self.quotas.len() {
            if self.surplus(from) == 0 {
                continue;
            }
            for (at, &p) in self.rows_of[from].iter().enumerate() {
                places[usize::from(p)] = at;
            }
            // In a scattered order, lest the receiver become everybody's neighbour's neighbour.
            let mut offers = self.rows_of[from].clone();
            offers.sort_unstable_by_key(|&p| mix2(from as u64, u64::from(p)));
            for partition in offers.into_iter().map(usize::from) {
                if self.surplus(from) == 0 {
                    break;
                }
                let room = self.tally(partition, Some(from), &mut counts);
                if let Some(to) = self.taker(&wanting, partition, room, &counts) {
                    let at = places[partition];
                    self.apply_at(Step { from: Some(from), partition, to }, Some(at));
                    if let Some(&last) = self.rows_of[from].get(at) {
                        places[usize::from(last)] = at;
                    }
                    wanting.served(self, to);
                }
            }
        }
    }

    /// Who of those below their quota is to take the partition over: a former owner, or who is furthest below.
    fn taker(&self, wanting: &Wanting, partition: usize, room: Room, counts: &Tally) -> Option<usize> {
        let open = |&m: &usize| {
            self.has_room(m) && self.admits(self.shape.zone_of[m], room, counts) && !counts.has(m)
        };
        let urgency = |&m: &usize| {
            let wants = self.quotas[m] - self.rows_of[m].len();
            ((wants << 16) / self.quotas[m], mix2(m as u64, partition as u64))
        };
        let dropped = self.dropped[partition].iter().map(|&m| usize::from(m));
        dropped
            .filter(open)
            .max_by_key(urgency)
            .or_else(|| wanting.some(partition, self.shape.owners).filter(open).max_by_key(urgency))
    }

    /// Places what is left along alternating paths.
    fn place_rest(&mut self) -> Option<()> {
        for partition in 0..self.rows.len() {
            while self.rows[partition].len() < self.shape.owners {
                self.augment(Source::Hole(partition))?;
            }
        }
        for member in 0..self.quotas.len() {
            while self.surplus(member) > 0 {
                self.augment(Source::Surplus(member))?;
            }
        }
        Some(())
    }

    fn augment(&mut self, source: Source) -> Option<()> {
        let cheapest = self.search(source, Costs::Counted, u32::MAX, |plan, m| plan.has_room(m))?;
        if self.try_path(&cheapest) {
            return Some(());
        }
        // A cheapest path may pass one partition twice in ways that exclude each other; a shortest one never does,
        // since it would take the shortcut.
        let shortest = self.search(source, Costs::Ignored, u32::MAX, |plan, m| plan.has_room(m))?;
        self.try_path(&shortest).then_some(())
    }

    /// Takes a path's steps one after another if each is allowed then; otherwise none of them.
    fn try_path(&mut self, path: &[Step]) -> bool {
        let mut counts = Tally::new(self.shape);
        for (i, &step) in path.iter().enumerate() {
            if !self.may_take(step, &mut counts) {
                for &step in path[..i].iter().rev() {
                    self.undo(step);
                }
                return false;
            }
            self.apply(step);
        }
        true
    }

    /// A cheapest path from the source to a member for which `goal` holds, if there is one of at most `limit`.
    ///
    /// Breadth first, cost by cost. Every member is reached once, so a search costs about as much as there are replicas, times owners: it
    /// ends with the budget, too.
    fn search(
        &mut self,
        source: Source,
        costs: Costs,
        limit: u32,
        goal: impl Fn(&Self, usize) -> bool,
    ) -> Option<Vec<Step>> {
        self.work += self.quotas.len() as u64;
        let mut reach = Reach {
            by: vec![None; self.quotas.len()],
            unreached: self.shape.members_of_zones(),
            open_zones: (0..self.shape.zones.len()).collect(),
            queue: VecDeque::new(),
        };
        let mut counts = Tally::new(self.shape);
        // Members reached at the present cost, whose dearer steps wait until the cost rises.
        let mut waiting = Vec::new();
        let origin = match source {
            Source::Surplus(member) => {
                reach.by[member] = Some(Step { from: None, partition: usize::MAX, to: member });
                reach.queue.push_back(member);
                Some(member)
            }
            Source::Hole(partition) => {
                self.expand(None, partition, Some(false), &mut reach, &mut counts);
                None
            }
        };
        let mut cost = 0;
        loop {
            while let Some(member) = reach.queue.pop_front() {
                if Some(member) != origin && goal(self, member) {
                    return Some(reach.path_to(member, origin));
                }
                if self.work >= self.end {
                    return None;
                }
                waiting.push(member);
                self.work += (self.rows_of[member].len() * self.shape.owners) as u64;
                for partition in self.rows_of[member].iter().map(|&p| usize::from(p)) {
                    // Giving up a replica that is new to the member pays for the next one.
                    let free = costs == Costs::Ignored || !self.held_before(member, partition);
                    let dear = if free { None } else { Some(false) };
                    self.expand(Some(member), partition, dear, &mut reach, &mut counts);
                }
            }
            if cost >= limit {
                return None;
            }
            cost += 1;
            if let (1, Source::Hole(partition)) = (cost, source) {
                self.expand(None, partition, Some(true), &mut reach, &mut counts);
            }
            for member in core::mem::take(&mut waiting) {
                for partition in self.rows_of[member].iter().map(|&p| usize::from(p)) {
                    if self.held_before(member, partition) {
                        self.expand(Some(member), partition, Some(true), &mut reach, &mut counts);
                    }
                }
            }
            if reach.queue.is_empty() {
                return None;
            }
        }
    }

    /// Reaches those who may take the partition from `from`: with `dear` false only its former holders, otherwise all.
    fn expand(
        &self,
        from: Option<usize>,
        partition: usize,
        dear: Option<bool>,
        reach: &mut Reach,
        counts: &mut Tally,
    ) {
        let room = self.tally(partition, from, counts);
        let Reach { by, unreached, open_zones, queue } = reach;
        if dear == Some(false) {
            for to in self.former[partition].iter().map(|&m| usize::from(m)) {
                let may = || self.admits(self.shape.zone_of[to], room, counts) && !counts.has(to);
                if by[to].is_none() && may() {
                    by[to] = Some(Step { from, partition, to });
                    queue.push_back(to);
                }
            }
            return;
        }
        open_zones.retain(|&zone| {
            if self.admits(zone, room, counts) {
                unreached[zone].retain(|&to| {
                    if by[to].is_some() {
                        return false;
                    }
                    if counts.has(to) {
                        return true;
                    }
                    by[to] = Some(Step { from, partition, to });
                    queue.push_back(to);
                    false
                });
            }
            !unreached[zone].is_empty()
        });
    }
}

/// Members below their quota, zone by zone.
struct Wanting {
    zones: Vec<Vec<usize>>,
    /// The zones that have some.
    open: Vec<usize>,
}

/// Members that are looked at for each replica, or one of each zone. Where more want it, or there are more zones, any so many do.
const LOOKED_AT: usize = 64;

impl Wanting {
    fn new(plan: &Reassignment<'_>) -> Self {
        let mut zones = plan.shape.members_of_zones();
        for zone in &mut zones {
            zone.retain(|&m| plan.has_room(m));
        }
        let open = (0..zones.len()).filter(|&zone| !zones[zone].is_empty()).collect();
        Wanting { zones, open }
    }

    /// Some of all zones, or of so many that not all have a copy already; others for other partitions.
    fn some(&self, partition: usize, owners: usize) -> impl Iterator<Item = usize> + '_ {
        let most = LOOKED_AT + owners;
        let start = if self.open.len() <= most { 0 } else { mix2(u64::MAX, partition as u64) };
        let (before, after) = self.open.split_at(below(start, self.open.len()));
        let lists = after.iter().chain(before).take(most).map(|&zone| (zone, &self.zones[zone]));
        let all: usize = lists.clone().map(|(_, list)| list.len()).sum();
        let each = if all <= LOOKED_AT { all } else { LOOKED_AT.div_ceil(self.zones.len()) };
        lists.flat_map(move |(zone, list)| {
            let (before, after) = list.split_at(below(mix2(zone as u64, partition as u64), list.len()));
            after.iter().chain(before).take(each).copied()
        })
    }

    fn served(&mut self, plan: &Reassignment<'_>, member: usize) {
        if !plan.has_room(member) {
            let zone = plan.shape.zone_of[member];
            self.zones[zone].retain(|&m| m != member);
            if self.zones[zone].is_empty() {
                self.open.retain(|&open| open != zone);
            }
        }
    }
}

/// A place in a list of this length.
fn below(random: u64, len: usize) -> usize {
    usize::try_from(random % (len as u64).max(1)).expect("a place in the list")
}

#[derive(Clone, Copy, PartialEq)]
enum Costs {
    /// A replica new to a member costs 1.
    Counted,
    /// Only the number of steps counts.
    Ignored,
}

#[derive(Clone, Copy)]
struct Room {
    /// A place that no zone not yet represented claims.
    free: bool,
}

/// Whom a search has reached and how.
struct Reach {
    by: Vec<Option<Step>>,
    /// Of each zone, those not reached (and some that were).
    unreached: Vec<Vec<usize>>,
    /// Zones in which somebody is unreached.
    open_zones: Vec<usize>,
    queue: VecDeque<usize>,
}

impl Reach {
    fn path_to(&self, end: usize, origin: Option<usize>) -> Vec<Step> {
        let mut path = Vec::new();
        let mut at = end;
        while Some(at) != origin {
            let step = self.by[at].expect("it was reached");
            path.push(step);
            match step.from {
                Some(from) => at = from,
                None => break,
            }
        }
        path.reverse();
        path
    }
}
