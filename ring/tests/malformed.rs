//! What is wrong with bytes that make no membership and no layout has a name, through a format that drops texts as well.

use gramme_ring::membership::{MAX_SETTING_NAME, MAX_SETTINGS, MAX_STAMP_LEAP, MergeError};
use gramme_ring::{
    Change, Checked, ClusterId, Layout, LayoutError, Malformed, Member, Membership, NodeId, Phase,
};
use serde_json::{Value, json};

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
    let stamped = |value| json!({"stamp": 1, "author": 1, "value": value});
    let many: serde_json::Map<String, Value> =
        (0..=MAX_SETTINGS).map(|i| (format!("{i:05}"), stamped(Value::Null))).collect();
    let weightless = json!({"Member": {"weight": 0, "zone": ""}});
    let late = json!({"stamp": 1u64 << 63, "author": 1, "value": 3});
    let other = &whole["committed"]["from"];
    let flaws: [(&str, Value, Malformed); 13] = [
        ("/staged/replicas", stamped(json!(0)), Malformed::NoReplicas),
        ("/staged/replicas", late, Malformed::StampOutOfRange),
        ("/staged/partitions", stamped(json!(3)), Malformed::PartitionCount(3)),
        ("/staged/nodes", json!({"5": stamped(weightless)}), Malformed::ZeroWeight(NodeId(5))),
        (
            "/staged/settings",
            json!({"x".repeat(MAX_SETTING_NAME + 1): stamped(Value::Null)}),
            Malformed::SettingTooLong,
        ),
        ("/staged/settings", many.into(), Malformed::TooManySettings),
        ("/given_up", json!([5, 4]), Malformed::Unsorted),
        ("/given_up", json!([5, 5]), Malformed::Repeated),
        ("/committed/trackers", json!({"77": "Synced"}), Malformed::StrangeTracker(NodeId(77))),
        ("/committed/from", Value::Null, Malformed::EndedTracker),
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
    *bytes.last_mut().unwrap() = 7;
    let Checked(layout) = postcard::from_bytes::<Checked<Layout>>(&bytes).unwrap();
    assert!(matches!(layout, Err(Malformed::Layout(LayoutError::UnknownOwner(_)))));
}

/// A stamp near the end would leave no later ones, so that nothing could be staged any more.
#[test]
fn a_stamp_from_nowhere_is_not_taken_over() {
    let members = [1, 2, 3].map(|id| Member::new(NodeId(id)));
    let mut m = Membership::found(ClusterId(99), 3, 16, &members).unwrap();
    let stamped = |stamp: u64| {
        let staged = json!({"stamp": stamp, "author": 9, "value": 3});
        let mut state = serde_json::to_value(Membership::new()).unwrap();
        *state.pointer_mut("/staged/replicas").unwrap() = staged;
        serde_json::from_value::<Membership>(state).unwrap()
    };
    let before = m.clone();
    let last = (1 << 63) - 1;
    assert_eq!(m.merge_from(NodeId(99), &stamped(last)), Err(MergeError::StampLeap(last)));
    assert_eq!(m, before);
    m.merge_from(NodeId(99), &stamped(MAX_STAMP_LEAP)).unwrap();
    m.stage(NodeId(1), Change::Member(Member::new(NodeId(4)))).unwrap();
    assert!(m.propose().is_ok());
}
