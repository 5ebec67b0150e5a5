//! The address book: what is written down of the cluster, and where each node serves.

use crate::handle::Addresses;
use crate::identity::{DataDir, DirError, Membership};
use crate::log::say;
use gramme_ring::membership::Standing;
use gramme_ring::{Membership as Ring, NodeId};
use std::cell::RefCell;
use std::rc::Rc;

/// A node's membership file, and what is in it.
pub(crate) struct Book {
    /// `None`: nothing is written down, in tests.
    dir: Option<DataDir>,
    membership: RefCell<Membership>,
}

impl Book {
    pub(crate) fn new(dir: Option<DataDir>, membership: Membership) -> Rc<Book> {
        Rc::new(Book { dir, membership: RefCell::new(membership) })
    }

    /// Writes down what is known of the cluster, durably. On an error the former state stands.
    pub(crate) fn save(&self, ring: Ring) -> Result<(), DirError> {
        let next = Membership { ring, ..self.membership.borrow().clone() };
        if let Some(dir) = &self.dir {
            dir.save_membership(&next)?;
        }
        let before = self.membership.replace(next);
        tell(before.node, &before.ring, &self.membership.borrow().ring);
        Ok(())
    }

    /// A node serves there now. Whether that was news.
    pub(crate) fn learn(&self, node: NodeId, addresses: &Addresses) -> bool {
        let mut membership = self.membership.borrow_mut();
        if membership.addresses.get(&node) == Some(addresses) {
            return false;
        }
        membership.addresses.insert(node, addresses.clone());
        if let Some(dir) = &self.dir
            && let Err(error) = dir.save_membership(&membership)
        {
            say!("can't write down where node {node} is now: {error}; it will be learned again");
        }
        true
    }

    /// Where a node serves, as last heard.
    pub(crate) fn addresses(&self, node: NodeId) -> Option<Addresses> {
        self.membership.borrow().addresses.get(&node).cloned()
    }
}

/// Says what became of the cluster.
fn tell(me: NodeId, before: &Ring, after: &Ring) {
    let Some(layout) = after.layout() else { return };
    let (version, members) = (layout.version(), layout.members().len());
    let same = before.layout().is_some_and(|known| known.hash() == layout.hash());
    let is = |ring: &Ring| ring.layout().is_some_and(|layout| layout.is_member(me));
    match (before.transition().is_some(), after.transition().is_some()) {
        (_, true) if !same => {
            say!("layout {version} of {members} members is committed; what it moves is moved now")
        }
        (_, false) if !same => say!("layout {version} of {members} members is in force"),
        (true, false) => say!("layout {version} of {members} members is in force; what it moves has moved"),
        _ => {}
    }
    if !is(before) && is(after) {
        say!(
            "this node is a member now, {}",
            if after.transition().is_some() { "and copies what it is to own" } else { "and owns its share" }
        );
    }
    if after.transition().is_none() && (!same || before.transition().is_some()) && !is(after) {
        match after.standing(me) {
            Some(Standing::Left) => {
                say!("this node has left the cluster and holds nothing more: it can be stopped")
            }
            _ => say!(
                "this node is no member of the cluster: it forwards, and waits to be staged and committed"
            ),
        }
    }
}
