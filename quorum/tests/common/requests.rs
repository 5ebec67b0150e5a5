//! What clients ask, and what the copies are then.

use super::{Cluster, place};
use bytes::Bytes;
use gramme_quorum::*;
use gramme_ring::NodeId;
use gramme_vclock::GrowableContext as Context;
use std::time::Duration;

impl Cluster {
    /// Starts a request and gives its number.
    pub(crate) fn start_request(&mut self, at: NodeId, op: Op) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.input(at, Input::Client(request, op));
        request
    }

    /// Makes a request and lets the cluster talk, and time pass if it must, until the answer is there.
    pub(crate) fn request(&mut self, at: NodeId, op: Op) -> Reply {
        let request = self.start_request(at, op);
        self.run();
        for _ in 0..100 {
            if self.replies.contains_key(&request) {
                break;
            }
            self.pass(Duration::from_millis(100));
        }
        self.replies.get(&request).cloned().expect("every request is answered by its deadline")
    }

    pub(crate) fn put(&mut self, at: NodeId, key: &str, value: &str, cover: Cover) -> Context {
        match self.request(at, put(key, value, cover)) {
            Reply::Written { context, .. } => context,
            other => panic!("put {key} = {value}: {other:?}"),
        }
    }

    pub(crate) fn get(&mut self, at: NodeId, key: &str) -> (Vec<String>, Context) {
        self.get_with(at, key, ReadOptions::default())
    }

    pub(crate) fn get_with(&mut self, at: NodeId, key: &str, options: ReadOptions) -> (Vec<String>, Context) {
        match self.request(at, Op::Get { key: Bytes::copy_from_slice(key.as_bytes()), options }) {
            Reply::Read(reading) => {
                let values = reading.siblings.iter().map(|s| String::from_utf8(s.value.to_vec()).unwrap());
                (values.collect(), reading.context)
            }
            other => panic!("get {key}: {other:?}"),
        }
    }

    /// The values in a node's own copy, sorted; `None` if it has no record.
    pub(crate) fn copy(&self, id: NodeId, key: &str) -> Option<Vec<String>> {
        let record = (place(key), Bytes::copy_from_slice(key.as_bytes()));
        let disk = self.nodes.get(&id).map_or_else(|| &self.down[&id], |n| &n.written);
        let object = object::decode(disk.get(&record)?).unwrap();
        let mut values: Vec<String> = object
            .iter()
            .map(|(_, v)| match &v.content {
                Content::Value { bytes, .. } => String::from_utf8(bytes.to_vec()).unwrap(),
                Content::Tombstone => String::from("(deleted)"),
                Content::Expired { .. } => String::from("(expired)"),
            })
            .collect();
        values.sort();
        Some(values)
    }

    /// How many hints a node's disk holds.
    pub(crate) fn hints(&self, id: NodeId) -> usize {
        let disk = self.nodes.get(&id).map_or_else(|| &self.down[&id], |n| &n.written);
        disk.keys().filter(|(place, _)| place.0 >= 0x8000).count()
    }

    pub(crate) fn records(&self, id: NodeId) -> impl Iterator<Item = &(Place, Bytes)> {
        self.nodes[&id].written.keys()
    }

    /// The key's preference list.
    pub(crate) fn preference(&self, key: &str) -> Vec<NodeId> {
        let engine = &self.nodes.values().next().unwrap().engine;
        engine.preference(key.as_bytes()).into_iter().map(|(id, ..)| id).collect()
    }
}
pub(crate) fn put(key: &str, value: &str, cover: Cover) -> Op {
    Op::Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        content_type: None,
        expiry: None,
        cover,
        options: WriteOptions::default(),
    }
}

pub(crate) fn delete(key: &str, cover: Cover) -> Op {
    Op::Delete { key: Bytes::copy_from_slice(key.as_bytes()), cover, options: WriteOptions::default() }
}

pub(crate) fn r(level: Level) -> ReadOptions {
    ReadOptions { r: Some(level), ..ReadOptions::default() }
}
