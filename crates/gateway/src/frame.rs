//! Strict MQTT 5 framing: what a device may send, and nothing else. Pure, over bytes.
//!
//! Promises: a packet is judged by its first byte before its length is read, by its length before its body is waited
//! for, and by its whole body before anything is allocated for it (INV-COST-1). What [`packet`] returns is within
//! MQTT 5 and within what our CONNACK announced; every refusal is one of [`Refusal`]'s.
//! Never: guesses, repairs, or lets a packet through that it does not understand (INV-MIX-1).
//!
//! The protocol library behind this layer (`mqtt-protocol-core`) is a good citizen's: it does not look at reserved
//! flags, packet identifier 0, wildcards in topics, control characters, or how many properties an unauthenticated
//! CONNECT brings. Section numbers below are those of the OASIS standard MQTT Version 5.0.

use crate::refusal::Refusal;

/// Bounds that hold before the peer is known, and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// CONNECT, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT and PINGREQ, with their fixed headers.
    pub control_bytes_max: usize,
    /// PUBLISH with its fixed header; announced as Maximum Packet Size.
    pub packet_bytes_max: usize,
    /// Properties in one packet, user properties included.
    pub properties_max: usize,
    /// Topic filters in one SUBSCRIBE or UNSUBSCRIBE.
    pub filters_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            control_bytes_max: 4096,
            // A sealed message of 33,280 bytes, its topic, and 3 KiB for the rest.
            packet_bytes_max: 36 * 1024,
            properties_max: 16,
            filters_max: 8,
        }
    }
}

/// The longest topic or filter. Ours have at most 79 bytes; a longer one is nobody's.
pub const TOPIC_BYTES_MAX: usize = 256;
/// The most levels in a topic: a deep one costs time in whatever walks it (CVE-2019-11779).
pub const TOPIC_LEVELS_MAX: usize = 16;

/// Whether CONNECT has been answered with success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    BeforeConnect,
    Connected,
}

/// The packets that a device may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Connect,
    Publish { dup: bool },
    Subscribe,
    Unsubscribe,
    Pingreq,
    Disconnect,
}

/// A fixed header (§2.1) of an acceptable packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub kind: Kind,
    /// Where the body begins.
    pub body_at: usize,
    /// The length of the whole packet.
    pub packet_len: usize,
}

/// A packet that was read to its last byte. It borrows; nothing is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    Publish(Publish<'a>),
    Subscribe(Filters<'a>),
    Unsubscribe(Filters<'a>),
    Pingreq,
    Disconnect(Disconnect),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    pub client_id: &'a str,
    pub keep_alive_s: u16,
    pub session_expiry_s: u32,
    /// What the client accepts, if it says.
    pub packet_bytes_max: Option<u32>,
}

/// Always of QoS 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    pub topic: &'a str,
    pub packet_id: u16,
    pub dup: bool,
    pub payload: &'a [u8],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filters<'a> {
    pub packet_id: u16,
    /// At least one, at most [`Limits::filters_max`].
    pub filters: Vec<Filter<'a>>,
}

/// One topic filter, without wildcards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter<'a> {
    pub text: &'a str,
    /// The QoS that SUBSCRIBE asks for; 0 in UNSUBSCRIBE.
    pub qos: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect {
    pub reason: u8,
    pub session_expiry_s: Option<u32>,
}

/// Reads a fixed header. `None`: more bytes are needed. At most five bytes are looked at.
pub fn head(bytes: &[u8], phase: Phase, limits: &Limits) -> Result<Option<Head>, Refusal> {
    let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
    let kind = kind(*first, phase)?;
    let Some((remaining, width)) = variable(rest)? else { return Ok(None) };
    let body_at = 1 + width;
    let packet_len = body_at + remaining as usize;
    let max = match kind {
        Kind::Publish { .. } => limits.packet_bytes_max,
        _ => limits.control_bytes_max,
    };
    if packet_len > max {
        return Err(Refusal::PacketTooLarge);
    }
    Ok(Some(Head { kind, body_at, packet_len }))
}

/// Reads a whole packet, of which `bytes` are exactly the bytes.
pub fn packet<'a>(head: Head, bytes: &'a [u8], limits: &Limits) -> Result<Packet<'a>, Refusal> {
    debug_assert_eq!(bytes.len(), head.packet_len);
    let mut body = Body(&bytes[head.body_at..]);
    let packet = match head.kind {
        Kind::Connect => Packet::Connect(connect(&mut body, limits)?),
        Kind::Publish { dup } => Packet::Publish(publish(&mut body, dup, limits)?),
        Kind::Subscribe => Packet::Subscribe(subscribe(&mut body, limits)?),
        Kind::Unsubscribe => Packet::Unsubscribe(unsubscribe(&mut body, limits)?),
        Kind::Pingreq => Packet::Pingreq,
        Kind::Disconnect => Packet::Disconnect(disconnect(&mut body, limits)?),
    };
    if body.is_empty() { Ok(packet) } else { Err(Refusal::Malformed) }
}

