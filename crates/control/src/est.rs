//! EST (RFC 7030): certificates for who proves that they may have them.
//!
//! Bodies are base64 on one line; strongSwan's client refuses line breaks. What we read may have them.

use crate::call::{Call, expect_media_type};
use crate::endpoint::Access;
use crate::enrol;
use crate::problem::Failure;
use crate::station::{Station, now};
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use keys::ca::CaError;
use keys::est::{decode_body, encode_body};
use keys::{csr, pkcs7};
use std::sync::Arc;

/// A request in base64, with room for line breaks.
const BODY_BYTES_MAX: usize = 16 * 1024;

const PKCS10: &str = "application/pkcs10";
/// RFC 7030 §4.1.3 and §4.2.3.
const PKCS7: &str = "application/pkcs7-mime; smime-type=certs-only";

/// RFC 7030 §4.1: the site's authorities. For a client that does not trust them yet this proves nothing; it pins them by
/// other means.
pub(crate) async fn ca_certs(station: &Station) -> Result<Response, Failure> {
    Ok(answer(station.ca_certs.clone()))
}

/// RFC 7030 §4.2. Decided, issued, stored and logged, in this order, before the answer.
pub(crate) async fn enroll(station: &Arc<Station>, call: Call) -> Result<Response, Failure> {
    let applicant = call
        .caller
        .applicant()
        .ok_or_else(|| station.past_its_scope(Access::Enrol, &call.caller))?;
    let purpose = call.endpoint.purpose().expect("this endpoint certifies a key");
    let csr = read(&call).await?;
    station.ledger.may_widen()?;
    let (authority, terms, at) = (station.authority.clone(), station.terms.clone(), now());
    let decided = station
        .registry
        .enrol(at, move |directory| {
            let grant = enrol::decide(directory, &applicant, &csr, purpose, &terms, at)?;
            Ok::<_, Stopped>(enrol::issue(&grant, &csr, &authority, &terms, at)?)
        })
        .await
        .map_err(|error| station.failed_to_store(error))?;
    let (changed, issued) = match decided {
        Ok(stored) => stored,
        Err(Stopped::Refused(refusal)) => {
            if let Some(device) = refusal.device() {
                station.inventory.refused(device, "a certificate", refusal.word(), None);
            }
            return Err(refusal.into());
        }
        Err(Stopped::Failed(error)) => return Err(Failure::internal(&error)),
    };
    station.inventory.heard(None, [&changed.device.id]);
    station.metrics.certificates.with_label_values(&[purpose.as_str()]).inc();
    tracing::info!(
        device = %changed.device.id, purpose = purpose.as_str(), key = %issued.key.shown_id(),
        generation = changed.generation, "certificate issued"
    );
    // What proves that it was issued is durable before it is given out (INV-EVID-1).
    station.ledger.covered(changed.events).await?;
    let bag = pkcs7::encode(&[issued.certificate]).map_err(|error| Failure::internal(&error))?;
    Ok(answer(encode_body(&bag)))
}

/// Why there is no certificate.
enum Stopped {
    Refused(enrol::Refusal),
    Failed(CaError),
}

impl From<enrol::Refusal> for Stopped {
    fn from(refusal: enrol::Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<CaError> for Stopped {
    fn from(error: CaError) -> Self {
        Self::Failed(error)
    }
}

async fn read(call: &Call) -> Result<csr::Csr, Failure> {
    expect_media_type(&call.head.headers, PKCS10)?;
    let body = call.body(BODY_BYTES_MAX).await?;
    let der = decode_body(&body).ok_or_else(|| {
        Failure::bad_request("not_base64", "expected PKCS#10 in base64, found something else")
    })?;
    csr::read(&der).map_err(|error| {
        let word = match error {
            csr::CsrError::NoPossession => "no_possession",
            csr::CsrError::UnknownKey => "unknown_key_kind",
            _ => "bad_csr",
        };
        Failure::bad_request(word, model::told(&error))
    })
}

fn answer(base64: String) -> Response {
    let mut response = Response::new(Body::from(base64));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PKCS7));
    // RFC 8951 §3 makes it meaningless; clients of RFC 7030 look for it.
    headers.insert("content-transfer-encoding", HeaderValue::from_static("base64"));
    response
}
