//! What a caller is told when there is no answer: problem+json with what was expected and what was found.

use crate::alerts::AlertError;
use crate::approvals::decide::No;
use crate::approvals::{ApprovalError, NeedsTwo};
use crate::caller::Denied;
use crate::checkin;
use crate::director::DirectorError;
use crate::enrol;
use crate::ledger::NotCovered;
use crate::people::PeopleError;
use crate::principal::BeyondGroups;
use crate::registry::{ChangeError, RegistryError};
use crate::request;
use crate::rollouts::book::Unfit;
use crate::rollouts::table::TableError;
use crate::rollouts::{CheckInError, RolloutError};
use crate::uplink::CallRefusal;
use api::{Problem, QueryError, problem};
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::id::BadName;
use model::told;

/// A request that is refused or could not be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub status: StatusCode,
    /// The label of its counter, and the last word of the problem's type.
    pub word: &'static str,
    pub title: &'static str,
    pub detail: String,
    /// When to ask again, in seconds.
    pub retry_after_s: Option<u32>,
    /// The name of the request.
    pub request: Option<String>,
}

const EVIDENCE_BEHIND: &str = "evidence_behind";

/// When the cause passes by itself in a moment.
const SOON_S: u32 = 1;
/// When room has to be made first: the store takes from the bus in seconds.
const ROOM_S: u32 = 5;

impl Failure {
    pub fn new(
        status: StatusCode,
        word: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self { status, word, title, detail: detail.into(), retry_after_s: None, request: None }
    }

    /// It says no more than that nothing proves it yet.
    pub fn was_done(&self) -> bool {
        self.word == EVIDENCE_BEHIND
    }

    fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    /// Room, or whatever else is missing, comes in seconds.
    pub fn again_in_a_while(self) -> Self {
        self.retry_after(ROOM_S)
    }

    pub fn bad_request(word: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, word, "the request cannot be read", detail)
    }

    pub fn unsupported(detail: impl Into<String>) -> Self {
        let title = "the body is of another kind";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", title, detail)
    }

    pub fn oversize(max: usize) -> Self {
        let detail = format!("expected a body of at most {max} bytes, found more");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "oversize", "the body is too long", detail)
    }

    pub fn not_found(path: &str) -> Self {
        let detail = format!("expected a path of docs/api.md, found {path:?}");
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here", detail)
    }

    pub fn method_not_allowed(method: &str) -> Self {
        let detail = format!("expected the method in the header `Allow`, found {method}");
        let title = "the path does not know this method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", title, detail)
    }

    pub fn timed_out() -> Self {
        let title = "the request took too long";
        let detail = "expected it to end within its time (docs/api.md); it may have taken effect";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "timed_out", title, detail).retry_after(SOON_S)
    }

    pub fn busy(detail: impl Into<String>) -> Self {
        let title = "too much at a time";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", title, detail).retry_after(SOON_S)
    }

    pub fn bus_full(detail: impl Into<String>) -> Self {
        let title = "the bus has no room; nothing was acknowledged";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "bus_full", title, detail).retry_after(ROOM_S)
    }

    pub fn bus_failed(detail: impl Into<String>) -> Self {
        let title = "the bus failed; nothing was acknowledged";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "bus_failed", title, detail).retry_after(ROOM_S)
    }

    pub fn internal(error: &dyn std::error::Error) -> Self {
        let title = "control failed";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", title, told(error))
    }

    pub fn uplink(refusal: &CallRefusal) -> Self {
        let (status, title) = match refusal {
            CallRefusal::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the batch is too long"),
            refusal if refusal.is_about_identity() => {
                (StatusCode::FORBIDDEN, "the batch is not this gateway's word")
            }
            _ => (StatusCode::BAD_REQUEST, "the batch cannot be read"),
        };
        Self::new(status, refusal.word(), title, told(refusal))
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        let (status, title) = if denied.is_unauthenticated() {
            (StatusCode::UNAUTHORIZED, "the caller did not prove who it is")
        } else {
            (StatusCode::FORBIDDEN, "the caller may not do this")
        };
        Self::new(status, denied.word(), title, told(&denied))
    }
}

