//! Passwords, cookies and tokens' secrets: how they are made, and what is kept of them.
//!
//! ```text
//! password   $argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>       its cost stands in it, so that it can be raised for new ones
//! cookie     64 hex digits: 256 random bits                      kept: SHA-256
//! token      plm_<12 hex digits: its id>_<64 hex digits>         kept: the id, and SHA-256 of the last part
//! ```
//!
//! A cookie and a token are as random as a key: one round of SHA-256 is enough for them. A password is not.

use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use model::Digest;
use std::fmt;

/// OWASP's and RFC 9106's second choice for a server without room: some 20 ms on one core, optimised.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

const SALT_BYTES: usize = 16;
const TOKEN_PREFIX: &str = "plm_";
const TOKEN_ID_BYTES: usize = 6;

/// Nobody's: it is verified when no user has the name that was shown, so that this takes as long.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$cGxpbXNvbGxub2JvZHk$7rNVCyO5vJ2aGQpVh3jmSJUwVbpQYCFGcKNpwRJtoEk";

/// A password as it is kept. It does not show itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash(String);

impl Hash {
    /// Costs 19 MiB and tens of milliseconds: not on a thread that others wait for.
    pub fn of(password: &str) -> Self {
        let salt = SaltString::encode_b64(&random::<SALT_BYTES>()).expect("16 bytes are a salt");
        let hash = argon2().hash_password(password.as_bytes(), &salt);
        Self(hash.expect("a password within its bounds can be hashed").to_string())
    }

    /// As the file has it, or why it is none.
    pub fn read(text: &str) -> Option<Self> {
        PasswordHash::new(text).ok().map(|_| Self(text.to_owned()))
    }

    pub fn nobody() -> Self {
        Self(NOBODY.to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// As dear as [`Hash::of`], whatever comes out.
    pub fn is_of(&self, password: &str) -> bool {
        let hash = PasswordHash::new(&self.0).expect("it was read as one");
        argon2().verify_password(password.as_bytes(), &hash).is_ok()
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a password's hash")
    }
}

fn argon2() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("these are within its bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Something to show, and what is kept of it.
pub struct Drawn {
    pub shown: String,
    pub kept: Digest,
}

pub fn cookie() -> Drawn {
    let shown = hex(&random::<32>());
    Drawn { kept: trust::digest(shown.as_bytes()), shown }
}

/// A token's id, and its whole text.
pub fn token() -> (String, Drawn) {
    let (id, secret) = (hex(&random::<TOKEN_ID_BYTES>()), hex(&random::<32>()));
    let kept = trust::digest(secret.as_bytes());
    let shown = format!("{TOKEN_PREFIX}{id}_{secret}");
    (id, Drawn { shown, kept })
}

/// The id and the secret of what looks like a token.
pub fn token_parts(shown: &str) -> Option<(&str, &str)> {
    shown.strip_prefix(TOKEN_PREFIX)?.split_once('_')
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel gives random numbers");
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_by_its_hash_which_has_its_cost_and_shows_nothing() {
        let hash = Hash::of("correct horse battery");
        assert!(hash.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(hash.is_of("correct horse battery") && !hash.is_of("correct horse batterz"));
        assert_ne!(hash, Hash::of("correct horse battery"), "salted");
        assert!(!format!("{hash:?}").contains("argon2"));
        assert!(!Hash::nobody().is_of(""));
        // One that was made when it cost less is known still.
        let params = Params::new(64, 1, 1, None).unwrap();
        let cheap = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let salt = SaltString::encode_b64(b"0123456789abcdef").unwrap();
        let old = cheap.hash_password(b"correct horse battery", &salt).unwrap().to_string();
        assert!(Hash::read(&old).unwrap().is_of("correct horse battery"));
        assert_eq!(Hash::read("correct horse battery"), None);
    }

    #[test]
    fn a_token_has_its_id_in_it_and_is_kept_as_a_digest() {
        let (id, drawn) = token();
        let (shown_id, secret) = token_parts(&drawn.shown).unwrap();
        assert_eq!((shown_id, secret.len()), (id.as_str(), 64));
        assert_eq!(drawn.kept, trust::digest(secret.as_bytes()));
        assert_eq!(token_parts("0123456789abcdef"), None);
        assert_ne!(cookie().shown, cookie().shown);
    }
}
