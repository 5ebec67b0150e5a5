//! Verification by those who may read a store's directory and not write to it: another user, or anybody where the medium is read-only.
//!
//! Needs root, to be somebody else and to mount; without it this says so and checks nothing.
#![cfg(target_os = "linux")]

use gramme_store::{Disk, DiskErrorKind, FileDisk, OpenError, Options, Store, verify};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

const DIRECTORY: &str = "GRAMME_STORE_READ_ONLY_DIRECTORY";
const NOBODY: u32 = 65534;

fn open(directory: &Path) -> Result<Store<FileDisk>, OpenError> {
    Store::open(FileDisk::open(directory)?, Options::new([9; 16])).map(|(store, _)| store)
}

fn is_locked<T>(opened: &Result<T, OpenError>) -> bool {
    matches!(opened, Err(OpenError::Disk(error)) if error.kind() == DiskErrorKind::Locked)
}

/// Nobody: looks at the store, and then locks it until it is told to end.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let disk = FileDisk::open(&directory).expect("a directory");
    let refused = open(Path::new(&directory)).map(drop).expect_err("nobody may write to it");
    println!("\nopen: {refused}");
    let verified = verify(&disk, None);
    match &verified {
        Ok(found) => {
            let report = &found.report;
            println!(
                "verify: {} keys, {} damaged, locked: {}",
                report.keys,
                report.damage.len(),
                found.locked
            );
        }
        Err(error) => println!("verify: {error}"),
    }
    let _lock = disk.lock_to_read();
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new()).expect("a pipe");
}

struct Nobody {
    child: Child,
    /// The rest of what it says, which is nothing, and must not be refused.
    out: BufReader<ChildStdout>,
    said: Vec<String>,
}

impl Nobody {
    /// Starts it and hears what it says until it is ready.
    fn look(program: &Path, directory: &Path) -> Self {
        let mut command = Command::new(program);
        command.args(["--exact", "child", "--nocapture"]).env(DIRECTORY, directory).uid(NOBODY).gid(NOBODY);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("root may");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let lines = out.by_ref().lines().map_while(Result::ok);
        let said = lines.take_while(|line| line != "ready").collect();
        Self { child, out, said }
    }

    fn says(&self, what: &str) -> Option<&str> {
        self.said.iter().find_map(|line| line.strip_prefix(what))
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        self.out.read_to_end(&mut Vec::new()).expect("a pipe");
        assert!(self.child.wait().expect("it ran").success(), "{:?}", self.said);
    }
}

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let base = std::env::temp_dir().join(format!("gramme-store-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&base).expect("room");
        std::fs::set_permissions(&base, PermissionsExt::from_mode(0o755)).expect("it is ours");
        Self(base)
    }

    /// A store of sixty keys, closed.
    fn filled(&self) -> PathBuf {
        let directory = self.0.join("store");
        let mut store = open(&directory).expect("opens");
        for n in 0..60u32 {
            store.put(1, &n.to_le_bytes(), b"value", 1).expect("room");
        }
        store.close().expect("closes");
        directory
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn is_root() -> bool {
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|run| run.stdout == b"0\n");
    if !is_root {
        println!("this is not root: nothing was checked");
    }
    is_root
}

#[test]
fn another_users_store_is_verified_under_a_lock_and_refused_while_it_is_open() {
    if !is_root() {
        return;
    }
    let base = Directory::new("others-store");
    // It may lie where only root gets.
    let program = base.0.join("program");
    std::fs::copy(std::env::current_exe().expect("this program"), &program).expect("room");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("it is root's");
    let directory = base.filled();
    let lock = directory.join("LOCK");
    for way in ["readable", "unreadable", "gone"] {
        match way {
            "readable" => {}
            "unreadable" => std::fs::set_permissions(&lock, PermissionsExt::from_mode(0o600)).expect("ours"),
            _ => std::fs::remove_file(&lock).expect("it is there"),
        }
        let nobody = Nobody::look(&program, &directory);
        assert_eq!(
            nobody.says("open: "),
            Some(
                "lock the directory: permission denied (os error 13); nothing that the store has was changed"
            ),
            "{way}"
        );
        assert_eq!(nobody.says("verify: "), Some("60 keys, 0 damaged, locked: true"), "{way}");
        assert!(is_locked(&open(&directory)), "{way}: it is being read");
        nobody.end();

        let store = open(&directory).expect("it is free");
        if way == "gone" {
            std::fs::remove_file(&lock).expect("it is there again");
        }
        let nobody = Nobody::look(&program, &directory);
        let said = nobody.says("verify: ").unwrap_or_default();
        assert!(
            said.starts_with("lock the directory: another process has the directory open"),
            "{way}: {said}"
        );
        nobody.end();
        store.close().expect("closes");
    }
}

#[test]
fn a_store_on_a_medium_that_cant_be_written_is_verified_under_a_lock() {
    if !is_root() {
        return;
    }
    let base = Directory::new("read-only");
    let directory = base.filled();
    let medium = base.0.join("medium");
    std::fs::create_dir(&medium).expect("room");
    let mount = |args: &[&str], paths: &[&Path]| {
        Command::new("mount").args(args).args(paths).output().is_ok_and(|run| run.status.success())
    };
    if !mount(&["--bind"], &[&directory, &medium]) {
        return println!("nothing can be mounted here: nothing was checked");
    }
    let is_read_only = mount(&["-o", "remount,bind,ro"], &[&medium]);
    let refused = open(&medium).map(drop);
    let verified = FileDisk::open(&medium).map_err(OpenError::from).and_then(|disk| verify(&disk, None));
    let meanwhile = {
        let _held = FileDisk::open(&medium).and_then(|disk| disk.lock_to_read());
        open(&directory).map(drop)
    };
    let unmounted = Command::new("umount").arg(&medium).status();
    assert!(is_read_only && unmounted.is_ok_and(|status| status.success()));
    let kind = |refused| matches!(refused, Err(OpenError::Disk(e)) if e.kind() == DiskErrorKind::ReadOnly);
    assert!(kind(refused));
    let verified = verified.expect("reading is allowed");
    assert_eq!((verified.report.keys, verified.report.damage.len(), verified.locked), (60, 0, true));
    assert!(is_locked(&meanwhile), "it is the same directory, and is being read");
}
