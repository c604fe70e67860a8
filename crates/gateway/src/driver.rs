//! One connection of a device: bytes in, effects out. Does IO, decides nothing: [`crate::session`] and
//! [`crate::admission`] do.

use crate::admission::judge;
use crate::bundle::{Peer, View};
use crate::config::Config;
use crate::control::now;
use crate::http::Desk;
use crate::limits::Pace;
use crate::metrics::{Invariant, Metrics};
use crate::refusal::Refusal;
use crate::session::{Answer, Effect, Event, Session};
use crate::spool::{Inlet, Record, Spool};
use crate::traced::Arrived;
use arc_swap::ArcSwap;
use model::{DeviceId, Nonce};
use rustls::ServerConfig;
use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_rustls::server::TlsStream;

/// What is read at a time; a packet that is longer comes in pieces.
const CHUNK_BYTES: usize = 8 * 1024;
/// Who has not read our few bytes for so long does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection that we end is still drained, so that its last packet is not lost to a reset.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// What all connections share.
pub(crate) struct Station {
    pub config: Config,
    pub site: String,
    pub metrics: Metrics,
    pub spool: Spool,
    pub views: watch::Receiver<Option<Arc<View>>>,
    pub tls: ArcSwap<ServerConfig>,
    pub began: Instant,
    pub desk: Desk,
    sessions: Mutex<Sessions>,
    paces: Mutex<HashMap<DeviceId, Pace>>,
}

/// The one open session of each device.
#[derive(Default)]
struct Sessions {
    open: HashMap<DeviceId, (u64, oneshot::Sender<()>)>,
    next: u64,
}

impl Station {
    #[expect(clippy::too_many_arguments, reason = "each is another part of the station")]
    pub fn new(
        config: Config,
        site: String,
        metrics: Metrics,
        spool: Spool,
        views: watch::Receiver<Option<Arc<View>>>,
        tls: Arc<ServerConfig>,
        desk: Desk,
        began: Instant,
    ) -> Self {
        Self {
            config,
            site,
            metrics,
            spool,
            views,
            tls: ArcSwap::new(tls),
            began,
            desk,
            sessions: Mutex::default(),
            paces: Mutex::default(),
        }
    }

    pub fn uptime(&self) -> Duration {
        self.began.elapsed()
    }

    /// Forgets the pace of devices that are gone.
    pub fn retain_devices(&self, view: &View) {
        self.paces().retain(|device, _| view.knows_device(device));
        self.desk.retain_devices(view);
    }

    /// A session opens: an older one of the same device hears of it.
    fn enter(&self, device: &DeviceId) -> (u64, oneshot::Receiver<()>) {
        let (taken_over, over) = oneshot::channel();
        let mut sessions = self.sessions();
        let number = sessions.next;
        sessions.next += 1;
        // Dropping the older one's sender tells it.
        sessions.open.insert(device.clone(), (number, taken_over));
        self.metrics.sessions.set(sessions.open.len() as i64);
        (number, over)
    }

    fn leave(&self, device: &DeviceId, number: u64) {
        let mut sessions = self.sessions();
        if sessions.open.get(device).is_some_and(|(open, _)| *open == number) {
            sessions.open.remove(device);
        }
        self.metrics.sessions.set(sessions.open.len() as i64);
        self.metrics.sessions_ended.inc();
    }

    /// Charges what was read, and says for how long not to read.
    fn charge(&self, device: &DeviceId, packets: u64, bytes: u64) -> Duration {
        let now = self.uptime();
        let mut paces = self.paces();
        if !paces.contains_key(device) {
            paces.insert(device.clone(), Pace::new(self.config.packets, self.config.bytes));
        }
        let pace = paces.get_mut(device).expect("it was put there");
        pace.charge(packets, bytes, now);
        pace.wait(now)
    }

