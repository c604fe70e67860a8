//! Control's promises, through its real listener, registry and bus.

mod access;
mod alerts;
mod console;
mod director;
mod enrolment;
mod evidence;
mod fleet;
mod inventory;
mod least;
mod listener;
mod people;
mod polling;
mod queries;
mod registry;
mod releases;
mod rollouts;
mod steps;
mod uplink;
mod vendor;
mod within;
mod world;
