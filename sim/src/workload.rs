//! The clients: what they ask, and what they remember of the answers.

use crate::checker::{OpId, value_of};
use crate::rng::Rng;
use crate::time::Time;
use crate::world::{Answer, World};
use bytes::Bytes;
use core::time::Duration;
use gramme_quorum::{Cover, Expiry, Level, Op, ReadOptions, Reply, WriteOptions};
use gramme_vclock::{GrowableContext as Context, SealKey};
use std::collections::BTreeMap;

/// The secret under which contexts are sealed on their way to clients and back.
const SEAL: SealKey = SealKey(*b"simulated secret");
const CLUSTER: u64 = 7;
/// A client waits so long for an answer: longer than any node does that goes on.
const GIVEN_UP: Duration = Duration::from_secs(10);

/// A client's habit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Sets without looking, and looks from time to time.
    Blind,
    /// Reads all siblings and writes what replaces them.
    Merger,
    /// Hands in the context of its own last write, never having read.
    Chainer,
    /// Adds siblings.
    Adder,
    /// Deletes, plainly or what it has read.
    Deleter,
    /// Sets what expires before long, and looks from time to time.
    Expirer,
    /// Reads, and changes or deletes what it has read, and nothing else (`EXPIRE`, `GETDEL`).
    Amender,
    /// Reads.
    Reader,
}

const HABITS: [Habit; 8] = [
    Habit::Blind,
    Habit::Merger,
    Habit::Chainer,
    Habit::Adder,
    Habit::Deleter,
    Habit::Expirer,
    Habit::Amender,
    Habit::Reader,
];

/// How sure a client wants to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Care {
    /// The cluster's own R and W.
    Usual,
    /// A majority of primaries for both: what it wrote it reads.
    Strict,
    /// One is enough.
    Careless,
    /// All of them.
    Anxious,
}

#[derive(Clone, Debug)]
struct Client {
    habit: Habit,
    care: Care,
    /// It asks an owner where it can, as clients that know the ring do.
    aware: bool,
    waiting: Option<(OpId, Time)>,
    /// Sealed contexts: of its last write, for a chainer, or of a read that it is about to act on.
    contexts: BTreeMap<Bytes, String>,
    /// It has read this key, and will write it next.
    next: Option<Bytes>,
}

/// All clients of a run.
#[derive(Clone, Debug)]
pub struct Workload {
    clients: Vec<Client>,
    keys: Vec<Bytes>,
    /// Others that are only read.
    cold: Vec<Bytes>,
    /// The keyspaces in use, and whether what is put there expires by itself; the empty prefix is for no keyspace.
    prefixes: Vec<(String, bool)>,
    /// Each key's, by number.
    prefix_of: Vec<usize>,
    think: Duration,
    /// From the first of these to the second they ask little.
    quiet: (Time, Time),
    rng: Rng,
    stopped: bool,
    of: BTreeMap<OpId, usize>,
}

impl Workload {
    /// Clients that make about `rate` requests a second between them.
    #[must_use]
    pub fn new(mut rng: Rng, rate: u64) -> Workload {
        let count = rng.range(6, 16);
        let habits: Vec<Habit> = HABITS.iter().copied().filter(|_| rng.chance(700_000)).collect();
        let habits = if habits.is_empty() { vec![Habit::Blind, Habit::Reader] } else { habits };
        let cares = *rng.pick(&[
            &[Care::Usual, Care::Strict, Care::Usual, Care::Careless, Care::Anxious][..],
            &[Care::Strict],
            &[Care::Usual],
            &[Care::Usual, Care::Strict],
        ]);
        let clients = (0..count)
            .map(|_| Client {
                habit: *rng.pick(&habits),
                care: *rng.pick(cares),
                aware: rng.chance(500_000),
                waiting: None,
                contexts: BTreeMap::new(),
                next: None,
            })
            .collect();
        // Few keys make conflicts, many make cold ones.
        let keys = usize::try_from(rng.range(1, 60)).unwrap_or(1);
        Workload {
            clients,
            keys: (0..keys).map(|n| name("", n, "")).collect(),
            cold: Vec::new(),
            prefixes: vec![(String::new(), false)],
            prefix_of: vec![0; keys],
            think: Duration::from_micros(1_000_000 * count / rate.max(1)),
            quiet: (Time(0), Time(0)),
            rng,
            stopped: false,
            of: BTreeMap::new(),
        }
    }

    /// How many clients there are; each wants to be woken by its number.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// The keys in use.
    #[must_use]
    pub fn keys(&self) -> &[Bytes] {
        &self.keys
    }

    /// A key that is read from time to time, and not written.
    pub fn reads_also(&mut self, key: Bytes) {
        self.cold.push(key);
    }

