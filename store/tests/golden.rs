//! The format is frozen: stores written by earlier versions must stay readable.
//!
//! `GRAMME_STORE_WRITE_GOLDEN=1 cargo test -p gramme-store --test golden` writes the newest version's files if there are none, and the
//! writer's anew; a change of these without a new version of the format is a mistake.

use gramme_store::{DamageKind, Disk, MemDisk, Options, Read, ReadError, Recovery, Store, verify};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The format that is written now.
const NEWEST: &str = "v4";
/// What the writer makes of a fixed sequence, in that format.
const WRITER: &str = "v4-writer";

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
    store.put_shrinking(6, b"shrinks", b"this stays, this may go", 6, 1000, 10).expect("room");
    store.sync().expect("syncs");
    // A power cut leaves a torn range between two records.
    store.put(0, b"torn", &[2; 600], 1).expect("room");
    store.put(0, b"last", b"unsynced", 9).expect("room");
    let torn = (0..1000).map(|seed| disk.crash_image(seed)).find(|image| {
        Store::open(image.fork(), options()).is_ok_and(|(store, recovery)| {
            !recovery.torn.is_empty() && recovery.index_files > 0 && store.tag(0, b"last").is_some()
        })
    });
    drop(store);
    let disk = torn.expect("one of them is torn in between");
    let (mut store, _) = Store::open(disk.clone(), options()).expect("opens");
    store.put(0, b"in an unsealed segment", b"yes", 3).expect("room");
    store.sync().expect("syncs");
    drop(store);
    disk
}

/// What is written by a fixed sequence that leaves the store no choice: compaction's would change the files without
/// any change of the format.
fn write_plainly() -> MemDisk {
    let disk = MemDisk::new();
    let options = options().with_tree_key([0x24; 16]);
    let (mut store, _) = Store::open(disk.clone(), options).expect("opens");
    for n in 0..40u16 {
        let value = vec![n.to_be_bytes()[1]; usize::from(n) * 9];
        store.put(n % 5, &n.to_be_bytes(), &value, u64::from(n) << n).expect("room");
        if n % 10 == 9 {
            store.sync().expect("syncs");
        }
    }
    store.put_expiring(5, b"expires", b"at 1000", 5, 1000).expect("room");
    store.put_shrinking(6, b"shrinks", b"this stays, this may go", 6, 1000, 10).expect("room");
    store.delete(0, &5u16.to_be_bytes()).expect("room");
    store.drop_slot(4).expect("room");
    store.put(16_383, &[7; 3000], b"a long key", u64::MAX).expect("room");
    store.close().expect("closes");
    disk
}

/// The bytes of each file, but for the zeros that were reserved, which say nothing.
fn used_bytes(disk: &MemDisk) -> BTreeMap<String, Vec<u8>> {
    let names = disk.list().expect("lists").into_iter().filter(|name| name != "RESERVE");
    let used = |name: String| {
        let mut bytes = disk.contents(&name).expect("there");
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        // An index file has no room reserved, and may end with zeros.
        if !name.ends_with(".idx") {
            bytes.truncate(end.next_multiple_of(8));
        }
        (name, bytes)
    };
    names.map(used).collect()
}

fn written(version: &str) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(directory(version)).expect("the golden files");
    let read = |file: std::fs::DirEntry| {
        let name = file.file_name().into_string().expect("our own names");
        (name, std::fs::read(file.path()).expect("readable"))
    };
    files.map(|file| read(file.expect("a file"))).collect()
}

fn write_golden(version: &str, disk: &MemDisk) {
    std::fs::create_dir_all(directory(version)).expect("a directory");
    for (name, bytes) in used_bytes(disk) {
        std::fs::write(directory(version).join(name), bytes).expect("written");
    }
}

#[test]
fn the_writer_writes_what_it_wrote_byte_for_byte() {
    let disk = write_plainly();
    if std::env::var_os("GRAMME_STORE_WRITE_GOLDEN").is_some() {
        write_golden(WRITER, &disk);
    }
    let (found, golden) = (used_bytes(&disk), written(WRITER));
    assert!(found.keys().eq(golden.keys()), "{:?}, not {:?}", found.keys(), golden.keys());
    for (name, bytes) in &golden {
        let differs = bytes.iter().zip(&found[name]).position(|(old, new)| old != new);
        assert!(found[name] == *bytes, "{name} differs from byte {differs:?} on");
    }
    for ending in [".seg", ".idx", "CHAIN", "MANIFEST"] {
        assert!(golden.keys().any(|name| name.ends_with(ending)), "{ending}");
    }
}

