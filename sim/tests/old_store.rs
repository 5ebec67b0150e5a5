//! What a node does when it hears that its store is an old one.

use gramme_node::host::{Effect, Host, opening};
use gramme_quorum::message::Message;
use gramme_quorum::{Config, Engine, Input, Instant, Now, Run};
use gramme_ring::{ClusterId, Member, Membership, NodeId};
use gramme_store::{MemDisk, Options, Store};
use gramme_vclock::Actor;

const ME: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);

/// It may be killed between any two steps. If the number past all that it told were in the store before the note that it is incomplete is
/// in its place, peers would take the next run for a whole one.
#[test]
fn that_it_is_incomplete_is_noted_before_it_goes_by_a_new_number() {
    let members = [ME, PEER, NodeId(3)].map(Member::new);
    let membership = Membership::found(ClusterId(1), 3, 16, &members).unwrap();
    let now = Now { instant: Instant::default(), wall_ms: 1_700_000_000_000 };
    let disk = MemDisk::new();
    let open = |disk| Store::open(disk, Options::new([7; 16]).with_tree_key([9; 16])).unwrap().0;
    // The next run, if this one is killed.
    let next = || opening(&mut open(disk.fork())).number();
    let mut store = open(disk.clone());
    let mut config = Config::new(ME, Actor(77));
    config.opening = opening(&mut store);
    let mut host = Host::new(Engine::new(config, membership, now), store, now);
    host.handle(now, Input::Connected(PEER));
    while host.poll().is_some() {}
    let Run { number, .. } = host.engine().run();
    let mark = number + 1000;
    host.handle(now, Input::Peer(PEER, Message::Outdated { run: host.engine().run(), mark }));

    // Killed before the note is made, and right after.
    let mut noted = false;
    loop {
        assert!(noted || next() <= mark, "peers would not find it out");
        match host.poll() {
            Some(effect) => noted |= matches!(effect, Effect::Incomplete),
            None => break,
        }
    }
    assert!(noted);
    assert!(next() > mark);
}
