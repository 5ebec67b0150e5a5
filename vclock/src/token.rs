//! Contexts as sealed, printable tokens. `FORMAT.md` beside this crate's manifest lays them out bit by bit.

use crate::buf::Buf;
use crate::context::Context;
use crate::dot::{Actor, Span};
use crate::malformed::Malformed;
use crate::stamp::{MILLIS_BITS, Stamp};
use core::error::Error;
use core::fmt;
use core::hash::Hasher;
use siphasher::sip::SipHasher24;
use text::{BitReader, BitWriter};

mod text;

/// The longest token that is sealed or opened, in bytes of text. It has room for 2,000 spans at least.
pub const MAX_TOKEN: usize = 65_536;

const VERSION: u64 = 1;
const SEAL_BYTES: usize = 8;
const PREFIX: &[u8; 8] = b"gramme\x00t";

/// The secret under which a cluster seals its contexts.
///
/// Whoever has it can make up a context; nobody else can. To change it without refusing clients, open under the new one and
/// then under the old one for as long as old tokens are out:
///
/// ```
/// use gramme_vclock::{FixedContext, SealKey};
///
/// let (old, new) = (SealKey(*b"until last month"), SealKey(*b"from this month."));
/// let mut token = [0; 80];
/// let length = FixedContext::<4>::default().seal(&old, 7, b"cart:17", &mut token)?;
///
/// let open = |key| FixedContext::<4>::open(&token[..length], key, 7, b"cart:17");
/// assert!(open(&new).is_err());
/// assert_eq!(open(&new).or_else(|_| open(&old)), Ok(FixedContext::default()));
/// # Ok::<(), gramme_vclock::SealError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SealKey(pub [u8; 16]);

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(..)")
    }
}

/// Why a context was not sealed.
///
/// ```
/// use gramme_vclock::{FixedContext, SealError, SealKey};
///
/// let context = FixedContext::<4>::default();
/// let refused = context.seal(&SealKey(*b"sixteen bytes..."), 7, b"cart:17", &mut [0; 8]);
/// assert_eq!(refused, Err(SealError::BufferTooSmall { needed: context.token_len() }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SealError {
    /// The buffer is shorter than the token.
    BufferTooSmall {
        /// Bytes that the token takes.
        needed: usize,
    },
    /// The token would be longer than [`MAX_TOKEN`].
    TooLong,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SealError::BufferTooSmall { needed } => write!(f, "the token takes {needed} bytes"),
            SealError::TooLong => write!(f, "the token would be longer than {MAX_TOKEN} bytes"),
        }
    }
}

impl Error for SealError {}

/// Why a token was refused.
///
/// ```
/// use gramme_vclock::{FixedContext, SealKey, TokenError};
///
/// let (secret, mut token) = (SealKey(*b"sixteen bytes..."), [0; 80]);
/// let length = FixedContext::<4>::default().seal(&secret, 7, b"cart:17", &mut token)?;
/// let open = |token: &[u8]| FixedContext::<4>::open(token, &secret, 7, b"cart:17");
///
/// assert_eq!(open(b"not a token!"), Err(TokenError::Malformed));
/// token[5] = if token[5] == b'A' { b'B' } else { b'A' };
/// assert_eq!(open(&token[..length]), Err(TokenError::Forged));
/// # Ok::<(), gramme_vclock::SealError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenError {
    /// It is longer than [`MAX_TOKEN`].
    TooLong,
    /// It is not text that a seal produces, or its contents break the rules of a context.
    Malformed,
    /// It was made by a version of the format that is not known here.
    UnknownVersion(u8),
    /// The seal does not fit: the token was damaged or forged, or belongs to another key or cluster.
    Forged,
    /// It has more spans than there is room for.
    Full,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenError::TooLong => write!(f, "the context is longer than {MAX_TOKEN} bytes"),
            TokenError::Malformed => f.write_str("the context is malformed"),
            TokenError::UnknownVersion(version) => write!(f, "the context has unknown version {version}"),
            TokenError::Forged => {
                f.write_str("the context is damaged, forged, or belongs to another key or cluster")
            }
            TokenError::Full => f.write_str("the context has more spans than there is room for"),
        }
    }
}

