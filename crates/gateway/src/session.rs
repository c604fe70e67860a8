//! One device's MQTT 5 session, as a pure core: `(state, event, now) -> (state, effects)`.
//!
//! Promises: nothing is done for a peer before its CONNECT was accepted, and nothing that the newest bundle does not
//! permit (INV-AUTH-1); PUBACKs leave in the order of their PUBLISH packets, refusals included (MQTT 5 §4.6); what is
//! kept per session is bounded by [`Limits`] and Receive Maximum (INV-COST-1).
//! Never: reads a clock, a socket or a file; believes a message (that is `admission`).
//!
//! Each packet is read twice: by [`frame`], which is strict, and by `mqtt-protocol-core`, which keeps the protocol's
//! state and writes our packets. What either refuses is refused.
//!
//! ```text
//!   waiting ── CONNECT accepted: CONNACK 0x00 ──▶ open ── any refusal, DISCONNECT, end of keep-alive ──▶ closed
//!      └────────────── any refusal, connect deadline ──────────────────────────────────────────────────────▲
//! ```

use crate::bundle::{Peer, View};
use crate::frame::{self, Connect, Filter, Filters, Limits, Packet, Phase, Publish};
use crate::refusal::{Ends, Refusal};
use model::{DeviceId, Nonce};
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::{ConnectionOptions, Event as Heard};
use mqtt_protocol_core::mqtt::packet::{self as wire, GenericPacketTrait as _, v5_0};
use mqtt_protocol_core::mqtt::result_code::{
    ConnectReasonCode, DisconnectReasonCode, PubackReasonCode, SubackReasonCode, UnsubackReasonCode,
};
use mqtt_protocol_core::mqtt::{Connection, Version, role};
use policy::Action;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// What every session is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    pub limits: Limits,
    /// PUBLISH packets without their PUBACK; announced.
    pub receive_maximum: u16,
    /// The longest keep-alive; announced as Server Keep Alive when a client asks for more, or for none.
    pub keep_alive_max_s: u16,
    /// From the first byte of TLS to a whole CONNECT.
    pub connect_deadline: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            receive_maximum: 32,
            keep_alive_max_s: 300,
            connect_deadline: Duration::from_secs(5),
        }
    }
}

/// CONNACK with all it announces has under 200 bytes. Who accepts less cannot be told the terms.
const CLIENT_PACKET_BYTES_MIN: u32 = 256;
/// Answers of policies that a session remembers; the oldest goes.
const DECISIONS_MAX: usize = 8;
/// Subscriptions of one session.
const SUBSCRIPTIONS_MAX: usize = 8;

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    Bytes(&'a [u8]),
    /// The verdict on what was offered as [`Effect::Offer`].
    Answered {
        place: u64,
        answer: Answer,
    },
    /// A newer bundle.
    View(Arc<View>),
    /// A newer session of the same device.
    TakenOver,
    /// Reading was held back for so long: the peer's silence was our doing.
    HeldBack(Duration),
    ShuttingDown,
    /// [`Session::deadline`] has passed, perhaps.
    Tick,
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Send(Vec<u8>),
    /// The session is this device's from now on; an older one of the same device ends.
    Open,
    /// Judge this message, and answer under its place.
    Offer {
        place: u64,
        message: Vec<u8>,
    },
    /// Count and log it.
    Refuse(Refusal),
    /// Nothing comes after this.
    Close,
}

/// The last word on one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Durable, now or already.
    Accepted,
    Refused(Refusal),
}

/// See the module's head.
pub struct Session {
    terms: Terms,
    peer: Peer,
    nonce: Nonce,
    view: Arc<View>,
    state: State,
    /// The beginning of a packet that is not whole yet.
    buffer: Vec<u8>,
    connection: Connection<role::Server>,
    packets: u64,
}

enum State {
    Waiting { until: Duration },
    Open(Open),
    Closed,
}

/// What only an open session has.
struct Open {
    device: DeviceId,
    session_expiry_s: u32,
    /// One and a half times the keep-alive.
    silence_max: Duration,
    heard_at: Duration,
    /// PUBLISH packets without their PUBACK, in order.
    in_flight: VecDeque<InFlight>,
    next_place: u64,
    subscriptions: Vec<String>,
    decisions: VecDeque<(Action, String, bool)>,
}

