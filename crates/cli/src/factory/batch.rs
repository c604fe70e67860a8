//! A batch of bundles: encrypted under a passphrase, each device by itself, so that a line opens one without the others.
//!
//! ```text
//! file   = "plimsoll-bundles 1\n" | salt [16] | memory_kib u32 | passes u32 | count u32 | shared: box | count × (name [16] | box)
//! box    = length u32 | AES-256-GCM of that many bytes, tag included                                  numbers little-endian
//! key    = Argon2id(passphrase, salt, memory, passes, 1 lane), 64 bytes: 32 to encrypt, 32 to name
//! name   = the first 16 bytes of HMAC-SHA-256(key to name, serial number)
//! nonce  = the box's number, 0 for shared, in 12 bytes; aad = everything before the first box, and the box's name
//! ```
//!
//! A salt is drawn for each batch, so a key encrypts one batch and a nonce is used once. Serial numbers are not seen without
//! the passphrase.

use anyhow::{Context, Result, ensure};
use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use zeroize::Zeroizing;

const MAGIC: &[u8] = b"plimsoll-bundles 1\n";
const SALT: usize = 16;
const NAME: usize = 16;
const HEAD: usize = MAGIC.len() + SALT + 12;

/// What trying one passphrase costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    memory_kib: u32,
    passes: u32,
}

/// RFC 9106 §4, the second choice: 64 MiB and three passes. A factory's laptop takes a second, and so does each guess.
pub const COST: Cost = Cost { memory_kib: 64 * 1024, passes: 3 };

/// No file makes a reader spend more than this.
const COST_MAX: Cost = Cost { memory_kib: 1024 * 1024, passes: 16 };
const BOX_BYTES_MAX: usize = 1024 * 1024;
pub const BYTES_MAX: u64 = 64 * 1024 * 1024;

struct Keys {
    encrypts: LessSafeKey,
    names: hmac::Key,
}

impl Keys {
    fn of(passphrase: &str, salt: &[u8], cost: Cost) -> Result<Self> {
        let Cost { memory_kib, passes } = cost;
        let params = Params::new(memory_kib, passes, 1, Some(64))
            .map_err(|error| anyhow::anyhow!("a cost that Argon2id does not know: {error}"))?;
        let mut key = Zeroizing::new([0; 64]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.as_bytes(), salt, key.as_mut())
            .map_err(|error| anyhow::anyhow!("no key comes of the passphrase: {error}"))?;
        let encrypts = UnboundKey::new(&AES_256_GCM, &key[..32]).expect("a key of 32 bytes");
        let names = hmac::Key::new(hmac::HMAC_SHA256, &key[32..]);
        Ok(Self { encrypts: LessSafeKey::new(encrypts), names })
    }

    fn name(&self, serial: &str) -> [u8; NAME] {
        let tag = hmac::sign(&self.names, serial.as_bytes());
        tag.as_ref()[..NAME].try_into().expect("HMAC-SHA-256 has 32 bytes")
    }
}

fn nonce(number: u32) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// One batch, each device under its serial number.
pub fn seal<T: Serialize>(
    shared: &impl Serialize,
    devices: &BTreeMap<String, T>,
    passphrase: &str,
    cost: &Cost,
) -> Result<Vec<u8>> {
    let mut out = MAGIC.to_vec();
    let mut salt = [0; SALT];
    getrandom::fill(&mut salt).context("the operating system gave no random bytes")?;
    out.extend_from_slice(&salt);
    let count = u32::try_from(devices.len()).context("too many devices for a batch")?;
    for number in [cost.memory_kib, cost.passes, count] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let head = out.clone();
    let keys = Keys::of(passphrase, &salt, *cost)?;
    put(&mut out, &keys, &head, 0, &[], &serde_json::to_vec(shared)?)?;
    for (number, (serial, device)) in (1..).zip(devices) {
        let name = keys.name(serial);
        out.extend_from_slice(&name);
        put(&mut out, &keys, &head, number, &name, &serde_json::to_vec(device)?)?;
    }
    ensure!(
        out.len() as u64 <= BYTES_MAX,
        "expected at most {BYTES_MAX} bytes, found {}",
        out.len()
    );
    Ok(out)
}

fn put(
    out: &mut Vec<u8>,
    keys: &Keys,
    head: &[u8],
    number: u32,
    name: &[u8],
    plain: &[u8],
) -> Result<()> {
    let mut bytes = plain.to_vec();
    let aad = Aad::from([head, name].concat());
    keys.encrypts.seal_in_place_append_tag(nonce(number), aad, &mut bytes).context("encrypting")?;
    ensure!(
        bytes.len() <= BOX_BYTES_MAX,
        "expected at most {BOX_BYTES_MAX} bytes a device, found {}",
        bytes.len()
    );
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(&bytes);
    Ok(())
}

