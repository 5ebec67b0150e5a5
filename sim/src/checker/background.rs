//! What nodes do in the background: no more of it at a time than they may, no faster, and not over and over.

use super::{Checker, Invariant};
use crate::time::Time;
use crate::world::HINTS;
use bytes::Bytes;
use core::time::Duration;
use gramme_quorum::message::{Copy, Message, Purpose, Want};
use std::collections::{BTreeMap, BTreeSet};

/// Before so long handoff does not give up what is on its way.
const GIVEN_UP: Duration = Duration::from_secs(4);
/// So often an owner may acknowledge one object: it may be offered again while the first acknowledgement waits for a slow disk, or as all is
/// looked through once more.
const OFTEN: u32 = 3;
/// A read asks replicas for its key no later than this after its answer.
const LINGERS: Duration = Duration::from_secs(2);
/// What is answered later than this may be waited for no more.
const LATE: Duration = Duration::from_millis(100);

/// When it was handed over, which key it is of, and what it is.
type Handed = (Time, usize, Bytes);

/// What nodes have under way.
#[derive(Debug, Default)]
pub(super) struct Background {
    /// Objects that nodes have handed to others and that those have not acknowledged, by call.
    handoffs: BTreeMap<(usize, usize), BTreeMap<u64, Handed>>,
    /// By node, owner and key: the last object that was handed over and acknowledged since there is a hint for it, and how often it was.
    taken: BTreeMap<(usize, usize, usize), (Bytes, u32)>,
    fetching: BTreeMap<usize, Fetching>,
}

/// What a node fetches from others, for anti-entropy or recovery.
#[derive(Debug, Default)]
struct Fetching {
    /// Bytes that it may surely not have spent yet, and when that was so.
    left: i64,
    at: Time,
    /// The keys that peers have listed for it.
    listed: BTreeSet<(usize, Bytes)>,
    /// What it has asked for, of whom and when.
    asked: BTreeMap<(usize, u64), Time>,
}

impl Checker {
    /// A node hands something over: no more than so much is on its way to one owner. What was on its way as a connection ended counts no longer,
    /// nor what has waited for so long that it may have been given up.
    pub fn hands_over(&mut self, now: Time, node: usize, to: usize, message: &Message) {
        let Message::Write { call, purpose: Purpose::Handoff, key, object, .. } = message else { return };
        let key = self.key_number(key);
        let way = self.background.handoffs.entry((node, to)).or_default();
        way.retain(|_, (since, ..)| now.since(*since) < GIVEN_UP);
        way.insert(call.0, (now, key, object.clone()));
        // Some may just have been given up, and offered anew.
        let (count, bound) = (way.len(), 2 * self.limits.handoff);
        if count > bound {
            let what =
                format!("node {node} hands {count} objects to node {to} at a time, of at most {bound}");
            self.fail(now, Invariant::Bounds, None, what);
        }
    }

    /// A node hears of what it has handed over. `settles`: its disk refuses nothing, so that the hint goes when nothing has changed.
    pub fn answered(&mut self, now: Time, node: usize, from: usize, message: &Message, settles: bool) {
        let (Message::Written { call, .. } | Message::Refused { call, .. }) = message else { return };
        let handed = self.background.handoffs.get_mut(&(node, from)).and_then(|way| way.remove(&call.0));
        let Some((_, key, object)) = handed.filter(|_| matches!(message, Message::Written { .. })) else {
            return;
        };
        if !settles {
            self.background.taken.remove(&(node, from, key));
            return;
        }
        let (last, count) = self.background.taken.entry((node, from, key)).or_default();
        *count = if *last == object { *count + 1 } else { 1 };
        *last = object;
        if *count >= OFTEN {
            let what = format!(
                "node {from} has acknowledged {count} times what node {node} hands over to it, which keeps its hint"
            );
            self.fail(now, Invariant::HintsDrain, Some(key), what);
        }
    }

