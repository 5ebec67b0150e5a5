//! What the store is made of, by itself: the limits that its figures are to be held against.

use crate::{KEYS, VALUE};
use criterion::{BenchmarkId, Criterion, Throughput};
use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::os::unix::fs::FileExt;

/// Bytes of a record with a value of so many: header 40, key 16, all a multiple of 8.
fn record(value: usize) -> usize {
    (56 + value).next_multiple_of(8)
}

/// Bytes that are written before a file begins anew.
const LAP: u64 = 32 << 20;

pub(crate) fn run(c: &mut Criterion) {
    let mut group = c.benchmark_group("store/raw");
    for bytes in [100, 1024] {
        let directory = tempfile::tempdir().expect("room");
        let path = directory.path().join("raw");
        let file =
            File::options().create(true).truncate(true).read(true).write(true).open(&path).expect("a file");
        // Written once, so that the file has its blocks.
        let zeros = vec![0; 1 << 20];
        (0..LAP >> 20).for_each(|n| file.write_all_at(&zeros, n << 20).expect("room"));
        file.sync_all().expect("a disk that syncs");
        let len = record(bytes);
        let data = &[VALUE, VALUE].concat()[..len];
        group.throughput(Throughput::Elements(1));
        let mut at = 0;
        group.bench_function(BenchmarkId::new("write", bytes), |bench| {
            bench.iter(|| {
                file.write_all_at(data, at).expect("room");
                at = (at + len as u64) % (LAP - 4096);
            });
        });
        let mut buffer = std::io::BufWriter::with_capacity(256 << 10, &file);
        group.bench_function(BenchmarkId::new("buffered append with checksum", bytes), |bench| {
            bench.iter(|| {
                let sum = crc32fast::hash(black_box(data));
                buffer
                    .write_all(&sum.to_le_bytes())
                    .and_then(|()| buffer.write_all(&data[4..]))
                    .expect("room");
            });
        });
        drop(buffer);
        let mut into = vec![0; len];
        let mut n = 0;
        group.bench_function(BenchmarkId::new("pread", bytes), |bench| {
            bench.iter(|| {
                n = (n + 61_803) % KEYS;
                let at = n * len as u64 % (LAP - 4096);
                file.read_exact_at(&mut into, at).expect("readable");
                black_box(into[7])
            });
        });
        group.bench_function(BenchmarkId::new("write and fdatasync, preallocated", bytes), |bench| {
            bench.iter(|| {
                file.write_all_at(data, at).expect("room");
                at = (at + len as u64) % (LAP - 4096);
                file.sync_data().expect("a disk that syncs");
            });
        });
    }
    group.finish();
}
