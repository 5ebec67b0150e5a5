//! A history told to the checker step by step, as a world would.

use bytes::Bytes;
use core::time::Duration;
use gramme_quorum::object::encode;
use gramme_quorum::{
    AppendId, Content, Cover, Found, Level, Object, Op, Output, Place, ReadOptions, Reading, Reply, Version,
    WriteOptions,
};
use gramme_ring::Slot;
use gramme_sim::checker::{Checker, Invariant, OpId, value_of};
use gramme_sim::time::Time;
use gramme_vclock::{Actor, Dot, GrowableContext as Context, GrowableDotSet as DotSet, Stamp};

pub(crate) const KEY: &[u8] = b"cart";
pub(crate) const LIMIT: Duration = Duration::from_secs(5);
pub(crate) const HINTS: u16 = 0x8000;

/// Three nodes, told what to do.
pub(crate) struct History {
    pub(crate) checker: Checker,
    pub(crate) now: Time,
    pub(crate) appends: u64,
}

pub(crate) fn actor(node: usize) -> Actor {
    Actor(node as u64 + 1)
}

pub(crate) fn dot(node: usize, counter: u64) -> Dot {
    Dot { actor: actor(node), counter }
}

pub(crate) fn set(dots: &[Dot]) -> DotSet {
    let mut set = DotSet::new();
    for dot in dots {
        let Ok(()) = set.insert(*dot);
    }
    set
}

pub(crate) fn stamp(millis: u64) -> Stamp {
    Stamp::from_u64(millis << 16).unwrap()
}

pub(crate) fn value(op: OpId) -> Version {
    Version {
        stamp: stamp(op.0 + 1),
        expiry: None,
        content: Content::Value { bytes: value_of(op, 3), content_type: None },
    }
}

pub(crate) fn object(entries: &[(Dot, Version)], seen: &[Dot]) -> Object {
    let mut entries = entries.to_vec();
    entries.sort_by_key(|(dot, _)| *dot);
    Object::from_parts(entries, set(seen)).unwrap()
}

pub(crate) fn strict() -> (ReadOptions, WriteOptions) {
    let quorum = Some(Level::Quorum);
    (
        ReadOptions { pr: quorum, ..ReadOptions::default() },
        WriteOptions { pw: quorum, ..WriteOptions::default() },
    )
}

impl History {
    pub(crate) fn new() -> History {
        let mut checker = Checker::new(3, 3, 2, 2);
        for node in 0..3 {
            checker.opened(Time(0), node, actor(node));
        }
        History { checker, now: Time(0), appends: 0 }
    }

    pub(crate) fn tick(&mut self) -> Time {
        self.now = self.now + Duration::from_millis(1);
        self.now
    }

    pub(crate) fn ask(&mut self, op: Op) -> OpId {
        let now = self.tick();
        self.checker.submitted(now, op, LIMIT)
    }

    pub(crate) fn put(&mut self, cover: Cover) -> OpId {
        let id = OpId(self.checker.requests() as u64);
        self.ask(Op::Put {
            key: Bytes::from_static(KEY),
            value: value_of(id, 3),
            content_type: None,
            expiry: None,
            cover,
            options: strict().1,
        })
    }

    pub(crate) fn put_over(&mut self, dots: &[Dot]) -> OpId {
        self.put(Cover::Context(Context { seen: set(dots), stamp: stamp(1) }))
    }

    pub(crate) fn delete(&mut self, dots: &[Dot]) -> OpId {
        let cover = Cover::Context(Context { seen: set(dots), stamp: stamp(1) });
        self.ask(Op::Delete { key: Bytes::from_static(KEY), cover, options: strict().1 })
    }

    pub(crate) fn get(&mut self) -> OpId {
        self.ask(Op::Get { key: Bytes::from_static(KEY), options: strict().0 })
    }

    /// A node writes a record, and syncs it.
    pub(crate) fn store(&mut self, node: usize, object: &Object) {
        self.write(node, Some(object));
        self.checker.sync_begun(node);
        self.checker.sync_done(node);
    }

    pub(crate) fn write(&mut self, node: usize, object: Option<&Object>) {
        self.appends += 1;
        let append = Output::Append {
            id: AppendId(self.appends),
            place: Place(Slot::of(KEY).index()),
            key: Bytes::from_static(KEY),
            value: object.map(|object| (encode(object), 0)),
            shrink: None,
        };
        let now = self.tick();
        self.checker.acted(now, node, &[append]);
    }

    pub(crate) fn hint(&mut self, node: usize) {
        self.appends += 1;
        let append = Output::Append {
            id: AppendId(self.appends),
            place: Place(HINTS | 9),
            key: Bytes::from_static(b"hint"),
            value: Some((Bytes::new(), 0)),
            shrink: None,
        };
        let now = self.tick();
        self.checker.acted(now, node, &[append]);
    }

    pub(crate) fn reply(&mut self, id: OpId, reply: &Reply) {
        let now = self.tick();
        self.checker.answering(now, id, reply);
        self.checker.replied(now, id, reply);
    }

    pub(crate) fn ok(&mut self, id: OpId, context: &[Dot]) {
        let context = Context { seen: set(context), stamp: stamp(1) };
        self.reply(id, &Reply::Written { context, replaced: false });
    }

    pub(crate) fn read(&mut self, id: OpId, shown: &[(Dot, Version)], context: &[Dot]) {
        let siblings = shown.iter().map(found).collect();
        let context = Context { seen: set(context), stamp: stamp(1) };
        self.reply(id, &Reply::Read(Reading { siblings, context }));
    }

    /// One write by node 0 with dot 0:1, durable on all three and acknowledged.
    pub(crate) fn first_write(&mut self) -> (OpId, Dot) {
        let id = self.put(Cover::Nothing);
        let at = dot(0, 1);
        for node in 0..3 {
            self.store(node, &object(&[(at, value(id))], &[at]));
        }
        self.ok(id, &[at]);
        (id, at)
    }

    pub(crate) fn rest(&mut self) {
        let unrest = self.checker.unrest(&[0, 1, 2], |_| vec![0, 1, 2], HINTS, None);
        let now = self.tick();
        match unrest {
            Some(unrest) => self.checker.fail_unrest(now, unrest),
            None => self.checker.check_rest(now, |_| vec![0, 1, 2]),
        }
    }

    #[track_caller]
    pub(crate) fn breaks(&self, invariant: Invariant) {
        let violation = self.checker.violation().expect("the judge saw nothing wrong");
        assert_eq!(violation.invariant, invariant, "{violation}");
    }

    #[track_caller]
    pub(crate) fn holds(&self) {
        assert_eq!(self.checker.violation(), None);
    }
}

/// A version as a read shows it.
pub(crate) fn found((dot, version): &(Dot, Version)) -> Found {
    match &version.content {
        Content::Value { bytes, .. } => Found {
            dot: *dot,
            stamp: version.stamp,
            value: bytes.clone(),
            content_type: None,
            expiry: version.expiry,
        },
        Content::Tombstone | Content::Expired { .. } => panic!("only values are shown"),
    }
}
