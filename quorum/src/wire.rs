//! Messages as bytes: postcard, one message a frame. Framing, checksums and handshakes are the caller's.

use crate::message::Message;
use alloc::vec::Vec;
use core::fmt;

/// The largest frame that an engine with values up to `value_limit` sends or should accept, in bytes:
/// an object of as many full siblings as coordinators admit in the worst race, and the envelope.
#[must_use]
pub const fn max_frame(value_limit: usize) -> usize {
    4 * value_limit + (1 << 20)
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireError;

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("these bytes are not a message of this protocol version")
    }
}

impl core::error::Error for WireError {}

/// Appends the message's bytes to `out`.
pub fn encode(message: &Message, out: &mut Vec<u8>) {
    let buffer = core::mem::take(out);
    *out = postcard::to_extend(message, buffer).expect("serializing into memory does not fail");
}

/// Reads one message, all of `bytes`. Memory taken is bounded by the length of `bytes`.
///
/// # Errors
/// [`WireError`] if they are malformed, or go on past the message's end.
pub fn decode(bytes: &[u8]) -> Result<Message, WireError> {
    let (message, rest) = postcard::take_from_bytes(bytes).map_err(|_| WireError)?;
    if rest.is_empty() { Ok(message) } else { Err(WireError) }
}
