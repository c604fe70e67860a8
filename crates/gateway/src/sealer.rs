//! The gateway's own seal, under which it hands up what it admitted.
//!
//! Promises: the counter of its key never goes back (INV-REPLAY-2): the epoch grows at each start and is durable
//! before its first use. A key whose epoch cannot be read is never used again.
//! Never: seals anything but uplink batches (INV-PURP-1).
//!
//! ```text
//! seal.epoch = [1, key: bstr 32, epoch] | SHA-256 of that, 32 bytes
//! ```

use crate::kept::{self, KeptError, version};
use disk::Disk;
use minicbor::Decoder;
use model::cbor::{Malformed, Reason, array_of, at_end, expect};
use model::{Counter, Header, KeyId, Kind, Timestamp, WallClock};
use std::path::Path;
use std::sync::Arc;
use trust::cose::{self, SecretKey, SignError, Signer as _};

const EPOCH: &str = "seal.epoch";

/// Seals under one key, in one epoch.
#[derive(Debug)]
pub struct Sealer {
    key: Arc<SecretKey>,
    next: Counter,
}

/// What is known of the epoch of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epoch {
    /// This key's last epoch.
    Known(u32),
    /// The file names another key: this one is new.
    New,
    /// There is no file, or none that can be read: whether this key has sealed before is unknown.
    Lost,
}

/// Looks up the epoch of a key.
pub fn epoch(disk: &dyn Disk, dir: &Path, key: &KeyId) -> Result<Epoch, KeptError> {
    kept::settle(disk, dir)?;
    match kept::read(disk, &dir.join(EPOCH), decode) {
        Ok(Some((found, epoch))) if found == *key => Ok(Epoch::Known(epoch)),
        Ok(Some(_)) => Ok(Epoch::New),
        Ok(None) | Err(KeptError::Damaged { .. }) => Ok(Epoch::Lost),
        Err(error) => Err(error),
    }
}

impl Sealer {
    /// Begins an epoch above `last`, durably. `None`: the key has had all its epochs.
    pub fn begin(
        disk: &dyn Disk,
        dir: &Path,
        key: Arc<SecretKey>,
        last: Option<u32>,
    ) -> Result<Option<Self>, KeptError> {
        let Some(epoch) = last.map_or(Some(1), |last| last.checked_add(1)) else {
            return Ok(None);
        };
        kept::replace(disk, &dir.join(EPOCH), &encode(&key.public().id(), epoch))?;
        Ok(Some(Self { key, next: Counter { epoch, sequence: 0 } }))
    }

    /// The key that seals.
    pub fn key(&self) -> KeyId {
        self.key.public().id()
    }

    /// Seals a batch under the next counter.
    pub fn seal(
        &mut self,
        payload: &[u8],
        now: Timestamp,
        uptime_ms: u64,
    ) -> Result<Vec<u8>, SignError> {
        let header = Header {
            algorithm: self.key.public().algorithm(),
            kind: Kind::UplinkBatch,
            key: self.key.public().id(),
            counter: self.next,
            uptime_ms,
            wall: Some(WallClock { time: now, uncertainty_ms: u32::MAX }),
            heard: None,
            prior: None,
        };
        self.next.sequence += 1;
        cose::seal(&header, payload, &*self.key)
    }
}

fn encode(key: &KeyId, epoch: u32) -> Vec<u8> {
    kept::seal(|e| e.array(3)?.u8(1)?.bytes(key.as_bytes())?.u32(epoch).map(drop))
}

