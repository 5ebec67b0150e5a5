//! Reads commands from a client's byte stream: arrays of bulk strings, or lines of words for people with a
//! terminal (`SET greeting "hello world"`).
//!
//! The parser is incremental: bytes go in as they come with [`Parser::feed`], whole commands come out of
//! [`Parser::next_command`], and how the stream was cut makes no difference. It keeps the unread bytes and nothing
//! else. Arguments share the memory that the bytes arrived in.
//!
//! What bounds it: an argument's length and a command's size are checked when they are *announced*. A command
//! that announces too much is not kept: its bytes are counted and let go as they come, and it comes out as
//! [`Request::TooLarge`], so that its sender reads an error instead of a broken connection. Memory therefore
//! follows what was received (up to twice [`Limits::command`]), never what was announced.
//!
//! ```
//! use gramme_node::redis::resp::{Limits, Parser, Request};
//!
//! let mut parser = Parser::new(Limits::default());
//! parser.feed(b"*2\r\n$3\r\nGET\r\n$5\r\nhe");
//! assert!(parser.next_command().unwrap().is_none());
//! parser.feed(b"llo\r\nPING 'are you there'\r\n");
//! for expected in [&[&b"GET"[..], b"hello"], &[b"PING", b"are you there"]] {
//!     let Some(Request::Command(command)) = parser.next_command().unwrap() else { panic!() };
//!     assert!(command.iter().eq(expected.iter().copied()));
//! }
//! assert!(parser.next_command().unwrap().is_none());
//! ```
//!
//! The protocol is described at <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

use bytes::{Buf, Bytes, BytesMut};
use std::fmt;

/// Bytes of one length line (`*3`, `$1024`), its end excluded: a sign and 20 digits fit with room.
const LENGTH_LINE: usize = 32;

/// How much a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Arguments of one command, its name included. More is a protocol error.
    pub arguments: usize,
    /// Bytes of one argument. More is [`Request::TooLarge`].
    pub argument: usize,
    /// Bytes of one argument past which the stream is given up: a protocol error.
    pub refusable: usize,
    /// Bytes of one command as sent. More is [`Request::TooLarge`].
    pub command: usize,
    /// Bytes of one inline command. More is a protocol error.
    pub inline: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            arguments: 1 << 20,
            argument: 16 << 20,
            refusable: 512 << 20,
            command: 64 << 20,
            inline: 64 << 10,
        }
    }
}

/// The stream is not Redis protocol, or not within bounds; nothing after it can be made sense of.
///
/// Its `Display` is the text that Redis sends after `-ERR Protocol error: `.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// `*…` with something that is no number, or more than [`Limits::arguments`].
    ArgumentCount,
    /// A length line without an end.
    ArgumentCountLine,
    /// Something else than `$` where an argument begins.
    ExpectedArgument(u8),
    /// `$…` with something that is no number, is negative, or exceeds [`Limits::refusable`].
    ArgumentLength,
    /// A length line without an end.
    ArgumentLengthLine,
    /// An argument is not followed by a line end: its length was wrong.
    ArgumentEnd,
    /// More than [`Limits::inline`] bytes without a line end.
    InlineLength,
    /// A quote that does not close, or closes within a word.
    Quotes,
    /// A byte that begins neither an array nor a word.
    NotACommand(u8),
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProtocolError::ArgumentCount => f.write_str("invalid multibulk length"),
            ProtocolError::ArgumentCountLine => f.write_str("too big mbulk count string"),
            ProtocolError::ExpectedArgument(got) => {
                write!(f, "expected '$', got '{}'", got.escape_ascii())
            }
            ProtocolError::ArgumentLength => f.write_str("invalid bulk length"),
            ProtocolError::ArgumentLengthLine => f.write_str("too big bulk count string"),
            ProtocolError::ArgumentEnd => f.write_str("expected CRLF after a bulk string"),
            ProtocolError::InlineLength => f.write_str("too big inline request"),
            ProtocolError::Quotes => f.write_str("unbalanced quotes in request"),
            ProtocolError::NotACommand(got) => {
                write!(f, "expected '*' or a word, got '{}'", got.escape_ascii())
            }
        }
    }
}

impl std::error::Error for ProtocolError {}

/// Where an argument lies in its command's bytes. Both fit: a command is smaller than 4 GiB.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn new(start: usize, end: usize) -> Span {
        let narrow = |at| u32::try_from(at).expect("a command is smaller than 4 GiB");
        Span { start: narrow(start), end: narrow(end) }
    }
}

