//! What a disk refuses to read is not damaged, and what is damaged is healed from what there is, as stories: random runs hardly
//! ever come to so much harm at once.

use core::time::Duration;
use gramme_quorum::planted::Planted;
use gramme_quorum::{Level, Timing};
use gramme_sim::checker::OpId;
use gramme_sim::script::{Script, Trouble};
use gramme_sim::swarm::Harm;
use gramme_sim::world::{Crash, Shape};

const SECOND: Duration = Duration::from_secs(1);
/// More than any read that heals may take.
const HEALED: Duration = Duration::from_secs(6);

/// Keys so many that the first of them are in segments that are sealed.
fn many() -> Vec<String> {
    (0..300).map(|n| format!("key{n}")).collect()
}

fn script(seed: u64, shape: Shape) -> Script {
    let timing = Timing { exchange: 10_000 * SECOND, ..Timing::default() };
    let mut s = Script::of(seed, Shape { segment_bytes: 4 << 10, timing, ..shape });
    s.wait(SECOND);
    s
}

fn write(s: &mut Script, node: usize, keys: &[String]) -> Vec<OpId> {
    let written = keys.iter().map(|key| s.set(node, key).unwrap().value).collect();
    // The segments are sealed by and by.
    s.wait(8 * SECOND);
    written
}

/// Damages this node's copies of five of the keys.
fn harm(s: &mut Script, node: usize, keys: &[String], harm: Harm) -> Vec<String> {
    let mut is_harmed = |key: &&String| s.world.damage_copy(node, key, harm);
    let harmed: Vec<String> = keys.iter().filter(|key| is_harmed(key)).take(5).cloned().collect();
    assert_eq!(harmed.len(), 5, "so many are at rest");
    harmed
}

/// One disk refuses all reads, and the two others are wiped, one after the other: nobody that may be asked for R copies has them to
/// show. Nobody takes that for absent, and whoever writes meanwhile is told so and finds it there when that disk reads again.
#[test]
fn a_disk_that_refuses_all_reads_beside_two_that_are_wiped() {
    let mut s = Script::new(47, 3);
    let keys: Vec<String> = (0..40).map(|n| format!("key{n}")).collect();
    let old: Vec<_> = keys.iter().enumerate().map(|(n, key)| s.set(n % 3, key).unwrap().value).collect();
    s.rest();
    s.world.refuse_reads(0, true);
    for node in [1, 2] {
        s.world.wipe(node);
        s.restart(node);
        s.wait(5 * SECOND);
        assert!(!s.world.is_complete());
    }
    for key in &keys {
        for node in 0..3 {
            let shown = s.get(node, key);
            assert!(matches!(shown, Err(Trouble::Failed(_))), "{key} through node {node}: {shown:?}");
        }
    }
    // A plain delete reads first.
    assert!(s.delete(1, &keys[0], None).is_err());
    let new: Vec<_> = keys[..20].iter().map(|key| s.add(1, key).unwrap().value).collect();
    let fresh = s.set(2, "fresh").unwrap().value;
    assert!(!s.world.is_complete());
    s.world.refuse_reads(0, false);
    s.wait(10 * SECOND);
    s.rest();
    assert!(s.world.is_complete());
    s.r = Some(Level::All);
    for (n, key) in keys.iter().enumerate() {
        let both: Vec<OpId> = new.get(n).into_iter().chain([&old[n]]).copied().collect();
        assert_eq!(s.get(n % 3, key).unwrap().values, both, "{key}");
    }
    assert_eq!(s.get(0, "fresh").unwrap().values, [fresh]);
}

/// Node 1's copies are damaged, node 0 has them on a disk that refuses to read, and node 2 has former ones.
fn damaged_beside_one_that_refuses(planted: Planted) {
    let mut s = script(48, Shape { planted, ..Shape::new(3) });
    let keys = many();
    write(&mut s, 0, &keys);
    s.world.crash(2, Crash::Kill);
    s.wait(5 * SECOND);
    let written = write(&mut s, 0, &keys);
    s.world.refuse_reads(0, true);
    s.restart(2);
    s.wait(5 * SECOND);
    let harmed = harm(&mut s, 1, &keys, Harm::Rot);
    for _ in 0..2 {
        for (key, node) in harmed.iter().flat_map(|key| [(key, 1), (key, 0)]) {
            assert!(s.get(node, key).is_err(), "{key} is nowhere to be read");
        }
        s.wait(HEALED);
    }
    s.world.refuse_reads(0, false);
    for _ in 0..2 {
        harmed.iter().for_each(|key| drop(s.get(1, key)));
        s.wait(HEALED);
    }
    s.rest();
    for (key, value) in keys.iter().zip(&written) {
        assert_eq!(s.get(1, key).unwrap().values, [*value], "{key}");
    }
}

#[test]
fn what_a_disk_refuses_to_read_is_waited_for() {
    damaged_beside_one_that_refuses(Planted::default());
}

