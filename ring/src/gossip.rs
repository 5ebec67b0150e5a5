//! How what one node knows reaches all: once a second with one peer at random (Dynamo, section 4.8.1).
//!
//! A state machine without sockets or clocks: [`Gossip::tick`] says to whom to send what, [`Gossip::receive`] takes a
//! message in and may give one back. Two kinds of things spread: the [`Membership`], which merges, and for each node one
//! [`Record`] that only this node writes (where it listens, how often its store was opened, how far its log reaches),
//! of which the newest stands.
//!
//! | message | sent | carries |
//! |---|---|---|
//! | [`Summary`](Message::Summary) | at a tick | two hashes: all there is when both know the same |
//! | [`Heads`](Message::Heads) | in answer, if a hash differs | who was heard of up to which version |
//! | [`Delta`](Message::Delta) | in answer to that | what the other lacks, and what it is asked for |
//! | [`Delta`](Message::Delta) | in answer, if asked for something | that, and no further question |
//!
//! Who may speak, which the caller decides, is trusted not to lie: made-up commits and removals are believed. But nothing that is said panics,
//! grows past its bounds or is believed by some and refused by others for good; no stamp and no incarnation leaves a node without a larger one
//! (of stamps at the next commit; there is none after a made-up one of the [last version](crate::membership::VERSION_END)).
//!
//! Any message may be lost, repeated or late. The records of a delta are bounded ([`MAX_DELTA`]); what does not fit follows
//! in later rounds. Of the membership, who has the same commit is told its [`Progress`] only, which leaves out the tables;
//! a commit comes whole, with the layout that it leaves. When members know the same, they are quiet: a summary is not
//! answered.
//!
//! Records are kept of members, and of [`MAX_STRANGERS`] others at most, the same ones at all nodes: first those of whom it is
//! staged that they join, and among equals those with the smallest ids. Nothing is kept of who was removed, or has left
//! and does not ask to return.
//!
//! ```
//! use gramme_ring::gossip::{Gossip, Target};
//! use gramme_ring::{Change, ClusterId, Member, NodeId};
//!
//! let mut a = Gossip::new(NodeId(1), 1, 42)?;
//! let mut b = Gossip::new(NodeId(2), 1, 43)?;
//! a.set_facts(b"10.0.0.1:7000".to_vec())?;
//! for id in [1, 2] {
//!     a.membership_mut().stage(NodeId(1), Change::Member(Member::new(NodeId(id))))?;
//! }
//! let hash = a.membership().propose()?.hash();
//! a.membership_mut().commit(ClusterId(7), hash)?;
//!
//! // b knows nobody, only that there is somebody at its first seed's address.
//! let (target, hello) = b.tick(1).remove(0);
//! assert_eq!(target, Target::Seed(0));
//! let heads = a.receive(NodeId(2), hello)?.reply.unwrap();
//! let question = b.receive(NodeId(1), heads)?.reply.unwrap();
//! let answer = a.receive(NodeId(2), question)?.reply.unwrap();
//! assert!(b.receive(NodeId(1), answer)?.layout_changed);
//! assert_eq!(b.membership(), a.membership());
//! assert_eq!(b.record(NodeId(1)).unwrap().facts, b"10.0.0.1:7000");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod encoding;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use encoding::Flaw;
use serde::Serialize;

use crate::membership::{MAX_KNOWN_NODES, Membership, MergeError, Merged, Progress, Standing};
use crate::mix::{SequenceHash, mix};
use crate::node::NodeId;

/// Longest facts of a record, in bytes.
pub const MAX_FACTS: usize = 2048;
/// Most bytes of facts in one delta. At least one record fits.
pub const MAX_DELTA: usize = 64 * 1024;
/// Most records of nodes that are no members (yet) and are kept all the same. A stranger beyond them is not heard of, and
/// its own summary, which counts itself, is answered each time.
pub const MAX_STRANGERS: usize = 256;

/// Most nodes in a list of a message.
const MAX_LISTED: usize = MAX_KNOWN_NODES + MAX_STRANGERS;

/// Incarnations are below this, or refused ([`GossipError::IncarnationOutOfRange`]; of a message that is decoded,
/// [`Malformed::IncarnationOutOfRange`](crate::Malformed::IncarnationOutOfRange)).
pub const INCARNATION_END: u64 = 1 << 63;

/// A record with this incarnation or a larger one is believed of the node itself only: by what others say of it no node comes to a number from which it
/// could not go on. Where one gets so far, it spreads by its own word alone, which takes longer.
pub const HEARSAY_END: u64 = 1 << 62;

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// How old it is.
    pub head: Head,
    /// At most [`MAX_FACTS`] bytes, to which gossip gives no meaning.
    pub facts: Vec<u8>,
}

