//! Where things are. All of it is served on control's one TLS 1.3 listener; who may call what is decided by the
//! caller's certificate (EST, gateways) or bearer token (people and programs of the operator).

/// EST (RFC 7030 §3.2.2). With label `seal`: a certificate for the key that seals envelopes; without: for TLS.
pub const EST: &str = "/.well-known/est";
pub const EST_SEAL_LABEL: &str = "seal";

/// `GET ?after=G&wait_s=N`: the caller's bundle if newer than generation G, waiting up to N s (at most 60) for one.
/// 200 with [`crate::Bundle`], or 204. Gateways only.
pub const GATEWAY_BUNDLE: &str = "/v1/gateway/bundle";

/// `POST`, `application/cose`, `Content-Encoding: zstd`: a message of kind UplinkBatch. 200: a reply
/// (`model::uplink::decode_reply`), one verdict per record, each durable. 503 with Retry-After: nothing was taken.
/// Gateways only.
pub const GATEWAY_UPLINK: &str = "/v1/gateway/uplink";

/// `POST ?device=ID`, `application/cose`: a device's message of kind manifest, forwarded by the gateway of its zone that it
/// is connected to. 200 [`crate::update::CheckIn`]. Gateways only.
pub const GATEWAY_CHECK_IN: &str = "/v1/gateway/checkin";

/// `GET /v1/gateway/images/NAME`: a metadata file of the image repository, as it was read and verified. 404: none such.
/// Gateways only.
pub const GATEWAY_IMAGES: &str = "/v1/gateway/images";

/// `GET /v1/gateway/blobs/sha256/HEX`, with `Range`: an image that the trusted metadata name. Gateways only.
pub const GATEWAY_BLOBS: &str = "/v1/gateway/blobs/sha256";

/// On a gateway, for devices: `POST`, `application/cose`: a message of kind manifest, at most
/// [`crate::update::CHECK_IN_BYTES_MAX`] bytes. 200 [`crate::update::CheckIn`]. 503 with Retry-After: control is away.
pub const CHECK_IN: &str = "/v1/checkin";

/// On a gateway, for devices: `GET /v1/images/NAME`: a metadata file of the image repository. 404: none such; 503 with
/// Retry-After: not here, and control is away.
pub const IMAGES: &str = "/v1/images";

/// On a gateway, for devices: `GET /v1/blobs/sha256/HEX`, with `Range: bytes=N-`: an image, out of the gateway's cache.
pub const BLOBS: &str = "/v1/blobs/sha256";

/// `POST` [`crate::rollout::NewRollout`]: 201 [`crate::rollout::Rollout`]. `GET`: [`crate::rollout::Rollouts`].
/// `GET /v1/rollouts/{id}`: [`crate::rollout::Rollout`]. `POST /v1/rollouts/{id}/{start|pause|resume|halt|revert|abort}`:
/// 200 [`crate::rollout::Rollout`]; 409: not from where it stands. `GET /v1/rollouts/{id}/devices?after=ID&limit=N`:
/// [`crate::rollout::RolloutDevices`]. Bearer token.
pub const ROLLOUTS: &str = "/v1/rollouts";

/// `GET`: [`crate::release::Releases`]. `POST /v1/releases/refresh`: reads the vendor's repository now. Bearer token.
pub const RELEASES: &str = "/v1/releases";

/// `GET ?after=N&limit=M&subject=S`: [`crate::event::Events`]. Bearer token.
pub const EVENTS: &str = "/v1/events";

/// `GET /v1/evidence/checkpoint`, `/v1/evidence/tile/…` (C2SP tlog-tiles), `GET /v1/evidence/export?subject=S&from=N&to=M`
/// (`docs/formats/evidence-export.md`). Bearer token.
pub const EVIDENCE: &str = "/v1/evidence";

/// `GET`: [`crate::user::Me`]. `POST` [`crate::user::SignIn`]: 200 [`crate::user::Me`] and a cookie. `DELETE`: signs out.
pub const SESSION: &str = "/v1/session";