/// What all have, and what one device has, if it is of the batch.
pub fn open<S: DeserializeOwned, T: DeserializeOwned>(
    file: &[u8],
    serial: &str,
    passphrase: &str,
) -> Result<(S, Option<T>)> {
    let not_whole = || "not a whole batch of bundles: cut off, or another file";
    let head = file.get(..HEAD).with_context(not_whole)?;
    ensure!(head.starts_with(MAGIC), "not a batch of bundles that this version reads");
    let salt = &head[MAGIC.len()..][..SALT];
    let number = |at: usize| -> u32 {
        let bytes = head[MAGIC.len() + SALT + 4 * at..][..4].try_into();
        u32::from_le_bytes(bytes.expect("four bytes"))
    };
    let (cost, count) = (Cost { memory_kib: number(0), passes: number(1) }, number(2));
    ensure!(
        cost.memory_kib <= COST_MAX.memory_kib && cost.passes <= COST_MAX.passes,
        "a passphrase would cost more than this version spends on one"
    );
    let keys = Keys::of(passphrase, salt, cost)?;
    let mut rest = &file[HEAD..];
    let shared = take(&mut rest).with_context(not_whole)?;
    let shared = opened(&keys, head, 0, &[], shared)
        .context("another passphrase, or the batch was changed")?;
    let wanted = keys.name(serial);
    let mut found = None;
    for number in 1..=count {
        let (name, more) = rest.split_at_checked(NAME).with_context(not_whole)?;
        rest = more;
        let bytes = take(&mut rest).with_context(not_whole)?;
        if name == wanted {
            let device = opened(&keys, head, number, name, bytes);
            found = Some(device.with_context(|| format!("the bundle of {serial} was changed"))?);
        }
    }
    ensure!(rest.is_empty(), "{}", not_whole());
    Ok((shared, found))
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, more) = rest.split_at_checked(4)?;
    let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
    let (bytes, more) = more.split_at_checked(length)?;
    *rest = more;
    Some(bytes)
}

fn opened<T: DeserializeOwned>(
    keys: &Keys,
    head: &[u8],
    number: u32,
    name: &[u8],
    bytes: &[u8],
) -> Result<T> {
    let mut bytes = bytes.to_vec();
    let aad = Aad::from([head, name].concat());
    let plain = keys.encrypts.open_in_place(nonce(number), aad, &mut bytes);
    let plain = plain.ok().context("it does not decrypt")?;
    serde_json::from_slice(plain).context("it is not what this version expects")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least that Argon2 knows: what it costs is not what is tried here.
    const CHEAP: Cost = Cost { memory_kib: 8, passes: 1 };

    fn sealed() -> Vec<u8> {
        let devices: BTreeMap<String, String> =
            ["PUMP-1", "PUMP-2"].map(|serial| (serial.to_owned(), format!("of {serial}"))).into();
        seal(&"shared", &devices, "correct horse", &CHEAP).unwrap()
    }

    fn read(file: &[u8], serial: &str, passphrase: &str) -> Result<(String, Option<String>)> {
        open(file, serial, passphrase)
    }

    #[test]
    fn a_device_is_given_its_own_bundle_and_no_other() {
        let file = sealed();
        for serial in ["PUMP-1", "PUMP-2"] {
            let found = read(&file, serial, "correct horse").unwrap();
            assert_eq!(found, ("shared".to_owned(), Some(format!("of {serial}"))));
        }
        assert_eq!(read(&file, "PUMP-3", "correct horse").unwrap().1, None);
        let text = String::from_utf8_lossy(&file);
        assert!(
            !text.contains("PUMP") && !text.contains("shared"),
            "nothing is seen without the passphrase"
        );
        assert_ne!(file, sealed(), "two batches of the same devices look alike");
    }

    #[test]
    fn a_batch_that_was_changed_or_cut_or_is_anothers_is_refused() {
        let file = sealed();
        assert!(read(&file, "PUMP-1", "another horse").is_err());
        for at in 0..file.len() {
            // Costs apart: a byte of them makes another key, or more work than a test should do.
            if (MAGIC.len() + SALT..MAGIC.len() + SALT + 8).contains(&at) {
                continue;
            }
            let mut changed = file.clone();
            changed[at] ^= 1;
            let found = read(&changed, "PUMP-1", "correct horse");
            let whole = ("shared".to_owned(), Some("of PUMP-1".to_owned()));
            // A byte of the other device's bundle says nothing of this one: its own reader finds it.
            let other = read(&changed, "PUMP-2", "correct horse");
            assert!(
                found.map_or(true, |found| found != whole)
                    || other.map_or(true, |found| found.1.is_none()),
                "byte {at}"
            );
        }
        for length in 0..file.len() {
            assert!(read(&file[..length], "PUMP-1", "correct horse").is_err(), "{length} bytes");
        }
        let longer = [&file[..], b"x"].concat();
        assert!(read(&longer, "PUMP-1", "correct horse").is_err());
        let mut dear = file.clone();
        dear[MAGIC.len() + SALT..][..4].copy_from_slice(&u32::MAX.to_le_bytes());
        let refused = read(&dear, "PUMP-1", "correct horse").unwrap_err();
        assert!(refused.to_string().contains("cost more"), "{refused}");
    }

    /// Bytes that were written by the first release are read by every later one.
    #[test]
    fn version_1_is_drawn_as_it_is_written() {
        let file = sealed();
        assert_eq!(&file[..MAGIC.len()], b"plimsoll-bundles 1\n");
        assert_eq!(file[MAGIC.len() + SALT..][..12], [8, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
        // "shared" in JSON is 8 bytes, and a tag 16.
        assert_eq!(file[HEAD..][..4], 24u32.to_le_bytes());
    }
}
