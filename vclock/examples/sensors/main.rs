//! Three sensors settle on one setting over a bad radio. `node.rs` is firmware: it uses neither `std` nor an allocator,
//! and the package `firmware/` beside this crate builds it so.
//!
//! ```text
//! cargo run --example sensors
//! ```

mod node;

use gramme_vclock::Stamp;
use node::{FRAME, Node, NodeError};

/// What each node drew at its first start.
const IDS: [u64; 3] = [0x5ca1_ab1e, 0xf005_ba11, 0x0b5e_55ed];

/// Sends `from`'s frame to `to`.
fn send(nodes: &mut [Node; 3], from: usize, to: usize, now: u64) -> Result<(), NodeError> {
    let mut buffer = [0; FRAME];
    let frame = nodes[from].frame(&mut buffer)?;
    let news = nodes[to].receive(frame, now)?;
    println!("{from} → {to}: {:3} bytes, {}", frame.len(), if news { "news" } else { "nothing new" });
    Ok(())
}

fn main() -> Result<(), NodeError> {
    let mut nodes = IDS.map(Node::start);

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

    // Flat batteries, often: each start goes on from flash, and takes no room of its own.
    let (mut flash, mut on_flash) = ([0; FRAME], Stamp::ZERO);
    for day in 0..100 {
        // The wall clock starts at zero, and each setting is the latest all the same.
        let now = u64::from(day % 7);
        if let Some(floor) = nodes[1].reserve(now) {
            on_flash = floor; // written
            nodes[1].reserved(floor);
        }
        nodes[1].set(day, now)?;
        let kept = nodes[1].frame(&mut flash)?; // written, and only then sent
        nodes[1] = Node::restart(IDS[1], on_flash, kept)?;
        send(&mut nodes, 1, 2, now)?;
        assert_eq!((nodes[2].interval(), nodes[2].conflicts()), (Some(day), 1));
    }
    Ok(())
}

#[test]
fn the_sensors_settle() -> Result<(), NodeError> {
    main()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gramme_vclock::{Actor, Dot, FixedDotSet, Span};
    use node::{Setting, Settings};

    fn received(node: &mut Node, settings: &Settings) -> Result<bool, NodeError> {
        let mut buffer = [0; FRAME];
        let frame = postcard::to_slice(settings, &mut buffer).unwrap();
        node.receive(frame, 1_000)
    }

    #[test]
    fn a_frame_that_tells_of_settings_never_made_changes_nothing() {
        let mut node = Node::start(7);
        node.set(60, 1_000).unwrap();
        let history = FixedDotSet::from_spans([Span { actor: Actor(7), first: 1, last: 1_000 }]).unwrap();
        let forged = Settings::from_parts([], history).unwrap();
        assert_eq!(received(&mut node, &forged), Err(NodeError::Garbled));
        assert_eq!(node.interval(), Some(60));
        node.set(10, 1_001).unwrap();
        assert_eq!((node.interval(), node.conflicts()), (Some(10), 1));
    }

    /// What it set last was replaced by a node whose clock is behind, and does not follow so far: no frame tells the stamp
    /// any more.
    #[test]
    fn a_restart_does_not_set_the_clock_back() {
        let (mut node, mut behind) = (Node::start(7), Node::start(8));
        let floor = node.reserve(20_000).unwrap();
        node.reserved(floor);
        node.set(60, 20_000).unwrap();
        let mut buffer = [0; FRAME];
        behind.receive(node.frame(&mut buffer).unwrap(), 5_000).unwrap();
        behind.set(10, 5_000).unwrap();
        node.receive(behind.frame(&mut buffer).unwrap(), 20_000).unwrap();
        assert_eq!((node.interval(), node.conflicts()), (Some(10), 1));
        let mut node = Node::restart(7, floor, node.frame(&mut buffer).unwrap()).unwrap();
        node.set(30, 0).unwrap();
        let settings: Settings = postcard::from_bytes(node.frame(&mut buffer).unwrap()).unwrap();
        assert!(settings.iter().all(|(_, setting)| setting.stamp > Stamp::from_parts(20_000, 0)));
    }

    #[test]
    fn the_longest_frame_fits_to_the_byte() {
        let spans = (0..8).map(|at| Span { actor: Actor(at), first: 1 << 63, last: u64::MAX });
        let setting = Setting { interval: u16::MAX, stamp: Stamp::MAX };
        let values = (0..4).map(|at| (Dot { actor: Actor(at), counter: u64::MAX }, setting));
        let longest = Settings::from_parts(values, FixedDotSet::from_spans(spans).unwrap()).unwrap();
        let mut node = Node::start(77);
        assert_eq!(received(&mut node, &longest), Ok(true));
        assert_eq!(node.frame(&mut [0; FRAME]).map(<[u8]>::len), Ok(FRAME));
    }
}
