//! Who a node is.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// A node's identity, drawn at random once and kept for the node's life.
///
/// Printed and parsed as 16 lower-case hexadecimal digits.
///
/// ```
/// use gramme_ring::NodeId;
/// let id: NodeId = "00000000000000ff".parse().unwrap();
/// assert_eq!(id, NodeId(255));
/// assert_eq!(id.to_string(), "00000000000000ff");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
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
        // `from_str_radix` alone would let a sign through.
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ParseNodeIdError);
        }
        u64::from_str_radix(text, 16).map(NodeId).map_err(|_| ParseNodeIdError)
    }
}
