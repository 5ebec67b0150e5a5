use super::*;
use gramme_quorum::Config;
use gramme_ring::{ClusterId, Member};
use gramme_store::{MemDisk, Options, Reads};
use gramme_vclock::Actor;

const ME: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);

/// Each time a peer comes back its hints are listed anew, and what was listed for the last time is given up.
#[test]
fn listings_that_a_disk_never_makes_are_bounded() {
    let now = Now { instant: Instant::default(), wall_ms: 1_700_000_000_000 };
    let options = Options::new([7; 16]).with_tree_key([9; 16]).with_reads(Reads::Jobs);
    let (mut store, _) = Store::open(MemDisk::new(), options).expect("it is a new one");
    let hint = [&PEER.0.to_be_bytes(), &b"key"[..]].concat();
    store.put(HINT_PLACES.0.0 + 2, &hint, b"", 0).expect("there is room");
    let membership =
        Membership::found(ClusterId(1), 3, 16, &[ME, PEER].map(Member::new)).expect("there are two");
    let engine = Engine::new(Config::new(ME, Actor(77)), membership, now);
    let mut host = Host::new(engine, store, now);
    let mut waiting = VecDeque::new();
    let come_back = |host: &mut Host<MemDisk>, waiting: &mut VecDeque<List>| {
        host.handle(now, Input::Disconnected(PEER));
        host.handle(now, Input::Connected(PEER));
        while let Some(effect) = host.poll() {
            if let Effect::ReadAhead(list, _) = effect {
                waiting.push_back(list);
            }
        }
    };
    for times in 1..=MAX_LISTS {
        come_back(&mut host, &mut waiting);
        assert_eq!(waiting.len(), times);
    }
    for _ in 0..MAX_LISTS {
        come_back(&mut host, &mut waiting);
    }
    assert_eq!(waiting.len(), MAX_LISTS, "the engine is told that the store can't");
    // It is asked again for what it could not do, and each that comes after all has left room for another.
    let late = waiting.pop_front().expect("there are some");
    host.finish_list(now, late);
    come_back(&mut host, &mut waiting);
    assert_eq!((waiting.len(), host.lists), (MAX_LISTS, MAX_LISTS));
}
