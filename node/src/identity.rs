//! What a data directory says a node is, and how it comes to say so.
//!
//! ```text
//! DIR/identity      text, readable by its owner only: node id, cluster id, the key that seals contexts, the secret
//! DIR/membership    what is known of the cluster (layouts, what is staged, how far a transition has come), and where each
//!                   node serves
//! DIR/store/        the node's log
//! DIR/gramme.toml   settings, if there are any
//! DIR/incomplete    there if the store was found missing or damaged, until all is back from the other owners: this node's
//!                   copies count toward no quorum
//! DIR/damage        the places that cost the store records: found again, they are no new loss
//! DIR/torn          what starts cut off from the ends of the store's segments, the newest last: nothing else tells of it later
//! ```
//!
//! Founding creates the store first (and stops if there is one with data), then writes the membership, then the
//! identity: a directory with an identity has everything, one without is not founded. Every file is written beside its place, synced and renamed.

use crate::handle::Addresses;
use data_encoding::HEXLOWER_PERMISSIVE as HEX;
use gramme_ring::{Layout, Member, Membership as Ring, NodeId};
use gramme_vclock::SealKey;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

const IDENTITY: &str = "identity";
const MEMBERSHIP: &str = "membership";
const INCOMPLETE: &str = "incomplete";
const DAMAGE: &str = "damage";
/// Lines of it that are kept. What is beyond them is a new loss to each start.
const LOST_LINES: usize = 1 << 20;
const TORN: &str = "torn";
/// Lines of it that are kept.
const TORN_LINES: usize = 1000;
const BOOT: &str = "boot";
/// Locked by the process that runs the node.
pub(crate) const LOCK: &str = "lock";
/// The settings' file in a data directory.
pub(crate) const SETTINGS: &str = "gramme.toml";
/// The log's folder in a data directory.
pub(crate) const STORE: &str = "store";

/// Bytes of a file with a cluster's secret; one has some 400.
const SECRET_LIMIT: u64 = 16 << 10;

/// Larger files than this are not what we wrote.
const FILE_LIMIT: u64 = 64 << 20;

/// The secret that all members of a cluster share: they prove to each other that they know it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret([u8; 32]);

impl Secret {
    pub(crate) fn new(bytes: [u8; 32]) -> Secret {
        Secret(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Who a node is, for its whole life.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) node: NodeId,
    pub(crate) cluster: u64,
    pub(crate) seal: SealKey,
    pub(crate) secret: Secret,
}

impl Identity {
    /// A new node of a new cluster.
    pub(crate) fn random() -> io::Result<Identity> {
        let mut bytes = [0; 64];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let (node, rest) = bytes.split_first_chunk::<8>().expect("64 bytes hold 8");
        let (cluster, rest) = rest.split_first_chunk::<8>().expect("56 bytes hold 8");
        let (seal, rest) = rest.split_first_chunk::<16>().expect("48 bytes hold 16");
        let secret = rest.first_chunk::<32>().expect("32 bytes are left");
        Ok(Identity {
            node: NodeId(u64::from_le_bytes(*node)),
            cluster: u64::from_le_bytes(*cluster),
            seal: SealKey(*seal),
            secret: Secret::new(*secret),
        })
    }

    /// Another node of the same cluster.
    pub(crate) fn sibling(&self) -> io::Result<Identity> {
        Ok(Identity { node: Identity::random()?.node, ..self.clone() })
    }

    /// What a new node is given so that it can join: everything but who this one is.
    pub(crate) fn secret_text(&self) -> String {
        format!(
            "# The secret of cluster {:016x}: whoever has it can read and change all its data. Keep it from strangers.\n\
             # A new node joins with: gramme serve --join HOST:PORT --secret-file FILE\n\
             format = 1\n{}",
            self.cluster,
            self.shared_text()
        )
    }

    /// A new node of the cluster whose secret this is.
    fn from_secret_text(text: &str) -> Result<Identity, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Text {
            format: u32,
            cluster: String,
            context_key: String,
            secret: String,
        }
        let text: Text = toml::from_str(text).map_err(|e| e.message().to_owned())?;
        if text.format != 1 {
            return Err(format!("it has format {}, this release reads 1", text.format));
        }
        Ok(Identity {
            node: Identity::random().map_err(|e| e.to_string())?.node,
            cluster: u64::from_be_bytes(hex(&text.cluster, "cluster")?),
            seal: SealKey(hex(&text.context_key, "context_key")?),
            secret: Secret::new(hex(&text.secret, "secret")?),
        })
    }

