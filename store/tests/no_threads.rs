//! An opening where the system gives no thread, or fewer than were asked for.

use gramme_store::{MemDisk, Options, SharedStore, Store};
use std::process::Command;

const CHILD: &str = "GRAMME_STORE_NO_THREADS";

/// The child: its threads would have stacks larger than any address space.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    assert!(std::thread::Builder::new().spawn(|| ()).is_err(), "there are no threads here");
    let disk = MemDisk::new();
    let options = |seed| Options::new([seed; 16]).with_segment_bytes(1 << 20).with_open_threads(4);
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    for n in 0..200u32 {
        store.put(0, &n.to_le_bytes(), &vec![1; 60_000], 1).expect("room");
    }
    store.sync().expect("syncs");
    drop(store);
    let (store, recovery) = Store::open(disk, options(2)).expect("opens");
    assert_eq!((store.len(), recovery.segments > 8), (200, true), "{recovery:?}");
    drop(store);
    let (store, _) = SharedStore::open(MemDisk::new(), options(3)).expect("opens");
    for n in 0..3000u32 {
        store.put_unsynced(0, &(n % 100).to_le_bytes(), &[1; 3000], 1).expect("room");
        if n % 500 == 499 {
            store.maintain().expect("nobody else does it");
        }
    }
    assert!(store.stats().log_bytes < 4_000_000, "{:?}", store.stats());
    println!("opened without threads");
}

#[test]
fn without_threads_an_opening_takes_longer_and_works() {
    let run = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .env("RUST_MIN_STACK", (1u64 << 50).to_string())
        .output()
        .expect("it runs");
    let out = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && out.contains("opened without threads"), "{run:?}");
}
