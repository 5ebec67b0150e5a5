//! The command line.

mod cluster;
mod http_client;
mod keys;
mod secret;
pub(crate) mod table;
mod verify;
mod view;

use crate::config::{KEYS, Settings};
use crate::dev::{self, DevError, MOST_NODES, Wish};
use crate::server;
use clap::builder::NonEmptyStringValueParser;
use clap::{Arg, ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use cluster::ClusterCommand;
use keys::{Del, Get, Put};
use secret::SecretCommand;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use verify::Verify;
use view::View;

/// A command that failed: what, why, what to do.
pub(crate) struct Failure {
    text: String,
    code: u8,
}

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Failure {
        Failure { text: text.into(), code: 1 }
    }

    /// It could never have worked as it was asked for.
    fn misuse(text: impl Into<String>) -> Failure {
        Failure { text: text.into(), code: 2 }
    }
}

#[derive(Parser)]
#[command(
    name = "gramme",
    about = "An always-writable, replicated key-value store",
    disable_help_subcommand = true
)]
#[command(after_help = "Try it: 'gramme dev' starts a cluster of three on this machine.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a whole cluster on this machine, each node a process of its own
    Dev(Dev),
    /// Run one node
    Serve(Serve),
    /// Show how a node is and whom it sees
    Status(View),
    /// Show who owns what
    Ring(View),
    /// Show the members, who waits to become one, and their addresses
    Members(View),
    /// Show the prefixes of keys with rules of their own
    Keyspaces(View),
    /// Show how far a change of the members has come
    Transfers(View),
    /// Change the members: stage changes, look at the plan, commit it
    Cluster(ClusterCommand),
    /// Print what a new node needs to know to join the cluster
    Secret(SecretCommand),
    /// Read a key
    Get(Get),
    /// Write a key
    Put(Put),
    /// Delete a key
    Del(Del),
    /// Check every record of a store that no node has open; exit code 1 on damage
    Verify(Verify),
    /// Print completions for a shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version,
}

#[derive(Args)]
struct Dev {
    /// How many nodes; 3, or what was founded
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST_NODES)))]
    nodes: Option<u16>,
    /// Where their data is
    #[arg(long, value_name = "DIR", default_value = "./gramme-data")]
    dir: PathBuf,
    /// The first node's Redis port; its HTTP is at the next, the second node ten higher. 7379, or what was founded
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
}

/// One flag for each key of the settings, and a few more.
struct Serve {
    flags: BTreeMap<&'static str, String>,
    config: Option<PathBuf>,
    print_config: bool,
    child: bool,
}

impl Args for Serve {
    fn augment_args(command: clap::Command) -> clap::Command {
        let command = command
            .arg(
                Arg::new("config")
                    .long("config")
                    .value_name("FILE")
                    .value_parser(clap::value_parser!(PathBuf))
                    .help("A file of settings [default: gramme.toml in the data directory, if it is there]"),
            )
            .arg(
                Arg::new("print-config")
                    .long("print-config")
                    .action(ArgAction::SetTrue)
                    .help("Show the settings in force and where each comes from, and end"),
            )
            .arg(Arg::new("child").long("child").action(ArgAction::SetTrue).hide(true))
            .after_help(
                "Every setting can also be given as a key of the file or as an environment variable: \
                 GRAMME_VALUE_LIMIT for --value-limit. A flag wins over the environment, that over the file.",
            );
        KEYS.iter().fold(command, |command, key| {
            let arg = Arg::new(key.name).long(key.name);
            command.arg(match key.value {
                Some(value) => {
                    let shown = match key.default {
                        "" => key.help.to_owned(),
                        default => format!("{} [default: {default}]", key.help),
                    };
                    arg.value_name(value).value_parser(NonEmptyStringValueParser::new()).help(shown)
                }
                None => arg.action(ArgAction::SetTrue).help(key.help),
            })
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Serve {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let flag = |key: &crate::config::Key| {
            let value = match key.value {
                Some(_) => matches.get_one::<String>(key.name).cloned(),
                None => matches.get_flag(key.name).then(|| "true".to_owned()),
            };
            value.map(|value| (key.name, value))
        };
        Ok(Serve {
            flags: KEYS.iter().filter_map(flag).collect(),
            config: matches.get_one("config").cloned(),
            print_config: matches.get_flag("print-config"),
            child: matches.get_flag("child"),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Runs the command that `arguments` (the program's name first) ask for.
pub(crate) fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let outcome = match cli.command {
        Command::Dev(Dev { nodes, dir, port }) => dev::run(&Wish { nodes, dir, port }).map_err(|e| match e {
            DevError::Ports { .. } => Failure::misuse(format!("dev: {e}")),
            _ => Failure::new(format!("dev: {e}")),
        }),
        Command::Serve(serve) => run_serve(&serve),
        Command::Status(view) => view.show("status"),
        Command::Ring(view) => view.show("ring"),
        Command::Members(view) => view.show("members"),
        Command::Keyspaces(view) => view.show("keyspaces"),
        Command::Transfers(view) => view.show("transfers"),
        Command::Cluster(cluster) => cluster.run(),
        Command::Secret(secret) => secret.run(),
        Command::Get(get) => get.run(),
        Command::Put(put) => put.run(),
        Command::Del(del) => del.run(),
        Command::Verify(verify) => verify.run(),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "gramme", &mut script);
            print(&script)
        }
        Command::Version => print(concat!("gramme ", env!("CARGO_PKG_VERSION"), "\n").as_bytes()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { text, code }) => {
            crate::log::line(format_args!("{text}"));
            ExitCode::from(code)
        }
    }
}

fn run_serve(serve: &Serve) -> Result<(), Failure> {
    let failure = |e: &dyn std::fmt::Display| Failure::new(format!("serve: {e}"));
    let settings = Settings::collect(&serve.flags, |name| std::env::var_os(name), serve.config.clone())
        .map_err(|e| failure(&e))?;
    if serve.print_config {
        return print(settings.print().as_bytes());
    }
    server::serve(&settings, serve.child).map_err(|e| failure(&e))
}

/// Writes to stdout. A reader that has gone away (`gramme … | head`) is no failure.
fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("can't write the output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Help goes to stdout; misuse goes to stderr in our own form, exit code 2.
fn usage(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if !error.use_stderr() {
        return if print(text.as_bytes()).is_ok() { ExitCode::SUCCESS } else { ExitCode::from(1) };
    }
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(format!("gramme: {}\n", text.trim_end()).as_bytes());
    ExitCode::from(2)
}
