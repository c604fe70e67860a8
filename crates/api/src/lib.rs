//! The HTTP contract between processes: paths, bodies, errors.
//!
//! Promises: what is written here is what both ends compile against; every error body is RFC 9457 problem+json and
//! says what was expected and found.
//! Never: does IO; knows how an answer is made.

pub mod alert;
pub mod approval;
pub mod base64;
pub mod bundle;
pub mod csv;
pub mod device;
pub mod event;
pub mod fleet;
pub mod path;
pub mod problem;
pub mod query;
pub mod release;
pub mod rollout;
pub mod scope;
pub mod stream;
pub mod update;
pub mod user;

pub use base64::Base64;
pub use bundle::{Bundle, BundleDevice, BundleKey, Standing};
pub use csv::LineEnd;
pub use fleet::{Changed, Fleet, FleetDevice, FleetKey, Ownership, Purpose, Role};
pub use problem::Problem;
pub use query::{Answer, Ask, Cell, Column, Query, QueryError, Within};
pub use scope::{Scope, UserRole};
