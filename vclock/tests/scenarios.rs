//! Histories with a name.

mod common;

use gramme_vclock::{
    Actor, Causality, Dot, FixedDotSet, FixedSiblings, Full, GrowableContext, GrowableDotSet,
    GrowableSiblings, GrowableVersionVector, Minter, SealError, SealKey, Span, Stamp, WriteError, Written,
};

type Object = GrowableSiblings<String>;

/// One store: its copy of the key, and the minter of the slot.
struct Store {
    object: Object,
    minter: Minter,
}

impl Store {
    fn open(actor: u64) -> Store {
        Store { object: Object::new(), minter: Minter::new(Actor(actor)) }
    }

    fn put(&mut self, context: &GrowableDotSet, value: impl Into<String>) -> (Dot, GrowableDotSet) {
        let written = self.object.write(context, &mut self.minter, value.into());
        let Written { dot, context } = written.expect("nothing names what is not minted");
        (dot, context)
    }

    /// Other keys of the slot take counters.
    fn serve_other_keys(&mut self, writes: u64) {
        common::serve_other_keys(&mut self.minter, writes);
    }

    fn drop_copy(&mut self) {
        self.object = Object::new();
        self.minter.break_hold();
    }

    fn take_in(&mut self, from: &Object) {
        let Ok(_) = self.object.merge(from.clone());
    }

    fn values(&self) -> Vec<&str> {
        values(&self.object)
    }

    fn read(&self) -> GrowableDotSet {
        self.object.seen().clone()
    }
}

fn values(object: &Object) -> Vec<&str> {
    let mut values: Vec<&str> = object.iter().map(|(_, value)| value.as_str()).collect();
    values.sort_unstable();
    values
}

fn merged(a: &Object, b: &Object) -> Object {
    let mut all = a.clone();
    let Ok(_) = all.merge(b.clone());
    all
}

fn nothing() -> GrowableDotSet {
    GrowableDotSet::new()
}

#[test]
fn figure_3_of_the_paper() {
    let (mut sx, mut sy, mut sz) = (Store::open(1), Store::open(2), Store::open(3));
    let (sx1, context) = sx.put(&nothing(), "D1");
    let d1 = sx.object.clone();
    let (sx2, context) = sx.put(&context, "D2");
    assert_eq!((sx1.counter, sx2.counter), (1, 2));
    assert_eq!(sx.values(), ["D2"], "D2 descends from D1 and overwrites it");
    let d2 = sx.object.clone();

    // Sx can't be reached: one client writes through Sy, another, who read D2 too, through Sz.
    sy.take_in(&d2);
    sz.take_in(&d2);
    sy.put(&context, "D3");
    sz.put(&context, "D4");
    let (d3, d4) = (sy.object.clone(), sz.object.clone());
    assert_eq!(d3.compare(&d2), Causality::After);
    assert_eq!(d3.compare(&d4), Causality::Concurrent);

    // A node that holds D1 or D2 and receives D4 knows that both are overwritten; one that holds D3 keeps both.
    assert_eq!(values(&merged(&d1, &d4)), ["D4"]);
    assert_eq!(values(&merged(&d2, &d4)), ["D4"]);
    assert_eq!(values(&merged(&d3, &d4)), ["D3", "D4"]);

    // A client reads both, reconciles, and Sx coordinates the write.
    sx.take_in(&d3);
    sx.take_in(&d4);
    let (sx3, _) = sx.put(&sx.read(), "D5");
    assert_eq!(sx3.counter, 3);
    assert_eq!(sx.values(), ["D5"]);
    let span = |actor, last| Span { actor: Actor(actor), first: 1, last };
    assert_eq!(sx.object.seen().spans(), [span(1, 3), span(2, 1), span(3, 1)], "[Sx, 3], [Sy, 1], [Sz, 1]");
    for older in [d1, d2, d3, d4] {
        assert_eq!(values(&merged(&older, &sx.object)), ["D5"]);
    }
}

