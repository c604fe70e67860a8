//! Fleet registry, enrolment, uplink, API.
