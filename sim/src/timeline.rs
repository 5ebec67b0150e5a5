//! The story of one key, as text.

use crate::checker::writer_of;
use crate::time::Time;
use bytes::Bytes;
use gramme_quorum::message::{Copy, Message};
use gramme_quorum::{Content, Cover, Object, Op, Output, Reply};
use gramme_ring::Slot;
use gramme_vclock::{Actor, Dot, GrowableDotSet as DotSet, Span};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What a line is about, by nodes' numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The cluster, or several nodes.
    Note,
    /// A node goes down.
    Down(usize),
    /// A node starts.
    Up(usize),
    /// One direction between two nodes is cut, or (`false`) mended.
    Link(usize, usize, bool),
    /// A client's request to a node.
    Client(usize),
    /// A client's answer.
    Answer,
    /// A message that arrives: from, to.
    Message(usize, usize),
    /// A node stores or drops something.
    Did(usize),
}

/// Collects what happens to one key, and what happens to whole nodes.
#[derive(Clone, Debug)]
pub struct Timeline {
    key: Bytes,
    marks: Vec<(Time, Mark, String)>,
    /// Actors by their node and run: shorter to read than 16 digits.
    names: BTreeMap<Actor, String>,
    /// What was asked of peers about the key, so that answers, which do not name it, are recognized.
    calls: BTreeMap<u64, ()>,
}

impl Timeline {
    /// The timeline of this key.
    #[must_use]
    pub fn new(key: Bytes) -> Timeline {
        Timeline { key, marks: Vec::new(), names: BTreeMap::new(), calls: BTreeMap::new() }
    }

