//! What a shard remembers: *taken* of each key of each device, and the object that keeps it between two commits.
//!
//! A key's memory belongs to a device. A message may name other keys (`prior`, and the ranges of a loss notice), and a
//! device that lies about those can only lie about itself: the memory of another device under the same key is another
//! one. Such a key may be one of which nothing has come yet; a device that names ever new ones is remembered
//! `NAMED_KEYS_MAX` of them (INV-COST-1), and those beyond are counted.
//!
//! ```text
//! object = "PLIMTAKN" | version u32 = 1 | crc u32 | body       little endian; CRC-32C of the magic, the version and the body
//! body   = [shard, offset, [ *device ]]                         CBOR; offset: of the first record that is not in it
//! device = [name, [ *[key: bstr 32, taken: bstr] ]]             taken: drawn in trust/taken.rs
//! ```
//!
//! `docs/formats/store-memory.md` has golden bytes.

use minicbor::{Decoder, Encoder};
use model::cbor::{Malformed, Reason, array_of, array_up_to, at_end, expect};
use model::{Counter, DeviceId, Digest, Header, KeyId};
use std::collections::BTreeMap;
use std::convert::Infallible;
use trust::taken::{Admission, Taken};

/// The most keys of a device that are remembered because another message named them. A device that turns its key every
/// day names the last one each time, and that one is known already.
pub const NAMED_KEYS_MAX: usize = 64;

/// The longest object that is read back, and so the longest that is written: half a million keys.
pub const OBJECT_BYTES_MAX: u64 = 1 << 30;

const MAGIC: [u8; 8] = *b"PLIMTAKN";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 16;

/// *Taken* of all keys of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    devices: BTreeMap<DeviceId, BTreeMap<KeyId, Taken>>,
}

impl Memory {
    /// Judges a message of a key that uplink knows to be the device's.
    pub fn admit(&mut self, device: &DeviceId, header: &Header, digest: &Digest) -> Admission {
        let same_key = header.prior.filter(|prior| prior.key == header.key);
        let keys = match self.devices.get_mut(device) {
            Some(keys) => keys,
            None => self.devices.entry(device.clone()).or_default(),
        };
        let taken = keys.entry(header.key).or_default();
        taken.admit(header.counter, digest, same_key.map(|prior| prior.counter))
    }

    /// The device named the last counter of another key of its own. False: the key is one too many to remember.
    pub fn end_epoch(&mut self, device: &DeviceId, key: KeyId, last: Counter) -> bool {
        self.named(device, key).map(|taken| taken.end_epoch(last)).is_some()
    }

    /// The device stated that a range of its own will not come. False: the key is one too many to remember.
    pub fn close(
        &mut self,
        device: &DeviceId,
        key: KeyId,
        epoch: u32,
        first: u64,
        last: u64,
    ) -> bool {
        self.named(device, key).map(|taken| taken.close(epoch, first, last)).is_some()
    }

    fn named(&mut self, device: &DeviceId, key: KeyId) -> Option<&mut Taken> {
        let keys = self.devices.entry(device.clone()).or_default();
        if keys.len() >= NAMED_KEYS_MAX && !keys.contains_key(&key) {
            return None;
        }
        Some(keys.entry(key).or_default())
    }

    pub fn taken(&self, device: &DeviceId, key: &KeyId) -> Option<&Taken> {
        self.devices.get(device)?.get(key)
    }

