//! Version vectors against plain maps: the fixed form and the growable one, with times and without.

use crate::source::Source;
use gramme_vclock::{
    Actor, Buf, Causality, Checked, Dot, Entry, IncrementError, InlineVec, Malformed, Stamp, VersionVector,
};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Debug;

/// The last event of each actor and the time beside it; all its earlier ones were seen too.
type Model<T> = BTreeMap<Actor, (u64, T)>;
type Growable<T> = InlineVec<Entry<T>, 10>;
type Fixed<T> = heapless::Vec<Entry<T>, ROOM>;

const ROOM: usize = 4;
/// More than stay off the heap.
const ACTORS: usize = 14;

/// The first byte chooses the form, the rest are operations on three vectors of it.
///
/// # Panics
/// If a vector and its model disagree.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    match source.byte() % 4 {
        0 => operate::<Growable<()>, ()>(source, usize::MAX),
        1 => operate::<Fixed<()>, ()>(source, ROOM),
        2 => operate::<Growable<Stamp>, Stamp>(source, usize::MAX),
        _ => operate::<Fixed<Stamp>, Stamp>(source, ROOM),
    }
}

/// What stands beside each entry.
trait Beside: gramme_vclock::Beside + Debug + Serialize {
    fn at(millis: u8) -> Self;
    /// The next, if there is one.
    fn after(self) -> Self;
    /// Truncates a vector that can be, and says how many entries went.
    fn truncate<B: Buf<Entry<Self>>>(vector: &mut VersionVector<B, Self>, limit: usize) -> usize;
}

impl Beside for () {
    fn at(_: u8) -> Self {}

    fn after(self) -> Self {}

    fn truncate<B: Buf<Entry>>(_: &mut VersionVector<B>, _: usize) -> usize {
        0
    }
}

impl Beside for Stamp {
    fn at(millis: u8) -> Self {
        Stamp::from_parts(millis.into(), 0)
    }

    fn after(self) -> Self {
        self.next()
    }

    fn truncate<B: Buf<Entry<Stamp>>>(vector: &mut VersionVector<B, Stamp>, limit: usize) -> usize {
        vector.truncate(limit)
    }
}

fn operate<B: Buf<Entry<T>> + Clone, T: Beside>(mut source: Source<'_>, room: usize) {
    let mut vectors = [(); 3].map(|()| (VersionVector::<B, T>::new(), Model::new()));
    for _ in 0..400 {
        if source.is_empty() {
            break;
        }
        let (operation, this, other) = (source.byte(), source.below(3), source.below(3));
        let from = vectors[other].clone();
        let (vector, model) = &mut vectors[this];
        match operation % 6 {
            0 => {
                let (actor, at) = (actor(&mut source), T::at(source.byte()));
                increment(vector, model, room, actor, at);
            }
            1 => merge(vector, model, room, &from),
            2 => wire(vector, room),
            3 => {
                let actor = actor(&mut source);
                let held = model.remove(&actor).map_or(0, |(counter, _)| counter);
                assert_eq!(vector.forget(actor), held);
            }
            4 => {
                let limit = source.below(ACTORS);
                let mut by_age: Vec<_> = model.iter().map(|(actor, (_, at))| (*at, *actor)).collect();
                by_age.sort_unstable();
                let gone = T::truncate(vector, limit);
                if size_of::<T>() > 0 {
                    assert_eq!(gone, model.len().saturating_sub(limit));
                    model.retain(|actor, _| by_age[gone..].iter().any(|(_, kept)| kept == actor));
                }
            }
            _ => {
                let entries: Vec<_> = (0..source.below(ACTORS)).map(|_| entry(&mut source)).collect();
                if let Some((read, as_map)) = from_entries(&entries, room) {
                    (*vector, *model) = (read, as_map);
                }
            }
        }
        let (vector, model) = &vectors[this];
        agree(vector, model);
        let probe = entry::<T>(&mut source);
        let held = model.get(&probe.actor).map_or(0, |(counter, _)| *counter);
        assert_eq!(vector.get(probe.actor), held);
        let dot = Dot { actor: probe.actor, counter: probe.counter };
        assert_eq!(vector.contains(dot), (1..=held).contains(&dot.counter));
        relate(&vectors[this], &vectors[other]);
    }
}

fn increment<B: Buf<Entry<T>> + Clone, T: Beside>(
    vector: &mut VersionVector<B, T>,
    model: &mut Model<T>,
    room: usize,
    actor: Actor,
    at: T,
) {
    let held = model.get(&actor).copied();
    match vector.increment_at(actor, at) {
        Ok(dot) => {
            let counter = held.map_or(1, |(counter, _)| counter + 1);
            assert_eq!(dot, Dot { actor, counter });
            let latest = model.values().map(|(_, at)| *at).max();
            model.insert(actor, (counter, latest.map_or(at, |latest| at.max(latest.after()))));
        }
        Err(IncrementError::LastStamp) => {
            assert!(size_of::<T>() > 0 && model.values().any(|(_, at)| at.after() == *at));
        }
        Err(IncrementError::Overflow) => assert_eq!(held.map(|(counter, _)| counter), Some(u64::MAX)),
        Err(_) => assert!(held.is_none() && model.len() == room),
    }
}

fn merge<B: Buf<Entry<T>> + Clone, T: Beside>(
    vector: &mut VersionVector<B, T>,
    model: &mut Model<T>,
    room: usize,
    (from, theirs): &(VersionVector<B, T>, Model<T>),
) {
    let all = union(model, theirs);
    match vector.merge(from) {
        Ok(changed) => {
            assert_eq!(changed, all != *model);
            *model = all;
        }
        // And what follows finds it unchanged.
        Err(_) => assert!(all.len() > room),
    }
}

