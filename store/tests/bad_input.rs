//! Directories and files that are not as a store leaves them: named errors, and nothing touched that is not ours.

#[path = "common/watched.rs"]
mod watched;

use gramme_store::{
    DamageKind, Disk, DiskError, DiskErrorKind, FileDisk, MAX_KEY_BYTES, MAX_VALUE_BYTES, MemDisk, OpenError,
    Options, Read, SegmentId, Store, WriteError, verify,
};
use watched::{Op, Watched};

fn options(seed: u8) -> Options {
    Options::new([seed; 16]).with_segment_bytes(4096).with_index_files(false)
}

/// A disk that refuses every change, as read-only media and foreign directories do.
fn refusing(disk: &MemDisk, kind: DiskErrorKind) -> Watched<MemDisk> {
    Watched::new(disk.clone(), move |op| match op {
        Op::Open(_) | Op::Read(..) | Op::Close(_) => Ok(()),
        _ => Err(kind),
    })
}

fn filled(seed: u8) -> MemDisk {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options(seed)).expect("opens");
    for n in 0..60u32 {
        store.put(1, &n.to_le_bytes(), &[9; 150], u64::from(n)).expect("room");
    }
    store.sync().expect("syncs");
    drop(store);
    disk.kill();
    disk
}

fn files(disk: &MemDisk) -> Vec<(String, Vec<u8>)> {
    let names = disk.list().expect("lists");
    names.into_iter().map(|name| (name.clone(), disk.contents(&name).expect("there"))).collect()
}

#[test]
fn read_only_media_and_missing_permission_are_errors_in_words_and_can_be_verified() {
    for (kind, words) in [
        (DiskErrorKind::ReadOnly, "lock the directory: the medium is read-only"),
        (DiskErrorKind::PermissionDenied, "lock the directory: permission denied"),
    ] {
        let original = filled(1);
        let disk = refusing(&original, kind);
        let before = files(&original);
        match Store::open(disk.clone(), options(2)).map(|(_, recovery)| recovery) {
            Err(OpenError::Disk(error)) => {
                assert_eq!((error.kind(), error.to_string().as_str()), (kind, words));
            }
            other => panic!("{other:?}"),
        }
        let verified = verify(&disk, None).expect("reading is allowed");
        assert!(!verified.locked, "this disk locks nothing for readers");
        assert_eq!((verified.report.keys, verified.report.damage.len()), (60, 0));
        assert_eq!(files(&original), before);
    }
}

