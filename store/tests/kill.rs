//! Real processes, real files, kill -9: what a child said was durable is there, and nothing else than what it wrote.
//!
//! `GRAMME_STORE_KILLS=n` sets the number of kills. A few stores are written to at once: disks are waited for.

use gramme_store::{FileDisk, Options, Read, Store};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

const DIRECTORY: &str = "GRAMME_STORE_KILL_DIRECTORY";
const KEYS: u64 = 200;
/// Stores that are written to and killed side by side.
const STORES: u64 = 4;

/// Bytes of a record, at most: what stands before the value, and the value.
const LARGEST: u64 = 100 + 708;

fn value(number: u64) -> Vec<u8> {
    let mut value = vec![number.to_le_bytes()[0]; 8 + usize::try_from(number % 700).expect("short")];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

/// The key that the write of this number goes to.
fn key(number: u64) -> [u8; 8] {
    (number.wrapping_mul(0x9e37_79b9) % KEYS).to_le_bytes()
}

fn open(directory: &std::path::Path) -> Store<FileDisk> {
    let mut seed = [0; 16];
    seed[..4].copy_from_slice(&std::process::id().to_le_bytes());
    let options = Options::new(seed).with_segment_bytes(64 << 10);
    let (store, recovery) =
        Store::open(FileDisk::open(directory).expect("a directory"), options).expect("opens");
    assert!(recovery.damage.is_empty(), "a kill damages nothing: {recovery:?}");
    // Linux looks for a kill between the pages of a write, and ends it there: its record, the last one, is torn.
    assert!(recovery.torn.len() <= 1, "one write was under way: {recovery:?}");
    for torn in &recovery.torn {
        assert!(torn.end - torn.start <= LARGEST, "no more than the record of that write: {recovery:?}");
    }
    store
}

/// The child: writes until it is killed, and says what is durable, line by line.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let mut store = open(directory.as_ref());
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready {}", store.position().as_u64()).expect("a pipe");
    loop {
        let number = store.position().as_u64() + 1;
        let key = key(number);
        // A delete of what is not there would use no position.
        if number.is_multiple_of(11) && store.tag(1, &key).is_some() {
            store.delete(1, &key).expect("room");
        } else {
            store.put(1, &key, &value(number), number).expect("room");
        }
        if number.is_multiple_of(7) {
            store.sync().expect("syncs");
            writeln!(out, "durable {}", store.durable().through().as_u64()).expect("a pipe");
        }
        if number.is_multiple_of(20) {
            store.maintain(16 << 10).expect("maintains");
        }
    }
}

#[test]
fn what_was_durable_survives_kill_9() {
    let kills: u64 =
        std::env::var("GRAMME_STORE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    std::thread::scope(|scope| {
        for store in 0..STORES {
            scope.spawn(move || kill_again_and_again(store, kills.div_ceil(STORES)));
        }
    });
}

fn kill_again_and_again(store: u64, kills: u64) {
    let directory = std::env::temp_dir().join(format!("gramme-store-{}-kill-{store}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    let mut before: BTreeMap<u64, u64> = BTreeMap::new();
    let (mut total, mut checked) = (0, 0);
    for kill in 0..kills {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, &directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut durable = 0;
        // Some children get far, some not beyond their opening.
        let enough = (kill * STORES + store) * 37 % 400;
        let mut heard = 0;
        while heard <= enough {
            let Some(Ok(line)) = lines.next() else { break };
            if let Some(position) = line.strip_prefix("durable ") {
                durable = position.parse().expect("a number");
                heard += 1;
            } else if line.contains("ready") && enough == 0 {
                break;
            }
        }
        child.kill().expect("killed");
        // What it said before it died counts, too.
        for line in lines.map_while(Result::ok) {
            if let Some(position) = line.strip_prefix("durable ").and_then(|number| number.parse().ok()) {
                durable = position;
            }
        }
        child.wait().expect("dead");

        let mut store = open(&directory);
        let last = store.position().as_u64();
        assert!(last >= durable, "kill {kill}: {durable} was durable, {last} is the last");
        let mut found = BTreeMap::new();
        for key in 0..KEYS {
            match store.get(1, &key.to_le_bytes()).expect("readable") {
                Read::Value { value: bytes, tag, .. } => {
                    assert_eq!(bytes, value(tag), "kill {kill}: key {key}");
                    assert!(tag <= last);
                    found.insert(key, tag);
                }
                Read::Absent => {}
                Read::Pending(_) => panic!("reads are inline here"),
            }
        }
        for (key, tag) in &before {
            assert!(found.get(key).is_none_or(|now| now >= tag), "kill {kill}: key {key} went back");
        }
        // The last write of each key is known, but for those that may have been deletes.
        for number in last.saturating_sub(150)..=durable {
            let rewritten = (number + 1..=last).any(|later| key(later) == key(number));
            if number > 0 && !number.is_multiple_of(11) && !rewritten {
                let newest = found.get(&u64::from_le_bytes(key(number))).copied();
                assert_eq!(newest, Some(number), "kill {kill}");
                checked += 1;
            }
        }
        before = found;
        total = last;
        drop(store);
    }
    assert!(total > kills * 50 && checked > kills * 20, "{total} writes, {checked} checked");
    let _ = std::fs::remove_dir_all(&directory);
}
