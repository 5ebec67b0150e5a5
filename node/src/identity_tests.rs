use super::*;
use gramme_ring::ClusterId;

/// A directory of our own that goes when we do.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("gramme-identity-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn a_node() -> (Identity, Membership) {
    let identity = Identity::random().expect("the system has randomness");
    let ring = Ring::found(ClusterId(identity.cluster), 3, 256, &[Member::new(identity.node)])
        .expect("one member is enough");
    let addresses = Addresses {
        peer: "h:1".into(),
        redis: "h:2".into(),
        cluster_redis: "h:4".into(),
        http: "h:3".into(),
    };
    let addresses = BTreeMap::from([(identity.node, addresses)]);
    (identity.clone(), Membership { node: identity.node, ring, addresses })
}

fn found(dir: &DataDir, identity: &Identity, membership: &Membership) -> Result<(), DirError> {
    dir.found(identity, membership, |store| {
        fs::create_dir_all(store).map_err(|e| DirError::Io(store.into(), e))
    })
}

#[test]
fn what_was_founded_is_what_is_loaded() {
    let scratch = Scratch::new("founded");
    let dir = DataDir::new(&scratch.0);
    assert!(dir.load().expect("nothing is there").is_none());
    let (identity, membership) = a_node();
    found(&dir, &identity, &membership).expect("it can be founded");
    let (seen, members) = dir.load().expect("it is whole").expect("it is there");
    assert_eq!((seen.node, seen.cluster), (identity.node, identity.cluster));
    assert_eq!(seen.seal.0, identity.seal.0);
    assert_eq!(seen.secret, identity.secret);
    assert_eq!(members.ring, membership.ring);
    assert_eq!(members.members(), membership.members());
    assert_eq!(members.addresses[&identity.node].redis, "h:2");
}

#[cfg(unix)]
#[test]
fn the_identity_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new("mode");
    let dir = DataDir::new(&scratch.0);
    let (identity, membership) = a_node();
    found(&dir, &identity, &membership).expect("it can be founded");
    let mode = fs::metadata(scratch.0.join(IDENTITY)).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
}

#[test]
fn a_founding_that_was_cut_short_can_be_done_again() {
    let scratch = Scratch::new("cut");
    let dir = DataDir::new(&scratch.0);
    let (identity, membership) = a_node();
    let cut: Result<(), DirError> = dir.found(&identity, &membership, |store| {
        Err(DirError::Io(store.into(), io::ErrorKind::StorageFull.into()))
    });
    assert!(cut.is_err());
    assert!(dir.load().expect("nothing is wrong with it").is_none());
    found(&dir, &identity, &membership).expect("now there is room");
    assert!(dir.load().expect("it is whole").is_some());
}

#[test]
fn a_directory_with_other_files_is_left_alone() {
    let scratch = Scratch::new("foreign");
    fs::create_dir_all(&scratch.0).expect("it can be created");
    fs::write(scratch.0.join("thesis.tex"), "years of work").expect("it can be written");
    let (identity, membership) = a_node();
    let error = found(&DataDir::new(&scratch.0), &identity, &membership).expect_err("it is someone else's");
    assert!(error.to_string().contains("thesis.tex"), "{error}");
    assert_eq!(fs::read_dir(&scratch.0).expect("it is there").count(), 1);
}

#[test]
fn lost_files_beside_data_are_missed() {
    for (lost, named) in [(IDENTITY, None), (MEMBERSHIP, Some(MEMBERSHIP))] {
        let scratch = Scratch::new(lost);
        let dir = DataDir::new(&scratch.0);
        let (identity, membership) = a_node();
        found(&dir, &identity, &membership).expect("it can be founded");
        fs::remove_file(scratch.0.join(lost)).expect("it is there");
        match (dir.load(), named) {
            (Err(DirError::Missing(path)), Some(named)) => assert!(path.ends_with(named)),
            // Like a founding that was cut short; whoever creates the store finds it filled, or not.
            (Ok(None), None) => {}
            (other, _) => panic!("without {lost}: {:?}", other.map(|_| ())),
        }
    }
}

#[test]
fn every_flipped_bit_of_a_membership_is_noticed() {
    let (_, membership) = a_node();
    let good = membership.to_bytes();
    assert!(Membership::from_bytes(&good).is_ok());
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Membership::from_bytes(&bad).is_err(), "bit {bit}");
    }
    for length in 0..good.len() {
        assert!(Membership::from_bytes(&good[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn an_identity_says_which_line_is_wrong() {
    let (identity, _) = a_node();
    let text = identity.to_text();
    for (from, to, said) in [
        ("format = 1", "format = 2", "format 2"),
        ("node = \"", "node = \"zz", "node is not 16 hexadecimal digits"),
        ("secret = \"", "secret = \"0", "secret is not 64 hexadecimal digits"),
        ("cluster", "clutter", "clutter"),
    ] {
        let error = Identity::from_text(&text.replace(from, to)).err().expect("it is damaged");
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_secret_makes_another_node_of_the_same_cluster() {
    let scratch = Scratch::new("secret");
    fs::create_dir_all(&scratch.0).expect("it can be made");
    let (member, _) = a_node();
    let file = scratch.0.join("secret");
    write_durably(&file, member.secret_text().as_bytes(), 0o600).expect("it can be written");
    let (joiner, open) = Identity::from_secret_file(&file).expect("it is what was printed");
    assert!(!open);
    assert_eq!((joiner.cluster, joiner.seal.0), (member.cluster, member.seal.0));
    assert_eq!(joiner.secret, member.secret);
    assert_ne!(joiner.node, member.node);
    assert!(!member.secret_text().contains(&member.node.to_string()));

    write_durably(&file, member.to_text().as_bytes(), 0o640).expect("it can be written");
    let error = Identity::from_secret_file(&file).err().expect("an identity is not to be copied").to_string();
    assert!(error.contains("unknown field `node`") && error.contains("gramme secret"), "{error}");
    fs::write(&file, "x".repeat(1 << 20)).expect("it can be written");
    assert!(
        Identity::from_secret_file(&file).err().expect("it is no secret").to_string().contains("far longer")
    );
}

#[test]
fn a_node_among_the_files_of_another_is_refused() {
    let scratch = Scratch::new("mixed");
    let dir = DataDir::new(&scratch.0);
    let (_, membership) = a_node();
    let (other, _) = a_node();
    found(&dir, &other, &membership).expect("founding trusts its caller");
    assert!(matches!(dir.load(), Err(DirError::OtherNode(_, node)) if node != other.node));
}

#[test]
fn more_lost_places_than_are_noted_leave_a_directory_that_opens() {
    let scratch = Scratch::new("lost-places");
    fs::create_dir_all(&scratch.0).expect("room");
    let dir = DataDir::new(&scratch.0);
    let longest = |n: u64| format!("{:016x} {} {}", u64::MAX, u64::MAX - n, u64::MAX - n);
    let places: BTreeSet<String> = (0..LOST_LINES as u64 + 10).map(longest).collect();
    dir.save_lost_places(&places).expect("room");
    let noted = dir.lost_places().expect("as much as is read");
    assert!(noted.len() == LOST_LINES && noted.is_subset(&places), "{} places", noted.len());
}
