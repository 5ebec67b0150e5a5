//! Comparing and merging clocks, ours and those of other crates.

use super::{actor, dots, vector};
use criterion::{BatchSize, BenchmarkId, Criterion};
use gramme_vclock::{Dot, GrowableDotSet, GrowableVersionVector};
use std::hint::black_box;
use std::ops::Range;

/// How many actors a clock has: from a key's three replicas to the paper's threshold.
const ENTRIES: [u64; 3] = [3, 5, 10];

/// How two clocks of so many entries in all differ.
#[derive(Clone, Copy)]
pub(crate) enum Pair {
    /// The same actors; every other one has one event more in the second.
    Newer,
    /// As before, and each lacks one of the actors.
    Apart,
}

impl Pair {
    pub(crate) const ALL: [Pair; 2] = [Pair::Newer, Pair::Apart];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Pair::Newer => "newer",
            Pair::Apart => "apart",
        }
    }

    /// Actor and counter of each entry, for both clocks.
    pub(crate) fn clocks(self, entries: u64) -> [Vec<(u64, u64)>; 2] {
        let older = |actors: Range<u64>| actors.map(|n| (n, 5)).collect();
        let newer = |actors: Range<u64>| actors.map(|n| (n, 5 + u64::from(n % 2 == 0))).collect();
        match self {
            Pair::Newer => [older(0..entries), newer(0..entries)],
            Pair::Apart => [older(0..entries - 1), newer(1..entries)],
        }
    }
}

fn sets(pair: Pair, entries: u64) -> [GrowableDotSet; 2] {
    pair.clocks(entries).map(|clock| dots(clock.into_iter().map(|(n, last)| (n, 1, last))))
}

fn vectors(pair: Pair, entries: u64) -> [GrowableVersionVector; 2] {
    pair.clocks(entries).map(vector)
}

/// Benchmarks under `vclock/compare newer`, `vclock/merge apart` and so on.
pub(crate) fn clocks(c: &mut Criterion) {
    for pair in Pair::ALL {
        let mut group = c.benchmark_group(format!("vclock/compare {}", pair.name()));
        for entries in ENTRIES {
            let [a, b] = vectors(pair, entries);
            group.bench_function(BenchmarkId::new("version vector", entries), |bench| {
                bench.iter(|| black_box(&a).compare(black_box(&b)));
            });
            let [a, b] = sets(pair, entries);
            group.bench_function(BenchmarkId::new("dot set", entries), |bench| {
                bench.iter(|| black_box(&a).compare(black_box(&b)));
            });
            #[cfg(feature = "peers")]
            super::peers::compare(&mut group, pair, entries);
        }
        group.finish();

        let mut group = c.benchmark_group(format!("vclock/merge {}", pair.name()));
        for entries in ENTRIES {
            let [a, b] = vectors(pair, entries);
            group.bench_function(BenchmarkId::new("version vector", entries), |bench| {
                bench.iter_batched_ref(|| a.clone(), |a| a.merge(black_box(&b)), BatchSize::SmallInput);
            });
            let [a, b] = sets(pair, entries);
            group.bench_function(BenchmarkId::new("dot set", entries), |bench| {
                bench.iter_batched_ref(|| a.clone(), |a| a.union(black_box(&b)), BatchSize::SmallInput);
            });
            #[cfg(feature = "peers")]
            super::peers::merge(&mut group, pair, entries);
        }
        group.finish();
    }

    // What only exact sets can say: every other dot of one actor, with one more gap filled on the other side.
    let holes = |gaps: u64| dots((0..gaps).map(|n| (0, 1 + 2 * n, 1 + 2 * n)));
    let mut group = c.benchmark_group("vclock/merge holes");
    for spans in ENTRIES {
        let (a, mut b) = (holes(spans), holes(spans));
        let Ok(()) = b.insert(Dot { actor: actor(0), counter: 2 });
        group.bench_function(BenchmarkId::new("dot set", spans), |bench| {
            bench.iter_batched_ref(|| a.clone(), |a| a.union(black_box(&b)), BatchSize::SmallInput);
        });
        #[cfg(feature = "peers")]
        super::peers::merge_holes(&mut group, spans);
    }
    group.finish();
}
