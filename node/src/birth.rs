//! Who lives in a data directory: a node that was here before, the first of a new cluster, or one that is to join.

use crate::config::{Config, ConfigError};
use crate::handle::Addresses;
use crate::identity::{DataDir, DirError, Identity, Membership};
use crate::log::say;
use crate::server::{PARTITIONS, REPLICAS, ServeError};
use gramme_quorum::{Keyspace, Unsynced};
use gramme_ring::{ClusterId, Layout, Member, Membership as Ring, NodeId};
use gramme_store::{Damage, DamageKind, FileDisk, OpenError, Options, Reads, Recovery, Store, Torn};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

pub(crate) type Opened = (Identity, Membership, OpenStore);

pub(crate) struct OpenStore {
    pub(crate) store: Store<FileDisk>,
    /// Anything may be missing, or what was acknowledged before it was synced.
    pub(crate) incomplete: bool,
    pub(crate) unsynced: Option<Unsynced>,
}

/// Why only the latter may be.
const UNSYNCED: &str =
    "the machine went down while this node ran, and some keyspaces acknowledge writes before they are synced";

/// Finds out who lives in the directory, founding a cluster of one if nobody does, and opens the store.
pub(crate) fn open(dir: &DataDir, config: &Config, addresses: &Addresses) -> Result<Opened, ServeError> {
    let (identity, mut membership) = match dir.load()? {
        Some(found) => found,
        None if !config.join.is_empty() => join_one(dir, config, addresses)?,
        None => found_one(dir, config, addresses)?,
    };
    // Strangers come and go; who still is one says so again.
    let members: BTreeSet<NodeId> = membership.members().into_iter().map(|member| member.id).collect();
    membership.addresses.retain(|id, _| members.contains(id) || *id == identity.node);
    let mine = membership.addresses.entry(identity.node).or_default();
    if mine != addresses {
        *mine = addresses.clone();
        dir.save_membership(&membership)?;
    }
    // Where there are fewer copies than usual, the usual levels mean all of them.
    let replicas = membership.ring.layout().map_or(u8::MAX, Layout::replicas).max(REPLICAS);
    for (name, level) in [("r", config.r), ("w", config.w)] {
        if level > replicas {
            return Err(ConfigError::new(format!(
                "{name} is {level}, but this cluster keeps {replicas} copies: give a number from 1 to {replicas}"
            ))
            .into());
        }
    }
    let options = store_options(&identity)?.with_segment_bytes(config.segment_bytes);
    let (mut store, recovery) = open_store(&dir.store(), options)?;
    let before = dir.incomplete()?;
    let why = judge(dir, &recovery, &membership.ring)?;
    if why.is_none() {
        store.accept_losses();
    }
    let when = if before.is_none() { Unsynced::Now } else { Unsynced::Earlier };
    let unsynced = (why.as_deref() == Some(UNSYNCED)).then_some(when);
    let incomplete = why.is_some() && unsynced.is_none();
    Ok((identity, membership, OpenStore { store, incomplete, unsynced }))
}

fn found_one(
    dir: &DataDir,
    config: &Config,
    addresses: &Addresses,
) -> Result<(Identity, Membership), ServeError> {
    if let Some(file) = &config.secret_file {
        return Err(ConfigError::new(format!(
            "{} says which cluster to join, but not where that is: name some of its members with --join, or leave \
             --secret-file away to found a cluster of its own",
            file.display()
        ))
        .into());
    }
    let identity = Identity::random().map_err(|e| ServeError::Io("can't draw a random identity", e))?;
    let member = Member { id: identity.node, weight: config.weight, zone: config.zone.clone() };
    let ring = Ring::found(ClusterId(identity.cluster), REPLICAS, PARTITIONS, &[member])
        .map_err(ServeError::Layout)?;
    let addresses = BTreeMap::from([(identity.node, addresses.clone())]);
    let membership = Membership { node: identity.node, ring, addresses };
    found(dir, &identity, &membership)?;
    say!(
        "founded cluster {:016x} with this node, {}, as its only member in {}",
        identity.cluster,
        identity.node,
        dir.path().display()
    );
    Ok((identity, membership))
}

/// Makes a new node that is no member of any cluster yet, and knows only the secret of the one that it is to join.
fn join_one(
    dir: &DataDir,
    config: &Config,
    addresses: &Addresses,
) -> Result<(Identity, Membership), ServeError> {
    let Some(file) = &config.secret_file else {
        return Err(ConfigError::new(
            "a new node needs the cluster's secret to join: at a member run 'gramme secret --dir DIR > FILE', bring the \
             file here, and name it with --secret-file",
        )
        .into());
    };
    let (identity, open) = Identity::from_secret_file(file)?;
    if open {
        say!(
            "others than its owner can read {}: chmod 600 it, it is the key to all the data",
            file.display()
        );
    }
    let addresses = BTreeMap::from([(identity.node, addresses.clone())]);
    let membership = Membership { node: identity.node, ring: Ring::new(), addresses };
    found(dir, &identity, &membership)?;
    say!(
        "this is the new node {} of cluster {:016x}; it waits to be made a member: at any member run 'gramme cluster stage \
         join {}', then 'gramme cluster plan' and 'gramme cluster commit'",
        identity.node,
        identity.cluster,
        identity.node
    );
    Ok((identity, membership))
}

