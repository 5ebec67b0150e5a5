//! What a node says of itself to all others, by gossip: where it serves, what it wishes to be, how far it has come.

use crate::handle::Addresses;
use crate::peer::sound;
use gramme_ring::Zone;
use serde::{Deserialize, Serialize};

/// The longest name of a host that is told: each of a node's addresses has it.
pub(crate) const MAX_HOST: usize = 200;

/// The largest weight of a member.
pub(crate) const MAX_WEIGHT: u32 = 1 << 20;

/// At most `gramme_ring::gossip::MAX_FACTS` bytes in postcard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// Where it serves.
    pub(crate) addresses: Addresses,
    /// The weight with which it wishes to join; without meaning once it is a member.
    pub(crate) weight: u32,
    /// Likewise the zone.
    pub(crate) zone: Zone,
    /// What it still has to copy or to look through, if there is anything.
    pub(crate) progress: Option<Progress>,
}

/// Partitions that a node has not done with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The version of the layout that it goes by.
    pub(crate) version: u64,
    /// Partitions that it is to own and does not have yet.
    pub(crate) gaining: u32,
    /// Partitions that it holds and owns no more.
    pub(crate) sweeping: u32,
    /// Partitions in which it may miss what it acknowledged.
    pub(crate) incomplete: u32,
}

impl Facts {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("facts can be encoded")
    }

    /// `None` if they can't be what a node of ours says.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Facts> {
        let facts: Facts = postcard::from_bytes(bytes).ok()?;
        (sound(&facts.addresses) && (1..=MAX_WEIGHT).contains(&facts.weight)).then_some(facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gramme_ring::gossip::MAX_FACTS;
    use proptest::prelude::*;

    fn facts(host: &str) -> Facts {
        let at = |port: u16| format!("{host}:{port}");
        Facts {
            addresses: Addresses {
                peer: at(65_535),
                redis: at(65_534),
                cluster_redis: at(65_532),
                http: at(65_533),
            },
            weight: MAX_WEIGHT,
            zone: Zone::new(&"z".repeat(Zone::MAX_LEN)).expect("it just fits"),
            progress: Some(Progress {
                version: u64::MAX,
                gaining: 1,
                sweeping: u32::MAX,
                incomplete: 16_384,
            }),
        }
    }

    #[test]
    fn the_longest_are_told_and_understood() {
        let longest = facts(&"h".repeat(MAX_HOST));
        let bytes = longest.to_bytes();
        assert!(bytes.len() <= MAX_FACTS, "{} bytes", bytes.len());
        assert_eq!(Facts::from_bytes(&bytes), Some(longest));
    }

    #[test]
    fn what_makes_no_sense_is_not_believed() {
        let sane = facts("host");
        for wrong in [
            Facts { weight: 0, ..sane.clone() },
            Facts { weight: MAX_WEIGHT + 1, ..sane.clone() },
            Facts {
                addresses: Addresses { http: "host:80\r\nX: y".into(), ..sane.addresses.clone() },
                ..sane.clone()
            },
            Facts { addresses: Addresses::default(), ..sane },
        ] {
            assert_eq!(Facts::from_bytes(&wrong.to_bytes()), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..MAX_FACTS)) {
            let _ = Facts::from_bytes(&bytes);
        }
    }
}
