//! A node's settings: where each comes from, and which wins.
//!
//! Every key of [`KEYS`] is a key of `gramme.toml`, a flag `--key` and an environment variable `GRAMME_KEY` (dashes
//! become underscores). A flag wins over the environment, that over the file, that over the default.

use crate::facts::{MAX_HOST, MAX_WEIGHT};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One setting.
pub(crate) struct Key {
    /// As in the file and on the command line.
    pub(crate) name: &'static str,
    /// What stands for its value in the help; `None`: a switch.
    pub(crate) value: Option<&'static str>,
    /// What it is unless it is set.
    pub(crate) default: &'static str,
    /// For `--help`.
    pub(crate) help: &'static str,
}

const fn key(name: &'static str, value: &'static str, default: &'static str, help: &'static str) -> Key {
    Key { name, value: Some(value), default, help }
}

/// All settings of `gramme serve`.
pub(crate) const KEYS: &[Key] = &[
    key("dir", "DIR", "./gramme-node", "Where the node keeps its identity and its data"),
    key("redis", "ADDRESS", "127.0.0.1:7379", "Where it serves the Redis protocol"),
    key(
        "cluster-redis",
        "ADDRESS",
        "127.0.0.1:7382",
        "Where it serves the Redis protocol to clients in cluster mode, which go straight to replicas",
    ),
    key("http", "ADDRESS", "127.0.0.1:7380", "Where it serves HTTP"),
    key("peer", "ADDRESS", "127.0.0.1:7381", "Where it serves the other members"),
    key(
        "advertise",
        "HOST",
        "",
        "The name or IP address at which others reach it, if not the one it listens at",
    ),
    key(
        "join",
        "ADDRESSES",
        "",
        "Peer addresses of members, by which to find the cluster: HOST:PORT,HOST:PORT",
    ),
    key(
        "secret-file",
        "FILE",
        "",
        "For a new node that joins: the cluster's secret, as 'gramme secret' prints it at a member",
    ),
    key(
        "zone",
        "NAME",
        "",
        "What it fails together with: a rack, a data centre. Read when it founds a cluster or joins one",
    ),
    key(
        "weight",
        "NUMBER",
        "1",
        "Its share of the data relative to others'. Read when it founds a cluster or joins one",
    ),
    key("r", "NUMBER", "2", "Replicas that a read asks for, unless the request says"),
    key("w", "NUMBER", "2", "Replicas that a write asks for, unless the request says"),
    key("value-limit", "BYTES", "16777216", "The longest value, up to 32 MiB; the same on all members"),
    key(
        "segment-bytes",
        "BYTES",
        "33554432",
        "Size of the log's files, 4 KiB to 4 GiB; small ones suit small disks",
    ),
    key("timeout", "SECONDS", "5", "When a request ends that did not say how long it waits"),
    Key {
        name: "insecure",
        value: None,
        default: "false",
        help: "Listen beyond this machine although nothing is encrypted and clients are not asked who they are",
    },
];

/// Where a value comes from. Later ones win.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Default,
    File(PathBuf),
    Environment(String),
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Environment(name) => f.write_str(name),
            Source::Flag => f.write_str("flag"),
        }
    }
}

/// What is wrong with the settings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConfigError(String);