#[test]
fn stores_of_every_version_stay_readable() {
    if std::env::var_os("GRAMME_STORE_WRITE_GOLDEN").is_some() && !directory(NEWEST).exists() {
        write_golden(NEWEST, &write());
    }
    for (number, version) in (1..).zip(["v1", "v2", "v3", NEWEST]) {
        read(version, number);
    }
}

#[test]
fn index_files_of_the_version_before_are_believed() {
    for version in ["v3-writer", WRITER] {
        let disk = planted(version);
        for name in disk.list().expect("lists").into_iter().filter(|name| name.ends_with(".idx")) {
            // Version 3's are kept without the zeros that they end with.
            let whole = [disk.contents(&name).expect("there"), vec![0; 8]].concat();
            disk.plant(&name, &whole);
        }
        let (mut store, recovery) = Store::open(disk, options().with_tree_key([0x24; 16])).expect("opens");
        assert!(recovery.clean && recovery.damage.is_empty(), "{version}: {recovery:?}");
        assert_eq!((recovery.index_files, recovery.bad_index_files), (2, 0), "{version}");
        for n in 0..40u16 {
            let found = store.tag(n % 5, &n.to_be_bytes());
            assert_eq!(found.is_none(), n == 5 || n % 5 == 4, "{version}: {n}");
            assert_eq!(found.unwrap_or(u64::from(n) << n), u64::from(n) << n, "{version}: {n}");
        }
        store.set_time(999);
        assert!(matches!(store.get(5, b"expires"), Ok(Read::Value { tag: 5, .. })), "{version}");
    }
}

/// A disk with the files of a version.
fn planted(version: &str) -> MemDisk {
    let disk = MemDisk::new();
    // The files are kept without the room that was reserved in them.
    disk.reserve_room(false);
    for entry in std::fs::read_dir(directory(version)).expect("the golden files") {
        let entry = entry.expect("a file");
        let bytes = std::fs::read(entry.path()).expect("readable");
        disk.plant(&entry.file_name().into_string().expect("our own names"), &bytes);
    }
    disk
}

fn read(version: &str, number: u32) {
    let disk = planted(version);
    let verified = verify(&disk, None).expect("sound");
    let mut report = verified.report;
    // The mark of a lost record, and nothing else.
    let kinds = |report: &Recovery| report.damage.iter().map(|damage| damage.kind).collect::<Vec<_>>();
    let is_mark =
        |kinds: Vec<DamageKind>| matches!(kinds[..], [DamageKind::Record { slot: 3, position: Some(_) }]);
    assert!(is_mark(kinds(&report)) && report.torn.is_empty(), "{report:?}");
    assert_eq!(report.leftovers, 0);
    // Version 2's are passed over: their segments are read.
    let index_files = number > 2;
    assert_eq!(report.keys, [24, 25, 25, 26][number as usize - 1]);
    let (mut store, recovery) = Store::open(disk.clone(), options()).expect("opens");
    assert_eq!((recovery.index_files > 0, report.index_files > 0), (index_files, index_files));
    report.bytes = recovery.bytes; // Index files are shorter.
    assert_eq!(recovery, report, "what is verified is what is opened");
    check(&mut store, number);
    // And it goes on in the newest format: what was sealed before there was a chain is taken into it.
    for _ in 0..20 {
        store.maintain(1 << 20).expect("maintains");
        store.sync().expect("syncs");
    }
    store.close().expect("closes");
    let upgraded = verify(&disk, None).expect("sound");
    assert!(is_mark(kinds(&upgraded.report)) && upgraded.sealed_segments > 0, "{upgraded:?}");
    check(&mut Store::open(disk, options()).expect("opens").0, number);
}

fn check(store: &mut Store<MemDisk>, version: u32) {
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
    if version > 1 {
        assert!(matches!(store.get(5, b"expires"), Ok(Read::Value { expires: Some(1000), tag: 5, .. })));
    }
    if version > 3 {
        let found = store.get_with(6, b"shrinks", |found| (found.bytes.to_vec(), found.tag, found.expires));
        assert_eq!(found, Ok(Some((b"this stays, this may go".to_vec(), 6, None))));
    }
}
