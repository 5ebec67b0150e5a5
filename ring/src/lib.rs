//! Who owns what in a cluster: consistent hashing after Amazon's Dynamo (SOSP 2007), without std.
//!
//! Keys hash to 16384 [`Slot`]s, as in Redis Cluster; runs of slots form equal [`Partition`]s (the paper's strategy 3); a
//! [`Layout`] names the owners of each. It honours weights, puts replicas on distinct nodes and in distinct zones, and
//! is as balanced as integers allow.
//!
//! ```
//! use gramme_ring::{Layout, Member, NodeId, Slot, Zone};
//!
//! let member = |id, weight, zone| Member { id: NodeId(id), weight, zone: Zone::new(zone).unwrap() };
//! let members = [member(1, 1, "north"), member(2, 1, "south"), member(3, 2, "west"), member(4, 2, "west")];
//!
//! // Three replicas, 256 partitions.
//! let layout = Layout::compute(3, 256, &members, None)?;
//!
//! let partition = layout.partition_of(Slot::of(b"cart:{alice}"));
//! let owners: Vec<NodeId> = layout.owners(partition).collect();
//! assert_eq!(owners.len(), 3);
//!
//! // When owners are down, the next in the preference list stand in for them.
//! let all: Vec<NodeId> = layout.preference(partition).collect();
//! assert_eq!(all.len(), 4);
//! assert_eq!(all[..3], owners[..]);
//! # Ok::<(), gramme_ring::LayoutError>(())
//! ```
//!
//! There are no clocks, no threads and no random source in here: the same arguments give the same layout on every
//! platform.
//!
//! # Where to go on
//! - What a change of members moves: [`Layout::compute`] with the layout before, then [`Layout::plan`].
//! - Agreeing on members, N, Q and settings without a master: [`membership`], spread by [`gossip`].
//! - Moving data from one layout to the next while reads and writes go on: [`transition`]; from plan to end among nodes that
//!   gossip: `examples/join.rs`.
//! - Other hashes, other numbers of partitions, the paper's other strategies: [`token`].
//! - Clusters too large for everyone to know everyone: [`finger`].
//! - A device without an allocator: [`OwnerTable`], [`token::TokenTable`] and [`finger::FingerTable`] borrow their slices.
//!
//! # Features
//! `alloc` (default): all that has to be kept or computed. Without it stay [`NodeId`], [`Slot`], [`Partition`] and the
//! lookups on borrowed tables.
//!
//! # Errors and panics
//! Arguments, peers' messages and decoded bytes end in named errors, which say that nothing was changed; sizes are
//! checked before memory is taken. Where a format drops the names of errors, as postcard does, [`Checked`] brings those of layouts,
//! memberships, gossip's messages and their parts. More
//! replicas than nodes is no error of a [`Layout`]: a partition then has all nodes as owners, so that a cluster can begin with
//! one. Who needs exactly N asks for [`OwnerTable::replicas`], which refuses.
#![no_std]
#![forbid(unsafe_code)]
// The page tells of what `alloc` adds, also to who has left it out.
#![cfg_attr(not(feature = "alloc"), allow(rustdoc::broken_intra_doc_links))]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(test)]
extern crate std;

/// The README's example runs as well.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(feature = "alloc")]
mod checked;
pub mod finger;
#[cfg(feature = "alloc")]
pub mod gossip;
mod hex;
#[cfg(feature = "alloc")]
mod layout;
#[cfg(feature = "alloc")]
mod member;
#[cfg(feature = "alloc")]
pub mod membership;
mod mix;
mod node;
mod partition;
#[cfg(feature = "alloc")]
mod preference;
mod slot;
mod table;
pub mod token;
#[cfg(feature = "alloc")]
pub mod transition;

#[cfg(feature = "alloc")]
pub use checked::{Checked, Malformed};
#[cfg(feature = "alloc")]
pub use layout::{Gain, Layout, LayoutError, LayoutVersion, Load, Loss, MAX_MEMBERS, NodeChange, Plan};
#[cfg(feature = "alloc")]
pub use member::{Member, Zone, ZoneTooLong};
#[cfg(feature = "alloc")]
pub use membership::{Change, ClusterId, Membership};
pub use node::{NodeId, ParseNodeIdError};
pub use partition::{Partition, PartitionCount};
#[cfg(feature = "alloc")]
pub use preference::Preference;
pub use slot::{SLOTS, Slot};
pub use table::{OwnerTable, Owners, TableError};
#[cfg(feature = "alloc")]
pub use transition::{Phase, Step, Transition};