/// One command: at least a name.
#[derive(Debug)]
pub struct Command<'p> {
    bytes: Bytes,
    spans: &'p [Span],
    last: bool,
}

impl Command<'_> {
    /// How many arguments there are, the name included: 1 or more.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// The name as sent, in any case.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.get(0).expect("a command has a name")
    }

    /// The argument at `index`; 0 is the name.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.spans.get(index).map(|s| &self.bytes[s.start as usize..s.end as usize])
    }

    /// The argument at `index` as a share of the command's memory.
    #[must_use]
    pub fn share(&self, index: usize) -> Option<Bytes> {
        self.spans.get(index).map(|s| self.bytes.slice(s.start as usize..s.end as usize))
    }

    /// Whether nothing was received behind it yet.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.last
    }

    /// The arguments, to keep.
    #[must_use]
    pub fn keep(&self) -> Arguments {
        Arguments { bytes: self.bytes.clone(), spans: self.spans.into() }
    }

    /// All arguments, the name first.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.spans.iter().map(|s| &self.bytes[s.start as usize..s.end as usize])
    }
}

/// A command's arguments, kept beyond the parser's next step.
#[derive(Debug)]
pub struct Arguments {
    bytes: Bytes,
    spans: Box<[Span]>,
}

impl Arguments {
    /// How many there are, the name included.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Bytes of the argument at `index`; 0 is the name.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn length(&self, index: usize) -> usize {
        let Span { start, end } = self.spans[index];
        (end - start) as usize
    }

    /// The argument at `index` as a share of the command's memory; 0 is the name.
    #[must_use]
    pub fn share(&self, index: usize) -> Option<Bytes> {
        self.spans.get(index).map(|s| self.bytes.slice(s.start as usize..s.end as usize))
    }
}

/// What came out of the stream.
#[derive(Debug)]
pub enum Request<'p> {
    /// A command to perform.
    Command(Command<'p>),
    /// A command that announced more than may be taken; its bytes were let go.
    TooLarge {
        /// The limit it broke, in bytes: of one argument or of the command.
        limit: usize,
    },
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// At the start of a command.
    Start,
    /// Within an inline command of which this many bytes hold no line end.
    Inline(usize),
    /// Before the length line of an argument; this many are to come.
    Length { left: usize },
    /// Before an argument of `length` bytes and its line end.
    Argument { left: usize, length: usize },
    /// Within an argument that is let go, its line end included.
    Skip { left: usize, bytes: usize },
    /// After an error.
    Broken(ProtocolError),
}

/// An incremental parser of one client's stream.
#[derive(Debug)]
pub struct Parser {
    limits: Limits,
    /// Unread bytes, from the start of the command being read (or of what is left of a refused one).
    buffer: BytesMut,
    /// How many of them are understood already.
    at: usize,
    spans: Vec<Span>,
    state: State,
    /// The limit that the command being read broke.
    refused: Option<usize>,
}

impl Parser {
    /// A parser at the start of a stream.
    #[must_use]
    pub fn new(limits: Limits) -> Parser {
        let limits = Limits { command: limits.command.min(u32::MAX as usize), ..limits };
        Parser {
            limits,
            buffer: BytesMut::new(),
            at: 0,
            spans: Vec::new(),
            state: State::Start,
            refused: None,
        }
    }

    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        if let State::Skip { bytes: skip, .. } = &mut self.state
            && self.buffer.is_empty()
        {
            // All but the line end, which is to be looked at.
            let gone = bytes.len().min(skip.saturating_sub(2));
            (*skip, bytes) = (*skip - gone, &bytes[gone..]);
        }
        if self.buffer.is_empty() {
            // A fresh block of just this size: earlier commands may still share the old one.
            self.buffer = BytesMut::from(bytes);
        } else {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Bytes that were fed and did not come out yet.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes of memory kept for them.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.buffer.capacity() + self.spans.capacity() * size_of::<Span>()
    }