#[test]
fn a_directory_on_files_that_may_not_be_written_is_an_error_in_words() {
    let path = std::env::temp_dir().join(format!("gramme-store-{}-denied", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("room");
    // A directory where the lock's file should be: nobody, root included, can open that for writing.
    std::fs::create_dir(path.join("LOCK")).expect("room");
    let disk = FileDisk::open(&path).expect("a directory");
    let error = Store::open(disk, options(1)).map(|_| ()).expect_err("no lock");
    assert!(error.to_string().starts_with("lock the directory: "), "{error}");
    assert_eq!(std::fs::read_dir(&path).expect("listed").count(), 1, "nothing was made");
    let _ = std::fs::remove_dir_all(&path);
}

#[test]
fn verify_finds_no_store_in_an_empty_directory_and_makes_none() {
    let disk = MemDisk::new();
    assert_eq!(verify(&disk, None), Err(OpenError::NoStore));
    assert!(disk.list().expect("lists").is_empty());
}

#[test]
fn a_segment_of_a_newer_format_is_refused_in_words_and_nothing_is_touched() {
    let disk = filled(1);
    let name =
        disk.list().expect("lists").into_iter().find(|name| name.ends_with(".seg")).expect("a segment");
    let mut bytes = disk.contents(&name).expect("there");
    bytes[8] = 77;
    let sum = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&sum.to_le_bytes());
    disk.plant(&name, &bytes);
    let before = files(&disk);
    let error = Store::open(disk.clone(), options(2)).map(|_| ()).expect_err("newer");
    assert_eq!(error, OpenError::NewerFormat { found: 77, supported: 4 });
    assert_eq!(files(&disk), before);
}

#[test]
fn a_segment_cut_to_any_length_is_reported_and_never_read_wrong() {
    let disk = filled(1);
    let name =
        disk.list().expect("lists").into_iter().find(|name| name.ends_with(".seg")).expect("a segment");
    let whole = disk.contents(&name).expect("there");
    for len in (0..whole.len()).step_by(203) {
        let copy = disk.fork();
        copy.plant(&name, &whole[..len]);
        let (mut store, recovery) = Store::open(copy, options(2)).expect("opens");
        let lost = (0..60u32).filter(|n| match store.get(1, &n.to_le_bytes()) {
            Ok(Read::Value { value, tag, .. }) => {
                assert_eq!((value, tag), (vec![9; 150], u64::from(*n)));
                false
            }
            _ => true,
        });
        assert!(lost.count() == 0 || recovery.is_lossy(), "{len} bytes: {recovery:?}");
        if len < 64 {
            assert!(recovery.damage.iter().any(|damage| damage.kind == DamageKind::SegmentHeader));
        }
    }
}

#[test]
fn an_extra_segment_that_shows_no_record_is_cleared_away_whatever_its_number() {
    let disk = filled(1);
    let (name, bytes) = files(&disk).into_iter().find(|(name, _)| name.ends_with(".seg")).expect("a segment");
    // A number that was given and is not listed any more: what a merge left.
    let (mut store, _) = Store::open(disk.clone(), options(2)).expect("opens");
    store.put(1, b"new", b"value", 1).expect("room");
    store.close().expect("closes");
    disk.plant("0000000000000000.seg", &bytes);
    let (_, recovery) = Store::open(disk.clone(), options(3)).expect("opens");
    assert!(recovery.leftovers >= 1 && disk.contents("0000000000000000.seg").is_none());
    disk.kill();
    // Nor is one that the manifest has never heard of kept, without a record.
    let mut header = bytes[..64].to_vec();
    header[32..40].copy_from_slice(&0xff_u64.to_le_bytes());
    let sum = crc32fast::hash(&header[..60]);
    header[60..64].copy_from_slice(&sum.to_le_bytes());
    let newer = "00000000000000ff.seg";
    disk.plant(newer, &[header.as_slice(), &bytes[64..]].concat());
    // Its records are sealed to another number, so that none verifies. One with records is an error: `damage.rs` has it.
    assert!(Store::open(disk.clone(), options(4)).is_ok() && disk.contents(newer).is_none(), "{name}");
}

#[test]
fn files_with_names_of_a_store_s_but_no_manifest_are_not_taken_for_a_new_store_s() {
    for (name, bytes) in [
        ("CHAIN", &b"somebody's bicycle"[..]),
        ("CHAIN", b""),
        ("RESERVE", b"a wine list"),
        ("00000000000000ff.seg", b"an orange"),
        ("00000000000000ff.idx", b"an orange's index"),
    ] {
        let disk = MemDisk::new();
        disk.plant(name, bytes);
        let before = files(&disk);
        assert_eq!(
            Store::open(disk.clone(), options(1)).map(drop).err(),
            Some(OpenError::ManifestMissing),
            "{name}"
        );
        assert_eq!(verify(&disk, None).err(), Some(OpenError::ManifestMissing), "{name}");
        assert_eq!(files(&disk), before, "{name}");
        let (mut store, _) = Store::open(MemDisk::new(), options(2)).expect("opens");
        let snapshot = store.snapshot().expect("taken");
        let copied = snapshot.copy_to(&disk, |_| ()).map_err(|error| error.kind());
        assert_eq!((copied, files(&disk)), (Err(DiskErrorKind::AlreadyExists), before), "{name}");
    }
    // What the making of a store leaves when the power fails is a leftover.
    for half in [&b""[..], b"grammfst", &[0; 5000]] {
        let disk = MemDisk::new();
        disk.plant("MANIFEST.next", half);
        assert!(Store::open(disk, options(1)).expect("opens").1.created);
    }
}

#[test]
fn segments_and_index_files_that_are_not_this_store_s_are_never_removed() {
    let theirs = filled(9);
    let (name, whole) = files(&theirs).into_iter().find(|(name, _)| name.ends_with(".seg")).expect("one");
    let id = SegmentId(u64::from_str_radix(name.trim_end_matches(".seg"), 16).expect("digits"));
    // Another store's whole segment, whatever its number, by its own or by another.
    for number in [0, id.0, 0xff] {
        let disk = filled(1);
        if number == id.0 {
            // Ours has that number, too: then it is in the place of one that must be there.
            disk.remove(&name).expect("there");
        }
        disk.plant(&format!("{}.seg", SegmentId(number)), &whole);
        let before = files(&disk);
        let opened = Store::open(disk.clone(), options(2)).map(drop);
        assert_eq!(opened, Err(OpenError::SegmentForeign { segment: SegmentId(number) }));
        assert_eq!(verify(&disk, None).err(), Some(OpenError::SegmentForeign { segment: SegmentId(number) }));
        assert_eq!(files(&disk), before);
    }
    // What is no segment at all is left alone, and its number, if it is to come, to it.
    for number in [0, 6, 7, 8, 0xff, u64::MAX] {
        let disk = filled(1);
        let names = [format!("{}.seg", SegmentId(number)), format!("{}.idx", SegmentId(number))];
        names.iter().for_each(|name| disk.plant(name, b"an orange, which is no segment"));
        for seed in 2..10 {
            let (mut store, recovery) = Store::open(disk.clone(), options(seed)).expect("opens");
            assert!(!recovery.is_lossy());
            for n in 0..60u32 {
                store.put(1, &n.to_le_bytes(), &[seed; 150], 1).expect("room");
            }
            store.close().expect("closes");
            names.iter().for_each(|name| assert!(disk.contents(name).is_some(), "{name}"));
        }
    }
    // What a crash leaves of the making of a segment: any part of the header that it was to get, and zeros.
    let ours = files(&filled(1)).into_iter().find(|(name, _)| name.ends_with(".seg")).expect("one").1;
    for len in (0..64).step_by(7) {
        let disk = filled(1);
        let mut bytes = ours[..len].to_vec();
        if len > 32 {
            bytes[32] = 0xff;
        }
        bytes.resize(if len % 2 == 0 { len } else { 4096 }, 0);
        disk.plant("00000000000000ff.seg", &bytes);
        disk.plant("00000000000000ff.idx", &[0; 300]);
        assert!(Store::open(disk.clone(), options(2)).is_ok(), "{len} bytes");
        assert!(
            disk.contents("00000000000000ff.seg").is_none()
                && disk.contents("00000000000000ff.idx").is_none()
        );
    }
}

#[test]
fn of_two_manifest_copies_the_newer_counts() {
    let disk = filled(1);
    let old = disk.contents("MANIFEST").expect("there");
    let (mut store, _) = Store::open(disk.clone(), options(2)).expect("opens");
    store.put(1, b"new", b"value", 1).expect("room");
    store.sync().expect("syncs");
    drop(store);
    let new = disk.contents("MANIFEST").expect("there");
    assert_eq!(old.len(), new.len());
    let half = new.len() / 2;
    for mixed in [[&old[..half], &new[half..]].concat(), [&new[..half], &old[half..]].concat()] {
        let copy = disk.fork();
        copy.plant("MANIFEST", &mixed);
        let (mut store, recovery) = Store::open(copy, options(3)).expect("opens");
        assert!(!recovery.is_lossy());
        assert!(matches!(store.get(1, b"new"), Ok(Read::Value { .. })));
    }
}

#[test]
fn a_recycled_segment_with_whole_old_records_behind_its_tail_shows_none_of_them() {
    // The file system gives a new segment blocks that an old one had: with the records in them.
    let disk = filled(1);
    let (name, bytes) = files(&disk).into_iter().find(|(name, _)| name.ends_with(".seg")).expect("a segment");
    let fresh = MemDisk::new();
    let (mut store, _) = Store::open(fresh.clone(), options(7)).expect("opens");
    store.put(1, b"only", b"value", 5).expect("room");
    store.sync().expect("syncs");
    let tail = 64 + usize::try_from(store.stats().log_bytes).expect("small");
    drop(store);
    fresh.kill();
    let mut recycled = fresh.contents(&name).expect("the first segment has the same name");
    let len = recycled.len();
    recycled[tail..].copy_from_slice(&bytes[tail..len]);
    fresh.plant(&name, &recycled);
    let (mut store, recovery) = Store::open(fresh, options(8)).expect("opens");
    assert_eq!((store.len(), recovery.is_lossy()), (1, false), "{recovery:?}");
    assert!(matches!(store.get(1, b"only"), Ok(Read::Value { tag: 5, .. })));
}

#[test]
fn every_refusal_says_what_was_left_alone() {
    let disk = DiskError::new(DiskErrorKind::PermissionDenied, "lock the directory");
    let segment = SegmentId(5);
    for error in [
        OpenError::Disk(disk),
        OpenError::NewerFormat { found: 3, supported: 2 },
        OpenError::NoStore,
        OpenError::ManifestMissing,
        OpenError::ManifestDamaged,
        OpenError::ManifestStale { segment },
        OpenError::SegmentMissing { segment },
        OpenError::SegmentForeign { segment },
        OpenError::HashKey { segment },
        OpenError::NumbersExhausted,
        OpenError::Options("segments are too small"),
    ] {
        let words = error.to_string();
        assert!(words.contains("; nothing "), "{words}");
    }
    let (mut store, _) = Store::open(MemDisk::new(), options(1)).expect("opens");
    for (outcome, words) in [
        (store.put(0, b"", b"v", 0), "a key of 0 bytes, not 1 to 65600; nothing was changed"),
        (
            store.delete(0, &vec![0; MAX_KEY_BYTES + 1]),
            "a key of 65601 bytes, not 1 to 65600; nothing was changed",
        ),
        (
            store.put(0, b"k", &vec![0; MAX_VALUE_BYTES + 1], 0),
            "a value of 67108865 bytes, not up to 67108864; nothing was changed",
        ),
    ] {
        assert_eq!(outcome.map_err(|error: WriteError| error.to_string()), Err(words.to_owned()));
    }
}

#[test]
fn a_damaged_or_missing_file_is_named_in_the_error() {
    let original = filled(1);
    let name = original.list().expect("lists").into_iter().find(|name| name.ends_with(".seg")).expect("one");
    let digits = name.trim_end_matches(".seg");
    let disk = original.fork();
    disk.remove(&name).expect("there");
    let missing = Store::open(disk, options(2)).map(drop).expect_err("missing").to_string();
    // Another store's whole segment in its place.
    let disk = original.fork();
    disk.plant(&name, &filled(9).contents(&name).expect("the first segment has the same name"));
    let foreign = Store::open(disk, options(2)).map(drop).expect_err("foreign").to_string();
    assert!(missing.contains(digits) && foreign.contains(digits), "{missing} {foreign}");
}

#[cfg(unix)]
#[test]
fn directories_and_links_to_nowhere_are_passed_over_where_they_have_a_segment_s_name() {
    let path = std::env::temp_dir().join(format!("gramme-store-{}-no-file", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    let open = || Store::open(FileDisk::open(&path).expect("a directory"), options(1));
    let (mut store, _) = open().expect("opens");
    store.put(1, b"key", b"v", 0).expect("room");
    store.close().expect("closes");
    let in_the_way =
        ["00000000000000f0.seg", "00000000000000f1.idx", "00000000000000f2.seg"].map(|n| path.join(n));
    std::fs::create_dir(&in_the_way[0]).expect("room");
    std::fs::create_dir(&in_the_way[1]).expect("room");
    std::os::unix::fs::symlink("/nowhere/at/all", &in_the_way[2]).expect("room");
    let (mut store, recovery) = open().expect("opens");
    assert!(!recovery.is_lossy(), "{recovery:?}");
    for n in 0..60u32 {
        store.put(1, &n.to_le_bytes(), &[9; 150], 0).expect("room");
    }
    store.close().expect("closes");
    assert!(path.join("00000000000000f3.seg").exists(), "the next number");
    assert!(in_the_way.iter().all(|name| name.symlink_metadata().is_ok()), "they are nobody's to remove");
    // What has to go is an error that says so.
    std::fs::create_dir(path.join("MANIFEST.next")).expect("room");
    let error = open().map(drop).expect_err("it can't be removed");
    assert!(error.to_string().contains("MANIFEST.next"), "{error}");
    let _ = std::fs::remove_dir_all(&path);
}
