//! What a read makes of its replicas' answers.

use super::{Plan, Target};
use crate::op::Need;
use crate::tally::{Shortfall, Verdict};
use alloc::vec::Vec;
use gramme_ring::NodeId;

/// What a replica says of its copy of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The object, which the caller merges with those that came before; and its digest.
    Object(u64),
    /// It has an object with this digest.
    Digest(u64),
    /// It has none, and knows that.
    Absent,
}

/// The copies that one read looks at. One replica is asked for the object, the others for digests of theirs; of those whose digest
/// differs from all that was merged the object is fetched too, so that the answer is the merge of what R replicas have (Dynamo,
/// section 4.5). Late answers are counted after the answer as well; in the end every owner that differs from the merge is repaired.
///
/// Like a [`Tally`](crate::Tally) it counts by replica, an owner and its fallback once. It knows nothing of objects but their digests:
/// any number will do that is the same for equal objects, if nobody can make others collide. A fallback's absence counts for
/// nothing: what it was to keep may be on its way; nor does what a replica says that may have lost some of its data.
///
/// ```
/// use gramme_quorum::{Answer, Copies, Need, Plan, Verdict};
/// use gramme_ring::NodeId;
///
/// let [a, b, c] = [1, 2, 3].map(NodeId);
/// let mut copies = Copies::new(Plan::new(3, [a, b, c], |_| true), [(Need::R, 2), (Need::Pr, 0)], a);
/// assert!(copies.asked().eq([(a, true), (b, false), (c, false)]));
/// copies.take(a, Answer::Object(17), false);
/// copies.take(b, Answer::Digest(23), false);
/// assert_eq!(copies.verdict(), Verdict::Pending);
/// assert_eq!(copies.fetch(), Some(b)); // its object is no part of the merge yet
/// copies.take(b, Answer::Object(23), false);
/// assert_eq!(copies.verdict(), Verdict::Met);
/// copies.take(c, Answer::Absent, false);
/// // The merge of 17 and 23 is 23, since that is the newer one: two owners lack it.
/// assert!(copies.is_complete());
/// assert!(copies.stale(23).eq([a, c]));
/// ```
#[derive(Clone, Debug)]
pub struct Copies {
    plan: Plan,
    needs: [(Need, u8); 2],
    copies: Vec<Replica>,
}

/// One replica's part in a read.
#[derive(Clone, Copy, Debug)]
struct Replica {
    node: NodeId,
    /// Whose copy it is: its own, or that of the owner it stands in for.
    owner: NodeId,
    /// It says that it may miss what it acknowledged.
    incomplete: bool,
    /// It has kept the read waiting too long to wait for it alone.
    late: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Asked, for its object or for a digest.
    Waiting {
        whole: bool,
    },
    Digest(u64),
    /// The object with this digest is merged.
    Merged(u64),
    Absent,
    /// It refused or was lost.
    No,
    /// It had one, and that is damaged for good.
    Damaged,
}

impl Replica {
    const fn new(target: Target, whole: bool) -> Replica {
        let owner = match target.stands_for {
            Some(owner) => owner,
            None => target.node,
        };
        Replica { node: target.node, owner, incomplete: false, late: false, state: State::Waiting { whole } }
    }

    fn is_primary(&self) -> bool {
        self.node == self.owner
    }

    const fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }
}

impl Copies {
    /// A read of all targets of a plan that takes this many replicas, and this many primaries among them. `first` is asked for its
    /// object, or if it is no target the plan's first one. If the plan's targets are too few the verdict says so at once.
    #[must_use]
    pub fn new(plan: Plan, needs: [(Need, u8); 2], first: NodeId) -> Copies {
        let first = plan.target(first).or(plan.targets.first()).map(|target| target.node);
        let copies =
            plan.targets.iter().map(|target| Replica::new(*target, Some(target.node) == first)).collect();
        Copies { plan, needs, copies }
    }

