//! A node of a small mesh of sensors, as its firmware would have it: no `std`, no allocator.
//!
//! The nodes share one setting that anyone may change at any of them, in range of the others or not. Radio frames carry
//! the whole object; they get lost, arrive twice and in any order. A node believes what a frame says of others (where
//! strangers can reach the radio, frames must be sealed), but nothing of its own settings that it never made.
//!
//! A node keeps its actor when it restarts, so that a history has one span for each node and not for each start. What it must
//! do for that is in [`Minter::resume`]: [`Node::set`], then the frame to flash, then to the radio. And before it sets
//! anything, as after it has received, the floor of its clock goes to flash, if there is one to store ([`Node::reserve`]).

use core::fmt;
use gramme_vclock::{Actor, FixedSiblings, Full, Hlc, Minter, Stamp, WriteError};

/// Seconds between two measurements, and when that was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Setting {
    /// Seconds between two measurements.
    pub(crate) interval: u16,
    /// When it was set; of concurrent settings the latest is in force.
    pub(crate) stamp: Stamp,
}

/// At most so many settings at once.
const SETTINGS: usize = 4;
/// At most so many nodes, those counted twice whose flash was wiped.
const SPANS: usize = 8;

/// The settings not replaced, and all that were ever made.
pub(crate) type Settings = FixedSiblings<Setting, SETTINGS, SPANS>;

/// The longest frame that [`Node::frame`] writes, in bytes: two lengths; spans of an actor, a first counter and a
/// length, which are not both above 2^63; settings of an actor, a counter, an interval and a stamp.
pub(crate) const FRAME: usize = 2 + SPANS * (8 + 10 + 9) + SETTINGS * (8 + 10 + 3 + 9);

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    minter: Minter,
    clock: Hlc,
    settings: Settings,
}

/// Why a node did not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum NodeError {
    /// There is no room for another concurrent setting or another span of history. Nothing was changed.
    Full,
    /// A frame is not one. Nothing was changed.
    Garbled,
}

impl From<Full> for NodeError {
    fn from(_: Full) -> NodeError {
        NodeError::Full
    }
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NodeError::Full => "no room",
            NodeError::Garbled => "garbled frame",
        })
    }
}

impl core::error::Error for NodeError {}

impl Node {
    /// A node that starts for the first time, or with its flash wiped; `random` is fresh from the hardware's source, and goes
    /// to flash first of all.
    pub(crate) fn start(random: u64) -> Node {
        Node { minter: Minter::new(Actor(random)), clock: Hlc::new(Stamp::ZERO), settings: Settings::new() }
    }

    /// A node that starts again, from what it drew at its first start, and the last floor and the last frame that went to
    /// flash.
    pub(crate) fn restart(random: u64, floor: Stamp, flash: &[u8]) -> Result<Node, NodeError> {
        let settings: Settings = postcard::from_bytes(flash).map_err(|_| NodeError::Garbled)?;
        // One object is all that a node ever writes, and it drops none: its own history tells how often.
        let minted = settings.seen().last_of(Actor(random)).unwrap_or(0);
        Ok(Node { minter: Minter::resume(Actor(random), minted, 0), clock: Hlc::new(floor), settings })
    }

    /// The floor to write to flash, if it is due: then [`Node::reserved`].
    pub(crate) fn reserve(&self, wall_ms: u64) -> Option<Stamp> {
        self.clock.reserve(wall_ms)
    }

    /// The floor is in flash.
    pub(crate) fn reserved(&mut self, floor: Stamp) {
        self.clock.reserved(floor);
    }

    /// Someone turns the knob: this replaces all that the node knew.
    pub(crate) fn set(&mut self, interval: u16, wall_ms: u64) -> Result<(), NodeError> {
        let shown = self.settings.seen().clone();
        let stamp = self.clock.tick(wall_ms);
        match self.settings.write(&shown, &mut self.minter, Setting { interval, stamp }) {
            Ok(_) => Ok(()),
            Err(WriteError::Ahead) => Err(NodeError::Garbled),
            Err(_) => Err(NodeError::Full),
        }
    }

    /// The setting in force: the latest of those not replaced.
    pub(crate) fn interval(&self) -> Option<u16> {
        self.settings
            .iter()
            .max_by_key(|(dot, setting)| (setting.stamp, *dot))
            .map(|(_, setting)| setting.interval)
    }

    /// How many settings nobody has chosen between yet.
    pub(crate) fn conflicts(&self) -> usize {
        self.settings.len()
    }

    /// What to send.
    pub(crate) fn frame<'a>(&self, buffer: &'a mut [u8; FRAME]) -> Result<&'a [u8], NodeError> {
        postcard::to_slice(&self.settings, buffer).map(|frame| &*frame).map_err(|_| NodeError::Full)
    }

    /// Takes in what another node sent, and says whether it told anything new.
    pub(crate) fn receive(&mut self, frame: &[u8], wall_ms: u64) -> Result<bool, NodeError> {
        let theirs: Settings = postcard::from_bytes(frame).map_err(|_| NodeError::Garbled)?;
        // Settings that this node is yet to make: they would look replaced as soon as it makes them.
        if self.minter.is_behind(theirs.seen()) {
            return Err(NodeError::Garbled);
        }
        let latest = theirs.iter().map(|(_, setting)| setting.stamp).max();
        let changed = self.settings.merge(theirs)?.changed;
        if let Some(stamp) = latest {
            self.clock.observe(wall_ms, stamp);
        }
        Ok(changed)
    }
}