    /// A share of the keys gets this prefix from now on; `expires`: what is put there without a word about that.
    pub fn use_prefix(&mut self, prefix: &str, expires: bool) {
        let number = self.prefixes.len();
        if let Some((_, former)) = self.prefixes.iter_mut().find(|(known, _)| known == prefix) {
            *former |= expires;
            return;
        }
        self.prefixes.push((prefix.to_owned(), expires));
        for key in 0..self.keys.len() {
            if self.rng.index(number + 1) == 0 {
                self.prefix_of[key] = number;
                self.keys[key] = name(prefix, key, "");
            }
        }
    }

    /// Clients ask hardly anything between these.
    pub const fn set_quiet(&mut self, from: Time, until: Time) {
        self.quiet = (from, until);
    }

    /// Lets no new request go out, or lets them go again.
    pub const fn set_stopped(&mut self, stopped: bool) {
        self.stopped = stopped;
    }

    /// Moves to other keys: what was written under the old ones lies cold from now on.
    pub fn move_on(&mut self, cycle: u64) {
        let count = self.keys.len();
        for number in 0..count {
            if self.rng.chance(500_000) {
                let (prefix, _) = &self.prefixes[self.prefix_of[number]];
                self.keys[number] = name(prefix, number, &format!("/{cycle}"));
            }
        }
        for client in &mut self.clients {
            client.contexts.clear();
            client.next = None;
        }
    }

    /// A client's turn: what it asks, and when it wants to be woken next. It asks nothing while it waits for an answer.
    pub fn wake(&mut self, world: &mut World, number: usize) -> Time {
        let again = self.again(world.now());
        // The answer is late, if there will be one: the client's connection is not worth waiting for.
        let client = &mut self.clients[number];
        if let Some((id, _)) = client.waiting.take_if(|(_, since)| world.now().since(*since) > GIVEN_UP) {
            self.of.remove(&id);
            client.next = None;
        }
        if self.stopped || client.waiting.is_some() {
            return again;
        }
        let next = world.next_request();
        let mut op = self.choose(number, next, world.wall_ms());
        self.depart_from_rules(&mut op);
        self.depart_from_habits(&mut op);
        let node = self.node_for(world, number, op.key());
        let id = world.submit(node, op);
        self.clients[number].waiting = Some((id, world.now()));
        self.of.insert(id, number);
        again
    }

    fn again(&mut self, now: Time) -> Time {
        let busy = self.rng.between(Duration::ZERO, self.think * 2);
        let (from, until) = self.quiet;
        if now >= until {
            return now + busy;
        }
        // A few requests of each.
        let quiet = self.rng.between(Duration::ZERO, until.since(from) / 4).max(busy);
        (now + quiet).min(until + busy)
    }

    fn node_for(&mut self, world: &World, number: usize, key: &[u8]) -> usize {
        let up: Vec<usize> = if self.clients[number].aware {
            world.owners(key).into_iter().filter(|node| world.is_up(*node)).collect()
        } else {
            (0..world.nodes()).filter(|node| world.is_up(*node)).collect()
        };
        if up.is_empty() { self.rng.index(world.nodes()) } else { *self.rng.pick(&up) }
    }

    fn choose(&mut self, number: usize, id: OpId, wall_ms: u64) -> Op {
        let padding = match self.rng.below(100) {
            0 => 4096,
            1..10 => 512,
            _ => usize::try_from(self.rng.below(64)).unwrap_or(0),
        };
        let value = value_of(id, padding);
        let client = &mut self.clients[number];
        let expires = client.habit == Habit::Expirer;
        let expiry = expires.then(|| Expiry(wall_ms + self.rng.range(200, 20_000)));
        let (read, write) = options(client.care);
        let put =
            |key: Bytes, cover| Op::Put { key, value, content_type: None, expiry, cover, options: write };
        if let Some(key) = client.next.take()
            && let Some(token) = client.contexts.remove(&key)
        {
            let context = open(&key, &token);
            return match client.habit {
                Habit::Deleter => Op::Delete { key, cover: Cover::Context(context), options: write },
                Habit::Amender if self.rng.chance(200_000) => {
                    Op::Delete { key, cover: Cover::Amends(context), options: write }
                }
                Habit::Amender => put(key, Cover::Amends(context)),
                _ => put(key, Cover::Context(context)),
            };
        }
        let key = self.rng.pick(&self.keys).clone();
        let get = Op::Get { key: key.clone(), options: read };
        match client.habit {
            Habit::Blind if self.rng.chance(700_000) => put(key, Cover::Held),
            // Beside what others keep, or in its place.
            Habit::Expirer if self.rng.chance(300_000) => put(key, Cover::Nothing),
            Habit::Expirer if self.rng.chance(400_000) => put(key, Cover::Held),
            Habit::Adder if self.rng.chance(300_000) => put(key, Cover::Nothing),
            Habit::Chainer => {
                let cover = match client.contexts.get(&key) {
                    Some(token) => Cover::Context(open(&key, token)),
                    None => Cover::Nothing,
                };
                put(key, cover)
            }
            Habit::Deleter if self.rng.chance(300_000) => {
                Op::Delete { key, cover: Cover::Held, options: write }
            }
            Habit::Merger | Habit::Deleter | Habit::Amender => {
                client.next = Some(key);
                get
            }
            Habit::Blind | Habit::Adder | Habit::Expirer | Habit::Reader => get,
        }
    }

