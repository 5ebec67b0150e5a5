//! Writes the seed corpora that are real encodings: `cargo run --example seeds` in `fuzz/`. The others are inputs that
//! the fuzzer found (`cargo fuzz cmin`), made few.

use bytes::Bytes;
use gramme_fuzz::vclock_token::sealed;
use gramme_quorum::message::{CallId, Copy, Message, Purpose, Refusal, Syncing, Want};
use gramme_quorum::object::{self, Content, Object, Version};
use gramme_quorum::{
    Cover, Expiry, Instant, Level, ListCursor, Need, Op, OpError, Place, Policy, ReadOptions, Reading, Reply,
    Run, WriteOptions, wire,
};
use gramme_ring::gossip::{self, Gossip, Head, Message as Gossiped, Record};
use gramme_ring::{Change, ClusterId, Layout, LayoutVersion, Member, Membership, NodeId, Phase, Zone};
use gramme_store::{MemDisk, Options, Store};
use gramme_vclock::{
    Actor, Dot, GrowableContext, GrowableDotSet, GrowableSiblings, GrowableVersionVector, Span, Stamp,
};
use std::{fs, path::Path};

fn seed(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(name), bytes).expect("a file");
}

fn main() {
    vclock();
    ring();
    quorum();
    node();
    cluster();
}

fn cluster() {
    // Five nodes, four, and four with faults without limit. Five bytes share out the choices.
    for (name, shape, step) in [("five", 2, 57), ("four", 1, 91), ("safety", 5, 113)] {
        let choices: Vec<u8> = (1..=600u32).map(|n| (n.wrapping_mul(n) >> 3) as u8 ^ step).collect();
        seed("cluster", name, &[&[shape, step, 8, 20, 100, 150, 60][..], &choices].concat());
    }
}

fn contexts() -> [(&'static str, GrowableContext); 3] {
    let span = |actor, first, last| Span { actor: Actor(actor), first, last };
    let make = |spans: &[Span], stamp: u64| GrowableContext {
        seen: {
            let Ok(set) = GrowableDotSet::from_spans(spans.iter().copied());
            set
        },
        stamp: Stamp::from_u64(stamp).expect("below 2^63"),
    };
    [
        ("empty", make(&[], 0)),
        ("one", make(&[span(0x0123_4567_89ab_cdef, 1, 9)], 1_750_000_000_000 << 16)),
        ("gaps", make(&[span(1, 1, 1), span(1, 3, 300), span(u64::MAX, 70_000, u64::MAX)], 5 << 16 | 9)),
    ]
}

fn vclock() {
    for (name, context) in contexts() {
        let key = gramme_vclock::SealKey(*b"sixteen bytes at");
        let text = context.to_token(&key, 7, b"cart").expect("short");
        seed("vclock_token", &format!("text-{name}"), &[b"\x00", text.as_bytes()].concat());
        // A body is what stands before the seal.
        let bytes = data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).expect("text");
        let body = &bytes[..bytes.len() - 8];
        assert_eq!(sealed(body), text);
        seed("vclock_token", &format!("body-{name}"), &[b"\x01", body].concat());
        let encoded = postcard::to_allocvec(&context).expect("an encoding");
        seed("vclock_siblings_decode", &format!("context-{name}"), &encoded);
        seed(
            "vclock_siblings_decode",
            &format!("set-{name}"),
            &postcard::to_allocvec(&context.seen).expect("an encoding"),
        );
    }
    seed(
        "vclock_token",
        "tampered",
        b"\x02\x01\x02\x03\x04\x05\x06\x07\x08\x30\x00\x01\x09\x00\x00\x00\x00\x00\x00\x00\x04\x05",
    );
    let dots = [1, 2, 3].map(|actor| Dot { actor: Actor(actor), counter: 2 * actor });
    let Ok(seen) = GrowableDotSet::from_spans(dots.map(Dot::span));
    let siblings = GrowableSiblings::from_parts(dots.map(|dot| (dot, 7u8)), seen).expect("sorted and seen");
    seed("vclock_siblings_decode", "siblings", &postcard::to_allocvec(&siblings).expect("an encoding"));
    let mut vector = GrowableVersionVector::new();
    vector.increment(Actor(9)).expect("there is room");
    vector.increment(Actor(4)).expect("there is room");
    seed("vclock_siblings_decode", "vector", &postcard::to_allocvec(&vector).expect("an encoding"));
    seed(
        "vclock_dotset_ops",
        "some",
        &(0..=255).step_by(3).map(|n: u16| n.to_le_bytes()[0]).collect::<Vec<_>>(),
    );
    for (form, name) in ["growable", "fixed", "growable-timed", "fixed-timed"].into_iter().enumerate() {
        let choices = (0..=250u8).map(|n| n.wrapping_mul(59) ^ n >> 3);
        let form = u8::try_from(form).expect("four");
        seed("vclock_vector_ops", name, &[form].into_iter().chain(choices).collect::<Vec<_>>());
    }
    seed(
        "vclock_siblings_ops",
        "some",
        &(0..200u8).flat_map(|n| [n.wrapping_mul(37), n]).collect::<Vec<_>>(),
    );
}

