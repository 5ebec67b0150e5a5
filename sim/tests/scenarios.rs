//! Known failures of the field, each as a short story that must end well. The checker watches every step of each.

use core::time::Duration;
use gramme_quorum::{Cover, Durability, Keyspace, Level, Policy};
use gramme_sim::checker::OpId;
use gramme_sim::clock::DECADE;
use gramme_sim::script::{Script, Trouble};
use gramme_sim::swarm::Harm;
use gramme_sim::world::{Crash, Shape, World};

const SECOND: Duration = Duration::from_secs(1);

/// The key's owners in order, and those that stand in for them.
fn roles(s: &Script, key: &str) -> (Vec<usize>, Vec<usize>) {
    (s.world.owners(key.as_bytes()), s.world.fallbacks(key.as_bytes()))
}

#[test]
fn one_of_three_is_killed_under_load_and_nothing_acknowledged_is_lost() {
    let mut s = Script::new(1, 3);
    let keys: Vec<String> = (0..50).map(|n| format!("key{n}")).collect();
    let mut written = Vec::new();
    for (n, key) in keys.iter().enumerate() {
        if n == 20 {
            s.world.crash(2, Crash::Kill);
        }
        // One round trip may fail while the others find out; a client would ask again.
        let value = (0..3).find_map(|_| s.set(n % 2, key).ok()).expect("two of three are enough");
        written.push((key, value.value));
    }
    // It comes back, catches up without a read, and then the others stop.
    s.restart(2);
    s.rest();
    s.world.crash(0, Crash::PowerCut);
    s.world.crash(1, Crash::PowerCut);
    s.wait(5 * SECOND);
    s.r = Some(Level::One);
    for (key, value) in written {
        assert_eq!(s.get(2, key).unwrap().values, [value], "{key}");
    }
}

#[test]
fn two_writers_with_one_context_leave_two_siblings_and_a_merge_leaves_one() {
    // Through one coordinator, and through two.
    for second in [0, 1] {
        let mut s = Script::new(2, 3);
        let first = s.set(0, "cart").unwrap();
        let bread = s.put(0, "cart", &first.context).unwrap();
        let milk = s.put(second, "cart", &first.context).unwrap();
        let both = s.get(2, "cart").unwrap();
        assert_eq!(both.sorted(), [bread.value, milk.value]);
        let merged = s.put(2, "cart", &both.context).unwrap();
        for node in 0..3 {
            assert_eq!(s.get(node, "cart").unwrap().values, [merged.value]);
        }
        s.rest();
    }
}

/// The paper's Figure 3: D1 and D2 by Sx, D3 by Sy and D4 by Sz concurrently, D5 reconciles.
#[test]
fn the_paper_s_history() {
    let mut s = Script::new(3, 3);
    let (sx, sy, sz) = (0, 1, 2);
    let d1 = s.add(sx, "cart").unwrap();
    let d2 = s.put(sx, "cart", &d1.context).unwrap();
    assert_eq!(s.get(sy, "cart").unwrap().values, [d2.value]);
    let d3 = s.put(sy, "cart", &d2.context).unwrap();
    let d4 = s.put(sz, "cart", &d2.context).unwrap();
    let both = s.get(sx, "cart").unwrap();
    assert_eq!(both.sorted(), [d3.value, d4.value]);
    let d5 = s.put(sx, "cart", &both.context).unwrap();
    assert_eq!(s.get(sz, "cart").unwrap().values, [d5.value]);
    s.rest();
}

#[test]
fn a_writer_that_chains_its_own_contexts_erases_nothing_it_was_not_shown() {
    let mut s = Script::new(4, 3);
    let others = s.add(1, "cart").unwrap();
    let mut mine = s.add(0, "cart").unwrap();
    for turn in 0..40 {
        mine = s.put(turn % 3, "cart", &mine.context).unwrap();
    }
    assert_eq!(s.get(2, "cart").unwrap().sorted(), [others.value, mine.value]);
    // And its context stays small.
    assert!(mine.context.seen.spans().len() <= 3, "{:?}", mine.context);
    s.rest();
}

#[test]
fn sibling_explosion_two_chains_through_one_coordinator_stay_two_values() {
    let mut s = Script::new(5, 3);
    let mut a = s.add(0, "cart").unwrap();
    let mut b = s.add(0, "cart").unwrap();
    for _ in 0..30 {
        a = s.put(0, "cart", &a.context).unwrap();
        b = s.put(0, "cart", &b.context).unwrap();
    }
    assert_eq!(s.get(1, "cart").unwrap().sorted(), [a.value, b.value]);
    s.rest();
}

