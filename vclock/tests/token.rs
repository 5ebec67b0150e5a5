//! Sealed tokens: size, one spelling each, and refusal of every other.

use gramme_vclock::{
    Actor, FixedContext, GrowableContext, GrowableDotSet, MAX_TOKEN, SealError, SealKey, Span, Stamp,
    TokenError,
};
use proptest::prelude::*;

const KEY: SealKey = SealKey(*b"a secret of 16 B");
const CLUSTER: u64 = 0x5eed;

fn context(spans: impl IntoIterator<Item = Span>, stamp: Stamp) -> GrowableContext {
    let Ok(seen) = GrowableDotSet::from_spans(spans);
    GrowableContext { seen, stamp }
}

fn counter() -> impl Strategy<Value = u64> {
    (0..64u32, any::<u64>()).prop_map(|(shift, raw)| (raw >> shift).max(1))
}

fn contexts() -> impl Strategy<Value = GrowableContext> {
    let wide = (prop_oneof![0..4u64, any::<u64>()], counter(), counter()).prop_map(|(actor, a, b)| Span {
        actor: Actor(actor),
        first: a.min(b),
        last: a.max(b),
    });
    // Spans of five bits, shorter than the padding may be.
    let narrow =
        (0..2u64, 1..16u64).prop_map(|(actor, at)| Span { actor: Actor(actor), first: at, last: at });
    let spans = prop_oneof![prop::collection::vec(wide, 0..12), prop::collection::vec(narrow, 0..12)];
    let stamp =
        (0..1u64 << 47, prop_oneof![Just(0), any::<u16>()]).prop_map(|(ms, n)| Stamp::from_parts(ms, n));
    (spans, stamp).prop_map(|(spans, stamp)| context(spans, stamp))
}

/// The format once more, bit by bit and without sharing a line with the crate: seals whatever bits it is given.
mod plain {
    use super::{CLUSTER, KEY};
    use siphasher::sip::SipHasher24;
    use std::fmt::Write;

    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    pub(super) fn bits(fields: &[(u64, usize)]) -> String {
        let mut bits = String::new();
        for (value, width) in fields {
            write!(bits, "{value:0width$b}").unwrap();
        }
        bits
    }

    pub(super) fn sealed(body: &str) -> Vec<u8> {
        let mut body = body.to_owned();
        body.extend(std::iter::repeat_n('0', body.len().next_multiple_of(8) - body.len()));
        let byte = |bits: &[u8]| u8::from_str_radix(std::str::from_utf8(bits).unwrap(), 2).unwrap();
        let bytes: Vec<u8> = body.as_bytes().chunks(8).map(byte).collect();
        let mut sealed = b"gramme\0t".to_vec();
        sealed.extend(CLUSTER.to_le_bytes());
        sealed.extend(4u64.to_le_bytes());
        sealed.extend(b"cart");
        sealed.extend(&bytes);
        for byte in SipHasher24::new_with_key(&KEY.0).hash(&sealed).to_le_bytes() {
            write!(body, "{byte:08b}").unwrap();
        }
        body.extend(std::iter::repeat_n('0', body.len().next_multiple_of(6) - body.len()));
        body.as_bytes().chunks(6).map(|six| ALPHABET[usize::from(byte(six))]).collect()
    }
}

fn open_plain(fields: &[(u64, usize)]) -> Result<GrowableContext, TokenError> {
    GrowableContext::open(&plain::sealed(&plain::bits(fields)), &KEY, CLUSTER, b"cart")
}

#[test]
fn the_format_is_what_it_says() {
    let fields = [
        (1, 3),
        (1, 1),
        (1_790_000_000_000, 47),
        (3, 16),
        (3, 4),
        (1, 4),
        (7, 64),
        (900, 12),
        (4, 4),
        (1, 1),
        (4_000, 12),
        (0, 4),
        (0, 1),
        (u64::MAX, 64),
        (5, 12),
        (4, 4),
    ];
    let span = |actor, first, last| Span { actor: Actor(actor), first, last };
    let expected = context(
        [span(7, 896, 900), span(7, 4_000, 4_000), span(u64::MAX, 1, 5)],
        Stamp::from_parts(1_790_000_000_000, 3),
    );
    assert_eq!(open_plain(&fields).as_ref(), Ok(&expected));
    let token = expected.to_token(&KEY, CLUSTER, b"cart").unwrap();
    assert_eq!(token.as_bytes(), plain::sealed(&plain::bits(&fields)));
}

