//! The site's control plane: who the devices are, what gateways are told, and what of theirs becomes history.
//!
//! Promises: nobody gets a certificate, a bundle, an answer or an effect without an identity that counts now and a
//! scope that admits it (INV-AUTH-1, INV-LEAST-1); what an uplink call was told of is durable on the bus, judged by the
//! device's own signature (INV-ACK-1); standing and keys move only along drawn edges (INV-STATE-1), each move durable
//! before anybody sees it and raising the one generation; work is bounded before it is spent (INV-COST-1).
//! Never: holds a device's private key, decides by a clock what is history, runs SQL on the fleet's hot path, knows how
//! a query is answered.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`enrol`], [`uplink`], [`bundle`], [`caller`], [`endpoint`], [`principal`], [`known`], [`directory`], `changes` | pure cores: decisions over the directory and the time |
//! | [`registry`] | the fleet on disk, and the directory that is always what the disk holds |
//! | `station`, `call` | what every request shares; a request that was let in |
//! | `driver`, `certificate`, `listener`, `http` | start and end, what the listener shows, connections, the way of a request |
//! | [`releases`] | the vendor's repository, read and verified as a device would |
//! | [`director`] | what devices are told, signed |
//! | `ledger` | events become the evidence log, and what waits for that goes on |
//! | [`checkin`] | what a device says that it runs, judged |
//! | [`inventory`] | what is known of each device: one line of many, one device whole, and its history |
//! | [`rollouts`] | releases on their way: check-ins, waves, gates, halts, the way back |
//! | [`alerts`] | what somebody should know of: rules, alerts, silences, who is told |
//! | [`approvals`] | what needs two people: asked for by one, done when a second says yes |
//! | [`people`] | users, sessions, tokens and sites: who is who, at every call |
//! | `est`, `gateway`, `images`, `fleet`, `query`, `audit`, `stream` | one group of calls each |
//! | `console` | the web console's files, compiled in |
//!
//! `docs/api.md` is the contract with callers.

pub mod alerts;
pub mod approvals;
mod audit;
pub mod bundle;
mod call;
pub mod caller;
mod certificate;
mod changes;
pub mod checkin;
pub mod config;
mod console;
pub mod director;
pub mod directory;
mod driver;
pub mod endpoint;
pub mod enrol;
pub mod error;
mod est;
mod fleet;
mod gateway;
mod http;
pub mod idempotency;
mod images;
pub mod inventory;
pub mod known;
pub mod ledger;
mod listener;
pub mod metrics;
pub mod openapi;
pub mod people;
pub mod principal;
mod problem;
mod query;
pub mod registry;
pub mod releases;
mod request;
pub mod rollouts;
mod station;
mod stream;
mod traced;
mod turns;
pub mod uplink;

pub use certificate::CertificateError;
pub use config::{Config, Director as DirectorConfig, Images, Limits};
pub use director::Director;
pub use driver::Control;
pub use error::{Fatal, StartError};
pub use query::TRUNCATED;
pub use registry::Registry;
pub use releases::{Published, Releases};
pub use request::REQUEST_ID;
pub use uplink::BUS_RECORD_BYTES_MAX;
