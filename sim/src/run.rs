//! A whole run: storms of faults under load, then calm, healing, and judgement; again and again until its time is up.

mod strikes;

use crate::checker::{OpId, Violation, value_of};
use crate::keyspaces::Keyspaces;
use crate::network::Weather;
use crate::rng::{Rng, Tape};
use crate::swarm::{HARMS, Harm, Heals, KINDS, Kind, Storm};
use crate::time::Time;
use crate::timeline::Timeline;
use crate::workload::Workload;
use crate::world::{Happening, Shape, World};
use bytes::Bytes;
use core::time::Duration;
use gramme_quorum::planted::Planted;
use gramme_quorum::{Cover, Level, Op, ReadOptions, WriteOptions};
use std::collections::BTreeMap;

/// Alarms: clients' turns count from zero, faults from here.
const FAULT: u64 = 1 << 32;
/// Ends of faults: a small number of kinds, with the node or round they concern.
const MEND: u64 = 1 << 33;
/// Some record is damaged.
const DAMAGE: u64 = 1 << 34;
/// A link that flaps goes up or down.
const FLAP: u64 = 1 << 35;
/// Nodes that could join.
pub const SPARES: usize = 2;
/// After healing the cluster must be at rest within this time.
const REST: Duration = Duration::from_secs(60);

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything follows from it.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// How long, in simulated time.
    pub length: Duration,
    /// Client requests per simulated second, about.
    pub rate: u64,
    /// The key whose timeline is wanted.
    pub trace: Option<Bytes>,
    /// Any number of faults at once, and no healing: only what must never happen is judged.
    pub safety_only: bool,
    /// The mistake in the engines, if there is to be one.
    pub planted: Planted,
    /// The first choices are taken from here and not from the seed: what faults there are and when, what clients there are and
    /// what they ask, how long disks and messages take and which are lost (see [`Tape`]).
    pub tape: Bytes,
}

