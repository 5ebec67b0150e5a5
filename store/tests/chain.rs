//! The chain of segments' hashes: what a verification sees that checksums do not.

use gramme_store::{DamageKind, Disk, Head, MemDisk, OpenError, Options, Store, Verified, verify};

fn options(seed: u8) -> Options {
    Options::new([seed; 16]).with_segment_bytes(4096)
}

fn fill(disk: &MemDisk, from: u32, seed: u8) {
    let (mut store, _) = Store::open(disk.clone(), options(seed)).expect("opens");
    for n in from..from + 60 {
        store.put(1, &n.to_le_bytes(), &[n.to_le_bytes()[0]; 150], u64::from(n)).expect("room");
    }
    store.sync().expect("syncs");
    settle(&mut store);
    store.close().expect("closes");
}

fn settle(store: &mut Store<MemDisk>) {
    loop {
        let done = store.maintain(1 << 16).expect("maintains");
        store.sync().expect("syncs");
        if !done.more && !done.needs_sync {
            return;
        }
    }
}

fn look(disk: &MemDisk, head: Option<Head>) -> Verified {
    verify(disk, head).expect("a store")
}

fn kinds(disk: &MemDisk, head: Option<Head>) -> Vec<DamageKind> {
    look(disk, head).report.damage.iter().map(|damage| damage.kind).collect()
}

fn segments(disk: &MemDisk) -> Vec<String> {
    let mut names = disk.list().expect("lists");
    names.retain(|name| name.ends_with(".seg"));
    names
}

#[test]
fn a_head_stays_good_while_the_store_grows_and_compacts() {
    let disk = MemDisk::new();
    fill(&disk, 0, 1);
    let first = look(&disk, None);
    assert!(first.report.damage.is_empty() && first.sealed_segments >= 3, "{first:?}");
    let mut heads = vec![first.head];
    for round in 1..6 {
        // The same keys again: what was there is merged away.
        fill(&disk, 0, round);
        heads.push(look(&disk, None).head);
    }
    for (at, head) in heads.iter().enumerate() {
        assert!(!heads[at + 1..].contains(head), "each round moves it on");
        assert_eq!(kinds(&disk, Some(*head)), [], "head {at}");
    }
}

#[test]
fn an_alteration_with_right_checksums_is_shown() {
    let disk = MemDisk::new();
    fill(&disk, 0, 1);
    // Padding between two records is under a checksum, too: the bytes behind a segment's header that mean nothing are few.
    // Here somebody alters a reserved byte of the header and makes its checksum right.
    let name = segments(&disk).remove(0);
    let mut bytes = disk.contents(&name).expect("there");
    bytes[56] = 1;
    let sum = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&sum.to_le_bytes());
    disk.plant(&name, &bytes);
    assert_eq!(kinds(&disk, None), [DamageKind::Altered]);
    assert!(look(&disk, None).report.is_lossy());
}

#[test]
fn every_flipped_bit_of_a_sealed_segment_is_shown_as_alteration() {
    let disk = MemDisk::new();
    fill(&disk, 0, 1);
    for name in segments(&disk) {
        let bits = disk.contents(&name).expect("there").len() as u64 * 8;
        for bit in (0..bits).step_by(997) {
            let copy = disk.fork();
            assert!(copy.flip_bit(&name, bit));
            assert!(kinds(&copy, None).contains(&DamageKind::Altered), "bit {bit} of {name}");
        }
    }
}

/// Puts the files of an earlier moment back, and keeps nothing of the later ones.
fn roll_back(disk: &MemDisk, to: &MemDisk) {
    for name in disk.list().expect("lists") {
        disk.remove(&name).expect("removed");
    }
    for name in to.list().expect("lists") {
        disk.plant(&name, &to.contents(&name).expect("there"));
    }
}

#[test]
fn truncation_shows_against_a_remembered_head() {
    let disk = MemDisk::new();
    fill(&disk, 0, 1);
    let early = disk.fork();
    let early_head = look(&disk, None).head;
    fill(&disk, 100, 2);
    let late_head = look(&disk, None).head;
    roll_back(&disk, &early);
    assert_eq!(kinds(&disk, None), [], "an earlier state is a sound store");
    assert_eq!(kinds(&disk, Some(early_head)), []);
    assert_eq!(
        kinds(&disk, Some(late_head)),
        [DamageKind::HeadUnknown],
        "but not the one that is remembered"
    );
}

