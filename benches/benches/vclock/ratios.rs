//! The run's medians side by side, each peer's over ours.

use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{env, fs};

/// Where criterion's figures go: beside the folder of this program's build, unless told otherwise.
pub(crate) fn folder() -> PathBuf {
    match (env::var_os("CRITERION_HOME"), env::current_exe()) {
        (Some(home), _) => home.into(),
        (None, Ok(program)) => program.ancestors().nth(3).unwrap_or(&program).join("criterion"),
        (None, Err(_)) => "target/criterion".into(),
    }
}

/// The median of one benchmark in nanoseconds, if this run measured it.
fn median(folder: &Path, since: SystemTime) -> Option<f64> {
    let file = folder.join("new/estimates.json");
    if fs::metadata(&file).ok()?.modified().ok()? < since {
        return None;
    }
    let text = fs::read_to_string(file).ok()?;
    let (_, median) = text.split_once("\"median\":")?;
    let (_, value) = median.split_once("\"point_estimate\":")?;
    value.split([',', '}']).next()?.parse().ok()
}

/// Prints a line for each group, size and form of ours that has peers in this run.
pub(crate) fn print(since: SystemTime, groups: &[&str], ours: &[&str], peers: &[&str], sizes: &[u64]) {
    let results = folder();
    for group in groups {
        for size in sizes {
            // Criterion's folders: slashes of a group's name become underscores.
            let of = |name: &str| {
                let folder = results.join(group.replace('/', "_")).join(name).join(size.to_string());
                median(&folder, since)
            };
            for our in ours {
                let Some(time) = of(our) else { continue };
                let ratios: Vec<String> = peers
                    .iter()
                    .filter_map(|peer| of(peer).map(|theirs| format!("{:.1} × {peer}", theirs / time)))
                    .collect();
                if !ratios.is_empty() {
                    println!("{group}, {size} entries: {our} {time:.1} ns, {}", ratios.join(", "));
                }
            }
        }
    }
}
