//! How two nodes come to trust a connection. Three messages and a welcome:
//!
//! ```text
//! dialer                                    acceptor
//!   Hello: versions, cluster, node, run, nonce  →
//!        ←  Challenge: version, node, run, nonce, addresses, proof
//!   Proof: addresses, proof                     →
//!        ←  Welcome
//! ```
//!
//! A proof is an HMAC-SHA256 under the cluster's secret over everything said so far, both nonces included, and a
//! label that says whose proof it is; so neither side's can be replayed or reflected. Either side may answer
//! [`Refusal`] instead, which says why in words; a dialer that only asks who listens there ends it so after the challenge. After the handshake the stream is trusted as far as the network is:
//! frames carry checksums, not MACs.
//!
//! Until it is done frames are at most [`LIMIT`] bytes and everything must happen within [`DEADLINE`].

use super::frame::{FrameReader, append};
use crate::handle::Addresses;
use crate::identity::Secret;
use gramme_ring::NodeId;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::Sha256;
use smol::io::AsyncWriteExt;
use smol::net::TcpStream;
use std::time::Duration;
use std::{fmt, io};

/// The newest version of the peer protocol that this release speaks.
pub(crate) const NEWEST: u16 = 5;

/// The oldest: the one before, once one has been released. Versions 1 to 4, with other gossip, other objects and other listings, never were.
pub(crate) const OLDEST: u16 = 5;

/// Bytes of a frame before the handshake is done.
pub(super) const LIMIT: usize = 2048;

/// How long a handshake may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(3);

/// How long an address may be: a DNS name, a colon and a port.
const ADDRESS_LIMIT: usize = 262;

const MAGIC: [u8; 8] = *b"gramme/p";

/// What a node says of itself in every handshake.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    /// Who it is.
    pub(crate) node: NodeId,
    /// Its cluster.
    pub(crate) cluster: u64,
    /// A random number, new for each process: tells a restarted node from an impostor of a running one.
    pub(crate) run: u64,
    /// What it shares with all members.
    pub(crate) secret: Secret,
    /// Where it serves.
    pub(crate) addresses: Addresses,
}

/// What a node has proved, or said with proof.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    /// Who it is.
    pub(crate) node: NodeId,
    /// Which run of it.
    pub(crate) run: u64,
    /// Where it serves.
    pub(crate) addresses: Addresses,
}

// The Hello's and the Refusal's encodings are the same in every version, so that versions can differ in words.
#[derive(Serialize, Deserialize)]
struct Hello {
    magic: [u8; 8],
    oldest: u16,
    newest: u16,
    cluster: u64,
    node: NodeId,
    run: u64,
    nonce: [u8; 32],
}

#[derive(Serialize, Deserialize)]
enum Said<T> {
    Well(T),
    Refused(Refusal),
}

#[derive(Serialize, Deserialize)]
struct Challenge {
    version: u16,
    node: NodeId,
    run: u64,
    nonce: [u8; 32],
    addresses: Addresses,
    proof: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct Proof {
    addresses: Addresses,
    proof: [u8; 32],
}

/// Why a node does not talk to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub(crate) enum Refusal {
    /// No version in common.
    Version {
        /// The oldest that the refusing side speaks.
        oldest: u16,
        /// The newest.
        newest: u16,
    },
    /// The refusing side belongs to this other cluster.
    OtherCluster(u64),
    /// The node was removed from the cluster.
    Removed(NodeId),
    /// Another process with this id is connected to the refusing side, or is it.
    InUse(NodeId),
    /// The proof was made with another secret.
    Secret,
    /// Who listens here was all that the dialer wanted to know: by this it has no connection, and disturbs none that it has.
    OnlyAsked,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Version { oldest, newest } => write!(
                f,
                "no common version of the peer protocol (one side speaks {oldest} to {newest}, this release \
                 {OLDEST} to {NEWEST}): upgrade one release at a time"
            ),
            Refusal::OtherCluster(cluster) => write!(f, "it belongs to another cluster, {cluster:016x}"),
            Refusal::Removed(node) => write!(
                f,
                "node {node} was removed from the cluster, for good: to use this machine again, start it with an empty \
                 data directory and let it join as a new node"
            ),
            Refusal::InUse(node) => write!(
                f,
                "node id {node} is in use by another running process: was its data directory copied? stop one of \
                 them"
            ),
            Refusal::Secret => f.write_str("the cluster secrets differ: compare the nodes' identity files"),
            Refusal::OnlyAsked => f.write_str("it only asked who listens here"),
        }
    }
}

