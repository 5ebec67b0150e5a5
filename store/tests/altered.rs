//! What somebody can alter who makes every checksum right again, and what a verification says to it: nothing that is found may be
//! decided by bytes that nobody vouches for.

use gramme_store::{Damage, DamageKind, Disk, MemDisk, OpenError, Options, Read, Store, verify};

const MANIFEST_HEAD: usize = 128;
const ENTRY: usize = 88;
const INDEX_HEAD: usize = 160;
const SEGMENT_HEAD: usize = 64;

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn half(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}

fn crc(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

/// The finalizer that the seeds of checksums are made with.
fn mix(word: u64) -> u64 {
    let mut x = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// The seeds of header and body at this place of a segment's index file.
fn seeds(salt: u64, segment: u64, offset: u64) -> (u32, u32) {
    let place = mix(salt ^ u64::from_le_bytes(*b"gramidx\n") ^ mix(segment));
    let word = mix(place.wrapping_add(offset));
    (u32::try_from(word & 0xffff_ffff).expect("half"), u32::try_from(word >> 32).expect("half"))
}

/// A manifest's entries, each with its torn ranges behind it.
fn entries(copy: &[u8]) -> Vec<Vec<u8>> {
    let mut at = MANIFEST_HEAD;
    let mut entries = Vec::new();
    for _ in 0..half(copy, 12) {
        let len = ENTRY + 16 * half(copy, at + 52);
        entries.push(copy[at..at + len].to_vec());
        at += len;
    }
    entries
}

/// Writes the manifest anew, with other bytes and right checksums.
fn alter_manifest(disk: &MemDisk, alter: impl FnOnce(&mut Vec<u8>, &mut Vec<Vec<u8>>)) {
    let manifest = disk.contents("MANIFEST").expect("there");
    let copy = &manifest[..manifest.len() / 2];
    let (mut head, mut entries) = (copy[..MANIFEST_HEAD].to_vec(), entries(copy));
    alter(&mut head, &mut entries);
    let mut out = [head, entries.concat()].concat();
    out.resize(copy.len() - 4, 0);
    out.extend_from_slice(&crc(0, &out).to_le_bytes());
    disk.plant("MANIFEST", &[out.clone(), out].concat());
}

/// A segment of the store: its id and salt, and where it is in the manifest.
fn segment_of(disk: &MemDisk, at: usize) -> (u64, u64) {
    let manifest = disk.contents("MANIFEST").expect("there");
    let entry = &entries(&manifest[..manifest.len() / 2])[at];
    (word(entry, 0), word(entry, 8))
}

fn options(seed: u8) -> Options {
    Options::new([seed; 16]).with_segment_bytes(4096)
}

fn key(n: u32) -> [u8; 8] {
    [*b"key-", n.to_le_bytes()].concat().try_into().expect("eight bytes")
}

/// Sixty keys and the deletes of ten others, sealed in several segments, all with their index files.
fn written() -> MemDisk {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    for n in 0..60 {
        store.put(1, &key(n), &[7; 150], 1).expect("room");
        if n % 6 == 0 {
            store.put(1, &key(100 + n), b"to go", 1).expect("room");
            store.delete(1, &key(100 + n)).expect("room");
        }
    }
    store.sync().expect("syncs");
    while store.maintain(1 << 20).expect("maintains").more {}
    store.close().expect("closes");
    assert_eq!(look(&disk), []);
    disk
}

fn look(disk: &MemDisk) -> Vec<Damage> {
    verify(disk, None).expect("a store").report.damage
}

fn kinds(disk: &MemDisk) -> Vec<DamageKind> {
    look(disk).iter().map(|damage| damage.kind).collect()
}

/// Whether this key is found by an opening.
fn finds(disk: &MemDisk, n: u32) -> bool {
    let (mut store, _) = Store::open(disk.fork(), options(2)).expect("opens");
    matches!(store.get(1, &key(n)), Ok(Read::Value { .. }))
}

#[test]
fn a_torn_range_over_a_record_is_shown_wherever_it_begins() {
    let disk = written();
    let (id, _) = segment_of(&disk, 0);
    let name = format!("{id:016x}");
    let bytes = disk.contents(&format!("{name}.seg")).expect("there");
    let at = bytes.windows(8).position(|bytes| *bytes == key(5)).expect("it is in the first") as u64 - 40;
    for start in [at, at - 8, at - 40] {
        for end in [at + 8, at + 48, at + 200] {
            let copy = disk.fork();
            alter_manifest(&copy, |_, entries| {
                entries[0][52] += 1;
                entries[0].extend_from_slice(&[start.to_le_bytes(), end.to_le_bytes()].concat());
            });
            let found = look(&copy);
            // What is left of it beside the range is damage.
            let hidden: Vec<&Damage> = found.iter().filter(|one| one.kind == DamageKind::Hidden).collect();
            assert!(
                matches!(hidden[..], [one] if one.start <= at && at < one.end && one.end - one.start <= 600),
                "{start} to {end}: {found:?}"
            );
            copy.remove(&format!("{name}.idx")).expect("there");
            assert!(!finds(&copy, 5), "it hides the record");
        }
    }
}

#[test]
fn another_hash_key_is_an_error() {
    let disk = written();
    for bit in [0, 63, 127] {
        for index_files in [true, false] {
            let copy = disk.fork();
            alter_manifest(&copy, |head, _| head[56 + bit / 8] ^= 1 << (bit % 8));
            let opened = Store::open(copy.clone(), options(2).with_index_files(index_files)).map(drop);
            assert!(matches!(opened, Err(OpenError::HashKey { .. })), "{opened:?}");
            assert!(matches!(verify(&copy, None), Err(OpenError::HashKey { .. })));
        }
    }
}

/// Alters the index file of a segment and makes its checksums right.
fn alter_index(disk: &MemDisk, at: usize, alter: impl FnOnce(&mut Vec<u8>)) {
    let (id, salt) = segment_of(disk, at);
    let name = format!("{id:016x}.idx");
    let mut bytes = disk.contents(&name).expect("there");
    alter(&mut bytes);
    let sum = u64::from(crc(seeds(salt, id, 0).0, &bytes[..INDEX_HEAD - 8]));
    bytes[INDEX_HEAD - 8..INDEX_HEAD].copy_from_slice(&sum.to_le_bytes());
    let end = INDEX_HEAD + 8 + half(&bytes, INDEX_HEAD);
    let sum = u64::from(crc(seeds(salt, id, INDEX_HEAD as u64).1, &bytes[INDEX_HEAD..end]));
    bytes[end..end + 8].copy_from_slice(&sum.to_le_bytes());
    assert_eq!(bytes.len(), end + 8, "one block");
    disk.plant(&name, &bytes);
}

#[test]
fn an_index_file_that_says_other_than_its_segment_is_shown() {
    let disk = written();
    let (id, _) = segment_of(&disk, 0);
    let name = format!("{id:016x}");
    let bytes = disk.contents(&format!("{name}.seg")).expect("there");
    let at = bytes.windows(8).position(|bytes| *bytes == key(5)).expect("it is in the first") - 40;
    let fingerprint = bytes[at + 16..at + 23].to_vec();
    let line = |index: &[u8]| index.windows(7).position(|bytes| *bytes == *fingerprint).expect("a line");
    // Each bit of the fingerprint, and then the size, the slot and the tag.
    let first = disk.contents(&format!("{name}.idx")).expect("there");
    let line = line(&first);
    for bit in (0..56).step_by(11).chain([56, 72, 80, 96]) {
        let copy = disk.fork();
        alter_index(&copy, 0, |index| index[line + bit / 8] ^= 1 << (bit % 8));
        assert_eq!(kinds(&copy), [DamageKind::Hidden], "bit {bit}");
        assert!(bit >= 56 || !finds(&copy, 5), "it hides the key");
    }
    // Deletes of which nothing is known are not carried over; of one that never was the key would be gone.
    let copy = disk.fork();
    alter_index(&copy, 0, |index| index[88..96].fill(0));
    assert_eq!(kinds(&copy), [DamageKind::Hidden]);
    // A line less: the last of the block.
    let copy = disk.fork();
    alter_index(&copy, 0, |index| {
        let lines = u32::try_from(half(index, INDEX_HEAD + 4) - 1).expect("few");
        let last = INDEX_HEAD + 8 + half(index, INDEX_HEAD);
        // All lines of puts in this store are as long as the one before.
        let len = 8 + 1 + 2 + 1 + 1;
        index.drain(last - len..last);
        let bytes = u32::try_from(half(index, INDEX_HEAD) - len).expect("few");
        index[INDEX_HEAD..INDEX_HEAD + 4].copy_from_slice(&bytes.to_le_bytes());
        index[INDEX_HEAD + 4..INDEX_HEAD + 8].copy_from_slice(&lines.to_le_bytes());
        index[56..64].copy_from_slice(&u64::from(lines).to_le_bytes());
    });
    let found = kinds(&copy);
    assert_eq!(found, [DamageKind::Hidden]);
}

#[test]
fn a_manifest_that_forgets_a_segments_hash_or_its_bounds_is_shown() {
    let disk = written();
    // As if it had never been hashed: then its bytes could be altered as well.
    let copy = disk.fork();
    alter_manifest(&copy, |_, entries| {
        entries[0][49] &= !2;
        entries[0][56..88].fill(0);
    });
    assert_eq!(kinds(&copy), [DamageKind::Altered]);
    // By the bounds it is told which of two records is newer.
    for (at, by) in [(32, 1i64), (40, -1)] {
        let copy = disk.fork();
        alter_manifest(&copy, |_, entries| {
            let bound = word(&entries[0], at).wrapping_add_signed(by);
            entries[0][at..at + 8].copy_from_slice(&bound.to_le_bytes());
        });
        assert_eq!(kinds(&copy), [DamageKind::Hidden]);
    }
}

/// What rots, or is torn, is told as that and as nothing else.
#[test]
fn damage_is_no_alteration_of_the_manifest() {
    let disk = written();
    for at in 0..3 {
        let (id, _) = segment_of(&disk, at);
        let name = format!("{id:016x}.seg");
        let len = disk.contents(&name).expect("there").len();
        for offset in (SEGMENT_HEAD..len).step_by(37) {
            let copy = disk.fork();
            assert!(copy.overwrite(&name, offset as u64, &vec![0xa7; (len - offset).min(offset % 90 + 1)]));
            let found = kinds(&copy);
            assert!(!found.is_empty() && !found.contains(&DamageKind::Hidden), "{offset}: {found:?}");
            copy.plant(&name, &copy.contents(&name).expect("there")[..offset]);
            let found = kinds(&copy);
            assert!(!found.is_empty() && !found.contains(&DamageKind::Hidden), "{offset}: {found:?}");
        }
    }
}
