//! A device that picks owners by itself, and the cluster that gave it the table.
//!
//! `cargo run -p gramme-ring --example device`. `sender.rs` needs neither std nor an allocator; `firmware/` beside this
//! folder builds it as firmware.

mod sender;

use gramme_ring::{Layout, Member, NodeId, Slot, TableError};
use sender::Sender;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The cluster computes its layout where there is memory …
    let members: Vec<Member> = (1..=5).map(|id| Member::new(NodeId(id))).collect();
    let layout = Layout::compute(3, 16, &members, None)?;
    // … and hands out the table: 5 ids and 48 places of two bytes.
    let table = layout.table();

    // The device borrows it.
    let sender = Sender::new(16, table.nodes(), table.places())?;
    for key in ["thermometer:7", "thermometer:8", "door"] {
        let all = sender.targets(key.as_bytes(), |_| true)?;
        let without = sender.targets(key.as_bytes(), |id| id != all[0])?;
        println!("{key:<14} goes to {all:?}; were the first out of reach, to {without:?}");
        // The device and the cluster agree.
        let mut preference = layout.preference(layout.partition_of(Slot::of(key.as_bytes())));
        assert!(preference.clone().take(3).eq(all));
        preference.next();
        assert!(preference.take(3).eq(without));
    }
    let refused = sender.targets(b"door", |id| id.0 < 3);
    println!("with two nodes in reach: {}", refused.unwrap_err());
    assert_eq!(refused, Err(TableError::TooFewNodes { wanted: 3, found: 2 }));
    Ok(())
}

#[test]
fn the_device_picks_what_the_cluster_picks() -> Result<(), Box<dyn std::error::Error>> {
    main()
}
