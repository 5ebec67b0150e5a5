//! A store's files as raw bytes: records, segment headers, manifest, index files and chain, each under its own decoder.
//!
//! Bytes drawn at random meet no decoder beyond its checksum, so the checksums are set right here, by a second reading of
//! `FORMAT.md`: what lies on the disk is well sealed, and means anything. Whatever opens can be read, listed, written to, maintained,
//! verified and opened again, in bounded memory.

use crate::source::Source;
use gramme_store::{Cursor, HashTree, MemDisk, Options, Read, ReadError, Store, verify};

/// Copies of the manifest end at multiples of this.
const COPY_ALIGN: usize = 4096;
/// A name for each kind of file; the input chooses by number.
const NAMES: [&str; 8] = [
    "MANIFEST",
    "0000000000000001.seg",
    "0000000000000002.seg",
    "0000000000000003.seg",
    "0000000000000001.idx",
    "0000000000000002.idx",
    "0000000000000003.idx",
    "CHAIN",
];

/// Puts files on a disk and opens it.
///
/// # Panics
/// If a decoder does, or an answer contradicts another.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let flags = source.byte();
    let disk = MemDisk::new();
    while !source.is_empty() {
        let number = source.below(NAMES.len());
        let length = usize::from(source.u16());
        let mut bytes = source.bytes(length).to_vec();
        if flags & 4 == 0 {
            seal(number, &mut bytes);
        }
        disk.plant(NAMES[number], &bytes);
    }
    crate::meter::within(64 << 20, || open(&disk, flags));
}

/// The input that puts these files on the disk: for the seeds.
#[must_use]
pub fn input_of(disk: &MemDisk, flags: u8) -> Vec<u8> {
    let mut out = vec![flags];
    for (number, name) in (0u8..).zip(NAMES) {
        let Some(mut bytes) = disk.contents(name) else { continue };
        let whole = bytes.clone();
        if number == 0 {
            bytes.truncate(bytes.len() / 2 - 4);
        }
        // What is not an index file ends with room, or with what is a multiple of eight long.
        let used = if (4..=6).contains(&number) {
            bytes.len()
        } else {
            bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1).next_multiple_of(8)
        };
        bytes.truncate(used);
        let mut sealed = bytes.clone();
        seal(usize::from(number), &mut sealed);
        assert!(whole.starts_with(&sealed), "{name}: the two readings of the format differ");
        out.push(number);
        out.extend_from_slice(&u16::try_from(bytes.len()).expect("small files").to_le_bytes());
        out.extend_from_slice(&bytes);
    }
    out
}

