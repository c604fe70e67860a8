//! Who a station is: its private keys, its certificates, its TLS, and how it comes by them.
//!
//! Promises: a private key is made where it is used, kept in a file that only its owner reads, and never shown in an
//! error, a log or a `Debug`; a certificate is read as exactly one role or refused, and a role counts only under the
//! authority that may grant it (INV-PURP-1, INV-AUTH-1); TLS is 1.3 only and every connection presents and verifies
//! certificates anew, so that a revoked one cannot come back by resumption (INV-AUTH-1); power cut at any write of an
//! enrolment costs a repeat and never a key that was certified.
//! Never: decides who may enrol (that is `control`), talks to anything but an EST server, computes with the date
//! 9999-12-31 (RFC 5280 §4.1.2.5: it says that there is none).

pub mod ca;
pub mod cert;
pub mod csr;
pub mod est;
pub mod file;
pub mod identity;
pub mod pem;
pub mod pkcs7;
pub mod tls;
mod x509;

pub use cert::{Issuers, Leaf, NotAfter, Role};
pub use rustls_pki_types::UnixTime;
