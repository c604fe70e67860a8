//! One MQTT 5 session with a gateway, from its CONNECT to its end. Pure: bytes and the time in, effects out.
//!
//! Promises: envelopes go out in the backlog's order, at most as many unacknowledged as the gateway takes (MQTT 5
//! §4.9) and none longer than it takes (§3.2.2.3.6); an envelope counts as done only by its own PUBACK, and PUBACKs
//! must come in the order of the PUBLISHes (§4.6): a gateway that answers in another order is not believed and left; a
//! gateway that does not answer is left after a bounded time, whatever else it says.
//! Never: sends anything before a CONNACK that accepted it, repeats an envelope within a session (a repeat belongs to
//! the next session, under a new packet id, since this session's state ends with its connection).
//!
//! | PUBACK (§3.4.2.1) | what it means | what follows |
//! | --- | --- | --- |
//! | 0x00, 0x10 | durable at the gateway | done |
//! | 0x99, 0x83 | never acceptable: malformed, signature, forged | refused: a loss notice will state it |
//! | 0x87, 0x97 and every other | not now: not authorised yet, no room | the session ends; later the same again |
//!
//! What was in flight when a session ended is sent again by the next one, with DUP 0: MQTT's own session state has
//! ended with it (Session Expiry 0), and the gateway knows an honest repeat by its counter and digest.

use model::Nonce;
use mqtt_protocol_core::mqtt::connection::{ConnectionOptions, Event as Core, TimerKind, role};
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait, Packet, Property, Qos, v5_0};
use mqtt_protocol_core::mqtt::result_code::{ConnectReasonCode, PubackReasonCode};
use mqtt_protocol_core::mqtt::{self, Version};
use std::collections::VecDeque;
use std::fmt;

/// A gateway has little to say to us: CONNACK, PUBACK, PINGRESP, DISCONNECT.
const PACKET_BYTES_MAX: u32 = 4 * 1024;
/// What we ask for; the gateway may shorten it (§3.2.2.3.14).
const KEEP_ALIVE_S: u16 = 30;
/// A PINGRESP that takes longer says that nobody is there.
const PINGRESP_MS_MAX: u64 = 10_000;
/// How long a CONNACK may take: the gateway looks up who we are.
const CONNACK_MS_MAX: u64 = 10_000;
/// How long the oldest PUBACK may take: a sync takes milliseconds, one behind a full queue of a slow disk some seconds.
const PUBACK_MS_MAX: u64 = 60_000;
/// The most that we keep in flight, whatever the gateway would take.
pub const IN_FLIGHT_MAX: u16 = 64;

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The gateway's bytes, cut anywhere.
    Bytes(&'a [u8]),
    /// The time that an [`Effect::WakeIn`] named has passed.
    Woken(Timer),
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Send(Vec<u8>),
    /// The session stands. From now on messages are sealed with this nonce in `heard`.
    Open {
        nonce: Option<Nonce>,
    },
    /// This envelope is durable at the gateway.
    Done {
        serial: u64,
    },
    /// The gateway will never take this envelope.
    Refused {
        serial: u64,
        code: u8,
    },
    /// Come back with `Event::Woken` after so long; an earlier wish with the same timer is void.
    WakeIn {
        timer: Timer,
        ms: u64,
    },
    /// The wish with this timer is void.
    NoWake(Timer),
    /// The connection is to be closed. Nothing follows.
    Close(Why),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timer {
    /// Time for a PINGREQ.
    Ping,
    /// The PINGRESP did not come.
    Pong,
    /// The CONNACK, or the oldest PUBACK, did not come.
    Answer,
}

/// Why a session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// CONNACK with a reason of 0x80 or above.
    NotAdmitted { code: u8 },
    /// The gateway said DISCONNECT.
    SentAway { code: u8 },
    /// A PUBACK said: not now.
    NotNow { code: u8 },
    /// The gateway did not keep to the protocol.
    Protocol(&'static str),
    /// The gateway is silent.
    Silent,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAdmitted { code } => write!(f, "not admitted ({code:#04x})"),
            Self::SentAway { code } => write!(f, "sent away ({code:#04x})"),
            Self::NotNow { code } => write!(f, "the gateway cannot take it now ({code:#04x})"),
            Self::Protocol(what) => write!(f, "the gateway broke the protocol: {what}"),
            Self::Silent => f.write_str("the gateway is silent"),
        }
    }
}

