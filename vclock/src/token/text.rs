//! Bits as base64url text (RFC 4648, section 5) without padding characters.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Stands for no symbol.
const NONE: u8 = 0xff;

/// What each symbol stands for.
const SEXTETS: [u8; 256] = {
    let mut sextets = [NONE; 256];
    let mut at = 0;
    while at < 64u8 {
        sextets[ALPHABET[at as usize] as usize] = at;
        at += 1;
    }
    sextets
};

fn sextet(symbol: u8) -> Option<u8> {
    let sextet = SEXTETS[usize::from(symbol)];
    (sextet != NONE).then_some(sextet)
}

/// Replaces the first `bytes` bytes of `out` by their spelling, which is as long as `out`.
pub(super) fn spell(out: &mut [u8], bytes: usize) {
    // From the back: the symbols of a group stand at or after its bytes, and never on those of the groups before it.
    for group in (0..bytes.div_ceil(3)).rev() {
        let taken = (bytes - group * 3).min(3);
        let mut word = [0; 4];
        word[1..=taken].copy_from_slice(&out[group * 3..group * 3 + taken]);
        let word = u32::from_be_bytes(word);
        for (at, symbol) in out[group * 4..].iter_mut().take(taken + 1).enumerate() {
            *symbol = ALPHABET[(word >> (18 - 6 * at) & 0x3f) as usize];
        }
    }
}

/// Hands over the first `bytes` bytes that checked text stands for, in pieces. It stands for as many at least.
pub(super) fn read(text: &[u8], bytes: usize, mut piece: impl FnMut(&[u8])) {
    let mut left = bytes;
    for symbols in text.chunks(64) {
        let mut held = [0; 48];
        for (group, held) in symbols.chunks(4).zip(held.chunks_mut(3)) {
            let word = group.iter().enumerate().fold(0, |word, (at, symbol)| {
                word | u32::from(SEXTETS[usize::from(*symbol)]) << (18 - 6 * at)
            });
            held.copy_from_slice(&word.to_be_bytes()[1..]);
        }
        let taken = left.min(held.len());
        piece(&held[..taken]);
        left -= taken;
    }
}

/// Byte `at` of those that checked text stands for; symbols past its end count as zeros.
pub(super) fn byte(text: &[u8], at: usize) -> u8 {
    let symbol = |at: usize| text.get(at).and_then(|s| sextet(*s)).map_or(0, u16::from);
    let first = at * 8 / 6;
    let pair = symbol(first) << 6 | symbol(first + 1);
    let [_, byte] = (pair >> (4 - at * 8 % 6)).to_be_bytes();
    byte
}

/// Packs bits into bytes, most significant first.
pub(super) struct BitWriter<'a> {
    out: &'a mut [u8],
    /// Whole bytes written.
    written: usize,
    /// The bits that don't fill a byte yet, at the low end.
    pending: u128,
    pending_bits: usize,
}

impl<'a> BitWriter<'a> {
    pub(super) fn new(out: &'a mut [u8]) -> Self {
        BitWriter { out, written: 0, pending: 0, pending_bits: 0 }
    }

    /// Adds the low `count` bits of a value that has no others, 64 at most.
    pub(super) fn put(&mut self, value: u64, count: usize) {
        self.pending = self.pending << count | u128::from(value);
        self.pending_bits += count;
        while self.pending_bits >= 8 {
            self.pending_bits -= 8;
            let [.., byte] = (self.pending >> self.pending_bits).to_be_bytes();
            self.out[self.written] = byte;
            self.written += 1;
        }
        self.pending &= (1 << self.pending_bits) - 1;
    }

    /// Fills the last byte with zeros and answers how many bytes there are.
    pub(super) fn finish(mut self) -> usize {
        self.put(0, (8 - self.pending_bits) % 8);
        self.written
    }
}

/// Reads bits from text, most significant first.
pub(super) struct BitReader<'a> {
    text: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> BitReader<'a> {
    /// `None` if the text is not base64url of whole bytes in its only spelling.
    pub(super) fn new(text: &'a [u8]) -> Option<Self> {
        let spare = text.len() * 6 % 8;
        let last = text.iter().map(|symbol| sextet(*symbol)).try_fold(0, |_, symbol| symbol)?;
        let canonical = text.len() % 4 != 1 && last & ((1 << spare) - 1) == 0;
        canonical.then_some(BitReader { text, at: 0, end: text.len() * 6 - spare })
    }

    /// Takes the bits after the first `bytes` bytes for another's.
    pub(super) fn end_at(&mut self, bytes: usize) {
        self.end = self.end.min(bytes * 8);
    }

    /// How many bits are left.
    pub(super) fn rest(&self) -> usize {
        self.end - self.at
    }

    /// The next `count` bits, 64 at most; `None`, and none taken, if there are not so many.
    pub(super) fn get(&mut self, count: usize) -> Option<u64> {
        if self.rest() < count {
            return None;
        }
        let mut value = 0;
        let mut left = count;
        while left > 0 {
            let used = self.at % 6;
            let taken = left.min(6 - used);
            let symbol = sextet(*self.text.get(self.at / 6)?)?;
            value = value << taken | u64::from(symbol >> (6 - used - taken) & ((1 << taken) - 1));
            self.at += taken;
            left -= taken;
        }
        Some(value)
    }

    /// The next bit, which stays.
    pub(super) fn peek(&self) -> Option<u64> {
        BitReader { ..*self }.get(1)
    }
}
