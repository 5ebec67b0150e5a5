//! Who has seen what: dots, exact dot sets, siblings, sealed contexts, version vectors and a hybrid logical clock.
//!
//! Replicas that accept writes without asking each other end up with concurrent values. This crate keeps those values
//! apart, tells which replaced which, and merges replicas in any order to the same object. It is `no_std`, needs no
//! allocator, and never panics on what a peer or a client sends.
//!
//! # Concurrent writes
//!
//! ```
//! use gramme_vclock::{Actor, GrowableDotSet, GrowableSiblings, Minter};
//!
//! // One for each open store; its actor is a new random number.
//! let (mut a, mut b) = (Minter::new(Actor(1)), Minter::new(Actor(2)));
//! let nothing_read = GrowableDotSet::new();
//!
//! // A cart is written through store `a`, and the writer gets a context back.
//! let mut at_a = GrowableSiblings::new();
//! let context = at_a.write(&nothing_read, &mut a, "bread")?.context;
//!
//! // Two clients go on from there, one through each store.
//! let mut at_b = at_a.clone();
//! at_a.write(&context, &mut a, "bread, milk")?;
//! at_b.write(&context, &mut b, "bread, eggs")?;
//!
//! // Neither saw the other's write: both stay, and "bread" is gone.
//! let Ok(_) = at_a.merge(at_b);
//! assert!(at_a.iter().map(|(_, cart)| *cart).eq(["bread, milk", "bread, eggs"]));
//!
//! // A write that has seen both replaces both.
//! let read = at_a.seen().clone();
//! at_a.write(&read, &mut a, "bread, milk, eggs")?;
//! assert_eq!(at_a.len(), 1);
//! # Ok::<(), gramme_vclock::WriteError<core::convert::Infallible>>(())
//! ```
//!
//! # Which type
//!
//! | to hold | take | without an allocator |
//! |---|---|---|
//! | the values of one key, and what they replaced | `GrowableSiblings` | [`FixedSiblings`] |
//! | exactly which events were seen | `GrowableDotSet` | [`FixedDotSet`] |
//! | how many events of each actor were seen | `GrowableVersionVector` | [`FixedVersionVector`] |
//! | the same, truncated as in the Dynamo paper | `GrowableTimedVector` | [`FixedTimedVector`] |
//! | what a client hands back, as text | `GrowableContext` | [`FixedContext`] |
//! | who names a store's next write | [`Minter`] | the same |
//! | stamps that rank concurrent values | [`Stamp`], [`Hlc`] | the same |
//!
//! The forms in a row are one type over different storage ([`Buf`]), with the same methods and the same encodings. The
//! growable ones come with feature `alloc`, a default; they stay off the heap up to 4 spans, 2 values and 10 actors of a version vector, and
//! their error is [`Infallible`](core::convert::Infallible), so `let Ok(..) =` needs no handling. The fixed ones answer
//! [`Full`], and have changed nothing then:
//!
//! ```
//! use gramme_vclock::{Actor, Dot, FixedDotSet, Full};
//!
//! let mut set = FixedDotSet::<1>::new();
//! set.insert(Dot { actor: Actor(1), counter: 1 })?;
//! set.insert(Dot { actor: Actor(1), counter: 2 })?; // the span grows
//! assert_eq!(set.insert(Dot { actor: Actor(1), counter: 9 }), Err(Full)); // this needs a second span
//! assert_eq!(set.last_of(Actor(1)), Some(2));
//! # Ok::<(), Full>(())
//! ```
//!
//! # Who may mint a dot
//!
//! All of this rests on one promise: no dot ever names two values. A [`Minter`] keeps it, if its store keeps three rules;
//! nothing said by exact sets is then ever untrue, whatever happens to a disk:
//!
//! 1. Each open of a store draws a new random [`Actor`] and makes it durable before its first dot leaves the machine. A
//!    store that was wiped, rolled back or copied can't issue a dot again, for it has no actor to issue it under. (A
//!    device whose memory can't be rolled back or copied may keep its actor instead: [`Minter::resume`].)
//! 2. A store that drops a copy, or mints a write and does not keep it, calls [`Minter::break_hold`].
//! 3. A store has one object for each key, and writes to that one. A clone is for others to merge: two that are written to in turn are two
//!    stores, and each claims what the other minted.
//!
//! Counters rise by one for every write that is minted, over all keys of a slot. The dots of *one* key therefore have gaps,
//! which is why histories are exact sets and not version vectors: "all up to 20" would claim another write of the same
//! key whose copy this store has handed on and dropped. A gap of a store's own closes only while the minter knows that
//! nothing of it was dropped.
//!
//! # Contexts as tokens
//!
//! A client should not have to understand a context, nor be able to make one up. A [`Context`] is sealed to the cluster and
//! the key it is for, as one line of text (for three actors with one span each and counters below 2^24 at most 80
//! characters, 72 as a rule; with two spans each at most 104):
//!
//! ```
//! use gramme_vclock::{Actor, GrowableContext, GrowableDotSet, SealKey, Span, Stamp, TokenError};
//!
//! let Ok(seen) = GrowableDotSet::from_spans([Span { actor: Actor(1), first: 1, last: 3 }]);
//! let context = GrowableContext { seen, stamp: Stamp::from_parts(1_790_000_000_000, 0) };
//!
//! let (secret, cluster) = (SealKey(*b"sixteen bytes..."), 7);
//! let token = context.to_token(&secret, cluster, b"cart:17")?;
//! assert_eq!(GrowableContext::open(token.as_bytes(), &secret, cluster, b"cart:17"), Ok(context));
//! assert_eq!(
//!     GrowableContext::open(token.as_bytes(), &secret, cluster, b"cart:18"),
//!     Err(TokenError::Forged)
//! );
//! # Ok::<(), gramme_vclock::SealError>(())
//! ```
//!
//! # Encodings
//!
//! What is stored or sent implements serde's traits, and decoding checks all that the type promises; [`Malformed`] names
//! what can be wrong, and [`Checked`] brings the name through formats that drop it. `FORMAT.md` in the package lays out the bytes (through postcard) and the tokens; both are frozen.
//!
//! # Sources
//!
//! DeCandia et al., *Dynamo: Amazon's Highly Available Key-value Store* (SOSP 2007); Preguiça et al., *Dotted Version
//! Vectors* (2010); Almeida et al., *Scalable and Accurate Causality Tracking for Eventually Consistent Stores* (2014);
//! Kulkarni et al., *Logical Physical Clocks* (2014).
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;

