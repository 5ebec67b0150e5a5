//! A real ext4 that root fills, of which it keeps a twentieth for root: the store of root's deletes all, and another user's keeps
//! what is put aside until there is room.
//!
//! Where this may not mount a file system of its own it says so and checks nothing.
#![cfg(target_os = "linux")]

use gramme_store::{FileDisk, Options, Store};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

const DIRECTORY: &str = "GRAMME_STORE_EXT4_DIRECTORY";
const STEP: &str = "GRAMME_STORE_EXT4_STEP";
const NOBODY: u32 = 65534;

struct Mounted {
    base: PathBuf,
    root: PathBuf,
}

impl Mounted {
    fn new(name: &str) -> Option<Self> {
        let base = std::env::temp_dir().join(format!("gramme-store-{}-{name}", std::process::id()));
        let (image, root) = (base.join("image"), base.join("root"));
        std::fs::create_dir_all(&root).expect("room");
        std::fs::File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("room");
        let runs = |program: &str, args: &[&str], path: &[&Path]| {
            Command::new(program).args(args).args(path).output().is_ok_and(|run| run.status.success())
        };
        let is_mounted = runs("mkfs.ext4", &["-q", "-b", "4096"], &[&image])
            && runs("mount", &["-o", "loop"], &[&image, &root]);
        let mounted = Self { base, root };
        if !is_mounted {
            println!("no ext4 can be made and mounted here: nothing was checked");
            return None;
        }
        Some(mounted)
    }

    /// Takes all that is left, as root.
    fn fill(&self) {
        let options = std::fs::OpenOptions::new().create(true).append(true).open(self.root.join("hog"));
        let mut hog = options.expect("root has a file");
        for piece in [1 << 20, 4096, 512] {
            while hog.write_all(&vec![1; piece]).is_ok() {}
        }
        let _ = hog.sync_all();
    }

    fn reserve(&self) -> u64 {
        std::fs::metadata(self.root.join("store/RESERVE")).map_or(0, |found| found.len())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.root).output();
        let _ = std::fs::remove_dir_all(&self.base);
    }
}

fn maintain_all(store: &mut Store<FileDisk>) {
    for _ in 0..20_000 {
        let _ = store.sync();
        match store.maintain(1 << 20) {
            Ok(done) if done.more || done.needs_sync => {}
            _ => return,
        }
    }
    panic!("no end");
}

fn open(directory: &Path) -> Store<FileDisk> {
    let options = Options::new([9; 16]).with_segment_bytes(256 << 10);
    Store::open(FileDisk::open(directory).expect("a directory"), options).expect("opens").0
}

fn put_all(store: &mut Store<FileDisk>) -> u32 {
    let mut stored = 0u32;
    loop {
        match store.put(0, &stored.to_le_bytes(), &[1; 4000], 1) {
            Ok(_) => stored += 1,
            Err(_) => {
                maintain_all(store);
                if store.put(0, &stored.to_le_bytes(), &[1; 4000], 1).is_err() {
                    return stored;
                }
                stored += 1;
            }
        }
    }
}

/// How many are refused.
fn delete_all(store: &mut Store<FileDisk>, stored: u32, meanwhile: impl Fn()) -> u32 {
    let mut refused = 0;
    for n in (0..7).flat_map(|from| (from..stored).step_by(7)) {
        // A sync may have had no room yet in the step before: once more, and again.
        let is_deleted = (0..3).any(|_| {
            let done = store.delete(0, &n.to_le_bytes());
            if done.is_err() {
                maintain_all(store);
            }
            done.is_ok()
        });
        refused += u32::from(!is_deleted);
        if n.is_multiple_of(1000) {
            meanwhile();
        }
    }
    maintain_all(store);
    refused
}

#[test]
fn a_store_of_roots_deletes_all_where_root_fills_the_disk() {
    let Some(mounted) = Mounted::new("ext4-root") else { return };
    let mut store = open(&mounted.root.join("store"));
    let stored = put_all(&mut store);
    mounted.fill();
    let refused = delete_all(&mut store, stored, || mounted.fill());
    assert_eq!((refused, store.len()), (0, 0), "of {stored}");
    let again = put_all(&mut store);
    assert!(again > stored * 3 / 4, "{again} of {stored}");
    store.close().expect("closes");
}

/// Another user's: stores all, or deletes all.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let mut store = open(Path::new(&directory));
    match std::env::var(STEP).as_deref() {
        Ok("put") => println!("\nstored {}", put_all(&mut store)),
        Ok(stored) => {
            let refused = delete_all(&mut store, stored.parse().expect("a number"), || ());
            println!("\nrefused {refused}");
        }
        Err(_) => panic!("a step"),
    }
}

#[test]
fn what_a_store_of_another_users_has_put_aside_is_there_once_root_gives_room_back() {
    let Some(mounted) = Mounted::new("ext4-nobody") else { return };
    let store = mounted.root.join("store");
    std::fs::create_dir(&store).and_then(|()| chown(&store, Some(NOBODY), Some(NOBODY))).expect("root may");
    // It may lie where only root gets.
    let program = mounted.base.join("program");
    std::fs::copy(std::env::current_exe().expect("this program"), &program).expect("room");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("it is root's");
    let run = |step: &str, said: &str| -> u32 {
        let run = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .args(["--exact", "child", "--nocapture"])
            .env(DIRECTORY, &store)
            .env(STEP, step)
            .output()
            .expect("setpriv is there where mount is");
        let out = String::from_utf8_lossy(&run.stdout).into_owned();
        let number = out.lines().find_map(|line| line.strip_prefix(said)?.trim().parse().ok());
        number.unwrap_or_else(|| panic!("{out}{}", String::from_utf8_lossy(&run.stderr)))
    };
    let stored = run("put", "stored ");
    let before = mounted.reserve();
    mounted.fill();
    let refused = run(&stored.to_string(), "refused ");
    assert!(refused > 0, "root has used nothing that is kept for it");
    assert!(mounted.reserve() + (256 << 10) > before, "{} of {before}", mounted.reserve());
    std::fs::remove_file(mounted.root.join("hog")).expect("it is there");
    assert_eq!(run(&stored.to_string(), "refused "), 0, "of {stored}");
}
