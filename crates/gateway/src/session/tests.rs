use super::*;
use api::{Bundle, BundleDevice, Standing};
use model::{Digest, GatewayId};

const S: Duration = Duration::from_secs(1);
const UP: &str = "plimsoll/1/pump-1/up";
const DOWN: &str = "plimsoll/1/pump-1/down";

/// The bundle under which everything below is accepted.
fn bundle() -> Bundle {
    Bundle {
        format: 1,
        site: "site".into(),
        generation: 7,
        gateway: "gw-1".into(),
        zone: "hall".into(),
        devices: vec![BundleDevice {
            id: "pump-1".into(),
            zone: "hall".into(),
            standing: Standing::Enrolled,
            tls_keys: vec![Digest([1; 32]).to_string()],
            tls_keys_until_ms: Default::default(),
            seal_keys: vec![],
        }],
        policies: policy::DEFAULT_POLICIES.into(),
    }
}

fn view(bundle: &Bundle) -> Arc<View> {
    Arc::new(View::of(bundle, &GatewayId::new("gw-1").unwrap()).unwrap())
}

fn peer() -> Peer {
    Peer { device: Some(DeviceId::new("pump-1").unwrap()), spki: Digest([1; 32]) }
}

fn session() -> Session {
    Session::new(Terms::default(), peer(), Nonce([0xab; 16]), view(&bundle()), S)
}

