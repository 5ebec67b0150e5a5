//! What a client asks of the cluster, and what it is told.

use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;
use core::time::Duration;
use gramme_vclock::{Dot, GrowableContext as Context, Stamp};
use serde::{Deserialize, Serialize};

/// Names one client request between the engine and its caller; the caller chooses it, unique in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// How many replicas must agree: a number, or a word resolved against N.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// Exactly this many, 1 to N.
    Count(u8),
    /// One replica.
    One,
    /// A majority of N.
    Quorum,
    /// All N.
    All,
}

impl Level {
    /// The number this stands for among `replicas`; `None` for zero or more than N.
    #[must_use]
    pub const fn resolve(self, replicas: u8) -> Option<u8> {
        let count = match self {
            Level::Count(n) => n,
            Level::One => 1,
            Level::Quorum => replicas / 2 + 1,
            Level::All => replicas,
        };
        if count >= 1 && count <= replicas { Some(count) } else { None }
    }

    /// Reads `3`, `one`, `quorum` or `all`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Level> {
        Some(match text {
            "one" | "ONE" => Level::One,
            "quorum" | "QUORUM" => Level::Quorum,
            "all" | "ALL" => Level::All,
            number => Level::Count(number.parse().ok()?),
        })
    }
}

/// Options of a read; what is `None` takes the cluster's setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadOptions {
    /// Replicas that must answer.
    pub r: Option<Level>,
    /// Primaries (owners by the layout) that must answer.
    pub pr: Option<Level>,
    /// When to give up.
    pub timeout: Option<Duration>,
}

/// Options of a write; what is `None` takes the cluster's setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteOptions {
    /// Replicas that must acknowledge, fallbacks included.
    pub w: Option<Level>,
    /// Primaries that must acknowledge.
    pub pw: Option<Level>,
    /// Replicas that must have synced to disk.
    pub dw: Option<Level>,
    /// When to give up.
    pub timeout: Option<Duration>,
}

/// Which siblings a write replaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cover {
    /// Whatever its coordinator holds, and anything that would outrank it (`SET`, `DEL`).
    Held,
    /// Nothing: a sibling is added.
    Nothing,
    /// Exactly what this context covers.
    Context(Context),
    /// Exactly what this context covers, under any policy, by a change to what was read (another expiry, its deletion) rather than a new
    /// value: a plain read shows, and `lww` keeps, any write before it that its reader has not seen.
    Amends(Context),
}

/// When a value expires, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Expiry(pub u64);

impl Expiry {
    /// The value is to stay, whatever its keyspace says of a time to live. Written as no expiry.
    pub const NEVER: Expiry = Expiry(u64::MAX);
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Read all siblings.
    Get {
        /// 1 B to 64 KiB.
        key: Bytes,
        /// How many must answer.
        options: ReadOptions,
    },
    /// Write a value.
    Put {
        /// 1 B to 64 KiB.
        key: Bytes,
        /// Up to the configured limit.
        value: Bytes,
        /// A MIME type, up to 255 bytes.
        content_type: Option<String>,
        /// Absolute time at which readers stop seeing it; `None`: as its keyspace says.
        expiry: Option<Expiry>,
        /// What it replaces.
        cover: Cover,
        /// How many must acknowledge.
        options: WriteOptions,
    },
    /// Write a tombstone.
    Delete {
        /// 1 B to 64 KiB.
        key: Bytes,
        /// What it replaces; `Cover::Nothing` is misuse.
        cover: Cover,
        /// How many must acknowledge.
        options: WriteOptions,
    },
}

impl Op {
    /// The key asked for.
    #[must_use]
    pub const fn key(&self) -> &Bytes {
        match self {
            Op::Get { key, .. } | Op::Put { key, .. } | Op::Delete { key, .. } => key,
        }
    }

    /// Bytes of its key and value.
    pub(crate) fn bytes(&self) -> usize {
        let value = if let Op::Put { value, .. } = self { value.len() } else { 0 };
        self.key().len() + value
    }

    /// Whether it changes anything.
    #[must_use]
    pub const fn is_write(&self) -> bool {
        !matches!(self, Op::Get { .. })
    }
}

