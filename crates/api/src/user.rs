//! People and programs of the operator: who may sign in, what each may do where, and what programs show instead.

use crate::scope::{Scope, UserRole};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A role at one site, or at every site.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    pub role: UserRole,
    /// `None`: at every site, those that come later too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
}

/// Who may sign in. Times are in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct User {
    /// Lower case letters, digits, `.`, `-`, `_`; 1 to 64 of them.
    pub name: String,
    pub grants: Vec<Grant>,
    /// Nobody signs in as a disabled user, and none of its tokens counts.
    pub disabled: bool,
    pub created_at_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_in_at_ms: Option<u64>,
    /// How many sessions are open.
    pub sessions: usize,
}

/// `GET /v1/users`, sorted by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Users {
    pub users: Vec<User>,
}

/// `POST /v1/users`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    pub name: String,
    /// At least [`PASSWORD_CHARS_MIN`] characters, at most [`PASSWORD_BYTES_MAX`] bytes; nothing else is asked of it (NIST
    /// SP 800-63B §5.1.1).
    pub password: String,
    pub grants: Vec<Grant>,
}

/// `POST /v1/users/{name}/grants`: what it may do from now on, instead of what it might before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grants {
    pub grants: Vec<Grant>,
}

/// `POST /v1/users/{name}/password`. Every session of the user ends. Whoever sets his own says the one before.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPassword {
    pub password: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// `POST /v1/session`. 200 [`Me`] and a cookie; 401: no such user, another password, or disabled, and which of them is not
/// said; 429 with Retry-After: too many attempts.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    pub user: String,
    pub password: String,
}

/// `GET /v1/session`: who calls, and what it may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Me {
    /// As events name it: `user/anna`, `token/anna/ci`, `token/site`.
    pub actor: String,
    /// The user behind it, if it is a person's session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The control plane's own name.
    pub site: String,
    pub grants: Vec<Grant>,
    /// Held at one site at least.
    pub scopes: Vec<Scope>,
    /// When the session or token ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

/// What a program shows instead of a password: `Authorization: Bearer plm_…`. It can never do more than its user can.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    pub id: String,
    pub user: String,
    /// What it is for, in its maker's words.
    pub name: String,
    pub scopes: Vec<Scope>,
    /// `None`: wherever its user may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sites: Option<Vec<String>>,
    /// Rollouts that it makes go to devices of these groups only. `None`: to all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<String>>,
    pub created_at_ms: u64,
    pub until_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_at_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at_ms: Option<u64>,
}

/// `GET /v1/tokens`: one's own; with `users.read`, everybody's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tokens {
    pub tokens: Vec<Token>,
}

/// `POST /v1/tokens`: 201 [`MadeToken`]. Only by a person's own session or password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    pub name: String,
    pub scopes: Vec<Scope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sites: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<String>>,
    /// How long it lives, in days: 1 to [`TOKEN_DAYS_MAX`].
    pub days: u32,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MadeToken {
    pub token: Token,
    /// Shown once. The site keeps its digest only.
    pub secret: String,
}

/// A site: some zones, by which people's rights are bounded. A zone that no site names is of the control plane's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Site {
    pub id: String,
    pub zones: Vec<String>,
}

/// `GET /v1/sites`, sorted by id. `POST /v1/sites` [`Site`]: these zones are of this site from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sites {
    pub sites: Vec<Site>,
}

pub const PASSWORD_CHARS_MIN: usize = 12;
pub const PASSWORD_BYTES_MAX: usize = 256;
pub const TOKEN_DAYS_MAX: u32 = 366;
/// The session's cookie: `HttpOnly; Secure; SameSite=Strict`.
pub const SESSION_COOKIE: &str = "__Host-plimsoll";