#[test]
fn a_fallback_mints_hands_over_drops_and_mints_again() {
    let mut s = Script::new(6, 5);
    let (owners, fallbacks) = roles(&s, "cart");
    // Two owners are gone: a fallback coordinates, and keeps the write for them.
    let down = [owners[0], owners[1]];
    for node in down {
        s.world.crash(node, Crash::Kill);
    }
    s.wait(5 * SECOND);
    let first = s.add(fallbacks[0], "cart").unwrap();
    for node in down {
        s.restart(node);
    }
    s.rest();
    // It has handed over and dropped its copy; now it stands in once more, in the same run, with the same actor.
    for node in down {
        s.world.crash(node, Crash::Kill);
    }
    s.wait(5 * SECOND);
    let second = s.add(fallbacks[0], "cart").unwrap();
    for node in down {
        s.restart(node);
    }
    s.rest();
    // The second write's history must not claim the first one's dot.
    s.r = Some(Level::All);
    assert_eq!(s.get(owners[0], "cart").unwrap().sorted(), [first.value, second.value]);
}

#[test]
fn an_unsynced_tail_is_lost_and_then_minted_again() {
    let mut lost = 0;
    for seed in 0..20 {
        let mut s = Script::new(seed, 3);
        s.w = Some(Level::One);
        for node in 0..s.world.nodes() {
            s.world.set_sync_time(node, Duration::from_secs(20));
        }
        let first = s.begin_put(0, "cart", Cover::Nothing);
        // The write reaches the others, and node 0 loses its power before its disk has it.
        s.wait(Duration::from_millis(2));
        s.world.crash(0, Crash::PowerCut);
        for node in 0..s.world.nodes() {
            s.world.set_sync_time(node, Duration::from_millis(1));
        }
        s.wait(SECOND);
        s.restart(0);
        s.r = Some(Level::One);
        lost += u32::from(s.get(0, "cart").unwrap().values.is_empty());
        let second = s.add(0, "cart").unwrap();
        s.wait(30 * SECOND);
        s.r = Some(Level::All);
        let shown = s.get(1, "cart").unwrap();
        assert!(shown.values.contains(&second.value), "seed {seed}: the second write is there");
        // If the others have the first write, the second has not taken its place.
        let copies = s.get(2, "cart").unwrap();
        assert_eq!(copies.sorted(), shown.sorted());
        assert!(shown.values.iter().all(|value| [first, second.value].contains(value)));
        s.rest();
    }
    assert!(lost > 0, "no seed loses the tail: the test tests nothing");
}

#[test]
fn handoff_goes_on_after_the_fallback_s_restart_and_then_the_others_stop() {
    let mut s = Script::new(7, 4);
    let (owners, fallbacks) = roles(&s, "cart");
    let (late, fallback) = (owners[2], fallbacks[0]);
    s.world.crash(late, Crash::Kill);
    s.wait(5 * SECOND);
    let value = s.set(owners[0], "cart").unwrap().value;
    s.wait(2 * SECOND);
    // The fallback restarts before the owner is back, and only it and the owner are there then.
    s.world.crash(fallback, Crash::PowerCut);
    s.wait(SECOND);
    s.world.crash(owners[0], Crash::PowerCut);
    s.world.crash(owners[1], Crash::PowerCut);
    s.restart(fallback);
    s.restart(late);
    s.wait(5 * SECOND);
    s.r = Some(Level::One);
    assert_eq!(s.get(late, "cart").unwrap().values, [value]);
}

#[test]
fn clocks_ten_years_apart_lose_nothing_and_show_the_last_write() {
    let decade = i64::try_from(DECADE.as_millis()).unwrap();
    let mut s = Script::new(8, 3);
    s.world.set_skew(0, decade);
    s.world.set_skew(1, -decade);
    for (first, second) in [(0, 1), (1, 0), (0, 2), (2, 1)] {
        let key = format!("cart{first}{second}");
        s.set(first, &key).unwrap();
        let last = s.set(second, &key).unwrap();
        for node in 0..3 {
            assert_eq!(
                s.get(node, &key).unwrap().values[0],
                last.value,
                "written at {first}, then at {second}"
            );
        }
        let shown = s.get(first, &key).unwrap();
        s.delete(second, &key, Some(&shown.context)).unwrap();
        assert!(s.get(first, &key).unwrap().values.is_empty());
        let again = s.set(1, &key).unwrap();
        assert_eq!(s.get(2, &key).unwrap().values, [again.value]);
    }
    s.rest();
}

