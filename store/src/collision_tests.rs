//! Fingerprints cut to four bits, so that nearly every key meets another one's.

use crate::{Cursor, MemDisk, Options, Read, ReadError, Store, WriteError};
use std::collections::BTreeMap;
use std::vec::Vec;

fn options() -> Options {
    let mut options = Options::new([5; 16]).with_segment_bytes(4096);
    options.fingerprint_mask = 0xf;
    options
}

/// Of the keys with one fingerprint the last that was put has the place. While it has, the others are unknown, not absent; they
/// are never answered with its value.
type Places = BTreeMap<u64, (u32, u64)>;

fn check(store: &mut Store<MemDisk>, places: &Places) {
    for n in 0..60u32 {
        let key = n.to_le_bytes();
        let fingerprint = store.fingerprint(&key);
        match (store.get(1, &key), places.get(&fingerprint)) {
            (Ok(Read::Absent), None) => {}
            (Ok(Read::Value { value, tag, .. }), Some((holder, expected))) => {
                assert_eq!((*holder, *expected, value.as_slice()), (n, tag, tag.to_le_bytes().as_slice()));
            }
            (Err(ReadError::Collision), Some((holder, _))) => assert_ne!(*holder, n),
            (answer, place) => panic!("key {n}: {answer:?} where {place:?} is"),
        }
    }
    let listed = store.list(1, Cursor::START, 100).expect("readable");
    let mut keys: Vec<Vec<u8>> = listed.keys;
    let mut expected: Vec<Vec<u8>> = places.values().map(|(n, _)| n.to_le_bytes().to_vec()).collect();
    keys.sort();
    expected.sort();
    assert_eq!((keys, listed.unreadable), (expected, 0));
}

#[test]
fn colliding_keys_are_told_apart() {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options()).expect("opens");
    let mut places = Places::new();
    let mut refused = 0;
    for step in 0..3000u64 {
        let word = crate::checksum::mix(step);
        let n = u32::try_from(word % 60).expect("below sixty");
        let key = n.to_le_bytes();
        let fingerprint = store.fingerprint(&key);
        match (word >> 32) % 10 {
            0..6 => {
                store.put(1, &key, &step.to_le_bytes(), step).expect("room");
                places.insert(fingerprint, (n, step));
            }
            6..8 => match (store.delete(1, &key), places.get(&fingerprint)) {
                (Ok(_), None) => {}
                (Ok(_), Some((holder, _))) => {
                    assert_eq!(*holder, n);
                    places.remove(&fingerprint);
                }
                (Err(WriteError::Collision), Some((holder, _))) => {
                    assert_ne!(*holder, n);
                    refused += 1;
                }
                (answer, place) => panic!("key {n}: {answer:?} where {place:?} is"),
            },
            8 => {
                store.sync().expect("syncs");
                store.maintain(5000).expect("maintains");
            }
            _ if step % 7 == 0 => {
                drop(store);
                store = Store::open(disk.clone(), options()).expect("opens").0;
            }
            _ => {}
        }
        if step % 50 == 0 {
            check(&mut store, &places);
        }
    }
    check(&mut store, &places);
    assert!(refused > 100, "{refused}");
}
