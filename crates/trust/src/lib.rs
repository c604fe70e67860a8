//! What makes bytes believable: COSE, replay windows, taken ranges.
