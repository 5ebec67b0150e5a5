//! Frames: a length, a checksum, a body.
//!
//! ```text
//! offset  size  what
//!      0     4  length of the body in bytes, little-endian
//!      4     4  CRC-32 (IEEE) of the body, little-endian
//!      8     n  the body
//! ```
//!
//! A length is checked against the limit before anything is done about it, and memory grows with the bytes that
//! have arrived, not with the bytes that were promised. The checksum catches damage, not malice.

use smol::io::{AsyncRead, AsyncReadExt};
use std::fmt;
use std::io;

/// Bytes before a body.
pub(super) const HEADER: usize = 8;

/// What a reader's memory falls back to after a large frame.
const RESTING: usize = 64 << 10;

/// What was wrong with a frame. The connection is of no further use.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum FrameError {
    /// It claims more bytes than the limit.
    TooLarge {
        /// What it claims.
        claimed: u32,
        /// What is allowed here.
        limit: usize,
    },
    /// Its checksum disagrees with its body.
    Checksum,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::TooLarge { claimed, limit } => {
                write!(f, "a frame claims {claimed} bytes where {limit} are allowed")
            }
            FrameError::Checksum => f.write_str("a frame's checksum is wrong"),
        }
    }
}

impl std::error::Error for FrameError {}

impl From<FrameError> for io::Error {
    fn from(error: FrameError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// Appends one frame whose body `write` appends. Says whether the body kept to `limit`; if not, nothing is added.
pub(super) fn append(out: &mut Vec<u8>, limit: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    write(out);
    let body = start + HEADER;
    let Some(length) = u32::try_from(out.len() - body).ok().filter(|_| out.len() - body <= limit) else {
        out.truncate(start);
        return false;
    };
    let sum = crc32fast::hash(&out[body..]);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..body].copy_from_slice(&sum.to_le_bytes());
    true
}

/// Collects bytes and cuts frames out of them.
pub(super) struct FrameReader {
    storage: Vec<u8>,
    start: usize,
    end: usize,
}

impl FrameReader {
    /// Begins with room for `room` bytes.
    pub(super) fn new(room: usize) -> FrameReader {
        FrameReader { storage: vec![0; room.max(HEADER)], start: 0, end: 0 }
    }

    /// The same with at least this much room.
    pub(super) fn with_room(mut self, room: usize) -> FrameReader {
        let room = room.max(self.storage.len());
        self.storage.resize(room, 0);
        self
    }

    /// The body of the next whole frame, if it is there. A claim beyond `limit` is an error at once.
    pub(super) fn next(&mut self, limit: usize) -> Result<Option<&[u8]>, FrameError> {
        let Some((length, sum)) = self.header() else { return Ok(None) };
        if length as usize > limit {
            return Err(FrameError::TooLarge { claimed: length, limit });
        }
        let body = self.start + HEADER..self.start + HEADER + length as usize;
        if body.end > self.end {
            return Ok(None);
        }
        self.start = body.end;
        let body: &[u8] = &self.storage[body];
        if crc32fast::hash(body) != sum {
            return Err(FrameError::Checksum);
        }
        Ok(Some(body))
    }

    /// Reads once; zero means that the other side has closed. Call it only when [`next`](Self::next) found nothing.
    pub(super) async fn fill(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        self.make_room();
        let n = stream.read(&mut self.storage[self.end..]).await?;
        self.end += n;
        Ok(n)
    }

    fn header(&self) -> Option<(u32, u32)> {
        let header = self.storage[self.start..self.end].first_chunk::<HEADER>()?;
        let [a, b, c, d, e, f, g, h] = *header;
        Some((u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])))
    }

    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.storage.len() > 4 * RESTING {
                self.storage = vec![0; RESTING];
            }
        }
        let wanted = self.header().map_or(HEADER, |(length, _)| HEADER + length as usize);
        if self.start > 0 && (self.start + wanted > self.storage.len() || self.end == self.storage.len()) {
            self.storage.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.storage.len() {
            // Full, and the frame is not whole: what has arrived is at least half of what is taken now.
            let grown = (2 * self.storage.len()).max(RESTING);
            self.storage.resize(grown, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(bodies: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for body in bodies {
            assert!(append(&mut out, usize::MAX, |out| out.extend_from_slice(body)));
        }
        out
    }

    fn read_all(bytes: &[u8], room: usize, limit: usize) -> Result<Vec<Vec<u8>>, FrameError> {
        smol::block_on(async {
            let mut reader = FrameReader::new(room);
            let mut source = bytes;
            let mut bodies = Vec::new();
            loop {
                while let Some(body) = reader.next(limit)? {
                    bodies.push(body.to_vec());
                }
                if reader.fill(&mut source).await.expect("a slice can be read") == 0 {
                    return Ok(bodies);
                }
            }
        })
    }

    #[test]
    fn frames_come_out_as_they_went_in_whatever_the_room() {
        let large = vec![7u8; 300_000];
        let bytes = framed(&[b"", b"one", &large, b"two"]);
        for room in [1, 8, 9, 100, 400_000] {
            let bodies = read_all(&bytes, room, 300_000).expect("all are good");
            assert_eq!(
                bodies,
                [b"".to_vec(), b"one".to_vec(), large.clone(), b"two".to_vec()],
                "room {room}"
            );
        }
    }

    #[test]
    fn a_claim_of_4_gib_is_refused_before_memory_is_taken() {
        let mut reader = FrameReader::new(64);
        let mut source: &[u8] = &[0xff; 8];
        smol::block_on(reader.fill(&mut source)).expect("a slice can be read");
        let told = reader.next(1 << 20);
        assert!(matches!(told, Err(FrameError::TooLarge { claimed: u32::MAX, .. })));
        assert_eq!(reader.storage.len(), 64);
    }

    #[test]
    fn memory_follows_what_arrived_not_what_was_promised() {
        let mut bytes = framed(&[&vec![1u8; 8 << 20]]);
        bytes.truncate(1000);
        let mut reader = FrameReader::new(64);
        let mut source: &[u8] = &bytes;
        smol::block_on(async {
            while reader.fill(&mut source).await.expect("a slice can be read") > 0 {
                assert!(reader.next(16 << 20).expect("the claim is allowed").is_none());
            }
        });
        assert!(reader.storage.len() <= RESTING, "took {}", reader.storage.len());
    }

    #[test]
    fn every_flipped_bit_of_a_body_is_noticed() {
        let good = framed(&[b"some body"]);
        for bit in HEADER * 8..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(read_all(&bad, 64, 1000), Err(FrameError::Checksum)), "bit {bit}");
        }
    }

    #[test]
    fn a_body_over_the_limit_is_not_sent() {
        let mut out = b"before".to_vec();
        assert!(!append(&mut out, 3, |out| out.extend_from_slice(b"four")));
        assert_eq!(out, b"before");
    }
}
