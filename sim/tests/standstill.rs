//! Nodes that stand still for hours, as stories: others go on, or all sleep, and nothing that was acknowledged is undone or lost.

use core::time::Duration;
use gramme_quorum::{Cover, Level};
use gramme_sim::script::Script;
use gramme_sim::world::Shape;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_node_that_sleeps_for_an_hour_in_the_midst_of_its_work_undoes_nothing() {
    for suspended in [false, true] {
        // What is minted after the sleep, for a client that waits all the while, may replace what was written meanwhile.
        let mut s = Script::of(70, Shape { cold: false, ..Shape::new(4) });
        let keys: Vec<String> = (0..20).map(|n| format!("key{n}")).collect();
        for key in &keys {
            s.set(1, key).unwrap();
        }
        let own: Vec<_> = keys.iter().map(|key| s.begin_put(0, key, Cover::Held)).collect();
        s.wait(Duration::from_micros(500));
        s.world.sleep(0, HOUR, suspended);
        s.wait(10 * SECOND);
        let written: Vec<_> = keys.iter().map(|key| s.set(1, key).unwrap().value).collect();
        s.wait(HOUR);
        // It has answered what it was asked, late as it is.
        assert!(own.iter().all(|id| s.world.checker().request(*id).ended.is_some()));
        s.rest();
        s.r = Some(Level::All);
        for (key, value) in keys.iter().zip(written) {
            assert_eq!(s.get(0, key).unwrap().values[0], value, "{key}, suspended: {suspended}");
        }
    }
}

#[test]
fn a_cluster_that_sleeps_for_hours_goes_on() {
    let mut s = Script::new(71, 5);
    let value = s.set(0, "cart").unwrap().value;
    let asked = s.begin_put(0, "cup", Cover::Held);
    for (node, hours) in [1, 4, 2, 3, 4].into_iter().enumerate() {
        s.world.sleep(node, hours * HOUR, node % 2 == 0);
    }
    s.wait(3 * HOUR / 2);
    // Who wakes first is alone, and says so.
    assert!(s.get(0, "cart").is_err());
    s.wait(3 * HOUR);
    assert!(s.world.checker().request(asked).ended.is_some());
    for node in 0..5 {
        assert_eq!(s.get(node, "cart").unwrap().values, [value]);
    }
    s.rest();
}

/// A request of a node that sleeps is answered when it wakes. It does not hold up what others are asked, nor lets it be late.
#[test]
fn whoever_asks_a_node_that_sleeps_waits_for_it_alone() {
    let mut s = Script::new(72, 3);
    s.world.sleep(2, HOUR, false);
    let late = s.begin_put(2, "cart", Cover::Held);
    for n in 0..20 {
        s.set(n % 2, "cart").unwrap();
        s.wait(SECOND);
    }
    assert_eq!(s.world.checker().request(late).ended, None);
    s.wait(HOUR);
    assert!(s.world.checker().request(late).ended.is_some());
    s.rest();
}
