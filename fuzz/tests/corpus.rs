//! Replays every seed corpus without a fuzzer: on any toolchain, and in a debugger.

use std::fs;
use std::path::Path;

macro_rules! targets {
    ($($name:ident)*) => {
        const TARGETS: &[&str] = &[$(stringify!($name)),*];
        $(#[test] fn $name() { replay(stringify!($name), gramme_fuzz::$name::run); })*
    };
}

targets! {
    cluster http_target peer_frame quorum_engine quorum_message_decode quorum_object_decode resp ring_gossip ring_layout_compute
    ring_layout_decode ring_membership_decode ring_slot ring_tables store_open store_ops store_raw vclock_dotset_ops vclock_siblings_decode vclock_siblings_ops vclock_token
    vclock_vector_ops
}

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let files: Vec<_> = fs::read_dir(&folder).expect("a corpus").map(|f| f.expect("a file").path()).collect();
    assert!(!files.is_empty(), "{target} has no seeds");
    for file in files {
        eprintln!("{}", file.display());
        run(&fs::read(&file).expect("a seed"));
    }
    // Always worth a try.
    run(b"");
    run(&[0xff; 64]);
}

#[test]
fn every_target_is_replayed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz_targets");
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("the targets")
        .map(|f| f.expect("a file").path().file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    files.sort();
    assert_eq!(files, TARGETS);
}
