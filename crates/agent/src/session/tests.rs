//! A gateway's every answer, in bytes of our own making: the library that the session uses made none of them.

use super::*;

const DEVICE: &str = "pump-7";
const NONCE: &str = "000102030405060708090a0b0c0d0e0f";

/// A packet of fewer than 128 bytes.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 128);
    [&[first, body.len() as u8], body].concat()
}

fn connack(reason: u8, properties: &[u8]) -> Vec<u8> {
    packet(0x20, &[&[0, reason, properties.len() as u8], properties].concat())
}

fn user_property(key: &str, value: &str) -> Vec<u8> {
    let text = |t: &str| [&(t.len() as u16).to_be_bytes()[..], t.as_bytes()].concat();
    [&[0x26][..], &text(key), &text(value)].concat()
}

fn puback(id: u16, reason: u8) -> Vec<u8> {
    packet(0x40, &[&id.to_be_bytes()[..], &[reason]].concat())
}

/// Packet id and payload of a PUBLISH with QoS 1, without DUP and retain.
fn publish(bytes: &[u8]) -> (u16, Vec<u8>) {
    assert_eq!(bytes[0], 0x32, "PUBLISH, DUP 0, QoS 1, retain 0");
    let width = 1 + bytes[1..].iter().position(|b| b & 0x80 == 0).unwrap();
    let body = &bytes[1 + width..];
    let topic_len = usize::from(u16::from_be_bytes([body[0], body[1]]));
    assert_eq!(&body[2..2 + topic_len], b"plimsoll/1/pump-7/up");
    let rest = &body[2 + topic_len..];
    assert_eq!(rest[2], 0, "no properties");
    (u16::from_be_bytes([rest[0], rest[1]]), rest[3..].to_vec())
}

fn sent(effects: &[Effect]) -> Vec<Vec<u8>> {
    let bytes = |effect: &Effect| match effect {
        Effect::Send(bytes) => Some(bytes.clone()),
        _ => None,
    };
    effects.iter().filter_map(bytes).collect()
}

fn closed(effects: &[Effect]) -> Option<Why> {
    effects.iter().find_map(|effect| match effect {
        Effect::Close(why) => Some(why.clone()),
        _ => None,
    })
}

/// What is left of effects when timers and bytes are left out.
fn told(effects: Vec<Effect>) -> Vec<Effect> {
    let kept =
        |e: &Effect| !matches!(e, Effect::WakeIn { .. } | Effect::NoWake(_) | Effect::Send(_));
    effects.into_iter().filter(kept).collect()
}

fn open_with(properties: &[u8]) -> Session {
    let (mut session, _) = Session::new(DEVICE);
    let effects = session.on(Event::Bytes(&connack(0, properties)));
    assert_eq!(closed(&effects), None, "the case starts from an accepted CONNACK");
    session
}

/// A session with envelopes 1 to `count` in flight, and their packet ids.
fn in_flight(count: u64) -> (Session, Vec<u16>) {
    let mut session = open_with(&[]);
    let ids = (1..=count)
        .map(|serial| {
            let (offered, effects) = session.publish(serial, vec![serial as u8; 10]);
            assert_eq!(offered, Offered::Sent);
            publish(&sent(&effects)[0]).0
        })
        .collect();
    (session, ids)
}

#[test]
fn it_begins_with_a_clean_start_and_nothing_before_the_answer() {
    let (mut session, effects) = Session::new(DEVICE);
    let sent = sent(&effects);
    assert_eq!(sent.len(), 1);
    // CONNECT, "MQTT", version 5, clean start, keep alive 30 s, Maximum Packet Size 4096; our id.
    let expected = [
        &[0x10, 24, 0, 4][..],
        b"MQTT",
        &[5, 0x02, 0, 30, 5, 0x27, 0, 0, 0x10, 0, 0, 6],
        b"pump-7",
    ]
    .concat();
    assert_eq!(sent[0], expected);
    assert!(effects.contains(&Effect::WakeIn { timer: Timer::Answer, ms: CONNACK_MS_MAX }));
    assert_eq!(session.room(), 0);
    assert_eq!(session.publish(1, vec![1]), (Offered::Full, vec![]));
}

