//! What a driver does to a world: requests, crashes, cuts, broken clocks and disks.

use super::{Answer, Crash, Event, GRACE, HINTS, World};
use crate::checker::{Circumstances, OpId};
use crate::disk::SimDisk;
use crate::network::Weather;
use crate::node::Dying;
use crate::swarm::Harm;
use crate::time::Time;
use crate::timeline::Mark;
use bytes::Bytes;
use core::time::Duration;
use gramme_quorum::Op;

impl World {
    /// There will be no more faults at once than the promises allow for.
    pub const fn set_limited(&mut self) {
        self.checker.set_limited();
    }

    /// Rings at this time.
    pub fn alarm(&mut self, at: Time, name: u64) {
        self.queue.push(at, Event::Alarm(name));
    }

    /// A client sends a request to a node.
    pub fn submit(&mut self, node: usize, op: Op) -> OpId {
        let options = match &op {
            Op::Get { options, .. } => options.timeout,
            Op::Put { options, .. } | Op::Delete { options, .. } => options.timeout,
        };
        let limit = options.unwrap_or(self.shape.timing.request);
        let stopped = self.nodes[node].paused_until.since(self.now);
        // Clocks that run slow make longer seconds.
        let id = self.checker.submitted(self.now, op, stopped + limit + limit / 5 + GRACE);
        self.nodes[node].expected.insert(id);
        let key = self.checker.request(id).op.key();
        let circumstances = Circumstances { owners: self.owners_by_all(key), ..self.circumstances(key) };
        self.checker.begins(id, &circumstances);
        if let Some(timeline) = &mut self.timeline {
            timeline.asked(self.now, &id.to_string(), node, &self.checker.request(id).op);
        }
        let at = self.now + self.network_rng.between(Duration::from_micros(20), Duration::from_micros(300));
        self.queue.push(at, Event::Request { node, id });
        id
    }

    /// The number of the next request: its value can be made before it is sent.
    #[must_use]
    pub const fn next_request(&self) -> OpId {
        OpId(self.checker.requests() as u64)
    }