struct InFlight {
    place: u64,
    packet_id: u16,
    answer: Option<Answer>,
}

impl Session {
    /// A session with whom TLS proved to be `peer`, begun at `began`. The nonce must be new and unguessable.
    pub fn new(terms: Terms, peer: Peer, nonce: Nonce, view: Arc<View>, began: Duration) -> Self {
        let options = ConnectionOptions::new()
            .maximum_packet_size_recv(terms.limits.packet_bytes_max as u32)
            .receive_maximum(terms.receive_maximum);
        Self {
            state: State::Waiting { until: began + terms.connect_deadline },
            terms,
            peer,
            nonce,
            view,
            buffer: Vec::new(),
            connection: Connection::with_options(Version::Undetermined, options),
            packets: 0,
        }
    }

    pub fn on(&mut self, event: Event<'_>, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Bytes(bytes) => self.on_bytes(bytes, now, &mut effects),
            Event::Answered { place, answer } => self.on_answer(place, answer, &mut effects),
            Event::View(view) => self.on_view(view, &mut effects),
            Event::TakenOver => self.refuse(Refusal::TakenOver, &mut effects),
            Event::HeldBack(time) => {
                if let State::Open(open) = &mut self.state {
                    open.heard_at = (open.heard_at + time).min(now);
                }
            }
            Event::ShuttingDown => self.shut_down(&mut effects),
            Event::Tick => self.on_tick(now, &mut effects),
        }
        effects
    }

    /// When to call with [`Event::Tick`] if nothing happens before. `None`: closed.
    pub fn deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Waiting { until } => Some(*until),
            State::Open(open) => Some(open.heard_at + open.silence_max),
            State::Closed => None,
        }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    pub fn nonce(&self) -> Nonce {
        self.nonce
    }

    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// How many packets passed both readers.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    fn on_bytes(&mut self, bytes: &[u8], now: Duration, effects: &mut Vec<Effect>) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            let rest = &buffer[at..];
            let phase = match &self.state {
                State::Waiting { .. } => Phase::BeforeConnect,
                State::Open(_) => Phase::Connected,
                State::Closed => return,
            };
            let read = frame::head(rest, phase, &self.terms.limits).and_then(|head| {
                let whole = head.and_then(|head| Some((head, rest.get(..head.packet_len)?)));
                let Some((head, raw)) = whole else { return Ok(None) };
                self.on_packet(frame::packet(head, raw, &self.terms.limits)?, raw, now, effects)?;
                Ok(Some(head.packet_len))
            });
            match read {
                Ok(Some(len)) => at += len,
                Ok(None) => break,
                Err(refusal) => {
                    self.refuse(refusal, effects);
                    return;
                }
            }
        }
        buffer.drain(..at);
        self.buffer = buffer;
    }

    fn on_packet(
        &mut self,
        packet: Packet<'_>,
        raw: &[u8],
        now: Duration,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        if let State::Open(open) = &mut self.state {
            open.heard_at = now;
        }
        match packet {
            Packet::Connect(connect) => self.on_connect(&connect, raw, now, effects)?,
            Packet::Publish(publish) => self.on_publish(&publish, raw, effects)?,
            Packet::Subscribe(filters) => self.on_subscribe(&filters, raw, effects)?,
            Packet::Unsubscribe(filters) => self.on_unsubscribe(&filters, raw, effects)?,
            Packet::Pingreq => {
                self.second_reading(raw)?;
                let pong = self.written(v5_0::Pingresp::new().into())?;
                effects.push(Effect::Send(pong));
            }
            Packet::Disconnect(disconnect) => {
                self.second_reading(raw)?;
                let State::Open(open) = &self.state else { return Err(Refusal::Library) };
                // §3.14.2.2.2: a session that was to end with its connection cannot be made to last.
                if open.session_expiry_s == 0 && disconnect.session_expiry_s.unwrap_or(0) != 0 {
                    return Err(Refusal::BadPropertyValue);
                }
                self.state = State::Closed;
                effects.push(Effect::Close);
            }
        }
        self.packets += 1;
        Ok(())
    }

    fn on_connect(
        &mut self,
        connect: &Connect<'_>,
        raw: &[u8],
        now: Duration,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        self.view.may_connect(&self.peer)?;
        let device = self.peer.device.clone().ok_or(Refusal::NotADevice)?;
        if !connect.client_id.is_empty() && connect.client_id != device.as_str() {
            return Err(Refusal::ClientId);
        }
        if connect.packet_bytes_max.is_some_and(|max| max < CLIENT_PACKET_BYTES_MIN) {
            return Err(Refusal::ClientPacketLimit);
        }
        self.second_reading(raw)?;
        let keep_alive_s = match connect.keep_alive_s {
            0 => self.terms.keep_alive_max_s,
            asked => asked.min(self.terms.keep_alive_max_s),
        };
        let assigned = connect.client_id.is_empty().then_some(device.as_str());
        let connack = connack(&self.terms, keep_alive_s, assigned, self.nonce);
        let connack = self.written(connack.into())?;
        self.state = State::Open(Open {
            device,
            session_expiry_s: connect.session_expiry_s,
            silence_max: Duration::from_secs(keep_alive_s.into()) * 3 / 2,
            heard_at: now,
            in_flight: VecDeque::new(),
            next_place: 0,
            subscriptions: Vec::new(),
            decisions: VecDeque::new(),
        });
        effects.extend([Effect::Open, Effect::Send(connack)]);
        Ok(())
    }

    fn on_publish(
        &mut self,
        publish: &Publish<'_>,
        raw: &[u8],
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let State::Open(open) = &self.state else { return Err(Refusal::Library) };
        // §4.4: who has a connection does not send again on it; DUP belongs to a new one.
        if open.in_flight.iter().any(|other| other.packet_id == publish.packet_id) {
            return Err(Refusal::PacketIdInUse);
        }
        if open.in_flight.len() >= usize::from(self.terms.receive_maximum) {
            return Err(Refusal::ReceiveMaximum);
        }
        self.second_reading(raw)?;
        let State::Open(open) = &mut self.state else { return Err(Refusal::Library) };
        let permitted = open.permits(&self.view, Action::Publish, publish.topic);
        let place = open.next_place;
        open.next_place += 1;
        let packet_id = publish.packet_id;
        if permitted {
            open.in_flight.push_back(InFlight { place, packet_id, answer: None });
            effects.push(Effect::Offer { place, message: publish.payload.to_vec() });
            Ok(())
        } else {
            let answer = Some(Answer::Refused(Refusal::PolicyPublish));
            open.in_flight.push_back(InFlight { place, packet_id, answer });
            effects.push(Effect::Refuse(Refusal::PolicyPublish));
            self.acknowledge(effects)
        }
    }

    fn on_answer(&mut self, place: u64, answer: Answer, effects: &mut Vec<Effect>) {
        // An answer may come after the session has ended: then the device asks again in its next one.
        let State::Open(open) = &mut self.state else { return };
        let Some(waiting) = open.in_flight.iter_mut().find(|waiting| waiting.place == place) else {
            return;
        };
        waiting.answer = Some(answer);
        if let Answer::Refused(refusal) = answer {
            effects.push(Effect::Refuse(refusal));
        }
        if let Err(refusal) = self.acknowledge(effects) {
            self.refuse(refusal, effects);
        }
    }

    /// Sends the PUBACKs of all that is answered, up to the first that is not.
    fn acknowledge(&mut self, effects: &mut Vec<Effect>) -> Result<(), Refusal> {
        while let State::Open(open) = &mut self.state {
            let Some((packet_id, answer)) =
                open.in_flight.front().and_then(|front| Some((front.packet_id, front.answer?)))
            else {
                return Ok(());
            };
            open.in_flight.pop_front();
            let puback = v5_0::Puback::builder().packet_id(packet_id);
            let puback = match answer {
                Answer::Accepted => puback,
                Answer::Refused(refusal) => puback.reason_code(
                    PubackReasonCode::try_from(refusal.code())
                        .unwrap_or(PubackReasonCode::UnspecifiedError),
                ),
            };
            let puback = puback.build().map_err(|_| Refusal::Library)?;
            let bytes = self.written(puback.into())?;
            effects.push(Effect::Send(bytes));
        }
        Ok(())
    }

    fn on_subscribe(
        &mut self,
        subscribe: &Filters<'_>,
        raw: &[u8],
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        self.second_reading(raw)?;
        let State::Open(open) = &mut self.state else { return Err(Refusal::Library) };
        let mut codes = Vec::with_capacity(subscribe.filters.len());
        for filter in &subscribe.filters {
            codes.push(open.subscribe(&self.view, *filter, effects));
        }
        let suback = v5_0::Suback::builder().packet_id(subscribe.packet_id).reason_codes(codes);
        let bytes = self.written(suback.build().map_err(|_| Refusal::Library)?.into())?;
        effects.push(Effect::Send(bytes));
        Ok(())
    }

    fn on_unsubscribe(
        &mut self,
        unsubscribe: &Filters<'_>,
        raw: &[u8],
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        self.second_reading(raw)?;
        let State::Open(open) = &mut self.state else { return Err(Refusal::Library) };
        let mut codes = Vec::with_capacity(unsubscribe.filters.len());
        for filter in &unsubscribe.filters {
            let before = open.subscriptions.len();
            open.subscriptions.retain(|held| held != filter.text);
            codes.push(if open.subscriptions.len() < before {
                UnsubackReasonCode::Success
            } else {
                UnsubackReasonCode::NoSubscriptionExisted
            });
        }
        let unsuback =
            v5_0::Unsuback::builder().packet_id(unsubscribe.packet_id).reason_codes(codes);
        let bytes = self.written(unsuback.build().map_err(|_| Refusal::Library)?.into())?;
        effects.push(Effect::Send(bytes));
        Ok(())
    }

    /// INV-AUTH-1: a session lives only as long as the newest bundle would let it begin.
    fn on_view(&mut self, view: Arc<View>, effects: &mut Vec<Effect>) {
        self.view = view;
        let State::Open(open) = &mut self.state else { return };
        open.decisions.clear();
        if self.view.may_connect(&self.peer).is_err() {
            self.refuse(Refusal::StandingChanged, effects);
        }
    }

    fn on_tick(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        match &self.state {
            State::Waiting { until } if now >= *until => {
                self.refuse(Refusal::ConnectTimeout, effects);
            }
            State::Open(open) if now >= open.heard_at + open.silence_max => {
                self.refuse(Refusal::KeepAlive, effects);
            }
            _ => {}
        }
    }

    /// The only way out for a peer's fault: says why where MQTT has a place for it, and ends.
    fn refuse(&mut self, refusal: Refusal, effects: &mut Vec<Effect>) {
        let said = match (&self.state, refusal.ends()) {
            (State::Closed, _) => return,
            (_, Ends::Silently | Ends::Message) => None,
            (State::Waiting { .. }, Ends::Connection) => Some(connack_refusing(refusal)),
            (State::Open(_), Ends::Connection) => Some(disconnect(
                DisconnectReasonCode::try_from(refusal.code())
                    .unwrap_or(DisconnectReasonCode::UnspecifiedError),
            )),
        };
        effects.push(Effect::Refuse(refusal));
        effects.extend(said.map(Effect::Send));
        effects.push(Effect::Close);
        self.state = State::Closed;
    }

    fn shut_down(&mut self, effects: &mut Vec<Effect>) {
        if let State::Open(_) = self.state {
            effects.push(Effect::Send(disconnect(DisconnectReasonCode::ServerShuttingDown)));
        }
        effects.push(Effect::Close);
        self.state = State::Closed;
    }

    /// Hands a packet to the protocol library, which must take it as one packet and say nothing else.
    fn second_reading(&mut self, raw: &[u8]) -> Result<(), Refusal> {
        let mut cursor = Cursor::new(raw);
        let heard = self.connection.recv(&mut cursor);
        let received =
            heard.iter().filter(|event| matches!(event, Heard::NotifyPacketReceived(_))).count();
        let complained = heard.iter().any(|event| {
            matches!(
                event,
                Heard::NotifyError(_) | Heard::RequestClose | Heard::RequestSendPacket { .. }
            )
        });
        if received == 1 && !complained { Ok(()) } else { Err(Refusal::Library) }
    }

    /// Lets the protocol library take note of a packet of ours, and write it.
    fn written(&mut self, packet: wire::Packet) -> Result<Vec<u8>, Refusal> {
        let events = self.connection.send(packet);
        let packet = events.into_iter().find_map(|event| match event {
            Heard::RequestSendPacket { packet, .. } => Some(packet),
            _ => None,
        });
        Ok(packet.ok_or(Refusal::Library)?.to_continuous_buffer())
    }
}

