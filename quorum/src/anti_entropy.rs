//! Anti-entropy: replicas find out what they differ in without looking at what they agree in (Dynamo, section 4.7).
//!
//! A sum over keyed hashes of a slot's keys and versions is kept by the store at every write (the paper's Merkle trees, of
//! which a write would change a whole path, serve the same end). Now and then a node asks
//! another, in turn, for the sum over all partitions that both own; that is all where they agree. Else it asks for
//! the sums of the partitions, then of the slots of those that differ, and pulls the slots that differ. What the other
//! lacks it finds in a round of its own.

use crate::engine::{Engine, Timer};
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
/// Partitions whose slots are asked for at a time.
const MAX_PARTITIONS: usize = 16;

/// Slots of damaged records that wait to be pulled; the store finds the others again.
const MAX_QUEUE: usize = 1024;

/// Names sums that were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SumsId(pub u64);

/// Who wants sums.
#[derive(Debug)]
pub(crate) enum SumsFor {
    /// `true`: only their total.
    Peer(NodeId, CallId, bool),
    /// The comparison with this call's answer.
    Exchange(CallId),
}

/// A comparison under way.
#[derive(Debug)]
struct Exchange {
    peer: NodeId,
    call: CallId,
    of: SumsOf,
    ours: Option<Vec<u128>>,
    theirs: Option<Vec<u128>>,
    began: Instant,
}