fn union<T: Beside>(ours: &Model<T>, theirs: &Model<T>) -> Model<T> {
    let mut all = ours.clone();
    for (actor, entry) in theirs {
        let held = all.entry(*actor).or_insert(*entry);
        *held = (*held).max(*entry);
    }
    all
}

/// All forms write the same bytes, and read them back where there is room.
fn wire<B: Buf<Entry<T>> + Clone, T: Beside>(vector: &VersionVector<B, T>, room: usize) {
    let bytes = postcard::to_allocvec(vector).expect("a vector has an encoding");
    let again = postcard::from_bytes::<VersionVector<B, T>>(&bytes).expect("it fitted before");
    assert!(again == *vector);
    let growable = postcard::from_bytes::<VersionVector<Growable<T>, T>>(&bytes).expect("there is room");
    assert_eq!(growable.entries(), vector.entries());
    assert_eq!(postcard::to_allocvec(&growable).as_ref(), Ok(&bytes));
    let fixed = postcard::from_bytes::<VersionVector<Fixed<T>, T>>(&bytes);
    assert_eq!(fixed.is_ok(), vector.len() <= ROOM);
    assert!(vector.len() <= room && bytes.len() <= 1 + vector.len() * (8 + 10 + 10));
}

/// A vector of such entries if they are sorted and so on; else an error that is true, from both ways in.
fn from_entries<B: Buf<Entry<T>> + Clone, T: Beside>(
    entries: &[Entry<T>],
    room: usize,
) -> Option<(VersionVector<B, T>, Model<T>)> {
    // Part by part: an entry that counts to zero has no encoding of its own.
    let parts: Vec<(Actor, u64, T)> =
        entries.iter().map(|entry| (entry.actor, entry.counter, entry.at)).collect();
    for entry in entries {
        assert_eq!(postcard::to_allocvec(entry).is_ok(), entry.counter > 0);
    }
    let bytes = postcard::to_allocvec(&parts).expect("parts have an encoding");
    let read = postcard::from_bytes::<VersionVector<B, T>>(&bytes).ok();
    let Checked(named) = postcard::from_bytes::<Checked<VersionVector<B, T>>>(&bytes).expect("entries");
    let made = VersionVector::<B, T>::from_entries(entries.iter().copied());
    assert!(read == made.as_ref().ok().cloned() && named == made);
    let actors = || entries.iter().zip(entries.iter().skip(1)).map(|(a, b)| (a.actor, b.actor));
    let zero = entries.iter().any(|entry| entry.counter == 0);
    let good = actors().all(|(a, b)| a < b) && !zero && entries.len() <= room;
    match made {
        Ok(vector) => {
            assert!(good);
            let model = entries.iter().map(|entry| (entry.actor, (entry.counter, entry.at))).collect();
            return Some((vector, model));
        }
        Err(Malformed::CounterZero) => assert!(zero),
        Err(Malformed::Unsorted) => assert!(actors().any(|(a, b)| a > b)),
        Err(Malformed::Repeated) => assert!(actors().any(|(a, b)| a == b)),
        Err(Malformed::Full) => assert!(entries.len() > room),
        Err(other) => panic!("{other} for {entries:?}"),
    }
    None
}

fn agree<B: Buf<Entry<T>>, T: Beside>(vector: &VersionVector<B, T>, model: &Model<T>) {
    let entries =
        model.iter().map(|(actor, (counter, at))| Entry { actor: *actor, counter: *counter, at: *at });
    assert!(entries.eq(vector.entries().iter().copied()), "{:?} for {model:?}", vector.entries());
    assert_eq!((vector.len(), vector.is_empty()), (model.len(), model.is_empty()));
    let spans = vector.spans().map(|span| (span.actor, span.first, span.last));
    assert!(spans.eq(model.iter().map(|(actor, (counter, _))| (*actor, 1, *counter))));
}

/// One history includes another if it has seen each actor's last event; and a merge is a join.
fn relate<B: Buf<Entry<T>> + Clone, T: Beside>(
    (left, ours): &(VersionVector<B, T>, Model<T>),
    (right, theirs): &(VersionVector<B, T>, Model<T>),
) {
    let includes = |a: &Model<T>, b: &Model<T>| {
        b.iter().all(|(actor, (counter, _))| a.get(actor).is_some_and(|(held, _)| held >= counter))
    };
    let (more, less) = (includes(ours, theirs), includes(theirs, ours));
    assert_eq!((left.includes(right), right.includes(left)), (more, less));
    let expected = match (more, less) {
        (true, true) => Causality::Equal,
        (true, false) => Causality::After,
        (false, true) => Causality::Before,
        (false, false) => Causality::Concurrent,
    };
    assert_eq!((left.compare(right), right.compare(left)), (expected, expected.reverse()));
    assert_eq!(left == right, ours == theirs);
    let (mut forth, mut back) = (left.clone(), right.clone());
    let fitted = (forth.merge(right).is_ok(), back.merge(left).is_ok());
    assert_eq!(fitted.0, fitted.1);
    if fitted.0 {
        assert!(forth == back, "the order of a merge matters");
        assert!(forth.includes(left) && forth.includes(right));
        assert!(matches!(forth.merge(right), Ok(false)) && forth == back);
    } else {
        assert!(forth == *left && back == *right);
    }
}

fn actor(source: &mut Source<'_>) -> Actor {
    Actor(source.below(ACTORS) as u64)
}

/// Counters at both ends of the range.
fn entry<T: Beside>(source: &mut Source<'_>) -> Entry<T> {
    let actor = actor(source);
    let counter = match source.byte() {
        low @ 0..128 => u64::from(low % 16),
        high => u64::MAX - u64::from(255 - high) % 8,
    };
    Entry { actor, counter, at: T::at(source.byte()) }
}