#[test]
fn a_delete_stays_a_delete_when_a_replica_that_missed_it_returns() {
    let mut s = Script::new(9, 3);
    s.set(0, "cart").unwrap();
    s.wait(SECOND);
    s.world.crash(2, Crash::Kill);
    s.wait(5 * SECOND);
    let shown = s.get(0, "cart").unwrap();
    s.delete(0, "cart", Some(&shown.context)).unwrap();
    s.restart(2);
    s.rest();
    for node in 0..3 {
        assert!(s.get(node, "cart").unwrap().values.is_empty());
    }
    // A put after the delete survives the tombstone.
    let value = s.set(2, "cart").unwrap().value;
    s.rest();
    assert_eq!(s.get(1, "cart").unwrap().values, [value]);
}

#[test]
fn a_node_that_is_gone_is_no_reason_for_a_false_absence() {
    // Empty fallbacks must not outvote the one owner that has the value.
    let mut s = Script::new(10, 5);
    let (owners, fallbacks) = roles(&s, "cart");
    let value = s.set(owners[0], "cart").unwrap().value;
    s.rest();
    s.world.crash(owners[0], Crash::Kill);
    s.world.crash(owners[1], Crash::Kill);
    s.wait(5 * SECOND);
    for node in [owners[2], fallbacks[0], fallbacks[1]] {
        match s.get(node, "cart") {
            Ok(shown) => assert_eq!(shown.values, [value]),
            Err(trouble) => assert!(matches!(trouble, Trouble::Failed(_))),
        }
        s.r = Some(Level::One);
        assert_eq!(s.get(node, "cart").unwrap().values, [value]);
        s.r = None;
    }
}

#[test]
fn both_sides_of_a_partition_write_and_both_writes_live() {
    let mut s = Script::new(11, 5);
    let (owners, _) = roles(&s, "cart");
    s.isolate(owners[0], true);
    s.wait(5 * SECOND);
    s.w = Some(Level::One);
    let here = s.set(owners[0], "cart").unwrap();
    s.w = None;
    let there = s.set(owners[1], "cart").unwrap();
    s.isolate(owners[0], false);
    s.rest();
    assert_eq!(s.get(owners[2], "cart").unwrap().sorted(), [here.value, there.value]);
}

/// riak_core's and Cassandra's operators repair a replaced disk by hand. Here it heals by itself, without a read, and until
/// then the empty copies outvote nobody: R = 1 gives no false 404.
#[test]
fn a_wiped_owner_heals_without_a_read_and_outvotes_nobody_before() {
    let mut s = Script::new(9, 5);
    let keys: Vec<String> = (0..60).map(|n| format!("key{n}")).collect();
    let written: Vec<_> = keys.iter().map(|key| s.set(0, key).unwrap().value).collect();
    s.world.wipe(1);
    s.restart_apart(1, 2);
    s.r = Some(Level::One);
    for (key, value) in keys.iter().zip(&written) {
        // An error would be honest; "absent" would be a lie.
        if let Ok(shown) = s.get(1, key) {
            assert_eq!(shown.values, [*value], "{key}");
        }
    }
    s.r = None;
    s.join_again(1, 2);
    s.rest();
    assert!(s.world.is_complete());
    // Of each key the other two owners go, and the one that was wiped answers.
    for (key, value) in keys.iter().zip(&written) {
        let (owners, _) = roles(&s, key);
        if !owners.contains(&1) {
            continue;
        }
        for other in owners.iter().filter(|owner| **owner != 1) {
            s.world.crash(*other, Crash::Kill);
        }
        s.wait(SECOND);
        s.r = Some(Level::One);
        assert_eq!(s.get(1, key).unwrap().values, [*value], "{key}");
        s.r = None;
        for other in owners.iter().filter(|owner| **owner != 1) {
            s.restart(*other);
        }
        s.wait(5 * SECOND);
        s.rest();
    }
}

