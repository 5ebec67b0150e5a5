//! The room that is put aside for a full disk is there when it is needed, power cuts or not.

use gramme_store::{MemDisk, Options, Store};

fn options(segment_bytes: u64) -> Options {
    Options::new([1; 16]).with_segment_bytes(segment_bytes)
}

/// Whether the room of a segment is put aside, and that of a small manifest.
fn is_enough(disk: &MemDisk, segment_bytes: usize) -> bool {
    let room = disk.contents("RESERVE").map_or(0, |bytes| bytes.len());
    (segment_bytes + 8192..segment_bytes + 32_768).contains(&room)
}

fn rolled(disk: &MemDisk, segment_bytes: u64) {
    let (mut store, _) = Store::open(disk.clone(), options(segment_bytes)).expect("opens");
    for n in 0..300u32 {
        store.put(0, &n.to_le_bytes(), &[1; 300], 1).expect("room");
        if n % 10 == 0 {
            store.maintain(1 << 16).expect("maintains");
        }
    }
    store.sync().expect("syncs");
}

#[test]
fn the_reserve_outlives_a_power_cut_with_all_its_length() {
    let disk = MemDisk::new();
    rolled(&disk, 4096);
    assert!(is_enough(&disk, 4096));
    for seed in 0..100 {
        assert!(is_enough(&disk.crash_image(seed), 4096), "seed {seed}");
    }
}

#[test]
fn a_reserve_that_is_too_small_is_made_anew() {
    let disk = MemDisk::new();
    rolled(&disk, 4096);
    rolled(&disk, 16 << 10);
    assert!(is_enough(&disk, 16 << 10));
}