/// Writes a new node's directory, its empty store included.
pub(crate) fn found(dir: &DataDir, identity: &Identity, membership: &Membership) -> Result<(), ServeError> {
    dir.found(identity, membership, |path| {
        let (store, recovery) = open_store(path, store_options(identity)?)?;
        if !store.is_empty() || recovery.keys > 0 || recovery.is_lossy() {
            return Err(ServeError::StoreWithoutIdentity(path.to_owned()));
        }
        store.close().map_err(|e| ServeError::Io("can't create the store", io::Error::other(e)))
    })
}

fn store_options(identity: &Identity) -> Result<Options, ServeError> {
    let mut seed = [0; 16];
    getrandom::fill(&mut seed).map_err(|e| ServeError::Io("can't draw random bytes", io::Error::other(e)))?;
    Ok(Options::new(seed).with_reads(Reads::Cached).with_tree_key(identity.tree_key()))
}

fn open_store(path: &Path, options: Options) -> Result<(Store<FileDisk>, Recovery), ServeError> {
    let failed = |e| ServeError::Store(path.to_owned(), e);
    let disk = FileDisk::open(path).map_err(|e| failed(OpenError::Disk(e)))?;
    Store::open(disk, options).map_err(failed)
}

/// Which boot of this machine is running, where it says: what a process wrote outlives it as long as that lasts.
fn boot() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(boot.trim().to_owned()).filter(|boot| !boot.is_empty())
}

/// What the store has lost, a line for each place. Compaction moves what is left of a record, so that goes by the write that it was.
fn lost_places(recovery: &Recovery) -> BTreeSet<String> {
    let lost = recovery.damage.iter().filter(|damage| damage.is_lossy());
    let line = |damage: &Damage| {
        if let DamageKind::Record { slot, position: Some(position) } = damage.kind {
            return format!("slot {slot} write {}", position.as_u64());
        }
        let segment = damage.segment.map_or("-".to_owned(), |segment| segment.to_string());
        format!("{segment} {} {}", damage.start, damage.end)
    };
    lost.map(line).collect()
}

/// What the opening cut off, a line for each place.
fn torn_places(recovery: &Recovery) -> String {
    let line = |torn: &Torn| {
        let slot = torn.slot.map_or(String::new(), |slot| format!(" (slot {slot})"));
        format!(
            "segment {}: bytes {} to {}{slot} are no whole records: writes that the last stop cut short, or damage to the last \
             ones before it\n",
            torn.segment, torn.start, torn.end
        )
    };
    recovery.torn.iter().map(line).collect()
}