impl Record {
    fn check(&self) -> Result<(), Flaw> {
        self.head.check()?;
        if self.facts.len() <= MAX_FACTS { Ok(()) } else { Err(Flaw::FactsTooLong) }
    }

    /// Of everything in it: what a node says anew, under numbers that it used before it was rolled back, differs.
    fn hash(&self, id: NodeId) -> u64 {
        let mut hash = SequenceHash::new(DOMAIN);
        hash.numbers([id.0, self.head.incarnation, self.head.version]);
        hash.bytes(&self.facts);
        hash.finish()
    }
}

/// Records of others told at a time where the hash over all differs, and no head does.
const SOME: usize = 4;

/// Separates this hash from others over like numbers ("GrRecord" in ASCII).
const DOMAIN: u64 = 0x4772_5265_636f_7264;

/// The age of a record. The larger is the newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Head {
    /// How often the node's store was opened, so that a restarted node is newer than it was, whatever it forgot. Below
    /// [`INCARNATION_END`].
    pub incarnation: u64,
    /// How often its facts changed since.
    pub version: u64,
}

impl Head {
    /// Of a store that was just opened for this time.
    fn of(incarnation: u64) -> Result<Head, GossipError> {
        Head { incarnation, version: 0 }.check().map_err(Flaw::of_received)
    }

    fn check(self) -> Result<Head, Flaw> {
        if self.incarnation < INCARNATION_END { Ok(self) } else { Err(Flaw::IncarnationOutOfRange) }
    }
}

/// To whom a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A node that is known by its id.
    Node(NodeId),
    /// Whoever listens at the seed address of this number.
    Seed(usize),
}

/// What nodes tell each other. See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum Message {
    /// Hashes over all that the sender knows.
    Summary {
        /// [`Membership::digest`].
        #[serde(with = "crate::hex")]
        membership: u64,
        /// Over all records.
        #[serde(with = "crate::hex")]
        records: u64,
    },
    /// Up to what the sender has heard of whom.
    Heads {
        /// [`Membership::digest`].
        #[serde(with = "crate::hex")]
        membership: u64,
        /// [`Membership::commit_hash`].
        #[serde(with = "crate::hex::option")]
        commit: Option<u64>,
        /// By id, each node once.
        heads: Vec<(NodeId, Head)>,
    },
    /// What the receiver lacks and the sender would know.
    Delta {
        /// Where the hashes differed.
        membership: Option<Told>,
        /// Newer than what the receiver has; of each node one.
        records: Vec<(NodeId, Record)>,
        /// Whether the receiver's membership is asked for.
        ask_membership: bool,
        /// Whose records are asked for, each once.
        ask: Vec<NodeId>,
    },
}

/// What a node tells of its membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum Told {
    /// All of it.
    All(Box<Membership>),
    /// What is news to who has the same commit.
    Progress(Box<Progress>),
}

impl Told {
    fn commit_hash(&self) -> Option<u64> {
        match self {
            Told::All(membership) => membership.commit_hash(),
            Told::Progress(progress) => progress.commit_hash(),
        }
    }
}

/// Why a message, or what a node says of itself, is not taken in. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GossipError {
    /// The sender was removed from the cluster.
    Removed(NodeId),
    /// Facts longer than [`MAX_FACTS`].
    FactsTooLong,
    /// An incarnation of [`INCARNATION_END`] or more.
    IncarnationOutOfRange,
    /// A list longer than there are nodes.
    TooMany,
    /// A node stands twice in a list.
    Repeated,
    /// The membership is another cluster's ([`MergeError::OtherCluster`]).
    Merge(MergeError),
}

impl fmt::Display for GossipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GossipError::Removed(id) => write!(f, "node {id} was removed from the cluster"),
            GossipError::FactsTooLong => write!(f, "facts of more than {MAX_FACTS} bytes"),
            GossipError::IncarnationOutOfRange => f.write_str("an incarnation is 2^63 or more"),
            GossipError::TooMany => f.write_str("a list longer than there are nodes"),
            GossipError::Repeated => f.write_str("a node stands twice in a list"),
            GossipError::Merge(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for GossipError {}

impl From<MergeError> for GossipError {
    fn from(error: MergeError) -> Self {
        GossipError::Merge(error)
    }
}

/// What came of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// To be sent back to the sender.
    pub reply: Option<Message>,
    /// The membership is not what it was: it has to be made durable.
    pub membership_changed: bool,
    /// Another layout is committed now.
    pub layout_changed: bool,
    /// The membership told does not merge, and why. What else was told was taken in.
    pub refused: Option<MergeError>,
    /// Nodes whose records are news, by id.
    pub records: Vec<NodeId>,
    /// Others have a newer record of this node than it has itself, or another of the same age: its store was rolled back, copied or replaced. It is
    /// not believed until it comes back with a larger incarnation ([`Gossip::restart`]).
    pub ahead_of_self: Option<Head>,
}

