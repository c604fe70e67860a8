//! On the device: identity, sample, seal, backlog, publish.
