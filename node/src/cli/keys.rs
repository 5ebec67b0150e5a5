//! `gramme get`, `put`, `del`: a client for people.

use super::http_client::{Answer, request};
use super::view::AT;
use super::{Failure, print};
use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Read};
use std::os::unix::ffi::OsStrExt;

const CONTEXT: &str = "X-Gramme-Context";

/// Which node, and how long to wait.
#[derive(clap::Args)]
struct Node {
    /// The HTTP address of any node
    #[arg(long, value_name = "HOST:PORT", default_value = AT)]
    at: String,
    /// When to give up
    #[arg(long, value_name = "MILLISECONDS")]
    timeout: Option<u64>,
}

#[derive(clap::Args)]
pub(super) struct Get {
    /// 1 byte to 64 KiB, any bytes
    key: OsString,
    #[command(flatten)]
    node: Node,
    /// Replicas that must answer: a number, one, quorum or all
    #[arg(long, value_name = "LEVEL")]
    r: Option<String>,
    /// Primaries among them
    #[arg(long, value_name = "LEVEL")]
    pr: Option<String>,
}

/// How many must acknowledge a write.
#[derive(clap::Args)]
struct Levels {
    /// Replicas that must acknowledge: a number, one, quorum or all
    #[arg(long, value_name = "LEVEL")]
    w: Option<String>,
    /// Primaries among them
    #[arg(long, value_name = "LEVEL")]
    pw: Option<String>,
    /// Durable copies among them
    #[arg(long, value_name = "LEVEL")]
    dw: Option<String>,
}

#[derive(clap::Args)]
pub(super) struct Put {
    /// 1 byte to 64 KiB, any bytes
    key: OsString,
    /// The value; - reads it from stdin
    value: OsString,
    #[command(flatten)]
    node: Node,
    /// What this value replaces, from an earlier answer; without it a sibling is added
    #[arg(long)]
    context: Option<String>,
    #[command(flatten)]
    levels: Levels,
    /// When it expires
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u64>,
    /// Its MIME type
    #[arg(long = "type", value_name = "TYPE")]
    content_type: Option<String>,
}

#[derive(clap::Args)]
pub(super) struct Del {
    /// 1 byte to 64 KiB, any bytes
    key: OsString,
    #[command(flatten)]
    node: Node,
    /// What to delete, from an earlier answer; without it everything that a read shows now
    #[arg(long)]
    context: Option<String>,
    #[command(flatten)]
    levels: Levels,
}

impl Get {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let query = [("r", self.r.as_deref()), ("pr", self.pr.as_deref())];
        let answer = self.node.ask("get", "GET", &self.key, &query, &[], b"")?;
        match answer.status {
            200 => {
                tell_context(&answer);
                print_value(&answer.body)
            }
            300 => print_siblings(&answer),
            404 => {
                tell_context(&answer);
                Err(Failure::new(format!("get {}: there is no such key", self.key.display())))
            }
            _ => Err(refused("get", &self.key, &answer)),
        }
    }
}

impl Put {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut value = Vec::new();
        if self.value == "-" {
            std::io::stdin()
                .lock()
                .read_to_end(&mut value)
                .map_err(|e| Failure::new(format!("put {}: can't read stdin: {e}", self.key.display())))?;
        } else {
            value.extend_from_slice(self.value.as_bytes());
        }
        let ttl = self.ttl.map(|seconds| seconds.to_string());
        let mut query = self.levels.query();
        query.push(("ttl", ttl.as_deref()));
        let mut headers = Vec::new();
        headers.extend(self.context.as_deref().map(|context| (CONTEXT, context)));
        headers.extend(self.content_type.as_deref().map(|name| ("Content-Type", name)));
        let answer = self.node.ask("put", "PUT", &self.key, &query, &headers, &value)?;
        if answer.status != 204 {
            return Err(refused("put", &self.key, &answer));
        }
        tell_context(&answer);
        Ok(())
    }
}

