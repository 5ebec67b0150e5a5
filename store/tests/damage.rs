//! Damaged disks: what is reported, what is lost, and that nothing wrong is ever read.
//!
//! `GRAMME_STORE_FLIPS=n` sets the number of flipped bits that are tried.

use gramme_store::{
    Cursor, DamageKind, Disk, MemDisk, OpenError, Options, Read, ReadError, Reads, Recovery, SharedStore,
    Store, WriteError, verify,
};

/// Every record is read at an opening: what is damaged is to be found there. `tests/index_files.rs` looks at the others.
fn options(seed: u8) -> Options {
    Options::new([seed; 16]).with_segment_bytes(4096).with_index_files(false)
}

fn key(n: u32) -> Vec<u8> {
    format!("key {n}").into_bytes()
}

fn value(n: u32, round: u32) -> Vec<u8> {
    let mut value = vec![n.to_le_bytes()[0] ^ 0x5a; 20 + (n as usize * 37) % 200];
    value[..4].copy_from_slice(&n.to_le_bytes());
    value[4..8].copy_from_slice(&round.to_le_bytes());
    value
}

const KEYS: u32 = 60;

fn slot(n: u32) -> u16 {
    u16::try_from(n % 5).expect("below five")
}

fn place(at: u64) -> usize {
    usize::try_from(at).expect("in memory")
}

/// Three segments and more, all synced, every key but each seventh there; killed, not closed.
fn prepared() -> MemDisk {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    for round in 0..2 {
        for n in 0..KEYS {
            store.put(slot(n), &key(n), &value(n, round), u64::from(round)).expect("room");
        }
        store.sync().expect("syncs");
    }
    for n in (0..KEYS).step_by(7) {
        store.delete(slot(n), &key(n)).expect("room");
    }
    store.sync().expect("syncs");
    // Reserved room is given back: what is left of the files is data, but for the active one's.
    loop {
        let done = store.maintain(1 << 20).expect("maintains");
        store.sync().expect("syncs");
        if !done.more && !done.needs_sync {
            break;
        }
    }
    drop(store);
    disk.kill();
    disk
}

/// Keys whose reads fail; panics if one shows anything else than its last value.
fn unreadable(store: &mut Store<MemDisk>) -> Vec<u32> {
    let mut unreadable = Vec::new();
    for n in 0..KEYS {
        match store.get(slot(n), &key(n)) {
            Ok(Read::Value { value: found, tag, .. }) => {
                assert!(n % 7 != 0, "key {n} was deleted");
                assert_eq!((found, tag), (value(n, 1), 1), "key {n}");
            }
            Ok(Read::Absent) => assert!(n % 7 == 0, "key {n} is not absent"),
            Ok(Read::Pending(_)) => panic!("reads are inline here"),
            Err(ReadError::Damaged { .. }) => unreadable.push(n),
            Err(error) => panic!("{error}"),
        }
    }
    unreadable
}

fn files(disk: &MemDisk) -> Vec<(String, u64)> {
    let mut names = disk.list().expect("lists");
    names.retain(|name| name != "RESERVE"); // It holds room, not data.
    names
        .into_iter()
        .map(|name| (name.clone(), disk.contents(&name).expect("there").len() as u64 * 8))
        .collect()
}

fn trials() -> u64 {
    std::env::var("GRAMME_STORE_FLIPS").ok().and_then(|text| text.parse().ok()).unwrap_or(1000)
}

