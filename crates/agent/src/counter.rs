//! The replay counter of one key: which (epoch, sequence) comes next (INV-REPLAY-2).
//!
//! ```text
//! epoch-<key>   plimsoll-epoch 1 <key: 64 hex> <epoch: decimal> <crc32c of all before: 8 hex>\n
//! ```
//!
//! The file holds the last epoch that was begun; a key is made with 0. At each start the file is replaced by the next
//! epoch, durably, and only then is the first envelope of that epoch sealed. Sequences live in memory: whatever of an
//! epoch was not durable when the power went is never continued, since the next start begins an epoch of its own.
//!
//! A counter that is missing, does not read, or lies below what the backlog shows **retires its key**: nothing is
//! guessed, the device makes a new key and enrols it.

use disk::Disk;
use model::{Counter, KeyId};
use std::io;
use std::path::{Path, PathBuf};

/// The longest that the file can be: 64 hex digits, an epoch of 10 decimal digits, and the words around them.
const FILE_BYTES_MAX: u64 = 128;

#[derive(Debug, thiserror::Error)]
pub enum CounterError {
    #[error("no counter in `{path}`: expected the epoch of key {key}")]
    Missing { path: PathBuf, key: KeyId },
    #[error("cannot read the counter in `{path}`")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(
        "corrupt counter in `{path}`: expected `plimsoll-epoch 1`, key {key}, an epoch and its crc32c"
    )]
    Corrupt { path: PathBuf, key: KeyId },
    #[error(
        "counter in `{path}` is behind: epoch {file}, but the backlog holds epoch {durable} of the same key"
    )]
    Behind { path: PathBuf, file: u32, durable: u32 },
    #[error("counter in `{path}` is used up: epoch {} was the last", u32::MAX)]
    UsedUp { path: PathBuf },
    #[error("cannot write the counter in `{path}`")]
    Unwritable { path: PathBuf, source: io::Error },
}

impl CounterError {
    /// Whether the key must never seal again. The other errors may pass: the disk is full, say.
    pub fn retires_key(&self) -> bool {
        !matches!(self, Self::Unwritable { .. })
    }
}

/// A counter within its epoch. Each number is given out once.
#[derive(Debug)]
pub struct Counters {
    key: KeyId,
    epoch: u32,
    next: u64,
}

impl Counters {
    /// Gives a key that was just made its counter. Durable before the key is used. A counter that is there stays: if the
    /// key is not as new as the caller believes, nothing goes back.
    pub fn create(disk: &dyn Disk, dir: &Path, key: KeyId) -> Result<(), CounterError> {
        let path = path(dir, key);
        match disk.exists(&path) {
            Ok(true) => Ok(()),
            Ok(false) => write(disk, dir, key, 0),
            Err(source) => Err(CounterError::Unreadable { path, source }),
        }
    }

    /// Begins the next epoch of a key. `durable` is the newest counter of this key that the backlog shows.
    pub fn begin(
        disk: &dyn Disk,
        dir: &Path,
        key: KeyId,
        durable: Option<Counter>,
    ) -> Result<Self, CounterError> {
        let path = path(dir, key);
        let last = read(disk, &path, key)?;
        if let Some(durable) = durable
            && durable.epoch > last
        {
            return Err(CounterError::Behind { path, file: last, durable: durable.epoch });
        }
        let epoch = last.checked_add(1).ok_or(CounterError::UsedUp { path })?;
        write(disk, dir, key, epoch)?;
        Ok(Self { key, epoch, next: 0 })
    }

    /// Removes the counter of a key that will never seal again.
    pub fn remove(disk: &dyn Disk, dir: &Path, key: KeyId) -> io::Result<()> {
        match disk.remove(&path(dir, key)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
            Ok(()) => disk.sync_dir(dir),
        }
    }

    pub fn key(&self) -> KeyId {
        self.key
    }

    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The number that is given out next.
    pub fn peek(&self) -> Counter {
        Counter { epoch: self.epoch, sequence: self.next }
    }

    /// The next number, given out for good.
    pub fn take(&mut self) -> Counter {
        let counter = self.peek();
        self.next += 1;
        counter
    }
}

fn path(dir: &Path, key: KeyId) -> PathBuf {
    dir.join(format!("epoch-{key}"))
}

fn write(disk: &dyn Disk, dir: &Path, key: KeyId, epoch: u32) -> Result<(), CounterError> {
    let path = path(dir, key);
    disk::replace(disk, &path, line(key, epoch).as_bytes())
        .map_err(|source| CounterError::Unwritable { path, source })
}

fn read(disk: &dyn Disk, path: &Path, key: KeyId) -> Result<u32, CounterError> {
    let bytes = match disk.read(path, FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(CounterError::Missing { path: path.to_owned(), key });
        }
        Err(e) if e.kind() == io::ErrorKind::FileTooLarge => {
            return Err(CounterError::Corrupt { path: path.to_owned(), key });
        }
        Err(source) => return Err(CounterError::Unreadable { path: path.to_owned(), source }),
    };
    parse(&bytes, key).ok_or(CounterError::Corrupt { path: path.to_owned(), key })
}

fn line(key: KeyId, epoch: u32) -> String {
    let text = format!("plimsoll-epoch 1 {key} {epoch} ");
    let crc = crc32c::crc32c(text.as_bytes());
    format!("{text}{crc:08x}\n")
}

