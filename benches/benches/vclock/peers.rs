//! What other crates have for the same job.
//!
//! - `crdts`: `VClock`, a tree of counters.
//! - `vclock`: a hash map of counters, and nothing else.
//! - `dson`: `CausalContext`, exact like our dot set: a tree of lists of intervals. Its actors are numbers of 24 bits.

use super::actor;
use super::clocks::Pair;
use crdts::{CmRDT, CvRDT, VClock};
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId};
use dson::causal_context::{CausalContext, Identifier};
use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::num::NonZeroU64;

fn tree(clock: &[(u64, u64)]) -> VClock<u64> {
    let mut tree = VClock::new();
    for (n, last) in clock {
        tree.apply(crdts::Dot::new(actor(*n).0, *last));
    }
    tree
}

fn map(clock: &[(u64, u64)]) -> vclock::VClock<u64, u64> {
    clock.iter().map(|(n, last)| (actor(*n).0, *last)).collect::<HashMap<_, _>>().into()
}

fn context(spans: impl Iterator<Item = (u64, u64, u64)>) -> CausalContext {
    let number = |n| NonZeroU64::new(n).expect("counters start at 1");
    let mut all = BTreeMap::<_, Vec<_>>::new();
    for (n, first, last) in spans {
        let actor = Identifier::new(u8::try_from(n).expect("few actors"), 7);
        all.entry(actor).or_default().push((number(first), (first < last).then(|| number(last))));
    }
    CausalContext::from_intervals(all).expect("sorted and disjoint")
}

fn exact(clock: &[(u64, u64)]) -> CausalContext {
    context(clock.iter().map(|(n, last)| (*n, 1, *last)))
}

pub(crate) fn compare(group: &mut BenchmarkGroup<'_, WallTime>, pair: Pair, entries: u64) {
    let [a, b] = pair.clocks(entries).map(|clock| tree(&clock));
    group.bench_function(BenchmarkId::new("crdts", entries), |bench| {
        bench.iter(|| black_box(&a).partial_cmp(black_box(&b)));
    });
    let [a, b] = pair.clocks(entries).map(|clock| map(&clock));
    group.bench_function(BenchmarkId::new("vclock", entries), |bench| {
        bench.iter(|| black_box(&a).partial_cmp(black_box(&b)));
    });
    let [a, b] = pair.clocks(entries).map(|clock| exact(&clock));
    group.bench_function(BenchmarkId::new("dson", entries), |bench| {
        bench.iter(|| black_box(&a).partial_cmp(black_box(&b)));
    });
}

pub(crate) fn merge(group: &mut BenchmarkGroup<'_, WallTime>, pair: Pair, entries: u64) {
    let [a, b] = pair.clocks(entries).map(|clock| tree(&clock));
    // It takes the other side by value.
    group.bench_function(BenchmarkId::new("crdts", entries), |bench| {
        let both = || (a.clone(), Some(b.clone()));
        bench.iter_batched_ref(both, |(a, b)| a.merge(b.take().expect("once")), BatchSize::SmallInput);
    });
    let [a, b] = pair.clocks(entries).map(|clock| map(&clock));
    group.bench_function(BenchmarkId::new("vclock", entries), |bench| {
        bench.iter_batched_ref(|| a.clone(), |a| a.merge(black_box(&b)), BatchSize::SmallInput);
    });
    let [a, b] = pair.clocks(entries).map(|clock| exact(&clock));
    union(group, entries, &a, &b);
}

pub(crate) fn merge_holes(group: &mut BenchmarkGroup<'_, WallTime>, spans: u64) {
    let holes = |from| (from..spans).map(|n| (0, 1 + 2 * n, 1 + 2 * n));
    let (a, b) = (context(holes(0)), context(std::iter::once((0, 1, 3)).chain(holes(2))));
    union(group, spans, &a, &b);
}

fn union(group: &mut BenchmarkGroup<'_, WallTime>, size: u64, a: &CausalContext, b: &CausalContext) {
    group.bench_function(BenchmarkId::new("dson", size), |bench| {
        bench.iter_batched_ref(|| a.clone(), |a| a.union(black_box(b)), BatchSize::SmallInput);
    });
}
