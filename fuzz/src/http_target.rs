//! What an HTTP request's target says: the key in its path, the parameters in its query.

#[allow(dead_code, reason = "the server's own file, of which this uses a part")]
#[path = "../../node/src/http/query.rs"]
mod query;

use query::{parameters, percent_decode};

/// The bytes are a target, as far as they are text, and a key.
///
/// # Panics
/// If decoding disagrees with a second reading, or a key does not come back.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let decoded = percent_decode(&text).ok();
    assert_eq!(decoded, plain(text.as_bytes()));
    assert!(decoded.is_none_or(|bytes| bytes.len() <= text.len()));

    let found: Result<Vec<_>, _> = parameters(&text).collect();
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let sound = pairs.clone().all(|pair| plain(value_of(pair).as_bytes()).is_some());
    assert_eq!(found.is_ok(), sound);
    for ((name, value), pair) in found.iter().flatten().zip(pairs) {
        assert!(pair.starts_with(name) && !name.contains(['=', '&']));
        let bytes = plain(value_of(pair).as_bytes()).expect("it is sound");
        assert_eq!(value.as_str(), String::from_utf8_lossy(&bytes));
    }

    // Every key can be written, all of it escaped or only what must be.
    let escaped: String = data.iter().map(|byte| format!("%{byte:02X}")).collect();
    assert_eq!(percent_decode(&escaped).as_deref(), Ok(data));
    let spare: String = data
        .iter()
        .map(|&byte| match byte {
            b'a'..=b'z' | b'/' | b'+' => char::from(byte).to_string(),
            _ => format!("%{byte:02x}"),
        })
        .collect();
    assert_eq!(percent_decode(&spare).as_deref(), Ok(data));
}

fn value_of(pair: &str) -> &str {
    pair.find('=').map_or("", |at| &pair[at + 1..])
}

/// A second reading: what a `%` and two digits stand for, and all else for itself.
fn plain(mut text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    while let Some((&first, rest)) = text.split_first() {
        if first == b'%' {
            let digits = rest.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
            let digits = std::str::from_utf8(digits).expect("digits are text");
            out.push(u8::from_str_radix(digits, 16).expect("two digits"));
            text = &rest[2..];
        } else {
            out.push(first);
            text = rest;
        }
    }
    Some(out)
}