/// One live value of a key, as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Which write it is.
    pub dot: Dot,
    /// When it was written, by the coordinator's hybrid logical clock.
    pub stamp: Stamp,
    /// The bytes.
    pub value: Bytes,
    /// Its MIME type, if one was given.
    pub content_type: Option<String>,
    /// When it expires, if ever.
    pub expiry: Option<Expiry>,
}

/// A finished read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The live siblings; the one that a plain read shows (largest stamp, then dot) comes first.
    pub siblings: Vec<Found>,
    /// Covers everything that was returned; empty if the key was never seen.
    pub context: Context,
}

/// What a request came to. Every request gets exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// A read's answer; no siblings: absent or deleted.
    Read(Reading),
    /// A write was acknowledged by its quorum.
    Written {
        /// What the writer handed in, plus its own dot; never a sibling that it was not shown.
        context: Context,
        /// Whether the coordinator held a live value before.
        replaced: bool,
    },
    /// It was not done, or not surely done: see [`OpError::changed`].
    Failed(OpError),
}

/// Which condition of a request was not met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Need {
    /// Read quorum.
    R,
    /// Primaries of a read quorum.
    Pr,
    /// Write quorum.
    W,
    /// Primaries of a write quorum.
    Pw,
    /// Durable copies.
    Dw,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Need::R => "r",
            Need::Pr => "pr",
            Need::W => "w",
            Need::Pw => "pw",
            Need::Dw => "dw",
        })
    }
}

/// Why a request failed. Its `Display` is the text after the protocol's error word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum OpError {
    /// The quorum can't be met and nothing was persisted or sent (a read: too few answered).
    Quorum {
        /// Which condition.
        need: Need,
        /// How many there are.
        have: u8,
        /// How many it takes.
        want: u8,
    },
    /// The write may or may not survive: it reached some replicas, fewer than asked for, or too late.
    Indeterminate {
        /// Which condition.
        need: Need,
        /// How many acknowledged.
        have: u8,
        /// How many it takes.
        want: u8,
    },
    /// Too many requests in flight here, or at all replicas asked; nothing was done. Of a write that replicas refused this holds where the
    /// network brings nothing a second time after its refusal, as a connection does; else it may still be done.
    Overloaded,
    /// The disks of all replicas asked refused the write; nothing was done, with the same reserve.
    Unwritable,
    /// The key is empty or longer than 65,536 bytes; nothing was done.
    KeyLength(u64),
    /// The value exceeds the limit given; nothing was done.
    ValueTooLarge(u64),
    /// The key has as many siblings, or bytes of them, as a coordinator admits; nothing was done.
    TooManySiblings,
    /// A level of zero or above N was asked for; nothing was done.
    Level {
        /// Which option.
        need: Need,
        /// The cluster's N.
        replicas: u8,
    },
    /// The request does not make sense (the text says why); nothing was done.
    Misuse(String),
}

impl OpError {
    /// Whether something may have been changed all the same.
    #[must_use]
    pub const fn changed(&self) -> bool {
        matches!(self, OpError::Indeterminate { .. })
    }
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpError::Quorum { need, have, want } => write!(f, "{need}: {have} of {want} reachable"),
            OpError::Indeterminate { need, have, want } => {
                write!(f, "{need}: {have} of {want} acknowledged")
            }
            OpError::Overloaded => f.write_str("too many requests in flight at this node; try again"),
            OpError::Unwritable => {
                f.write_str("no replica could write: disk full or failed; nothing was written")
            }
            OpError::KeyLength(0) => f.write_str("a key has 1 to 65536 bytes, this one is empty"),
            OpError::KeyLength(n) => write!(f, "a key has 1 to 65536 bytes, this one has {n}"),
            OpError::ValueTooLarge(limit) => write!(f, "value: the limit is {limit} bytes"),
            OpError::TooManySiblings => {
                f.write_str("siblings: read the key, merge, and write with the context you were given")
            }
            OpError::Level { need, replicas } => {
                write!(f, "{need} is a number from 1 to {replicas}, or one, quorum or all")
            }
            OpError::Misuse(why) => f.write_str(why),
        }
    }
}

impl core::error::Error for OpError {}
