//! A call that is made again under its key is answered again, and not done again: `Idempotency-Key`
//! (draft-ietf-httpapi-idempotency-key-header).
//!
//! ```text
//! answers     (actor, key) → call, body_sha256, status, content_type, answer, at
//! ```
//!
//! What was done is kept with its answer, for a day, before the answer leaves. What was refused did nothing, and may be
//! tried again under the same key; of what was done and could not be proven yet only that it was done is kept. Kept after the work and not with it: when the process ends between the two, the call is
//! made once more, and what it does then is what it does without a key.
//!
//! Never: keeps a secret. A call whose body has a password has no key, since a digest of a password tells it to whoever can
//! try them all; of an answer that shows a secret only that it was given is kept.

use crate::call::{Call, Unread};
use crate::caller::Caller;
use crate::endpoint::{Endpoint, Method};
use crate::http::{Answer, carry_out};
use crate::principal::Actor;
use crate::problem::Failure;
use crate::registry::{Registry, RegistryError, Work};
use crate::station::{Station, now};
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use http_body_util::BodyExt as _;
use model::{Digest, Timestamp};
use sqlx::Row as _;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use tracing::Instrument as _;

/// The header by which a call is known again.
pub const KEY: &str = "idempotency-key";

/// Set on an answer that was given before.
pub const REPLAYED: &str = "idempotency-replayed";

const KEY_CHARS_MAX: usize = 128;

/// When to ask again for a call that is under way, in seconds.
const IN_USE_S: u32 = 1;

/// For how long a call is known again: 24 hours.
const KEPT_US: i64 = 24 * 3_600 * 1_000_000;

/// Answers that are kept of one person or program, and of all. Beyond, the oldest goes first.
const OF_ONE_MAX: i64 = 1_000;
const OF_ALL_MAX: i64 = 10_000;

/// The longest body of a call that people make.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// The longest answer that is kept. Of a longer one only that it was given.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Laid down at each opening of the registry.
pub(crate) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS answers (
    actor TEXT NOT NULL,
    key TEXT NOT NULL,
    call TEXT NOT NULL,
    body_sha256 TEXT NOT NULL,
    status INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    answer BLOB,
    at INTEGER NOT NULL,
    PRIMARY KEY (actor, key)
) STRICT;
CREATE INDEX IF NOT EXISTS answers_by_age ON answers (at);
CREATE INDEX IF NOT EXISTS answers_of_one ON answers (actor, at);
";

/// What is kept of a call that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Its answer.
    Answer,
    /// That it was made: its answer shows a secret, once.
    Fact,
    /// Nothing: it changes nothing, is no person's, or has a password in it.
    Nothing,
}

/// What is kept of each call. A new one does not compile before somebody has thought of it.
pub const fn kept(endpoint: Endpoint) -> Kept {
    use Endpoint as E;
    match endpoint {
        E::Revoke | E::Quarantine | E::Release | E::Ownership => Kept::Answer,
        E::Decommission | E::DeviceReenrol | E::DeviceGroup => Kept::Answer,
        E::AlertAcknowledge | E::NewSilence | E::SilenceEnd => Kept::Answer,
        E::AlertRulePut | E::AlertRuleDelete => Kept::Answer,
        E::AlertTargetDelete | E::AlertTargetTest => Kept::Answer,
        E::UserGrants | E::UserDisable | E::UserEnable | E::UserSessionsEnd => Kept::Answer,
        E::TokenRevoke | E::NewSite => Kept::Answer,
        E::TwoPeoplePut | E::Approve | E::RefuseApproval => Kept::Answer,
        // A token is shown once.
        E::NewToken => Kept::Fact,
        // Passwords, and what targets of alerts are reached by. Signing out ends what the key would be of.
        E::SignIn | E::SignOut | E::NewUser | E::UserPassword | E::AlertTargetPut => Kept::Nothing,
        E::RefreshReleases | E::NewRollout => Kept::Answer,
        E::RolloutStart | E::RolloutPause | E::RolloutResume => Kept::Answer,
        E::RolloutHalt | E::RolloutRevert | E::RolloutAbort => Kept::Answer,
        // Certificates: to ask again with the same key renews them.
        E::Enroll | E::Reenroll | E::SealEnroll | E::SealReenroll => Kept::Nothing,
        // What devices sealed is known by its counter.
        E::Uplink | E::CheckIn => Kept::Nothing,
        E::Query => Kept::Nothing,
        E::CaCerts | E::SealCaCerts | E::Bundle | E::Images | E::Blob => Kept::Nothing,
        E::Me | E::Devices | E::Software | E::Releases => Kept::Nothing,
        E::Users | E::Tokens | E::Sites => Kept::Nothing,
        E::Inventory | E::InventorySummary | E::Device | E::History => Kept::Nothing,
        E::Forensics => Kept::Nothing,
        E::Rollouts | E::Rollout | E::RolloutDevices | E::RolloutSignals => Kept::Nothing,
        E::Alerts | E::Silences | E::AlertRules | E::AlertTargets => Kept::Nothing,
        E::WeeklyReport | E::WeeklyReportPage => Kept::Nothing,
        E::TwoPeople | E::Approvals | E::Approval => Kept::Nothing,
        E::Events | E::EvidenceCheckpoint | E::EvidenceTile | E::EvidenceExport => Kept::Nothing,
        E::Console | E::ConsolePage | E::ConsoleFile => Kept::Nothing,
        E::Stream | E::OpenApi | E::Metrics | E::Health => Kept::Nothing,
    }
}

