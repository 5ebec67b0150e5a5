//! Failures that the field knows by name and `scenarios.rs` does not tell, each as a short story that must end well. The checker
//! watches every step of each.

use core::time::Duration;
use gramme_quorum::planted::Planted;
use gramme_quorum::{Cover, Keyspace, Level, Policy, Timing};
use gramme_sim::checker::OpId;
use gramme_sim::clock::DECADE;
use gramme_sim::script::{Script, Trouble};
use gramme_sim::world::{Alteration, Crash, Shape, World};

const SECOND: Duration = Duration::from_secs(1);

/// The key's owners in order, and those that stand in for them.
fn roles(s: &Script, key: &str) -> (Vec<usize>, Vec<usize>) {
    (s.world.owners(key.as_bytes()), s.world.fallbacks(key.as_bytes()))
}

/// All owners have the same, whoever is asked.
fn shows(s: &mut Script, key: &str, values: &[OpId]) {
    let r = s.r.replace(Level::All);
    for node in roles(s, key).0 {
        assert_eq!(s.get(node, key).unwrap().sorted(), values, "through node {node}");
    }
    s.r = r;
}

// riak's kv679 family.

#[test]
fn a_coordinator_that_lost_its_copy_reissues_no_dot() {
    let mut s = Script::new(50, 3);
    let first = s.add(0, "cart").unwrap();
    s.wait(SECOND);
    s.world.wipe(0);
    s.restart_apart(0, 2);
    // It knows nothing of the first write, and counts from one.
    let second = s.add(0, "cart").unwrap();
    s.join_again(0, 2);
    s.rest();
    shows(&mut s, "cart", &[first.value, second.value]);
}

#[test]
fn an_old_copy_of_the_disk_brings_back_no_old_clock_by_repair() {
    let mut s = Script::new(51, 3);
    s.set(0, "cart").unwrap();
    s.wait(SECOND);
    s.world.set_back(0);
    let kept = s.add(0, "cart").unwrap();
    let late = s.set(0, "cart").unwrap();
    assert!(late.context.seen.includes(&kept.context.seen));
    s.wait(SECOND);
    s.world.set_back(0);
    s.restart_apart(0, 2);
    // What it mints now must not look covered to those who have seen the later writes, nor repair them away.
    let shown = s.get(1, "cart").unwrap();
    assert_eq!(shown.values, [late.value]);
    let again = s.put(0, "cart", &shown.context).unwrap();
    s.join_again(0, 2);
    s.rest();
    shows(&mut s, "cart", &[again.value]);
}

#[test]
fn a_write_through_a_node_that_has_nothing_covers_nothing() {
    let mut s = Script::new(52, 5);
    let (owners, fallbacks) = roles(&s, "cart");
    let first = s.add(owners[0], "cart").unwrap();
    s.rest();
    // Only those who never had the key are left to coordinate.
    for owner in &owners {
        s.isolate(*owner, true);
    }
    s.wait(5 * SECOND);
    let second = s.put(fallbacks[0], "cart", &gramme_vclock::GrowableContext::default()).unwrap();
    for owner in &owners {
        s.isolate(*owner, false);
    }
    s.rest();
    shows(&mut s, "cart", &[first.value, second.value]);
}

#[test]
fn a_fallback_s_late_tombstone_kills_no_newer_write() {
    for by_read in [false, true] {
        // Nothing but the hint, or the read, brings the delete.
        let timing = Timing { exchange: 3600 * SECOND, ..Timing::default() };
        let world = World::new(53, Shape { timing, ..Shape::new(5) });
        let mut s = Script { world, w: None, r: None };
        s.wait(SECOND);
        let (owners, fallbacks) = roles(&s, "cart");
        let first = s.set(owners[0], "cart").unwrap();
        s.rest();
        // The delete reaches a fallback in place of an owner; then it is away with its hint.
        s.world.crash(owners[2], Crash::Kill);
        s.wait(5 * SECOND);
        s.delete(owners[0], "cart", Some(&first.context)).unwrap();
        s.wait(SECOND);
        for fallback in &fallbacks {
            s.world.crash(*fallback, Crash::Kill);
        }
        s.restart(owners[2]);
        s.wait(5 * SECOND);
        let new = s.set(owners[2], "cart").unwrap();
        for fallback in &fallbacks {
            s.restart(*fallback);
        }
        if by_read {
            shows(&mut s, "cart", &[new.value]);
        }
        s.rest();
        shows(&mut s, "cart", &[new.value]);
    }
}

// The others.

