//! Commands on values, as Redis has them. A plain write replaces what its coordinator holds; a plain read shows
//! one value, the same on every node.

use super::arguments::{Moment, Options, is, shown};
use super::{Next, Outcome, Refusal, Session, flow};
use crate::redis::answer::{Lifetime, Shape, error_text};
use crate::redis::many::{Each, Many};
use crate::redis::pipeline::Job;
use crate::redis::resp::Command;
use bytes::Bytes;
use gramme_quorum::{Cover, Expiry, Op, ReadOptions, WriteOptions};

fn argument(command: &Command<'_>, index: usize) -> Bytes {
    command.share(index).expect("the arguments were counted")
}

fn read(command: &Command<'_>, shape: Shape) -> Outcome {
    Ok(Next::Run(Job::Op(Op::Get { key: argument(command, 1), options: ReadOptions::default() }, shape)))
}

fn put(key: Bytes, value: Bytes, expiry: Option<Expiry>) -> Op {
    Op::Put { key, value, content_type: None, expiry, cover: Cover::Held, options: WriteOptions::default() }
}

fn many(command: &Command<'_>, each: Each) -> Outcome {
    let many = Many::new(each, command.keep()).map_err(|error| Refusal::new(error_text(&error)))?;
    Ok(Next::Run(Job::Many(many)))
}

pub(super) fn get(_: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    read(command, Shape::Value)
}

pub(super) fn strlen(_: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    read(command, Shape::Length)
}

pub(super) fn type_of(_: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    read(command, Shape::Type)
}

pub(super) fn ttl(_: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    read(command, Shape::Lifetime(Lifetime::Seconds))
}

pub(super) fn pttl(_: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    read(command, Shape::Lifetime(Lifetime::Millis))
}

pub(super) fn expiretime(_: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    read(command, Shape::Lifetime(Lifetime::AtSeconds))
}

pub(super) fn pexpiretime(_: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    read(command, Shape::Lifetime(Lifetime::AtMillis))
}

pub(super) fn exists(_: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    if command.len() == 2 { read(command, Shape::Exists) } else { many(command, Each::Exists) }
}

pub(super) fn mget(_: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    many(command, Each::Get)
}

pub(super) fn mset(_: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    if command.len().is_multiple_of(2) {
        return Err(Refusal::arity("mset"));
    }
    many(command, Each::Set)
}

pub(super) fn del(_: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    if command.len() > 2 {
        return many(command, Each::Delete);
    }
    let op = Op::Delete { key: argument(command, 1), cover: Cover::Held, options: WriteOptions::default() };
    Ok(Next::Run(Job::Op(op, Shape::Removed)))
}

pub(super) fn set(session: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    let (mut expiry, mut keep, mut get) = (None, false, false);
    let mut options = Options::from(command, 3);
    while let Some(word) = options.next() {
        if let Some(moment) = Moment::option(word) {
            if keep || expiry.is_some() {
                return Err(Refusal::syntax());
            }
            expiry = Some(moment.expiry(options.value()?, "set")?);
        } else if is(word, "KEEPTTL") && expiry.is_none() {
            keep = true;
        } else if is(word, "GET") {
            get = true;
        } else if is(word, "NX") || is(word, "XX") {
            return Err(Refusal::consensus(&format!("SET {}", if is(word, "NX") { "NX" } else { "XX" })));
        } else {
            return Err(Refusal::syntax());
        }
    }
    let (key, value) = (argument(command, 1), argument(command, 2));
    Ok(Next::Run(if keep || get {
        let write = flow::Overwrite { value, expiry, keep_expiry: keep, answer_old: get };
        Job::Flow(key.clone(), Box::pin(flow::overwrite(session.server.handle.clone(), key, write)))
    } else {
        Job::Op(put(key, value, expiry), Shape::Stored)
    }))
}

pub(super) fn getset(session: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    let (key, value) = (argument(command, 1), argument(command, 2));
    let write = flow::Overwrite { value, expiry: None, keep_expiry: false, answer_old: true };
    Ok(Next::Run(Job::Flow(
        key.clone(),
        Box::pin(flow::overwrite(session.server.handle.clone(), key, write)),
    )))
}

pub(super) fn setex(_: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    set_expiring(command, Moment::Seconds, "setex")
}

pub(super) fn psetex(_: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    set_expiring(command, Moment::Millis, "psetex")
}

fn set_expiring(command: &Command<'_>, moment: Moment, name: &str) -> Outcome {
    let expiry = moment.expiry(&argument(command, 2), name)?;
    Ok(Next::Run(Job::Op(put(argument(command, 1), argument(command, 3), Some(expiry)), Shape::Stored)))
}

pub(super) fn getdel(session: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    let key = argument(command, 1);
    Ok(Next::Run(Job::Flow(key.clone(), Box::pin(flow::take(session.server.handle.clone(), key)))))
}

pub(super) fn getex(session: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    let mut options = Options::from(command, 2);
    let lives = match options.next() {
        None => return read(command, Shape::Value),
        Some(word) if is(word, "PERSIST") => flow::Lives::ForEver,
        Some(word) => {
            let moment = Moment::option(word).ok_or_else(Refusal::syntax)?;
            flow::Lives::Until(moment.expiry(options.value()?, "getex")?)
        }
    };
    if options.next().is_some() {
        return Err(Refusal::syntax());
    }
    Ok(relive(session, command, lives, flow::Told::Value))
}

pub(super) fn persist(session: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    Ok(relive(session, command, flow::Lives::ForEver, flow::Told::Changed))
}

pub(super) fn expire(session: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    set_expiry(session, command, Moment::Seconds, "expire")
}

pub(super) fn pexpire(session: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    set_expiry(session, command, Moment::Millis, "pexpire")
}

pub(super) fn expireat(session: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    set_expiry(session, command, Moment::AtSeconds, "expireat")
}

pub(super) fn pexpireat(session: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    set_expiry(session, command, Moment::AtMillis, "pexpireat")
}

fn set_expiry(session: &mut Session<'_>, command: &Command<'_>, moment: Moment, name: &str) -> Outcome {
    if let Some(word) = command.get(3) {
        return Err(match ["NX", "XX", "GT", "LT"].into_iter().find(|condition| is(word, condition)) {
            Some(condition) => Refusal::consensus(&format!("{} {condition}", name.to_ascii_uppercase())),
            None => Refusal::new(format!("ERR Unsupported option {}", shown(word))),
        });
    }
    let millis = moment.millis(&argument(command, 2), name)?;
    // What expired before 1970 has expired.
    let expiry = Expiry(u64::try_from(millis).unwrap_or(0));
    Ok(relive(session, command, flow::Lives::Until(expiry), flow::Told::Changed))
}

fn relive(session: &Session<'_>, command: &Command<'_>, lives: flow::Lives, told: flow::Told) -> Next {
    let key = argument(command, 1);
    let steps = flow::relive(session.server.handle.clone(), key.clone(), lives, told);
    Next::Run(Job::Flow(key, Box::pin(steps)))
}
