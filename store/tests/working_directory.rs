//! A process that goes to another directory leaves its stores where they are. Alone in its program: the directory is the
//! process's.

use gramme_store::{FileDisk, Options, Store};

#[test]
fn a_relative_path_means_the_same_directory_for_good() {
    let base = std::env::temp_dir().join(format!("gramme-store-{}-goes", std::process::id()));
    let _ = std::fs::remove_dir_all(&base);
    for place in ["one/data", "two/data"] {
        std::fs::create_dir_all(base.join(place)).expect("room");
    }
    let options = || Options::new([1; 16]).with_segment_bytes(4096);
    std::env::set_current_dir(base.join("one")).expect("there");
    let (mut store, _) = Store::open(FileDisk::open("data").expect("a directory"), options()).expect("opens");
    std::env::set_current_dir(base.join("two")).expect("there");
    for n in 0..100u32 {
        store.put(0, &n.to_le_bytes(), &[1; 300], 1).expect("room");
    }
    store.sync().expect("syncs");
    drop(store);
    assert_eq!(std::fs::read_dir(base.join("two/data")).expect("listed").count(), 0);
    let disk = FileDisk::open(base.join("one/data")).expect("a directory");
    assert_eq!(Store::open(disk, options()).expect("opens").0.len(), 100);
    std::env::set_current_dir("/").expect("there");
    let _ = std::fs::remove_dir_all(&base);
}
