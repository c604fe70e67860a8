//! Private keys, certificates, TLS configurations and enrolment.
