//! Sealed contexts: arbitrary text, arbitrary bodies under a good seal, and sealed contexts that are tampered with.

use crate::source::Source;
use data_encoding::BASE64URL_NOPAD;
use gramme_vclock::{Actor, FixedContext, GrowableContext, SealKey, Span, Stamp, TokenError};
use siphasher::sip::SipHasher24;
use std::hash::Hasher;

const KEY: SealKey = SealKey(*b"sixteen bytes at");
const CLUSTER: u64 = 7;
const SUBJECT: &[u8] = b"cart";

/// The first byte chooses what the rest is.
///
/// # Panics
/// If a token means two things, or nothing is what it should be.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    match source.byte() % 3 {
        0 => {
            // Nobody guesses 64 bits of seal.
            let text = source.rest();
            let opened = crate::meter::within(4096 + 64 * text.len(), || {
                GrowableContext::open(text, &KEY, CLUSTER, SUBJECT)
            });
            if let Ok(context) = opened {
                canonical(&context, text);
            }
        }
        1 => {
            let text = sealed(source.rest());
            let opened = crate::meter::within(4096 + 64 * text.len(), || {
                GrowableContext::open(text.as_bytes(), &KEY, CLUSTER, SUBJECT)
            });
            assert_ne!(opened, Err(TokenError::Forged), "the seal is made as the documentation says");
            if let Ok(context) = opened {
                canonical(&context, text.as_bytes());
            }
        }
        _ => tampered(&mut source),
    }
}

/// Text with these bytes as its body, sealed by a second implementation of the documented format.
#[must_use]
pub fn sealed(body: &[u8]) -> String {
    let mut hasher = SipHasher24::new_with_key(&KEY.0);
    hasher.write(b"gramme\x00t");
    hasher.write(&CLUSTER.to_le_bytes());
    hasher.write(&(SUBJECT.len() as u64).to_le_bytes());
    hasher.write(SUBJECT);
    hasher.write(body);
    BASE64URL_NOPAD.encode(&[body, &hasher.finish().to_le_bytes()].concat())
}

/// Each context has one token.
fn canonical(context: &GrowableContext, text: &[u8]) {
    let again = context.to_token(&KEY, CLUSTER, SUBJECT).expect("it was short enough to be opened");
    assert_eq!(again.as_bytes(), text, "two tokens for {context:?}");
    assert_eq!(context.token_len(), text.len());
    let spans = context.seen.spans();
    assert!(spans.iter().all(|s| s.is_valid()));
    assert!(spans.is_sorted_by(|a, b| (a.actor, a.last) < (b.actor, b.first)));
    match FixedContext::<4>::open(text, &KEY, CLUSTER, SUBJECT) {
        Ok(fixed) => {
            assert_eq!(fixed.seen.spans(), spans);
            assert_eq!(fixed.stamp, context.stamp);
        }
        Err(error) => {
            assert!(error == TokenError::Full && spans.len() > 4, "{error} with {} spans", spans.len())
        }
    }
}

/// A context from choices, sealed, opened, then opened under everything that it is not.
fn tampered(source: &mut Source<'_>) {
    let stamp = Stamp::from_u64(source.u64() >> 1).expect("below 2^63");
    let mut context = GrowableContext { stamp, ..GrowableContext::default() };
    let damage = source.u16();
    while !source.is_empty() {
        let (actor, first) =
            (Actor(u64::from(source.byte() % 8) << 56), source.u64() >> (source.byte() % 64));
        let last = first.saturating_add(u64::from(source.byte()));
        let Ok(()) = context.seen.insert_span(Span { actor, first, last });
    }
    let Ok(text) = context.to_token(&KEY, CLUSTER, SUBJECT) else { return };
    let open = |text: &[u8], key, cluster, subject| GrowableContext::open(text, key, cluster, subject);
    assert_eq!(open(text.as_bytes(), &KEY, CLUSTER, SUBJECT), Ok(context.clone()));
    canonical(&context, text.as_bytes());
    let forged = Err(TokenError::Forged);
    assert_eq!(open(text.as_bytes(), &SealKey([0; 16]), CLUSTER, SUBJECT), forged);
    assert_eq!(open(text.as_bytes(), &KEY, CLUSTER + 1, SUBJECT), forged);
    assert_eq!(open(text.as_bytes(), &KEY, CLUSTER, b"carts"), forged);
    let mut bytes = text.into_bytes();
    let at = usize::from(damage) % bytes.len();
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    assert!(open(&bytes, &KEY, CLUSTER, SUBJECT).is_err(), "symbol {at} does not matter");
    assert!(open(&bytes[..at], &KEY, CLUSTER, SUBJECT).is_err(), "a token cut at {at} opens");
}