/// `GET`: [`crate::user::Users`]. `POST` [`crate::user::NewUser`]: 201 [`crate::user::User`].
/// `POST /v1/users/{name}/grants` [`crate::user::Grants`], `…/password` [`crate::user::NewPassword`], `…/disable`, `…/enable`:
/// [`crate::user::User`]. `DELETE /v1/users/{name}/sessions`: 204, all of them are over.
pub const USERS: &str = "/v1/users";

/// `GET`: [`crate::user::Tokens`]. `POST` [`crate::user::NewToken`]: 201 [`crate::user::MadeToken`]; by a session only.
/// `DELETE /v1/tokens/{id}`: [`crate::user::Token`], revoked.
pub const TOKENS: &str = "/v1/tokens";

/// `GET`, and `POST` [`crate::user::Site`]: [`crate::user::Sites`].
pub const SITES: &str = "/v1/sites";
/// `GET`: [`crate::approval::Approvals`]. `{id}`: [`crate::approval::Approval`]; `POST` `{id}/approve`, `{id}/refuse`.
pub const APPROVALS: &str = "/v1/approvals";
/// `GET`, and `POST`: [`crate::approval::TwoPeople`].
pub const TWO_PEOPLE: &str = "/v1/settings/two-people";
/// `GET`: `text/event-stream`, lines of [`crate::stream::Changed`]. By session or bearer token.
pub const STREAM: &str = "/v1/stream";

/// `GET`: OpenAPI 3.1 of everything here. No token.
pub const OPENAPI: &str = "/v1/openapi.json";

/// `POST` [`crate::Ask`]: 200 [`crate::Answer`]. Bearer token.
pub const QUERY: &str = "/v1/query";

/// `GET ?after=ID&limit=N`: 200 [`crate::Fleet`]. `POST /v1/devices/{id}/{revoke|quarantine|release}`: 200
/// [`crate::Changed`]; 409: not a drawn edge. Bearer token.
pub const DEVICES: &str = "/v1/devices";

/// `GET`: [`crate::device::Inventory`]. `GET /v1/inventory/summary`: [`crate::device::Summary`].
pub const INVENTORY: &str = "/v1/inventory";

/// `POST` [`crate::Ownership`]: a serial number that may enrol. 200 [`crate::Changed`]. Bearer token.
pub const OWNERSHIP: &str = "/v1/ownership";

/// `GET ?state=S&priority=P&after=N&limit=M`: [`crate::alert::Alerts`]. `POST /v1/alerts/{id}/acknowledge`
/// [`crate::alert::Acknowledge`]: 200 [`crate::alert::Alert`].
pub const ALERTS: &str = "/v1/alerts";

/// `GET`: [`crate::alert::Silences`]. `POST` [`crate::alert::NewSilence`]: 201 [`crate::alert::Silence`].
/// `POST /v1/silences/{id}/end`: 200 [`crate::alert::Silence`].
pub const SILENCES: &str = "/v1/silences";

/// `GET`: [`crate::alert::Rules`]. `POST` [`crate::alert::Rule`]: 200. `POST /v1/alert-rules/{id}/delete`: 204.
pub const ALERT_RULES: &str = "/v1/alert-rules";

/// `GET`: [`crate::alert::Targets`]. `POST` [`crate::alert::Target`]: 200 [`crate::alert::TargetState`].
/// `POST /v1/alert-targets/{id}/delete`: 204. `POST /v1/alert-targets/{id}/test`: 200; 502: it was not told.
pub const ALERT_TARGETS: &str = "/v1/alert-targets";

/// `GET ?until_ms=N`: [`crate::alert::WeeklyReport`].
pub const WEEKLY_REPORT: &str = "/v1/reports/weekly";

/// The same as a page for people and printers.
pub const WEEKLY_REPORT_PAGE: &str = "/v1/reports/weekly.html";

/// `GET`: Prometheus text format. Bearer token.
pub const METRICS: &str = "/metrics";

/// `GET`: 200 once the process serves. No token.
pub const HEALTH: &str = "/healthz";
