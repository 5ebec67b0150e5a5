//! A log-structured key-value store that can be trusted, for programs that bring their own disk, threads and randomness.
//!
//! Bitcask's idea taken further: writes go to the end of a log, an index in memory says where each key's last record is,
//! and a read is one disk access. Around it stands what a store is chosen for: every record has a checksum that is verified
//! at every read; damage is reported and costs the damaged record only; and *written*, *durable* and *acknowledged* are
//! told apart by types.
//!
//! ```
//! use gramme_store::{MemDisk, Options, Read, Store};
//!
//! // `FileDisk::open("a/directory")` for real; the seed comes from the operating system's randomness.
//! let disk = MemDisk::new();
//! let (mut store, recovery) = Store::open(disk.clone(), Options::new([7; 16]))?;
//! assert!(recovery.created);
//!
//! // A write can be read at once. Slot 3, key, value, and a tag that is kept in memory beside the key.
//! let written = store.put(3, b"amber", b"fossil resin", 1)?;
//! assert!(matches!(store.get(3, b"amber")?, Read::Value { value, tag: 1, .. } if value == b"fossil resin"));
//!
//! // It is durable when a sync has covered it. The job may run on another thread while writes go on; one sync serves
//! // all writes that wait for it. Only a sync that succeeded makes a `Durable`: ask for one before you say "done".
//! let job = store.begin_sync().expect("there is something to sync");
//! let later = store.put(3, b"basalt", b"cooled lava", 1)?;
//! let durable = store.complete_sync(job.run())?;
//! assert!(durable.covers(written) && !durable.covers(later));
//!
//! // The power fails. What was durable is there; what was not may be.
//! drop(store);
//! disk.crash(42);
//! let (mut store, recovery) = Store::open(disk, Options::new([8; 16]))?;
//! assert!(!recovery.is_lossy());
//! assert!(matches!(store.get(3, b"amber")?, Read::Value { .. }));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Slots
//!
//! Every key lives in a slot, a number that the caller chooses, or [`slot_of`] where it has none to choose by. A slot can be [listed](Store::list) and
//! [dropped](Store::drop_slot) with one record. The index has one small table per slot, so that its growth is never
//! felt; an index entry takes 22 bytes whatever the key's length, and tables are a quarter larger than what is in them at most.
//!
//! # Two faces
//!
//! [`Store`] is for programs that run their own loop: it never waits for a sync. [`SharedStore`] is for all others: a handle that
//! any number of threads write through, whose puts return when they are durable, many of them by one sync.
//!
//! # What an answer means
//!
//! [`Read::Absent`] means that the key is not there. A key whose record is damaged is *unknown*, and its read an error
//! ([`ReadError::Damaged`]), for as long as its header can be read. Where that is gone, too, nobody knows whose record it was: then each key
//! that is not found is unknown ([`ReadError::Unknown`]), and one that is found may have an older value, or be back though it was deleted.
//! [`Recovery::affects`] tells the slots of which that may be so. Such damage is told at every opening, and such keys are unknown, until the
//! caller [accepts](Store::accept_losses) it.
//!
//! [`Recovery`] says at each opening what was found: damage to durable records, told from what a crash left of writes that were never synced.
//! The latter, [`Recovery::torn`], is told by the opening that finds it and by no other (it is cut off, or noted as holding no records), and what
//! is not found is absent in spite of it: on a medium that keeps what was synced none of it was acknowledged. Whoever serves absences
//! from a medium that rots writes it down before anything else; if not even a crash in the middle of an opening may cost the report, [`verify()`]
//! is run first, which tells the same and changes nothing.
//!
//! # Starting, comparing, vouching, copying
//!
//! - A segment that is full is *sealed*: it gets an index file, from which the next opening takes it without reading it. An index file
//!   that is not of the very segment is passed over.
//! - With a [tree key](Options::tree_key) the store keeps a [`HashTree`] over slots: replicas compare its sums to find what differs.
//! - Sealed segments' hashes are chained. [`verify()`] gives the chain's [`Head`]; remembered elsewhere, it shows later that nothing
//!   was altered, removed, reordered or cut off since.
//! - A [`Snapshot`] is the store of one moment, to be copied to another disk while this one goes on.
//!
//! # Features
//!
//! `std` (on unless turned off) adds [`FileDisk`], [`SharedStore`] and [`MemDisk`], a disk with power cuts and other faults from a seed. Without
//! it the crate needs `alloc` and an implementation of [`Disk`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod batch;
mod chain;
mod checksum;
#[cfg(all(test, feature = "std"))]
mod collision_tests;
mod compaction;
mod disk;
mod error;
mod expiry;
mod few_files;
#[cfg(feature = "std")]
mod file_disk;
mod grouped;
mod hash_key;
mod hash_tree;
mod index_file;
mod key_index;
mod leftovers;
mod log_end;
mod manifest;
#[cfg(feature = "std")]
mod mem_disk;
mod open;
#[cfg(all(test, feature = "std"))]
mod opening_tests;
mod options;
mod read;
mod read_ahead;
mod read_around;
mod record;
mod recount;
mod recovery;
mod replay;
mod room;
mod scan;
mod scrub;
mod seal;
mod segment;
mod segments;
#[cfg(feature = "std")]
mod shared;
mod slot_table;
mod slots;
mod snapshot;
mod store;
mod summarise;
mod summary;
mod sync;
mod upkeep;
mod verify;
mod victims;

pub use chain::{Head, NotAHead};
pub use disk::{Disk, DiskError, DiskErrorKind, DiskFile};
pub use error::{OpenError, ReadError, WriteError};
#[cfg(feature = "std")]
pub use file_disk::{FileDisk, FileHandle, FileLock};
pub use hash_tree::HashTree;
#[cfg(feature = "std")]
pub use mem_disk::{MemDisk, MemFile, MemLock};
pub use options::{Options, Reads};
pub use read::{Cursor, Page, Read, ReadDone, ReadJob, ValueRef};
pub use read_ahead::ReadAhead;
pub use record::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
pub use recovery::{Damage, DamageKind, Progress, Recovery, Torn};
pub use scrub::Scrubbed;
pub use segment::SegmentId;
#[cfg(feature = "std")]
pub use shared::{SharedStore, Value};
pub use slots::{KEY_SLOTS, slot_of};
pub use snapshot::{CopyProgress, Snapshot};
pub use store::{Stats, Store};
pub use sync::{Durable, Position, SyncDone, SyncJob};
pub use upkeep::{Maintenance, MergeProgress};
pub use verify::{Verified, verify};

/// The README's example is a test, too.
#[cfg(all(doctest, feature = "std"))]
#[doc = include_str!("../README.md")]
pub struct Readme;
