//! What a decoder takes from the allocator is bounded, however much a peer sends. Counted by thread, as each test runs in one of its own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use gramme_ring::gossip::{MAX_STRANGERS, Message};
use gramme_ring::membership::{MAX_KNOWN_NODES, MAX_MERGED_NODES, MAX_MERGED_SETTINGS, Progress};
use gramme_ring::{Checked, Malformed, Membership};
use serde::de::DeserializeOwned;

struct Meter;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.set(HELD.get() + layout.size());
        MOST.set(MOST.get().max(HELD.get()));
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // What another thread took may be given back in this one.
        HELD.set(HELD.get().saturating_sub(layout.size()));
        // SAFETY: `block` came from `System.alloc` above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static METER: Meter = Meter;

/// What came of these bytes, and the most that was held meanwhile.
fn decoded<T>(bytes: &[u8]) -> (Option<Malformed>, usize)
where
    Checked<T>: DeserializeOwned,
{
    let before = HELD.get();
    MOST.set(before);
    // `None`, too, where it can't be read at all.
    let flaw = postcard::from_bytes::<Checked<T>>(bytes).ok().and_then(|Checked(read)| read.err());
    (flaw, MOST.get() - before)
}

/// So many entries after `head`, each written from its number.
fn list(head: &[u8], count: usize, tail: &[u8], entry: impl Fn(u64) -> Vec<u8>) -> Vec<u8> {
    let entries = (0..count as u64).flat_map(entry);
    head.iter().copied().chain(varint(count as u64)).chain(entries).chain(tail.iter().copied()).collect()
}

fn varint(n: u64) -> Vec<u8> {
    postcard::to_allocvec(&n).unwrap()
}

/// A list of as many entries as there may be, of one more and of twice as many: these take no more memory, but for the entry that is one
/// too many.
fn stays_within<T>(most: usize, too_many: &Option<Malformed>, bytes: impl Fn(usize) -> Vec<u8>)
where
    Checked<T>: DeserializeOwned,
{
    let (_, whole) = decoded::<T>(&bytes(most));
    for count in [most + 1, 2 * most] {
        let (flaw, held) = decoded::<T>(&bytes(count));
        assert_eq!(flaw, *too_many, "{count} entries");
        assert!(held <= whole + 64, "{count} entries: {held} bytes, of {most}: {whole}");
    }
}

#[test]
fn a_long_membership_takes_no_more_than_its_bounds() {
    let nodes = Some(Malformed::TooManyNodes);
    // Members that left, as staged by node 1.
    let left = |id| [varint(id), vec![1, 1, 1]].concat();
    stays_within::<Membership>(MAX_MERGED_NODES, &nodes, |n| list(&[0, 0, 0], n, &[0, 0], left));
    stays_within::<Membership>(MAX_MERGED_NODES, &nodes, |n| list(&[0, 0, 0, 0, 0], n, &[], varint));
    let tracker = |id| [varint(id), vec![0]].concat();
    stays_within::<Progress>(MAX_MERGED_NODES, &nodes, |n| list(&[1, 5, 0], n, &[0, 0, 0, 0, 0], tracker));
    stays_within::<Progress>(MAX_MERGED_NODES, &nodes, |n| list(&[0, 0, 0, 0, 0], n, &[], varint));
    // Names that were dropped.
    let dropped = |n| [&[8][..], format!("{n:08}").as_bytes(), &[1, 1, 0]].concat();
    let names = Some(Malformed::TooManySettings);
    stays_within::<Membership>(MAX_MERGED_SETTINGS, &names, |n| list(&[0, 0, 0, 0], n, &[0], dropped));
}

#[test]
fn a_long_message_takes_no_more_than_its_bounds() {
    const MOST: usize = MAX_KNOWN_NODES + MAX_STRANGERS;
    let head = |id| [varint(id), vec![1, 1]].concat();
    let record = |id| [varint(id), vec![1, 1, 0]].concat();
    stays_within::<Message>(MOST, &None, |n| list(&[1, 5, 0], n, &[], head));
    stays_within::<Message>(MOST, &None, |n| list(&[2, 0], n, &[0, 0], record));
    stays_within::<Message>(MOST, &None, |n| list(&[2, 0, 0, 0], n, &[], varint));
    // As many are read, and more are not.
    let heads = |n| postcard::from_bytes::<Message>(&list(&[1, 5, 0], n, &[], head)).is_ok();
    assert_eq!([MOST, MOST + 1].map(heads), [true, false]);
    let ids = |n| postcard::from_bytes::<Message>(&list(&[2, 0, 0, 0], n, &[], varint)).is_ok();
    assert_eq!([MOST, MOST + 1].map(ids), [true, false]);
}
