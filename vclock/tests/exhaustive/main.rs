//! Every small history, in every delivery order.
//!
//! A history is a sequence of writes. Each is made at one of three replicas, which has taken in some of the earlier
//! writes by then, under a context: nothing, what the replica shows, or what an earlier write handed back; in shorter
//! histories also what any read could have shown, at any replica, at any earlier time, or of replicas merged. A write's
//! snapshot (the object right after it) is what other replicas get. In some of the runs each may be a discard as well, which
//! covers what its context does and adds nothing. Not tried are contexts joined from those of several writes by hand.
//!
//! Two things keep this small. Joins are kept per *set of writes* known, whichever snapshots brought them, and each is
//! merged with every snapshot: the result must be the one join of the set known then. So by induction each delivery order
//! of each set of snapshots, repetitions included, gives the same object, though no order is walked on its own. And of
//! histories that differ only by names of replicas, or by the order of writes that know nothing of each other, one is
//! looked at (`canonical`).
//!
//! The model is the causal history itself: sets of writes as bits. A value is live where its write is known and no known
//! write covers it.

mod canonical;

use canonical::{Plan, readings, variants};
use gramme_vclock::{Actor, Dot, GrowableDotSet, GrowableSiblings, Minter, Span, Written};

const REPLICAS: usize = 3;

type Object = GrowableSiblings<usize>;
/// A set of writes, as bits by their order in the history.
type Writes = u8;

/// How the context that a write hands back is kept by the writer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Contexts {
    /// As handed back, gaps filled.
    Flattened,
    /// What was handed in and the new dot. Nothing but the model's sets then.
    Exact,
}

/// Which reads a context may come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    /// The one at the replica that takes the write, right before it.
    Own,
    /// Each of any set of writes that some replica can know: another replica's, an older one, or one of several merged.
    All,
}

/// What happened to a replica's copy between two of its writes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Copy {
    /// It kept it, and took in more.
    Held,
    /// It dropped it, and took in some writes again.
    Dropped,
    /// The store lost any part of it and was opened anew: another actor.
    Reopened,
}

#[derive(Clone, Copy)]
struct Replica {
    actor: Actor,
    counter: u64,
    held_since: u64,
    knows: Writes,
}

struct Write {
    /// A discard has none.
    dot: Option<Dot>,
    /// The writes that it covers.
    covers: Writes,
    /// The writes that its snapshot holds, itself included.
    snapshot_knows: Writes,
    snapshot: Object,
    /// What the writer was handed back.
    context: GrowableDotSet,
}

/// Which histories are looked at.
#[derive(Clone, Copy)]
struct Space {
    writes: usize,
    contexts: Contexts,
    reads: Reads,
    copies: &'static [Copy],
    discards: bool,
    /// Counters that another key of the slot takes before each write: with none, dots of one actor touch.
    apart: u64,
    /// Whether copies of other keys go before each write, at stores that remember since when they have held this one's.
    others_go: bool,
}

const HELD: &[Copy] = &[Copy::Held];
const ANY: &[Copy] = &[Copy::Held, Copy::Dropped, Copy::Reopened];

impl Space {
    const fn of(writes: usize, contexts: Contexts, reads: Reads, copies: &'static [Copy]) -> Space {
        Space { writes, contexts, reads, copies, discards: false, apart: 1, others_go: false }
    }

    /// Looks at them all, and answers how many there are but for names and order.
    fn histories(self) -> u64 {
        self.share(0, 1)
    }

    /// The same on two cores.
    fn histories_on_two(self) -> u64 {
        std::thread::scope(|scope| {
            let other = scope.spawn(|| self.share(1, 2));
            self.share(0, 2) + other.join().unwrap()
        })
    }

    fn share(self, share: u64, shares: u64) -> u64 {
        let mut explorer = Explorer::new(self, |history| readings(history).is_some(), |_| 1);
        (explorer.share, explorer.shares) = (share, shares);
        explorer.extend();
        explorer.histories
    }
}

struct Explorer {
    space: Space,
    /// Whether a history is gone on with.
    chosen: fn(&[Plan]) -> bool,
    /// As how many a whole one counts.
    counts: fn(&[Plan]) -> u64,
    /// Of the beginnings of this length those are looked at whose number leaves this remainder.
    share: u64,
    shares: u64,
    beginnings: u64,
    plans: Vec<Plan>,
    writes: Vec<Write>,
    /// The sets of writes that a replica can know: every union of what snapshots hold.
    knowable: Vec<Writes>,
    /// The join of each of them, by its bits.
    joins: Vec<Object>,
    replicas: [Replica; REPLICAS],
    next_actor: u64,
    histories: u64,
}

