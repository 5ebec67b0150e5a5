//! Deletes do not pile up because something older is there to stay.

use gramme_store::{MemDisk, Options, Store};

fn options() -> Options {
    Options::new([1; 16]).with_segment_bytes(16 << 10)
}

fn tend(store: &mut Store<MemDisk>) {
    store.sync().expect("syncs");
    loop {
        let done = store.maintain(1 << 20).expect("maintains");
        if done.needs_sync {
            store.sync().expect("syncs");
        } else if !done.more {
            return;
        }
    }
}

/// A queue on top of old keys, of which now and then one is put anew, so that the oldest segments hold what is dead, too.
/// The log stays below what compaction.rs says: 2.25 times what is live and a few segments.
#[test]
fn a_queue_on_top_of_old_keys_takes_bounded_space() {
    for (old, overwritten) in [(0u32, false), (40, false), (40, true), (400, true)] {
        let disk = MemDisk::new();
        let (mut store, _) = Store::open(disk.clone(), options()).expect("opens");
        for n in 0..old {
            store.put(1, &n.to_le_bytes(), &[1; 300], 1).expect("room");
        }
        for n in 0..20_000u64 {
            store.put(0, &n.to_le_bytes(), &[1; 100], n).expect("room");
            if n >= 10 {
                store.delete(0, &(n - 10).to_le_bytes()).expect("room");
            }
            if overwritten && n % 97 == 0 {
                let key = u32::try_from(n / 97 * 7 % u64::from(old)).expect("few");
                store.put(1, &key.to_le_bytes(), &[2; 300], 2).expect("room");
            }
            if n % 50 == 0 {
                tend(&mut store);
            }
            // What an opening does not know must not hold deletes back for long either.
            if n % 5000 == 4999 {
                drop(store);
                store = Store::open(disk.clone(), options()).expect("opens").0;
            }
            if n % 500 == 499 {
                let stats = store.stats();
                let bound = stats.live_bytes * 9 / 4 + 8 * (16 << 10);
                assert!(stats.log_bytes <= bound, "{old} {overwritten} {n}: {stats:?}, bound {bound}");
            }
        }
        store.close().expect("closes");
        let (store, recovery) = Store::open(disk, options()).expect("opens");
        assert!(!recovery.is_lossy());
        assert_eq!((store.slot_len(0), store.slot_len(1)), (10, u64::from(old)), "no deleted key is back");
    }
}
