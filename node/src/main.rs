//! The `gramme` binary: see [`gramme_node`].

use std::process::ExitCode;

fn main() -> ExitCode {
    gramme_node::run(std::env::args_os())
}
