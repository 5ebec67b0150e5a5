//! Pumps one [`Host`]: inputs in, effects out, syncs on a thread of their own.
//!
//! One turn takes every input that has come (clients', peers', the disk's, the clock's), performs the effects, and
//! then begins a sync of all that the turn appended. While that runs the next turns append more, and one sync
//! serves all who wait for it: group commit without a timer. The driver owns no policy; what happens is the
//! engine's choice.

use crate::book::Book;
use crate::clock::Clock;
use crate::facts::{Facts, Progress};
use crate::handle::{Handle, Inspect};
use crate::host::{Effect, Host, List};
use crate::identity::DataDir;
use crate::log::say;
use crate::mail::Mailbox;
use crate::peer::Peers;
use crate::signal::Signal;
use crate::spawn::Spawner;
use gramme_quorum::{Engine, Input, Instant, LoadId, Now, message::Message};
use gramme_ring::{Slot, Step};
use gramme_store::{Disk, HashTree, ReadDone, ReadJob, SyncDone, SyncJob};
use smol::Timer;
use smol::future::{FutureExt, yield_now};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// Bytes that one step of the store's own work may move before clients are looked at again.
const MAINTENANCE_STEP: usize = 256 << 10;

/// How often an idle store is asked whether it has work.
const CHORES_AT_REST: Duration = Duration::from_secs(1);

/// How often old records are looked at, and how many bytes of them: a round of 100 GB takes a day.
const SCRUB: Duration = Duration::from_secs(1);
const SCRUB_STEP: usize = 1 << 20;

/// How often it is said that there is damage, as long as there is.
const REPORT: Duration = Duration::from_secs(60);

/// How often others are told how far this node has come.
const PROGRESS: Duration = Duration::from_secs(1);

/// The host, shared between the driver, which changes it, and handles, which look at it.
pub(crate) struct Hosted<D: Disk>(RefCell<Host<D>>);

impl<D: Disk> Hosted<D> {
    pub(crate) fn new(host: Host<D>) -> Rc<Hosted<D>> {
        Rc::new(Hosted(RefCell::new(host)))
    }

    /// The host, if nobody else holds it any more.
    pub(crate) fn into_host(this: Rc<Hosted<D>>) -> Option<Host<D>> {
        Rc::into_inner(this).map(|hosted| hosted.0.into_inner())
    }
}

impl<D: Disk> Inspect for Hosted<D> {
    fn inspect(&self, look: &mut dyn FnMut(&Engine)) {
        look(self.0.borrow().engine());
    }

    fn size_of(&self, key: &[u8]) -> Option<usize> {
        self.0.borrow().store().read_bytes(Slot::of(key).index(), key)
    }

    fn records_in(&self, slot: Slot) -> u64 {
        self.0.borrow().store().slot_len(slot.index())
    }

    fn tombstones(&self) -> u64 {
        // The engine's digests, which are the tags, are odd for them.
        self.0.borrow().store().tree().map_or(0, HashTree::odd)
    }

    fn stored_bytes(&self) -> u64 {
        self.0.borrow().store().stats().live_bytes
    }

    fn disk_full(&self) -> bool {
        self.0.borrow().store().is_full()
    }
}

/// What the disk has finished.
enum Finished {
    Sync(SyncDone),
    Read(LoadId, ReadDone),
    /// What a listing needs is at hand.
    ReadAhead(List),
}

/// What it takes to run a host.
pub(crate) struct Driver<D: Disk> {
    pub(crate) host: Rc<Hosted<D>>,
    pub(crate) handle: Handle,
    pub(crate) mail: Mailbox,
    pub(crate) peers: Peers,
    pub(crate) clock: Clock,
    /// What is written down of the cluster.
    pub(crate) book: Rc<Book>,
    /// What this node says of itself.
    pub(crate) facts: Facts,
    /// Where it is remembered that something may be missing.
    pub(crate) dir: DataDir,
    /// Raised by handles and the mailbox.
    pub(crate) wake: Signal,
    pub(crate) spawn: Spawner,
}

/// Tells from outside whether a driver has anything left to do.
#[derive(Clone)]
pub(crate) struct Quiet {
    syncing: Rc<Cell<bool>>,
    handle: Handle,
    peers: Peers,
}

impl Quiet {
    /// Every request is answered, every append synced, every message handed to the system.
    pub(crate) fn is_quiet(&self) -> bool {
        self.handle.in_flight() == 0 && !self.syncing.get() && self.peers.flushed()
    }
}

