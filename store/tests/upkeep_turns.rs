//! The upkeep thread gets the store when a write or a sync is refused for want of room.

#[path = "common/watched.rs"]
mod watched;

use gramme_store::{MemDisk, Options, SharedStore, WriteError};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};
use watched::Watched;

fn is_upkeep() -> bool {
    std::thread::current().name() == Some("store upkeep")
}

/// What the upkeep thread does to the disk waits behind this, once a writer has asked something of the disk.
#[derive(Default)]
struct Gate {
    /// It is closed by the next writer.
    armed: AtomicBool,
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn pass(&self) {
        if !is_upkeep() {
            if self.armed.swap(false, Ordering::SeqCst) {
                *self.closed.lock().expect("no panic") = true;
            }
            return;
        }
        let closed = self.closed.lock().expect("no panic");
        drop(self.opened.wait_while(closed, |closed| *closed).expect("no panic"));
    }

    fn open(&self) {
        *self.closed.lock().expect("no panic") = false;
        self.opened.notify_all();
    }
}

#[test]
fn who_is_refused_goes_on_only_once_upkeep_has_had_the_store() {
    let (disk, gate) = (MemDisk::new(), Arc::new(Gate::default()));
    disk.set_capacity(Some(2 << 20));
    let watched = Watched::new(disk, {
        let gate = gate.clone();
        move |_| {
            gate.pass();
            Ok(())
        }
    });
    let options = Options::new([1; 16]).with_segment_bytes(64 << 10);
    let (store, _) = SharedStore::open(watched, options).expect("opens");
    let put = |n: u64| store.put_unsynced(0, &n.to_le_bytes(), &[1; 1000], 1);
    let stored = (0..).find(|n| put(*n).is_err()).expect("it gets full");
    // Nothing is to come of upkeep: what is refused stays refused.
    store
        .maintain()
        .or_else(|error| if error == WriteError::NoSpace { Ok(0) } else { Err(error) })
        .expect("upkeep");
    let more = (stored..).find(|n| put(*n) == Err(WriteError::NoSpace)).expect("it gets full");
    std::thread::scope(|scope| {
        // A turn is given up after 10 ms; then the machine was busy, and another try is due.
        let waited = (0..20).any(|_| {
            let (tell, told) = mpsc::channel();
            gate.armed.store(true, Ordering::SeqCst);
            scope.spawn(move || tell.send(put(more)).expect("somebody listens"));
            let waits = told.recv_timeout(Duration::from_millis(500)).is_err();
            gate.open();
            if waits {
                assert_eq!(told.recv().expect("it returns"), Err(WriteError::NoSpace));
            }
            waits
        });
        assert!(waited, "refused writers return while upkeep has not had the store");
    });
}

#[test]
fn upkeep_is_woken_by_a_sync_that_finds_no_room() {
    let (disk, calls) = (MemDisk::new(), Arc::new(AtomicU64::new(0)));
    disk.reserve_room(false);
    let watched = Watched::new(disk.clone(), {
        let calls = calls.clone();
        move |_| {
            calls.fetch_add(u64::from(is_upkeep()), Ordering::SeqCst);
            Ok(())
        }
    });
    let options = Options::new([1; 16]).with_segment_bytes(64 << 10).with_write_buffer(16 << 10);
    let (store, _) = SharedStore::open(watched, options).expect("opens");
    store.put(0, b"first", &[1; 100], 1).expect("room");
    // Then upkeep has nothing more to do.
    store.maintain().expect("upkeep");
    disk.set_capacity(Some(disk.used_bytes()));
    // It is buffered, and has no room on the disk.
    store.put_unsynced(0, b"second", &[1; 8000], 1).expect("it is buffered");
    let before = calls.load(Ordering::SeqCst);
    assert_eq!(store.sync(), Err(WriteError::NoSpace));
    let began = Instant::now();
    while calls.load(Ordering::SeqCst) == before {
        assert!(began.elapsed() < Duration::from_secs(20), "upkeep is not woken");
        std::thread::yield_now();
    }
    disk.set_capacity(None);
    store.sync().expect("there is room again");
}
