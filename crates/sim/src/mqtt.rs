//! As much MQTT 5 as a bystander needs: where packets end, and what PUBLISH and PUBACK say.

use anyhow::{Context, Result, bail, ensure};

/// Splits whole packets off the front of a stream's bytes.
#[derive(Debug, Default)]
pub struct Splitter(Vec<u8>);

impl Splitter {
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub fn next_packet(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(len) = packet_len(&self.0)? else { return Ok(None) };
        if self.0.len() < len {
            return Ok(None);
        }
        let rest = self.0.split_off(len);
        Ok(Some(std::mem::replace(&mut self.0, rest)))
    }
}

fn packet_len(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(head) = bytes.get(1..) else { return Ok(None) };
    Ok(varint(head)?.map(|(len, width)| 1 + width + len))
}

fn varint(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some((value, i + 1)));
        }
    }
    ensure!(bytes.len() < 4, "a length of more than four bytes");
    Ok(None)
}

/// The packet id and payload of a PUBLISH with QoS 1.
pub fn publish(packet: &[u8]) -> Option<(u16, &[u8])> {
    if packet[0] >> 4 != 3 || packet[0] & 0x06 != 0x02 {
        return None;
    }
    let (_, width) = varint(&packet[1..]).ok()??;
    let body = &packet[1 + width..];
    let topic_len = usize::from(u16::from_be_bytes(body.get(..2)?.try_into().ok()?));
    let id = u16::from_be_bytes(body.get(2 + topic_len..4 + topic_len)?.try_into().ok()?);
    let rest = body.get(4 + topic_len..)?;
    let (properties, width) = varint(rest).ok()??;
    Some((id, rest.get(width + properties..)?))
}

/// The packet id and reason code of a PUBACK.
pub fn puback(packet: &[u8]) -> Option<(u16, u8)> {
    if packet[0] >> 4 != 4 {
        return None;
    }
    let id = u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?);
    Some((id, packet.get(4).copied().unwrap_or(0)))
}

/// CONNECT with a clean start and nothing else.
pub fn encode_connect(client_id: &str) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 0b10, 0, 60, 0];
    text(&mut body, client_id);
    packet(0x10, &body)
}

pub fn encode_publish(topic: &str, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(payload.len() + topic.len() + 8);
    text(&mut body, topic);
    body.extend_from_slice(&id.to_be_bytes());
    body.push(0);
    body.extend_from_slice(payload);
    packet(0x32, &body)
}

/// The reason code of a CONNACK.
pub fn connack(packet: &[u8]) -> Result<u8> {
    ensure!(packet[0] == 0x20, "expected a CONNACK, found a packet of type {:#x}", packet[0]);
    let (_, width) = varint(&packet[1..])?.context("a whole packet")?;
    match packet.get(1 + width + 1) {
        Some(reason) => Ok(*reason),
        None => bail!("a CONNACK without a reason code"),
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_split_wherever_the_stream_breaks() {
        let stream = [encode_connect("a"), encode_publish("t/x", 7, &[9; 300])].concat();
        let mut splitter = Splitter::default();
        let mut packets = Vec::new();
        for byte in &stream {
            splitter.push(&[*byte]);
            packets.extend(splitter.next_packet().unwrap());
        }
        assert_eq!(packets.len(), 2);
        assert_eq!(publish(&packets[1]), Some((7, &[9; 300][..])));
        assert_eq!(publish(&packets[0]), None);
        assert_eq!(puback(&[0x40, 2, 0, 7]), Some((7, 0)));
        assert_eq!(puback(&[0x40, 3, 0, 7, 0x87]), Some((7, 0x87)));
    }
}