#[test]
fn doomstone_a_delete_over_an_old_context_dooms_no_later_write() {
    let mut s = Script::new(54, 3);
    let first = s.set(0, "cart").unwrap();
    let deleted = s.delete(1, "cart", Some(&first.context)).unwrap();
    let new = s.put(2, "cart", &deleted.context).unwrap();
    // Again, over what it knew: that must not reach what came after.
    s.delete(1, "cart", Some(&first.context)).unwrap();
    s.rest();
    shows(&mut s, "cart", &[new.value]);
}

#[test]
fn late_hints_resurrect_nothing() {
    let mut s = Script::new(55, 4);
    let (owners, fallbacks) = roles(&s, "cart");
    s.world.crash(owners[2], Crash::Kill);
    s.wait(5 * SECOND);
    // The fallback takes the value, and misses its end.
    let value = s.set(owners[0], "cart").unwrap();
    s.wait(SECOND);
    s.world.crash(fallbacks[0], Crash::Kill);
    s.restart(owners[2]);
    s.wait(5 * SECOND);
    s.delete(owners[0], "cart", Some(&value.context)).unwrap();
    s.wait(3 * SECOND);
    s.restart(fallbacks[0]);
    s.rest();
    shows(&mut s, "cart", &[]);
}

#[test]
fn a_second_of_skew_under_lww_undoes_no_acknowledged_write() {
    let mut s = Script::new(56, 3);
    s.keyspace("last:", &Keyspace { policy: Policy::Lww, ..Keyspace::default() });
    s.world.set_skew(1, 1_000);
    s.world.set_skew(2, -1_000);
    let mut last = None;
    for turn in 0..30 {
        last = Some(s.set(turn % 3, "last:key").unwrap().value);
        assert_eq!(s.get((turn + 1) % 3, "last:key").unwrap().values, [last.unwrap()]);
    }
    s.rest();
    shows(&mut s, "last:key", &[last.unwrap()]);
}

#[test]
fn wild_stamps_are_outranked_and_move_no_clock() {
    let decade = i64::try_from(DECADE.as_millis()).unwrap();
    let mut s = Script::new(57, 3);
    s.keyspace("last:", &Keyspace { policy: Policy::Lww, ..Keyspace::default() });
    s.world.set_skew(0, decade);
    s.set(0, "last:key").unwrap();
    s.world.set_skew(0, 0);
    // Whoever writes next comes later all the same; a key that never met the wild stamp knows nothing of it.
    let next = s.set(1, "last:key").unwrap();
    assert_eq!(s.get(2, "last:key").unwrap().values, [next.value]);
    let other = s.set(1, "last:other").unwrap();
    assert!(other.context.stamp < next.context.stamp);
    s.rest();
}

/// The owner comes and goes; each time it takes a part, and what it took it is not sent again.
fn handoff_is_interrupted(planted: Planted) {
    const WINDOW: u64 = 32;
    let shape = Shape { planted, ..Shape::new(4) };
    let mut s = Script { world: World::new(58, shape), w: None, r: None };
    s.wait(SECOND);
    let keys: Vec<String> = (0..400).map(|n| format!("key{n}")).collect();
    s.world.crash(3, Crash::Kill);
    s.wait(5 * SECOND);
    let written: Vec<_> = keys.iter().map(|key| s.set(0, key).unwrap().value).collect();
    let left = |s: &Script| (0..3).map(|node| s.world.hints(node)).sum::<u64>();
    let kept = left(&s);
    // The disk of whoever receives sets the pace.
    for node in 0..s.world.nodes() {
        s.world.set_sync_time(node, Duration::from_millis(60));
    }
    let mut interrupted = 0;
    while left(&s) > 0 {
        let before = left(&s);
        s.world.restart(3, Duration::ZERO);
        while left(&s) == before {
            s.wait(Duration::from_millis(10));
        }
        s.world.crash(3, Crash::Kill);
        s.wait(2 * SECOND);
        interrupted += u64::from(left(&s) > 0);
    }
    assert!(interrupted >= 3, "it is interrupted {interrupted} times only");
    for node in 0..s.world.nodes() {
        s.world.set_sync_time(node, Duration::from_millis(1));
    }
    let handed = (0..3).map(|node| s.world.status(node).unwrap().hints_handed).sum::<u64>();
    assert_eq!(handed, kept, "what was acknowledged was handed over once");
    // What was on its way as the owner went is sent anew, and nothing else.
    let (sent, bytes) = s.world.handed_over(3);
    assert!(
        sent <= kept + interrupted * 3 * WINDOW,
        "{sent} objects of {bytes} bytes are sent for {kept} hints"
    );
    s.restart(3);
    s.rest();
    for other in 0..3 {
        s.world.crash(other, Crash::Kill);
    }
    s.wait(SECOND);
    s.r = Some(Level::One);
    for (key, value) in keys.iter().zip(written) {
        if roles(&s, key).0.contains(&3) {
            assert_eq!(s.get(3, key).unwrap().values, [value], "{key}");
        }
    }
}

