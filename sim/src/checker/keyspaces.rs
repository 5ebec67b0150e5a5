//! What the keyspaces say: how many copies, how durable, for how long, and which one stays.

use super::{Checker, Invariant, Key, OpId};
use crate::time::Time;
use gramme_quorum::{Content, Durability, Expiry, Keyspace, Level, Object, Op, Policy, Reading, Version};
use gramme_vclock::{Dot, Stamp};
use std::collections::BTreeSet;

/// What holds for the keys of one prefix. Of rules that were changed in the midst of a run the weaker ones count.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// Of concurrent versions the last one stays.
    pub(super) lww: bool,
    /// A write is acknowledged before it is synced, unless it names DW.
    pub(super) buffered: bool,
    pub(super) r: u8,
    pub(super) w: u8,
    /// How long a value lives whose writer said nothing of that.
    ttls: BTreeSet<Option<u64>>,
}

impl Rules {
    pub(super) fn new(r: u8, w: u8) -> Rules {
        Rules { lww: false, buffered: false, r, w, ttls: BTreeSet::from([None]) }
    }
}

impl Key {
    /// A dot's place in the order by which the last write wins.
    fn rank(&self, dot: Dot) -> (Stamp, Dot) {
        (self.dots[&dot].version.stamp, dot)
    }
}

impl Checker {
    /// The operator is about to commit to this. Clients use keys with a new prefix only when all nodes go by it.
    pub fn commits(&mut self, prefix: &str, keyspace: &Keyspace) {
        let replicas = self.replicas;
        let least = |level: Option<Level>, others: u8| {
            level.map_or(others, |level| match level {
                Level::Count(n) => n.min(replicas),
                word => word.resolve(replicas).unwrap_or(0),
            })
        };
        let mut rules = Rules {
            lww: keyspace.policy == Policy::Lww,
            buffered: keyspace.durability != Durability::Group,
            r: least(keyspace.r, self.keyspaces[0].1.r),
            w: least(keyspace.w, self.keyspaces[0].1.w),
            ttls: BTreeSet::from([keyspace.ttl_ms]),
        };
        if let Some((_, former)) = self.keyspaces.iter_mut().find(|(known, _)| known == prefix) {
            former.buffered |= rules.buffered;
            former.r = former.r.min(rules.r);
            former.w = former.w.min(rules.w);
            former.ttls.append(&mut rules.ttls);
            return;
        }
        self.keyspaces.push((prefix.to_owned(), rules));
        for number in 0..self.keys.len() {
            self.keys[number].keyspace = self.keyspace_of(&self.keys[number].name);
        }
    }

