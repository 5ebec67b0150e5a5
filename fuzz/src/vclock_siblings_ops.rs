//! Three replicas of a slot with two keys, against causal histories kept as plain sets.
//!
//! Counters run per slot, copies are handed over and dropped, replicas are wiped and come back as new actors, appends
//! fail after the dot was minted. Through all of it: a replica holds exactly the values that its history says, and a
//! value that no write replaced is never gone from everywhere.

use crate::source::Source;
use gramme_vclock::{Actor, Dot, GrowableDotSet, GrowableSiblings, Minter, Written};
use std::collections::{BTreeMap, BTreeSet};

const REPLICAS: usize = 3;
const KEYS: usize = 2;
const CLIENTS: usize = 3;

type Dots = BTreeSet<Dot>;

/// A replica's copy of a key beside what it should be.
#[derive(Clone, Default)]
struct Copy {
    object: GrowableSiblings<u32>,
    /// Dots of this key that the copy must know, and those of them whose values it must hold.
    known: Dots,
    live: Dots,
    /// What the replica had minted when the copy came to be there.
    since: u64,
}

impl Copy {
    fn merge(&mut self, other: &Copy) {
        let before = (self.known.clone(), self.live.clone());
        let stays = |dot: &Dot, here: &Copy, there: &Copy| {
            here.live.contains(dot) && (there.live.contains(dot) || !there.known.contains(dot))
        };
        let all = self.live.union(&other.live);
        self.live = all.filter(|d| stays(d, self, other) || stays(d, other, self)).copied().collect();
        self.known.extend(&other.known);
        let seen = self.object.seen().clone();
        let Ok(merged) = self.object.merge(other.object.clone());
        if (&self.known, &self.live) != (&before.0, &before.1) || &seen != self.object.seen() {
            assert!(merged.changed, "a merge that changed something says that it did not");
        } else {
            assert!(!merged.changed);
        }
    }
}

struct Replica {
    minter: Minter,
    copies: [Option<Copy>; KEYS],
}

impl Replica {
    /// The copy, made now if there is none.
    fn copy(&mut self, key: usize) -> &mut Copy {
        let since = self.minter.minted();
        self.copies[key].get_or_insert_with(|| Copy { since, ..Copy::default() })
    }

    /// A write of the key was minted and is not in the copy.
    fn not_kept(&mut self, key: usize) {
        self.minter.break_hold();
        if let Some(copy) = &mut self.copies[key] {
            copy.since = self.minter.minted();
        }
    }
}

/// The one that remembers since when it has held each copy.
const REMEMBERS: usize = 2;

#[derive(Clone, Default)]
struct Client {
    key: usize,
    context: GrowableDotSet,
}

struct World {
    replicas: [Replica; REPLICAS],
    clients: [Client; CLIENTS],
    actors: u64,
    /// Last counter of every actor that there ever was.
    counters: BTreeMap<Actor, u64>,
    /// Every dot that left its minter or was kept by it: its key and value.
    minted: BTreeMap<Dot, (usize, u32)>,
    replaced: Dots,
}

/// A history of events.
///
/// # Panics
/// If a copy is not what the causal history says, or a value is lost.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let mut world = World::new();
    for _ in 0..150 {
        if source.is_empty() {
            break;
        }
        world.step(&mut source);
        world.check();
    }
    world.converge();
}

impl World {
    fn new() -> World {
        let replica = |actor| Replica { minter: Minter::new(Actor(actor)), copies: Default::default() };
        World {
            replicas: [replica(1), replica(2), replica(3)],
            clients: Default::default(),
            actors: 3,
            counters: BTreeMap::new(),
            minted: BTreeMap::new(),
            replaced: Dots::new(),
        }
    }

