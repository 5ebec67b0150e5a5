//! What can go wrong in one run: whole kinds of fault are switched off by the seed, so that each run is a different
//! world, and the faults left are not drowned by the others (Groce et al., "Swarm Testing", ISSTA 2012).

use crate::network::Weather;
use crate::rng::Rng;
use core::time::Duration;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A process dies, or a machine loses its power; it starts again after a while.
    Crash,
    /// A process dies between two of the appends that one step asks for.
    HalfStep,
    /// All machines lose their power at once.
    Blackout,
    /// Links are cut: one node alone, two halves, one direction, or all but a bridge.
    Partition,
    /// A link goes up and down faster than anybody can tell.
    Flap,
    /// A receiver takes little or nothing of what one node sends it, and the sender is told.
    Clog,
    /// Messages are lost, late and doubled.
    Weather,
    /// Messages of any time and connection, and of processes long dead, arrive once more.
    Replay,
    /// A process stands still, perhaps longer than any timeout, or several do.
    Pause,
    /// Processes stand still, or whole machines, for minutes to hours: one, some, or all.
    Sleep,
    /// A wall clock jumps, by up to ten years.
    Jump,
    /// A monotonic clock runs fast or slow.
    Drift,
    /// Syncs take long.
    SlowDisk,
    /// The power fails in the midst of a disk operation, and perhaps again while the node recovers.
    TornWrite,
    /// A disk is full for a while.
    FullDisk,
    /// A sync fails, and the machine is restarted some time after.
    FailedSync,
    /// A disk is replaced by an empty one; never two before the first node has recovered.
    Wipe,
    /// A disk is replaced by an old copy of itself.
    SetBack,
    /// Members come, go, change their weight, or are given up for dead.
    Membership,
    /// Members move to other zones.
    Zones,
    /// N changes.
    Replicas,
    /// R and W of all keys that have no keyspace change.
    Rules,
    /// Two operators commit to different things at the same time.
    Operators,
}

/// Every kind.
pub const KINDS: [Kind; 23] = [
    Kind::Crash,
    Kind::HalfStep,
    Kind::Blackout,
    Kind::Partition,
    Kind::Flap,
    Kind::Clog,
    Kind::Weather,
    Kind::Replay,
    Kind::Pause,
    Kind::Sleep,
    Kind::Jump,
    Kind::Drift,
    Kind::SlowDisk,
    Kind::TornWrite,
    Kind::FullDisk,
    Kind::FailedSync,
    Kind::Wipe,
    Kind::SetBack,
    Kind::Membership,
    Kind::Zones,
    Kind::Replicas,
    Kind::Rules,
    Kind::Operators,
];

impl Kind {
    /// Whether no process ends by it and no disk fails: then hints alone make all replicas equal.
    const fn leaves_nodes_up(self) -> bool {
        matches!(
            self,
            Kind::Partition
                | Kind::Flap
                | Kind::Clog
                | Kind::Weather
                | Kind::Replay
                | Kind::Pause
                | Kind::Sleep
                | Kind::Jump
                | Kind::Drift
                | Kind::SlowDisk
        )
    }

    /// Whether no copies are to be moved by it: then reads make all replicas equal.
    const fn moves_nothing(self) -> bool {
        self.leaves_nodes_up()
            || matches!(
                self,
                Kind::Crash
                    | Kind::HalfStep
                    | Kind::Blackout
                    | Kind::TornWrite
                    | Kind::FullDisk
                    | Kind::FailedSync
            )
    }
}

/// What makes replicas equal in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heals {
    /// Hints, reads, and anti-entropy.
    All,
    /// Hints alone: no node goes down.
    Hints,
    /// Hints, and reads where there are none: no disk is lost, and nobody comes or goes.
    Reads,
}

/// What becomes of a record that was written, synced and acknowledged. The page cache hides it until the disk itself is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// Bits of it turn over.
    Rot,
    /// The disk never wrote it, whatever it said.
    Lost,
    /// The disk wrote it to the place of another record, and so both are gone.
    Misdirected,
}

