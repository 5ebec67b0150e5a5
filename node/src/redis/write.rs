//! Writes answers, in the form that the client asked for with `HELLO`: RESP2, or RESP3 where it has more words
//! (maps, sets, a null of its own, text). Attributes and pushes are never sent: common clients break on them.

use bytes::Bytes;

/// Which protocol a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// What every connection starts with.
    #[default]
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

impl Version {
    /// 2 or 3.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Version::Resp2 => 2,
            Version::Resp3 => 3,
        }
    }
}

/// Appends answers to a buffer. An aggregate's elements follow its header, each written by a call of its own.
#[derive(Debug, Default)]
pub struct Writer {
    /// What was written and not yet sent.
    pub out: Vec<u8>,
    /// The protocol of what is written from here on.
    pub version: Version,
}

impl Writer {
    /// A writer of the given protocol with nothing in it.
    #[must_use]
    pub const fn new(version: Version) -> Writer {
        Writer { out: Vec::new(), version }
    }

    /// `+text`: a word or two; line ends in it become spaces.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// `+OK`.
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// `-text`: an error, beginning with its kind in capitals; line ends in it become spaces.
    pub fn error(&mut self, text: &str) {
        self.line(b'-', text.as_bytes());
    }

    /// `:n`.
    pub fn integer(&mut self, n: i64) {
        self.out.push(b':');
        self.number(n);
    }

    /// A count of something.
    pub fn count(&mut self, n: usize) {
        self.integer(i64::try_from(n).expect("a count of things in memory"));
    }

    /// A string of bytes.
    pub fn bulk(&mut self, bytes: &[u8]) {
        // In one go: growing for the line end would double a large buffer.
        self.out.reserve(bytes.len() + 32);
        self.header(b'$', bytes.len());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// A string of bytes or the null.
    pub fn bulk_or_null(&mut self, bytes: Option<&Bytes>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    /// A text for people, such as `INFO`'s.
    pub fn text(&mut self, text: &str) {
        match self.version {
            Version::Resp2 => self.bulk(text.as_bytes()),
            Version::Resp3 => {
                self.header(b'=', text.len() + 4);
                self.out.extend_from_slice(b"txt:");
                self.out.extend_from_slice(text.as_bytes());
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// No value.
    pub fn null(&mut self) {
        self.out.extend_from_slice(match self.version {
            Version::Resp2 => b"$-1\r\n",
            Version::Resp3 => b"_\r\n",
        });
    }

    /// No array: what stands in an array's place.
    pub fn null_array(&mut self) {
        self.out.extend_from_slice(match self.version {
            Version::Resp2 => b"*-1\r\n",
            Version::Resp3 => b"_\r\n",
        });
    }

    /// An array of this many elements follows.
    pub fn array(&mut self, len: usize) {
        self.header(b'*', len);
    }

    /// A map of this many pairs follows, each key before its value: in RESP2 an array of twice as many.
    pub fn map(&mut self, pairs: usize) {
        match self.version {
            Version::Resp2 => self.header(b'*', 2 * pairs),
            Version::Resp3 => self.header(b'%', pairs),
        }
    }

    /// A set of this many elements follows: in RESP2 an array.
    pub fn set(&mut self, len: usize) {
        self.header(if self.version == Version::Resp3 { b'~' } else { b'*' }, len);
    }

    fn header(&mut self, kind: u8, len: usize) {
        self.out.push(kind);
        self.number(i64::try_from(len).expect("a length of something in memory"));
    }

    fn number(&mut self, n: i64) {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        let mut rest = n.unsigned_abs();
        loop {
            at -= 1;
            digits[at] = b'0' + u8::try_from(rest % 10).expect("a digit");
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if n < 0 {
            self.out.push(b'-');
        }
        self.out.extend_from_slice(&digits[at..]);
        self.out.extend_from_slice(b"\r\n");
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.out.push(kind);
        self.out.extend(text.iter().map(|&b| if matches!(b, b'\r' | b'\n') { b' ' } else { b }));
        self.out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(version: Version, write: impl FnOnce(&mut Writer)) -> String {
        let mut writer = Writer::new(version);
        write(&mut writer);
        writer.out.escape_ascii().to_string()
    }

    #[test]
    fn every_kind_in_both_protocols() {
        let both = |write: fn(&mut Writer)| (written(Version::Resp2, write), written(Version::Resp3, write));
        let same = |text: &str| (text.to_owned(), text.to_owned());
        let two = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(both(Writer::ok), same(r"+OK\r\n"));
        assert_eq!(both(|w| w.simple("a\r\nb")), same(r"+a  b\r\n"));
        assert_eq!(both(|w| w.error("ERR a\nb")), same(r"-ERR a b\r\n"));
        assert_eq!(both(|w| w.bulk(b"\r\n\0")), same(r"$3\r\n\r\n\x00\r\n"));
        assert_eq!(both(|w| w.bulk(b"")), same(r"$0\r\n\r\n"));
        assert_eq!(both(Writer::null), two(r"$-1\r\n", r"_\r\n"));
        assert_eq!(both(Writer::null_array), two(r"*-1\r\n", r"_\r\n"));
        assert_eq!(both(|w| w.array(12)), same(r"*12\r\n"));
        assert_eq!(both(|w| w.map(2)), two(r"*4\r\n", r"%2\r\n"));
        assert_eq!(both(|w| w.set(2)), two(r"*2\r\n", r"~2\r\n"));
        assert_eq!(both(|w| w.text("hi")), two(r"$2\r\nhi\r\n", r"=6\r\ntxt:hi\r\n"));
    }

    #[test]
    fn every_number() {
        for n in [0, 7, 10, -1, -10, 123_456, i64::MAX, i64::MIN] {
            assert_eq!(written(Version::Resp2, |w| w.integer(n)), format!(":{n}\\r\\n"));
        }
    }
}
