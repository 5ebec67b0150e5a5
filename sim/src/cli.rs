//! What the command line says.

use bytes::Bytes;
use core::time::Duration;
use gramme_quorum::planted::{Bug, Planted};
use gramme_sim::run::Plan;

/// The help text.
pub(crate) const HELP: &str = "\
gramme-sim: whole Gramme clusters in virtual time, with faults and a judge

  --seed N       the seed from which everything follows (0)
  --seeds A..B   one run for each seed from A up to, not including, B
  --nodes N      nodes of the cluster, 2 to 128 (5)
  --for TIME     simulated time: 90s, 10m, 1h (1m)
  --rate N       client requests per simulated second in storms, about (45)
  --trace KEY    print what happened to this key
  --timeline F   write what happened to that key, or to the one that a violation is about, as an HTML page to the file F
  --twice        run everything twice, and fail if the two runs differ
  --safety-only  any number of faults at once, no healing: only what must never happen is judged
  --mistake NAME run with this mistake planted into the engines; needs the feature `planted`
  --planted WHAT whether the checker finds mistakes planted into the engines: all (the recorded seeds), find (fresh ones),
                 the name of one, or list; needs the feature `planted`

Progress goes to stderr. The last line of stdout is
event-hash=<16 hex digits> acknowledged=<n> faults=<n>; the exit code is 1 after a violation.";

/// Which seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seeds {
    One(u64),
    /// From the first up to, not including, the second.
    Range(u64, u64),
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Command {
    Help,
    Run { seeds: Seeds, template: Plan, twice: bool, page: Option<String> },
    Planted { which: String, seeds: Seeds, template: Plan },
}

/// Reads the arguments.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut arguments = arguments.into_iter();
    let mut seeds = Seeds::One(0);
    let mut template = Plan::new(0, 5);
    let mut twice = false;
    let (mut planted, mut page) = (None, None);
    while let Some(name) = arguments.next() {
        if matches!(name.as_str(), "--help" | "-h") {
            return Ok(Command::Help);
        }
        if name == "--twice" {
            twice = true;
            continue;
        }
        if name == "--safety-only" {
            template.safety_only = true;
            continue;
        }
        let mut value = || arguments.next().ok_or_else(|| format!("{name} wants a value"));
        match name.as_str() {
            "--seed" => seeds = Seeds::One(number(&name, &value()?)?),
            "--seeds" => {
                let text = value()?;
                let (from, to) =
                    text.split_once("..").ok_or_else(|| format!("{name} {text}: like 0..100"))?;
                let (first, last) = (number(&name, from)?, number(&name, to)?);
                if first >= last {
                    return Err(format!("{name} {text}: there is none from {first} up to {last}"));
                }
                seeds = Seeds::Range(first, last);
            }
            "--nodes" => {
                let nodes = number(&name, &value()?)?;
                template.nodes = match usize::try_from(nodes) {
                    Ok(nodes @ 2..=128) => nodes,
                    _ => return Err(format!("{name} {nodes}: 2 to 128, for faults lose what one alone has")),
                };
            }
            "--for" => template.length = time(&name, &value()?)?,
            "--rate" => template.rate = number(&name, &value()?)?.max(1),
            "--timeline" => page = Some(value()?),
            "--mistake" => template.planted = mistake(&value()?)?,
            "--planted" => planted = Some(value()?),
            "--trace" => template.trace = Some(Bytes::from(value()?)),
            _ => return Err(format!("{name}: no such option")),
        }
    }
    Ok(match planted {
        Some(which) => Command::Planted { which, seeds, template },
        None => Command::Run { seeds, template, twice, page },
    })
}

/// The arguments that make this plan.
pub(crate) fn arguments(plan: &Plan) -> String {
    let seconds = plan.length.as_secs();
    let only = if plan.safety_only { " --safety-only" } else { "" };
    let mistake = name_of(plan.planted).map_or_else(String::new, |name| format!(" --mistake {name}"));
    format!(
        "--seed {} --nodes {} --for {seconds}s --rate {}{only}{mistake}",
        plan.seed, plan.nodes, plan.rate
    )
}

#[cfg(feature = "planted")]
fn mistake(name: &str) -> Result<Planted, String> {
    let bug = Bug::ALL.iter().find(|(_, known, _)| *known == name);
    bug.map(|(bug, ..)| Planted::one(*bug)).ok_or_else(|| format!("--mistake {name}: see --planted list"))
}

#[cfg(not(feature = "planted"))]
fn mistake(name: &str) -> Result<Planted, String> {
    Err(format!("--mistake {name}: build with --features planted"))
}

/// The name of a planted mistake.
fn name_of(planted: Planted) -> Option<&'static str> {
    Bug::ALL.iter().find(|(bug, ..)| planted.is(*bug)).map(|(_, name, _)| *name)
}

fn number(name: &str, text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{name} {text}: not a number"))
}

fn time(name: &str, text: &str) -> Result<Duration, String> {
    let (digits, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(format!("{name} {text}: like 90s, 10m, 1h or 2d")),
    };
    let count: u64 = number(name, digits)?;
    count.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| format!("{name} {text}: too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn what_a_plan_prints_makes_it_again() {
        let Ok(Command::Run { seeds: Seeds::One(seed), template, .. }) =
            parse(words("--seed 7 --nodes 5 --for 1h --rate 25"))
        else {
            panic!("a plain command is read")
        };
        let plan = Plan { seed, ..template };
        assert_eq!(arguments(&plan), "--seed 7 --nodes 5 --for 3600s --rate 25");
    }

    #[cfg(feature = "planted")]
    #[test]
    fn a_plan_with_a_mistake_prints_it_too() {
        let line = "--seed 7 --nodes 5 --for 60s --rate 30 --mistake RTooLow";
        let Ok(Command::Run { seeds: Seeds::One(seed), template, .. }) = parse(words(line)) else {
            panic!("a mistake is read")
        };
        assert_eq!(arguments(&Plan { seed, ..template }), line);
    }

    #[test]
    fn misuse_is_named() {
        for wrong in [
            "--seed",
            "--seed x",
            "--nodes 0",
            "--nodes 129",
            "--for 1y",
            "--for m",
            "--seeds 4",
            "--seeds 5..1",
            "--seeds 3..3",
            "--sead 1",
        ] {
            let name = wrong.split(' ').next().unwrap();
            let Err(what) = parse(words(wrong)) else { panic!("{wrong} is taken") };
            assert!(what.contains(name), "{what}");
        }
    }
}