/// How a handshake failed.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum HandshakeError {
    /// The connection broke, or what came was no frame.
    Io(io::Error),
    /// What came is no message of a Gramme handshake.
    Malformed,
    /// It took too long.
    Deadline,
    /// The other side refused us.
    Refused(Refusal),
    /// We refused it.
    Refuse(Refusal),
    /// Another node answers at this address.
    OtherNode(NodeId),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeError::Io(error) => error.fmt(f),
            HandshakeError::Malformed => {
                f.write_str("what answers there does not speak Gramme's peer protocol")
            }
            HandshakeError::Deadline => write!(f, "no answer within {} s", DEADLINE.as_secs()),
            HandshakeError::Refused(why) => write!(f, "it refused: {why}"),
            HandshakeError::Refuse(why) => write!(f, "refused: {why}"),
            HandshakeError::OtherNode(node) => write!(f, "node {node} answers there"),
        }
    }
}

impl std::error::Error for HandshakeError {}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        HandshakeError::Io(error)
    }
}

/// The dialer's side: returns who answered, once both have proved that they know the secret. Who expects nobody only asks who is
/// there: the other side has proved itself then, and there is no connection.
pub(super) async fn dial(
    stream: &mut TcpStream,
    reader: &mut FrameReader,
    local: &Local,
    expect: Option<NodeId>,
) -> Result<Remote, HandshakeError> {
    let hello = encode(&Hello {
        magic: MAGIC,
        oldest: OLDEST,
        newest: NEWEST,
        cluster: local.cluster,
        node: local.node,
        run: local.run,
        nonce: nonce()?,
    });
    send(stream, &hello).await?;

    let body = receive(stream, reader).await?;
    let challenge: Challenge = match decode(&body)? {
        Said::Well(challenge) => challenge,
        // It ends this node's service, and the other side has proved nothing yet.
        Said::Refused(Refusal::Removed(_)) => return Err(HandshakeError::Malformed),
        Said::Refused(why) => return Err(HandshakeError::Refused(why)),
    };
    let unproved = encode(&Challenge { proof: [0; 32], ..copy(&challenge) });
    if !verify(&local.secret, b"acceptor", &[&hello, &unproved], &challenge.proof) {
        refuse(stream, Refusal::Secret).await;
        return Err(HandshakeError::Refuse(Refusal::Secret));
    }
    if !(OLDEST..=NEWEST).contains(&challenge.version) || !sound(&challenge.addresses) {
        return Err(HandshakeError::Malformed);
    }
    let remote = Remote { node: challenge.node, run: challenge.run, addresses: challenge.addresses.clone() };
    match expect {
        None => {
            refuse(stream, Refusal::OnlyAsked).await;
            return Ok(remote);
        }
        Some(expect) if expect != remote.node => return Err(HandshakeError::OtherNode(remote.node)),
        Some(_) => {}
    }

    let addresses = encode(&local.addresses);
    let proof = prove(&local.secret, b"dialer", &[&hello, &body, &addresses]);
    send(stream, &encode(&Said::Well(Proof { addresses: local.addresses.clone(), proof }))).await?;
    match decode(&receive(stream, reader).await?)? {
        Said::Well(()) => {}
        Said::Refused(why) => return Err(HandshakeError::Refused(why)),
    }
    Ok(remote)
}

/// The acceptor's side. `admit` judges an id and its run, before and again after the proof.
pub(super) async fn accept(
    stream: &mut TcpStream,
    reader: &mut FrameReader,
    local: &Local,
    admit: impl Fn(NodeId, u64) -> Result<(), Refusal>,
) -> Result<Remote, HandshakeError> {
    let hello_body = receive(stream, reader).await?;
    let hello: Hello = decode(&hello_body)?;
    if hello.magic != MAGIC {
        return Err(HandshakeError::Malformed);
    }
    let version = hello.newest.min(NEWEST);
    let judged = if version < hello.oldest.max(OLDEST) {
        Err(Refusal::Version { oldest: OLDEST, newest: NEWEST })
    } else if hello.cluster != local.cluster {
        Err(Refusal::OtherCluster(local.cluster))
    } else {
        // It ends a node's service, so it has to come from one who has proved to know the secret: below.
        admit(hello.node, hello.run)
            .or_else(|why| if let Refusal::Removed(_) = why { Ok(()) } else { Err(why) })
    };
    if let Err(why) = judged {
        refuse(stream, why.clone()).await;
        return Err(HandshakeError::Refuse(why));
    }

    let mut challenge = Challenge {
        version,
        node: local.node,
        run: local.run,
        nonce: nonce()?,
        addresses: local.addresses.clone(),
        proof: [0; 32],
    };
    challenge.proof = prove(&local.secret, b"acceptor", &[&hello_body, &encode(&challenge)]);
    let challenge_body = encode(&Said::Well(challenge));
    send(stream, &challenge_body).await?;

    let proof: Proof = match decode(&receive(stream, reader).await?)? {
        Said::Well(proof) => proof,
        Said::Refused(why) => return Err(HandshakeError::Refused(why)),
    };
    let covered = [&hello_body[..], &challenge_body, &encode(&proof.addresses)];
    let judged = if verify(&local.secret, b"dialer", &covered, &proof.proof) {
        // Another process with this id may have arrived meanwhile.
        admit(hello.node, hello.run)
    } else {
        Err(Refusal::Secret)
    };
    if let Err(why) = judged {
        refuse(stream, why.clone()).await;
        return Err(HandshakeError::Refuse(why));
    }
    if !sound(&proof.addresses) {
        return Err(HandshakeError::Malformed);
    }
    send(stream, &encode(&Said::Well(()))).await?;
    Ok(Remote { node: hello.node, run: hello.run, addresses: proof.addresses })
}

