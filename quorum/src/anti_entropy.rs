//! Anti-entropy: replicas find out what they differ in without looking at what they agree in (Dynamo, section 4.7).
//!
//! A sum over keyed hashes of a slot's keys and versions is kept by the store at every write (the paper's Merkle trees, of
//! which a write would change a whole path, serve the same end). Now and then a node asks
//! another, in turn, for the sum over all partitions that both own; that is all where they agree. Else it asks for
//! the sums of the partitions, then of the slots of those that differ, and pulls the slots that differ. What the other
//! lacks it finds in a round of its own.

use crate::engine::{Engine, Timer};
use crate::exchange::Exchange;
pub(crate) use crate::exchange::ends;
use crate::input::Place;
use crate::message::{CallId, Message, Refusal, SumsOf};
use crate::planted::Bug;
use crate::time::{Instant, Now};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Bound;
use gramme_ring::{NodeId, Partition, Slot};

/// Sums for peers that wait to be made.
const MAX_SUMS: usize = 64;
/// And for one peer, which has no more than one round at a time, and may have lost an answer.
const MAX_OF_PEER: usize = 4;
/// Slots of damaged records that wait to be pulled; the store finds the others again.
const MAX_QUEUE: usize = 1024;

/// Names sums that were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SumsId(pub u64);

/// Who wants sums.
#[derive(Debug)]
pub(crate) enum SumsFor {
    Peer(NodeId, CallId, SumsOf),
    /// The comparison with this call's answer.
    Exchange(CallId),
}

/// A comparison under way, and both sides' answers to its question.
#[derive(Debug)]
struct Round {
    peer: NodeId,
    exchange: Exchange,
    call: CallId,
    ours: Option<Vec<u128>>,
    theirs: Option<Vec<u128>>,
    began: Instant,
}

/// This node's rounds.
#[derive(Debug, Default)]
pub(crate) struct AntiEntropy {
    round: Option<Round>,
    /// Who was compared with last.
    last: Option<NodeId>,
    /// Slots to be pulled: first and last.
    pub(crate) queue: VecDeque<((u16, u16), NodeId)>,
    pub(crate) equal: u64,
    pub(crate) slots: u64,
}

impl Engine {
    /// A key of this slot can't be read here. Comparing each key that the other owners have finds it out, and what is found damaged
    /// is [healed](Engine::start_heal). Sums say nothing of it: the index still knows the record.
    pub(crate) fn damaged(&mut self, now: Now, place: Place) {
        let Some(slot) = Slot::new(place.0) else { return };
        let slots = (place.0, place.0);
        for owner in self.view.owners(slot) {
            if owner != self.config.node
                && self.is_alive(owner)
                && !self.anti_entropy.queue.contains(&(slots, owner))
                && self.anti_entropy.queue.len() < MAX_QUEUE
            {
                self.anti_entropy.queue.push_back((slots, owner));
            }
        }
        self.pump_pulls(now);
    }

    /// It is time for a round.
    pub(crate) fn exchange_timer(&mut self, now: Now) {
        self.timers.insert((now.instant + self.config.timing.exchange, Timer::Exchange));
        let patience = 2 * self.config.timing.retry;
        self.anti_entropy.round.take_if(|round| now.instant.since(round.began) > patience);
        self.stop_stalled_pulls(now);
        // A node that is recovering compares everything already, as long as there is somebody to be asked.
        if self.anti_entropy.round.is_some() || !self.pulls.is_empty() {
            return;
        }
        let after = self.anti_entropy.last.map_or(Bound::Unbounded, Bound::Excluded);
        let ids = self.peers.range((after, Bound::Unbounded)).chain(self.peers.iter()).map(|(id, _)| *id);
        let next = ids.take(self.peers.len()).find(|id| self.is_alive(*id) && !self.shared(*id).is_empty());
        if let Some(peer) = next {
            self.anti_entropy.last = Some(peer);
            let exchange = Exchange::new(self.shared(peer));
            self.ask_sums(now, peer, exchange);
        }
    }

    /// The partitions that both this node and a peer own, by the layout that reads go by: what a transition brings is not
    /// compared before it is there.
    fn shared(&self, peer: NodeId) -> Vec<Partition> {
        let Some(layout) = self.view.reading() else { return Vec::new() };
        let mine = layout.partitions_of(self.config.node).map(|(partition, _)| partition);
        mine.filter(|partition| layout.is_owner(*partition, peer)).collect()
    }

