//! Commands that read before they write. What they replace is what they read, by its context: a value written meanwhile by
//! another client is never overwritten unseen. `EXPIRE` and its like, and `GETDEL`, only amend what they read, so that a plain `GET`
//! shows such a value, and `lww` keeps it. `SET … GET` is a write of a new value like any other `SET`: in between two that saw the same it
//! is the later that is shown, and in `lww` kept.

use crate::budget::Charge;
use crate::clock::wall_ms;
use crate::handle::Handle;
use crate::redis::answer::Answer;
use bytes::Bytes;
use gramme_quorum::{Cover, Expiry, Found, Op, OpError, ReadOptions, Reading, Reply, WriteOptions};
use gramme_vclock::{GrowableContext as Context, Stamp};

async fn read(handle: &Handle, key: &Bytes) -> Result<(Reading, Charge), OpError> {
    let (reply, charge) = handle.call(Op::Get { key: key.clone(), options: ReadOptions::default() }).await;
    match reply {
        Reply::Read(reading) => Ok((reading, charge)),
        Reply::Failed(error) => Err(error),
        Reply::Written { .. } => unreachable!("a read is answered by a reading"),
    }
}

async fn write(handle: &Handle, op: Op) -> Result<Context, OpError> {
    match handle.call(op).await.0 {
        Reply::Written { context, .. } => Ok(context),
        Reply::Failed(error) => Err(error),
        Reply::Read(_) => unreachable!("a write is not answered by a reading"),
    }
}

fn delete(key: Bytes, reading: Reading) -> Op {
    Op::Delete { key, cover: Cover::Amends(reading.context), options: WriteOptions::default() }
}

/// The answer, or the error that prevented it.
async fn answered(steps: impl Future<Output = Result<Answer, OpError>>) -> Answer {
    steps.await.unwrap_or_else(Answer::from)
}

/// A write that has to know what was there.
pub(super) struct Overwrite {
    pub(super) value: Bytes,
    pub(super) expiry: Option<Expiry>,
    /// The shown value's expiry is kept.
    pub(super) keep_expiry: bool,
    /// The value shown before is the answer.
    pub(super) answer_old: bool,
}

/// `SET … KEEPTTL`, `SET … GET`.
pub(super) async fn overwrite(handle: Handle, key: Bytes, new: Overwrite) -> Answer {
    answered(async {
        let (reading, charge) = read(&handle, &key).await?;
        let shown = reading.siblings.into_iter().next();
        let expiry = match &shown {
            Some(found) if new.keep_expiry => found.expiry.or(Some(Expiry::NEVER)),
            _ => new.expiry,
        };
        let (cover, options) = (Cover::Context(reading.context), WriteOptions::default());
        write(&handle, Op::Put { key, value: new.value, content_type: None, expiry, cover, options }).await?;
        Ok(if new.answer_old {
            shown.map_or(Answer::Null, |found| Answer::Value(found.value, charge))
        } else {
            Answer::Ok
        })
    })
    .await
}

/// `GETDEL`: deletes what was read, all siblings of it.
pub(super) async fn take(handle: Handle, key: Bytes) -> Answer {
    answered(async {
        let (reading, charge) = read(&handle, &key).await?;
        let Some(shown) = reading.siblings.first() else { return Ok(Answer::Null) };
        let value = shown.value.clone();
        write(&handle, delete(key, reading)).await?;
        Ok(Answer::Value(value, charge))
    })
    .await
}

/// How long something is to live.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lives {
    Until(Expiry),
    ForEver,
}

/// What the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// 1 if anything was changed.
    Changed,
    /// The value.
    Value,
}

/// `EXPIRE`, `PERSIST`, `GETEX`: writes every sibling again with another expiry. Each write covers just what
/// it repeats, so that a failure on the way leaves the others as they were.
pub(super) async fn relive(handle: Handle, key: Bytes, lives: Lives, told: Told) -> Answer {
    let (reading, charge) = match read(&handle, &key).await {
        Ok(read) => read,
        Err(error) => return error.into(),
    };
    let expiry = match lives {
        Lives::Until(expiry) => Some(expiry),
        Lives::ForEver => None,
    };
    let shown = reading.siblings.first().map(|found| found.value.clone());
    let answer = |changed: bool| match (told, shown) {
        (Told::Value, Some(value)) => Answer::Value(value, charge),
        (Told::Value, None) => Answer::Null,
        (Told::Changed, _) => Answer::Integer(changed.into()),
    };
    if reading.siblings.iter().all(|found| found.expiry == expiry) {
        // Nothing there, or as it should be.
        return answer(!reading.siblings.is_empty() && expiry.is_some());
    }
    if expiry.is_some_and(|expiry| expiry.0 <= wall_ms()) {
        return match write(&handle, delete(key, reading)).await {
            Ok(_) => answer(true),
            Err(error) => error.into(),
        };
    }
    let amended = amended(reading.siblings);
    let total = amended.len();
    for (done, (found, context)) in amended.into_iter().enumerate() {
        let op = Op::Put {
            key: key.clone(),
            value: found.value,
            content_type: found.content_type,
            expiry: expiry.or(Some(Expiry::NEVER)),
            cover: Cover::Amends(context),
            options: WriteOptions::default(),
        };
        match write(&handle, op).await {
            Ok(_) => {}
            Err(error) if done > 0 && !error.changed() => {
                return Answer::Error(format!(
                    "INDETERMINATE {error}; {done} of {total} siblings were rewritten"
                ));
            }
            Err(error) => return error.into(),
        }
    }
    answer(true)
}

/// Each value with the context by which to amend it: it covers that one alone, and its stamp makes them rank afterwards as they
/// do now. The one that is shown comes first, so that it stays the one that is shown all the while. Siblings that are alike become
/// one: otherwise clients that do this to one key at the same time would multiply them.
fn amended(siblings: Vec<Found>) -> Vec<(Found, Context)> {
    let mut amended: Vec<(Found, Context)> = Vec::with_capacity(siblings.len());
    for found in siblings {
        let alike = |(other, _): &(Found, Context)| {
            (&other.value, &other.content_type) == (&found.value, &found.content_type)
        };
        let at = amended.iter().position(alike).unwrap_or(amended.len());
        let (dot, stamp) = (found.dot, found.stamp);
        if at == amended.len() {
            amended.push((found, Context { stamp, ..Context::default() }));
        }
        let Ok(()) = amended[at].1.seen.insert(dot);
    }
    let mut below = Stamp::ZERO;
    for (_, context) in amended.iter_mut().rev() {
        context.stamp = context.stamp.max(below);
        below = context.stamp.next();
    }
    amended
}