#[test]
fn one_flipped_bit_is_reported_and_costs_one_record_at_most() {
    let original = prepared();
    let files = files(&original);
    assert!(files.len() > 4, "segments and a manifest: {files:?}");
    let all: u64 = files.iter().map(|(_, bits)| bits).sum();
    let (mut lost, mut mended) = (0, 0);
    for trial in 0..trials() {
        let mut bit = (trial.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) % all;
        let (name, _) = files
            .iter()
            .find(|(_, bits)| {
                let here = bit < *bits;
                bit -= if here { 0 } else { *bits };
                here
            })
            .expect("a bit of some file");
        let disk = original.fork();
        assert!(disk.flip_bit(name, bit));
        let (mut store, recovery) = Store::open(disk.clone(), options(2)).expect("opens");
        let mut reported = recovery.damage.len() + recovery.torn.len();
        if name == "CHAIN" {
            // An opening looks at the chain's end alone.
            reported += verify(&disk.fork(), None).expect("a store").report.damage.len();
        }
        assert!(reported >= 1, "trial {trial}: bit {bit} of {name}");
        let unreadable = unreadable(&mut store);
        assert!(unreadable.len() <= 1, "trial {trial}: {unreadable:?}");
        for n in &unreadable {
            assert!(recovery.is_lossy() && recovery.affects(slot(*n)));
            lost += 1;
        }
        mended += usize::from(
            recovery.damage.iter().any(|damage| matches!(damage.kind, DamageKind::Mended { .. })),
        );
        // A second opening finds the same, and the store goes on being written to.
        for n in &unreadable {
            store.put(slot(*n), &key(*n), &value(*n, 1), 1).expect("a repair");
        }
        drop(store);
        let (mut store, again) = Store::open(disk, options(3)).expect("opens again");
        assert_eq!(again.is_lossy(), recovery.is_lossy());
        assert_eq!(self::unreadable(&mut store), Vec::<u32>::new(), "repaired");
    }
    assert!(lost > 100 && mended > 100, "both kinds were met: {lost} lost, {mended} mended");
}

/// The place of a record in a segment, by a piece of its value.
fn find(disk: &MemDisk, needle: &[u8]) -> (String, u64) {
    for name in disk.list().expect("lists") {
        let contents = disk.contents(&name).expect("there");
        if let Some(at) = contents.windows(needle.len()).rposition(|window| window == needle) {
            return (name, at as u64);
        }
    }
    panic!("no such bytes on the disk");
}

fn overwrite(disk: &MemDisk, name: &str, at: u64, bytes: &[u8]) {
    let mut contents = disk.contents(name).expect("there");
    contents[place(at)..place(at) + bytes.len()].copy_from_slice(bytes);
    disk.plant(name, &contents);
}

#[test]
fn a_damaged_value_is_unknown_not_absent_and_can_be_put_again() {
    let disk = prepared();
    let (name, at) = find(&disk, &value(8, 1));
    overwrite(&disk, &name, at + 8, b"XXXX");
    let (mut store, recovery) = Store::open(disk.clone(), options(2)).expect("opens");
    assert!(
        matches!(recovery.damage[..], [ref one] if matches!(one.kind, DamageKind::Record { slot: 3, position: Some(_) }))
    );
    assert!(recovery.affects(3) && !recovery.affects(4), "the header tells the slot");
    assert_eq!(unreadable(&mut store), [8]);
    let page = store.list(3, Cursor::START, 100).expect("lists on");
    // The key itself is whole: only its value is not.
    assert_eq!((page.keys.len(), page.unreadable), (11, 0));
    assert_eq!(store.tag(3, &key(8)), Some(1));
    store.put(3, &key(8), &value(8, 1), 1).expect("healed from a replica");
    assert_eq!(unreadable(&mut store), []);
}

#[test]
fn a_destroyed_record_is_reported_and_the_ones_around_it_are_read() {
    let disk = prepared();
    let (name, at) = find(&disk, &value(9, 1));
    // Header, key and value: nothing is left to say whose it was.
    overwrite(&disk, &name, at - 40, &[0xee; 60]);
    let (mut store, recovery) = Store::open(disk, options(2)).expect("opens");
    assert!(matches!(recovery.damage[..], [ref one] if one.kind == DamageKind::Unknown), "{recovery:?}");
    assert!((0..5).all(|slot| recovery.affects(slot)), "any slot may be affected");
    for n in [7, 9, KEYS] {
        assert_eq!(store.get(slot(n), &key(n)).err(), Some(ReadError::Unknown), "what it was is not known");
        assert_eq!(store.get_with(slot(n), &key(n), |_| ()), Err(ReadError::Unknown));
    }
    for n in (0..KEYS).filter(|n| *n != 9 && n % 7 != 0) {
        assert!(matches!(store.get(slot(n), &key(n)), Ok(Read::Value { tag: 1, .. })), "key {n}");
    }
    // What has expired may have been put again, and lost.
    store.put_expiring(0, b"brief", b"value", 0, 5).expect("room");
    store.set_time(5);
    assert_eq!(store.get(0, b"brief").err(), Some(ReadError::Unknown));
    store.accept_losses();
    for n in [7, 9, KEYS] {
        assert!(matches!(store.get(slot(n), &key(n)), Ok(Read::Absent)), "the caller says so");
        assert_eq!(store.get_with(slot(n), &key(n), |_| ()), Ok(None));
    }
    assert!(matches!(store.get(0, b"brief"), Ok(Read::Absent)));
}