impl Error for TokenError {}

impl<B: Buf<Span>> Context<B> {
    /// How many bytes of text the token takes.
    #[must_use]
    pub fn token_len(&self) -> usize {
        let widths = Widths::of(self.seen.spans());
        let logical = if self.stamp.logical() == 0 { 0 } else { 16 };
        // Of as many spans as memory holds: where addresses have 32 bits, a token of 2^32 bits and more.
        let mut bits = (3 + 1 + 8 + MILLIS_BITS + logical) as u64;
        let mut previous = None;
        for span in self.seen.spans() {
            let actor = usize::from(previous.is_some()) + if previous == Some(span.actor) { 0 } else { 64 };
            bits += (actor + width(widths.last) + width(widths.more)) as u64;
            previous = Some(span.actor);
        }
        let bytes = bits.div_ceil(8) + SEAL_BYTES as u64;
        usize::try_from((bytes * 8).div_ceil(6)).unwrap_or(usize::MAX)
    }

    /// Writes the context as a token for `subject` (the record's key) in `cluster`, and answers how many bytes of `out`
    /// that took.
    ///
    /// # Errors
    /// If `out` is too short or the token would pass [`MAX_TOKEN`]; `out` is unchanged then.
    pub fn seal(
        &self,
        key: &SealKey,
        cluster: u64,
        subject: &[u8],
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        let needed = self.token_len();
        if needed > MAX_TOKEN {
            return Err(SealError::TooLong);
        }
        let out = out.get_mut(..needed).ok_or(SealError::BufferTooSmall { needed })?;
        let widths = Widths::of(self.seen.spans());
        let logical = self.stamp.logical();

        let mut bits = BitWriter::new(out);
        bits.put(VERSION, 3);
        bits.put(u64::from(logical != 0), 1);
        bits.put(self.stamp.millis(), MILLIS_BITS);
        if logical != 0 {
            bits.put(u64::from(logical), 16);
        }
        bits.put(widths.last, 4);
        bits.put(widths.more, 4);
        let mut previous = None;
        for span in self.seen.spans() {
            let same = previous == Some(span.actor);
            if previous.is_some() {
                bits.put(u64::from(same), 1);
            }
            if !same {
                bits.put(span.actor.0, 64);
            }
            bits.put(span.last, width(widths.last));
            bits.put(span.last - span.first, width(widths.more));
            previous = Some(span.actor);
        }
        let body = bits.finish();
        let mut hasher = hasher(key, cluster, subject);
        hasher.write(&out[..body]);
        let bytes = body + SEAL_BYTES;
        out[body..bytes].copy_from_slice(&hasher.finish().to_le_bytes());
        text::spell(out, bytes);
        Ok(needed)
    }

    /// The context as a token for `subject` (the record's key) in `cluster`.
    ///
    /// # Errors
    /// If the token would pass [`MAX_TOKEN`].
    #[cfg(feature = "alloc")]
    pub fn to_token(
        &self,
        key: &SealKey,
        cluster: u64,
        subject: &[u8],
    ) -> Result<alloc::string::String, SealError> {
        let needed = self.token_len();
        if needed > MAX_TOKEN {
            return Err(SealError::TooLong);
        }
        let mut text = alloc::vec![0; needed];
        self.seal(key, cluster, subject, &mut text)?;
        Ok(alloc::string::String::from_utf8(text).expect("tokens are ASCII"))
    }

