//! What a user does with a store, on both disks.

use gramme_store::{
    Cursor, Disk, DiskErrorKind, FileDisk, MemDisk, OpenError, Options, Read, ReadError, Reads, Store,
    WriteError,
};

fn options() -> Options {
    Options::new([7; 16]).with_segment_bytes(8192)
}

fn value<D: Disk>(store: &mut Store<D>, slot: u16, key: &[u8]) -> Option<(Vec<u8>, u64)> {
    match store.get(slot, key).expect("readable") {
        Read::Absent => None,
        Read::Value { value, tag, .. } => Some((value, tag)),
        Read::Pending(job) => match store.finish_read(job.run()).expect("readable") {
            Read::Value { value, tag, .. } => Some((value, tag)),
            other => panic!("a finished read is a value, not {other:?}"),
        },
    }
}

fn fill_and_reopen<D: Disk>(open: impl Fn() -> Store<D>) {
    let mut store = open();
    for n in 0..500u32 {
        store
            .put(3, &n.to_le_bytes(), &vec![n.to_le_bytes()[0]; n as usize % 300], u64::from(n))
            .expect("room");
    }
    for n in (0..500u32).step_by(3) {
        store.put(3, &n.to_le_bytes(), b"second", 9).expect("room");
    }
    for n in (0..500u32).step_by(5) {
        store.delete(3, &n.to_le_bytes()).expect("room");
    }
    store.put(4, b"other slot", b"stays", 1).expect("room");
    store.put(5, b"dropped", b"goes", 1).expect("room");
    store.drop_slot(5).expect("room");
    let last = store.put(5, b"after the drop", b"stays", 2).expect("room");
    let durable = store.sync().expect("syncs");
    assert!(durable.covers(last));
    assert_eq!(store.sync().expect("syncs"), durable, "nothing new");

    let check = |store: &mut Store<D>| {
        for n in 0..500u32 {
            let expected = match n {
                n if n % 5 == 0 => None,
                n if n % 3 == 0 => Some((b"second".to_vec(), 9)),
                n => Some((vec![n.to_le_bytes()[0]; n as usize % 300], u64::from(n))),
            };
            assert_eq!(value(store, 3, &n.to_le_bytes()), expected, "key {n}");
            assert_eq!(store.tag(3, &n.to_le_bytes()), expected.map(|(_, tag)| tag));
        }
        assert_eq!(value(store, 4, b"other slot"), Some((b"stays".to_vec(), 1)));
        assert_eq!(value(store, 5, b"dropped"), None);
        assert_eq!(value(store, 5, b"after the drop"), Some((b"stays".to_vec(), 2)));
        assert_eq!((store.len(), store.slot_len(3), store.slot_len(5)), (402, 400, 1));
    };
    check(&mut store);
    let stats = store.stats();
    drop(store);
    let mut store = open();
    check(&mut store);
    assert_eq!(store.stats().live_bytes, stats.live_bytes, "rebuilt the same");
    let position = store.position();
    store.close().expect("closes");
    let mut store = open();
    check(&mut store);
    assert!(store.put(1, b"k", b"v", 0).expect("room") > position, "positions go on");
}

#[test]
fn writes_are_there_at_once_and_after_a_reopen_in_memory() {
    let disk = MemDisk::new();
    fill_and_reopen(|| {
        let (store, recovery) = Store::open(disk.clone(), options()).expect("opens");
        assert_eq!((recovery.damage, recovery.torn), (vec![], vec![]));
        store
    });
}

#[test]
fn writes_are_there_at_once_and_after_a_reopen_on_files() {
    let directory = Directory::new("reopen");
    fill_and_reopen(|| {
        let (store, recovery) =
            Store::open(FileDisk::open(&directory.0).expect("a directory"), options()).expect("opens");
        assert_eq!((recovery.damage, recovery.torn), (vec![], vec![]));
        store
    });
}

#[test]
fn reads_can_be_jobs() {
    let (mut store, _) = Store::open(MemDisk::new(), options().with_reads(Reads::Jobs)).expect("opens");
    store.put(0, b"key", b"old", 1).expect("room");
    let Read::Pending(job) = store.get(0, b"key").expect("there") else { panic!("a job was asked for") };
    store.put(0, b"key", b"new", 2).expect("room");
    let Read::Value { value, tag, .. } = store.finish_read(job.run()).expect("reads") else {
        panic!("a value")
    };
    assert_eq!((value.as_slice(), tag), (b"old".as_slice(), 1), "what it was when the read began");
    assert!(matches!(store.get(0, b"none").expect("answers"), Read::Absent));
}

