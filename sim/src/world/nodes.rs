//! Nodes at work: they start, do what their engines say, sync and maintain their stores, and are woken.

use super::{Event, HINTS, READ_TIME, TOLD, World};
use crate::checker::{Invariant, OpId};
use crate::node::{Fetch, Storage};
use crate::time::Time;
use crate::timeline::Mark;
use core::time::Duration;
use gramme_node::host::{Effect, Host, List};
use gramme_quorum::{Input, LoadId, Output};
use gramme_ring::{Layout, NodeId};
use gramme_store::{MemDisk, ReadJob};
use std::collections::BTreeSet;

impl World {
    pub(super) fn start(&mut self, node: usize) {
        let recovering = self.nodes[node].runs > 0;
        let actor = match self.nodes[node].open(&self.shape, self.now, &mut self.boot_rng) {
            Ok(actor) => actor,
            // Its power failed again while it recovered.
            Err(_) if self.nodes[node].disk.has_failed() => {
                let after = self.nodes[node].disk.armed.take().unwrap_or_default();
                self.fault(&format!("node {node} goes down while it starts"));
                self.nodes[node].disk.inner().crash(self.disk_rng.bits());
                self.nodes[node].kept_all = false;
                return self.restart(node, after);
            }
            // With its disk failing it can't start; whoever supervises it tries again. A full disk is no reason, unless
            // there is no store yet.
            Err(_) if self.nodes[node].disk.fails || self.nodes[node].disk.blank => {
                self.note(&format!("node {node} does not start, for its disk fails"));
                self.nodes[node].disk.inner().kill();
                return self.restart(node, Duration::from_secs(1));
            }
            Err(error) => {
                let what = format!("node {node} does not open: {error}");
                return self.checker.fail(self.now, Invariant::Recovery, None, what);
            }
        };
        self.disturbs(node, self.now);
        self.mark(Mark::Up(node), &format!("node {node} starts its run {}", self.nodes[node].runs));
        self.hash.event(b'S', [self.now.0, node as u64, actor.0], &[]);
        self.checker.opened(self.now, node, actor);
        self.tell_keyspaces(node);
        if let Some(timeline) = &mut self.timeline {
            timeline.named(actor, node, self.nodes[node].runs);
        }
        if self.has_died(node) {
            return;
        }
        if recovering {
            self.check_recovered(node);
        }
        if self.nodes[node].outdated {
            let run = self.nodes[node].runs;
            self.queue.push(self.now + TOLD, Event::Told { node, run, again: false });
        }
        self.after(node);
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            self.network.tell(node, peer, false);
            self.forget_clog(node, peer);
            for (at, of) in [(node, peer), (peer, node)] {
                let when = self.network_rng.soon(self.now, Duration::from_millis(50));
                self.queue.push(when, Event::Probe { node: at, peer: of });
            }
        }
        let when = self.disk_rng.soon(self.now, Duration::from_millis(500));
        self.queue.push(when, Event::Maintain { node });
    }

    pub(super) fn handle(&mut self, node: usize, input: Input) {
        let now = self.nodes[node].clock.now(self.now);
        let Some(host) = &mut self.nodes[node].host else { return };
        host.handle(now, input);
        self.after(node);
    }

    /// Looks at what a node did, and carries it out.
    pub(super) fn after(&mut self, node: usize) {
        let mut noted = false;
        loop {
            // More is done when what has to be noted first is.
            let effect = self.nodes[node].host.as_mut().and_then(Host::poll);
            // What it was just writing down of the cluster, for instance.
            if std::mem::take(&mut noted) {
                self.tell_keyspaces(node);
            }
            let outputs = std::mem::take(&mut *self.nodes[node].outputs.borrow_mut());
            if !outputs.is_empty() {
                self.observe(node, &outputs);
            }
            if self.nodes[node].host.is_none() || self.has_died(node) {
                return;
            }
            let Some(effect) = effect else { break };
            match effect {
                Effect::Send(to, message) => self.send(node, to, &message),
                Effect::Reply(id, reply) => self.reply(node, OpId(id.0), reply),
                Effect::Save(membership) => self.begin_save(node, *membership),
                Effect::Cluster(_, done) => {
                    self.ordered(node, &done);
                    return self.after(node);
                }
                Effect::Known(..) => {}
                Effect::Incomplete => {
                    self.disturbs(node, self.now);
                    self.nodes[node].incomplete = true;
                    self.nodes[node].warned = true;
                    noted = true;
                    // Perhaps not for the first time: by a layout in which it was to own little it has recovered at once.
                    self.nodes[node].outdated = true;
                    self.checker.warned(node);
                    self.note(&format!("node {node} is told that its store is an old one"));
                }
                // It has what it is to own by a layout that it had not heard of; that its disk was set back it has yet to hear.
                Effect::Recovered => {
                    self.disturbs(node, self.now);
                    self.nodes[node].incomplete = false;
                    self.nodes[node].unsynced = false;
                    // What it is to own by a layout that was new to it, perhaps: that its disk was set back it has yet to hear.
                    if self.nodes[node].outdated && !self.nodes[node].warned {
                        continue;
                    }
                    self.nodes[node].outdated = false;
                    self.note(&format!("node {node} has recovered all that it may have lost"));
                    let layout = self.nodes[node].membership.layout().map(Layout::version);
                    let settled = !self.is_changing() && layout == Some(self.layout.version());
                    self.checker.has_recovered(self.now, node, settled);
                }
                Effect::Fetch(id, job) => self.begin_fetch(node, id, job),
                // What is at hand then is no matter here.
                Effect::ReadAhead(list, _) => {
                    let (at, run) = (self.read_ends(node), self.nodes[node].runs);
                    self.queue.push(at, Event::ReadAhead { node, run, list });
                }
            }
        }
        self.checker.step_ends(self.now, node);
        // Before the next input, which might add to it.
        if let Some(peer) = self.next_congested(node) {
            self.note(&format!("node {node} hears that node {peer} is congested"));
            self.hash.event(b'K', [self.now.0, node as u64, peer as u64], &[]);
            let peer = self.nodes[peer].id;
            return self.handle(node, Input::Congested(peer, true));
        }
        self.begin_sync(node);
        self.set_timer(node);
    }

    pub(super) fn observe(&mut self, node: usize, outputs: &[Output]) {
        for output in outputs {
            self.nodes[node].disk_work += u64::from(matches!(
                output,
                Output::Append { .. } | Output::Load { .. } | Output::List { .. } | Output::DropSlot { .. }
            ));
            if let Output::Append { place, key, value, .. } = output {
                let value = value.as_ref().map_or(&[][..], |(bytes, _)| bytes);
                self.hash.event(b'A', [self.now.0, node as u64, u64::from(place.0)], key);
                self.hash.event(b'V', [0; 3], value);
            }
            if let Some(timeline) = &mut self.timeline {
                timeline.acted(self.now, node, output);
            }
        }
        self.checker.acted(self.now, node, outputs);
        // What was being written as the power failed may be there later, or not.
        if self.nodes[node].disk.may_refuse() && !self.nodes[node].disk.has_failed() {
            self.check_refused(node, outputs);
        }
        for output in outputs {
            if let Output::Append { place, key, value: Some(_), .. } = output
                && place.0 < gramme_ring::SLOTS
                && !self.nodes[node].disk.has_failed()
            {
                self.checker.check_not_undone(self.now, node, key);
            }
        }
    }

    /// With a disk that refuses writes, not every append was performed.
    pub(super) fn check_refused(&mut self, node: usize, outputs: &[Output]) {
        for output in outputs {
            let (place, keys) = match output {
                Output::Append { place, key, .. } => (place.0, vec![key.clone()]),
                Output::DropSlot { place, .. } => (place.0, self.checker.keys_in(place.0)),
                _ => continue,
            };
            for key in keys {
                match self.nodes[node].read(place, &key) {
                    Ok(found) => self.checker.append_failed(node, place, &key, found.as_ref()),
                    Err(what) if place < HINTS => self.checker.found_damaged(self.now, node, &key, &what),
                    Err(_) => self.checker.found_own_damaged(node, place, &key),
                }
            }
        }
    }

    pub(super) fn begin_sync(&mut self, node: usize) {
        let early = self.disk_rng.chance(500_000);
        let site = &mut self.nodes[node];
        let Some(job) = site.host.as_mut().and_then(Host::begin_sync) else { return };
        self.checker.sync_begun(node);
        // The bytes may be safe long before anybody is told, or only just.
        site.job = Some(if early { Storage::Synced(job.run()) } else { Storage::Syncing(job) });
        if self.has_died(node) {
            return;
        }
        let site = &mut self.nodes[node];
        let hangs = std::mem::take(&mut site.hangs);
        if hangs > Duration::ZERO {
            self.disturbs(node, self.now + hangs);
        }
        let site = &mut self.nodes[node];
        let at = self.now + hangs + self.disk_rng.between(Duration::from_micros(50), site.sync_time);
        let run = site.runs;
        self.queue.push(at, Event::Sync { node, run });
    }

    pub(super) fn finish_sync(&mut self, node: usize, run: u64) {
        let site = &mut self.nodes[node];
        if site.runs != run || site.host.is_none() {
            return;
        }
        let done = match site.job.take() {
            Some(Storage::Syncing(job)) => job.run(),
            Some(Storage::Synced(done)) => done,
            None => return,
        };
        if self.has_died(node) {
            return;
        }
        self.hash.event(b'Y', [self.now.0, node as u64, run], &[]);
        let site = &mut self.nodes[node];
        let now = site.clock.now(self.now);
        let Some(host) = &mut site.host else { return };
        host.finish_sync(now, done);
        // A sync that fails ends all writing.
        if host.store().writable() {
            self.checker.sync_done(node);
        }
        self.after(node);
    }

    /// When a read of the disk that begins now ends: it takes its time, and where syncs are slow, some reads do as well.
    fn read_ends(&mut self, node: usize) -> Time {
        let most = if self.disk_rng.chance(100_000) { self.nodes[node].sync_time } else { READ_TIME };
        let hangs = std::mem::take(&mut self.nodes[node].read_hangs);
        if hangs > Duration::ZERO {
            self.disturbs(node, self.now + hangs);
        }
        self.now + hangs + self.disk_rng.between(Duration::from_micros(10), most)
    }

    pub(super) fn finish_list(&mut self, node: usize, run: u64, list: List) {
        let site = &mut self.nodes[node];
        let Some(host) = site.host.as_mut().filter(|_| site.runs == run) else { return };
        self.hash.event(b'A', [self.now.0, node as u64, run], &[]);
        host.finish_list(site.clock.now(self.now), list);
        self.after(node);
    }

    fn begin_fetch(&mut self, node: usize, id: LoadId, job: ReadJob<MemDisk>) {
        let early = self.disk_rng.chance(500_000);
        let read = if early { Fetch::Read(job.run()) } else { Fetch::Reading(job) };
        let (at, run) = (self.read_ends(node), self.nodes[node].runs);
        self.queue.push(at, Event::Fetched { node, run, id, read });
    }

    pub(super) fn finish_fetch(&mut self, node: usize, run: u64, id: LoadId, read: Fetch) {
        let site = &mut self.nodes[node];
        let Some(host) = site.host.as_mut().filter(|_| site.runs == run) else { return };
        let done = match read {
            Fetch::Reading(job) => job.run(),
            Fetch::Read(done) => done,
        };
        self.hash.event(b'L', [self.now.0, node as u64, run], &[]);
        host.finish_read(site.clock.now(self.now), id, done);
        self.after(node);
    }

    /// Tells the judge what time a store was told by which it may give back what has expired: none to which most members' clocks never came.
    fn tell_time(&mut self, node: usize) {
        let Some(host) = &self.nodes[node].host else { return };
        let (told, membership) = (host.settled(), host.engine().membership());
        let from = membership.transition().map(|transition| transition.from());
        let members = membership.layout().into_iter().chain(from).flat_map(Layout::members);
        let ids = members.map(|member| member.id).filter(|id| !membership.is_removed(*id));
        let ids: BTreeSet<NodeId> = ids.collect();
        let has_come = |id: &&NodeId| self.nodes[self.numbers[*id]].clock.latest_wall(self.now) >= told;
        if told > 0 && 2 * ids.iter().filter(has_come).count() <= ids.len() {
            let what =
                format!("node {node}'s store is told that it is {told} ms; most clocks never came to that");
            self.checker.fail(self.now, Invariant::ExpiryHides, None, what);
        }
        self.checker.settled(node, told);
    }

    pub(super) fn maintain(&mut self, node: usize) {
        let clock = self.nodes[node].clock.now(self.now);
        let Some(host) = &mut self.nodes[node].host else { return };
        let more = host.maintain(clock, 64 << 10);
        let is_full = host.store().is_full();
        self.tell_time(node);
        let lagged = self.nodes[node].disk.lags;
        self.nodes[node].disk.lags &= is_full;
        if lagged {
            self.disturbs(node, self.now);
        }
        self.hash.event(b'M', [self.now.0, node as u64, u64::from(more)], &[]);
        if self.has_died(node) {
            return;
        }
        if let (Some(budget), Some(host)) = (self.shape.scrub, &mut self.nodes[node].host) {
            host.scrub(clock, budget);
            self.after(node);
        }
        let wait = if more { Duration::from_millis(5) } else { Duration::from_millis(500) };
        self.queue.push(self.now + wait, Event::Maintain { node });
    }

    pub(super) fn set_timer(&mut self, node: usize) {
        let site = &mut self.nodes[node];
        let Some(deadline) = site.host.as_ref().and_then(Host::deadline) else { return };
        let at = site.clock.when(deadline, self.now).max(Time(self.now.0 + 1));
        if site.timer.is_none_or(|set| at < set) {
            site.timer = Some(at);
            self.queue.push(at, Event::Tick { node });
        }
    }
}