    /// The context in a token that was sealed for `subject` in `cluster`.
    ///
    /// # Errors
    /// If the token is another one's, damaged, forged, malformed, or has more spans than fit.
    pub fn open(token: &[u8], key: &SealKey, cluster: u64, subject: &[u8]) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        let mut bits = BitReader::new(token).ok_or(TokenError::Malformed)?;
        let bytes = token.len() * 6 / 8;
        let body = bytes.checked_sub(SEAL_BYTES).filter(|body| *body > 0).ok_or(TokenError::Malformed)?;
        let version = bits.get(3).ok_or(TokenError::Malformed)?;
        if version != VERSION {
            return Err(TokenError::UnknownVersion(u8::try_from(version).unwrap_or(u8::MAX)));
        }
        let mut hasher = hasher(key, cluster, subject);
        text::read(token, body, |bytes| hasher.write(bytes));
        let mut seal = [0; SEAL_BYTES];
        for (at, byte) in seal.iter_mut().enumerate() {
            *byte = text::byte(token, body + at);
        }
        let expected = hasher.finish();
        // One comparison of whole words: its time says nothing about where they differ.
        if core::hint::black_box(expected ^ u64::from_le_bytes(seal)) != 0 {
            return Err(TokenError::Forged);
        }
        bits.end_at(body);
        Self::read_body(&mut bits)
    }

    fn read_body(bits: &mut BitReader<'_>) -> Result<Self, TokenError> {
        let mut get = |count| bits.get(count).ok_or(TokenError::Malformed);
        let has_logical = get(1)? == 1;
        let millis = get(MILLIS_BITS)?;
        let logical = if has_logical { get(16)? } else { 0 };
        let stamp = Stamp::from_u64(millis << 16 | logical).map_err(|_| TokenError::Malformed)?;
        let widths = Widths { last: get(4)?, more: get(4)? };
        let mut context = Context { stamp, ..Context::default() };
        let mut previous = None;
        loop {
            // A span after the first starts with a one or is longer than any padding.
            let same = match previous {
                None if bits.rest() < 8 => break,
                None => false,
                Some(_) if bits.rest() < 8 && bits.peek() != Some(1) => break,
                Some(_) => bits.get(1).ok_or(TokenError::Malformed)? == 1,
            };
            let mut get = |count| bits.get(count).ok_or(TokenError::Malformed);
            let actor = match previous {
                Some(actor) if same => actor,
                _ => Actor(get(64)?),
            };
            let last = get(width(widths.last))?;
            let more = get(width(widths.more))?;
            let first = last.checked_sub(more).ok_or(TokenError::Malformed)?;
            if previous == Some(actor) && !same {
                return Err(TokenError::Malformed);
            }
            context.seen.push_sorted(Span { actor, first, last }).map_err(|refused| match refused {
                Malformed::Full => TokenError::Full,
                _ => TokenError::Malformed,
            })?;
            previous = Some(actor);
        }
        let padding = bits.get(bits.rest());
        let canonical =
            padding == Some(0) && has_logical == (logical != 0) && widths == Widths::of(context.seen.spans());
        if canonical { Ok(context) } else { Err(TokenError::Malformed) }
    }
}

/// Width codes shared by all spans of a token.
#[derive(PartialEq, Eq)]
struct Widths {
    last: u64,
    more: u64,
}

impl Widths {
    fn of(spans: &[Span]) -> Widths {
        let last = spans.iter().map(|span| span.last).max().unwrap_or(0);
        let more = spans.iter().map(|span| span.last - span.first).max().unwrap_or(0);
        Widths { last: width_code(last), more: width_code(more) }
    }
}

/// The least code whose width holds `value`.
fn width_code(value: u64) -> u64 {
    u64::from((64 - value.leading_zeros()).div_ceil(4).min(15))
}

/// Bits that a width code stands for.
fn width(code: u64) -> usize {
    match usize::try_from(code) {
        Ok(code @ 0..15) => 4 * code,
        _ => 64,
    }
}

/// The seal's hash, fed with all that comes before the token's own bytes.
fn hasher(key: &SealKey, cluster: u64, subject: &[u8]) -> SipHasher24 {
    let mut hasher = SipHasher24::new_with_key(&key.0);
    hasher.write(PREFIX);
    hasher.write(&cluster.to_le_bytes());
    hasher.write(&(subject.len() as u64).to_le_bytes());
    hasher.write(subject);
    hasher
}
