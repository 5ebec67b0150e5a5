//! What a mapped file answers, beside a plain one.

#![allow(clippy::cast_possible_truncation)] // Bytes of numbers are as good as others.

use gramme_store::{Disk, DiskErrorKind, DiskFile, FileDisk};
use gramme_store_mapped::MappedDisk;
use tempfile::TempDir;

fn disks() -> (TempDir, MappedDisk, FileDisk) {
    let directory = tempfile::tempdir().expect("room for a directory");
    // SAFETY: the directory is this test's, which writes to nothing that it was lent.
    let mapped = unsafe { MappedDisk::open(directory.path()) }.expect("a directory");
    let plain = FileDisk::open(directory.path()).expect("a directory");
    (directory, mapped, plain)
}

fn read(file: &impl DiskFile, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let read = file.read_at(offset, &mut bytes).expect("readable");
    bytes.truncate(read);
    bytes
}

#[test]
fn what_is_written_is_lent_and_read_by_whichever_way() {
    let (_directory, disk, plain) = disks();
    let file = disk.create("0000000000000001.seg", 1 << 16).expect("room");
    let other = plain.open("0000000000000001.seg").expect("there");
    // Short and long: through the map, and around it.
    for (offset, len) in [(0, 1), (5, 40), (4090, 12), (8192, 1024), (10_000, 1025), (20_000, 40_000)] {
        let bytes: Vec<u8> = (0..len).map(|n| (offset + n + 1) as u8).collect();
        file.write_at(offset as u64, &bytes).expect("room");
        assert_eq!(file.lend(offset as u64, len), Some(bytes.as_slice()), "lent, {len} bytes");
        assert_eq!(read(&file, offset as u64, len), bytes, "read, {len} bytes");
        assert_eq!(read(&other, offset as u64, len), bytes, "by another way, {len} bytes");
        // A clone is the same file.
        assert_eq!(file.clone().lend(offset as u64, len), Some(bytes.as_slice()));
    }
    assert_eq!(file.lend(60_100, 8), Some([0; 8].as_slice()), "reserved room is zeros");
    file.sync_data().expect("a disk that syncs");
}

#[test]
fn nothing_is_lent_beyond_the_file() {
    let (_directory, disk, _) = disks();
    let file = disk.create("0000000000000001.seg", 8192).expect("room");
    for (offset, len) in [(8192, 1), (8191, 2), (0, 8193), (u64::MAX, 1), (u64::MAX - 7, 16), (1, usize::MAX)]
    {
        assert_eq!(file.lend(offset, len), None, "{len} at {offset}");
    }
    let clone = file.clone();
    file.write_at(4000, &[7; 100]).expect("room");
    file.truncate(4050).expect("cut");
    assert_eq!(file.size(), Ok(4050));
    for file in [&file, &clone] {
        assert_eq!(file.lend(4000, 50), Some([7; 50].as_slice()));
        assert_eq!(file.lend(4000, 51), None, "the page is there, the file ends before");
        assert_eq!(file.lend(5000, 1), None, "no page is there");
    }
    // A write beyond the end makes the file longer, as it does with any file; it is read, and not lent.
    clone.write_at(6000, &[8; 10]).expect("room");
    assert_eq!((clone.size(), clone.lend(6000, 10)), (Ok(6010), None));
    assert_eq!(read(&file, 6000, 20), [8; 10]);
    assert_eq!(read(&file, 4050, 10), [0; 10], "what was cut off is gone");
}

#[test]
fn what_is_no_segment_is_a_plain_file() {
    let (_directory, disk, _) = disks();
    let file = disk.create("MANIFEST", 4096).expect("room");
    file.write_at(0, b"text").expect("room");
    assert_eq!(file.lend(0, 4), None);
    assert_eq!(read(&file, 0, 4), b"text");
    let empty = disk.create("0000000000000002.seg", 0).expect("room");
    empty.write_at(0, b"text").expect("room");
    assert_eq!((empty.lend(0, 4), empty.size()), (None, Ok(4)));
    // Opened again it has a length, and is mapped.
    assert_eq!(disk.open("0000000000000002.seg").expect("there").lend(0, 4), Some(b"text".as_slice()));
}

#[test]
fn errors_are_those_of_files() {
    let (directory, disk, _) = disks();
    let kind = |error: gramme_store::DiskError| error.kind();
    assert_eq!(disk.open("0000000000000009.seg").map(drop).map_err(kind), Err(DiskErrorKind::NotFound));
    disk.create("0000000000000009.seg", 4096).expect("room");
    let again = disk.create("0000000000000009.seg", 4096).map(drop);
    assert_eq!(again.map_err(kind), Err(DiskErrorKind::AlreadyExists));
    // More than any file system has: no file is left, and none is mapped.
    let huge = disk.create("000000000000000a.seg", 1 << 60).map(drop).map_err(kind);
    assert_eq!(huge, Err(DiskErrorKind::NoSpace));
    assert!(!disk.list().expect("listed").contains(&"000000000000000a.seg".to_owned()));
    // Names that others hold maps of are not moved to.
    assert!(disk.rename("0000000000000009.seg", "b").is_err());
    let plain = directory.path().join("plain");
    std::fs::write(&plain, b"a file").expect("room");
    // SAFETY: nothing is mapped.
    let refused = unsafe { MappedDisk::open(&plain) }.map(drop);
    assert_eq!(refused.map_err(kind), Err(DiskErrorKind::NotADirectory));
}

#[test]
fn a_removed_file_goes_on_being_lent() {
    let (_directory, disk, _) = disks();
    let file = disk.create("0000000000000001.seg", 4096).expect("room");
    file.write_at(100, b"still here").expect("room");
    disk.remove("0000000000000001.seg").expect("there");
    assert_eq!(file.lend(100, 10), Some(b"still here".as_slice()));
}
