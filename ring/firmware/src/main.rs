//! The sender of `examples/device` with the clock of its readings, with what stands in for `std` on a device, and the test
//! that it runs at power-on.
#![no_std]
#![no_main]

#[path = "../../examples/device/sender.rs"]
mod sender;

use core::hint::black_box;
use gramme_ring::{NodeId, TableError};
use gramme_vclock::{Actor, Causality, FixedVersionVector};
use sender::Sender;

/// The cluster's table as the factory wrote it to flash: five nodes, eight partitions.
static IDS: [NodeId; 5] = [NodeId(11), NodeId(12), NodeId(13), NodeId(14), NodeId(15)];
static PLACES: [u16; 24] = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3];

/// At most four writers of one reading.
type Clock = FixedVersionVector<4>;

/// Takes in the clock of a reading that another device wrote, and writes a newer one. Returns how the two stood.
fn merged(mine: &mut Clock, theirs: &Clock, me: Actor) -> Option<Causality> {
    let stood = mine.compare(theirs);
    mine.merge(theirs).ok()?;
    mine.increment(me).ok()?;
    Some(stood)
}

/// Two clocks are merged, and a reading's owners picked with all nodes in reach, then without the first of them. The number of the
/// step that went wrong, if any did.
fn power_on_test(me: u64) -> Result<(), i32> {
    let expect = |step, right| if right { Ok(()) } else { Err(step) };
    let (mut mine, mut theirs) = (Clock::new(), Clock::new());
    expect(1, mine.increment(Actor(me)).is_ok() && theirs.increment(Actor(me ^ 1)).is_ok())?;
    expect(2, merged(&mut mine, &theirs, Actor(me)) == Some(Causality::Concurrent))?;
    expect(3, mine.get(Actor(me)) == 2 && mine.compare(&theirs) == Causality::After)?;

    let reading = black_box(b"thermometer:7");
    let sender = Sender::new(8, &IDS, &PLACES).map_err(|_| 4)?;
    let all = sender.targets(reading, |_| true).map_err(|_| 5)?;
    expect(6, all[0] != all[1] && all[1] != all[2] && all[0] != all[2])?;
    let without = sender.targets(reading, |id| id != all[0]).map_err(|_| 7)?;
    expect(8, without[..2] == all[1..] && !all.contains(&without[2]))?;
    let none = sender.targets(reading, |_| false);
    expect(9, none == Err(TableError::TooFewNodes { wanted: 3, found: 0 }))
}

/// What the board's start-up code calls: 0 if the device does what it should.
#[unsafe(no_mangle)]
pub extern "C" fn main() -> i32 {
    #[cfg(feature = "wants-allocator")]
    black_box(gramme_vclock::GrowableDotSet::new());
    // Nothing of it is worked out by the compiler.
    power_on_test(black_box(7)).err().unwrap_or(0)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