/// Whether an envelope went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    Sent,
    /// As many are in flight as may be: offer it again after a PUBACK.
    Full,
    /// The gateway takes no packet as long as this. It will never go through this gateway.
    TooLong {
        packet: usize,
        max: u32,
    },
}

/// See the module's head.
pub struct Session {
    core: mqtt::Connection<role::Client>,
    topic: String,
    open: bool,
    closed: bool,
    in_flight: VecDeque<InFlight>,
    in_flight_max: u16,
    packet_bytes_max: u32,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    packet_id: u16,
    serial: u64,
}

impl Session {
    /// A new session of this device: the CONNECT to send.
    pub fn new(device: &str) -> (Self, Vec<Effect>) {
        let options = ConnectionOptions::new().maximum_packet_size_recv(PACKET_BYTES_MAX);
        let mut core = mqtt::Connection::<role::Client>::with_options(Version::V5_0, options);
        core.set_pingresp_recv_timeout(PINGRESP_MS_MAX);
        let connect = v5_0::Connect::builder()
            .client_id(device)
            .and_then(|connect| connect.clean_start(true).keep_alive(KEEP_ALIVE_S).build())
            .expect("a device id is a valid client id");
        let mut session = Self {
            core,
            topic: format!("plimsoll/1/{device}/up"),
            open: false,
            closed: false,
            in_flight: VecDeque::new(),
            in_flight_max: IN_FLIGHT_MAX,
            packet_bytes_max: u32::MAX,
        };
        let events = session.core.send(connect.into());
        let mut effects = session.effects(events);
        effects.push(Effect::WakeIn { timer: Timer::Answer, ms: CONNACK_MS_MAX });
        (session, effects)
    }

    pub fn on(&mut self, event: Event<'_>) -> Vec<Effect> {
        if self.closed {
            return Vec::new();
        }
        match event {
            Event::Bytes(bytes) => self.on_bytes(bytes),
            Event::Woken(Timer::Pong | Timer::Answer) => self.close(Why::Silent),
            Event::Woken(Timer::Ping) => {
                let events = self.core.notify_timer_fired(TimerKind::PingreqSend);
                self.effects(events)
            }
        }
    }

    /// How many envelopes may be offered now.
    pub fn room(&self) -> usize {
        if self.open && !self.closed {
            usize::from(self.in_flight_max) - self.in_flight.len()
        } else {
            0
        }
    }

    /// Nothing waits for its PUBACK.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Sends an envelope of the backlog. Envelopes are offered in the order of their serials.
    pub fn publish(&mut self, serial: u64, envelope: Vec<u8>) -> (Offered, Vec<Effect>) {
        if self.room() == 0 {
            return (Offered::Full, Vec::new());
        }
        let Ok(packet_id) = self.core.acquire_packet_id() else {
            return (Offered::Full, Vec::new());
        };
        let publish = v5_0::Publish::builder()
            .topic_name(&self.topic)
            .and_then(|publish| {
                publish.qos(Qos::AtLeastOnce).packet_id(packet_id).payload(envelope).build()
            })
            .expect("our topic and packet id are valid");
        if publish.size() > self.packet_bytes_max as usize {
            // The id is free again when the core is told; it was never sent.
            let freed = self.core.release_packet_id(packet_id);
            debug_assert!(!freed.iter().any(|event| matches!(event, Core::NotifyError(_))));
            return (
                Offered::TooLong { packet: publish.size(), max: self.packet_bytes_max },
                Vec::new(),
            );
        }
        self.in_flight.push_back(InFlight { packet_id, serial });
        let events = self.core.send(publish.into());
        let mut effects = self.effects(events);
        if self.in_flight.len() == 1 {
            effects.push(Effect::WakeIn { timer: Timer::Answer, ms: PUBACK_MS_MAX });
        }
        (Offered::Sent, effects)
    }

    /// Says goodbye.
    pub fn leave(&mut self) -> Vec<Effect> {
        if self.closed || !self.open {
            return Vec::new();
        }
        let disconnect = v5_0::Disconnect::builder().build().expect("a DISCONNECT without fields");
        let events = self.core.send(disconnect.into());
        self.closed = true;
        events.into_iter().filter_map(|event| sent(&event)).collect()
    }

