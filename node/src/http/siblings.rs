//! Several values of one key in one answer: JSON, or `multipart/mixed` for who asks for it.

use super::time::rfc3339;
use bytes::Bytes;
use data_encoding::BASE64;
use gramme_quorum::Found;
use serde::Serialize;

/// One value, as JSON shows it.
#[derive(Serialize)]
struct Sibling<'f> {
    value: String,
    dot: String,
    time: String,
    content_type: Option<&'f str>,
    expiry: Option<String>,
}

/// Which write a value is: its actor in hexadecimal and its counter.
fn dot(found: &Found) -> String {
    format!("{:016x}:{}", found.dot.actor.0, found.dot.counter)
}

/// A JSON array, the value first that a plain read shows.
pub(super) fn json(siblings: &[Found]) -> Bytes {
    let shown: Vec<Sibling<'_>> = siblings
        .iter()
        .map(|found| Sibling {
            value: BASE64.encode(&found.value),
            dot: dot(found),
            time: rfc3339(found.stamp.millis()),
            content_type: found.content_type.as_deref(),
            expiry: found.expiry.map(|expiry| rfc3339(expiry.0)),
        })
        .collect();
    serde_json::to_vec(&shown).expect("strings are always JSON").into()
}

/// Whether an `Accept` header asks for parts.
pub(super) fn wants_parts(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let mut words = range.split(';').map(str::trim);
        let media = words.next().unwrap_or_default();
        let refused = words.any(|word| word.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)));
        media.eq_ignore_ascii_case("multipart/mixed") && !refused
    })
}

/// The body of `multipart/mixed` (RFC 2046) and its boundary, which stands in no value.
pub(super) fn parts(siblings: &[Found]) -> (String, Bytes) {
    let boundary = (0u64..)
        .map(|n| format!("gramme-{n:x}"))
        .find(|b| !siblings.iter().any(|f| contains(&f.value, b.as_bytes())))
        .expect("a value can't hold all numbers");
    let mut out = Vec::new();
    for found in siblings {
        out.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        let media = found.content_type.as_deref().filter(|m| m.bytes().all(|b| !b.is_ascii_control()));
        let media = media.unwrap_or(super::kv::UNTYPED);
        let time = rfc3339(found.stamp.millis());
        out.extend_from_slice(
            format!("Content-Type: {media}\r\nX-Gramme-Dot: {}\r\n", dot(found)).as_bytes(),
        );
        out.extend_from_slice(format!("X-Gramme-Time: {time}\r\n").as_bytes());
        if let Some(expiry) = found.expiry {
            out.extend_from_slice(format!("X-Gramme-Expiry: {}\r\n", rfc3339(expiry.0)).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&found.value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    (boundary, out.into())
}

fn contains(value: &[u8], boundary: &[u8]) -> bool {
    value.windows(boundary.len()).any(|window| window == boundary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gramme_quorum::Expiry;
    use gramme_vclock::{Actor, Dot, Stamp};

    fn found(counter: u64, value: &'static [u8]) -> Found {
        Found {
            dot: Dot { actor: Actor(10), counter },
            stamp: Stamp::from_parts(1_000_000_000_000, 3),
            value: Bytes::from_static(value),
            content_type: (counter == 1).then(|| "text/plain".to_owned()),
            expiry: (counter == 2).then_some(Expiry(0)),
        }
    }

    #[test]
    fn json_shows_everything() {
        assert_eq!(
            json(&[found(1, b"hi"), found(2, b"\xff")]),
            "[{\"value\":\"aGk=\",\"dot\":\"000000000000000a:1\",\"time\":\"2001-09-09T01:46:40.000Z\",\
             \"content_type\":\"text/plain\",\"expiry\":null},\
             {\"value\":\"/w==\",\"dot\":\"000000000000000a:2\",\"time\":\"2001-09-09T01:46:40.000Z\",\
             \"content_type\":null,\"expiry\":\"1970-01-01T00:00:00.000Z\"}]"
        );
    }

    #[test]
    fn no_value_holds_the_boundary() {
        let (boundary, body) = parts(&[found(1, b"--gramme-0 gramme-1"), found(2, b"\r\n--gramme-2--")]);
        assert_eq!(boundary, "gramme-3");
        assert_eq!(
            body,
            "--gramme-3\r\nContent-Type: text/plain\r\nX-Gramme-Dot: 000000000000000a:1\r\n\
             X-Gramme-Time: 2001-09-09T01:46:40.000Z\r\n\r\n--gramme-0 gramme-1\r\n\
             --gramme-3\r\nContent-Type: application/octet-stream\r\nX-Gramme-Dot: 000000000000000a:2\r\n\
             X-Gramme-Time: 2001-09-09T01:46:40.000Z\r\nX-Gramme-Expiry: 1970-01-01T00:00:00.000Z\r\n\r\n\
             \r\n--gramme-2--\r\n--gramme-3--\r\n"
        );
    }

    #[test]
    fn who_wants_parts() {
        for (accept, wants) in [
            ("multipart/mixed", true),
            ("text/html, Multipart/Mixed ;q=0.5", true),
            ("multipart/mixed;q=0", false),
            ("*/*", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(wants_parts(accept), wants, "{accept}");
        }
    }
}
