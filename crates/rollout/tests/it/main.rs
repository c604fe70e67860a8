//! Promises of a rollout, told as stories, and explored wherever messages may be lost, late, repeated or out of order.

mod explored;
mod format;
mod plans;
mod reports;
mod site;
mod stories;