    /// The next command; `None` if more bytes are needed.
    ///
    /// # Errors
    /// When the stream makes no sense; the same error for ever after.
    pub fn next_command(&mut self) -> Result<Option<Request<'_>>, ProtocolError> {
        match self.advance() {
            Ok(Some(Found::Array)) => {
                let bytes = self.take();
                let last = self.buffer.is_empty();
                Ok(Some(match self.refused.take() {
                    Some(limit) => Request::TooLarge { limit },
                    None => Request::Command(Command { bytes, spans: &self.spans, last }),
                }))
            }
            Ok(Some(Found::Inline(words))) => {
                let last = self.buffer.is_empty();
                Ok(Some(Request::Command(Command { bytes: words, spans: &self.spans, last })))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                self.state = State::Broken(error);
                self.buffer = BytesMut::new();
                self.spans = Vec::new();
                Err(error)
            }
        }
    }

    /// Takes the understood bytes off the buffer and stands at the start of a command.
    fn take(&mut self) -> Bytes {
        let bytes = self.buffer.split_to(self.at).freeze();
        self.at = 0;
        self.state = State::Start;
        bytes
    }

    fn advance(&mut self) -> Result<Option<Found>, ProtocolError> {
        loop {
            match self.state {
                State::Start => {
                    let Some(&first) = self.buffer.first() else {
                        // An idle connection keeps no memory for what it sent last.
                        self.buffer = BytesMut::new();
                        if self.spans.capacity() > 1024 {
                            self.spans = Vec::new();
                        }
                        return Ok(None);
                    };
                    self.spans.clear();
                    if first == b'*' {
                        let Some(line) = self.line(1, ProtocolError::ArgumentCountLine)? else {
                            return Ok(None);
                        };
                        let count = number(&self.buffer[1..line]).ok_or(ProtocolError::ArgumentCount)?;
                        self.at = line + 2;
                        // Like Redis: no arguments, no command, no answer.
                        if count <= 0 {
                            self.take();
                            continue;
                        }
                        let left = usize::try_from(count).map_err(|_| ProtocolError::ArgumentCount)?;
                        if left > self.limits.arguments {
                            return Err(ProtocolError::ArgumentCount);
                        }
                        self.state = State::Length { left };
                    } else if first.is_ascii_graphic() || matches!(first, b' ' | b'\t' | b'\r' | b'\n') {
                        self.state = State::Inline(0);
                    } else {
                        return Err(ProtocolError::NotACommand(first));
                    }
                }
                State::Inline(searched) => {
                    let Some(end) = self.buffer[searched..].iter().position(|&b| b == b'\n') else {
                        if self.buffer.len() > self.limits.inline {
                            return Err(ProtocolError::InlineLength);
                        }
                        self.state = State::Inline(self.buffer.len());
                        return Ok(None);
                    };
                    let end = searched + end;
                    if end > self.limits.inline {
                        return Err(ProtocolError::InlineLength);
                    }
                    self.at = end + 1;
                    let line = self.take();
                    let words = words(&line[..end], &mut self.spans)?;
                    if !self.spans.is_empty() {
                        return Ok(Some(Found::Inline(words)));
                    }
                }
                State::Length { left: 0 } => return Ok(Some(Found::Array)),
                State::Length { left } => {
                    let Some(&first) = self.buffer.get(self.at) else { return Ok(None) };
                    if first != b'$' {
                        return Err(ProtocolError::ExpectedArgument(first));
                    }
                    let from = self.at + 1;
                    let Some(line) = self.line(from, ProtocolError::ArgumentLengthLine)? else {
                        return Ok(None);
                    };
                    let length = number(&self.buffer[from..line])
                        .and_then(|n| usize::try_from(n).ok())
                        .filter(|&n| n <= self.limits.refusable)
                        .ok_or(ProtocolError::ArgumentLength)?;
                    self.at = line + 2;
                    if length > self.limits.argument {
                        self.refused.get_or_insert(self.limits.argument);
                    } else if self.at + length + 2 > self.limits.command {
                        self.refused.get_or_insert(self.limits.command);
                    }
                    self.state = if self.refused.is_some() {
                        self.let_go();
                        State::Skip { left, bytes: length + 2 }
                    } else {
                        State::Argument { left, length }
                    };
                }
                State::Argument { left, length } => {
                    let end = self.at + length;
                    let Some(ending) = self.buffer.get(end..end + 2) else { return Ok(None) };
                    if ending != b"\r\n" {
                        return Err(ProtocolError::ArgumentEnd);
                    }
                    self.spans.push(Span::new(self.at, end));
                    self.at = end + 2;
                    self.state = State::Length { left: left - 1 };
                }
                State::Skip { left, bytes } => {
                    let gone = self.buffer.len().min(bytes.saturating_sub(2));
                    self.buffer.advance(gone);
                    let bytes = bytes - gone;
                    self.state = State::Skip { left, bytes };
                    let Some(ending) = self.buffer.get(..2) else { return Ok(None) };
                    if ending != b"\r\n" {
                        return Err(ProtocolError::ArgumentEnd);
                    }
                    self.buffer.advance(2);
                    self.state = State::Length { left: left - 1 };
                }
                State::Broken(error) => return Err(error),
            }
        }
    }

    /// Forgets what was understood of a command that is refused.
    fn let_go(&mut self) {
        self.buffer.advance(self.at);
        self.at = 0;
        self.spans = Vec::new();
    }

    /// Where the length line whose text starts at `from` ends; `None` if it has not arrived. `too_long` if it
    /// can't be one.
    fn line(&self, from: usize, too_long: ProtocolError) -> Result<Option<usize>, ProtocolError> {
        let text = &self.buffer[from..];
        let window = &text[..text.len().min(LENGTH_LINE + 2)];
        match window.windows(2).position(|pair| pair == b"\r\n") {
            Some(end) => Ok(Some(from + end)),
            None if window.len() == LENGTH_LINE + 2 => Err(too_long),
            None => Ok(None),
        }
    }
}

