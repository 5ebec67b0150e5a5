//! A process that may open no file more.

#[path = "common/watched.rs"]
mod watched;

use gramme_store::{DiskErrorKind, MemDisk, Options, Read, Store, WriteError};
use watched::{Op, Watched};

#[test]
fn a_store_opens_and_reads_where_no_segment_can_be_made() {
    let disk = MemDisk::new();
    let options = |seed| Options::new([seed; 16]).with_segment_bytes(4096);
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    for n in 0..40u32 {
        store.put(1, &n.to_le_bytes(), &[7; 300], 1).expect("room");
    }
    store.sync().expect("syncs");
    drop(store);
    disk.kill();
    let watched = Watched::new(disk.clone(), |op| match op {
        Op::Create(name) if name.ends_with(".seg") => Err(DiskErrorKind::TooManyFiles),
        _ => Ok(()),
    });
    let (mut store, recovery) = Store::open(watched, options(2)).expect("opens");
    assert!(recovery.damage.is_empty() && recovery.keys == 40, "{recovery:?}");
    for n in 0..40u32 {
        assert!(matches!(store.get(1, &n.to_le_bytes()), Ok(Read::Value { .. })));
    }
    let refused = |done| matches!(done, Err(WriteError::NewSegment(error)) if error.kind() == DiskErrorKind::TooManyFiles);
    assert!(refused(store.put(1, b"more", b"value", 1)) && refused(store.delete(1, &1u32.to_le_bytes())));
    assert!(store.writable());
    drop(store);
    disk.kill();
    // With descriptors again all goes on.
    let (mut store, recovery) = Store::open(disk, options(3)).expect("opens");
    assert!(recovery.damage.is_empty() && recovery.keys == 40, "{recovery:?}");
    store.put(1, b"more", b"value", 1).expect("room");
    store.close().expect("closes");
}