impl ConfigError {
    pub(crate) fn new(text: impl Into<String>) -> ConfigError {
        ConfigError(text.into())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// All settings as text, each with its source.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    values: BTreeMap<&'static str, (String, Source)>,
}

impl Settings {
    /// Collects them: `flags` as given, the environment through `environment`, the file that `config` names or,
    /// without one, `gramme.toml` in the data directory if that is there.
    pub(crate) fn collect(
        flags: &BTreeMap<&'static str, String>,
        environment: impl Fn(&str) -> Option<OsString>,
        config: Option<PathBuf>,
    ) -> Result<Settings, ConfigError> {
        let mut settings = Settings { values: BTreeMap::new() };
        for key in KEYS {
            settings.values.insert(key.name, (key.default.to_owned(), Source::Default));
            let variable = variable(key.name);
            if let Some(value) = environment(&variable) {
                let value = value
                    .into_string()
                    .map_err(|_| ConfigError(format!("{variable} is not text; give it as UTF-8")))?;
                settings.values.insert(key.name, (value, Source::Environment(variable)));
            }
            if let Some(value) = flags.get(key.name) {
                settings.values.insert(key.name, (value.clone(), Source::Flag));
            }
        }
        match config.or_else(|| environment("GRAMME_CONFIG").map(PathBuf::from)) {
            Some(path) => {
                let text = fs::read_to_string(&path)
                    .map_err(|e| ConfigError(format!("can't read {}: {e}", path.display())))?;
                settings.add_file(&path, &text)?;
            }
            None => {
                let path = Path::new(settings.get("dir")).join(crate::identity::SETTINGS);
                match fs::read_to_string(&path) {
                    Ok(text) => settings.add_file(&path, &text)?,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(ConfigError(format!("can't read {}: {e}", path.display()))),
                }
            }
        }
        Ok(settings)
    }

    fn add_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let table: toml::Table = toml::from_str(text).map_err(|e| {
            ConfigError(format!("{} is not valid TOML: {}", path.display(), e.to_string().trim()))
        })?;
        for (name, value) in &table {
            let Some(key) = KEYS.iter().find(|key| key.name == name) else {
                let nearest = nearest(name);
                return Err(ConfigError(format!(
                    "{}: there is no key '{name}': the nearest is '{nearest}'",
                    path.display()
                )));
            };
            let value = match value {
                toml::Value::String(text) => text.clone(),
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Float(number) => number.to_string(),
                toml::Value::Boolean(truth) => truth.to_string(),
                toml::Value::Array(items) if items.iter().all(toml::Value::is_str) => {
                    items.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>().join(",")
                }
                _ => return Err(ConfigError(format!("{}: '{name}' takes one value", path.display()))),
            };
            let (current, source) = self.values.get_mut(key.name).expect("every key has a default");
            if *source == Source::Default {
                (*current, *source) = (value, Source::File(path.to_owned()));
            }
        }
        Ok(())
    }

    /// The value of a key of [`KEYS`].
    pub(crate) fn get(&self, name: &str) -> &str {
        &self.values[name].0
    }

    /// What is in force and where it comes from: a `gramme.toml` with remarks.
    pub(crate) fn print(&self) -> String {
        let lines: Vec<(String, &Source)> = KEYS
            .iter()
            .map(|key| {
                let (value, source) = &self.values[key.name];
                let plain = key.value.is_none() || value.parse::<f64>().is_ok();
                let value = if plain { value.clone() } else { quoted(value) };
                (format!("{} = {value}", key.name), source)
            })
            .collect();
        let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0);
        let mut out = String::new();
        for (line, source) in lines {
            let _ = writeln!(out, "{line:width$}  # {source}");
        }
        out
    }

    fn wrong(&self, name: &str, why: impl fmt::Display) -> ConfigError {
        let (value, source) = &self.values[name];
        ConfigError(format!("{name} is '{value}' ({source}): {why}"))
    }

    fn number<T: std::str::FromStr + PartialOrd + fmt::Display>(
        &self,
        name: &str,
        least: T,
        most: T,
    ) -> Result<T, ConfigError> {
        let number = self.get(name).parse().ok().filter(|n| *n >= least && *n <= most);
        number.ok_or_else(|| self.wrong(name, format!("give a number from {least} to {most}")))
    }
}

/// A TOML basic string; JSON's escapes are among TOML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The environment variable of a key.
fn variable(name: &str) -> String {
    format!("GRAMME_{}", name.to_uppercase().replace('-', "_"))
}

/// The known key that is most like `name`.
fn nearest(name: &str) -> &'static str {
    let nearest = KEYS.iter().min_by_key(|key| distance(key.name, name));
    nearest.map_or("", |key| key.name)
}

