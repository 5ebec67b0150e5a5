//! A whole simulated cluster under a schedule: the bytes decide how many nodes there are, what clients ask, which faults come
//! and when. Engines, stores and their host are those that ship.
//!
//! Whatever the schedule: the simulator's checker finds none of its promises broken, and unless faults come without limit the
//! cluster is at rest before long.

use crate::source::Source;
use bytes::Bytes;
use core::time::Duration;
use gramme_sim::run::Plan;

/// More decisions than a run of this length makes.
const MOST: usize = 4096;

/// One schedule.
///
/// # Panics
/// If a promise is broken.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let (shape, seed) = (source.byte(), source.byte());
    let tape = source.rest();
    let nodes = 3 + usize::from(shape % 4);
    let plan = Plan {
        length: Duration::from_secs(5 + u64::from(shape >> 4)),
        rate: 20,
        safety_only: shape & 4 != 0,
        tape: Bytes::copy_from_slice(&tape[..tape.len().min(MOST)]),
        ..Plan::new(seed.into(), nodes)
    };
    if let Some(violation) = gramme_sim::run::run(&plan, &mut |_| {}).violation {
        panic!("{violation}");
    }
}
