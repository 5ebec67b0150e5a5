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
//!                 Output::Append { id, place, key, value, .. } => {
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
//! # The parts alone
//!
//! With another store or another network the parts are of use alone; each one's page shows how. [`Plan`] chooses a sloppy quorum,
//! [`Tally`] counts a write's answers by replica and [`Copies`] a read's, and says what to fetch and whom to repair:
//! together they are a coordinator. [`FailureDetector`] judges a peer by its rhythm, [`Exchange`] finds what two replicas differ in,
//! [`Admission`] holds background work back. Gossip is [`gramme_ring::gossip`], and stands alone too.
//!
//! A coordinator over five maps, some of which are dead. It learns that only from their silence; what takes turns here goes on at one
//! time in a program with a network.
//!
//! ```
//! use gramme_quorum::{Answer, Copies, Need, Plan, Shortfall, Tally, Target, Verdict};
//! use gramme_ring::NodeId;
//! use std::collections::{BTreeMap, BTreeSet, VecDeque};
//! use std::hash::{DefaultHasher, Hash, Hasher};
//!
//! /// A set of items: merging two is their union. Whatever merges like that will do, and `gramme_vclock::GrowableSiblings` for all the rest.
//! type Cart = BTreeSet<&'static str>;
//!
//! #[derive(Default)]
//! struct Replica {
//!     dead: bool,
//!     carts: BTreeMap<&'static str, Cart>,
//!     /// For whom a fallback keeps its cart.
//!     hints: BTreeSet<(NodeId, &'static str)>,
//! }
//!
//! impl Replica {
//!     /// Whether it has merged this cart, and keeps a hint for whom it stands for.
//!     fn write(&mut self, key: &'static str, cart: &Cart, stands_for: Option<NodeId>) -> bool {
//!         if !self.dead {
//!             self.carts.entry(key).or_default().extend(cart);
//!             self.hints.extend(stands_for.map(|owner| (owner, key)));
//!         }
//!         !self.dead
//!     }
//! }
//!
//! /// By node; the preference list of all keys is the same here.
//! type Replicas = BTreeMap<NodeId, Replica>;
//!
//! fn write(replicas: &mut Replicas, key: &'static str, cart: &Cart) -> Result<(), Shortfall> {
//!     // N = 3, and nobody is suspected yet.
//!     let mut plan = Plan::new(3, replicas.keys().copied(), |_| true);
//!     let mut tally = Tally::new([(Need::W, 2), (Need::Pw, 0)]);
//!     plan.targets.iter().for_each(|target| tally.ask(target.node, target.stands_for));
//!     let (mut ask, mut answer) = (VecDeque::from(plan.targets.clone()), None);
//!     while let Some(Target { node, stands_for }) = ask.pop_front() {
//!         if replicas.get_mut(&node).unwrap().write(key, cart, stands_for) {
//!             tally.yes(node);
//!         } else {
//!             tally.no(node);
//!             if let Some(fallback) = plan.substitute(node) {
//!                 tally.ask(fallback.node, fallback.stands_for);
//!                 ask.push_back(fallback);
//!             }
//!         }
//!         // The client is told as soon as it is certain; the rest of the replicas are written all the same.
//!         match tally.verdict() {
//!             Verdict::Pending => {}
//!             Verdict::Met => _ = answer.get_or_insert(Ok(())),
//!             Verdict::Impossible(short) => _ = answer.get_or_insert(Err(short)),
//!         }
//!     }
//!     // For whom nobody was left to stand in, a replica that has the write keeps a hint as well.
//!     let holder = replicas.keys().copied().find(|node| tally.has_agreed(*node));
//!     for (holder, owner) in holder.into_iter().flat_map(|holder| plan.uncovered.iter().map(move |o| (holder, *o))) {
//!         replicas.get_mut(&holder).unwrap().hints.insert((owner, key));
//!     }
//!     answer.unwrap()
//! }
//!
//! fn read(replicas: &mut Replicas, key: &'static str) -> Result<Cart, Shortfall> {
//!     let digest = |cart: &Cart| {
//!         let mut hasher = DefaultHasher::new();
//!         cart.hash(&mut hasher);
//!         hasher.finish()
//!     };
//!     let plan = Plan::new(3, replicas.keys().copied(), |_| true);
//!     let mut copies = Copies::new(plan, [(Need::R, 2), (Need::Pr, 0)], NodeId(1));
//!     let mut ask: VecDeque<(NodeId, bool)> = copies.asked().collect();
//!     let (mut merged, mut answer) = (Cart::new(), None);
//!     while let Some((node, whole)) = ask.pop_front() {
//!         let replica = &replicas[&node];
//!         match replica.carts.get(key) {
//!             _ if replica.dead => {
//!                 copies.no(node);
//!                 ask.extend(copies.substitute(node).map(|fallback| (fallback, true)));
//!             }
//!             None => _ = copies.take(node, Answer::Absent, false),
//!             Some(cart) if whole => {
//!                 copies.take(node, Answer::Object(digest(cart)), false);
//!                 merged.extend(cart);
//!             }
//!             Some(cart) => _ = copies.take(node, Answer::Digest(digest(cart)), false),
//!         }
//!         match copies.verdict() {
//!             Verdict::Pending => {}
//!             Verdict::Met => _ = answer.get_or_insert(Ok(merged.clone())),
//!             Verdict::Impossible(short) => _ = answer.get_or_insert(Err(short)),
//!         }
//!         // Who has something else than all that is merged is asked for it.
//!         ask.extend(copies.fetch().map(|node| (node, true)));
//!     }
//!     // Read repair, after the answer.
//!     for owner in copies.stale(digest(&merged)) {
//!         replicas.get_mut(&owner).unwrap().write(key, &merged, None);
//!     }
//!     answer.unwrap()
//! }
//!
//! let [a, b, c, d, e] = [1, 2, 3, 4, 5].map(NodeId);
//! let mut replicas: Replicas = [a, b, c, d, e].map(|node| (node, Replica::default())).into();
//! let cart = |items: &[&'static str]| items.iter().copied().collect::<Cart>();
//!
//! // One owner is dead: the first fallback stands in for it.
//! replicas.get_mut(&b).unwrap().dead = true;
//! assert_eq!(write(&mut replicas, "cart", &cart(&["apples"])), Ok(()));
//! assert!(replicas[&d].hints.contains(&(b, "cart")));
//! assert_eq!(read(&mut replicas, "cart"), Ok(cart(&["apples"])));
//!
//! // It is back with nothing, and another one is away: two writes that know nothing of each other.
//! replicas.get_mut(&b).unwrap().dead = false;
//! replicas.get_mut(&a).unwrap().dead = true;
//! assert_eq!(write(&mut replicas, "cart", &cart(&["pears"])), Ok(()));
//! replicas.get_mut(&a).unwrap().dead = false;
//! assert_eq!((&replicas[&a].carts["cart"], &replicas[&b].carts["cart"]), (&cart(&["apples"]), &cart(&["pears"])));
//!
//! // A read merges them, and repairs both.
//! assert_eq!(read(&mut replicas, "cart"), Ok(cart(&["apples", "pears"])));
//! assert!([a, b, c].iter().all(|owner| replicas[owner].carts["cart"] == cart(&["apples", "pears"])));
//!
//! // Handoff: what fallbacks keep goes to the owners, and the hints go when they have it.
//! for node in [a, b, c, d, e] {
//!     for (owner, key) in replicas[&node].hints.clone() {
//!         let kept = replicas[&node].carts[key].clone();
//!         if replicas.get_mut(&owner).unwrap().write(key, &kept, None) {
//!             replicas.get_mut(&node).unwrap().hints.remove(&(owner, key));
//!         }
//!     }
//! }
//! assert!(replicas.values().all(|replica| replica.hints.is_empty()));
//!
//! // With all but one dead neither can be had, and that is said as soon as the last one that was asked is known to be.
//! [b, c, d, e].iter().for_each(|node| replicas.get_mut(node).unwrap().dead = true);
//! let short = |need| Shortfall { need, have: 1, want: 2 };
//! assert_eq!(write(&mut replicas, "cart", &cart(&["plums"])), Err(short(Need::W))); // some have it: indeterminate
//! assert_eq!(read(&mut replicas, "cart"), Err(short(Need::R)));
//! ```
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
mod outcome;
mod peers;
#[doc(hidden)]
pub mod planted;
mod pull;
mod queues;
mod recovery;
mod replica;
mod status;
mod sweep;
mod tally;
mod task;
mod time;
mod transition;
mod view;
mod watch;
mod window;
pub mod wire;
mod work;

pub use admission::Admission;
pub use anti_entropy::SumsId;
pub use config::{Config, Limits, Timing, Unsynced};
pub use coordinator::{Answer, Copies, Plan, Target};
pub use engine::Engine;
pub use exchange::Exchange;
pub use failure_detector::FailureDetector;
pub use input::{AppendId, Input, ListCursor, ListId, LoadId, Loaded, Output, Page, Place};
pub use keyspace::{Durability, Keyspace, KeyspaceError, MAX_KEYSPACES, MAX_PREFIX, MAX_TTL_MS, Policy};
pub use membership::{ClusterError, ClusterOp};
pub use object::{Content, Object, Rank, Shrink, Version};
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