impl Open {
    /// What the policies say, asked once per session, bundle and topic.
    fn permits(&mut self, view: &View, action: Action, topic: &str) -> bool {
        let known = self.decisions.iter().find(|(a, t, _)| *a == action && t == topic);
        if let Some((_, _, permitted)) = known {
            return *permitted;
        }
        let permitted = view.may_use(&self.device, action, topic);
        if self.decisions.len() == DECISIONS_MAX {
            self.decisions.pop_front();
        }
        self.decisions.push_back((action, topic.to_owned(), permitted));
        permitted
    }

    fn subscribe(
        &mut self,
        view: &View,
        filter: Filter<'_>,
        effects: &mut Vec<Effect>,
    ) -> SubackReasonCode {
        if !self.permits(view, Action::Subscribe, filter.text) {
            effects.push(Effect::Refuse(Refusal::PolicySubscribe));
            return SubackReasonCode::NotAuthorized;
        }
        if !self.subscriptions.iter().any(|held| held == filter.text) {
            if self.subscriptions.len() == SUBSCRIPTIONS_MAX {
                effects.push(Effect::Refuse(Refusal::TooManyFilters));
                return SubackReasonCode::QuotaExceeded;
            }
            self.subscriptions.push(filter.text.to_owned());
        }
        if filter.qos == 0 { SubackReasonCode::GrantedQos0 } else { SubackReasonCode::GrantedQos1 }
    }
}