#[test]
fn many_threads_are_told_of_the_unknown_too() {
    for reads in [Reads::Inline, Reads::Jobs] {
        let disk = prepared();
        let (name, at) = find(&disk, &value(9, 1));
        overwrite(&disk, &name, at - 40, &[0xee; 60]);
        let (store, _) = SharedStore::open(disk, options(2).with_reads(reads)).expect("opens");
        store.put_expiring(0, b"brief", b"value", 0, 5).expect("room");
        store.set_time(5);
        for (slot, key) in [(slot(9), &key(9)[..]), (0, b"brief")] {
            assert_eq!(store.get(slot, key), Err(ReadError::Unknown));
            assert_eq!(store.get_with(slot, key, |_| ()), Err(ReadError::Unknown));
        }
        store.accept_losses();
        for (slot, key) in [(slot(9), &key(9)[..]), (0, b"brief")] {
            assert_eq!(store.get(slot, key), Ok(None));
            assert_eq!(store.get_with(slot, key, |_| ()), Ok(None));
        }
    }
}

#[test]
fn a_corrupt_record_does_not_crash_loop() {
    // bitcask #212: one path skipped the checksum, and each restart fell over the same record.
    let disk = prepared();
    let (name, at) = find(&disk, &value(10, 1));
    overwrite(&disk, &name, at, &[0xff; 16]);
    let mut reports: Vec<Recovery> = Vec::new();
    for seed in 2..6 {
        let (mut store, recovery) = Store::open(disk.clone(), options(seed)).expect("opens each time");
        assert_eq!(unreadable(&mut store), [10]);
        reports.push(recovery);
    }
    assert!(reports.iter().all(|report| report.damage == reports[0].damage), "and says the same each time");
}

#[test]
fn a_record_in_the_wrong_place_is_not_believed() {
    let disk = prepared();
    // A misdirected write: one record's bytes land on another record of the same length, in the next segment even.
    let source = value(11, 1);
    let (name, at) = find(&disk, &source);
    let contents = disk.contents(&name).expect("there");
    let start = place(at) - 40 - key(11).len();
    let len = (40 + key(11).len() + source.len()).next_multiple_of(8);
    let record = contents[start..start + len].to_vec();
    let (other, other_at) = find(&disk, &value(30, 1));
    overwrite(&disk, &other, other_at - 40 - key(30).len() as u64, &record);
    let (mut store, recovery) = Store::open(disk, options(2)).expect("opens");
    assert!(recovery.is_lossy());
    match store.get(0, &key(30)) {
        Err(ReadError::Damaged { .. } | ReadError::Unknown) => {}
        // Its header is gone with it: then the older value, and a report that says that any slot is affected.
        Ok(Read::Value { .. }) => assert!(recovery.affects(0)),
        Ok(other) => panic!("{other:?}"),
        Err(error) => panic!("{error}"),
    }
    assert!(matches!(store.get(1, &key(11)), Ok(Read::Value { tag: 1, .. })));
}

#[test]
fn a_vanished_segment_is_a_hard_error_and_nothing_is_touched() {
    let disk = prepared();
    let before = files(&disk);
    let (segment, _) = before.iter().find(|(name, _)| name.ends_with(".seg")).expect("a segment");
    disk.remove(segment).expect("removed");
    match Store::open(disk.clone(), options(2)) {
        Err(OpenError::SegmentMissing { segment: missing }) => {
            assert!(segment.starts_with(&missing.to_string()))
        }
        other => panic!("{:?}", other.map(|(_, recovery)| recovery)),
    }
    assert_eq!(files(&disk).len(), before.len() - 1);
}

