//! One to four engines under a schedule: every byte decides which message arrives, is lost, repeated or altered, which
//! disk is slow, full or fails, who is cut off, crashes and returns, how far the clock jumps.
//!
//! Whatever the schedule: no panic, every request has exactly one reply and has it by its deadline, no engine asks to be
//! woken in the past, and when the trouble is over nothing is left in flight. On schedules without lies and disk
//! failures moreover: every value that was acknowledged and that nobody replaced is read again in the end.

mod calm;
mod world;

use crate::source::Source;
use world::World;

/// One schedule.
///
/// # Panics
/// If an engine breaks a promise.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let mut world = World::new(&mut source);
    for _ in 0..250 {
        if source.is_empty() {
            break;
        }
        world.step(&mut source);
    }
    world.finish();
}
