//! Opening a store whose files were damaged, swapped or made up. Whatever lies there: no panic, no value that was never
//! put, and what one opening shows the next one shows, too. One changed byte moreover is always noticed or harmless. With
//! index files and without.

use crate::source::Source;
use gramme_store::{Disk, MemDisk, OpenError, Options, Read, ReadError, Store};
use std::cell::OnceCell;
use std::collections::BTreeMap;

type Key = (u16, Vec<u8>);
type Image = (MemDisk, BTreeMap<Key, Versions>);

/// All values that a key ever had, and the one that is durable.
#[derive(Default)]
struct Versions {
    all: Vec<Vec<u8>>,
    last: Option<Vec<u8>>,
}

thread_local! {
    /// A store closed in good order, and one that the power was cut from.
    static IMAGES: OnceCell<[Image; 2]> = const { OnceCell::new() };
}

/// Alters a store's files and opens it.
///
/// # Panics
/// If the store believes what it should not.
pub fn run(data: &[u8]) {
    IMAGES.with(|images| {
        let images = images.get_or_init(|| [image(true), image(false)]);
        let mut source = Source::new(data);
        let (disk, versions) = &images[source.below(2)];
        let disk = disk.fork();
        let index_files = source.flag();
        let bytes_changed = alter(&disk, &mut source);
        open(&disk, versions, bytes_changed == Some(1), index_files);
    });
}

/// Three segments of puts, deletes and a dropped slot, all of it durable.
fn image(clean: bool) -> Image {
    let disk = MemDisk::new();
    let mut versions: BTreeMap<Key, Versions> = BTreeMap::new();
    let options = Options::new([9; 16]).with_segment_bytes(4096);
    let (mut store, _) = Store::open(disk.clone(), options).expect("an empty disk opens");
    let mut n = 0u32;
    for round in 0..6u8 {
        for at in 0..12u8 {
            n += 1;
            let key = (u16::from(at % 3), vec![b'k', at]);
            let versions = versions.entry(key.clone()).or_default();
            if n.is_multiple_of(11) {
                store.delete(key.0, &key.1).expect("the disk is well");
                versions.last = None;
            } else {
                let mut value = vec![at; usize::from(round) * 13 + usize::from(at)];
                value.extend_from_slice(&n.to_le_bytes());
                store.put(key.0, &key.1, &value, u64::from(n)).expect("the disk is well");
                versions.all.push(value.clone());
                versions.last = Some(value);
            }
        }
        if round == 2 {
            store.drop_slot(2).expect("the disk is well");
            versions.iter_mut().filter(|((slot, _), _)| *slot == 2).for_each(|(_, v)| v.last = None);
        }
        store.sync().expect("the disk is well");
    }
    if clean {
        store.close().expect("the disk is well");
    } else {
        drop(store);
        disk.crash(3);
    }
    disk.kill();
    (disk, versions)
}

/// Changes files as the bytes say. How many bytes were changed, where that can be told.
fn alter(disk: &MemDisk, source: &mut Source<'_>) -> Option<usize> {
    let names = disk.list().expect("the disk is well");
    let mut changed = Some(0);
    for _ in 0..20 {
        if source.is_empty() {
            break;
        }
        let choice = source.byte();
        let name = &names[source.below(names.len())];
        let mut bytes = disk.contents(name).unwrap_or_default();
        let at = if bytes.is_empty() { 0 } else { usize::from(source.u16()) % bytes.len() };
        match choice % 8 {
            0..=2 => {
                let mask = source.byte().max(1);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= mask;
                    changed = changed.map(|n| n + 1);
                }
            }
            3 => {
                let length = source.below(64);
                let new = source.bytes(length);
                bytes.iter_mut().skip(at).zip(new).for_each(|(old, new)| *old = *new);
                changed = None;
            }
            4 => {
                bytes.truncate(at);
                changed = None;
            }
            // A piece of another file, or of another place.
            5 => {
                let from = disk.contents(&names[source.below(names.len())]).unwrap_or_default();
                let (start, length) = (usize::from(source.u16()) & !7, usize::from(source.u16()) % 4096);
                let piece = from.into_iter().skip(start).take(length);
                bytes.iter_mut().skip(at & !7).zip(piece).for_each(|(old, new)| *old = new);
                changed = None;
            }
            6 => {
                bytes.iter_mut().skip(at).take(usize::from(source.byte()) * 4).for_each(|byte| *byte = 0);
                changed = None;
            }
            _ => {
                let length = usize::from(source.u16());
                bytes = source.bytes(length).to_vec();
                let made_up = ["MANIFEST", "MANIFEST.next", "00000000000000ff.seg", "notes"];
                if choice >= 128 {
                    disk.plant(made_up[source.below(4)], &bytes);
                    changed = None;
                    continue;
                }
                changed = None;
            }
        }
        disk.plant(name, &bytes);
    }
    changed
}

fn open(disk: &MemDisk, versions: &BTreeMap<Key, Versions>, one_byte: bool, index_files: bool) {
    let options = Options::new([10; 16]).with_segment_bytes(4096).with_index_files(index_files);
    // The slots' table, the manifest, a segment's worth of buffers.
    let opened = crate::meter::within(16 << 20, || Store::open(disk.clone(), options));
    let (mut store, recovery) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(
                !one_byte || matches!(error, OpenError::NewerFormat { .. }),
                "one byte, and nothing opens: {error}"
            );
            return;
        }
    };
    assert_eq!(recovery.keys, store.len());
    let mut shown = BTreeMap::new();
    for (key, versions) in versions {
        let found = match store.get(key.0, &key.1) {
            Ok(Read::Absent) => None,
            Err(ReadError::Unknown) => {
                assert!(recovery.affects(key.0), "{key:?} may be lost, and no report says so: {recovery:?}");
                None
            }
            Ok(Read::Value { value, .. }) => {
                assert!(versions.all.contains(&value), "{key:?} never was {value:?}");
                Some(value)
            }
            Err(ReadError::Damaged { .. }) => {
                // An opening by index files has not read the records.
                let reported = recovery.affects(key.0) || recovery.index_files > 0;
                assert!(reported, "{key:?} is damaged, and no report says so: {recovery:?}");
                continue;
            }
            other => panic!("{other:?}"),
        };
        if one_byte && !recovery.affects(key.0) {
            assert_eq!(found, versions.last, "{key:?} changed, and no report says so: {recovery:?}");
        }
        shown.insert(key.clone(), found);
    }
    // It can be used, and shows the same again.
    let new: Key = (7, b"new".to_vec());
    store.put(new.0, &new.1, b"value", 1).expect("the disk is well");
    store.sync().expect("the disk is well");
    drop(store);
    disk.crash(5);
    // Index files know of records that were cut off, which a scan can't: with the same means it sees the same.
    let options = Options::new([11; 16]).with_segment_bytes(4096).with_index_files(index_files);
    let (mut store, _) = Store::open(disk.clone(), options).expect("it opened before");
    shown.insert(new, Some(b"value".to_vec()));
    for (key, expected) in shown {
        match store.get(key.0, &key.1) {
            Ok(Read::Absent) | Err(ReadError::Unknown) => assert_eq!(None, expected, "{key:?}"),
            Ok(Read::Value { value, .. }) => assert_eq!(Some(value), expected, "{key:?}"),
            other => panic!("{other:?} for {key:?}, which was {expected:?}"),
        }
    }
}