#[test]
fn handoff_goes_on_where_it_was_interrupted() {
    handoff_is_interrupted(Planted::default());
}

#[cfg(feature = "planted")]
#[test]
#[should_panic(expected = "acknowledged")]
fn handoff_that_starts_over_is_found() {
    handoff_is_interrupted(Planted::one(gramme_quorum::planted::Bug::HandoffStartsOver));
}

#[test]
fn two_commits_at_once_leave_one_layout_and_every_write() {
    let mut s = Script::new(59, 5);
    let written: Vec<_> = (0..40).map(|n| s.set(n % 5, &format!("key{n}")).unwrap().value).collect();
    s.world.alter(0, &[Alteration::Member(1, 3)]);
    s.world.alter(3, &[Alteration::Leave(4)]);
    s.wait(5 * SECOND);
    s.rest();
    // What lost the race is staged again, and whoever is asked commits it.
    s.world.commit(0);
    s.wait(5 * SECOND);
    s.rest();
    assert!(!s.world.members().contains(&4));
    for (n, value) in written.into_iter().enumerate() {
        shows(&mut s, &format!("key{n}"), &[value]);
    }
}

#[test]
fn a_change_of_the_layout_under_a_partition_waits_and_loses_nothing() {
    let mut s = Script::new(60, 5);
    let first = s.set(0, "cart").unwrap();
    s.rest();
    s.isolate(4, true);
    s.wait(3 * SECOND);
    s.world.alter(0, &[Alteration::Leave(roles(&s, "cart").0[0])]);
    s.wait(5 * SECOND);
    assert!(s.world.is_changing(), "one member has not heard of it");
    let there = s.put(1, "cart", &first.context);
    s.isolate(4, false);
    s.rest();
    assert!(!s.world.is_changing());
    match there {
        Ok(second) => shows(&mut s, "cart", &[second.value]),
        Err(_) => assert!(!s.get(1, "cart").unwrap().values.is_empty()),
    }
}

/// One joins and one leaves in one commit, which a third has not heard of when it is lost for good; it is removed in the midst of that, by one
/// half of the cluster, of which the other hears later. Whatever was acknowledged at any time is there in the end.
#[test]
fn a_member_is_removed_while_others_come_and_go_under_a_partition() {
    for seed in [64, 65, 66] {
        let mut s = Script::of(seed, Shape { spares: 1, ..Shape::new(5) });
        let keys: Vec<String> = (0..30).map(|n| format!("key{n}")).collect();
        let mut acknowledged: Vec<Vec<OpId>> = vec![Vec::new(); keys.len()];
        let mut add = |s: &mut Script, nodes: &[usize]| {
            let mut done = 0;
            for (n, key) in keys.iter().enumerate() {
                if let Ok(written) = s.add(nodes[n % nodes.len()], key) {
                    acknowledged[n].push(written.value);
                    done += 1;
                }
            }
            done
        };
        assert_eq!(add(&mut s, &[0, 1, 2, 3, 4]), keys.len());
        s.rest();
        s.isolate(4, true);
        s.wait(2 * SECOND);
        s.world.alter(0, &[Alteration::Member(5, 1), Alteration::Leave(1)]);
        s.wait(5 * SECOND);
        assert!(s.world.is_changing(), "node 4 has not heard of it");
        assert!(add(&mut s, &[0, 1, 2, 3]) > 0);
        let (one, other) = ([0, 1], [2, 3, 5]);
        let cut = |s: &mut Script, cut| {
            one.iter().for_each(|a| other.iter().for_each(|b| s.world.set_cut_both(*a, *b, cut)));
        };
        cut(&mut s, true);
        s.world.lose(4);
        s.wait(2 * SECOND);
        s.world.alter(2, &[Alteration::Remove(4)]);
        s.wait(5 * SECOND);
        assert!(s.world.is_changing(), "one half has not heard of that");
        add(&mut s, &[0, 2, 1, 3]);
        cut(&mut s, false);
        s.wait(2 * SECOND);
        add(&mut s, &[0, 2, 1, 3, 5]);
        // What waits for its turn is committed when there is one.
        for _ in 0..3 {
            s.world.alter_lost();
            s.wait(5 * SECOND);
        }
        s.rest();
        assert!(!s.world.is_changing());
        let members = s.world.members();
        assert!([0, 2, 3, 5].iter().all(|node| members.contains(node)) && members.len() == 4, "{members:?}");
        s.r = Some(Level::All);
        for (key, values) in keys.iter().zip(&acknowledged) {
            for node in roles(&s, key).0 {
                let shown = s.get(node, key).unwrap().sorted();
                assert!(values.iter().all(|value| shown.contains(value)), "{key}: {values:?} of {shown:?}");
            }
        }
    }
}

