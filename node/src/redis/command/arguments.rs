//! Reads a command's options: words in any case, some followed by a value.

use super::Refusal;
use crate::clock::wall_ms;
use crate::redis::resp::{Command, number};
use gramme_quorum::{Expiry, Level};
use std::time::Duration;

/// The longest that a request may be waited for.
const LONGEST: Duration = Duration::from_secs(3600);

/// Bytes of a client's word that an error repeats.
const SHOWN: usize = 128;

/// A walk over a command's arguments from some index on.
pub(super) struct Options<'c> {
    command: &'c Command<'c>,
    at: usize,
}

impl<'c> Options<'c> {
    pub(super) fn from(command: &'c Command<'c>, at: usize) -> Options<'c> {
        Options { command, at }
    }

    /// The next word.
    pub(super) fn next(&mut self) -> Option<&'c [u8]> {
        let word = self.command.get(self.at)?;
        self.at += 1;
        Some(word)
    }

    /// The value of the option just read.
    pub(super) fn value(&mut self) -> Result<&'c [u8], Refusal> {
        self.next().ok_or_else(Refusal::syntax)
    }

    /// The level that the option just read is given: how many replicas.
    pub(super) fn level(&mut self, option: &str) -> Result<Level, Refusal> {
        let text = self.value()?;
        std::str::from_utf8(text)
            .ok()
            .and_then(Level::parse)
            .ok_or_else(|| Refusal::new(format!("ERR {option} takes a number, or one, quorum or all")))
    }

    /// The milliseconds that the option just read is given.
    pub(super) fn timeout(&mut self) -> Result<Duration, Refusal> {
        let timeout = u64::try_from(integer(self.value()?)?).ok().map(Duration::from_millis);
        timeout
            .filter(|t| !t.is_zero() && *t <= LONGEST)
            .ok_or_else(|| Refusal::new("ERR TIMEOUT is in milliseconds, from 1 to an hour"))
    }
}

/// A client's word as an error shows it: escaped, and no longer than helps, however long it was.
pub(super) fn shown(word: &[u8]) -> impl std::fmt::Display {
    word[..word.len().min(SHOWN)].escape_ascii()
}

/// Whether a word is this option.
pub(super) fn is(word: &[u8], option: &str) -> bool {
    word.eq_ignore_ascii_case(option.as_bytes())
}

pub(super) fn integer(text: &[u8]) -> Result<i64, Refusal> {
    number(text).ok_or_else(|| Refusal::new("ERR value is not an integer or out of range"))
}

/// The ways of telling when something expires.
#[derive(Clone, Copy, Debug)]
pub(super) enum Moment {
    /// `EX`
    Seconds,
    /// `PX`
    Millis,
    /// `EXAT`
    AtSeconds,
    /// `PXAT`
    AtMillis,
}

impl Moment {
    /// The option of this name.
    pub(super) fn option(word: &[u8]) -> Option<Moment> {
        [
            ("EX", Moment::Seconds),
            ("PX", Moment::Millis),
            ("EXAT", Moment::AtSeconds),
            ("PXAT", Moment::AtMillis),
        ]
        .into_iter()
        .find_map(|(option, moment)| is(word, option).then_some(moment))
    }

    /// The moment meant by `text`, in milliseconds since 1970; negative if before.
    pub(super) fn millis(self, text: &[u8], command: &str) -> Result<i64, Refusal> {
        let number = integer(text)?;
        let unit = if matches!(self, Moment::Seconds | Moment::AtSeconds) { 1000 } else { 1 };
        let from = match self {
            Moment::Seconds | Moment::Millis => i64::try_from(wall_ms()).unwrap_or(i64::MAX),
            Moment::AtSeconds | Moment::AtMillis => 0,
        };
        number
            .checked_mul(unit)
            .and_then(|millis| millis.checked_add(from))
            .ok_or_else(|| invalid_expire(command))
    }

    /// The same for a write, where the number must be positive.
    pub(super) fn expiry(self, text: &[u8], command: &str) -> Result<Expiry, Refusal> {
        if integer(text)? <= 0 {
            return Err(invalid_expire(command));
        }
        let millis = self.millis(text, command)?;
        Ok(Expiry(u64::try_from(millis).map_err(|_| invalid_expire(command))?))
    }
}

fn invalid_expire(command: &str) -> Refusal {
    Refusal::new(format!("ERR invalid expire time in '{command}' command"))
}
