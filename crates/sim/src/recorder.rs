//! The recorder outside the product: a process between devices and a gateway that writes down every PUBACK.
//!
//! It stands in the middle of TLS with the gateway's certificate towards devices and each device's certificate towards
//! the gateway (a demo's privilege: it reads their files). Packets pass unchanged. A PUBACK is written to a file and
//! fsynced **before** the device sees it, so nothing that a device believes acknowledged is missing from the record.
//!
//! ```text
//! line = "ack" gateway device reason key epoch sequence readings
//! ```
//!
//! Beside the record lies `<device>.last`: the newest acknowledged message of each device, for those who replay it.
//! What a device says in HTTP (check-ins, metadata, images) passes unread. Orders come on standard input: `pause DEVICE`
//! cuts a device off and keeps it off, `resume DEVICE` lets it back.

use crate::message::Sealed;
use crate::mqtt::{self, Splitter};
use crate::tls;
use anyhow::{Context, Result, bail};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Where devices connect.
    #[arg(long)]
    pub listen: SocketAddr,
    /// Where the gateway listens.
    #[arg(long)]
    pub upstream: SocketAddr,
    /// The gateway's id.
    #[arg(long)]
    pub gateway: String,
    /// The gateway's directory, with `tls.key` and `tls.pem`.
    #[arg(long)]
    pub gateway_dir: PathBuf,
    /// The directory of all devices' directories.
    #[arg(long)]
    pub devices: PathBuf,
    #[arg(long)]
    pub site_ca: PathBuf,
    #[arg(long, default_value = "site")]
    pub site: String,
    /// The record; it is appended to.
    #[arg(long)]
    pub out: PathBuf,
}

struct Recorder {
    options: Options,
    record: File,
    /// Lines are written one after the other, and synced together.
    writing: Mutex<()>,
    paused: watch::Sender<HashSet<String>>,
}

/// More than one thread: a slow disk holds up the PUBACKs that wait for it, and nothing that a device loads meanwhile.
#[tokio::main(worker_threads = 2)]
pub async fn run(options: Options) -> Result<()> {
    let record = File::options().create(true).append(true).open(&options.out)?;
    let listener = TcpListener::bind(options.listen).await?;
    let server = tls::server(&options.gateway_dir, &options.site_ca)?;
    let acceptor = tokio_rustls::TlsAcceptor::from(server);
    let (paused, _) = watch::channel(HashSet::new());
    let recorder = Arc::new(Recorder { options, record, writing: Mutex::default(), paused });
    println!("recording");
    tokio::spawn(obey(recorder.clone()));
    loop {
        let (socket, _) = listener.accept().await?;
        let (acceptor, recorder) = (acceptor.clone(), recorder.clone());
        tokio::spawn(async move {
            // A device that is cut off, or a gateway that was killed, ends a connection; the device comes again.
            if let Err(error) = recorder.carry(socket, acceptor).await {
                eprintln!("recorder: {error:#}");
            }
        });
    }
}

async fn obey(recorder: Arc<Recorder>) {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match line.split_once(' ') {
            Some(("pause", device)) => {
                recorder.paused.send_if_modified(|set| set.insert(device.to_owned()));
            }
            Some(("resume", device)) => {
                recorder.paused.send_if_modified(|set| set.remove(device));
            }
            _ => eprintln!("recorder: expected `pause DEVICE` or `resume DEVICE`, found {line:?}"),
        }
        println!("done {line}");
    }
    // Its owner is gone, and so is the reason to record.
    std::process::exit(0);
}

