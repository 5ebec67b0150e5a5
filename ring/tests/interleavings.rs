//! Every interleaving of a small transition, not some of them: each state that gossip, declarations, copies and drops can
//! lead to is visited once.
//!
//! One slot. `transition.rs` has the large, random counterpart with writes under way.

use std::collections::{BTreeSet, HashSet, VecDeque};

use gramme_ring::{Change, ClusterId, Layout, Member, Membership, NodeId, Phase, Slot};

#[derive(Clone)]
struct State {
    /// What each node knows, in order of `Case::ids`.
    views: Vec<Membership>,
    /// Who holds all that was acknowledged so far.
    holders: BTreeSet<NodeId>,
}

struct Case {
    ids: Vec<NodeId>,
    /// Neither hears nor says anything.
    dead: Option<NodeId>,
    /// N and Q before and after.
    shapes: [(u8, u32); 2],
    /// Where a commit that competes with the first node's was made, and of what: a change that makes it the one with the
    /// smaller hash is looked for.
    rival: Option<(NodeId, Change)>,
}

fn owners(layout: &Layout) -> BTreeSet<NodeId> {
    layout.owners(layout.partition_of(Slot::of(b"a key"))).collect()
}

fn commit(m: &mut Membership) {
    let hash = m.propose().unwrap().hash();
    m.commit(ClusterId(1), hash).unwrap();
}

/// Of two commits on one parent.
fn outranks(a: &Membership, b: &Membership) -> bool {
    let mut both = a.clone();
    both.merge(b).unwrap();
    both.layout() == a.layout()
}

impl State {
    /// The layouts that every writer's acknowledgements have to satisfy at this moment.
    fn writes(&self, case: &Case) -> BTreeSet<u64> {
        let by = |n: usize| -> BTreeSet<u64> {
            let view = &self.views[n];
            let layouts = view.layout().into_iter().chain(view.transition().map(|t| t.from()));
            layouts.map(Layout::hash).collect()
        };
        case.writers(self).map(by).reduce(|all, by| &all & &by).unwrap()
    }

    /// Who holds everything does so no longer when somebody writes by layouts none of which it owns by.
    fn drop_the_late(&mut self, case: &Case) {
        let writes = self.writes(case);
        let layouts: Vec<Layout> = self
            .views
            .iter()
            .flat_map(|view| view.layout().into_iter().chain(view.transition().map(|t| t.from())))
            .filter(|layout| writes.contains(&layout.hash()))
            .cloned()
            .collect();
        self.holders.retain(|id| layouts.iter().any(|layout| owners(layout).contains(id)));
    }
}

impl Case {
    /// Who coordinates reads and writes, by its own view.
    fn writers<'a>(&'a self, state: &'a State) -> impl Iterator<Item = usize> + 'a {
        self.live().filter(|&n| {
            let (me, view) = (self.ids[n], &state.views[n]);
            match view.transition() {
                Some(t) => t.coordinates(me),
                None => view.layout().is_some_and(|layout| layout.is_member(me)),
            }
        })
    }

    fn start(&self, before: &[u64], after: &[u64]) -> State {
        let mut old = Membership::new();
        let shape = |m: &mut Membership, (replicas, partitions)| {
            m.stage(NodeId(1), Change::Partitions(partitions)).unwrap();
            m.stage(NodeId(1), Change::Replicas(replicas)).unwrap();
        };
        shape(&mut old, self.shapes[0]);
        for &id in before {
            old.stage(NodeId(1), Change::Member(Member::new(NodeId(id)))).unwrap();
        }
        commit(&mut old);
        let mut new = old.clone();
        if self.shapes[1] != self.shapes[0] {
            shape(&mut new, self.shapes[1]);
        }
        for &id in before.iter().filter(|id| !after.contains(id)) {
            new.stage(NodeId(1), Change::Leave(NodeId(id))).unwrap();
        }
        for &id in after.iter().filter(|id| !before.contains(id)) {
            new.stage(NodeId(1), Change::Member(Member::new(NodeId(id)))).unwrap();
        }
        commit(&mut new);
        let mut views = vec![old; self.ids.len()];
        let holders = owners(views[0].layout().unwrap());
        if let Some((at, change)) = &self.rival {
            let at = self.ids.iter().position(|id| id == at).unwrap();
            let rival = &mut views[at];
            rival.stage(self.ids[at], change.clone()).unwrap();
            let mut salt = 0u32;
            *rival = loop {
                let mut committed = rival.clone();
                let value = Some(salt.to_be_bytes().to_vec());
                committed.stage(self.ids[at], Change::Setting { name: "salt".into(), value }).unwrap();
                commit(&mut committed);
                if outranks(&committed, &new) {
                    break committed;
                }
                salt += 1;
            };
        }
        views[0] = new;
        State { views, holders }
    }

