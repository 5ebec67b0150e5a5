//! Snapshots: the store as it is at one moment, to be copied elsewhere while it goes on.

use crate::chain::{CHAIN, Chain, ENTRY_BYTES};
use crate::disk::{Disk, DiskError, DiskErrorKind, DiskFile};
use crate::error::WriteError;
use crate::leftovers::is_a_stores;
use crate::manifest::{Manifest, SaveError};
use crate::read_around::read_around;
use crate::segment::{Segment, SegmentId};
use crate::segments::entries;
use crate::store::Store;
use crate::sync::Position;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

/// Bytes that are copied at once.
const PIECE_BYTES: u64 = 1 << 20;

/// A store at one moment. It keeps its segments' files open, and with them their room, until it is dropped; the store
/// may write, compact and close meanwhile.
pub struct Snapshot<D: Disk> {
    manifest: Manifest,
    files: Vec<(SegmentId, D::File, u64)>,
    chain_file: Option<D::File>,
    chain: Chain,
    through: Position,
}

impl<D: Disk> core::fmt::Debug for Snapshot<D> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Snapshot")
            .field("through", &self.through)
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

/// How far a copy has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyProgress {
    /// Bytes copied.
    pub bytes_done: u64,
    /// Bytes in all.
    pub bytes: u64,
}

impl<D: Disk> Store<D> {
    /// Takes a snapshot of all writes so far, synced or not. Writes what is buffered, opens the chain's file and copies nothing;
    /// [`Snapshot::copy_to`] does, on any thread, while this store goes on.
    ///
    /// # Errors
    /// [`WriteError::Unreadable`]: the chain's file could not be opened. Nothing changed. As for [`flush`](Self::flush).
    pub fn snapshot(&mut self) -> Result<Snapshot<D>, WriteError> {
        self.flush()?;
        // One of which nothing can be read says so in the copy, too.
        let copied = |segment: &Segment<D::File>| segment.listed && (!segment.is_empty() || segment.damaged);
        let listed = || self.segments.iter().filter(|(_, segment)| copied(segment));
        let mut entries = entries(&self.segments);
        let tails: BTreeMap<SegmentId, u64> =
            listed().map(|(_, segment)| (segment.id, segment.tail)).collect();
        entries.retain_mut(|entry| {
            // In the copy nothing is written to them any more.
            entry.sealed = tails.get(&entry.id).copied();
            entry.sealed.is_some()
        });
        let chain_file = match self.disk.open(CHAIN) {
            Err(error) if error.kind() == DiskErrorKind::NotFound => None,
            opened => Some(opened.map_err(WriteError::Unreadable)?),
        };
        Ok(Snapshot {
            manifest: Manifest {
                generation: self.identity.generation + 1,
                store: self.identity.store,
                hash_key: self.identity.hash_key,
                next_segment: self.identity.next_segment,
                clean: true,
                chain_entries: self.chain.entries,
                head: self.chain.head,
                entries,
            },
            files: listed().map(|(_, segment)| (segment.id, segment.file.clone(), segment.tail)).collect(),
            chain_file,
            chain: self.chain.clone(),
            through: self.position(),
        })
    }
}

impl<D: Disk> Snapshot<D> {
    /// The last write that is in it.
    pub const fn through(&self) -> Position {
        self.through
    }

    /// Bytes that a copy takes, but for its manifest.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, _, len)| len).sum::<u64>() + self.chain.entries * ENTRY_BYTES as u64
    }

    /// Copies it to an empty disk, where it is a store of its own that can be opened, durable when this returns. The
    /// manifest comes last: a copy that was cut off is no store. `progress` is told after each piece.
    ///
    /// The copy is byte for byte: damage is copied, too, and found there as it is here; a filler stands for what the disk refuses to read. It has the store's identity, so
    /// only one of the two should go on being written to.
    ///
    /// # Errors
    /// [`DiskErrorKind::AlreadyExists`] if there is a store already, or a file with a name of a store's; nothing was touched. Others: what was copied is left
    /// behind, and is no store.
    pub fn copy_to<T: Disk>(&self, to: &T, mut progress: impl FnMut(CopyProgress)) -> Result<(), DiskError> {
        let _lock = to.lock()?;
        if to.list()?.iter().any(|name| is_a_stores(name)) {
            return Err(DiskError::new(DiskErrorKind::AlreadyExists, "copy a snapshot"));
        }
        let mut state = CopyProgress { bytes: self.bytes(), ..CopyProgress::default() };
        let mut told = |bytes| {
            state.bytes_done += bytes;
            progress(state);
        };
        for (segment, file, len) in &self.files {
            let target = to.create(&segment.file_name(), *len)?;
            copy(file, &target, 0, *len, &mut told)?;
            target.sync_data()?;
        }
        if self.chain.entries > 0 {
            let target = to.create(CHAIN, 0)?;
            let written = self.chain.entries * ENTRY_BYTES as u64 - self.chain.pending.len() as u64;
            if let Some(file) = &self.chain_file {
                copy(file, &target, 0, written, &mut told)?;
            }
            target.write_at(written, &self.chain.pending)?;
            target.sync_data()?;
        }
        to.sync_dir()?;
        self.manifest.save(to).map_err(SaveError::disk)
    }
}

fn copy<A: DiskFile, B: DiskFile>(
    from: &A,
    to: &B,
    mut at: u64,
    end: u64,
    told: &mut dyn FnMut(u64),
) -> Result<(), DiskError> {
    let mut piece = vec![0; usize::try_from(end.min(PIECE_BYTES)).expect("a piece")];
    while at < end {
        let want = usize::try_from((end - at).min(PIECE_BYTES)).expect("a piece");
        // What the disk refuses to read is damage in the copy, and the rest of it is worth having.
        let read = read_around(from, at, &mut piece[..want], &mut |_, _| ())?;
        if read == 0 {
            // A file that is cut off is damaged here, and shall be there.
            break;
        }
        to.write_at(at, &piece[..read])?;
        at += read as u64;
        told(read as u64);
    }
    Ok(())
}
