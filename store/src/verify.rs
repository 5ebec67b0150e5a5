//! Verification: everything that can be said of a store without changing it.

use crate::chain::{Chain, ENTRY_BYTES, Event, Head, SegmentHash};
use crate::disk::{Disk, DiskErrorKind};
use crate::error::OpenError;
use crate::index_file::{self, Subject};
use crate::leftovers::leftovers;
use crate::manifest::{Entry, Manifest};
use crate::open::load;
use crate::read_around::read_around;
use crate::recovery::{Damage, DamageKind, Recovery};
use crate::replay::{Plan, Replay};
use crate::segment::SegmentId;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use sha2::{Digest, Sha256};

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// What an opening that reads everything would report, and with it what only a verification looks at: the segments' hashes
    /// and the chain.
    pub report: Recovery,
    /// The chain's head: to be remembered elsewhere, and handed to a later verification.
    pub head: Head,
    /// Segments that the head stands for. The others (written to since the last sealing) are vouched for by
    /// their records' checksums alone.
    pub sealed_segments: u64,
}

/// Reads all of a store and says what is wrong with it, without changing anything on the disk, not even what an opening
/// would mend.
///
/// Beyond what an opening sees it hashes every sealed segment and the chain, so that alterations show which
/// the checksums were made to agree with, and segments that were removed or reordered. With `remembered`, the head that an earlier verification
/// of this store gave, it also shows if the store was cut back to an earlier state or rewritten: that head must be in the chain.
///
/// A chain vouches for what was sealed. Compaction replaces segments, and someone who can write the directory can pretend
/// it did: against that only a head remembered *after* each compaction helps.
///
/// The disk is locked meanwhile, unless it is one that can't be written at all.
///
/// # Errors
/// As for [`Store::open`](crate::Store::open), and [`OpenError::NoStore`] if there is none.
pub fn verify<D: Disk>(disk: &D, remembered: Option<Head>) -> Result<Verified, OpenError> {
    let _lock = match disk.lock() {
        Ok(lock) => Some(lock),
        Err(error) if matches!(error.kind(), DiskErrorKind::ReadOnly | DiskErrorKind::PermissionDenied) => {
            None
        }
        Err(error) => return Err(error.into()),
    };
    let names = disk.list()?;
    let Some((manifest, mut recovery)) = load(disk, &names)? else { return Err(OpenError::NoStore) };
    recovery.leftovers = leftovers(disk, &names, &manifest)?.names.len() as u64;
    let plan = Plan { fingerprint_mask: u64::MAX, tree_key: None, index_files: false, threads: 1 };
    let mut report = Replay::run(disk, &manifest, &plan, recovery, &mut |_| {})?.recovery;

    let mut sealed_segments = 0;
    for entry in &manifest.entries {
        let Some(len) = entry.sealed else { continue };
        check_index_file(disk, &manifest, entry, len, &mut report)?;
        let Some(hash) = entry.hash else { continue };
        sealed_segments += 1;
        let (found, unreadable) = hash_of(disk, entry.id, len)?;
        if found != hash && unreadable.is_empty() {
            let kind = DamageKind::Altered;
            report.damage.push(Damage { segment: Some(entry.id), start: 0, end: len, kind });
        }
        // Of those that it refused just now, too, the report has most.
        for (start, end) in unreadable {
            let has = |damage: &Damage| {
                damage.segment == Some(entry.id) && damage.start < end && start < damage.end
            };
            if !report.damage.iter().any(has) {
                let kind = DamageKind::Unreadable;
                report.damage.push(Damage { segment: Some(entry.id), start, end, kind });
            }
        }
    }
    check_chain(disk, &manifest, remembered, &mut report)?;
    report.damage.sort_by_key(|damage| (damage.segment, damage.start));
    Ok(Verified { report, head: manifest.head, sealed_segments })
}

/// A segment's hash, and the ranges that the disk refused to read for it.
fn hash_of<D: Disk>(
    disk: &D,
    segment: SegmentId,
    len: u64,
) -> Result<(SegmentHash, Vec<(u64, u64)>), OpenError> {
    let mut unreadable = Vec::new();
    let file = disk.open(&segment.file_name())?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    let mut at = 0;
    while at < len {
        let want = usize::try_from((len - at).min(1 << 20)).expect("a megabyte at most");
        let mut refused = |start, end| unreadable.push((start, end));
        let read = read_around(&file, at, &mut piece[..want], &mut refused)?;
        // Past the end of a file that was cut: sealing took it for zeros, too.
        let taken = if read == 0 { want } else { read };
        piece[read..taken].fill(0);
        hasher.update(&piece[..taken]);
        at += taken as u64;
    }
    Ok((hasher.finalize().into(), unreadable))
}

fn check_index_file<D: Disk>(
    disk: &D,
    manifest: &Manifest,
    entry: &Entry,
    len: u64,
    report: &mut Recovery,
) -> Result<(), OpenError> {
    let file = match disk.open(&index_file::file_name(entry.id)) {
        Err(error) if error.kind() == DiskErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let (store, segment, salt, hash) = (manifest.store, entry.id, entry.salt, entry.hash);
    let (first, last) = (entry.first, entry.last);
    let subject = Subject { store, segment, salt, len, hash, tree: 0, first, last };
    match index_file::read(&file, &subject, &mut |_| true) {
        Ok(Some(_)) => report.index_files += 1,
        // An opening passes over one that can't be read, too.
        Ok(None) | Err(_) => report.bad_index_files += 1,
    }
    Ok(())
}

/// The chain must follow from its beginning, lead to the manifest's head over the remembered one, and leave exactly the
/// segments that the manifest has.
fn check_chain<D: Disk>(
    disk: &D,
    manifest: &Manifest,
    remembered: Option<Head>,
    report: &mut Recovery,
) -> Result<(), OpenError> {
    let chain = Chain { entries: manifest.chain_entries, head: manifest.head, pending: Vec::new() };
    let mut met = remembered.is_none_or(|head| head == Chain::new(&manifest.store).head);
    let mut alive = BTreeMap::new();
    let broken = chain.replay(disk, &manifest.store, |event, head| {
        met |= remembered == Some(head);
        match event {
            Event::Sealed { segment, len, hash } => drop(alive.insert(segment, (len, hash))),
            Event::Dropped { segment } => drop(alive.remove(&segment)),
        }
    })?;
    if let Some(entry) = broken {
        let start = entry * ENTRY_BYTES as u64;
        let end = manifest.chain_entries * ENTRY_BYTES as u64;
        report.damage.push(Damage { segment: None, start, end, kind: DamageKind::Chain });
    } else {
        for entry in &manifest.entries {
            let known = alive.remove(&entry.id);
            if entry.hash.is_some() && known != entry.sealed.zip(entry.hash) {
                let end = entry.sealed.unwrap_or(0);
                report.damage.push(Damage {
                    segment: Some(entry.id),
                    start: 0,
                    end,
                    kind: DamageKind::Altered,
                });
            }
        }
        for (segment, (len, _)) in alive {
            report.damage.push(Damage {
                segment: Some(segment),
                start: 0,
                end: len,
                kind: DamageKind::Removed,
            });
        }
    }
    if !met {
        report.damage.push(Damage { segment: None, start: 0, end: 0, kind: DamageKind::HeadUnknown });
    }
    Ok(())
}