#[test]
fn sealed_nonsense_is_malformed() {
    let head = |logical: u64, w: u64, x: u64| vec![(1, 3), (0, 1), (logical, 47), (w, 4), (x, 4)];
    let with = |mut head: Vec<(u64, usize)>, spans: &[(u64, usize)]| {
        head.extend(spans);
        open_plain(&head)
    };
    assert!(with(head(5, 1, 0), &[(1, 64), (5, 4)]).is_ok());
    for (why, token) in [
        ("a count within the millisecond that is 0", open_plain(&[(1, 3), (1, 1), (5, 47), (0, 16), (0, 8)])),
        ("a needlessly wide last counter", with(head(5, 2, 0), &[(1, 64), (5, 8)])),
        ("a needlessly wide length", with(head(5, 1, 1), &[(1, 64), (5, 4), (0, 4)])),
        ("widths for no spans", with(head(5, 1, 0), &[])),
        ("counter 0", with(head(5, 1, 0), &[(1, 64), (0, 4)])),
        ("a length past the counter", with(head(5, 1, 1), &[(1, 64), (5, 4), (5, 4)])),
        ("an actor repeated in full", with(head(5, 1, 0), &[(1, 64), (5, 4), (0, 1), (1, 64), (9, 4)])),
        ("unsorted actors", with(head(5, 1, 0), &[(2, 64), (5, 4), (0, 1), (1, 64), (9, 4)])),
        ("unsorted spans", with(head(5, 1, 0), &[(1, 64), (5, 4), (1, 1), (3, 4)])),
        ("touching spans", with(head(5, 1, 0), &[(1, 64), (5, 4), (1, 1), (6, 4)])),
        ("a span cut off", with(head(5, 1, 0), &[(1, 64), (5, 4), (0, 1), (1, 63)])),
        ("padding that is not zero", with(head(5, 2, 0), &[(1, 64), (200, 8), (1, 5)])),
        ("a byte of padding", with(head(5, 1, 0), &[(1, 64), (5, 4), (0, 9)])),
    ] {
        assert_eq!(token, Err(TokenError::Malformed), "{why}");
    }
}

proptest! {
    #[test]
    fn a_token_opens_to_what_was_sealed(context in contexts(), key: [u8; 16], cluster: u64, subject: Vec<u8>) {
        let token = context.to_token(&SealKey(key), cluster, &subject).unwrap();
        prop_assert_eq!(token.len(), context.token_len());
        prop_assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        let opened = GrowableContext::open(token.as_bytes(), &SealKey(key), cluster, &subject);
        prop_assert_eq!(opened, Ok(context));
    }

    #[test]
    fn any_other_spelling_is_refused(context in contexts(), at: prop::sample::Index, to: u8) {
        let token = context.to_token(&KEY, CLUSTER, b"cart").unwrap().into_bytes();
        let mut other = token.clone();
        let at = at.index(other.len());
        other[at] = to;
        if other != token {
            prop_assert!(GrowableContext::open(&other, &KEY, CLUSTER, b"cart").is_err());
        }
        prop_assert!(GrowableContext::open(&token[..at], &KEY, CLUSTER, b"cart").is_err());
        let mut longer = token.clone();
        longer.push(to);
        prop_assert!(GrowableContext::open(&longer, &KEY, CLUSTER, b"cart").is_err());
        longer.extend_from_slice(b"AAA");
        prop_assert!(GrowableContext::open(&longer, &KEY, CLUSTER, b"cart").is_err());
    }

    #[test]
    fn another_key_cluster_or_subject_is_forged(context in contexts()) {
        let token = context.to_token(&KEY, CLUSTER, b"cart").unwrap();
        let open = |key, cluster, subject: &[u8]| GrowableContext::open(token.as_bytes(), key, cluster, subject);
        prop_assert_eq!(open(&SealKey([0; 16]), CLUSTER, b"cart"), Err(TokenError::Forged));
        prop_assert_eq!(open(&KEY, CLUSTER + 1, b"cart"), Err(TokenError::Forged));
        prop_assert_eq!(open(&KEY, CLUSTER, b"cart2"), Err(TokenError::Forged));
        prop_assert_eq!(open(&KEY, CLUSTER, b""), Err(TokenError::Forged));
    }

    #[test]
    fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(GrowableContext::open(&bytes, &KEY, CLUSTER, b"cart").is_err());
    }

    #[test]
    fn the_fixed_form_seals_and_opens_the_same(context in contexts()) {
        let token = context.to_token(&KEY, CLUSTER, b"cart").unwrap();
        let fixed = FixedContext::<6>::open(token.as_bytes(), &KEY, CLUSTER, b"cart");
        if context.seen.spans().len() > 6 {
            prop_assert_eq!(fixed, Err(TokenError::Full));
        } else {
            let fixed = fixed.unwrap();
            prop_assert_eq!(fixed.seen.spans(), context.seen.spans());
            let mut out = [0; 400];
            let len = fixed.seal(&KEY, CLUSTER, b"cart", &mut out).unwrap();
            prop_assert_eq!(&out[..len], token.as_bytes());
        }
    }
}

/// Three actors with one span each, as a key has that three replicas write.
fn three(last: u64, length: u64, stamp: Stamp) -> GrowableContext {
    let span = |actor| Span { actor: Actor(actor), first: last - length + 1, last };
    context([0x9e37_79b9_7f4a_7c15, 0x0123_4567_89ab_cdef, u64::MAX].map(span), stamp)
}