    /// Judges a message and offers it to the spool. `Err`: the answer, at once. `Ok`: it comes into the inbox, and what is
    /// told of it then.
    fn admit(
        &self,
        session: &Session,
        device: &DeviceId,
        place: u64,
        message: Vec<u8>,
        inlet: &mut Inlet,
    ) -> Result<Option<Arrived>, Answer> {
        let (view, received_at) = (session.view(), now());
        let claim = judge(view, device, &session.nonce(), &message).map_err(Answer::Refused)?;
        let arrived = Arrived::of(&self.config.traces, device, &claim, &message, received_at);
        let answer = self.spool.offer(&claim, inlet, place, || Record {
            device: device.clone(),
            key: claim.key,
            counter: claim.counter,
            digest: claim.digest,
            received_at,
            uncertainty_ms: self.config.clock_uncertainty_ms,
            fresh: claim.fresh,
            bundle: view.generation,
            message,
        });
        if answer == Some(Answer::Refused(Refusal::Forged)) {
            let (epoch, sequence) = (claim.counter.epoch, claim.counter.sequence);
            tracing::error!(%device, key = %claim.key, epoch, sequence, "two messages under one counter");
        }
        answer.map_or(Ok(arrived), Err)
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().expect("nothing panics while it holds the sessions")
    }

    fn paces(&self) -> MutexGuard<'_, HashMap<DeviceId, Pace>> {
        self.paces.lock().expect("nothing panics while it holds the paces")
    }
}

/// Serves one connection to its end. `began`: when it was accepted.
pub(crate) async fn serve(
    station: Arc<Station>,
    stream: TlsStream<TcpStream>,
    peer: Peer,
    from: SocketAddr,
    began: Duration,
    stop: watch::Receiver<bool>,
) {
    let mut views = station.views.clone();
    // What is seen here is what the session starts with: a newer one from now on is a change.
    let Some(view) = views.borrow_and_update().clone() else { return };
    let mut nonce = [0; 16];
    if let Err(error) = getrandom::fill(&mut nonce) {
        // Without a nonce nothing could ever be fresh.
        tracing::error!(%error, "no randomness for a session");
        return;
    }
    let terms = station.config.terms;
    let (inbox, answers) = mpsc::channel(usize::from(terms.receive_maximum));
    let session = Session::new(terms, peer.clone(), Nonce(nonce), view, began);
    let who = peer.device.as_ref().map_or_else(|| from.to_string(), DeviceId::to_string);
    let (device, inlet) = (peer.device, Inlet::new(inbox));
    let (over, arrived) = (None, HashMap::new());
    let mut connection = Connection { station, stream, session, device, who, inlet, over, arrived };
    connection.run(answers, views, stop).await;
    if let (Some((number, _)), Some(device)) = (&connection.over, &connection.device) {
        connection.station.leave(device, *number);
    }
}

struct Connection {
    station: Arc<Station>,
    stream: TlsStream<TcpStream>,
    session: Session,
    device: Option<DeviceId>,
    who: String,
    inlet: Inlet,
    /// The number of the open session, and how it hears of a newer one.
    over: Option<(u64, oneshot::Receiver<()>)>,
    /// Messages that are traced and have no answer yet, by their places: as many at most as may be in flight.
    arrived: HashMap<u64, Arrived>,
}