#[test]
fn figure_3_in_version_vectors() {
    let (sx, sy, sz) = (Actor(1), Actor(2), Actor(3));
    let mut d1 = GrowableVersionVector::new();
    d1.increment(sx).unwrap();
    let mut d2 = d1.clone();
    d2.increment(sx).unwrap();
    let (mut d3, mut d4) = (d2.clone(), d2.clone());
    d3.increment(sy).unwrap();
    d4.increment(sz).unwrap();
    assert_eq!(d4.compare(&d1), Causality::After);
    assert_eq!(d3.compare(&d4), Causality::Concurrent);
    let mut d5 = d3.clone();
    let Ok(_) = d5.merge(&d4);
    d5.increment(sx).unwrap();
    let counters: Vec<_> = d5.entries().iter().map(|entry| (entry.actor, entry.counter)).collect();
    assert_eq!(counters, [(sx, 3), (sy, 1), (sz, 1)]);
    assert_eq!((d5.compare(&d3), d5.compare(&d4)), (Causality::After, Causality::After));
}

/// Two writers take turns, each under the context of its own last write and never reading.
#[test]
fn two_writers_leave_two_siblings_through_one_coordinator() {
    let mut store = Store::open(1);
    let mut contexts = [nothing(), nothing()];
    for round in 0..100 {
        let writer = round % 2;
        (_, contexts[writer]) = store.put(&contexts[writer], format!("writer {writer}, round {round}"));
        assert!(store.object.len() <= 2);
        assert!(contexts[writer].spans().len() <= 2, "{:?}", contexts[writer]);
        store.serve_other_keys(round as u64 % 3);
    }
    assert_eq!(store.values(), ["writer 0, round 98", "writer 1, round 99"]);
    assert_eq!(store.object.seen().spans().len(), 1);
}

#[test]
fn two_writers_leave_two_siblings_through_two_coordinators() {
    // How writers meet coordinators, and after how many writes the coordinators hear of each other.
    for lag in [1, 2, 3, 7, 100] {
        for route in
            [|writer, _| writer, |writer, round: usize| (writer + round / 2) % 2, |_, round| round / 7 % 2]
        {
            let mut stores = [Store::open(1), Store::open(2)];
            let mut contexts = [nothing(), nothing()];
            for round in 0..100 {
                let writer = round % 2;
                let at: usize = route(writer, round);
                (_, contexts[writer]) =
                    stores[at].put(&contexts[writer], format!("writer {writer}, round {round}"));
                if round % lag == 0 {
                    let [one, other] = stores.each_ref().map(|store| store.object.clone());
                    stores[0].take_in(&other);
                    stores[1].take_in(&one);
                    // What the other may have seen apart is bounded by the lag.
                    assert!(contexts[writer].spans().len() <= 4 + lag, "{:?}", contexts[writer]);
                }
            }
            let end = merged(&stores[0].object, &stores[1].object);
            assert_eq!(values(&end), ["writer 0, round 98", "writer 1, round 99"], "lag {lag}");
            let mut one = stores;
            one[0].take_in(&end);
            let (_, context) = one[0].put(&contexts[0], "the end");
            // Two actors, and one live sibling excepted.
            assert!(context.spans().len() <= 3, "{context:?}");
        }
    }
}

#[test]
fn contexts_stay_bounded_over_twenty_thousand_chained_writes() {
    let mut stores = [Store::open(1), Store::open(2), Store::open(3)];
    let mut mine = nothing();
    let mut theirs = nothing();
    for round in 0..10_000_usize {
        (_, mine) = stores[round % 3].put(&mine, "mine");
        (_, theirs) = stores[round / 5 % 3].put(&theirs, "theirs");
        for from in 0..3 {
            let object = stores[from].object.clone();
            stores[(from + 1) % 3].take_in(&object);
        }
        assert!(mine.spans().len() <= 8 && theirs.spans().len() <= 8, "{mine:?} {theirs:?}");
    }
    let end = merged(&merged(&stores[0].object, &stores[1].object), &stores[2].object);
    assert_eq!(values(&end), ["mine", "theirs"]);
}

