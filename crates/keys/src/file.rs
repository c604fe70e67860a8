//! Private keys in files: PKCS#8 (RFC 5958) in PEM, readable by their owner only.
//!
//! A key that was made is never overwritten, and a file that does not hold one is never replaced by a fresh key behind
//! the operator's back: a lost key is a lost identity, and that is for a person to see.

use crate::pem;
use disk::Disk;
use model::envelope::Algorithm;
use std::io;
use std::path::{Path, PathBuf};
use trust::cose::SecretKey;
use zeroize::{Zeroize as _, Zeroizing};

/// What went wrong with a private key. No variant holds any of its bytes.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot draw random bytes for a private key")]
    Random(#[source] getrandom::Error),
    #[error("cannot write private key `{}`", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read private key `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("will not overwrite private key `{}`", path.display())]
    Exists { path: PathBuf },
    #[error(
        "`{}` holds no private key: expected PKCS#8 in PEM, Ed25519 or P-256, found {found}",
        path.display()
    )]
    NotAKey { path: PathBuf, found: String },
}

/// Draws a key from the operating system's randomness. It is in memory only until [`save`] returns.
pub fn draw(algorithm: Algorithm) -> Result<SecretKey, KeyError> {
    let mut random = Zeroizing::new([0; 32]);
    loop {
        // One draw in 2^32 is no scalar of P-256, so this ends at once.
        getrandom::fill(random.as_mut()).map_err(KeyError::Random)?;
        if let Some(key) = SecretKey::from_random(algorithm, &random) {
            return Ok(key);
        }
    }
}

/// Makes a key and returns it once it is durable.
pub fn generate(disk: &dyn Disk, path: &Path, algorithm: Algorithm) -> Result<SecretKey, KeyError> {
    let key = draw(algorithm)?;
    save(disk, path, &key)?;
    Ok(key)
}

/// Puts a key at `path`, where no file may be; returns once it is durable.
pub fn save(disk: &dyn Disk, path: &Path, key: &SecretKey) -> Result<(), KeyError> {
    let write = |source| KeyError::Write { path: path.to_owned(), source };
    if disk.exists(path).map_err(write)? {
        return Err(KeyError::Exists { path: path.to_owned() });
    }
    let der = Zeroizing::new(key.to_pkcs8_der());
    let text = Zeroizing::new(pem::encode(pem::PRIVATE_KEY, &der));
    disk::replace(disk, path, text.as_bytes()).map_err(write)
}

/// Reads the key at `path`.
pub fn load(disk: &dyn Disk, path: &Path) -> Result<SecretKey, KeyError> {
    let text = disk
        .read(path, pem::FILE_BYTES_MAX)
        .map_err(|source| KeyError::Read { path: path.to_owned(), source })?;
    let text = Zeroizing::new(text);
    let not_a_key = |found| KeyError::NotAKey { path: path.to_owned(), found };
    let mut sections =
        pem::decode(pem::PRIVATE_KEY, &text).map_err(|error| not_a_key(error.found))?;
    let key = match sections.as_slice() {
        [der] => SecretKey::from_pkcs8_der(der).map_err(|_| not_a_key("something else".into())),
        more => Err(not_a_key(format!("{} sections", more.len()))),
    };
    sections.iter_mut().for_each(|der| der.zeroize());
    key
}

