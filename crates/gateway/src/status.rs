//! `/metrics` and `/healthz`, in plain HTTP/1, for this machine only.
//!
//! One request a connection, no bodies, no keep-alive: at most [`CONNECTIONS_MAX`] at a time, each for at most
//! [`TIMEOUT`] and [`REQUEST_BYTES_MAX`]. One more waits in the kernel's queue.

use crate::metrics::Metrics;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

const CONNECTIONS_MAX: usize = 16;
const TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_BYTES_MAX: usize = 4096;

/// What `/healthz` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// Not enrolled yet, or without a bundle.
    Starting,
    Serving,
    /// A part has failed; the process is about to stop.
    Failed,
}

/// Answers until it is dropped.
pub(crate) async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    health: watch::Receiver<Health>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = places.clone().acquire_owned().await.expect("it is never closed");
        let Ok((stream, _)) = listener.accept().await else {
            // No descriptor is free: one will be.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (metrics, health) = (metrics.clone(), health.clone());
        tokio::spawn(async move {
            let _place = place;
            // Whoever asks too slowly gets no answer.
            let _ = tokio::time::timeout(TIMEOUT, answer(stream, &metrics, &health)).await;
        });
    }
}

async fn answer(
    mut stream: TcpStream,
    metrics: &Metrics,
    health: &watch::Receiver<Health>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if request.len() >= REQUEST_BYTES_MAX {
            return reply(&mut stream, "431 Request Header Fields Too Large", b"").await;
        }
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let line = request.split(|b| *b == b'\r').next().unwrap_or_default();
    let mut words = line.split(|b| *b == b' ');
    let (status, body) = match (words.next(), words.next()) {
        (Some(b"GET"), Some(b"/metrics")) => ("200 OK", metrics.text()),
        (Some(b"GET"), Some(b"/healthz")) => match *health.borrow() {
            Health::Serving => ("200 OK", b"serving\n".to_vec()),
            Health::Starting => ("503 Service Unavailable", b"starting\n".to_vec()),
            Health::Failed => ("503 Service Unavailable", b"failed\n".to_vec()),
        },
        (Some(b"GET"), _) => ("404 Not Found", Vec::new()),
        _ => ("405 Method Not Allowed", Vec::new()),
    };
    reply(&mut stream, status, &body).await
}

async fn reply(stream: &mut TcpStream, status: &str, body: &[u8]) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await?;
    stream.shutdown().await
}
