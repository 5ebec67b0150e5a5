//! Clocks: compare, merge, write under a context, seal and open a context.
//!
//! Compare and merge go through 8,192 pairs of clocks in turn; what is timed is the call and the loop around it, not the
//! copies that a merge changes. With `--features peers`, the clocks of other crates beside them, and at the end the ratios
//! of that run, held against what they are to reach.

mod clocks;
#[cfg(feature = "peers")]
mod peers;

use criterion::{BatchSize, Criterion, criterion_group};
use gramme_benches::ratios::{self, Comparison, Target};
use gramme_vclock::{
    Actor, GrowableContext, GrowableDotSet, GrowableSiblings, GrowableVersionVector, Minter, SealKey, Span,
    Stamp,
};
use std::hint::black_box;
use std::time::{Duration, SystemTime};

/// Actors are random numbers: these are SplitMix64's. (Multiples of a constant would not do: in which order they stand comes back
/// again and again, and the branch predictor learns it at once.)
fn actor(n: u64) -> Actor {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    Actor(z ^ z >> 31)
}

fn vector(clock: impl IntoIterator<Item = (u64, u64)>) -> GrowableVersionVector {
    let mut vector = GrowableVersionVector::new();
    for (n, last) in clock {
        for _ in 0..last {
            vector.increment(actor(n)).expect("far from the last counter");
        }
    }
    vector
}

/// The spans of scrambled actors, each with its first and last counter.
fn dots(spans: impl IntoIterator<Item = (u64, u64, u64)>) -> GrowableDotSet {
    let spans = spans.into_iter().map(|(n, first, last)| Span { actor: actor(n), first, last });
    let Ok(set) = GrowableDotSet::from_spans(spans);
    set
}

fn siblings(c: &mut Criterion) {
    let none = GrowableDotSet::new();
    let mut held = GrowableSiblings::new();
    for n in 0..3 {
        held.write(&none, &mut Minter::new(actor(n)), n).expect("a first write");
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
    let context = GrowableContext {
        seen: dots((0..3).map(|n| (n, 1, (1 << 24) - 1))),
        stamp: Stamp::from_parts(1_790_000_000_000, 3),
    };
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

criterion_group! {
    name = benches;
    config = Criterion::default().output_directory(&ratios::folder()).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(800));
    targets = clocks::clocks, siblings, tokens
}

fn main() {
    let since = SystemTime::now();
    benches();
    Criterion::default().configure_from_args().final_summary();
    let other = Some(Target { floor: 1.0, goal: 2.0 });
    let comparison = Comparison {
        groups: &[
            "vclock/compare newer",
            "vclock/compare grown",
            "vclock/compare apart",
            "vclock/merge newer",
            "vclock/merge grown",
            "vclock/merge apart",
            "vclock/merge holes",
        ],
        sizes: &clocks::ENTRIES,
        unit: "entries",
        each: clocks::PAIRS,
        ours: &[("version vector", None), ("dot set", None)],
        peers: &[
            ("crdts", Some(Target { floor: 5.0, goal: 10.0 })),
            ("vclock", other),
            ("dson", other),
            ("reading", None),
        ],
    };
    comparison.print(since);
}
