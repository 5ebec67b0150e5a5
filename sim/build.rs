//! Tells the program which commit it is built from: a seed means the same only there.

use std::process::Command;

fn main() {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    let commit = git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]);
    let commit = commit.unwrap_or_else(|| format!("unknown, version {}", env!("CARGO_PKG_VERSION")));
    println!("cargo::rustc-env=GRAMME_COMMIT={commit}");
    println!("cargo::rerun-if-changed=src");
    // Whatever branch is built: these change with every commit. What is not there would be looked for each time.
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) =
            git(&["rev-parse", "--git-path", file]).filter(|path| std::fs::exists(path).unwrap_or(false))
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}
