//! Counting answers by replica.

use crate::op::Need;
use alloc::vec::Vec;
use gramme_ring::NodeId;

/// How far a question has come. Each level is reached once; repeated answers change nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// More answers are needed and may come.
    Pending,
    /// Every condition holds.
    Met,
    /// A condition can't hold any more, whatever is still to come.
    Impossible(Shortfall),
}

/// Which condition fell short, and by how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// The condition.
    pub need: Need,
    /// Replicas that count toward it.
    pub have: u8,
    /// Replicas it takes.
    pub want: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Asked,
    Yes,
    No,
}

/// The answers of one request's replicas. A node counts once, whatever it sends how often; an owner and those who
/// stand in for it count once together, since what a fallback holds is the owner's copy on its way.
///
/// ```
/// use gramme_quorum::{Need, Tally, Verdict};
/// use gramme_ring::NodeId;
///
/// let (a, b, c, fallback) = (NodeId(1), NodeId(2), NodeId(3), NodeId(4));
/// let mut tally = Tally::new([(Need::W, 2), (Need::Pw, 1)]);
/// for owner in [a, b, c] {
///     tally.ask(owner, None);
/// }
/// tally.ask(fallback, Some(c)); // c is silent
/// tally.yes(fallback);
/// tally.yes(fallback); // repeated by the network
/// tally.yes(c); // late: the same copy's second witness
/// assert_eq!(tally.verdict(), Verdict::Pending);
/// tally.no(a);
/// tally.yes(b);
/// assert_eq!(tally.verdict(), Verdict::Met);
/// ```
#[derive(Clone, Debug)]
pub struct Tally {
    /// What it takes: of all replicas, and of primaries.
    all: (Need, u8),
    primaries: (Need, u8),
    replicas: Vec<Replica>,
}

#[derive(Clone, Copy, Debug)]
struct Replica {
    node: NodeId,
    /// Whose copy it holds: its own, or that of the owner it stands in for.
    owner: NodeId,
    answer: Answer,
}

impl Replica {
    fn is_primary(&self) -> bool {
        self.node == self.owner
    }
}

impl Tally {
    /// A tally that asks for this many replicas, and this many primaries among them.
    #[must_use]
    pub const fn new([all, primaries]: [(Need, u8); 2]) -> Tally {
        Tally { all, primaries, replicas: Vec::new() }
    }

    /// A replica is being asked: an owner, or a fallback for one. Asking it again changes nothing.
    pub fn ask(&mut self, node: NodeId, stands_for: Option<NodeId>) {
        if self.answer(node).is_none() {
            let owner = stands_for.unwrap_or(node);
            self.replicas.push(Replica { node, owner, answer: Answer::Asked });
        }
    }

    /// A replica agreed. `false` if it was not asked, or had agreed before. A late yes beats a no: it was
    /// given up, and answered all the same.
    pub fn yes(&mut self, node: NodeId) -> bool {
        self.set(node, Answer::Yes)
    }

    /// A replica refused, or can't answer any more. A yes stands.
    pub fn no(&mut self, node: NodeId) -> bool {
        self.answer(node) == Some(Answer::Asked) && self.set(node, Answer::No)
    }

    /// Whether this replica was asked and has not answered.
    #[must_use]
    pub fn is_waiting_for(&self, node: NodeId) -> bool {
        self.answer(node) == Some(Answer::Asked)
    }

    /// Whether this replica agreed.
    #[must_use]
    pub fn has_agreed(&self, node: NodeId) -> bool {
        self.answer(node) == Some(Answer::Yes)
    }

    /// Replicas that were asked and have not answered.
    pub fn waiting(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.replicas.iter().filter(|r| r.answer == Answer::Asked).map(|r| r.node)
    }

    /// How many copies were agreed to.
    #[must_use]
    pub fn agreed(&self) -> u8 {
        self.copies(|r| r.answer == Answer::Yes)
    }

    /// Where it stands. Ask the stand-in of a replica that fails before you ask for the verdict.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let primary = |r: &Replica| r.is_primary() && r.answer == Answer::Yes;
        let open = |r: &Replica| r.answer != Answer::No;
        if self.agreed() >= self.all.1 && self.copies(primary) >= self.primaries.1 {
            Verdict::Met
        } else if self.copies(open) < self.all.1 {
            let (need, want) = self.all;
            Verdict::Impossible(Shortfall { need, have: self.agreed(), want })
        } else if self.copies(|r| r.is_primary() && open(r)) < self.primaries.1 {
            let (need, want) = self.primaries;
            Verdict::Impossible(Shortfall { need, have: self.copies(primary), want })
        } else {
            Verdict::Pending
        }
    }

    /// What is missing now, for a request whose time is up.
    #[must_use]
    pub fn shortfall(&self) -> Shortfall {
        let have = self.agreed();
        if have < self.all.1 {
            return Shortfall { need: self.all.0, have, want: self.all.1 };
        }
        let have = self.copies(|r| r.is_primary() && r.answer == Answer::Yes);
        Shortfall { need: self.primaries.0, have, want: self.primaries.1 }
    }

    fn answer(&self, node: NodeId) -> Option<Answer> {
        self.replicas.iter().find(|r| r.node == node).map(|r| r.answer)
    }

    fn set(&mut self, node: NodeId, to: Answer) -> bool {
        match self.replicas.iter_mut().find(|r| r.node == node) {
            Some(r) if r.answer != to => {
                r.answer = to;
                true
            }
            _ => false,
        }
    }

    /// How many owners' copies have such a replica.
    fn copies(&self, is: impl Fn(&Replica) -> bool) -> u8 {
        let earlier = |at: usize, owner| self.replicas[..at].iter().any(|r| r.owner == owner && is(r));
        let counted = self.replicas.iter().enumerate().filter(|(at, r)| is(r) && !earlier(*at, r.owner));
        u8::try_from(counted.count()).unwrap_or(u8::MAX)
    }
}
