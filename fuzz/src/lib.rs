//! Fuzz targets: every parser of foreign bytes, as a function over bytes. Runs on stable Rust.
//!
//! Promises: the same seed does the same executions; what is reported was counted; an input that panics, takes too
//! long or too much memory is written down and ends the run.
//! Never: measures coverage. What tells inputs apart is how far they came and which words refused them; an input that
//! ends in a new way joins the corpus, and so the corpus grows towards the deeper parsers.

pub mod corpus;
pub mod memory;
pub mod mutate;
pub mod run;
pub mod targets;
