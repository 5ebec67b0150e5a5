//! Operators' changes of the cluster: staged, committed or taken back.
//!
//! The body of each request is a JSON object, at most [`LIMIT`] bytes, and said to be one: a page in a browser can't send
//! that to another site unasked.

use super::Server;
use super::api::{json, look};
use super::body::receive;
use super::keyspaces::{self, Wish};
use super::members::{facts, known, planned, standing, state};
use super::router::{Answer, Refusal};
use crate::facts::MAX_WEIGHT;
use crate::handle::Committed;
use gramme_quorum::{ClusterError, ClusterOp, Engine};
use gramme_ring::{Change, Member, NodeId, Zone};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::rc::Rc;

/// Bytes of a request's body.
const LIMIT: usize = 16 << 10;

/// One change to be staged. A node is named by its id or the beginning of it, as long as that fits one node only.
#[derive(Debug, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase", deny_unknown_fields)]
enum Stage {
    /// A node that waits becomes a member, with the weight and zone that it wishes unless they are given here.
    Join {
        /// May be left out if only one waits.
        node: Option<String>,
        weight: Option<u32>,
        zone: Option<String>,
    },
    /// A member hands over what it has, and goes.
    Leave { node: String },
    /// A dead member is given up, for good.
    Remove { node: String },
    /// A member goes and a node that waits takes its place, with its weight and zone unless they are given here.
    Replace {
        node: String,
        with: Option<String>,
        weight: Option<u32>,
        zone: Option<String>,
        /// The member is dead: it is given up, for good, rather than asked to hand over.
        #[serde(default)]
        dead: bool,
    },
    /// A member's share becomes another.
    Weight { node: String, weight: u32 },
    /// A member stands elsewhere.
    Zone { node: String, zone: String },
    /// Each key gets so many replicas.
    Replicas { replicas: u8 },
    /// Keys with a prefix get rules of their own.
    Keyspace(Wish),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Commit {
    /// The hash of the plan that was looked at.
    plan: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Clear {}

#[derive(Serialize)]
struct Staged {
    /// In words.
    staged: Vec<String>,
}

#[derive(Serialize)]
struct Entered {
    plan: String,
    #[serde(flatten)]
    committed: Committed,
}

pub(super) async fn answer(server: &Rc<Server>, request: Request<Incoming>) -> Result<Answer, Refusal> {
    if request.method() != Method::POST {
        return Err(Refusal::method("POST"));
    }
    let media = request.headers().get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
    if !media.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json")) {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "give a JSON object, with Content-Type: application/json",
        ));
    }
    let path = request.uri().path().to_owned();
    let body =
        receive(request.into_body(), LIMIT, &server.budget).await.map_err(|e| Refusal::body(&e, LIMIT))?;
    match path.as_str() {
        "/api/cluster/stage" => stage(server, parse(&body)?).await,
        "/api/cluster/commit" => commit(server, parse(&body)?).await,
        _ => {
            let Clear {} = parse(&body)?;
            change(server, ClusterOp::Clear).await?;
            json(&Staged { staged: Vec::new() })
        }
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|e| Refusal::bad_request(format!("the body is not understood: {e}")))
}

async fn change(server: &Server, op: ClusterOp) -> Result<Committed, Refusal> {
    server.handle.change(op).await.map_err(|error| {
        let status = match error {
            ClusterError::Busy | ClusterError::NotSaved => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::CONFLICT,
        };
        Refusal::new(status, error.to_string())
    })
}

async fn commit(server: &Server, commit: Commit) -> Result<Answer, Refusal> {
    let hash = Some(commit.plan.as_str())
        .filter(|text| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit()))
        .and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or_else(|| Refusal::bad_request("plan is not the hash of a plan, 16 hexadecimal digits"))?;
    let committed = change(server, ClusterOp::Commit(hash)).await?;
    json(&Entered { plan: commit.plan, committed })
}

