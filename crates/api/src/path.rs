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

/// `POST` [`crate::Ask`]: 200 [`crate::Answer`]. Bearer token.
pub const QUERY: &str = "/v1/query";

/// `GET ?after=ID&limit=N`: 200 [`crate::Fleet`]. `POST /v1/devices/{id}/{revoke|quarantine|release}`: 200
/// [`crate::Changed`]; 409: not a drawn edge. Bearer token.
pub const DEVICES: &str = "/v1/devices";

/// `POST` [`crate::Ownership`]: a serial number that may enrol. 200 [`crate::Changed`]. Bearer token.
pub const OWNERSHIP: &str = "/v1/ownership";

/// `GET`: Prometheus text format. Bearer token.
pub const METRICS: &str = "/metrics";

/// `GET`: 200 once the process serves. No token.
pub const HEALTH: &str = "/healthz";
