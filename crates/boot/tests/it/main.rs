//! The boot journal over a flash that cuts and tears.

mod journal;
mod nor;
mod power;
mod sweep;
