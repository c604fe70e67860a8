//! Ordered durable log: append, read from an offset, trim.
