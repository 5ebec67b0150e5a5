//! The command: `gramme-sim --seed 7 --nodes 5 --for 1h`.

mod cli;
#[cfg(feature = "planted")]
mod planted;

use bytes::Bytes;
use cli::{Command, Seeds, parse};
use core::time::Duration;
use gramme_sim::run::{Outcome, Plan, run};
use gramme_sim::swarm::{HARMS, Harm, KINDS, Kind};
use gramme_sim::world::World;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

/// So much of a key's timeline is printed, and so much of the notes if there is no key.
const LINES: usize = 400;
const NOTES: usize = 60;

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(Command::Help) => {
            println!("{}", cli::HELP);
            ExitCode::SUCCESS
        }
        Ok(Command::Run { seeds: Seeds::One(seed), template, twice, page }) => {
            one(&Plan { seed, ..template }, twice, page.as_deref())
        }
        Ok(Command::Run { seeds: Seeds::Range(from, to), template, twice, .. }) => {
            many(from, to, &template, twice)
        }
        Ok(Command::Planted { which, seeds, template }) => check_planted(&which, seeds, &template),
        Err(what) => {
            eprintln!("gramme-sim: {what}: --help lists what it takes");
            ExitCode::from(2)
        }
    }
}

#[cfg(feature = "planted")]
fn check_planted(which: &str, seeds: Seeds, template: &Plan) -> ExitCode {
    let range = match seeds {
        Seeds::Range(from, to) => (from, to),
        Seeds::One(_) => (1001, 2001),
    };
    planted::check(which, range, template).unwrap_or_else(|what| {
        eprintln!("gramme-sim: {what}");
        ExitCode::from(2)
    })
}

#[cfg(not(feature = "planted"))]
fn check_planted(which: &str, _: Seeds, _: &Plan) -> ExitCode {
    eprintln!("gramme-sim: --planted {which}: build with --features planted");
    ExitCode::from(2)
}

