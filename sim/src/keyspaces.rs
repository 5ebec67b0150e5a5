//! The keyspaces of a run, drawn from its seed: every policy and durability, with R, W and times to live of their own.

use crate::rng::Rng;
use gramme_quorum::{Durability, Keyspace, Level, Policy};

/// A prefix and what is to hold for its keys.
pub type Named = (String, Keyspace);

/// What the operator of one run commits to: before the clients come, and while they are at it.
#[derive(Clone, Debug, Default)]
pub struct Keyspaces {
    /// In force before the first request.
    pub first: Vec<Named>,
    /// New prefixes, or other rules for those there are, one after the other.
    pub later: Vec<Named>,
}

impl Keyspaces {
    /// Draws them; half of the runs have none.
    #[must_use]
    pub fn draw(rng: &mut Rng) -> Keyspaces {
        if rng.chance(500_000) {
            return Keyspaces::default();
        }
        let first: Vec<Named> = (0..rng.range(1, 4)).map(|n| (format!("k{n}:"), keyspace(rng))).collect();
        let mut later = Vec::new();
        for n in 0..rng.below(4) {
            let one = rng.pick(&first);
            later.push(match rng.below(4) {
                0 => (format!("new{n}:"), keyspace(rng)),
                // The longest prefix counts; where the last write wins it goes on to.
                1 => {
                    let drawn = keyspace(rng);
                    let policy = if one.1.policy == Policy::Lww { Policy::Lww } else { drawn.policy };
                    (format!("{}{n}/", one.0), Keyspace { policy, ..drawn })
                }
                // All but the policy may change.
                _ => (one.0.clone(), Keyspace { policy: one.1.policy, ..keyspace(rng) }),
            });
        }
        Keyspaces { first, later }
    }
}

fn keyspace(rng: &mut Rng) -> Keyspace {
    let levels = [
        (None, None),
        (None, None),
        (Some(Level::Quorum), Some(Level::Quorum)),
        (Some(Level::One), Some(Level::All)),
        (Some(Level::All), Some(Level::One)),
        (Some(Level::One), Some(Level::Count(1))),
        (Some(Level::Count(2)), Some(Level::All)),
    ];
    let (r, w) = *rng.pick(&levels);
    Keyspace {
        r,
        w,
        policy: *rng.pick(&[Policy::Lww, Policy::Lww, Policy::Siblings]),
        ttl_ms: rng.chance(250_000).then(|| rng.range(500, 60_000)),
        durability: *rng.pick(&[Durability::Group, Durability::One, Durability::Interval]),
    }
}
