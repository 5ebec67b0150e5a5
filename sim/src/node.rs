//! One node's machine: its disk, which outlives crashes, its clocks, and the process that comes and goes.

use crate::checker::OpId;
use crate::clock::Clock;
use crate::disk::SimDisk;
use crate::rng::Rng;
use crate::time::Time;
use crate::world::{Order, Shape};
use bytes::Bytes;
use core::time::Duration;
use gramme_node::host::{Host, opening};
use gramme_quorum::{ClusterOp, Config, Engine, Keyspace, Output, Unsynced};
use gramme_ring::{Membership, NodeId};
use gramme_store::{
    Cursor, Damage, MemDisk, Options, Read, ReadDone, ReadError, ReadJob, Reads, Store, SyncDone, SyncJob,
};
use gramme_vclock::Actor;
use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::rc::Rc;

/// Digests and hash trees of all nodes are under this key.
const CLUSTER_KEY: [u8; 16] = *b"one for all runs";

/// Where a sync stands while the node waits for it.
#[derive(Debug)]
pub(crate) enum Storage {
    /// The disk has not done it yet.
    Syncing(SyncJob<MemDisk>),
    /// The disk has done it, and the node does not know yet.
    Synced(SyncDone),
}

/// Where a read stands while the node waits for it.
#[derive(Debug)]
pub(crate) enum Fetch {
    /// The disk has not done it yet.
    Reading(ReadJob<MemDisk>),
    /// The disk has done it, and the node does not know yet.
    Read(ReadDone),
}

/// A process that is to be killed in the midst of a step.
#[derive(Debug, Default)]
pub(crate) struct Dying {
    /// After so many of one step's appends, and before the next; it starts again so long after.
    pub(crate) amid: Option<(usize, Duration)>,
    /// It is dead, and this is its disk as it was then. What it seems to do from then on does not happen.
    left: Option<MemDisk>,
}

/// One node.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) disk: SimDisk,
    pub(crate) clock: Clock,
    pub(crate) host: Option<Host<MemDisk>>,
    /// How often it was started.
    pub(crate) runs: u64,
    /// When its next tick is due.
    pub(crate) timer: Option<Time>,
    pub(crate) job: Option<Storage>,
    pub(crate) paused_until: Time,
    /// The same, but for what it writes down of the cluster.
    pub(crate) stopped_until: Time,
    /// Until then it stands still for so long that nobody can connect to it.
    pub(crate) asleep_until: Time,
    /// Requests on their way to it.
    pub(crate) expected: BTreeSet<OpId>,
    /// Requests that it has not answered.
    pub(crate) requests: BTreeSet<OpId>,
    /// What its engine put out since anyone looked.
    pub(crate) outputs: Rc<RefCell<Vec<Output>>>,
    pub(crate) dying: Rc<RefCell<Dying>>,
    /// How long a sync takes at the most; the next one may hang for longer, and the next read.
    pub(crate) sync_time: Duration,
    pub(crate) hangs: Duration,
    pub(crate) read_hangs: Duration,
    /// The last crash took nothing from the disk.
    pub(crate) kept_all: bool,
    /// It may lack what it acknowledged.
    pub(crate) incomplete: bool,
    /// The damage that the last opening found in its store.
    damage: Vec<Damage>,
    /// In this run it knows so.
    pub(crate) warned: bool,
    /// It may lack what it acknowledged before it was synced.
    pub(crate) unsynced: bool,
    /// What it has written down of the cluster.
    pub(crate) membership: Membership,
    /// What it is just writing down.
    pub(crate) saving: Option<Membership>,
    /// What its operator has told it last, and will tell it then.
    pub(crate) order: Option<ClusterOp>,
    pub(crate) orders: VecDeque<Order>,
    /// A copy of its disk, and of what it had written down of the cluster, made some time ago.
    pub(crate) image: Option<(MemDisk, Membership)>,
    /// Its disk was set back, and it has not recovered from that.
    pub(crate) outdated: bool,
    /// It never comes back.
    pub(crate) gone: bool,
    /// It was given up and runs on.
    pub(crate) outcast: bool,
    /// What it has asked of others that a cluster at rest has no need of, and what it has asked of its disk.
    pub(crate) sent: u64,
    pub(crate) disk_work: u64,
    /// What others have sent to it that they had kept for it: objects and bytes.
    pub(crate) handed_over: (u64, u64),
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("id", &self.id).field("runs", &self.runs).finish_non_exhaustive()
    }
}

impl Node {
    pub(crate) fn new(id: NodeId, membership: Membership) -> Node {
        Node {
            id,
            disk: SimDisk::default(),
            clock: Clock::new(Time(0), 0),
            host: None,
            runs: 0,
            timer: None,
            job: None,
            paused_until: Time(0),
            stopped_until: Time(0),
            asleep_until: Time(0),
            expected: BTreeSet::new(),
            requests: BTreeSet::new(),
            outputs: Rc::default(),
            dying: Rc::default(),
            sync_time: Duration::from_millis(1),
            hangs: Duration::ZERO,
            read_hangs: Duration::ZERO,
            kept_all: true,
            incomplete: false,
            damage: Vec::new(),
            warned: false,
            unsynced: false,
            membership,
            saving: None,
            order: None,
            orders: VecDeque::new(),
            image: None,
            outdated: false,
            gone: false,
            outcast: false,
            sent: 0,
            disk_work: 0,
            handed_over: (0, 0),
        }
    }

