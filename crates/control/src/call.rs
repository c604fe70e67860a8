//! A call that was let in, its body, and the forms of an answer.

use crate::caller::{Caller, Denied, Peer};
use crate::directory::Directory;
use crate::endpoint::{Access, Endpoint};
use crate::principal::{Principal, Reach};
use crate::problem::Failure;
use crate::request::Named;
use crate::station::Station;
use axum::RequestPartsExt as _;
use axum::body::Body;
use axum::extract::Path;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;
use model::ZoneId;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A call that passed the table: its endpoint, who makes it, and what was known when it was let in.
#[derive(Debug)]
pub(crate) struct Call {
    pub endpoint: Endpoint,
    pub peer: Peer,
    /// The other end of its connection.
    pub from: IpAddr,
    pub caller: Caller,
    pub directory: Arc<Directory>,
    pub head: Parts,
    pub body: Unread,
}

/// A request's body, as long as nobody has read it.
#[derive(Clone, Debug)]
pub(crate) struct Unread(Arc<Mutex<Option<Body>>>);

/// A refused body is read and thrown away up to here, so that its sender, who is still writing, hears why. Then the
/// connection is closed on it.
const HEAR_OUT_BYTES_MAX: usize = 16 * 1024 * 1024;
const HEAR_OUT_TIME_MAX: Duration = Duration::from_secs(5);

impl Call {
    /// The request's name.
    pub fn request(&self) -> &str {
        self.head.extensions.get::<Named>().map_or("", |named| &named.0)
    }

    /// For work of the operator's people: who asks. The table has seen to what it may, and here it is seen again
    /// (INV-LEAST-1).
    pub fn person(&self, station: &Station) -> Result<&Arc<Principal>, Denied> {
        match &self.caller {
            Caller::Person(person) if self.endpoint.access().admits(&self.caller) => Ok(person),
            _ => Err(station.past_its_scope(self.endpoint.access(), &self.caller)),
        }
    }

    /// For work that shows or does something at some sites: who asks, and where it may.
    pub fn person_within(&self, station: &Station) -> Result<(&Arc<Principal>, Reach), Denied> {
        let person = self.person(station)?;
        let reach = match self.endpoint.access() {
            Access::Within(scope) => person.reach(scope),
            // It was admitted: nothing bounds it.
            _ => Reach::Everywhere,
        };
        Ok((person, reach))
    }

    /// The zones that this reaches, as fleet and sites are now. `None`: all of them.
    pub fn zones(&self, station: &Station, reach: &Reach) -> Option<BTreeSet<ZoneId>> {
        let fleet = self.directory.devices(None).map(|device| &device.zone);
        station.registry.people().zones(reach, fleet)
    }

    /// The whole body, or why not. It is read only after its sender was let in, and never kept beyond `max` (INV-COST-1).
    pub async fn body(&self, max: usize) -> Result<Vec<u8>, Failure> {
        let said = self.head.headers.get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok());
        let said: Option<usize> = said.and_then(|len| len.parse().ok());
        if said.is_some_and(|len| len > max) {
            return Err(Failure::oversize(max));
        }
        let Some(mut rest) = self.body.take() else { return Ok(Vec::new()) };
        let mut body = Vec::with_capacity(said.unwrap_or(0));
        while let Some(frame) = rest.frame().await {
            let frame = frame.map_err(|error| {
                Failure::bad_request("broken_body", format!("expected a body: {error}"))
            })?;
            // Trailers say nothing here.
            let Ok(data) = frame.into_data() else { continue };
            if body.len() + data.len() > max {
                self.body.put(rest);
                return Err(Failure::oversize(max));
            }
            body.extend_from_slice(&data);
        }
        Ok(body)
    }

    /// A JSON body of one of the API's types.
    pub async fn json<T: serde::de::DeserializeOwned>(&self, max: usize) -> Result<T, Failure> {
        expect_media_type(&self.head.headers, "application/json")?;
        let body = self.body(max).await?;
        serde_json::from_slice(&body).map_err(|error| {
            Failure::bad_request("bad_json", format!("expected docs/api.md's body: {error}"))
        })
    }

    /// As [`Call::json`], for a body with a password or a secret: what is wrong with it is told without a word of it, since a refusal is
    /// logged.
    pub async fn secret_json<T: serde::de::DeserializeOwned>(
        &self,
        max: usize,
    ) -> Result<T, Failure> {
        expect_media_type(&self.head.headers, "application/json")?;
        let body = self.body(max).await?;
        serde_json::from_slice(&body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let detail = format!(
                "expected docs/api.md's body, found something else at line {line} column {column}"
            );
            Failure::bad_request("bad_json", detail)
        })
    }

    /// What stands for `{id}`, or another name, in the path.
    pub async fn name(&mut self) -> Result<String, Failure> {
        self.in_path().await
    }

    /// The same, of what has a number for a name.
    pub async fn number(&mut self) -> Result<u64, Failure> {
        self.in_path().await
    }

    async fn in_path<T: serde::de::DeserializeOwned + Send + 'static>(
        &mut self,
    ) -> Result<T, Failure> {
        let path = self.head.extract::<Path<T>>().await;
        path.map(|Path(found)| found)
            .map_err(|error| Failure::bad_request("bad_name", error.body_text()))
    }

    /// How long a page is to be: what was asked for, or `unasked`, of at most `max`.
    pub fn page_limit(found: Option<usize>, unasked: usize, max: usize) -> Result<usize, Failure> {
        let limit = found.unwrap_or(unasked);
        if (1..=max).contains(&limit) {
            return Ok(limit);
        }
        let detail = format!("expected a limit of 1 to {max}, found {limit}");
        Err(Failure::bad_request("bad_query_string", detail))
    }

    /// The query string as one of our types; unknown words are refused.
    pub fn query_string<T: serde::de::DeserializeOwned>(&self) -> Result<T, Failure> {
        axum::extract::Query::<T>::try_from_uri(&self.head.uri)
            .map(|query| query.0)
            .map_err(|error| Failure::bad_request("bad_query_string", error.body_text()))
    }
}

impl Unread {
    pub fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(Some(body))))
    }

    fn take(&self) -> Option<Body> {
        self.0.lock().expect("nothing panics while it holds the body").take()
    }

    fn put(&self, rest: Body) {
        *self.0.lock().expect("nothing panics while it holds the body") = Some(rest);
    }

    pub async fn hear_out(&self) {
        let Some(mut rest) = self.take() else { return };
        let read = async {
            let mut heard = 0;
            while let Some(Ok(frame)) = rest.frame().await {
                heard += frame.data_ref().map_or(0, |data| data.len());
                if heard > HEAR_OUT_BYTES_MAX {
                    return;
                }
            }
        };
        // Who takes longer is not waited for.
        let _ = tokio::time::timeout(HEAR_OUT_TIME_MAX, read).await;
    }
}

/// What people write down: some text, in bounds, without what would break a line of a log.
pub(crate) fn expect_text(field: &str, text: &str, max: usize) -> Result<(), Failure> {
    let len = text.len();
    if !text.trim().is_empty() && len <= max && !text.chars().any(|c| c.is_control() && c != '\n') {
        return Ok(());
    }
    let detail = format!("{field}: expected 1 to {max} bytes of text, found {len} bytes");
    Err(Failure::bad_request("bad_text", detail))
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