/// Simulates one seed, and tells how it goes.
fn one(plan: &Plan, twice: bool, page: Option<&str>) -> ExitCode {
    let began = Instant::now();
    let mut told = Instant::now();
    let mut progress = |world: &World| {
        if told.elapsed().as_secs() >= 1 {
            told = Instant::now();
            let simulated = world.now().since(gramme_sim::time::Time(0));
            eprintln!(
                "{:>8.0} s simulated, {:>5.0} times real time, {} writes acknowledged, {} faults{}",
                simulated.as_secs_f64(),
                simulated.as_secs_f64() / began.elapsed().as_secs_f64(),
                world.checker().acknowledged(),
                world.faults(),
                if world.is_calm() { "; clients wait for the cluster to come to rest" } else { "" },
            );
        }
    };
    let Some(outcome) = guarded(plan, &mut progress) else { return ExitCode::FAILURE };
    let seconds = began.elapsed().as_secs_f64();
    eprintln!(
        "{:.0} s simulated in {seconds:.1} s, {:.0} s of them asleep: {:.0} times real time without those, {:.0} acknowledgements a second; {} requests, {} of them writes, {} events, {} storms",
        outcome.length.as_secs_f64(),
        outcome.slept.as_secs_f64(),
        (outcome.length - outcome.slept).as_secs_f64() / seconds,
        f64::from(u32::try_from(outcome.acknowledged).unwrap_or(u32::MAX)) / seconds,
        outcome.requests,
        outcome.writes,
        outcome.events,
        outcome.storms,
    );
    if plan.trace.is_some() {
        print_timeline(&outcome, LINES);
    }
    let same = !twice || run(plan, &mut |_| {}).hash == outcome.hash;
    if !same {
        println!("seed {} does not replay: two runs differ", plan.seed);
    }
    let failed = report(plan, &outcome);
    if let Some(page) = page
        && let Err(error) = write_page(plan, &outcome, page)
    {
        eprintln!("gramme-sim: {page}: {error}");
        return ExitCode::from(2);
    }
    println!("{}", summary(&outcome));
    if failed || !same { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Simulates seeds one after the other, a line for each.
fn many(from: u64, to: u64, template: &Plan, twice: bool) -> ExitCode {
    let began = Instant::now();
    let (mut acknowledged, mut faults, mut failures) = (0, 0, 0);
    let (mut simulated, mut slept) = (Duration::ZERO, Duration::ZERO);
    let mut rests = Vec::new();
    let mut struck: BTreeMap<Kind, u64> = BTreeMap::new();
    let mut harmed: BTreeMap<Harm, u64> = BTreeMap::new();
    let (mut requests, mut harmed_runs) = (0, 0);
    let mut hash = gramme_sim::event_hash::EventHash::default();
    for seed in from..to {
        let plan = Plan { seed, ..template.clone() };
        let Some(outcome) = guarded(&plan, &mut |_| {}) else {
            failures += 1;
            continue;
        };
        println!("seed={seed} {}", summary(&outcome));
        failures += u64::from(report(&plan, &outcome));
        if twice && run(&plan, &mut |_| {}).hash != outcome.hash {
            println!("seed {seed} does not replay: two runs differ");
            failures += 1;
        }
        acknowledged += outcome.acknowledged;
        faults += outcome.faults;
        for (kind, times) in outcome.struck {
            *struck.entry(kind).or_default() += times;
        }
        harmed_runs += u64::from(outcome.harmed.values().any(|times| *times > 0));
        for (harm, times) in outcome.harmed {
            *harmed.entry(harm).or_default() += times;
        }
        requests += outcome.requests;
        simulated += outcome.length;
        slept += outcome.slept;
        rests.extend(outcome.rests);
        hash.event(0, [seed, outcome.hash, 0], &[]);
        let _ = std::io::stdout().flush();
    }
    if to > from && acknowledged == 0 {
        println!("no write was acknowledged in any of these runs");
        failures += 1;
    }
    let seconds = began.elapsed().as_secs_f64();
    let kinds: Vec<String> = struck.iter().map(|(kind, times)| format!("{kind:?} {times}")).collect();
    let harms: Vec<String> = harmed.iter().map(|(harm, times)| format!("{harm:?} {times}")).collect();
    println!("struck: {}; records, in {harmed_runs} runs: {}", kinds.join(", "), harms.join(", "));
    rests.sort_unstable();
    if let Some(longest) = rests.last() {
        let part = |percent: usize| rests[(rests.len() - 1) * percent / 100].as_secs();
        println!(
            "at rest after {} storms: half within {} s, 99 in 100 within {} s, all within {} s",
            rests.len(),
            part(50) + 1,
            part(99) + 1,
            longest.as_secs() + 1
        );
    }
    // In so many runs each kind of fault has to occur.
    let missing = KINDS.iter().filter(|kind| !struck.contains_key(kind)).map(|kind| format!("{kind:?}"));
    let unharmed =
        HARMS.iter().filter(|harm| template.nodes >= 3 && harmed.get(harm).is_none_or(|n| *n == 0));
    let missing: Vec<String> = missing.chain(unharmed.map(|harm| format!("{harm:?}"))).collect();
    if to - from >= 100 && template.length.as_secs() >= 60 && !missing.is_empty() {
        println!("in none of these runs: {missing:?}");
        failures += 1;
    }
    eprintln!(
        "{} seeds, {:.0} s simulated in {seconds:.1} s, {:.0} s of them asleep: {:.0} times real time without those, {:.0} acknowledgements a second, {:.0} requests a second awake; \
         {failures} failed",
        to - from,
        simulated.as_secs_f64(),
        slept.as_secs_f64(),
        (simulated - slept).as_secs_f64() / seconds,
        f64::from(u32::try_from(acknowledged).unwrap_or(u32::MAX)) / seconds,
        f64::from(u32::try_from(requests).unwrap_or(u32::MAX)) / (simulated - slept).as_secs_f64(),
    );
    println!("event-hash={:016x} acknowledged={acknowledged} faults={faults}", hash.value());
    if failures > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn summary(outcome: &Outcome) -> String {
    format!(
        "event-hash={:016x} acknowledged={} faults={}",
        outcome.hash, outcome.acknowledged, outcome.faults
    )
}

/// Runs a plan; a panic, which has told its own story, is told of like a violation.
fn guarded(plan: &Plan, progress: &mut dyn FnMut(&World)) -> Option<Outcome> {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(plan, progress)));
    outcome.inspect_err(|_| say_again("VIOLATION something panicked", plan)).ok()
}

fn say_again(what: &str, plan: &Plan) {
    let features =
        if plan.planted == gramme_quorum::planted::Planted::NONE { "" } else { " --features planted" };
    println!("{what}");
    println!("seed {} at commit {}; again with:", plan.seed, env!("GRAMME_COMMIT"));
    println!("  cargo run --release -p gramme-sim{features} -- {}", cli::arguments(plan));
}

/// Tells of a violation all that it takes to see it again. Whether there was one.
fn report(plan: &Plan, outcome: &Outcome) -> bool {
    let Some(violation) = &outcome.violation else { return false };
    say_again(&format!("VIOLATION {violation}"), plan);
    if plan.trace.is_none() {
        // What concerns no key has the whole cluster's notes.
        let (key, most) = violation.key.clone().map_or((Bytes::new(), NOTES), |key| (key, LINES));
        let traced = run(&Plan { trace: Some(key), ..plan.clone() }, &mut |_| {});
        print_timeline(&traced, most);
    }
    true
}

/// Writes the timeline of the key that was traced, or that a violation is about, or of any.
fn write_page(plan: &Plan, outcome: &Outcome, path: &str) -> std::io::Result<()> {
    let concerned = outcome.violation.as_ref().and_then(|violation| violation.key.clone());
    let key = plan.trace.clone().or(concerned).unwrap_or_else(|| "{shared}0".into());
    let traced = run(&Plan { trace: Some(key.clone()), ..plan.clone() }, &mut |_| {});
    let title = format!("{} in gramme-sim {}", key.escape_ascii(), cli::arguments(plan));
    let Some(timeline) = &traced.timeline else { return Ok(()) };
    let nodes = plan.nodes + gramme_sim::run::SPARES;
    std::fs::write(path, gramme_sim::html::page(&title, nodes, timeline, traced.violation.as_ref()))
}

/// The last of a timeline: what led to the end.
fn print_timeline(outcome: &Outcome, most: usize) {
    let Some(timeline) = &outcome.timeline else { return };
    let lines = timeline.lines();
    let skipped = lines.len().saturating_sub(most);
    if skipped > 0 {
        println!("… {skipped} lines before …");
    }
    for line in lines.skip(skipped) {
        println!("{line}");
    }
}