impl Del {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let context = match &self.context {
            Some(context) => context.clone(),
            None => {
                let seen = self.node.ask("del", "HEAD", &self.key, &[], &[], b"")?;
                match (seen.status, seen.header(CONTEXT)) {
                    (200 | 300, Some(context)) => context.to_owned(),
                    (404, _) => {
                        return Err(Failure::new(format!(
                            "del {}: there is no such key",
                            self.key.display()
                        )));
                    }
                    _ => return Err(refused("del", &self.key, &seen)),
                }
            }
        };
        let query = self.levels.query();
        let answer = self.node.ask("del", "DELETE", &self.key, &query, &[(CONTEXT, &context)], b"")?;
        if answer.status != 204 {
            return Err(refused("del", &self.key, &answer));
        }
        tell_context(&answer);
        Ok(())
    }
}

impl Levels {
    fn query(&self) -> Vec<(&'static str, Option<&str>)> {
        vec![("w", self.w.as_deref()), ("pw", self.pw.as_deref()), ("dw", self.dw.as_deref())]
    }
}

impl Node {
    fn ask(
        &self,
        what: &str,
        method: &str,
        key: &OsStr,
        query: &[(&str, Option<&str>)],
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, Failure> {
        let timeout = self.timeout.map(|ms| ms.to_string());
        let given = query.iter().copied().chain([("timeout", timeout.as_deref())]);
        let query: Vec<String> = given
            .filter_map(|(name, value)| Some(format!("{name}={}", percent(value?.as_bytes()))))
            .collect();
        let mut path = format!("/kv/{}", percent(key.as_bytes()));
        if !query.is_empty() {
            path = format!("{path}?{}", query.join("&"));
        }
        request(&self.at, method, &path, headers, body).map_err(|e| {
            Failure::new(format!(
                "{what} {} at {}: {e}: is the node running, and is --at its HTTP address?",
                key.display(),
                self.at
            ))
        })
    }
}

/// Percent-encodes everything but letters, digits and `-._~`.
fn percent(bytes: &[u8]) -> String {
    let mut out = String::new();
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(char::from(*byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn refused(what: &str, key: &OsStr, answer: &Answer) -> Failure {
    let why = match answer.text() {
        text if text.is_empty() => format!("the node answered {}", answer.status),
        text => text,
    };
    let advice = match answer.status {
        400 => "look at the options",
        413 => "it is too large for this cluster",
        429 | 503 => "nothing was done; try again, or ask for less",
        504 => "it may or may not have been done; read the key to see",
        _ => "look at the node's log",
    };
    Failure::new(format!("{what} {}: {why}: {advice}", key.display()))
}

/// The context goes to stderr, where it does not mix with a value.
fn tell_context(answer: &Answer) {
    if let Some(context) = answer.header(CONTEXT) {
        eprint_line(&format!("context: {context}"));
    }
}

fn eprint_line(line: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

fn print_value(value: &[u8]) -> Result<(), Failure> {
    print(value)?;
    // A prompt should begin a line of its own; a file or a pipe gets the bytes and nothing else.
    if std::io::stdout().is_terminal() && !value.ends_with(b"\n") { print(b"\n") } else { Ok(()) }
}

/// One sibling after the other, each with where and when it came from.
fn print_siblings(answer: &Answer) -> Result<(), Failure> {
    let siblings: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_slice(&answer.body)
        .map_err(|e| Failure::new(format!("get: the node's list of siblings is not understood: {e}")))?;
    let count = siblings.len();
    for (number, sibling) in (1..).zip(&siblings) {
        let about: Vec<String> = sibling
            .iter()
            .filter(|(name, value)| *name != "value" && !value.is_null())
            .map(|(name, value)| {
                format!("{name} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            })
            .collect();
        eprint_line(&format!("sibling {number} of {count}: {}", about.join(", ")));
        let value = sibling.get("value").and_then(|v| v.as_str()).unwrap_or_default();
        let bytes = data_encoding::BASE64
            .decode(value.as_bytes())
            .map_err(|e| Failure::new(format!("get: a sibling's value is not base64: {e}")))?;
        print(&bytes)?;
        print(b"\n")?;
    }
    eprint_line(
        "these were written without knowing of each other: merge them, and put the result with this context",
    );
    tell_context(answer);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn binary_keys_survive_a_path() {
        assert_eq!(percent(b"a/b c\0\xff{tag}~"), "a%2Fb%20c%00%FF%7Btag%7D~");
    }
}
