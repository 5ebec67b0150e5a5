//! A Redis client, and one that writes all the while.

use super::{PATIENCE, eventually};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

/// What a Redis server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resp {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Option<Vec<u8>>),
    Array(Vec<Resp>),
}

/// A Redis client, as small as it gets.
pub struct Redis {
    reader: BufReader<TcpStream>,
}

impl Redis {
    /// `None` if nobody listens.
    pub fn connect(port: u16) -> Option<Redis> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(Redis { reader: BufReader::new(stream) })
    }

    /// `None` if the connection breaks.
    pub fn call(&mut self, words: &[&[u8]]) -> Option<Resp> {
        self.send(words)?;
        self.receive()
    }

    pub fn send(&mut self, words: &[&[u8]]) -> Option<()> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        self.reader.get_mut().write_all(&bytes).ok()
    }

    pub fn receive(&mut self) -> Option<Resp> {
        let mut line = String::new();
        self.reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let (kind, rest) = line.trim_end().split_at(1);
        let number = || rest.parse::<i64>().expect("it is a number");
        Some(match kind {
            "+" => Resp::Simple(rest.to_owned()),
            "-" => Resp::Error(rest.to_owned()),
            ":" => Resp::Integer(number()),
            "$" if rest == "-1" => Resp::Bulk(None),
            "$" => {
                let mut bytes = vec![0; usize::try_from(number()).expect("a length") + 2];
                self.reader.read_exact(&mut bytes).ok()?;
                bytes.truncate(bytes.len() - 2);
                Resp::Bulk(Some(bytes))
            }
            "*" => {
                let mut items = Vec::new();
                for _ in 0..number() {
                    items.push(self.receive()?);
                }
                Resp::Array(items)
            }
            other => panic!("no reply begins with {other:?}"),
        })
    }

    pub fn set(&mut self, key: &str, value: &str) -> Option<Resp> {
        self.call(&[b"SET", key.as_bytes(), value.as_bytes()])
    }

    /// The value; panics on errors.
    pub fn get(&mut self, key: &str) -> Option<String> {
        match self.call(&[b"GET", key.as_bytes()]) {
            Some(Resp::Bulk(value)) => value.map(|v| String::from_utf8(v).expect("it is text")),
            other => panic!("GET {key}: {other:?}"),
        }
    }

    /// All siblings by one replica's word.
    pub fn get_one(&mut self, key: &str) -> Result<Vec<Vec<u8>>, String> {
        match self.call(&[b"DYN.GET", key.as_bytes(), b"R", b"1"]) {
            Some(Resp::Array(items)) => match &items[..] {
                [_, Resp::Array(values)] => Ok(values
                    .iter()
                    .map(|v| match v {
                        Resp::Bulk(Some(value)) => value.clone(),
                        other => panic!("a value is {other:?}"),
                    })
                    .collect()),
                other => panic!("DYN.GET {key}: {other:?}"),
            },
            Some(Resp::Error(error)) => Err(error),
            other => panic!("DYN.GET {key}: {other:?}"),
        }
    }
}

/// Writes through one node until told to stop; remembers what was acknowledged. Every key is written once.
pub struct Writer {
    stop: Arc<std::sync::atomic::AtomicBool>,
    thread: thread::JoinHandle<BTreeMap<String, String>>,
    written: Arc<AtomicCount>,
}

type AtomicCount = std::sync::atomic::AtomicUsize;

impl Writer {
    pub fn start(name: &str, port: u16) -> Writer {
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let written = Arc::new(AtomicCount::new(0));
        let (stopped, counter, name) = (Arc::clone(&stop), Arc::clone(&written), name.to_owned());
        let thread = thread::spawn(move || {
            let mut acknowledged = BTreeMap::new();
            let mut client = None;
            for number in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (key, value) = (format!("{name}:{number}"), format!("value {number} of {name}"));
                if client.is_none() {
                    client = Redis::connect(port);
                }
                match client.as_mut().map(|c| c.set(&key, &value)) {
                    Some(Some(Resp::Simple(ok))) if ok == "OK" => {
                        acknowledged.insert(key, value);
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                    // Refused, indeterminate, or the node is gone: nothing was promised.
                    Some(Some(_)) => {}
                    Some(None) | None => {
                        client = None;
                        thread::yield_now();
                    }
                }
            }
            acknowledged
        });
        Writer { stop, thread, written }
    }

    pub fn written(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }

    /// Waits until `more` further writes were acknowledged.
    pub fn wait_for(&self, more: usize) {
        let goal = self.written() + more;
        eventually("enough writes are acknowledged", || self.written() >= goal);
    }

    /// What was acknowledged.
    pub fn finish(self) -> BTreeMap<String, String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a writer does not panic")
    }
}

/// Everything that was acknowledged is there, through this node.
pub fn assert_all_there(port: u16, acknowledged: &BTreeMap<String, String>) {
    let mut client = Redis::connect(port).expect("it serves");
    let all: Vec<_> = acknowledged.iter().collect();
    for some in all.chunks(200) {
        for (key, _) in some {
            client.send(&[b"GET", key.as_bytes()]).expect("it reads");
        }
        for (key, value) in some {
            let expected = Resp::Bulk(Some(value.as_bytes().to_vec()));
            assert_eq!(client.receive(), Some(expected), "{key} through port {port}");
        }
    }
}
