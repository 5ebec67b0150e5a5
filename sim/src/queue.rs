//! What is still to happen, in order of time; events of one moment happen in the order in which they were scheduled.

use crate::time::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A queue of events to come.
#[derive(Debug)]
pub struct Queue<E> {
    /// When, in which order they were scheduled, and where the event is.
    heap: BinaryHeap<Reverse<(Time, u64, usize)>>,
    /// Events are large, and stay where they are while the heap is put in order.
    events: Vec<Option<E>>,
    free: Vec<usize>,
    scheduled: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Queue { heap: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), scheduled: 0 }
    }
}

impl<E> Queue<E> {
    /// Schedules an event.
    pub fn push(&mut self, at: Time, event: E) {
        self.scheduled += 1;
        let place = self.free.pop().unwrap_or(self.events.len());
        if place == self.events.len() {
            self.events.push(None);
        }
        self.events[place] = Some(event);
        self.heap.push(Reverse((at, self.scheduled, place)));
    }

    /// The next event not later than `until`.
    pub fn pop(&mut self, until: Time) -> Option<(Time, E)> {
        let Reverse((at, _, place)) = *self.heap.peek()?;
        if at > until {
            return None;
        }
        self.heap.pop();
        self.free.push(place);
        self.events[place].take().map(|event| (at, event))
    }

    /// How many events wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing is to happen any more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_first_and_equal_times_in_order() {
        let mut queue = Queue::default();
        for (at, name) in [(5, "c"), (1, "a"), (5, "d"), (2, "b"), (9, "later")] {
            queue.push(Time(at), name);
        }
        let mut order = Vec::new();
        while let Some((_, name)) = queue.pop(Time(8)) {
            order.push(name);
        }
        assert_eq!(order, ["a", "b", "c", "d"]);
        assert_eq!(queue.len(), 1);
    }
}
