//! The keyspaces: what the cluster has committed to, and how an operator speaks of them.

use super::Server;
use super::api::json;
use super::router::{Answer, Refusal};
use gramme_quorum::{Durability, Keyspace, Level, Policy};
use gramme_ring::{Change, Membership};
use serde::{Deserialize, Serialize};

/// A keyspace as it is to be. What is not named stays as it is staged, or else committed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    prefix: String,
    /// A number, `one`, `quorum` or `all`; `default`: as for keys without a keyspace.
    r: Option<String>,
    w: Option<String>,
    /// `siblings` or `lww`.
    policy: Option<String>,
    /// Seconds; 0: values stay.
    ttl: Option<u64>,
    /// `group`, `one` or `interval`.
    durability: Option<String>,
}

#[derive(Serialize)]
struct Shown {
    prefix: String,
    r: String,
    w: String,
    policy: String,
    /// Seconds after which a value expires whose writer said nothing of that; null: never.
    ttl: Option<u64>,
    durability: String,
}

pub(super) fn keyspaces(server: &Server) -> Result<Answer, Refusal> {
    let shown: Vec<Shown> = server.handle.engine(|engine| {
        let all = Keyspace::all(engine.membership());
        let show = |(prefix, keyspace): (&str, Keyspace)| Shown {
            prefix: prefix.to_owned(),
            r: level(keyspace.r),
            w: level(keyspace.w),
            policy: keyspace.policy.to_string(),
            ttl: keyspace.ttl_ms.map(|ms| ms / 1000),
            durability: keyspace.durability.to_string(),
        };
        all.map(show).collect()
    });
    json(&shown)
}

impl Wish {
    /// The change that this comes to.
    pub(super) fn change(self, membership: &Membership) -> Result<Change, Refusal> {
        let staged = membership.staged().into_iter().find_map(|change| {
            let Change::Setting { name, value: Some(value) } = change else { return None };
            Keyspace::read(&name, &value)
                .filter(|(prefix, _)| *prefix == self.prefix)
                .map(|(_, keyspace)| keyspace)
        });
        let committed = || Keyspace::all(membership).find(|(prefix, _)| *prefix == self.prefix);
        let known = staged.or_else(|| committed().map(|(_, keyspace)| keyspace));
        let mut keyspace = known.unwrap_or_default();
        for (said, place) in [(&self.r, &mut keyspace.r), (&self.w, &mut keyspace.w)] {
            match said.as_deref() {
                None => {}
                Some("default") => *place = None,
                Some(text) => {
                    let level = Level::parse(text).ok_or_else(|| {
                        Refusal::bad_request("r and w are numbers, or one, quorum, all or default".to_owned())
                    })?;
                    *place = Some(level);
                }
            }
        }
        keyspace.policy = match self.policy.as_deref() {
            None => keyspace.policy,
            Some("siblings") => Policy::Siblings,
            Some("lww") => Policy::Lww,
            Some(_) => return Err(Refusal::bad_request("a policy is siblings or lww".to_owned())),
        };
        keyspace.durability = match self.durability.as_deref() {
            None => keyspace.durability,
            Some("group") => Durability::Group,
            Some("one") => Durability::One,
            Some("interval") => Durability::Interval,
            Some(_) => {
                return Err(Refusal::bad_request("a durability is group, one or interval".to_owned()));
            }
        };
        match self.ttl {
            None => {}
            Some(0) => keyspace.ttl_ms = None,
            Some(seconds) => keyspace.ttl_ms = Some(seconds.saturating_mul(1000)),
        }
        keyspace.change(&self.prefix).map_err(|e| Refusal::bad_request(e.to_string()))
    }
}

/// What a setting stands for, in words; `None` if it is no keyspace.
pub(super) fn words(change: &Change) -> Option<String> {
    let Change::Setting { name, value: Some(value) } = change else { return None };
    let (prefix, keyspace) = Keyspace::read(name, value)?;
    let ttl =
        keyspace.ttl_ms.map_or("values stay".to_owned(), |ms| format!("values expire after {} s", ms / 1000));
    let keys = if prefix.is_empty() {
        "keys without a keyspace".to_owned()
    } else {
        format!("keys that begin with '{}'", prefix.escape_debug())
    };
    let (r, w) = (level(keyspace.r), level(keyspace.w));
    let Keyspace { policy, durability, .. } = keyspace;
    Some(format!("{keys}: policy {policy}, r {r}, w {w}, durability {durability}, {ttl}"))
}

fn level(level: Option<Level>) -> String {
    match level {
        None => "default".to_owned(),
        Some(Level::Count(n)) => n.to_string(),
        Some(Level::One) => "one".to_owned(),
        Some(Level::Quorum) => "quorum".to_owned(),
        Some(Level::All) => "all".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gramme_ring::{ClusterId, Member, NodeId};

    #[test]
    fn what_is_staged_already_stays_unless_it_is_named() {
        let me = NodeId(1);
        let mut membership = Membership::found(ClusterId(1), 3, 256, &[Member::new(me)]).expect("one member");
        let mut stage = |wish: &str| {
            let wish: Wish = serde_json::from_str(wish).expect("it is a wish");
            let Ok(change) = wish.change(&membership) else { panic!("it can be") };
            membership.stage(me, change.clone()).expect("there is room");
            words(&change).expect("it is a keyspace")
        };
        stage(r#"{"prefix":"a","policy":"lww","w":"one"}"#);
        stage(r#"{"prefix":"b","ttl":9}"#);
        let said = stage(r#"{"prefix":"a","ttl":60,"w":"default"}"#);
        assert_eq!(
            said,
            "keys that begin with 'a': policy lww, r default, w default, durability group, values expire after 60 s"
        );
    }
}
