//! A world driven by hand: one client, one step after the other. What the scenario tests are written in.

use crate::checker::{OpId, value_of, writer_of};
use crate::time::Time;
use crate::world::{Answer, Happening, Shape, World};
use bytes::Bytes;
use core::time::Duration;
use gramme_quorum::{Cover, Keyspace, Level, Op, OpError, ReadOptions, Reply, WriteOptions};
use gramme_vclock::GrowableContext as Context;

/// How long a script waits for the cluster to come to rest.
const REST: Duration = Duration::from_secs(60);

/// A cluster, and somebody who says what happens to it.
///
/// ```
/// use gramme_sim::script::Script;
///
/// let mut s = Script::new(1, 3);
/// let bread = s.set(0, "cart").unwrap();
/// assert_eq!(s.get(1, "cart").unwrap().values, [bread.value]);
/// s.rest();
/// ```
#[derive(Debug)]
pub struct Script {
    /// The cluster.
    pub world: World,
    /// W for the writes that follow, if not the cluster's own.
    pub w: Option<Level>,
    /// R for the reads that follow, if not the cluster's own.
    pub r: Option<Level>,
}

/// A write that was acknowledged.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The value's name.
    pub value: OpId,
    /// What the writer got.
    pub context: Context,
}

/// What a read showed.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// The values, by name; the one that a plain read shows comes first.
    pub values: Vec<OpId>,
    /// Covers them.
    pub context: Context,
}

impl Shown {
    /// The values in the order in which they were written.
    #[must_use]
    pub fn sorted(&self) -> Vec<OpId> {
        let mut values = self.values.clone();
        values.sort();
        values
    }
}

/// Why there is no answer to speak of.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// The answer was an error.
    Failed(OpError),
    /// The node was down, or died.
    Gone,
}

impl Script {
    /// So many nodes, (3, 2, 2), up and connected.
    #[must_use]
    pub fn new(seed: u64, nodes: usize) -> Script {
        Script::of(seed, Shape::new(nodes))
    }

    /// A cluster of this shape, up and connected.
    #[must_use]
    pub fn of(seed: u64, shape: Shape) -> Script {
        let mut script = Script { world: World::new(seed, shape), w: None, r: None };
        script.wait(Duration::from_secs(1));
        script
    }

    /// Commits to a keyspace, and waits until all members go by it.
    ///
    /// # Panics
    /// If they do not within a minute.
    pub fn keyspace(&mut self, prefix: &str, keyspace: &Keyspace) {
        self.world.commit_keyspaces(0, &[(prefix.to_owned(), *keyspace)]);
        let until = self.world.now() + REST;
        while !self.world.keyspaces().iter().any(|(known, _)| known == prefix) {
            assert!(self.world.now() < until, "not all go by the keyspace {prefix}");
            self.wait(Duration::from_millis(100));
        }
    }

    /// Lets time pass.
    pub fn wait(&mut self, length: Duration) {
        let until = self.world.now() + length;
        while self.world.next(until).is_some() {}
        self.judge();
    }

    /// A plain overwrite through this node.
    ///
    /// # Errors
    /// If it is not acknowledged.
    pub fn set(&mut self, node: usize, key: &str) -> Result<Written, Trouble> {
        self.put_covering(node, key, Cover::Held)
    }

    /// Adds a sibling through this node.
    ///
    /// # Errors
    /// If it is not acknowledged.
    pub fn add(&mut self, node: usize, key: &str) -> Result<Written, Trouble> {
        self.put_covering(node, key, Cover::Nothing)
    }

    /// Writes what replaces what this context covers.
    ///
    /// # Errors
    /// If it is not acknowledged.
    pub fn put(&mut self, node: usize, key: &str, over: &Context) -> Result<Written, Trouble> {
        self.put_covering(node, key, Cover::Context(over.clone()))
    }

    fn put_covering(&mut self, node: usize, key: &str, cover: Cover) -> Result<Written, Trouble> {
        let id = self.begin_put(node, key, cover);
        let answer = self.finish(id);
        written(id, answer)
    }

    /// Sends a write without waiting for its answer.
    pub fn begin_put(&mut self, node: usize, key: &str, cover: Cover) -> OpId {
        let value = value_of(self.world.next_request(), 8);
        let options = WriteOptions { w: self.w, ..WriteOptions::default() };
        let key = Bytes::copy_from_slice(key.as_bytes());
        self.world.submit(node, Op::Put { key, value, content_type: None, expiry: None, cover, options })
    }