    /// The same from a file, and whether others than its owner can read that.
    pub(crate) fn from_secret_file(path: &Path) -> Result<(Identity, bool), DirError> {
        let io = |e| DirError::Io(path.to_owned(), e);
        let bad = |why: String| DirError::SecretFile(path.to_owned(), why);
        let mut file = File::open(path).map_err(io)?;
        let mut text = String::new();
        (&mut file).take(SECRET_LIMIT + 1).read_to_string(&mut text).map_err(io)?;
        if text.len() as u64 > SECRET_LIMIT {
            return Err(bad("it is far longer than a secret is".to_owned()));
        }
        #[cfg(unix)]
        let open = std::os::unix::fs::MetadataExt::mode(&file.metadata().map_err(io)?) & 0o077 != 0;
        #[cfg(not(unix))]
        let open = false;
        Ok((Identity::from_secret_text(&text).map_err(bad)?, open))
    }

    fn shared_text(&self) -> String {
        format!(
            "cluster = \"{:016x}\"\ncontext_key = \"{}\"\nsecret = \"{}\"\n",
            self.cluster,
            HEX.encode(&self.seal.0),
            HEX.encode(self.secret.bytes()),
        )
    }

    /// What the copies' digests are keyed with: the same on all members, unknown to clients.
    pub(crate) fn digest_key(&self) -> [u8; 16] {
        self.derived(b"gramme digest key")
    }

    /// The same for the stores' hash trees.
    pub(crate) fn tree_key(&self) -> [u8; 16] {
        self.derived(b"gramme tree key")
    }

    fn derived(&self, purpose: &[u8]) -> [u8; 16] {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.secret.0).expect("an HMAC takes keys of any length");
        mac.update(purpose);
        let bytes: [u8; 32] = mac.finalize().into_bytes().into();
        *bytes.first_chunk().expect("32 bytes hold 16")
    }

    fn to_text(&self) -> String {
        format!(
            "# Who this node is. Never copy it to another running node; keep it from strangers.\n\
             format = 1\nnode = \"{}\"\n{}",
            self.node,
            self.shared_text()
        )
    }

    fn from_text(text: &str) -> Result<Identity, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Text {
            format: u32,
            node: String,
            cluster: String,
            context_key: String,
            secret: String,
        }
        let text: Text = toml::from_str(text).map_err(|e| e.message().to_owned())?;
        if text.format != 1 {
            return Err(format!("it has format {}, this release reads 1", text.format));
        }
        Ok(Identity {
            node: NodeId(u64::from_be_bytes(hex(&text.node, "node")?)),
            cluster: u64::from_be_bytes(hex(&text.cluster, "cluster")?),
            seal: SealKey(hex(&text.context_key, "context_key")?),
            secret: Secret::new(hex(&text.secret, "secret")?),
        })
    }
}

fn hex<const N: usize>(text: &str, key: &str) -> Result<[u8; N], String> {
    let bytes = HEX.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| format!("{key} is not {} hexadecimal digits", 2 * N))
}

/// What is known of the cluster, and where each of its nodes serves.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Membership {
    /// Whose file it is.
    pub(crate) node: NodeId,
    pub(crate) ring: Ring,
    pub(crate) addresses: BTreeMap<NodeId, Addresses>,
}

impl Membership {
    /// The members of the layouts in use, by id.
    pub(crate) fn members(&self) -> Vec<Member> {
        members(&self.ring)
    }

