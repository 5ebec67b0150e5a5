//! "Full" is an answer: whatever answers it leaves everything as it was.

use gramme_vclock::{
    Actor, Dot, FixedDotSet, FixedSiblings, FixedTimedVector, FixedVersionVector, Full, IncrementError,
    Minter, Span, Stamp, WriteError,
};

/// A small random source (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % end
    }

    fn dot(&mut self) -> Dot {
        Dot { actor: Actor(2 + self.below(3)), counter: 1 + self.below(6) }
    }

    fn span(&mut self) -> Span {
        let dot = self.dot();
        Span { last: dot.counter + self.below(3), ..dot.span() }
    }

    fn set(&mut self) -> FixedDotSet<2> {
        let spans = (0..self.below(3)).map(|_| self.span()).collect::<Vec<_>>();
        FixedDotSet::from_spans(spans).unwrap()
    }
}

/// One of everything that may have no room.
#[derive(Clone)]
struct All {
    set: FixedDotSet<2>,
    vector: FixedVersionVector<2>,
    timed: FixedTimedVector<2>,
    object: FixedSiblings<u64, 3, 2>,
}

impl All {
    fn new() -> All {
        All {
            set: FixedDotSet::new(),
            vector: FixedVersionVector::new(),
            timed: FixedTimedVector::new(),
            object: FixedSiblings::new(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(&(&self.set, &self.vector, &self.timed, &self.object)).unwrap()
    }

    /// Something happens to one of them. Which it was, and whether there was no room.
    fn step(&mut self, other: &All, minter: &mut Minter, random: &mut Random) -> (usize, bool) {
        let full = |answer: Result<(), IncrementError<Full>>| match answer {
            Ok(()) => false,
            Err(error) => {
                assert_eq!(error, IncrementError::Full(Full));
                true
            }
        };
        let (actor, at) = (random.dot().actor, Stamp::from_parts(random.below(9), 0));
        let which = random.below(METHODS as u64);
        let refused = match which {
            0 => self.set.insert(random.dot()) == Err(Full),
            1 => self.set.insert_span(random.span()) == Err(Full),
            2 => self.set.union(&other.set) == Err(Full),
            3 => full(self.vector.increment(actor).map(drop)),
            4 => full(self.vector.increment_past(actor, random.below(9), ()).map(drop)),
            5 => self.vector.include(random.dot()) == Err(Full),
            6 => self.vector.merge(&other.vector) == Err(Full),
            7 => full(self.timed.increment_at(actor, at).map(drop)),
            8 => full(self.timed.increment_past(actor, random.below(9), at).map(drop)),
            9 => self.timed.merge(&other.timed) == Err(Full),
            10 => self.object.merge(other.object.clone()) == Err(Full),
            11 => self.object.discard(&random.set()) == Err(Full),
            12 => {
                let context = if random.below(2) == 0 { self.object.seen().clone() } else { random.set() };
                match self.object.write(&context, minter, random.below(100)) {
                    Ok(_) => false,
                    Err(error) => {
                        assert_eq!(error, WriteError::Full(Full));
                        true
                    }
                }
            }
            _ => {
                let mut changed = 0;
                let change = |_, value| {
                    changed += 1;
                    value + 1000
                };
                match self.object.clone().map::<u64, heapless::Vec<_, 1>>(change) {
                    Ok(mapped) => {
                        let (dots, values): (Vec<_>, Vec<_>) =
                            mapped.iter().map(|(dot, v)| (dot, v - 1000)).unzip();
                        assert!(self.object.iter().map(|(dot, _)| dot).eq(dots));
                        assert!(self.object.iter().map(|(_, value)| *value).eq(values));
                        false
                    }
                    Err((back, Full)) => {
                        assert_eq!((&back, changed), (&self.object, 0));
                        true
                    }
                }
            }
        };
        (usize::try_from(which).unwrap(), refused)
    }
}

const METHODS: usize = 14;

#[test]
fn whatever_answers_full_leaves_everything_as_it_was() {
    let mut random = Random(1);
    let mut refusals = [0; METHODS];
    for _ in 0..4000 {
        let mut both = [All::new(), All::new()];
        // Of an actor that nobody else writes as.
        let mut minters = [0, 1].map(|actor| Minter::new(Actor(actor)));
        for _ in 0..20 {
            let [left, right] = &mut both;
            let minter = &mut minters[0];
            let before = (left.bytes(), right.bytes(), minter.minted(), minter.held_since());
            let (which, refused) = left.step(right, minter, &mut random);
            let after = (left.bytes(), right.bytes(), minter.minted(), minter.held_since());
            assert!(!refused || before == after, "method {which}");
            refusals[which] += usize::from(refused);
            both.reverse();
            minters.reverse();
        }
    }
    assert!(refusals.iter().all(|count| *count > 100), "{refusals:?}");
}
