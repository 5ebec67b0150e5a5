//! A disk that gives fewer bytes than it was asked for, as any may: what is missing is read on, wherever the store reads.

use gramme_store::{Cursor, MemDisk, Options, Read, Reads, SharedStore, Store, verify};

fn options(seed: u8) -> Options {
    Options::new([seed; 16]).with_segment_bytes(16 << 10)
}

/// Some are longer than what is read at once.
fn value(n: u32, round: u8) -> Vec<u8> {
    let len = if n.is_multiple_of(40) { 9000 } else { 30 + n as usize % 500 };
    vec![round ^ n.to_le_bytes()[0]; len]
}

fn round_of(n: u32) -> u8 {
    u8::from(!n.is_multiple_of(3))
}

fn maintain_all(store: &mut Store<MemDisk>) {
    loop {
        store.sync().expect("syncs");
        let done = store.maintain(1 << 20).expect("maintains");
        if !done.more && !done.needs_sync {
            return;
        }
    }
}

fn put_all(store: &mut Store<MemDisk>) {
    for round in 0..2 {
        for n in (0..200u32).filter(|n| round == 0 || round_of(*n) == 1) {
            store.put(1, &n.to_le_bytes(), &value(n, round), u64::from(round)).expect("room");
        }
    }
}

/// All of it, by each of the ways to read it.
fn check(store: &mut Store<MemDisk>, seed: u64) {
    for n in 0..200u32 {
        let due = value(n, round_of(n));
        let read = match store.get(1, &n.to_le_bytes()).expect("readable") {
            Read::Pending(job) => store.finish_read(job.run()).expect("readable"),
            read => read,
        };
        assert!(matches!(&read, Read::Value { value, .. } if *value == due), "seed {seed}, {n}: {read:?}");
    }
    let page = store.list(1, Cursor::START, 1000).expect("lists");
    assert_eq!((page.keys.len(), page.unreadable, page.unknown), (200, 0, false), "seed {seed}");
}

#[test]
fn what_a_read_leaves_out_is_read_on_wherever_the_store_reads() {
    for seed in 0..20 {
        let disk = MemDisk::new();
        disk.shorten_next_reads(u64::MAX, seed);
        let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
        put_all(&mut store);
        check(&mut store, seed);
        // Sealing and merging.
        maintain_all(&mut store);
        check(&mut store, seed);
        let scrubbed = store.scrub(1 << 30).expect("readable");
        assert!(scrubbed.damage.is_empty(), "seed {seed}: {scrubbed:?}");
        let copy = MemDisk::new();
        store.snapshot().expect("a snapshot").copy_to(&copy, |_| ()).expect("room");
        let (mut copied, _) = Store::open(copy, options(2)).expect("opens");
        check(&mut copied, seed);
        store.put(1, b"last", b"not synced", 9).expect("room");
        drop(store);

        disk.kill();
        let verified = verify(&disk, None).expect("readable");
        assert!(!verified.report.is_lossy() && verified.report.torn.is_empty(), "seed {seed}: {verified:?}");
        // By index files and without, and by jobs.
        for (index_files, reads) in [(true, Reads::Inline), (false, Reads::Inline), (true, Reads::Jobs)] {
            let copy = disk.fork();
            let options = options(3).with_index_files(index_files).with_reads(reads);
            let (mut store, recovery) = Store::open(copy.clone(), options).expect("opens");
            assert!(!recovery.is_lossy() && recovery.torn.is_empty(), "seed {seed}: {recovery:?}");
            assert_eq!(store.tag(1, b"last"), Some(9), "seed {seed}: the log goes on to its end");
            store.delete(1, b"last").expect("room");
            check(&mut store, seed);
        }
        let (shared, _) = SharedStore::open(disk, options(4)).expect("opens");
        let shown = shared.get_with(1, &40u32.to_le_bytes(), |found| found.bytes.to_vec());
        assert_eq!(shown, Ok(Some(value(40, 1))), "seed {seed}");
    }
}
