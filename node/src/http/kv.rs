//! `/kv/{key}`: one key's values.
//!
//! A read answers with a context in `X-Gramme-Context`; a write that hands it back replaces exactly the values
//! that the read returned. Without a context a write adds a value beside those that are there.

use super::body::receive;
use super::client::Client;
use super::query::parameters;
use super::router::{Answer, Refusal, with_type};
use super::{Server, siblings};
use crate::clock::wall_ms;
use bytes::Bytes;
use gramme_quorum::{
    Cover, Expiry, Level, MAX_CONTENT_TYPE, Op, OpError, ReadOptions, Reading, Reply, WriteOptions,
};
use gramme_vclock::GrowableContext as Context;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use std::rc::Rc;
use std::time::Duration;

/// What a value without a content type is served as.
pub(super) const UNTYPED: &str = "application/octet-stream";
const CONTEXT: HeaderName = HeaderName::from_static("x-gramme-context");
/// The longest that a request may be waited for.
const LONGEST: Duration = Duration::from_secs(3600);

pub(super) async fn answer(
    server: &Rc<Server>,
    client: &Client,
    key: Bytes,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    if key.is_empty() {
        return Err(OpError::KeyLength(0).into());
    }
    let method = request.method();
    if method == Method::GET || method == Method::HEAD {
        get(server, client, key, &request).await
    } else if method == Method::PUT {
        put(server, client, key, request).await
    } else if method == Method::DELETE {
        delete(server, key, &request).await
    } else {
        Err(Refusal::method("GET, HEAD, PUT, DELETE"))
    }
}

/// Parameters of a request, as far as its method knows them.
#[derive(Default)]
struct Parameters {
    read: ReadOptions,
    write: WriteOptions,
    expiry: Option<Expiry>,
}

impl Parameters {
    fn parse(request: &Request<Incoming>, known: &[&str]) -> Result<Parameters, Refusal> {
        let mut all = Parameters::default();
        let mut seen = Vec::new();
        for pair in parameters(request.uri().query().unwrap_or_default()) {
            let (name, value) = pair?;
            if !known.contains(&name) {
                let known = known.join(", ");
                return Err(Refusal::bad_request(format!(
                    "there is no parameter '{name}' here; known: {known}"
                )));
            }
            if seen.contains(&name) {
                return Err(Refusal::bad_request(format!("the parameter '{name}' stands there twice")));
            }
            seen.push(name);
            match name {
                "r" => all.read.r = Some(level(name, &value)?),
                "pr" => all.read.pr = Some(level(name, &value)?),
                "w" => all.write.w = Some(level(name, &value)?),
                "pw" => all.write.pw = Some(level(name, &value)?),
                "dw" => all.write.dw = Some(level(name, &value)?),
                "ttl" => all.expiry = Some(expiry(&value)?),
                _ => {
                    let timeout = Some(timeout(&value)?);
                    (all.read.timeout, all.write.timeout) = (timeout, timeout);
                }
            }
        }
        Ok(all)
    }
}

fn level(name: &str, value: &str) -> Result<Level, Refusal> {
    Level::parse(value)
        .ok_or_else(|| Refusal::bad_request(format!("{name} is a number of replicas, or one, quorum or all")))
}

fn timeout(value: &str) -> Result<Duration, Refusal> {
    let timeout = value.parse().ok().map(Duration::from_millis);
    timeout
        .filter(|t| !t.is_zero() && *t <= LONGEST)
        .ok_or_else(|| Refusal::bad_request("timeout is in milliseconds, from 1 to an hour"))
}

/// Seconds from now.
fn expiry(value: &str) -> Result<Expiry, Refusal> {
    let seconds: Option<u64> = value.parse().ok().filter(|n| *n > 0);
    seconds
        .and_then(|s| s.checked_mul(1000)?.checked_add(wall_ms()))
        .map(Expiry)
        .ok_or_else(|| Refusal::bad_request("ttl is in seconds, from 1"))
}

/// The context that the client handed in.
fn context(server: &Server, key: &Bytes, request: &Request<Incoming>) -> Result<Option<Context>, Refusal> {
    let mut tokens = request.headers().get_all(CONTEXT).iter();
    let Some(token) = tokens.next() else { return Ok(None) };
    if tokens.next().is_some() {
        return Err(Refusal::bad_request("X-Gramme-Context: there is more than one"));
    }
    let context = server.handle.open(key, token.as_bytes());
    context.map(Some).map_err(|e| Refusal::bad_request(format!("X-Gramme-Context: {e}")))
}

