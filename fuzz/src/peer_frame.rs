//! Frames between peers: arbitrary streams, and good frames cut and damaged.

use crate::source::Source;

#[allow(dead_code, reason = "the server's own file, of which this uses a part")]
#[path = "../../node/src/peer/frame.rs"]
mod frame;

use frame::{FrameError, FrameReader, HEADER};

const LIMIT: usize = 5_000;

/// The first byte chooses what the rest is.
///
/// # Panics
/// If a stream and its frames disagree, or memory follows a promise.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let (choice, room, piece) = (source.byte(), usize::from(source.u16()) % 300, 1 + source.below(200));
    let stream = if choice % 2 == 0 {
        source.rest().to_vec()
    } else {
        let mut stream = Vec::new();
        let mut bodies = Vec::new();
        let damage = (choice >= 128).then(|| source.u16());
        while !source.is_empty() {
            let length = usize::from(source.byte()) * usize::from(source.byte() % 24 + 1);
            let mut body = source.bytes(length.min(32)).to_vec();
            body.resize(length, choice);
            let fits = frame::append(&mut stream, LIMIT, |out| out.extend_from_slice(&body));
            assert_eq!(fits, length <= LIMIT);
            if fits {
                bodies.push(body);
            }
        }
        match damage {
            Some(at) if !stream.is_empty() => {
                let at = usize::from(at) % (stream.len() * 8);
                stream[at / 8] ^= 1 << (at % 8);
            }
            _ => assert!(matches!(read(&stream, room, piece), (read, None) if read == bodies)),
        }
        stream
    };
    // However it is cut, the same frames, and those that a plain reading finds.
    let (bodies, error) = read(&stream, room, piece);
    let (expected, broken) = plain(&stream);
    assert_eq!(bodies, expected);
    assert_eq!(error.is_some(), broken);
}

fn read(stream: &[u8], room: usize, piece: usize) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let mut bodies = Vec::new();
    let mut rest = stream;
    let bound = 4 * (64 << 10) + 4 * stream.len();
    let (read, error) = crate::meter::within(bound + 2 * stream.len(), || {
        smol::block_on(async {
            let mut reader = FrameReader::new(room);
            loop {
                loop {
                    match reader.next(LIMIT) {
                        Ok(Some(body)) => bodies.push(body.to_vec()),
                        Ok(None) => break,
                        Err(error) => return (bodies, Some(error)),
                    }
                }
                let (mut now, later) = rest.split_at(piece.min(rest.len()));
                let had = now.len();
                let took = reader.fill(&mut now).await.expect("a slice can be read");
                if took == 0 {
                    assert_eq!(had, 0, "nothing was read where there was something");
                    return (bodies, None);
                }
                rest = &stream[stream.len() - later.len() - now.len()..];
            }
        })
    });
    (read, error)
}

/// The bodies in a stream up to the first that is not one, by the layout in the documentation.
fn plain(mut stream: &[u8]) -> (Vec<Vec<u8>>, bool) {
    let mut bodies = Vec::new();
    while let Some((header, rest)) = stream.split_first_chunk::<HEADER>() {
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if length > LIMIT {
            return (bodies, true);
        }
        if rest.len() < length {
            break;
        }
        let (body, after) = rest.split_at(length);
        if crc32fast::hash(body).to_le_bytes() != header[4..] {
            return (bodies, true);
        }
        bodies.push(body.to_vec());
        stream = after;
    }
    (bodies, false)
}
