//! What is wrong with bytes that make no membership and no layout has a name, through a format that drops texts as well.

use gramme_ring::gossip::{Head, INCARNATION_END, MAX_FACTS, Message, Record, Told};
use gramme_ring::membership::{MAX_MERGED_SETTINGS, MAX_SETTING_NAME, Progress, Standing};
use gramme_ring::{
    Change, Checked, ClusterId, Layout, LayoutError, Malformed, Member, Membership, NodeId, Partition, Phase,
    Slot, Zone,
};
use serde_json::{Value, json};

mod hashed;

use hashed::hashed;

/// A live transition from two nodes to three, with a tracker, a removed node, a setting, and something staged.
fn membership() -> Value {
    let mut m = Membership::new();
    for id in 1..=3 {
        m.stage(NodeId(9), Change::Member(Member::new(NodeId(id)))).unwrap();
    }
    m.stage(NodeId(9), Change::Partitions(2)).unwrap();
    m.stage(NodeId(9), Change::Setting { name: "a".into(), value: Some(vec![1]) }).unwrap();
    let hash = m.propose().unwrap().hash();
    m.commit(ClusterId(7), hash).unwrap();
    m.stage(NodeId(8), Change::Member(Member::new(NodeId(4)))).unwrap();
    let hash = m.propose().unwrap().hash();
    m.commit(ClusterId(0), hash).unwrap();
    m.advance(NodeId(2), Phase::Acknowledged).unwrap();
    m.stage(NodeId(1), Change::Leave(NodeId(3))).unwrap();
    serde_json::to_value(&m).unwrap()
}

fn decoded(value: &Value) -> Result<Membership, Malformed> {
    serde_json::from_value::<Checked<Membership>>(value.clone()).unwrap().0
}

#[test]
fn each_flaw_of_a_membership_has_its_name() {
    let whole = membership();
    assert_eq!(serde_json::to_value(decoded(&whole).unwrap()).unwrap(), whole);
    let stamped = |value| json!({"stamp": 1, "author": NodeId(1), "value": value});
    let many: serde_json::Map<String, Value> =
        (0..=MAX_MERGED_SETTINGS).map(|i| (format!("{i:05}"), stamped(Value::Null))).collect();
    let weightless = json!({"Member": {"weight": 0, "zone": ""}});
    let late = json!({"stamp": 1u64 << 63, "author": NodeId(1), "value": 3});
    let node = |id, weight: u64, zone: &str| json!({NodeId(id).to_string(): stamped(json!({"Member": {"weight": weight, "zone": zone}}))});
    let long = "z".repeat(Zone::MAX_LEN + 1);
    let altered = |field, value: Value| {
        let mut layout = whole["committed"]["layout"].clone();
        layout["members"][1][field] = value;
        layout
    };
    let other = &whole["committed"]["from"];
    let flaws: [(&str, Value, Malformed); 19] = [
        ("/staged/replicas", stamped(json!(0)), Malformed::NoReplicas),
        ("/staged/replicas", late, Malformed::StampOutOfRange),
        ("/staged/partitions", stamped(json!(3)), Malformed::PartitionCount(3)),
        (
            "/staged/nodes",
            json!({NodeId(5).to_string(): stamped(weightless)}),
            Malformed::ZeroWeight(NodeId(5)),
        ),
        ("/staged/nodes", node(5, 1 << 32, ""), Malformed::WeightTooLarge(1 << 32)),
        ("/staged/nodes", node(5, u64::MAX, ""), Malformed::WeightTooLarge(u64::MAX)),
        ("/staged/nodes", node(5, 1, &long), Malformed::ZoneTooLong),
        ("/committed/layout", altered("weight", json!(1u64 << 32)), Malformed::WeightTooLarge(1 << 32)),
        ("/committed/layout", altered("zone", json!(long)), Malformed::ZoneTooLong),
        (
            "/staged/settings",
            json!({"x".repeat(MAX_SETTING_NAME + 1): stamped(Value::Null)}),
            Malformed::SettingTooLong,
        ),
        ("/staged/settings", many.into(), Malformed::TooManySettings),
        ("/given_up", json!([NodeId(5), NodeId(4)]), Malformed::Unsorted),
        ("/given_up", json!([NodeId(5), NodeId(5)]), Malformed::Repeated),
        (
            "/committed/trackers",
            json!({NodeId(77).to_string(): "Synced"}),
            Malformed::StrangeTracker(NodeId(77)),
        ),
        ("/committed/from", Value::Null, Malformed::EndedTracker),
        ("/staged/partitions", whole["committed"]["config"]["partitions"].clone(), Malformed::Superseded),
        ("/committed/layout", other.clone(), Malformed::OtherMembers),
        ("/committed/config/partitions", stamped(json!(4)), Malformed::OtherShape),
        ("/committed/from", whole["committed"]["layout"].clone(), Malformed::OtherParent),
    ];
    for (place, value, flaw) in flaws {
        let mut spoilt = whole.clone();
        *spoilt.pointer_mut(place).unwrap() = value;
        assert_eq!(decoded(&spoilt), Err(flaw.clone()), "{place}");
        let refused = serde_json::from_value::<Membership>(spoilt).unwrap_err();
        assert_eq!(refused.to_string(), flaw.to_string());
    }
    let mut spoilt = whole.clone();
    *spoilt.pointer_mut("/committed/layout/replicas").unwrap() = json!(0);
    assert_eq!(decoded(&spoilt), Err(Malformed::Layout(LayoutError::NoReplicas)));
    // Two owners of one partition change places, in the layout entered or in the one left.
    for layout in ["/committed/layout", "/committed/from"] {
        let mut spoilt = whole.clone();
        spoilt.pointer_mut(&format!("{layout}/table")).unwrap().as_array_mut().unwrap().swap(0, 1);
        let refused = decoded(&spoilt).unwrap_err();
        assert!(matches!(refused, Malformed::Layout(LayoutError::Hash { .. })), "{layout}: {refused}");
    }
}

