//! Dynamo's replication as a state machine without I/O: N/R/W coordinators, sloppy quorum, hinted handoff
//! and read repair (DeCandia et al., *Dynamo: Amazon's Highly Available Key-value Store*, SOSP 2007).
//!
//! An [`Engine`] is one node's share of it. Hand it what happened ([`Input`]), do what it says ([`Output`]);
//! sockets, disks, clocks and randomness are the caller's. So the same engine runs behind real sockets and
//! in a simulation, and behaves the same in both.
//!
//! A cluster of one, driven by hand:
//!
//! ```
//! use bytes::Bytes;
//! use gramme_quorum::*;
//! use gramme_ring::{ClusterId, Member, Membership, NodeId};
//! use gramme_vclock::Actor;
//! use std::collections::BTreeMap;
//!
//! let me = NodeId(1);
//! let cluster = Membership::found(ClusterId(1), 3, 256, &[Member::new(me)]).unwrap();
//! let now = Now::default();
//! let mut engine = Engine::new(Config::new(me, Actor(7)), cluster, now);
//! let mut disk = BTreeMap::new();
//! let mut replies = Vec::new();
//!
//! let mut run = |engine: &mut Engine, input| {
//!     let mut inputs = vec![input];
//!     while let Some(input) = inputs.pop() {
//!         engine.handle(now, input);
//!         // One input, then all its outputs.
//!         while let Some(output) = engine.poll() {
//!             match output {
//!                 Output::Reply(_, reply) => replies.push(reply),
//!                 Output::Append { id, place, key, value } => {
//!                     match value {
//!                         Some((bytes, _tag)) => disk.insert((place, key), bytes),
//!                         None => disk.remove(&(place, key)),
//!                     };
//!                     inputs.push(Input::Synced(id, id.0)); // a disk that is never slow
//!                 }
//!                 Output::Load { id, place, key } => {
//!                     let found = disk.get(&(place, key)).cloned();
//!                     inputs.push(Input::Loaded(id, found.map_or(Loaded::Absent, Loaded::Found)));
//!                 }
//!                 // One node alone has nothing to compare with others, and this disk nothing to sync.
//!                 Output::Confirm(id) => inputs.push(Input::Written(id)),
//!                 _ => {}
//!             }
//!         }
//!     }
//! };
//!
//! while engine.poll().is_some() {} // the actor of this run goes to disk
//! run(&mut engine, Input::Synced(AppendId(1), 1));
//! let key = Bytes::from("cart");
//! let put = Op::Put {
//!     key: key.clone(),
//!     value: Bytes::from("2 apples"),
//!     content_type: None,
//!     expiry: None,
//!     cover: Cover::Held,
//!     options: WriteOptions::default(),
//! };
//! run(&mut engine, Input::Client(RequestId(1), put));
//! run(&mut engine, Input::Client(RequestId(2), Op::Get { key, options: ReadOptions::default() }));
//! assert!(matches!(&replies[0], Reply::Written { .. }));
//! assert!(matches!(&replies[1], Reply::Read(r) if r.siblings[0].value == "2 apples"));
//! ```
//!
//! The parts are of use alone, with another store or another network; each one's page shows how: [`Plan`] chooses a sloppy
//! quorum and [`Tally`] counts its answers by replica (together they are a coordinator of reads and writes),
//! [`FailureDetector`] judges a peer by its rhythm, [`Exchange`] finds what two replicas differ in, [`Admission`] holds background
//! work back. Gossip is [`gramme_ring::gossip`], and stands alone too.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod admission;
mod allowance;
mod anti_entropy;
mod config;
mod coordinator;
mod engine;
mod exchange;
mod failure_detector;
mod handoff;
mod input;
mod journal;
mod keyspace;
mod latency;
mod listing;
mod local;
mod membership;
pub mod message;
pub mod object;
mod op;
mod opening;
mod peers;
#[doc(hidden)]
pub mod planted;
mod pull;
mod recovery;
mod replica;
mod status;
mod sweep;
mod tally;
mod time;
mod transition;
mod view;
mod window;
pub mod wire;
mod work;

pub use admission::Admission;
pub use anti_entropy::SumsId;
pub use config::{Config, Limits, Timing};
pub use coordinator::{Plan, Target};
pub use engine::Engine;
pub use exchange::Exchange;
pub use failure_detector::FailureDetector;
pub use input::{AppendId, Input, ListCursor, ListId, LoadId, Loaded, Output, Page, Place};
pub use keyspace::{Durability, Keyspace, KeyspaceError, MAX_KEYSPACES, MAX_PREFIX, MAX_TTL_MS, Policy};
pub use membership::{ClusterError, ClusterOp};
pub use object::{Content, Object, Rank, Version};
pub use op::{
    Cover, Expiry, Found, Level, Need, Op, OpError, ReadOptions, Reading, Reply, RequestId, WriteOptions,
};
pub use opening::{Opening, Run};
pub use status::{PeerStatus, Status};
pub use tally::{Shortfall, Tally, Verdict};
pub use time::{Duration, Instant, Now};

/// Where an engine keeps the record of its runs.
pub const RUN_PLACE: Place = replica::RUN;
/// The record's key.
pub const RUN_KEY: &[u8] = replica::RUN_KEY;

/// The first and the last of the slots in which an engine keeps hints.
pub const HINT_PLACES: (Place, Place) = (Place(0x8000), Place(0xffff));

/// Bytes of the longest key.
pub const MAX_KEY: usize = 65_536;
/// Bytes of the longest content type.
pub const MAX_CONTENT_TYPE: usize = 255;
