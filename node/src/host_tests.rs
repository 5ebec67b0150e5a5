use super::*;
use gramme_quorum::{Config, Cover, Expiry, Op, ReadOptions, WriteOptions};
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

/// A node alone, whose disk answers at once.
struct Alone {
    host: Host<MemDisk>,
    now: Now,
    requests: u64,
}

impl Alone {
    fn new() -> Alone {
        let now = Now { instant: Instant::default(), wall_ms: 1_700_000_000_000 };
        let options = Options::new([7; 16]).with_tree_key([9; 16]).with_segment_bytes(64 << 10);
        let (store, _) = Store::open(MemDisk::new(), options).expect("it is a new one");
        let membership = Membership::found(ClusterId(1), 1, 16, &[Member::new(ME)]).expect("there is one");
        let engine = Engine::new(Config::new(ME, Actor(77)), membership, now);
        let host = Host::new(engine, store, now);
        Alone { host, now, requests: 0 }
    }

    fn ask(&mut self, op: Op) -> Reply {
        self.requests += 1;
        self.host.handle(self.now, Input::Client(RequestId(self.requests), op));
        loop {
            match self.host.poll() {
                Some(Effect::Reply(_, reply)) => return reply,
                Some(_) => {}
                None => {
                    self.sync();
                }
            }
        }
    }

    /// Whether there was anything to sync.
    fn sync(&mut self) -> bool {
        let job = self.host.begin_sync();
        job.map(|job| self.host.finish_sync(self.now, job.run())).is_some()
    }

    fn pass(&mut self, hours: u64) {
        self.now.instant = self.now.instant + std::time::Duration::from_secs(3600 * hours);
        self.now.wall_ms += 3_600_000 * hours;
        while self.host.maintain(self.now, 1 << 20) | self.sync() {}
    }

    fn taken(&self) -> u64 {
        self.host.store().stats().log_bytes
    }
}

#[test]
fn values_with_a_time_to_live_give_their_room_back() {
    let mut node = Alone::new();
    node.pass(0);
    let key = |n: u64| Bytes::from(format!("session:{n}"));
    let value = Bytes::from(vec![b'v'; 1000]);
    for n in 0..1000 {
        let expiry = (n % 10 > 0).then_some(Expiry(node.now.wall_ms + 3_600_000));
        let options = WriteOptions::default();
        let put = Op::Put {
            key: key(n),
            value: value.clone(),
            content_type: None,
            expiry,
            cover: Cover::Held,
            options,
        };
        assert!(matches!(node.ask(put), Reply::Written { .. }), "{n}");
    }
    let full = node.taken();
    let sums = node.host.store().tree().expect("it has one").range(0..=16383);
    node.pass(2);
    let shown = |node: &mut Alone, n| match node.ask(Op::Get { key: key(n), options: ReadOptions::default() })
    {
        Reply::Read(reading) => reading.siblings.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!((shown(&mut node, 0), shown(&mut node, 1)), (1, 0));
    assert!(node.taken() >= full, "the clocks of others may be a day behind");
    node.pass(24);
    assert!(node.taken() < full / 2, "{} of {full}", node.taken());
    assert_eq!(node.host.store().tree().expect("it has one").range(0..=16383), sums);
    for n in 0..1000 {
        assert_eq!(shown(&mut node, n), usize::from(n % 10 == 0), "{n}");
    }
}
