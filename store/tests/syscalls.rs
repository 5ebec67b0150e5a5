//! System calls that fail, injected from outside the process by strace: interrupted and failed transfers, a full disk, failed
//! syncs. Whatever happens, what the process said was durable is there afterwards.
//!
//! Where strace is missing or may not trace, this says so and checks nothing.

use gramme_store::{FileDisk, Options, Read, ReadError, Store};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

const DIRECTORY: &str = "GRAMME_STORE_SYSCALLS_DIRECTORY";
const PUTS: u64 = 400;

fn open(directory: &Path) -> Store<FileDisk> {
    let options = Options::new([3; 16]).with_segment_bytes(16 << 10);
    Store::open(FileDisk::open(directory).expect("a directory"), options).expect("opens").0
}

/// The child: writes until it is through or something fails, and says what is durable.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let options = Options::new([2; 16]).with_segment_bytes(16 << 10);
    let Ok(disk) = FileDisk::open(&directory) else { return };
    let Ok((mut store, _)) = Store::open(disk, options) else { return };
    for n in 1..=PUTS {
        if store.put(1, &(n % 50).to_le_bytes(), &[7; 300], n).is_err() {
            println!("refused {n}");
            continue;
        }
        if n % 10 == 0 {
            match store.sync() {
                Ok(_) => println!("durable {n}"),
                Err(_) => assert!(!store.writable(), "a failed sync is never tried again"),
            }
            let _ = store.maintain(4096);
            match store.get(1, &(n % 50).to_le_bytes()) {
                Ok(_) => {}
                Err(ReadError::Disk(error)) => println!("unread {n}: {error}"),
                Err(other) => panic!("a failed call is no damage: {other}"),
            }
        }
    }
}

fn may_trace() -> bool {
    let traced = Command::new("strace").args(["-o", "/dev/null", "true"]).status();
    let may = traced.is_ok_and(|status| status.success());
    if !may {
        println!("strace is missing or may not trace here: nothing was checked");
    }
    may
}

/// The child under strace, with what is to be traced; what it said.
fn run_traced(directory: &Path, trace: &Path, what: &[&str]) -> String {
    let run = Command::new("strace")
        .args(["-f", "-qq", "-o"])
        .arg(trace)
        .args(what)
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .output()
        .expect("it traced before");
    String::from_utf8_lossy(&run.stdout).into_owned()
}

#[test]
fn the_entries_of_all_directories_that_lead_to_the_store_are_synced() {
    let base = std::env::temp_dir().join(format!("gramme-store-{}-parents", std::process::id()));
    if !may_trace() {
        return;
    }
    std::fs::create_dir_all(&base).expect("room for the trace");
    let base = base.canonicalize().expect("it was just made");
    let (outer, trace) = (base.join("outer"), base.join("trace"));
    let (inner, store) = (outer.join("inner"), outer.join("inner/store"));
    run_traced(&store, &trace, &["-y", "-e", "trace=mkdir,rename,fsync,write"]);
    let traced = std::fs::read_to_string(&trace).expect("a trace");
    let all = |what: &str| -> Vec<usize> {
        traced.lines().enumerate().filter(|(_, line)| line.contains(what)).map(|(at, _)| at).collect()
    };
    let promised = *all("\"durable ").first().expect("it says what is durable");
    let is_synced = |directory: &Path, from: usize, what: &str| {
        let synced = all("fsync(").into_iter().filter(|at| {
            let line = traced.lines().nth(*at).expect("it was found");
            line.contains(&format!("<{}>", directory.display())) && line.ends_with("= 0")
        });
        assert!(synced.into_iter().any(|at| from < at && at < promised), "{what}: {traced}");
    };
    for (made, parent) in [(&outer, &base), (&inner, &outer), (&store, &inner)] {
        let made_at = *all(&format!("mkdir(\"{}\"", made.display())).last().expect("it was made");
        is_synced(parent, made_at, &format!("{} has an entry for {}", parent.display(), made.display()));
    }
    // And those of the store's own files.
    let named_at = *all("/MANIFEST\"").iter().filter(|at| **at < promised).max().expect("a manifest");
    is_synced(&store, named_at, "the manifest's entry");
    let _ = std::fs::remove_dir_all(&base);
}

#[test]
fn failed_system_calls_lose_nothing_that_was_promised() {
    let base = std::env::temp_dir().join(format!("gramme-store-{}-syscalls", std::process::id()));
    if !may_trace() {
        return;
    }
    let mut promised_in_all = 0;
    for (at, inject) in [
        "pwrite64:error=EINTR:when=2+3",
        // The first ones are the program loader's.
        "pread64:error=EINTR:when=5+2",
        "pread64:error=EIO:when=9+4",
        "fdatasync:error=EIO:when=9",
        "fdatasync:error=EIO:when=3",
        "pwrite64:error=EIO:when=60",
        "pwrite64:error=ENOSPC:when=40+9",
        "fallocate:error=ENOSPC:when=4+1",
        "fallocate:error=EINTR:when=1+2",
        // Of directories.
        "fsync:error=EIO:when=9",
        "ftruncate:error=EIO:when=1+2",
        "unlink:error=EIO:when=3+2",
        "rename:error=EIO:when=3",
        "openat:error=EMFILE:when=40+1",
    ]
    .iter()
    .enumerate()
    {
        let directory = base.join(at.to_string());
        std::fs::create_dir_all(&base).expect("room for the traces");
        let trace = base.join(format!("{at}.trace"));
        let call = inject.split(':').next().expect("the call's name");
        let (trace_call, inject_fault) = (format!("trace={call}"), format!("inject={inject}"));
        let out = run_traced(&directory, &trace, &["-e", &trace_call, "-e", &inject_fault]);
        let said = |what: &str| -> BTreeSet<u64> {
            out.lines().filter_map(|line| line.split(what).nth(1)?.parse().ok()).collect()
        };
        // Without a fault nothing would be shown by what follows.
        let traced = std::fs::read_to_string(&trace).expect("a trace");
        let faults = traced.lines().filter(|line| line.ends_with("(INJECTED)")).count();
        assert!(faults > 0, "{inject}: no call failed: {traced}");
        // An interrupted read is gone on with; any other failure is said as what it is.
        assert_eq!(out.contains("unread "), inject.starts_with("pread64:error=EIO"), "{inject}: {out}");
        let (promised, refused) = (said("durable ").last().copied().unwrap_or(0), said("refused "));
        promised_in_all += promised;
        if inject.contains("EINTR") {
            assert_eq!(promised, PUTS, "{inject}: an interruption is no error: {out}");
        }
        if !directory.join("MANIFEST").exists() {
            assert_eq!(promised, 0, "{inject}");
            continue;
        }
        let mut store = open(&directory);
        for key in 0..50u64 {
            let last = (1..=promised).rev().find(|n| n % 50 == key && !refused.contains(n));
            match store.get(1, &key.to_le_bytes()).expect("readable") {
                Read::Value { tag, .. } => {
                    assert!(Some(tag) >= last && tag % 50 == key, "{inject}: key {key}")
                }
                Read::Absent => assert_eq!(last, None, "{inject}: key {key}"),
                Read::Pending(_) => panic!("reads are inline here"),
            }
        }
    }
    assert!(promised_in_all > 3 * PUTS, "{promised_in_all}");
    let _ = std::fs::remove_dir_all(&base);
}