/// §2.1.2 and §2.1.3: the packet type and its flags, with §3.3.1 for PUBLISH.
fn kind(first: u8, phase: Phase) -> Result<Kind, Refusal> {
    let (kind, flags) = (first >> 4, first & 0x0f);
    if phase == Phase::BeforeConnect && kind != 1 {
        return Err(Refusal::NotConnectFirst);
    }
    let (kind, wanted) = match kind {
        1 if phase == Phase::Connected => return Err(Refusal::SecondConnect),
        1 => (Kind::Connect, 0),
        3 => return publish_flags(flags),
        8 => (Kind::Subscribe, 0b0010),
        10 => (Kind::Unsubscribe, 0b0010),
        12 => (Kind::Pingreq, 0),
        14 => (Kind::Disconnect, 0),
        2 | 9 | 11 | 13 => return Err(Refusal::WrongDirection),
        0 => return Err(Refusal::ReservedType),
        // PUBACK, PUBREC, PUBREL, PUBCOMP and AUTH answer packets that were never sent.
        _ => return Err(Refusal::UnexpectedPacket),
    };
    if flags == wanted { Ok(kind) } else { Err(Refusal::ReservedFlags) }
}

fn publish_flags(flags: u8) -> Result<Kind, Refusal> {
    let (dup, qos, retain) = (flags & 0b1000 != 0, flags >> 1 & 0b11, flags & 1 != 0);
    match qos {
        3 => Err(Refusal::BadQos),
        2 => Err(Refusal::Qos2),
        _ if retain => Err(Refusal::Retain),
        0 if dup => Err(Refusal::DupQos0),
        0 => Err(Refusal::Qos0),
        _ => Ok(Kind::Publish { dup }),
    }
}

/// §3.1.
fn connect<'a>(body: &mut Body<'a>, limits: &Limits) -> Result<Connect<'a>, Refusal> {
    // The name and version come first: what follows is read only if it is in our language.
    match body.binary()? {
        b"MQTT" => {}
        b"MQIsdp" => return Err(Refusal::UnsupportedVersion),
        _ => return Err(Refusal::BadProtocolName),
    }
    if body.u8()? != 5 {
        return Err(Refusal::UnsupportedVersion);
    }
    let flags = body.u8()?;
    let (user_name, password) = (flags & 0x80 != 0, flags & 0x40 != 0);
    if flags & 0b0000_0100 != 0 {
        return Err(Refusal::Will);
    }
    // §3.1.2.3 the reserved bit; §3.1.2.6 and §3.1.2.7: will QoS and retain without a will.
    if flags & 0b0011_1001 != 0 {
        return Err(Refusal::ReservedFlags);
    }
    let keep_alive_s = body.u16()?;
    let (mut session_expiry_s, mut packet_bytes_max) = (0, None);
    const ALLOWED: &[u8] = &[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27];
    properties(body, ALLOWED, limits, |id, value| match (id, value) {
        (0x15 | 0x16, _) => Err(Refusal::EnhancedAuth),
        (0x17 | 0x19, Value::Byte(2..)) => Err(Refusal::BadPropertyValue),
        (0x21, Value::Two(0)) | (0x27, Value::Four(0)) => Err(Refusal::BadPropertyValue),
        (0x11, Value::Four(seconds)) => {
            session_expiry_s = seconds;
            Ok(())
        }
        (0x27, Value::Four(bytes)) => {
            packet_bytes_max = Some(bytes);
            Ok(())
        }
        _ => Ok(()),
    })?;
    let client_id = body.text()?;
    // Read so that the packet ends where it should; who it is was proved by TLS.
    if user_name {
        body.text()?;
    }
    if password {
        body.binary()?;
    }
    Ok(Connect { client_id, keep_alive_s, session_expiry_s, packet_bytes_max })
}

