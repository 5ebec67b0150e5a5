//! The firmware of `examples/sensors` with what stands in for `std` on a device, and the test that it runs at power-on.
#![no_std]
#![no_main]

#[path = "../../examples/sensors/node.rs"]
mod node;

use core::hint::black_box;
use node::{FRAME, Node, NodeError};

/// Sends `from`'s frame to `to`, and says whether it told anything new.
fn send(from: &Node, to: &mut Node, wall_ms: u64) -> Result<bool, NodeError> {
    let mut buffer = [0; FRAME];
    to.receive(from.frame(&mut buffer)?, wall_ms)
}

fn expect(step: i32, right: bool) -> Result<(), i32> {
    if right { Ok(()) } else { Err(step) }
}

/// Two nodes disagree and settle. The number of the step that went wrong, if any did.
fn power_on_test(random: u64) -> Result<(), i32> {
    let (mut a, mut b) = (Node::start(random), Node::start(!random));
    let settings = |node: &Node| (node.interval(), node.conflicts());
    expect(1, a.set(60, 1_000).is_ok() && send(&a, &mut b, 1_001) == Ok(true))?;
    expect(2, settings(&b) == (Some(60), 1))?;
    expect(3, send(&a, &mut b, 1_002) == Ok(false))?;
    // Two people turn two knobs while the nodes are out of range of each other.
    expect(4, a.set(30, 2_000).is_ok() && b.set(10, 2_500).is_ok())?;
    expect(5, send(&a, &mut b, 3_000) == Ok(true) && send(&b, &mut a, 3_000) == Ok(true))?;
    expect(6, settings(&a) == (Some(10), 2) && settings(&b) == (Some(10), 2))?;
    // Someone looks and decides.
    expect(7, a.set(20, 4_000).is_ok() && send(&a, &mut b, 4_001) == Ok(true))?;
    expect(8, settings(&b) == (Some(20), 1))?;
    expect(9, b.receive(black_box(&[0xff; 12]), 5_000) == Err(NodeError::Garbled))?;
    // It starts again from what went to flash.
    let mut flash = [0; FRAME];
    let floor = a.reserve(6_000).ok_or(10)?;
    a.reserved(floor);
    expect(11, a.reserve(6_000).is_none() && a.set(50, 6_000).is_ok())?;
    let mut a = Node::restart(random, floor, a.frame(&mut flash).map_err(|_| 12)?).map_err(|_| 13)?;
    expect(14, a.set(40, 0).is_ok() && send(&a, &mut b, 6_002) == Ok(true))?;
    expect(15, settings(&b) == (Some(40), 1))
}

/// What the board's start-up code calls: 0 if the device does what it should.
#[unsafe(no_mangle)]
pub extern "C" fn main() -> i32 {
    #[cfg(feature = "wants-allocator")]
    black_box(gramme_vclock::GrowableDotSet::new());
    // Nothing of it is worked out by the compiler.
    power_on_test(black_box(0x5ca1_ab1e)).err().unwrap_or(0)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
