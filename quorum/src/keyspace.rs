//! Keyspaces: prefixes of keys with rules of their own, which the cluster commits to like its members.
//!
//! The longest prefix that a key begins with names its rules; the empty one holds for all other keys, and gives R and W
//! to those that say nothing of them. A keyspace stays, and so does its policy: what `lww` has discarded no other policy
//! brings back.
//!
//! ```
//! use gramme_quorum::{Keyspace, Level, Policy};
//!
//! let sessions = Keyspace { policy: Policy::Lww, w: Some(Level::One), ttl_ms: Some(3_600_000), ..Keyspace::default() };
//! let change = sessions.change("session:")?;
//! // Stage it with `ClusterOp::Stage(change)`, then commit.
//! # let gramme_ring::Change::Setting { name, value: Some(value) } = change else { panic!() };
//! assert_eq!(Keyspace::read(&name, &value), Some(("session:", sessions)));
//! # Ok::<(), gramme_quorum::KeyspaceError>(())
//! ```

use crate::object::{Object, Rank, Version};
use crate::op::Level;
use crate::view::copies;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::fmt;
use gramme_ring::{Change, Layout, Membership};
use gramme_vclock::Dot;
use serde::{Deserialize, Serialize};

/// Bytes of the longest prefix.
pub const MAX_PREFIX: usize = 128;
/// Milliseconds of the longest time to live: a hundred years.
pub const MAX_TTL_MS: u64 = 100 * 366 * 86_400_000;
/// Most keyspaces of a cluster.
pub const MAX_KEYSPACES: usize = 64;

/// Begins the name of the setting that a keyspace is kept in; its prefix follows.
const NAME: &str = "keyspace/";
/// The first byte of the setting's value: how the rest is written. What held before follows, and the keyspace itself.
const FORMAT: u8 = 3;

/// What held before a change, by which older writes were acknowledged. The engine that stages the change fills it in.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Before {
    /// The least W that any keyspace has had, so that recovery knows how many nodes to ask.
    least: u8,
    /// R, W and policy of these keys.
    r: u8,
    w: u8,
    policy: Policy,
    /// The layout's version under which that was so; the change enters the next one.
    version: u64,
}

/// What becomes of concurrent writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// Both stay, until a writer who has seen them says what they come to.
    #[default]
    Siblings,
    /// The one with the larger stamp stays (then the larger dot), whether it is a value or a tombstone: the last write wins,
    /// and the other is lost.
    Lww,
}

/// What an acknowledgement means for the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// W replicas have synced it. One sync serves all writes that wait for one.
    #[default]
    Group,
    /// W replicas have it in their logs, and one replica, the first of the preference list that is alive, syncs it at once,
    /// which the answer does not wait for: Dynamo's buffered writes (section 6.1). What only had been written is lost if W machines
    /// lose their power before they sync.
    One,
    /// W replicas have it in their logs, and sync it within [`Timing::interval`](crate::Timing::interval).
    Interval,
}

impl Policy {
    /// A version's place in the order by which a plain read chooses, and `Lww` discards.
    #[must_use]
    pub const fn rank(self, version: &Version, dot: Dot) -> Rank {
        let value = match self {
            Policy::Siblings => version.is_value(),
            Policy::Lww => true,
        };
        Rank { value, stamp: version.stamp, dot }
    }

    /// Discards what this policy does not keep; whether there was anything.
    ///
    /// A stamp exceeds all that its write covers, so of all versions that went into an object the one that ranks highest is
    /// still there: to merge and then settle is a join again.
    pub fn settle(self, object: &mut Object) -> bool {
        if self == Policy::Siblings {
            return false;
        }
        let last = object.iter().map(|(dot, version)| self.rank(version, dot)).max();
        last.and_then(|last| object.keep_only(last.dot)).is_some_and(|gone| gone > 0)
    }
}

/// The rules of one keyspace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyspace {
    /// Replicas that a read asks for, unless it says otherwise; `None`: as many as for keys without a keyspace.
    pub r: Option<Level>,
    /// Replicas that a write asks for, unless it says otherwise; `None`: as many as for keys without a keyspace.
    pub w: Option<Level>,
    /// What becomes of concurrent writes. It never changes, and where the last write wins it does for every longer prefix that comes later.
    pub policy: Policy,
    /// After how many milliseconds a value expires whose writer said nothing of that.
    pub ttl_ms: Option<u64>,
    /// What an acknowledgement means; a request that names DW waits for syncs in any case.
    pub durability: Durability,
}