    /// `"gramme/m"`, version (u16), CRC-32 of the rest (u32), the rest in postcard; integers little-endian.
    fn to_bytes(&self) -> Vec<u8> {
        let body = postcard::to_allocvec(self).expect("a membership can be encoded");
        let mut bytes = MEMBERSHIP_MAGIC.to_vec();
        bytes.extend_from_slice(&MEMBERSHIP_FORMAT.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Membership, String> {
        let rest = bytes.strip_prefix(MEMBERSHIP_MAGIC).ok_or("it is not a membership file")?;
        let (version, rest) = rest.split_first_chunk().ok_or("it is cut short")?;
        let version = u16::from_le_bytes(*version);
        if version != MEMBERSHIP_FORMAT {
            return Err(format!("it has format {version}, this release reads {MEMBERSHIP_FORMAT}"));
        }
        let (sum, body) = rest.split_first_chunk().ok_or("it is cut short")?;
        if u32::from_le_bytes(*sum) != crc32fast::hash(body) {
            return Err("its checksum is wrong".to_owned());
        }
        let (membership, rest): (Membership, _) =
            postcard::take_from_bytes(body).map_err(|e| e.to_string())?;
        if !rest.is_empty() {
            return Err("there is more after its end".to_owned());
        }
        Ok(membership)
    }
}

/// The members of the layouts in use, by id: while a transition is live those that it brings and those that it takes leave of.
pub(crate) fn members(ring: &Ring) -> Vec<Member> {
    let leaving = ring.transition().map(|transition| transition.from());
    let layouts = ring.layout().into_iter().chain(leaving);
    let mut members: BTreeMap<NodeId, Member> = BTreeMap::new();
    for member in layouts.flat_map(Layout::members) {
        members.entry(member.id).or_insert_with(|| member.clone());
    }
    members.into_values().collect()
}

const MEMBERSHIP_MAGIC: &[u8] = b"gramme/m";
const MEMBERSHIP_FORMAT: u16 = 3;

/// Why a data directory can't be used. Nothing in it was changed.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum DirError {
    /// The system refused.
    Io(PathBuf, io::Error),
    /// A file is not what we wrote.
    Damaged(PathBuf, String),
    /// An identity without its membership.
    Missing(PathBuf),
    /// Its files belong to different nodes.
    OtherNode(PathBuf, NodeId),
    /// The file with a cluster's secret is none.
    SecretFile(PathBuf, String),
    /// There are files of someone else.
    Foreign(PathBuf, String),
}

impl fmt::Display for DirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DirError::Io(path, error) => write!(f, "{}: {error}", path.display()),
            DirError::Damaged(path, why) => {
                write!(f, "{}: {why}: restore this file from a backup", path.display())
            }
            DirError::Missing(path) => {
                write!(f, "{} is missing beside a node's data: restore it from a backup", path.display())
            }
            DirError::OtherNode(path, node) => write!(
                f,
                "{}: its membership file is that of node {node}: restore this node's own from a backup",
                path.display()
            ),
            DirError::SecretFile(path, why) => write!(
                f,
                "{} is no file with a cluster's secret: {why}: make it with 'gramme secret --dir DIR' at a member",
                path.display()
            ),
            DirError::Foreign(path, name) => write!(
                f,
                "{} is no data directory of Gramme, and not empty (it holds {name}): choose another with --dir",
                path.display()
            ),
        }
    }
}

impl std::error::Error for DirError {}

/// A node's data directory.
#[derive(Clone, Debug)]
pub(crate) struct DataDir(PathBuf);

impl DataDir {
    pub(crate) fn new(path: impl Into<PathBuf>) -> DataDir {
        DataDir(path.into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.0.join(STORE)
    }

    /// Who lives here; `None` if nobody does yet.
    pub(crate) fn load(&self) -> Result<Option<(Identity, Membership)>, DirError> {
        let identity = self.read(IDENTITY)?;
        let membership = self.read(MEMBERSHIP)?;
        let Some(identity) = identity else { return Ok(None) };
        let membership = membership.ok_or_else(|| DirError::Missing(self.0.join(MEMBERSHIP)))?;

        let damaged = |name, why| DirError::Damaged(self.0.join(name), why);
        let text = std::str::from_utf8(&identity).map_err(|e| damaged(IDENTITY, e.to_string()))?;
        let identity = Identity::from_text(text).map_err(|why| damaged(IDENTITY, why))?;
        let membership = Membership::from_bytes(&membership).map_err(|why| damaged(MEMBERSHIP, why))?;
        if membership.node != identity.node {
            return Err(DirError::OtherNode(self.0.clone(), membership.node));
        }
        Ok(Some((identity, membership)))
    }

    /// Makes this directory a node's. `create_store` must leave an empty, durable store behind; where there is one
    /// with data, it refuses, and nothing was changed.
    pub(crate) fn found<E: From<DirError>>(
        &self,
        identity: &Identity,
        membership: &Membership,
        create_store: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        self.refuse_foreign()?;
        self.create()?;
        create_store(&self.store())?;
        self.write(MEMBERSHIP, &membership.to_bytes(), 0o644)?;
        self.write(IDENTITY, identity.to_text().as_bytes(), 0o600)?;
        Ok(())
    }

    /// Writes the membership anew: members have moved.
    pub(crate) fn save_membership(&self, membership: &Membership) -> Result<(), DirError> {
        self.write(MEMBERSHIP, &membership.to_bytes(), 0o644)
    }

    /// Writes a file of settings that is not there yet.
    pub(crate) fn save_settings(&self, text: &str) -> Result<(), DirError> {
        self.create()?;
        self.write(SETTINGS, text.as_bytes(), 0o644)
    }

    /// Why this node's copies count toward no quorum, if they don't.
    pub(crate) fn incomplete(&self) -> Result<Option<String>, DirError> {
        Ok(self.read(INCOMPLETE)?.map(|text| String::from_utf8_lossy(&text).trim().to_owned()))
    }

    /// Under which boot of its machine this node last ran, if that is known.
    pub(crate) fn last_boot(&self) -> Result<Option<String>, DirError> {
        Ok(self.read(BOOT)?.map(|text| String::from_utf8_lossy(&text).trim().to_owned()))
    }

    /// Notes under which it runs now.
    pub(crate) fn save_boot(&self, boot: &str) -> Result<(), DirError> {
        self.write(BOOT, format!("{boot}\n").as_bytes(), 0o644)
    }

    /// Remembers that acknowledged data may be missing here, whatever later runs find.
    pub(crate) fn mark_incomplete(&self, why: &str) -> Result<(), DirError> {
        self.write(INCOMPLETE, format!("{why}\n").as_bytes(), 0o644)
    }

    /// All that may have been missing is back.
    pub(crate) fn clear_incomplete(&self) -> Result<(), DirError> {
        let path = self.0.join(INCOMPLETE);
        // If it comes back after a crash, the next run looks once more, and finds nothing missing.
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(DirError::Io(path, e)),
            _ => Ok(()),
        }
    }

