//! Starts tasks on this thread's executor.

use smol::{LocalExecutor, Task};
use std::rc::{Rc, Weak};

/// A way to the executor for its own tasks. It does not keep the executor alive: an executor whose tasks owned it
/// would never be dropped, and neither would what they hold, the store among it.
#[derive(Clone)]
pub(crate) struct Spawner(Weak<LocalExecutor<'static>>);

impl Spawner {
    pub(crate) fn new(executor: &Rc<LocalExecutor<'static>>) -> Spawner {
        Spawner(Rc::downgrade(executor))
    }

    /// Starts a task.
    ///
    /// # Panics
    /// If the executor is gone; its tasks are gone with it.
    pub(crate) fn spawn<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> Task<T> {
        self.0.upgrade().expect("tasks run on a living executor").spawn(task)
    }
}