/// Every kind of harm.
pub const HARMS: [Harm; 3] = [Harm::Rot, Harm::Lost, Harm::Misdirected];

/// One storm: which kinds of fault it has, and how often each comes.
#[derive(Clone, Debug)]
pub struct Storm {
    /// Kinds with their mean time between two.
    pub kinds: Vec<(Kind, Duration)>,
    /// How long things stay broken, on average.
    pub lasting: Duration,
    /// Crashes that are power cuts, per million.
    pub power_cuts: u32,
    /// The weather on its bad days.
    pub weather: Weather,
    /// Whether links that are cut reset their connections soon.
    pub resets: bool,
}

impl Storm {
    /// Draws a storm in which nothing happens that would need more than this to be healed.
    pub fn draw(rng: &mut Rng, heals: Heals) -> Storm {
        let mut kinds = Vec::new();
        for kind in KINDS {
            let (odds, least, most) = match kind {
                Kind::Crash => (750_000, 2, 30),
                Kind::HalfStep => (500_000, 3, 30),
                Kind::Blackout => (200_000, 20, 90),
                Kind::Partition => (600_000, 3, 30),
                Kind::Flap => (250_000, 10, 60),
                Kind::Clog => (300_000, 3, 30),
                Kind::Weather => (600_000, 5, 30),
                Kind::Replay => (300_000, 2, 20),
                Kind::Pause => (400_000, 5, 40),
                Kind::Sleep => (150_000, 10, 40),
                Kind::Jump => (400_000, 5, 30),
                Kind::Drift => (300_000, 10, 60),
                Kind::SlowDisk => (300_000, 5, 30),
                Kind::TornWrite => (400_000, 2, 20),
                Kind::FullDisk => (200_000, 5, 30),
                Kind::FailedSync => (200_000, 10, 60),
                Kind::Wipe => (200_000, 10, 60),
                Kind::SetBack => (200_000, 5, 30),
                Kind::Membership => (500_000, 4, 30),
                Kind::Zones => (200_000, 10, 60),
                Kind::Replicas => (250_000, 10, 60),
                Kind::Rules => (250_000, 10, 60),
                Kind::Operators => (200_000, 10, 60),
            };
            if rng.chance(odds) {
                kinds.push((kind, rng.between(Duration::from_secs(least), Duration::from_secs(most))));
            }
        }
        kinds.retain(|(kind, _)| match heals {
            Heals::All => true,
            Heals::Hints => kind.leaves_nodes_up(),
            Heals::Reads => kind.moves_nothing(),
        });
        // A write has no hint where its coordinator dies before it misses somebody's answer.
        if heals == Heals::Reads {
            kinds.retain(|(kind, _)| !matches!(kind, Kind::Crash | Kind::Weather));
            kinds.push((Kind::Crash, rng.between(Duration::from_secs(1), Duration::from_secs(8))));
            kinds.push((Kind::Weather, rng.between(Duration::from_secs(2), Duration::from_secs(10))));
        }
        let percent = |rng: &mut Rng, most: u64| u32::try_from(rng.below(most * 10_000)).unwrap_or(0);
        let weather = Weather {
            fastest: Duration::from_micros(rng.range(20, 2_000)),
            slowest: Duration::from_micros(rng.range(2_000, 80_000)),
            lost: if rng.chance(600_000) {
                percent(rng, if heals == Heals::All { 10 } else { 30 })
            } else {
                0
            },
            doubled: if rng.chance(500_000) { percent(rng, 10) } else { 0 },
            straggling: if rng.chance(500_000) { percent(rng, 5) } else { 0 },
            straggler: Duration::from_millis(rng.range(100, 8_000)),
        };
        Storm {
            kinds,
            lasting: rng.between(Duration::from_secs(1), Duration::from_secs(15)),
            power_cuts: *rng.pick(&[0, 500_000, 1_000_000]),
            weather,
            resets: rng.chance(700_000),
        }
    }
}