    /// Deletes what this context covers, or plainly.
    ///
    /// # Errors
    /// If it is not acknowledged.
    pub fn delete(&mut self, node: usize, key: &str, over: Option<&Context>) -> Result<Written, Trouble> {
        let cover = over.map_or(Cover::Held, |over| Cover::Context(over.clone()));
        let options = WriteOptions { w: self.w, ..WriteOptions::default() };
        let key = Bytes::copy_from_slice(key.as_bytes());
        let id = self.world.submit(node, Op::Delete { key, cover, options });
        let answer = self.finish(id);
        written(id, answer)
    }

    /// Reads through this node.
    ///
    /// # Errors
    /// If the read fails.
    pub fn get(&mut self, node: usize, key: &str) -> Result<Shown, Trouble> {
        let options = ReadOptions { r: self.r, ..ReadOptions::default() };
        let key = Bytes::copy_from_slice(key.as_bytes());
        let id = self.world.submit(node, Op::Get { key, options });
        match self.finish(id) {
            Answer::Reply(Reply::Read(reading)) => Ok(Shown {
                values: reading.siblings.iter().filter_map(|found| writer_of(&found.value)).collect(),
                context: reading.context,
            }),
            Answer::Reply(Reply::Failed(error)) => Err(Trouble::Failed(error)),
            Answer::Reply(Reply::Written { .. }) | Answer::Refused | Answer::Lost => Err(Trouble::Gone),
        }
    }

    /// Waits for the answer to a request.
    ///
    /// # Panics
    /// If none comes within a minute, or a promise is broken.
    pub fn finish(&mut self, id: OpId) -> Answer {
        let until = self.world.now() + Duration::from_secs(60);
        while let Some(happening) = self.world.next(until) {
            match happening {
                Happening::Answered(answered, answer) if answered == id => {
                    self.judge();
                    return answer;
                }
                Happening::Answered(..) | Happening::Alarm(_) => {}
            }
        }
        self.judge();
        panic!("{id} is not answered")
    }

    /// Cuts a node off from all others, or lets it back.
    pub fn isolate(&mut self, node: usize, cut: bool) {
        for other in (0..self.world.nodes()).filter(|other| *other != node) {
            self.world.set_cut_both(node, other, cut);
        }
    }

    /// Starts a node that is down, and gives it a moment.
    pub fn restart(&mut self, node: usize) {
        self.world.restart(node, Duration::ZERO);
        self.wait(Duration::from_secs(1));
    }

    /// Starts a node that has lost its disk, or has an old one, without a link to one of those who could tell it what it lost.
    ///
    /// # Panics
    /// If it has that all the same.
    pub fn restart_apart(&mut self, node: usize, from: usize) {
        self.world.set_cut_both(node, from, true);
        self.restart(node);
        assert!(!self.world.is_complete(), "node {node} has nothing to recover any more");
    }

    /// Gives it that link, and a moment.
    pub fn join_again(&mut self, node: usize, from: usize) {
        self.world.set_cut_both(node, from, false);
        self.wait(Duration::from_secs(2));
    }

    /// Waits until the cluster is at rest without a single read, and has it judged.
    ///
    /// # Panics
    /// If it does not come to rest, or a promise is broken.
    pub fn rest(&mut self) {
        let until = self.world.now() + REST;
        while let Some(unrest) = self.world.unrest() {
            assert!(self.world.now() < until, "no rest: {}", unrest.what);
            self.wait(Duration::from_millis(100));
        }
        self.world.check_rest();
        self.judge();
    }

    /// The time.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.world.now()
    }

    fn judge(&self) {
        if let Some(violation) = self.world.checker().violation() {
            panic!("{violation}");
        }
    }
}

fn written(id: OpId, answer: Answer) -> Result<Written, Trouble> {
    match answer {
        Answer::Reply(Reply::Written { context, .. }) => Ok(Written { value: id, context }),
        Answer::Reply(Reply::Failed(error)) => Err(Trouble::Failed(error)),
        Answer::Reply(Reply::Read(_)) | Answer::Refused | Answer::Lost => Err(Trouble::Gone),
    }
}