enum Found {
    Array,
    Inline(Bytes),
}

/// A decimal number with an optional minus, nothing else.
#[must_use]
pub fn number(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    // Built below zero, where the range is larger by one.
    let value = digits.iter().try_fold(0i64, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| i64::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_sub(digit)
    })?;
    if negative { Some(value) } else { value.checked_neg() }
}

/// Splits an inline command into words, as a shell would: `"…"` knows `\n \r \t \b \a \xHH` and any other
/// character after a backslash as itself, `'…'` knows only `\'`. A quote begins a word or stands within one, and
/// what follows a closing quote is a space or the end.
fn words(line: &[u8], spans: &mut Vec<Span>) -> Result<Bytes, ProtocolError> {
    let mut out = Vec::with_capacity(line.len());
    let mut rest = line;
    loop {
        while let [first, after @ ..] = rest
            && first.is_ascii_whitespace()
        {
            rest = after;
        }
        if rest.is_empty() {
            return Ok(Bytes::from(out));
        }
        let start = out.len();
        rest = word(rest, &mut out)?;
        spans.push(Span::new(start, out.len()));
    }
}

/// Reads one word into `out` and returns what follows it.
fn word<'l>(line: &'l [u8], out: &mut Vec<u8>) -> Result<&'l [u8], ProtocolError> {
    let mut rest = line;
    loop {
        rest = match rest {
            [] => return Ok(rest),
            [first, ..] if first.is_ascii_whitespace() => return Ok(rest),
            [b'"', after @ ..] => return closed(double_quoted(after, out)?),
            [b'\'', after @ ..] => return closed(single_quoted(after, out)?),
            [first, after @ ..] => {
                out.push(*first);
                after
            }
        };
    }
}

fn closed(rest: &[u8]) -> Result<&[u8], ProtocolError> {
    match rest {
        [next, ..] if !next.is_ascii_whitespace() => Err(ProtocolError::Quotes),
        rest => Ok(rest),
    }
}

fn double_quoted<'l>(line: &'l [u8], out: &mut Vec<u8>) -> Result<&'l [u8], ProtocolError> {
    let mut rest = line;
    loop {
        rest = match rest {
            [] => return Err(ProtocolError::Quotes),
            [b'"', after @ ..] => return Ok(after),
            [b'\\', b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(hex(*high) << 4 | hex(*low));
                after
            }
            [b'\\', escaped, after @ ..] => {
                out.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                after
            }
            [first, after @ ..] => {
                out.push(*first);
                after
            }
        };
    }
}

fn single_quoted<'l>(line: &'l [u8], out: &mut Vec<u8>) -> Result<&'l [u8], ProtocolError> {
    let mut rest = line;
    loop {
        rest = match rest {
            [] => return Err(ProtocolError::Quotes),
            [b'\'', after @ ..] => return Ok(after),
            [b'\\', b'\'', after @ ..] => {
                out.push(b'\'');
                after
            }
            [first, after @ ..] => {
                out.push(*first);
                after
            }
        };
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
#[path = "resp_tests.rs"]
mod tests;
