//! The lock of a directory.
#![cfg(all(unix, feature = "std"))]

use gramme_store::{FileDisk, Options, Store};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// A process that is just being started has all files of its parent open for a moment, the lock's among them.
#[test]
fn a_store_that_was_dropped_is_free_while_processes_start() {
    let path = std::env::temp_dir().join(format!("gramme-store-{}-lock", std::process::id()));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert!(Command::new("true").status().expect("it starts").success());
            }
        });
        let opened: Vec<_> = (0..60)
            .map(|seed| {
                let disk = FileDisk::open(&path).expect("a directory");
                Store::open(disk, Options::new([seed; 16])).map(drop)
            })
            .collect();
        done.store(true, Ordering::Relaxed);
        drop(std::fs::remove_dir_all(&path));
        assert!(opened.iter().all(Result::is_ok), "{opened:?}");
    });
}