#[test]
fn a_listing_meets_every_key_once_in_pages() {
    let (mut store, _) = Store::open(MemDisk::new(), options()).expect("opens");
    let mut expected: Vec<Vec<u8>> = (0..100u32).map(|n| vec![b'k'; n as usize * 7 + 1]).collect();
    for key in &expected {
        store.put(12, key, b"", 0).expect("room");
    }
    store.put(13, b"another slot's", b"", 0).expect("room");
    let (mut found, mut cursor, mut pages) = (Vec::new(), Some(Cursor::START), 0);
    while let Some(from) = cursor {
        let page = store.list(12, from, 9).expect("reads");
        assert!(page.keys.len() <= 9 && page.unreadable == 0);
        found.extend(page.keys);
        cursor = page.next;
        pages += 1;
    }
    assert_eq!(pages, 12);
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn bad_lengths_are_refused_and_change_nothing() {
    let (mut store, _) = Store::open(MemDisk::new(), options()).expect("opens");
    assert_eq!(store.put(0, b"", b"v", 0), Err(WriteError::KeyLength(0)));
    let long = vec![0; gramme_store::MAX_KEY_BYTES + 1];
    assert_eq!(store.put(0, &long, b"v", 0), Err(WriteError::KeyLength(long.len())));
    let huge = vec![0; gramme_store::MAX_VALUE_BYTES + 1];
    assert_eq!(store.put(0, b"k", &huge, 0), Err(WriteError::ValueLength(huge.len())));
    assert!(store.is_empty() && store.writable());
    // The longest that are allowed go in, whatever the segments' size, and come back.
    let (long, huge) = (&long[1..], &huge[1..]);
    store.put(0, long, huge, 5).expect("room");
    assert_eq!(value(&mut store, 0, long), Some((huge.to_vec(), 5)));
    assert_eq!(store.list(0, Cursor::START, 1).expect("reads").keys, vec![long.to_vec()]);
}

#[test]
fn a_directory_has_one_opener() {
    let directory = Directory::new("lock");
    let open = || Store::open(FileDisk::open(&directory.0).expect("a directory"), options());
    let first = open().expect("opens");
    match open() {
        Err(OpenError::Disk(error)) => assert_eq!(error.kind(), DiskErrorKind::Locked),
        other => panic!("locked, but {:?}", other.map(|(_, recovery)| recovery)),
    }
    drop(first);
    open().expect("free again");

    let disk = MemDisk::new();
    let first = Store::open(disk.clone(), options()).expect("opens");
    assert!(matches!(Store::open(disk.clone(), options()), Err(OpenError::Disk(_))));
    drop(first);
    Store::open(disk, options()).expect("free again");
}

#[test]
fn a_directory_that_is_a_file_is_an_error_in_words() {
    let directory = Directory::new("file");
    std::fs::create_dir_all(&directory.0).expect("a directory");
    let path = directory.0.join("plain");
    std::fs::write(&path, b"mine").expect("writes");
    let error = FileDisk::open(&path).expect_err("not a directory");
    assert_eq!(error.kind(), DiskErrorKind::NotADirectory);
    assert_eq!(error.to_string(), "open the directory: not a directory");
    assert_eq!(std::fs::read(&path).expect("still there"), b"mine");
}

#[test]
fn a_failed_sync_stops_writing_for_good_and_reads_go_on() {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options()).expect("opens");
    store.put(0, b"synced", b"1", 0).expect("room");
    store.sync().expect("syncs");
    store.put(0, b"doubtful", b"2", 0).expect("room");
    disk.fail_next_syncs(1);
    assert!(matches!(store.sync(), Err(WriteError::Disk(_))));
    // The disk would say yes now. The store must not ask.
    assert!(!store.writable());
    assert_eq!(store.sync(), Err(WriteError::Poisoned));
    assert!(store.begin_sync().is_none());
    assert_eq!(store.put(0, b"k", b"v", 0), Err(WriteError::Poisoned));
    assert_eq!(store.delete(0, b"synced"), Err(WriteError::Poisoned));
    assert_eq!(store.drop_slot(9), Err(WriteError::Poisoned));
    assert_eq!(value(&mut store, 0, b"synced"), Some((b"1".to_vec(), 0)));
    assert_eq!(value(&mut store, 0, b"doubtful"), Some((b"2".to_vec(), 0)));
    drop(store);
    disk.crash(1);
    let (mut store, recovery) = Store::open(disk, options()).expect("opens");
    assert!(!recovery.is_lossy(), "what was never acknowledged is not damage: {recovery:?}");
    assert_eq!(value(&mut store, 0, b"synced"), Some((b"1".to_vec(), 0)));
    store.put(0, b"k", b"v", 0).expect("a new opening writes again");
}