    /// A node goes by these keyspaces from now on, and no others.
    pub fn goes_by<'a>(&mut self, node: usize, prefixes: impl Iterator<Item = &'a str>) {
        let number = |prefix: &str| self.keyspaces.iter().position(|(known, _)| known == prefix);
        self.shadows[node].keyspaces = prefixes.filter_map(number).collect();
    }

    /// The keyspace of a key, by number: the longest prefix; 0 for all others.
    pub(super) fn keyspace_of(&self, key: &[u8]) -> usize {
        let fits =
            self.keyspaces.iter().enumerate().filter(|(_, (prefix, _))| key.starts_with(prefix.as_bytes()));
        fits.max_by_key(|(_, (prefix, _))| prefix.len()).map_or(0, |(number, _)| number)
    }

    pub(super) fn rules(&self, key: usize) -> &Rules {
        &self.keyspaces[self.keys[key].keyspace].1
    }

    /// Whether a node goes by a key's rules. One that was set back, or is new, has yet to learn of them.
    fn knows_rules(&self, node: usize, key: usize) -> bool {
        let number = self.keys[key].keyspace;
        number == 0 || self.shadows[node].keyspaces.contains(&number)
    }

    /// Nodes that have a dot as durably as its write's acknowledgement says.
    pub(super) fn holders(&self, id: OpId, dot: Dot) -> u128 {
        let request = &self.requests[id.index()];
        let birth = &self.keys[request.key].dots[&dot];
        let synced = matches!(&request.op, Op::Put { options, .. } | Op::Delete { options, .. } if options.dw.is_some());
        if synced || !self.rules(request.key).buffered {
            birth.durable_at
        } else {
            birth.durable_at | birth.written_at
        }
    }

    /// A value expires when its writer said, or when its keyspace says.
    pub(super) fn check_expiry(&self, now: Time, node: usize, op: OpId, version: &Version) -> Option<String> {
        let request = &self.requests[op.index()];
        let Op::Put { expiry, .. } = &request.op else { return None };
        let passed = u64::try_from(now.since(request.submitted).as_millis()).unwrap_or(u64::MAX);
        let latest = request.walls.1.saturating_add(passed).saturating_add(1);
        let fits = |ttl: &Option<u64>| match (ttl, version.expiry) {
            (None, None) => true,
            (Some(ms), Some(Expiry(at))) => {
                (request.walls.0.saturating_add(*ms)..=latest.saturating_add(*ms)).contains(&at)
            }
            _ => false,
        };
        let sound = match expiry {
            Some(Expiry::NEVER) => version.expiry.is_none(),
            Some(at) => version.expiry == Some(*at),
            None => {
                let unaware = !self.knows_rules(node, request.key) && fits(&None);
                unaware || self.rules(request.key).ttls.iter().any(fits)
            }
        };
        (!sound).then(|| {
            format!("node {node} lets {op} expire at {:?}, which its writer did not ask for", version.expiry)
        })
    }

    /// Where the last write wins, an object has what ranks highest of all that it has seen, and a copy nothing else: so merging is
    /// a join whose outcome is known.
    pub(super) fn check_last(&mut self, now: Time, node: usize, number: usize, object: &Object, copy: bool) {
        if !self.rules(number).lww {
            return;
        }
        let key = &self.keys[number];
        let last = object.iter().map(|(dot, version)| (version.stamp, dot)).max();
        let lost = key.present.iter().copied().find(|dot| {
            object.seen().contains(*dot) && !key.dots[dot].excused && last < Some(key.rank(*dot))
        });
        if let Some(dot) = lost {
            let what = format!("node {node} has seen {dot}, and keeps what it outranks: {object:?}");
            self.fail(now, Invariant::LastWriteWins, Some(number), what);
        } else if copy && self.knows_rules(node, number) && object.iter().count() != 1 {
            let what = format!("node {node} keeps more or less than the last write: {object:?}");
            self.fail(now, Invariant::LastWriteWins, Some(number), what);
        }
    }

    /// What a read shows where the last write wins: one value, and none that is outranked by what it knows of.
    pub(super) fn check_shown(&mut self, now: Time, id: OpId, reading: &Reading) {
        let request = &self.requests[id.index()];
        let number = request.key;
        if !self.rules(number).lww {
            return;
        }
        let key = &self.keys[number];
        let (seen, top) = (&reading.context.seen, reading.context.stamp);
        let known = |dot: &&Dot| seen.contains(**dot) && !key.dots[*dot].excused;
        let what = match &reading.siblings[..] {
            [] => {
                let ended = |dot: &Dot| {
                    let birth = &key.dots[dot];
                    let over =
                        birth.version.content == Content::Tombstone || birth.expiry_is_by(request.walls.1);
                    birth.version.stamp == top && over && seen.contains(*dot)
                };
                let hidden = !seen.is_empty() && !key.dots.keys().any(ended);
                hidden
                    .then(|| format!("{id} was shown nothing, and nothing that ended comes last of {seen:?}"))
            }
            [found] => {
                let outranked = |dot: &&Dot| key.rank(**dot) > (found.stamp, found.dot);
                let over = key.present.iter().filter(known).find(outranked);
                over.map(|dot| format!("{id} was shown {}, which {dot} outranks", found.dot))
            }
            several => Some(format!("{id} was shown {} values", several.len())),
        };
        let later = key.present.iter().filter(known).find(|dot| key.rank(**dot).0 > top);
        let later =
            later.map(|dot| format!("{id} read a context of {top:?} that covers {dot}, which is later"));
        if let Some(what) = what.or(later) {
            self.fail(now, Invariant::LastWriteWins, Some(number), what);
        }
    }

    /// Whether a copy has what outranks a dot.
    pub(super) fn is_outranked(&self, number: usize, dot: Dot, copy: Option<&Object>) -> bool {
        let rank = self.keys[number].rank(dot);
        self.rules(number).lww
            && copy.is_some_and(|copy| copy.iter().any(|(other, version)| (version.stamp, other) > rank))
    }
}
