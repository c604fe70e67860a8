//! The way to the gateways: one connection at a time, the next gateway when one fails, the backlog in order over each.
//!
//! | how a connection ended | the next one goes | after |
//! | --- | --- | --- |
//! | told to move on (SIGHUP) | to the next gateway | no wait |
//! | it had brought something, or stood for 30 s | to the same gateway | 125 to 250 ms |
//! | nothing brought, "not now" (PUBACK 0x87, 0x97, ...) | three times to the same gateway, then to the next | doubling, to 30 s |
//! | nothing brought: unreachable, TLS, refused, silent, packets too small | to the next gateway | doubling, to 30 s |
//!
//! After the last gateway of the list the first one is next. The link stays with a gateway that works: the order of the
//! list says where to begin and where to go on, not where to return to.

use crate::backlog::{BacklogError, Item, Outbox};
use crate::driver::Word;
use crate::session::{Effect, Event, Offered, Session, Timer, Why};
use crate::status::Seen;
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
/// How long the gateway may take to accept what it has room for.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a goodbye may take: the other end may be gone.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(1);
/// A session that brought nothing in so long had nothing to bring.
const STOOD: Duration = Duration::from_secs(30);
/// How often in a row a gateway may say "not now" before the next one is asked.
const NOT_NOW_MAX: u32 = 4;
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
    Lost {
        how: How,
        why: String,
    },
    /// The backlog cannot be read. The next start steps over what is damaged, and states it.
    Unreadable(BacklogError),
}

/// What a connection that was lost had been good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Something was acknowledged, or the session stood for long.
    Worked,
    /// The gateway would not take an envelope now, and took none before.
    NotNow,
    Failed,
}

impl How {
    /// Whether to try the next gateway, and how many failures in a row that makes.
    fn then(self, failures: u32) -> (bool, u32) {
        match self {
            Self::Worked => (false, 1),
            Self::NotNow => (failures + 1 >= NOT_NOW_MAX, failures.saturating_add(1)),
            Self::Failed => (true, failures.saturating_add(1)),
        }
    }
}

impl Link {
    /// Runs until it is stopped. An error says that the backlog cannot be read: the agent must start again.
    pub async fn run(mut self) -> Result<(), BacklogError> {
        let (mut at, mut failures) = (0usize, 0);
        while !*self.stop.borrow() {
            let place = self.gateways[at % self.gateways.len()].clone();
            match self.connection(&place).await {
                End::Stopped => return Ok(()),
                End::Unreadable(error) => return Err(error),
                End::MovedOn => {
                    tracing::info!(gateway = %place.name, "moves on to the next gateway");
                    (at, failures) = (at.wrapping_add(1), 0);
                    continue;
                }
                End::Lost { how, why } => {
                    let (goes_on, count) = how.then(failures);
                    (at, failures) = (at.wrapping_add(usize::from(goes_on)), count);
                    tracing::info!(gateway = %place.name, why, failures, "no session");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(back_off(failures)) => {}
                () = self.move_on.notified() => at = at.wrapping_add(1),
                () = stopped(&mut self.stop) => return Ok(()),
            }
        }
        Ok(())
    }

    async fn connection(&mut self, place: &Place) -> End {
        let failed = |why: String| End::Lost { how: How::Failed, why };
        let name = format!("{}.gateway.{}.internal", place.name, self.site);
        let name = match ServerName::try_from(name) {
            Ok(name) => name,
            Err(error) => return failed(error.to_string()),
        };
        let connector = TlsConnector::from(self.tls.borrow_and_update().clone());
        let connect = async {
            let socket = TcpStream::connect(&place.address).await?;
            socket.set_nodelay(true)?;
            connector.connect(name, socket).await
        };
        let connected = tokio::select! {
            connected = tokio::time::timeout(CONNECT_TIME_MAX, connect) => connected,
            () = stopped(&mut self.stop) => return End::Stopped,
        };
        match connected {
            Ok(Ok(stream)) => Connection::new(stream, &self.device).run(self, place).await,
            Ok(Err(error)) => failed(format!("no connection: {error}")),
            Err(_) => failed("no connection within 10 s".to_owned()),
        }
    }
}

/// A sender that is gone says stop, too.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn back_off(failures: u32) -> Duration {
    let longest = (WAIT_MS << failures.saturating_sub(1).min(7)).min(WAIT_MS_MAX);
    let mut bytes = [0; 2];
    // Without randomness all devices wait alike, which is worse for the gateway and no worse for the device.
    let _ = getrandom::fill(&mut bytes);
    let share = u64::from(u16::from_le_bytes(bytes));
    Duration::from_millis(longest / 2 + (longest / 2 * share) / u64::from(u16::MAX))
}

