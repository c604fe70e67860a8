//! Devices' side of a site: authenticate, admit, spool, uplink over MQTT 5; checking in and fetching over HTTP. The security
//! boundary.
//!
//! Promises: what was acknowledged with PUBACK 0x00 is found after any crash (INV-ACK-1); nothing takes effect without
//! an identity that the newest bundle permits (INV-AUTH-1), nor twice while its window remembers it (INV-REPLAY-1);
//! work and memory per connection and message are bounded before they are spent (INV-COST-1); each refusal has one
//! reason, one MQTT code and one counter.
//! Never: opens a message to change it, forges or reorders one, keeps a session over a reconnect, asks the network for
//! a decision, drops what it acknowledged.
//!
//! ```text
//! TLS 1.3 ──▶ frame ──▶ session ──▶ admission ──▶ spool ──▶ PUBACK          pure cores: frame, session, admission,
//!             strict    who, what   signature,    fsync                                limits, uplink::core
//!                       may it      window          │
//!     │                                             └──▶ uplink ──▶ control
//!     │                                                                │ metadata, images
//!     └──────▶ ask ──▶ http ──▶ check-in ──▶ control    images, cache ◀┘                    pure cores: ask, shelf
//! ```

pub mod admission;
pub mod ask;
pub mod bundle;
mod cache;
pub mod config;
mod control;
mod driver;
mod error;
pub mod frame;
pub mod fuzz;
mod gateway;
mod http;
mod identity;
mod images;
mod kept;
pub mod limits;
mod listener;
pub mod metrics;
pub mod refusal;
mod reserve;
pub mod sealer;
pub mod session;
pub mod shelf;
pub mod spool;
mod stall;
mod status;
mod traced;
pub mod uplink;

pub use crate::gateway::{Gateway, run};
pub use config::Config;
pub use error::GatewayError;
pub use fuzz::fuzz_entry;
pub use kept::KeptError;
