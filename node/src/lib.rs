//! The Gramme server: everything that touches sockets, files, clocks and threads, around an engine that touches
//! none of them.
//!
//! [`host`] composes the engine of `gramme-quorum` with the store of `gramme-store` and performs no I/O of its own
//! but the store's disk calls; the simulator runs the same code. The rest (feature `server`, on by default) pumps
//! it: client protocols, peers, timers, the command line. The binary is called `gramme`; [`run`] is all of it.

pub mod host;

#[cfg(feature = "server")]
mod birth;
#[cfg(feature = "server")]
mod book;
#[cfg(feature = "server")]
mod budget;
#[cfg(feature = "server")]
mod calls;
#[cfg(feature = "server")]
mod cli;
#[cfg(feature = "server")]
mod clock;
#[cfg(feature = "server")]
mod config;
#[cfg(feature = "server")]
mod descriptors;
#[cfg(feature = "server")]
mod dev;
#[cfg(feature = "server")]
mod driver;
#[cfg(feature = "server")]
mod facts;
#[cfg(feature = "server")]
mod handle;
#[cfg(feature = "server")]
mod http;
#[cfg(feature = "server")]
mod identity;
#[cfg(feature = "server")]
mod log;
#[cfg(feature = "server")]
mod mail;
#[cfg(feature = "server")]
mod peer;
#[cfg(feature = "server")]
pub mod redis;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
mod signal;
#[cfg(feature = "server")]
mod spawn;
#[cfg(feature = "server")]
mod stop;

/// Runs the command line (the program's name comes first) and says how it ended: 0 well, 1 a failure, 2 misuse.
#[cfg(feature = "server")]
pub fn run(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> std::process::ExitCode {
    cli::run(arguments)
}