    /// The ranges of counters that are missing and may still come.
    pub fn gaps(&self) -> impl Iterator<Item = Gap<'_>> {
        let keys = self
            .devices
            .iter()
            .flat_map(|(device, keys)| keys.iter().map(move |(key, taken)| (device, key, taken)));
        keys.flat_map(|(device, key, taken)| {
            let gap = move |(epoch, first, last)| Gap { device, key: *key, epoch, first, last };
            taken.open_gaps().into_iter().map(gap)
        })
    }

    /// The whole object, for the offset up to which this memory reaches.
    pub fn encode(&self, shard: u32, offset: u64) -> Vec<u8> {
        let keys: usize = self.devices.values().map(BTreeMap::len).sum();
        let mut out = Vec::with_capacity(HEAD_BYTES + 64 + keys * 2048);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let mut e = Encoder::new(&mut out);
        let written: Result<(), minicbor::encode::Error<Infallible>> = (|| {
            e.array(3)?.u32(shard)?.u64(offset)?.array(self.devices.len() as u64)?;
            for (device, keys) in &self.devices {
                e.array(2)?.str(device.as_str())?.array(keys.len() as u64)?;
                for (key, taken) in keys {
                    e.array(2)?.bytes(key.as_bytes())?.bytes(&taken.encode())?;
                }
            }
            Ok(())
        })();
        written.expect("writing to a Vec cannot fail");
        let crc = crc(&out);
        out[12..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads what [`Memory::encode`] wrote for this shard and offset, and nothing else: a memory that was damaged must
    /// not admit anything.
    pub fn decode(bytes: &[u8], shard: u32, offset: u64) -> Result<Self, BadMemory> {
        let bad = |expected: &str, found: String| BadMemory { expected: expected.into(), found };
        if bytes.len() < HEAD_BYTES || bytes[..8] != MAGIC {
            return Err(bad("the magic bytes `PLIMTAKN`", format!("{} other bytes", bytes.len())));
        }
        let u32_at =
            |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        if u32_at(8) != VERSION {
            return Err(bad("format version 1", format!("version {}", u32_at(8))));
        }
        if u32_at(12) != crc(bytes) {
            return Err(bad("bytes that their CRC-32C fits", format!("{} bytes", bytes.len())));
        }
        let (found_shard, found_offset, memory) =
            decode_body(&bytes[HEAD_BYTES..]).map_err(|e| bad("a memory", e.to_string()))?;
        if (found_shard, found_offset) != (shard, offset) {
            let expected = format!("shard {shard} at offset {offset}");
            return Err(bad(&expected, format!("shard {found_shard} at offset {found_offset}")));
        }
        Ok(memory)
    }
}

/// Counters `first ..= last` of an epoch that the device must have used, and of which nothing has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap<'a> {
    pub device: &'a DeviceId,
    pub key: KeyId,
    pub epoch: u32,
    pub first: u64,
    pub last: u64,
}

/// Why bytes are not the memory that they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadMemory {
    pub expected: String,
    pub found: String,
}

fn crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[HEAD_BYTES..])
}

fn decode_body(bytes: &[u8]) -> Result<(u32, u64, Memory), Malformed> {
    const ASCENDING: Malformed =
        Malformed::new(Reason::NotDeterministic, "devices and keys in ascending order");
    let mut d = Decoder::new(bytes);
    array_of(&mut d, 3, "[shard, offset, devices]")?;
    let shard = expect(d.u32(), "the number of a shard")?;
    let offset = expect(d.u64(), "an offset")?;
    let mut devices = BTreeMap::new();
    for _ in 0..array_up_to(&mut d, bytes.len(), "devices")? {
        array_of(&mut d, 2, "[device, keys]")?;
        let device = DeviceId::new(expect(d.str(), "a device id")?)
            .map_err(|_| Malformed::new(Reason::OutOfDomain, "a device id"))?;
        let mut keys = BTreeMap::new();
        for _ in 0..array_up_to(&mut d, bytes.len(), "keys")? {
            array_of(&mut d, 2, "[key, taken]")?;
            let key = KeyId::try_from(expect(d.bytes(), "a key thumbprint")?)
                .map_err(|_| Malformed::new(Reason::OutOfDomain, "a key thumbprint of 32 bytes"))?;
            let taken = Taken::decode(expect(d.bytes(), "the memory of a key")?)?;
            if keys.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(ASCENDING);
            }
            keys.insert(key, taken);
        }
        if devices.last_key_value().is_some_and(|(last, _)| *last >= device) {
            return Err(ASCENDING);
        }
        devices.insert(device, keys);
    }
    at_end(&d)?;
    Ok((shard, offset, Memory { devices }))
}
