//! Commands by which clients learn what they talk to.

use super::arguments::{Options, is, shown};
use super::connection::unknown_subcommand;
use super::{COMMANDS, Next, Outcome, Refusal, Session, Spec, find};
use crate::redis::resp::Command;
use crate::redis::write::Writer;
use crate::redis::{Bounds, Mode, REDIS_VERSION, resident_bytes};
use std::fmt::Write as _;

/// Commands that may be asked for by name at one time: more than Redis has, few enough that the answer is short.
const NAMES: usize = 1024;

pub(super) fn command(session: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    let out = &mut *session.writer;
    let mut options = Options::from(command, 1);
    let Some(what) = options.next() else {
        out.array(COMMANDS.len());
        COMMANDS.iter().for_each(|spec| describe(spec, out));
        return Ok(Next::Answered);
    };
    if is(what, "COUNT") && command.len() == 2 {
        out.count(COMMANDS.len());
    } else if is(what, "LIST") && command.len() == 2 {
        out.array(COMMANDS.len());
        COMMANDS.iter().for_each(|spec| out.bulk(spec.name.as_bytes()));
    } else if (is(what, "INFO") || is(what, "DOCS")) && command.len() - 2 > NAMES {
        return Err(Refusal::new(format!(
            "ERR COMMAND {}: up to {NAMES} names",
            shown(&what.to_ascii_uppercase())
        )));
    } else if is(what, "INFO") {
        if command.len() == 2 {
            out.array(COMMANDS.len());
            COMMANDS.iter().for_each(|spec| describe(spec, out));
        } else {
            out.array(command.len() - 2);
            while let Some(name) = options.next() {
                match find(name) {
                    Some(spec) => describe(spec, out),
                    None => out.null_array(),
                }
            }
        }
    } else if is(what, "DOCS") {
        let asked: Vec<&Spec> = if command.len() == 2 {
            COMMANDS.iter().collect()
        } else {
            std::iter::from_fn(|| options.next()).filter_map(find).collect()
        };
        out.map(asked.len());
        asked.into_iter().for_each(|spec| document(spec, out));
    } else if is(what, "GETKEYS") && command.len() > 2 {
        keys(command, out)?;
    } else {
        return Err(unknown_subcommand("COMMAND", what));
    }
    Ok(Next::Answered)
}

/// One command as `COMMAND` shows it.
fn describe(spec: &Spec, out: &mut Writer) {
    out.array(10);
    out.bulk(spec.name.as_bytes());
    out.integer(spec.arity.into());
    out.set(spec.flags.len());
    spec.flags.iter().for_each(|flag| out.simple(flag));
    let (first, last, step) = spec.keys;
    [first, last, step].into_iter().for_each(|n| out.integer(n.into()));
    // Categories of access control, hints to clients, key specifications, subcommands: none.
    out.set(0);
    (0..3).for_each(|_| out.array(0));
}

/// One command as `COMMAND DOCS` shows it.
fn document(spec: &Spec, out: &mut Writer) {
    out.bulk(spec.name.as_bytes());
    out.map(2);
    for (field, text) in [("summary", spec.summary), ("group", spec.group)] {
        out.bulk(field.as_bytes());
        out.bulk(text.as_bytes());
    }
}

/// `COMMAND GETKEYS command argument…`
fn keys(command: &Command<'_>, out: &mut Writer) -> Result<(), Refusal> {
    let asked: Vec<&[u8]> = command.iter().skip(2).collect();
    let spec = find(asked[0]).ok_or_else(|| Refusal::new("ERR Invalid command specified"))?;
    if !spec.accepts(asked.len()) {
        return Err(Refusal::new("ERR Invalid number of arguments specified for command"));
    }
    let (first, last, step) = spec.keys;
    let (Ok(first), Ok(step)) = (usize::try_from(first), usize::try_from(step)) else {
        unreachable!("not negative")
    };
    if first == 0 {
        return Err(Refusal::new("ERR The command has no key arguments"));
    }
    let last = if last < 0 { asked.len() - 1 } else { first };
    let keys: Vec<&[u8]> = asked[first..=last].iter().step_by(step).copied().collect();
    out.array(keys.len());
    keys.into_iter().for_each(|key| out.bulk(key));
    Ok(())
}