    /// Takes a node down.
    pub fn crash(&mut self, node: usize, how: Crash) {
        let Some(host) = self.nodes[node].host.take() else { return };
        self.forgets_hearsay(node, false);
        self.disturbs(node, self.now);
        self.nodes[node].disk.disarm();
        self.faults += 1;
        self.mark(Mark::Down(node), &format!("node {node} goes down ({how:?})"));
        self.hash.event(b'C', [self.now.0, node as u64, u64::from(how == Crash::Kill)], &[]);
        drop(host);
        let crashed = &mut self.nodes[node];
        self.askings.remove(&node);
        self.minds.remove(&node);
        *crashed.dying.borrow_mut() = Dying::default();
        crashed.job = None;
        crashed.saving = None;
        crashed.order = None;
        crashed.orders.clear();
        crashed.timer = None;
        // A new process is not stopped. What has waited for this one reaches it as late all the same.
        crashed.stopped_until = crashed.stopped_until.max(crashed.paused_until);
        crashed.paused_until = self.now;
        crashed.asleep_until = self.now;
        crashed.clock.resume(self.now);
        crashed.kept_all = how == Crash::Kill;
        match how {
            Crash::Kill => crashed.disk.inner().kill(),
            Crash::PowerCut => crashed.disk.inner().crash(self.disk_rng.bits()),
        }
        if how == Crash::PowerCut {
            self.checker.goes_dark(node);
        }
        self.outcast_ends(node);
        let crashed = &mut self.nodes[node];
        let mut requests = std::mem::take(&mut crashed.requests);
        requests.append(&mut crashed.expected);
        for id in requests {
            self.forget_forwarded(id);
            self.decisions.remove(&id);
            let at = self.now + self.network_rng.between(Duration::ZERO, Duration::from_millis(5));
            self.queue.push(at, Event::Answer { id, answer: Answer::Lost });
        }
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            self.network.tell(node, peer, false);
            self.checker.parted(node, peer);
            self.forget_clog(node, peer);
            // A killed process resets its connections; a machine without power says nothing.
            let within = if how == Crash::Kill { Duration::from_millis(2) } else { Duration::from_secs(4) };
            let at = self.network_rng.soon(self.now, within);
            self.queue.push(at, Event::Probe { node: peer, peer: node });
        }
    }

    /// Takes a node down and its disk away: it starts again on an empty one.
    pub fn wipe(&mut self, node: usize) {
        self.crash(node, Crash::PowerCut);
        self.fault(&format!("node {node}'s disk is wiped"));
        self.forgets_hearsay(node, true);
        self.nodes[node].disk = SimDisk::blank();
        self.nodes[node].incomplete = true;
        self.checker.wiped(self.now, node);
    }

    /// Puts a copy of a node's disk aside, as a backup of the whole machine would, or takes it out and puts it in the place of the
    /// disk.
    pub fn set_back(&mut self, node: usize) {
        let bits = self.disk_rng.bits();
        let Some((image, membership)) = self.nodes[node].image.take() else {
            let site = &mut self.nodes[node];
            site.image = Some((site.disk.inner().crash_image(bits), site.membership.clone()));
            return self.note(&format!("node {node}'s disk is copied"));
        };
        self.crash(node, Crash::PowerCut);
        self.fault(&format!("node {node}'s disk is replaced by the copy made before"));
        self.forgets_hearsay(node, true);
        self.nodes[node].disk = SimDisk::from(image);
        self.nodes[node].membership = membership;
        self.tell_rules();
        self.nodes[node].outdated = true;
        self.checker.set_back(self.now, node);
    }

    /// Some record at rest on a node's disk is damaged: one that an opening knows of whatever becomes of it, of a key that the node
    /// owns; or `any`, also in the segment that is being written, of a fallback's copy, or a hint. Whether there was one.
    pub fn damage(&mut self, node: usize, harm: Harm, any: bool) -> bool {
        if !self.is_up(node) || self.is_changing() {
            return false;
        }
        let mut records = self.checker.at_rest(node, HINTS);
        records.retain(|(place, key, _)| any || *place < HINTS && self.owners(key).contains(&node));
        self.damage_one(node, harm, any, records)
    }

    /// A node's copy of this key is damaged, if an opening knows of it whatever becomes of it. Whether it was.
    pub fn damage_copy(&mut self, node: usize, key: &str, harm: Harm) -> bool {
        let mut records = self.checker.at_rest(node, HINTS);
        records.retain(|(place, name, _)| *place < HINTS && *name == key);
        self.damage_one(node, harm, false, records)
    }

    /// The same of one of these records.
    fn damage_one(
        &mut self,
        node: usize,
        harm: Harm,
        any: bool,
        mut records: Vec<(u16, Bytes, Bytes)>,
    ) -> bool {
        const TRIES: usize = 20;
        // Where another owner lags behind it matters whom a copy is healed from.
        let prefers = harm != Harm::Misdirected && self.disk_rng.chance(500_000);
        let lags = |(_, key, _): &(u16, Bytes, Bytes)| self.checker.differ(key, &self.owners(key));
        if prefers && records.iter().any(lags) {
            records.retain(lags);
        }
        for _ in 0..TRIES.min(records.len()) {
            let first = self.disk_rng.index(records.len());
            let second = self.disk_rng.index(records.len());
            let bits = self.disk_rng.bits();
            let disk = &self.nodes[node].disk;
            let find = |at: usize| {
                let (_, key, value) = &records[at];
                disk.find(key, value).filter(|place| any || place.sealed).map(|place| (at, place))
            };
            let Some(mut record) = find(first) else { continue };
            let mut other = None;
            if harm == Harm::Misdirected {
                let Some(mut there) = find(second).filter(|_| second != first) else { continue };
                if !there.1.holds(&record.1) {
                    std::mem::swap(&mut record, &mut there);
                }
                other = Some(there);
            }
            let scars = disk.harm(&record.1, harm, other.as_ref().map(|(_, place)| place), bits);
            let hit: Vec<_> = [Some(record), other].into_iter().flatten().collect();
            let mut read = |at: usize| self.nodes[node].read(records[at].0, &records[at].1);
            if hit.iter().all(|(at, _)| read(*at).is_err()) {
                for (at, place) in hit {
                    let (slot, key, _) = &records[at];
                    let what =
                        format!("node {node}'s record {slot}/{} is damaged ({harm:?})", key.escape_ascii());
                    self.fault(&what);
                    self.checker.damaged(self.now, node, *slot, key, place.sealed);
                }
                return true;
            }
            // Compaction is just copying one of them: which of the two counts after a crash is not known yet.
            self.nodes[node].disk.undo(scars);
        }
        false
    }

    /// Whether there is a copy of a node's disk.
    #[must_use]
    pub fn has_image(&self, node: usize) -> bool {
        self.nodes[node].image.is_some()
    }

    /// Whether every node has all that it acknowledged, and all that it is to own; and none of them is gone.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let members = self.members();
        self.is_sound() && !self.is_changing() && members.iter().all(|node| !self.nodes[*node].gone)
    }

    /// Whether a node may be given up: every node has all that it acknowledged, but for damaged records, and of what those held others have
    /// what this one has.
    #[must_use]
    pub fn may_give_up(&self, node: usize) -> bool {
        let whole = |node: &crate::node::Node| !(node.incomplete || node.outdated);
        let is_there = self.members().iter().all(|node| !self.nodes[*node].gone);
        is_there && !self.is_changing() && self.nodes.iter().all(whole) && self.checker.may_spare(node)
    }

    /// Whether every node has all that it acknowledged, and none was ever given up; what it is to own it may have yet to gain.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_sound() && self.nodes.iter().all(|node| !node.gone)
    }

    /// Whether every node has all that it acknowledged.
    pub(super) fn is_sound(&self) -> bool {
        let damaged = |node: usize| self.checker.has_damage(node);
        let sound = |node: usize| !self.nodes[node].incomplete && !self.nodes[node].outdated;
        (0..self.nodes.len()).all(|node| sound(node) && !damaged(node))
    }

    /// Cuts a node's power in the midst of the disk operation that comes after so many more; it starts again after a
    /// while.
    pub fn cut_power_after(&mut self, node: usize, operations: u64, restart_after: Duration) {
        let disk = &mut self.nodes[node].disk;
        disk.armed = Some(restart_after);
        disk.inner().cut_power_after(operations);
    }

    /// Kills a node's process in the midst of the next step that appends more often than this, after so many appends; it starts again
    /// after a while.
    pub fn kill_amid(&mut self, node: usize, appends: usize, restart_after: Duration) {
        // Which of its appends a disk performs that refuses some nobody could tell.
        if !self.nodes[node].disk.may_refuse() {
            self.nodes[node].dying.borrow_mut().amid = Some((appends, restart_after));
        }
    }

    /// Whether a node's power failed just now, or its process was killed in the midst of a step; then it is down, and nothing that it was
    /// about to do happens.
    pub(super) fn has_died(&mut self, node: usize) -> bool {
        if let Some(after) = self.nodes[node].was_killed() {
            self.half_steps += 1;
            self.note(&format!("node {node} is killed between two appends of one step"));
            self.crash(node, Crash::Kill);
            self.restart(node, after);
            return true;
        }
        if !self.nodes[node].disk.has_failed() {
            return false;
        }
        let after = self.nodes[node].disk.armed.unwrap_or_default();
        self.crash(node, Crash::PowerCut);
        self.restart(node, after);
        true
    }

    /// Lets a node's next syncs fail: its store takes no more writes until it is opened anew.
    pub fn fail_syncs(&mut self, node: usize, count: u64) {
        self.disturbs(node, self.now);
        self.fault(&format!("node {node}'s next {count} syncs fail"));
        self.nodes[node].dying.borrow_mut().amid = None;
        self.nodes[node].disk.refuses = true;
        self.nodes[node].disk.fails = true;
        self.nodes[node].disk.inner().fail_next_syncs(count);
    }

    /// A node's disk refuses to read anything, though nothing on it is damaged, or reads again.
    pub fn refuse_reads(&mut self, node: usize, refuse: bool) {
        self.disturbs(node, self.now);
        self.fault(&format!("node {node}'s disk {}", if refuse { "refuses to read" } else { "reads again" }));
        self.nodes[node].disk.refuse_reads(refuse);
    }

    /// Fills a node's disk up to so many free bytes, or makes room again.
    pub fn fill_disk(&mut self, node: usize, free: Option<u64>) {
        self.disturbs(node, self.now);
        if free.is_some() {
            self.nodes[node].dying.borrow_mut().amid = None;
        }
        let disk = &mut self.nodes[node].disk;
        let capacity = free.map(|free| disk.inner().used_bytes() + free);
        disk.inner().set_capacity(capacity);
        disk.refuses |= free.is_some();
        match free {
            Some(free) => self.fault(&format!("node {node}'s disk has {free} bytes left")),
            None => self.note(&format!("node {node}'s disk has room again")),
        }
    }

    /// Forgets what was planned for a node's disk.
    pub fn calm_disk(&mut self, node: usize) {
        self.disturbs(node, self.now);
        (self.nodes[node].hangs, self.nodes[node].read_hangs) = (Duration::ZERO, Duration::ZERO);
        self.nodes[node].dying.borrow_mut().amid = None;
        let is_full = self.nodes[node].host.as_ref().is_some_and(|host| host.store().is_full());
        let disk = &mut self.nodes[node].disk;
        disk.lags = is_full;
        disk.disarm();
        disk.inner().fail_next_syncs(0);
        disk.inner().set_capacity(None);
        disk.refuses = false;
        disk.fails = false;
    }

    /// Whether a node runs and its store takes writes.
    #[must_use]
    pub fn is_writable(&self, node: usize) -> bool {
        self.nodes[node].host.as_ref().is_some_and(|host| host.store().writable())
    }

    /// Starts a node that is down; at once, or after a while.
    pub fn restart(&mut self, node: usize, after: Duration) {
        self.queue.push(self.now + after, Event::Restart { node });
    }

    /// Cuts or mends one direction between two nodes.
    pub fn set_cut(&mut self, from: usize, to: usize, cut: bool) {
        if !self.network.set_cut(from, to, cut) {
            return;
        }
        self.disturbs_link(from, to, self.now);
        self.faults += u64::from(cut);
        let what = if cut { "cut" } else { "mended" };
        self.mark(Mark::Link(from, to, cut), &format!("{from} → {to} is {what}"));
        for (node, peer) in [(from, to), (to, from)] {
            let within = match (cut, self.resets) {
                (false, _) => Duration::from_millis(300),
                (true, true) => Duration::from_secs(2),
                (true, false) => Duration::from_secs(60),
            };
            let at = self.network_rng.soon(self.now, within);
            self.queue.push(at, Event::Probe { node, peer });
        }
    }

    /// Cuts or mends both directions.
    pub fn set_cut_both(&mut self, a: usize, b: usize, cut: bool) {
        self.set_cut(a, b, cut);
        self.set_cut(b, a, cut);
    }

    /// Mends every link.
    pub fn mend_all(&mut self) {
        for from in 0..self.nodes.len() {
            for to in (0..self.nodes.len()).filter(|to| *to != from) {
                self.set_cut(from, to, false);
            }
        }
    }

    /// A link goes down, and the connections over it end at once, or comes up again.
    pub fn flap(&mut self, a: usize, b: usize) {
        let down = self.network.can_connect(a, b);
        self.set_cut_both(a, b, down);
        if down {
            for (node, peer) in [(a, b), (b, a)] {
                self.queue.push(self.now, Event::HangUp { node, peer });
            }
        }
    }

    /// All connections end, and are made anew.
    pub fn renew_connections(&mut self) {
        for node in 0..self.nodes.len() {
            for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
                self.queue.push(self.now, Event::HangUp { node, peer });
            }
        }
    }

    /// Changes the weather on the network.
    pub fn set_weather(&mut self, weather: Weather) {
        self.disturbs_network();
        self.network.set_weather(weather);
    }

    /// Whether a cut link resets its connection soon, or leaves both sides waiting for a minute.
    pub const fn set_resets(&mut self, resets: bool) {
        self.resets = resets;
    }

    /// How long a node's syncs take at the most from now on.
    pub fn set_sync_time(&mut self, node: usize, most: Duration) {
        self.disturbs(node, self.now);
        self.nodes[node].sync_time = most;
    }

    /// A node's next sync takes so much longer, and the next read of its disk.
    pub fn hang_disk(&mut self, node: usize, length: Duration) {
        self.fault(&format!("node {node}'s next sync and read hang for {length:?}"));
        (self.nodes[node].hangs, self.nodes[node].read_hangs) = (length, length);
        self.disturbs(node, self.now + length);
    }

    /// Sets a node's wall clock off by this much.
    pub fn set_skew(&mut self, node: usize, skew_ms: i64) {
        self.fault(&format!("node {node}'s wall clock is off by {skew_ms} ms"));
        self.nodes[node].clock.set_skew(skew_ms);
        self.checker.clocks_show(self.walls());
    }

    /// Makes a node's monotonic clock run fast by this many millionths.
    pub fn set_drift(&mut self, node: usize, millionths: i64) {
        self.fault(&format!("node {node}'s clock runs fast by {millionths} millionths"));
        self.disturbs(node, self.now);
        self.nodes[node].clock.set_drift(self.now, millionths);
        self.nodes[node].timer = None;
        self.set_timer(node);
    }
}
