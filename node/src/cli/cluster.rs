//! `gramme cluster …`: stages changes of the members, shows what they would bring, commits them.

use super::http_client::{Answer, request};
use super::view::AT;
use super::{Failure, print, table};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often a wait looks whether it is over.
const GLANCE: Duration = Duration::from_millis(200);

/// How long the node may be away while we wait for a change to end.
const AWAY: Duration = Duration::from_secs(60);

/// Cells of a progress bar.
const BAR: usize = 30;

#[derive(Args)]
pub(super) struct ClusterCommand {
    /// The HTTP address of any member
    #[arg(long, value_name = "HOST:PORT", default_value = AT, global = true)]
    at: String,
    /// Print JSON, as the node answers it
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Stage a change. Nothing happens until it is committed
    #[command(subcommand)]
    Stage(Stage),
    /// Show what a commit of all that is staged would bring, and its hash
    Plan,
    /// Commit what is staged
    Commit {
        /// The hash of the plan that was looked at: nothing else is committed. The plan of now, if left out
        plan: Option<String>,
        /// Wait until the data has moved
        #[arg(long)]
        wait: bool,
    },
    /// Take back all that is staged
    Clear,
}

/// Nodes are named by their ids, of which as many digits suffice as tell them apart.
#[derive(Subcommand)]
enum Stage {
    /// A node that waits becomes a member
    Join {
        /// Which; may be left out if only one waits
        node: Option<String>,
        #[command(flatten)]
        shape: Shape,
    },
    /// A member hands over what it has, and goes
    Leave { node: String },
    /// A dead member is given up: what only it has is lost, and its id is refused for ever
    Remove { node: String },
    /// A member goes, and a node that waits takes its place
    Replace {
        node: String,
        /// Which takes its place; may be left out if only one waits
        with: Option<String>,
        #[command(flatten)]
        shape: Shape,
        /// The member is dead: give it up, as by remove
        #[arg(long)]
        dead: bool,
    },
    /// A member's share becomes another
    Weight {
        node: String,
        #[arg(value_parser = weights())]
        weight: u32,
    },
    /// A member stands elsewhere
    Zone { node: String, zone: String },
    /// Each key gets so many replicas (N)
    Replicas {
        #[arg(value_parser = clap::value_parser!(u8).range(1..))]
        replicas: u8,
    },
    /// Keys with a prefix get rules of their own; what is left out stays as it is
    Keyspace {
        /// What the keys begin with; '' for all keys without a keyspace
        prefix: String,
        /// Replicas that a read asks for: a number, one, quorum, all or default
        #[arg(long, value_name = "LEVEL")]
        r: Option<String>,
        /// Replicas that a write asks for: a number, one, quorum, all or default
        #[arg(long, value_name = "LEVEL")]
        w: Option<String>,
        /// What becomes of concurrent writes: siblings, or lww (the last one wins, the others are lost). It never changes
        #[arg(long)]
        policy: Option<String>,
        /// Seconds after which values expire whose writers say nothing of that; 0: never
        #[arg(long, value_name = "SECONDS")]
        ttl: Option<u64>,
        /// What an acknowledgement means: group (synced by W replicas), one (one of them syncs, which the answer does not
        /// wait for) or interval (synced within a second)
        #[arg(long)]
        durability: Option<String>,
    },
}

#[derive(Args)]
struct Shape {
    /// Its share of the data relative to others'; what it was started with, if left out
    #[arg(long, value_parser = weights())]
    weight: Option<u32>,
    /// What it fails together with; what it was started with, if left out
    #[arg(long)]
    zone: Option<String>,
}

fn weights() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(crate::facts::MAX_WEIGHT))
}