#[test]
fn a_vanished_manifest_is_a_hard_error() {
    let disk = prepared();
    disk.remove("MANIFEST").expect("removed");
    assert!(matches!(Store::open(disk, options(2)), Err(OpenError::ManifestMissing)));
}

#[test]
fn a_manifest_damaged_in_both_copies_is_a_hard_error() {
    let disk = prepared();
    assert!(disk.flip_bit("MANIFEST", 300));
    assert!(disk.flip_bit("MANIFEST", 4096 * 8 + 300));
    assert!(matches!(Store::open(disk, options(2)), Err(OpenError::ManifestDamaged)));
}

#[test]
fn an_old_manifest_is_a_hard_error() {
    let disk = prepared();
    let old = disk.contents("MANIFEST").expect("there");
    let (mut store, _) = Store::open(disk.clone(), options(2)).expect("opens");
    store.put(0, b"new", b"acknowledged", 0).expect("room");
    store.sync().expect("syncs");
    drop(store);
    disk.plant("MANIFEST", &old);
    assert!(matches!(Store::open(disk, options(3)), Err(OpenError::ManifestStale { .. })));
}

#[test]
fn another_stores_segment_is_a_hard_error() {
    let disk = prepared();
    let stranger = MemDisk::new();
    let (mut store, _) = Store::open(stranger.clone(), options(9)).expect("opens");
    store.put(0, b"strange", b"value", 0).expect("room");
    drop(store);
    let files = files(&disk);
    let (own, _) = files.iter().find(|(name, _)| name.ends_with(".seg")).expect("a segment");
    disk.plant(own, &stranger.contents("0000000000000001.seg").expect("there"));
    assert!(matches!(Store::open(disk, options(2)), Err(OpenError::SegmentForeign { .. })));
}

#[test]
fn a_newer_format_is_refused_in_words() {
    let disk = prepared();
    // The second field of the manifest, with the checksum made right as a newer version would.
    let mut bytes = disk.contents("MANIFEST").expect("there");
    let half = bytes.len() / 2;
    bytes.truncate(half);
    bytes[8] = 99;
    let sum = crc32fast::hash(&bytes[..half - 4]);
    bytes[half - 4..].copy_from_slice(&sum.to_le_bytes());
    let twice = [bytes.clone(), bytes].concat();
    disk.plant("MANIFEST", &twice);
    match Store::open(disk, options(2)) {
        Err(error @ OpenError::NewerFormat { found: 99, supported: 4 }) => assert_eq!(
            error.to_string(),
            "the store has format 99, this program reads up to 4; nothing was touched"
        ),
        other => panic!("{:?}", other.map(|(_, recovery)| recovery)),
    }
}

#[test]
fn a_cut_off_segment_is_damage_and_the_rest_is_read() {
    let disk = prepared();
    let (name, at) = find(&disk, &value(30, 1));
    let mut contents = disk.contents(&name).expect("there");
    contents.truncate(place(at));
    disk.plant(&name, &contents);
    for seed in 2..4 {
        let (mut store, recovery) = Store::open(disk.clone(), options(seed)).expect("opens");
        assert!(recovery.is_lossy(), "{recovery:?}");
        let there =
            (0..KEYS).filter(|n| matches!(store.get(slot(*n), &key(*n)), Ok(Read::Value { tag: 1, .. })));
        assert!(there.count() > 10, "what stands before the cut and in other segments");
    }
}

#[test]
fn files_of_others_are_left_alone() {
    let disk = prepared();
    disk.plant("notes.txt", b"mine");
    disk.plant("0001.seg", b"not our spelling");
    let (mut store, recovery) = Store::open(disk.clone(), options(2)).expect("opens");
    assert_eq!(recovery.leftovers, 0);
    assert_eq!(unreadable(&mut store), []);
    assert_eq!(disk.contents("notes.txt").as_deref(), Some(b"mine".as_slice()));
    assert_eq!(disk.contents("0001.seg").as_deref(), Some(b"not our spelling".as_slice()));
}

