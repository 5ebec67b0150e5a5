//! A node of a small mesh of sensors, as its firmware would have it: no `std`, no allocator.
//!
//! The nodes share one setting that anyone may change at any of them, in range of the others or not. Radio frames carry
//! the whole object; they get lost, arrive twice and in any order.

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

/// At most 4 settings at once and a history of at most 8 spans.
pub(crate) type Settings = FixedSiblings<Setting, 4, 8>;

/// The longest frame that [`Node::frame`] writes, in bytes.
pub(crate) const FRAME: usize = 320;

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
    /// A node that has just started; `random` is fresh from the hardware's source.
    pub(crate) fn start(random: u64) -> Node {
        Node { minter: Minter::new(Actor(random)), clock: Hlc::new(Stamp::ZERO), settings: Settings::new() }
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
        for (_, setting) in theirs.iter() {
            self.clock.observe(wall_ms, setting.stamp);
        }
        Ok(self.settings.merge(theirs)?.changed)
    }
}