impl Stage {
    fn body(&self) -> Value {
        match self {
            Stage::Join { node, shape } => {
                json!({"action": "join", "node": node, "weight": shape.weight, "zone": shape.zone})
            }
            Stage::Leave { node } => json!({"action": "leave", "node": node}),
            Stage::Remove { node } => json!({"action": "remove", "node": node}),
            Stage::Replace { node, with, shape, dead } => json!({
                "action": "replace", "node": node, "with": with, "weight": shape.weight, "zone": shape.zone, "dead": dead
            }),
            Stage::Weight { node, weight } => json!({"action": "weight", "node": node, "weight": weight}),
            Stage::Zone { node, zone } => json!({"action": "zone", "node": node, "zone": zone}),
            Stage::Replicas { replicas } => json!({"action": "replicas", "replicas": replicas}),
            Stage::Keyspace { prefix, r, w, policy, ttl, durability } => json!({
                "action": "keyspace", "prefix": prefix, "r": r, "w": w, "policy": policy, "ttl": ttl, "durability": durability
            }),
        }
    }
}

impl ClusterCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        match &self.what {
            What::Stage(stage) => {
                let answer = self.post("stage", &stage.body())?;
                self.show(&answer, |answer| {
                    let lines = answer["staged"].as_array().into_iter().flatten().filter_map(Value::as_str);
                    let mut text: String = lines.map(|line| format!("staged: {line}\n")).collect();
                    text.push_str("see what that would bring with 'gramme cluster plan'\n");
                    text
                })
            }
            What::Plan => {
                let plan = self.plan()?;
                self.show(&plan, show_plan)
            }
            What::Commit { plan, wait } => self.commit(plan.as_deref(), *wait),
            What::Clear => {
                let answer = self.post("clear", &json!({}))?;
                self.show(&answer, |_| "nothing is staged any more\n".to_owned())
            }
        }
    }

    fn commit(&self, plan: Option<&str>, wait: bool) -> Result<(), Failure> {
        let hash = match plan {
            Some(hash) => hash.to_owned(),
            None => {
                let plan = self.plan()?;
                match plan["hash"].as_str() {
                    Some(hash) => hash.to_owned(),
                    None => {
                        return Err(self.failed("commit", plan["why"].as_str().unwrap_or("there is no plan")));
                    }
                }
            }
        };
        let answer = self.post("commit", &json!({"plan": hash}))?;
        self.show(&answer, |answer| {
            let more = if wait { "" } else { "; 'gramme transfers' shows how far that has come" };
            format!("committed plan {hash}: the cluster goes to layout {}{more}\n", answer["version"])
        })?;
        if wait { self.wait(&answer) } else { Ok(()) }
    }

    /// Waits until the layout of this commit is the only one in use.
    fn wait(&self, committed: &Value) -> Result<(), Failure> {
        let mut progress = Progress::default();
        let mut heard = Instant::now();
        loop {
            match self.get("/api/transfers") {
                Ok(now) => {
                    heard = Instant::now();
                    let version = now["version"].as_u64();
                    if version == committed["version"].as_u64() && now["commit"] != committed["commit"] {
                        progress.end();
                        return Err(self.failed(
                            "commit",
                            "another commit was made at the same time and won; what it left out is staged again",
                        ));
                    }
                    // Whether that one was made on top of this or of another that won is not told.
                    if version > committed["version"].as_u64() {
                        progress.end();
                        crate::log::line(format_args!(
                            "layout {} has been followed by another meanwhile: `gramme members` shows what holds",
                            committed["version"]
                        ));
                        return Ok(());
                    }
                    if now["transition"].is_null() {
                        progress.end();
                        crate::log::line(format_args!(
                            "the data has moved: layout {} is in force",
                            committed["version"]
                        ));
                        return Ok(());
                    }
                    progress.show(&now["transition"]);
                }
                Err(failure) if heard.elapsed() > AWAY => {
                    progress.end();
                    return Err(failure);
                }
                // The others go on meanwhile, and it may come back.
                Err(_) => {}
            }
            std::thread::sleep(GLANCE);
        }
    }

    fn plan(&self) -> Result<Value, Failure> {
        self.get("/api/cluster/plan")
    }

    fn get(&self, path: &str) -> Result<Value, Failure> {
        let answer = request(&self.at, "GET", path, &[], b"");
        self.understood(path, answer.map_err(|e| self.failed(path, &e.to_string()))?)
    }

    fn post(&self, what: &str, body: &Value) -> Result<Value, Failure> {
        let headers = [("Content-Type", "application/json")];
        let path = format!("/api/cluster/{what}");
        let answer = request(&self.at, "POST", &path, &headers, body.to_string().as_bytes());
        self.understood(
            what,
            answer.map_err(|e| self.failed(what, &format!("{e}: is --at its HTTP address?")))?,
        )
    }

    fn understood(&self, what: &str, answer: Answer) -> Result<Value, Failure> {
        match answer.status {
            200 => serde_json::from_slice(&answer.body).map_err(|e| self.failed(what, &e.to_string())),
            400 => Err(Failure::misuse(format!("cluster {what}: {}", answer.text()))),
            _ => Err(self.failed(what, &answer.text())),
        }
    }

    fn failed(&self, what: &str, why: &str) -> Failure {
        Failure::new(format!("cluster {what} at {}: {why}", self.at))
    }

    fn show(&self, answer: &Value, text: impl FnOnce(&Value) -> String) -> Result<(), Failure> {
        if self.json { print(format!("{answer}\n").as_bytes()) } else { print(text(answer).as_bytes()) }
    }
}