impl Recorder {
    async fn carry(&self, socket: TcpStream, acceptor: tokio_rustls::TlsAcceptor) -> Result<()> {
        socket.set_nodelay(true)?;
        let down = acceptor.accept(socket).await?;
        let is_http = down.get_ref().1.alpn_protocol() == Some(tls::HTTP);
        let device = {
            let certificates =
                down.get_ref().1.peer_certificates().context("no client certificate")?;
            let known = std::fs::read_dir(&self.options.devices)?
                .flatten()
                .flat_map(|e| e.file_name().into_string());
            tls::device_of(&certificates[0], known, &self.options.site)
                .context("a stranger's certificate")?
        };
        let mut paused = self.paused.subscribe();
        if paused.borrow_and_update().contains(&device) {
            return Ok(());
        }
        let dir = self.options.devices.join(&device);
        let config = tls::client(&dir, &self.options.site_ca, is_http.then_some(tls::HTTP))?;
        let upstream = TcpStream::connect(self.options.upstream).await?;
        upstream.set_nodelay(true)?;
        let name = tls::gateway_name(&self.options.gateway, &self.options.site)?;
        let up = tokio_rustls::TlsConnector::from(config).connect(name, upstream).await?;
        if is_http {
            let (mut down, mut up) = (down, up);
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut down, &mut up) => {}
                _ = paused.wait_for(|set| set.contains(&device)) => {}
            }
            return Ok(());
        }
        let pending = Mutex::new(HashMap::new());
        let (mut device_in, mut device_out) = tokio::io::split(down);
        let (mut gateway_in, mut gateway_out) = tokio::io::split(up);
        tokio::select! {
            end = self.upwards(&mut device_in, &mut gateway_out, &pending) => end,
            end = self.downwards(&mut gateway_in, &mut device_out, &device, &pending) => end,
            _ = paused.wait_for(|set| set.contains(&device)) => Ok(()),
        }
    }

    async fn upwards(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        pending: &Mutex<HashMap<u16, Vec<u8>>>,
    ) -> Result<()> {
        each_chunk(from, to, |packets| {
            let mut pending = pending.lock().expect("no panic while locked");
            for (id, payload) in packets.iter().filter_map(|packet| mqtt::publish(packet)) {
                pending.insert(id, payload.to_vec());
            }
            Ok(())
        })
        .await
    }

    async fn downwards(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        device: &str,
        pending: &Mutex<HashMap<u16, Vec<u8>>>,
    ) -> Result<()> {
        each_chunk(from, to, |packets| {
            let mut lines = String::new();
            let mut pending = pending.lock().expect("no panic while locked");
            for (id, reason) in packets.iter().filter_map(|packet| mqtt::puback(packet)) {
                let Some(message) = pending.remove(&id) else {
                    bail!("a PUBACK for packet {id}, which nobody sent")
                };
                let sealed = Sealed::read(&message)?;
                lines += &format!("ack {} {device} {reason} {sealed}\n", self.options.gateway);
                if reason == 0 {
                    std::fs::write(
                        self.options.out.with_file_name(format!("{device}.last")),
                        &message,
                    )?;
                }
            }
            drop(pending);
            tokio::task::block_in_place(|| self.write_down(&lines))
        })
        .await
    }

    fn write_down(&self, lines: &str) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let turn = self.writing.lock().expect("no panic while locked");
        (&self.record).write_all(lines.as_bytes())?;
        drop(turn);
        self.record.sync_data().context("the record cannot be made durable")
    }
}

/// Hands whole packets to `look` before they pass on.
async fn each_chunk(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut look: impl FnMut(&[Vec<u8>]) -> Result<()>,
) -> Result<()> {
    let mut splitter = Splitter::default();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            to.shutdown().await?;
            return Ok(());
        }
        splitter.push(&buffer[..n]);
        let mut packets = Vec::new();
        while let Some(packet) = splitter.next_packet()? {
            packets.push(packet);
        }
        look(&packets)?;
        to.write_all(&packets.concat()).await?;
        to.flush().await?;
    }
}

/// One line of a record.
#[derive(Clone, Debug)]
pub struct Ack {
    pub gateway: String,
    pub device: String,
    pub reason: u8,
    pub sealed: Sealed,
}

impl Ack {
    /// PUBACK 0x00: the gateway has taken it.
    pub fn took(&self) -> bool {
        self.reason == 0
    }
}

/// Reads a record. A last line without its end is one whose PUBACK was never passed on.
pub fn read(path: &Path) -> Result<Vec<Ack>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("no record {}", path.display()))?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| parse(line).with_context(|| format!("not a line of a record: {line:?}")))
        .collect()
}

fn parse(line: &str) -> Option<Ack> {
    let mut words = line.split(' ');
    (words.next()? == "ack").then_some(())?;
    Some(Ack {
        gateway: words.next()?.to_owned(),
        device: words.next()?.to_owned(),
        reason: words.next()?.parse().ok()?,
        sealed: Sealed {
            key: words.next()?.to_owned(),
            epoch: words.next()?.parse().ok()?,
            sequence: words.next()?.parse().ok()?,
            readings: words.next()?.parse().ok()?,
        },
    })
}
