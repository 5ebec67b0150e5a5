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

/// Real processes that may open few files.
#[cfg(unix)]
mod processes {
    use gramme_store::{DiskErrorKind, FileDisk, Options, Read, SharedStore, Store, WriteError};
    use std::fs::File;
    use std::path::Path;
    use std::process::Command;
    use std::time::{Duration, Instant};

    const DIRECTORY: &str = "GRAMME_STORE_FILES_DIRECTORY";
    const FILES: &str = "48";

    fn options(seed: u8) -> Options {
        Options::new([seed; 16]).with_segment_bytes(16 << 10)
    }

    fn open(directory: &Path, seed: u8) -> Store<FileDisk> {
        let disk = FileDisk::open(directory).expect("a directory");
        let (store, recovery) = Store::open(disk, options(seed)).expect("opens");
        assert!(recovery.damage.is_empty() && recovery.torn.is_empty(), "{recovery:?}");
        store
    }

    fn is_short(error: &WriteError) -> bool {
        matches!(error, WriteError::NewSegment(error) if error.kind() == DiskErrorKind::TooManyFiles)
    }

    fn upkeep(store: &mut Store<FileDisk>) {
        for _ in 0..10_000 {
            store.sync().expect("syncs");
            match store.maintain(1 << 20) {
                Ok(done) if done.more || done.needs_sync => {}
                Ok(_) => return,
                Err(error) => return assert!(is_short(&error), "{error}"),
            }
        }
        panic!("upkeep comes to no end");
    }

    /// New keys until no segment can be made for them; how many there are then.
    fn fill(store: &mut Store<FileDisk>, from: u32) -> u32 {
        for n in from.. {
            match store.put(1, &n.to_le_bytes(), &[1; 100], 1) {
                Ok(_) if n % 50 == 0 => store.sync().map(drop).expect("syncs"),
                Ok(_) => {}
                Err(error) => {
                    assert!(is_short(&error), "{error}");
                    return n;
                }
            }
        }
        unreachable!("files are few")
    }

    /// All that the rest of the process may open.
    fn others(opened: &mut Vec<File>) {
        while let Ok(file) = File::open("/dev/null") {
            opened.push(file);
        }
    }

    fn delete(store: &mut Store<FileDisk>, n: u32) {
        let mut deleted = store.delete(1, &n.to_le_bytes());
        if deleted.as_ref().is_err_and(is_short) {
            upkeep(store);
            deleted = store.delete(1, &n.to_le_bytes());
        }
        deleted.unwrap_or_else(|error| panic!("{n}: {error}, {:?}", store.stats()));
    }

    fn is_there(store: &mut Store<FileDisk>, n: u32) -> bool {
        matches!(store.get(1, &n.to_le_bytes()).expect("readable"), Read::Value { .. })
    }

    fn all_goes(directory: &Path) {
        let mut store = open(directory, 1);
        let stored = fill(&mut store, 0);
        assert!(stored > 1000, "{stored}");
        let mut opened = Vec::new();
        others(&mut opened);
        for n in (0..9).flat_map(|from| (from..stored).step_by(9)) {
            delete(&mut store, n);
            others(&mut opened);
        }
        upkeep(&mut store);
        assert!(store.is_empty());
        // With what compaction has given back puts go on, and so they do for as long as before once the others are through.
        store.put(1, b"more", &[1; 100], 1).expect("files were given back");
        opened.clear();
        let again = fill(&mut store, stored) - stored;
        assert!(again + again / 4 >= stored, "{stored} keys, then {again}");
        store.close().expect("closes");
    }

    fn all_opens(directory: &Path) {
        let mut store = open(directory, 1);
        let stored = fill(&mut store, 0);
        (0..stored).step_by(2).for_each(|n| delete(&mut store, n));
        store.sync().expect("syncs");
        for seed in 2..8 {
            drop(store);
            store = open(directory, seed);
            assert!(
                (0..stored).all(|n| is_there(&mut store, n) == (n % 2 == 1 && n >= u32::from(seed - 2) * 50))
            );
            let from = u32::from(seed - 2) * 50;
            (from..from + 50).filter(|n| n % 2 == 1).for_each(|n| delete(&mut store, n));
            store.sync().expect("syncs");
        }
        (0..stored).filter(|n| n % 2 == 1 && *n >= 300).for_each(|n| delete(&mut store, n));
        upkeep(&mut store);
        store.put(1, b"more", &[1; 100], 1).expect("files were given back");
        store.close().expect("closes");
    }

    fn many_threads_go_on(directory: &Path) {
        let disk = FileDisk::open(directory).expect("a directory");
        let (store, _) = SharedStore::open(disk, options(1)).expect("opens");
        let put = |n: u32| store.put_unsynced(1, &n.to_le_bytes(), &[1; 100], 1);
        let refused = (0u32..).find_map(|n| put(n).err().map(|error| (n, error)));
        let (stored, error) = refused.expect("files are few");
        assert!(is_short(&error), "{error}");
        // Upkeep, which a refusal has woken, makes fewer of the segments, and puts go on.
        let began = Instant::now();
        while let Err(error) = put(stored) {
            assert!(is_short(&error) && began.elapsed() < Duration::from_secs(30), "{error}");
            std::thread::yield_now();
        }
        let mut opened = Vec::new();
        others(&mut opened);
        for n in (0..9).flat_map(|from| (from..=stored).step_by(9)) {
            let mut deleted = store.delete_unsynced(1, &n.to_le_bytes());
            if deleted.as_ref().is_err_and(is_short) {
                // It may end with the next segment that puts don't get.
                let _ = store.maintain();
                deleted = store.delete_unsynced(1, &n.to_le_bytes());
            }
            deleted.unwrap_or_else(|error| panic!("{n}: {error}, {:?}", store.stats()));
        }
        store.close().expect("closes");
    }

    /// The child: does what it is told to.
    #[test]
    fn child() {
        let Some(directory) = std::env::var_os(DIRECTORY) else { return };
        let directory = Path::new(&directory);
        match directory.file_name().and_then(|name| name.to_str()) {
            Some("all_goes") => all_goes(directory),
            Some("all_opens") => all_opens(directory),
            Some("many_threads_go_on") => many_threads_go_on(directory),
            other => panic!("{other:?}"),
        }
    }

    fn run(what: &str) {
        let base = std::env::temp_dir().join(format!("gramme-store-{}-files", std::process::id()));
        let run = Command::new("sh")
            .args(["-c", "ulimit -n \"$0\" && exec \"$@\"", FILES])
            .arg(std::env::current_exe().expect("this program"))
            .args(["--exact", "processes::child", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, base.join(what))
            .output()
            .expect("a child");
        let _ = std::fs::remove_dir_all(base.join(what));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, errors) = (text(&run.stdout), text(&run.stderr));
        assert!(run.status.success() && out.contains("1 passed"), "{out}{errors}");
    }

    #[test]
    fn all_is_deleted_with_no_file_to_be_had() {
        run("all_goes");
    }

    #[test]
    fn a_store_that_took_the_last_files_opens_again() {
        run("all_opens");
    }

    #[test]
    fn many_threads_delete_with_no_file_to_be_had() {
        run("many_threads_go_on");
    }
}
