//! The firmware of `examples/sensors`, with what stands in for `std` on a device.
#![no_std]

#[path = "../../examples/sensors/node.rs"]
mod node;

use node::{FRAME, Node, NodeError};

/// One turn of the device's loop: takes in the frame received, if any, and answers the frame to send.
fn turn<'a>(
    node: &mut Node,
    received: Option<&[u8]>,
    wall_ms: u64,
    buffer: &'a mut [u8; FRAME],
) -> Result<&'a [u8], NodeError> {
    if let Some(frame) = received {
        node.receive(frame, wall_ms)?;
    }
    node.frame(buffer)
}

/// The one function that the board's start-up code would call.
pub extern "C" fn run(random: u64, knob: u16, wall_ms: u64) -> u16 {
    let mut node = Node::start(random);
    let mut buffer = [0; FRAME];
    if node.set(knob, wall_ms).is_err() || turn(&mut node, None, wall_ms, &mut buffer).is_err() {
        return 0;
    }
    // Two choices stand side by side: the lamp says so, and someone turns the knob.
    if node.conflicts() > 1 { u16::MAX } else { node.interval().unwrap_or(0) }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
