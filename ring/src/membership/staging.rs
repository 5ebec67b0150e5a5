//! Changes on their way to a commit.

use alloc::vec::Vec;

use super::config::{Config, Described, Tally, first_without_room, is_kept, stamp_end};
use super::{
    Change, MAX_KNOWN_NODES, MAX_MERGED_NODES, MAX_MERGED_SETTINGS, MAX_SETTING_NAME, MAX_SETTING_VALUE,
    MAX_SETTINGS, Membership, StageError, Standing,
};
use crate::node::NodeId;
use crate::partition::PartitionCount;

impl Membership {
    /// A node's standing with what is staged.
    fn planned_standing(&self, node: NodeId) -> Option<&Standing> {
        let staged = self.staged.nodes.get(&node);
        staged.or_else(|| self.base()?.nodes.get(&node)).map(|entry| &entry.value)
    }

    /// A stamp past all that are known.
    pub(super) fn next_stamp(&self) -> Result<u64, StageError> {
        let next = self.tally.last_stamp + 1;
        if next < self.stamp_end() { Ok(next) } else { Err(StageError::Full) }
    }

    pub(super) fn stamp_end(&self) -> u64 {
        stamp_end(self.layout().map(|layout| layout.version()))
    }

    /// Stages a change, in the name of the node at which the operator asked for it. A later change of the same subject
    /// replaces it.
    ///
    /// # Errors
    /// [`StageError`] says why the change can't be; nothing was changed then.
    pub fn stage(&mut self, author: NodeId, change: Change) -> Result<(), StageError> {
        let stamp = self.next_stamp()?;
        match change {
            Change::Replicas(0) => return Err(StageError::NoReplicas),
            Change::Replicas(value) => self.staged.replicas = Some(Described { stamp, author, value }),
            Change::Partitions(value) => {
                PartitionCount::new(value).map_err(|_| StageError::PartitionCount(value))?;
                self.staged.partitions = Some(Described { stamp, author, value });
            }
            Change::Member(member) => {
                if member.weight == 0 {
                    return Err(StageError::ZeroWeight(member.id));
                }
                let value = Standing::Member { weight: member.weight, zone: member.zone };
                self.stage_node(member.id, Described { stamp, author, value })?;
            }
            Change::Leave(id) => self.stage_end(id, Described { stamp, author, value: Standing::Left })?,
            Change::Remove(id) => {
                self.stage_end(id, Described { stamp, author, value: Standing::Removed })?
            }
            Change::Setting { name, value } => {
                if name.len() > MAX_SETTING_NAME
                    || value.as_ref().is_some_and(|v| v.len() > MAX_SETTING_VALUE)
                {
                    return Err(StageError::SettingTooLong);
                }
                let name = name.into_boxed_str();
                let known = |c: &Config| c.settings.contains_key(&name);
                let is_new = !known(&self.staged) && !self.base().is_some_and(known);
                if if is_new { self.tally.settings >= MAX_SETTINGS } else { !self.keeps_setting(&name) } {
                    return Err(StageError::Full);
                }
                self.tally.settings += usize::from(is_new);
                self.staged.settings.insert(name, Described { stamp, author, value });
            }
        }
        self.tally.last_stamp = stamp;
        Ok(())
    }

    fn stage_node(&mut self, id: NodeId, entry: Described<Standing>) -> Result<(), StageError> {
        if self.is_removed(id) {
            return Err(StageError::RemovedForEver(id));
        }
        let is_new = self.planned_standing(id).is_none();
        if if is_new { self.tally.nodes >= MAX_KNOWN_NODES } else { !self.keeps_node(id) } {
            return Err(StageError::Full);
        }
        self.tally.nodes += usize::from(is_new);
        self.staged.nodes.insert(id, entry);
        Ok(())
    }

    /// Whether a merge keeps what is staged for this node, which is known.
    fn keeps_node(&self, id: NodeId) -> bool {
        let is_kept = |base: &Config| is_kept(&base.nodes, &self.staged.nodes, &id, MAX_MERGED_NODES);
        self.tally.nodes <= MAX_MERGED_NODES || self.base().is_none_or(is_kept)
    }

    fn keeps_setting(&self, name: &str) -> bool {
        let is_kept =
            |base: &Config| is_kept(&base.settings, &self.staged.settings, name, MAX_MERGED_SETTINGS);
        self.tally.settings <= MAX_MERGED_SETTINGS || self.base().is_none_or(is_kept)
    }

    fn stage_end(&mut self, id: NodeId, entry: Described<Standing>) -> Result<(), StageError> {
        // A member by what is committed, whatever is staged: an operator may change her mind from leave to remove.
        let member = |s: Option<&Standing>| matches!(s, Some(Standing::Member { .. }));
        if !member(self.standing(id)) && !member(self.planned_standing(id)) && !self.is_removed(id) {
            return Err(StageError::NotMember(id));
        }
        self.stage_node(id, entry)
    }