/// One node's part in the gossip. See the [module](self).
#[derive(Clone, Debug)]
pub struct Gossip {
    me: NodeId,
    membership: Membership,
    records: BTreeMap<NodeId, Record>,
    random: u64,
}

impl Gossip {
    /// For a node whose store is opened for the `incarnation`-th time. `seed` chooses the peers; each node should have its
    /// own.
    ///
    /// # Errors
    /// [`GossipError::IncarnationOutOfRange`].
    pub fn new(me: NodeId, incarnation: u64, seed: u64) -> Result<Self, GossipError> {
        let own = Record { head: Head::of(incarnation)?, facts: Vec::new() };
        let records = BTreeMap::from([(me, own)]);
        Ok(Gossip { me, membership: Membership::new(), records, random: mix(seed) })
    }

    /// What is known of the cluster.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// To stage, commit, advance and settle; the change spreads from the next tick on.
    pub fn membership_mut(&mut self) -> &mut Membership {
        &mut self.membership
    }

    /// What a node last said of itself.
    pub fn record(&self, node: NodeId) -> Option<&Record> {
        self.records.get(&node)
    }

    /// All records by id, this node's among them.
    pub fn records(&self) -> impl Iterator<Item = (NodeId, &Record)> {
        self.records.iter().map(|(&id, record)| (id, record))
    }

    /// Changes what this node says of itself.
    ///
    /// # Errors
    /// [`GossipError::FactsTooLong`]; nothing was changed then.
    pub fn set_facts(&mut self, facts: Vec<u8>) -> Result<(), GossipError> {
        if facts.len() > MAX_FACTS {
            return Err(GossipError::FactsTooLong);
        }
        let own = self.records.get_mut(&self.me).expect("there is always one's own");
        if own.facts != facts {
            own.facts = facts;
            // After 2^64 changes the record no longer spreads; a restart helps.
            own.head.version = own.head.version.saturating_add(1);
        }
        Ok(())
    }

    /// Goes on under a larger incarnation, after [`Received::ahead_of_self`]. A smaller one changes nothing.
    ///
    /// # Errors
    /// [`GossipError::IncarnationOutOfRange`]; nothing was changed then.
    pub fn restart(&mut self, incarnation: u64) -> Result<(), GossipError> {
        let head = Head::of(incarnation)?;
        let own = self.records.get_mut(&self.me).expect("there is always one's own");
        if incarnation > own.head.incarnation {
            own.head = head;
        }
        Ok(())
    }

    fn random_below(&mut self, end: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        // The bias of a remainder is below 2^-40 for any cluster.
        usize::try_from(mix(self.random) % end.max(1) as u64).unwrap_or(0)
    }

    /// Those with whom to gossip: members of the layouts in use and strangers of whom there is a record, nobody that was
    /// removed or has left.
    fn peers(&self) -> Vec<NodeId> {
        let layouts = [self.membership.layout(), self.membership.transition().map(|t| t.from())];
        let members = layouts.into_iter().flatten().flat_map(|layout| layout.members().iter().map(|m| m.id));
        let mut peers: Vec<NodeId> = members.chain(self.records.keys().copied()).collect();
        peers.sort_unstable();
        peers.dedup();
        peers.retain(|&id| id != self.me && !self.membership.is_removed(id));
        peers
    }

    /// To be called about once a second: what to send to whom. At most two messages, one to a peer and, if none is known
    /// or now and then so that parts of a split ring find each other, one to a seed.
    pub fn tick(&mut self, seeds: usize) -> Vec<(Target, Message)> {
        // Whoever is forgotten may be so by this node's own doing, by `membership_mut`.
        self.forget();
        let peers = self.peers();
        let mut targets = Vec::new();
        if !peers.is_empty() {
            targets.push(Target::Node(peers[self.random_below(peers.len())]));
        }
        // With P peers, one in P + 1 ticks on average: seeds hear about as much as all others.
        if seeds > 0 && self.random_below(peers.len() + 1) == 0 {
            targets.push(Target::Seed(self.random_below(seeds)));
        }
        let summary = self.summary();
        targets.into_iter().map(|target| (target, summary.clone())).collect()
    }

