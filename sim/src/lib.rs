//! Whole Gramme clusters in virtual time, from one seed.
//!
//! The engines are those of `gramme-quorum`, the stores those of `gramme-store`, composed by the same
//! [`Host`](gramme_node::host::Host) that the server runs; what is simulated is what ships. Simulated are only the
//! network, the disks' hardware, the clocks and the clients. A run is a storm of faults under load, then calm, in which
//! the cluster must heal; a [`checker`] watches every step and names the promise that is broken.
//!
//! ```
//! use gramme_sim::run::{Plan, run};
//! use core::time::Duration;
//!
//! let plan = Plan { length: Duration::from_secs(5), ..Plan::new(7, 3) };
//! let outcome = run(&plan, &mut |_| {});
//! assert!(outcome.violation.is_none());
//! // The same seed is the same run, event by event.
//! assert_eq!(run(&plan, &mut |_| {}).hash, outcome.hash);
//! ```
//!
//! A cluster can also be driven by hand, step by step, with a [`Script`](script::Script); the crate's tests tell the
//! field's known failures that way.
#![forbid(unsafe_code)]

pub mod checker;
pub mod clock;
mod disk;
pub mod event_hash;
pub mod html;
pub mod keyspaces;
pub mod network;
mod node;
pub mod queue;
pub mod rng;
pub mod run;
pub mod script;
pub mod swarm;
pub mod time;
pub mod timeline;
pub mod workload;
pub mod world;