    /// Takes back everything that is staged, in the name of `author`: committed values are staged anew, newer than what
    /// they undo, so that the undoing reaches everyone too.
    ///
    /// # Errors
    /// [`StageError::Full`] if stamps are used up until the next commit; nothing was changed then.
    pub fn unstage_all(&mut self, author: NodeId) -> Result<(), StageError> {
        let stamp = self.next_stamp()?;
        let base = self.base().cloned().unwrap_or_default();
        if let Some(entry) = &mut self.staged.replicas {
            *entry = Described { stamp, author, value: base.replicas() };
        }
        if let Some(entry) = &mut self.staged.partitions {
            *entry = Described { stamp, author, value: base.partitions() };
        }
        for (id, entry) in &mut self.staged.nodes {
            // Never committed: as if it had left.
            let value = base.nodes.get(id).map_or(Standing::Left, |e| e.value.clone());
            *entry = Described { stamp, author, value };
        }
        for (name, entry) in &mut self.staged.settings {
            let value = base.settings.get(name).and_then(|e| e.value.clone());
            *entry = Described { stamp, author, value };
        }
        self.tally = Tally::of(self.base(), &self.staged);
        Ok(())
    }

    /// What a commit would change, in order of subjects, nodes that were given up first among the nodes. Staged
    /// descriptions that equal the committed ones are not shown, nor those of nodes removed for ever, nor those of new subjects for which a
    /// commit has no room ([`MAX_MERGED_NODES`]).
    pub fn staged(&self) -> Vec<Change> {
        let empty = Config::default();
        let base = self.base().unwrap_or(&empty);
        let mut changes = Vec::new();
        if let Some(e) = &self.staged.replicas
            && e.value != base.replicas()
        {
            changes.push(Change::Replicas(e.value));
        }
        if let Some(e) = &self.staged.partitions
            && e.value != base.partitions()
        {
            changes.push(Change::Partitions(e.value));
        }
        for &id in &self.given_up {
            if base.nodes.get(&id).is_some_and(|e| e.value != Standing::Removed) {
                changes.push(Change::Remove(id));
            }
        }
        let (no_node_from, no_name_from) = self.first_without_room(base);
        for (&id, e) in self.staged.nodes.iter().filter(|(id, _)| !self.given_up.contains(id)) {
            let before = base.nodes.get(&id).map(|e| &e.value);
            let finds_room = before.is_some() || no_node_from.is_none_or(|end| id < *end);
            if !finds_room || before == Some(&e.value) || self.is_removed(id) && e.value != Standing::Removed
            {
                continue;
            }
            match (&e.value, before) {
                (Standing::Member { weight, zone }, _) => {
                    changes.push(Change::Member(crate::Member { id, weight: *weight, zone: zone.clone() }));
                }
                (Standing::Left, Some(Standing::Member { .. })) => changes.push(Change::Leave(id)),
                (Standing::Left, _) => {}
                (Standing::Removed, _) => changes.push(Change::Remove(id)),
            }
        }
        for (name, e) in &self.staged.settings {
            let before = base.settings.get(name);
            let finds_room = before.is_some() || no_name_from.is_none_or(|end| **name < *end);
            if finds_room && before.and_then(|e| e.value.as_ref()) != e.value.as_ref() {
                changes.push(Change::Setting { name: (&**name).into(), value: e.value.clone() });
            }
        }
        changes
    }

    /// The first node and the first setting of those staged for which a commit has no room; what is committed already has its own.
    fn first_without_room(&self, base: &Config) -> (Option<&NodeId>, Option<&str>) {
        let Tally { nodes, settings, .. } = self.tally;
        let node = || first_without_room(&base.nodes, &self.staged.nodes, MAX_MERGED_NODES);
        let name = || first_without_room(&base.settings, &self.staged.settings, MAX_MERGED_SETTINGS);
        (
            (nodes > MAX_MERGED_NODES).then(node).flatten(),
            (settings > MAX_MERGED_SETTINGS).then(name).flatten().map(|name| &**name),
        )
    }

    /// The configuration as it would be committed.
    pub(super) fn planned(&self) -> Config {
        let mut config = self.base().cloned().unwrap_or_default();
        config.join(&self.staged);
        if let Some(base) = self.base() {
            let (no_node_from, no_name_from) = self.first_without_room(base);
            if let Some(end) = no_node_from {
                config.nodes.retain(|id, _| id < end || base.nodes.contains_key(id));
            }
            if let Some(end) = no_name_from {
                config.settings.retain(|name, _| **name < *end || base.settings.contains_key(name));
            }
        }
        // Removed is the one standing that nothing supersedes.
        if let Some(commit) = &self.committed {
            for (id, entry) in commit.config.nodes.iter().filter(|(_, e)| e.value == Standing::Removed) {
                config.nodes.insert(*id, entry.clone());
            }
        }
        for id in &self.given_up {
            if let Some(entry) = config.nodes.get_mut(id) {
                entry.value = Standing::Removed;
            }
        }
        config
    }
}