pub(super) fn config(session: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    let mut options = Options::from(command, 1);
    let what = options.value()?;
    if is(what, "SET") || is(what, "REWRITE") {
        return Err(Refusal::new(format!(
            "ERR CONFIG {}: settings come from the command line and the configuration file",
            shown(&what.to_ascii_uppercase())
        )));
    }
    if !is(what, "GET") {
        return Err(unknown_subcommand("CONFIG", what));
    }
    if command.len() < 3 {
        return Err(Refusal::arity("config|get"));
    }
    let Bounds { command: limits, clients, .. } = session.server.bounds;
    let port = session.client.local.port();
    let settings = [
        ("appendonly", "yes".to_owned()),
        ("cluster-enabled", if session.client.mode == Mode::Cluster { "yes" } else { "no" }.to_owned()),
        ("databases", "1".to_owned()),
        ("maxclients", clients.to_string()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("port", port.to_string()),
        ("proto-max-bulk-len", limits.argument.to_string()),
        ("save", String::new()),
        ("tcp-keepalive", "300".to_owned()),
        ("timeout", "0".to_owned()),
    ];
    let patterns: Vec<&[u8]> = std::iter::from_fn(|| options.next()).take(64).collect();
    let asked = |name: &str| patterns.iter().any(|pattern| matches(pattern, name.as_bytes()));
    let found: Vec<_> = settings.iter().filter(|(name, _)| asked(name)).collect();
    session.writer.map(found.len());
    for (name, value) in found {
        session.writer.bulk(name.as_bytes());
        session.writer.bulk(value.as_bytes());
    }
    Ok(Next::Answered)
}

/// Whether a pattern with `*` and `?` fits a whole name, in any case. Linear in both for one star.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || c.eq_ignore_ascii_case(&name[n]) => (p, n) = (p + 1, n + 1),
            _ => {
                // Let the last star take one character more.
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                (p, n) = (at + 1, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// The sections of `INFO`, each written when asked for.
type Section = (&'static str, fn(&Session<'_>, &mut String));
const SECTIONS: &[Section] = &[
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Persistence", persistence),
    ("Stats", stats),
    ("Replication", replication),
    ("Cluster", cluster),
    ("Keyspace", keyspace),
];

pub(super) fn info(session: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    let asked: Vec<&[u8]> = command.iter().skip(1).take(64).collect();
    let everything =
        asked.is_empty() || asked.iter().any(|s| ["all", "default", "everything"].iter().any(|a| is(s, a)));
    let mut text = String::new();
    for (name, write) in SECTIONS {
        if everything || asked.iter().any(|s| is(s, name)) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            let _ = write!(text, "# {name}\r\n");
            write(session, &mut text);
        }
    }
    session.writer.text(&text);
    Ok(Next::Answered)
}

/// Adds one line.
fn line(text: &mut String, field: &str, value: impl std::fmt::Display) {
    // A String takes everything.
    let _ = write!(text, "{field}:{value}\r\n");
}

fn server(session: &Session<'_>, text: &mut String) {
    let uptime = session.server.started.elapsed().as_secs();
    line(text, "redis_version", REDIS_VERSION);
    line(text, "redis_mode", session.client.mode.name());
    line(text, "gramme_version", env!("CARGO_PKG_VERSION"));
    line(text, "gramme_node", session.server.handle.node());
    line(text, "gramme_cluster", format_args!("{:016x}", session.server.handle.cluster()));
    line(text, "os", std::env::consts::OS);
    line(text, "arch_bits", usize::BITS);
    line(text, "process_id", std::process::id());
    line(text, "tcp_port", session.client.local.port());
    line(text, "uptime_in_seconds", uptime);
    line(text, "uptime_in_days", uptime / 86_400);
}

fn clients(session: &Session<'_>, text: &mut String) {
    line(text, "connected_clients", session.server.clients.borrow().len());
    line(text, "maxclients", session.server.bounds.clients);
    line(text, "requests_in_flight", session.server.handle.in_flight());
}

fn memory(_: &Session<'_>, text: &mut String) {
    if let Some(resident) = resident_bytes() {
        line(text, "used_memory", resident);
        line(text, "used_memory_rss", resident);
    }
    line(text, "maxmemory", 0);
    line(text, "maxmemory_policy", "noeviction");
}

fn persistence(_: &Session<'_>, text: &mut String) {
    line(text, "loading", 0);
    line(text, "aof_enabled", 1);
    line(text, "rdb_bgsave_in_progress", 0);
    line(text, "aof_rewrite_in_progress", 0);
}

fn stats(session: &Session<'_>, text: &mut String) {
    let server = session.server;
    line(text, "total_connections_received", server.next_client.get() - 1 + server.refused.get());
    line(text, "rejected_connections", server.refused.get());
    line(text, "total_commands_processed", server.commands.get());
    line(text, "gramme_requests_forwarded", server.handle.forwarded());
}

fn replication(_: &Session<'_>, text: &mut String) {
    line(text, "role", "master");
    line(text, "connected_slaves", 0);
}

fn cluster(session: &Session<'_>, text: &mut String) {
    // Clients that ask mean the protocol's cluster mode, which only one of the ports speaks.
    line(text, "cluster_enabled", u8::from(session.client.mode == Mode::Cluster));
    let (version, replicas, partitions) = session
        .server
        .handle
        .engine(|e| e.layout().map_or((0, 0, 0), |l| (l.version().0, l.replicas(), l.partitions())));
    line(text, "gramme_members", session.server.handle.members().len());
    line(text, "gramme_ring_version", version);
    line(text, "gramme_replicas", replicas);
    line(text, "gramme_partitions", partitions);
}

/// The number of keys would take a walk over all nodes; clients that look here want to know which databases exist.
fn keyspace(_: &Session<'_>, _: &mut String) {}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        for (pattern, name, fits) in [
            ("save", "save", true),
            ("SAVE", "save", true),
            ("sav", "save", false),
            ("saves", "save", false),
            ("*", "save", true),
            ("", "save", false),
            ("max*y", "maxmemory", true),
            ("max*-*y", "maxmemory-policy", true),
            ("max*x", "maxmemory", false),
            ("?ave", "save", true),
            ("*a*e*", "save", true),
            ("**", "", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), fits, "{pattern} {name}");
        }
    }
}
