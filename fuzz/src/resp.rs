//! The Redis protocol's parser: however the stream is cut, the same commands come out, and memory follows what was
//! received, never what was announced.

use crate::source::Source;

#[allow(dead_code, unreachable_pub, reason = "the server's own file, of which this uses a part")]
#[path = "../../node/src/redis/resp.rs"]
mod parser;

use parser::{Limits, Parser, ProtocolError, Request};

const LIMITS: Limits = Limits { arguments: 64, argument: 200, refusable: 4096, command: 600, inline: 100 };

#[derive(Debug, PartialEq)]
enum Item {
    Command(Vec<Vec<u8>>),
    TooLarge(usize),
}

/// The first bytes say how the rest is cut.
///
/// # Panics
/// If a cut makes a difference.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let seed = source.u64();
    let stream = source.rest();
    let whole = parse(stream, usize::MAX, 1);
    for (command, first) in whole.0.iter().zip(0..) {
        if let Item::Command(arguments) = command {
            assert!(!arguments.is_empty() && arguments.len() <= LIMITS.arguments, "command {first}");
            // An inline line of spaces may be longer than what is in it, never shorter.
            assert!(arguments.iter().all(|a| a.len() <= LIMITS.argument.max(LIMITS.inline)));
        }
    }
    assert_eq!(parse(stream, 1, 1), whole, "byte by byte");
    assert_eq!(parse(stream, 40, seed | 1), whole, "in pieces");
    again(&whole.0);
}

/// Feeds pieces of up to `most` bytes, with lengths from a seed, and takes what comes out after each.
fn parse(stream: &[u8], most: usize, seed: u64) -> (Vec<Item>, Option<ProtocolError>) {
    let mut parser = Parser::new(LIMITS);
    let mut random = seed;
    let mut rest = stream;
    let mut items = Vec::new();
    while !rest.is_empty() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let length = match most {
            usize::MAX => rest.len(),
            most => 1 + usize::try_from(random >> 33).expect("31 bits") % most,
        };
        let (piece, after) = rest.split_at(length.min(rest.len()));
        rest = after;
        parser.feed(piece);
        loop {
            match parser.next_command() {
                Ok(None) => break,
                Ok(Some(Request::Command(command))) => {
                    let kept = command.keep();
                    assert!(kept.len() == command.len() && kept.share(0).as_deref() == Some(command.name()));
                    items.push(Item::Command(command.iter().map(<[u8]>::to_vec).collect()));
                }
                Ok(Some(Request::TooLarge { limit })) => items.push(Item::TooLarge(limit)),
                Err(error) => {
                    parser.feed(b"*1\r\n$4\r\nPING\r\n");
                    assert_eq!(parser.next_command().err(), Some(error), "an error is for ever");
                    return (items, Some(error));
                }
            }
        }
        if most != usize::MAX {
            assert!(parser.buffered() <= 2 * LIMITS.command + most, "{} bytes kept", parser.buffered());
        }
    }
    (items, None)
}

/// What was read, sent as a client library sends it, is read again.
fn again(items: &[Item]) {
    for item in items {
        let Item::Command(arguments) = item else { continue };
        let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
        for argument in arguments {
            bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            bytes.extend_from_slice(argument);
            bytes.extend_from_slice(b"\r\n");
        }
        let limits = Limits { command: 1 << 20, ..LIMITS };
        let mut parser = Parser::new(limits);
        parser.feed(&bytes);
        match parser.next_command() {
            Ok(Some(Request::Command(command))) => assert!(command.iter().eq(arguments)),
            other => panic!("{other:?} for {arguments:?}"),
        }
        assert_eq!(parser.buffered(), 0);
    }
}