/// The plan without what only programs want to know.
fn show_plan(plan: &Value) -> String {
    let mut plan = plan.clone();
    for one in plan["moves"].as_array_mut().into_iter().flatten() {
        if let Some(one) = one.as_object_mut() {
            one.remove("slots");
        }
    }
    if let Some(plan) = plan.as_object_mut() {
        plan.retain(|_, value| !value.is_null());
    }
    let risk = plan["slots_at_risk"].as_u64().unwrap_or(0);
    let hash = plan["hash"].as_str().map(str::to_owned);
    let mut text = table::render(&plan);
    if risk > 0 {
        text.push_str(&format!(
            "\nOf {risk} slots most copies are at nodes to be removed: what was written to those only is lost.\n"
        ));
    }
    if let Some(hash) = hash {
        text.push_str(&format!("\ncommit this with: gramme cluster commit {hash} --wait\n"));
    }
    text
}

/// Tells on stderr how far the transition is: as a bar on a terminal, otherwise a line for each step.
#[derive(Default)]
struct Progress {
    shown: String,
    bar: bool,
}

impl Progress {
    fn show(&mut self, transition: &Value) {
        let step = transition["step"].as_str().unwrap_or_default();
        let number =
            |name: &str| usize::try_from(transition[name].as_u64().unwrap_or(0)).unwrap_or(usize::MAX);
        let (total, copied) = (number("to_copy"), number("copied"));
        let waiting: Vec<&str> =
            transition["waiting_for"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut err = std::io::stderr().lock();
        if err.is_terminal() {
            let full = (BAR * copied).checked_div(total).unwrap_or(BAR);
            let line = format!(
                "[{}{}] {copied} of {total} partitions, {step}, waiting for {} {}",
                "#".repeat(full),
                "-".repeat(BAR.saturating_sub(full)),
                waiting.len(),
                if waiting.len() == 1 { "node" } else { "nodes" }
            );
            if line != self.shown {
                let _ = write!(err, "\r{line}\x1b[K").and_then(|()| err.flush());
            }
            (self.shown, self.bar) = (line, true);
        } else if self.shown != step {
            let _ = writeln!(
                err,
                "gramme: {step}: {copied} of {total} partitions are copied, waiting for {}",
                waiting.join(", ")
            );
            self.shown = step.to_owned();
        }
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.bar) {
            let _ = writeln!(std::io::stderr());
        }
    }
}
