//! Commands that read before they write. What they replace is what they read, by its context: a value written
//! meanwhile by another client stays as a sibling, it is never overwritten unseen.

use crate::budget::Charge;
use crate::clock::wall_ms;
use crate::handle::Handle;
use crate::redis::answer::Answer;
use bytes::Bytes;
use gramme_quorum::{Cover, Expiry, Op, OpError, ReadOptions, Reading, Reply, WriteOptions};
use gramme_vclock::GrowableContext as Context;

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
    Op::Delete { key, cover: Cover::Context(reading.context), options: WriteOptions::default() }
}

/// The answer, or the error that prevented it.
async fn answered(steps: impl Future<Output = Result<Answer, OpError>>) -> Answer {
    steps.await.unwrap_or_else(Answer::from)
}

/// A plain write that has to know what was there.
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
        let (cover, options) = (Cover::Held, WriteOptions::default());
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

/// `EXPIRE`, `PERSIST`, `GETEX`: writes every sibling again with another expiry. Each write covers just the one
/// that it repeats, so that a failure on the way leaves the others as they were.
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
    let (total, mut stamp) = (reading.siblings.len(), reading.context.stamp);
    // The one that is shown comes last and above the others, to stay the one that is shown.
    for (done, found) in reading.siblings.into_iter().rev().enumerate() {
        let mut context = Context { stamp, ..Context::default() };
        let Ok(()) = context.seen.insert(found.dot);
        let op = Op::Put {
            key: key.clone(),
            value: found.value,
            content_type: found.content_type,
            expiry: expiry.or(Some(Expiry::NEVER)),
            cover: Cover::Context(context),
            options: WriteOptions::default(),
        };
        match write(&handle, op).await {
            Ok(context) => stamp = stamp.max(context.stamp),
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