/// After so many writes the histories are shared out.
const BEGINNING: usize = 3;

fn bits(writes: Writes) -> impl Iterator<Item = usize> {
    (0..8).filter(move |at| writes >> at & 1 == 1)
}

fn merged(a: &Object, b: &Object) -> Object {
    let mut all = a.clone();
    let Ok(_) = all.merge(b.clone());
    all
}

impl Explorer {
    fn new(space: Space, chosen: fn(&[Plan]) -> bool, counts: fn(&[Plan]) -> u64) -> Explorer {
        // Names that keep spans of different replicas from sorting by age.
        let replica = |at: u64| Replica { actor: Actor(0x30 - at), counter: 0, held_since: 0, knows: 0 };
        Explorer {
            space,
            chosen,
            counts,
            share: 0,
            shares: 1,
            beginnings: 0,
            plans: Vec::new(),
            writes: Vec::new(),
            knowable: vec![0],
            joins: vec![Object::new(); 1 << space.writes],
            replicas: [replica(0), replica(1), replica(2)],
            next_actor: 0x40,
            histories: 0,
        }
    }

    fn extend(&mut self) {
        if self.writes.len() == BEGINNING {
            self.beginnings += 1;
            if self.beginnings % self.shares != self.share {
                return;
            }
        }
        if self.writes.len() == self.space.writes {
            self.histories += (self.counts)(&self.plans);
            return;
        }
        for at in 0..REPLICAS {
            let fresh = self.plans.iter().all(|plan| plan.replica != at);
            for copy in self.space.copies.iter().copied().filter(|copy| !fresh || *copy == Copy::Held) {
                let held = if copy == Copy::Held { self.replicas[at].knows } else { 0 };
                for which in 0..self.knowable.len() {
                    let knows = self.knowable[which];
                    if knows & held == held {
                        self.extend_at(at, copy, knows);
                    }
                }
            }
        }
    }

    fn extend_at(&mut self, at: usize, copy: Copy, knows: Writes) {
        let mut tried = vec![(GrowableDotSet::new(), 0)];
        let read =
            |knows: Writes| (self.joins[usize::from(knows)].seen().clone(), self.known_or_covered(knows));
        let elsewhere = if self.space.reads == Reads::All { &self.knowable[..] } else { &[] };
        let reads = std::iter::once(read(knows)).chain(elsewhere.iter().map(|knows| read(*knows)));
        let writes = self.writes.iter().enumerate().filter(|(_, write)| write.dot.is_some());
        let chained = writes.map(|(w, write)| (write.context.clone(), write.covers | 1 << w));
        for context in reads.chain(chained) {
            if !tried.contains(&context) {
                tried.push(context);
            }
        }
        for (context, covers) in tried {
            let (replicas, knowable) = (self.replicas, self.knowable.len());
            for discards in [false, true] {
                // One that covers nothing does nothing.
                if discards && (!self.space.discards || covers == 0) {
                    continue;
                }
                let spans = context.spans().iter().map(|span| self.ends(*span)).collect();
                self.plans.push(Plan { replica: at, copy, discards, knows, covers, spans });
                if (self.chosen)(&self.plans) {
                    self.write(at, copy, knows, (&context, covers), discards);
                    self.extend();
                    self.writes.truncate(self.writes.len() - 1);
                    self.knowable.truncate(knowable);
                    self.replicas = replicas;
                }
                self.plans.pop();
            }
        }
    }

    /// The writes that a span begins and ends with.
    fn ends(&self, Span { actor, first, last }: Span) -> (usize, usize) {
        let write = |counter| {
            let dot = Some(Dot { actor, counter });
            self.writes.iter().position(|write| write.dot == dot).expect("spans are from write to write")
        };
        (write(first), write(last))
    }