fn open(disk: &MemDisk, flags: u8) {
    let options = |seed: u8| {
        let options = Options::new([seed; 16]).with_segment_bytes(4096).with_index_files(flags & 1 == 1);
        if flags & 2 == 2 { options.with_tree_key([3; 16]) } else { options }
    };
    // The tree's leaves are a megabyte and more: not for every input.
    let _ = verify(&disk.fork(), None).map_err(|error| assert!(!error.to_string().is_empty()));
    let mut store = match Store::open(disk.clone(), options(1)) {
        Ok((store, recovery)) => {
            assert_eq!(recovery.keys, store.len());
            store
        }
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let before = look(&mut store);
    for n in 0..4u16 {
        let (slot, key) = (n % 3, [b'k', b'0' + n.to_le_bytes()[0]]);
        // A store that has used up its numbers says so, in words.
        let written =
            store.put(slot, &key, &[7; 100], 1).map(drop).and_then(|()| store.delete(slot, b"k0").map(drop));
        if let Err(error) = written {
            assert!(!error.to_string().is_empty());
            break;
        }
    }
    for _ in 0..30 {
        let synced = store.sync().is_ok();
        if !synced || !store.maintain(1 << 16).is_ok_and(|done| done.more || done.needs_sync) {
            break;
        }
    }
    let after = look(&mut store);
    assert!(after >= before.saturating_sub(2), "keys went away: {before}, and now {after}");
    drop(store);
    disk.kill();
    let (mut store, _) = Store::open(disk.clone(), options(2)).expect("it opened before");
    look(&mut store);
}

/// Reads all there is; answers how many keys have values.
fn look(store: &mut Store<MemDisk>) -> u64 {
    let root = store.tree().map(HashTree::root);
    let mut values = 0;
    for slot in 0..8 {
        let mut cursor = Cursor::START;
        loop {
            let page = store.list(slot, cursor, 16).expect("the disk is well");
            for key in &page.keys {
                match store.get(slot, key) {
                    Ok(Read::Value { .. }) => values += 1,
                    Ok(Read::Absent) => panic!("{key:?} is listed, and absent"),
                    Ok(Read::Pending(_)) => panic!("reads are inline here"),
                    Err(ReadError::Damaged { .. } | ReadError::Collision) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            match page.next {
                Some(next) => cursor = next,
                None => break,
            }
        }
    }
    let stats = store.stats();
    assert_eq!(
        (stats.keys, root),
        (store.len(), store.tree().map(HashTree::root)),
        "reading changes nothing"
    );
    values
}

/// Sets the checksums of a file right.
fn seal(number: usize, bytes: &mut Vec<u8>) {
    match number {
        0 => seal_manifest(bytes),
        1..=3 => seal_segment(number as u64, bytes),
        4..=6 => seal_index(number as u64 - 3, bytes),
        _ => {
            for entry in bytes.as_chunks_mut::<96>().0 {
                let sum = crc32fast::hash(&entry[..88]);
                entry[88..].copy_from_slice(&u64::from(sum).to_le_bytes());
            }
        }
    }
}

fn seal_manifest(bytes: &mut Vec<u8>) {
    let len = (bytes.len() + 4).next_multiple_of(COPY_ALIGN);
    bytes.resize(len, 0);
    // The chain is written on where it is said to end: within what a disk in memory can have.
    bytes[74..80].fill(0);
    bytes[32..40].copy_from_slice(&(len as u64).to_le_bytes());
    let sum = crc32fast::hash(&bytes[..len - 4]);
    bytes[len - 4..].copy_from_slice(&sum.to_le_bytes());
    bytes.extend_from_within(..);
}

fn seal_segment(id: u64, bytes: &mut [u8]) {
    if bytes.len() < 64 {
        return;
    }
    let sum = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&sum.to_le_bytes());
    let place = place(word(bytes, 40), id);
    let mut at = 64;
    while at + 40 <= bytes.len() {
        let lengths = word(bytes, at + 32);
        let (value, key) = (lengths & 0x7ff_ffff, lengths >> 27 & 0x1_ffff);
        let len = usize::try_from(40 + key + value).expect("64 bits").next_multiple_of(8);
        let (header, body) = seeds(place, at as u64);
        // A record that goes past the end has a good header all the same.
        if let Some(rest) = bytes.get(at + 40..at + len) {
            let sum = crc(body, rest);
            bytes[at + 4..at + 8].copy_from_slice(&sum.to_le_bytes());
        }
        let sum = crc(header, &bytes[at + 4..at + 40]);
        bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
        at += len;
    }
}

fn seal_index(id: u64, bytes: &mut [u8]) {
    if bytes.len() < 160 {
        return;
    }
    let place = place(word(bytes, 40) ^ u64::from_le_bytes(*b"gramidx\n"), id);
    let sum = crc(seeds(place, 0).0, &bytes[..152]);
    bytes[152..160].copy_from_slice(&u64::from(sum).to_le_bytes());
    let mut at = 160;
    while at + 16 <= bytes.len() {
        // What says how long a block is: what is left is the longest.
        let left = u32::try_from(bytes.len() - at - 16).expect("a short file");
        let lines = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")).min(left);
        bytes[at..at + 4].copy_from_slice(&lines.to_le_bytes());
        let end = at + 8 + lines as usize;
        let sum = crc(seeds(place, at as u64).1, &bytes[at..end]);
        bytes[end..end + 8].copy_from_slice(&u64::from(sum).to_le_bytes());
        at = end + 8;
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

fn place(salt: u64, id: u64) -> u64 {
    mix(salt ^ mix(id))
}

/// The seeds of header and body.
#[allow(clippy::cast_possible_truncation)] // The two halves of the word.
fn seeds(place: u64, offset: u64) -> (u32, u32) {
    let word = mix(place.wrapping_add(offset));
    (word as u32, (word >> 32) as u32)
}

fn crc(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}
