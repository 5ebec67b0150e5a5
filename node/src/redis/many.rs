//! Commands of many keys: one operation for each, a bounded number at a time, one answer for all.

use super::answer::error_text;
use super::resp::Arguments;
use super::write::Writer;
use bytes::Bytes;
use gramme_quorum::{Cover, MAX_KEY, Op, OpError, ReadOptions, Reply, WriteOptions};

/// Bytes of values that one answer may hold.
const ANSWER_BYTES: usize = 64 << 20;
/// Keys that an error names; of the rest it tells the number.
const NAMED_KEYS: usize = 16;
/// Bytes of a key that an error shows.
const NAMED_BYTES: usize = 64;

/// What is done with each key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Each {
    /// `MGET`.
    Get,
    /// `MSET`: keys and values take turns.
    Set,
    /// `DEL`.
    Delete,
    /// `EXISTS`.
    Exists,
}

/// A command of many keys and what became of it so far.
#[derive(Debug)]
pub(super) struct Many {
    each: Each,
    arguments: Arguments,
    values: Vec<Option<Bytes>>,
    bytes: usize,
    count: i64,
    succeeded: usize,
    failures: Vec<(usize, OpError)>,
    failed: usize,
    unsure: bool,
}

impl Many {
    /// All arguments after the name are keys (or keys and values). A key that can't be one is refused here, before
    /// anything is done for the others.
    pub(super) fn new(each: Each, arguments: Arguments) -> Result<Many, OpError> {
        let many = Many {
            each,
            arguments,
            values: Vec::new(),
            bytes: 0,
            count: 0,
            succeeded: 0,
            failures: Vec::new(),
            failed: 0,
            unsure: false,
        };
        let lengths = (0..many.len()).map(|index| many.arguments.length(many.key_at(index)));
        match lengths.into_iter().find(|length| !(1..=MAX_KEY).contains(length)) {
            Some(length) => Err(OpError::KeyLength(length as u64)),
            None => Ok(many),
        }
    }

    /// How many operations it takes.
    pub(super) fn len(&self) -> usize {
        (self.arguments.len() - 1) / if self.each == Each::Set { 2 } else { 1 }
    }

    /// Whether operation `index` is there and its outcome matters.
    pub(super) fn wants(&self, index: usize) -> bool {
        index < self.len() && !self.is_refused()
    }

    /// Whether the values gathered were too many: the answer is an error whatever the others are.
    pub(super) fn is_refused(&self) -> bool {
        self.bytes > ANSWER_BYTES
    }

    pub(super) fn is_write(&self) -> bool {
        matches!(self.each, Each::Set | Each::Delete)
    }

    fn argument(&self, index: usize) -> Bytes {
        self.arguments.share(index).expect("the command's arguments were counted")
    }

    fn key_at(&self, index: usize) -> usize {
        1 + index * if self.each == Each::Set { 2 } else { 1 }
    }

    fn key(&self, index: usize) -> Bytes {
        self.argument(self.key_at(index))
    }

    /// The operation number `index`.
    pub(super) fn op(&self, index: usize) -> Op {
        let key = self.key(index);
        match self.each {
            Each::Get | Each::Exists => Op::Get { key, options: ReadOptions::default() },
            Each::Set => Op::Put {
                key,
                value: self.argument(2 + 2 * index),
                content_type: None,
                expiry: None,
                cover: Cover::Held,
                options: WriteOptions::default(),
            },
            Each::Delete => Op::Delete { key, cover: Cover::Held, options: WriteOptions::default() },
        }
    }

    /// Takes the reply to operation `index`; they come in order.
    pub(super) fn take(&mut self, index: usize, reply: Reply) {
        match reply {
            Reply::Read(reading) => {
                let shown = reading.siblings.into_iter().next();
                self.count += i64::from(shown.is_some());
                if self.each == Each::Get {
                    let value = shown.map(|found| found.value);
                    self.bytes += value.as_ref().map_or(0, Bytes::len);
                    if self.is_refused() {
                        // It will be refused; what was gathered need not be kept.
                        self.values = Vec::new();
                    } else {
                        self.values.push(value);
                    }
                }
            }
            Reply::Written { replaced, .. } => {
                self.count += i64::from(replaced);
                self.succeeded += 1;
            }
            Reply::Failed(error) => {
                self.failed += 1;
                self.unsure |= error.changed();
                if self.failures.len() < NAMED_KEYS {
                    self.failures.push((index, error));
                }
            }
        }
    }

    /// The answer, once all replies were taken.
    pub(super) fn write(&mut self, out: &mut Writer) {
        if let Some((_, error)) = self.failures.first() {
            return out.error(&self.failure(error));
        }
        match self.each {
            Each::Get if self.is_refused() => {
                out.error(&format!("TOOLARGE answer: the values come to more than {ANSWER_BYTES} bytes"));
            }
            Each::Get => {
                out.out.reserve(self.bytes + 32 * self.values.len());
                out.array(self.values.len());
                // Each goes as soon as it is written: the answer is not held twice.
                for value in self.values.drain(..) {
                    out.bulk_or_null(value.as_ref());
                }
            }
            Each::Set => out.ok(),
            Each::Delete | Each::Exists => out.integer(self.count),
        }
    }

    /// What went wrong. Once any key was written or may have been, the whole is neither done nor undone.
    fn failure(&self, first: &OpError) -> String {
        if !self.is_write() {
            return error_text(first);
        }
        let partial = self.unsure || self.succeeded > 0;
        let mut text =
            if partial && !first.changed() { format!("INDETERMINATE {first}") } else { error_text(first) };
        text.push_str(&format!(
            "; {} of {} keys acknowledged, not acknowledged:",
            self.succeeded,
            self.len()
        ));
        for (index, _) in &self.failures {
            let key = self.key(*index);
            let shown = &key[..key.len().min(NAMED_BYTES)];
            text.push_str(&format!(" '{}'", shown.escape_ascii()));
            if shown.len() < key.len() {
                text.push('…');
            }
        }
        if self.failed > self.failures.len() {
            text.push_str(&format!(" and {} more", self.failed - self.failures.len()));
        }
        text
    }
}