#[test]
fn whom_the_commit_has_as_removed_is_not_given_up_besides() {
    let mut m = Membership::found(ClusterId(7), 2, 4, &[1, 2, 3].map(|id| Member::new(NodeId(id)))).unwrap();
    m.stage(NodeId(1), Change::Remove(NodeId(3))).unwrap();
    m.commit(ClusterId(7), m.propose().unwrap().hash()).unwrap();
    let mut whole = serde_json::to_value(&m).unwrap();
    whole["given_up"] = json!([NodeId(2)]);
    assert_eq!(serde_json::to_value(decoded(&whole).unwrap()).unwrap(), whole);
    whole["given_up"] = json!([NodeId(2), NodeId(3)]);
    assert_eq!(decoded(&whole), Err(Malformed::Superseded));
}

/// Of two orders, or of a key that stands twice, a reader would have to choose: it takes neither.
#[test]
fn maps_have_one_spelling() {
    let node = |id: u8| [id, 1, 1, 1].to_vec(); // id, stamp, author, `Left`
    let staged = |nodes: &[u8]| {
        let mut bytes = vec![0, 0, 0, u8::try_from(nodes.len()).unwrap()];
        nodes.iter().for_each(|id| bytes.extend(node(*id)));
        bytes.extend([0, 0]); // no settings, nobody given up
        let Checked(membership) = postcard::from_bytes::<Checked<Membership>>(&bytes).unwrap();
        assert_eq!(postcard::from_bytes::<Membership>(&bytes).is_ok(), membership.is_ok());
        membership.map(|membership| assert_eq!(postcard::to_allocvec(&membership).unwrap(), bytes))
    };
    assert_eq!(staged(&[3, 4, 9]), Ok(()));
    assert_eq!(staged(&[4, 3, 9]), Err(Malformed::Unsorted));
    assert_eq!(staged(&[3, 4, 4]), Err(Malformed::Repeated));
}

