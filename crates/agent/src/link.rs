//! The way to the gateways: one connection at a time, the next gateway when one fails, the backlog in order over each.

use crate::backlog::Outbox;
use crate::driver::{Seen, Word};
use crate::session::{Effect, Event, Offered, Session, Timer, Why};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Name lookup, TCP and TLS together.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// The first wait after a failure; it doubles with each one that follows, up to the longest. Each is drawn between half of
/// it and the whole, so that a thousand devices do not come back at once.
const WAIT_MS: u64 = 250;
const WAIT_MS_MAX: u64 = 30_000;
/// Envelopes are read from the backlog in portions of at most so many bytes.
const READ_BYTES_MAX: usize = 256 * 1024;

/// A gateway as it is written in `--gateway NAME@HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub name: model::GatewayId,
    /// `host:port`.
    pub address: String,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected NAME@HOST:PORT, found {text:?}");
        let (name, address) = text.split_once('@').ok_or_else(wrong)?;
        let (_, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        port.parse::<u16>().map_err(|_| wrong())?;
        let name = model::GatewayId::new(name).map_err(|bad| bad.to_string())?;
        Ok(Self { name, address: address.to_owned() })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.address)
    }
}

/// What the link works with.
pub struct Link {
    pub device: String,
    pub site: String,
    /// In order of preference; at least one.
    pub gateways: Vec<Place>,
    /// The device's newest TLS identity.
    pub tls: watch::Receiver<Arc<ClientConfig>>,
    pub outbox: Outbox,
    pub seen: watch::Receiver<Seen>,
    pub words: mpsc::Sender<Word>,
    /// Rung to leave this gateway for the next one.
    pub move_on: Arc<Notify>,
    /// True once the link is to end.
    pub stop: watch::Receiver<bool>,
}

/// How a connection ended.
enum End {
    /// It was told to.
    Stopped,
    MovedOn,
    /// It stood for a while and then did not.
    Broke(String),
    /// No session came about.
    Failed(String),
    /// The gateway would not take an envelope now.
    NotNow(String),
}

impl Link {
    /// Runs until it is stopped.
    pub async fn run(mut self) {
        let (mut at, mut failures) = (0, 0);
        while !*self.stop.borrow() {
            let place = self.gateways[at % self.gateways.len()].clone();
            let mut wait = true;
            match self.connection(&place).await {
                Ok(End::Stopped) => return,
                Ok(End::MovedOn) => {
                    tracing::info!(gateway = %place.name, "moves on to the next gateway");
                    (at, failures, wait) = (at + 1, 0, false);
                }
                Ok(End::Broke(why)) => {
                    tracing::info!(gateway = %place.name, why, "session ended");
                    failures = 1;
                }
                Ok(End::NotNow(why)) => {
                    tracing::info!(gateway = %place.name, why, "envelope kept for later");
                    failures += 1;
                }
                Ok(End::Failed(why)) => {
                    tracing::info!(gateway = %place.name, why, "no session");
                    (at, failures) = (at + 1, failures + 1);
                }
                Err(error) => {
                    tracing::info!(gateway = %place.name, %error, "no connection");
                    (at, failures) = (at + 1, failures + 1);
                }
            }
            if wait {
                tokio::select! {
                    () = tokio::time::sleep(back_off(failures)) => {}
                    () = self.move_on.notified() => at += 1,
                    () = stopped(&mut self.stop) => return,
                }
            }
        }
    }

    async fn connection(&mut self, place: &Place) -> std::io::Result<End> {
        let name = format!("{}.gateway.{}.internal", place.name, self.site);
        let name = ServerName::try_from(name).map_err(std::io::Error::other)?;
        let connector = TlsConnector::from(self.tls.borrow_and_update().clone());
        let connect = async {
            let socket = TcpStream::connect(&place.address).await?;
            socket.set_nodelay(true)?;
            connector.connect(name, socket).await
        };
        let stream = tokio::select! {
            connected = tokio::time::timeout(CONNECT_TIME_MAX, connect) => connected??,
            () = stopped(&mut self.stop) => return Ok(End::Stopped),
        };
        Connection::new(stream, &self.device).run(self, place).await
    }
}

/// Resolves when the link is to end, or nobody is left to say so.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn back_off(failures: u32) -> Duration {
    let longest = (WAIT_MS << failures.saturating_sub(1).min(7)).min(WAIT_MS_MAX);
    let mut byte = [0; 2];
    // Without randomness all devices wait alike, which is worse for the gateway and no worse for the device.
    let _ = getrandom::fill(&mut byte);
    let share = u64::from(u16::from_le_bytes(byte));
    Duration::from_millis(longest / 2 + (longest / 2 * share) / u64::from(u16::MAX))
}

struct Connection {
    stream: TlsStream<TcpStream>,
    session: Session,
    effects: Vec<Effect>,
    timers: HashMap<Timer, Instant>,
    /// The first serial that was not offered in this session.
    next: u64,
    opened: bool,
}

