//! What the keyspaces say: how many copies, how durable, for how long, and which one stays.

use super::{Checker, Invariant, Key, OpId, Outcome};
use crate::time::Time;
use gramme_quorum::message::{Message, Purpose, Syncing};
use gramme_quorum::{
    Content, Durability, Expiry, Keyspace, Level, Object, Op, Output, Policy, Reading, Version,
};
use gramme_ring::Layout;
use gramme_vclock::{Dot, Stamp};
use std::collections::BTreeSet;

/// What holds for the keys of one prefix. Of durabilities and times to live that were changed in the midst of a run the weaker ones
/// count.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// Of concurrent versions the last one stays.
    pub(super) lww: bool,
    /// A write is acknowledged before it is synced, unless it names DW.
    pub(super) buffered: bool,
    /// How long a value lives whose writer said nothing of that.
    ttls: BTreeSet<Option<u64>>,
}

impl Rules {
    pub(super) fn new() -> Rules {
        Rules { lww: false, buffered: false, ttls: BTreeSet::from([None]) }
    }
}

/// The rules that a node goes by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// The keyspaces that it knows.
    pub keyspaces: Vec<(String, Keyspace)>,
    /// Those that were in force before the change under way, if there is one, and N then: as long as it lasts the larger R and W count.
    pub before: Option<(Vec<(String, Keyspace)>, u8)>,
    /// R and W where nobody has said anything of them.
    pub founding: (u8, u8),
}

/// What a request asks for by one layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// The layout's hash.
    pub layout: u64,
    /// Owners that have to have nothing before a key is said to be absent.
    pub r: u8,
    /// Copies that an acknowledgement stands for.
    pub w: u8,
}

/// So many writes in a row of which no replica is asked to sync at once can't be chance.
const MANY_ONES: u32 = 10;

impl View {
    /// R and W of a key with so many copies.
    pub(crate) fn rules(&self, key: &[u8], replicas: u8) -> (u8, u8) {
        let levels = |keyspaces: &[(String, Keyspace)]| {
            let fits = keyspaces.iter().filter(|(prefix, _)| key.starts_with(prefix.as_bytes()));
            let own = fits.max_by_key(|(prefix, _)| prefix.len()).map(|(_, one)| one);
            let others = keyspaces.iter().find(|(prefix, _)| prefix.is_empty()).map(|(_, one)| one);
            let choose = |of_one: fn(&Keyspace) -> Option<Level>, founding: u8| {
                let level = own.and_then(of_one).or_else(|| others.and_then(of_one));
                level.unwrap_or(Level::Count(founding))
            };
            [choose(|one| one.r, self.founding.0), choose(|one| one.w, self.founding.1)]
        };
        let now = levels(&self.keyspaces);
        let before = self.before.as_ref().map(|(before, n)| (levels(before), *n));
        let [r, w] = [0, 1].map(|of| {
            let count = at_most(now[of], replicas);
            // What does not change but for N goes by the N of each layout.
            let before = before.as_ref().filter(|(levels, _)| levels[of] != now[of]);
            count.max(before.map_or(0, |(levels, n)| at_most(levels[of], *n).min(replicas)))
        });
        (r, w)
    }

    /// What a request asks for by a layout with so many copies of each key.
    #[must_use]
    pub fn quorum(&self, op: &Op, layout: u64, replicas: u8) -> Quorum {
        let rules = self.rules(op.key(), replicas);
        let level = |level: Option<Level>| level.and_then(|level| level.resolve(replicas));
        let (r, w) = match op {
            Op::Get { options, .. } => {
                (level(options.r).unwrap_or(rules.0).max(level(options.pr).unwrap_or(0)), 0)
            }
            Op::Put { options, .. } | Op::Delete { options, .. } => {
                let [pw, dw] = [options.pw, options.dw].map(|named| level(named).unwrap_or(0));
                // A plain delete reads first, and from as many primaries as it is to write to.
                (rules.0.max(pw), level(options.w).unwrap_or(rules.1).max(pw).max(dw))
            }
        };
        Quorum { layout, r, w }
    }
}

fn at_most(level: Level, replicas: u8) -> u8 {
    match level {
        Level::Count(n) => n.min(replicas),
        word => word.resolve(replicas).unwrap_or(0),
    }
}