fn opened() -> Session {
    let mut session = session();
    let effects = session.on(Event::Bytes(&connect("pump-1", 60)), S);
    assert_eq!(effects[0], Effect::Open);
    assert_eq!(connack_code(&effects), Some(0));
    session
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let len = body.len();
    assert!(len < 16384);
    if len > 127 {
        out.extend_from_slice(&[(len & 0x7f) as u8 | 0x80, (len >> 7) as u8]);
    } else {
        out.push(len as u8);
    }
    out.extend_from_slice(body);
    out
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

fn connect(client_id: &str, keep_alive_s: u16) -> Vec<u8> {
    connect_with(client_id, keep_alive_s, &[])
}

fn connect_with(client_id: &str, keep_alive_s: u16, properties: &[u8]) -> Vec<u8> {
    let keep_alive = keep_alive_s.to_be_bytes();
    let head = [&[0, 4, b'M', b'Q', b'T', b'T', 5, 0b10][..], &keep_alive].concat();
    let properties = [&[properties.len() as u8][..], properties].concat();
    packet(0x10, &[head, properties, text(client_id)].concat())
}

fn publish(id: u16, payload: &[u8]) -> Vec<u8> {
    publish_to(UP, id, payload)
}

fn publish_to(topic: &str, id: u16, payload: &[u8]) -> Vec<u8> {
    packet(0x32, &[&text(topic)[..], &id.to_be_bytes(), &[0], payload].concat())
}

fn subscribe(id: u16, filter: &str, qos: u8) -> Vec<u8> {
    packet(0x82, &[&id.to_be_bytes()[..], &[0], &text(filter), &[qos]].concat())
}

fn sent(effects: &[Effect]) -> Vec<Vec<u8>> {
    let sent = effects.iter().filter_map(|effect| match effect {
        Effect::Send(bytes) => Some(bytes.clone()),
        _ => None,
    });
    sent.collect()
}

fn connack_code(effects: &[Effect]) -> Option<u8> {
    sent(effects).iter().find(|p| p[0] == 0x20).map(|p| p[3])
}

fn disconnect_code(effects: &[Effect]) -> Option<u8> {
    sent(effects).iter().find(|p| p[0] == 0xe0).map(|p| p.get(2).copied().unwrap_or(0))
}

/// (packet id, reason code) of each PUBACK, in order.
fn pubacks(effects: &[Effect]) -> Vec<(u16, u8)> {
    let pubacks = sent(effects).into_iter().filter(|p| p[0] == 0x40);
    pubacks.map(|p| (u16::from_be_bytes([p[2], p[3]]), p.get(4).copied().unwrap_or(0))).collect()
}

fn refusals(effects: &[Effect]) -> Vec<Refusal> {
    let refusals = effects.iter().filter_map(|effect| match effect {
        Effect::Refuse(refusal) => Some(*refusal),
        _ => None,
    });
    refusals.collect()
}

/// The session said why, as its table has it, and is at its end.
fn assert_ended(session: &mut Session, effects: &[Effect], refusal: Refusal) {
    assert_eq!(refusals(effects), [refusal]);
    assert_eq!(effects.last(), Some(&Effect::Close), "{refusal}");
    assert_eq!(session.deadline(), None);
    assert_eq!(session.on(Event::Bytes(&publish(1, b"x")), S), [], "nothing after the end");
    assert_eq!(session.on(Event::TakenOver, S), []);
}

#[test]
fn connack_announces_every_limit_and_the_nonce() {
    let effects = session().on(Event::Bytes(&connect("", 900)), S);
    let packets = sent(&effects);
    let (connack, read) = v5_0::Connack::parse(&packets[0][2..]).unwrap();
    assert_eq!(read, packets[0].len() - 2);
    let shown: Vec<String> = connack.props().iter().map(|p| format!("{p:?}")).collect();
    let said = |name: &str| connack.props().iter().any(|p| format!("{p}").contains(name));
    for name in [
        "session_expiry_interval",
        "receive_maximum",
        "maximum_qos",
        "retain_available",
        "maximum_packet_size",
        "topic_alias_maximum",
        "wildcard_subscription_available",
        "subscription_identifier_available",
        "shared_subscription_available",
        "server_keep_alive",
        "assigned_client_identifier",
    ] {
        assert!(said(name), "{name} in {shown:?}");
    }
    let all = format!("{:?}", connack.props());
    assert!(all.contains(&"ab".repeat(16)) && all.contains("nonce"), "{all}");
    let value = |find: fn(&wire::Property) -> Option<u32>| connack.props().iter().find_map(find);
    let number = |p: &wire::Property| match p {
        wire::Property::ServerKeepAlive(v) => Some(u32::from(v.val())),
        _ => None,
    };
    assert_eq!(value(number), Some(300), "a longer keep-alive is cut to ours");
    assert_eq!(
        value(|p| match p {
            wire::Property::ReceiveMaximum(v) => Some(u32::from(v.val())),
            _ => None,
        }),
        Some(32)
    );
    assert_eq!(
        value(|p| match p {
            wire::Property::MaximumPacketSize(v) => Some(v.val()),
            _ => None,
        }),
        Some(36 * 1024)
    );
}

/// INV-AUTH-1: from a CONNECT that is accepted, each single change of who asks is refused for its own reason.
#[test]
fn who_may_not_connect_is_told_so_and_nothing_more() {
    use Refusal::*;
    struct World {
        bundle: Bundle,
        peer: Peer,
        client_id: &'static str,
    }
    type Change = fn(&mut World);
    let table: &[(&str, Refusal, Change)] = &[
        ("a gateway's certificate", NotADevice, |w| w.peer.device = None),
        ("another device", UnknownDevice, |w| w.peer.device = DeviceId::new("pump-2").ok()),
        ("listed only", NotEnrolled, |w| w.bundle.devices[0].standing = Standing::Listed),
        ("quarantined", Quarantined, |w| w.bundle.devices[0].standing = Standing::Quarantined),
        ("revoked", Revoked, |w| w.bundle.devices[0].standing = Standing::Revoked),
        ("another TLS key", UnknownTlsKey, |w| w.peer.spki = Digest([2; 32])),
        ("no TLS key", UnknownTlsKey, |w| w.bundle.devices[0].tls_keys.clear()),
        ("another zone", PolicyConnect, |w| w.bundle.devices[0].zone = "yard".into()),
        ("no policy", PolicyConnect, |w| w.bundle.policies = String::new()),
        ("another client id", ClientId, |w| w.client_id = "pump-2"),
        ("a client id in other case", ClientId, |w| w.client_id = "Pump-1"),
    ];
    for (what, refusal, change) in table {
        let mut w = World { bundle: bundle(), peer: peer(), client_id: "pump-1" };
        change(&mut w);
        let mut session =
            Session::new(Terms::default(), w.peer, Nonce([0; 16]), view(&w.bundle), S);
        let effects = session.on(Event::Bytes(&connect(w.client_id, 60)), S);
        assert_eq!(connack_code(&effects), Some(0x87), "{what}");
        assert!(!effects.contains(&Effect::Open), "{what}");
        assert_ended(&mut session, &effects, *refusal);
    }
}

#[test]
fn a_connect_that_framing_refuses_is_answered_by_connack() {
    for (bytes, refusal) in [
        (packet(0x10, b"\0\x04MQTT\x04\x02\0\x3c\0\x06pump-1"), Refusal::UnsupportedVersion),
        (connect_with("pump-1", 60, &[0x15, 0, 1, b'x']), Refusal::EnhancedAuth),
        (connect_with("pump-1", 60, &[0x27, 0, 0, 0, 255]), Refusal::ClientPacketLimit),
        (connect("pump\0", 60), Refusal::BadText),
        (vec![0x10, 0xff, 0xff, 0x7f], Refusal::PacketTooLarge),
        (vec![0x10, 0x80, 0x00], Refusal::LengthForm),
    ] {
        let mut session = session();
        let effects = session.on(Event::Bytes(&bytes), S);
        assert_eq!(connack_code(&effects), Some(refusal.code()), "{refusal}");
        assert_ended(&mut session, &effects, refusal);
    }
    let unsupported = connack_refusing(Refusal::UnsupportedVersion);
    assert_eq!(unsupported, [0x20, 3, 0, 0x84, 0]);
}

#[test]
fn before_connect_nothing_is_answered_and_nothing_is_done() {
    for bytes in [publish(1, b"x"), subscribe(1, DOWN, 0), vec![0xc0, 0], vec![0x20, 3, 0, 0, 0]] {
        let mut session = session();
        let effects = session.on(Event::Bytes(&bytes), S);
        assert_eq!(sent(&effects), Vec::<Vec<u8>>::new());
        assert_ended(&mut session, &effects, Refusal::NotConnectFirst);
    }
    // CONNECT and PUBLISH in one piece: the second is looked at only because the first was accepted.
    let mut session = session();
    let both = [connect("pump-1", 60), publish(1, b"x")].concat();
    let effects = session.on(Event::Bytes(&both), S);
    assert!(effects.contains(&Effect::Offer { place: 0, message: b"x".to_vec() }));
    let mut revoked = bundle();
    revoked.devices[0].standing = Standing::Revoked;
    let mut session = Session::new(Terms::default(), peer(), Nonce([0; 16]), view(&revoked), S);
    let effects = session.on(Event::Bytes(&both), S);
    assert!(!effects.iter().any(|e| matches!(e, Effect::Offer { .. })));
    assert_ended(&mut session, &effects, Refusal::Revoked);
}

#[test]
fn in_a_session_each_breach_of_protocol_ends_it_with_its_code() {
    use Refusal::*;
    let two = |a: Vec<u8>, b: Vec<u8>| [a, b].concat();
    let deep = "/".repeat(20);
    for (bytes, refusal) in [
        (connect("pump-1", 60), SecondConnect),
        (vec![0x20, 3, 0, 0, 0], WrongDirection),
        (vec![0x90, 4, 0, 1, 0, 0], WrongDirection),
        (vec![0x40, 2, 0, 1], UnexpectedPacket),
        (vec![0x62, 2, 0, 1], UnexpectedPacket),
        (vec![0xf0, 0], UnexpectedPacket),
        (vec![0x00, 0], ReservedType),
        (vec![0xcf, 0], ReservedFlags),
        (vec![0x32, 0xff, 0xff, 0xff, 0x7f], PacketTooLarge),
        (vec![0x32, 0x85, 0x00], LengthForm),
        (publish(0, b"x"), PacketIdZero),
        (two(publish(5, b"x"), publish(5, b"y")), PacketIdInUse),
        (publish_to("a/#", 1, b"x"), BadTopic),
        (publish_to(&deep, 1, b"x"), BadTopic),
        (publish_to("a\u{1}", 1, b"x"), BadText),
        (packet(0x34, &publish(1, b"x")[2..]), Qos2),
        (packet(0x33, &publish(1, b"x")[2..]), Retain),
        (packet(0x38, &publish(1, b"x")[2..]), DupQos0),
        (packet(0x30, &publish(1, b"x")[2..]), Qos0),
        (subscribe(1, "#", 0), WildcardSubscription),
        (subscribe(1, "$share/g/a", 0), SharedSubscription),
        (subscribe(0, DOWN, 0), PacketIdZero),
    ] {
        let mut session = opened();
        let effects = session.on(Event::Bytes(&bytes), S);
        assert_eq!(disconnect_code(&effects), Some(refusal.code()), "{refusal}");
        assert_ended(&mut session, &effects, refusal);
    }
}

/// INV-COST-1: one more than Receive Maximum ends the session; as many as that are all offered.
#[test]
fn no_more_is_in_flight_than_was_announced() {
    let mut session = opened();
    for id in 1..=32 {
        let effects = session.on(Event::Bytes(&publish(id, b"x")), S);
        assert_eq!(effects.len(), 1, "{id}");
    }
    let effects = session.on(Event::Bytes(&publish(33, b"x")), S);
    assert_eq!(disconnect_code(&effects), Some(0x93));
    assert_ended(&mut session, &effects, Refusal::ReceiveMaximum);
}

/// MQTT 5 §4.6, INV-ACK-1: no PUBACK overtakes an earlier one, and none is sent before its answer.
#[test]
fn pubacks_leave_in_the_order_of_publishes_refusals_included() {
    let mut session = opened();
    let stream = [
        publish(11, b"a"),
        publish_to("plimsoll/1/pump-2/up", 12, b"b"),
        publish(13, b"c"),
        publish(14, b"d"),
    ];
    let effects = session.on(Event::Bytes(&stream.concat()), S);
    let offered: Vec<_> = effects
        .iter()
        .filter_map(|e| match e {
            Effect::Offer { place, message } => Some((*place, message.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(offered, [(0, b"a".to_vec()), (2, b"c".to_vec()), (3, b"d".to_vec())]);
    assert_eq!(refusals(&effects), [Refusal::PolicyPublish]);
    assert_eq!(pubacks(&effects), [], "the refusal waits behind the message before it");

    let answer = |place, answer| Event::Answered { place, answer };
    let effects = session.on(answer(3, Answer::Refused(Refusal::Forged)), S);
    assert_eq!((pubacks(&effects), refusals(&effects)), (vec![], vec![Refusal::Forged]));
    let effects = session.on(answer(0, Answer::Accepted), S);
    assert_eq!(pubacks(&effects), [(11, 0), (12, 0x87)]);
    let effects = session.on(answer(2, Answer::Accepted), S);
    assert_eq!(pubacks(&effects), [(13, 0), (14, 0x83)]);
    assert_eq!(session.on(answer(2, Answer::Accepted), S), [], "an answer counts once");
    // The identifiers are free again.
    assert_eq!(session.on(Event::Bytes(&publish(11, b"e")), S).len(), 1);
}

#[test]
fn every_refusal_of_a_message_has_its_code_in_puback() {
    for refusal in Refusal::ALL.iter().filter(|r| r.ends() == Ends::Message) {
        let mut session = opened();
        session.on(Event::Bytes(&publish(3, b"x")), S);
        let answered = Event::Answered { place: 0, answer: Answer::Refused(*refusal) };
        let effects = session.on(answered, S);
        assert_eq!(pubacks(&effects), [(3, refusal.code())], "{refusal}");
        assert!(session.is_open(), "{refusal}");
    }
}

#[test]
fn only_the_devices_own_orders_can_be_subscribed() {
    let mut session = opened();
    let suback = |effects: &[Effect]| sent(effects)[0].clone();
    let effects = session.on(Event::Bytes(&subscribe(1, DOWN, 2)), S);
    assert_eq!(suback(&effects), [0x90, 4, 0, 1, 0, 1]);
    let effects = session.on(Event::Bytes(&subscribe(2, "plimsoll/1/pump-2/down", 0)), S);
    assert_eq!(suback(&effects), [0x90, 4, 0, 2, 0, 0x87]);
    assert_eq!(refusals(&effects), [Refusal::PolicySubscribe]);
    let unsubscribe =
        |id: u8, filter: &str| packet(0xa2, &[&[0, id, 0][..], &text(filter)].concat());
    let effects = session.on(Event::Bytes(&unsubscribe(3, DOWN)), S);
    assert_eq!(suback(&effects), [0xb0, 4, 0, 3, 0, 0]);
    let effects = session.on(Event::Bytes(&unsubscribe(4, DOWN)), S);
    assert_eq!(suback(&effects), [0xb0, 4, 0, 4, 0, 0x11]);
}

#[test]
fn a_session_ends_when_nothing_is_heard_and_lives_while_something_is() {
    let mut session = session();
    assert_eq!(session.deadline(), Some(S + 5 * S));
    assert_eq!(session.on(Event::Tick, 5 * S), []);
    let effects = session.on(Event::Tick, 6 * S);
    assert_eq!(sent(&effects), Vec::<Vec<u8>>::new());
    assert_ended(&mut session, &effects, Refusal::ConnectTimeout);

    let mut session = opened();
    assert_eq!(session.deadline(), Some(91 * S));
    let effects = session.on(Event::Bytes(&[0xc0, 0]), 50 * S);
    assert_eq!(sent(&effects), [[0xd0, 0]]);
    assert_eq!(session.deadline(), Some(140 * S));
    // Half a packet is not a sign of life.
    assert_eq!(session.on(Event::Bytes(&[0xc0]), 100 * S), []);
    assert_eq!(session.deadline(), Some(140 * S));
    session.on(Event::HeldBack(10 * S), 110 * S);
    assert_eq!(session.on(Event::Tick, 149 * S), []);
    let effects = session.on(Event::Tick, 150 * S);
    assert_eq!(disconnect_code(&effects), Some(0x8d));
    assert_ended(&mut session, &effects, Refusal::KeepAlive);
}

/// INV-AUTH-1: a live session does not outlive the right to begin it.
#[test]
fn a_newer_bundle_cuts_whom_it_no_longer_lets_in() {
    type Change = fn(&mut Bundle);
    let table: &[(&str, Change)] = &[
        ("revoked", |b| b.devices[0].standing = Standing::Revoked),
        ("quarantined", |b| b.devices[0].standing = Standing::Quarantined),
        ("gone", |b| b.devices.clear()),
        ("its TLS key is gone", |b| b.devices[0].tls_keys.clear()),
        ("no policy", |b| b.policies.clear()),
    ];
    for (what, change) in table {
        let mut session = opened();
        let mut newer = Bundle { generation: 8, ..bundle() };
        assert_eq!(session.on(Event::View(view(&newer)), S), [], "{what}");
        newer.generation = 9;
        change(&mut newer);
        let effects = session.on(Event::View(view(&newer)), S);
        assert_eq!(disconnect_code(&effects), Some(0x98), "{what}");
        assert_ended(&mut session, &effects, Refusal::StandingChanged);
    }
}

#[test]
fn a_decision_is_forgotten_with_the_bundle_that_it_was_made_under() {
    let mut session = opened();
    assert!(matches!(
        session.on(Event::Bytes(&publish(1, b"x")), S)[..],
        [Effect::Offer { place: 0, .. }]
    ));
    let mut newer = bundle();
    newer.policies = newer.policies.replace("resource.direction == \"up\"", "false");
    assert_eq!(session.on(Event::View(view(&newer)), S), []);
    let effects = session.on(Event::Bytes(&publish(2, b"x")), S);
    assert_eq!(refusals(&effects), [Refusal::PolicyPublish]);
}

#[test]
fn a_newer_session_and_a_shutdown_end_this_one_with_their_codes() {
    let mut session = opened();
    let effects = session.on(Event::TakenOver, S);
    assert_eq!(disconnect_code(&effects), Some(0x8e));
    assert_ended(&mut session, &effects, Refusal::TakenOver);

    let mut session = opened();
    let effects = session.on(Event::ShuttingDown, S);
    assert_eq!(disconnect_code(&effects), Some(0x8b));
    assert_eq!(refusals(&effects), []);
    assert_eq!(effects.last(), Some(&Effect::Close));
}

#[test]
fn a_client_that_says_goodbye_is_let_go() {
    let mut session = opened();
    assert_eq!(session.on(Event::Bytes(&[0xe0, 0]), S), [Effect::Close]);
    // §3.14.2.2.2: it cannot ask for a lasting session on its way out.
    let mut session = opened();
    let effects = session.on(Event::Bytes(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 9]), S);
    assert_ended(&mut session, &effects, Refusal::BadPropertyValue);
}

/// The library that writes our packets has a code for each of our refusals.
#[test]
fn every_refusal_that_ends_a_connection_can_be_said() {
    for refusal in Refusal::ALL.iter().filter(|r| r.ends() == Ends::Connection) {
        let code = refusal.code();
        let said_in_connack =
            matches!(code, 0x84 | 0x87 | 0x8c) || ConnectReasonCode::try_from(code).is_ok();
        let said_in_disconnect = DisconnectReasonCode::try_from(code).is_ok();
        assert!(said_in_connack || said_in_disconnect, "{refusal}");
    }
}

#[test]
fn the_stream_may_be_cut_anywhere() {
    let stream = [connect("", 60), subscribe(1, DOWN, 1), publish(2, &[7; 300]), vec![0xc0, 0]];
    let stream = stream.concat();
    let mut whole = session();
    let expected = whole.on(Event::Bytes(&stream), S);
    assert_eq!(whole.packets(), 4);
    for piece in [1, 2, 3, 7, 64] {
        let mut session = session();
        let effects: Vec<Effect> =
            stream.chunks(piece).flat_map(|bytes| session.on(Event::Bytes(bytes), S)).collect();
        assert_eq!(effects, expected, "pieces of {piece}");
    }
}

#[test]
fn the_fuzz_entry_reaches_the_session() {
    let stream = [connect("fuzz", 60), publish_to("plimsoll/1/fuzz/up", 1, b"x"), vec![0xe0, 0]];
    for mode in [0, 5] {
        let input = [&[mode][..], &stream.concat()].concat();
        let end = crate::fuzz::fuzz_entry(&input);
        assert_eq!(end, crate::fuzz::End { packets: 3, refused: None });
    }
    let end = crate::fuzz::fuzz_entry(&[&[3][..], &publish(1, b"x")].concat());
    assert_eq!(end.refused, Some(Refusal::NotConnectFirst));
}