/// How many characters must be added, removed or changed to make one of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Settings that make sense.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) dir: PathBuf,
    pub(crate) redis: Vec<SocketAddr>,
    pub(crate) cluster_redis: Vec<SocketAddr>,
    pub(crate) http: Vec<SocketAddr>,
    pub(crate) peer: Vec<SocketAddr>,
    pub(crate) advertise: Option<String>,
    /// Addresses of members by which to find the cluster.
    pub(crate) join: Vec<String>,
    pub(crate) secret_file: Option<PathBuf>,
    pub(crate) zone: gramme_ring::Zone,
    pub(crate) weight: u32,
    pub(crate) r: u8,
    pub(crate) w: u8,
    pub(crate) value_limit: usize,
    pub(crate) segment_bytes: u64,
    pub(crate) timeout: Duration,
}

/// The longest value that may be configured: an object of siblings around it still fits the store's records.
const VALUE_LIMIT: usize = 32 << 20;

impl Config {
    /// Reads the settings.
    pub(crate) fn new(settings: &Settings) -> Result<Config, ConfigError> {
        let insecure: bool =
            settings.get("insecure").parse().map_err(|_| settings.wrong("insecure", "give true or false"))?;
        let address = |name: &str| -> Result<Vec<SocketAddr>, ConfigError> {
            let found: Vec<SocketAddr> = settings
                .get(name)
                .to_socket_addrs()
                .map_err(|e| {
                    settings.wrong(name, format!("{e}: give a host and a port, like 127.0.0.1:7379"))
                })?
                .collect();
            if !insecure && found.iter().any(|a| !a.ip().is_loopback()) {
                return Err(settings.wrong(
                    name,
                    "anyone who reaches this address could read and write, for there are no credentials and no TLS in \
                     this release: listen at 127.0.0.1, or say --insecure if your network keeps strangers out",
                ));
            }
            Ok(found)
        };
        let (redis, cluster_redis) = (address("redis")?, address("cluster-redis")?);
        let (http, peer) = (address("http")?, address("peer")?);
        let advertise = Some(settings.get("advertise").to_owned()).filter(|host| !host.is_empty());
        if let Some(host) = &advertise
            && (host.contains(':') && host.parse::<std::net::Ipv6Addr>().is_err()
                || !host.bytes().all(|b| b.is_ascii_graphic())
                || host.len() > MAX_HOST)
        {
            return Err(settings.wrong(
                "advertise",
                format!("give a host name of up to {MAX_HOST} characters or an IP address, without a port"),
            ));
        }
        let everywhere =
            [&redis, &cluster_redis, &http, &peer].into_iter().flatten().any(|a| a.ip().is_unspecified());
        if everywhere && advertise.is_none() {
            return Err(ConfigError(
                "this node listens at every address of the machine, and others must know one of them: say which with \
                 --advertise HOST"
                    .to_owned(),
            ));
        }
        let zone = gramme_ring::Zone::new(settings.get("zone")).map_err(|e| settings.wrong("zone", e))?;
        let seconds: f64 = settings.number("timeout", 0.001, 3600.0)?;
        Ok(Config {
            dir: PathBuf::from(settings.get("dir")),
            redis,
            cluster_redis,
            http,
            peer,
            advertise,
            join: seeds(settings)?,
            secret_file: Some(PathBuf::from(settings.get("secret-file")))
                .filter(|file| !file.as_os_str().is_empty()),
            zone,
            weight: settings.number("weight", 1, MAX_WEIGHT)?,
            r: settings.number("r", 1, u8::MAX)?,
            w: settings.number("w", 1, u8::MAX)?,
            value_limit: settings.number("value-limit", 1, VALUE_LIMIT)?,
            segment_bytes: settings.number("segment-bytes", 4096, 4 << 30)?,
            timeout: Duration::from_secs_f64(seconds),
        })
    }
}

/// The addresses by which to find a cluster.
fn seeds(settings: &Settings) -> Result<Vec<String>, ConfigError> {
    let list = settings.get("join").split(',').map(str::trim).filter(|seed| !seed.is_empty());
    list.map(|seed| match seed.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(seed.to_owned()),
        _ => Err(settings.wrong(
            "join",
            format!(
                "'{seed}' is no address: give the members' peer addresses, like 10.0.0.1:7381,10.0.0.2:7381"
            ),
        )),
    })
    .collect()
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