/// §3.3.
fn publish<'a>(body: &mut Body<'a>, dup: bool, limits: &Limits) -> Result<Publish<'a>, Refusal> {
    let topic = body.text()?;
    let packet_id = body.packet_id()?;
    const ALLOWED: &[u8] = &[0x01, 0x02, 0x03, 0x08, 0x09, 0x0b, 0x23, 0x26];
    properties(body, ALLOWED, limits, |id, value| match (id, value) {
        (0x23, _) => Err(Refusal::TopicAlias),
        // §3.3.4: a PUBLISH from a client to a server must not have one.
        (0x0b, _) => Err(Refusal::SubscriptionId),
        (0x01, Value::Byte(2..)) => Err(Refusal::BadPropertyValue),
        (0x08, Value::Text(topic)) => topic_name(topic),
        _ => Ok(()),
    })?;
    topic_name(topic)?;
    Ok(Publish { topic, packet_id, dup, payload: body.rest() })
}

/// §3.8.
fn subscribe<'a>(body: &mut Body<'a>, limits: &Limits) -> Result<Filters<'a>, Refusal> {
    let packet_id = body.packet_id()?;
    properties(body, &[0x0b, 0x26], limits, |id, _| match id {
        0x0b => Err(Refusal::SubscriptionId),
        _ => Ok(()),
    })?;
    let filters = filters(body, limits, |body| {
        let options = body.u8()?;
        // §3.8.3.1: bits 6 and 7 are reserved; QoS 3 and retain handling 3 mean nothing.
        if options & 0b1100_0000 != 0 || options & 0b11 == 0b11 || options >> 4 & 0b11 == 0b11 {
            return Err(Refusal::ReservedFlags);
        }
        Ok(options & 0b11)
    })?;
    Ok(Filters { packet_id, filters })
}

/// §3.10.
fn unsubscribe<'a>(body: &mut Body<'a>, limits: &Limits) -> Result<Filters<'a>, Refusal> {
    let packet_id = body.packet_id()?;
    properties(body, &[0x26], limits, |_, _| Ok(()))?;
    Ok(Filters { packet_id, filters: filters(body, limits, |_| Ok(0))? })
}

fn filters<'a>(
    body: &mut Body<'a>,
    limits: &Limits,
    mut options: impl FnMut(&mut Body<'a>) -> Result<u8, Refusal>,
) -> Result<Vec<Filter<'a>>, Refusal> {
    let mut found = Vec::new();
    while !body.is_empty() {
        if found.len() == limits.filters_max {
            return Err(Refusal::TooManyFilters);
        }
        let text = body.text()?;
        let qos = options(body)?;
        topic_filter(text)?;
        found.push(Filter { text, qos });
    }
    // §3.8.3 and §3.10.3: at least one.
    if found.is_empty() { Err(Refusal::BadFilter) } else { Ok(found) }
}

/// §3.14. Both reason code and properties may be left out.
fn disconnect(body: &mut Body<'_>, limits: &Limits) -> Result<Disconnect, Refusal> {
    let mut found = Disconnect { reason: 0, session_expiry_s: None };
    if body.is_empty() {
        return Ok(found);
    }
    found.reason = body.u8()?;
    // §3.14.2.1: the codes that a client may send.
    if !matches!(found.reason, 0 | 4 | 0x80..=0x83 | 0x90 | 0x93..=0x99) {
        return Err(Refusal::Malformed);
    }
    if !body.is_empty() {
        properties(body, &[0x11, 0x1f, 0x26], limits, |id, value| {
            if let (0x11, Value::Four(seconds)) = (id, value) {
                found.session_expiry_s = Some(seconds);
            }
            Ok(())
        })?;
    }
    Ok(found)
}

/// §4.7: a topic name has no wildcards and at least one character.
fn topic_name(topic: &str) -> Result<(), Refusal> {
    if topic.contains(['+', '#']) || !measured(topic) { Err(Refusal::BadTopic) } else { Ok(()) }
}

/// §4.7.1 and §4.8.2. What is well-formed but not on offer has a code of its own.
fn topic_filter(filter: &str) -> Result<(), Refusal> {
    if !measured(filter) {
        return Err(Refusal::BadFilter);
    }
    if filter == "$share" || filter.starts_with("$share/") {
        return Err(Refusal::SharedSubscription);
    }
    let levels = filter.split('/').count();
    for (i, level) in filter.split('/').enumerate() {
        let multi = level == "#" && i + 1 == levels;
        if level.contains(['+', '#']) && !multi && level != "+" {
            return Err(Refusal::BadFilter);
        }
    }
    if filter.contains(['+', '#']) { Err(Refusal::WildcardSubscription) } else { Ok(()) }
}