/// Adds a context to an answer.
fn seal(server: &Server, key: &[u8], context: &Context, answer: &mut Answer) -> Result<(), Refusal> {
    let too_long =
        |why: String| Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("X-Gramme-Context: {why}"));
    let token = server.handle.seal(key, context).map_err(|e| too_long(e.to_string()))?;
    let token = HeaderValue::try_from(token).map_err(|e| too_long(e.to_string()))?;
    answer.headers_mut().insert(CONTEXT, token);
    Ok(())
}

async fn get(
    server: &Rc<Server>,
    client: &Client,
    key: Bytes,
    request: &Request<Incoming>,
) -> Result<Answer, Refusal> {
    let options = Parameters::parse(request, &["r", "pr", "timeout"])?.read;
    let (reply, charge) = server.handle.call(Op::Get { key: key.clone(), options }).await;
    client.read(charge);
    match reply {
        Reply::Read(reading) => show(server, &key, &reading, request),
        Reply::Failed(error) => Err(error.into()),
        Reply::Written { .. } => unreachable!("a read is answered by a reading"),
    }
}

fn show(
    server: &Server,
    key: &[u8],
    reading: &Reading,
    request: &Request<Incoming>,
) -> Result<Answer, Refusal> {
    let mut answer = match &reading.siblings[..] {
        [] => super::router::text(StatusCode::NOT_FOUND, "there is no value\n".to_owned()),
        [found] => {
            let mut answer = with_type(StatusCode::OK, UNTYPED, found.value.clone());
            if let Some(media) = found.content_type.as_deref().and_then(|m| HeaderValue::from_str(m).ok()) {
                answer.headers_mut().insert(CONTENT_TYPE, media);
            }
            answer
        }
        several => {
            let mut accepts =
                request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
            if accepts.any(siblings::wants_parts) {
                let (boundary, body) = siblings::parts(several);
                let mut answer = with_type(StatusCode::MULTIPLE_CHOICES, "multipart/mixed", body);
                let media = HeaderValue::try_from(format!("multipart/mixed; boundary={boundary}"));
                answer.headers_mut().insert(CONTENT_TYPE, media.expect("a boundary is a word"));
                answer
            } else {
                with_type(StatusCode::MULTIPLE_CHOICES, "application/json", siblings::json(several))
            }
        }
    };
    // Never seen: there is nothing that a context could cover.
    if !reading.context.seen.is_empty() {
        seal(server, key, &reading.context, &mut answer)?;
    }
    Ok(answer)
}

async fn put(
    server: &Rc<Server>,
    client: &Client,
    key: Bytes,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let Parameters { write: options, expiry, .. } =
        Parameters::parse(&request, &["w", "pw", "dw", "ttl", "timeout"])?;
    let cover = context(server, &key, &request)?.map_or(Cover::Nothing, Cover::Context);
    let headers = request.headers();
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        let text = "Content-Encoding is not kept with a value: send it as it is to be read";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    if headers.contains_key(CONTENT_RANGE) {
        return Err(Refusal::bad_request("a value is written whole: Content-Range is not understood"));
    }
    let content_type = match headers.get(CONTENT_TYPE) {
        None => None,
        Some(media) => match media.to_str() {
            Ok(media) if media.len() <= MAX_CONTENT_TYPE => Some(media.to_owned()),
            _ => {
                let text = format!("Content-Type has up to {MAX_CONTENT_TYPE} printable characters");
                return Err(Refusal::bad_request(text));
            }
        },
    };
    let limit = server.handle.value_limit();
    let value =
        receive(request.into_body(), limit, &server.budget).await.map_err(|e| Refusal::body(&e, limit))?;
    client.received();
    written(server, &key.clone(), Op::Put { key, value, content_type, expiry, cover, options }).await
}

async fn delete(server: &Rc<Server>, key: Bytes, request: &Request<Incoming>) -> Result<Answer, Refusal> {
    let options = Parameters::parse(request, &["w", "pw", "dw", "timeout"])?.write;
    let Some(context) = context(server, &key, request)? else {
        let text =
            "a deletion needs the X-Gramme-Context of a read: it deletes the values that the read returned";
        return Err(Refusal::new(StatusCode::PRECONDITION_REQUIRED, text));
    };
    written(server, &key.clone(), Op::Delete { key, cover: Cover::Context(context), options }).await
}

async fn written(server: &Rc<Server>, key: &[u8], op: Op) -> Result<Answer, Refusal> {
    match server.handle.call(op).await.0 {
        Reply::Written { context, .. } => {
            let mut answer = Response::new(Full::default());
            *answer.status_mut() = StatusCode::NO_CONTENT;
            seal(server, key, &context, &mut answer)?;
            Ok(answer)
        }
        Reply::Failed(error) => Err(error.into()),
        Reply::Read(_) => unreachable!("a write is not answered by a reading"),
    }
}