fn copy(c: &Challenge) -> Challenge {
    Challenge { addresses: c.addresses.clone(), ..*c }
}

/// Addresses end up in answers to clients and in log lines: they must look like addresses.
pub(crate) fn sound(addresses: &Addresses) -> bool {
    let Addresses { peer, redis, cluster_redis, http } = addresses;
    [peer, redis, cluster_redis, http].into_iter().all(|address| {
        address.len() <= ADDRESS_LIMIT
            && address.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic()) && port.parse::<u16>().is_ok()
            })
    })
}

fn mac(secret: &Secret, whose: &[u8], said: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.bytes()).expect("an HMAC takes keys of any length");
    mac.update(b"gramme peer handshake, ");
    for part in [whose].iter().chain(said) {
        // Lengths keep the parts apart.
        mac.update(&(part.len() as u64).to_le_bytes());
        mac.update(part);
    }
    mac
}

fn prove(secret: &Secret, whose: &[u8], said: &[&[u8]]) -> [u8; 32] {
    mac(secret, whose, said).finalize().into_bytes().into()
}

fn verify(secret: &Secret, whose: &[u8], said: &[&[u8]], proof: &[u8; 32]) -> bool {
    mac(secret, whose, said).verify_slice(proof).is_ok()
}

fn nonce() -> io::Result<[u8; 32]> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    Ok(nonce)
}

fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    postcard::to_allocvec(message).expect("handshake messages can be encoded")
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, HandshakeError> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        _ => Err(HandshakeError::Malformed),
    }
}

async fn send(stream: &mut TcpStream, body: &[u8]) -> Result<(), HandshakeError> {
    let mut frame = Vec::new();
    assert!(append(&mut frame, LIMIT, |out| out.extend_from_slice(body)), "handshake frames are small");
    stream.write_all(&frame).await?;
    Ok(())
}

/// Tells the other side why; it may be gone already.
async fn refuse(stream: &mut TcpStream, why: Refusal) {
    let _ = send(stream, &encode(&Said::<()>::Refused(why))).await;
}

async fn receive(stream: &mut TcpStream, reader: &mut FrameReader) -> Result<Vec<u8>, HandshakeError> {
    loop {
        if let Some(body) = reader.next(LIMIT).map_err(io::Error::from)? {
            return Ok(body.to_vec());
        }
        if reader.fill(stream).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::net::TcpListener;

    /// Who listens at a member's address, and does not know the secret, can't end a node's service.
    #[test]
    fn a_removal_counts_only_from_who_has_proved_to_know_the_secret() {
        smol::block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("it is bound");
            let node = NodeId(7);
            let addresses = Addresses::default();
            let local = Local { node, cluster: 1, run: 2, secret: Secret::new([3; 32]), addresses };
            let liar = async {
                let (mut stream, _) = listener.accept().await.expect("it is dialed");
                let mut reader = FrameReader::new(2 * LIMIT);
                receive(&mut stream, &mut reader).await.expect("a hello");
                refuse(&mut stream, Refusal::Removed(node)).await;
                stream
            };
            let dialer = async {
                let mut stream = TcpStream::connect(address).await.expect("it listens");
                let mut reader = FrameReader::new(2 * LIMIT);
                dial(&mut stream, &mut reader, &local, Some(NodeId(8))).await
            };
            let (_stream, dialed) = smol::future::zip(liar, dialer).await;
            assert!(matches!(dialed, Err(HandshakeError::Malformed)), "{dialed:?}");
        });
    }
}
