//! A length that bytes only claim takes no memory. Counted by thread: the one that runs the tests allocates whenever it likes.

use gramme_ring::{Checked, Layout};
use std::alloc::{GlobalAlloc, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: std::alloc::Layout) -> *mut u8 {
        TAKEN.set(TAKEN.get() + layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: std::alloc::Layout) {
        // SAFETY: `block` came from `System.alloc` above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Version 1, no parent, N = 255, Q = 16384, and then the longest lists that are allowed, of which nothing follows.
#[test]
fn a_claimed_length_takes_no_memory() {
    let start = [1, 0, 255, 0x80, 0x80, 1];
    let members = [&start[..], &[0x80, 0x80, 1]].concat();
    // One member, and 16384 · 255 places.
    let table = [&start[..], &[1, 7, 1, 0], &[0x80, 0x80, 0xff, 1]].concat();
    for bytes in [members, table] {
        let before = TAKEN.get();
        assert!(postcard::from_bytes::<Checked<Layout>>(&bytes).is_err());
        let taken = TAKEN.get() - before;
        assert!(taken < 10_000, "{taken} bytes for {}", bytes.len());
    }
}
