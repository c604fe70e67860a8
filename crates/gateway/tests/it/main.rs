//! The gateway over real sockets and TLS. Control is a double that keeps its contract (`site.rs`); the device is a
//! client written from the standard (`client.rs`), and Mosquitto's own.

mod admission;
mod client;
#[path = "../../../../tests/docs_table.rs"]
mod docs_table;
mod foreign;
mod http;
mod images;
mod least;
mod life;
mod sessions;
mod site;
mod uplink;