#[test]
fn a_tail_whose_sync_failed_is_written_again_before_it_is_trusted() {
    // The pages of a failed sync count as clean: after a kill they can be read, and a plain sync of them "succeeds" without
    // writing anything.
    for seed in 0..20 {
        let disk = MemDisk::new();
        let (mut store, _) = Store::open(disk.clone(), options()).expect("opens");
        store.put(0, b"synced", b"1", 0).expect("room");
        store.sync().expect("syncs");
        for n in 0..30u32 {
            store.put(1, &n.to_le_bytes(), &[3; 600], 0).expect("room");
        }
        disk.fail_next_syncs(5);
        store.sync().expect_err("fails");
        drop(store);
        disk.kill();
        disk.fail_next_syncs(0);
        let (store, recovery) = Store::open(disk.clone(), options()).expect("opens");
        assert_eq!((recovery.damage, recovery.torn), (vec![], vec![]));
        let shown = store.slot_len(1);
        assert_eq!(shown, 30, "they are in the page cache");
        drop(store);
        disk.crash(seed);
        let (mut store, _) = Store::open(disk, options()).expect("opens");
        assert_eq!(store.slot_len(1), shown, "what an opening showed is there to stay");
        assert!(value(&mut store, 0, b"synced").is_some());
    }
}

#[test]
fn a_store_opens_on_a_full_disk_reads_deletes_and_writes_again_when_there_is_room() {
    // Segments that are large beside a manifest, as real ones are.
    let options = options().with_segment_bytes(64 << 10);
    for clean in [false, true] {
        let disk = MemDisk::new();
        let (mut store, _) = Store::open(disk.clone(), options.clone()).expect("opens");
        for n in 0..100u32 {
            store.put(0, &n.to_le_bytes(), &[1; 3000], 0).expect("room");
        }
        store.sync().expect("syncs");
        if clean {
            store.close().expect("closes");
        } else {
            drop(store);
        }
        disk.set_capacity(Some(disk.used_bytes() - 100));
        let open = || Store::open(disk.clone(), options.clone()).expect("opens on a full disk");
        drop(open());
        let (mut store, recovery) = open();
        assert_eq!((recovery.keys, &recovery.damage[..], &recovery.torn[..]), (100, &[][..], &[][..]));
        for n in 0..100u32 {
            assert!(value(&mut store, 0, &n.to_le_bytes()).is_some());
        }
        assert_eq!(store.put(0, b"more", &[1; 3000], 0), Err(WriteError::NoSpace));
        assert!(store.writable() && store.sync().expect("nothing to sync").covers(store.position()));
        // The room that was kept in reserve is for this.
        for n in 0..60u32 {
            store.delete(0, &n.to_le_bytes()).expect("deletes have room");
        }
        store.sync().expect("syncs");
        for _ in 0..40 {
            match store.maintain(1 << 20) {
                Ok(_) | Err(WriteError::NoSpace) => {}
                Err(error) => panic!("{error}"),
            }
            store.sync().expect("syncs");
        }
        store.put(0, b"more", &[1; 3000], 0).expect("compaction made room");
        drop(store);
        disk.set_capacity(None);
        let (mut store, recovery) = open();
        assert!(recovery.damage.is_empty() && recovery.torn.is_empty(), "{recovery:?}");
        assert_eq!(store.len(), 41);
        store.put(0, b"again", b"v", 0).expect("room");
    }
}

