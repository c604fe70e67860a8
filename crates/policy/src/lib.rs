//! Identity to right: default-deny decisions with their reason.