impl Connection {
    async fn run(
        &mut self,
        mut answers: mpsc::Receiver<(u64, Answer)>,
        mut views: watch::Receiver<Option<Arc<View>>>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut chunk = vec![0; CHUNK_BYTES];
        // Until when this socket is not read from, and since when.
        let mut held: Option<(Duration, Duration)> = None;
        while let Some(deadline) = self.session.deadline() {
            let until = held.map_or(deadline, |(_, until)| until);
            let until = tokio::time::Instant::from_std(self.station.began + until);
            // An older bundle decides nothing once a newer one is there: this comes before any byte is looked at.
            let effects = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => self.on(Event::ShuttingDown),
                () = taken_over(&mut self.over) => self.on(Event::TakenOver),
                Ok(()) = views.changed() => {
                    let view = views.borrow_and_update().clone();
                    view.map_or_else(Vec::new, |view| self.on(Event::View(view)))
                }
                Some((place, answer)) = answers.recv() => {
                    let mut effects = self.answered(place, answer);
                    while let Ok((place, answer)) = answers.try_recv() {
                        effects.extend(self.answered(place, answer));
                    }
                    effects
                }
                () = tokio::time::sleep_until(until) => match held.take() {
                    Some((since, until)) => {
                        let time = until.saturating_sub(since);
                        self.station.metrics.held_back_ms.inc_by(time.as_millis() as u64);
                        self.on(Event::HeldBack(time))
                    }
                    None => self.on(Event::Tick),
                },
                read = self.stream.read(&mut chunk), if held.is_none() => {
                    // A client that hangs up without a word, or breaks TLS, is gone.
                    let Ok(len @ 1..) = read else { return };
                    self.read(&chunk[..len], &mut held)
                }
            };
            if !self.carry_out(effects).await {
                return;
            }
        }
    }

    fn on(&mut self, event: Event<'_>) -> Vec<Effect> {
        let now = self.station.uptime();
        self.session.on(event, now)
    }

    /// What the spool said of a message.
    fn answered(&mut self, place: u64, answer: Answer) -> Vec<Effect> {
        if let (Some(arrived), Some(device)) = (self.arrived.remove(&place), &self.device)
            && answer == Answer::Accepted
        {
            let gateway = &self.session.view().gateway;
            arrived.tell(&self.station.config.traces, device, gateway, now());
        }
        self.on(Event::Answered { place, answer })
    }

    fn read(&mut self, bytes: &[u8], held: &mut Option<(Duration, Duration)>) -> Vec<Effect> {
        let before = self.session.packets();
        let effects = self.on(Event::Bytes(bytes));
        let packets = self.session.packets() - before;
        self.station.metrics.packets.inc_by(packets);
        if let Some(device) = self.device.as_ref().filter(|_| self.session.is_open()) {
            let wait = self.station.charge(device, packets, bytes.len() as u64);
            if !wait.is_zero() {
                let now = self.station.uptime();
                *held = Some((now, now + wait));
            }
        }
        effects
    }

    /// Does what the session says, in order. Says whether the connection goes on.
    async fn carry_out(&mut self, effects: Vec<Effect>) -> bool {
        let mut effects = VecDeque::from(effects);
        let mut out = Vec::new();
        let mut close = false;
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Send(bytes) => out.extend_from_slice(&bytes),
                Effect::Open => {
                    let Some(device) = self.proven_device() else { return false };
                    self.over = Some(self.station.enter(&device));
                    tracing::info!(%device, "session opened");
                }
                Effect::Offer { place, message } => {
                    let Some(device) = self.proven_device() else { return false };
                    let (session, inlet) = (&self.session, &mut self.inlet);
                    match self.station.admit(session, &device, place, message, inlet) {
                        Ok(Some(arrived)) => drop(self.arrived.insert(place, arrived)),
                        Ok(None) => {}
                        Err(answer) => effects.extend(self.on(Event::Answered { place, answer })),
                    }
                }
                Effect::Refuse(refusal) => self.station.metrics.refuse(refusal, &self.who),
                Effect::Close => close = true,
            }
        }
        if !out.is_empty() {
            let write = async {
                self.stream.write_all(&out).await?;
                self.stream.flush().await
            };
            match tokio::time::timeout(WRITE_TIMEOUT, write).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return false,
                Err(_) => {
                    self.station.metrics.refuse(Refusal::SlowReader, &self.who);
                    return false;
                }
            }
        }
        if close {
            self.say_goodbye().await;
        }
        !close
    }

    /// Whom TLS proved to be the device at the other end. The session lets nobody else so far: this is the second look.
    fn proven_device(&self) -> Option<DeviceId> {
        let device = self.device.clone();
        if device.is_none() {
            let what = "a session is open that is no device's";
            self.station.metrics.violated(Invariant::Auth1, what);
        }
        device
    }

    /// Ends TLS and TCP in this direction, and lets the peer read it: what it still sends is thrown away unread.
    async fn say_goodbye(&mut self) {
        let goodbye = async {
            self.stream.shutdown().await?;
            let mut left = LINGER_BYTES_MAX;
            let mut bytes = [0; 4096];
            let socket = self.stream.get_mut().0;
            while left > 0 {
                match socket.read(&mut bytes).await? {
                    0 => break,
                    len => left = left.saturating_sub(len),
                }
            }
            std::io::Result::Ok(())
        };
        let _ = tokio::time::timeout(LINGER, goodbye).await;
    }
}

async fn taken_over(over: &mut Option<(u64, oneshot::Receiver<()>)>) {
    match over {
        // Nobody sends: the sender is dropped.
        Some((_, over)) => drop(over.await),
        None => pending().await,
    }
}