    fn write(
        &mut self,
        at: usize,
        copy: Copy,
        knows: Writes,
        (context, covers): (&GrowableDotSet, Writes),
        discards: bool,
    ) {
        let this = self.writes.len();
        let replica = &mut self.replicas[at];
        match copy {
            Copy::Held => {}
            Copy::Dropped => replica.held_since = replica.counter,
            Copy::Reopened => {
                self.next_actor += 1;
                *replica = Replica { actor: Actor(self.next_actor), counter: 0, held_since: 0, knows };
            }
        }
        let minted = replica.counter + self.space.apart;
        let dropped = if self.space.others_go { minted } else { replica.held_since };
        let mut minter = Minter::resume(replica.actor, minted, dropped);
        let mut snapshot = self.joins[usize::from(knows)].clone();
        let (mut dot, mut handed_back) = (None, context.clone());
        if discards {
            let Ok(_) = snapshot.discard(context);
        } else {
            let written = if self.space.others_go {
                snapshot.write_held(context, &mut minter, replica.held_since, this)
            } else {
                snapshot.write(context, &mut minter, this)
            };
            let Written { dot: new, context } = written.expect("nothing names what is not minted");
            replica.counter = new.counter;
            match self.space.contexts {
                Contexts::Flattened => handed_back = context,
                Contexts::Exact => {
                    let Ok(()) = handed_back.insert(new);
                }
            }
            dot = Some(new);
        }
        let snapshot_knows = knows | 1 << this;
        replica.knows = snapshot_knows;
        self.writes.push(Write { dot, covers, snapshot_knows, snapshot, context: handed_back });
        self.check(this);
    }

    /// Merges the new snapshot into each join, then every snapshot into each new join, and checks what comes of it.
    fn check(&mut self, this: usize) {
        let (old, new) = (self.knowable.len(), &self.writes[this]);
        for which in 0..old {
            let before = self.knowable[which];
            let (all, join) =
                (before | new.snapshot_knows, merged(&self.joins[usize::from(before)], &new.snapshot));
            if self.knowable[old..].contains(&all) {
                assert_eq!(join, self.joins[usize::from(all)], "the last write came to {before:b}");
            } else {
                self.knowable.push(all);
                self.joins[usize::from(all)] = join;
            }
        }
        for knows in &self.knowable[old..] {
            let join = &self.joins[usize::from(*knows)];
            for (w, write) in self.writes.iter().enumerate() {
                let after = &self.joins[usize::from(knows | write.snapshot_knows)];
                assert_eq!(&merged(join, &write.snapshot), after, "write {w} came to {knows:b}");
            }
            self.check_object(join, *knows);
        }
    }

    /// Checks an object against the writes that reached it.
    fn check_object(&self, join: &Object, knows: Writes) {
        let covered = bits(knows).fold(0, |all, w| all | self.writes[w].covers);
        let made = self.writes.iter().enumerate().filter(|(_, write)| write.dot.is_some());
        let made = made.fold(0, |all, (w, _)| all | 1 << w);
        let live = knows & made & !covered;
        let held = join.iter().fold(0, |all, (_, w)| all | 1 << w);
        let seen = (0..self.writes.len())
            .filter(|w| self.writes[*w].dot.is_some_and(|dot| join.seen().contains(dot)))
            .fold(0, |all, w| all | 1 << w);
        let shown = (knows | covered) & made;
        let everything = (1 << self.writes.len()) - 1;
        if self.space.contexts == Contexts::Exact || knows == everything {
            assert_eq!(held, live, "values of {knows:b}");
            assert_eq!(seen, shown, "history of {knows:b}");
        } else {
            // A filled gap may tell of a replacement ahead of the write that replaced, never of one that is none.
            assert_eq!(held & !live, 0, "values of {knows:b}");
            let replaced = self.writes.iter().fold(0, |all, write| all | write.covers);
            assert_eq!(live & !held & !replaced, 0, "a value lost in {knows:b}");
            assert_eq!(shown & !seen, 0, "history of {knows:b}");
            assert_eq!(seen & !shown & !replaced, 0, "history of {knows:b}");
        }
    }

    fn known_or_covered(&self, knows: Writes) -> Writes {
        bits(knows).fold(knows, |all, w| all | self.writes[w].covers)
    }
}

/// The longest histories looked at: 5,472,503 of six writes take a release build twenty seconds, and 101,961 of five an
/// unoptimised one ten, on one core.
const LONGEST: usize = if cfg!(debug_assertions) { 5 } else { 6 };