#[test]
fn it_opens_with_the_gateways_nonce_and_without_a_readable_one_with_none() {
    let nonce = Nonce::from_hex(NONCE);
    assert!(nonce.is_some());
    for (properties, expected) in [
        (user_property("nonce", NONCE), nonce),
        ([user_property("x", "y"), user_property("nonce", NONCE)].concat(), nonce),
        (user_property("nonce", &NONCE[1..]), None),
        (user_property("nonce", "zz"), None),
        (user_property("Nonce", NONCE), None),
        (vec![], None),
    ] {
        let (mut session, _) = Session::new(DEVICE);
        let effects = session.on(Event::Bytes(&connack(0, &properties)));
        assert_eq!(told(effects), [Effect::Open { nonce: expected }]);
        assert_eq!(session.room(), usize::from(IN_FLIGHT_MAX));
    }
}

#[test]
fn bytes_may_be_cut_anywhere() {
    let (mut session, _) = Session::new(DEVICE);
    let bytes = connack(0, &user_property("nonce", NONCE));
    let effects: Vec<Effect> =
        bytes.iter().flat_map(|byte| session.on(Event::Bytes(&[*byte]))).collect();
    assert!(matches!(told(effects)[..], [Effect::Open { nonce: Some(_) }]));
    // And several packets may come at once.
    let (_, first) = session.publish(1, vec![1]);
    let (_, second) = session.publish(2, vec![2]);
    let ids = [&first, &second].map(|effects| publish(&sent(effects)[0]).0);
    let both = [puback(ids[0], 0), puback(ids[1], 0)].concat();
    assert_eq!(
        told(session.on(Event::Bytes(&both))),
        [Effect::Done { serial: 1 }, Effect::Done { serial: 2 }]
    );
    assert!(session.is_idle());
}

/// Each case starts from a session that stands, or a CONNACK that is accepted, and changes one thing.
#[test]
fn every_puback_code_has_one_meaning() {
    let answer = |code: u8| {
        let (mut session, ids) = in_flight(2);
        let effects = session.on(Event::Bytes(&puback(ids[0], code)));
        (session, effects)
    };
    for code in [0x00, 0x10] {
        let (session, effects) = answer(code);
        assert_eq!(told(effects), [Effect::Done { serial: 1 }], "{code:#x}");
        assert_eq!(session.room(), usize::from(IN_FLIGHT_MAX) - 1);
    }
    for code in [0x99, 0x83] {
        let (session, effects) = answer(code);
        assert_eq!(told(effects), [Effect::Refused { serial: 1, code }], "{code:#x}");
        assert_eq!(session.room(), usize::from(IN_FLIGHT_MAX) - 1);
    }
    for code in [0x80, 0x87, 0x90, 0x91, 0x97] {
        let (mut session, effects) = answer(code);
        // It says goodbye, and nothing that was in flight counts as done.
        assert_eq!(sent(&effects), [vec![0xe0, 0]], "{code:#x}");
        assert_eq!(told(effects), [Effect::Close(Why::NotNow { code })], "{code:#x}");
        assert_eq!(session.on(Event::Bytes(&puback(2, 0))), []);
    }
    // A code that MQTT does not have for PUBACK.
    for code in [0x01, 0x82, 0xff] {
        let why = closed(&answer(code).1);
        assert_eq!(why, Some(Why::Protocol("its answer ends the session")), "{code:#x}");
    }
}

#[test]
fn a_puback_without_a_reason_is_a_yes() {
    let (mut session, ids) = in_flight(1);
    let effects = session.on(Event::Bytes(&packet(0x40, &ids[0].to_be_bytes())));
    assert_eq!(told(effects), [Effect::Done { serial: 1 }]);
}

#[test]
fn pubacks_out_of_order_for_nothing_or_twice_end_the_session() {
    let (mut session, ids) = in_flight(3);
    let effects = session.on(Event::Bytes(&puback(ids[1], 0)));
    assert_eq!(told(effects), [Effect::Close(Why::Protocol("PUBACKs out of order"))]);

    let (mut session, ids) = in_flight(1);
    let unknown = ids[0].wrapping_add(7);
    let effects = session.on(Event::Bytes(&puback(unknown, 0)));
    assert_eq!(closed(&effects), Some(Why::Protocol("its answer ends the session")));

    let (mut session, ids) = in_flight(2);
    let twice = [puback(ids[0], 0), puback(ids[0], 0)].concat();
    let effects = told(session.on(Event::Bytes(&twice)));
    assert_eq!(
        effects,
        [Effect::Done { serial: 1 }, Effect::Close(Why::Protocol("its answer ends the session"))]
    );
}