impl Keyspace {
    /// The change to be staged for the keys with this prefix; the empty one: for all that have no keyspace.
    ///
    /// # Errors
    /// [`KeyspaceError`] for a prefix, a level or a time to live that can't be.
    pub fn change(&self, prefix: &str) -> Result<Change, KeyspaceError> {
        if prefix.len() > MAX_PREFIX {
            return Err(KeyspaceError::Prefix(prefix.len()));
        }
        if [self.r, self.w].contains(&Some(Level::Count(0))) {
            return Err(KeyspaceError::Level(u8::MAX));
        }
        if self.ttl_ms.is_some_and(|ms| ms == 0 || ms > MAX_TTL_MS) {
            return Err(KeyspaceError::Ttl);
        }
        let value = Some(self.write(Before::default()));
        Ok(Change::Setting { name: format!("{NAME}{prefix}"), value })
    }

    /// The prefix and the rules that a setting stands for; `None` for other settings, and for what another release wrote.
    #[must_use]
    pub fn read<'a>(name: &'a str, value: &[u8]) -> Option<(&'a str, Keyspace)> {
        Self::read_whole(name, value).map(|(prefix, keyspace, _)| (prefix, keyspace))
    }

    fn write(&self, before: Before) -> Vec<u8> {
        postcard::to_extend(&(before, self), alloc::vec![FORMAT])
            .expect("serializing into memory does not fail")
    }

    fn read_whole<'a>(name: &'a str, value: &[u8]) -> Option<(&'a str, Keyspace, Before)> {
        let prefix = name.strip_prefix(NAME)?;
        let [FORMAT, rest @ ..] = value else { return None };
        let ((before, keyspace), rest): ((Before, Keyspace), _) = postcard::take_from_bytes(rest).ok()?;
        let sound = rest.is_empty() && keyspace.change(prefix).is_ok();
        sound.then_some((prefix, keyspace, before))
    }

    /// Whether the machine's end may take acknowledged writes with it, so that a store that was not closed in good order is
    /// [incomplete](crate::Config::unsynced). While a transition is live, by which rules may have changed, this node may have
    /// acknowledged by the former ones.
    pub fn outruns_the_disk(membership: &Membership) -> bool {
        let changing = membership.transition().is_some();
        Keyspace::all(membership).any(|(_, keyspace)| changing || keyspace.durability != Durability::Group)
    }

    /// All that a cluster has committed to, by prefix.
    pub fn all(membership: &Membership) -> impl Iterator<Item = (&str, Keyspace)> {
        membership.settings().filter_map(|(name, value)| Keyspace::read(name, value))
    }

    /// The policy by which this node goes for these keys; `None` where no keyspace has this prefix. The one that is committed, but nothing
    /// is discarded before the change that says so is made everywhere: until then another commit might displace it.
    #[must_use]
    pub fn policy_in_force(membership: &Membership, prefix: &str) -> Option<Policy> {
        let mut all = membership.settings().filter_map(|(name, value)| Keyspace::read_whole(name, value));
        let (_, keyspace, before) = all.find(|(known, ..)| *known == prefix)?;
        Some(keyspace.policy_while(before, entered(membership)))
    }

    /// The policy that counts while the transition from a layout of this version is live.
    fn policy_while(&self, before: Before, entered: Option<u64>) -> Policy {
        if entered == Some(before.version) { before.policy } else { self.policy }
    }
}

/// The version of the layout that is being left, while a transition is live.
fn entered(membership: &Membership) -> Option<u64> {
    membership.transition().map(|transition| transition.from().version().0)
}

/// Why a keyspace can't be. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyspaceError {
    /// The prefix has so many bytes, more than [`MAX_PREFIX`].
    Prefix(usize),
    /// R or W is zero, or more than this N.
    Level(u8),
    /// The time to live is zero, or more than [`MAX_TTL_MS`].
    Ttl,
    /// The policy of its keys is another one, and stays.
    PolicyStays(Policy),
    /// A keyspace can't be taken away: its keys would go by another policy.
    Stays,
    /// There are [`MAX_KEYSPACES`] already.
    Full,
    /// It is not written as this release does.
    Malformed,
}

impl fmt::Display for KeyspaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyspaceError::Prefix(bytes) => {
                write!(f, "a keyspace's prefix has at most {MAX_PREFIX} bytes, this one has {bytes}")
            }
            KeyspaceError::Level(n) => {
                write!(f, "r and w are numbers from 1 to {n}, or one, quorum or all")
            }
            KeyspaceError::Ttl => f.write_str("a time to live is at least 1 ms and at most 100 years"),
            KeyspaceError::PolicyStays(policy) => write!(
                f,
                "the policy of these keys is {policy}, and stays: copy them to another prefix to have another"
            ),
            KeyspaceError::Stays => f.write_str("a keyspace stays: its keys would go by another policy"),
            KeyspaceError::Full => write!(f, "a cluster has at most {MAX_KEYSPACES} keyspaces"),
            KeyspaceError::Malformed => f.write_str("it is not written as this release writes keyspaces"),
        }
    }
}