    /// Asks both sides for the sums of the exchange's question; without one the round is over.
    fn ask_sums(&mut self, now: Now, peer: NodeId, exchange: Exchange) {
        let Some(of) = exchange.question().cloned() else { return };
        let Some(ranges) = of.ranges(&self.shared(peer)) else { return };
        let call = self.out.call();
        let id = self.out.sums(ranges);
        self.sums.insert(id, SumsFor::Exchange(call));
        self.out.send(peer, Message::Sums { call, layout: self.view.version(), of });
        let began = now.instant;
        self.anti_entropy.round = Some(Round { peer, exchange, call, ours: None, theirs: None, began });
    }

    /// A peer asks for sums.
    pub(crate) fn sums_for(&mut self, now: Now, to: NodeId, call: CallId, of: SumsOf) {
        let of_peer = |sums: &&SumsFor| matches!(sums, SumsFor::Peer(peer, ..) if *peer == to);
        let why = if self.sums.values().filter(of_peer).count() >= MAX_OF_PEER
            || self.sums.len() >= MAX_SUMS
            || !self.grants(now, to)
        {
            Refusal::Overloaded
        } else if let Some(ranges) = of.ranges(&self.shared(to)) {
            let id = self.out.sums(ranges);
            self.sums.insert(id, SumsFor::Peer(to, call, of));
            return;
        } else {
            Refusal::Malformed
        };
        self.out.send(to, Message::Refused { call, why });
    }

    /// The store has made sums.
    pub(crate) fn summed(&mut self, now: Now, id: SumsId, sums: Vec<u128>) {
        match self.sums.remove(&id) {
            Some(SumsFor::Peer(to, call, of)) => {
                let sums = of.answer(sums);
                self.granted(to, size_of_val(&sums[..]));
                self.out.send(to, Message::Summed { call, sums });
            }
            Some(SumsFor::Exchange(call)) => {
                if let Some(round) = self.anti_entropy.round.as_mut().filter(|round| round.call == call) {
                    round.ours = round.exchange.question().map(|of| of.answer(sums));
                    self.compared(now);
                }
            }
            None => {}
        }
    }

    /// A peer's sums.
    pub(crate) fn peer_summed(&mut self, now: Now, call: CallId, from: NodeId, sums: Vec<u128>) {
        let round = self.anti_entropy.round.as_mut();
        if let Some(round) = round.filter(|round| (round.call, round.peer) == (call, from)) {
            round.theirs = Some(sums);
            self.compared(now);
        }
    }

    fn compared(&mut self, now: Now) {
        let Some(round) = self.anti_entropy.round.take_if(|r| r.ours.is_some() && r.theirs.is_some()) else {
            return;
        };
        let Round { peer, mut exchange, ours, theirs, .. } = round;
        let (ours, theirs) = (ours.unwrap_or_default(), theirs.unwrap_or_default());
        self.anti_entropy.equal += u64::from(exchange.question() == Some(&SumsOf::All) && ours == theirs);
        let mut slots = exchange.compare(&ours, &theirs);
        if self.config.planted.is(Bug::SlotSkipped) && !slots.is_empty() {
            slots.remove(0);
        }
        self.anti_entropy.slots += slots.len() as u64;
        self.anti_entropy.queue.extend(runs(&slots).into_iter().map(|run| (run, peer)));
        self.pump_pulls(now);
        self.ask_sums(now, peer, exchange);
    }

    /// Partitions have other owners now: what was under way is of no use.
    pub(crate) fn stop_exchanges(&mut self) {
        self.anti_entropy.round = None;
        self.anti_entropy.queue.clear();
    }

    /// A peer can't be reached, or refused: its round is over.
    pub(crate) fn stop_exchange(&mut self, peer: NodeId) {
        self.anti_entropy.round.take_if(|round| round.peer == peer);
        self.anti_entropy.queue.retain(|(_, from)| *from != peer);
    }

    /// Whether that was the call of an exchange, which ends with it.
    pub(crate) fn exchange_refused(&mut self, call: CallId, from: NodeId) -> bool {
        self.anti_entropy.round.take_if(|round| (round.call, round.peer) == (call, from)).is_some()
    }
}

/// Neighbouring slots as one range each.
fn runs(slots: &[u16]) -> Vec<(u16, u16)> {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for slot in slots.iter().copied() {
        match runs.last_mut() {
            Some(run) if run.1 + 1 == slot => run.1 = slot,
            _ => runs.push((slot, slot)),
        }
    }
    runs
}