/// Disks acknowledge writes, sync them, and have put them elsewhere or nowhere. Whether the process or the machine goes before anybody
/// notices, the other owners' copies heal it, and until then nobody is told that there is nothing.
#[test]
fn what_a_disk_lost_or_misdirected_comes_back_from_the_others() {
    for crash in [None, Some(Crash::Kill), Some(Crash::PowerCut)] {
        let shape = Shape { segment_bytes: 16 << 10, scrub: Some(64 << 10), ..Shape::new(3) };
        let mut s = Script { world: World::new(41, shape), w: None, r: None };
        s.wait(SECOND);
        let keys: Vec<String> = (0..900).map(|n| format!("key{n}")).collect();
        let written: Vec<_> = keys.iter().map(|key| s.set(0, key).unwrap().value).collect();
        // The segments are sealed by and by.
        s.wait(8 * SECOND);
        for harm in [Harm::Lost, Harm::Misdirected, Harm::Lost, Harm::Misdirected] {
            assert!(s.world.damage(1, harm, false), "there is something to be damaged");
        }
        assert!(!s.world.is_complete());
        if let Some(crash) = crash {
            s.world.crash(1, crash);
            s.restart(1);
        }
        s.r = Some(Level::One);
        for (key, value) in keys.iter().zip(&written) {
            if let Ok(shown) = s.get(1, key) {
                assert_eq!(shown.values, [*value], "{key}");
            }
        }
        s.rest();
        assert!(s.world.is_complete());
        s.world.crash(0, Crash::Kill);
        s.world.crash(2, Crash::Kill);
        s.wait(SECOND);
        for (key, value) in keys.iter().zip(&written) {
            assert_eq!(s.get(1, key).unwrap().values, [*value], "{key}");
        }
    }
}

#[test]
fn an_hour_of_skew_under_lww_and_whoever_was_told_ok_reads_its_write() {
    let mut s = Script::new(31, 3);
    s.keyspace("last:", &Keyspace { policy: Policy::Lww, ..Keyspace::default() });
    s.world.set_skew(0, 3_600_000);
    let early = s.set(0, "last:key").unwrap();
    let late = s.set(1, "last:key").unwrap();
    assert!(early.value < late.value);
    assert_eq!(s.get(2, "last:key").unwrap().values, [late.value]);
    s.rest();
}

#[test]
fn buffered_writes_outlive_one_machine_and_all_processes() {
    for durability in [Durability::One, Durability::Interval] {
        let mut s = Script::new(32, 3);
        s.keyspace("fast:", &Keyspace { durability, w: Some(Level::All), ..Keyspace::default() });
        let keys: Vec<String> = (0..20).map(|n| format!("fast:{n}")).collect();
        let written: Vec<OpId> = keys.iter().map(|key| s.set(0, key).unwrap().value).collect();
        s.world.crash(0, Crash::PowerCut);
        s.world.crash(1, Crash::Kill);
        s.world.crash(2, Crash::Kill);
        for node in 0..3 {
            s.restart(node);
        }
        s.rest();
        for (key, value) in keys.iter().zip(written) {
            assert_eq!(s.get(0, key).unwrap().values, [value], "{durability}");
        }
    }
}

#[test]
fn buffered_writes_go_with_all_machines_and_the_cluster_says_so() {
    // What a power cut takes is drawn.
    let lost: usize = (35..40).map(lost_to_a_power_cut).sum();
    assert!(lost > 0, "power cuts that take nothing show nothing");
}

/// How many of twenty buffered writes are gone.
fn lost_to_a_power_cut(seed: u64) -> usize {
    let mut s = Script::new(seed, 3);
    s.keyspace("fast:", &Keyspace { durability: Durability::Interval, ..Keyspace::default() });
    s.set(0, "fast:old").unwrap();
    let synced = s.set(0, "slow").unwrap();
    s.wait(3 * SECOND);
    let old = s.get(1, "fast:old").unwrap();
    for n in 0..20 {
        s.set(n % 3, &format!("fast:{n}")).unwrap();
    }
    for node in 0..3 {
        s.world.crash(node, Crash::PowerCut);
    }
    for node in 0..3 {
        s.restart(node);
    }
    s.rest();
    assert_eq!(s.get(2, "fast:old").unwrap().values, old.values);
    assert_eq!(s.get(2, "slow").unwrap().values, [synced.value]);
    (0..20).filter(|n| s.get(1, &format!("fast:{n}")).unwrap().values.is_empty()).count()
}

/// Two owners repair what the third has missed: that is work, and at rest there is none.
#[test]
#[should_panic(expected = "at rest")]
fn work_at_rest_is_seen() {
    let mut s = Script::new(12, 3);
    s.set(0, "cart").unwrap();
    s.rest();
    let before = s.world.work();
    s.wait(10 * SECOND);
    s.world.check_quiet(&before);
    assert_eq!(s.world.checker().violation(), None);
    s.world.crash(2, Crash::Kill);
    s.wait(5 * SECOND);
    s.set(0, "cart").unwrap();
    s.world.restart(2, Duration::ZERO);
    s.rest();
    s.world.check_quiet(&before);
    s.wait(SECOND);
}
