//! The sending side of a device that stores its readings in a cluster: no `std`, no allocator.

use gramme_ring::{NodeId, OwnerTable, Slot, TableError};

/// Replicas of each reading.
const N: usize = 3;

/// What the device knows of the cluster: a layout's table, in flash or in the last frame that brought one.
#[derive(Debug)]
pub(crate) struct Sender<'a> {
    table: OwnerTable<'a>,
}

impl<'a> Sender<'a> {
    /// `places` are the rows of [`gramme_ring::Layout::table`], one after another.
    pub(crate) fn new(partitions: u32, ids: &'a [NodeId], places: &'a [u16]) -> Result<Self, TableError> {
        Ok(Sender { table: OwnerTable::new(partitions, ids, places)? })
    }

    /// To whom a reading goes: the key's owners, each that is out of reach replaced by the next in the preference list.
    /// This is the paper's sloppy quorum (section 4.6).
    pub(crate) fn targets(
        &self,
        key: &[u8],
        in_reach: impl Fn(NodeId) -> bool,
    ) -> Result<[NodeId; N], TableError> {
        let mut buffer = [NodeId(0); 16];
        let list = self.table.preference(self.table.partition_of(Slot::of(key)), &mut buffer);
        let mut targets = [NodeId(0); N];
        let live = list.iter().filter(|&&id| in_reach(id));
        let found = targets.iter_mut().zip(live).map(|(target, &id)| *target = id).count();
        if found == N { Ok(targets) } else { Err(TableError::TooFewNodes { wanted: N, found }) }
    }
}
