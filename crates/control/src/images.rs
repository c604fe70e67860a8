//! The vendor's repository as gateways fetch it, and as an operator sees it.

use crate::call::{Call, json_answer, text};
use crate::gateway::still_gateway;
use crate::problem::Failure;
use crate::registry::{RegistryError, said};
use crate::releases::{Image, NoImage, RefreshError, release};
use crate::station::{Phase, Station, now};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures::stream;
use model::{Digest, told};
use serde_json::json;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Chunks of 256 KiB that were read and not yet sent.
const CHUNKS_AHEAD: usize = 2;

/// Who takes no byte of an image for so long is not waited for: it asks for the rest.
const STALL: Duration = Duration::from_secs(60);

/// `GET /v1/gateway/images/NAME`.
pub(crate) async fn metadata(station: &Station, mut call: Call) -> Result<Response, Failure> {
    still_gateway(station, &call.peer, &call.directory)?;
    let name = call.name().await?;
    let Some(file) = station.releases.file(&name) else {
        let detail = format!("expected a metadata file that control has verified, found {name:?}");
        let title = "the image repository has no such file";
        return Err(Failure::new(StatusCode::NOT_FOUND, "no_such_metadata", title, detail));
    };
    Ok(text("application/json", file.to_vec()))
}

/// `GET /v1/gateway/blobs/sha256/HEX`.
pub(crate) async fn blob(station: &Station, mut call: Call) -> Result<Response, Failure> {
    still_gateway(station, &call.peer, &call.directory)?;
    let name = call.name().await?;
    let digest = Digest::from_hex(&name).ok_or_else(|| {
        let detail = format!("expected a SHA-256 in 64 hexadecimal digits, found {name:?}");
        Failure::bad_request("bad_digest", detail)
    })?;
    let max = station.limits.blobs_max;
    let slot = station.blobs.clone().try_acquire_owned().map_err(|_| {
        Failure::busy(format!("expected at most {max} images at a time, found one more"))
    })?;
    let image = station.releases.image(digest).await.map_err(|error| {
        if !matches!(error, NoImage::NotPublished(_)) {
            tracing::error!(%digest, error = %told(&error), "an image of the vendor cannot be passed on");
        }
        Failure::from(error)
    })?;
    let length = image.length();
    let (status, first, last) = match wanted(&call.head.headers, length) {
        Wanted::Whole => (StatusCode::OK, 0, length),
        Wanted::Part { first, last } => (StatusCode::PARTIAL_CONTENT, first, last + 1),
        Wanted::Nothing => return Ok(unsatisfiable(length)),
    };
    let mut response = Response::new(sent(station, image, first..last, slot));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(last - first));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if status == StatusCode::PARTIAL_CONTENT {
        headers.insert(header::CONTENT_RANGE, said_range(&format!("{first}-{}", last - 1), length));
    }
    Ok(response)
}

/// `GET /v1/releases`.
pub(crate) async fn releases(station: &Station, call: Call) -> Result<Response, Failure> {
    call.person(station)?;
    Ok(json_answer(&station.releases.shown()))
}