struct Connection {
    stream: TlsStream<TcpStream>,
    session: Session,
    effects: Vec<Effect>,
    timers: HashMap<Timer, Instant>,
    /// The first serial that was not offered in this session.
    next: u64,
    opened: Option<Instant>,
    /// Something was acknowledged.
    brought: bool,
    /// An envelope is longer than this gateway takes.
    too_long: Option<String>,
}

impl Connection {
    fn new(stream: TlsStream<TcpStream>, device: &str) -> Self {
        let (session, effects) = Session::new(device);
        let (opened, brought, too_long) = (None, false, None);
        let timers = HashMap::new();
        Self { stream, session, effects, timers, next: 0, opened, brought, too_long }
    }

    async fn run(mut self, link: &mut Link, place: &Place) -> End {
        self.next = link.outbox.below();
        let mut buffer = vec![0; 16 * 1024];
        loop {
            if let Err(error) = self.offer(link) {
                return End::Unreadable(error);
            }
            match self.carry_out(link, place).await {
                Ok(None) => {}
                Ok(Some(why)) => return self.closed(&why).await,
                Err(error) => return self.lost(error.to_string()),
            }
            if let Some(why) = self.too_long.take().filter(|_| self.session.is_idle()) {
                self.goodbye().await;
                return self.lost(why);
            }
            let (timer, due) = self.next_timer();
            let wants_more = self.session.room() > 0 && self.too_long.is_none();
            tokio::select! {
                read = self.stream.read(&mut buffer) => match read {
                    Ok(0) => return self.lost("the gateway closed the connection".to_owned()),
                    Ok(n) => self.effects = self.session.on(Event::Bytes(&buffer[..n])),
                    Err(error) => return self.lost(error.to_string()),
                },
                () = tokio::time::sleep_until(due) => {
                    self.timers.remove(&timer);
                    self.effects = self.session.on(Event::Woken(timer));
                }
                changed = link.seen.changed(), if wants_more => {
                    if changed.is_err() {
                        self.goodbye().await;
                        return End::Stopped;
                    }
                }
                () = link.move_on.notified() => {
                    self.goodbye().await;
                    return End::MovedOn;
                }
                () = stopped(&mut link.stop) => {
                    self.goodbye().await;
                    return End::Stopped;
                }
            }
        }
    }

    async fn closed(mut self, why: &Why) -> End {
        let _ = tokio::time::timeout(GOODBYE_TIME_MAX, self.stream.shutdown()).await;
        match why {
            Why::NotNow { .. } if !self.brought => {
                End::Lost { how: How::NotNow, why: why.to_string() }
            }
            _ => self.lost(why.to_string()),
        }
    }

    fn lost(&self, why: String) -> End {
        let stood = self.opened.is_some_and(|opened| opened.elapsed() >= STOOD);
        End::Lost { how: if self.brought || stood { How::Worked } else { How::Failed }, why }
    }

    /// Offers what is durable and was not offered yet, as far as the gateway has room.
    fn offer(&mut self, link: &mut Link) -> Result<(), BacklogError> {
        let end = link.seen.borrow_and_update().end;
        while self.session.room() > 0 && self.next < end && self.too_long.is_none() {
            let batch = link.outbox.read(self.next, self.session.room(), READ_BYTES_MAX)?;
            match publish(&mut self.session, batch.items, &mut self.effects) {
                // What lies behind the last one that is readable was dropped or is damaged: not to be offered.
                Published::All => self.next = batch.next.max(self.next + 1),
                Published::Below(serial) => {
                    self.next = serial;
                    return Ok(());
                }
                // Another gateway may take it: it is not lost, and nothing goes before it.
                Published::TooLong { why } => self.too_long = Some(why),
            }
        }
        Ok(())
    }

    async fn carry_out(&mut self, link: &mut Link, place: &Place) -> std::io::Result<Option<Why>> {
        let mut out = Vec::new();
        let mut close = None;
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Send(bytes) => out.extend(bytes),
                Effect::Open { nonce } => {
                    self.opened = Some(Instant::now());
                    tracing::info!(gateway = %place.name, "session stands");
                    if let Some(nonce) = nonce {
                        let _ = link.words.send(Word::Heard(nonce)).await;
                    }
                }
                Effect::Done { serial } => {
                    self.brought = true;
                    let _ = link.words.send(Word::Done(serial)).await;
                }
                Effect::Refused { serial, code } => {
                    tracing::warn!(gateway = %place.name, serial, code, "refused for good");
                    self.brought = true;
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
            let write = async {
                self.stream.write_all(&out).await?;
                self.stream.flush().await
            };
            match tokio::time::timeout(WRITE_TIME_MAX, write).await {
                Ok(written) => written?,
                Err(_) => return Err(std::io::Error::other("it reads nothing for 30 s")),
            }
        }
        Ok(close)
    }