    /// Drops what nobody keeps; were it kept by one, its summary would differ from the others' for ever.
    fn forget(&mut self) {
        let Gossip { me, membership, records, .. } = self;
        records.retain(|id, _| id == me || !is_gone(membership, *id));
        let mut strangers = self.strangers();
        if strangers.len() > MAX_STRANGERS {
            strangers.sort_unstable();
            for (_, id) in &strangers[MAX_STRANGERS..] {
                self.records.remove(id);
            }
        }
    }

    /// The others that are no members, as they are kept: the smallest first.
    fn strangers(&self) -> Vec<(bool, NodeId)> {
        let others = self.records.keys().filter(|&&id| id != self.me && !self.is_member(id));
        others.map(|&id| self.stranger(id)).collect()
    }

    fn stranger(&self, id: NodeId) -> (bool, NodeId) {
        (!self.membership.is_to_join(id), id)
    }

    /// Which new records would be kept.
    fn newcomers(&self) -> impl Fn(NodeId) -> bool + use<'_> {
        let strangers = self.strangers();
        let last = strangers.iter().max().filter(|_| strangers.len() >= MAX_STRANGERS).copied();
        move |id| {
            !is_gone(&self.membership, id)
                && (self.is_member(id) || last.is_none_or(|last| self.stranger(id) < last))
        }
    }

    /// What a [tick](Self::tick) sends, for a peer that should compare at once: a new connection, or one that goes by another
    /// layout.
    pub fn summary(&self) -> Message {
        // A sum, so that the order of records does not matter.
        let records = self.records.iter().fold(0u64, |sum, (&id, r)| sum.wrapping_add(r.hash(id)));
        Message::Summary { membership: self.membership.digest(), records }
    }

    /// Takes a message in. The caller vouches for `from`: what it may decide on depends on whether it takes part
    /// ([`Membership::merge_from`]).
    ///
    /// # Errors
    /// [`GossipError`] if the message can't be right, the sender was removed, or it is of another cluster; nothing was changed then.
    pub fn receive(&mut self, from: NodeId, message: Message) -> Result<Received, GossipError> {
        if self.membership.is_removed(from) {
            return Err(GossipError::Removed(from));
        }
        let longest = match &message {
            Message::Summary { .. } => 0,
            Message::Heads { heads, .. } => heads.len(),
            Message::Delta { records, ask, .. } => records.len().max(ask.len()),
        };
        if longest > MAX_LISTED {
            return Err(GossipError::TooMany);
        }
        message.check().map_err(Flaw::of_received)?;
        match message {
            Message::Summary { .. } => {
                let same = message == self.summary();
                Ok(Received { reply: (!same).then(|| self.heads()), ..Received::default() })
            }
            Message::Heads { membership, commit, heads } => {
                Ok(self.compare(from, membership, commit, &heads))
            }
            Message::Delta { membership, records, ask_membership, ask } => {
                let mut received = Received::default();
                if let Some(told) = &membership {
                    let merged = match told {
                        Told::All(theirs) => self.membership.merge_from(from, theirs),
                        Told::Progress(progress) => self.membership.merge_progress(progress),
                    };
                    match merged {
                        Ok(Merged { changed, layout_changed }) => {
                            (received.membership_changed, received.layout_changed) =
                                (changed, layout_changed);
                        }
                        Err(other @ MergeError::OtherCluster { .. }) => return Err(other.into()),
                        Err(error) => received.refused = Some(error),
                    }
                }
                let mut ask = ask;
                for (id, record) in records {
                    if is_hearsay(from, id, record.head) {
                        continue;
                    }
                    let ours = id == from || !self.prefers(id, &record);
                    if id != self.me && ours && self.contradicts(id, &record) {
                        // Who says this of itself does not know what it said before, and is to hear of it.
                        ask.push(id);
                    } else {
                        self.take_record(id, record, &mut received);
                    }
                }
                self.forget();
                received.records.sort_unstable();
                received.records.retain(|id| self.records.contains_key(id));
                if ask_membership || !ask.is_empty() {
                    let records = self.select(ask);
                    received.reply = Some(Message::Delta {
                        membership: ask_membership
                            .then(|| self.tell(membership.and_then(|m| m.commit_hash()))),
                        records,
                        ask_membership: false,
                        ask: Vec::new(),
                    });
                }
                Ok(received)
            }
        }
    }

    fn heads(&self) -> Message {
        let heads = self.records.iter().map(|(&id, record)| (id, record.head)).collect();
        let (membership, commit) = (self.membership.digest(), self.membership.commit_hash());
        Message::Heads { membership, commit, heads }
    }

    /// The membership, for who has this commit.
    fn tell(&self, commit: Option<u64>) -> Told {
        if commit == self.membership.commit_hash() {
            Told::Progress(Box::new(self.membership.progress()))
        } else {
            Told::All(Box::new(self.membership.clone()))
        }
    }

    /// Answers the heads of another: gives what it lacks, asks for what is lacking here.
    fn compare(
        &mut self,
        from: NodeId,
        membership: u64,
        commit: Option<u64>,
        heads: &[(NodeId, Head)],
    ) -> Received {
        let mut received = Received::default();
        let theirs: BTreeMap<NodeId, Head> = heads.iter().copied().collect();
        let told = self.records.iter().filter(|&(&id, r)| !is_hearsay(self.me, id, r.head));
        let lacks = told.filter(|(id, r)| theirs.get(id).is_none_or(|&head| head < r.head));
        let mut lacks: Vec<NodeId> = lacks.map(|(&id, _)| id).collect();
        let mut ask = Vec::new();
        let would_be_kept = self.newcomers();
        for (&id, &head) in &theirs {
            let known = self.records.get(&id);
            let newer = known.is_none_or(|r| r.head < head) && !is_hearsay(from, id, head);
            if newer && id == self.me {
                received.ahead_of_self = Some(head);
            } else if newer && (known.is_some() || would_be_kept(id)) {
                ask.push(id);
            }
        }
        drop(would_be_kept);
        let differs = membership != self.membership.digest();
        if !differs && lacks.is_empty() && ask.is_empty() && theirs.len() == self.records.len() {
            // Heads are sent where a hash differs: somebody said something else of itself than it did, at an equal head. One of these two,
            // most likely; else of the others, a few at a time.
            let start = self.random_below(self.records.len());
            lacks.extend(self.records.keys().cycle().skip(start).take(SOME.min(self.records.len())));
            lacks.extend([self.me, from]);
        }
        if differs || !lacks.is_empty() || !ask.is_empty() {
            received.reply = Some(Message::Delta {
                membership: differs.then(|| self.tell(commit)),
                records: self.select(lacks),
                ask_membership: differs,
                ask,
            });
        }
        received
    }

    /// These records as far as they fit a delta, from a random place on, so that all have their turn.
    fn select(&mut self, mut ids: Vec<NodeId>) -> Vec<(NodeId, Record)> {
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|id| self.records.contains_key(id));
        let start = self.random_below(ids.len());
        ids.rotate_left(start);
        let mut room = MAX_DELTA;
        let mut records = Vec::new();
        for id in ids {
            let record = &self.records[&id];
            let Some(left) = room.checked_sub(record.facts.len() + 32) else { break };
            room = left;
            records.push((id, record.clone()));
        }
        records
    }

    /// Whether something else is known of the node, of the same age.
    fn contradicts(&self, id: NodeId, record: &Record) -> bool {
        self.records.get(&id).is_some_and(|known| known.head == record.head && known.facts != record.facts)
    }

    /// Whether a record is to replace what is known of the node. Of two of one age, of which one is forgotten by the node itself, all take
    /// the same: it may be dead, and say no more.
    fn prefers(&self, id: NodeId, record: &Record) -> bool {
        self.records.get(&id).is_none_or(|known| (known.head, &known.facts) < (record.head, &record.facts))
    }

    fn take_record(&mut self, id: NodeId, record: Record, received: &mut Received) {
        if id == self.me {
            if record.head > self.records[&id].head || self.contradicts(id, &record) {
                received.ahead_of_self = Some(record.head);
            }
            return;
        }
        if self.prefers(id, &record) {
            self.records.insert(id, record);
            received.records.push(id);
        }
    }

    fn is_member(&self, id: NodeId) -> bool {
        self.membership.layout().is_some_and(|l| l.is_member(id))
            || self.membership.transition().is_some_and(|t| t.from().is_member(id))
    }
}

/// Whether a record of this age is not to be believed of who tells it.
fn is_hearsay(from: NodeId, id: NodeId, head: Head) -> bool {
    id != from && head.incarnation >= HEARSAY_END
}

/// Whether nothing of this node is kept: it was removed, or has left and does not ask to return.
fn is_gone(membership: &Membership, id: NodeId) -> bool {
    let leaving = || membership.transition().is_some_and(|t| t.from().is_member(id));
    membership.is_removed(id)
        || membership.standing(id) == Some(&Standing::Left) && !membership.is_to_join(id) && !leaving()
}
