//! One publish by hand, as somebody who holds a device's TLS key might do it.

use crate::mqtt::{self, Splitter};
use crate::timed::Timed;
use crate::tls;
use anyhow::{Result, bail, ensure};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// From the first packet of TCP to the PUBACK.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Connects as the device of `dir`, publishes `payload` with QoS 1, and returns the PUBACK's reason code.
pub fn publish_once(
    at: SocketAddr,
    gateway: &str,
    site: &str,
    dir: &Path,
    site_ca: &Path,
    topic: &str,
    payload: &[u8],
) -> Result<u8> {
    let mut socket = Timed::connect(at, TIME_MAX)?;
    let mut tls = rustls::ClientConnection::new(
        tls::client(dir, site_ca, None)?,
        tls::gateway_name(gateway, site)?,
    )?;
    let mut stream = rustls::Stream::new(&mut tls, &mut socket);
    let mut splitter = Splitter::default();
    stream.write_all(&mqtt::encode_connect(""))?;
    let reason = mqtt::connack(&next(&mut stream, &mut splitter)?)?;
    ensure!(reason == 0, "the gateway refused the session with {reason:#04x}");
    stream.write_all(&mqtt::encode_publish(topic, 1, payload))?;
    loop {
        if let Some((1, reason)) = mqtt::puback(&next(&mut stream, &mut splitter)?) {
            stream.write_all(&[0xe0, 0])?;
            return Ok(reason);
        }
    }
}

fn next(stream: &mut impl Read, splitter: &mut Splitter) -> Result<Vec<u8>> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(packet) = splitter.next_packet()? {
            return Ok(packet);
        }
        match stream.read(&mut buffer)? {
            0 => bail!("the gateway closed the connection"),
            n => splitter.push(&buffer[..n]),
        }
    }
}