#[test]
fn the_gateways_receive_maximum_is_respected() {
    for (properties, room) in
        [(vec![0x21, 0, 1], 1), (vec![0x21, 0, 32], 32), (vec![0x21, 0xff, 0xff], 64), (vec![], 64)]
    {
        let mut session = open_with(&properties);
        let mut ids = Vec::new();
        for serial in 0..room {
            let (offered, effects) = session.publish(serial, vec![0]);
            assert_eq!(offered, Offered::Sent);
            ids.push(publish(&sent(&effects)[0]).0);
        }
        assert_eq!(session.publish(room, vec![0]), (Offered::Full, vec![]));
        session.on(Event::Bytes(&puback(ids[0], 0)));
        assert_eq!(session.publish(room, vec![0]).0, Offered::Sent);
        assert_eq!(session.room(), 0);
    }
}

#[test]
fn the_gateways_maximum_packet_size_is_respected_to_the_byte() {
    // 2 bytes of fixed header, 22 of topic, 2 of id, 1 of properties.
    let mut session = open_with(&[0x27, 0, 0, 0, 127]);
    let (offered, effects) = session.publish(1, vec![0; 100]);
    assert_eq!((offered, sent(&effects)[0].len()), (Offered::Sent, 127));
    let (offered, effects) = session.publish(2, vec![0; 101]);
    assert_eq!((offered, effects), (Offered::TooLong { packet: 128, max: 127 }, vec![]));
    // It took no id and no room.
    assert_eq!(session.room(), usize::from(IN_FLIGHT_MAX) - 1);
    assert_eq!(session.publish(3, vec![0; 100]).0, Offered::Sent);
}

#[test]
fn packet_ids_are_never_of_two_envelopes_in_flight() {
    let mut session = open_with(&[]);
    let mut ids = VecDeque::new();
    for serial in 0..70_000u64 {
        if session.room() == 0 {
            let (id, expected) = ids.pop_front().unwrap();
            let effects = session.on(Event::Bytes(&puback(id, 0)));
            assert_eq!(told(effects), [Effect::Done { serial: expected }]);
        }
        let (_, effects) = session.publish(serial, vec![1]);
        let (id, _) = publish(&sent(&effects)[0]);
        assert!(id != 0 && ids.iter().all(|(other, _)| *other != id));
        ids.push_back((id, serial));
    }
}

#[test]
fn a_connack_that_is_not_a_plain_yes_ends_the_session() {
    let answered = |bytes: &[u8]| {
        let (mut session, _) = Session::new(DEVICE);
        let effects = session.on(Event::Bytes(bytes));
        assert_eq!(session.room(), if closed(&effects).is_some() { 0 } else { 64 });
        closed(&effects)
    };
    assert_eq!(answered(&connack(0, &[])), None);
    for code in [0x80, 0x87, 0x88, 0x89, 0x8a, 0x97, 0x9f] {
        assert_eq!(answered(&connack(code, &[])), Some(Why::NotAdmitted { code }));
    }
    let present = packet(0x20, &[1, 0, 0]);
    assert_eq!(answered(&present), Some(Why::Protocol("a session that nobody asked for")));
    let no_qos = connack(0, &[0x24, 0]);
    assert_eq!(answered(&no_qos), Some(Why::Protocol("it takes nothing with QoS 1")));
    let zero_receive_maximum = connack(0, &[0x21, 0, 0]);
    assert_eq!(answered(&zero_receive_maximum), Some(Why::Protocol("not MQTT 5 of a server")));
    let zero_packet_size = connack(0, &[0x27, 0, 0, 0, 0]);
    assert_eq!(answered(&zero_packet_size), Some(Why::Protocol("not MQTT 5 of a server")));
    let twice = [connack(0, &[]), connack(0, &[])].concat();
    assert_eq!(answered(&twice), Some(Why::Protocol("a second CONNACK")));
}