fn measured(topic: &str) -> bool {
    (1..=TOPIC_BYTES_MAX).contains(&topic.len()) && topic.split('/').count() <= TOPIC_LEVELS_MAX
}

#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Byte(u8),
    Two(u16),
    Four(u32),
    Text(&'a str),
    /// A variable byte integer, binary data, or a pair of texts: read, and of no interest.
    Other,
}

/// §2.2.2: reads all properties of a packet, and shows each to `each`. An identifier outside `allowed`, one too many,
/// or one that comes twice is refused; user properties may come often.
fn properties<'a>(
    body: &mut Body<'a>,
    allowed: &[u8],
    limits: &Limits,
    mut each: impl FnMut(u8, Value<'a>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let len = body.variable()? as usize;
    let mut block = Body(body.take(len)?);
    let (mut seen, mut count) = (0_u64, 0);
    while !block.is_empty() {
        count += 1;
        if count > limits.properties_max {
            return Err(Refusal::TooManyProperties);
        }
        // Identifiers are variable byte integers, and all that exist fit into one byte.
        let id = u8::try_from(block.variable()?).map_err(|_| Refusal::BadProperty)?;
        if !allowed.contains(&id) {
            return Err(Refusal::BadProperty);
        }
        let value = block.value(id)?;
        if id != 0x26 && seen & 1 << id != 0 {
            return Err(Refusal::BadPropertyValue);
        }
        seen |= 1 << id;
        each(id, value)?;
    }
    Ok(())
}

/// What is left of a body. Nothing reads beyond it.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Refusal> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Refusal::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        Ok(self.take(N)?.try_into().expect("take returns as many bytes as it is asked for"))
    }

    fn u8(&mut self) -> Result<u8, Refusal> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, Refusal> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, Refusal> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn packet_id(&mut self) -> Result<u16, Refusal> {
        match self.u16()? {
            0 => Err(Refusal::PacketIdZero),
            id => Ok(id),
        }
    }

    fn variable(&mut self) -> Result<u32, Refusal> {
        let (value, width) = variable(self.0)?.ok_or(Refusal::Malformed)?;
        self.take(width)?;
        Ok(value)
    }

    /// §1.5.6.
    fn binary(&mut self) -> Result<&'a [u8], Refusal> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// §1.5.4. NUL must be refused; control characters and non-characters may be, and are.
    fn text(&mut self) -> Result<&'a str, Refusal> {
        let text = std::str::from_utf8(self.binary()?).map_err(|_| Refusal::BadText)?;
        let bad = |c: char| {
            c.is_control() || c as u32 & 0xfffe == 0xfffe || (0xfdd0..=0xfdef).contains(&(c as u32))
        };
        if text.contains(bad) { Err(Refusal::BadText) } else { Ok(text) }
    }

    /// §2.2.2.2: the type of each property that we let through.
    fn value(&mut self, id: u8) -> Result<Value<'a>, Refusal> {
        Ok(match id {
            0x01 | 0x17 | 0x19 => Value::Byte(self.u8()?),
            0x21..=0x23 => Value::Two(self.u16()?),
            0x02 | 0x11 | 0x27 => Value::Four(self.u32()?),
            0x03 | 0x08 | 0x15 | 0x1f => Value::Text(self.text()?),
            0x09 | 0x16 => {
                self.binary()?;
                Value::Other
            }
            0x0b => {
                self.variable()?;
                Value::Other
            }
            0x26 => {
                self.text()?;
                self.text()?;
                Value::Other
            }
            _ => return Err(Refusal::BadProperty),
        })
    }
}

/// §1.5.5: a variable byte integer and how many bytes it took; `None`: more bytes are needed. The encoded value must
/// use the fewest bytes, and at most four.
fn variable(bytes: &[u8]) -> Result<Option<(u32, usize)>, Refusal> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return if i > 0 && *byte == 0 {
                Err(Refusal::LengthForm)
            } else {
                Ok(Some((value, i + 1)))
            };
        }
    }
    if bytes.len() >= 4 { Err(Refusal::LengthForm) } else { Ok(None) }
}

#[cfg(test)]
mod tests;
