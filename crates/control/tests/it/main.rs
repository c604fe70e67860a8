//! Control's promises, through its real listener, registry and bus.

mod access;
mod enrolment;
mod evidence;
mod fleet;
mod listener;
mod polling;
mod queries;
mod registry;
mod steps;
mod uplink;
mod world;
