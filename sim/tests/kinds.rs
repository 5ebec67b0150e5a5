//! Each kind of fault strikes in the seeds that CI runs: a kind that is drawn and never does anything would be no fault.

use gramme_sim::run::{Plan, run};
use gramme_sim::swarm::{KINDS, Kind};
use std::collections::BTreeSet;

#[test]
fn each_kind_of_fault_strikes_in_the_first_seeds() {
    let mut missing: BTreeSet<Kind> = KINDS.into();
    let mut seed = 0;
    while !missing.is_empty() {
        seed += 1;
        assert!(seed <= 30, "none of the first 30 seeds has {missing:?}");
        // What strikes is the same with less load.
        let plan = Plan { rate: 2, ..Plan::new(seed, 5) };
        let outcome = run(&plan, &mut |_| {});
        assert!(outcome.violation.is_none(), "seed {seed}: {:?}", outcome.violation);
        missing.retain(|kind| !outcome.struck.contains_key(kind));
    }
}