impl core::error::Error for KeyspaceError {}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Durability::Group => "group",
            Durability::One => "one",
            Durability::Interval => "interval",
        })
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Policy::Siblings => "siblings",
            Policy::Lww => "lww",
        })
    }
}

/// What holds for one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    r: Level,
    w: Level,
    /// R and W before, until the change is made everywhere; 0 if they are as they were.
    before: (u8, u8),
    pub(crate) policy: Policy,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) durability: Durability,
}

impl Rules {
    /// R among so many replicas. While a change is under way some write by the former rules and some read by them, and each of
    /// those has to meet the others: so the larger R counts, and the larger W.
    pub(crate) fn r(&self, replicas: u8) -> u8 {
        at_most(self.r, replicas).max(self.before.0.min(replicas))
    }

    /// W among so many replicas.
    pub(crate) fn w(&self, replicas: u8) -> u8 {
        at_most(self.w, replicas).max(self.before.1.min(replicas))
    }

    /// Whether reads among so many replicas, with the new R, may miss what was written among so many with the former W, or one before that
    /// (`least`), and did not before. Of W copies those are left that are not with owners that go; who becomes an owner copies all.
    fn falls(&self, from: u8, to: u8, least: u8) -> bool {
        let or = |before: u8, level: Level| if before > 0 { before } else { at_most(level, from) };
        let (r, w) = (or(self.before.0, self.r), or(self.before.1, self.w));
        let go = from.saturating_sub(to);
        let falls = |w: u8| {
            let lack = (from - go).saturating_sub(w.saturating_sub(go));
            from.saturating_sub(w) < r && lack >= at_most(self.r, to)
        };
        falls(w) || falls(w.min(least))
    }
}

fn at_most(level: Level, replicas: u8) -> u8 {
    match level {
        Level::Count(n) => n.min(replicas),
        word => word.resolve(replicas).unwrap_or(0),
    }
}

/// The rules of all keys.
#[derive(Clone, Debug)]
pub(crate) struct Keyspaces {
    /// Those of a cluster that has committed to none.
    founding: (Level, Level),
    others: Rules,
    /// The longest prefixes first.
    list: Vec<(String, Rules)>,
    /// The least W of earlier rules.
    least: u8,
    /// A change is under way, of R or N, after which reads may not meet what was written before.
    pub(crate) falls: bool,
}

impl Keyspaces {
    pub(crate) fn new(r: u8, w: u8) -> Keyspaces {
        let (r, w) = (Level::Count(r), Level::Count(w));
        let before = (0, 0);
        let others =
            Rules { r, w, before, policy: Policy::Siblings, ttl_ms: None, durability: Durability::Group };
        Keyspaces { founding: (r, w), others, list: Vec::new(), least: u8::MAX, falls: false }
    }

    /// Goes by what is committed now.
    pub(crate) fn adopt(&mut self, membership: &Membership) {
        let layout = membership.layout();
        let entered = entered(membership);
        // What a keyspace does not say it has from the others, what held before included.
        let rules = |keyspace: Keyspace, before: Before, others: &Rules| {
            let policy = keyspace.policy_while(before, entered);
            let before = (entered == Some(before.version)).then_some((before.r, before.w));
            let inherited = (
                if keyspace.r.is_none() { others.before.0 } else { 0 },
                if keyspace.w.is_none() { others.before.1 } else { 0 },
            );
            Rules {
                r: keyspace.r.unwrap_or(others.r),
                w: keyspace.w.unwrap_or(others.w),
                before: before.unwrap_or(inherited),
                policy,
                ttl_ms: keyspace.ttl_ms,
                durability: keyspace.durability,
            }
        };
        let all: Vec<(&str, Keyspace, Before)> =
            membership.settings().filter_map(|(name, value)| Keyspace::read_whole(name, value)).collect();
        self.least = all.iter().map(|(.., before)| before.least).fold(u8::MAX, u8::min);
        let (r, w) = self.founding;
        self.others = Rules { r, w, ..Keyspaces::new(0, 0).others };
        if let Some((_, keyspace, before)) = all.iter().find(|(prefix, ..)| prefix.is_empty()) {
            self.others = rules(*keyspace, *before, &self.others);
        }
        let named = all.iter().filter(|(prefix, ..)| !prefix.is_empty());
        let named =
            named.map(|(prefix, one, before)| ((*prefix).to_owned(), rules(*one, *before, &self.others)));
        self.list = named.collect();
        self.list.sort_by_key(|(prefix, _)| Reverse(prefix.len()));
        let to = layout.map_or(0, copies);
        let from = membership.transition().map_or(to, |transition| copies(transition.from()));
        let falls = |rules: &Rules| rules.falls(from, to, self.least);
        self.falls = falls(&self.others) || self.list.iter().any(|(_, rules)| falls(rules));
    }

