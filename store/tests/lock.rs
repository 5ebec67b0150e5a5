//! The lock of a directory.
#![cfg(all(unix, feature = "std"))]

use gramme_store::{Disk, DiskErrorKind, FileDisk, OpenError, Options, Store, verify};
use std::path::{Path, PathBuf};
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

fn directory(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("gramme-store-{}-{name}", std::process::id()))
}

fn opened(path: &Path, seed: u8) -> Result<Store<FileDisk>, OpenError> {
    Store::open(FileDisk::open(path)?, Options::new([seed; 16])).map(|(store, _)| store)
}

fn is_locked<T>(opened: Result<T, OpenError>) -> bool {
    matches!(opened, Err(OpenError::Disk(error)) if error.kind() == DiskErrorKind::Locked)
}

#[test]
fn nobody_gets_in_by_removing_the_lock_or_putting_another_in_its_place() {
    let path = directory("unlocked");
    let mut store = opened(&path, 1).expect("opens");
    let lock = path.join("LOCK");
    let look = |path: &Path| verify(&FileDisk::open(path).expect("a directory"), None);
    for _ in 0..2 {
        // A second time with the file that the one who was refused has made.
        std::fs::remove_file(&lock).expect("it is there");
        assert!(is_locked(opened(&path, 2)) && is_locked(look(&path)));
        assert!(is_locked(opened(&path, 2)), "nor with the file that the first try made");
    }
    store.put(1, b"key", b"value", 1).expect("room");
    store.close().expect("closes");
    look(&path).expect("it is free");
    opened(&path, 3).expect("it is free").close().expect("closes");
    std::fs::remove_dir_all(&path).expect("it is there");
}

/// The lock keeps other processes out, and ends with its own. Needs the program `flock`.
#[test]
fn other_processes_are_kept_out_of_a_directory_and_its_lock_file() {
    let path = directory("others");
    let disk = FileDisk::open(&path).expect("a directory");
    let free = |what: &Path| {
        let tried = Command::new("flock").arg("-n").arg(what).args(["-c", "true"]).status();
        tried.map(|status| status.success()).ok()
    };
    let Some(true) = free(&path) else { return eprintln!("skipped: there is no flock") };
    let lock = disk.lock().expect("free");
    assert_eq!((free(&path), free(&path.join("LOCK"))), (Some(false), Some(false)));
    drop(lock);
    assert_eq!((free(&path), free(&path.join("LOCK"))), (Some(true), Some(true)));
    // A disk by itself holds nothing.
    let _again = FileDisk::open(&path).expect("a directory").lock().expect("free");
    std::fs::remove_dir_all(&path).expect("it is there");
}