impl Plan {
    /// A minute of this seed.
    #[must_use]
    pub const fn new(seed: u64, nodes: usize) -> Plan {
        Plan {
            seed,
            nodes,
            length: Duration::from_secs(60),
            rate: 45,
            trace: None,
            safety_only: false,
            planted: Planted::NONE,
            tape: Bytes::new(),
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The hash over all its events.
    pub hash: u64,
    /// Writes acknowledged.
    pub acknowledged: u64,
    /// Requests made.
    pub requests: usize,
    /// Of these, writes.
    pub writes: usize,
    /// Faults injected.
    pub faults: u64,
    /// Events handled.
    pub events: u64,
    /// Simulated time.
    pub length: Duration,
    /// Of this, while nodes slept and clients asked hardly anything.
    pub slept: Duration,
    /// How long after each storm all replicas were equal, hints and sweeps gone and views the same, to the second or the three: where there is
    /// anti-entropy, and no disk that stays full.
    pub rests: Vec<Duration>,
    /// Storms weathered.
    pub storms: u64,
    /// How often each kind of fault struck.
    pub struck: BTreeMap<Kind, u64>,
    /// How often records were harmed, and how.
    pub harmed: BTreeMap<Harm, u64>,
    /// The promise that was broken, if one was.
    pub violation: Option<Violation>,
    /// The timeline of the key that was to be traced.
    pub timeline: Option<Timeline>,
}

struct Run<'a> {
    world: World,
    workload: Workload,
    rng: Rng,
    storm: Storm,
    storms: u64,
    keyspaces: Keyspaces,
    damage: Option<Damage>,
    /// The link that goes up and down, until when, and how fast on average.
    flapping: Option<(usize, usize, Time, Duration)>,
    /// Until then nodes sleep, and nothing else happens to them.
    quiet: Time,
    slept: Duration,
    rests: Vec<Duration>,
    /// How often, in this storm.
    sleeps: u64,
    /// When the storm is over, and after which there is no other.
    until: Time,
    end: Time,
    /// How often each kind of fault struck.
    struck: BTreeMap<Kind, u64>,
    /// How often records were harmed, and how.
    harmed: BTreeMap<Harm, u64>,
    /// Faults rage.
    raging: bool,
    /// What makes replicas equal.
    heals: Heals,
    /// Not so many faults at once that acknowledged writes may be lost.
    limited: bool,
    progress: &'a mut dyn FnMut(&World),
}

/// Records at rest that are damaged.
#[derive(Clone, Debug)]
struct Damage {
    /// On average.
    every: Duration,
    /// On this node's disk alone.
    one: Option<usize>,
    harms: Vec<Harm>,
}

/// Runs a plan to its end, or to the first broken promise. `progress` is told now and then.
pub fn run(plan: &Plan, progress: &mut dyn FnMut(&World)) -> Outcome {
    let tape = Tape::new(plan.tape.clone());
    let mut rng = tape.stream(plan.seed, 5);
    let mut shape = Shape::new(plan.nodes);
    if rng.chance(200_000) {
        shape.segment_bytes = 16 << 10;
    }
    shape.spares = SPARES;
    shape.planted = plan.planted;
    // Anti-entropy and reads heal what hints have missed: now and then there is neither.
    let hints_alone = !plan.safety_only && rng.chance(100_000);
    if hints_alone {
        shape.timing.exchange = Duration::from_secs(3600);
    }
    // Records are damaged on one disk alone, within limits: two that do not know all wait for a third.
    let mut own = tape.stream(plan.seed, 7);
    let damaged = own.chance(250_000) && !hints_alone && plan.nodes >= 3;
    let every = own.between(Duration::from_millis(500), Duration::from_secs(10));
    let one = (!plan.safety_only).then(|| own.index(plan.nodes));
    let mut harms = HARMS.to_vec();
    harms.retain(|_| own.chance(600_000));
    if harms.is_empty() {
        harms = HARMS.to_vec();
    }
    let damage = damaged.then_some(Damage { every, one, harms });
    if damaged {
        shape.segment_bytes = 4 << 10;
        shape.scrub = Some(64 << 10);
    }
    // Bounds that a run comes up against. Where hints alone heal, those of writes that are cut short are missed.
    if own.chance(if hints_alone { 600_000 } else { 150_000 }) {
        shape.limits.requests = own.index(if hints_alone { 2 } else { 5 }) + 1;
    }
    if own.chance(150_000) {
        shape.limits.siblings = own.index(6) + 2;
    }
    if own.chance(150_000) {
        shape.limits.value = 1_000;
    }
    if own.chance(150_000) {
        shape.limits.local = own.index(6) + 2;
    }
    if own.chance(150_000) {
        shape.limits.local_bytes = own.index(400) + 60;
    }
    if own.chance(150_000) {
        shape.limits.handoff = own.index(3) + 1;
    }
    if own.chance(150_000) {
        shape.limits.repair = *own.pick(&[64 << 10, 128 << 10, 256 << 10]);
    }
    shape.cold = own.chance(500_000);
    if own.chance(150_000) {
        shape.limits.request_bytes = own.index(2_000) + 1;
    }
    // What has no hint is healed by reads, or by anti-entropy, which mostly comes first.
    let reads_alone = !plan.safety_only && !hints_alone && !damaged && own.chance(120_000);
    if reads_alone {
        shape.timing.exchange = Duration::from_secs(3600);
    }
    let heals = match (hints_alone, reads_alone) {
        (true, _) => Heals::Hints,
        (_, true) => Heals::Reads,
        _ => Heals::All,
    };
    let mut world = World::taped(plan.seed, shape, plan.trace.clone(), &tape);
    if !plan.safety_only {
        world.set_limited();
    }
    let workload = Workload::new(tape.stream(plan.seed, 4), plan.rate);
    let storm = Storm::draw(&mut rng, heals);
    // With fewer than three nodes none of these rules would mean much.
    let keyspaces = Keyspaces::draw(&mut tape.stream(plan.seed, 6));
    let keyspaces = if plan.nodes < 3 { Keyspaces::default() } else { keyspaces };
    let limited = !plan.safety_only;
    let mut run = Run {
        world,
        workload,
        rng,
        storm,
        storms: 0,
        keyspaces,
        damage,
        flapping: None,
        quiet: Time(0),
        slept: Duration::ZERO,
        rests: Vec::new(),
        sleeps: 0,
        until: Time(0),
        end: Time(0) + plan.length,
        struck: BTreeMap::new(),
        harmed: BTreeMap::new(),
        raging: false,
        heals,
        limited,
        progress,
    };
    run.start_keyspaces();
    run.write_cold();
    run.start_clients();
    while run.world.now() < run.end && run.world.checker().violation().is_none() {
        run.storm();
        if limited {
            run.calm();
        }
    }
    let Run { world, storms, mut struck, harmed, slept, rests, .. } = run;
    if world.half_steps() > 0 {
        struck.insert(Kind::HalfStep, world.half_steps());
    }
    let checker = world.checker();
    Outcome {
        hash: world.hash(),
        acknowledged: checker.acknowledged(),
        requests: checker.requests(),
        writes: checker.writes(),
        faults: world.faults(),
        events: world.events(),
        length: world.now().since(Time(0)),
        slept,
        rests,
        storms,
        struck,
        harmed,
        violation: checker.violation().cloned(),
        timeline: world.into_timeline(),
    }
}

impl Run<'_> {
    fn start_clients(&mut self) {
        for client in 0..self.workload.len() {
            let at = self.rng.soon(self.world.now(), Duration::from_secs(1));
            self.world.alarm(at, client as u64);
        }
    }

