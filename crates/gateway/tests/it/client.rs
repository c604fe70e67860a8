//! A device's end of MQTT 5, by hand: it can also do what no device should.

use crate::site::{Device, GATEWAY, PATIENCE, SITE, within};
use keys::tls::Alpn;
use model::Nonce;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use trust::cose::SecretKey;

pub struct Client {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
    pub nonce: Option<Nonce>,
}

/// TLS as this key and chain, to a gateway of the site whose authority this is.
pub fn tls(own: Option<(&[Vec<u8>], &SecretKey)>, ca: &[u8]) -> Arc<ClientConfig> {
    keys::tls::client(own, &[ca.to_vec()], Alpn::None).unwrap()
}

impl Client {
    /// TLS only.
    pub async fn dial(at: SocketAddr, tls: Arc<ClientConfig>) -> io::Result<Self> {
        let stream = timeout(PATIENCE, TcpStream::connect(at)).await??;
        let name = ServerName::try_from(format!("{GATEWAY}.gateway.{SITE}.internal")).unwrap();
        let stream = timeout(PATIENCE, TlsConnector::from(tls).connect(name, stream)).await??;
        Ok(Self { stream, buffer: Vec::new(), nonce: None })
    }

    /// A session as this device; panics unless CONNACK says yes.
    pub async fn connect(at: SocketAddr, device: &Device) -> Self {
        let mut client = Self::dial(at, device.shown()).await.unwrap();
        let connack = client.ask(&connect(device.id.as_str())).await.expect("an answer");
        assert_eq!((connack[0], connack[3]), (0x20, 0), "CONNACK {connack:02x?}");
        // The value of the user property `nonce` is the only 32 hex digits in there.
        let text: String = connack.iter().map(|b| char::from(*b)).collect();
        let at = text.find("nonce").expect("a nonce is announced") + 5 + 2;
        client.nonce = Nonce::from_hex(&text[at..at + 32]);
        assert!(client.nonce.is_some());
        client
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.write(bytes).await.unwrap();
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        within("the gateway reads", written).await
    }

    /// The next packet; `None`: the gateway has ended the connection.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(len) = packet_len(&self.buffer).filter(|len| *len <= self.buffer.len()) {
                let rest = self.buffer.split_off(len);
                return Some(std::mem::replace(&mut self.buffer, rest));
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
            match read.expect("the gateway answers or ends") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    pub async fn ask(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        // A gateway that has ended may have closed its socket already.
        let _ = self.write(bytes).await;
        self.next().await
    }

    /// Publishes with QoS 1 and returns PUBACK's reason code.
    pub async fn publish(&mut self, topic: &str, id: u16, payload: &[u8]) -> u8 {
        self.send(&publish(topic, id, payload)).await;
        let (found, code) = puback(&self.next().await.expect("a PUBACK"));
        assert_eq!(found, id);
        code
    }

    /// Reads until the connection ends; returns the code of DISCONNECT, if one came.
    pub async fn end(&mut self) -> Option<u8> {
        let mut code = None;
        while let Some(packet) = self.next().await {
            if packet[0] == 0xe0 {
                code = Some(packet.get(2).copied().unwrap_or(0));
            }
        }
        code
    }
}

pub fn puback(packet: &[u8]) -> (u16, u8) {
    assert_eq!(packet[0], 0x40, "expected a PUBACK, found {packet:02x?}");
    (u16::from_be_bytes([packet[2], packet[3]]), packet.get(4).copied().unwrap_or(0))
}

pub fn connect(client_id: &str) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x05\x02\0\x3c\0".to_vec();
    text(&mut body, client_id);
    packet(0x10, &body)
}

pub fn publish(topic: &str, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    body.extend_from_slice(&id.to_be_bytes());
    body.push(0);
    body.extend_from_slice(payload);
    packet(0x32, &body)
}

pub fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
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

fn packet_len(bytes: &[u8]) -> Option<usize> {
    let mut value = 0;
    for (i, byte) in bytes.iter().skip(1).take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some(2 + i + value);
        }
    }
    None
}