/// This node's rounds.
#[derive(Debug, Default)]
pub(crate) struct AntiEntropy {
    exchange: Option<Exchange>,
    /// Who was compared with last.
    last: Option<NodeId>,
    /// Partitions that differ and were not looked into yet, in this round.
    differing: VecDeque<u16>,
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
        self.anti_entropy.exchange.take_if(|e| now.instant.since(e.began) > patience);
        self.stop_stalled_pulls(now);
        // A node that is recovering compares everything already.
        let busy = self.anti_entropy.exchange.is_some() || !self.pulls.is_empty();
        if busy || !self.recovery.is_idle() || self.view.transition().is_some() {
            return;
        }
        let after = self.anti_entropy.last.map_or(Bound::Unbounded, Bound::Excluded);
        let ids = self.peers.range((after, Bound::Unbounded)).chain(self.peers.iter()).map(|(id, _)| *id);
        let next =
            ids.take(self.peers.len()).find(|id| self.is_alive(*id) && self.shared(*id).next().is_some());
        if let Some(peer) = next {
            self.anti_entropy.last = Some(peer);
            self.compare(now, peer, SumsOf::All);
        }
    }

    /// The partitions that both this node and a peer own.
    fn shared(&self, peer: NodeId) -> impl Iterator<Item = Partition> + '_ {
        let layout = self.view.membership().layout();
        layout.into_iter().flat_map(move |layout| {
            let mine = layout.partitions_of(self.config.node).map(|(partition, _)| partition);
            mine.filter(move |partition| layout.is_owner(*partition, peer))
        })
    }

    /// The ranges of slots that are meant, each for one sum; `None` if the question makes no sense.
    fn ranges(&self, peer: NodeId, of: &SumsOf) -> Option<Vec<(u16, u16)>> {
        match of {
            SumsOf::All | SumsOf::Partitions => Some(self.shared(peer).map(ends).collect()),
            SumsOf::Slots(partitions) => {
                let count = self.view.membership().layout()?.partition_count();
                let known = partitions.iter().map(|index| count.partition((*index).into()));
                let known: Vec<Partition> = known.collect::<Option<_>>()?;
                let slots = known.iter().flat_map(|partition| partition.slots());
                (known.len() <= MAX_PARTITIONS).then(|| slots.map(|slot| (slot, slot)).collect())
            }
        }
    }

    fn compare(&mut self, now: Now, peer: NodeId, of: SumsOf) {
        let Some(ranges) = self.ranges(peer, &of) else { return };
        let call = self.out.call();
        let id = self.out.sums(ranges);
        self.sums.insert(id, SumsFor::Exchange(call));
        self.out.send(peer, Message::Sums { call, layout: self.view.version(), of: of.clone() });
        let began = now.instant;
        self.anti_entropy.exchange = Some(Exchange { peer, call, of, ours: None, theirs: None, began });
    }

    /// A peer asks for sums.
    pub(crate) fn sums_for(&mut self, to: NodeId, call: CallId, of: &SumsOf) {
        let why = if self.sums.len() >= MAX_SUMS {
            Refusal::Overloaded
        } else if let Some(ranges) = self.ranges(to, of) {
            let id = self.out.sums(ranges);
            self.sums.insert(id, SumsFor::Peer(to, call, *of == SumsOf::All));
            return;
        } else {
            Refusal::Malformed
        };
        self.out.send(to, Message::Refused { call, why });
    }

    /// The store has made sums.
    pub(crate) fn summed(&mut self, now: Now, id: SumsId, sums: Vec<u128>) {
        match self.sums.remove(&id) {
            Some(SumsFor::Peer(to, call, all)) => {
                let sums = if all { total(&sums) } else { sums };
                self.out.send(to, Message::Summed { call, sums });
            }
            Some(SumsFor::Exchange(call)) => {
                if let Some(exchange) = self.anti_entropy.exchange.as_mut().filter(|e| e.call == call) {
                    exchange.ours = Some(if exchange.of == SumsOf::All { total(&sums) } else { sums });
                    self.compared(now);
                }
            }
            None => {}
        }
    }

    /// A peer's sums.
    pub(crate) fn peer_summed(&mut self, now: Now, call: CallId, from: NodeId, sums: Vec<u128>) {
        let exchange = self.anti_entropy.exchange.as_mut();
        if let Some(exchange) = exchange.filter(|e| (e.call, e.peer) == (call, from)) {
            exchange.theirs = Some(sums);
            self.compared(now);
        }
    }

    fn compared(&mut self, now: Now) {
        let Some(exchange) = self.anti_entropy.exchange.take_if(|e| e.ours.is_some() && e.theirs.is_some())
        else {
            return;
        };
        let Exchange { peer, of, ours, theirs, .. } = exchange;
        let (ours, theirs) = (ours.unwrap_or_default(), theirs.unwrap_or_default());
        if ours.len() != theirs.len() {
            return;
        }
        let differing = ours.iter().zip(&theirs).enumerate().filter(|(_, (a, b))| a != b).map(|(at, _)| at);
        match of {
            SumsOf::All if ours == theirs => self.anti_entropy.equal += 1,
            SumsOf::All => self.compare(now, peer, SumsOf::Partitions),
            SumsOf::Partitions => {
                let shared: Vec<u16> = self.shared(peer).map(Partition::index).collect();
                self.anti_entropy.differing = differing.filter_map(|at| shared.get(at).copied()).collect();
                self.compare_slots(now, peer);
            }
            SumsOf::Slots(_) => {
                let Some(ranges) = self.ranges(peer, &of) else { return };
                let differing = differing.skip(usize::from(self.config.planted.is(Bug::SlotSkipped)));
                let slots: Vec<(u16, u16)> = differing.filter_map(|at| ranges.get(at).copied()).collect();
                self.anti_entropy.slots += slots.len() as u64;
                self.anti_entropy.queue.extend(runs(&slots).into_iter().map(|run| (run, peer)));
                self.pump_pulls(now);
                self.compare_slots(now, peer);
            }
        }
    }

    /// Looks into the next partitions that differ, until there are none.
    fn compare_slots(&mut self, now: Now, peer: NodeId) {
        let differing = &mut self.anti_entropy.differing;
        let next: Vec<u16> = differing.drain(..differing.len().min(MAX_PARTITIONS)).collect();
        if !next.is_empty() {
            self.compare(now, peer, SumsOf::Slots(next));
        }
    }

    /// Partitions have other owners now: what was under way is of no use.
    pub(crate) fn stop_exchanges(&mut self) {
        self.anti_entropy.exchange = None;
        self.anti_entropy.queue.clear();
        self.anti_entropy.differing.clear();
    }

    /// A peer can't be reached, or refused: its round is over.
    pub(crate) fn stop_exchange(&mut self, peer: NodeId) {
        self.anti_entropy.exchange.take_if(|exchange| exchange.peer == peer);
        self.anti_entropy.queue.retain(|(_, from)| *from != peer);
    }

    /// Whether that was the call of an exchange, which ends with it.
    pub(crate) fn exchange_refused(&mut self, call: CallId, from: NodeId) -> bool {
        self.anti_entropy.exchange.take_if(|e| (e.call, e.peer) == (call, from)).is_some()
    }
}

fn total(sums: &[u128]) -> Vec<u128> {
    Vec::from([sums.iter().fold(0, |sum: u128, more| sum.wrapping_add(*more))])
}

/// A partition's first slot and its last.
pub(crate) fn ends(partition: Partition) -> (u16, u16) {
    let slots = partition.slots();
    (slots.start, slots.end - 1)
}

/// Neighbouring slots as one range each.
fn runs(slots: &[(u16, u16)]) -> Vec<(u16, u16)> {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for (first, last) in slots {
        match runs.last_mut() {
            Some(run) if run.1 + 1 == *first => run.1 = *last,
            _ => runs.push((*first, *last)),
        }
    }
    runs
}
