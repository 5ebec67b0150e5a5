//! What clients ask for: a table of commands, and what each does with its arguments.
//!
//! A command either answers at once or comes to a [`Job`] for the pipeline. Nothing here waits.

mod arguments;
mod causal;
mod cluster;
mod connection;
mod flow;
mod introspection;
mod strings;

use super::pipeline::Job;
use super::resp::Command;
use super::write::Writer;
use super::{Client, Server};
use arguments::shown;
use std::rc::Rc;

/// What a command may use.
pub(super) struct Session<'s> {
    pub(super) server: &'s Rc<Server>,
    pub(super) client: &'s Client,
    /// Where an answer goes that is known at once.
    pub(super) writer: &'s mut Writer,
    /// Nothing that the client sent before it is unanswered, and nothing was received behind it yet.
    pub(super) alone: bool,
}

/// What a command comes to.
#[allow(clippy::large_enum_variant)] // it lives on the stack, for one command
pub(super) enum Next {
    /// The answer was written.
    Answered,
    /// The answer was written and is the last.
    Close,
    /// The answer is to come.
    Run(Job),
}

/// Why a command was not understood: the whole text of the error, its kind first.
#[derive(Debug)]
struct Refusal(String);

impl Refusal {
    fn new(text: impl Into<String>) -> Refusal {
        Refusal(text.into())
    }

    fn syntax() -> Refusal {
        Refusal::new("ERR syntax error")
    }

    fn arity(name: &str) -> Refusal {
        Refusal::new(format!("ERR wrong number of arguments for '{name}' command"))
    }

    /// For what can't be promised without agreement of all replicas on an order.
    fn consensus(what: &str) -> Refusal {
        Refusal::new(format!(
            "ERR {what} would need consensus, and this store never waits for any: read with DYN.GET, write with DYN.PUT \
             and the context that you were given"
        ))
    }
}

type Outcome = Result<Next, Refusal>;

/// One command that is known.
struct Spec {
    /// In lower case.
    name: &'static str,
    /// Arguments with the name; negative: at least.
    arity: i32,
    flags: &'static [&'static str],
    /// First key, last key (negative: from the end), step; zeros: no keys.
    keys: (i32, i32, i32),
    group: &'static str,
    summary: &'static str,
    run: fn(&mut Session<'_>, &Command<'_>) -> Outcome,
}

const NO_KEYS: (i32, i32, i32) = (0, 0, 0);
const ONE_KEY: (i32, i32, i32) = (1, 1, 1);
const ALL_KEYS: (i32, i32, i32) = (1, -1, 1);
const KEYS_AND_VALUES: (i32, i32, i32) = (1, -1, 2);

const fn spec(
    name: &'static str,
    arity: i32,
    flags: &'static [&'static str],
    keys: (i32, i32, i32),
    group: &'static str,
    summary: &'static str,
    run: fn(&mut Session<'_>, &Command<'_>) -> Outcome,
) -> Spec {
    Spec { name, arity, flags, keys, group, summary, run }
}

const ADMIN: &[&str] = &["loading", "stale"];
const QUICK: &[&str] = &["fast", "loading", "stale"];
const READ: &[&str] = &["readonly", "fast"];
const READ_MANY: &[&str] = &["readonly"];
const WRITE: &[&str] = &["write", "fast"];
const STORE: &[&str] = &["write", "denyoom"];