    /// The replicas that were asked and have not answered, each with whether its object is wanted, not only a digest.
    pub fn asked(&self) -> impl Iterator<Item = (NodeId, bool)> + '_ {
        self.copies.iter().filter_map(|copy| match copy.state {
            State::Waiting { whole } => Some((copy.node, whole)),
            _ => None,
        })
    }

    /// A replica has answered. `incomplete`: it may have lost what it acknowledged. `false` if the answer counts for nothing: it was
    /// not asked, or its object was here before. An object is to be merged in any case, which does no harm.
    pub fn take(&mut self, node: NodeId, answer: Answer, incomplete: bool) -> bool {
        let Some(copy) = self.copies.iter_mut().find(|copy| copy.node == node) else { return false };
        match (copy.state, answer) {
            // Repeated by the network, or overtaken by the full copy.
            (State::Merged(_), _) | (State::Waiting { whole: true }, Answer::Digest(_)) => return false,
            _ => {}
        }
        copy.incomplete = incomplete;
        copy.state = match answer {
            Answer::Object(digest) => State::Merged(digest),
            Answer::Digest(digest) => State::Digest(digest),
            Answer::Absent => State::Absent,
        };
        true
    }

    /// A replica refused, can't be asked any more, or has answered with what can't be understood. `false` if it was not waited for.
    pub fn no(&mut self, node: NodeId) -> bool {
        let copy = self.copies.iter_mut().find(|copy| copy.node == node && copy.is_waiting());
        copy.map(|copy| copy.state = State::No).is_some()
    }

    /// A replica has answered that its copy was read and is damaged: there is nothing to be had from it, now or later. `false` if it was
    /// not waited for.
    pub fn damaged(&mut self, node: NodeId) -> bool {
        let copy = self.copies.iter_mut().find(|copy| copy.node == node && copy.is_waiting());
        copy.map(|copy| copy.state = State::Damaged).is_some()
    }

    /// Whether these owners have said all that they have: each has given its copy, or has none, or a damaged one. If they are all there are, more
    /// than was merged is not to be had, whatever the needs are: who may have lost something could get it from no one else.
    #[must_use]
    pub fn are_all(&self, owners: &[NodeId]) -> bool {
        let said = |copy: &&Replica| match copy.state {
            State::Merged(_) | State::Absent | State::Damaged => true,
            State::Waiting { .. } | State::Digest(_) | State::No => false,
        };
        let said =
            |owner: &NodeId| self.copies.iter().filter(said).any(|c| c.is_primary() && c.node == *owner);
        owners.iter().all(said)
    }

    /// The fallback that is to be asked for its object in the stead of one that said no or stays silent, whose late answer counts
    /// all the same; as [`Plan::substitute`].
    pub fn substitute(&mut self, node: NodeId) -> Option<NodeId> {
        let target = self.plan.substitute(node)?;
        self.copies.push(Replica::new(target, true));
        Some(target.node)
    }

    /// A replica whose object is to be asked for now, since it is no part of the merge; it counts as asked from then on. To be looked
    /// at after every answer. Replicas with the same digest are asked one at a time.
    pub fn fetch(&mut self) -> Option<NodeId> {
        if self.copies.iter().any(|copy| copy.state == State::Waiting { whole: true } && !copy.late) {
            return None;
        }
        let differs = |copy: &Replica| matches!(copy.state, State::Digest(digest) if !self.is_merged(digest));
        let at = self.copies.iter().position(differs)?;
        self.copies[at].state = State::Waiting { whole: true };
        Some(self.copies[at].node)
    }

    /// The read takes longer than usual: a second replica that is to be asked for its object, one that has answered if there is one.
    pub fn hedge(&mut self) -> Option<NodeId> {
        for copy in &mut self.copies {
            copy.late |= copy.state == State::Waiting { whole: true };
        }
        self.fetch().or_else(|| {
            let next = self.copies.iter_mut().find(|copy| copy.state == State::Waiting { whole: false })?;
            next.state = State::Waiting { whole: true };
            Some(next.node)
        })
    }

    /// Those that have not answered have had their time: they are not waited for alone any more. Their
    /// [substitutes](Self::substitute) may be asked.
    pub fn late(&mut self) -> Vec<NodeId> {
        self.copies.iter_mut().for_each(|copy| copy.late = copy.is_waiting());
        self.asked().map(|(node, _)| node).collect()
    }

    /// Where it stands. [`Met`](Verdict::Met): what was merged is the answer. Ask the substitute of a replica that fails before you
    /// ask for the verdict.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let [(r_need, r), (pr_need, pr)] = self.needs;
        let (have, primaries) =
            (self.count(|c| self.counts(c)), self.count(|c| c.is_primary() && self.counts(c)));
        // Whoever fails is replaced at once while there are spares, so a copy nobody is asked for is lost.
        let open = |c: &Replica| {
            self.counts(c) || matches!(c.state, State::Waiting { .. } | State::Digest(_)) && !c.incomplete
        };
        if have >= r && primaries >= pr {
            Verdict::Met
        } else if self.count(open) < r {
            Verdict::Impossible(Shortfall { need: r_need, have, want: r })
        } else if self.count(|c| c.is_primary() && open(c)) < pr {
            Verdict::Impossible(Shortfall { need: pr_need, have: primaries, want: pr })
        } else {
            Verdict::Pending
        }
    }

    /// Whether anything was found that counts, where it need not be with primaries.
    pub(crate) fn has_value(&self) -> bool {
        let found = |copy: &Replica| matches!(copy.state, State::Merged(_)) && self.counts(copy);
        self.needs[1].1 == 0 && self.copies.iter().any(found)
    }

    /// What is missing now, for a read whose time is up.
    #[must_use]
    pub fn shortfall(&self) -> Shortfall {
        let [(r_need, r), (pr_need, pr)] = self.needs;
        let have = self.count(|c| self.counts(c));
        if have < r {
            return Shortfall { need: r_need, have, want: r };
        }
        Shortfall { need: pr_need, have: self.count(|c| c.is_primary() && self.counts(c)), want: pr }
    }

    /// Nothing more is to come.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.copies.iter().any(Replica::is_waiting)
    }

    /// Every owner that answered has the same object, and no fallback has another: nobody is stale, and the merge's digest need not
    /// be made.
    #[must_use]
    pub fn agrees(&self) -> bool {
        let mut digests = self.copies.iter().filter(|c| c.is_primary()).filter_map(|c| match c.state {
            State::Merged(digest) | State::Digest(digest) => Some(Some(digest)),
            State::Absent => Some(None),
            State::Waiting { .. } | State::No | State::Damaged => None,
        });
        let first = digests.next();
        let fallbacks_too = self.copies.iter().all(|c| match c.state {
            State::Merged(digest) => Some(Some(digest)) == first,
            _ => true,
        });
        first.is_some_and(|digest| digest.is_some()) && fallbacks_too && digests.all(|d| Some(d) == first)
    }

    /// The owners that have answered with something else than what this digest names: read repair sends them the merge.
    pub fn stale(&self, merged: u64) -> impl Iterator<Item = NodeId> + '_ {
        let stale = move |copy: &&Replica| match copy.state {
            State::Merged(theirs) | State::Digest(theirs) => theirs != merged,
            State::Absent => true,
            State::Waiting { .. } | State::No | State::Damaged => false,
        };
        self.copies.iter().filter(|copy| copy.is_primary()).filter(stale).map(|copy| copy.node)
    }

    fn is_merged(&self, digest: u64) -> bool {
        self.copies.iter().any(|copy| copy.state == State::Merged(digest))
    }

    /// Whether a replica's answer is complete knowledge, and part of the merge.
    fn counts(&self, copy: &Replica) -> bool {
        !copy.incomplete
            && match copy.state {
                State::Merged(_) => true,
                State::Digest(digest) => self.is_merged(digest),
                State::Absent => copy.is_primary(),
                State::Waiting { .. } | State::No | State::Damaged => false,
            }
    }

    /// How many owners' copies have such an answer: an owner and its stand-in are one.
    fn count(&self, is: impl Fn(&Replica) -> bool) -> u8 {
        let earlier = |at: usize, owner| self.copies[..at].iter().any(|c| c.owner == owner && is(c));
        let counted = self.copies.iter().enumerate().filter(|(at, c)| is(c) && !earlier(*at, c.owner));
        u8::try_from(counted.count()).unwrap_or(u8::MAX)
    }
}