#[test]
fn a_member_that_was_given_up_and_runs_on_acknowledges_nothing_that_others_lack() {
    let mut s = Script::new(62, 5);
    let (owners, fallbacks) = roles(&s, "cart");
    let (outcast, at) = (owners[0], fallbacks[0]);
    s.set(outcast, "cart").unwrap();
    s.rest();
    let is_owned = |key: &String| s.world.owners(key.as_bytes()).contains(&outcast);
    let owned = (0..).map(|n| format!("fresh{n}")).find(is_owned).unwrap();
    s.isolate(outcast, true);
    s.world.cast_out(outcast);
    s.world.alter(at, &[Alteration::Remove(outcast)]);
    s.wait(5 * SECOND);
    assert!(s.world.is_outcast(outcast) && !s.world.members().contains(&outcast));
    assert!(s.set(outcast, "cart").is_err(), "it is no majority");
    let second = s.set(at, "cart").unwrap();
    // Who asks it alone hears what it has itself, and that is judged by the layout that it goes by.
    s.set(at, &owned).unwrap();
    let r = s.r.replace(Level::One);
    assert!(s.get(outcast, &owned).unwrap().values.is_empty());
    s.r = r;
    s.isolate(outcast, false);
    s.wait(SECOND);
    assert!(!s.world.is_up(outcast), "it was turned away, and knows");
    s.rest();
    shows(&mut s, "cart", &[second.value]);
}

#[test]
fn empty_fallbacks_do_not_outvote_a_wiped_owner() {
    let mut s = Script::new(61, 5);
    let (owners, fallbacks) = roles(&s, "cart");
    let value = s.set(owners[0], "cart").unwrap().value;
    s.rest();
    // One owner has it, one was wiped, one is away: two fallbacks that never had it and an empty disk are no quorum.
    s.world.crash(owners[1], Crash::Kill);
    s.wait(5 * SECOND);
    s.world.wipe(owners[2]);
    s.world.crash(owners[0], Crash::Kill);
    s.restart(owners[2]);
    s.wait(3 * SECOND);
    for node in [owners[2], fallbacks[0], fallbacks[1]] {
        for r in [Level::One, Level::Quorum] {
            s.r = Some(r);
            match s.get(node, "cart") {
                Ok(shown) => assert_eq!(shown.values, [value]),
                Err(trouble) => assert!(matches!(trouble, Trouble::Failed(_))),
            }
        }
    }
    s.r = None;
    s.restart(owners[0]);
    s.restart(owners[1]);
    s.rest();
    shows(&mut s, "cart", &[value]);
}

#[test]
fn one_complete_owner_is_enough_for_a_read_of_one_and_an_empty_one_is_not() {
    let mut s = Script::new(62, 3);
    s.isolate(2, true);
    s.wait(5 * SECOND);
    s.set(0, "cart").unwrap();
    // It missed the write, and may say so: R = 1 promises no more. Once it is back it says so no longer.
    s.isolate(2, false);
    s.rest();
    s.r = Some(Level::One);
    s.world.wipe(2);
    s.restart_apart(2, 0);
    for node in 0..3 {
        if let Ok(shown) = s.get(node, "cart") {
            assert!(!shown.values.is_empty(), "node {node} says that there is nothing");
        }
    }
    s.r = None;
    s.join_again(2, 0);
    s.rest();
}

#[test]
fn a_fallback_that_mints_twice_for_different_owners_erases_neither() {
    let mut s = Script::new(63, 5);
    let (owners, fallbacks) = roles(&s, "cart");
    let mut values = Vec::new();
    for away in [[owners[0], owners[1], owners[2]], [owners[2], owners[0], owners[1]]] {
        for node in away {
            s.world.crash(node, Crash::Kill);
        }
        s.wait(5 * SECOND);
        values.push(s.put_covering_nothing(fallbacks[0], "cart"));
        for node in away {
            s.restart(node);
        }
        s.rest();
    }
    shows(&mut s, "cart", &values);
}

/// A write that covers nothing.
trait Adds {
    fn put_covering_nothing(&mut self, node: usize, key: &str) -> gramme_sim::checker::OpId;
}

impl Adds for Script {
    fn put_covering_nothing(&mut self, node: usize, key: &str) -> gramme_sim::checker::OpId {
        let id = self.begin_put(node, key, Cover::Nothing);
        self.finish(id);
        id
    }
}
