//! What a node pays for knowing all others, and for knowing a few.

use gramme_ring::finger::{Place, Ring, rank_fingers};
use gramme_ring::gossip::{Gossip, Message, Record};
use gramme_ring::{ClusterId, Member, Membership, NodeId};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::error::Error;

use super::{random, random_ring, route};

/// Counts the bytes that a thread has allocated and not freed: what others do meanwhile is not in it.
struct Meter;

thread_local! {
    /// Wraps below zero where a thread frees what another allocated.
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static METER: Meter = Meter;

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get().wrapping_add(layout.size()));
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ALLOCATED.set(ALLOCATED.get().wrapping_sub(layout.size()));
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(at, layout) }
    }
}

/// What `build` makes, and the bytes that it takes: on the heap and itself.
fn measured<T, E>(build: impl FnOnce() -> Result<T, E>) -> Result<(T, usize), E> {
    let before = ALLOCATED.get();
    let built = build()?;
    Ok((built, ALLOCATED.get().wrapping_sub(before) + size_of::<T>()))
}

/// The most members of a layout, and so the largest full view.
const MOST: usize = 16_384;
const PARTITIONS: u32 = 16_384;
const SUCCESSORS: usize = 16;
/// Of what each node says of itself: its addresses, how far its log reaches.
const FACTS: usize = 100;
const SECONDS_A_DAY: usize = 86_400;

/// Two of so many nodes, each of which knows all. Ids are 64 random bits, as the server's are.
struct FullView {
    ids: Vec<NodeId>,
    nodes: [Gossip; 2],
    /// What one of them holds.
    held: usize,
}

fn record(id: NodeId) -> Result<Record, Box<dyn Error>> {
    let mut gossip = Gossip::new(id, 300, 1)?;
    gossip.set_facts(vec![b'f'; FACTS])?;
    Ok(gossip.record(id).ok_or("its own")?.clone())
}

fn full_view(nodes: usize) -> Result<FullView, Box<dyn Error>> {
    let mut state = 2;
    let ids: Vec<NodeId> = (0..nodes).map(|_| NodeId(random(&mut state))).collect();
    let members: Vec<Member> = ids.iter().map(|&id| Member::new(id)).collect();
    let view = |me: usize| {
        measured(|| {
            let mut gossip = Gossip::new(ids[me], 300, me as u64)?;
            *gossip.membership_mut() = Membership::found(ClusterId(1), 3, PARTITIONS, &members)?;
            gossip.set_facts(vec![b'f'; FACTS])?;
            for &id in ids.iter().filter(|&&id| id != ids[me]) {
                let records = vec![(id, record(id)?)];
                let told =
                    Message::Delta { membership: None, records, ask_membership: false, ask: Vec::new() };
                gossip.receive(id, told)?;
            }
            Ok::<_, Box<dyn Error>>(gossip)
        })
    };
    let ((one, held), (other, _)) = (view(0)?, view(1)?);
    Ok(FullView { ids, nodes: [one, other], held })
}

impl FullView {
    /// Bytes of all messages, as encoded, from the first one's tick until both are quiet, where `news` of each changed and
    /// the other has not heard of it.
    fn exchange(&self, news: [bool; 2]) -> Result<usize, Box<dyn Error>> {
        let mut nodes = self.nodes.clone();
        for (node, _) in nodes.iter_mut().zip(news).filter(|(_, news)| *news) {
            node.set_facts(vec![b'g'; FACTS])?;
        }
        let mut message = Some(nodes[0].summary());
        let (mut from, mut bytes) = (0, 0);
        while let Some(told) = message {
            bytes += postcard::to_allocvec(&told)?.len();
            message = nodes[1 - from].receive(self.ids[from], told)?.reply;
            from = 1 - from;
        }
        assert_eq!(nodes[0].summary(), nodes[1].summary(), "all was told");
        Ok(bytes)
    }

    /// What a node sends a second if each node's facts change once a day.
    ///
    /// The exchange of one pair is measured for each kind of difference; who meets whom, and who knows what by then, is played
    /// through with all nodes until twenty changes, one after another, have begun to spread.
    fn sent(&self) -> Result<f64, Box<dyn Error>> {
        let quiet = self.exchange([false, false])?;
        let one_way = [self.exchange([true, false])?, self.exchange([false, true])?];
        let both = self.exchange([true, true])?;
        let more = postcard::to_allocvec(&(self.ids[0], record(self.ids[0])?))?.len();
        let nodes = self.ids.len();
        let mut state = 3;
        // Which of the changes that are under way a node knows, one bit each.
        let mut known = vec![0u64; nodes];
        let (mut begun, mut bytes) = (0, 0);
        let seconds = 20 * SECONDS_A_DAY / nodes;
        for second in 0..seconds {
            while begun * SECONDS_A_DAY < second * nodes {
                // What all have heard of makes room for the next.
                let all = known.iter().fold(u64::MAX, |all, known| all & known);
                known.iter_mut().for_each(|known| *known &= !all);
                let used = known.iter().fold(0, |any, known| any | known);
                assert_ne!(used, u64::MAX, "64 changes are under way");
                known[usize::try_from(random(&mut state) % nodes as u64)?] |= 1 << used.trailing_ones();
                begun += 1;
            }
            for one in 0..nodes {
                let other = (one + 1 + usize::try_from(random(&mut state) % (nodes as u64 - 1))?) % nodes;
                let lacking = [known[other] & !known[one], known[one] & !known[other]].map(u64::count_ones);
                let (all, further) = match lacking {
                    [0, 0] => (quiet, 0),
                    [0, news] => (one_way[0], news - 1),
                    [news, 0] => (one_way[1], news - 1),
                    [here, there] => (both, here + there - 2),
                };
                bytes += all + more * further as usize;
                let union = known[one] | known[other];
                (known[one], known[other]) = (union, union);
            }
        }
        Ok(bytes as f64 / nodes as f64 / seconds as f64)
    }
}