/// Whatever parses is written again and compared, so a counter has one form.
fn parse(bytes: &[u8], key: KeyId) -> Option<u32> {
    let text = std::str::from_utf8(bytes).ok()?;
    let epoch = text.split(' ').nth(3)?.parse().ok()?;
    (text == line(key, epoch)).then_some(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk::{Cut, SimDisk, SyncMode};
    use std::collections::BTreeMap;

    const DIR: &str = "/d";

    fn key(n: u8) -> KeyId {
        KeyId([n; 32])
    }

    fn fresh(seed: u64) -> SimDisk {
        let disk = SimDisk::new(seed);
        disk.create_dir_all(Path::new(DIR)).unwrap();
        disk
    }

    fn begin(disk: &SimDisk) -> Result<Counters, CounterError> {
        Counters::begin(disk, Path::new(DIR), key(1), None)
    }

    #[test]
    fn each_start_begins_an_epoch_and_counts_from_zero() {
        let disk = fresh(1);
        Counters::create(&disk, Path::new(DIR), key(1)).unwrap();
        for epoch in 1..4 {
            let mut counters = begin(&disk).unwrap();
            assert_eq!(counters.take(), Counter { epoch, sequence: 0 });
            assert_eq!(counters.take(), Counter { epoch, sequence: 1 });
        }
    }

    #[test]
    fn a_key_that_is_taken_for_new_keeps_the_counter_that_it_has() {
        let disk = fresh(1);
        Counters::create(&disk, Path::new(DIR), key(1)).unwrap();
        assert_eq!(begin(&disk).unwrap().epoch(), 1);
        Counters::create(&disk, Path::new(DIR), key(1)).unwrap();
        assert_eq!(begin(&disk).unwrap().epoch(), 2);
    }

    /// Each case starts from a counter that is accepted and changes one thing.
    #[test]
    fn a_counter_that_cannot_be_trusted_retires_its_key() {
        let path = path(Path::new(DIR), key(1));
        type Change = Box<dyn Fn(&SimDisk)>;
        let put = |text: String| -> Change {
            let path = path.clone();
            Box::new(move |disk| disk::replace(disk, &path, text.as_bytes()).unwrap())
        };
        let good = line(key(1), 7);
        let cases: Vec<(&str, Change, &str)> = vec![
            (
                "removed",
                Box::new(|d| Counters::remove(d, Path::new(DIR), key(1)).unwrap()),
                "Missing",
            ),
            ("emptied", put(String::new()), "Corrupt"),
            ("another key's", put(line(key(2), 7)), "Corrupt"),
            ("one digit changed", put(good.replace(" 7 ", " 6 ")), "Corrupt"),
            ("leading zero", put(good.replace(" 7 ", " 07 ")), "Corrupt"),
            ("cut short", put(good[..good.len() - 1].to_owned()), "Corrupt"),
            ("grown", put(format!("{good}{}", "x".repeat(200))), "Corrupt"),
            ("version 2", put(good.replace("epoch 1", "epoch 2")), "Corrupt"),
            ("used up", put(line(key(1), u32::MAX)), "UsedUp"),
        ];
        for (what, change, expected) in cases {
            let disk = fresh(1);
            disk::replace(&disk, &path, good.as_bytes()).unwrap();
            assert_eq!(begin(&disk).unwrap().epoch(), 8, "the case starts from a good counter");
            change(&disk);
            let error = begin(&disk).unwrap_err();
            assert!(format!("{error:?}").starts_with(expected), "{what}: {error:?}");
            assert!(error.retires_key(), "{what}");
        }
    }

    #[test]
    fn a_counter_behind_the_backlog_retires_its_key() {
        let disk = fresh(1);
        Counters::create(&disk, Path::new(DIR), key(1)).unwrap();
        let durable = Some(Counter { epoch: 1, sequence: 9 });
        let error = Counters::begin(&disk, Path::new(DIR), key(1), durable).unwrap_err();
        assert!(
            matches!(error, CounterError::Behind { file: 0, durable: 1, .. })
                && error.retires_key()
        );
    }

    #[test]
    fn a_full_disk_does_not_retire_the_key() {
        let disk = fresh(1);
        Counters::create(&disk, Path::new(DIR), key(1)).unwrap();
        disk.set_capacity(0);
        assert!(!begin(&disk).unwrap_err().retires_key());
        disk.set_capacity(u64::MAX);
        assert_eq!(begin(&disk).unwrap().epoch(), 1);
    }

    /// INV-REPLAY-2, attacked: starts whose power is cut at every write, again and again. Returns how many points, and
    /// whether an epoch was ever given out twice.
    fn cut_every_start(seed: u64, mode: SyncMode) -> (u64, bool) {
        let mut points = 0;
        let mut twice = false;
        for first_cut in 0..64 {
            let disk = fresh(seed + first_cut);
            Counters::create(&disk, Path::new(DIR), key(1)).unwrap();
            disk.set_sync_mode(mode);
            let mut given: BTreeMap<u32, u32> = BTreeMap::new();
            for start in 0..12 {
                disk.set_cut(Cut::At((first_cut + start) % 8));
                match begin(&disk) {
                    Ok(counters) => *given.entry(counters.epoch()).or_default() += 1,
                    Err(e) if e.retires_key() && disk.is_on() => break,
                    Err(_) => {}
                }
                disk.cut_now();
                disk.reboot();
                points += 1;
            }
            twice |= given.values().any(|n| *n > 1);
        }
        (points, twice)
    }

    #[test]
    fn no_epoch_is_given_out_twice_wherever_the_power_is_cut() {
        let (points, twice) = cut_every_start(42, SyncMode::Honest);
        println!("counter: {points} cuts, seed 42");
        assert!(!twice);
    }

    #[test]
    fn a_sync_that_does_nothing_is_found_out() {
        let (_, twice) = cut_every_start(42, SyncMode::Lies);
        assert!(twice, "the test above would pass with a disk that loses what it promised to keep");
    }
}