#[test]
fn a_lying_sync_is_found_out_by_its_watermark() {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    disk.lie_about_syncs(true);
    store.put(0, b"key", &[1; 2000], 0).expect("room");
    store.sync().expect("it says");
    disk.lie_about_syncs(false);
    let mut found_out = 0;
    for seed in 0..200 {
        let (mut store, recovery) =
            Store::open(disk.crash_image(seed), options(2)).expect("opens whatever is lost");
        let there = matches!(store.get(0, b"key"), Ok(Read::Value { .. }));
        // Either all of it was lost, the watermark too, or the loss is reported.
        found_out += u64::from(!there && recovery.is_lossy());
    }
    assert!(found_out > 20, "{found_out} of 200");
}

#[test]
fn a_write_error_stops_writing() {
    let disk = prepared();
    let (mut store, _) = Store::open(disk.clone(), options(2)).expect("opens");
    disk.fail_next_writes(1);
    assert!(matches!(store.put(0, b"k", b"v", 0), Err(WriteError::Disk(_))));
    assert!(!store.writable());
    assert_eq!(unreadable(&mut store), []);
}

#[test]
fn trailing_junk_costs_nothing_and_shows_nothing() {
    // Behind every kind of file: zeros, noise, and whole records of the same segment from before it.
    for is_closed in [false, true] {
        let disk = prepared();
        if is_closed {
            let (store, _) = Store::open(disk.clone(), options(2).with_index_files(true)).expect("opens");
            store.close().expect("closes");
        }
        for (name, _) in files(&disk) {
            let whole = disk.contents(&name).expect("there");
            // An unsealed segment has room behind its records.
            let used =
                whole.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1).next_multiple_of(8);
            let noise: Vec<u8> = (0..1000u32).map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()[3]).collect();
            let old = whole[64.min(used)..used.min(900)].to_vec();
            for junk in [vec![0; 700], noise, old] {
                for index_files in [false, true] {
                    let copy = disk.fork();
                    let start = if name.ends_with(".seg") && !is_closed { used } else { whole.len() };
                    let mut bytes = whole[..start].to_vec();
                    bytes.extend_from_slice(&junk);
                    bytes.resize(bytes.len().max(whole.len()), 0);
                    copy.plant(&name, &bytes);
                    let options = options(3).with_index_files(index_files);
                    let (mut store, recovery) = Store::open(copy.clone(), options.clone()).expect("opens");
                    assert!(!recovery.is_lossy(), "{name}: {recovery:?}");
                    assert_eq!(unreadable(&mut store), [], "{name}");
                    store.put(0, b"more", b"value", 1).expect("room");
                    store.sync().expect("syncs");
                    drop(store);
                    let (mut store, recovery) = Store::open(copy, options).expect("opens again");
                    assert!(!recovery.is_lossy() && recovery.torn.is_empty(), "{name}: {recovery:?}");
                    assert_eq!(unreadable(&mut store), [], "{name}");
                    assert!(matches!(store.get(0, b"more"), Ok(Read::Value { .. })));
                }
            }
        }
    }
}

#[test]
fn rot_in_the_last_record_of_a_full_segment_is_damage_not_a_torn_tail() {
    // Deletes fill a segment to its end: there must be room left to say that they are durable.
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    for n in 0..100u32 {
        store.put(0, &n.to_le_bytes(), &[1; 40], 1).expect("room");
    }
    let mut segments = 0;
    for n in 0..100u32 {
        // Now and then with a sync that began before and ends in between.
        let early = if n % 3 == 0 { store.begin_sync() } else { None };
        let key = n.to_le_bytes();
        store.delete(0, &key).expect("room");
        if let Some(job) = early {
            store.complete_sync(job.run()).expect("syncs");
        }
        store.sync().expect("syncs");
        let image = disk.fork();
        // The record ends with the key and zeros up to a multiple of eight; the segment is the last that has one.
        let record = |name: &String| {
            let bytes = image.contents(name)?;
            let at = (64..bytes.len() - 8).step_by(8).rev().find(|at| {
                bytes[*at..*at + 4] == key && bytes[*at + 4..*at + 8] == [0; 4] && bytes[*at - 1] == 0x20
            })?;
            Some((name.clone(), at))
        };
        let names = image.list().expect("lists");
        let (name, at) =
            names.iter().filter(|name| name.ends_with(".seg")).filter_map(record).next_back().expect("it");
        assert!(image.flip_bit(&name, at as u64 * 8));
        let (_, recovery) = Store::open(image, options(2)).expect("opens");
        assert!(
            recovery.is_lossy() && recovery.torn.is_empty(),
            "delete {n}, byte {at} of {name}: {recovery:?}"
        );
        segments = segments.max(names.len());
    }
    assert!(segments > 5, "more than one segment was filled");
}

