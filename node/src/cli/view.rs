//! `gramme status`, `ring`, `members`: what a node's API says, for people or for programs.

use super::http_client::request;
use super::{Failure, print, table};

/// Where a node's HTTP is, unless `--at` says.
pub(super) const AT: &str = "127.0.0.1:7380";

#[derive(clap::Args)]
pub(super) struct View {
    /// The HTTP address of any node
    #[arg(long, value_name = "HOST:PORT", default_value = AT)]
    at: String,
    /// Print JSON, as the node answers it
    #[arg(long)]
    json: bool,
}

impl View {
    pub(super) fn show(&self, what: &str) -> Result<(), Failure> {
        let failed = |why: &dyn std::fmt::Display| {
            Failure::new(format!(
                "{what} of the node at {}: {why}: is it running, and is --at its HTTP address?",
                self.at
            ))
        };
        let answer = request(&self.at, "GET", &format!("/api/{what}"), &[], b"").map_err(|e| failed(&e))?;
        if answer.status != 200 {
            return Err(failed(&format!("it answered {} {}", answer.status, answer.text())));
        }
        if self.json {
            return print(&[&answer.body[..], b"\n"].concat());
        }
        let document = serde_json::from_slice(&answer.body).map_err(|e| failed(&e))?;
        print(table::render(&document).as_bytes())
    }
}
