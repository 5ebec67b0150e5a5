//! What a search that took too long left over.

use alloc::vec;
use alloc::vec::Vec;

use super::Reassignment;
use crate::layout::fresh;
use crate::layout::quota::Shape;
use crate::member::Member;
use crate::mix::mix2;

impl Reassignment<'_> {
    /// Places some partitions without search: those that lack an owner or have one beyond its quota, and as many others, by
    /// chance, as it takes for what their members then lack to fit among them.
    pub(super) fn place_anew(&mut self, members: &[Member]) {
        let lacking = |p: &usize| {
            let row = &self.rows[*p];
            row.len() < self.shape.owners || row.iter().any(|&m| self.surplus(usize::from(m)) > 0)
        };
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        order.sort_by_cached_key(|p| (!lacking(p), mix2(*p as u64, 0)));
        let mut count = order.iter().filter(|p| lacking(p)).count();
        let quotas = loop {
            // The other partitions stay as they are, and are full.
            let mut left = Some(self.quotas.to_vec());
            for &m in order[count..].iter().flat_map(|&p| &self.rows[p]) {
                left = left.and_then(|mut left| {
                    left[usize::from(m)] = left[usize::from(m)].checked_sub(1)?;
                    Some(left)
                });
            }
            if let Some(left) = left.filter(|left| self.fits(left, count)) {
                break left;
            }
            // All together they do.
            count = (count + count / 4 + 1).min(order.len());
        };
        let chosen = &mut order[..count];
        chosen.sort_unstable();
        let former: Vec<Vec<u16>> = chosen.iter().map(|&p| self.former[p].clone()).collect();
        let part = Shape { partitions: count, ..self.shape.clone() };
        let table = fresh::place(&part, members, &quotas, &former);
        for (&p, row) in chosen.iter().zip(table.chunks_exact(self.shape.owners)) {
            self.rows[p] = row.to_vec();
        }
        self.rows_of.iter_mut().for_each(Vec::clear);
        for (p, row) in (0u16..).zip(&self.rows) {
            for &m in row {
                self.rows_of[usize::from(m)].push(p);
            }
        }
    }

    /// Whether so many partitions have room for these quotas.
    fn fits(&self, quotas: &[usize], partitions: usize) -> bool {
        let mut zones = vec![0; self.shape.zones.len()];
        for (&zone, &quota) in self.shape.zone_of.iter().zip(quotas) {
            zones[zone] += quota;
        }
        let bounds = zones.iter().zip(&self.shape.zones);
        quotas.iter().all(|&quota| quota <= partitions)
            && bounds
                .into_iter()
                .all(|(total, z)| (z.least * partitions..=z.most * partitions).contains(total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::budget::Budget;
    use crate::layout::quota;
    use crate::member::Zone;
    use crate::node::NodeId;

    /// What is left when a search took too long, be it nearly all or the last few, fits among some of the partitions.
    #[test]
    fn what_is_left_is_placed_anew_and_all_else_stays() {
        let (mut stayed, mut all) = (0, 0);
        for case in 0..200u64 {
            let below = |what: u64, end: u64| mix2(case, what) % end;
            let number = |n: u64| u32::try_from(n).unwrap();
            let member = |n: u64| {
                let zone = Zone::new(&alloc::format!("{}", below(n, 1 + case % 7))).unwrap();
                Member::new(NodeId(n)).with_weight(1 + number(below(n + 100, 4))).with_zone(zone)
            };
            let owners = 1 + usize::try_from(case % 9).unwrap();
            let before: Vec<Member> = (0..12).map(member).collect();
            let mut after = before.clone();
            for n in 0..=below(50, 3) {
                after[usize::try_from(below(60 + n, 12)).unwrap()] = member(20 + n);
            }
            after.sort_unstable();
            after.dedup_by_key(|m| m.id);
            let shape = |members: &[Member]| Shape::new(u8::try_from(owners).unwrap(), 128, members);
            let (old, new) = (shape(&before), shape(&after));
            let quotas = quota::quotas(&old, &[0; 12]);
            let table = fresh::place(&old, &before, &quotas, &[]);
            let place = |&m: &u16| {
                after
                    .iter()
                    .position(|a| a.id == before[usize::from(m)].id)
                    .map(|at| u16::try_from(at).unwrap())
            };
            let former: Vec<Vec<u16>> =
                table.chunks_exact(owners).map(|row| row.iter().filter_map(place).collect()).collect();
            let quotas = quota::quotas(&new, &vec![0; after.len()]);

            let mut plan = Reassignment::keep(Budget::USUAL, &new, &former, &quotas);
            if case % 3 > 0 {
                plan.fill_holes_directly();
                plan.shed_surplus_directly();
            }
            let full = |row: &Vec<u16>| {
                row.len() == owners && row.iter().all(|&m| plan.surplus(usize::from(m)) == 0)
            };
            if plan.rows.iter().all(full) {
                continue;
            }
            let rows = plan.rows.clone();
            plan.place_anew(&after);
            // Without the direct steps nearly all lack something, and with many owners most.
            if case % 3 > 0 && owners <= 4 {
                stayed += rows.iter().zip(&plan.rows).filter(|(before, after)| before == after).count();
                all += rows.len();
            }
            let mut counts = vec![0; new.zones.len()];
            for (p, row) in plan.rows.iter().enumerate() {
                counts.fill(0);
                row.iter().for_each(|&m| counts[new.zone_of[usize::from(m)]] += 1);
                assert!(counts.iter().zip(&new.zones).all(|(n, z)| (z.least..=z.most).contains(n)), "{case}");
                assert!(row.len() == owners && (1..owners).all(|at| !row[..at].contains(&row[at])), "{case}");
                assert!(
                    row.iter().all(|&m| plan.rows_of[usize::from(m)].contains(&u16::try_from(p).unwrap()))
                );
            }
            assert!((0..after.len()).all(|m| plan.rows_of[m].len() == quotas[m]), "{case}");
        }
        assert!(all > 0 && stayed * 5 > all * 3, "{stayed} of {all}");
    }
}