impl From<BeyondGroups> for Failure {
    fn from(beyond: BeyondGroups) -> Self {
        let title = "the caller may not do this";
        Self::new(StatusCode::FORBIDDEN, "beyond_groups", title, told(&beyond))
    }
}

impl From<BadName> for Failure {
    fn from(error: BadName) -> Self {
        Self::bad_request("bad_name", error.to_string())
    }
}

impl From<enrol::Refusal> for Failure {
    fn from(refusal: enrol::Refusal) -> Self {
        use enrol::Refusal as R;
        let title = "no certificate";
        let (word, detail) = (refusal.word(), told(&refusal));
        match refusal {
            R::NotListed { .. } | R::SerialMismatch { .. } | R::Revoked(_) => {
                Self::new(StatusCode::FORBIDDEN, word, title, detail)
            }
            R::KeyOfOtherPurpose { .. } | R::KeyOfOtherDevice { .. } | R::KeyRetired { .. } => {
                Self::new(StatusCode::CONFLICT, word, title, detail)
            }
            R::TooOften { .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, word, title, detail).retry_after(3600)
            }
        }
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self::internal(&error)
    }
}

impl From<NotCovered> for Failure {
    fn from(error: NotCovered) -> Self {
        let (word, title) = match &error {
            NotCovered::NotBegun { .. } => {
                ("evidence_unavailable", "what is done could not be proven; it was not done")
            }
            NotCovered::Trouble { .. } | NotCovered::TooSlow => {
                (EVIDENCE_BEHIND, "it is done, and cannot be proven yet")
            }
        };
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, word, title, told(&error)).retry_after(ROOM_S)
    }
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        let detail = told(&error);
        let conflict = |word| Self::new(StatusCode::CONFLICT, word, "no such change", &detail);
        match error {
            ChangeError::BadName(_) | ChangeError::NotCertifiable { .. } => {
                Self::bad_request("bad_name", detail)
            }
            ChangeError::ListedOtherwise { .. } => conflict("listed_otherwise"),
            ChangeError::IdTaken { .. } => conflict("id_taken"),
            ChangeError::Elsewhere { .. } => conflict("listed_otherwise"),
            ChangeError::NotDrawn(_) => conflict("not_drawn"),
            ChangeError::Unknown(_) => {
                Self::new(StatusCode::NOT_FOUND, "unknown_device", "no such device", detail)
            }
            ChangeError::NotCovered(error) => error.into(),
            ChangeError::NeedsTwo(error) => error.into(),
            ChangeError::Registry(error) => error.into(),
        }
    }
}

impl From<PeopleError> for Failure {
    fn from(error: PeopleError) -> Self {
        use PeopleError as P;
        let detail = told(&error);
        let bad = |word| Self::new(StatusCode::BAD_REQUEST, word, "it cannot be so", &detail);
        let conflict = |word| Self::new(StatusCode::CONFLICT, word, "no such change", &detail);
        let missing =
            |word| Self::new(StatusCode::NOT_FOUND, word, "there is nothing here", &detail);
        let forbidden =
            |word| Self::new(StatusCode::FORBIDDEN, word, "the caller may not do this", &detail);
        match error {
            P::BadName { .. } => Self::bad_request("bad_name", detail),
            P::BadPassword { .. } => bad("bad_password"),
            P::BadDays { .. } => bad("bad_days"),
            P::NoScope => bad("no_scope"),
            P::TooMany { .. } => conflict("too_many"),
            P::OtherPassword => forbidden("other_password"),
            P::BeyondUser { .. } => forbidden("beyond_user"),
            P::NotASession => forbidden("not_a_session"),
            P::UnknownUser(_) => missing("unknown_user"),
            P::UnknownToken(_) => missing("unknown_token"),
            P::UnknownSite(_) => missing("unknown_site"),
            P::UserTaken(_) | P::TokenTaken { .. } => conflict("id_taken"),
            P::LastAdministrator(_) => conflict("last_administrator"),
            P::Disabled(_) => conflict("user_disabled"),
            P::Overtaken => Self::busy(detail),
            P::NeedsTwo(error) => error.into(),
            P::Registry(error) => error.into(),
        }
    }
}

