//! A gateway that does as it is told: real TLS, MQTT in bytes of its own making, and a record of what it was sent.

use keys::tls::{self, Alpn, ClientAuth};
use model::Nonce;
use rustls::ServerConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What the gateway saw. `session` counts connections from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saw {
    Connect { session: usize },
    Publish { session: usize, id: u16, envelope: Vec<u8> },
    Disconnect { session: usize },
    End { session: usize },
}

/// What it answers to a PUBLISH.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Puback(u8),
    Nothing,
    /// The connection is cut.
    Cut,
}

/// Its manners.
#[derive(Clone)]
pub struct Manners {
    /// Properties of its CONNACK, besides the nonce.
    pub properties: Vec<u8>,
    /// The answer to the n-th PUBLISH of a session, both from 0.
    pub answer: fn(session: usize, publish: usize) -> Answer,
}

impl Default for Manners {
    fn default() -> Self {
        Self { properties: Vec::new(), answer: |_, _| Answer::Puback(0) }
    }
}

pub struct Gateway {
    pub address: SocketAddr,
    pub saw: mpsc::UnboundedReceiver<Saw>,
}

/// The nonce of a gateway's sessions.
pub fn nonce(name: &str) -> Nonce {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Nonce(bytes)
}

impl Gateway {
    pub async fn start(name: &'static str, site: &crate::Site, manners: Manners) -> Self {
        let (chain, key) = site.gateway(name);
        let anchors = [site.anchor()];
        let config = tls::server(&chain, &key, &anchors, ClientAuth::Required, Alpn::None).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, saw) = mpsc::unbounded_channel();
        tokio::spawn(serve(listener, config, name, manners, tell));
        Self { address, saw }
    }

    /// The envelope of the next PUBLISH, and its session.
    pub async fn publish(&mut self) -> (usize, Vec<u8>) {
        loop {
            if let Saw::Publish { session, envelope, .. } = self.next().await {
                return (session, envelope);
            }
        }
    }

    pub async fn next(&mut self) -> Saw {
        let limit = std::time::Duration::from_secs(30);
        let saw = tokio::time::timeout(limit, self.saw.recv()).await;
        saw.expect("the gateway sees something within 30 s").expect("the gateway lives")
    }
}

async fn serve(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    name: &'static str,
    manners: Manners,
    tell: mpsc::UnboundedSender<Saw>,
) {
    for session in 0.. {
        let Ok((socket, _)) = listener.accept().await else { return };
        let Ok(stream) = TlsAcceptor::from(config.clone()).accept(socket).await else { continue };
        // One at a time: the agent has one connection, and its order is what is looked at.
        let _ = converse(stream, session, name, &manners, &tell).await;
        if tell.send(Saw::End { session }).is_err() {
            return;
        }
    }
}

pub async fn converse(
    mut stream: TlsStream<TcpStream>,
    session: usize,
    name: &str,
    manners: &Manners,
    tell: &mpsc::UnboundedSender<Saw>,
) -> std::io::Result<()> {
    let (first, _) = packet(&mut stream).await?;
    assert_eq!(first, 0x10, "CONNECT comes first");
    let _ = tell.send(Saw::Connect { session });
    let nonce = nonce(name).to_string();
    let mut properties = manners.properties.clone();
    properties.extend([0x26, 0, 5]);
    properties.extend(b"nonce");
    properties.extend((nonce.len() as u16).to_be_bytes());
    properties.extend(nonce.as_bytes());
    let body = [&[0, 0, properties.len() as u8], &properties[..]].concat();
    stream.write_all(&[&[0x20, body.len() as u8], &body[..]].concat()).await?;
    let mut published = 0;
    loop {
        let (first, body) = packet(&mut stream).await?;
        match first {
            0x32 => {
                let topic_len = usize::from(u16::from_be_bytes([body[0], body[1]]));
                assert_eq!(&body[2..2 + topic_len], b"plimsoll/1/pump-7/up");
                let rest = &body[2 + topic_len..];
                let id = u16::from_be_bytes([rest[0], rest[1]]);
                let _ = tell.send(Saw::Publish { session, id, envelope: rest[3..].to_vec() });
                match (manners.answer)(session, published) {
                    Answer::Puback(code) => {
                        let [high, low] = id.to_be_bytes();
                        stream.write_all(&[0x40, 3, high, low, code]).await?;
                    }
                    Answer::Nothing => {}
                    Answer::Cut => return Ok(()),
                }
                published += 1;
            }
            0xc0 => stream.write_all(&[0xd0, 0]).await?,
            0xe0 => {
                let _ = tell.send(Saw::Disconnect { session });
                return Ok(());
            }
            // DUP stands in the first byte, so a repeat with DUP 1 ends up here.
            other => panic!("a packet that begins with {other:#x}"),
        }
    }
}

async fn packet(stream: &mut TlsStream<TcpStream>) -> std::io::Result<(u8, Vec<u8>)> {
    let first = stream.read_u8().await?;
    let (mut len, mut shift) = (0usize, 0);
    loop {
        let byte = stream.read_u8().await?;
        len |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    Ok((first, body))
}
