//! Whether the checker finds the mistakes that can be planted into the engines (`--planted`, with the feature of that name).

use gramme_quorum::planted::{Bug, Planted};
use gramme_sim::run::{Plan, run};
use std::process::ExitCode;

/// The seeds that are known to find each: name, nodes, seed, seeds tried until then, the promise that is broken.
const RECORDED: &str = include_str!("../planted.txt");
/// Mistakes that a story finds (`quorum/tests/sweeps.rs`, `quorum/tests/two_layouts.rs`, `quorum/tests/deadlines.rs`, `sim/tests/healing.rs`,
/// `sim/tests/refused_reads.rs`), and seeds hardly ever.
const STORIES: [&str; 12] = [
    "EarlyPullCounts",
    "OwnerForgets",
    "MintedLate",
    "EarlierPullAnswers",
    "NotesForgotten",
    "HealedFromRest",
    "NeverAll",
    "NeverAlone",
    "LossForgotten",
    "RefusedIsDamaged",
    "SkippedIgnored",
    "UnreadableIgnored",
];

/// Checks that each mistake is found: by its recorded seed (`all`), or by fresh ones from `from` up to `to` (`find`, or one
/// mistake's name). A table like the recorded one goes to stdout.
pub(crate) fn check(which: &str, seeds: (u64, u64), template: &Plan) -> Result<ExitCode, String> {
    if which == "list" {
        Bug::ALL.iter().for_each(|(_, name, what)| println!("{name}:{what}"));
        return Ok(ExitCode::SUCCESS);
    }
    if which == "all" {
        return Ok(replay(template));
    }
    let chosen = |name: &str| which == "find" || which == name;
    let bugs: Vec<_> = Bug::ALL.iter().filter(|(_, name, _)| chosen(name)).collect();
    if bugs.is_empty() {
        return Err(format!("--planted {which}: no such mistake; all, find, list, or one of --planted list"));
    }
    let mut found_all = true;
    for (bug, name, _) in bugs {
        found_all &= find(*bug, name, seeds, template);
    }
    Ok(if found_all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Looks for a seed that finds it. Odd seeds go to five nodes, even ones to three.
fn find(bug: Bug, name: &str, (from, to): (u64, u64), template: &Plan) -> bool {
    for seed in from..to {
        let nodes = if seed % 2 == 1 { 5 } else { 3 };
        if let Some(promise) = violation(Planted::one(bug), nodes, seed, template) {
            // What goes wrong without it, too, is another matter.
            if violation(Planted::NONE, nodes, seed, template).is_some() {
                println!("# seed {seed} on {nodes} nodes breaks a promise without any mistake");
                continue;
            }
            println!("{name} {nodes} {seed} {} {promise}", seed - from + 1);
            return true;
        }
    }
    println!("# {name}: not found by {} seeds", to - from);
    false
}

fn replay(template: &Plan) -> ExitCode {
    let mut missed = 0;
    let rows: Vec<Vec<&str>> = RECORDED
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_whitespace().collect())
        .collect();
    for row in &rows {
        let [name, nodes, seed, _, promise] = row[..] else { panic!("not a row of the table: {row:?}") };
        let (bug, ..) =
            Bug::ALL.iter().find(|(_, known, _)| *known == name).expect("the table names mistakes");
        let (nodes, seed) = (nodes.parse().expect("nodes"), seed.parse().expect("a seed"));
        let found = violation(Planted::one(*bug), nodes, seed, template);
        // What the seed breaks without the mistake, too, says nothing of it.
        let without = violation(Planted::NONE, nodes, seed, template);
        if found.as_deref() != Some(promise) || without.is_some() {
            missed += 1;
            println!(
                "{name}: seed {seed} on {nodes} nodes breaks {found:?} where {promise} was recorded, and {without:?} without it; \
                 look for another with --planted {name}"
            );
        }
    }
    let has_row = |name: &str| rows.iter().any(|row| row[0] == name);
    let is_told = |name: &str| STORIES.contains(&name) || has_row(name);
    for (_, name, _) in Bug::ALL.iter().filter(|(_, name, _)| !is_told(name)) {
        missed += 1;
        println!("{name} has neither a seed nor a story; look for one with --planted {name}");
    }
    println!(
        "planted mistakes: {} by seeds, {} by stories, {missed} missed",
        rows.len().saturating_sub(missed),
        STORIES.len()
    );
    if missed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The promise that a run with a mistake, or none, breaks, if it breaks one.
fn violation(planted: Planted, nodes: usize, seed: u64, template: &Plan) -> Option<String> {
    let plan = Plan { seed, nodes, planted, ..template.clone() };
    // An engine with a mistake may well break its own assertions, too.
    let outcome = std::panic::catch_unwind(|| run(&plan, &mut |_| {}));
    match outcome {
        Ok(outcome) => outcome.violation.map(|violation| format!("{:?}", violation.invariant)),
        Err(_) => Some(String::from("Panic")),
    }
}