#[test]
fn a_layout_is_named_through_postcard() {
    let members = [Member::new(NodeId(1)), Member::new(NodeId(2))];
    let mut bytes = postcard::to_allocvec(&Layout::compute(2, 2, &members, None).unwrap()).unwrap();
    let Checked(layout) = postcard::from_bytes::<Checked<Layout>>(&bytes).unwrap();
    assert!(layout.is_ok());
    let hash = layout.unwrap().hash();
    let end = bytes.len() - postcard::to_allocvec(&hash).unwrap().len();
    bytes[end - 1] = 7;
    let Checked(layout) = postcard::from_bytes::<Checked<Layout>>(&bytes).unwrap();
    assert!(matches!(layout, Err(Malformed::Layout(LayoutError::UnknownOwner(_)))));
    // A table that would do, but is not the one that was computed.
    bytes[end - 1] = 1 - bytes[end - 2];
    bytes.swap(end - 1, end - 2);
    let Checked(layout) = postcard::from_bytes::<Checked<Layout>>(&bytes).unwrap();
    assert!(
        matches!(layout, Err(Malformed::Layout(LayoutError::Hash { expected, found })) if found == hash && expected != hash)
    );
}

/// By name through a format that drops texts; and what stands behind it is found where it is.
fn refused<T>(bytes: &[u8], flaw: &Malformed)
where
    T: serde::de::DeserializeOwned,
    Checked<T>: serde::de::DeserializeOwned,
{
    assert!(postcard::from_bytes::<T>(bytes).is_err());
    let bytes = [bytes, &[0x5a]].concat();
    let (Checked(decoded), behind) = postcard::from_bytes::<(Checked<T>, u8)>(&bytes).unwrap();
    assert_eq!((decoded.err().as_ref(), behind), (Some(flaw), 0x5a));
}

#[test]
fn weights_and_zones_by_themselves() {
    let weight = |weight: u64| (7_u64, weight, "");
    let zone = "z".repeat(Zone::MAX_LEN);
    let bytes = |parts: (u64, u64, &str)| postcard::to_allocvec(&parts).unwrap();
    assert_eq!(
        postcard::from_bytes::<Member>(&bytes((7, u64::from(u32::MAX), &zone))).unwrap(),
        Member::new(NodeId(7)).with_weight(u32::MAX).with_zone(Zone::new(&zone).unwrap())
    );
    let long = zone + "z";
    for large in [1 << 32, (1 << 32) + 1, u64::MAX] {
        refused::<Member>(&bytes(weight(large)), &Malformed::WeightTooLarge(large));
        let standing = postcard::to_allocvec(&(0_u8, large, "")).unwrap();
        refused::<Standing>(&standing, &Malformed::WeightTooLarge(large));
    }
    refused::<Member>(&bytes((7, 1, &long)), &Malformed::ZoneTooLong);
    refused::<Standing>(&postcard::to_allocvec(&(0_u8, 1_u64, &long)).unwrap(), &Malformed::ZoneTooLong);
    refused::<Standing>(&[0, 0, 0], &Malformed::NoWeight);
    refused::<Member>(&[7, 0, 0], &Malformed::ZeroWeight(NodeId(7)));
    // Nor are they written.
    let standing = Standing::Member { weight: 0, zone: Zone::default() };
    let member = Member::new(NodeId(7)).with_weight(0);
    for refused in [serde_json::to_string(&standing), serde_json::to_string(&member)] {
        assert_eq!(refused.unwrap_err().to_string(), Malformed::NoWeight.to_string());
    }
    refused::<Zone>(&postcard::to_allocvec(&long).unwrap(), &Malformed::ZoneTooLong);
    // Version 1, no parent, N = 1, Q = 1, one member.
    let layout = |parts| hashed(&[&[1, 0, 1, 1, 1][..], &bytes(parts), &[1, 0]].concat());
    assert!(postcard::from_bytes::<Layout>(&layout((7, 1, ""))).is_ok());
    refused::<Layout>(&layout(weight(1 << 32)), &Malformed::WeightTooLarge(1 << 32));
    refused::<Layout>(&layout((7, 1, &long)), &Malformed::ZoneTooLong);
    refused::<Layout>(&layout(weight(0)), &Malformed::Layout(LayoutError::ZeroWeight(NodeId(7))));
}