fn ring() {
    let keys: [(&str, &[u8]); 4] = [
        ("plain", b"foo"),
        ("tag", b"{user1000}.following"),
        ("empty-tag", b"foo{}{bar}"),
        ("inner", b"foo{{bar}}zap"),
    ];
    for (name, key) in keys {
        seed("ring_slot", name, key);
    }
    // Four nodes, a table of two partitions, tokens in order, a ring of fingers; and whatever a list of numbers says.
    let numbers = |factor: u8| (0..250u8).map(move |n| n.wrapping_mul(factor));
    let tables = [4, 10, 20, 30, 40, 1, 1, 0, 4, 0, 1, 2, 3, 9].into_iter().chain(numbers(73));
    seed("ring_tables", "few", &tables.collect::<Vec<_>>());
    for factor in [29, 57, 101] {
        seed("ring_tables", &format!("numbers-{factor}"), &numbers(factor).collect::<Vec<_>>());
    }
    let zone = |name| Zone::new(name).expect("short");
    let member = |id, weight, name| Member::new(NodeId(id)).with_weight(weight).with_zone(zone(name));
    let three = [member(1, 1, ""), member(2, 1, ""), member(3, 1, "")];
    let zoned = [member(1, 1, "a"), member(2, 3, "a"), member(5, 2, "b"), member(u64::MAX, 1, "c")];
    // Of many replicas: in each zone several, in one as many as there are members, in the only one all.
    let many: Vec<Member> =
        (1..=12).map(|id| member(id * 3, 1 + id as u32 % 4, ["a", "b", "c"][id as usize % 3])).collect();
    let uneven = many.iter().cloned().map(|m| if m.id.0 > 6 { m.with_zone(zone("a")) } else { m });
    let uneven: Vec<Member> = uneven.take(11).collect();
    for (name, n, q, members) in [
        ("one", 3, 1, &three[..1]),
        ("three", 3, 8, &three[..]),
        ("zones", 2, 16, &zoned[..]),
        ("seven", 7, 8, &many[..]),
        ("nine-uneven", 9, 4, &uneven[..]),
        ("all", 12, 2, &many[..8]),
    ] {
        let layout = Layout::compute(n, q, members, None).expect("a layout");
        seed("ring_layout_decode", name, &postcard::to_allocvec(&layout).expect("an encoding"));
        let next = Layout::compute(n, q, members, Some(&layout)).expect("a layout");
        seed(
            "ring_layout_decode",
            &format!("{name}-second"),
            &postcard::to_allocvec(&next).expect("an encoding"),
        );
    }
    let mut m = Membership::new();
    let stage = |m: &mut Membership, change| m.stage(NodeId(9), change).expect("a good change");
    stage(&mut m, Change::Partitions(4));
    for id in 1..=4 {
        stage(&mut m, Change::Member(member(id, 1, "a")));
    }
    seed("ring_membership_decode", "staged", &postcard::to_allocvec(&m).expect("an encoding"));
    let commit = |m: &mut Membership| {
        let seen = m.propose().expect("a proposal").hash();
        m.commit(ClusterId(3), seen).expect("as proposed");
    };
    commit(&mut m);
    seed("ring_membership_decode", "founded", &postcard::to_allocvec(&m).expect("an encoding"));
    stage(&mut m, Change::Remove(NodeId(4)));
    stage(&mut m, Change::Setting { name: "keyspace/a".into(), value: Some(vec![1, 2]) });
    commit(&mut m);
    m.advance(NodeId(2), Phase::Acknowledged).expect("it takes part");
    m.remove_during_transition(NodeId(3)).expect("it takes part");
    stage(&mut m, Change::Leave(NodeId(1)));
    seed("ring_membership_decode", "transition", &postcard::to_allocvec(&m).expect("an encoding"));
    // What follows the hash of a commit.
    let progress = postcard::to_allocvec(&m.progress()).expect("an encoding");
    let commit = postcard::to_allocvec(&m.commit_hash()).expect("an encoding");
    seed("ring_membership_decode", "progress", progress.strip_prefix(&commit[..]).expect("it comes first"));
    // Three nodes; each heard of; a change staged, committed and acknowledged; a hostile list of heads.
    let talk = [0, 0, 0, 2, 0, 0, 2, 0, 0, 2, 0, 1, 0, 0, 2, 0, 0, 2, 0, 0, 2, 0];
    let made_up = |heads| {
        let heads = Gossiped::Heads { membership: 1, commit: None, heads };
        let heads = postcard::to_allocvec(&heads).expect("an encoding");
        [&[1, 7, u8::try_from(heads.len()).expect("short")][..], &heads].concat()
    };
    let head = |id, version| (NodeId(id), Head { incarnation: 9, version });
    let twice = made_up(vec![head(2, 1), head(3, 1), head(2, 2)]);
    seed("ring_gossip", "twice", &[&[1, 1, 2, 3][..], &talk, &twice, &talk].concat());
    let made_up = made_up(vec![head(2, 1)]);
    let changes = [0, 6, 3, 0, 7, 0, 6, 0, 3, 0, 6, 0, 4];
    seed(
        "ring_gossip",
        "join",
        &[&[1, 1, 2, 3][..], &talk, &changes, &talk, &talk, &made_up, &talk].concat(),
    );
    seed("ring_gossip", "wild", &(0..250u8).map(|n| n.wrapping_mul(73)).collect::<Vec<_>>());
    seed("ring_layout_compute", "some", &(0..120u8).map(|n| n.wrapping_mul(29)).collect::<Vec<_>>());
    // N, log2 Q; six join, six more; then one leaves, one weighs more, one stands elsewhere; N and Q stay, or are others.
    let joins = |ids: std::ops::Range<u8>, zones: u8| {
        let joins = ids.flat_map(move |id| [id << 2, id % zones, id.wrapping_mul(5)]);
        [5].into_iter().chain(joins).chain([0]).collect::<Vec<u8>>()
    };
    let rest = |id: u8| [2, id << 2, (id + 1) << 2 | 1, 9, (id + 2) << 2 | 2, 1];
    let many = |head: [u8; 2], zones, tail: &[u8]| {
        [&head, &joins(1..7, zones)[..], &joins(7..13, zones), &rest(3), &[0], &rest(8), tail].concat()
    };
    seed("ring_layout_compute", "seven", &many([7, 4], 3, &[0]));
    seed("ring_layout_compute", "eleven", &many([11, 3], 4, &[0]));
    seed("ring_layout_compute", "nine-then-seven", &many([9, 5], 2, &[255, 7, 16, 0]));
}

