//! From a request to its answer: who calls, may they, do it within its time, say what became of it.

use crate::caller::{Caller, Denied, Endpoint, Method, Peer, Scope, authorise, recognise};
use crate::directory::Directory;
use crate::driver::{Station, now};
use crate::problem::Failure;
use crate::{est, fleet, gateway, query};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq as _;

/// A call that passed the table: its endpoint, who makes it, and what was known when it was let in.
#[derive(Debug)]
pub(crate) struct Call {
    pub endpoint: Endpoint,
    pub peer: Peer,
    pub caller: Caller,
    pub directory: Arc<Directory>,
    pub request: Request,
}

type Answer = Result<Response, Failure>;

/// The table of endpoints, as a router. Nothing else is reachable (INV-LEAST-1).
pub(crate) fn router(station: Arc<Station>) -> Router {
    let mut router = Router::new();
    for endpoint in Endpoint::ALL {
        let filter = match endpoint.method() {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
        };
        let serve = move |State(station): State<Arc<Station>>, request: Request| async move {
            serve(&station, endpoint, request).await
        };
        router = router.route(&endpoint.path(), on(filter, serve));
    }
    router
        .fallback(|State(station): State<Arc<Station>>, request: Request| async move {
            refuse(&station, "unknown", Failure::not_found(request.uri().path()))
        })
        .method_not_allowed_fallback(
            |State(station): State<Arc<Station>>, request: Request| async move {
                let failure = Failure::method_not_allowed(request.method().as_str());
                refuse(&station, "unknown", failure)
            },
        )
        .with_state(station)
}

async fn serve(station: &Arc<Station>, endpoint: Endpoint, request: Request) -> Response {
    let started = Instant::now();
    let limit = time_max(station, endpoint);
    let answer = match admit(station, endpoint, request) {
        Ok(call) => match tokio::time::timeout(limit, carry_out(station, call)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::timed_out()),
        },
        Err(denied) => Err(denied.into()),
    };
    let name = endpoint.as_str();
    let response = answer.unwrap_or_else(|failure| refuse(station, name, failure));
    let metrics = &station.metrics;
    metrics.request_seconds.with_label_values(&[name]).observe(started.elapsed().as_secs_f64());
    metrics.requests.with_label_values(&[name, response.status().as_str()]).inc();
    response
}

/// Says what is refused, and counts it, once.
fn refuse(station: &Station, endpoint: &str, failure: Failure) -> Response {
    let (status, reason) = (failure.status.as_u16(), failure.word);
    station.metrics.refused.with_label_values(&[reason]).inc();
    if status >= 500 {
        tracing::warn!(endpoint, status, reason, detail = %failure.detail, "request failed");
    } else {
        tracing::info!(endpoint, status, reason, detail = %failure.detail, "request refused");
    }
    failure.into_response()
}

/// No call without an identity that counts now and a scope that admits it (INV-AUTH-1, INV-LEAST-1).
fn admit(station: &Station, endpoint: Endpoint, request: Request) -> Result<Call, Denied> {
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or(Peer::Anonymous);
    let directory = station.registry.directory();
    let caller = match (endpoint.scope(), request.headers().get(header::AUTHORIZATION)) {
        (Scope::Public, _) => Caller::Anonymous,
        (_, Some(word)) if is_token(word, &station.token) => Caller::Operator,
        (_, Some(_)) => return Err(Denied::BadToken),
        (_, None) => recognise(&peer, &directory, station.grace, now())?,
    };
    authorise(endpoint.scope(), &caller, &directory)?;
    Ok(Call { endpoint, peer, caller, directory, request })
}

/// Compares digests, in constant time: how long it takes says nothing about the token.
fn is_token(word: &HeaderValue, token: &model::Digest) -> bool {
    let Some((scheme, shown)) = word.to_str().ok().and_then(|word| word.split_once(' ')) else {
        return false;
    };
    let shown = trust::digest(shown.trim().as_bytes());
    scheme.eq_ignore_ascii_case("bearer") && bool::from(shown.as_bytes().ct_eq(token.as_bytes()))
}

fn time_max(station: &Station, endpoint: Endpoint) -> Duration {
    match endpoint {
        Endpoint::Query => station.limits.query_time_max,
        Endpoint::Bundle => gateway::WAIT_MAX + station.limits.request_time_max,
        _ => station.limits.request_time_max,
    }
}

/// Boxed: each kind of call has a future of its own size.
fn carry_out<'a>(
    station: &'a Arc<Station>,
    call: Call,
) -> Pin<Box<dyn Future<Output = Answer> + Send + 'a>> {
    match call.endpoint {
        Endpoint::CaCerts | Endpoint::SealCaCerts => Box::pin(est::ca_certs(station)),
        Endpoint::Enroll | Endpoint::Reenroll | Endpoint::SealEnroll | Endpoint::SealReenroll => {
            Box::pin(est::enroll(station, call))
        }
        Endpoint::Bundle => Box::pin(gateway::bundle(station, call)),
        Endpoint::Uplink => Box::pin(gateway::uplink(station, call)),
        Endpoint::Query => Box::pin(query::query(station, call)),
        Endpoint::Devices => Box::pin(fleet::devices(call)),
        Endpoint::Revoke | Endpoint::Quarantine | Endpoint::Release => {
            Box::pin(fleet::set_standing(station, call))
        }
        Endpoint::Ownership => Box::pin(fleet::list(station, call)),
        Endpoint::Metrics => Box::pin(fleet::metrics(station)),
        Endpoint::Health => Box::pin(async { Ok(text("text/plain", "serves\n")) }),
    }
}

/// The whole body, or why not. It is read only after its sender was let in, and never beyond `max` (INV-COST-1).
pub(crate) async fn body(request: Request, max: usize) -> Result<Bytes, Failure> {
    let said = request.headers().get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok());
    if said.and_then(|len| len.parse::<u64>().ok()).is_some_and(|len| len > max as u64) {
        return Err(Failure::oversize(max));
    }
    match Limited::new(request.into_body(), max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Failure::oversize(max)),
        Err(error) => Err(Failure::bad_request("broken_body", format!("expected a body: {error}"))),
    }
}

/// Whether the body says that it is what this call takes; parameters are not looked at.
pub(crate) fn expect_media_type(headers: &HeaderMap, expected: &str) -> Result<(), Failure> {
    let found = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = found.unwrap_or("").split(';').next().unwrap_or("").trim();
    if essence.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(Failure::unsupported(format!(
        "expected Content-Type {expected}, found {}",
        found.unwrap_or("none")
    )))
}

/// A JSON body of one of the API's types.
pub(crate) async fn json<T: serde::de::DeserializeOwned>(
    request: Request,
    max: usize,
) -> Result<T, Failure> {
    expect_media_type(request.headers(), "application/json")?;
    let body = body(request, max).await?;
    serde_json::from_slice(&body).map_err(|error| {
        Failure::bad_request("bad_json", format!("expected docs/api.md's body: {error}"))
    })
}

/// The query string as one of our types; unknown words are refused.
pub(crate) fn query_string<T: serde::de::DeserializeOwned>(
    request: &Request,
) -> Result<T, Failure> {
    axum::extract::Query::<T>::try_from_uri(request.uri())
        .map(|query| query.0)
        .map_err(|error| Failure::bad_request("bad_query_string", error.body_text()))
}

pub(crate) fn json_answer(body: &impl serde::Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("the API's types have a JSON form");
    text("application/json", body)
}

pub(crate) fn text(content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub(crate) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}