    fn next_timer(&self) -> (Timer, Instant) {
        let far = Instant::now() + Duration::from_secs(3600);
        let next = self.timers.iter().min_by_key(|(_, due)| **due);
        next.map_or((Timer::Ping, far), |(timer, due)| (*timer, *due))
    }

    async fn goodbye(&mut self) {
        let effects = self.session.leave();
        let say = async {
            for effect in effects {
                if let Effect::Send(bytes) = effect {
                    self.stream.write_all(&bytes).await?;
                }
            }
            self.stream.shutdown().await
        };
        // Whoever leaves does not wait for the one that is left.
        let _ = tokio::time::timeout(GOODBYE_TIME_MAX, say).await;
    }
}

/// How far a portion of the backlog went out.
#[derive(Debug, PartialEq, Eq)]
enum Published {
    All,
    /// This one and what follows is to be offered again: an acknowledgement of a later one would count for it too.
    Below(u64),
    TooLong {
        why: String,
    },
}

fn publish(session: &mut Session, items: Vec<Item>, effects: &mut Vec<Effect>) -> Published {
    for Item { serial, envelope } in items {
        let (offered, more) = session.publish(serial, envelope);
        effects.extend(more);
        match offered {
            Offered::Sent => {}
            Offered::Full => return Published::Below(serial),
            Offered::TooLong { packet, max } => {
                let why =
                    format!("it takes packets of {max} bytes, envelope {serial} needs {packet}");
                return Published::TooLong { why };
            }
        }
    }
    Published::All
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_for_which_there_was_no_place_in_flight_is_offered_again() {
        let mut session = Session::new("pump-7").0;
        // CONNACK: accepted, Receive Maximum 2.
        session.on(Event::Bytes(&[0x20, 6, 0, 0, 3, 0x21, 0, 2]));
        let items = |serials: &[u64]| -> Vec<Item> {
            serials.iter().map(|s| Item { serial: *s, envelope: vec![1; 9] }).collect()
        };
        let mut effects = Vec::new();
        let published = publish(&mut session, items(&[5, 7, 8, 9]), &mut effects);
        assert_eq!(published, Published::Below(8));
        let is_sent = |effect: &&Effect| matches!(effect, Effect::Send(_));
        assert_eq!(effects.iter().filter(is_sent).count(), 2);
        // PUBACK of the first.
        effects = session.on(Event::Bytes(&[0x40, 3, 0, 1, 0]));
        assert!(effects.contains(&Effect::Done { serial: 5 }), "{effects:?}");
        assert_eq!(publish(&mut session, items(&[8]), &mut effects), Published::All);
        assert_eq!(publish(&mut session, items(&[9]), &mut effects), Published::Below(9));
    }

    #[test]
    fn a_gateway_is_written_as_name_and_place() {
        let place: Place = "gw-1@127.0.0.1:18801".parse().unwrap();
        assert_eq!((place.name.as_str(), place.address.as_str()), ("gw-1", "127.0.0.1:18801"));
        assert_eq!(place.to_string(), "gw-1@127.0.0.1:18801");
        assert_eq!("g@[::1]:1".parse::<Place>().unwrap().address, "[::1]:1");
        for (text, expected) in [
            ("gw-1", "expected NAME@HOST:PORT, found \"gw-1\""),
            ("gw-1@host", "expected NAME@HOST:PORT, found \"gw-1@host\""),
            ("gw-1@host:70000", "expected NAME@HOST:PORT, found \"gw-1@host:70000\""),
            (
                "GW@host:1",
                "bad gateway id: expected 1 to 63 of a-z 0-9 . _ - starting with a letter or digit, found \"GW\"",
            ),
        ] {
            assert_eq!(text.parse::<Place>().unwrap_err(), expected);
        }
    }

    #[test]
    fn waits_double_up_to_half_a_minute_and_never_vanish() {
        for (failures, longest) in
            [(0, 250), (1, 250), (2, 500), (5, 4_000), (8, 30_000), (u32::MAX, 30_000)]
        {
            for _ in 0..32 {
                let wait = back_off(failures).as_millis() as u64;
                assert!((longest / 2..=longest).contains(&wait), "{failures}: {wait}");
            }
        }
    }

    #[test]
    fn a_gateway_that_works_is_kept_and_one_that_does_not_is_left() {
        assert_eq!(How::Worked.then(7), (false, 1));
        assert_eq!(How::Failed.then(0), (true, 1));
        let mut failures = 0;
        let moves: Vec<bool> = (0..6)
            .map(|_| {
                let (goes_on, count) = How::NotNow.then(failures);
                failures = count;
                goes_on
            })
            .collect();
        assert_eq!(moves, [false, false, false, true, true, true]);
    }
}