/// A copy of some other key is dropped between one client's writes: that costs a span each time, in the end the token, and never the write.
#[test]
fn each_drop_between_writes_costs_a_span() {
    let (mut store, mut context) = (Store::open(1), nothing());
    for drops in 0..100 {
        for _ in 0..2 {
            // Of two writes between which nothing was dropped the second extends what the first opened.
            (_, context) = store.put(&context, "mine");
            store.serve_other_keys(1);
            assert_eq!((context.spans().len(), store.read().spans().len()), (drops + 1, drops + 1));
            assert_eq!(store.values(), ["mine"]);
        }
        store.minter.break_hold();
    }

    // What 6,045 drops left late in an actor's life, when a span takes 65 bits, and two more.
    let key = SealKey([7; 16]);
    let sealed = |seen: &GrowableDotSet| {
        let context = GrowableContext { seen: seen.clone(), stamp: Stamp::ZERO };
        context.to_token(&key, 1, b"k").map(|_| ())
    };
    let spans = (0..6_045).map(|n| Dot { actor: Actor(1), counter: (1 << 60) + 2 * n }.span());
    let Ok(seen) = GrowableDotSet::from_spans(spans);
    store.object = Object::from_parts([], seen).unwrap();
    store.minter = Minter::resume(Actor(1), (1 << 60) + 2 * 6_045, u64::MAX);
    context = store.read();
    for (value, expected) in [("fits", Ok(())), ("does not", Err(SealError::TooLong))] {
        (_, context) = store.put(&context, value);
        assert_eq!(sealed(&context), expected);
        // Who reads is shown the same dots.
        assert_eq!((store.values(), sealed(&store.read())), (vec![value], expected));
        store.minter.break_hold();
        store.serve_other_keys(1);
    }

    // A fixed form says beforehand that it is full.
    let (mut object, mut minter) = (FixedSiblings::<_, 1, 8>::new(), Minter::new(Actor(1)));
    let mut context = FixedDotSet::<8>::new();
    for n in 0..8 {
        context = object.write(&context, &mut minter, n).unwrap().context;
        minter.break_hold();
        common::serve_other_keys(&mut minter, 1);
    }
    let (before, minted) = (object.clone(), minter.minted());
    assert_eq!(object.write(&context, &mut minter, 8).unwrap_err(), WriteError::Full(Full));
    assert_eq!((object, minter.minted()), (before, minted));
}

/// Who remembers since when each copy is there pays for drops of that copy alone.
#[test]
fn a_store_that_remembers_since_when_it_holds_a_copy_pays_for_no_other_drops() {
    let (mut store, mut owner) = (Store::open(1), Store::open(2));
    let mut context = nothing();
    let mut dots = Vec::new();
    for copies in 1..=3 {
        let since = store.minter.minted();
        for _ in 0..50 {
            let written = store.object.write_held(&context, &mut store.minter, since, "mine".into()).unwrap();
            context = written.context;
            dots.push(written.dot);
            store.serve_other_keys(2);
            store.minter.break_hold();
            assert_eq!((store.read().spans().len(), context.spans().len()), (copies, copies));
        }
        owner.take_in(&store.object);
        store.drop_copy();
    }
    // Each span is from a copy's first write to its last.
    let span = |writes: &[Dot]| Span { last: writes[49].counter, ..writes[0].span() };
    assert_eq!(owner.read().spans(), dots.chunks(50).map(span).collect::<Vec<_>>());

    // The key is back from a peer that never heard of the third copy's writes.
    let Ok(seen) = GrowableDotSet::from_spans(owner.read().spans()[..2].iter().copied());
    let early = Object::from_parts([], seen.clone()).unwrap();
    let mut write = |since| {
        let mut object = early.clone();
        object.write_held(&seen, &mut store.minter, since, format!("since {since}")).unwrap();
        values(&merged(&owner.object, &object)).join(", ")
    };
    assert_eq!(
        [write(450), write(0)],
        ["mine, since 450", "since 0"],
        "what is taken for held is claimed, and lost"
    );
}

