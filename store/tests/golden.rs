//! The format is frozen: stores written by earlier versions must stay readable.
//!
//! `GRAMME_STORE_WRITE_GOLDEN=1 cargo test -p gramme-store --test golden` writes the newest version's files anew; a change of
//! them without a new version of the format is a mistake.

use gramme_store::{Disk, MemDisk, Options, Read, ReadError, Store, verify};
use std::path::{Path, PathBuf};

/// The format that is written now.
const NEWEST: &str = "v3";

fn directory(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version)
}

fn options() -> Options {
    Options::new([0x42; 16]).with_segment_bytes(4096)
}

/// A store with every kind of segment and record in it.
fn write() -> MemDisk {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options()).expect("opens");
    for n in 0..20u16 {
        store.put(n % 3, &n.to_be_bytes(), &vec![n.to_be_bytes()[1]; usize::from(n) * 20], 7).expect("room");
    }
    for n in 0..20u16 {
        store.put(n % 3, &n.to_be_bytes(), format!("value {n}").as_bytes(), u64::from(n)).expect("room");
    }
    store.put(3, b"damaged", &[0xdd; 40], 1).expect("room");
    store.put(4, b"dropped", b"", 1).expect("room");
    store.sync().expect("syncs");
    store.delete(0, &0u16.to_be_bytes()).expect("room");
    store.drop_slot(4).expect("room");
    store.put(16_383, b"empty value", b"", u64::MAX).expect("room");
    store.put(0, b"rolls the segment", &[1; 4000], 1).expect("room");
    store.sync().expect("syncs");
    // Compaction meets a damaged record.
    let (name, at) = disk
        .list()
        .expect("lists")
        .into_iter()
        .find_map(|name| {
            let bytes = disk.contents(&name)?;
            Some((name, bytes.windows(40).position(|window| window == [0xdd; 40])?))
        })
        .expect("it is on the disk");
    assert!(disk.flip_bit(&name, at as u64 * 8));
    loop {
        let done = store.maintain(1 << 20).expect("maintains");
        store.sync().expect("syncs");
        if !done.more && !done.needs_sync {
            break;
        }
    }
    store.put_expiring(5, b"expires", b"at 1000", 5, 1000).expect("room");
    store.sync().expect("syncs");
    // A power cut leaves a torn range between two records.
    store.put(0, b"torn", &[2; 600], 1).expect("room");
    store.put(0, b"last", b"unsynced", 9).expect("room");
    let torn = (0..1000).map(|seed| disk.crash_image(seed)).find(|image| {
        Store::open(image.fork(), options())
            .is_ok_and(|(store, recovery)| !recovery.torn.is_empty() && store.tag(0, b"last").is_some())
    });
    drop(store);
    let disk = torn.expect("one of them is torn in between");
    let (mut store, _) = Store::open(disk.clone(), options()).expect("opens");
    store.put(0, b"in an unsealed segment", b"yes", 3).expect("room");
    store.sync().expect("syncs");
    drop(store);
    disk
}

#[test]
fn stores_of_every_version_stay_readable() {
    if std::env::var_os("GRAMME_STORE_WRITE_GOLDEN").is_some() {
        let disk = write();
        std::fs::create_dir_all(directory(NEWEST)).expect("a directory");
        for name in disk.list().expect("lists").iter().filter(|name| *name != "RESERVE") {
            let mut bytes = disk.contents(name).expect("there");
            // Zeros that were reserved say nothing.
            bytes.truncate(
                bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1).next_multiple_of(8),
            );
            std::fs::write(directory(NEWEST).join(name), bytes).expect("written");
        }
    }
    for version in ["v1", "v2", NEWEST] {
        read(version);
    }
}

fn read(version: &str) {
    let disk = MemDisk::new();
    for entry in std::fs::read_dir(directory(version)).expect("the golden files") {
        let entry = entry.expect("a file");
        let bytes = std::fs::read(entry.path()).expect("readable");
        disk.plant(&entry.file_name().into_string().expect("our own names"), &bytes);
    }
    let verified = verify(&disk, None).expect("sound");
    let mut report = verified.report;
    assert!(report.damage.is_empty() && report.torn.is_empty(), "{report:?}");
    assert_eq!(report.leftovers, 0);
    let is_old = version == "v1";
    // Version 2's are passed over: their segments are read.
    let index_files = version == NEWEST;
    assert_eq!(report.keys, if is_old { 24 } else { 25 });
    let (mut store, recovery) = Store::open(disk.clone(), options()).expect("opens");
    assert_eq!((recovery.index_files > 0, report.index_files > 0), (index_files, index_files));
    report.bytes = recovery.bytes; // Index files are shorter.
    assert_eq!(recovery, report, "what is verified is what is opened");
    check(&mut store, is_old);
    // And it goes on in the newest format: what was sealed before there was a chain is taken into it.
    for _ in 0..20 {
        store.maintain(1 << 20).expect("maintains");
        store.sync().expect("syncs");
    }
    store.close().expect("closes");
    let upgraded = verify(&disk, None).expect("sound");
    assert!(upgraded.report.damage.is_empty() && upgraded.sealed_segments > 0);
    check(&mut Store::open(disk, options()).expect("opens").0, is_old);
}

fn check(store: &mut Store<MemDisk>, is_old: bool) {
    for n in 0..20u16 {
        match store.get(n % 3, &n.to_be_bytes()).expect("whole") {
            Read::Absent => assert_eq!(n, 0),
            Read::Value { value, tag, .. } => {
                assert_eq!((value, tag), (format!("value {n}").into_bytes(), u64::from(n)));
            }
            Read::Pending(_) => panic!("reads are inline here"),
        }
    }
    assert!(matches!(store.get(3, b"damaged"), Err(ReadError::Damaged { .. })), "the mark of a lost record");
    assert!(matches!(store.get(4, b"dropped"), Ok(Read::Absent)));
    assert_eq!(store.tag(16_383, b"empty value"), Some(u64::MAX));
    assert_eq!(store.tag(0, b"last"), Some(9), "behind a torn range");
    assert_eq!(store.tag(0, b"torn"), None);
    assert_eq!(store.tag(0, b"in an unsealed segment"), Some(3));
    if !is_old {
        assert!(matches!(store.get(5, b"expires"), Ok(Read::Value { expires: Some(1000), tag: 5, .. })));
    }
}