#[cfg(all(doctest, feature = "alloc"))]
#[doc = include_str!("../README.md")]
mod readme {}

/// The fixed forms keep their elements in its `Vec`.
pub use heapless;

mod buf;
mod causality;
mod checked;
mod context;
mod dot;
mod dot_set;
mod hlc;
mod malformed;
mod minter;
mod number;
mod siblings;
mod stamp;
mod token;
mod version_vector;

pub use buf::{Buf, Full};
#[cfg(feature = "alloc")]
pub use buf::{InlineVec, InlineVecIntoIter};
pub use causality::Causality;
pub use checked::Checked;
#[cfg(feature = "alloc")]
pub use context::GrowableContext;
pub use context::{Context, FixedContext};
pub use dot::{Actor, Dot, ParseActorError, Span};
#[cfg(feature = "alloc")]
pub use dot_set::GrowableDotSet;
pub use dot_set::{DotSet, FixedDotSet};
pub use hlc::Hlc;
pub use malformed::Malformed;
pub use minter::{Minter, WriteError};
#[cfg(feature = "alloc")]
pub use siblings::GrowableSiblings;
pub use siblings::{FixedSiblings, Merged, Siblings, SiblingsIter, Written};
pub use stamp::{ParseStampError, Stamp, StampOutOfRange};
pub use token::{MAX_TOKEN, SealError, SealKey, TokenError};
pub use version_vector::{
    Beside, Entry, FixedTimedVector, FixedVersionVector, IncrementError, VersionVector,
};
#[cfg(feature = "alloc")]
pub use version_vector::{GrowableTimedVector, GrowableVersionVector};
