//! The load, a process of its own: so many connections of one gateway, each of which sends its calls one after the other.
//!
//! ```text
//! DIR/calls   connection u32 | path len u32 | path | body len u32 | body      little endian, in the order in which they are sent
//! DIR/url, ca.der, tls.der, tls.key                                           to whom, whom it believes, and who it is
//! ```
//!
//! It says `ready` on standard output, waits for a line, and says what came of it as JSON.

use crate::world::Certified;
use disk::RealDisk;
use keys::file;
use keys::tls::{self, Alpn};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// By which this program knows that it is the load.
pub const WORD: &str = "load";

/// What is sent: without a body it is a GET.
#[derive(Clone, Debug)]
pub struct Call {
    pub connection: u32,
    pub path: String,
    pub body: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub seconds: f64,
    /// How long each took, in microseconds, the median and the worst of a hundred.
    pub p50_us: f64,
    pub p99_us: f64,
    pub statuses: BTreeMap<u16, usize>,
}

/// What a run came to, and what the server used for it.
#[derive(Debug)]
pub struct Ran {
    pub outcome: Outcome,
    pub calls: usize,
    pub cpu_s: f64,
}

impl Ran {
    pub fn cpu_us(&self) -> f64 {
        self.cpu_s * 1e6 / self.calls as f64
    }

    pub fn rate(&self) -> f64 {
        self.calls as f64 / self.outcome.seconds
    }
}

/// Has `calls` made of the server `pid` at `url`, while the caller does nothing else.
pub async fn make(
    dir: &Path,
    url: &str,
    anchor: &[u8],
    own: &Certified,
    calls: &[Call],
    pid: u32,
) -> Ran {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("url"), url).unwrap();
    fs::write(dir.join("ca.der"), anchor).unwrap();
    fs::write(dir.join("tls.der"), &own.chain[0]).unwrap();
    file::save(&RealDisk, &dir.join("tls.key"), &own.key).unwrap();
    let mut bytes = Vec::new();
    for call in calls {
        bytes.extend(call.connection.to_le_bytes());
        for part in [call.path.as_bytes(), &call.body] {
            bytes.extend((part.len() as u32).to_le_bytes());
            bytes.extend(part);
        }
    }
    fs::write(dir.join("calls"), bytes).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg(WORD)
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let calls = calls.len();
    tokio::task::spawn_blocking(move || measured(&mut child, calls, pid)).await.unwrap()
}

fn measured(child: &mut Child, calls: usize, pid: u32) -> Ran {
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "ready");
    let before = crate::process::cpu_s(pid);
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let outcome: Outcome = serde_json::from_str(&said.next().unwrap().unwrap()).unwrap();
    let cpu_s = crate::process::cpu_s(pid) - before;
    assert!(child.wait().unwrap().success());
    assert_eq!(outcome.statuses.keys().collect::<Vec<_>>(), [&200], "{outcome:?}");
    Ran { outcome, calls, cpu_s }
}

/// The other process.
pub async fn run(dir: &Path) {
    let read = |name: &str| fs::read(dir.join(name)).unwrap();
    let url = String::from_utf8(read("url")).unwrap();
    let (chain, key) =
        (vec![read("tls.der")], file::load(&RealDisk, &dir.join("tls.key")).unwrap());
    let tls = tls::client(Some((&chain, &key)), &[read("ca.der")], Alpn::Http11).unwrap();
    let mut connections: BTreeMap<u32, Vec<Call>> = BTreeMap::new();
    for call in calls(&read("calls")) {
        connections.entry(call.connection).or_default().push(call);
    }
    let clients: Vec<_> = connections
        .into_values()
        .map(|calls| {
            let client = reqwest::Client::builder()
                .tls_backend_preconfigured(rustls::ClientConfig::clone(&tls))
                .no_proxy()
                .timeout(Duration::from_secs(60))
                .build()
                .unwrap();
            (client, calls)
        })
        .collect();
    println!("ready");
    std::io::stdin().lines().next().unwrap().unwrap();
    let start = Instant::now();
    let work: Vec<_> = clients
        .into_iter()
        .map(|(client, calls)| {
            let url = url.clone();
            tokio::spawn(async move { one_after_the_other(&client, &url, calls).await })
        })
        .collect();
    let (mut took, mut statuses) = (Vec::new(), BTreeMap::new());
    for work in work {
        for (us, status) in work.await.unwrap() {
            took.push(us);
            *statuses.entry(status).or_insert(0) += 1;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    took.sort_by(f64::total_cmp);
    let (p50_us, p99_us) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    let outcome = Outcome { seconds, p50_us, p99_us, statuses };
    println!("{}", serde_json::to_string(&outcome).unwrap());
}

async fn one_after_the_other(
    client: &reqwest::Client,
    url: &str,
    calls: Vec<Call>,
) -> Vec<(f64, u16)> {
    let mut answers = Vec::with_capacity(calls.len());
    for Call { path, body, .. } in calls {
        let url = format!("{url}{path}");
        let request = match body.is_empty() {
            true => client.get(url),
            false => client.post(url).header("content-type", "application/cose").body(body),
        };
        let start = Instant::now();
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        answer.bytes().await.unwrap();
        answers.push((start.elapsed().as_secs_f64() * 1e6, status));
    }
    answers
}

fn calls(mut bytes: &[u8]) -> Vec<Call> {
    fn number(bytes: &mut &[u8]) -> u32 {
        let (head, rest) = bytes.split_first_chunk().unwrap();
        *bytes = rest;
        u32::from_le_bytes(*head)
    }
    fn part(bytes: &mut &[u8]) -> Vec<u8> {
        let len = number(bytes) as usize;
        let (part, rest) = bytes.split_at(len);
        *bytes = rest;
        part.to_vec()
    }
    let mut calls = Vec::new();
    while !bytes.is_empty() {
        let connection = number(&mut bytes);
        let path = String::from_utf8(part(&mut bytes)).unwrap();
        calls.push(Call { connection, path, body: part(&mut bytes) });
    }
    calls
}
