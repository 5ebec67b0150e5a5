//! A run's fastest samples side by side, each peer's over ours: other work on the machine only ever adds.

use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{env, fs};

/// What a figure is to reach: the floor at least, the goal if it can be.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// To be reached.
    pub floor: f64,
    /// To be aimed at.
    pub goal: f64,
}

/// Ours and theirs, measured for the same groups and sizes.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    /// Criterion's groups.
    pub groups: &'a [&'a str],
    /// Parameters of the benchmarks, in this unit.
    pub sizes: &'a [u64],
    /// What the sizes count.
    pub unit: &'a str,
    /// Operations of one iteration.
    pub each: u64,
    /// Our benchmarks, each with the nanoseconds that an operation may take.
    pub ours: &'a [(&'a str, Option<Target>)],
    /// Theirs, each with how many times our time is to be theirs.
    pub peers: &'a [(&'a str, Option<Target>)],
}

/// Where criterion's figures go: beside the folder of this program's build, unless told otherwise.
#[must_use]
pub fn folder() -> PathBuf {
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

impl Target {
    /// How a figure stands to it, of which more is better.
    fn verdict(self, figure: f64) -> String {
        if figure >= self.goal {
            format!(" (goal {} reached)", self.goal)
        } else if figure >= self.floor {
            format!(" (floor {} reached)", self.floor)
        } else {
            format!(" (floor {} MISSED)", self.floor)
        }
    }
}

impl Comparison<'_> {
    /// Prints a line for each group, size and benchmark of ours that this run measured beside a peer, and for each pair of
    /// ours and theirs with a target how often it was reached.
    pub fn print(&self, since: SystemTime) {
        let results = folder();
        // For each pair with a target: names, target and the ratios of all groups and sizes.
        let mut totals: Vec<(&str, &str, Target, Vec<f64>)> = Vec::new();
        for group in self.groups {
            for size in self.sizes {
                // Criterion's folders: slashes of a group's name become underscores.
                let of = |name: &str| {
                    let folder = results.join(group.replace('/', "_")).join(name).join(size.to_string());
                    fastest(&folder, since)
                };
                for &(our, bound) in self.ours {
                    let Some(time) = of(our) else { continue };
                    let mut ratios = Vec::new();
                    for &(peer, target) in self.peers {
                        let Some(theirs) = of(peer) else { continue };
                        let ratio = theirs / time;
                        let verdict = target.map_or_else(String::new, |target| target.verdict(ratio));
                        ratios.push(format!("{ratio:.1} × {peer}{verdict}"));
                        let Some(target) = target else { continue };
                        match totals.iter_mut().find(|total| (total.0, total.1) == (our, peer)) {
                            Some(total) => total.3.push(ratio),
                            None => totals.push((our, peer, target, vec![ratio])),
                        }
                    }
                    if ratios.is_empty() {
                        continue;
                    }
                    let time = time / self.each as f64;
                    let verdict = bound.map_or_else(String::new, |Target { floor, goal }| {
                        // Of times less is better.
                        let verdict = Target { floor: -floor, goal: -goal }.verdict(-time);
                        verdict.replace('-', "")
                    });
                    println!(
                        "{group}, {size} {}: {our} {time:.1} ns{verdict}, {}",
                        self.unit,
                        ratios.join(", ")
                    );
                }
            }
        }
        // Of a single one all has been said.
        for (our, peer, Target { floor, goal }, ratios) in
            totals.into_iter().filter(|total| total.3.len() > 1)
        {
            let count = ratios.len();
            let at_least = |least: f64| ratios.iter().filter(|ratio| **ratio >= least).count();
            let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / count as f64).exp();
            println!(
                "{our} over {peer}: {mean:.1} × in the geometric mean, floor {floor} reached in {} of {count}, goal {goal} in {}",
                at_least(floor),
                at_least(goal)
            );
        }
    }
}
