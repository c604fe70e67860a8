//! The HTTP contract between processes: paths, bodies, errors.
