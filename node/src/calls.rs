//! The table of open requests behind a [`Handle`](crate::handle::Handle): who waits for which, and what its answer is
//! counted for.

use gramme_quorum::{Reply, RequestId};
use std::cell::Cell;
use std::rc::Rc;
use std::task::Waker;

/// How many reads of one connection wait for room: it had better not ask for more.
#[derive(Clone, Default)]
pub(crate) struct Waits(Rc<Cell<usize>>);

impl Waits {
    /// Whether none does.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.get() == 0
    }

    pub(crate) fn enter(&self) -> Wait {
        self.0.set(self.0.get() + 1);
        Wait(self.clone())
    }
}

/// One of them, until it is dropped.
pub(crate) struct Wait(Waits);

impl Drop for Wait {
    fn drop(&mut self) {
        let count = &self.0.0;
        count.set(count.get() - 1);
    }
}

/// What a read in flight counts for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Share {
    pub(crate) bytes: usize,
    /// There is no copy here that would tell its size.
    pub(crate) guessed: bool,
    /// The copy here told its size.
    pub(crate) known: bool,
}

/// Open requests: a slab whose cells carry a generation, so that an id is never mistaken for a later one.
#[derive(Default)]
pub(crate) struct Calls {
    cells: Vec<CallCell>,
    free: Vec<u32>,
    pub(crate) in_flight: usize,
}

pub(crate) struct CallCell {
    generation: u32,
    size: usize,
    /// What is counted for its answer.
    pub(crate) share: Share,
    /// It waits for room.
    pub(crate) waits: Option<Wait>,
    state: State,
}

enum State {
    Vacant,
    Waiting(Option<Waker>),
    Answered(Reply),
    /// Nobody waits any more; the cell is freed by the answer.
    Abandoned,
}

impl Calls {
    pub(crate) fn open(&mut self, size: usize) -> RequestId {
        self.in_flight += 1;
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.cells.len()).expect("fewer calls than 2^32");
                self.cells.push(CallCell {
                    generation: 0,
                    size: 0,
                    share: Share::default(),
                    waits: None,
                    state: State::Vacant,
                });
                index
            }
        };
        let cell = &mut self.cells[index as usize];
        cell.size = size;
        cell.share = Share::default();
        cell.state = State::Waiting(None);
        RequestId(u64::from(cell.generation) << 32 | u64::from(index))
    }

    #[allow(clippy::cast_possible_truncation)] // the two halves of an id
    pub(crate) fn cell(&mut self, id: RequestId) -> (u32, &mut CallCell) {
        let (generation, index) = ((id.0 >> 32) as u32, id.0 as u32);
        let cell = &mut self.cells[index as usize];
        assert_eq!(cell.generation, generation, "a request was answered twice");
        (index, cell)
    }

    fn close(&mut self, index: u32) {
        let cell = &mut self.cells[index as usize];
        cell.state = State::Vacant;
        cell.generation = cell.generation.wrapping_add(1);
        self.free.push(index);
    }

    /// The request's size, who waits for the answer, and the bytes of one that nobody will read.
    pub(crate) fn answer(&mut self, id: RequestId, reply: Reply) -> (usize, Option<Waker>, usize) {
        let (index, cell) = self.cell(id);
        let (size, bytes, mut unread) = (cell.size, cell.share.bytes, 0);
        cell.waits = None;
        let waker = match std::mem::replace(&mut cell.state, State::Answered(reply)) {
            State::Waiting(waker) => waker,
            State::Abandoned => {
                self.close(index);
                unread = bytes;
                None
            }
            State::Vacant | State::Answered(_) => panic!("a request was answered twice"),
        };
        self.in_flight -= 1;
        (size, waker, unread)
    }

    pub(crate) fn is_abandoned(&mut self, id: RequestId) -> bool {
        matches!(self.cell(id).1.state, State::Abandoned)
    }

    pub(crate) fn poll(&mut self, id: RequestId, waker: &Waker) -> Option<(Reply, usize)> {
        let (index, cell) = self.cell(id);
        match &mut cell.state {
            State::Waiting(current) => {
                if !current.as_ref().is_some_and(|w| w.will_wake(waker)) {
                    *current = Some(waker.clone());
                }
                None
            }
            State::Answered(_) => {
                let State::Answered(reply) = std::mem::replace(&mut cell.state, State::Vacant) else {
                    unreachable!("matched above")
                };
                let bytes = cell.share.bytes;
                self.close(index);
                Some((reply, bytes))
            }
            State::Vacant | State::Abandoned => unreachable!("only its call frees a cell"),
        }
    }

    pub(crate) fn abandon(&mut self, id: RequestId) -> Option<(Reply, usize)> {
        let (index, cell) = self.cell(id);
        let bytes = cell.share.bytes;
        cell.waits = None;
        match std::mem::replace(&mut cell.state, State::Abandoned) {
            State::Waiting(_) => None,
            State::Answered(reply) => {
                self.close(index);
                Some((reply, bytes))
            }
            State::Vacant | State::Abandoned => unreachable!("only its call frees a cell"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gramme_quorum::OpError;

    fn ok(calls: &mut Calls, id: RequestId) -> (usize, Option<Waker>, usize) {
        calls.answer(id, Reply::Failed(OpError::Unwritable))
    }

    #[test]
    fn an_abandoned_call_frees_its_cell_when_it_is_answered() {
        let mut calls = Calls::default();
        let first = calls.open(3);
        assert!(calls.abandon(first).is_none());
        assert_eq!(calls.in_flight, 1);
        assert_eq!(ok(&mut calls, first).0, 3);
        let second = calls.open(5);
        assert_ne!(first, second, "an id is not used again");
        assert_eq!(calls.cells.len(), 1, "but its cell is");
    }

    #[test]
    fn an_answer_waits_for_its_caller() {
        let mut calls = Calls::default();
        let (a, b) = (calls.open(1), calls.open(1));
        ok(&mut calls, b);
        assert!(calls.poll(a, Waker::noop()).is_none());
        assert!(matches!(calls.poll(b, Waker::noop()), Some((Reply::Failed(OpError::Unwritable), _))));
        assert!(ok(&mut calls, a).1.is_some(), "the caller that polled is woken");
        assert_eq!(calls.in_flight, 0);
    }

    #[test]
    #[should_panic(expected = "answered twice")]
    fn a_second_answer_is_a_defect() {
        let mut calls = Calls::default();
        let id = calls.open(1);
        assert!(calls.abandon(id).is_none());
        ok(&mut calls, id);
        ok(&mut calls, id);
    }
}