/// `POST /v1/releases/refresh`. What failed is said in the page as in every other one: what was published before still is.
pub(crate) async fn refresh(station: &Arc<Station>, call: Call) -> Result<Response, Failure> {
    call.person(station)?;
    match look(station).await {
        Ok(()) | Err(RefreshError::Read { .. } | RefreshError::Refused { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    // What was seen for the first time is on record before it is told.
    station.ledger.covered(station.registry.events()).await?;
    Ok(json_answer(&station.releases.shown()))
}

/// Reads the repository once, and tells of releases that were not there before.
pub(crate) async fn look(station: &Arc<Station>) -> Result<(), RefreshError> {
    let outcome = station.releases.refresh(now()).await;
    let label = outcome.as_ref().map_or_else(RefreshError::label, |_| "ok");
    station.metrics.refreshes.with_label_values(&[label]).inc();
    let published = outcome?;
    station.metrics.releases.set(i64::try_from(published.targets().len()).unwrap_or(i64::MAX));
    station.metrics.releases_end.set(published.ends().as_us().div_euclid(1_000_000));
    if let Err(error) = tell(station).await {
        // It is told by the next look: nothing was noted as told.
        tracing::error!(error = %told(&error), "a release that was seen could not be put on record");
    }
    Ok(())
}

/// One event for each image that this site has not seen before, in the transaction that notes it as seen.
async fn tell(station: &Arc<Station>) -> Result<(), RegistryError> {
    let unseen = station.releases.unseen();
    if unseen.is_empty() {
        return Ok(());
    }
    let seen = unseen.clone();
    let work = station.registry.step(move |step| {
        Box::pin(async move {
            for target in &unseen {
                let digest = target.hashes.sha256.map(|d| d.to_string()).unwrap_or_default();
                let now = now();
                let release = release(target);
                let noted = sqlx::query(
                    "INSERT INTO releases_seen VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                )
                .bind(&target.path)
                .bind(&digest)
                .bind(release.product.as_str())
                .bind(release.version.to_string())
                .bind(now.as_us())
                .execute(step.tx())
                .await
                .map_err(RegistryError::Write)?;
                if noted.rows_affected() == 0 {
                    continue;
                }
                let hardware: Vec<_> = release.hardware.iter().map(|id| id.as_str()).collect();
                let detail = json!({
                    "path": target.path, "sha256": digest, "length": target.length, "hardware": hardware,
                    "security_version": release.security_version.0,
                });
                let subject = format!("release/{}-{}", release.product, release.version);
                step.say(said(now, "control", "release.seen", subject, detail)).await?;
            }
            Ok::<_, RegistryError>(())
        })
    });
    work.await?;
    station.releases.note_seen(&seen);
    Ok(())
}

/// Which images this site has seen. Laid down at each opening of the registry.
pub(crate) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS releases_seen (
    path TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    product TEXT NOT NULL,
    version TEXT NOT NULL,
    seen_at INTEGER NOT NULL,
    PRIMARY KEY (path, sha256)
) STRICT;
";

/// Looks into the repository now and then, until the end.
pub(crate) async fn keep_looking(station: Arc<Station>) {
    let mut draining = std::pin::pin!(station.reached(Phase::Draining));
    let mut failing = false;
    loop {
        match look(&station).await {
            Ok(()) => failing = false,
            // Once for each time that it begins to fail: what is wrong now is on the page of releases.
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(error = %told(&error), "the vendor's repository was not read; what was published before counts");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(station.limits.releases_every) => {}
            () = draining.as_mut() => return,
        }
    }
}

/// A body that is read as it is sent. A task of its own reads, so that a receiver that stands still holds the slot for
/// [`STALL`] and not for ever.
fn sent(
    station: &Station,
    image: Image,
    range: std::ops::Range<u64>,
    slot: OwnedSemaphorePermit,
) -> Body {
    let (sender, receiver) = mpsc::channel::<io::Result<Vec<u8>>>(CHUNKS_AHEAD);
    let bytes = station.metrics.image_bytes.clone();
    tokio::spawn(async move {
        let (mut at, _slot) = (range.start, slot);
        while at < range.end {
            let chunk = image.read(at, range.end - at).await.map_err(io::Error::other);
            let (length, failed) = (chunk.as_ref().map_or(0, Vec::len), chunk.is_err());
            // An error, or a connection that ends early: whoever fetches it sees that it is not whole.
            if sender.send_timeout(chunk, STALL).await.is_err() || failed {
                return;
            }
            bytes.inc_by(length as u64);
            at += length as u64;
        }
    });
    Body::from_stream(stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    }))
}

fn unsatisfiable(length: u64) -> Response {
    let title = "there are no such bytes";
    let detail = format!("expected a range within {length} bytes, found none");
    let status = StatusCode::RANGE_NOT_SATISFIABLE;
    let mut response = Failure::new(status, "range", title, detail).into_response();
    response.headers_mut().insert(header::CONTENT_RANGE, said_range("*", length));
    response
}

fn said_range(range: &str, length: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("bytes {range}/{length}")).expect("digits, a dash and a slash")
}

/// The bytes that a request is for (RFC 9110 §14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    /// Both ends belong to it.
    Part {
        first: u64,
        last: u64,
    },
    Nothing,
}

/// Several ranges, other units and what cannot be read are answered with the whole, as the RFC lets us.
fn wanted(headers: &HeaderMap, length: u64) -> Wanted {
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| !text.starts_with('+'));
    let ends = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = ends else { return Wanted::Whole };
    let (first, last) = match (first, number(first), last, number(last)) {
        ("", _, _, Some(0)) => return Wanted::Nothing,
        ("", _, _, Some(suffix)) => (length.saturating_sub(suffix), u64::MAX),
        (_, Some(first), "", _) => (first, u64::MAX),
        (_, Some(first), _, Some(last)) if first <= last => (first, last),
        _ => return Wanted::Whole,
    };
    if first >= length {
        return Wanted::Nothing;
    }
    Wanted::Part { first, last: last.min(length - 1) }
}

impl From<NoImage> for Failure {
    fn from(error: NoImage) -> Self {
        let (status, word, title) = match &error {
            NoImage::NotPublished(_) => (StatusCode::NOT_FOUND, "no_such_image", "no such image"),
            NoImage::Read { .. } | NoImage::GivenUp => {
                (StatusCode::SERVICE_UNAVAILABLE, "image_away", "the image cannot be read now")
            }
            NoImage::Damaged { .. } | NoImage::Changed => (
                StatusCode::SERVICE_UNAVAILABLE,
                "image_damaged",
                "the vendor's copy is not what the vendor signed",
            ),
        };
        let failure = Self::new(status, word, title, told(&error));
        if status == StatusCode::SERVICE_UNAVAILABLE { failure.again_in_a_while() } else { failure }
    }
}

impl From<RefreshError> for Failure {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::NoRepository => {
                let title = "control has no vendor's repository";
                Self::new(StatusCode::CONFLICT, error.label(), title, told(&error))
            }
            error => Self::internal(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_the_rfc_says() {
        let of = |range: &str, length| {
            let headers = [(header::RANGE, HeaderValue::from_str(range).unwrap())];
            wanted(&headers.into_iter().collect(), length)
        };
        let part = |first, last| Wanted::Part { first, last };
        for (range, expected) in [
            ("bytes=0-", part(0, 99)),
            ("bytes=7-", part(7, 99)),
            ("bytes=7-7", part(7, 7)),
            ("bytes=7-8", part(7, 8)),
            ("bytes=7-1000", part(7, 99)),
            ("bytes=99-", part(99, 99)),
            ("bytes=100-", Wanted::Nothing),
            ("bytes=100-101", Wanted::Nothing),
            ("bytes=-1", part(99, 99)),
            ("bytes=-100", part(0, 99)),
            ("bytes=-1000", part(0, 99)),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=8-7", Wanted::Whole),
            ("bytes=1-2,4-5", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=18446744073709551616-", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
        ] {
            assert_eq!(of(range, 100), expected, "{range}");
        }
        assert_eq!(of("bytes=0-", 0), Wanted::Nothing, "an empty image has no bytes");
        assert_eq!(wanted(&HeaderMap::new(), 100), Wanted::Whole);
    }
}