    /// The rules of a key.
    pub(crate) fn of(&self, key: &[u8]) -> &Rules {
        let own = self.list.iter().find(|(prefix, _)| key.starts_with(prefix.as_bytes()));
        own.map_or(&self.others, |(_, rules)| rules)
    }

    /// The rules of keys without a keyspace.
    pub(crate) const fn others(&self) -> &Rules {
        &self.others
    }

    /// The smallest W that promises an intersection, now or when older keys were written: the least that reached a quorum. W = 1
    /// promises none. A request may name a smaller one than its keyspace's: no more than a majority is relied upon.
    pub(crate) fn least_w(&self, replicas: u8) -> u8 {
        let others = at_most(self.others.w, replicas).min(self.least).min(at_most(Level::Quorum, replicas));
        let named = self.list.iter().map(|(_, rules)| at_most(rules.w, replicas));
        named.filter(|w| *w > 1).fold(others, u8::min)
    }

    /// The prefix of keys whose reads and writes meet with so many replicas, and would not with so many others.
    pub(crate) fn pulled_apart(&self, before: u8, after: u8) -> Option<&str> {
        let meet = |rules: &Rules, n: u8| {
            u16::from(at_most(rules.r, n)) + u16::from(at_most(rules.w, n)) > u16::from(n)
        };
        let apart = |rules: &Rules| meet(rules, before) && !meet(rules, after);
        let named = self.list.iter().find(|(_, rules)| apart(rules)).map(|(prefix, _)| prefix.as_str());
        named.or_else(|| apart(&self.others).then_some(""))
    }

    /// The largest W of any key.
    pub(crate) fn most_w(&self, replicas: u8) -> u8 {
        self.list.iter().map(|(_, rules)| rules.w(replicas)).fold(self.others.w(replicas), u8::max)
    }

    /// A change as it is to be staged: it carries on what holds until then. The value that it replaces may be the only one that
    /// tells of a smaller W.
    pub(crate) fn remember(&self, change: Change, layout: Option<&Layout>) -> Change {
        let Some(layout) = layout else { return change };
        let Change::Setting { name, value: Some(value) } = &change else { return change };
        let Some((prefix, keyspace)) = Keyspace::read(name, value) else { return change };
        // By N, not by the members that there are: what few of them hold, all that join will hold.
        let n = layout.replicas();
        let (rules, version) = (self.of(prefix.as_bytes()), layout.version().0);
        let (r, w) = (at_most(rules.r, n), at_most(rules.w, n));
        // With fewer members than N writes have gone by as many copies as there are.
        let least = self.least_w(n).min(self.least_w(copies(layout))).max(2);
        let before = Before { least, r, w, policy: rules.policy, version };
        Change::Setting { name: name.clone(), value: Some(keyspace.write(before)) }
    }
}

/// Whether a change may be staged, or committed, on top of this.
pub(crate) fn check(membership: &Membership, change: &Change, replicas: u8) -> Result<(), KeyspaceError> {
    let Change::Setting { name, value } = change else { return Ok(()) };
    if !name.starts_with(NAME) {
        return Ok(());
    }
    let Some(value) = value else { return Err(KeyspaceError::Stays) };
    let (prefix, keyspace) = Keyspace::read(name, value).ok_or(KeyspaceError::Malformed)?;
    let levels = [keyspace.r, keyspace.w];
    if levels.into_iter().flatten().any(|level| level.resolve(replicas).is_none()) {
        return Err(KeyspaceError::Level(replicas));
    }
    let others = Keyspace::all(membership).filter(|(known, _)| *known != prefix).count();
    let fits = Keyspace::all(membership).filter(|(known, _)| prefix.starts_with(known));
    let before = fits.max_by_key(|(known, _)| known.len());
    let stays = match before {
        // Keys without a keyspace have had their policy since the cluster was founded.
        None => prefix.is_empty().then_some(Policy::default()),
        // Some node may come back from an old copy, and by that discard these keys' siblings.
        Some((known, before)) => (known == prefix || before.policy == Policy::Lww).then_some(before.policy),
    };
    match stays {
        Some(policy) if policy != keyspace.policy => Err(KeyspaceError::PolicyStays(policy)),
        _ if others >= MAX_KEYSPACES => Err(KeyspaceError::Full),
        _ => Ok(()),
    }
}
