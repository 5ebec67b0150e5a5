//! What the keyspaces say: how many copies, how durable, for how long, and which one stays.

use super::{Checker, Invariant, Key, OpId, Outcome};
use crate::time::Time;
use gramme_quorum::{Content, Durability, Expiry, Keyspace, Level, Object, Op, Policy, Reading, Version};
use gramme_ring::Layout;
use gramme_vclock::{Dot, Stamp};
use std::collections::BTreeSet;

/// What holds for the keys of one prefix. Of durabilities and times to live that were changed in the midst of a run the weaker ones
/// count; of R and W, what is in force.
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

/// How a node sees the rules.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// N; while it changes, the smaller one.
    pub replicas: u8,
    /// The keyspaces that it knows.
    pub keyspaces: Vec<(String, Keyspace)>,
    /// Those that were in force before the change under way, if there is one: as long as it lasts the larger R and W count.
    pub before: Option<Vec<(String, Keyspace)>>,
}

impl View {
    /// R and W of the keys with this prefix.
    fn quorums(&self, prefix: &str, replicas: u8, founding: (u8, u8)) -> (u8, u8) {
        let by = |keyspaces: &[(String, Keyspace)]| {
            let of = |prefix: &str| keyspaces.iter().find(|(known, _)| known == prefix).map(|(_, one)| one);
            let own = keyspaces.iter().filter(|(known, _)| prefix.starts_with(&**known));
            let own = own.max_by_key(|(known, _)| known.len()).map(|(_, one)| one);
            let choose = |of_one: fn(&Keyspace) -> Option<Level>, founding: u8| {
                let level = own.and_then(of_one).or_else(|| of("").and_then(of_one));
                at_most(level.unwrap_or(Level::Count(founding)), replicas)
            };
            (choose(|one| one.r, founding.0), choose(|one| one.w, founding.1))
        };
        let now = by(&self.keyspaces);
        let before = self.before.as_ref().map_or(now, |before| by(before));
        (now.0.max(before.0), now.1.max(before.1))
    }
}

fn at_most(level: Level, replicas: u8) -> u8 {
    match level {
        Level::Count(n) => n.min(replicas),
        word => word.resolve(replicas).unwrap_or(0),
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
        let replicas = self.replicas.0;
        let mut rules = Rules {
            lww: keyspace.policy == Policy::Lww,
            buffered: keyspace.durability != Durability::Group,
            r: keyspace.r.map_or(self.keyspaces[0].1.r, |r| at_most(r, replicas)),
            w: keyspace.w.map_or(self.keyspaces[0].1.w, |w| at_most(w, replicas)),
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

    /// The cluster goes by this: every view that some node has of it, its largest N, and R and W for all keys that nobody has said
    /// anything of. Of views that differ the smaller R and W count, for requests under way as well.
    pub fn in_force(&mut self, views: &[View], most: u8, founding: (u8, u8)) {
        let least = views.iter().map(|view| view.replicas).min().unwrap_or(self.replicas.0);
        self.replicas = (least, most);
        for number in 0..self.keyspaces.len() {
            let prefix = self.keyspaces[number].0.clone();
            let all = views.iter().map(|view| view.quorums(&prefix, least, founding));
            if let Some((r, w)) = all.reduce(|a, b| (a.0.min(b.0), a.1.min(b.1))) {
                (self.keyspaces[number].1.r, self.keyspaces[number].1.w) = (r, w);
            }
        }
        for id in self.waiting.clone() {
            let request = &self.requests[id.index()];
            let (r, copies) = self.asked_for(request.key, &request.op);
            let request = &mut self.requests[id.index()];
            (request.r, request.copies) = (request.r.min(r), request.copies.min(copies));
            request.most = request.most.max(most);
        }
    }

    /// How many owners a request has to ask, at the least, and how many copies its acknowledgement stands for.
    pub(super) fn asked_for(&self, key: usize, op: &Op) -> (u8, u8) {
        let level = |level: Option<Level>, default: u8| level.map_or(default, |level| self.resolve(level));
        let rules = self.rules(key);
        match op {
            Op::Get { options, .. } => (level(options.r, rules.r), 0),
            Op::Put { options, .. } | Op::Delete { options, .. } => {
                (rules.r, level(options.w, rules.w).max(level(options.dw, 0)).max(level(options.pw, 0)))
            }
        }
    }

    /// A node goes by these keyspaces from now on, and no others.
    pub fn goes_by<'a>(&mut self, node: usize, prefixes: impl Iterator<Item = &'a str>) {
        let number = |prefix: &str| self.keyspaces.iter().position(|(known, _)| known == prefix);
        self.shadows[node].keyspaces = prefixes.filter_map(number).collect();
    }

    /// A node goes by this layout from now on.
    pub fn goes_by_layout(&mut self, node: usize, layout: Option<&Layout>) {
        self.shadows[node].layout = layout.cloned();
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
        // What clocks show is followed until a request ends; one that its client has given up may be minted later.
        if request.outcome != Outcome::Open {
            return None;
        }
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
                // One that does not know the longest prefix goes by a shorter one, or none.
                let name = &self.keys[request.key].name;
                let others = self.keyspaces.iter().filter(|(prefix, _)| name.starts_with(prefix.as_bytes()));
                let unaware = !self.knows_rules(node, request.key)
                    && others.flat_map(|(_, rules)| &rules.ttls).chain([&None]).any(fits);
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
                // Or what ended was replaced in the breath in which it was minted, and nobody else ever saw it.
                let hidden =
                    !seen.is_empty() && !key.dots.keys().any(ended) && self.unborn(id, seen).is_none();
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
