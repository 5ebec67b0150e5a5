//! A crate's public names and signatures, so that a change to them is seen in review: a test of each crate that names this
//! file in its manifest, against its own `tests/public_api.txt`.
//!
//! `UPDATE_PUBLIC_API=1 cargo test -p gramme-vclock --test public_api` writes a list anew.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The crate's features, as its manifest has them: what `default` switches on is part of the interface.
fn features(manifest: &str) -> Vec<String> {
    let section = manifest.lines().skip_while(|line| line.trim() != "[features]").skip(1);
    section
        .map(str::trim)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| format!("feature {line}"))
        .collect()
}

/// What a source file offers: its public items up to their bodies, all of its public enums and traits, derived traits, and
/// the traits that it implements with their associated types. What the compiler derives unasked, `Send` and `Sync`, is
/// for tests of each crate.
fn offers(text: &str) -> Vec<String> {
    let mut offers = Vec::new();
    let mut attributes = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let trimmed = line.trim();
        if trimmed.starts_with("#[derive") || trimmed.starts_with("#[cfg") || trimmed.starts_with("#[non_exh")
        {
            attributes.push_str(trimmed);
            // A long list of traits goes over several lines.
            while !attributes.ends_with(']') {
                let Some(next) = lines.next().map(str::trim) else { break };
                attributes.push_str(next);
            }
            attributes.push(' ');
            continue;
        }
        let associated = line.starts_with(' ') && trimmed.starts_with("type ") && trimmed.ends_with(';');
        if associated || ["pub ", "impl<", "impl "].iter().any(|start| trimmed.starts_with(start)) {
            let whole =
                ["pub enum ", "pub trait ", "pub use "].iter().any(|start| trimmed.starts_with(start));
            let field = line.starts_with(' ') && trimmed.ends_with(',') && !trimmed.contains('(');
            let mut item = trimmed.to_owned();
            let ends = |item: &str| match whole {
                true => item.matches('{').count() == item.matches('}').count() && item.ends_with(['}', ';']),
                false => field || item.contains('{') || item.ends_with(';'),
            };
            while !ends(&item) {
                let Some(next) = lines.next().map(str::trim) else { break };
                if !next.starts_with("//") && !next.starts_with('#') && !next.is_empty() {
                    item.push(' ');
                    item.push_str(next);
                }
            }
            let item = if whole { &item } else { item.split('{').next().unwrap_or(&item) };
            let indent = if line.starts_with(' ') { "    " } else { "" };
            offers.push(format!("{indent}{attributes}{}", item.trim().trim_end_matches([',', ';'])));
        }
        if !trimmed.starts_with("//") && !trimmed.starts_with('#') {
            attributes.clear();
        }
    }
    offers
}

#[test]
fn the_public_interface_is_as_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    files.sort();
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let mut listed = features(&manifest).iter().map(|line| format!("{line}\n")).collect::<String>();
    for file in files {
        let name = file.strip_prefix(root).unwrap().display().to_string().replace('\\', "/");
        listed.push_str(&format!("# {name}\n"));
        for offer in offers(&fs::read_to_string(&file).unwrap()) {
            listed.push_str(&offer);
            listed.push('\n');
        }
    }
    let list = root.join("tests/public_api.txt");
    if std::env::var_os("UPDATE_PUBLIC_API").is_some() {
        fs::write(&list, &listed).unwrap();
    }
    let expected = fs::read_to_string(&list).unwrap_or_default();
    for (is, was) in listed.lines().zip(expected.lines()) {
        assert_eq!(is, was, "the public interface changed; see this test's head");
    }
    assert_eq!(listed, expected, "the public interface changed; see this test's head");
}