/// Why acknowledged data may be missing here, if it may. Once it may, that is remembered: a later run finds the same store
/// without a trace of what it lost. Or it finds the same damage again, though all is back, or was given up by the operator.
fn judge(dir: &DataDir, recovery: &Recovery, ring: &Ring) -> Result<Option<String>, DirError> {
    // First of all: the opening has cut it off, and the next one will not tell of it. A full disk is no reason not to start.
    let torn = torn_places(recovery);
    for place in torn.lines() {
        say!("{place}");
    }
    if !torn.is_empty()
        && let Err(error) = dir.add_torn_places(&torn)
    {
        say!("{error}; this is said here alone");
    }
    let boot = boot();
    let last = dir.last_boot()?;
    let went_down = !recovery.clean && (boot.is_none() || boot != last);
    let lost = lost_places(recovery);
    let noted = dir.lost_places()?;
    let is_settled = dir.incomplete()?.is_none() && lost.is_subset(&noted);
    let loss = if recovery.created {
        Some("the store was missing although this node was founded before")
    } else if recovery.is_lossy() && !is_settled {
        Some("durable records of the store are damaged")
    } else if went_down && Keyspace::outruns_the_disk(ring) && dir.incomplete()?.is_none() {
        Some(UNSYNCED)
    } else {
        None
    };
    if let Some(loss) = loss {
        dir.mark_incomplete(loss)?;
    }
    // After that: what is noted and not marked counts as settled. What can't be noted is a new loss to the next start.
    if lost != noted
        && let Err(error) = dir.save_lost_places(&lost)
    {
        say!("{error}");
    }
    if let Some(boot) = boot.filter(|boot| last.as_ref() != Some(boot))
        && let Err(error) = dir.save_boot(&boot)
    {
        say!("{error}");
    }
    let incomplete = dir.incomplete()?;
    if let Some(why) = &incomplete {
        let copies = if why == UNSYNCED { "its copies in those keyspaces" } else { "its copies" };
        say!(
            "{why}: this node takes writes, but {copies} count toward no quorum until it has what it may lack from the \
             other owners; if every other copy is lost too, accept what is left here by removing the file 'incomplete' in {}",
            dir.path().display()
        );
    }
    Ok(incomplete)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gramme_store::{Disk, MemDisk};

    /// Records in sealed segments, all read at an opening.
    fn options(seed: u8) -> Options {
        Options::new([seed; 16]).with_segment_bytes(4096).with_index_files(false)
    }

    /// Destroys the record whose value is all these bytes, or its value alone.
    fn destroy(disk: &MemDisk, byte: u8, with_header: bool) {
        let find = |name: String| {
            let bytes = disk.contents(&name)?;
            Some((name, bytes.windows(200).position(|window| window == [byte; 200])?))
        };
        let (name, at) = disk.list().expect("lists").into_iter().find_map(find).expect("its record");
        let start = if with_header { at - 41 } else { at };
        assert!(disk.overwrite(&name, start as u64, &[0xee; 100]));
    }

    #[test]
    fn damage_that_was_made_good_or_given_up_is_no_new_loss_and_other_damage_is() {
        let path = std::env::temp_dir().join(format!("gramme-birth-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("room");
        let (dir, ring, disk) = (DataDir::new(&path), Ring::new(), MemDisk::new());
        let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
        for n in 1..100u8 {
            store.put(1, &[n], &[n; 200], 0).expect("room");
        }
        store.close().expect("closes");
        let open = |seed| Store::open(disk.clone(), options(seed)).expect("opens").1;
        let judged = |recovery: &Recovery| judge(&dir, recovery, &ring).expect("room");
        assert_eq!(judged(&open(2)), None);
        destroy(&disk, 3, false);
        let why = judged(&open(3));
        assert!(why.is_some());
        assert_eq!(judged(&open(4)), why, "not before all is back");
        dir.clear_incomplete().expect("room");
        let again = open(5);
        assert!(again.is_lossy(), "the store tells of it until the room is had back");
        assert_eq!(judged(&again), None);
        // Compaction leaves a mark in the place of the record, elsewhere.
        let (mut store, _) = Store::open(disk.clone(), options(7)).expect("opens");
        store.accept_losses();
        for n in (1..40u8).filter(|n| *n != 3) {
            store.delete(1, &[n]).expect("room");
        }
        loop {
            let step = store.maintain(1 << 20).expect("room");
            if step.needs_sync {
                store.sync().expect("syncs");
            } else if !step.more {
                break;
            }
        }
        store.close().expect("closes");
        let moved = open(8);
        let places = |recovery: &Recovery| {
            let lossy = recovery.damage.iter().filter(|damage| damage.is_lossy());
            lossy.map(|damage| (damage.segment, damage.start)).collect::<Vec<_>>()
        };
        assert_eq!(places(&moved).len(), 1, "{moved:?}");
        assert_ne!(places(&moved), places(&again));
        assert_eq!(judged(&moved), None);
        destroy(&disk, 90, true);
        assert_eq!(judged(&open(6)), why);
        std::fs::remove_dir_all(&path).expect("it is there");
    }

    #[test]
    fn what_can_not_be_noted_is_no_reason_not_to_start() {
        let path = std::env::temp_dir().join(format!("gramme-notes-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        let (dir, ring, disk) = (DataDir::new(&path), Ring::new(), MemDisk::new());
        // As on a full disk no file can be written, but for the one that must.
        for name in ["torn.new", "damage.new", "boot.new"] {
            std::fs::create_dir_all(path.join(name)).expect("room");
        }
        let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
        for n in 1..100u8 {
            store.put(1, &[n], &[n; 200], 0).expect("room");
        }
        store.sync().expect("syncs");
        store.put(1, b"key", &[200; 200], 0).expect("room");
        drop(store);
        disk.kill();
        destroy(&disk, 3, true);
        destroy(&disk, 200, true);
        let (_, recovery) = Store::open(disk.clone(), options(2)).expect("opens");
        assert!(!recovery.torn.is_empty() && recovery.is_lossy(), "{recovery:?}");
        assert!(judge(&dir, &recovery, &ring).expect("started").is_some());
        std::fs::create_dir_all(path.join("incomplete.new")).expect("room");
        dir.clear_incomplete().expect("it is there");
        let refused = judge(&dir, &recovery, &ring).expect_err("this must not be forgotten");
        assert!(refused.to_string().contains("incomplete"), "{refused}");
        std::fs::remove_dir_all(&path).expect("it is there");
    }

    #[test]
    fn what_an_opening_cuts_off_is_written_down() {
        let path = std::env::temp_dir().join(format!("gramme-torn-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("room");
        let (dir, ring, disk) = (DataDir::new(&path), Ring::new(), MemDisk::new());
        let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
        store.put(1, b"key", &[7; 200], 0).expect("room");
        drop(store);
        disk.kill();
        destroy(&disk, 7, true);
        for seed in 2..5 {
            let (_, recovery) = Store::open(disk.clone(), options(seed)).expect("opens");
            assert_eq!(recovery.torn.is_empty(), seed > 2, "it is told once: {recovery:?}");
            assert_eq!(judge(&dir, &recovery, &ring).expect("room"), None);
            let noted = dir.torn_places().expect("readable");
            assert!(noted.starts_with("segment 0000000000000001: bytes 64 to "), "{noted}");
            assert_eq!(noted.lines().count(), 1, "{noted}");
        }
        std::fs::remove_dir_all(&path).expect("it is there");
    }
}
