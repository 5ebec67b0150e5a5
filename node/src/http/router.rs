//! Which request is answered by what, and how errors are told.

use super::body::BodyError;
use super::client::Client;
use super::query::BadEscape;
use super::{Server, api, change, keyspaces, kv, members, metrics, plan};
use bytes::Bytes;
use gramme_quorum::OpError;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;

pub(super) type Answer = Response<Full<Bytes>>;

/// A request that is not answered as it asks: a status and a sentence.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    text: String,
    allow: Option<&'static str>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Refusal {
        Refusal { status, text: text.into(), allow: None }
    }

    pub(super) fn bad_request(text: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, text)
    }

    pub(super) fn method(allow: &'static str) -> Refusal {
        let text = format!("this address answers {allow}");
        Refusal { allow: Some(allow), ..Refusal::new(StatusCode::METHOD_NOT_ALLOWED, text) }
    }

    /// With more said.
    pub(super) fn also(mut self, text: &str) -> Refusal {
        self.text.push_str(text);
        self
    }

    fn answer(self) -> Answer {
        let mut answer = text(self.status, self.text + "\n");
        let headers = answer.headers_mut();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        answer
    }
}

impl From<BadEscape> for Refusal {
    fn from(error: BadEscape) -> Refusal {
        Refusal::bad_request(error.to_string())
    }
}

impl From<OpError> for Refusal {
    fn from(error: OpError) -> Refusal {
        let status = match error {
            OpError::Quorum { .. } | OpError::Unwritable => StatusCode::SERVICE_UNAVAILABLE,
            OpError::Indeterminate { .. } => StatusCode::GATEWAY_TIMEOUT,
            OpError::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            OpError::ValueTooLarge(_) | OpError::TooManySiblings => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        };
        let kind = match error {
            OpError::Quorum { .. } => "quorum not met, nothing was done: ",
            OpError::Indeterminate { .. } => "indeterminate, it may or may not have been done: ",
            _ => "",
        };
        Refusal::new(status, format!("{kind}{error}"))
    }
}

impl Refusal {
    /// For a body of which the limit is known.
    pub(super) fn body(error: &BodyError, limit: usize) -> Refusal {
        match error {
            BodyError::TooLarge => {
                Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("value: the limit is {limit} bytes"))
            }
            BodyError::Overloaded => {
                Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too many values are being received; try again")
            }
            BodyError::TooSlow => {
                Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive")
            }
            BodyError::Broken => Refusal::bad_request("the body ended before it was complete"),
        }
    }
}

pub(super) fn text(status: StatusCode, text: String) -> Answer {
    with_type(status, "text/plain; charset=utf-8", text.into())
}

pub(super) fn with_type(status: StatusCode, media: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    answer
}

/// Answers one request.
pub(super) fn answer(
    server: Rc<Server>,
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Pin<Box<dyn Future<Output = Result<Answer, Infallible>>>> {
    Box::pin(async move {
        client.asked(request.body().is_end_stream());
        let mut answer = route(&server, &client, request).await.unwrap_or_else(Refusal::answer);
        if client.is_receiving() {
            // What is left of the body is not read: nothing more can be asked after it.
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let length = answer.body().size_hint().exact().unwrap_or_default();
        client.answered(usize::try_from(length).expect("a body is in memory"));
        Ok(answer)
    })
}

async fn route(server: &Rc<Server>, client: &Client, request: Request<Incoming>) -> Result<Answer, Refusal> {
    // The path stays percent-encoded here: a key may hold any byte, a slash as well.
    if let Some(key) = request.uri().path().strip_prefix("/kv/") {
        let key = Bytes::from(super::query::percent_decode(key)?);
        return kv::answer(server, client, key, request).await;
    }
    let read: fn(&Server) -> Result<Answer, Refusal> = match request.uri().path() {
        "/" => api::index,
        "/healthz" => api::healthz,
        "/readyz" => api::readyz,
        "/api/status" => api::status,
        "/api/ring" => api::ring,
        "/api/members" => members::members,
        "/api/keyspaces" => keyspaces::keyspaces,
        "/api/transfers" => members::transfers,
        "/api/cluster/plan" => plan::plan,
        "/api/cluster/stage" | "/api/cluster/commit" | "/api/cluster/clear" => {
            return change::answer(server, request).await;
        }
        "/metrics" => metrics::answer,
        _ => {
            return Err(Refusal::new(
                StatusCode::NOT_FOUND,
                "there is nothing at this address; / lists what there is",
            ));
        }
    };
    if request.method() == Method::GET || request.method() == Method::HEAD {
        read(server)
    } else {
        Err(Refusal::method("GET, HEAD"))
    }
}
