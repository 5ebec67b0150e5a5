//! The public interface, as text: a change of `api.txt` is a change for users, and is to be meant.
//!
//! `GRAMME_STORE_WRITE_API=1 cargo test -p gramme-store --test api` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

/// The public items of a source file: heads of functions and types, fields, variants and what traits ask for.
fn items(source: &str) -> Vec<String> {
    let mut items = Vec::new();
    let mut lines = source.lines().take_while(|line| !line.starts_with("mod tests"));
    // What the lines that are indented by four belong to.
    let mut inside = "";
    while let Some(line) = lines.next() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if indent == 0 && !text.is_empty() {
            inside = match text {
                _ if text.starts_with("pub trait") => "trait",
                _ if text.starts_with("pub enum") => "enum",
                _ if text.starts_with('}') || text.starts_with('/') || text.starts_with('#') => "",
                _ => inside,
            };
            if text.starts_with("impl") {
                inside = "impl";
                items.push(text.trim_end_matches(['{', ' ']).to_owned());
            }
        }
        let wanted = text.starts_with("pub ")
            || inside == "trait" && indent == 4 && (text.starts_with("fn ") || text.starts_with("type "))
            || inside == "enum" && indent == 4 && text.starts_with(char::is_uppercase)
            || inside == "enum" && indent == 8 && text.starts_with(char::is_lowercase);
        if !wanted || text.starts_with("pub mod") {
            continue;
        }
        // A head may go over several lines.
        let mut item = text.to_owned();
        while item.matches('(').count() > item.matches(')').count() {
            item += " ";
            item += lines.next().expect("a head that ends").trim();
        }
        let end = if item.starts_with("pub use") { item.len() } else { item.find('{').unwrap_or(item.len()) };
        items.push(format!("{:indent$}{}", "", item[..end].trim_end_matches([' ', ',', ';'])));
    }
    // Implementations without a public item say nothing here.
    let kept = |at: usize, item: &String| {
        !item.starts_with("impl")
            || item.contains(" for ")
            || items.get(at + 1).is_some_and(|next| next.starts_with(' '))
    };
    items.iter().enumerate().filter(|(at, item)| kept(*at, item)).map(|(_, item)| item.clone()).collect()
}

fn public() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).expect("the sources").map(|entry| entry.expect("a file").path()).collect();
    files.push(folder.join("mem_disk/mod.rs"));
    files.sort();
    let mut out = String::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|ext| ext == "rs")) {
        let items = items(&std::fs::read_to_string(file).expect("readable"));
        if items.iter().any(|item| item.contains("pub ")) {
            let name = file.strip_prefix(&folder).expect("in it").display();
            let _ = writeln!(out, "## {name}\n{}\n", items.join("\n"));
        }
    }
    out
}

#[test]
fn the_public_interface_is_what_the_snapshot_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api.txt");
    let now = public();
    if std::env::var_os("GRAMME_STORE_WRITE_API").is_some() {
        std::fs::write(&path, &now).expect("written");
    }
    let snapshot = std::fs::read_to_string(&path).expect("the snapshot");
    for (number, (is, was)) in now.lines().zip(snapshot.lines()).enumerate() {
        assert_eq!(is, was, "line {} of api.txt", number + 1);
    }
    assert_eq!(now.lines().count(), snapshot.lines().count());
}
