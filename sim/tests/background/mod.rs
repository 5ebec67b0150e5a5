//! What nodes do in the background: how much of it, and how often.

use crate::history::*;
use bytes::Bytes;
use core::time::Duration;
use gramme_quorum::message::{CallId, Copy, Message, Purpose, Syncing, Want};
use gramme_quorum::object::encode;
use gramme_quorum::{AppendId, Cover, Limits, Output, Place, Run};
use gramme_ring::{LayoutVersion, NodeId};
use gramme_sim::checker::{Invariant, Standing};

const RUN: Run = Run { number: 1, actor: gramme_vclock::Actor(2) };

fn write(call: u64, purpose: Purpose, sync: Syncing, object: &gramme_quorum::Object) -> Message {
    Message::Write {
        sync,
        call: CallId(call),
        layout: LayoutVersion(1),
        purpose,
        key: Bytes::from_static(KEY),
        object: encode(object),
        hints: vec![],
        outranked_by: None,
    }
}

/// Node 0 keeps a hint for node 1.
fn hint(h: &mut History) {
    h.appends += 1;
    let append = Output::Append {
        id: AppendId(h.appends),
        place: Place(HINTS | 2),
        key: Bytes::from([&2u64.to_be_bytes()[..], KEY].concat()),
        value: Some((Bytes::new(), 0)),
        shrink: None,
    };
    let now = h.tick();
    h.checker.acted(now, 0, &[append]);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Between {
    Nothing,
    Hint,
    Change,
    Restart,
}

#[test]
fn what_was_acknowledged_is_handed_over_again_and_again() {
    use Between::{Change, Hint, Nothing, Restart};
    let ways = [
        (Nothing, true, false),
        (Nothing, false, true),
        (Hint, true, true),
        (Change, true, true),
        (Restart, true, true),
    ];
    for (between, settles, holds) in ways {
        let mut h = History::new();
        h.checker.names(1, NodeId(2));
        let id = h.put(Cover::Nothing);
        let copies = [(0, 1), (0, 2)].map(|(node, counter)| {
            let at = dot(node, counter);
            object(&[(at, value(id))], &[at])
        });
        hint(&mut h);
        for round in 1..=3 {
            let copy = &copies[usize::from(between == Change && round == 2)];
            let now = h.tick();
            h.checker.hands_over(now, 0, 1, &write(round, Purpose::Handoff, Syncing::First, copy));
            let written = Message::Written { call: CallId(round), hints: vec![], outranking: None };
            h.checker.answered(now, 0, 1, &written, settles);
            match between {
                Hint if round == 2 => hint(&mut h),
                Restart if round == 2 => h.checker.opened(h.now, 0, actor(7)),
                _ => {}
            }
        }
        if holds { h.holds() } else { h.breaks(Invariant::HintsDrain) }
    }
}

#[test]
fn a_read_that_is_taken_with_too_much_under_way() {
    for (before, after, refused, holds) in
        [(2, 3, false, true), (3, 3, false, true), (3, 4, true, true), (3, 4, false, false)]
    {
        let mut h = History::new();
        h.checker.set_limits(Limits { local: 3, ..Limits::default() });
        h.checker.check_asked(h.now, 0, before, after, refused);
        if holds { h.holds() } else { h.breaks(Invariant::Bounds) }
    }
}

#[test]
fn more_is_fetched_than_a_second_allows() {
    // 1000 bytes in each tenth of a second: what comes overdraws that, and then it is time to wait.
    for (bytes, waits, wanted, holds) in [
        (900, 0, false, true),
        (2_100, 0, false, false),
        (2_100, 0, true, true),
        (2_100, 105, false, true),
        (9_000, 105, false, false),
    ] {
        let mut h = History::new();
        h.checker.set_limits(Limits { repair: 10_000, ..Limits::default() });
        let key = Bytes::from_static(KEY);
        let listed = Message::Listed {
            call: CallId(1),
            keys: vec![(key.clone(), 7)],
            objects: vec![],
            next: None,
            complete: true,
            damaged: false,
            run: RUN,
        };
        let ask = |call| Message::Read {
            call: CallId(call),
            layout: LayoutVersion(1),
            key: key.clone(),
            want: Want::Object,
        };
        let copy = Copy::Object(Bytes::from(vec![0; bytes]));
        let copy = Message::Copy { call: CallId(2), copy, incomplete: false, run: RUN };
        h.checker.fetched(h.now, 0, 1, &listed);
        h.checker.fetches(h.now, 0, 1, &ask(2), false);
        h.checker.fetched(h.now, 0, 1, &copy);
        // The network brings it twice.
        h.checker.fetched(h.now, 0, 1, &copy);
        h.now = h.now + Duration::from_millis(waits);
        h.checker.fetches(h.now, 0, 1, &ask(3), wanted);
        if holds { h.holds() } else { h.breaks(Invariant::Bounds) }
    }
}

#[test]
fn what_waits_for_its_record_as_other_rules_come_is_synced_first() {
    for (arrives_before, holds) in [(true, false), (false, true)] {
        let mut h = History::new();
        let id = h.put(Cover::Nothing);
        let copy = object(&[(dot(0, 1), value(id))], &[dot(0, 1)]);
        h.store(0, &copy);
        let write = write(7, Purpose::Write, Syncing::Later, &copy);
        if arrives_before {
            h.checker.asked(1, &write, Standing::default());
            h.checker.syncs_first(1);
        } else {
            h.checker.syncs_first(1);
            h.checker.asked(1, &write, Standing::default());
        }
        h.write(1, Some(&copy));
        let written = Message::Written { call: CallId(7), hints: vec![], outranking: None };
        let now = h.tick();
        h.checker.says(now, 1, 0, &written);
        if holds { h.holds() } else { h.breaks(Invariant::AcknowledgedCopies) }
    }
}
