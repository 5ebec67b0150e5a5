//! Disks that stay full, and processes that leave a step half done on theirs.

use core::time::Duration;
use gramme_quorum::Level;
use gramme_sim::script::Script;
use gramme_sim::world::Crash;

const SECOND: Duration = Duration::from_secs(1);

/// A disk that stays full: its node is read as ever and takes nothing, and nobody else is the worse for it.
#[test]
fn beside_a_disk_that_stays_full_all_goes_on() {
    let mut s = Script::new(31, 3);
    let full = 2;
    let old: Vec<_> = (0..20).map(|n| s.set(n % 3, &format!("old{n}")).unwrap()).collect();
    s.rest();
    s.world.fill_disk(full, Some(0));
    for restarted in [false, true] {
        if restarted {
            s.world.crash(full, Crash::Kill);
            s.restart(full);
        }
        let new: Vec<_> = (0..20).map(|n| s.set(n % 3, &format!("new{n}")).unwrap()).collect();
        s.delete(full, "old7", None).unwrap();
        s.wait(60 * SECOND);
        assert_eq!(s.world.unrest_beside(Some(full)), None);
        s.world.check_rest_beside(Some(full));
        for node in 0..3 {
            for (n, written) in new.iter().enumerate() {
                assert_eq!(s.get(node, &format!("new{n}")).unwrap().values, [written.value]);
            }
            for (n, written) in old.iter().enumerate() {
                let values = if n == 7 { vec![] } else { vec![written.value] };
                assert_eq!(s.get(node, &format!("old{n}")).unwrap().values, values);
            }
        }
    }
    // What it has on its disk it has still.
    assert!(s.world.unrest().is_some());
    s.r = Some(Level::One);
    for other in 0..full {
        s.world.crash(other, Crash::Kill);
    }
    s.wait(5 * SECOND);
    assert_eq!(s.get(full, "old3").unwrap().values, [old[3].value]);
    for other in 0..full {
        s.restart(other);
    }
    s.world.fill_disk(full, None);
    s.rest();
}

/// A node that starts on a full disk can note that it did, so that what it holds can be deleted there.
#[test]
fn a_full_disk_can_be_emptied_after_a_start() {
    let mut s = Script::new(33, 1);
    let written: Vec<_> = (0..20).map(|n| s.set(0, &format!("old{n}")).unwrap()).collect();
    s.rest();
    s.world.fill_disk(0, Some(0));
    // More of them, each of which is to note something.
    for _ in 0..5 {
        s.world.crash(0, Crash::Kill);
        s.restart(0);
        s.wait(5 * SECOND);
    }
    for (n, written) in written.iter().enumerate() {
        assert_eq!(s.get(0, &format!("old{n}")).unwrap().values, [written.value]);
        s.delete(0, &format!("old{n}"), None).unwrap();
        assert_eq!(s.get(0, &format!("old{n}")).unwrap().values, []);
    }
    s.world.fill_disk(0, None);
    s.rest();
}

/// A fallback stores a copy and its hint in one step, and dies between the two.
#[test]
fn a_process_killed_between_a_copy_and_its_hint() {
    let mut s = Script::new(32, 5);
    let owners = s.world.owners(b"cart");
    let fallback = s.world.fallbacks(b"cart")[0];
    let old = s.set(owners[0], "cart").unwrap();
    s.world.crash(owners[2], Crash::Kill);
    s.wait(5 * SECOND);
    s.world.kill_amid(fallback, 1, SECOND);
    let new = s.put(owners[0], "cart", &old.context).unwrap();
    assert_eq!(s.world.half_steps(), 1);
    s.wait(3 * SECOND);
    assert!(s.world.is_up(fallback));
    s.restart(owners[2]);
    s.rest();
    assert_eq!(s.get(owners[2], "cart").unwrap().values, [new.value]);
}
