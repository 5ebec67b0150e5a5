//! What is answered and still waits for the rest of its replicas: bounded, since a silent replica lets it pile up.
//!
//! Past the bound the oldest are ended as if their patience had come to its end: nothing is lost by that, it only comes earlier.

use crate::engine::Engine;
use crate::message::CallId;
use crate::time::Now;
use alloc::vec::Vec;

/// Bytes of the values of writes that linger, and of reads; the only one may have more.
const MAX_BYTES: usize = 64 << 20;

/// How many there are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lingering {
    count: usize,
    bytes: usize,
}

impl Lingering {
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// One of them had so many bytes and has so many now; none at all if it did not linger, or does no more.
    pub(crate) const fn set(&mut self, before: usize, now: usize) {
        self.count = self.count + (now > 0) as usize - (before > 0) as usize;
        self.bytes = self.bytes + now - before;
    }

    const fn is_over(&self, most: usize) -> bool {
        self.count > most || self.bytes > MAX_BYTES && self.count > 1
    }

    /// The first of these, in their order, without which there is room again, with some to spare so that they are seldom looked through.
    fn oldest(mut self, most: usize, all: impl Iterator<Item = (CallId, usize)>) -> Vec<CallId> {
        let mut calls = Vec::new();
        for (call, bytes) in all.filter(|(_, bytes)| *bytes > 0) {
            if self.count <= most - most / 8 && self.bytes <= MAX_BYTES - MAX_BYTES / 8 {
                break;
            }
            self.set(bytes, 0);
            calls.push(call);
        }
        calls
    }
}

impl Engine {
    /// Ends the oldest of the writes that linger if there are too many.
    pub(super) fn bound_lingering_writes(&mut self, now: Now) {
        let most = self.config.limits.requests;
        if self.lingering_writes.is_over(most) {
            let all = self.writes.iter().map(|(call, write)| (*call, write.lingers()));
            for call in self.lingering_writes.oldest(most, all) {
                self.end_lingering_write(now, call);
            }
        }
    }

    /// The same for reads.
    pub(super) fn bound_lingering_reads(&mut self) {
        let most = self.config.limits.requests;
        if self.lingering_reads.is_over(most) {
            let all = self.reads.iter().map(|(call, read)| (*call, read.lingers()));
            for call in self.lingering_reads.oldest(most, all) {
                self.end_lingering_read(call);
            }
        }
    }
}