    fn step(&mut self, source: &mut Source<'_>) {
        let choice = source.byte();
        let (at, key) = (usize::from(choice >> 4) % REPLICAS, usize::from(choice >> 6) % KEYS);
        let other = (at + 1 + source.below(REPLICAS - 1)) % REPLICAS;
        let client = source.below(CLIENTS);
        match choice % 16 {
            // A client goes on from what it has, of this key or (after a change of mind) of nothing.
            0..=3 => {
                if self.clients[client].key != key {
                    self.clients[client] = Client { key, ..Client::default() };
                }
                let context = self.clients[client].context.clone();
                self.clients[client].context = self.write(at, key, &context, Kept::Here);
            }
            4 => {
                self.write(at, key, &GrowableDotSet::new(), Kept::Here);
            }
            // A plain overwrite.
            5 => {
                let held = self.replicas[at].copies[key].clone().unwrap_or_default();
                self.write(at, key, held.object.seen(), Kept::Here);
            }
            6 => {
                let context = self.clients[client].context.clone();
                if self.clients[client].key == key {
                    // The append failed here, and the object had been sent on already, or not.
                    let kept = if source.flag() { Kept::Only(other) } else { Kept::Nowhere };
                    let after = self.write(at, key, &context, kept);
                    if matches!(kept, Kept::Only(_)) {
                        self.clients[client].context = after;
                    }
                }
            }
            7 | 8 => {
                if let Some(copy) = &self.replicas[at].copies[key] {
                    self.clients[client] = Client { key, context: copy.object.seen().clone() };
                }
            }
            9 => self.clients[client] = Client { key, ..Client::default() },
            10..=12 => self.send(at, other, key),
            // Handed over, then dropped.
            13 | 14 => {
                self.send(at, other, key);
                if self.replicas[at].copies[key].take().is_some() {
                    self.replicas[at].minter.break_hold();
                }
            }
            _ => {
                for key in 0..KEYS {
                    self.send(at, other, key);
                }
                self.actors += 1;
                // An actor is random: it may sort anywhere.
                let actor = Actor(u64::from(source.byte()) << 32 | self.actors);
                self.replicas[at] = Replica { minter: Minter::new(actor), copies: Default::default() };
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, key: usize) {
        if let Some(copy) = self.replicas[from].copies[key].clone() {
            self.replicas[to].copy(key).merge(&copy);
        }
    }

    fn write(&mut self, at: usize, key: usize, context: &GrowableDotSet, kept: Kept) -> GrowableDotSet {
        let replica = &mut self.replicas[at];
        let value = u32::try_from(self.minted.len()).expect("few writes");
        let since = replica.minter.minted();
        let held = replica.copies[key].clone();
        let before = held.unwrap_or_else(|| Copy { since, ..Copy::default() });
        let mut copy = before.clone();
        let written = if at == REMEMBERS {
            copy.object.write_held(context, &mut replica.minter, before.since, value)
        } else {
            copy.object.write(context, &mut replica.minter, value)
        };
        let Written { dot, context: after } = written.expect("nothing names what is not minted");
        assert_eq!(dot, Dot { actor: replica.minter.actor(), counter: replica.minter.minted() });
        self.counters.insert(dot.actor, dot.counter);

        let covered: Dots = self
            .minted
            .iter()
            .filter(|(d, m)| m.0 == key && context.contains(**d))
            .map(|(d, _)| *d)
            .collect();
        copy.known.extend(&covered);
        copy.known.insert(dot);
        copy.live = copy.live.difference(&covered).copied().collect();
        copy.live.insert(dot);
        assert!(after.contains(dot) && after.includes(context), "a context lost something");
        // What was filled in beyond what the writer knew is known here, and replaced.
        for (known, (of, _)) in &self.minted {
            if *of == key && after.contains(*known) && !covered.contains(known) {
                assert!(copy.known.contains(known), "the context covers {known}, which is not known here");
                assert!(
                    !copy.live.contains(known),
                    "the context covers {known}, which the writer was not shown"
                );
            }
        }
        match kept {
            Kept::Here => self.replicas[at].copies[key] = Some(copy),
            Kept::Only(to) => {
                self.replicas[at].not_kept(key);
                self.replicas[to].copy(key).merge(&copy);
            }
            Kept::Nowhere => {
                self.replicas[at].not_kept(key);
                return context.clone();
            }
        }
        self.minted.insert(dot, (key, value));
        self.replaced.extend(covered);
        self.check_claims(&after);
        after
    }

    /// No set claims a dot that was not minted yet: the one that is would be born replaced.
    fn check_claims(&self, set: &GrowableDotSet) {
        for span in set.spans() {
            let last = self.counters.get(&span.actor).copied().unwrap_or(0);
            assert!(span.last <= last, "{span} was claimed, and {last} minted");
        }
    }

    fn check(&self) {
        for replica in &self.replicas {
            for (key, copy) in replica.copies.iter().enumerate() {
                let Some(copy) = copy else { continue };
                self.check_claims(copy.object.seen());
                assert!(copy.object.iter().map(|(d, _)| d).eq(copy.live.iter().copied()));
                assert!(copy.object.iter().all(|(d, value)| self.minted[&d] == (key, *value)));
                let of_key = self.minted.iter().filter(|(_, m)| m.0 == key);
                for dot in of_key.map(|(d, _)| d) {
                    let (claims, knows) = (copy.object.seen().contains(*dot), copy.known.contains(dot));
                    assert_eq!(claims, knows, "{dot}");
                }
            }
        }
        for (dot, (key, _)) in &self.minted {
            let held = |r: &Replica| r.copies[*key].as_ref().is_some_and(|c| c.live.contains(dot));
            assert!(self.replaced.contains(dot) || self.replicas.iter().any(held), "{dot} is lost");
        }
    }

    /// Merges in either direction; all become equal, and hold what nobody replaced.
    fn converge(&mut self) {
        for key in 0..KEYS {
            let copies: Vec<Copy> = self.replicas.iter().filter_map(|r| r.copies[key].clone()).collect();
            let mut forth = Copy::default();
            copies.iter().for_each(|copy| forth.merge(copy));
            let mut back = Copy::default();
            copies.iter().rev().for_each(|copy| back.merge(copy));
            assert!(forth.object == back.object, "the order of merges matters");
            let kept = self.minted.iter().filter(|(d, m)| m.0 == key && !self.replaced.contains(d));
            assert!(forth.object.iter().map(|(d, _)| d).eq(kept.map(|(d, _)| *d)));
            let bytes = postcard::to_allocvec(&forth.object).expect("an object has an encoding");
            let again: GrowableSiblings<u32> = postcard::from_bytes(&bytes).expect("it can be read back");
            assert!(again == forth.object);
        }
    }
}

#[derive(Clone, Copy)]
enum Kept {
    Here,
    /// Its append failed here; another replica has it.
    Only(usize),
    Nowhere,
}
