//! A client that writes, deletes and reads all the while, and is refused nothing.

use super::{Cluster, Redis, Resp, eventually};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// What a key is known to be: a value, or absent; nothing, after a write whose end is not known.
type Known = BTreeMap<String, Option<String>>;

/// A client that writes to keys of its own, deletes them, and reads each right after. Nothing may be refused: a quorum is there all the
/// while, and so is the node that it asks. Only what becomes of a write is not known if the node that coordinates it dies.
pub struct Client {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    thread: thread::JoinHandle<Known>,
}

impl Client {
    fn start(name: &str, port: u16, some_die: bool) -> Client {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counter, name) = (Arc::clone(&stop), Arc::clone(&rounds), name.to_owned());
        let thread = thread::spawn(move || {
            let (mut known, mut client) = (Known::new(), Redis::connect(port).expect("it serves"));
            for number in 0..usize::MAX {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("{name}:{}", number * 7 % 60);
                let value = (number % 5 != 4).then(|| format!("value {number} of {name}"));
                let answer = match &value {
                    Some(value) => client.set(&key, value),
                    None => client.call(&[b"DEL", key.as_bytes()]),
                };
                match answer {
                    Some(Resp::Simple(ok)) if ok == "OK" => {}
                    Some(Resp::Integer(_)) => {}
                    Some(Resp::Error(error)) if some_die && error.starts_with("INDETERMINATE") => {
                        known.remove(&key);
                        continue;
                    }
                    refused => panic!("{key}, write {number}: {refused:?}"),
                }
                let due = Some(Resp::Bulk(value.as_ref().map(|value| value.clone().into_bytes())));
                let read = client.call(&[b"GET", key.as_bytes()]);
                assert_eq!(read, due, "{key}, written through the same node just before");
                counter.fetch_add(1, Ordering::Relaxed);
                known.insert(key, value);
            }
            known
        });
        Client { stop, rounds, thread }
    }

    /// Waits until so many more writes were acknowledged and read.
    pub fn wait_for(&self, more: usize) {
        let goal = self.rounds.load(Ordering::Relaxed) + more;
        eventually("enough is written and read", || {
            assert!(!self.thread.is_finished(), "a client found something wrong");
            self.rounds.load(Ordering::Relaxed) >= goal
        });
    }

    fn finish(self) -> Known {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a client finds nothing wrong")
    }

    /// One through each of these nodes; the first writes of all are through. `some_die`: other nodes will be killed.
    pub fn start_each(cluster: &Cluster, through: &[u16], some_die: bool) -> Vec<Client> {
        let start = |node: &u16| Client::start(&format!("through-{node}"), cluster.redis(*node), some_die);
        let clients: Vec<Client> = through.iter().map(start).collect();
        clients.iter().for_each(|client| client.wait_for(100));
        clients
    }

    /// Some more writes of each; then all that they wrote is as it was acknowledged, through each of these nodes.
    pub fn finish_all(clients: Vec<Client>, cluster: &Cluster, nodes: &[u16]) {
        clients.iter().for_each(|client| client.wait_for(100));
        let known: Vec<Known> = clients.into_iter().map(Client::finish).collect();
        for node in nodes {
            let mut client = Redis::connect(cluster.redis(*node)).expect("it serves");
            for (key, value) in known.iter().flatten() {
                let due = Some(Resp::Bulk(value.as_ref().map(|value| value.clone().into_bytes())));
                assert_eq!(client.call(&[b"GET", key.as_bytes()]), due, "{key} through node {node}");
            }
        }
    }
}
