//! MQTT 5 as a device sends it: framing and session of the gateway, without a socket.

use super::End;
use gateway::fuzz::fuzz_entry;

/// The first parser is framing: what has one packet through has passed it. More packets are other ways to end.
const DEPTH_MAX: u64 = 6;

pub fn run(bytes: &[u8]) -> End {
    let end = fuzz_entry(bytes);
    let depth = end.packets.min(DEPTH_MAX) as u32;
    match end.refused {
        Some(refusal) => End::refused(depth, refusal),
        None if end.packets > 0 => End::accepted(depth),
        None => End::refused(depth, "it waits for more"),
    }
}

/// Whole and answered (mode 0), and in pieces of seven bytes without an answer (mode 7).
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for mode in [0, 7] {
        for packets in [
            vec![connect(&[])],
            // Session Expiry Interval 0, Receive Maximum 8, Maximum Packet Size 64 KiB, a user property.
            vec![connect(b"\x11\0\0\0\0\x21\0\x08\x27\0\x01\0\0\x26\0\x01a\0\x01b"), vec![0xc0, 0]],
            vec![connect(&[]), publish(1, b"\xd2"), publish(2, b"\xd2\x84"), vec![0xe0, 0]],
            vec![connect(&[]), subscribe(3), unsubscribe(4), vec![0xe0, 2, 0, 0]],
        ] {
            seeds.push([vec![mode], packets.concat()].concat());
        }
    }
    seeds
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 128, "one byte holds the length of a seed");
    [&[first, body.len() as u8], body].concat()
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

/// §3.1: protocol name and version, clean start, keep-alive 60 s, properties, client id.
fn connect(properties: &[u8]) -> Vec<u8> {
    let head = [text("MQTT"), vec![5, 2, 0, 60, properties.len() as u8]].concat();
    packet(0x10, &[head, properties.to_vec(), text("fuzz")].concat())
}

/// §3.3: QoS 1.
fn publish(id: u8, payload: &[u8]) -> Vec<u8> {
    packet(0x32, &[text("plimsoll/1/fuzz/up"), vec![0, id, 0], payload.to_vec()].concat())
}

/// §3.8, with maximum QoS 1.
fn subscribe(id: u8) -> Vec<u8> {
    packet(0x82, &[vec![0, id, 0], text("plimsoll/1/fuzz/down"), vec![1]].concat())
}

/// §3.10.
fn unsubscribe(id: u8) -> Vec<u8> {
    packet(0xa2, &[vec![0, id, 0], text("plimsoll/1/fuzz/down")].concat())
}
