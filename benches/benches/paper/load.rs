//! Thirty nodes and how loaded each is.

use gramme_ring::{Layout, Member, NodeId, Zone};

pub(crate) const NODES: u32 = 30;
pub(crate) const REPLICAS: u8 = 3;

/// A number of 64 well mixed bits (SplitMix64).
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut x = a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.wrapping_add(1).wrapping_mul(0xd1b5_4a32_d192_ed03);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Thirty members with random ids, by id.
pub(crate) fn plain(draw: u64) -> Vec<Member> {
    let mut members: Vec<Member> =
        (0..u64::from(NODES)).map(|n| Member::new(NodeId(mix(draw, n ^ 0x1d)))).collect();
    members.sort();
    members
}

/// The same with weights 1, 2 and 4 and in three zones of equal weight.
pub(crate) fn weighted(draw: u64) -> Vec<Member> {
    let zone = |n: usize| Zone::new(["north", "south", "west"][n % 3]).expect("a short name");
    let members = plain(draw).into_iter().enumerate();
    members.map(|(n, m)| m.with_weight([1, 2, 4][n / 3 % 3]).with_zone(zone(n))).collect()
}

/// What each of these members carries.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    ids: Vec<NodeId>,
    weights: Vec<f64>,
    carried: Vec<f64>,
}

impl Load {
    pub(crate) fn of(members: &[Member]) -> Load {
        Load {
            ids: members.iter().map(|m| m.id).collect(),
            weights: members.iter().map(|m| f64::from(m.weight)).collect(),
            carried: vec![0.0; members.len()],
        }
    }

    /// The partitions of a layout.
    pub(crate) fn of_layout(layout: &Layout) -> Load {
        let mut load = Load::of(layout.members());
        for partition in layout.partition_count().partitions() {
            load.add(layout.owners(partition), 1.0);
        }
        load
    }

    pub(crate) fn add(&mut self, owners: impl IntoIterator<Item = NodeId>, share: f64) {
        for id in owners {
            let at = self.ids.binary_search(&id).expect("owners are members, sorted by id");
            self.carried[at] += share;
        }
    }

    /// Each node's load per weight over the mean.
    fn relative(&self) -> impl Iterator<Item = f64> + '_ {
        let mean = self.carried.iter().sum::<f64>() / self.weights.iter().sum::<f64>();
        self.carried.iter().zip(&self.weights).map(move |(carried, weight)| carried / weight / mean)
    }

    /// Mean over hottest.
    pub(crate) fn efficiency(&self) -> f64 {
        1.0 / self.relative().fold(0.0, f64::max)
    }

    /// The fraction of nodes whose load is at least this far from the mean.
    pub(crate) fn out_of_balance(&self, threshold: f64) -> f64 {
        self.relative().filter(|load| (load - 1.0).abs() >= threshold).count() as f64 / self.ids.len() as f64
    }
}