/// Of those that are the same but for names and order, one is looked at: all that it stands for are as many as there are.
#[test]
fn no_history_is_left_out() {
    for (writes, copies, discards, apart) in
        [(4, HELD, false, 1), (3, ANY, true, 1), (4, HELD, false, 0), (3, ANY, true, 0)]
    {
        let space = Space { discards, apart, ..Space::of(writes, Contexts::Flattened, Reads::Own, copies) };
        let mut each = Explorer::new(space, |_| true, |_| 1);
        each.extend();
        let mut one = Explorer::new(space, |history| readings(history).is_some(), |h| variants(h).unwrap());
        one.extend();
        assert_eq!(one.histories, each.histories);
    }
}

#[test]
fn every_history_under_the_contexts_handed_back() {
    let histories = Space::of(LONGEST, Contexts::Flattened, Reads::Own, HELD).histories();
    assert_eq!(histories, if LONGEST == 5 { 101_961 } else { 5_472_503 });
}

#[test]
fn every_history_under_exact_contexts() {
    // Unoptimised, four are enough beside the test before.
    let (writes, expected) = if LONGEST == 5 { (4, 2_596) } else { (6, 5_857_703) };
    assert_eq!(Space::of(writes, Contexts::Exact, Reads::Own, HELD).histories(), expected);
}

#[test]
fn every_history_around_dropped_copies_and_new_actors() {
    let made = [Contexts::Flattened, Contexts::Exact]
        .map(|contexts| Space::of(4, contexts, Reads::Own, ANY).histories());
    assert_eq!(made, [52_888, 53_409]);
}

/// As many as where nothing else is dropped: it makes no difference.
#[test]
fn every_history_at_stores_that_remember_since_when_they_hold_a_copy() {
    let space = Space { others_go: true, ..Space::of(4, Contexts::Flattened, Reads::Own, ANY) };
    assert_eq!(space.histories(), 52_888);
}

/// Of one write fewer, here and below: a read may come from any set of writes, so that there are 16,844,341 histories of six,
/// and they take a minute (`cargo test --release -p gramme-vclock --test exhaustive -- --ignored`, as do those below).
#[test]
fn every_history_under_any_read() {
    let made = [
        Space::of(LONGEST - 1, Contexts::Flattened, Reads::All, HELD),
        Space::of(LONGEST - 1, Contexts::Exact, Reads::All, HELD),
        Space::of(LONGEST - 2, Contexts::Flattened, Reads::All, ANY),
    ];
    let made = made.map(Space::histories);
    assert_eq!(made, if LONGEST == 5 { [3_380, 3_735, 608] } else { [196_008, 232_700, 75_080] });
}

#[test]
#[ignore = "takes a minute"]
fn every_history_of_six_writes_under_any_read() {
    let histories = Space::of(6, Contexts::Flattened, Reads::All, HELD).histories();
    assert_eq!(histories, 16_844_341);
}

#[test]
fn every_history_with_discards() {
    let made = [
        Space::of(LONGEST - 1, Contexts::Flattened, Reads::Own, HELD),
        Space::of(LONGEST - 1, Contexts::Exact, Reads::Own, HELD),
        Space::of(LONGEST - 1, Contexts::Flattened, Reads::All, HELD),
        Space::of(LONGEST - 2, Contexts::Flattened, Reads::Own, ANY),
    ];
    let made = made.map(|space| Space { discards: true, ..space }.histories());
    let expected =
        if LONGEST == 5 { [9_074, 9_353, 14_529, 1_294] } else { [543_928, 567_407, 1_421_391, 186_988] };
    assert_eq!(made, expected);
}

/// A key that has its minter to itself: spans meet where no write of another key stands between, and no gap is there to be filled.
#[test]
fn every_history_whose_dots_touch() {
    let made = [
        Space::of(LONGEST - 1, Contexts::Flattened, Reads::Own, HELD),
        Space::of(LONGEST - 1, Contexts::Exact, Reads::All, HELD),
        Space::of(LONGEST - 2, Contexts::Flattened, Reads::All, ANY),
        Space { discards: true, ..Space::of(LONGEST - 2, Contexts::Flattened, Reads::Own, ANY) },
    ];
    let made = made.map(|space| Space { apart: 0, ..space }.histories());
    let expected =
        if LONGEST == 5 { [2_495, 3_360, 608, 1_294] } else { [101_949, 191_720, 74_940, 186_988] };
    assert_eq!(made, expected);
}

#[test]
#[ignore = "takes a minute of two cores"]
fn every_history_of_six_events_with_discards() {
    let space = Space { discards: true, ..Space::of(6, Contexts::Flattened, Reads::Own, HELD) };
    assert_eq!(space.histories_on_two(), 42_230_894);
}
