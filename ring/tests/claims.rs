//! A length that bytes only claim takes no memory. Counted by thread: the one that runs the tests allocates whenever it likes.

use gramme_ring::{Checked, Layout};
use postcard::de_flavors::Flavor;
use serde::Deserialize;
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

/// Bytes of which the reader does not know how many follow, as from a socket: it believes what a list claims.
struct Stream<'a>(&'a [u8]);

impl<'a> Flavor<'a> for Stream<'a> {
    type Remainder = ();
    type Source = &'a [u8];

    fn pop(&mut self) -> postcard::Result<u8> {
        Ok(self.try_take_n(1)?[0])
    }

    fn try_take_n(&mut self, count: usize) -> postcard::Result<&'a [u8]> {
        let (taken, rest) =
            self.0.split_at_checked(count).ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
        self.0 = rest;
        Ok(taken)
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Version 1, no parent, N = 255, Q = 16384, and then the longest lists that are allowed, of which nothing follows.
#[test]
fn a_claimed_length_takes_no_memory() {
    let start = [1, 0, 255, 0x80, 0x80, 1];
    let members = [&start[..], &[0x80, 0x80, 1]].concat();
    // One member, and 16384 · 255 places.
    let table = [&start[..], &[1, 7, 1, 0], &[0x80, 0x80, 0xff, 1]].concat();
    for bytes in [members, table] {
        let before = TAKEN.get();
        let mut stream = postcard::Deserializer::from_flavor(Stream(&bytes));
        assert!(Checked::<Layout>::deserialize(&mut stream).is_err());
        let taken = TAKEN.get() - before;
        assert!(taken < 10_000, "{taken} bytes for {}", bytes.len());
    }
}