fn decode(bytes: &[u8]) -> Result<(KeyId, u32), Malformed> {
    let mut d = Decoder::new(bytes);
    array_of(&mut d, 3, "[1, key, epoch]")?;
    version(&mut d)?;
    let key = KeyId::try_from(expect(d.bytes(), "a key thumbprint")?)
        .map_err(|_| Malformed::new(Reason::OutOfDomain, "a key thumbprint of 32 bytes"))?;
    let epoch = expect(d.u32(), "an epoch")?;
    at_end(&d)?;
    Ok((key, epoch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk::{Cuts, SimDisk};
    use model::envelope::Algorithm;
    use std::collections::BTreeSet;

    const DIR: &str = "/gw";

    fn key(n: u8) -> Arc<SecretKey> {
        Arc::new(SecretKey::from_random(Algorithm::Ed25519, &[n; 32]).unwrap())
    }

    /// Starts and seals twice; returns the counters that left.
    fn start(disk: &SimDisk) -> Option<Vec<Counter>> {
        let dir = Path::new(DIR);
        disk.create_dir_all(dir).ok()?;
        let key = key(1);
        let last = match epoch(disk, dir, &key.public().id()).ok()? {
            Epoch::Known(last) => Some(last),
            // The first start of all: nothing was sealed before.
            Epoch::New | Epoch::Lost => None,
        };
        let mut sealer = Sealer::begin(disk, dir, key, last).ok()??;
        let sealed = (0..2).map(|_| sealer.seal(b"batch", Timestamp(0), 0).unwrap());
        let counter = |bytes: Vec<u8>| cose::open(&bytes, 1 << 16).unwrap().header().counter;
        Some(sealed.map(counter).collect())
    }

    /// INV-REPLAY-2: no counter comes twice or goes back, wherever a start is cut.
    #[test]
    fn the_counter_of_the_gateways_key_never_goes_back() {
        let workload = |disk: &SimDisk| -> Vec<Counter> {
            (0..4).map_while(|_| start(disk)).flatten().collect()
        };
        let check = |disk: &SimDisk, used: Vec<Counter>| {
            let next = start(disk).ok_or("it does not start again")?;
            let all: Vec<Counter> = used.iter().chain(&next).copied().collect();
            let distinct: BTreeSet<Counter> = all.iter().copied().collect();
            if all.is_sorted() && distinct.len() == all.len() {
                Ok(())
            } else {
                Err(format!("went back: {all:?}"))
            }
        };
        let recover = |disk: &SimDisk| drop(start(disk));
        Cuts::over(0..8).run(workload, check).holds("the gateway's epoch");
        // A start that was cut may have used its epoch up; the next one is above it all the same.
        Cuts::over(0..8)
            .recovering(&recover)
            .run(workload, check)
            .holds("the gateway's epoch, twice");
    }

    #[test]
    fn a_counter_that_cannot_be_read_is_told_from_a_new_key() {
        let (disk, dir) = (SimDisk::new(1), Path::new(DIR));
        disk.create_dir_all(dir).unwrap();
        let id = |n: u8| key(n).public().id();
        assert_eq!(epoch(&disk, dir, &id(1)).unwrap(), Epoch::Lost);
        Sealer::begin(&disk, dir, key(1), None).unwrap().unwrap();
        assert_eq!(epoch(&disk, dir, &id(1)).unwrap(), Epoch::Known(1));
        assert_eq!(epoch(&disk, dir, &id(2)).unwrap(), Epoch::New);
        let path = dir.join(EPOCH);
        let mut bytes = disk.read(&path, 999).unwrap();
        bytes[5] ^= 1;
        disk::replace(&disk, &path, &bytes).unwrap();
        assert_eq!(epoch(&disk, dir, &id(1)).unwrap(), Epoch::Lost);
        assert!(Sealer::begin(&disk, dir, key(1), Some(u32::MAX)).unwrap().is_none());
    }

    #[test]
    fn the_epoch_of_version_1_is_read_for_ever() {
        let text = include_str!("../../../docs/formats/golden/gateway-epoch-v1.hex");
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let bytes = encode(&KeyId([3; 32]), 258);
        assert_eq!(hex(&bytes), text.split_whitespace().collect::<String>());
        assert_eq!(kept::open(&bytes).and_then(decode), Ok((KeyId([3; 32]), 258)));
    }

    /// INV-PURP-1: what is sealed here is an uplink batch and nothing else.
    #[test]
    fn a_batch_verifies_under_its_own_kind() {
        let (disk, dir) = (SimDisk::new(1), Path::new(DIR));
        disk.create_dir_all(dir).unwrap();
        let mut sealer = Sealer::begin(&disk, dir, key(1), None).unwrap().unwrap();
        let bytes = sealer.seal(b"batch", Timestamp(5), 7).unwrap();
        let verified = cose::open(&bytes, 1 << 16).unwrap().verify(key(1).public()).unwrap();
        assert_eq!(
            (verified.header().kind, verified.payload()),
            (Kind::UplinkBatch, &b"batch"[..])
        );
    }
}