fn objects() -> [(&'static str, Object); 3] {
    let version = |content| Version {
        stamp: Stamp::from_u64(1_750_000_000_000 << 16).expect("in range"),
        expiry: Some(Expiry(5)),
        content,
    };
    let value = |bytes: &'static str| Content::Value {
        bytes: Bytes::from_static(bytes.as_bytes()),
        content_type: Some("text/plain".into()),
    };
    let apples = Dot { actor: Actor(1), counter: 1 };
    let later = Dot { actor: Actor(2), counter: 300 };
    let object = |entries: &[(Dot, Content)], dots: &[Dot]| {
        let Ok(seen) = GrowableDotSet::from_spans(dots.iter().map(|dot| dot.span()));
        let entries = entries.iter().map(|(dot, content)| (*dot, version(content.clone())));
        Object::from_parts(entries, seen).expect("sorted and seen")
    };
    let one = object(&[(apples, value("2 apples"))], &[apples]);
    let two = object(&[(apples, value("2 apples")), (later, value("3 pears"))], &[apples, later]);
    let gone = object(&[(later, Content::Tombstone)], &[apples, later]);
    [("one", one), ("two", two), ("gone", gone)]
}

fn quorum() {
    for (name, object) in objects() {
        seed("quorum_object_decode", name, &object::encode(&object));
    }
    let [_, (_, two), _] = objects();
    let (object, key) = (object::encode(&two), Bytes::from_static(b"cart"));
    let (call, layout) = (CallId(77), LayoutVersion(1));
    let (dot, first) = two.iter().next().expect("two siblings");
    let write = |hints, outranked_by| Message::Write {
        call,
        layout,
        purpose: Purpose::Write,
        key: key.clone(),
        object: object.clone(),
        hints,
        sync: Syncing::First,
        outranked_by,
    };
    let [_, (_, context), _] = contexts();
    let options = WriteOptions {
        w: Some(Level::Quorum),
        pw: Some(Level::Count(1)),
        dw: None,
        timeout: Some(core::time::Duration::from_millis(3)),
    };
    let put = Op::Put {
        key: key.clone(),
        value: Bytes::from_static(b"v"),
        content_type: None,
        expiry: Some(Expiry(9)),
        cover: Cover::Context(context.clone()),
        options,
    };
    let error = OpError::Indeterminate { need: Need::Pw, have: 1, want: 2 };
    let reading = Reading { siblings: Vec::new(), context };
    let next = Some(ListCursor { place: Place(64), at: 1 << 40 });
    let run = Run { number: 290, actor: Actor(7) };
    let founded = Membership::found(ClusterId(5), 3, 8, &[Member::new(NodeId(1)), Member::new(NodeId(2))])
        .expect("two members are enough");
    let record = Record { head: Head { incarnation: 4, version: 1 }, facts: b"10.0.0.1:7000".to_vec() };
    let delta = |told| gossip::Message::Delta {
        membership: Some(told),
        records: vec![(NodeId(2), record.clone())],
        ask_membership: true,
        ask: vec![NodeId(1)],
    };
    let progress = gossip::Told::Progress(Box::new(founded.progress()));
    let all = gossip::Told::All(Box::new(founded));
    let listed = Message::Listed {
        call,
        keys: vec![(key.clone(), 9)],
        objects: vec![object.clone()],
        next,
        complete: true,
        damaged: false,
        run,
    };
    let messages = [
        ("heartbeat", Message::Heartbeat { run, mark: 300, at: Instant(1 << 40), wall_ms: 1 << 40 }),
        ("outdated", Message::Outdated { run, mark: 300 }),
        ("offer", Message::Offer { call, layout, slots: (64, 127) }),
        ("offered", Message::Offered { call, whole: true }),
        ("summary", Message::Gossip(Gossip::new(NodeId(1), 2, 3).expect("a small incarnation").summary())),
        ("delta", Message::Gossip(delta(all))),
        ("progress", Message::Gossip(delta(progress))),
        ("write", write(vec![], Some(Policy::Siblings.rank(first, dot)))),
        ("hint", write(vec![NodeId(3), NodeId(4)], None)),
        ("written", Message::Written { call, hints: vec![], outranking: Some(object.clone()) }),
        ("read", Message::Read { call, layout, key: key.clone(), want: Want::Digest }),
        ("copy", Message::Copy { call, copy: Copy::Object(object.clone()), incomplete: false, run }),
        ("digest", Message::Copy { call, copy: Copy::Digest(9), incomplete: true, run }),
        ("refused", Message::Refused { call, why: Refusal::Layout(layout) }),
        ("forward-put", Message::Forward { call, op: put, heard: Some(Instant(1 << 40)) }),
        (
            "forward-get",
            Message::Forward { call, op: Op::Get { key, options: ReadOptions::default() }, heard: None },
        ),
        ("failed", Message::Forwarded { call, reply: Reply::Failed(error) }),
        ("answered", Message::Forwarded { call, reply: Reply::Read(reading) }),
        ("list", Message::List { call, layout, slots: (64, 127), cursor: None, objects: true }),
        ("listed", listed),
    ];
    for (name, message) in messages {
        let mut bytes = Vec::new();
        wire::encode(&message, &mut bytes);
        seed("quorum_message_decode", name, &bytes);
    }
    // Three nodes, N = 3, R = W = 2, strict: write, run, read, crash, cut, run.
    let calm = [24, 31];
    let steps: [&[u8]; 8] = [&[0, 7, 3], &calm, &[32, 23, 3], &calm, &[27], &[64, 7, 4], &[26, 2], &calm];
    seed(
        "quorum_engine",
        "strict",
        &[&[2 | 2 << 2 | 1 << 4 | 1 << 6, 0][..], &steps.concat(), &steps.concat()].concat(),
    );
    seed(
        "quorum_engine",
        "wild",
        &[&[3 | 2 << 2, 1][..], &(0..250u8).map(|n| n.wrapping_mul(57)).collect::<Vec<_>>()].concat(),
    );
    seed(
        "quorum_engine",
        "small",
        &[&[2 | 2 << 2 | 1 << 4, 3][..], &(0..250u8).map(|n| n.wrapping_mul(91)).collect::<Vec<_>>()]
            .concat(),
    );
}

