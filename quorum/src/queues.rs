//! Tasks that wait for the records of their keys: one load for all tasks of a key.
//!
//! A disk may take a read and never answer it. What has waited for long is answered as if its record could not be read; the
//! load stays open, so that no more than one of a key hangs, and whoever comes meanwhile waits for the same one: it sees every
//! append there is, for none of this key is made without it.

use crate::input::LoadId;
use crate::journal::{Outbox, Weight};
use crate::replica::place_of;
use crate::task::Task;
use crate::time::{Duration, Instant};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;

/// Tasks of one key, in the order in which they came.
#[derive(Debug)]
struct Queue {
    tasks: Vec<Task>,
    /// When the first of them came.
    since: Instant,
}

#[derive(Debug, Default)]
pub(crate) struct Queues {
    /// The time of the input in work.
    pub(crate) now: Instant,
    queues: BTreeMap<Bytes, Queue>,
    loads: BTreeMap<LoadId, Bytes>,
    tasks: usize,
    bytes: usize,
    /// Keys whose loads hang and for which nobody waits.
    idle: usize,
}

impl Queues {
    /// Queues a task for its key, and starts the load that it waits for.
    pub(crate) fn push(&mut self, out: &mut Outbox, key: &Bytes, task: Task) {
        self.tasks += 1;
        self.bytes += key.len() + task.weight();
        if let Some(queue) = self.queues.get_mut(key) {
            if queue.tasks.is_empty() {
                queue.since = self.now;
                self.idle -= 1;
            }
            return queue.tasks.push(task);
        }
        self.queues.insert(key.clone(), Queue { tasks: Vec::from([task]), since: self.now });
        let id = out.load(place_of(key), key.clone());
        self.loads.insert(id, key.clone());
    }

    /// The key that this load is for, if it is one of these.
    pub(crate) fn key(&self, id: LoadId) -> Option<&Bytes> {
        self.loads.get(&id)
    }

    /// A load was performed: what waits for it, if it is one of these.
    pub(crate) fn take(&mut self, id: LoadId) -> Option<(Bytes, Vec<Task>)> {
        let key = self.loads.remove(&id)?;
        let tasks = self.queues.remove(&key).map_or(Vec::new(), |queue| queue.tasks);
        self.idle -= usize::from(tasks.is_empty());
        self.forget(&key, &tasks);
        Some((key, tasks))
    }

    /// Takes out what has waited for so long.
    pub(crate) fn overdue(&mut self, patience: Duration) -> Vec<(Bytes, Vec<Task>)> {
        let mut overdue = Vec::new();
        for (key, queue) in &mut self.queues {
            if !queue.tasks.is_empty() && self.now.since(queue.since) >= patience {
                overdue.push((key.clone(), core::mem::take(&mut queue.tasks)));
            }
        }
        self.idle += overdue.len();
        for (key, tasks) in &overdue {
            self.forget(key, tasks);
        }
        overdue
    }

    fn forget(&mut self, key: &Bytes, tasks: &[Task]) {
        self.tasks -= tasks.len();
        self.bytes -= tasks.iter().map(|task| key.len() + task.weight()).sum::<usize>();
    }

    /// Since when the first of them waits.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.queues.values().filter(|queue| !queue.tasks.is_empty()).map(|queue| queue.since).min()
    }

    /// Tasks that wait, and loads that nobody waits for.
    pub(crate) const fn open(&self) -> usize {
        self.tasks + self.idle
    }

    /// Bytes of the keys and values that wait.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keys of which a load is open.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.queues.keys()
    }

    /// What waits for this key's record.
    pub(crate) fn of(&self, key: &Bytes) -> &[Task] {
        self.queues.get(key).map_or(&[], |queue| &queue.tasks)
    }

    /// The same, to be changed, if not in its weight.
    pub(crate) fn of_mut(&mut self, key: &Bytes) -> &mut [Task] {
        self.queues.get_mut(key).map_or(&mut [], |queue| &mut queue.tasks)
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Task> {
        self.queues.values().flat_map(|queue| &queue.tasks)
    }

    /// All of them, to be changed, if not in their weight.
    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Task> {
        self.queues.values_mut().flat_map(|queue| &mut queue.tasks)
    }

    /// Whether nobody waits for this load or an earlier one.
    pub(crate) fn has_loaded(&self, through: LoadId) -> bool {
        self.loads.range(..=through).all(|(_, key)| self.of(key).is_empty())
    }
}
