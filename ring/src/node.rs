//! Who a node is.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::hex;

/// A node's identity, drawn at random once and kept for the node's life.
///
/// Printed and parsed as 16 lower-case hexadecimal digits, and so in serde's formats for people: JSON's readers may have no
/// number for it.
///
/// ```
/// use gramme_ring::NodeId;
/// let id: NodeId = "00000000000000ff".parse().unwrap();
/// assert_eq!(id, NodeId(255));
/// assert_eq!(id.to_string(), "00000000000000ff");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(#[serde(with = "hex")] pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::Digits(self.0).fmt(f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({:016x})", self.0)
    }
}

/// A text that is not a node id: anything but exactly 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseNodeIdError;

impl fmt::Display for ParseNodeIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a node id is 16 hexadecimal digits")
    }
}

impl core::error::Error for ParseNodeIdError {}

impl FromStr for NodeId {
    type Err = ParseNodeIdError;

    fn from_str(text: &str) -> Result<Self, ParseNodeIdError> {
        hex::parse(text).map(NodeId).ok_or(ParseNodeIdError)
    }
}