    /// A node writes a hint, or drops one.
    pub(super) fn hint_changes(&mut self, node: usize, place: u16, record: &[u8]) {
        if let Some((owner, key)) = record.split_first_chunk::<8>().filter(|_| place >= HINTS)
            && let Some(owner) = self.ids.get(&u64::from_be_bytes(*owner))
            && let Some(key) = self.numbers.get(key)
        {
            self.background.taken.remove(&(node, *owner, *key));
        }
    }

    /// A node's process begins: it has nothing under way.
    pub(super) fn begins_anew(&mut self, node: usize) {
        self.background.taken.retain(|(of, ..), _| *of != node);
        self.lets_go(node);
    }

    /// A node is told that its connection to another has ended.
    pub fn parted(&mut self, node: usize, from: usize) {
        self.background.handoffs.remove(&(node, from));
        self.lets_go(node);
    }

    /// A node may have ended what it was fetching.
    pub fn lets_go(&mut self, node: usize) {
        self.background.fetching.remove(&node);
    }

    /// A node asks a peer for pages or objects: for those that nobody else wants only if there is room in what it may fetch in a second.
    pub fn fetches(&mut self, now: Time, node: usize, to: usize, message: &Message, wanted: bool) {
        let (call, key) = match message {
            Message::List { call, objects: true, .. } => (call, None),
            Message::Read { call, key, want: Want::Object, .. } if !wanted => (call, Some(key)),
            _ => return,
        };
        let left = self.renewed(now, node);
        let fetching = self.background.fetching.entry(node).or_default();
        if key.is_some_and(|key| !fetching.listed.contains(&(to, key.clone()))) {
            return;
        }
        fetching.asked.retain(|_, since| now.since(*since) < LATE);
        fetching.asked.insert((to, call.0), now);
        // What one slice of time allows may have been given up as its peer was taken for lost, and was not spent then.
        if left <= -self.slice() {
            let what = format!(
                "node {node} fetches more from node {to}, and has spent {} bytes more than it may",
                -left
            );
            self.fail(now, Invariant::Bounds, None, what);
        }
    }

    /// Bytes that may be fetched in a tenth of a second.
    fn slice(&self) -> i64 {
        i64::from(self.limits.repair / 10).max(1)
    }

    /// What a node may have left to spend by now. Its clock may run a little fast.
    fn renewed(&mut self, now: Time, node: usize) -> i64 {
        let slice = self.slice();
        let fetching = self.background.fetching.entry(node).or_insert(Fetching {
            left: slice,
            at: now,
            ..Fetching::default()
        });
        let millis = i64::try_from(now.since(fetching.at).as_millis()).unwrap_or(i64::MAX);
        let more = (slice + slice / 10).saturating_mul(millis) / 100;
        if millis > 0 {
            fetching.left = fetching.left.saturating_add(more).min(slice);
            fetching.at = now;
        }
        fetching.left
    }

    /// Something comes that a node has asked for.
    pub fn fetched(&mut self, now: Time, node: usize, from: usize, message: &Message) {
        let (call, bytes) = match message {
            Message::Listed { keys, .. } => {
                self.renewed(now, node);
                let listed = &mut self.background.fetching.entry(node).or_default().listed;
                return listed.extend(keys.iter().map(|(key, _)| (from, key.clone())));
            }
            Message::Copy { call, copy: Copy::Object(bytes), .. } => (call, bytes.len()),
            // It may ask for other things, or for the same once more.
            Message::Offer { .. } => return self.lets_go(node),
            _ => return,
        };
        self.renewed(now, node);
        let fetching = self.background.fetching.entry(node).or_default();
        let asked = fetching.asked.remove(&(from, call.0));
        if asked.is_some_and(|since| now.since(since) < LATE) {
            fetching.left = fetching.left.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    /// Whether some client's request may have a node ask others for this key.
    #[must_use]
    pub fn may_be_wanted(&self, now: Time, id: super::OpId, key: &Bytes) -> bool {
        let request = &self.requests[id.index()];
        request.op.key() == key && request.ended.is_none_or(|ended| now.since(ended) < LINGERS)
    }
}