impl From<AlertError> for Failure {
    fn from(error: AlertError) -> Self {
        let detail = told(&error);
        let conflict = |word| Self::new(StatusCode::CONFLICT, word, "not now", &detail);
        let unknown = |word, title| Self::new(StatusCode::NOT_FOUND, word, title, &detail);
        match error {
            AlertError::Unknown(_) => unknown("unknown_alert", "no such alert"),
            AlertError::UnknownSilence(_) => unknown("unknown_silence", "no such silence"),
            AlertError::UnknownRule(_) => unknown("unknown_rule", "no such rule"),
            AlertError::UnknownTarget(_) => unknown("unknown_target", "no such target"),
            AlertError::BadTarget(_) => {
                Self::new(StatusCode::BAD_REQUEST, "bad_target", "this is no target", detail)
            }
            AlertError::Resolved(_) => conflict("resolved"),
            AlertError::Ended(_) => conflict("ended"),
            AlertError::Shipped(_) => conflict("shipped_rule"),
            AlertError::TooMany { .. } => conflict("too_many"),
            AlertError::BadRule(_) => {
                Self::new(StatusCode::BAD_REQUEST, "bad_rule", "this is no rule", detail)
            }
            AlertError::Registry(error) => error.into(),
        }
    }
}

impl From<RolloutError> for Failure {
    fn from(error: RolloutError) -> Self {
        let detail = told(&error);
        let conflict = |word| Self::new(StatusCode::CONFLICT, word, "not now", &detail);
        match error {
            RolloutError::Draft(draft) => {
                let title = "no rollout can be made of it";
                Self::new(StatusCode::BAD_REQUEST, draft.word(), title, detail)
            }
            RolloutError::Unknown(_) => {
                Self::new(StatusCode::NOT_FOUND, "unknown_rollout", "no such rollout", detail)
            }
            RolloutError::UnknownDevice(_) => {
                Self::new(StatusCode::NOT_FOUND, "unknown_device", "no such device", detail)
            }
            RolloutError::UnknownRelease { .. } => {
                Self::new(StatusCode::NOT_FOUND, "unknown_release", "no such release", detail)
            }
            RolloutError::Taken(_) => conflict("id_taken"),
            RolloutError::NotFromHere { .. } => conflict("not_drawn"),
            RolloutError::Unfit(Unfit::UnderWay { .. }) => conflict("under_way"),
            RolloutError::Unfit(Unfit::Overtaken { .. }) => conflict("overtaken"),
            RolloutError::Unfit(Unfit::TooManyHalted { .. }) => conflict("too_many_halted"),
            RolloutError::NoRepository(_) => conflict("no_repository"),
            RolloutError::ManyImages { .. } => conflict("many_images"),
            RolloutError::NeedsTwo(error) => error.into(),
            RolloutError::Approval(error) => error.into(),
            RolloutError::Table(error) => error.into(),
        }
    }
}

/// What needs two was about to be done by one, since the setting changed meanwhile: asked again, it is asked for.
impl From<NeedsTwo> for Failure {
    fn from(error: NeedsTwo) -> Self {
        Self::busy(told(&error))
    }
}