#[test]
fn what_gossip_tells_is_named_too() {
    // Nothing committed; one node is staged, with this weight, by 1 at stamp 1; nothing else.
    let staged = |weight: u64| {
        let node = postcard::to_allocvec(&(5_u64, 1_u64, 1_u64, 0_u8, weight, "")).unwrap();
        [&[0, 0, 0, 1][..], &node, &[0, 0]].concat()
    };
    for (weight, flaw) in
        [(0, Malformed::ZeroWeight(NodeId(5))), (1 << 32, Malformed::WeightTooLarge(1 << 32))]
    {
        let state = staged(weight);
        refused::<Membership>(&state, &flaw);
        refused::<Progress>(&state, &flaw);
        for told in [0, 1] {
            let told = [&[told][..], &state].concat();
            refused::<Told>(&told, &flaw);
            // A delta of that, without records or questions.
            refused::<Message>(&[&[2, 1][..], &told, &[0, 0, 0]].concat(), &flaw);
        }
    }
    for (incarnation, fine) in [(INCARNATION_END - 1, true), (INCARNATION_END, false), (u64::MAX, false)] {
        let head = postcard::to_allocvec(&(5_u64, incarnation, 1_u64)).unwrap();
        // Two hashes of nothing and a head; a record without facts, and no questions.
        let heads = [&[1, 0, 0, 1][..], &head].concat();
        let delta = [&[2, 0, 1][..], &head, &[0, 0, 0]].concat();
        for message in [heads, delta] {
            if fine {
                assert!(postcard::from_bytes::<Message>(&message).is_ok());
            } else {
                refused::<Message>(&message, &Malformed::IncarnationOutOfRange);
            }
        }
    }
    let good = [&[2, 1, 1][..], &staged(1), &[0, 0, 0]].concat();
    let Checked(read) = postcard::from_bytes::<Checked<Message>>(&good).unwrap();
    assert_eq!(postcard::to_allocvec(&read.unwrap()).unwrap(), good);
}

/// What is said twice of one node would have to be chosen from.
#[test]
fn who_stands_twice_in_a_message_is_named() {
    let list = |first: &[u8], entry: &[u8], ids: &[u8], behind: &[u8]| {
        let mut message = [first, &[u8::try_from(ids.len()).unwrap()]].concat();
        ids.iter().for_each(|id| message.extend([&[*id][..], entry].concat()));
        [&message, behind].concat()
    };
    // Two hashes of nothing, and heads; records without facts, and no questions; questions.
    let heads = |ids: &[u8]| list(&[1, 0, 0], &[1, 1], ids, &[]);
    let records = |ids: &[u8]| list(&[2, 0], &[1, 1, 0], ids, &[0, 0]);
    let ask = |ids: &[u8]| list(&[2, 0, 0, 0], &[], ids, &[]);
    for message in [&heads as &dyn Fn(&[u8]) -> Vec<u8>, &records, &ask] {
        // From any place on, as the records of a delta are.
        for fine in [&[][..], &[5], &[5, 6, 7], &[6, 7, 5]] {
            assert!(postcard::from_bytes::<Message>(&message(fine)).is_ok());
        }
        for twice in [&[5, 5][..], &[5, 6, 5], &[6, 7, 5, 7]] {
            refused::<Message>(&message(twice), &Malformed::Repeated);
        }
    }
}

/// A number beyond 2^53 is another one to most readers of JSON that are not Rust's.
#[test]
fn in_json_ids_and_hashes_are_text() {
    fn numbers(value: &Value) -> Vec<u64> {
        match value {
            Value::Number(number) => vec![number.as_u64().unwrap()],
            Value::Array(list) => list.iter().flat_map(numbers).collect(),
            Value::Object(map) => map.values().flat_map(numbers).collect(),
            _ => Vec::new(),
        }
    }
    let ids = [1, 2, 3].map(|n| NodeId(u64::MAX / 7 * n));
    let mut m = Membership::found(ClusterId(u64::MAX), 3, 16, &ids.map(Member::new)).unwrap();
    m.stage(ids[0], Change::Leave(ids[2])).unwrap();
    let hash = m.propose().unwrap().hash();
    m.commit(ClusterId(0), hash).unwrap();
    m.advance(ids[1], Phase::Acknowledged).unwrap();
    m.stage(ids[1], Change::Remove(ids[0])).unwrap();
    let record = Record { head: Head { incarnation: 3, version: 300 }, facts: vec![1, 2] };
    let tell = |told| Message::Delta {
        membership: Some(told),
        records: vec![(ids[0], record.clone())],
        ask_membership: true,
        ask: ids.to_vec(),
    };
    for message in [
        Message::Summary { membership: m.digest(), records: u64::MAX },
        Message::Heads {
            membership: m.digest(),
            commit: m.commit_hash(),
            heads: vec![(ids[0], record.head)],
        },
        Message::Heads { membership: 0, commit: None, heads: vec![] },
        tell(Told::All(Box::new(m.clone()))),
        tell(Told::Progress(Box::new(m.progress()))),
    ] {
        let text = serde_json::to_string(&message).unwrap();
        assert_eq!(serde_json::from_str::<Message>(&text).unwrap(), message);
        let most = numbers(&serde_json::from_str(&text).unwrap()).into_iter().max();
        assert!(most.is_none_or(|most| most < 1 << 53), "{most:?} in {text}");
    }
    assert_eq!(serde_json::to_string(&ids[0]).unwrap(), format!("\"{}\"", ids[0]));
    for text in ["7", r#""7""#, r#""+00000000000000f""#, r#""000000000000000g""#] {
        assert!(serde_json::from_str::<NodeId>(text).is_err(), "{text}");
    }
}

