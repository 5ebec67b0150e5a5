//! What other crates have for the same job.
//!
//! - `crdts`: `VClock`, a tree of counters.
//! - `vclock`: a hash map of counters, and nothing else.
//! - `dson`: `CausalContext`, exact like our dot set: a tree of lists of intervals. Its actors are numbers of 24 bits.

use super::actor;
use super::clocks::{PAIRS, Pair, compare, merge};
use crdts::{CmRDT, CvRDT, VClock};
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId};
use dson::causal_context::{CausalContext, Identifier};
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;

fn tree(clock: Vec<(u64, u64)>) -> VClock<u64> {
    let mut tree = VClock::new();
    for (n, last) in clock {
        tree.apply(crdts::Dot::new(actor(n).0, last));
    }
    tree
}

fn map(clock: Vec<(u64, u64)>) -> vclock::VClock<u64, u64> {
    clock.into_iter().map(|(n, last)| (actor(n).0, last)).collect::<HashMap<_, _>>().into()
}

fn context(spans: impl Iterator<Item = (u64, u64, u64)>) -> CausalContext {
    let number = |n| NonZeroU64::new(n).expect("counters start at 1");
    let mut all = BTreeMap::<_, Vec<_>>::new();
    for (n, first, last) in spans {
        // The first 20 bits of ours.
        let [high, middle, low, ..] = actor(n).0.to_be_bytes();
        let actor = Identifier::new(high, u16::from(middle) << 4 | u16::from(low >> 4));
        all.entry(actor).or_default().push((number(first), (first < last).then(|| number(last))));
    }
    CausalContext::from_intervals(all).expect("sorted and disjoint")
}

fn exact(clock: Vec<(u64, u64)>) -> CausalContext {
    context(clock.into_iter().map(|(n, last)| (n, 1, last)))
}

pub(crate) fn compare_all(group: &mut BenchmarkGroup<'_, WallTime>, pair: Pair, entries: u64) {
    let id = |name| BenchmarkId::new(name, entries);
    compare(group, id("crdts"), &pair.all(entries, tree), |a, b| a.partial_cmp(b));
    compare(group, id("vclock"), &pair.all(entries, map), |a, b| a.partial_cmp(b));
    compare(group, id("dson"), &pair.all(entries, exact), |a, b| a.partial_cmp(b));
}

pub(crate) fn merge_all(group: &mut BenchmarkGroup<'_, WallTime>, pair: Pair, entries: u64) {
    let id = |name| BenchmarkId::new(name, entries);
    // It takes the other side by value, and frees it inside; the copy to be taken is made outside, like all copies.
    let trees = pair.all(entries, tree);
    group.bench_function(id("crdts"), |bench| {
        let copies = || {
            (trees.iter().map(|[a, _]| a.clone()).collect(), trees.iter().map(|[_, b]| b.clone()).collect())
        };
        let all = |(left, right): &mut (Vec<VClock<u64>>, Vec<VClock<u64>>)| {
            for (a, b) in left.iter_mut().zip(right.drain(..)) {
                a.merge(b);
            }
        };
        bench.iter_batched_ref(copies, all, BatchSize::PerIteration);
    });
    merge(group, id("vclock"), &pair.all(entries, map), |a, b| a.merge(b));
    merge(group, id("dson"), &pair.all(entries, exact), |a, b| a.union(b));
}

pub(crate) fn merge_holes(group: &mut BenchmarkGroup<'_, WallTime>, spans: u64) {
    let pair = |pair| {
        let filled = pair % (spans - 1);
        let holes = |from, to| (from..to).map(move |n| (pair, 1 + 2 * n, 1 + 2 * n));
        let more =
            holes(0, filled).chain([(pair, 1 + 2 * filled, 3 + 2 * filled)]).chain(holes(filled + 2, spans));
        [context(holes(0, spans)), context(more)]
    };
    let sets: Vec<_> = (0..PAIRS).map(pair).collect();
    merge(group, BenchmarkId::new("dson", spans), &sets, |a, b| a.union(b));
}