fn node() {
    let cuts = [9; 8];
    let streams: [(&str, &[u8]); 5] = [
        ("get", b"*2\r\n$3\r\nGET\r\n$5\r\nhello\r\n"),
        ("pipeline", b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$0\r\n\r\n*1\r\n$4\r\nPING\r\n"),
        ("inline", b"SET greeting \"hello \\x41\\n\" 'it\\'s'\r\n\r\nPING\n"),
        ("too-large", b"*2\r\n$3\r\nGET\r\n$300\r\nhello"),
        ("broken", b"*2\r\n$3\r\nGETT\r\n"),
    ];
    for (name, stream) in streams {
        seed("resp", name, &[&cuts[..], stream].concat());
    }
    seed("http_target", "path", b"a%00%fF/%2B+%E2%82%AC");
    seed("http_target", "query", b"r=1&&w=a%3Db&flag&timeout=%31%30=0");
    seed("http_target", "broken", b"a=%4&b=%g0&c=%");
    seed("peer_frame", "good", b"\x01\x08\x00\x05\x03\x00abc\x20\x17some bytes of a longer body here");
    seed("peer_frame", "damaged", b"\x81\x08\x00\x05\x40\x00\x03\x00abc\x04\x01defg");
    let body = b"some body";
    let frame = [&9u32.to_le_bytes()[..], &crc32fast::hash(body).to_le_bytes(), body].concat();
    seed("peer_frame", "stream", &[b"\x00\x10\x00\x03", &frame[..], &frame].concat());
    store_files();
    for n in 0..3u8 {
        let bytes: Vec<u8> = (0..160u8).map(|at| at.wrapping_mul(67 + 2 * n) ^ n).collect();
        seed("store_ops", &format!("some-{n}"), &bytes);
        seed("store_open", &format!("some-{n}"), &bytes[..usize::from(n) * 5 + 6]);
    }
}

/// Small stores of real files: closed in good order, and killed.
fn store_files() {
    for (name, clean) in [("closed", true), ("killed", false)] {
        let disk = MemDisk::new();
        let options = Options::new([4; 16]).with_segment_bytes(4096).with_tree_key([3; 16]);
        let (mut store, _) = Store::open(disk.clone(), options).expect("opens");
        for n in 0..3u16 {
            store.put(n, b"k0", &[1; 20], 1).expect("room");
            store.put_expiring(n, b"k1", &[2; 9], 2, 100).expect("room");
            store.put_shrinking(n, b"k4", &[5; 40], 4, 100, 8).expect("room");
            store.delete(n, b"k0").expect("room");
            store.sync().expect("syncs");
        }
        store.drop_slot(2).expect("room");
        // What is written next is in another segment.
        store.put(1, b"k2", &[3; 3000], 3).expect("room");
        store.put(0, b"k3", &[0; 1500], 3).expect("room");
        store.put(0, b"k3", &[4; 30], 3).expect("room");
        store.sync().expect("syncs");
        if clean {
            store.close().expect("closes");
        } else {
            drop(store);
        }
        seed("store_raw", name, &gramme_fuzz::store_raw::input_of(&disk, 3));
        seed("store_raw", &format!("{name}-scanned"), &gramme_fuzz::store_raw::input_of(&disk, 2));
    }
}
