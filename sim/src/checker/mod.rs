//! The judge: it watches every request, every message, every record written and every sync, and knows no mercy.
//!
//! It holds the names ([`Invariant`]) and rules by which a run is judged, and works on two levels. From the clients'
//! side it knows what was asked and answered. From the nodes' side it keeps an exact shadow of every replica's copies,
//! so that a wrong step is caught where it happens and not only if some read happens to stumble on it later.
//!
//! The central rule is short. Every dot that ever named a value is *open* until some write that may cover it has been
//! asked for: one whose context holds the dot, or a plain write whose coordinator held it. As long as a dot is open, any
//! object and any context that claims to have seen it must still have it.

mod background;
mod bounds;
mod causality;
mod circumstances;
mod convergence;
mod coordinators;
mod damage;
mod durability;
mod given_back;
mod handover;
mod keyspaces;
mod losses;
mod replies;
mod requests;
mod views;
mod violation;

pub use bounds::Load;
pub use circumstances::Circumstances;
pub use convergence::Unrest;
pub use coordinators::Coordination;
pub use keyspaces::{Quorum, View};
pub use replies::Standing;
pub use requests::{Outcome, Request};
pub use violation::{Invariant, Violation};

use crate::time::Time;
use background::Background;
use bytes::Bytes;
use core::fmt;
use durability::Shadow;
pub use given_back::EXPIRED;
use gramme_quorum::{Limits, Object, Version};
use gramme_ring::{Layout, Slot};
use gramme_vclock::{Dot, GrowableDotSet as DotSet};
use handover::Changes;
use keyspaces::One;
use keyspaces::Rules;
use replies::Asks;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One client request of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

impl OpId {
    pub(crate) fn index(self) -> usize {
        usize::try_from(self.0).expect("as many requests as fit into memory")
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "w{}", self.0)
    }
}

/// Why a dot may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coverer {
    Op(OpId),
    /// The tombstone of a plain delete, which does not say which request it came from.
    Tombstone(Dot),
}

/// What is known of a dot.
#[derive(Clone, Debug)]
struct Birth {
    /// The request, for a value.
    op: Option<OpId>,
    /// For a tombstone, the deletes whose it may be.
    deletes: Vec<OpId>,
    at: Time,
    version: Version,
    /// Its coordinator may have known of a live value as it was minted.
    beside: bool,
    /// Writes that may have replaced it.
    covered_by: Vec<Coverer>,
    /// Dots that were minted in its place: whoever has seen one of them does not have this any more.
    replaced_by: Vec<Dot>,
    /// Nodes that have ever held it durably, a bit each.
    durable_at: u128,
    /// Nodes that have ever held it, where an acknowledgement does not wait for the disk.
    written_at: u128,
    /// Nodes that had it and lost it, with their disk or otherwise, and do not have it again, a bit each.
    lost_at: u128,
    /// Nodes that lost it once, but for what the old copy of their disk still had, a bit each.
    missed_at: u128,
    /// Acknowledged writes that have replaced it and are not lost: as long as there is one, it is gone.
    gone_by: Vec<OpId>,
    /// It was only on disks that were wiped: it may be lost, and what it replaced may be back.
    excused: bool,
}

impl Birth {
    /// The request that it is of, if that is sure.
    fn origin(&self) -> Option<OpId> {
        self.op.or(match self.deletes[..] {
            [one] => Some(one),
            _ => None,
        })
    }

    fn is_durable_at(&mut self, node: usize) {
        self.durable_at |= 1 << node;
        self.lost_at &= !(1 << node);
    }

    fn is_gone(&self) -> bool {
        !self.gone_by.is_empty()
    }

    /// Whether readers whose clock shows this may no longer see it.
    fn expiry_is_by(&self, wall_ms: u64) -> bool {
        self.version.expiry.is_some_and(|at| at.0 <= wall_ms)
    }
}

/// Everything about one key.
#[derive(Clone, Debug)]
struct Key {
    name: Bytes,
    slot: u16,
    /// Its keyspace, by number.
    keyspace: usize,
    dots: BTreeMap<Dot, Birth>,
    /// Values that nothing may have covered. None where the last write wins, whatever it has seen.
    open: BTreeSet<Dot>,
    /// Dots not yet gone, values and tombstones.
    present: BTreeSet<Dot>,
    /// The dots of strict writes that were acknowledged.
    strict_done: DotSet,
    /// The dots of the writes that were acknowledged last.
    done: VecDeque<Dot>,
    /// Acknowledged strict plain writes: when they ended, when they began.
    plain_done: Vec<(Time, Time, OpId)>,
    /// All deletes.
    deletes: Vec<OpId>,
}

impl Key {
    /// `op` may replace these.
    fn cover(&mut self, op: OpId, covers: impl Fn(Dot) -> bool) {
        self.cover_by(Coverer::Op(op), covers);
    }