#[test]
fn an_id_has_one_spelling() {
    assert_eq!("00000000000000ff".parse::<gramme_ring::NodeId>().unwrap().0, 255);
    for text in ["00000000000000FF", "+0000000000000ff", "ff", "00000000000000fg", ""] {
        assert!(text.parse::<gramme_ring::NodeId>().is_err(), "{text}");
    }
}

/// Decoded by themselves they are held to what holds for them in a message.
#[test]
fn heads_and_records_by_themselves() {
    let head = |incarnation| Head { incarnation, version: 3 };
    let record = |incarnation, facts: usize| Record { head: head(incarnation), facts: vec![7; facts] };
    let delta = |record| Message::Delta {
        membership: None,
        records: vec![(NodeId(1), record)],
        ask_membership: false,
        ask: vec![],
    };
    let bytes = |head: Head| postcard::to_allocvec(&head).unwrap();
    assert_eq!(
        postcard::from_bytes::<Head>(&bytes(head(INCARNATION_END - 1))),
        Ok(head(INCARNATION_END - 1))
    );
    for late in [INCARNATION_END, u64::MAX] {
        refused::<Head>(&bytes(head(late)), &Malformed::IncarnationOutOfRange);
        let late = postcard::to_allocvec(&record(late, 0)).unwrap();
        refused::<Record>(&late, &Malformed::IncarnationOutOfRange);
    }
    let longest = postcard::to_allocvec(&record(1, MAX_FACTS)).unwrap();
    assert_eq!(postcard::from_bytes::<Record>(&longest), Ok(record(1, MAX_FACTS)));
    let long = record(1, MAX_FACTS + 1);
    refused::<Record>(&postcard::to_allocvec(&long).unwrap(), &Malformed::FactsTooLong);
    refused::<Message>(&postcard::to_allocvec(&delta(long)).unwrap(), &Malformed::FactsTooLong);
    let told = postcard::to_allocvec(&delta(record(1, MAX_FACTS))).unwrap();
    assert_eq!(postcard::from_bytes::<Message>(&told), Ok(delta(record(1, MAX_FACTS))));
}

#[test]
fn slots_and_partitions_by_themselves() {
    let bytes = |parts: (u16, u8)| postcard::to_allocvec(&parts).unwrap();
    for index in [16384, u16::MAX] {
        refused::<Slot>(&postcard::to_allocvec(&index).unwrap(), &Malformed::SlotOutOfRange(index));
        let refused = serde_json::from_value::<Slot>(json!(index)).unwrap_err();
        assert_eq!(refused.to_string(), Malformed::SlotOutOfRange(index).to_string());
    }
    assert_eq!(
        postcard::from_bytes::<Partition>(&bytes((16383, 14))).unwrap().first_slot(),
        Slot::new(16383).unwrap()
    );
    for (index, bits) in [(1, 0), (8, 3), (0, 15), (0, 32), (0, 255)] {
        refused::<Partition>(&bytes((index, bits)), &Malformed::NoSuchPartition { index, bits });
        let refused = serde_json::from_value::<Partition>(json!({"index": index, "bits": bits})).unwrap_err();
        assert_eq!(refused.to_string(), Malformed::NoSuchPartition { index, bits }.to_string());
    }
}