    /// Starts a run: a store on the disk as it is, an engine with an actor never used before.
    pub(crate) fn open(&mut self, shape: &Shape, now: Time, rng: &mut Rng) -> Result<Actor, String> {
        let mut seed = [0; 16];
        seed[..8].copy_from_slice(&rng.bits().to_le_bytes());
        seed[8..].copy_from_slice(&rng.bits().to_le_bytes());
        let options = Options::new(seed)
            .with_segment_bytes(shape.segment_bytes)
            .with_reads(if shape.cold { Reads::Jobs } else { Reads::Inline })
            .with_tree_key(CLUSTER_KEY);
        let (mut store, recovery) =
            Store::open(self.disk.inner().clone(), options).map_err(|error| error.to_string())?;
        let actor = Actor(rng.bits());
        let mut config = Config::new(self.id, actor);
        config.digest_key = CLUSTER_KEY;
        self.disk.blank = false;
        // Damage that is found again after all is back is no new loss: the server notes it, too.
        let lost = recovery.damage.iter().filter(|damage| damage.is_lossy()).copied();
        let lost: Vec<Damage> = lost.collect();
        let is_settled = !self.incomplete && lost.iter().all(|damage| self.damage.contains(damage));
        self.incomplete |= (!lost.is_empty() && !is_settled) || (recovery.created && self.runs > 0);
        self.damage = lost;
        if !self.incomplete {
            store.accept_losses();
        }
        config.incomplete = self.incomplete;
        self.warned = self.incomplete;
        // The server remembers both, and the machine's boot, until it has recovered.
        let lost = !recovery.clean && !self.kept_all && Keyspace::outruns_the_disk(&self.membership);
        config.unsynced = match self.unsynced {
            true => Some(Unsynced::Earlier),
            false => lost.then_some(Unsynced::Now),
        };
        self.unsynced |= lost;
        config.r = shape.r;
        config.w = shape.w;
        config.timing = shape.timing;
        config.limits = shape.limits;
        config.planted = shape.planted;
        let now = self.clock.now(now);
        config.opening = opening(&mut store);
        let engine = Engine::new(config, self.membership.clone(), now);
        let mut host = Host::new(engine, store, now);
        self.outputs.borrow_mut().clear();
        let (outputs, dying) = (Rc::clone(&self.outputs), Rc::clone(&self.dying));
        let disk = self.disk.inner().clone();
        host.observe(Box::new(move |output: &Output| {
            let (mut outputs, mut dying) = (outputs.borrow_mut(), dying.borrow_mut());
            let appends = |output: &Output| matches!(output, Output::Append { .. } | Output::DropSlot { .. });
            if let Some((after, _)) = dying.amid
                && dying.left.is_none()
                && appends(output)
                && disk.is_powered()
                && outputs.iter().filter(|output| appends(output)).count() == after
            {
                dying.left = Some(disk.fork());
            }
            if dying.left.is_none() {
                outputs.push(output.clone());
            }
        }));
        self.host = Some(host);
        self.runs += 1;
        self.timer = None;
        Ok(actor)
    }

    /// Whether the process was killed in the midst of the step that it has just taken; it starts again so long after. Then the disk is as
    /// it was at that moment.
    pub(crate) fn was_killed(&mut self) -> Option<Duration> {
        let mut dying = self.dying.borrow_mut();
        let disk = dying.left.take()?;
        self.disk.replace(disk);
        Some(dying.amid.take().map_or(Duration::ZERO, |(_, after)| after))
    }

    /// What the node's store holds under a key.
    pub(crate) fn read(&mut self, place: u16, key: &Bytes) -> Result<Option<Bytes>, String> {
        let Some(host) = &mut self.host else { return Err(String::from("it is down")) };
        let store = host.store_mut();
        let read = self.disk.looking(|| match store.get(place, key) {
            Ok(Read::Pending(job)) => store.finish_read(job.run()),
            other => other,
        });
        match read {
            Ok(Read::Value { value, .. }) => Ok(Some(Bytes::from(value))),
            Ok(Read::Absent) | Err(ReadError::Unknown) => Ok(None),
            Ok(Read::Pending(_)) => Err(String::from("a finished read is pending again")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// All keys of a slot.
    pub(crate) fn list(&mut self, place: u16) -> Vec<Bytes> {
        let Some(host) = &mut self.host else { return Vec::new() };
        let mut keys = Vec::new();
        let mut cursor = Some(Cursor::START);
        while let Some(from) = cursor {
            let Ok(page) = host.store_mut().list(place, from, 1024) else { break };
            keys.extend(page.keys.into_iter().map(Bytes::from));
            cursor = page.next;
        }
        keys
    }
}