#[test]
fn a_foreign_sync_changes_nothing() {
    let (mut one, _) = Store::open(MemDisk::new(), options()).expect("opens");
    let (mut two, _) = Store::open(MemDisk::new(), Options::new([8; 16])).expect("opens");
    one.put(0, b"k", b"v", 0).expect("room");
    let position = two.put(0, b"k", b"v", 0).expect("room");
    let foreign = one.begin_sync().expect("unsynced").run();
    let own = two.begin_sync().expect("unsynced");
    assert_eq!(two.complete_sync(foreign), Err(WriteError::ForeignSync));
    assert!(two.begin_sync().is_none(), "one is under way");
    let later = two.put(0, b"k", b"w", 0).expect("writes go on during a sync");
    let durable = two.complete_sync(own.run()).expect("syncs");
    assert!(durable.covers(position) && !durable.covers(later));
}

#[test]
fn a_full_disk_refuses_puts_keeps_deleting_and_goes_on_when_there_is_room() {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options()).expect("opens");
    disk.set_capacity(Some(140_000));
    let mut stored = 0u32;
    let error = loop {
        match store.put(0, &stored.to_le_bytes(), &[1; 100], 0) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, WriteError::NoSpace);
    assert!(stored > 100 && store.writable());
    assert_eq!(value(&mut store, 0, &stored.to_le_bytes()), None, "the refused put is not there");
    store.sync().expect("a full disk syncs");
    for n in 0..5u32 {
        store.delete(0, &n.to_le_bytes()).expect("deletes have room");
        assert_eq!(value(&mut store, 0, &n.to_le_bytes()), None);
    }
    disk.set_capacity(None);
    store.put(0, b"again", b"v", 0).expect("there is room");
    drop(store);
    let (mut store, recovery) = Store::open(disk, options()).expect("opens");
    assert!(recovery.damage.is_empty() && recovery.torn.is_empty(), "{recovery:?}");
    for n in 0..stored {
        assert_eq!(value(&mut store, 0, &n.to_le_bytes()).is_some(), n >= 5);
    }
    assert!(value(&mut store, 0, b"again").is_some());
}

/// A replicated store deletes by a put: the tombstone of what is deleted.
#[test]
fn on_a_full_disk_a_put_that_shrinks_its_record_has_the_room_of_deletes() {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options()).expect("opens");
    disk.set_capacity(Some(140_000));
    let mut stored = 0u32;
    while store.put(0, &stored.to_le_bytes(), &[1; 1000], 0).is_ok() {
        stored += 1;
    }
    for n in 0u32.. {
        if store.put(1, &n.to_le_bytes(), &[1; 10], 0).is_err() {
            break;
        }
    }
    store.sync().expect("a full disk syncs");
    let refused = Err(WriteError::NoSpace);
    assert_eq!(store.put(0, &0u32.to_le_bytes(), &[2; 1000], 0), refused, "as large as before");
    assert_eq!(store.put(0, &0u32.to_le_bytes(), &[2; 2000], 0), refused, "larger");
    assert_eq!(store.put(0, b"another", &[2; 10], 0), refused, "small, but no less than was there");
    for n in 0..5u32 {
        store.put(0, &n.to_le_bytes(), &[3; 40], 1).expect("shrinking has room");
    }
    store.sync().expect("syncs");
    disk.set_capacity(None);
    drop(store);
    let (mut store, recovery) = Store::open(disk, options()).expect("opens");
    assert!(recovery.damage.is_empty() && recovery.torn.is_empty(), "{recovery:?}");
    for n in 0..stored {
        let expected = if n < 5 { (vec![3; 40], 1) } else { (vec![1; 1000], 0) };
        assert_eq!(value(&mut store, 0, &n.to_le_bytes()), Some(expected));
    }
}

#[test]
fn a_read_that_fails_is_not_an_absent_key() {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options()).expect("opens");
    store.put(0, b"k", b"v", 0).expect("room");
    disk.fail_next_reads(1);
    assert!(matches!(store.get(0, b"k"), Err(ReadError::Disk(_))));
    assert!(value(&mut store, 0, b"k").is_some());
}