/// What a node holds that knows fingers and successors: their places in a table, and a record of each.
fn fingers(nodes: usize) -> Result<(usize, usize), Box<dyn Error>> {
    let mut state = 4;
    let mut ring: Vec<Place> = (0..nodes)
        .map(|_| Place { position: random(&mut state), node: NodeId(random(&mut state)) })
        .collect();
    ring.sort_unstable();
    let sorted = Ring::new(&ring)?;
    let ((table, _), held) = measured(|| {
        let mut buffer = [ring[0]; 128];
        let table = rank_fingers(sorted, 0, SUCCESSORS, &mut buffer)?.to_vec();
        let records = table.iter().map(|place| Ok((place.node, record(place.node)?)));
        let records = records.collect::<Result<BTreeMap<NodeId, Record>, Box<dyn Error>>>()?;
        Ok::<_, Box<dyn Error>>((table, records))
    })?;
    Ok((table.len(), held))
}

/// A question after a position and its answer, a node and where it stands, to and from each known node every ten seconds;
/// by a model, since the crate has no protocol for it.
fn finger_bytes(known: usize) -> Result<f64, Box<dyn Error>> {
    let (position, node) = (u64::MAX, NodeId(u64::MAX));
    let question = postcard::to_allocvec(&position)?.len();
    let answer = postcard::to_allocvec(&(node, position))?.len();
    Ok((known * (question + answer)) as f64 / 10.0)
}

/// The mean number of hops by rank fingers and successors, all nodes alive, of 10,000 requests.
fn hops(nodes: usize) -> Result<f64, Box<dyn Error>> {
    const REQUESTS: usize = 10_000;
    let mut state = 5;
    let ring = random_ring(nodes, &mut state);
    let (sorted, dead, mut all) = (Ring::new(&ring)?, vec![false; nodes], 0);
    for _ in 0..REQUESTS {
        let start = usize::try_from(random(&mut state) % nodes as u64)?;
        let hops = route(&ring, sorted, rank_fingers, SUCCESSORS, start, random(&mut state), &dead)?;
        all += hops.ok_or("all live, and nobody was left to ask")?;
    }
    Ok(all as f64 / REQUESTS as f64)
}

struct Costs {
    /// Held and sent.
    view: Option<(usize, f64)>,
    fingers: (usize, f64),
}

fn costs(nodes: usize) -> Result<Costs, Box<dyn Error>> {
    let view = if nodes <= MOST {
        let view = full_view(nodes)?;
        Some((view.held, view.sent()?))
    } else {
        None
    };
    let (known, held) = fingers(nodes)?;
    Ok(Costs { view, fingers: (held, finger_bytes(known)?) })
}

/// The most nodes, up to [`MOST`], of which a full view costs no more, if it is one threshold.
fn threshold(cheaper: impl Fn(&Costs) -> bool) -> Result<usize, Box<dyn Error>> {
    let (mut below, mut above) = (SUCCESSORS + 2, MOST);
    if !cheaper(&costs(below)?) {
        return Ok(0);
    }
    while above - below > below / 50 {
        let middle = below.midpoint(above);
        if cheaper(&costs(middle)?) { below = middle } else { above = middle }
    }
    Ok(below)
}

pub(super) fn compare() -> Result<(), Box<dyn Error>> {
    println!();
    println!(
        "What a node holds, counted, and sends, as encoded, if each node's facts ({FACTS} bytes) change once a day."
    );
    println!(
        "Full view: membership, a layout of {PARTITIONS} partitions and all records, at most {MOST} members; a digest"
    );
    println!(
        "a second to one peer, and what is news. Fingers: log2 S and {SUCCESSORS} successors with their records; by a model"
    );
    println!("each is asked every 10 seconds. Without heartbeats. Hops: the mean of 10,000 requests.");
    println!("{:>9} {:>26} {:>26} {:>11}", "nodes", "full view", "fingers", "hops");
    for nodes in [30, 100, 300, 1_000, 3_000, MOST, 100_000, 1_000_000] {
        let Costs { view, fingers: (held, sent) } = costs(nodes)?;
        let view = view.map_or_else(
            || String::from("not possible"),
            |(held, sent)| format!("{:.1} kB {sent:>7.0} B/s", held as f64 / 1e3),
        );
        println!(
            "{nodes:>9} {view:>26} {:>13.1} kB {sent:>6.0} B/s {:>4} / {:<4.1}",
            held as f64 / 1e3,
            0,
            hops(nodes)?
        );
    }
    let sent = threshold(|costs| costs.view.is_some_and(|(_, sent)| sent <= costs.fingers.1))?;
    let held = threshold(|costs| costs.view.is_some_and(|(held, _)| held <= costs.fingers.0))?;
    println!("the full view sends less up to about {sent} nodes, and takes less memory up to about {held}");
    Ok(())
}

#[test]
fn two_views_tell_each_other_what_is_news() -> Result<(), Box<dyn Error>> {
    let view = full_view(40)?;
    let quiet = view.exchange([false, false])?;
    let [one_way, both] = [view.exchange([true, false])?, view.exchange([true, true])?];
    assert!(quiet < 30 && one_way > FACTS + 40 * 8 && both > one_way + FACTS, "{quiet}, {one_way}, {both}");
    assert!(view.sent()? > quiet as f64);
    Ok(())
}
