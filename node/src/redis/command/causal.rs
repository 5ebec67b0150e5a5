//! `DYN.*`: what Dynamo promises and Redis has no words for. A read returns all values and a context that covers
//! them; a write hands the context back and replaces exactly what it covers.

use super::arguments::{Moment, Options, is, shown};
use super::{Next, Outcome, Refusal, Session};
use crate::redis::answer::{Shape, error_text};
use crate::redis::pipeline::Job;
use crate::redis::resp::Command;
use bytes::Bytes;
use gramme_quorum::{Cover, Expiry, MAX_KEY, Op, OpError, ReadOptions, WriteOptions};
use gramme_ring::NodeId;

fn argument(command: &Command<'_>, index: usize) -> Bytes {
    command.share(index).expect("the arguments were counted")
}

fn unknown_option(command: &str, word: &[u8]) -> Refusal {
    Refusal::new(format!("ERR syntax error: {command} has no option '{}'", shown(word)))
}

/// Takes an option's value, the first time.
fn once<T>(place: &mut Option<T>, option: &str, value: T) -> Result<(), Refusal> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Refusal::new(format!("ERR syntax error: {option} stands there twice"))),
    }
}

/// `DYN.GET key [R r] [PR pr] [TIMEOUT ms]` → `[context, [value, …]]`
pub(super) fn get(_: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    let mut read = ReadOptions::default();
    let mut options = Options::from(command, 2);
    while let Some(word) = options.next() {
        if is(word, "R") {
            once(&mut read.r, "R", options.level("R")?)?;
        } else if is(word, "PR") {
            once(&mut read.pr, "PR", options.level("PR")?)?;
        } else if is(word, "TIMEOUT") {
            once(&mut read.timeout, "TIMEOUT", options.timeout()?)?;
        } else {
            return Err(unknown_option("DYN.GET", word));
        }
    }
    let key = argument(command, 1);
    Ok(Next::Run(Job::Op(Op::Get { key: key.clone(), options: read }, Shape::Siblings(key))))
}

/// What both writes may be told.
#[derive(Default)]
struct Write {
    cover: Option<Cover>,
    expiry: Option<Expiry>,
    options: WriteOptions,
}

impl Write {
    fn parse(
        session: &Session<'_>,
        command: &Command<'_>,
        from: usize,
        may_expire: bool,
    ) -> Result<Write, Refusal> {
        let name = if may_expire { "dyn.put" } else { "dyn.del" };
        let key = argument(command, 1);
        let mut write = Write::default();
        let mut options = Options::from(command, from);
        while let Some(word) = options.next() {
            if is(word, "CONTEXT") {
                let context = session.server.handle.open(&key, options.value()?);
                let context = context.map_err(|e| Refusal::new(format!("ERR context: {e}")))?;
                once(&mut write.cover, "CONTEXT", Cover::Context(context))?;
            } else if is(word, "W") {
                once(&mut write.options.w, "W", options.level("W")?)?;
            } else if is(word, "PW") {
                once(&mut write.options.pw, "PW", options.level("PW")?)?;
            } else if is(word, "DW") {
                once(&mut write.options.dw, "DW", options.level("DW")?)?;
            } else if is(word, "TIMEOUT") {
                once(&mut write.options.timeout, "TIMEOUT", options.timeout()?)?;
            } else if let Some(moment) = Moment::option(word).filter(|_| may_expire) {
                once(&mut write.expiry, "an expiry", moment.expiry(options.value()?, name)?)?;
            } else {
                return Err(unknown_option(&name.to_ascii_uppercase(), word));
            }
        }
        Ok(write)
    }
}

/// `DYN.PUT key value [CONTEXT ctx] [W w] [PW pw] [DW dw] [EX s | PX ms | EXAT s | PXAT ms] [TIMEOUT ms]` → context
pub(super) fn put(session: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    let Write { cover, expiry, options } = Write::parse(session, command, 3, true)?;
    let (key, value) = (argument(command, 1), argument(command, 2));
    let cover = cover.unwrap_or(Cover::Nothing);
    let op = Op::Put { key: key.clone(), value, content_type: None, expiry, cover, options };
    Ok(Next::Run(Job::Op(op, Shape::Context(key))))
}

/// `DYN.DEL key CONTEXT ctx [W w] [PW pw] [DW dw] [TIMEOUT ms]` → context
pub(super) fn del(session: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    let Write { cover, options, .. } = Write::parse(session, command, 2, false)?;
    let cover = cover.ok_or_else(|| {
        Refusal::new("ERR DYN.DEL needs the CONTEXT of a read: it deletes the values that the context covers, no others")
    })?;
    let key = argument(command, 1);
    Ok(Next::Run(Job::Op(Op::Delete { key: key.clone(), cover, options }, Shape::Context(key))))
}

/// `DYN.PREFLIST key` → for each node in the order it would be asked: id, `primary` or `fallback`, `up` or `down`.
pub(super) fn preflist(session: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    let key = argument(command, 1);
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(Refusal::new(error_text(&OpError::KeyLength(key.len() as u64))));
    }
    let list = session.server.handle.engine(|engine| engine.preference(&key));
    let out = &mut *session.writer;
    out.array(list.len());
    for (node, primary, alive) in list {
        out.array(3);
        out.bulk(node.to_string().as_bytes());
        out.bulk(if primary { b"primary" } else { b"fallback" });
        out.bulk(if alive { b"up" } else { b"down" });
    }
    Ok(Next::Answered)
}

/// `DYN.RING` → version, replicas, partitions, members with their Redis addresses, and runs of slots with their
/// owners in order of preference.
pub(super) fn ring(session: &mut Session<'_>, _: &Command<'_>) -> Outcome {
    let members = session.server.handle.members();
    let out = &mut *session.writer;
    session.server.handle.engine(|engine| {
        let Some(layout) = engine.layout() else {
            return Err(Refusal::new("ERR no ring is known here yet"));
        };
        // Neighbours with the same owners are shown as one.
        let mut runs: Vec<(u16, u16, Vec<NodeId>)> = Vec::new();
        for partition in layout.partition_count().partitions() {
            let (slots, owners) = (partition.slots(), layout.owners(partition).collect::<Vec<_>>());
            match runs.last_mut() {
                Some(run) if run.2 == owners => run.1 = slots.end - 1,
                _ => runs.push((slots.start, slots.end - 1, owners)),
            }
        }
        out.map(5);
        out.bulk(b"version");
        out.integer(i64::try_from(layout.version().0).unwrap_or(i64::MAX));
        out.bulk(b"replicas");
        out.integer(layout.replicas().into());
        out.bulk(b"partitions");
        out.integer(layout.partitions().into());
        out.bulk(b"members");
        out.array(layout.members().len());
        for member in layout.members() {
            let address =
                members.iter().find(|m| m.id == member.id).map_or("", |m| m.addresses.redis.as_str());
            out.map(4);
            for (field, text) in
                [("id", member.id.to_string().as_str()), ("redis", address), ("zone", member.zone.as_str())]
            {
                out.bulk(field.as_bytes());
                out.bulk(text.as_bytes());
            }
            out.bulk(b"weight");
            out.integer(member.weight.into());
        }
        out.bulk(b"slots");
        out.array(runs.len());
        for (first, last, owners) in runs {
            out.array(3);
            out.integer(first.into());
            out.integer(last.into());
            out.array(owners.len());
            owners.iter().for_each(|owner| out.bulk(owner.to_string().as_bytes()));
        }
        Ok(())
    })?;
    Ok(Next::Answered)
}