    /// Damage comes to what lies at rest: keys that are written before all others and never again, and read from time to time.
    fn write_cold(&mut self) {
        const COLD: usize = 40;
        if self.damage.is_none() {
            return;
        }
        for number in 0..COLD {
            let key = Bytes::from(format!("cold{number}"));
            let value = value_of(self.world.next_request(), 400);
            let options = WriteOptions::default();
            let cover = Cover::Nothing;
            let node = self.rng.index(self.world.nodes());
            let write = Op::Put { key: key.clone(), value, content_type: None, expiry: None, cover, options };
            self.world.submit(node, write);
            self.workload.reads_also(key);
        }
        self.advance(self.world.now() + Duration::from_secs(1));
    }

    /// The operator commits to the first keyspaces before the clients come.
    fn start_keyspaces(&mut self) {
        let first = self.keyspaces.first.clone();
        let until = self.world.now() + Duration::from_secs(20);
        if !first.is_empty() {
            self.advance(self.world.now() + Duration::from_secs(1));
            self.world.commit_keyspaces(0, &first);
        }
        self.keyspaces.later.reverse();
        while self.world.keyspaces().len() < first.len() && self.world.now() < until {
            self.advance(self.world.now() + Duration::from_millis(100));
        }
        self.use_keyspaces();
    }

    /// Clients use what all members go by.
    fn use_keyspaces(&mut self) {
        for (prefix, ttl) in self.world.keyspaces() {
            self.workload.use_prefix(&prefix, ttl);
        }
    }

    /// Safety: faults and load at once.
    fn storm(&mut self) {
        self.storms += 1;
        self.sleeps = 0;
        if self.storms > 1 {
            self.storm = Storm::draw(&mut self.rng, self.heals);
            self.workload.move_on(self.storms);
        }
        self.use_keyspaces();
        self.raging = true;
        self.world.set_calm(false);
        self.workload.set_stopped(false);
        self.world.set_resets(self.storm.resets);
        // Damage on one disk, and nothing else that could cost one.
        let spared = |kind: Kind| kind == Kind::SetBack || kind == Kind::Wipe && self.limited;
        if self.damage.is_some() {
            self.storm.kinds.retain(|(kind, _)| !spared(*kind));
            self.world.alarm(self.world.now(), DAMAGE);
        }
        for at in 0..self.storm.kinds.len() {
            self.schedule(at);
        }
        let until = self.world.now() + self.rng.between(Duration::from_secs(20), Duration::from_secs(120));
        // A storm that would leave no time for the calm after it is none.
        self.until = until.min(self.end.max(self.world.now() + Duration::from_secs(10)));
        while self.world.now() < self.until && self.world.checker().violation().is_none() {
            self.advance(self.until);
        }
    }