/// All commands, by name.
#[rustfmt::skip]
static COMMANDS: &[Spec] = &[
    spec("auth", -2, QUICK, NO_KEYS, "connection", "Authenticates the connection.", connection::auth),
    spec("client", -2, ADMIN, NO_KEYS, "connection", "What is known of this connection and others.", connection::client),
    spec("cluster", -2, ADMIN, NO_KEYS, "cluster", "Describes the ring as a Redis cluster.", cluster::cluster),
    spec("command", -1, ADMIN, NO_KEYS, "server", "Describes the commands.", introspection::command),
    spec("config", -2, ADMIN, NO_KEYS, "server", "Shows settings under the names that Redis has for them.", introspection::config),
    spec("del", -2, WRITE, ALL_KEYS, "generic", "Deletes keys and counts those that had a value.", strings::del),
    spec("dyn.del", -4, WRITE, ONE_KEY, "causal", "Deletes exactly the values that a context covers.", causal::del),
    spec("dyn.get", -2, READ, ONE_KEY, "causal", "Reads all values of a key and the context that covers them.", causal::get),
    spec("dyn.preflist", 2, READ, ONE_KEY, "causal", "Shows the nodes that are asked for a key, in order.", causal::preflist),
    spec("dyn.put", -3, STORE, ONE_KEY, "causal", "Writes a value that replaces exactly those that a context covers.", causal::put),
    spec("dyn.ring", 1, ADMIN, NO_KEYS, "causal", "Shows the ring: its version, its nodes, the owners of each slot.", causal::ring),
    spec("echo", 2, QUICK, NO_KEYS, "connection", "Returns its argument.", connection::echo),
    spec("exists", -2, READ, ALL_KEYS, "generic", "Counts keys that have a value.", strings::exists),
    spec("expire", -3, WRITE, ONE_KEY, "generic", "Sets when a key expires, in seconds from now.", strings::expire),
    spec("expireat", -3, WRITE, ONE_KEY, "generic", "Sets when a key expires, in seconds since 1970.", strings::expireat),
    spec("expiretime", 2, READ, ONE_KEY, "generic", "Tells when a key expires, in seconds since 1970.", strings::expiretime),
    spec("get", 2, READ, ONE_KEY, "string", "Reads a value.", strings::get),
    spec("getdel", 2, WRITE, ONE_KEY, "string", "Reads a value and deletes what was read.", strings::getdel),
    spec("getex", -2, WRITE, ONE_KEY, "string", "Reads a value and sets when it expires.", strings::getex),
    spec("getset", 3, STORE, ONE_KEY, "string", "Reads a value, then writes another.", strings::getset),
    spec("hello", -1, QUICK, NO_KEYS, "connection", "Chooses the protocol's version.", connection::hello),
    spec("info", -1, ADMIN, NO_KEYS, "server", "Describes this server.", introspection::info),
    spec("mget", -2, READ_MANY, ALL_KEYS, "string", "Reads the values of several keys.", strings::mget),
    spec("mset", -3, STORE, KEYS_AND_VALUES, "string", "Writes values of several keys.", strings::mset),
    spec("persist", 2, WRITE, ONE_KEY, "generic", "Lets a key live for ever.", strings::persist),
    spec("pexpire", -3, WRITE, ONE_KEY, "generic", "Sets when a key expires, in milliseconds from now.", strings::pexpire),
    spec("pexpireat", -3, WRITE, ONE_KEY, "generic", "Sets when a key expires, in milliseconds since 1970.", strings::pexpireat),
    spec("pexpiretime", 2, READ, ONE_KEY, "generic", "Tells when a key expires, in milliseconds since 1970.", strings::pexpiretime),
    spec("ping", -1, QUICK, NO_KEYS, "connection", "Answers PONG.", connection::ping),
    spec("psetex", 4, STORE, ONE_KEY, "string", "Writes a value that expires, in milliseconds.", strings::psetex),
    spec("pttl", 2, READ, ONE_KEY, "generic", "Tells how long a key lives, in milliseconds.", strings::pttl),
    spec("quit", -1, QUICK, NO_KEYS, "connection", "Closes the connection.", connection::quit),
    spec("readonly", 1, QUICK, NO_KEYS, "cluster", "Accepted: every node answers reads of every key.", connection::accepted),
    spec("readwrite", 1, QUICK, NO_KEYS, "cluster", "Accepted: every node answers reads of every key.", connection::accepted),
    spec("reset", 1, QUICK, NO_KEYS, "connection", "Makes the connection as new.", connection::reset),
    spec("select", 2, QUICK, NO_KEYS, "connection", "Accepts the one database there is, 0.", connection::select),
    spec("set", -3, STORE, ONE_KEY, "string", "Writes a value.", strings::set),
    spec("setex", 4, STORE, ONE_KEY, "string", "Writes a value that expires, in seconds.", strings::setex),
    spec("strlen", 2, READ, ONE_KEY, "string", "Tells a value's length.", strings::strlen),
    spec("ttl", 2, READ, ONE_KEY, "generic", "Tells how long a key lives, in seconds.", strings::ttl),
    spec("type", 2, READ, ONE_KEY, "generic", "Tells a value's type: all are strings.", strings::type_of),
    spec("unlink", -2, WRITE, ALL_KEYS, "generic", "Deletes keys and counts those that had a value.", strings::del),
];

