//! How much memory a piece of code takes: decoders must take it after they have checked a size, not before.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that this thread holds, and the most it held, since the measurement began.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

struct Meter;

fn add(bytes: isize) {
    // A thread that is ending has no cells any more, and is not being measured.
    let _ = HELD.try_with(|held| {
        let now = held.get() + bytes;
        held.set(now);
        let _ = MOST.try_with(|most| most.set(most.get().max(now)));
    });
}

// SAFETY: every call goes to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size().cast_signed());
        // SAFETY: the caller keeps the same promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        add(-layout.size().cast_signed());
        // SAFETY: the caller keeps the same promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static METER: Meter = Meter;

/// Runs `what` and checks that it never held more than `limit` bytes beyond what was held before.
///
/// # Panics
/// If it did.
pub fn within<T>(limit: usize, what: impl FnOnce() -> T) -> T {
    HELD.set(0);
    MOST.set(0);
    let result = what();
    let most = MOST.get();
    assert!(most <= limit.cast_signed(), "held {most} bytes, {limit} are allowed");
    result
}