async fn stage(server: &Server, stage: Stage) -> Result<Answer, Refusal> {
    let me = server.handle.node();
    let (changes, staged) = server.handle.engine(|engine| {
        let changes = Operator { engine, me }.changes(stage)?;
        // Who holds up a transition is given up at once.
        let waiting = engine.membership().transition().map(|t| t.waiting_for()).unwrap_or_default();
        let staged = changes.iter().map(|change| match change {
            Change::Remove(id) if waiting.contains(id) => {
                format!(
                    "node {id} is given up now: the change that is under way does not wait for it any more"
                )
            }
            other => words(other),
        });
        let staged = staged.collect();
        Ok::<_, Refusal>((changes, staged))
    })?;
    for (number, one) in changes.into_iter().enumerate() {
        let done = change(server, ClusterOp::Stage(one)).await;
        done.map_err(|refusal| match number {
            0 => refusal,
            _ => refusal.also("; the first half of the change stays staged, 'clear' takes it back"),
        })?;
    }
    json(&Staged { staged })
}

fn words(change: &Change) -> String {
    match change {
        Change::Member(member) => {
            let zone = member.zone.as_str();
            let zone = if zone.is_empty() { String::new() } else { format!(" in zone {zone}") };
            format!("node {} is a member with weight {}{zone}", member.id, member.weight)
        }
        Change::Leave(id) => format!("node {id} leaves"),
        Change::Remove(id) => format!("node {id} is removed, for good"),
        Change::Replicas(replicas) => format!("each key has {replicas} replicas, as far as there are nodes"),
        other => keyspaces::words(other).unwrap_or_else(|| format!("{other:?}")),
    }
}

fn conflict(text: String) -> Refusal {
    Refusal::new(StatusCode::CONFLICT, text)
}

/// Understands an operator's words by what this node knows.
struct Operator<'a> {
    engine: &'a Engine,
    me: NodeId,
}