#[test]
fn what_a_gateway_may_not_say_ends_the_session() {
    let says = |bytes: &[u8]| {
        let (mut session, _) = in_flight(1);
        let effects = session.on(Event::Bytes(bytes));
        let why = closed(&effects);
        assert_eq!(why.is_some(), session.publish(9, vec![1]).0 == Offered::Full);
        why
    };
    assert_eq!(says(&[0xd0, 0]), None, "a PINGRESP is welcome");
    let sent_away = Some(Why::SentAway { code: 0x8b });
    assert_eq!(says(&packet(0xe0, &[0x8b, 0])), sent_away);
    assert_eq!(says(&packet(0xe0, &[])), Some(Why::SentAway { code: 0 }));
    // PUBLISH of QoS 0, SUBACK, PINGREQ, CONNECT, type 0, and a packet that is longer than we take.
    let publish = packet(0x30, &[0, 1, b'x', 0, 1]);
    let too_long = [0x30, 0x81, 0x20];
    for bytes in
        [&publish[..], &packet(0x90, &[0, 1, 0, 0]), &[0xc0, 0], &[0x10, 0], &[0, 0], &too_long]
    {
        assert!(matches!(says(bytes), Some(Why::Protocol(_))), "{bytes:02x?}");
    }
    // Before the CONNACK nothing but it is believed.
    for bytes in [puback(1, 0), vec![0xd0, 0]] {
        let (mut session, _) = Session::new(DEVICE);
        let effects = session.on(Event::Bytes(&bytes));
        assert_eq!(session.room(), 0);
        if bytes[0] == 0x40 {
            assert!(closed(&effects).is_some());
        }
    }
}

#[test]
fn a_silent_gateway_is_left() {
    // No CONNACK.
    let (mut session, _) = Session::new(DEVICE);
    let effects = session.on(Event::Woken(Timer::Answer));
    assert_eq!(effects, [Effect::Close(Why::Silent)]);
    // No PUBACK, however many PINGRESPs: the wish stands from the oldest on.
    let mut session = open_with(&[]);
    let wish = Effect::WakeIn { timer: Timer::Answer, ms: PUBACK_MS_MAX };
    let (_, effects) = session.publish(1, vec![1]);
    assert!(effects.contains(&wish));
    let first = publish(&sent(&effects)[0]).0;
    let (_, effects) = session.publish(2, vec![2]);
    assert!(!effects.contains(&wish), "a later envelope does not put it off");
    let second = publish(&sent(&effects)[0]).0;
    assert!(!session.on(Event::Bytes(&[0xd0, 0])).contains(&wish));
    assert!(session.on(Event::Bytes(&puback(first, 0))).contains(&wish));
    let effects = session.on(Event::Bytes(&puback(second, 0)));
    assert!(effects.contains(&Effect::NoWake(Timer::Answer)));
    // No PINGRESP.
    let effects = session.on(Event::Woken(Timer::Ping));
    assert_eq!(sent(&effects), [vec![0xc0, 0]]);
    assert!(effects.contains(&Effect::WakeIn { timer: Timer::Pong, ms: PINGRESP_MS_MAX }));
    assert_eq!(session.on(Event::Woken(Timer::Pong)), [Effect::Close(Why::Silent)]);
    assert_eq!(session.on(Event::Woken(Timer::Ping)), []);
}

#[test]
fn it_pings_when_the_gateway_wants_to_hear_something() {
    let ping_in = |effects: &[Effect]| {
        effects.iter().rev().find_map(|effect| match effect {
            Effect::WakeIn { timer: Timer::Ping, ms } => Some(*ms),
            _ => None,
        })
    };
    let (mut session, effects) = Session::new(DEVICE);
    assert_eq!(ping_in(&effects), Some(30_000));
    // Server Keep Alive of 5 s.
    let effects = session.on(Event::Bytes(&connack(0, &[0x13, 0, 5])));
    assert_eq!(ping_in(&effects), Some(5_000));
    assert_eq!(ping_in(&session.publish(1, vec![1]).1), Some(5_000));
}

#[test]
fn it_says_goodbye_once_and_only_where_it_was_let_in() {
    let mut session = open_with(&[]);
    assert_eq!(session.leave(), [Effect::Send(vec![0xe0, 0])]);
    assert_eq!(session.leave(), []);
    let (mut session, _) = Session::new(DEVICE);
    assert_eq!(session.leave(), []);
}
