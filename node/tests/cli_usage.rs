//! What the command line says without a running node.

mod common;

use common::{Scratch, gramme, run, stderr, stdout};
use std::fs;

#[test]
fn misuse_ends_with_2_and_failure_with_1() {
    for (arguments, code, said) in [
        (&["fly"][..], 2, "gramme: unrecognized subcommand 'fly'"),
        (&["serve", "--redsi", "x"], 2, "--redis"),
        (&["dev", "--nodes", "0"], 2, "1..=16"),
        (
            &["dev", "--dir", "/nonexistent", "--port", "65530"],
            2,
            "need ports beyond 65535: choose a lower --port",
        ),
        (&[], 2, "dev"),
        (
            &["serve", "--dir", "/nonexistent", "--r", "0"],
            1,
            "gramme: serve: r is '0' (flag): give a number from 1",
        ),
        (&["serve", "--join", "10.0.0.1"], 1, "'10.0.0.1' is no address"),
        (&["secret", "--dir", "/nonexistent/gramme"], 1, "no node lives in this directory"),
        (&["cluster", "stage", "leave"], 2, "NODE"),
        (&["cluster", "stage", "weight", "ab", "0"], 2, "1..=1048576"),
        (&["cluster", "plan", "--at", "127.0.0.1:1"], 1, "can't connect"),
        (&["cluster", "commit", "--at", "127.0.0.1:1"], 1, "can't connect"),
        (&["transfers", "--at", "127.0.0.1:1"], 1, "is it running"),
        (&["serve", "--redis", "0.0.0.0:0"], 1, "--insecure"),
        (
            &["verify", "/nonexistent/gramme"],
            1,
            "gramme: verify /nonexistent/gramme: there is no such directory",
        ),
        (&["status", "--at", "127.0.0.1:1"], 1, "is it running"),
        (&["get", "k", "--at", "127.0.0.1:1"], 1, "gramme: get k at 127.0.0.1:1: can't connect"),
    ] {
        let output = run(arguments);
        let text = format!("{}{}", stdout(&output), stderr(&output));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
}

#[test]
fn version_help_and_completions_go_to_stdout() {
    for (arguments, said) in [
        (&["version"][..], concat!("gramme ", env!("CARGO_PKG_VERSION"))),
        (&["--help"], "gramme dev"),
        (&["serve", "--help"], "GRAMME_VALUE_LIMIT"),
        (&["completions", "bash"], "_gramme"),
    ] {
        let output = run(arguments);
        assert!(output.status.success(), "{arguments:?}");
        assert!(stdout(&output).contains(said), "{arguments:?}: {}", stdout(&output));
    }
}

#[test]
fn settings_come_from_a_file_the_environment_and_flags() {
    let scratch = Scratch::new("settings");
    let file = scratch.path("gramme.toml");
    fs::write(&file, "zone = \"cellar\"\nr = 1\nw = 1\n").expect("it can be written");
    let output = gramme()
        .args(["serve", "--print-config", "--w", "3", "--config"])
        .arg(&file)
        .env("GRAMME_R", "2")
        .env("GRAMME_W", "2")
        .output()
        .expect("the binary runs");
    let text = stdout(&output);
    let line = |start: &str| text.lines().find(|l| l.starts_with(start)).unwrap_or_default().to_owned();
    assert!(line("zone").contains("cellar") && line("zone").contains("gramme.toml"), "{text}");
    assert!(line("r =").starts_with("r = 2") && line("r =").ends_with("# GRAMME_R"), "{text}");
    assert!(line("w =").starts_with("w = 3") && line("w =").ends_with("# flag"), "{text}");

    fs::write(&file, "ports = 1\n").expect("it can be written");
    let output = gramme().args(["serve", "--config"]).arg(&file).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("there is no key 'ports': the nearest is '"), "{}", stderr(&output));
}

#[test]
fn a_new_node_needs_both_a_secret_and_somebody_to_ask() {
    let scratch = Scratch::new("halves");
    let dir = scratch.path("node");
    let secret = scratch.path("secret");
    fs::write(&secret, "format = 1\nsecret = \"00\"\n").expect("it can be written");
    let (zero, secret) = ("127.0.0.1:0", secret.to_str().expect("it is text"));
    for (arguments, said) in [
        (&["--join", "127.0.0.1:1"][..], "a new node needs the cluster's secret to join"),
        (&["--secret-file", secret], "name some of its members with --join"),
        (
            &["--join", "127.0.0.1:1", "--secret-file", secret],
            "is no file with a cluster's secret: missing field",
        ),
        (
            &["--join", "127.0.0.1:1", "--secret-file", "/nonexistent/secret"],
            "/nonexistent/secret: No such file",
        ),
    ] {
        let output = gramme()
            .args([
                "serve",
                "--redis",
                zero,
                "--cluster-redis",
                zero,
                "--http",
                zero,
                "--peer",
                zero,
                "--dir",
            ])
            .arg(&dir)
            .args(arguments)
            .output()
            .expect("the binary runs");
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(said), "{arguments:?}: {}", stderr(&output));
        assert!(!dir.join("identity").exists(), "nothing was founded");
    }
}

#[test]
fn a_directory_of_other_files_is_not_founded_in() {
    let scratch = Scratch::new("others");
    let dir = scratch.path("photos");
    fs::create_dir_all(&dir).expect("it can be made");
    fs::write(dir.join("cat.jpg"), "meow").expect("it can be written");
    let zero = "127.0.0.1:0";
    let output = gramme()
        .args(["serve", "--redis", zero, "--cluster-redis", zero, "--http", zero, "--peer", zero, "--dir"])
        .arg(&dir)
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("it holds cat.jpg"), "{}", stderr(&output));
}
