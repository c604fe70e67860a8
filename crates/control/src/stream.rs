//! Who listens hears what changes: server-sent events.
//!
//! One task reads each new event once and puts it into the tail that all listeners share; every listener has a task of its
//! own, which holds nothing but a place in it. A receiver that takes nothing for [`Limits::stream_stall`] is let go; one that
//! cannot follow hears `reset`.

use crate::call::Call;
use crate::changes::{Change, Fleet, KEPT_MAX, MANY, Round, Tail, texts};
use crate::config::Limits;
use crate::people::People;
use crate::principal::{Actor, Principal, Reach};
use crate::problem::Failure;
use crate::registry::RegistryError;
use crate::rollouts::call as rollouts;
use crate::station::{Phase, Station, now};
use crate::turns::{Turn, Turns};
use api::stream::{ChangeKind, LAST_EVENT_ID};
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures::stream;
use model::{DeviceId, RolloutId, told};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

/// What is no event is said so often. Also how soon it is tried again when events cannot be read.
const ROUND_TIME: Duration = Duration::from_secs(1);

/// How long a receiver waits before it comes again, in milliseconds.
const COME_AGAIN_MS: u64 = 2000;

/// What all listeners share.
pub(crate) struct Streams {
    tail: Mutex<Tail>,
    /// The number of the event that comes next, as far as the tail has them.
    events: watch::Sender<u64>,
    gathered: Mutex<Round>,
    rounds: watch::Sender<Arc<Round>>,
    places: Arc<Semaphore>,
    turns: Turns<Actor>,
    listening: AtomicUsize,
}

impl Streams {
    /// Streams of a registry that has so many events.
    pub fn new(events: u64, limits: &Limits) -> Self {
        // What there was before is told too, to whoever was away while this process was not there.
        let first = events.saturating_sub(KEPT_MAX as u64);
        let begun = Round::default().after();
        Self {
            tail: Mutex::new(Tail::at(first)),
            events: watch::Sender::new(first),
            rounds: watch::Sender::new(Arc::new(begun.clone())),
            gathered: Mutex::new(begun.after()),
            places: Arc::new(Semaphore::new(limits.streams_max)),
            turns: Turns::new("streams", limits.streams_each_max),
            listening: AtomicUsize::new(0),
        }
    }

    /// A device was heard.
    pub fn seen(&self, device: &DeviceId) {
        self.stir(ChangeKind::Seen, || format!("device/{device}"));
    }

    /// Something is another now, and no event says so. Cheap while nobody listens.
    pub fn stir(&self, kind: ChangeKind, subject: impl FnOnce() -> String) {
        if self.listening.load(Ordering::Relaxed) > 0 {
            self.gathered().add(kind, subject());
        }
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().expect("nothing panics while it holds the tail")
    }

    fn gathered(&self) -> MutexGuard<'_, Round> {
        self.gathered.lock().expect("nothing panics while it holds the round")
    }

    /// Says what was gathered since the last time.
    fn end_round(&self) {
        let mut gathered = self.gathered();
        if !gathered.is_empty() {
            let next = gathered.after();
            let over = std::mem::replace(&mut *gathered, next);
            self.rounds.send_replace(Arc::new(over));
        }
    }
}

/// Puts the newest events into the tail, before anybody listens.
pub(crate) async fn begin(station: &Station) -> Result<(), RegistryError> {
    take_events(station).await
}

/// Puts every event into the tail, until the station drains.
pub(crate) async fn tell(station: Arc<Station>) {
    let mut draining = pin!(station.reached(Phase::Draining));
    let mut events = station.registry.watch_events();
    events.mark_changed();
    let mut round = tokio::time::interval(ROUND_TIME);
    round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut behind = false;
    loop {
        tokio::select! {
            changed = events.changed() => match changed {
                Ok(()) => behind = true,
                Err(_) => return,
            },
            _ = round.tick() => station.streams.end_round(),
            () = draining.as_mut() => return,
        }
        if behind {
            match take_events(&station).await {
                Ok(()) => behind = false,
                Err(error) => tracing::warn!(error = %told(&error), "changes cannot be told now"),
            }
        }
    }
}

async fn take_events(station: &Station) -> Result<(), RegistryError> {
    let streams = &station.streams;
    loop {
        let from = streams.tail().reads_from(station.registry.events());
        let found = station.registry.told(from, None, KEPT_MAX).await?;
        if found.is_empty() {
            return Ok(());
        }
        // Whoever asks for what changed finds it: a rollout is moved in memory after its events are written.
        station.rollouts.settled().await;
        let next = {
            let mut tail = streams.tail();
            found.iter().for_each(|event| tail.push(event));
            tail.next()
        };
        streams.events.send_replace(next);
    }
}