    /// The damaged places of the store that an earlier opening found, a line for each.
    pub(crate) fn lost_places(&self) -> Result<BTreeSet<String>, DirError> {
        let text = self.read(DAMAGE)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect())
    }

    /// Notes them, or the first [`LOST_LINES`] of them. They are told again by each opening, until compaction is through with them.
    pub(crate) fn save_lost_places(&self, places: &BTreeSet<String>) -> Result<(), DirError> {
        let text: String = places.iter().take(LOST_LINES).map(|place| format!("{place}\n")).collect();
        self.write(DAMAGE, text.as_bytes(), 0o644)
    }

    /// What starts have cut off from the store, a line for each place.
    pub(crate) fn torn_places(&self) -> Result<String, DirError> {
        Ok(self.read(TORN)?.map_or(String::new(), |text| String::from_utf8_lossy(&text).into_owned()))
    }

    /// Notes such places besides those that are noted.
    pub(crate) fn add_torn_places(&self, places: &str) -> Result<(), DirError> {
        let all = self.torn_places()? + places;
        let start = all.lines().count().saturating_sub(TORN_LINES);
        let kept: String = all.lines().skip(start).map(|line| format!("{line}\n")).collect();
        self.write(TORN, kept.as_bytes(), 0o644)
    }

    /// Creates the directory, with its parents, durably.
    fn create(&self) -> Result<(), DirError> {
        fs::create_dir_all(&self.0).map_err(|e| DirError::Io(self.0.clone(), e))?;
        if let Some(parent) = self.0.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_dir(parent).map_err(|e| DirError::Io(parent.to_owned(), e))?;
        }
        Ok(())
    }

    fn refuse_foreign(&self) -> Result<(), DirError> {
        let io = |e| DirError::Io(self.0.clone(), e);
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(io(e)),
        };
        for entry in entries {
            let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
            let ours = [IDENTITY, MEMBERSHIP, SETTINGS, STORE, INCOMPLETE, DAMAGE, TORN, BOOT, LOCK]
                .contains(&name.trim_end_matches(".new"));
            if !ours && name != "lost+found" {
                return Err(DirError::Foreign(self.0.clone(), name));
            }
        }
        Ok(())
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, DirError> {
        let path = self.0.join(name);
        let size = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(DirError::Io(path, e)),
        };
        if size > FILE_LIMIT {
            return Err(DirError::Damaged(path, format!("it has {size} bytes, far more than it should")));
        }
        fs::read(&path).map(Some).map_err(|e| DirError::Io(path, e))
    }

    fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), DirError> {
        let path = self.0.join(name);
        write_durably(&path, bytes, mode).map_err(|e| DirError::Io(path, e))
    }
}

/// Replaces a file, or creates it: after a crash at any moment it has its old bytes or its new ones.
pub(crate) fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = options.open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_dir(parent),
        None => sync_dir(Path::new(".")),
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
