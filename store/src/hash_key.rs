//! Whether the manifest's hash key is the one that the records were written with. The whole index goes by it: with another one every key
//! would be absent, and no checksum says anything.

use crate::checksum::Place;
use crate::disk::DiskFile;
use crate::error::OpenError;
use crate::read_around::read_around;
use crate::record::{HEADER_BYTES, Header};
use crate::segment::SEGMENT_HEADER_BYTES;
use alloc::vec;
use core::ops::Range;
use siphasher::sip::SipHasher13;

/// Bytes of a segment that are looked at: its header, which is read anyway, and a record with a short key behind it.
pub(crate) const HEAD_BYTES: usize = 512;

/// What a segment's first put says.
pub(crate) enum Witness {
    Agrees,
    /// Whole, and not to be found by its key; where it is.
    Disagrees(Range<u64>),
    /// There is none in the bytes that were read, or it is not whole.
    Silent,
}

/// Asks the first put in a segment's first bytes.
pub(crate) fn ask<F: DiskFile>(
    file: &F,
    head: &[u8],
    place: Place,
    hasher: &SipHasher13,
    mask: u64,
) -> Result<Witness, OpenError> {
    let mut at = SEGMENT_HEADER_BYTES;
    while at + HEADER_BYTES <= head.len() {
        let offset = at as u64;
        let Some(header) = Header::decode(&head[at..], place, offset) else { break };
        if !header.kind.is_put() {
            at += header.record_len();
            continue;
        }
        let Some(key) = head.get(at + HEADER_BYTES..at + HEADER_BYTES + header.key_len as usize) else {
            break;
        };
        if hasher.hash(key) & mask == header.fingerprint & mask {
            return Ok(Witness::Agrees);
        }
        // The key may have rotted: that is for its checksum to say.
        let mut record = vec![0; header.record_len()];
        let read = read_around(file, offset, &mut record, &mut |_, _| ())?;
        let is_whole = read == record.len() && header.body_is_intact(&record[HEADER_BYTES..], place, offset);
        return Ok(if is_whole { Witness::Disagrees(offset..offset + read as u64) } else { Witness::Silent });
    }
    Ok(Witness::Silent)
}