/// The key at `path`, made if there is no such file. A file that is there and holds no key is an error.
pub fn load_or_generate(
    disk: &dyn Disk,
    path: &Path,
    algorithm: Algorithm,
) -> Result<SecretKey, KeyError> {
    let read = |source| KeyError::Read { path: path.to_owned(), source };
    if disk.exists(path).map_err(read)? {
        // Who made it may have been killed before its name was durable, and what is certified must not be lost.
        let dir = path.parent().expect("a key's file lies in a directory");
        disk.sync_dir(dir).map_err(read)?;
        load(disk, path)
    } else {
        generate(disk, path, algorithm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk::{Cut, Cuts, RealDisk, SimDisk, SyncMode, cut_everywhere};
    use std::os::unix::fs::PermissionsExt as _;
    use trust::cose::{PublicKey, Signer as _};

    const PATH: &str = "/k.key";
    const BOTH: [Algorithm; 2] = [Algorithm::Ed25519, Algorithm::Esp256];

    #[test]
    fn a_key_comes_back_from_its_file_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        for algorithm in BOTH {
            let path = dir.path().join(format!("{algorithm:?}.key"));
            let made = load_or_generate(&RealDisk, &path, algorithm).unwrap();
            let read = load_or_generate(&RealDisk, &path, algorithm).unwrap();
            assert_eq!(made.public(), read.public());
            assert_eq!(made.public().algorithm(), algorithm);
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let disk = SimDisk::new(1);
        let first = generate(&disk, Path::new(PATH), Algorithm::Ed25519).unwrap();
        let error = generate(&disk, Path::new(PATH), Algorithm::Ed25519).unwrap_err();
        assert_eq!(error.to_string(), "will not overwrite private key `/k.key`");
        assert_eq!(load(&disk, Path::new(PATH)).unwrap().public(), first.public());
    }

    #[test]
    fn a_file_without_a_key_is_refused_with_what_was_found_and_never_replaced() {
        let disk = SimDisk::new(1);
        let path = Path::new(PATH);
        generate(&disk, path, Algorithm::Ed25519).unwrap();
        let good = String::from_utf8(disk.read(path, 4096).unwrap()).unwrap();
        let refused = |text: &str| {
            disk::replace(&disk, path, text.as_bytes()).unwrap();
            let error = load_or_generate(&disk, path, Algorithm::Ed25519).unwrap_err();
            assert_eq!(disk.read(path, 4096).unwrap(), text.as_bytes(), "the file was touched");
            error.to_string()
        };
        let expected =
            "`/k.key` holds no private key: expected PKCS#8 in PEM, Ed25519 or P-256, found ";
        assert_eq!(refused(""), format!("{expected}0 bytes without a section"));
        assert_eq!(refused(&good[..60]), format!("{expected}a section without its end"));
        assert_eq!(
            refused(&good.replace("PRIVATE KEY", "EC PRIVATE KEY")),
            format!("{expected}a section \"EC PRIVATE KEY\"")
        );
        assert_eq!(
            refused(&pem::encode(pem::PRIVATE_KEY, b"??")),
            format!("{expected}something else")
        );
        assert_eq!(refused(&format!("{good}{good}")), format!("{expected}2 sections"));
        let missing = load(&disk, Path::new("/none.key")).unwrap_err();
        assert_eq!(missing.to_string(), "cannot read private key `/none.key`");
    }

    #[test]
    fn no_error_and_no_debug_shows_a_secret() {
        let disk = SimDisk::new(1);
        let path = Path::new(PATH);
        let key = generate(&disk, path, Algorithm::Ed25519).unwrap();
        let text = String::from_utf8(disk.read(path, 4096).unwrap()).unwrap();
        let secret = text.lines().nth(1).unwrap();
        disk::replace(&disk, path, text.replace("-----END", "-----FIN").as_bytes()).unwrap();
        let error = load(&disk, path).unwrap_err();
        for shown in [format!("{error:?}"), format!("{error}"), format!("{key:?}")] {
            assert!(!shown.contains(&secret[..16]), "{shown}");
        }
    }

    #[test]
    fn a_cut_at_any_write_leaves_no_key_or_a_whole_one() {
        let load_or_generate =
            |disk: &SimDisk| load_or_generate(disk, Path::new(PATH), Algorithm::Ed25519);
        let promise = |disk: &SimDisk| load_or_generate(disk).ok().map(|key| key.public().clone());
        let check = |disk: &SimDisk, promised: Option<PublicKey>| {
            let found = load_or_generate(disk).map_err(|error| error.to_string())?;
            match promised {
                Some(promised) if promised != *found.public() => Err("a key was lost".to_owned()),
                _ => Ok(()),
            }
        };
        cut_everywhere(0..8, promise, check).holds("a private key's file");
        let lied = Cuts::over(0..8).on(SyncMode::Lies).run(promise, check);
        assert!(!lied.broken.is_empty(), "a sync that does nothing was not noticed");
    }

    #[test]
    fn a_key_that_was_found_is_as_durable_as_one_that_was_made() {
        // Killed between the rename and the sync of the directory; found and used by the next process; power cut.
        for seed in 0..16 {
            let disk = SimDisk::new(seed);
            let path = Path::new(PATH);
            disk.set_cut(Cut::At(4));
            generate(&disk, path, Algorithm::Ed25519).unwrap_err();
            disk.restart();
            let used = load_or_generate(&disk, path, Algorithm::Ed25519).unwrap();
            disk.reboot();
            assert_eq!(load(&disk, path).unwrap().public(), used.public(), "seed {seed}");
        }
    }
}