impl Operator<'_> {
    fn changes(&self, stage: Stage) -> Result<Vec<Change>, Refusal> {
        Ok(match stage {
            Stage::Join { node, weight, zone } => {
                let newcomer = self.newcomer(node)?;
                vec![Change::Member(self.shaped(newcomer, weight, zone)?)]
            }
            Stage::Leave { node } => vec![Change::Leave(self.living(&node)?)],
            Stage::Remove { node } => vec![Change::Remove(self.dead(&node)?)],
            Stage::Replace { node, with, weight, zone, dead } => {
                let (old, end) = if dead {
                    let old = self.dead(&node)?;
                    (old, Change::Remove(old))
                } else {
                    let old = self.living(&node)?;
                    (old, Change::Leave(old))
                };
                let newcomer = self.newcomer(with)?;
                // The committed one: whatever was staged for it is off.
                let model = self.engine.layout().and_then(|layout| layout.member(old)).cloned();
                let newcomer = model.map_or(newcomer.clone(), |model| Member { id: newcomer.id, ..model });
                vec![Change::Member(self.shaped(newcomer, weight, zone)?), end]
            }
            Stage::Weight { node, weight } => {
                let member = self.member(&node)?;
                vec![Change::Member(self.shaped(member, Some(weight), None)?)]
            }
            Stage::Replicas { replicas } => vec![Change::Replicas(replicas)],
            Stage::Keyspace(wish) => vec![wish.change(self.engine.membership())?],
            Stage::Zone { node, zone } => {
                let member = self.member(&node)?;
                vec![Change::Member(self.shaped(member, None, Some(zone))?)]
            }
        })
    }

    /// The node whose id begins like this.
    fn find(&self, text: &str) -> Result<NodeId, Refusal> {
        let text = text.to_ascii_lowercase();
        if text.is_empty() || text.len() > 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Refusal::bad_request(format!(
                "'{}' is no node id, nor the beginning of one: those are 16 hexadecimal digits",
                text.escape_debug()
            )));
        }
        let known = known(self.engine, self.me);
        let mut fitting = known.into_iter().filter(|id| id.to_string().starts_with(&text));
        match (fitting.next(), fitting.next()) {
            (Some(node), None) => Ok(node),
            (None, _) => Err(Refusal::new(
                StatusCode::NOT_FOUND,
                format!("no node whose id begins with {text} is known here: /api/members lists all that are"),
            )),
            (Some(one), Some(other)) => Err(Refusal::bad_request(format!(
                "more than one node's id begins with {text}: {one} and {other} do; give more digits"
            ))),
        }
    }

    /// A node that waits to become a member, as it wishes to be.
    fn newcomer(&self, node: Option<String>) -> Result<Member, Refusal> {
        let ring = self.engine.membership();
        let outside = |id: &NodeId| matches!(standing(ring, *id), "waiting" | "left");
        let id = match node {
            Some(text) => self.find(&text)?,
            None => {
                let known = known(self.engine, self.me);
                let waiting = |id: &NodeId| standing(ring, *id) == "waiting" && planned(ring, *id).is_none();
                let mut waiting = known.into_iter().filter(waiting);
                match (waiting.next(), waiting.next()) {
                    (Some(only), None) => only,
                    (None, _) => {
                        return Err(conflict(
                            "no node waits to join: start one with 'gramme serve --join'".to_owned(),
                        ));
                    }
                    _ => return Err(Refusal::bad_request("more than one node waits to join: say which")),
                }
            }
        };
        if !outside(&id) {
            return Err(conflict(format!(
                "node {id} is no node that waits to join: it is {}",
                standing(ring, id)
            )));
        }
        let wishes = facts(self.engine, id).ok_or_else(|| {
            conflict(format!("node {id} has not said yet what it wishes to be: try again in a moment"))
        })?;
        Ok(Member { id, weight: wishes.weight, zone: wishes.zone })
    }

    /// What a node is to be after the commit, which something is to be changed of.
    fn member(&self, text: &str) -> Result<Member, Refusal> {
        let id = self.find(text)?;
        planned(self.engine.membership(), id).ok_or_else(|| {
            conflict(format!("node {id} is no member, and not staged to become one: stage that first"))
        })
    }

    fn shaped(&self, member: Member, weight: Option<u32>, zone: Option<String>) -> Result<Member, Refusal> {
        let weight = weight.unwrap_or(member.weight);
        if !(1..=MAX_WEIGHT).contains(&weight) {
            return Err(Refusal::bad_request(format!("a weight is a number from 1 to {MAX_WEIGHT}")));
        }
        let zone = match zone {
            Some(name) => Zone::new(&name).map_err(|e| Refusal::bad_request(e.to_string()))?,
            None => member.zone,
        };
        Ok(Member { id: member.id, weight, zone })
    }

    fn takes_part(&self, text: &str) -> Result<NodeId, Refusal> {
        let id = self.find(text)?;
        match standing(self.engine.membership(), id) {
            "waiting" | "left" => Err(conflict(format!("node {id} is no member"))),
            _ => Ok(id),
        }
    }

    /// A member that can hand over what it has.
    fn living(&self, text: &str) -> Result<NodeId, Refusal> {
        let id = self.takes_part(text)?;
        match state(&look(self.engine), id, self.me) {
            "this" | "up" => Ok(id),
            state => Err(conflict(format!(
                "node {id} is {state}, so it can't hand over what it has: bring it back, or give it up for good ('remove', \
                 or 'replace' with dead)"
            ))),
        }
    }

    /// A member that nobody hears from.
    fn dead(&self, text: &str) -> Result<NodeId, Refusal> {
        let id = self.takes_part(text)?;
        match state(&look(self.engine), id, self.me) {
            "down" | "suspected" => Ok(id),
            _ => Err(conflict(format!(
                "node {id} is up, and its id would be refused for ever: let it leave, which loses nothing, or stop it first"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_understood_or_said_not_to_be() {
        let understood: Stage = parse(br#"{"action":"join","node":"ab","weight":3}"#).expect("it is one");
        assert!(matches!(understood, Stage::Join { node: Some(_), weight: Some(3), zone: None }));
        let replace: Stage = parse(br#"{"action":"replace","node":"ab"}"#).expect("it is one");
        assert!(matches!(replace, Stage::Replace { with: None, dead: false, .. }));
        assert!(matches!(
            parse::<Stage>(br#"{"action":"replicas","replicas":5}"#).expect("it is one"),
            Stage::Replicas { replicas: 5 }
        ));
        for wrong in [
            &b"{}"[..],
            br#"{"action":"replicas","replicas":256}"#,
            b"",
            b"[]",
            br#"{"action":"fly"}"#,
            br#"{"action":"leave"}"#,
            br#"{"action":"keyspace"}"#,
            br#"{"action":"keyspace","prefix":"x","polciy":"lww"}"#,
            br#"{"action":"leave","node":7}"#,
            br#"{"action":"leave","node":"ab","wieght":1}"#,
            br#"{"action":"weight","node":"ab","weight":-1}"#,
            b"\xff",
        ] {
            assert!(parse::<Stage>(wrong).is_err(), "{}", wrong.escape_ascii());
        }
    }
}