    /// What happened, line by line.
    #[must_use]
    pub fn lines(&self) -> impl ExactSizeIterator<Item = String> + '_ {
        self.marks.iter().map(|(at, mark, what)| {
            let indent = match mark {
                Mark::Message(..) => "  ",
                Mark::Did(_) => "    ",
                _ => "",
            };
            format!("{at:>16}  {indent}{what}")
        })
    }

    /// The same with what each is about.
    #[must_use]
    pub fn marks(&self) -> &[(Time, Mark, String)] {
        &self.marks
    }

    /// Something has happened.
    pub fn mark(&mut self, now: Time, mark: Mark, what: &str) {
        self.marks.push((now, mark, what.to_owned()));
    }

    /// A node's new run.
    pub fn named(&mut self, actor: Actor, node: usize, run: u64) {
        self.names.insert(actor, format!("{node}.{run}"));
    }

    /// A client's request leaves for a node.
    pub fn asked(&mut self, now: Time, name: &str, node: usize, op: &Op) {
        if *op.key() != self.key {
            return;
        }
        let what = match op {
            Op::Get { .. } => String::from("GET"),
            Op::Put { cover: Cover::Held, .. } => String::from("SET"),
            Op::Put { cover: Cover::Nothing, .. } => String::from("ADD"),
            Op::Put { cover: Cover::Context(c) | Cover::Amends(c), .. } => {
                format!("PUT over {}", self.set(&c.seen))
            }
            Op::Delete { cover: Cover::Context(c) | Cover::Amends(c), .. } => {
                format!("DEL over {}", self.set(&c.seen))
            }
            Op::Delete { .. } => String::from("DEL"),
        };
        self.mark(now, Mark::Client(node), &format!("client → {node}  {name}: {what}"));
    }

    /// A client is answered.
    pub fn answered(&mut self, now: Time, name: &str, key: &Bytes, reply: Option<&Reply>) {
        if *key != self.key {
            return;
        }
        let what = match reply {
            None => String::from("no answer"),
            Some(Reply::Read(reading)) => {
                let values: Vec<String> = reading
                    .siblings
                    .iter()
                    .map(|f| format!("{}={}", self.dot(f.dot), value(&f.value)))
                    .collect();
                format!("[{}] context {}", values.join(", "), self.set(&reading.context.seen))
            }
            Some(Reply::Written { context, .. }) => format!("OK, context {}", self.set(&context.seen)),
            Some(Reply::Failed(error)) => {
                format!("{}: {error}", if error.changed() { "INDETERMINATE" } else { "FAILED" })
            }
        };
        self.mark(now, Mark::Answer, &format!("client ←    {name}: {what}"));
    }

    /// A node is about to handle a message.
    pub fn delivered(&mut self, now: Time, from: usize, to: usize, message: &Message) {
        if let Some(what) = self.message(message) {
            self.mark(now, Mark::Message(from, to), &format!("{from} → {to}  {what}"));
        }
    }

    /// A node does this.
    pub fn acted(&mut self, now: Time, node: usize, output: &Output) {
        match output {
            Output::Append { place, key, value, .. } => {
                let own = key.ends_with(&self.key) && *key != self.key;
                let what = match value {
                    Some((bytes, _)) if *key == self.key => match gramme_quorum::object::decode(bytes) {
                        Ok(object) => format!("stores {}", self.object(&object)),
                        Err(_) => String::from("stores bytes that are no object"),
                    },
                    None if *key == self.key => String::from("drops its copy"),
                    Some(_) if own => format!("keeps a hint (slot {})", place.0),
                    None if own => format!("drops a hint (slot {})", place.0),
                    _ => return,
                };
                self.mark(now, Mark::Did(node), &format!("{node}  {what}"));
            }
            Output::DropSlot { place, .. } if place.0 == Slot::of(&self.key).index() => {
                self.mark(now, Mark::Did(node), &format!("{node}  drops the slot"));
            }
            // So that answers, which do not name the key, are recognized.
            Output::Send(_, Message::Write { call, key, .. } | Message::Read { call, key, .. })
                if *key == self.key =>
            {
                self.calls.insert(call.0, ());
            }
            Output::Send(_, Message::Forward { call, op, .. }) if *op.key() == self.key => {
                self.calls.insert(call.0, ());
            }
            _ => {}
        }
    }

    fn message(&self, message: &Message) -> Option<String> {
        let object = |bytes: &Bytes| match gramme_quorum::object::decode(bytes) {
            Ok(object) => self.object(&object),
            Err(_) => String::from("(bytes that are no object)"),
        };
        let known = |call: &gramme_quorum::message::CallId| self.calls.contains_key(&call.0);
        Some(match message {
            Message::Write { key, object: bytes, purpose, hints, .. } if *key == self.key => {
                let hints: String = hints.iter().map(|owner| format!(" for {owner}")).collect();
                format!("{purpose:?}{hints} {}", object(bytes))
            }
            Message::Read { key, want, .. } if *key == self.key => format!("read, {want:?}"),
            Message::Written { call, outranking, .. } if known(call) => {
                let more = outranking
                    .as_ref()
                    .map_or_else(String::new, |bytes| format!(", outranked by {}", object(bytes)));
                format!("written{more}")
            }
            Message::Copy { call, copy, incomplete, .. } if known(call) => {
                let copy = match copy {
                    Copy::Object(bytes) => object(bytes),
                    Copy::Digest(digest) => format!("digest {digest:016x}"),
                    Copy::Absent => String::from("absent"),
                };
                format!("has {copy}{}", if *incomplete { ", incomplete" } else { "" })
            }
            Message::Refused { call, why } if known(call) => format!("refused: {why:?}"),
            Message::Forward { op, .. } if *op.key() == self.key => String::from("forwarded request"),
            Message::Forwarded { call, .. } if known(call) => String::from("answer to a forwarded request"),
            _ => return None,
        })
    }

    fn object(&self, object: &Object) -> String {
        let mut text = String::from("{");
        for (at, (dot, version)) in object.iter().enumerate() {
            let content = match &version.content {
                Content::Tombstone => String::from("deleted"),
                Content::Value { bytes, .. } => value(bytes),
                Content::Expired { .. } => String::from("expired"),
            };
            let comma = if at > 0 { ", " } else { "" };
            let _ = write!(text, "{comma}{}={content}", self.dot(dot));
        }
        let _ = write!(text, "}} seen {}", self.set(object.seen()));
        text
    }

    fn actor(&self, actor: Actor) -> String {
        self.names.get(&actor).cloned().unwrap_or_else(|| format!("{:016x}", actor.0))
    }

    fn dot(&self, dot: Dot) -> String {
        format!("{}:{}", self.actor(dot.actor), dot.counter)
    }

    fn set(&self, set: &DotSet) -> String {
        let span = |span: &Span| {
            let name = self.actor(span.actor);
            if span.first == span.last {
                format!("{name}:{}", span.first)
            } else {
                format!("{name}:{}..={}", span.first, span.last)
            }
        };
        format!("[{}]", set.spans().iter().map(span).collect::<Vec<_>>().join(" "))
    }
}

/// A value's short name.
fn value(bytes: &[u8]) -> String {
    writer_of(bytes).map_or_else(|| String::from("(not a client's value)"), |op| op.to_string())
}
