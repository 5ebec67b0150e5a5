//! Paths and queries: percent-decoding, and parameters by name.

use std::fmt;

/// A `%` is not followed by two hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadEscape;

impl fmt::Display for BadEscape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a % in the address is not followed by two hexadecimal digits")
    }
}

/// The bytes that percent-encoded text stands for. Everything else stands for itself, `+` included.
pub(super) fn percent_decode(text: &str) -> Result<Vec<u8>, BadEscape> {
    let digit = |byte: Option<u8>| {
        let value = byte.and_then(|b| char::from(b).to_digit(16)).ok_or(BadEscape)?;
        u8::try_from(value).map_err(|_| BadEscape)
    };
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => digit(bytes.next())? << 4 | digit(bytes.next())?,
            other => other,
        });
    }
    Ok(out)
}

/// The parameters of a query, each a name and a decoded value.
pub(super) fn parameters(query: &str) -> impl Iterator<Item = Result<(&str, String), BadEscape>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // What no parameter means can't be mistaken for what one means.
        Ok((name, String::from_utf8_lossy(&percent_decode(value)?).into_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes() {
        assert_eq!(percent_decode("a%00%fF/%2B+").unwrap(), b"a\0\xff/++");
        for bad in ["%", "%1", "%g0", "%0g", "%%", "%+1"] {
            assert_eq!(percent_decode(bad), Err(BadEscape), "{bad}");
        }
    }

    #[test]
    fn names_and_values() {
        let got: Result<Vec<_>, _> = parameters("r=1&&w=a%3Db&flag").collect();
        assert_eq!(got.unwrap(), [("r", "1".into()), ("w", "a=b".into()), ("flag", String::new())]);
    }

    proptest! {
        #[test]
        fn every_key_can_be_written(key in prop::collection::vec(any::<u8>(), 0..50)) {
            let text: String = key.iter().map(|b| format!("%{b:02x}")).collect();
            prop_assert_eq!(percent_decode(&text).unwrap(), key);
        }

        #[test]
        fn no_text_panics(text in ".{0,50}") {
            let _ = percent_decode(&text);
            let _ = parameters(&text).count();
        }
    }
}