    fn live(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.ids.len()).filter(|&n| Some(self.ids[n]) != self.dead)
    }

    /// All that may happen next.
    fn next(&self, state: &State) -> Vec<State> {
        let mut next = Vec::new();
        for to in self.live() {
            for from in self.live().filter(|&from| from != to) {
                let mut after = state.clone();
                // Gossip refuses the removed.
                if state.views[to].is_removed(self.ids[from]) {
                    continue;
                }
                let heard = after.views[to].merge_from(self.ids[from], &state.views[from]).unwrap();
                if heard.changed {
                    after.drop_the_late(self);
                    next.push(after);
                }
            }
            if let Some(after) = self.act(state, to) {
                next.push(after);
            }
        }
        if let Some(dead) = self.dead {
            let mut after = state.clone();
            let me = self.live().next().unwrap();
            if after.views[me].remove_during_transition(dead).is_ok() {
                next.push(after);
            }
        }
        next
    }

    /// What a node does by itself: whatever is due, or the end.
    fn act(&self, state: &State, n: usize) -> Option<State> {
        let mut after = state.clone();
        let (me, view) = (self.ids[n], &mut after.views[n]);
        let Some(t) = view.transition() else {
            // It knows that the old layout has retired, and drops what it owns no more.
            let dropped = !owners(view.layout()?).contains(&me) && after.holders.remove(&me);
            return dropped.then_some(after);
        };
        if let Some(phase) = t.due(me) {
            if phase == Phase::Synced && owners(t.to()).contains(&me) {
                // A write that begins later has to reach the copier by itself.
                let both = |n: usize| state.views[n].layout().unwrap().hash() == t.to().hash();
                assert!(self.writers(state).all(both), "copied while somebody writes to the old owners only");
                let late =
                    |n: usize| state.views[n].transition().is_some_and(|t| t.phase(self.ids[n]).is_none());
                assert!(!self.writers(state).any(late), "copied while older writes may be under way");
                let sources = owners(t.from());
                assert!(sources.iter().any(|s| after.holders.contains(s)), "nobody to copy from");
                after.holders.insert(me);
            }
            assert!(view.advance(me, phase).unwrap());
            return Some(after);
        }
        view.settle().then_some(after)
    }

    fn check(&self, state: &State) {
        let writes = state.writes(self);
        for n in self.writers(state) {
            let view = &state.views[n];
            let layout = match view.transition() {
                Some(t) => t.reads_by(self.ids[n]),
                None => view.layout().unwrap(),
            };
            assert!(writes.contains(&layout.hash()), "{} reads where others need not write", self.ids[n]);
            // A dead one aside, all whom it reads from hold everything.
            let read = owners(layout);
            assert_eq!(read.len(), usize::from(layout.replicas()));
            assert!(
                read.iter().all(|id| state.holders.contains(id)),
                "{} reads from who holds nothing",
                self.ids[n]
            );
        }
    }

    /// Visits all states; returns how many there are and how many of them are ends.
    fn explore(&self, before: &[u64], after: &[u64]) -> (usize, usize) {
        let mut seen = HashSet::new();
        let mut ends = 0;
        let mut queue = VecDeque::from([self.start(before, after)]);
        while let Some(state) = queue.pop_front() {
            self.check(&state);
            let next = self.next(&state);
            if next.is_empty() {
                ends += 1;
                assert!(self.live().all(|n| state.views[n].transition().is_none()), "stuck");
                assert!(self.live().all(|n| state.views[n] == state.views[self.live().next().unwrap()]));
                let last = owners(state.views[0].layout().unwrap());
                assert!(self.dead.is_some() || state.holders == last, "somebody holds what it owns no more");
            }
            for state in next {
                let digests: Vec<u64> = state.views.iter().map(Membership::digest).collect();
                if seen.insert((digests, state.holders.clone())) {
                    queue.push_back(state);
                }
            }
        }
        (seen.len(), ends)
    }
}