/// Calls with a key that are under way now.
#[derive(Debug, Default)]
pub(crate) struct UnderWay(Arc<Mutex<HashSet<(Actor, String)>>>);

#[derive(Debug)]
struct Taken {
    all: Arc<Mutex<HashSet<(Actor, String)>>>,
    this: (Actor, String),
}

impl UnderWay {
    fn take(&self, actor: &Actor, key: &str) -> Option<Taken> {
        let this = (actor.clone(), key.to_owned());
        let mut all = self.0.lock().expect("nothing panics while it holds the keys");
        all.insert(this.clone()).then(|| Taken { all: self.0.clone(), this })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.all.lock().expect("nothing panics while it holds the keys").remove(&self.this);
    }
}

/// Makes the call, or gives the answer that it had.
pub(crate) async fn once(station: &Arc<Station>, call: Call) -> Answer {
    let said = call.head.headers.get(KEY);
    let (Some(said), Caller::Person(person), Kept::Answer | Kept::Fact) =
        (said, &call.caller, kept(call.endpoint))
    else {
        return carry_out(station, call).await;
    };
    let (actor, key) = (person.actor.clone(), read_key(said)?);
    let under_way = station.under_way.take(&actor, &key).ok_or_else(|| {
        let detail =
            format!("expected the call under key {key:?} to have ended, found it under way");
        let failure = conflict("idempotency_in_use", "this call is being made", detail);
        Failure { retry_after_s: Some(IN_USE_S), ..failure }
    })?;
    let made = Made::of(&call, actor, key).await?;
    let (station, body) = (station.clone(), made.body.clone());
    // To its end, also if its caller hangs up: that is when it will be made again.
    let work = async move {
        let _under_way = under_way;
        if let Some(before) = read(&station.registry, &made, now())
            .await
            .map_err(|error| station.failed_to_store(error))?
        {
            return before.again(&made);
        }
        let kept = kept(call.endpoint);
        let call = Call { body: Unread::new(Body::from(body)), ..call };
        match carry_out(&station, call).await {
            Ok(response) if response.status().is_success() => {
                keep(&station, &made, kept, response).await
            }
            Err(failure) if failure.was_done() => {
                write(&station, &made, failure.status, "", None).await;
                Err(failure)
            }
            refused => refused,
        }
    };
    tokio::spawn(work.in_current_span()).await.map_err(|error| Failure::internal(&error))?
}

/// A call as it is known again.
#[derive(Clone, Debug)]
struct Made {
    actor: Actor,
    key: String,
    /// Method, path and query string.
    call: String,
    body: Vec<u8>,
}

impl Made {
    async fn of(call: &Call, actor: Actor, key: String) -> Result<Self, Failure> {
        let body = call.body(BODY_BYTES_MAX).await?;
        let method = match call.endpoint.method() {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Delete => "DELETE",
        };
        Ok(Self { actor, key, call: format!("{method} {}", call.head.uri), body })
    }

    fn body_sha256(&self) -> String {
        let digest: Digest = trust::digest(&self.body);
        digest.to_string()
    }
}

/// A text of the header's grammar (a string in quotes), or the same without its quotes.
fn read_key(said: &HeaderValue) -> Result<String, Failure> {
    let text = said.to_str().unwrap_or("");
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let fits = (1..=KEY_CHARS_MAX).contains(&bare.len())
        && bare.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    if fits {
        return Ok(bare.to_owned());
    }
    let detail = format!(
        "expected an Idempotency-Key of 1 to {KEY_CHARS_MAX} visible characters, found {said:?}"
    );
    Err(Failure::bad_request("bad_idempotency_key", detail))
}

fn conflict(word: &'static str, title: &'static str, detail: String) -> Failure {
    Failure::new(StatusCode::CONFLICT, word, title, detail)
}