/// The store acknowledged nothing of its tail, but others have it.
#[test]
fn a_coordinator_that_loses_its_unsynced_tail_mints_under_a_new_actor() {
    let mut coordinator = Store::open(1);
    let mut peer = Store::open(2);
    let (_, first) = coordinator.put(&nothing(), "first");
    let durable = coordinator.object.clone();
    peer.take_in(&durable);

    // Sent to the peer, which keeps and acknowledges it; lost here before the sync.
    coordinator.put(&first, "tail");
    peer.take_in(&coordinator.object);

    // Opened anew: the dot of "tail" is never issued again, so a different value can't hide behind it.
    coordinator = Store { object: durable, ..Store::open(0xfeed) };
    let (_, _) = coordinator.put(&nothing(), "after");
    let end = merged(&coordinator.object, &peer.object);
    assert_eq!(values(&end), ["after", "tail"]);
    assert_eq!(end, merged(&peer.object, &coordinator.object));

    // The old actor would have issued that dot again, for "after": to the peer it would have been old news.
    let lost = Dot { actor: Actor(1), counter: 2 };
    assert!(peer.object.seen().contains(lost) && !coordinator.object.seen().contains(lost));
}

/// What a plain version vector gets wrong: it would claim 7 once 20 is minted.
#[test]
fn a_fallback_that_mints_hands_over_drops_and_mints_again_does_not_claim_what_it_dropped() {
    let mut fallback = Store::open(1);
    let mut owner = Store::open(2);
    fallback.serve_other_keys(6);
    let (seven, _) = fallback.put(&nothing(), "seven");
    assert_eq!(seven.counter, 7);
    owner.take_in(&fallback.object);
    fallback.drop_copy();

    fallback.serve_other_keys(12);
    let (twenty, _) = fallback.put(&nothing(), "twenty");
    assert_eq!(twenty.counter, 20);
    let single = |counter| Span { actor: Actor(1), first: counter, last: counter };
    assert_eq!(fallback.object.seen().spans(), [single(20)]);
    owner.take_in(&fallback.object);
    assert_eq!(owner.values(), ["seven", "twenty"]);

    // Repair brings the key back to the fallback: still no word about the dots between.
    fallback.take_in(&owner.object);
    let (_, _) = fallback.put(&nothing(), "twenty-one");
    assert_eq!(fallback.object.seen().spans(), [single(7), Span { actor: Actor(1), first: 20, last: 21 }]);

    // Dropped and brought back by an older copy: 20 and 21 are this actor's, and unknown to the copy.
    let old = Object::from_parts([(seven, "seven".into())], {
        let Ok(seen) = GrowableDotSet::from_spans([single(7)]);
        seen
    });
    fallback.drop_copy();
    fallback.take_in(&old.unwrap());
    fallback.put(&fallback.read(), "twenty-two");
    assert_eq!(fallback.object.seen().spans(), [single(7), single(22)]);
    owner.take_in(&fallback.object);
    assert_eq!(owner.values(), ["twenty", "twenty-two"], "only what was read is replaced");
}

/// A device that keeps its actor: what it dropped it must not claim after a restart either.
#[test]
fn a_drop_outlives_a_restart() {
    let mut device = Store::open(7);
    device.put(&nothing(), "bread");
    let early = device.object.clone();
    device.put(&nothing(), "milk");
    let late = device.object.clone();
    device.drop_copy();
    let flash = (device.minter.minted(), device.minter.held_since());
    // The key is back from a peer that never heard of the second write, and is written by somebody who has read that much.
    let minter = Minter::resume(Actor(7), flash.0, flash.1);
    let mut device = Store { object: early.clone(), minter };
    let seen = device.read();
    device.put(&seen, "bread, eggs");
    assert_eq!(values(&merged(&device.object, &late)), ["bread, eggs", "milk"]);

    // Had it forgotten the drop, its write would claim what lies between.
    let mut forgetful = Minter::resume(Actor(7), flash.0, 0);
    let mut object = early;
    let seen = object.seen().clone();
    object.write(&seen, &mut forgetful, "bread, eggs".into()).unwrap();
    assert_eq!(values(&merged(&object, &late)), ["bread, eggs"]);
}

