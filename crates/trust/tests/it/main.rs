//! What `trust` says and believes, against bytes that others wrote or that we wrote once and for ever.

mod cose_examples;
mod golden;
mod wycheproof;