#[test]
fn a_token_of_three_actors_is_short() {
    let size = |context: GrowableContext| context.to_token(&KEY, CLUSTER, b"cart").unwrap().len();
    let last = (1 << 24) - 1;
    // The worst that 24-bit counters can be, at the end of time, within a busy millisecond.
    assert_eq!(size(three(last, last, Stamp::MAX)), 80);
    // As long as each replica wrote the key at most 256 times.
    assert_eq!(size(three(last, 256, Stamp::MAX)), 72);
    assert_eq!(size(three(last, 256, Stamp::from_parts(1_790_000_000_000, 0))), 70);
    assert_eq!(size(three(4_000, 1, Stamp::from_parts(1_790_000_000_000, 0))), 60);
    assert_eq!(size(context([], Stamp::ZERO)), 22);
    // Two spans each, the widest that there are.
    let halves = |actor| [(1, 1 << 20), (1 << 22, last)].map(|(first, last)| Span { actor, first, last });
    assert_eq!(size(context([1, 2, u64::MAX].map(Actor).into_iter().flat_map(halves), Stamp::MAX)), 104);
}

#[test]
fn a_short_buffer_is_told_and_left_alone() {
    let context = three(9, 3, Stamp::ZERO);
    let needed = context.token_len();
    let mut out = vec![7; needed - 1];
    assert_eq!(context.seal(&KEY, 1, b"k", &mut out), Err(SealError::BufferTooSmall { needed }));
    assert!(out.iter().all(|b| *b == 7));
}

#[test]
fn tokens_are_bounded() {
    let spans = |count| (0..count).map(|a| Span { actor: Actor(u64::MAX - a), first: 1, last: u64::MAX });
    assert!(context(spans(2_000), Stamp::MAX).to_token(&KEY, 1, b"k").is_ok());
    assert_eq!(context(spans(3_000), Stamp::MAX).to_token(&KEY, 1, b"k"), Err(SealError::TooLong));
    assert_eq!(GrowableContext::open(&vec![b'A'; MAX_TOKEN + 1], &KEY, 1, b"k"), Err(TokenError::TooLong));
}

/// The longest there is, to the symbol: 23,119 writes of one actor whose counters are below 2^16, none beside another.
#[test]
fn a_token_of_the_greatest_length_is_sealed_and_opened() {
    let spans = |count| (1..=count).map(|at| Span { actor: Actor(1), first: 2 * at, last: 2 * at });
    let longest = context(spans(23_119), Stamp::ZERO);
    assert_eq!(longest.token_len(), MAX_TOKEN);
    let token = longest.to_token(&KEY, CLUSTER, b"cart").unwrap();
    assert_eq!(GrowableContext::open(token.as_bytes(), &KEY, CLUSTER, b"cart"), Ok(longest));
    let longer = context(spans(23_120), Stamp::ZERO);
    let mut out = vec![7; MAX_TOKEN + 8];
    assert!(longer.token_len() <= out.len());
    assert_eq!(longer.to_token(&KEY, CLUSTER, b"cart"), Err(SealError::TooLong));
    assert_eq!(longer.seal(&KEY, CLUSTER, b"cart", &mut out), Err(SealError::TooLong));
    assert!(out.iter().all(|byte| *byte == 7));
}

/// What is no token at all is told from one that was damaged, wherever that shows.
#[test]
fn text_that_no_seal_writes_is_malformed() {
    let token = three(1 << 20, 300, Stamp::MAX).to_token(&KEY, 1, b"k").unwrap().into_bytes();
    for at in 0..token.len() {
        for symbol in [b'!', b'+', b'/', b'=', b' ', 0, 0x80, 0xff] {
            let mut other = token.clone();
            other[at] = symbol;
            assert_eq!(GrowableContext::open(&other, &KEY, 1, b"k"), Err(TokenError::Malformed), "{at}");
        }
    }
}

#[test]
fn no_symbol_of_a_token_can_be_another() {
    let mut remainders = [false; 4];
    for (actors, last) in [(0, 0), (1, 9), (1, 0xfff), (1, 0xffff), (3, 9)] {
        let spans = (0..actors).map(|actor| Span { actor: Actor(actor), first: last, last });
        let token = context(spans, Stamp::ZERO).to_token(&KEY, 1, b"k").unwrap().into_bytes();
        remainders[token.len() % 4] = true;
        let longer = [&token[..], b"A"].concat();
        assert!(GrowableContext::open(&longer, &KEY, 1, b"k").is_err());
        for at in 0..token.len() {
            for symbol in b'-'..=b'z' {
                let mut other = token.clone();
                other[at] = symbol;
                let opened = GrowableContext::open(&other, &KEY, 1, b"k");
                assert_eq!(opened.is_ok(), other == token, "{symbol} at {at} of {}", token.len());
            }
        }
    }
    assert_eq!(remainders, [true, false, true, true], "every length that there is");
}

#[test]
fn another_version_is_named() {
    let token = three(9, 3, Stamp::ZERO).to_token(&KEY, 1, b"k").unwrap();
    let newer = token.replacen(&token[..1], "_", 1);
    assert_eq!(GrowableContext::open(newer.as_bytes(), &KEY, 1, b"k"), Err(TokenError::UnknownVersion(7)));
    let older = token.replacen(&token[..1], "A", 1);
    assert_eq!(GrowableContext::open(older.as_bytes(), &KEY, 1, b"k"), Err(TokenError::UnknownVersion(0)));
}