/// §3.2: success, and everything that is not on offer here.
fn connack(
    terms: &Terms,
    keep_alive_s: u16,
    assigned: Option<&str>,
    nonce: Nonce,
) -> v5_0::Connack {
    const WHY: &str = "the value is within the property's domain";
    let mut properties: Vec<wire::Property> = vec![
        wire::SessionExpiryInterval::new(0).expect(WHY).into(),
        wire::ReceiveMaximum::new(terms.receive_maximum).expect(WHY).into(),
        wire::MaximumQos::new(1).expect(WHY).into(),
        wire::RetainAvailable::new(0).expect(WHY).into(),
        wire::MaximumPacketSize::new(terms.limits.packet_bytes_max as u32).expect(WHY).into(),
        wire::TopicAliasMaximum::new(0).expect(WHY).into(),
        wire::WildcardSubscriptionAvailable::new(0).expect(WHY).into(),
        wire::SubscriptionIdentifierAvailable::new(0).expect(WHY).into(),
        wire::SharedSubscriptionAvailable::new(0).expect(WHY).into(),
        wire::ServerKeepAlive::new(keep_alive_s).expect(WHY).into(),
        wire::UserProperty::new("nonce", nonce.to_string().as_str()).expect(WHY).into(),
    ];
    if let Some(id) = assigned {
        properties.push(wire::AssignedClientIdentifier::new(id).expect(WHY).into());
    }
    v5_0::Connack::builder()
        .session_present(false)
        .reason_code(ConnectReasonCode::Success)
        .props(properties)
        .build()
        .expect("each of these properties may stand in CONNACK, once")
}

fn connack_refusing(refusal: Refusal) -> Vec<u8> {
    let code = ConnectReasonCode::try_from(refusal.code());
    v5_0::Connack::builder()
        .session_present(false)
        .reason_code(code.unwrap_or(ConnectReasonCode::UnspecifiedError))
        .build()
        .expect("a reason code is all that it needs")
        .to_continuous_buffer()
}

fn disconnect(code: DisconnectReasonCode) -> Vec<u8> {
    v5_0::Disconnect::builder()
        .reason_code(code)
        .build()
        .expect("a reason code is all that it needs")
        .to_continuous_buffer()
}

#[cfg(test)]
mod tests;