impl From<ApprovalError> for Failure {
    fn from(error: ApprovalError) -> Self {
        let detail = told(&error);
        let conflict = |word| Self::new(StatusCode::CONFLICT, word, "no such change", &detail);
        let forbidden =
            |word| Self::new(StatusCode::FORBIDDEN, word, "the caller may not do this", &detail);
        match error {
            ApprovalError::Unknown(_) => {
                Self::new(StatusCode::NOT_FOUND, "unknown_approval", "no such approval", detail)
            }
            ApprovalError::No(No::NotOpen(_)) => conflict("not_open"),
            ApprovalError::No(No::NotInPerson) => forbidden("not_a_session"),
            ApprovalError::No(No::SamePerson(_)) => forbidden("same_person"),
            ApprovalError::No(No::NotASecond { .. }) => forbidden("not_a_second"),
            ApprovalError::No(No::Gone) => Self::busy(detail),
            ApprovalError::No(No::FirstGone { .. }) | ApprovalError::MovedOn(_) => {
                conflict("approval_failed")
            }
            ApprovalError::NotAPerson { .. } => forbidden("not_a_person"),
            ApprovalError::NoRole { .. } => forbidden("out_of_scope"),
            ApprovalError::TooMany { .. } => conflict("too_many"),
            ApprovalError::TooLong { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "oversize", "it is too long", detail)
            }
            ApprovalError::NoGrantRoles => {
                Self::new(StatusCode::BAD_REQUEST, "bad_two_people", "it cannot be so", detail)
            }
            ApprovalError::NobodyToAsk { .. } => conflict("no_second_person"),
            ApprovalError::NeedsTwo(error) => error.into(),
            ApprovalError::Registry(error) => error.into(),
        }
    }
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Overtaken { .. } => Self::busy(told(&error)),
            TableError::Registry(error) => error.into(),
        }
    }
}

impl From<CheckInError> for Failure {
    fn from(error: CheckInError) -> Self {
        let detail = told(&error);
        match error {
            CheckInError::Refused(refused) => {
                let (status, title) = match &refused {
                    checkin::Refused::TooOften { .. } => {
                        let title = "the device says something new too often";
                        let status = StatusCode::TOO_MANY_REQUESTS;
                        return Self::new(status, refused.word(), title, detail).again_in_a_while();
                    }
                    refused if refused.is_unreadable() => {
                        (StatusCode::BAD_REQUEST, "the manifest cannot be read")
                    }
                    refused if refused.is_stale() => {
                        (StatusCode::CONFLICT, "the manifest is not newer than the last one")
                    }
                    _ => (StatusCode::FORBIDDEN, "the manifest is not this device's word"),
                };
                Self::new(status, refused.word(), title, detail)
            }
            CheckInError::StandingChanged(_) => Self::busy(detail),
            CheckInError::Director(error) => match error {
                DirectorError::Registry(error) => error.into(),
                error => {
                    let title = "the Director gives no answer";
                    Self::new(StatusCode::SERVICE_UNAVAILABLE, "no_answer", title, told(&error))
                        .again_in_a_while()
                }
            },
            CheckInError::Table(error) => error.into(),
        }
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        let (status, word, title) = match &error {
            QueryError::BadSql(_) => {
                (StatusCode::BAD_REQUEST, "bad_sql", "the question cannot be read")
            }
            QueryError::TooLarge(_) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "too_large", "the question needs too much")
            }
            QueryError::Busy { .. } => {
                (StatusCode::TOO_MANY_REQUESTS, "queries_busy", "too many questions at a time")
            }
            QueryError::TooSlow { .. } => {
                (StatusCode::GATEWAY_TIMEOUT, "too_slow", "the question took too long")
            }
            QueryError::Failed(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "query_failed", "the store failed")
            }
        };
        let failure = Self::new(status, word, title, told(&error));
        if status == StatusCode::TOO_MANY_REQUESTS { failure.retry_after(SOON_S) } else { failure }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut problem = Problem::new(self.status.as_u16(), self.word, self.title, self.detail);
        problem.instance = self.request.as_deref().map(request::instance);
        let body = serde_json::to_vec(&problem).expect("texts and a number have a JSON form");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(problem::CONTENT_TYPE));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110 §11.6.1. That a certificate would do as well has no word there.
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"plimsoll\""),
            );
        }
        response
    }
}