    /// In a keyspace some want something else than its rules say.
    fn depart_from_rules(&mut self, op: &mut Op) {
        let named = self.prefixes.iter().filter(|(prefix, _)| !prefix.is_empty());
        let mut fits = named.filter(|(prefix, _)| op.key().starts_with(prefix.as_bytes()));
        let Some((_, expires)) = fits.next() else { return };
        if let Op::Put { expiry: expiry @ None, .. } = op
            && *expires
            && self.rng.chance(200_000)
        {
            *expiry = Some(Expiry::NEVER);
        }
        if let Op::Put { options, .. } | Op::Delete { options, .. } = op
            && self.rng.chance(100_000)
        {
            options.dw = Some(*self.rng.pick(&[Level::One, Level::Quorum]));
        }
    }

    /// Now and then a client looks at what lies cold, asks for other primaries, or has less time.
    fn depart_from_habits(&mut self, op: &mut Op) {
        if let Op::Get { key, .. } = op
            && !self.cold.is_empty()
            && self.rng.chance(100_000)
        {
            *key = self.rng.pick(&self.cold).clone();
        }
        let level = self.rng.chance(30_000).then(|| *self.rng.pick(&[Level::One, Level::Quorum, Level::All]));
        let shortest = Duration::from_millis(20);
        let time = self.rng.chance(30_000).then(|| self.rng.between(shortest, Duration::from_secs(2)));
        let (primaries, timeout) = match op {
            Op::Get { options, .. } => (&mut options.pr, &mut options.timeout),
            Op::Put { options, .. } | Op::Delete { options, .. } => (&mut options.pw, &mut options.timeout),
        };
        *primaries = level.or(*primaries);
        *timeout = time.or(*timeout);
    }

    /// An answer came, for a client or for nobody.
    pub fn answered(&mut self, id: OpId, op: &Op, answer: &Answer) {
        let Some(number) = self.of.remove(&id) else { return };
        let client = &mut self.clients[number];
        client.waiting = None;
        let key = op.key();
        match answer {
            Answer::Reply(Reply::Read(reading)) if client.next.as_ref() == Some(key) => {
                // There is nothing to act on.
                if matches!(client.habit, Habit::Deleter | Habit::Amender) && reading.siblings.is_empty() {
                    client.next = None;
                } else {
                    client.contexts.insert(key.clone(), seal(key, &reading.context));
                }
            }
            Answer::Reply(Reply::Written { context, .. }) if client.habit == Habit::Chainer => {
                client.contexts.insert(key.clone(), seal(key, context));
            }
            _ => client.next = None,
        }
    }
}

/// A key's name. Some share a slot, where counters are shared too.
fn name(prefix: &str, number: usize, suffix: &str) -> Bytes {
    let tag = if number.is_multiple_of(4) { "{shared}" } else { "key" };
    Bytes::from(format!("{prefix}{tag}{number}{suffix}"))
}

const fn options(care: Care) -> (ReadOptions, WriteOptions) {
    let level = match care {
        Care::Usual => {
            return (
                ReadOptions { r: None, pr: None, timeout: None },
                WriteOptions { w: None, pw: None, dw: None, timeout: None },
            );
        }
        Care::Strict => {
            let quorum = Some(Level::Quorum);
            return (
                ReadOptions { r: quorum, pr: quorum, timeout: None },
                WriteOptions { w: quorum, pw: quorum, dw: None, timeout: None },
            );
        }
        Care::Careless => Some(Level::One),
        Care::Anxious => Some(Level::All),
    };
    (
        ReadOptions { r: level, pr: None, timeout: None },
        WriteOptions { w: level, pw: None, dw: None, timeout: None },
    )
}

fn seal(key: &[u8], context: &Context) -> String {
    context.to_token(&SEAL, CLUSTER, key).expect("contexts stay far below the longest token")
}

fn open(key: &[u8], token: &str) -> Context {
    Context::open(token.as_bytes(), &SEAL, CLUSTER, key).expect("what was sealed opens")
}