    fn cover_by(&mut self, by: Coverer, covers: impl Fn(Dot) -> bool) {
        for dot in self.present.iter().filter(|dot| covers(**dot)) {
            let birth = self.dots.get_mut(dot).expect("only known dots are present");
            if !birth.covered_by.contains(&by) {
                birth.covered_by.push(by);
            }
            self.open.remove(dot);
        }
    }

    /// This dot may be lost, and what it has replaced may be back: it has to be where some copy still has it.
    fn excuse(&mut self, dot: Dot, is_kept: impl Fn(Dot) -> bool) {
        self.open.remove(&dot);
        let Some(birth) = self.dots.get_mut(&dot) else { return };
        birth.excused = true;
        let (op, deletes) = (birth.op, birth.deletes.clone());
        // Another round of the same write has replaced as much.
        if op.is_some() && self.dots.values().any(|birth| birth.op == op && !birth.excused) {
            return;
        }
        let by = op.map_or(Coverer::Tombstone(dot), Coverer::Op);
        let is_lost = |by: &OpId| op == Some(*by) || deletes.contains(by);
        for (other, birth) in &mut self.dots {
            let covered = birth.covered_by.contains(&by) || birth.gone_by.iter().any(is_lost);
            if !covered || *other == dot {
                continue;
            }
            birth.gone_by.retain(|by| !is_lost(by));
            if !birth.is_gone() && !is_kept(*other) {
                birth.excused = true;
            } else if !birth.is_gone() && !birth.excused {
                self.present.insert(*other);
            }
        }
    }

    /// This dot is minted, and these objects of its first breath have it: in the place of what none of them has any more and all have
    /// seen. A history that speaks of a dot and not of what it replaced proves nothing by it from now on: it came from a context.
    fn replace(&mut self, dot: Dot, objects: &[&Object]) {
        for (other, birth) in self.dots.iter_mut().filter(|(other, _)| **other != dot) {
            let lacks = |object: &&&Object| !object.seen().contains(*other) || object.get(*other).is_some();
            let mut lacking = objects.iter().filter(lacks).peekable();
            if lacking.peek().is_none() && self.present.contains(other) {
                birth.replaced_by.push(dot);
            }
            lacking.for_each(|object| birth.replaced_by.retain(|by| !object.seen().contains(*by)));
        }
    }

    /// What an object has of this key although it has seen what replaced it.
    fn revived(&self, dots: impl IntoIterator<Item = Dot>, seen: &DotSet) -> Option<(Dot, Dot)> {
        dots.into_iter().find_map(|dot| {
            let replaced_by = self.dots.get(&dot).map(|birth| &birth.replaced_by)?;
            replaced_by.iter().find(|by| seen.contains(**by)).map(|by| (dot, *by))
        })
    }

    /// `op` surely did nothing.
    fn uncover(&mut self, op: OpId, lww: bool) {
        let tombstones = self.dots.iter().filter(|(_, birth)| birth.deletes[..] == [op]);
        let tombstones: Vec<Dot> = tombstones.map(|(dot, _)| *dot).collect();
        let own = |by: &Coverer| match by {
            Coverer::Op(by) => *by == op,
            Coverer::Tombstone(dot) => tombstones.contains(dot),
        };
        for dot in &self.present {
            let birth = self.dots.get_mut(dot).expect("only known dots are present");
            let before = birth.covered_by.len();
            birth.covered_by.retain(|by| !own(by));
            let uncovered = birth.covered_by.len() < before && birth.covered_by.is_empty();
            if uncovered && birth.op.is_some() && !birth.excused && !lww {
                self.open.insert(*dot);
            }
        }
    }
}

/// Judges one run.
#[derive(Debug)]
pub struct Checker {
    /// The smallest N that anybody goes by, and the largest.
    replicas: (u8, u8),
    /// The largest N that any node went by so far.
    widest: u8,
    /// The rules by prefix; those of all other keys come first.
    keyspaces: Vec<(String, Rules)>,
    keys: Vec<Key>,
    numbers: BTreeMap<Bytes, usize>,
    /// Dots are unique within a slot.
    dot_keys: BTreeMap<(u16, Dot), usize>,
    /// The keys of calls between nodes: answers do not name theirs.
    calls: BTreeMap<u64, usize>,
    calls_by_age: VecDeque<u64>,
    requests: Vec<Request>,
    waiting: BTreeSet<OpId>,
    shadows: Vec<Shadow>,
    /// The rules as the cluster begins.
    founding: View,
    /// Nodes that were given up for dead, a bit each.
    gone: u128,
    /// Nodes whose disks were set back and that have not heard of it, a bit each.
    unaware: u128,
    /// The nodes' bounds.
    limits: Limits,
    /// Bytes of the largest request so far, and of the heaviest object with its key, by what a node reckons for it.
    longest: usize,
    heaviest: usize,
    /// What was minted in the step that is looked at.
    born: Vec<(usize, Dot)>,
    background: Background,
    /// What was minted in the step that is looked at, in keyspaces of which one replica syncs at once.
    ones: Vec<One>,
    /// How many in a row of those nobody was asked to sync at once.
    unsynced_ones: u32,
    /// How often each node has lost something of what was on its disk.
    losses: Vec<u64>,
    /// Every node that ever was a member: what layouts call it, and its number.
    ids: BTreeMap<u64, usize>,
    /// Layouts that were looked at, by their hashes.
    sound: BTreeMap<u64, Layout>,
    /// What changes of the layout move.
    changes: Changes,
    asks: Asks,
    /// What nodes were told by others that those have, by node and key, and by who said so.
    told: BTreeMap<(usize, usize), BTreeMap<usize, DotSet>>,
    /// There are no more faults at once than the promises allow for.
    limited: bool,
    /// Members of the newest layout: what hints call them, and their numbers.
    members: BTreeMap<u64, usize>,
    /// The newest layout.
    layout: Option<Layout>,
    acknowledged: u64,
    violation: Option<Violation>,
}