pub(crate) async fn listen(station: &Arc<Station>, call: Call) -> Result<Response, Failure> {
    let person = call.person(station)?.clone();
    let heard = last_heard(&call)?;
    let streams = &station.streams;
    let turn = streams.turns.take(person.actor.clone())?;
    let place = streams.places.clone().try_acquire_owned().map_err(|_| {
        let max = station.limits.streams_max;
        Failure::busy(format!("expected at most {max} streams at a time, found one more"))
    })?;
    let (sender, receiver) = mpsc::channel(1);
    let listener = Listener {
        seat: Seat::taken(station, place, turn),
        sender,
        heard,
        rounds: streams.rounds.subscribe(),
        events: streams.events.subscribe(),
        people: station.registry.watch_people(),
        person,
    };
    tokio::spawn(listener.run());
    let body = stream::unfold(receiver, |mut receiver: mpsc::Receiver<String>| async {
        receiver.recv().await.map(|text| (Ok::<_, Infallible>(text), receiver))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The number of the event that the receiver heard last.
fn last_heard(call: &Call) -> Result<Option<u64>, Failure> {
    let Some(said) = call.head.headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let number: Option<u64> = said.to_str().ok().and_then(|said| said.parse().ok());
    match number.filter(|number| *number < u64::MAX) {
        Some(number) => Ok(Some(number)),
        None => {
            let detail =
                format!("expected the number of an event in Last-Event-ID, found {said:?}");
            Err(Failure::bad_request("bad_last_event_id", detail))
        }
    }
}

/// One of the places of a stream, for as long as it is taken.
struct Seat {
    station: Arc<Station>,
    _place: OwnedSemaphorePermit,
    _turn: Turn<Actor>,
}

impl Seat {
    fn taken(station: &Arc<Station>, place: OwnedSemaphorePermit, turn: Turn<Actor>) -> Self {
        station.streams.listening.fetch_add(1, Ordering::Relaxed);
        station.metrics.streams.inc();
        Self { station: station.clone(), _place: place, _turn: turn }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.station.streams.listening.fetch_sub(1, Ordering::Relaxed);
        self.station.metrics.streams.dec();
    }
}

struct Listener {
    seat: Seat,
    sender: mpsc::Sender<String>,
    heard: Option<u64>,
    rounds: watch::Receiver<Arc<Round>>,
    events: watch::Receiver<u64>,
    person: Arc<Principal>,
    /// Changes when somebody's rights do.
    people: watch::Receiver<Arc<People>>,
}

/// Why a stream ends: there is nobody to tell anything to.
struct Gone;

impl Listener {
    async fn run(mut self) {
        let draining = self.station().reached(Phase::Draining);
        tokio::select! {
            // It ends only when its receiver has gone, or may not hear any more.
            Err(Gone) = self.tell() => {}
            () = draining => {}
        }
    }

    fn station(&self) -> &Station {
        &self.seat.station
    }

    async fn tell(&mut self) -> Result<Infallible, Gone> {
        let mut round = self.rounds.borrow_and_update().number;
        let next = *self.events.borrow_and_update();
        self.send(format!("retry: {COME_AGAIN_MS}\n\n")).await?;
        let mut place = match self.heard {
            Some(last) => last + 1,
            None => {
                self.send(id_before(next)).await?;
                next
            }
        };
        let mut alive = tokio::time::interval(self.station().limits.stream_alive);
        alive.reset();
        loop {
            self.expect_let_in()?;
            place = self.tell_events(place).await?;
            round = self.tell_round(round).await?;
            tokio::select! {
                () = self.sender.closed() => return Err(Gone),
                changed = self.events.changed() => changed.map_err(|_| Gone)?,
                changed = self.rounds.changed() => changed.map_err(|_| Gone)?,
                changed = self.people.changed() => changed.map_err(|_| Gone)?,
                _ = alive.tick() => {
                    self.expect_let_in()?;
                    // With the number of what it was not to hear, too, so that it is not told to have missed it.
                    self.send(format!(": alive\n\n{}", id_before(place))).await?;
                }
            }
        }
    }

    /// A session ends, a token is revoked, rights become others: what was begun with them ends at once.
    fn expect_let_in(&mut self) -> Result<(), Gone> {
        let people = self.people.borrow_and_update().clone();
        match people.is_valid(&self.person, now(), self.station().limits.session_idle) {
            true => Ok(()),
            false => Err(Gone),
        }
    }

    /// Returns the place from which on there is nothing to tell yet.
    async fn tell_events(&mut self, place: u64) -> Result<u64, Gone> {
        self.events.mark_unchanged();
        let (next, changes) = {
            let tail = self.station().streams.tail();
            (tail.next(), tail.since(place))
        };
        match changes {
            Ok(changes) => self.tell_changes(changes).await?,
            Err(_) => {
                let (kind, subject) = (ChangeKind::Reset, MANY.into());
                self.send(id_before(next)).await?;
                self.tell_changes(vec![Change { kind, subject, sequence: None }]).await?;
            }
        }
        Ok(next)
    }

    async fn tell_round(&mut self, heard: u64) -> Result<u64, Gone> {
        let round = self.rounds.borrow_and_update().clone();
        if round.number > heard {
            self.tell_changes(round.since(heard)).await?;
        }
        Ok(round.number)
    }

    async fn tell_changes(&self, changes: Vec<Change>) -> Result<(), Gone> {
        let station = self.station();
        let (directory, people) = (station.registry.directory(), station.registry.people());
        let reaches_rollout = |id: &RolloutId, reach: &Reach| {
            let book = station.rollouts.book();
            let live = book.number(id).and_then(|number| book.live(number));
            live.is_some_and(|live| rollouts::is_reached(station, reach, live))
        };
        let fleet = Fleet { directory: &directory, people: &people, reaches_rollout };
        let may_hear = |change: &Change| fleet.may_hear(&self.person, change);
        let changes: Vec<Change> = changes.into_iter().filter(may_hear).collect();
        for text in texts(&changes) {
            self.send(text).await?;
        }
        Ok(())
    }

    /// Waits for its receiver as long as it may.
    async fn send(&self, text: String) -> Result<(), Gone> {
        if text.is_empty() {
            return Ok(());
        }
        let stall = self.station().limits.stream_stall;
        self.sender.send_timeout(text, stall).await.map_err(|_| Gone)
    }
}

/// Where a receiver goes on that has heard everything before the event `next`.
fn id_before(next: u64) -> String {
    match next.checked_sub(1) {
        Some(last) => format!("id: {last}\n\n"),
        None => String::new(),
    }
}
