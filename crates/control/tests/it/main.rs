//! Control's promises, through its real listener, registry and bus.

mod access;
mod alerts;
mod approvals;
mod console;
mod contract;
mod director;
#[path = "../../../../tests/docs_table.rs"]
mod docs_table;
mod enrolment;
mod evidence;
mod fleet;
mod idempotency;
mod inventory;
mod least;
mod listener;
mod openapi;
mod people;
mod polling;
mod queries;
mod registry;
mod releases;
mod rollouts;
mod steps;
mod stream;
mod uplink;
mod vendor;
mod within;
mod world;
