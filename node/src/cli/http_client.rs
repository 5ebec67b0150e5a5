//! The little of HTTP/1.1 that a command needs: one request on one connection, read to its end.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long a node may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// Bytes of an answer; a value is shorter, and a list of siblings comes in base64.
const ANSWER_LIMIT: u64 = 1 << 30;

/// Header lines of an answer.
const HEADERS: usize = 64;

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// A header's value; its name in any case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as a line of text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body)
            .trim()
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect()
    }
}

/// Why there is no answer.
#[derive(Debug)]
#[non_exhaustive]
pub(super) enum ClientError {
    /// Nobody listens there, or not for us.
    Connect(io::Error),
    /// The connection broke; whether the request was carried out is not known.
    Broken(io::Error),
    /// What came is not HTTP as we know it.
    Malformed(&'static str),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Connect(error) => write!(f, "can't connect: {error}"),
            ClientError::Broken(error) => write!(f, "the connection broke: {error}"),
            ClientError::Malformed(what) => write!(f, "the answer is not understood: {what}"),
        }
    }
}

impl std::error::Error for ClientError {}

/// Makes one request of the node at `at` (`host:port`).
pub(super) fn request(
    at: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, ClientError> {
    let mut stream = TcpStream::connect(at).map_err(ClientError::Connect)?;
    stream.set_nodelay(true).map_err(ClientError::Connect)?;
    stream.set_read_timeout(Some(SILENCE)).map_err(ClientError::Connect)?;
    stream.set_write_timeout(Some(SILENCE)).map_err(ClientError::Connect)?;

    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n");
    for (name, value) in headers {
        if value.bytes().any(|b| b.is_ascii_control()) {
            return Err(ClientError::Malformed("a header with control characters was asked for"));
        }
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    let mut bytes = Vec::new();
    let received = stream.take(ANSWER_LIMIT).read_to_end(&mut bytes);
    // A node may answer and close before it has read a body that it refuses: its answer counts.
    if bytes.is_empty() {
        sent.map_err(ClientError::Broken)?;
        received.map_err(ClientError::Broken)?;
        return Err(ClientError::Broken(io::ErrorKind::UnexpectedEof.into()));
    }
    parse(&bytes, method)
}

fn parse(bytes: &[u8], method: &str) -> Result<Answer, ClientError> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Response::new(&mut fields);
    let end = match head.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Err(ClientError::Malformed("it is cut short")),
        Err(_) => return Err(ClientError::Malformed("it is not HTTP")),
    };
    let headers: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|h| (h.name.to_owned(), String::from_utf8_lossy(h.value).into_owned()))
        .collect();
    let mut answer = Answer { status: head.code.unwrap_or(0), headers, body: Vec::new() };
    let rest = &bytes[end..];
    answer.body = if method == "HEAD" {
        // Its headers speak of a body that does not follow.
        Vec::new()
    } else if answer.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        unchunk(rest)?
    } else if let Some(length) = answer.header("content-length") {
        let length: usize = length.parse().map_err(|_| ClientError::Malformed("its length is no number"))?;
        rest.get(..length).ok_or(ClientError::Malformed("it is cut short"))?.to_vec()
    } else {
        rest.to_vec()
    };
    Ok(answer)
}

fn unchunk(mut rest: &[u8]) -> Result<Vec<u8>, ClientError> {
    let mut body = Vec::new();
    loop {
        let Ok(httparse::Status::Complete((start, size))) = httparse::parse_chunk_size(rest) else {
            return Err(ClientError::Malformed("a chunk is damaged"));
        };
        if size == 0 {
            return Ok(body);
        }
        let end = usize::try_from(size).ok().and_then(|size| start.checked_add(size));
        let chunk = end.and_then(|end| rest.get(start..end));
        body.extend_from_slice(chunk.ok_or(ClientError::Malformed("it is cut short"))?);
        let next = start + chunk.map_or(0, <[u8]>::len);
        rest = rest[next..].strip_prefix(b"\r\n").ok_or(ClientError::Malformed("a chunk is damaged"))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_by_length_by_chunks_and_to_the_end() {
        for (bytes, body) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcde", "abc"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
                "abcde",
            ),
            ("HTTP/1.1 204 No Content\r\nX-Gramme-Context: t\r\n\r\n", ""),
        ] {
            let answer = parse(bytes.as_bytes(), "GET").expect("it is well formed");
            assert_eq!(answer.body, body.as_bytes(), "{bytes}");
        }
    }

    #[test]
    fn a_header_is_found_in_any_case() {
        let answer = parse(b"HTTP/1.1 204 No Content\r\nx-gramme-context: t\r\n\r\n", "PUT")
            .expect("it is well formed");
        assert_eq!((answer.status, answer.header("X-Gramme-Context")), (204, Some("t")));
    }

    #[test]
    fn answers_cut_short_are_no_answers() {
        for whole in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ] {
            // The last chunk's own line end may be missing: the body is whole by then.
            let needed = whole.len() - if whole.contains("chunked") { 2 } else { 0 };
            for length in 0..needed {
                assert!(parse(&whole.as_bytes()[..length], "GET").is_err(), "{length} bytes of {whole}");
            }
        }
    }

    #[test]
    fn a_head_has_no_body_whatever_its_length_says() {
        let answer =
            parse(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "HEAD").expect("it is well formed");
        assert_eq!((answer.status, answer.body.len()), (200, 0));
    }

    #[test]
    fn a_chunk_of_almost_all_memory_is_not_believed() {
        let bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc";
        assert!(parse(bytes, "GET").is_err());
    }
}