    /// Liveness: everything is mended, and then the cluster must come to rest.
    fn calm(&mut self) {
        self.raging = false;
        self.world.set_calm(true);
        self.workload.set_stopped(true);
        self.world.mend_all();
        self.world.unclog_all();
        self.world.set_weather(Weather::FAIR);
        self.mend(2);
        self.make_room();
        for node in 0..self.world.nodes() {
            self.world.set_drift(node, 0);
            self.world.calm_disk(node);
        }
        self.restart_all();
        // Who was lost is removed, if that has not been done.
        self.world.alter_lost();
        // Time for what is under way: requests, pauses and stragglers to end, hints to move.
        let began = self.world.now();
        let mut restless = Duration::ZERO;
        for second in 1..=10 {
            self.advance(began + Duration::from_secs(second));
            if self.world.unrest().is_some() {
                restless = Duration::from_secs(second);
            }
        }
        self.world.end_outcasts();
        // What has stalled with a lost message would wait for anti-entropy.
        if self.heals == Heals::Reads {
            self.world.renew_connections();
        }
        // A sync that was under way may have failed since.
        self.restart_all();
        let before = self.world.now();
        self.live_with_a_full_disk();
        let counts = self.heals == Heals::All && self.world.now() == before;
        let deadline = self.world.now() + REST;
        // Anti-entropy heals without a read, only not as fast.
        let reads = self.rng.chance(500_000) && self.heals == Heals::All;
        loop {
            if reads {
                self.read_everything();
            }
            if self.heals == Heals::Reads {
                self.repair_everything();
            }
            let next = self.world.now() + Duration::from_secs(3);
            self.advance(next);
            if self.world.checker().violation().is_some() {
                return;
            }
            self.world.alter_lost();
            match self.world.unrest() {
                None if !self.world.is_changing() => break,
                None => {}
                Some(unrest) if self.world.now() >= deadline => return self.world.fail_unrest(unrest),
                Some(_) => restless = self.world.now().since(began),
            }
        }
        if counts {
            self.rests.push(restless);
        }
        self.world.check_rest();
        // And then, when who stood still has gone on, with what was asked before the calm, and the last reads have ended everywhere, there
        // is nothing left to do.
        let awake = self.world.now().max(self.world.awake());
        self.advance(awake + Duration::from_secs(5));
        // Unless what was lost was removed only now.
        let is_idle = |world: &World| !world.is_changing() && world.unrest().is_none();
        let before = is_idle(&self.world).then(|| self.world.work());
        self.advance(self.world.now() + Duration::from_secs(5));
        if let Some(before) = before.filter(|_| is_idle(&self.world)) {
            self.world.check_quiet(&before);
            self.serve();
        }
    }

    /// The cluster is at rest, and nobody is away: every node writes and reads a key of each keyspace, now at the levels that are in force and
    /// now at all replicas, and reads some key that was there before. One after the other, so that no bound can be in the way.
    fn serve(&mut self) {
        let prefixes: Vec<String> =
            self.world.keyspaces().into_iter().map(|(prefix, _)| prefix).chain([String::new()]).collect();
        let known: Vec<Bytes> = self.world.checker().keys().cloned().collect();
        for (at, node) in self.world.members().into_iter().enumerate() {
            let first = at + usize::try_from(self.storms).unwrap_or(0);
            let mut turn = first;
            let mut level = || {
                turn += 1;
                turn.is_multiple_of(2).then_some(Level::All)
            };
            for prefix in &prefixes {
                let key = Bytes::from(format!("{prefix}served{node}"));
                let value = value_of(self.world.next_request(), 8);
                let options = WriteOptions { w: level(), ..WriteOptions::default() };
                // Storm after storm another sibling would be one too many.
                let alone = options.w.is_some() || self.storms > 1;
                let cover = if alone { Cover::Held } else { Cover::Nothing };
                let put =
                    Op::Put { key: key.clone(), value, content_type: None, expiry: None, cover, options };
                let options = ReadOptions { r: level(), ..ReadOptions::default() };
                self.demand(node, put);
                self.demand(node, Op::Get { key, options });
            }
            if !known.is_empty() {
                let key = known[first * 13 % known.len()].clone();
                let options = ReadOptions { r: level(), ..ReadOptions::default() };
                self.demand(node, Op::Get { key, options });
            }
        }
    }

    /// A node is asked this, and has to do it.
    fn demand(&mut self, node: usize, op: Op) {
        if self.world.checker().violation().is_some() {
            return;
        }
        let id = self.wait_for(node, op);
        if self.world.checker().violation().is_none() {
            self.world.check_served(id, node);
        }
    }