/// Commands of Redis that are promises this store does not make.
static NEED_CONSENSUS: &[&str] = &[
    "append",
    "bitfield",
    "bitop",
    "copy",
    "decr",
    "decrby",
    "discard",
    "eval",
    "evalsha",
    "exec",
    "fcall",
    "incr",
    "incrby",
    "incrbyfloat",
    "msetnx",
    "multi",
    "rename",
    "renamenx",
    "setbit",
    "setnx",
    "setrange",
    "unwatch",
    "watch",
];

/// Longest name of a command.
const NAME: usize = 16;

/// The command's name in lower case, if it may be one.
fn lower<'b>(name: &[u8], buffer: &'b mut [u8; NAME]) -> Option<&'b str> {
    let lower = buffer.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    std::str::from_utf8(lower).ok()
}

fn find(name: &[u8]) -> Option<&'static Spec> {
    let mut buffer = [0; NAME];
    let name = lower(name, &mut buffer)?;
    COMMANDS.binary_search_by(|spec| spec.name.cmp(name)).ok().map(|at| &COMMANDS[at])
}

impl Spec {
    fn accepts(&self, arguments: usize) -> bool {
        let wanted = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { arguments >= wanted } else { arguments == wanted }
    }
}

/// Performs one command, or starts to.
pub(super) fn perform(session: &mut Session<'_>, command: &Command<'_>) -> Next {
    let Some(spec) = find(command.name()) else {
        let (refusal, next) = unknown(command);
        session.writer.error(&refusal.0);
        return next;
    };
    session.client.about.borrow_mut().last_command = spec.name;
    let outcome = if !spec.accepts(command.len()) {
        Err(Refusal::arity(spec.name))
    } else if let Some(elsewhere) = cluster::redirect(session, spec, command) {
        Err(elsewhere)
    } else {
        (spec.run)(session, command)
    };
    outcome.unwrap_or_else(|refusal| {
        session.writer.error(&refusal.0);
        Next::Answered
    })
}

fn unknown(command: &Command<'_>) -> (Refusal, Next) {
    let mut buffer = [0; NAME];
    let name = lower(command.name(), &mut buffer);
    if let Some(name) = name.filter(|name| NEED_CONSENSUS.contains(name)) {
        return (Refusal::consensus(&name.to_ascii_uppercase()), Next::Answered);
    }
    // A web page may make a browser send requests here; their bodies must not be taken for commands.
    if name.is_some_and(|name| matches!(name, "post" | "host:")) {
        return (Refusal::new("ERR this is not an HTTP port; nothing was done"), Next::Close);
    }
    let mut text = format!("ERR unknown command '{}', with args beginning with: ", shown(command.name()));
    for argument in command.iter().skip(1) {
        if text.len() > 256 {
            break;
        }
        text.push_str(&format!("'{}' ", shown(argument)));
    }
    (Refusal::new(text), Next::Answered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_fit() {
        for pair in COMMANDS.windows(2) {
            assert!(pair[0].name < pair[1].name, "{} is out of place", pair[1].name);
        }
        for spec in COMMANDS {
            assert!(std::ptr::eq(find(spec.name.to_ascii_uppercase().as_bytes()).unwrap(), spec));
            assert!(!NEED_CONSENSUS.contains(&spec.name));
        }
        assert!(NEED_CONSENSUS.iter().all(|name| name.len() <= NAME));
    }
}
