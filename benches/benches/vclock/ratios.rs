//! The run's fastest samples side by side, each peer's over ours: other work on the machine only ever adds.

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

/// The fastest sample of one benchmark in nanoseconds for one iteration, if this run measured it.
fn fastest(folder: &Path, since: SystemTime) -> Option<f64> {
    let file = folder.join("new/sample.json");
    if fs::metadata(&file).ok()?.modified().ok()? < since {
        return None;
    }
    let text = fs::read_to_string(file).ok()?;
    let list = |name| {
        let (_, list) = text.split_once(&format!("\"{name}\":["))?;
        list.split(']')
            .next()?
            .split(',')
            .map(|number| number.parse::<f64>().ok())
            .collect::<Option<Vec<_>>>()
    };
    list("times")?.iter().zip(list("iters")?).map(|(time, count)| time / count).min_by(f64::total_cmp)
}

/// Prints a line for each group, size and form of ours that has peers in this run; an iteration does `each` operations.
pub(crate) fn print(
    since: SystemTime,
    each: u64,
    groups: &[&str],
    ours: &[&str],
    peers: &[&str],
    sizes: &[u64],
) {
    let results = folder();
    for group in groups {
        for size in sizes {
            // Criterion's folders: slashes of a group's name become underscores.
            let of = |name: &str| {
                let folder = results.join(group.replace('/', "_")).join(name).join(size.to_string());
                fastest(&folder, since)
            };
            for our in ours {
                let Some(time) = of(our) else { continue };
                let ratios: Vec<String> = peers
                    .iter()
                    .filter_map(|peer| of(peer).map(|theirs| format!("{:.1} × {peer}", theirs / time)))
                    .collect();
                if !ratios.is_empty() {
                    let time = time / each as f64;
                    println!("{group}, {size} entries: {our} {time:.1} ns, {}", ratios.join(", "));
                }
            }
        }
    }
}