    /// Asks a node, and lets the world go on until it has answered or had its time.
    fn wait_for(&mut self, node: usize, op: Op) -> OpId {
        const STEP: Duration = Duration::from_millis(2);
        let id = self.world.submit(node, op);
        let deadline = self.world.checker().request(id).deadline;
        while self.world.checker().request(id).ended.is_none()
            && self.world.now() <= deadline
            // Nothing goes on after one.
            && self.world.checker().violation().is_none()
        {
            self.advance(self.world.now() + STEP);
        }
        id
    }

    /// Now and then one disk stays full, as far as its node can tell for ever. The others go on, and come to rest beside it.
    fn live_with_a_full_disk(&mut self) {
        if !self.rng.chance(250_000)
            || self.heals != Heals::All
            || self.damage.is_some()
            || !self.world.is_complete()
        {
            return;
        }
        let full = *self.rng.pick(&self.world.members());
        let free = self.rng.below(2_000);
        self.world.fill_disk(full, Some(free));
        self.workload.set_stopped(false);
        self.advance(self.world.now() + Duration::from_secs(10));
        self.workload.set_stopped(true);
        self.advance(self.world.now() + Duration::from_secs(10));
        let deadline = self.world.now() + REST;
        while let Some(unrest) = self.world.unrest_beside(Some(full)) {
            if self.world.checker().violation().is_some() {
                return;
            }
            if self.world.now() >= deadline {
                return self.world.fail_unrest(unrest);
            }
            self.advance(self.world.now() + Duration::from_secs(3));
        }
        self.world.check_rest_beside(Some(full));
        self.world.calm_disk(full);
    }

    /// Starts all that are down; a store that a failed sync has closed to writes opens anew.
    fn restart_all(&mut self) {
        for node in 0..self.world.nodes() {
            if !self.world.is_writable(node) {
                self.crash(node);
            }
            if !self.world.is_up(node) {
                let after = self.rng.between(Duration::ZERO, Duration::from_secs(1));
                self.world.restart(node, after);
            }
        }
    }

    /// Reads each key from all its replicas, which repairs what differs.
    fn read_everything(&mut self) {
        let keys: Vec<Bytes> = self.world.checker().keys().cloned().collect();
        for key in keys {
            let node = self.rng.index(self.world.nodes());
            let options = ReadOptions { r: Some(Level::All), pr: Some(Level::All), timeout: None };
            self.world.submit(node, Op::Get { key, options });
        }
    }

    /// The same, one key after the other: no bound is in the way, and what has no hint is equal everywhere afterwards.
    fn repair_everything(&mut self) {
        let keys: Vec<Bytes> = self.world.checker().keys().cloned().collect();
        for key in keys {
            let node = *self.rng.pick(&self.world.members());
            let options = ReadOptions { r: Some(Level::All), pr: Some(Level::All), timeout: None };
            self.wait_for(node, Op::Get { key, options });
        }
    }

    /// Lets the world go on until then, and does what comes up.
    fn advance(&mut self, until: Time) {
        while let Some(happening) = self.world.next(until) {
            match happening {
                Happening::Answered(id, answer) => {
                    let op = self.world.checker().request(id).op.clone();
                    self.workload.answered(id, &op, &answer);
                }
                Happening::Alarm(name) if name < FAULT => {
                    let client = usize::try_from(name).expect("alarms below FAULT are clients");
                    let again = self.workload.wake(&mut self.world, client);
                    self.world.alarm(again, name);
                    (self.progress)(&self.world);
                }
                Happening::Alarm(name) if name < MEND => {
                    let at = usize::try_from(name - FAULT).expect("a kind's number is small");
                    // Of an earlier storm, perhaps.
                    if self.raging && at / KINDS.len() == usize::try_from(self.storms % 1024).unwrap_or(0) {
                        if self.world.now() >= self.quiet {
                            self.strike(at % KINDS.len());
                        }
                        self.schedule(at % KINDS.len());
                    }
                }
                Happening::Alarm(DAMAGE) => self.damage(),
                Happening::Alarm(FLAP) => self.flap(),
                // The calm mends by itself, and strikes nobody.
                Happening::Alarm(name) if self.raging => self.mend(name - MEND),
                Happening::Alarm(_) => {}
            }
        }
    }
}
