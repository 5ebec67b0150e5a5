//! What strikes in a storm, and how it is mended.

use super::{DAMAGE, Damage, FAULT, FLAP, MEND, Run};
use crate::clock::DECADE;
use crate::network::Weather;
use crate::swarm::{KINDS, Kind};
use crate::time::Time;
use crate::world::{Alteration, Crash};
use core::time::Duration;
use gramme_quorum::{Keyspace, Level};

/// Standstills of hours in one storm.
const MOST_SLEEPS: u64 = 4;

impl Run<'_> {
    /// A record is damaged, and after a while another one.
    pub(super) fn damage(&mut self) {
        let Some(Damage { every, one, harms }) = self.damage.clone().filter(|_| self.raging) else { return };
        let node = one.unwrap_or_else(|| self.rng.index(self.world.nodes()));
        let harm = *self.rng.pick(&harms);
        if self.world.now() >= self.quiet && (!self.limited || self.world.is_complete()) {
            let done = self.world.damage(node, harm, !self.limited);
            *self.harmed.entry(harm).or_default() += u64::from(done);
        }
        let again = self.world.now().max(self.quiet) + self.rng.spread(every);
        self.world.alarm(again, DAMAGE);
    }

    pub(super) fn schedule(&mut self, at: usize) {
        let (_, mean) = self.storm.kinds[at];
        let when = self.world.now().max(self.quiet) + self.rng.spread(mean);
        let storm = (self.storms % 1024) * KINDS.len() as u64;
        self.world.alarm(when, FAULT + storm + at as u64);
    }

    fn node(&mut self) -> usize {
        self.rng.index(self.world.nodes())
    }

    /// Mostly one node, sometimes some, or all.
    fn several(&mut self) -> Vec<usize> {
        let nodes = self.world.nodes();
        match self.rng.below(4) {
            0 => {
                let odds = *self.rng.pick(&[400_000, 1_000_000]);
                (0..nodes).filter(|_| self.rng.chance(odds)).collect()
            }
            _ => vec![self.node()],
        }
    }

    /// Processes stand still for up to hours. Either the others stand still as well and go on up to a minute earlier, or they see
    /// all of it through, with little load and no other fault meanwhile. What the storm has yet to bring it brings afterwards.
    fn sleep(&mut self) -> bool {
        // A storm has other things to do.
        if self.world.now() < self.quiet || self.sleeps == MOST_SLEEPS {
            return false;
        }
        self.sleeps += 1;
        let most = *self.rng.pick(&[120, 900, 3600, 4 * 3600]);
        let length = self.rng.between(Duration::from_secs(most / 2), Duration::from_secs(most));
        let suspended = self.rng.chance(500_000);
        let sleepers = self.several();
        let alone = most <= 3600 && self.rng.chance(150_000);
        let earlier = self.rng.between(Duration::from_secs(2), Duration::from_secs(60));
        for node in 0..self.world.nodes() {
            let early = if sleepers.contains(&node) { Duration::from_secs(2) } else { earlier };
            let length = length.saturating_sub(self.rng.between(Duration::ZERO, early));
            if !alone || sleepers.contains(&node) {
                self.world.sleep(node, length, suspended);
            }
        }
        let stretch = if alone { length } else { length.saturating_sub(earlier) };
        self.quiet = self.world.now() + stretch;
        self.workload.set_quiet(self.world.now(), self.quiet);
        (self.until, self.end) = (self.until + stretch, self.end + stretch);
        // Time to go on in.
        self.until = self.until.max(self.quiet + Duration::from_secs(10) + length.saturating_sub(stretch));
        self.slept += stretch;
        true
    }

    fn lasting(&mut self) -> Time {
        let lasting = self.storm.lasting;
        self.world.now() + self.rng.spread(lasting)
    }

    pub(super) fn strike(&mut self, at: usize) {
        let kind = self.storm.kinds[at].0;
        if self.strikes(kind) {
            *self.struck.entry(kind).or_default() += 1;
        }
    }

    /// Whether it did.
    fn strikes(&mut self, kind: Kind) -> bool {
        let nodes = self.world.nodes();
        let end = self.lasting();
        match kind {
            Kind::Crash => {
                let node = self.node();
                self.crash(node);
                let after = end.since(self.world.now());
                self.world.restart(node, after);
            }
            // The world counts those that come to it.
            Kind::HalfStep => {
                let node = self.node();
                let appends = *self.rng.pick(&[1, 1, 1, 2, 3]);
                self.world.kill_amid(node, appends, end.since(self.world.now()));
                return false;
            }
            Kind::Blackout => {
                for node in 0..nodes {
                    self.world.crash(node, Crash::PowerCut);
                    let after = self.rng.between(Duration::ZERO, Duration::from_secs(5));
                    self.world.restart(node, after);
                }
            }
            Kind::Partition => {
                self.cut();
                self.world.alarm(end, MEND);
            }
            Kind::Weather => {
                let weather = self.storm.weather;
                self.world.set_weather(weather);
                self.world.alarm(end, MEND + 1);
            }
            Kind::Pause => {
                let length = if self.rng.chance(200_000) {
                    self.rng.between(Duration::from_secs(5), Duration::from_secs(30))
                } else {
                    self.rng.between(Duration::from_millis(10), Duration::from_secs(3))
                };
                for node in self.several() {
                    self.world.pause(node, length);
                }
            }
            Kind::Sleep => return self.sleep(),
            Kind::Jump => {
                let node = self.node();
                let most = *self.rng.pick(&[
                    Duration::from_millis(50),
                    Duration::from_secs(2),
                    Duration::from_secs(3600),
                    DECADE,
                ]);
                let skew = i64::try_from(self.rng.between(Duration::ZERO, most).as_millis()).unwrap_or(0);
                self.world.set_skew(node, if self.rng.chance(500_000) { skew } else { -skew });
            }
            Kind::Drift => {
                let node = self.node();
                let drift = i64::try_from(self.rng.below(100_000)).unwrap_or(0) - 50_000;
                self.world.set_drift(node, drift);
            }
            Kind::SlowDisk => {
                // All of them, or one alone; now and then that one hangs.
                let most = self.rng.between(Duration::from_millis(5), Duration::from_millis(900));
                let one = self.node();
                if self.rng.chance(300_000) {
                    (0..nodes).for_each(|node| self.world.set_sync_time(node, most));
                } else {
                    self.world.set_sync_time(one, most);
                }
                if self.rng.chance(250_000) {
                    let length = self.rng.between(Duration::from_secs(1), Duration::from_secs(10));
                    self.world.hang_disk(one, length);
                }
                self.world.alarm(end, MEND + 2);
            }
            Kind::TornWrite => {
                let node = self.node();
                // A dozen operations hit puts and syncs, a hundred compaction; few of a restart hit recovery.
                let most = *self.rng.pick(&[3, 12, 100]);
                let operations = self.rng.below(most);
                if self.rng.chance(300_000) {
                    self.world.crash(node, Crash::PowerCut);
                    self.world.restart(node, Duration::from_millis(100));
                }
                let after = self.rng.between(Duration::ZERO, Duration::from_secs(5));
                self.world.cut_power_after(node, operations, after);
            }
            Kind::FullDisk => {
                let node = self.node();
                let free = self.rng.below(20_000);
                self.world.fill_disk(node, Some(free));
                self.world.alarm(end, MEND + 3);
            }
            Kind::Wipe => {
                if !self.may_lose_a_disk() {
                    return false;
                }
                let node = self.node();
                self.world.wipe(node);
                let after = end.since(self.world.now());
                self.world.restart(node, after);
            }
            Kind::SetBack => {
                let node = self.node();
                let copied = (0..nodes).find(|node| self.world.has_image(*node));
                match copied {
                    Some(node) if self.may_lose_a_disk() => {
                        self.world.set_back(node);
                        let mut after = end.since(self.world.now());
                        // Now and then those who could tell it go down in between: they know what they have written down.
                        if self.rng.chance(300_000) {
                            self.world.alarm(self.world.now() + Duration::from_secs(6), MEND + 4);
                            after += Duration::from_secs(8);
                        }
                        self.world.restart(node, after);
                    }
                    Some(_) => return false,
                    None => {
                        self.world.set_back(node);
                        return false;
                    }
                }
            }
            Kind::Replay => {
                let most = *self.rng.pick(&[1, 5, 50]);
                let count = self.rng.range(1, most);
                return self.world.replay(usize::try_from(count).unwrap_or(1)) > 0;
            }
            Kind::Clog => {
                let (from, to) = (self.node(), self.node());
                if from == to {
                    return false;
                }
                let rate = *self.rng.pick(&[0, 0, 10, 200]);
                let limit = *self.rng.pick(&[500, 4_000, 50_000]);
                self.world.clog(from, to, rate, limit, end);
            }
            Kind::Flap => {
                let (a, b) = (self.node(), self.node());
                if a == b || self.flapping.is_some() {
                    return false;
                }
                let pace = self.rng.between(Duration::from_millis(10), Duration::from_millis(600));
                self.flapping = Some((a, b, end, pace));
                self.flap();
            }
            Kind::Membership | Kind::Zones | Kind::Replicas | Kind::Rules | Kind::Operators => {
                return self.alter(kind);
            }
            Kind::FailedSync => {
                let node = self.node();
                self.world.fail_syncs(node, 1);
                self.world.alarm(end, MEND + 16 + node as u64);
            }
        }
        true
    }

    /// With two disks gone at once, what was on these two is. Now and then one goes in the midst of a change of the layout.
    fn may_lose_a_disk(&mut self) -> bool {
        !self.limited || self.world.is_complete() || self.world.is_whole() && self.rng.chance(300_000)
    }

    /// A link goes up or down, again and again.
    pub(super) fn flap(&mut self) {
        let Some((a, b, until, pace)) = self.flapping else { return };
        if !self.raging || self.world.now() >= until {
            self.flapping = None;
            return self.world.set_cut_both(a, b, false);
        }
        self.world.flap(a, b);
        let again = self.world.now() + self.rng.spread(pace);
        self.world.alarm(again, FLAP);
    }

    /// Somebody alters the cluster, and perhaps somebody else does at the same time. Whether there was anything to be altered.
    fn alter(&mut self, kind: Kind) -> bool {
        self.use_keyspaces();
        let members = self.world.members();
        let at = *self.rng.pick(&members);
        // Nobody asks one that is given up.
        if self.world.is_outcast(at) {
            return false;
        }
        match kind {
            Kind::Zones => {
                let zones = self.rng.range(1, 4);
                let mut moved = Vec::new();
                for node in members {
                    if self.rng.chance(400_000) {
                        let zone = u8::try_from(self.rng.below(zones)).unwrap_or(0);
                        moved.push(Alteration::Zone(node, zone));
                    }
                }
                self.world.alter(at, &moved);
                !moved.is_empty()
            }
            Kind::Replicas => {
                // A single copy is not to be where a disk may be lost.
                let risky = |kind: Kind| {
                    matches!(kind, Kind::Wipe | Kind::SetBack | Kind::Membership | Kind::FullDisk)
                };
                let may_lose = self.damage.is_some() || self.storm.kinds.iter().any(|(kind, _)| risky(*kind));
                let replicas = self.rng.range(if may_lose { 2 } else { 1 }, self.world.nodes().min(5) as u64);
                let replicas = u8::try_from(replicas).unwrap_or(3);
                self.world.alter(at, &[Alteration::Replicas(replicas)]);
                true
            }
            Kind::Rules => {
                let (one, two) = (Level::One, Level::Count(2));
                let (quorum, all) = (Level::Quorum, Level::All);
                let levels =
                    [(two, two), (quorum, quorum), (quorum, quorum), (one, all), (all, one), (two, all)];
                let (r, w) = *self.rng.pick(&levels);
                let rules = Keyspace { r: Some(r), w: Some(w), ..Keyspace::default() };
                self.world.commit_keyspaces(at, &[(String::new(), rules)]);
                true
            }
            Kind::Membership if !self.keyspaces.later.is_empty() && self.rng.chance(400_000) => {
                let next = self.keyspaces.later.pop();
                self.world.commit_keyspaces(at, next.as_slice());
                true
            }
            Kind::Operators => {
                let other = *self.rng.pick(&members);
                self.change_members(at, false);
                if !self.world.is_outcast(other) {
                    self.change_members(other, false);
                }
                at != other
            }
            _ => {
                self.change_members(at, true);
                true
            }
        }
    }

    /// An operator at this node changes who is a member; `losses`: one may be given up.
    fn change_members(&mut self, at: usize, losses: bool) {
        let members = self.world.members();
        // With fewer than three members no write could be sure of two copies.
        let many = members.iter().filter(|node| !self.world.is_gone(**node)).count() > 3;
        let victim = *self.rng.pick(&members);
        let losses = losses && (!self.limited || self.world.may_give_up(victim));
        let spares = self.world.spares();
        let weight = *self.rng.pick(&[1, 1, 2, 3]);
        let join = spares.first().map(|spare| Alteration::Member(*spare, weight));
        let alterations: Vec<Alteration> = match (self.rng.below(6), join) {
            (0, Some(join)) => vec![join],
            (1, Some(join)) => vec![join, Alteration::Leave(victim)],
            (2, _) if many => vec![Alteration::Leave(victim)],
            // What it alone had is gone, so nobody else's disk may be at risk, nor another lost with it.
            (3, _) if many && losses && victim != at => {
                self.give_up(victim);
                vec![Alteration::Remove(victim)]
            }
            // Another takes its place at once, so that few need not become fewer.
            (4, Some(join)) if losses && victim != at => {
                self.give_up(victim);
                vec![join, Alteration::Remove(victim)]
            }
            _ => vec![Alteration::Member(victim, weight)],
        };
        self.world.alter(at, &alterations);
    }

    /// A member is gone for good; or it only looks so, mostly since nobody can reach it.
    fn give_up(&mut self, victim: usize) {
        if self.rng.chance(600_000) {
            return self.world.lose(victim);
        }
        if self.rng.chance(600_000) {
            for other in (0..self.world.nodes()).filter(|other| *other != victim) {
                self.world.set_cut_both(victim, other, true);
            }
            let end = self.lasting();
            self.world.alarm(end, MEND);
        }
        self.world.cast_out(victim);
    }

    pub(super) fn crash(&mut self, node: usize) {
        let power = self.storm.power_cuts;
        let how = if self.rng.chance(power) { Crash::PowerCut } else { Crash::Kill };
        self.world.crash(node, how);
    }

    fn cut(&mut self) {
        let nodes = self.world.nodes();
        let one = self.node();
        match self.rng.below(5) {
            // One node alone.
            0 => {
                for other in (0..nodes).filter(|other| *other != one) {
                    self.world.set_cut_both(one, other, true);
                }
            }
            // Two halves.
            1 => {
                let side: Vec<bool> = (0..nodes).map(|_| self.rng.chance(500_000)).collect();
                for a in 0..nodes {
                    for b in (0..a).filter(|b| side[a] != side[*b]) {
                        self.world.set_cut_both(a, b, true);
                    }
                }
            }
            // One hears nobody, or nobody hears it.
            2 => {
                let hears = self.rng.chance(500_000);
                for other in (0..nodes).filter(|other| *other != one) {
                    let (from, to) = if hears { (one, other) } else { (other, one) };
                    self.world.set_cut(from, to, true);
                }
            }
            // Two halves with a bridge between them.
            3 => {
                let side: Vec<bool> = (0..nodes).map(|_| self.rng.chance(500_000)).collect();
                for a in (0..nodes).filter(|a| *a != one) {
                    for b in (0..a).filter(|b| *b != one && side[a] != side[*b]) {
                        self.world.set_cut_both(a, b, true);
                    }
                }
            }
            // A single link.
            _ => {
                let other = self.node();
                if other != one {
                    self.world.set_cut_both(one, other, true);
                }
            }
        }
    }

    pub(super) fn mend(&mut self, what: u64) {
        match what {
            0 => self.world.mend_all(),
            1 => self.world.set_weather(Weather::FAIR),
            2 => {
                let nodes = 0..self.world.nodes();
                nodes.for_each(|node| self.world.set_sync_time(node, Duration::from_millis(1)));
            }
            3 => self.make_room(),
            4 => {
                for node in 0..self.world.nodes() {
                    self.crash(node);
                    self.world.restart(node, Duration::from_secs(1));
                }
            }
            // What a failed sync left in memory only must not look durable to the next process.
            node => {
                let node = usize::try_from(node - 16).expect("a node's number is small");
                self.crash(node);
                self.world.restart(node, Duration::from_secs(1));
            }
        }
    }

    pub(super) fn make_room(&mut self) {
        for node in 0..self.world.nodes() {
            self.world.fill_disk(node, None);
        }
    }
}