/// Dots that are yet to be minted can't have been dropped: the writes after them share a span.
#[test]
fn a_drop_after_the_last_dot_is_one_at_that_dot() {
    let mut device = Store { object: Store::open(7).object, minter: Minter::resume(Actor(7), 5, 100) };
    assert_eq!((device.minter.minted(), device.minter.held_since()), (5, 5));
    for value in ["bread", "milk"] {
        let seen = device.read();
        device.put(&seen, value);
    }
    assert_eq!(device.object.seen().spans(), [Span { actor: Actor(7), first: 6, last: 7 }]);
}

/// Why a store writes to one object for each key: of two that take turns, one claims the other's write, and loses it.
#[test]
fn a_clone_that_is_written_to_is_another_store() {
    let mut store = Store::open(7);
    store.put(&nothing(), "bread");
    let mut clone = store.object.clone();
    clone.write(&nothing(), &mut store.minter, "milk".into()).unwrap();
    store.put(&nothing(), "eggs");
    assert_eq!(values(&merged(&store.object, &clone)), ["bread", "eggs"]);

    // What the store held is no longer all that was minted, and it says so.
    let mut store = Store::open(8);
    store.put(&nothing(), "bread");
    let mut clone = store.object.clone();
    clone.write(&nothing(), &mut store.minter, "milk".into()).unwrap();
    store.minter.break_hold();
    store.put(&nothing(), "eggs");
    assert_eq!(values(&merged(&store.object, &clone)), ["bread", "eggs", "milk"]);
}

#[test]
fn a_context_flattened_where_the_excepted_sibling_is_unknown_still_excepts_it() {
    // A and B both hold "mine"; "theirs" came to A only, between two writes of mine.
    let (mut a, mut b) = (Store::open(1), Store::open(2));
    let (_, mine) = a.put(&nothing(), "mine 1");
    let (theirs, _) = a.put(&nothing(), "theirs");
    let (_, mine) = a.put(&mine, "mine 2");
    assert!(!mine.contains(theirs));

    // The writer goes on through B, which has heard of nothing. B sees a gap and no value in it, yet may not fill it.
    for round in 3..10 {
        let (_, next) = b.put(&mine, format!("mine {round}"));
        assert!(!next.contains(theirs), "{next:?}");
    }
    let (_, mine) = b.put(&mine, "mine 10");
    let end = merged(&a.object, &b.object);
    assert!(values(&end).contains(&"theirs"));

    // Nor after the context has been back at A and to B again.
    let (_, mine) = a.put(&mine, "mine 11");
    let (_, mine) = b.put(&mine, "mine 12");
    assert!(!mine.contains(theirs));
    let end = merged(&a.object, &b.object);
    assert!(values(&end).contains(&"theirs"));

    // Once it is replaced, and the replacement known where the context passes, the gap closes.
    a.take_in(&end);
    let (_, mine) = a.put(&a.read(), "reconciled");
    assert!(mine.contains(theirs));
    assert_eq!(values(&merged(&end, &a.object)), ["reconciled"]);
}

/// The dot went out to a peer, the local disk was full: the minter must not speak for it afterwards.
#[test]
fn a_minted_write_that_was_not_kept_counts_as_a_drop() {
    let (mut store, mut peer) = (Store::open(1), Store::open(2));
    store.put(&nothing(), "one");
    let kept = store.object.clone();
    store.put(&nothing(), "two");
    peer.take_in(&store.object);
    // The append of "two" failed here.
    store.object = kept;
    store.minter.break_hold();
    store.put(&store.read(), "three");
    peer.take_in(&store.object);
    assert_eq!(peer.values(), ["three", "two"]);
}

#[test]
fn a_delete_is_a_write_and_its_late_copies_replace_nothing_newer() {
    let (mut a, mut b) = (Store::open(1), Store::open(2));
    let (_, context) = a.put(&nothing(), "value");
    b.take_in(&a.object);
    let (_, after) = a.put(&context, "tombstone");
    let late = a.object.clone();
    b.take_in(&a.object);
    let (_, _) = b.put(&after, "newer");
    b.take_in(&late);
    a.take_in(&b.object);
    assert_eq!((a.values(), b.values()), (vec!["newer"], vec!["newer"]));
}