/// What a node mints in a step, in a keyspace of which one replica syncs at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct One {
    node: usize,
    key: usize,
    dot: Dot,
    /// Somebody is asked to sync at once.
    synced: bool,
    /// Others that are asked for a copy.
    others: usize,
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
        let mut rules = Rules {
            lww: keyspace.policy == Policy::Lww,
            buffered: keyspace.durability != Durability::Group,
            ttls: BTreeSet::from([keyspace.ttl_ms]),
        };
        if let Some((_, former)) = self.keyspaces.iter_mut().find(|(known, _)| known == prefix) {
            former.buffered |= rules.buffered;
            former.ttls.append(&mut rules.ttls);
            return;
        }
        // A node whose disk was set back, without limits perhaps the coordinator, goes by the shorter prefix.
        let shorter = &self.keyspaces[self.keyspace_of(prefix.as_bytes())].1;
        rules.buffered |= !self.limited && shorter.buffered;
        self.keyspaces.push((prefix.to_owned(), rules));
        for number in 0..self.keys.len() {
            self.keys[number].keyspace = self.keyspace_of(&self.keys[number].name);
        }
    }

    /// The least N that some node goes by, and the largest.
    pub fn in_force(&mut self, least: u8, most: u8) {
        self.replicas = (least, most);
        self.widest = self.widest.max(most);
        for id in &self.waiting {
            let request = &mut self.requests[id.index()];
            request.most = request.most.max(most);
        }
    }

    /// A node goes by these keyspaces from now on, and no others.
    pub fn goes_by<'a>(&mut self, node: usize, prefixes: impl Iterator<Item = &'a str>) {
        let number = |prefix: &str| self.keyspaces.iter().position(|(known, _)| known == prefix);
        self.shadows[node].keyspaces = prefixes.filter_map(number).collect();
    }

    /// Whether of what a request writes the last one stays.
    #[must_use]
    pub fn is_lww(&self, id: OpId) -> bool {
        self.rules(self.requests[id.index()].key).lww
    }

    /// Of a key of this node's rules one replica syncs at once, and no change of that is under way.
    fn syncs_one(&self, node: usize, key: usize) -> bool {
        let View { keyspaces, before, .. } = &self.shadows[node].view;
        let name = &self.keys[key].name;
        let fits = keyspaces.iter().filter(|(prefix, _)| name.starts_with(prefix.as_bytes()));
        let own = fits.max_by_key(|(prefix, _)| prefix.len());
        before.is_none() && own.is_some_and(|(_, one)| one.durability == Durability::One)
    }

    /// A node has done this, and perhaps more in the same step: who is asked to sync what was minted in it.
    pub(super) fn note_syncs(&mut self, node: usize, outputs: &[Output]) {
        for (key, dot) in self.born.clone() {
            let names_dw = |op: OpId| {
                let Op::Put { options, .. } = &self.requests[op.index()].op else { return true };
                options.dw.is_some()
            };
            let by_rules = self.keys[key].dots[&dot].op.is_some_and(|op| !names_dw(op));
            if by_rules && self.syncs_one(node, key) {
                self.ones.push(One { node, key, dot, synced: false, others: 0 });
            }
        }
        for one in &mut self.ones {
            for output in outputs {
                match output {
                    Output::Sync => one.synced = true,
                    Output::Send(_, Message::Write { purpose: Purpose::Write, key, sync, .. })
                        if *key == self.keys[one.key].name =>
                    {
                        one.synced |= *sync == Syncing::Now;
                        one.others += 1;
                    }
                    _ => {}
                }
            }
        }
    }

    /// A node's step is over. Where all replicas were asked, one of them was asked to sync at once, unless it was replaced just then: so of
    /// many one was.
    pub fn step_ends(&mut self, now: Time, node: usize) {
        for One { node: of, key, dot, synced, others } in std::mem::take(&mut self.ones) {
            let shadow = &self.shadows[node];
            let held = shadow.copies.get(&key).is_some_and(|copy| copy.object.get(dot).is_some());
            let all = shadow.layout.as_ref().is_some_and(|layout| others + 1 >= layout.owner_count());
            if of != node || !held || !all || !self.syncs_one(node, key) {
                continue;
            }
            self.unsynced_ones = if synced { 0 } else { self.unsynced_ones + 1 };
            if self.unsynced_ones == MANY_ONES {
                let what = format!(
                    "node {node} mints {dot}, and of {MANY_ONES} in a row nobody was asked to sync one at once"
                );
                self.fail(now, Invariant::AcknowledgedCopies, Some(key), what);
            }
        }
    }

    /// A node sees the rules so from now on.
    pub fn sees(&mut self, node: usize, view: View) {
        self.shadows[node].view = view;
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
                        birth.version.content == Content::Tombstone || self.is_hidden_by(request, *dot);
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
