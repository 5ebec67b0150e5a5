//! Clocks: compare, merge, write under a context, seal and open a context.
//!
//! With `--features peers`, the `VClock` of the crate `crdts` beside them.

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use gramme_vclock::{
    Actor, Dot, GrowableContext, GrowableDotSet, GrowableSiblings, GrowableVersionVector, Minter, SealKey,
    Span, Stamp,
};
use std::hint::black_box;
use std::time::Duration;

/// Actors are random numbers; a fixed scramble of small ones stands for them.
fn actor(n: u64) -> Actor {
    Actor(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn vector(entries: u64, increments: u64) -> GrowableVersionVector {
    let mut vector = GrowableVersionVector::new();
    for n in 0..entries {
        for _ in 0..increments {
            vector.increment(actor(n)).expect("far from the last counter");
        }
    }
    vector
}

fn dots(actors: u64, last: u64) -> GrowableDotSet {
    let mut set = GrowableDotSet::new();
    for n in 0..actors {
        let Ok(()) = set.insert_span(Span { actor: actor(n), first: 1, last });
    }
    set
}

fn clocks(c: &mut Criterion) {
    let mut group = c.benchmark_group("vclock/compare");
    for entries in [3, 10] {
        let (a, b) = (vector(entries, 5), vector(entries, 6));
        group.bench_function(BenchmarkId::new("version vector", entries), |bench| {
            bench.iter(|| black_box(&a).compare(black_box(&b)));
        });
        let (a, b) = (dots(entries, 5), dots(entries, 6));
        group.bench_function(BenchmarkId::new("dot set", entries), |bench| {
            bench.iter(|| black_box(&a).compare(black_box(&b)));
        });
        #[cfg(feature = "peers")]
        {
            let (a, b) = (peers::vector(entries, 5), peers::vector(entries, 6));
            group.bench_function(BenchmarkId::new("crdts", entries), |bench| {
                bench.iter(|| black_box(&a).partial_cmp(black_box(&b)));
            });
        }
    }
    group.finish();

    // Half of the entries are newer on the other side.
    let mut group = c.benchmark_group("vclock/merge");
    for entries in [3, 10] {
        let (a, mut b) = (vector(entries, 5), vector(entries, 5));
        for n in (0..entries).step_by(2) {
            b.increment(actor(n)).expect("far from the last counter");
        }
        group.bench_function(BenchmarkId::new("version vector", entries), |bench| {
            bench.iter_batched_ref(|| a.clone(), |a| a.merge(black_box(&b)), BatchSize::SmallInput);
        });
        let (a, mut b) = (dots(entries, 5), dots(entries, 5));
        for n in (0..entries).step_by(2) {
            let Ok(()) = b.insert(Dot { actor: actor(n), counter: 6 });
        }
        group.bench_function(BenchmarkId::new("dot set", entries), |bench| {
            bench.iter_batched_ref(|| a.clone(), |a| a.union(black_box(&b)), BatchSize::SmallInput);
        });
        #[cfg(feature = "peers")]
        {
            use crdts::CvRDT;
            let (a, mut b) = (peers::vector(entries, 5), peers::vector(entries, 5));
            for n in (0..entries).step_by(2) {
                peers::increment(&mut b, n);
            }
            // It takes the other side by value.
            group.bench_function(BenchmarkId::new("crdts", entries), |bench| {
                let both = || (a.clone(), Some(b.clone()));
                bench.iter_batched_ref(
                    both,
                    |(a, b)| a.merge(b.take().expect("once")),
                    BatchSize::SmallInput,
                );
            });
        }
    }
    group.finish();
}

fn siblings(c: &mut Criterion) {
    let mut held = GrowableSiblings::new();
    for n in 0..3 {
        held.write(&GrowableDotSet::new(), &mut Minter::new(actor(n)), n).expect("a first write");
    }
    let read = held.seen().clone();
    c.bench_function("vclock/siblings write under a context of 3 actors", |bench| {
        bench.iter_batched_ref(
            || (held.clone(), Minter::new(actor(3))),
            |(held, minter)| held.write(black_box(&read), minter, 9),
            BatchSize::SmallInput,
        );
    });
    let mut newer = held.clone();
    newer.write(&read, &mut Minter::new(actor(3)), 9).expect("a first write");
    c.bench_function("vclock/siblings merge, 3 replaced by 1", |bench| {
        let both = || (held.clone(), Some(newer.clone()));
        bench.iter_batched_ref(both, |(s, n)| s.merge(n.take().expect("once")), BatchSize::SmallInput);
    });
}

fn tokens(c: &mut Criterion) {
    let key = SealKey([7; 16]);
    let context =
        GrowableContext { seen: dots(3, (1 << 24) - 1), stamp: Stamp::from_parts(1_790_000_000_000, 3) };
    let mut out = [0; 128];
    let length = context.seal(&key, 1, b"cart:42", &mut out).expect("three spans fit 128 bytes");
    println!("vclock/token of 3 actors, counters below 2^24: {length} characters");
    c.bench_function("vclock/token seal, 3 actors", |bench| {
        let mut out = [0; 128];
        bench.iter(|| black_box(&context).seal(&key, 1, b"cart:42", &mut out));
    });
    let token = &out[..length];
    c.bench_function("vclock/token open, 3 actors", |bench| {
        bench.iter(|| GrowableContext::open(black_box(token), &key, 1, b"cart:42").expect("our own"));
    });
}

#[cfg(feature = "peers")]
mod peers {
    use crdts::{CmRDT, VClock};

    pub(crate) fn increment(vector: &mut VClock<u64>, n: u64) {
        vector.apply(vector.inc(super::actor(n).0));
    }

    pub(crate) fn vector(entries: u64, increments: u64) -> VClock<u64> {
        let mut vector = VClock::new();
        for n in 0..entries {
            for _ in 0..increments {
                increment(&mut vector, n);
            }
        }
        vector
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(800));
    targets = clocks, siblings, tokens
}
criterion_main!(benches);