/// All owners' copies of one key are damaged, and of another all but one.
fn all_damaged(planted: Planted) {
    let mut s = script(49, Shape { planted, ..Shape::new(3) });
    let keys = many();
    let written = write(&mut s, 0, &keys);
    let (all, two) = (&keys[3], &keys[4]);
    for node in 0..3 {
        assert!(s.world.damage_copy(node, all, Harm::Rot));
        assert!(node == 1 || s.world.damage_copy(node, two, Harm::Lost));
    }
    for node in 0..3 {
        assert!(s.get(node, all).is_err());
        drop(s.get(node, two));
        s.wait(HEALED);
    }
    let shown = s.get(0, two).expect("the one that is left heals the others");
    assert_eq!(shown.values, [written[4]]);
    // Whoever is asked finds first that nobody has it.
    let again = (0..3).find_map(|_| s.set(1, all).ok()).expect("what comes next takes its place").value;
    s.rest();
    s.r = Some(Level::All);
    assert_eq!(s.get(2, all).unwrap().values, [again]);
}

#[test]
fn what_no_disk_can_read_any_more_is_written_anew() {
    all_damaged(Planted::default());
}

/// One node alone owns a key, and its copy is damaged.
fn damaged_and_alone(planted: Planted) {
    let mut s = script(50, Shape { planted, replicas: 1, r: 1, w: 1, ..Shape::new(3) });
    let keys = many();
    let written = write(&mut s, 0, &keys);
    let key = &keys[3];
    let owner = s.world.owners(key.as_bytes())[0];
    assert!(s.world.damage_copy(owner, key, Harm::Rot));
    assert!(s.get(owner, key).is_err(), "unknown is not absent");
    let again = s.set((owner + 1) % 3, key).expect("nobody could ever heal it").value;
    s.rest();
    assert_eq!(s.get(owner, key).unwrap().values, [again]);
    assert_eq!(s.get(owner, &keys[4]).unwrap().values, [written[4]]);
}

#[test]
fn what_nobody_else_owns_is_written_anew() {
    damaged_and_alone(Planted::default());
}

/// Nodes 1, 2 and 3 alone have the last writes. Node 2 loses its disk, and recovers from three of the others: node 3 is out of reach, and
/// some of node 1's copies are damaged.
fn recovers_from_gaps(planted: Planted) {
    let mut s = script(51, Shape { planted, replicas: 5, r: 3, w: 3, ..Shape::new(5) });
    for node in [0, 4] {
        s.world.crash(node, Crash::Kill);
    }
    s.wait(5 * SECOND);
    let keys = many();
    let written = write(&mut s, 3, &keys);
    // Whose keys are gone with them.
    let harmed = harm(&mut s, 1, &keys, Harm::Lost);
    s.isolate(3, true);
    for node in [0, 4] {
        s.restart(node);
    }
    s.world.wipe(2);
    s.restart(2);
    s.wait(10 * SECOND);
    assert!(!s.world.is_complete());
    for key in &harmed {
        assert!(s.get(2, key).is_err(), "{key} is not absent");
    }
    s.isolate(3, false);
    s.wait(10 * SECOND);
    harmed.iter().for_each(|key| drop(s.get(1, key)));
    s.wait(HEALED);
    s.rest();
    s.r = Some(Level::All);
    for (key, value) in keys.iter().zip(&written) {
        assert_eq!(s.get(2, key).unwrap().values, [*value], "{key}");
    }
}

#[test]
fn a_listing_with_gaps_makes_nobody_whole() {
    recovers_from_gaps(Planted::default());
}

/// Each mistake is found by one of these stories: what it breaks.
#[cfg(feature = "planted")]
mod mistakes {
    use super::*;
    use gramme_quorum::planted::Bug;

    #[test]
    #[should_panic(expected = "violated")]
    fn healed_from_what_is_left() {
        damaged_beside_one_that_refuses(Planted::one(Bug::HealedFromRest));
    }

    #[test]
    #[should_panic(expected = "violated")]
    fn a_refusal_is_no_damage() {
        damaged_beside_one_that_refuses(Planted::one(Bug::RefusedIsDamaged));
    }

    #[test]
    #[should_panic(expected = "the one that is left heals the others")]
    fn nothing_is_taken_for_all_there_is() {
        all_damaged(Planted::one(Bug::NeverAll));
    }

    #[test]
    #[should_panic(expected = "what comes next takes its place")]
    fn a_loss_is_forgotten() {
        all_damaged(Planted::one(Bug::LossForgotten));
    }

    #[test]
    #[should_panic(expected = "no rest")]
    fn nobody_is_alone() {
        damaged_and_alone(Planted::one(Bug::NeverAlone));
    }

    #[test]
    #[should_panic(expected = "violated")]
    fn gaps_in_a_listing() {
        recovers_from_gaps(Planted::one(Bug::UnreadableIgnored));
    }
}
