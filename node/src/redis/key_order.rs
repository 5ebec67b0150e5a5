//! Keeps one connection's commands on one key in order: a write waits for everything earlier on its key, a read
//! for earlier writes. Between keys, and between connections, nothing waits.
//!
//! Without this a pipelined `SET` and `GET` of one key could meet different coordinators and pass each other.
//! Keys are told apart by a keyed hash; that two of them share one only makes one wait for the other.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

/// A key's hash, by the connection's keyed hasher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct KeyHash(pub(super) u64);

/// Who waits: `T` names a part of a command.
#[derive(Debug)]
pub(super) struct KeyOrder<T> {
    keys: HashMap<KeyHash, Key<T>, BuildHasherDefault<AlreadyHashed>>,
}

#[derive(Debug)]
struct Key<T> {
    running: usize,
    writing: bool,
    waiting: VecDeque<(T, bool)>,
}

impl<T> Default for KeyOrder<T> {
    fn default() -> Self {
        KeyOrder { keys: HashMap::default() }
    }
}

impl<T> KeyOrder<T> {
    /// Whether `who` may start now. If not, [`end`](Self::end) will name it.
    pub(super) fn begin(&mut self, key: KeyHash, write: bool, who: T) -> bool {
        match self.keys.entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(Key { running: 1, writing: write, waiting: VecDeque::new() });
                true
            }
            Entry::Occupied(mut occupied) => {
                let key = occupied.get_mut();
                // A read does not overtake a write that waits: it would see what was there before.
                if !write && !key.writing && key.waiting.is_empty() {
                    key.running += 1;
                    return true;
                }
                key.waiting.push_back((who, write));
                false
            }
        }
    }

    /// One of the running on `key` has ended; `start` is called for each that may start now, in order.
    ///
    /// # Panics
    /// If none was running.
    pub(super) fn end(&mut self, key: KeyHash, mut start: impl FnMut(T)) {
        let Entry::Occupied(mut occupied) = self.keys.entry(key) else { panic!("nothing ran on this key") };
        let state = occupied.get_mut();
        state.running -= 1;
        state.writing &= state.running > 0;
        while let Some((_, write)) = state.waiting.front() {
            if state.running > 0 && (*write || state.writing) {
                break;
            }
            let (who, write) = state.waiting.pop_front().expect("there is a front");
            state.running += 1;
            state.writing = write;
            start(who);
        }
        if state.running == 0 {
            occupied.remove();
        }
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// The keys of the map are hashes already.
#[derive(Debug, Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a KeyHash is one u64")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const K: KeyHash = KeyHash(7);

    fn end(order: &mut KeyOrder<u32>) -> Vec<u32> {
        let mut started = Vec::new();
        order.end(K, |who| started.push(who));
        started
    }

    #[test]
    fn reads_share_and_writes_do_not() {
        let mut order = KeyOrder::default();
        assert!(order.begin(K, false, 0));
        assert!(order.begin(K, false, 1));
        assert!(!order.begin(K, true, 2));
        assert!(!order.begin(K, false, 3), "a read does not overtake a waiting write");
        assert!(!order.begin(K, false, 4));
        assert!(order.begin(KeyHash(8), true, 5), "another key is not concerned");
        assert!(end(&mut order).is_empty());
        assert_eq!(end(&mut order), [2]);
        assert_eq!(end(&mut order), [3, 4]);
        assert!(end(&mut order).is_empty());
        assert!(end(&mut order).is_empty());
        order.end(KeyHash(8), |_| unreachable!());
        assert!(order.is_empty());
    }

    proptest! {
        /// Whatever order commands end in, each write ran alone and each command saw all earlier writes.
        #[test]
        fn writes_are_alone_and_in_order(commands in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..40)) {
            let mut order = KeyOrder::default();
            let mut running: Vec<usize> = Vec::new();
            let mut started = vec![false; commands.len()];
            let mut ended = vec![false; commands.len()];
            let write = |i: usize| commands[i].0;
            for (i, start) in started.iter_mut().enumerate() {
                *start = order.begin(K, write(i), i);
                if *start {
                    running.push(i);
                }
            }
            for (_, pick) in &commands {
                prop_assert!(!running.is_empty());
                for &i in &running {
                    prop_assert!(!write(i) || running.len() == 1);
                    for earlier in (0..i).filter(|&e| write(e) || write(i)) {
                        prop_assert!(ended[earlier], "{} started before {} ended", i, earlier);
                    }
                }
                let done = running.swap_remove(pick.index(running.len()));
                ended[done] = true;
                order.end(K, |who| { running.push(who); started[who] = true; });
            }
            prop_assert!(ended.iter().all(|&e| e) && started.iter().all(|&s| s));
            prop_assert!(order.is_empty());
        }
    }
}