struct Pump<D: Disk> {
    parts: Driver<D>,
    finished: Rc<RefCell<VecDeque<Finished>>>,
    syncs: SyncSender<SyncJob<D>>,
    syncing: Rc<Cell<bool>>,
    writable: bool,
    full: bool,
    /// The store may have work of its own.
    chores: bool,
    /// It is not asked before this: clients' requests take too long.
    rest: std::time::Instant,
    /// When it was last asked.
    last_chore: std::time::Instant,
    /// When others were last told how far this node has come.
    told: std::time::Instant,
    /// When old records were last looked at.
    scrubbed: std::time::Instant,
    /// When it was last said that some are damaged.
    reported: Option<std::time::Instant>,
}

impl<D: Disk + 'static> Driver<D>
where
    SyncJob<D>: Send,
    ReadJob<D>: Send,
{
    /// Starts to pump, for as long as the executor runs.
    pub(crate) fn start(self) -> io::Result<Quiet> {
        let finished = Rc::new(RefCell::new(VecDeque::new()));
        let syncs = start_syncing(&self, &finished)?;
        let syncing = Rc::new(Cell::new(false));
        let quiet =
            Quiet { syncing: Rc::clone(&syncing), handle: self.handle.clone(), peers: self.peers.clone() };
        let spawn = self.spawn.clone();
        let pump = Pump {
            parts: self,
            finished,
            syncs,
            syncing,
            writable: true,
            full: false,
            chores: false,
            rest: std::time::Instant::now(),
            last_chore: std::time::Instant::now(),
            told: std::time::Instant::now(),
            scrubbed: std::time::Instant::now(),
            reported: None,
        };
        spawn.spawn(pump.run()).detach();
        Ok(quiet)
    }
}

/// Starts the thread that syncs. It ends with the driver.
fn start_syncing<D: Disk + 'static>(
    driver: &Driver<D>,
    finished: &Rc<RefCell<VecDeque<Finished>>>,
) -> io::Result<SyncSender<SyncJob<D>>>
where
    SyncJob<D>: Send,
{
    // At most one sync is under way, so neither channel ever fills.
    let (jobs, inbox) = sync_channel::<SyncJob<D>>(1);
    let (outbox, done) = smol::channel::bounded(1);
    thread::Builder::new().name("gramme-sync".into()).stack_size(128 << 10).spawn(move || {
        while let Ok(job) = inbox.recv() {
            if outbox.send_blocking(job.run()).is_err() {
                return;
            }
        }
    })?;
    let (finished, wake) = (Rc::clone(finished), driver.wake.clone());
    let relay = async move {
        while let Ok(sync) = done.recv().await {
            finished.borrow_mut().push_back(Finished::Sync(sync));
            wake.raise();
        }
    };
    driver.spawn.spawn(relay).detach();
    Ok(jobs)
}