struct Directory(std::path::PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gramme-store-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_expires_is_absent_from_its_moment_on_and_compacted_away() {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options()).expect("opens");
    store.put(1, b"key", b"for ever", 1).expect("room");
    for n in 0..40u32 {
        store.put(2, &n.to_le_bytes(), &[0; 300], 1).expect("room");
    }
    store.put_expiring(1, b"key", b"for now", 2, 500).expect("room");
    store.put_expiring(1, b"other", b"", 3, u64::MAX).expect("room");
    let keys = |store: &mut Store<MemDisk>| store.list(1, Cursor::START, 9).expect("lists").keys;
    let get = |store: &mut Store<MemDisk>| match store.get(1, b"key").expect("readable") {
        Read::Value { value, tag: 2, expires: Some(500) } => value,
        Read::Absent => Vec::new(),
        other => panic!("{other:?}"),
    };
    store.set_time(499);
    assert_eq!((get(&mut store), keys(&mut store).len()), (b"for now".to_vec(), 2));
    store.set_time(500);
    assert_eq!(
        (get(&mut store), keys(&mut store)),
        (Vec::new(), vec![b"other".to_vec()]),
        "not the older value"
    );
    assert_eq!(store.get_with(1, b"key", |_| ()).expect("readable"), None);
    store.set_time(3);
    assert_eq!(get(&mut store), b"for now", "the clock was wrong");
    store.set_time(500);
    let job =
        match Store::open(disk.fork(), options().with_reads(Reads::Jobs)).expect("opens").0.get(1, b"key") {
            Ok(Read::Pending(job)) => job,
            other => panic!("{other:?}"),
        };
    assert!(matches!(store.finish_read(job.run()), Ok(Read::Value { .. })), "not by the clock of then");
    // Merged away, the expiring put leaves nothing that the older one could come back from.
    for round in 0..3 {
        for n in 0..40u32 {
            store.put(2, &n.to_le_bytes(), &[round; 300], 1).expect("room");
        }
        store.sync().expect("syncs");
        loop {
            let done = store.maintain(1 << 20).expect("maintains");
            store.sync().expect("syncs");
            if !done.more && !done.needs_sync {
                break;
            }
        }
    }
    assert_eq!(store.tag(1, b"key"), None, "gone from memory, too");
    drop(store);
    let (mut store, _) = Store::open(disk, options()).expect("opens");
    assert_eq!((get(&mut store), store.tag(1, b"other")), (Vec::new(), Some(3)));
}

#[test]
fn a_value_can_be_seen_where_it_stands() {
    let (mut store, _) = Store::open(MemDisk::new(), options()).expect("opens");
    store.put(1, b"long", &[7; 200_000], 5).expect("room");
    store.put_expiring(1, b"short", b"value", 6, 9).expect("room");
    let see = |value: gramme_store::ValueRef<'_>| (value.bytes.to_vec(), value.tag, value.expires);
    assert_eq!(store.get_with(1, b"long", see).expect("readable"), Some((vec![7; 200_000], 5, None)));
    assert_eq!(store.get_with(1, b"short", see).expect("readable"), Some((b"value".to_vec(), 6, Some(9))));
    assert_eq!(store.get_with(1, b"none", see).expect("readable"), None);
}

#[test]
fn what_a_read_takes_is_known_without_reading() {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk, Options::new([1; 16])).expect("opens");
    assert_eq!(store.read_bytes(0, b"key"), None);
    for len in [0, 1, 100, 1000, 70_000, 1 << 20] {
        store.put(0, b"key", &vec![7; len], 1).expect("room");
        store.put(0, b"another", b"behind it", 1).expect("room");
        let record = 40 + 3 + len;
        let bytes = store.read_bytes(0, b"key").expect("there");
        assert!((record..=(record + 8) * 9 / 8).contains(&bytes), "{bytes} for {record}");
    }
    store.delete(0, b"key").expect("room");
    assert_eq!(store.read_bytes(0, b"key"), None);
}

#[test]
fn a_store_is_not_closed_in_good_order_while_a_sync_is_under_way() {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options()).expect("opens");
    store.put(0, b"k", b"v", 0).expect("room");
    let job = store.begin_sync().expect("there is something to sync");
    assert_eq!(store.close(), Err(WriteError::SyncUnderWay), "it can't say that all is durable");
    drop(job);
    disk.crash(1);
    let (_, recovery) = Store::open(disk, options()).expect("opens");
    assert!(!recovery.clean && recovery.damage.is_empty(), "{recovery:?}");
}
