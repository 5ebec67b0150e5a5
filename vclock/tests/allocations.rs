//! Up to the inline capacity nothing is taken from the allocator. Counted by thread: the one that runs the tests allocates
//! whenever it likes.

use gramme_vclock::{
    Actor, Causality, Dot, GrowableContext, GrowableDotSet, GrowableSiblings, GrowableVersionVector, Minter,
    SealKey, Span, Stamp,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::Range;

struct Counting;

thread_local! {
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.set(TAKEN.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` came from `System.alloc` above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn nothing_is_allocated_up_to_the_inline_capacity() {
    let mut out = [0; 200];
    let key = SealKey([7; 16]);
    let before = TAKEN.get();

    // Three replicas, and two writers that never read: a context has a span for each actor, and a gap.
    let mut replicas = [1, 2, 3].map(|actor| (Minter::new(Actor(actor)), GrowableSiblings::<u64>::new()));
    let mut contexts = [GrowableDotSet::new(), GrowableDotSet::new()];
    for counter in 1..=20 {
        for at in 0..3 {
            let writer = usize::from(counter % 2 == 0);
            let (minter, object) = &mut replicas[at];
            contexts[writer] = object.write(&contexts[writer], minter, counter).unwrap().context;
            let sent = object.clone();
            for (_, object) in &mut replicas {
                let Ok(_) = object.merge(sent.clone());
            }
        }
    }
    assert_eq!(replicas[0].1.compare(&replicas[2].1), Causality::Equal);
    assert_eq!((replicas[0].1.len(), replicas[0].1.seen().spans().len()), (2, 3));
    let context = GrowableContext { seen: replicas[0].1.seen().clone(), stamp: Stamp::from_parts(1, 1) };
    let len = context.seal(&key, 1, b"cart", &mut out).unwrap();
    assert_eq!(GrowableContext::open(&out[..len], &key, 1, b"cart").as_ref(), Ok(&context));

    // Version vectors of any two sizes whose union has 10 actors, whichever of them each has.
    for split in 0..=10 {
        for common in 0..=split {
            let of = |actors: Range<u64>| {
                let mut vector = GrowableVersionVector::new();
                for actor in actors {
                    vector.increment(Actor(actor * 7 % 10)).unwrap();
                }
                vector
            };
            let (mut left, mut right) = (of(0..split), of(common..10));
            let relation = left.compare(&right);
            let Ok(changed) = left.merge(&right);
            let Ok(_) = right.merge(&left);
            assert_eq!((left.len(), left.compare(&right)), (10, Causality::Equal));
            assert_eq!(changed, matches!(relation, Causality::Before | Causality::Concurrent));
        }
    }

    // Dot sets of 4 spans at most whose union has no more, some widened and some joined by it.
    let spans = |mask: u16| (mask & !(mask << 1)).count_ones();
    for left in (0_u16..1 << 9).filter(|mask| spans(*mask) <= 4) {
        for right in (0_u16..1 << 9).filter(|mask| spans(*mask) <= 4 && spans(left | mask) <= 4) {
            let of = |mask: u16| {
                let mut set = GrowableDotSet::new();
                for n in (0..9).filter(|n| mask >> n & 1 == 1) {
                    let Ok(()) = set.insert(Dot { actor: Actor(1), counter: n + 1 });
                }
                set
            };
            let mut all = of(left);
            let Ok(changed) = all.union(&of(right));
            assert_eq!((changed, all), (left | right != left, of(left | right)));
        }
    }

    assert_eq!(TAKEN.get() - before, 0);

    // Spans that come time and again take room for twice as many as their union has, and no more.
    let span = |n: u64| Span { actor: Actor(n), first: 1, last: 1 };
    let taken = |spans: &mut dyn Iterator<Item = Span>| {
        let before = TAKEN.get();
        let Ok(set) = GrowableDotSet::from_spans(spans);
        (set.spans().len(), TAKEN.get() - before)
    };
    let (_, most) = taken(&mut (0..40).map(span));
    let (union, repeated) = taken(&mut (0..10_000).map(|n| span(n % 20)));
    assert!(union == 20 && repeated <= most, "{repeated} of {most}");

    // The counter counts.
    assert!(most > 0);
}