impl<D: Disk + 'static> Pump<D>
where
    SyncJob<D>: Send,
    ReadJob<D>: Send,
{
    async fn run(mut self) {
        let mut alarm = Alarm::default();
        loop {
            let more = self.turn();
            self.begin_sync();
            if more {
                yield_now().await;
                continue;
            }
            if self.chores && self.rest <= std::time::Instant::now() && self.do_chore().await {
                continue;
            }
            alarm.set(self.deadline());
            self.parts.wake.wait().or(alarm.wait()).await;
        }
    }

    /// Takes what has come, in the order in which each source brought it, and of large reads one. Whether there may be
    /// more of those.
    fn turn(&mut self) -> bool {
        let now = self.parts.clock.now();
        self.perform();
        while let Some(finished) = self.next_finished() {
            match finished {
                Finished::Sync(done) => {
                    self.syncing.set(false);
                    // A start has better things to do than tidying.
                    self.chores |= now.instant.since(Instant(0)) >= CHORES_AT_REST;
                    self.parts.host.0.borrow_mut().finish_sync(now, done);
                    self.report_writing(now);
                }
                Finished::Read(id, done) => self.parts.host.0.borrow_mut().finish_read(now, id, done),
                Finished::ReadAhead(list) => self.parts.host.0.borrow_mut().finish_list(now, list),
            }
            self.perform();
        }
        while let Some(input) = self.parts.mail.next() {
            self.feed(now, input);
        }
        while let Some((id, op)) = self.parts.handle.next_submitted() {
            self.feed(now, Input::Client(id, op));
        }
        while let Some((id, op)) = self.parts.handle.next_change() {
            self.feed(now, Input::Cluster(id, op));
        }
        let large = self.parts.handle.next_large();
        let more = large.is_some();
        if let Some((id, op)) = large {
            self.feed(now, Input::Client(id, op));
        }
        if self.host_deadline().is_some_and(|at| at <= now.instant) {
            self.feed(now, Input::Tick);
            // Room may have come back on a disk that was full, without a write of ours.
            self.chores |= self.last_chore.elapsed() >= CHORES_AT_REST;
            self.report_room();
            self.tell_progress(now);
            self.scrub(now);
        }
        more
    }

    /// Looks at old records, a little now and then, whether they can still be read.
    fn scrub(&mut self, now: Now) {
        if self.scrubbed.elapsed() < SCRUB {
            return;
        }
        self.scrubbed = std::time::Instant::now();
        let mut host = self.parts.host.0.borrow_mut();
        let budget = SCRUB_STEP * usize::from(host.background(now)) / 100;
        let damaged = host.scrub(now, budget);
        // What can't be healed yet is found in each round anew.
        if damaged > 0 && self.reported.is_none_or(|at| at.elapsed() >= REPORT) {
            self.reported = Some(std::time::Instant::now());
            say!(
                "damaged records were found in the store: they are put anew from the other owners' copies; 'gramme \
                 verify' says where they were, and the disk may have more to come"
            );
        }
    }

    /// Tells others, now and then, how far this node has come with what a change of the layout gives it to do.
    fn tell_progress(&mut self, now: Now) {
        if self.told.elapsed() < PROGRESS {
            return;
        }
        self.told = std::time::Instant::now();
        let mut host = self.parts.host.0.borrow_mut();
        let progress = progress(host.engine(), now.instant);
        if progress != self.parts.facts.progress {
            self.parts.facts.progress = progress;
            // If they are too long, that was said at the start.
            let _ = host.set_facts(self.parts.facts.to_bytes());
        }
    }

    fn feed(&self, now: Now, input: Input) {
        self.parts.host.0.borrow_mut().handle(now, input);
        self.perform();
    }

    fn next_finished(&self) -> Option<Finished> {
        self.finished.borrow_mut().pop_front()
    }

    fn perform(&self) {
        let mut others = false;
        self.perform_effects(&mut others);
        if others {
            self.parts.peers.follow();
        }
    }

    /// `others`: the engine may have other peers afterwards.
    fn perform_effects(&self, others: &mut bool) {
        let mut host = self.parts.host.0.borrow_mut();
        loop {
            while let Some(effect) = host.poll() {
                match effect {
                    Effect::Send(to, message) => {
                        if matches!(message, Message::Forward { .. }) {
                            self.parts.handle.count_forward();
                        }
                        self.parts.peers.send(to, &message);
                    }
                    Effect::Reply(id, reply) => self.parts.handle.answer(id, reply),
                    Effect::Fetch(id, job) => self.fetch(move || Finished::Read(id, job.run())),
                    Effect::ReadAhead(list, job) => self.fetch(move || {
                        job.run();
                        Finished::ReadAhead(list)
                    }),
                    Effect::Save(membership) => {
                        *others = true;
                        let saved = self.parts.book.save(*membership);
                        if let Err(error) = &saved {
                            say!(
                                "can't write down a change of the cluster: {error}; it is left out until that works"
                            );
                        }
                        host.saved(self.parts.clock.now(), saved.is_ok());
                    }
                    Effect::Known(node, facts) => {
                        *others = true;
                        self.parts.peers.known(node, &facts);
                    }
                    Effect::Cluster(id, done) => {
                        let now = host.engine().membership();
                        self.parts.handle.cluster_answered(id, done, now);
                    }
                    Effect::Incomplete => self.remember_loss(),
                    Effect::Recovered => self.forget_loss(),
                }
            }
            // Before the next input, which might add to it.
            let Some(peer) = self.parts.peers.next_congested() else { return };
            host.handle(self.parts.clock.now(), Input::Congested(peer, true));
        }
    }

    fn remember_loss(&self) {
        let why = "the store is older than the other nodes remember it";
        say!(
            "{why}: was it restored from a backup? This node takes writes, but its copies count toward no quorum until it \
             has what it may lack from the other owners; if nobody has that any more, accept what is left here by removing the \
             file 'incomplete' in {} before a start",
            self.parts.dir.path().display()
        );
        if let Err(error) = self.parts.dir.mark_incomplete(why) {
            // Nothing of it is in the store yet. With a new number there, and no such note, the next start would take it for whole.
            say!("can't write that down: {error}; this node ends here, and the next start finds it out anew");
            std::process::exit(1);
        }
    }

    fn forget_loss(&self) {
        match self.parts.dir.clear_incomplete() {
            Ok(()) => {
                say!("everything that was missing is back from the other owners: this node is complete")
            }
            Err(error) => {
                say!("can't write down that this node is complete: {error}; its next start looks again")
            }
        }
    }

    /// Reads on the pool of blocking threads. Engine and host bound how many reads there are.
    fn fetch(&self, read: impl FnOnce() -> Finished + Send + 'static) {
        self.parts.handle.count_disk_read();
        let (finished, wake) = (Rc::clone(&self.finished), self.parts.wake.clone());
        let task = async move {
            let done = smol::unblock(read).await;
            finished.borrow_mut().push_back(done);
            wake.raise();
        };
        self.parts.spawn.spawn(task).detach();
    }

    fn begin_sync(&self) {
        if self.syncing.get() {
            return;
        }
        if let Some(job) = self.parts.host.0.borrow_mut().begin_sync() {
            self.syncing.set(true);
            self.syncs.send(job).expect("the sync thread lives as long as its driver");
        }
    }

    /// One step of the store's own work; then others have their turn, and if they have to wait too long, more than that. Whether
    /// there is something to do at once.
    async fn do_chore(&mut self) -> bool {
        let began = std::time::Instant::now();
        self.last_chore = began;
        let now = self.parts.clock.now();
        self.chores = self.parts.host.0.borrow_mut().maintain(now, MAINTENANCE_STEP);
        self.begin_sync();
        let percent = u32::from(self.parts.host.0.borrow_mut().background(self.parts.clock.now()));
        self.rest = began + began.elapsed() * 100 / percent;
        if self.chores {
            yield_now().await;
        }
        self.chores
    }

    fn host_deadline(&self) -> Option<Instant> {
        self.parts.host.0.borrow().deadline()
    }

    fn deadline(&self) -> Option<std::time::Instant> {
        let host = self.host_deadline().map(|at| self.parts.clock.to_system(at));
        let chore = self.chores.then_some(self.rest);
        host.into_iter().chain(self.parts.handle.deadline()).chain(chore).min()
    }

    /// Says it when the disk has filled up, and when there is room again.
    fn report_room(&mut self) {
        let full = self.parts.host.0.borrow().store().is_full();
        if full && !self.full {
            say!(
                "the disk is full: new values are refused here, reads and deletes go on, and other replicas take writes: \
                 make room, or let other nodes carry more"
            );
        } else if self.full && !full {
            say!("there is room on the disk again: new values are taken");
        }
        self.full = full;
    }

    fn report_writing(&mut self, now: Now) {
        // A store without room is not writable either, but that passes.
        let writable = {
            let host = self.parts.host.0.borrow();
            host.store().writable() || host.engine().status(now.instant).writable
        };
        if self.writable && !writable {
            say!(
                "a sync failed: what was not yet acknowledged may not be on the disk, so this node stops writing and \
                 goes on reading: check the disk, then restart the node"
            );
        }
        self.writable = writable;
    }
}

