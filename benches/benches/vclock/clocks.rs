//! Comparing and merging clocks, ours and those of other crates.

use super::{actor, dots, vector};
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use gramme_vclock::{Dot, GrowableDotSet, GrowableVersionVector};
use std::hint::black_box;
use std::ops::Range;

/// How many actors a clock has: from a key's three replicas to the paper's threshold.
pub(crate) const ENTRIES: [u64; 3] = [3, 5, 10];

/// How many pairs of clocks a benchmark goes through, each with actors of its own. No server's clocks come back in one order time and
/// again: of a thousand pairs a branch predictor learns how the actors of each stand, and of so many still a part.
pub(crate) const PAIRS: u64 = 8192;

/// How two clocks of so many entries in all differ.
#[derive(Clone, Copy)]
pub(crate) enum Pair {
    /// The same actors; every other one has one event more in the second.
    Newer,
    /// As before, and the second has one more actor.
    Grown,
    /// As the first, and each lacks one of the actors.
    Apart,
}

impl Pair {
    pub(crate) const ALL: [Pair; 3] = [Pair::Newer, Pair::Grown, Pair::Apart];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Pair::Newer => "newer",
            Pair::Grown => "grown",
            Pair::Apart => "apart",
        }
    }

    /// Actor and counter of each entry, for both clocks of all pairs, each made into what `clock` makes of it.
    pub(crate) fn all<C>(self, entries: u64, clock: impl Fn(Vec<(u64, u64)>) -> C) -> Vec<[C; 2]> {
        let pair = |pair: u64| {
            let older = |actors: Range<u64>| actors.map(|n| (pair << 8 | n, 5)).collect();
            let newer = |actors: Range<u64>| {
                actors.map(|n| (pair << 8 | n, 5 + u64::from((n + pair).is_multiple_of(2)))).collect()
            };
            match self {
                Pair::Newer => [older(0..entries), newer(0..entries)],
                Pair::Grown => [older(0..entries - 1), newer(0..entries)],
                Pair::Apart => [older(0..entries - 1), newer(1..entries)],
            }
        };
        (0..PAIRS).map(|at| pair(at).map(&clock)).collect()
    }
}

fn set(clock: Vec<(u64, u64)>) -> GrowableDotSet {
    dots(clock.into_iter().map(|(n, last)| (n, 1, last)))
}

/// Reads all of a vector and decides nothing: less than this no comparison or merge can take that looks at every entry.
fn read(vector: &GrowableVersionVector) -> u64 {
    vector.entries().iter().fold(0, |all, entry| all ^ entry.actor.0 ^ entry.counter)
}

/// Times `compare` on each pair.
pub(crate) fn compare<C, R>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    pairs: &[[C; 2]],
    compare: impl Fn(&C, &C) -> R,
) {
    group.bench_function(id, |bench| {
        bench.iter(|| {
            for [a, b] in pairs {
                black_box(compare(black_box(a), black_box(b)));
            }
        });
    });
}

/// Times `merge` of the second clock into a copy of the first, for each pair. The copies are made and dropped outside.
pub(crate) fn merge<C: Clone, R>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    pairs: &[[C; 2]],
    merge: impl Fn(&mut C, &C) -> R,
) {
    group.bench_function(id, |bench| {
        let copies = || pairs.iter().map(|[a, _]| a.clone()).collect::<Vec<C>>();
        let all = |copies: &mut Vec<C>| {
            for (a, [_, b]) in copies.iter_mut().zip(pairs) {
                black_box(merge(a, black_box(b)));
            }
        };
        bench.iter_batched_ref(copies, all, BatchSize::PerIteration);
    });
}

/// Benchmarks under `vclock/compare newer`, `vclock/merge apart` and so on.
pub(crate) fn clocks(c: &mut Criterion) {
    for pair in Pair::ALL {
        let mut group = c.benchmark_group(format!("vclock/compare {}", pair.name()));
        group.throughput(Throughput::Elements(PAIRS));
        for entries in ENTRIES {
            let vectors = pair.all(entries, vector);
            compare(&mut group, BenchmarkId::new("version vector", entries), &vectors, |a, b| a.compare(b));
            compare(&mut group, BenchmarkId::new("reading", entries), &vectors, |a, b| read(a) ^ read(b));
            let sets = pair.all(entries, set);
            compare(&mut group, BenchmarkId::new("dot set", entries), &sets, |a, b| a.compare(b));
            #[cfg(feature = "peers")]
            super::peers::compare_all(&mut group, pair, entries);
        }
        group.finish();

        let mut group = c.benchmark_group(format!("vclock/merge {}", pair.name()));
        group.throughput(Throughput::Elements(PAIRS));
        for entries in ENTRIES {
            let vectors = pair.all(entries, vector);
            merge(&mut group, BenchmarkId::new("version vector", entries), &vectors, |a, b| a.merge(b));
            merge(&mut group, BenchmarkId::new("reading", entries), &vectors, |a, b| read(a) ^ read(b));
            let sets = pair.all(entries, set);
            merge(&mut group, BenchmarkId::new("dot set", entries), &sets, |a, b| a.union(b));
            #[cfg(feature = "peers")]
            super::peers::merge_all(&mut group, pair, entries);
        }
        group.finish();
    }

    // What only exact sets can say: every other dot of one actor, with one more gap filled on the other side.
    let mut group = c.benchmark_group("vclock/merge holes");
    group.throughput(Throughput::Elements(PAIRS));
    for spans in ENTRIES {
        let pair = |pair| {
            let holes = || dots((0..spans).map(|n| (pair, 1 + 2 * n, 1 + 2 * n)));
            let (a, mut b) = (holes(), holes());
            let Ok(()) = b.insert(Dot { actor: actor(pair), counter: 2 + 2 * (pair % (spans - 1)) });
            [a, b]
        };
        let sets: Vec<_> = (0..PAIRS).map(pair).collect();
        merge(&mut group, BenchmarkId::new("dot set", spans), &sets, |a, b| a.union(b));
        #[cfg(feature = "peers")]
        super::peers::merge_holes(&mut group, spans);
    }
    group.finish();
}