#[test]
fn no_state_of_a_transition_has_a_gap() {
    let cases: [(&[u64], &[u64], u8); 5] = [
        // One joins, one leaves, one takes another's place, all are replaced.
        (&[1, 2], &[1, 2, 3], 2),
        (&[1, 2, 3], &[1, 2], 2),
        (&[1, 2], &[2, 3], 2),
        (&[1], &[2], 1),
        (&[1, 2], &[3, 4], 2),
    ];
    // The last has 37,741 states, which take a minute without optimisation.
    let cases = if cfg!(debug_assertions) { &cases[..4] } else { &cases[..] };
    for &(before, after, replicas) in cases {
        let ids: BTreeSet<NodeId> = before.iter().chain(after).map(|&id| NodeId(id)).collect();
        let case =
            Case { ids: ids.into_iter().collect(), dead: None, shapes: [(replicas, 1); 2], rival: None };
        let (states, ends) = case.explore(before, after);
        assert!(ends == 1 && states > 20, "{states} states, {ends} ends");
        eprintln!("{before:?} to {after:?}: {states} states");
    }
}

#[test]
fn nor_where_n_or_q_changes() {
    type Change = (&'static [u64], &'static [u64], [(u8, u32); 2]);
    let cases: [Change; 5] = [
        (&[1, 2, 3], &[1, 2, 3], [(1, 1), (3, 1)]),
        (&[1, 2, 3], &[1, 2, 3], [(3, 4), (2, 1)]),
        (&[1, 2, 3], &[1, 2, 3], [(2, 1), (2, 8)]),
        (&[1, 2], &[1, 2, 3], [(2, 1), (3, 2)]),
        (&[1, 2, 3], &[1, 2], [(3, 2), (1, 4)]),
    ];
    for (before, after, shapes) in cases {
        let case = Case { ids: (1..=3).map(NodeId).collect(), dead: None, shapes, rival: None };
        let (states, ends) = case.explore(before, after);
        assert!(ends == 1 && states > 20, "{states} states, {ends} ends");
        eprintln!("{before:?} to {after:?}, {shapes:?}: {states} states");
    }
}

#[test]
fn nor_when_a_node_is_given_up_at_any_moment() {
    // The third is dead from the beginning: only giving it up lets the others go on.
    let case =
        Case { ids: (1..=3).map(NodeId).collect(), dead: Some(NodeId(3)), shapes: [(2, 1); 2], rival: None };
    let (states, ends) = case.explore(&[1, 3], &[1, 2, 3]);
    assert!(states > 20 && ends >= 1, "{states} states, {ends} ends");
}

/// A competing commit with the smaller hash: made by a member; or held by a stranger that would join, who made it itself
/// or has it of a member that has died since.
#[test]
fn nor_when_another_commit_turns_up_at_any_moment() {
    let joins = |id| Change::Member(Member::new(NodeId(id)));
    let heavier = |id| Change::Member(Member::new(NodeId(id)).with_weight(9));
    type Rival = (&'static [u64], &'static [u64], u64, Change, Option<u64>);
    let cases: [Rival; 4] = [
        (&[1, 2], &[1, 2, 3], 2, heavier(2), None),
        (&[1, 2], &[1, 3], 3, heavier(1), None),
        (&[1, 2], &[1, 3], 4, joins(4), None),
        (&[1, 3], &[1, 2, 3], 4, joins(4), Some(3)),
    ];
    for (before, after, at, change, dead) in cases {
        let ids: BTreeSet<NodeId> = before.iter().chain(after).chain([&at]).map(|&id| NodeId(id)).collect();
        let ids = ids.into_iter().collect();
        let rival = Some((NodeId(at), change));
        let case = Case { ids, dead: dead.map(NodeId), shapes: [(2, 1); 2], rival };
        let (states, ends) = case.explore(before, after);
        assert!(states > 20 && ends >= 1, "{states} states, {ends} ends");
        eprintln!("{before:?} to {after:?}, a rival at {at}: {states} states, {ends} ends");
    }
}