/// What this node has to do before its part in the layout is done; `None` if nothing.
pub(crate) fn progress(engine: &Engine, now: Instant) -> Option<Progress> {
    let status = engine.status(now);
    let count = |partitions: usize| u32::try_from(partitions).expect("there are at most 16384");
    let progress = Progress {
        version: engine.layout()?.version().0,
        gaining: count(status.gaining_partitions),
        sweeping: count(status.sweeping_partitions),
        incomplete: count(status.incomplete_partitions),
    };
    let transferring = engine.membership().transition().is_some_and(|t| t.step() >= Step::Transferring);
    let busy = progress.gaining + progress.sweeping + progress.incomplete > 0;
    (busy || transferring).then_some(progress)
}

/// A timer that is set anew only when it would ring too late: deadlines mostly move away, and a ring that comes
/// early does no harm.
#[derive(Default)]
struct Alarm {
    timer: Option<(std::time::Instant, Timer)>,
}

impl Alarm {
    fn set(&mut self, at: Option<std::time::Instant>) {
        let Some(at) = at else {
            self.timer = None;
            return;
        };
        match &mut self.timer {
            Some((set, _)) if *set <= at => {}
            Some((set, timer)) => {
                timer.set_at(at);
                *set = at;
            }
            None => self.timer = Some((at, Timer::at(at))),
        }
    }

    /// Returns when it rings; never, while it is not set.
    async fn wait(&mut self) {
        match &mut self.timer {
            Some((_, timer)) => {
                timer.await;
                self.timer = None;
            }
            None => std::future::pending().await,
        }
    }
}