    fn on_bytes(&mut self, bytes: &[u8]) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut cursor = mqtt::common::Cursor::new(bytes);
        while (cursor.position() as usize) < bytes.len() && !self.closed {
            let events = self.core.recv(&mut cursor);
            effects.extend(self.effects(events));
        }
        effects
    }

    fn effects(&mut self, events: Vec<Core>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for event in events {
            if self.closed {
                break;
            }
            match event {
                Core::NotifyPacketReceived(packet) => effects.extend(self.on_packet(&packet)),
                Core::RequestSendPacket { .. } => effects.extend(sent(&event)),
                Core::RequestTimerReset { kind, duration_ms } => {
                    effects
                        .extend(timer(kind).map(|timer| Effect::WakeIn { timer, ms: duration_ms }));
                }
                Core::RequestTimerCancel(kind) => effects.extend(timer(kind).map(Effect::NoWake)),
                Core::NotifyError(_) => {
                    effects.extend(self.close(Why::Protocol("not MQTT 5 of a server")))
                }
                Core::RequestClose => {
                    effects.extend(self.close(Why::Protocol("its answer ends the session")))
                }
                Core::NotifyPacketIdReleased(_) => {}
            }
        }
        effects
    }

    fn on_packet(&mut self, packet: &Packet) -> Vec<Effect> {
        match packet {
            Packet::V5_0Connack(connack) => self.on_connack(connack),
            Packet::V5_0Puback(puback) if self.open => self.on_puback(
                puback.packet_id(),
                puback.reason_code().unwrap_or(PubackReasonCode::Success),
            ),
            Packet::V5_0Pingresp(_) => Vec::new(),
            Packet::V5_0Disconnect(disconnect) => {
                let code = disconnect.reason_code().map_or(0, |code| code as u8);
                self.close(Why::SentAway { code })
            }
            _ => self.close(Why::Protocol("a packet that nobody asked for")),
        }
    }

    fn on_connack(&mut self, connack: &v5_0::Connack) -> Vec<Effect> {
        if self.open {
            return self.close(Why::Protocol("a second CONNACK"));
        }
        if connack.reason_code() != ConnectReasonCode::Success {
            return self.close(Why::NotAdmitted { code: connack.reason_code() as u8 });
        }
        if connack.session_present() {
            // §3.2.2.1.1: we asked for a clean start, and know of no session.
            return self.close(Why::Protocol("a session that nobody asked for"));
        }
        self.open = true;
        let mut nonce = None;
        for property in connack.props() {
            match property {
                Property::ReceiveMaximum(max) => self.in_flight_max = max.val().min(IN_FLIGHT_MAX),
                Property::MaximumPacketSize(max) => self.packet_bytes_max = max.val(),
                Property::MaximumQos(max) if max.val() == 0 => {
                    return self.close(Why::Protocol("it takes nothing with QoS 1"));
                }
                Property::UserProperty(pair) if pair.key() == "nonce" => {
                    nonce = parse_nonce(pair.val())
                }
                _ => {}
            }
        }
        vec![Effect::NoWake(Timer::Answer), Effect::Open { nonce }]
    }

    fn on_puback(&mut self, packet_id: u16, code: PubackReasonCode) -> Vec<Effect> {
        let Some(oldest) = self.in_flight.front().copied() else {
            return self.close(Why::Protocol("a PUBACK for nothing"));
        };
        if oldest.packet_id != packet_id {
            return self.close(Why::Protocol("PUBACKs out of order"));
        }
        let serial = oldest.serial;
        let answered = match code as u8 {
            0x00 | 0x10 => Effect::Done { serial },
            code @ (0x99 | 0x83) => Effect::Refused { serial, code },
            code => {
                let mut effects = self.leave();
                effects.push(Effect::Close(Why::NotNow { code }));
                return effects;
            }
        };
        self.in_flight.pop_front();
        let timer = Timer::Answer;
        let next = match self.in_flight.is_empty() {
            true => Effect::NoWake(timer),
            false => Effect::WakeIn { timer, ms: PUBACK_MS_MAX },
        };
        vec![answered, next]
    }

    fn close(&mut self, why: Why) -> Vec<Effect> {
        if self.closed {
            return Vec::new();
        }
        self.closed = true;
        vec![Effect::Close(why)]
    }
}

fn sent(event: &Core) -> Option<Effect> {
    match event {
        Core::RequestSendPacket { packet, .. } => Some(Effect::Send(packet.to_continuous_buffer())),
        _ => None,
    }
}

fn timer(kind: TimerKind) -> Option<Timer> {
    match kind {
        TimerKind::PingreqSend => Some(Timer::Ping),
        TimerKind::PingrespRecv => Some(Timer::Pong),
        TimerKind::PingreqRecv => None,
    }
}

fn parse_nonce(text: &str) -> Option<Nonce> {
    Nonce::from_hex(text)
}

#[cfg(test)]
mod tests;
