//! The sender of `examples/device` with the clock of its readings, and with what stands in for `std` on a device.
#![no_std]

#[path = "../../examples/device/sender.rs"]
mod sender;

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

fn first_target(reading: &[u8], silent: NodeId) -> Result<NodeId, TableError> {
    let sender = Sender::new(8, &IDS, &PLACES)?;
    Ok(sender.targets(reading, |id| id != silent)?[0])
}

/// The one function that the board's start-up code would call: the node to send to, or 0.
pub extern "C" fn run(me: u64, silent: u64) -> u64 {
    let (mut mine, mut theirs) = (Clock::new(), Clock::new());
    let written = mine.increment(Actor(me)).is_ok() && theirs.increment(Actor(me ^ 1)).is_ok();
    if !written || merged(&mut mine, &theirs, Actor(me)) != Some(Causality::Concurrent) {
        return 0;
    }
    first_target(b"thermometer:7", NodeId(silent)).map_or(0, |id| id.0)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
