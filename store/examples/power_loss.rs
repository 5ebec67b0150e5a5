//! The two ends of `scripts/power-loss`, which cuts the power of a real file system under a store.
//!
//! `power_loss write DIRECTORY MARK COUNT` makes so many writes and, after each sync, writes the number of the last durable one
//! to the file MARK. With `early` behind it, it does so before the sync: a store that lies, to show that this would be found.
//!
//! `power_loss check DIRECTORY DURABLE` opens what a power cut left, given the last number that was marked before it.

use gramme_store::{FileDisk, Options, Read, Store, verify};
use std::collections::BTreeMap;
use std::error::Error;
use std::os::unix::fs::FileExt;
use std::path::Path;

const KEYS: u64 = 150;
const SLOT: u16 = 1;

/// What the write of a number does. The numbers are the store's positions, so they say all that there is to know.
enum Write {
    Put,
    Delete,
    DropSlot,
}

fn key(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9) % KEYS
}

fn value(number: u64) -> Vec<u8> {
    let mut value = vec![number.to_le_bytes()[0]; 8 + usize::try_from(number * 31 % 900).expect("short")];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

fn write_of(number: u64, state: &BTreeMap<u64, u64>) -> Write {
    if number.is_multiple_of(997) && !state.is_empty() {
        Write::DropSlot
    } else if number.is_multiple_of(11) && state.contains_key(&key(number)) {
        Write::Delete
    } else {
        Write::Put
    }
}

fn apply(number: u64, state: &mut BTreeMap<u64, u64>) {
    match write_of(number, state) {
        Write::Put => drop(state.insert(key(number), number)),
        Write::Delete => drop(state.remove(&key(number))),
        Write::DropSlot => state.clear(),
    }
}

fn open(directory: &Path, seed: u64) -> Result<Store<FileDisk>, Box<dyn Error>> {
    let options = Options::new((u128::from(seed) + 1).to_le_bytes()).with_segment_bytes(64 << 10);
    let (store, recovery) = Store::open(FileDisk::open(directory)?, options)?;
    // What a power cut leaves of unsynced writes is no damage.
    if !recovery.damage.is_empty() {
        return Err(format!("damage is reported: {recovery:?}").into());
    }
    Ok(store)
}

fn write(directory: &Path, mark: &Path, count: u64, early: bool) -> Result<(), Box<dyn Error>> {
    let mark = std::fs::OpenOptions::new().write(true).open(mark)?;
    let mut store = open(directory, 0)?;
    let mut state = BTreeMap::new();
    for number in 1..=count {
        let bytes = key(number).to_le_bytes();
        let position = match write_of(number, &state) {
            Write::Put => store.put(SLOT, &bytes, &value(number), number)?,
            Write::Delete => store.delete(SLOT, &bytes)?,
            Write::DropSlot => store.drop_slot(SLOT)?,
        };
        apply(number, &mut state);
        assert_eq!(position.as_u64(), number, "one position for each write");
        if number.is_multiple_of(7) {
            if early {
                mark.write_at(&number.to_le_bytes(), 0)?;
            }
            let durable = store.sync()?;
            mark.write_at(&durable.through().as_u64().to_le_bytes(), 0)?;
        }
        if number.is_multiple_of(20) {
            store.maintain(16 << 10)?;
        }
        // Openings write, too.
        if number.is_multiple_of(1201) {
            store.close()?;
            store = open(directory, number)?;
        } else if number.is_multiple_of(701) {
            drop(store);
            store = open(directory, number)?;
        }
    }
    store.close()?;
    Ok(())
}

fn check(directory: &Path, durable: u64) -> Result<(), Box<dyn Error>> {
    let mut shown = BTreeMap::new();
    for opening in 0..2 {
        let mut store = open(directory, u64::MAX - opening)?;
        let last = store.position().as_u64();
        if last < durable {
            return Err(format!("{durable} was durable, {last} is the last").into());
        }
        let mut state = BTreeMap::new();
        (1..=durable).for_each(|number| apply(number, &mut state));
        // Later writes may be there or not, each for itself.
        let mut allowed: BTreeMap<u64, Vec<Option<u64>>> =
            (0..KEYS).map(|key| (key, vec![state.get(&key).copied()])).collect();
        for number in durable + 1..=last {
            match write_of(number, &state) {
                Write::Put => allowed.entry(key(number)).or_default().push(Some(number)),
                Write::Delete => allowed.entry(key(number)).or_default().push(None),
                Write::DropSlot => allowed.values_mut().for_each(|of_key| of_key.push(None)),
            }
            apply(number, &mut state);
        }
        let mut found = BTreeMap::new();
        for (key, allowed) in allowed {
            let content = match store.get(SLOT, &key.to_le_bytes())? {
                Read::Absent => None,
                Read::Value { value: bytes, tag, .. } if bytes == value(tag) => Some(tag),
                other => return Err(format!("key {key} is {other:?}").into()),
            };
            if !allowed.contains(&content) {
                let found =
                    format!("key {key} is {content:?} where {allowed:?} may be; {durable} was durable");
                return Err(found.into());
            }
            found.insert(key, content);
        }
        if opening == 0 {
            shown = found;
        } else if shown != found {
            return Err("a second opening shows something else".into());
        }
    }
    let report = verify(&FileDisk::open(directory)?, None)?.report;
    if report.is_lossy() {
        return Err(format!("verify finds damage: {report:?}").into());
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["write", directory, mark, count] => write(directory.as_ref(), mark.as_ref(), count.parse()?, false),
        ["write", directory, mark, count, "early"] => {
            write(directory.as_ref(), mark.as_ref(), count.parse()?, true)
        }
        ["check", directory, durable] => check(directory.as_ref(), durable.parse()?),
        _ => Err("power_loss write DIRECTORY MARK COUNT [early] | power_loss check DIRECTORY DURABLE".into()),
    }
}