impl Connection {
    fn new(stream: TlsStream<TcpStream>, device: &str) -> Self {
        let (session, effects) = Session::new(device);
        Self { stream, session, effects, timers: HashMap::new(), next: 0, opened: false }
    }

    async fn run(mut self, link: &mut Link, place: &Place) -> std::io::Result<End> {
        self.next = link.outbox.below();
        let mut buffer = vec![0; 16 * 1024];
        loop {
            self.offer(link).await;
            if let Some(why) = self.carry_out(link, place).await? {
                let text = why.to_string();
                return Ok(match (why, self.opened) {
                    (Why::NotNow { .. }, _) => End::NotNow(text),
                    (_, true) => End::Broke(text),
                    (_, false) => End::Failed(text),
                });
            }
            let wants_more = self.session.room() > 0;
            if wants_more && self.next < link.seen.borrow().end {
                // The session has just opened, or PUBACKs have made room.
                continue;
            }
            let (timer, due) = self.next_timer();
            tokio::select! {
                read = self.stream.read(&mut buffer) => match read {
                    Ok(0) => return Ok(self.lost("the gateway closed the connection")),
                    Ok(n) => self.effects = self.session.on(Event::Bytes(&buffer[..n])),
                    Err(error) => return Ok(self.lost(&error.to_string())),
                },
                () = tokio::time::sleep_until(due) => {
                    self.timers.remove(&timer);
                    self.effects = self.session.on(Event::Woken(timer));
                }
                changed = link.seen.changed(), if wants_more => {
                    if changed.is_err() {
                        return self.goodbye(End::Stopped).await;
                    }
                }
                () = link.move_on.notified() => return self.goodbye(End::MovedOn).await,
                () = stopped(&mut link.stop) => return self.goodbye(End::Stopped).await,
            }
        }
    }

    fn lost(&self, why: &str) -> End {
        if self.opened { End::Broke(why.to_owned()) } else { End::Failed(why.to_owned()) }
    }

    /// Offers what is durable and was not offered yet, as far as the gateway has room.
    async fn offer(&mut self, link: &mut Link) {
        let end = link.seen.borrow_and_update().end;
        while self.session.room() > 0 && self.next < end {
            let batch = match link.outbox.read(self.next, self.session.room(), READ_BYTES_MAX) {
                Ok(batch) => batch,
                Err(error) => {
                    tracing::error!(%error, "the backlog cannot be read");
                    return;
                }
            };
            for item in batch.items {
                let serial = item.serial;
                let (offered, effects) = self.session.publish(serial, item.envelope);
                self.effects.extend(effects);
                if let Offered::TooLong { packet, max } = offered {
                    tracing::warn!(
                        serial,
                        packet,
                        max,
                        "the gateway takes no packet as long as this"
                    );
                    let _ = link.words.send(Word::Refused(serial)).await;
                }
            }
            // What lies behind the last one that is readable was dropped or is damaged: not to be offered.
            self.next = batch.next.max(self.next + 1);
        }
    }

    async fn carry_out(&mut self, link: &mut Link, place: &Place) -> std::io::Result<Option<Why>> {
        let mut out = Vec::new();
        let mut close = None;
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Send(bytes) => out.extend(bytes),
                Effect::Open { nonce } => {
                    self.opened = true;
                    tracing::info!(gateway = %place.name, "session stands");
                    if let Some(nonce) = nonce {
                        let _ = link.words.send(Word::Heard(nonce)).await;
                    }
                }
                Effect::Done { serial } => {
                    let _ = link.words.send(Word::Done(serial)).await;
                }
                Effect::Refused { serial, code } => {
                    tracing::warn!(serial, code, "refused for good");
                    let _ = link.words.send(Word::Refused(serial)).await;
                }
                Effect::WakeIn { timer, ms } => {
                    self.timers.insert(timer, Instant::now() + Duration::from_millis(ms));
                }
                Effect::NoWake(timer) => {
                    self.timers.remove(&timer);
                }
                Effect::Close(why) => close = Some(why),
            }
        }
        if !out.is_empty() {
            self.stream.write_all(&out).await?;
            self.stream.flush().await?;
        }
        Ok(close)
    }

    fn next_timer(&self) -> (Timer, Instant) {
        let far = Instant::now() + Duration::from_secs(3600);
        let next = self.timers.iter().min_by_key(|(_, due)| **due);
        next.map_or((Timer::Ping, far), |(timer, due)| (*timer, *due))
    }

    async fn goodbye(mut self, end: End) -> std::io::Result<End> {
        for effect in self.session.leave() {
            if let Effect::Send(bytes) = effect {
                self.stream.write_all(&bytes).await?;
            }
        }
        self.stream.shutdown().await?;
        Ok(end)
    }
}