#[test]
fn another_stores_head_is_unknown_here() {
    let disk = MemDisk::new();
    fill(&disk, 0, 1);
    let other = MemDisk::new();
    fill(&other, 0, 9);
    assert_eq!(kinds(&disk, Some(look(&other, None).head)), [DamageKind::HeadUnknown]);
}

#[test]
fn every_flipped_bit_of_the_chain_is_shown_and_the_store_goes_on() {
    let disk = MemDisk::new();
    fill(&disk, 0, 1);
    let bits = disk.contents("CHAIN").expect("there").len() as u64 * 8;
    for bit in (0..bits).step_by(7) {
        let copy = disk.fork();
        assert!(copy.flip_bit("CHAIN", bit));
        assert_eq!(kinds(&copy, None), [DamageKind::Chain], "bit {bit}");
        let (store, recovery) = Store::open(copy, options(2)).expect("opens");
        assert!(!recovery.is_lossy() && store.len() == 60, "no record is lost by it");
    }
}

#[test]
fn a_chain_cut_off_reordered_or_gone_is_shown() {
    let disk = MemDisk::new();
    fill(&disk, 0, 1);
    let chain = disk.contents("CHAIN").expect("there");
    assert!(chain.len() >= 3 * 96);
    let swapped = [&chain[96..192], &chain[..96], &chain[192..]].concat();
    for bad in [&chain[..96], &chain[96..], &[], &swapped] {
        let copy = disk.fork();
        copy.plant("CHAIN", bad);
        assert_eq!(kinds(&copy, None), [DamageKind::Chain], "{} bytes", bad.len());
    }
    disk.remove("CHAIN").expect("removed");
    let (mut store, recovery) = Store::open(disk.clone(), options(2)).expect("opens");
    assert!(
        matches!(recovery.damage[..], [ref one] if one.kind == DamageKind::Chain) && !recovery.is_lossy()
    );
    store.put(1, b"more", b"value", 1).expect("room");
    store.close().expect("closes");
    assert!(kinds(&disk, None).contains(&DamageKind::Chain), "it stays known");
}

#[test]
fn swapped_and_removed_segments_are_errors_that_name_them() {
    let disk = MemDisk::new();
    fill(&disk, 0, 1);
    let names = segments(&disk);
    let (one, two) = (disk.contents(&names[0]).expect("there"), disk.contents(&names[1]).expect("there"));
    let copy = disk.fork();
    copy.plant(&names[0], &two);
    copy.plant(&names[1], &one);
    assert!(matches!(verify(&copy, None), Err(OpenError::SegmentForeign { .. })));
    disk.remove(&names[0]).expect("removed");
    assert!(matches!(verify(&disk, None), Err(OpenError::SegmentMissing { .. })));
}

#[test]
fn the_chain_survives_power_cuts_at_every_operation() {
    // Sealing, merging and closing, with the power cut at each operation: the manifest and the chain agree after each.
    for cut in 0.. {
        let disk = MemDisk::new();
        fill(&disk, 0, 1);
        let remembered = look(&disk, None).head;
        disk.cut_power_after(cut);
        let through = (|| {
            let (mut store, _) = Store::open(disk.clone(), options(2)).ok()?;
            for n in 0..40u32 {
                store.put(1, &n.to_le_bytes(), &[9; 150], 7).ok()?;
            }
            for _ in 0..60 {
                store.sync().ok()?;
                store.maintain(1 << 16).ok()?;
            }
            store.close().ok()
        })();
        for seed in 0..4 {
            let image = disk.crash_image(seed);
            let found = look(&image, Some(remembered));
            assert_eq!(found.report.damage, [], "cut {cut}, image {seed}");
            let (mut store, _) = Store::open(image.clone(), options(3)).expect("opens");
            settle(&mut store);
            store.close().expect("closes");
            assert_eq!(kinds(&image, Some(found.head)), [], "and it goes on from there");
        }
        if through.is_some() {
            assert!(cut > 60, "{cut}");
            return;
        }
    }
}
