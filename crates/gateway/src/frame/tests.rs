use super::*;

/// Builds bodies as a client would.
fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}

fn whole(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut len = body.len();
    loop {
        let byte = (len & 0x7f) as u8;
        len >>= 7;
        out.push(if len > 0 { byte | 0x80 } else { byte });
        if len == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

fn with_properties(mut head: Vec<u8>, properties: &[u8], tail: &[u8]) -> Vec<u8> {
    assert!(properties.len() < 128);
    head.push(properties.len() as u8);
    head.extend_from_slice(properties);
    head.extend_from_slice(tail);
    head
}

/// A CONNECT that is accepted; each refusal changes one thing in it.
struct C {
    name: &'static [u8],
    version: u8,
    flags: u8,
    properties: Vec<u8>,
    client_id: Vec<u8>,
    tail: Vec<u8>,
    first: u8,
}

impl C {
    fn good() -> Self {
        Self {
            name: b"MQTT",
            version: 5,
            flags: 0b10,
            properties: vec![
                0x11, 0, 0, 0, 60, 0x21, 0, 10, 0x27, 0, 1, 0, 0, 0x26, 0, 1, b'k', 0, 1, b'v',
            ],
            client_id: b"pump-1".to_vec(),
            tail: vec![],
            first: 0x10,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut head = Vec::new();
        text(&mut head, self.name);
        head.extend_from_slice(&[self.version, self.flags, 0, 60]);
        let mut tail = Vec::new();
        text(&mut tail, &self.client_id);
        tail.extend_from_slice(&self.tail);
        whole(self.first, &with_properties(head, &self.properties, &tail))
    }
}

/// A PUBLISH that is accepted.
struct P {
    first: u8,
    topic: Vec<u8>,
    packet_id: u16,
    properties: Vec<u8>,
    payload: Vec<u8>,
}

impl P {
    fn good() -> Self {
        Self {
            first: 0x32,
            topic: b"plimsoll/1/pump-1/up".to_vec(),
            packet_id: 7,
            properties: vec![0x01, 0, 0x03, 0, 2, b'a', b'/'],
            payload: b"sealed".to_vec(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut head = Vec::new();
        text(&mut head, &self.topic);
        head.extend_from_slice(&self.packet_id.to_be_bytes());
        whole(self.first, &with_properties(head, &self.properties, &self.payload))
    }
}

/// A SUBSCRIBE that is accepted.
struct S {
    first: u8,
    packet_id: u16,
    properties: Vec<u8>,
    filters: Vec<(Vec<u8>, u8)>,
}

impl S {
    fn good() -> Self {
        Self {
            first: 0x82,
            packet_id: 9,
            properties: vec![],
            filters: vec![(b"plimsoll/1/pump-1/down".to_vec(), 1)],
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut tail = Vec::new();
        for (filter, options) in &self.filters {
            text(&mut tail, filter);
            if self.first == 0x82 || self.first >> 4 == 8 {
                tail.push(*options);
            }
        }
        let head = self.packet_id.to_be_bytes().to_vec();
        whole(self.first, &with_properties(head, &self.properties, &tail))
    }
}

/// What framing says of bytes that are one whole packet, or of a head that is refused before its body comes.
fn read(bytes: &[u8], phase: Phase) -> Result<Packet<'_>, Refusal> {
    let limits = Limits::default();
    let head = head(bytes, phase, &limits)?.expect("a whole head");
    packet(head, &bytes[..head.packet_len], &limits)
}

fn user_properties(n: usize) -> Vec<u8> {
    [0x26, 0, 0, 0, 0].repeat(n)
}

#[test]
fn a_connect_within_the_terms_is_read() {
    let bytes = C::good().bytes();
    let expected = Connect {
        client_id: "pump-1",
        keep_alive_s: 60,
        session_expiry_s: 60,
        packet_bytes_max: Some(65536),
    };
    assert_eq!(read(&bytes, Phase::BeforeConnect), Ok(Packet::Connect(expected)));
    let with_password = C { flags: 0b1100_0010, tail: b"\0\x01u\0\x02pw".to_vec(), ..C::good() };
    assert!(read(&with_password.bytes(), Phase::BeforeConnect).is_ok());
}

#[test]
fn a_publish_and_a_subscribe_within_the_terms_are_read() {
    let bytes = P::good().bytes();
    let publish =
        Publish { topic: "plimsoll/1/pump-1/up", packet_id: 7, dup: false, payload: b"sealed" };
    assert_eq!(read(&bytes, Phase::Connected), Ok(Packet::Publish(publish.clone())));
    let again = P { first: 0x3a, ..P::good() }.bytes();
    let dup = Publish { dup: true, ..publish };
    assert_eq!(read(&again, Phase::Connected), Ok(Packet::Publish(dup)));

    let bytes = S::good().bytes();
    let filters =
        Filters { packet_id: 9, filters: vec![Filter { text: "plimsoll/1/pump-1/down", qos: 1 }] };
    assert_eq!(read(&bytes, Phase::Connected), Ok(Packet::Subscribe(filters)));
    assert_eq!(read(&[0xc0, 0], Phase::Connected), Ok(Packet::Pingreq));
    let goodbye = Disconnect { reason: 0, session_expiry_s: None };
    assert_eq!(read(&[0xe0, 0], Phase::Connected), Ok(Packet::Disconnect(goodbye)));
    let goodbye = Disconnect { reason: 4, session_expiry_s: Some(9) };
    let bytes = [0xe0, 7, 4, 5, 0x11, 0, 0, 0, 9];
    assert_eq!(read(&bytes, Phase::Connected), Ok(Packet::Disconnect(goodbye)));
}

/// INV-COST-1, INV-MIX-1: from a CONNECT that is accepted, each single change is refused for its own reason.
#[test]
fn a_connect_with_one_thing_wrong_is_refused_for_that() {
    use Refusal::*;
    type Change = fn(&mut C);
    let table: &[(&str, Refusal, Change)] = &[
        ("another name", BadProtocolName, |c| c.name = b"MQTX"),
        ("MQTT 3.1", UnsupportedVersion, |c| (c.name, c.version) = (b"MQIsdp", 3)),
        ("MQTT 3.1.1", UnsupportedVersion, |c| c.version = 4),
        ("MQTT 6", UnsupportedVersion, |c| c.version = 6),
        ("flags of the fixed header", ReservedFlags, |c| c.first = 0x11),
        ("reserved connect flag", ReservedFlags, |c| c.flags |= 1),
        ("a will", Will, |c| c.flags |= 0b100),
        ("a will of QoS 3", Will, |c| c.flags |= 0b1_1100),
        ("will QoS without a will", ReservedFlags, |c| c.flags |= 0b1000),
        ("will retain without a will", ReservedFlags, |c| c.flags |= 0b10_0000),
        ("a user name that is not there", Malformed, |c| c.flags |= 0x80),
        ("a password that is not there", Malformed, |c| c.flags |= 0x40),
        ("bytes behind it", Malformed, |c| c.tail.push(0)),
        ("a client id that is cut off", Malformed, |c| c.tail = vec![]),
        ("NUL in the client id", BadText, |c| c.client_id = b"a\0b".to_vec()),
        ("a control character", BadText, |c| c.client_id = b"a\x1bb".to_vec()),
        ("a C1 control character", BadText, |c| c.client_id = "a\u{85}".into()),
        ("a non-character", BadText, |c| c.client_id = "a\u{fffe}".into()),
        ("a non-character of plane 1", BadText, |c| c.client_id = "a\u{1ffff}".into()),
        ("an Arabic non-character", BadText, |c| c.client_id = "a\u{fdd3}".into()),
        ("not UTF-8", BadText, |c| c.client_id = b"a\xff".to_vec()),
        ("a surrogate", BadText, |c| c.client_id = b"a\xed\xa0\x80".to_vec()),
        ("enhanced authentication", EnhancedAuth, |c| c.properties = vec![0x15, 0, 1, b'x']),
        ("authentication data alone", EnhancedAuth, |c| c.properties = vec![0x16, 0, 1, 1]),
        ("an unknown property", BadProperty, |c| c.properties = vec![0x70, 0]),
        ("a property of two bytes", BadProperty, |c| c.properties = vec![0xa6, 0x02, 0]),
        ("another packet's property", BadProperty, |c| c.properties = vec![0x23, 0, 1]),
        ("will delay without a will", BadProperty, |c| c.properties = vec![0x18, 0, 0, 0, 1]),
        ("a property twice", BadPropertyValue, |c| c.properties = vec![0x21, 0, 1, 0x21, 0, 1]),
        ("Receive Maximum 0", BadPropertyValue, |c| c.properties = vec![0x21, 0, 0]),
        ("packet size 0", BadPropertyValue, |c| c.properties = vec![0x27, 0, 0, 0, 0]),
        ("request problem 2", BadPropertyValue, |c| c.properties = vec![0x17, 2]),
        ("a property cut off", Malformed, |c| c.properties = vec![0x11, 0, 0]),
        ("a property id in two bytes", LengthForm, |c| c.properties = vec![0x91, 0x00, 0, 0, 0, 1]),
        ("a control character in a user property", BadText, |c| {
            c.properties = vec![0x26, 0, 1, 7, 0, 0];
        }),
        ("one property too many", TooManyProperties, |c| c.properties = user_properties(17)),
    ];
    for (what, refusal, change) in table {
        let mut connect = C::good();
        assert!(read(&connect.bytes(), Phase::BeforeConnect).is_ok());
        change(&mut connect);
        let mut bytes = connect.bytes();
        if *what == "a client id that is cut off" {
            bytes[1] -= 3;
        }
        assert_eq!(read(&bytes, Phase::BeforeConnect), Err(*refusal), "{what}");
    }
    let most = C { properties: user_properties(16), ..C::good() };
    assert!(read(&most.bytes(), Phase::BeforeConnect).is_ok());
}

#[test]
fn a_publish_with_one_thing_wrong_is_refused_for_that() {
    use Refusal::*;
    type Change = fn(&mut P);
    let table: &[(&str, Refusal, Change)] = &[
        ("QoS 0", Qos0, |p| p.first = 0x30),
        ("DUP with QoS 0", DupQos0, |p| p.first = 0x38),
        ("QoS 2", Qos2, |p| p.first = 0x34),
        ("QoS 3", BadQos, |p| p.first = 0x36),
        ("RETAIN", Retain, |p| p.first = 0x33),
        ("RETAIN with QoS 0", Retain, |p| p.first = 0x31),
        ("packet id 0", PacketIdZero, |p| p.packet_id = 0),
        ("no topic", BadTopic, |p| p.topic = vec![]),
        ("a wildcard", BadTopic, |p| p.topic = b"plimsoll/1/+/up".to_vec()),
        ("all topics", BadTopic, |p| p.topic = b"#".to_vec()),
        ("a long topic", BadTopic, |p| p.topic = vec![b'a'; TOPIC_BYTES_MAX + 1]),
        ("a deep topic", BadTopic, |p| p.topic = vec![b'/'; TOPIC_LEVELS_MAX]),
        ("NUL in the topic", BadText, |p| p.topic = b"plimsoll\0".to_vec()),
        ("a control character", BadText, |p| p.topic = b"plimsoll\x7f".to_vec()),
        ("a topic alias", TopicAlias, |p| p.properties = vec![0x23, 0, 1]),
        ("topic alias 0", TopicAlias, |p| p.properties = vec![0x23, 0, 0]),
        ("an alias and no topic", TopicAlias, |p| {
            (p.topic, p.properties) = (vec![], vec![0x23, 0, 1]);
        }),
        ("a subscription id", SubscriptionId, |p| p.properties = vec![0x0b, 1]),
        ("a wildcard in the response topic", BadTopic, |p| {
            p.properties = vec![0x08, 0, 3, b'a', b'/', b'#'];
        }),
        ("payload format 2", BadPropertyValue, |p| p.properties = vec![0x01, 2]),
        ("payload format twice", BadPropertyValue, |p| p.properties = vec![0x01, 0, 0x01, 0]),
        ("CONNECT's property", BadProperty, |p| p.properties = vec![0x21, 0, 1]),
        ("correlation data cut off", Malformed, |p| p.properties = vec![0x09, 0, 9, 1]),
        ("one property too many", TooManyProperties, |p| p.properties = user_properties(17)),
        ("one byte too many", PacketTooLarge, |p| {
            let spare = 36 * 1024 - P::good().bytes().len() - 2;
            p.payload = vec![0; spare + P::good().payload.len() + 1];
        }),
    ];
    for (what, refusal, change) in table {
        let mut publish = P::good();
        assert!(read(&publish.bytes(), Phase::Connected).is_ok());
        change(&mut publish);
        assert_eq!(read(&publish.bytes(), Phase::Connected), Err(*refusal), "{what}");
    }
    let spare = 36 * 1024 - P::good().bytes().len() - 2;
    let longest = P { payload: vec![0; spare + 6], ..P::good() };
    assert_eq!(longest.bytes().len(), 36 * 1024);
    assert!(read(&longest.bytes(), Phase::Connected).is_ok());
}

#[test]
fn a_subscribe_with_one_thing_wrong_is_refused_for_that() {
    use Refusal::*;
    type Change = fn(&mut S);
    let filter = |s: &mut S, text: &[u8]| s.filters[0].0 = text.to_vec();
    let table: &[(&str, Refusal, Change)] = &[
        ("reserved flags", ReservedFlags, |s| s.first = 0x80),
        ("packet id 0", PacketIdZero, |s| s.packet_id = 0),
        ("no filter", BadFilter, |s| s.filters.clear()),
        ("an empty filter", BadFilter, |s| s.filters[0].0.clear()),
        ("reserved options", ReservedFlags, |s| s.filters[0].1 = 0x41),
        ("QoS 3", ReservedFlags, |s| s.filters[0].1 = 3),
        ("retain handling 3", ReservedFlags, |s| s.filters[0].1 = 0x31),
        ("a subscription id", SubscriptionId, |s| s.properties = vec![0x0b, 1]),
        ("nine filters", TooManyFilters, |s| s.filters = vec![(b"a".to_vec(), 0); 9]),
        ("a user property with NUL", BadText, |s| s.properties = vec![0x26, 0, 1, 0, 0, 0]),
    ];
    for (what, refusal, change) in table {
        let mut subscribe = S::good();
        assert!(read(&subscribe.bytes(), Phase::Connected).is_ok());
        change(&mut subscribe);
        assert_eq!(read(&subscribe.bytes(), Phase::Connected), Err(*refusal), "{what}");
    }
    for (text, refusal) in [
        (&b"plimsoll/#"[..], WildcardSubscription),
        (b"#", WildcardSubscription),
        (b"+", WildcardSubscription),
        (b"a/+/b", WildcardSubscription),
        (b"a#", BadFilter),
        (b"a/#/b", BadFilter),
        (b"a+/b", BadFilter),
        (b"$share/g/a", SharedSubscription),
        (b"$share", SharedSubscription),
        (b"a\0", BadText),
    ] {
        let mut subscribe = S::good();
        filter(&mut subscribe, text);
        assert_eq!(read(&subscribe.bytes(), Phase::Connected), Err(refusal), "{text:?}");
    }
    let unsubscribe = S { first: 0xa2, ..S::good() };
    assert!(read(&unsubscribe.bytes(), Phase::Connected).is_ok());
    let wild = S { first: 0xa2, filters: vec![(b"#".to_vec(), 0)], ..S::good() };
    assert_eq!(read(&wild.bytes(), Phase::Connected), Err(WildcardSubscription));
}

#[test]
fn the_first_byte_alone_refuses_what_a_device_does_not_send() {
    use Refusal::*;
    let limits = Limits::default();
    let connected = |first: u8| head(&[first], Phase::Connected, &limits);
    for (first, refusal) in [
        (0x00, ReservedType),
        (0x0f, ReservedType),
        (0x10, SecondConnect),
        (0x20, WrongDirection),
        (0x40, UnexpectedPacket),
        (0x50, UnexpectedPacket),
        (0x62, UnexpectedPacket),
        (0x70, UnexpectedPacket),
        (0x90, WrongDirection),
        (0xb0, WrongDirection),
        (0xd0, WrongDirection),
        (0xf0, UnexpectedPacket),
        (0xc1, ReservedFlags),
        (0xcf, ReservedFlags),
        (0xe1, ReservedFlags),
        (0x80, ReservedFlags),
        (0xa0, ReservedFlags),
    ] {
        assert_eq!(connected(first), Err(refusal), "{first:#04x}");
    }
    for first in (0x00..=0x0f).chain(0x20..=0xff) {
        assert_eq!(head(&[first], Phase::BeforeConnect, &limits), Err(NotConnectFirst));
    }
    assert_eq!(head(&[], Phase::Connected, &limits), Ok(None));
    assert_eq!(head(&[0x32], Phase::Connected, &limits), Ok(None));
}

/// INV-COST-1: nothing waits for a body that is too long, and the length has one form.
#[test]
fn a_length_is_judged_before_its_body() {
    let limits = Limits::default();
    let too_large = Err(Refusal::PacketTooLarge);
    assert_eq!(head(&[0x10, 0xff, 0xff, 0xff, 0x7f], Phase::BeforeConnect, &limits), too_large);
    assert_eq!(head(&[0x10, 0x80, 0x20], Phase::BeforeConnect, &limits), too_large);
    assert!(head(&[0x10, 0xfd, 0x1f], Phase::BeforeConnect, &limits).unwrap().is_some());
    assert_eq!(head(&[0x82, 0x80, 0x20], Phase::Connected, &limits), too_large);
    assert_eq!(head(&[0x32, 0x80, 0x80, 0x04], Phase::Connected, &limits), too_large);
    let form = Err(Refusal::LengthForm);
    assert_eq!(head(&[0xc0, 0x80, 0x00], Phase::Connected, &limits), form);
    assert_eq!(head(&[0x32, 0xff, 0x80, 0x00], Phase::Connected, &limits), form);
    assert_eq!(head(&[0x32, 0x80, 0x80, 0x80, 0x80], Phase::Connected, &limits), form);
    assert_eq!(head(&[0x32, 0xff, 0xff, 0xff, 0xff, 0x7f], Phase::Connected, &limits), form);
    assert_eq!(read(&[0xc0, 1, 0], Phase::Connected), Err(Refusal::Malformed));
}

/// Whatever is cut off a packet that is accepted, it is never accepted shorter.
#[test]
fn no_beginning_of_a_packet_is_a_packet() {
    let limits = Limits::default();
    for bytes in [C::good().bytes(), P::good().bytes(), S::good().bytes()] {
        let phase = if bytes[0] == 0x10 { Phase::BeforeConnect } else { Phase::Connected };
        let full = head(&bytes, phase, &limits).unwrap().unwrap();
        let payload = if bytes[0] == 0x32 { P::good().payload.len() } else { 0 };
        for body_len in 0..bytes.len() - full.body_at - payload {
            let cut = whole(bytes[0], &bytes[full.body_at..full.body_at + body_len]);
            assert!(read(&cut, phase).is_err(), "{:#04x} cut to {body_len}", bytes[0]);
        }
    }
}

#[test]
fn disconnect_takes_only_what_a_client_may_say() {
    use Refusal::*;
    for (bytes, refusal) in [
        (&[0xe0, 1, 0x8b][..], Malformed),
        (&[0xe0, 1, 0x01], Malformed),
        (&[0xe0, 5, 0, 3, 0x1c, 0, 0], BadProperty),
        (&[0xe0, 3, 0, 0, 0], Malformed),
    ] {
        assert_eq!(read(bytes, Phase::Connected), Err(refusal), "{bytes:?}");
    }
}