/// Does all the upkeep that there is.
fn upkeep(store: &mut Store<MemDisk>) {
    for _ in 0..1000 {
        let done = store.maintain(1 << 20).expect("maintains");
        store.sync().expect("syncs");
        if !done.more && !done.needs_sync {
            return;
        }
    }
    panic!("upkeep comes to no end");
}

#[test]
fn what_a_destroyed_header_cost_stays_known_until_the_caller_accepts_it() {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    for n in 0..KEYS {
        store.put(slot(n), &key(n), &value(n, 0), 0).expect("room");
    }
    store.sync().expect("syncs");
    store.close().expect("closes");
    // In the oldest segment.
    let (name, at) = find(&disk, &value(4, 0));
    overwrite(&disk, &name, at - 40 - key(4).len() as u64, &[0xee; 60]);
    let (mut store, recovery) = Store::open(disk.clone(), options(2)).expect("opens");
    assert!(recovery.is_lossy() && recovery.affects(slot(4)));
    assert_eq!(store.get(slot(4), &key(4)).err(), Some(ReadError::Unknown), "whose it was is not known");
    // Nothing that the index knows of is left in that segment.
    for n in (0..KEYS).filter(|n| *n != 4) {
        store.put(slot(n), &key(n), &value(n, 1), 1).expect("room");
    }
    store.sync().expect("syncs");
    upkeep(&mut store);
    drop(store);
    let (mut store, recovery) = Store::open(disk.clone(), options(3)).expect("opens");
    assert!(recovery.is_lossy() && recovery.affects(slot(4)), "compaction forgot it: {recovery:?}");
    // It is healed, or given up: then its room can be had back.
    store.put(slot(4), &key(4), &value(4, 1), 1).expect("room");
    store.sync().expect("syncs");
    store.accept_losses();
    upkeep(&mut store);
    assert!(disk.contents(&name).is_none(), "the segment is merged");
    drop(store);
    let (mut store, recovery) = Store::open(disk, options(4)).expect("opens");
    assert!(!recovery.is_lossy(), "{recovery:?}");
    for n in 0..KEYS {
        assert!(matches!(store.get(slot(n), &key(n)), Ok(Read::Value { tag: 1, .. })), "key {n}");
    }
}

#[test]
fn a_segment_that_was_cut_between_two_records_is_told_at_every_opening() {
    // Sealed by no manifest yet: that its end is missing shows by the sequences alone.
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    let mut put = 0;
    while store.stats().segments < 2 {
        store.put(slot(put), &key(put), &value(put, 0), 0).expect("room");
        store.sync().expect("syncs");
        put += 1;
    }
    store.put(slot(put), &key(put), &value(put, 0), 0).expect("room");
    store.sync().expect("syncs");
    drop(store);
    disk.kill();
    let lost = put - 3;
    let (name, at) = find(&disk, &value(lost, 0));
    let mut bytes = disk.contents(&name).expect("there");
    bytes[place(at) - 40 - key(lost).len()..].fill(0);
    disk.plant(&name, &bytes);
    for seed in 2..5 {
        let (mut store, recovery) = Store::open(disk.clone(), options(seed)).expect("opens");
        assert!(
            recovery.damage.iter().any(|damage| damage.kind == DamageKind::CutOff),
            "opening {seed}: {recovery:?}"
        );
        assert!(recovery.affects(slot(lost)));
        assert!(matches!(store.get(slot(put), &key(put)), Ok(Read::Value { .. })));
        upkeep(&mut store);
    }
}
