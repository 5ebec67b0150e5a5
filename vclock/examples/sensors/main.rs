//! Three sensors settle on one setting over a bad radio. `node.rs` is firmware: it uses neither `std` nor an allocator,
//! and the package `firmware/` beside this crate builds it so.
//!
//! ```text
//! cargo run --example sensors
//! ```

mod node;

use node::{FRAME, Node, NodeError};

/// Sends `from`'s frame to `to`.
fn send(nodes: &mut [Node; 3], from: usize, to: usize, now: u64) -> Result<(), NodeError> {
    let mut buffer = [0; FRAME];
    let frame = nodes[from].frame(&mut buffer)?;
    let news = nodes[to].receive(frame, now)?;
    println!("{from} → {to}: {:2} bytes, {}", frame.len(), if news { "news" } else { "nothing new" });
    Ok(())
}

fn main() -> Result<(), NodeError> {
    let mut nodes = [0x5ca1_ab1e, 0xf005_ba11, 0x0b5e_55ed].map(Node::start);

    nodes[0].set(60, 1_000)?;
    send(&mut nodes, 0, 1, 1_001)?;
    send(&mut nodes, 0, 2, 1_002)?;

    // Two people turn two knobs while the nodes are out of range of each other.
    nodes[1].set(30, 2_000)?;
    nodes[2].set(10, 2_500)?;
    for (from, to) in [(2, 0), (1, 0), (0, 1), (1, 0), (0, 2)] {
        send(&mut nodes, from, to, 3_000)?;
    }
    for node in &nodes {
        assert_eq!((node.interval(), node.conflicts()), (Some(10), 2));
    }
    println!("every 10 s everywhere, and both choices still known");

    // Someone looks and decides.
    nodes[0].set(20, 4_000)?;
    for (from, to) in [(0, 1), (1, 2), (2, 1)] {
        send(&mut nodes, from, to, 4_001)?;
    }
    for node in &nodes {
        assert_eq!((node.interval(), node.conflicts()), (Some(20), 1));
    }
    println!("every 20 s everywhere");

    assert_eq!(nodes[0].receive(&[0xff; 12], 5_000), Err(NodeError::Garbled));
    Ok(())
}

#[test]
fn the_sensors_settle() -> Result<(), NodeError> {
    main()
}