impl Checker {
    /// A judge of `nodes` nodes (128 at the most) that keep each key `replicas` times, read `r` copies and acknowledge after `w`.
    #[must_use]
    pub fn new(nodes: usize, replicas: u8, r: u8, w: u8) -> Checker {
        assert!(nodes <= 128, "holders are counted in 128 bits");
        let view = View { founding: (r, w), ..View::default() };
        Checker {
            replicas: (replicas, replicas),
            widest: replicas,
            keyspaces: vec![(String::new(), Rules::new())],
            keys: Vec::new(),
            numbers: BTreeMap::new(),
            dot_keys: BTreeMap::new(),
            calls: BTreeMap::new(),
            calls_by_age: VecDeque::new(),
            requests: Vec::new(),
            waiting: BTreeSet::new(),
            shadows: vec![Shadow::new(view.clone()); nodes],
            founding: view,
            gone: 0,
            unaware: 0,
            limits: Limits::default(),
            longest: 0,
            heaviest: 0,
            born: Vec::new(),
            background: Background::default(),
            ones: Vec::new(),
            unsynced_ones: 0,
            losses: vec![0; nodes],
            ids: BTreeMap::new(),
            sound: BTreeMap::new(),
            changes: Changes::default(),
            asks: Asks::default(),
            told: BTreeMap::new(),
            limited: false,
            members: BTreeMap::new(),
            layout: None,
            acknowledged: 0,
            violation: None,
        }
    }

    /// There will be no more faults at once than the promises allow for.
    pub const fn set_limited(&mut self) {
        self.limited = true;
    }

    /// The first promise that was broken.
    #[must_use]
    pub const fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Writes acknowledged so far.
    #[must_use]
    pub const fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// A request's story.
    #[must_use]
    pub fn request(&self, id: OpId) -> &Request {
        &self.requests[id.index()]
    }

    /// The number of a request's key.
    pub(crate) fn number_of(&self, id: OpId) -> usize {
        self.requests[id.index()].key
    }

    /// How many requests there were.
    #[must_use]
    pub const fn requests(&self) -> usize {
        self.requests.len()
    }

    /// How many of them were writes.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.requests.iter().filter(|request| request.op.is_write()).count()
    }

    /// Every key that was asked for.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.keys.iter().map(|key| &key.name)
    }

    /// Every key of a slot.
    pub fn keys_in(&self, slot: u16) -> Vec<Bytes> {
        self.keys.iter().filter(|key| key.slot == slot).map(|key| key.name.clone()).collect()
    }

    /// Notes a broken promise; the first one counts, the rest may follow from it.
    pub(crate) fn fail(&mut self, at: Time, invariant: Invariant, key: Option<usize>, what: String) {
        let key = key.map(|key| self.keys[key].name.clone());
        self.violation.get_or_insert(Violation { invariant, at, key, what });
    }

    fn key_number(&mut self, name: &Bytes) -> usize {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.keys.len();
        self.keys.push(Key {
            name: name.clone(),
            slot: Slot::of(name).index(),
            keyspace: self.keyspace_of(name),
            dots: BTreeMap::new(),
            open: BTreeSet::new(),
            present: BTreeSet::new(),
            strict_done: DotSet::new(),
            done: VecDeque::new(),
            plain_done: Vec::new(),
            deletes: Vec::new(),
        });
        self.numbers.insert(name.clone(), number);
        number
    }
}

/// The value that request `id` writes: its number, then bytes that follow from it. Unique in a run.
#[must_use]
pub fn value_of(id: OpId, padding: usize) -> Bytes {
    let mut value = format!("w{}.", id.0).into_bytes();
    let mut bits = crate::rng::splitmix(id.0);
    for _ in 0..padding {
        bits = bits.rotate_left(8).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        value.push(bits.to_le_bytes()[7]);
    }
    Bytes::from(value)
}

/// The request that wrote this value.
#[must_use]
pub fn writer_of(value: &[u8]) -> Option<OpId> {
    let text = value.strip_prefix(b"w")?;
    let end = text.iter().position(|b| *b == b'.')?;
    core::str::from_utf8(&text[..end]).ok()?.parse().ok().map(OpId)
}