/// What is known of a call that was made.
struct Before {
    call: String,
    body_sha256: String,
    status: u16,
    content_type: String,
    answer: Option<Vec<u8>>,
}

impl Before {
    fn again(self, made: &Made) -> Answer {
        let key = &made.key;
        if self.call != made.call || self.body_sha256 != made.body_sha256() {
            let detail = format!(
                "expected the call that key {key:?} was first used for, `{}` with the same body, found another",
                self.call
            );
            let title = "the key is of another call";
            return Err(Failure::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_mismatch",
                title,
                detail,
            ));
        }
        let Some(answer) = self.answer else {
            let detail = format!(
                "expected a key that was not used, found {key:?}: its call was made and answered with {}, once, and what \
                 it said is not kept",
                self.status
            );
            return Err(conflict("idempotency_done", "it was done already", detail));
        };
        let mut response = Response::new(Body::from(answer));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let headers = response.headers_mut();
        if let (false, Ok(kind)) = (self.content_type.is_empty(), self.content_type.parse()) {
            headers.insert(header::CONTENT_TYPE, kind);
        }
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
        Ok(response)
    }
}

async fn read(
    registry: &Registry,
    made: &Made,
    now: Timestamp,
) -> Result<Option<Before>, RegistryError> {
    let (actor, key) = (made.actor.to_string(), made.key.clone());
    let since = now.as_us().saturating_sub(KEPT_US);
    let read = registry.read(move |connection| -> Work<'_, Option<Before>, RegistryError> {
        Box::pin(async move {
            let row = sqlx::query("SELECT * FROM answers WHERE actor = ? AND key = ? AND at > ?")
                .bind(actor)
                .bind(key)
                .bind(since)
                .fetch_optional(connection)
                .await
                .map_err(RegistryError::Read)?;
            let Some(row) = row else { return Ok(None) };
            let before = || -> Result<Before, sqlx::Error> {
                Ok(Before {
                    call: row.try_get("call")?,
                    body_sha256: row.try_get("body_sha256")?,
                    status: row.try_get("status")?,
                    content_type: row.try_get("content_type")?,
                    answer: row.try_get("answer")?,
                })
            };
            before().map(Some).map_err(RegistryError::Read)
        })
    });
    read.await
}

/// Keeps what was answered, and answers it. Work that was done is said to be done, also where it cannot be kept.
async fn keep(station: &Station, made: &Made, kept: Kept, response: Response) -> Answer {
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| Failure::internal(&error))?;
    let body = body.to_bytes();
    let is_secret = kept == Kept::Fact || head.headers.contains_key(header::SET_COOKIE);
    let answer = (!is_secret && body.len() <= ANSWER_BYTES_MAX).then(|| body.to_vec());
    let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    write(station, made, head.status, kind.unwrap_or(""), answer).await;
    Ok(Response::from_parts(head, Body::from(body)))
}

async fn write(
    station: &Station,
    made: &Made,
    status: StatusCode,
    kind: &str,
    answer: Option<Vec<u8>>,
) {
    let (made, kind, status, at) = (made.clone(), kind.to_owned(), status.as_u16(), now());
    let step = station.registry.step(move |step| -> Work<'_, (), RegistryError> {
        Box::pin(async move {
            let actor = made.actor.to_string();
            sqlx::query("DELETE FROM answers WHERE at <= ?")
                .bind(at.as_us().saturating_sub(KEPT_US))
                .execute(step.tx())
                .await
                .map_err(RegistryError::Write)?;
            sqlx::query("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
                .bind(&actor)
                .bind(&made.key)
                .bind(&made.call)
                .bind(made.body_sha256())
                .bind(status)
                .bind(kind)
                .bind(answer)
                .bind(at.as_us())
                .execute(step.tx())
                .await
                .map_err(RegistryError::Write)?;
            sqlx::query(
                "DELETE FROM answers WHERE rowid IN
                 (SELECT rowid FROM answers WHERE actor = ? ORDER BY at DESC, rowid DESC LIMIT -1 OFFSET ?)",
            )
            .bind(&actor)
            .bind(OF_ONE_MAX)
            .execute(step.tx())
            .await
            .map_err(RegistryError::Write)?;
            sqlx::query(
                "DELETE FROM answers WHERE rowid IN
                 (SELECT rowid FROM answers ORDER BY at DESC, rowid DESC LIMIT -1 OFFSET ?)",
            )
            .bind(OF_ALL_MAX)
            .execute(step.tx())
            .await
            .map_err(RegistryError::Write)?;
            Ok(())
        })
    });
    if let Err(error) = step.await {
        let error = station.failed_to_store(error);
        tracing::warn!(detail = %error.detail, "what was done is answered, and would be done again");
    }
}
