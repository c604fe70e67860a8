//! The fleet in memory: what the registry holds, in the form in which requests ask for it.
//!
//! A directory never changes. A change makes the next one, which shares all that stayed as it was, so that a request
//! sees one state from its beginning to its end and the hot path does no SQL. The registry writes first: a directory
//! shows nothing that is not durable. Making the next one copies its tables of pointers: a change costs time in
//! proportion to the fleet (some 10 ms at 100,000 devices), a request does not.

use api::{FleetDevice, FleetKey, Purpose, Role, Standing};
use model::{DeviceId, Digest, GroupId, KeyId, Timestamp, ZoneId};
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;
use trust::cose::PublicKey;

/// A key that the site certified.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    pub purpose: Purpose,
    pub public: PublicKey,
    /// The COSE thumbprint: how messages name a sealing key.
    pub id: KeyId,
    pub spki: Vec<u8>,
    /// SHA-256 of `spki`: how bundles name a TLS key.
    pub spki_sha256: Digest,
    pub created_at: Timestamp,
    /// When its newest certificate ends.
    pub not_after: Timestamp,
    /// When another key took its place, or it was taken away.
    pub retired_at: Option<Timestamp>,
    /// When it was taken away: from then on it counts for nothing that is done now, whatever grace a retired key has. What
    /// it sealed before is believed still.
    pub ended_at: Option<Timestamp>,
}

impl Key {
    /// How people and other systems name it.
    pub fn shown_id(&self) -> String {
        match self.purpose {
            Purpose::Tls => self.spki_sha256.to_string(),
            Purpose::Seal => self.id.to_string(),
        }
    }

    /// Until when it counts as if it were the present one. `None`: it is.
    pub fn until(&self, grace: Duration) -> Option<Timestamp> {
        let grace_us = i64::try_from(grace.as_micros()).unwrap_or(i64::MAX);
        let graced = self.retired_at.map(|at| Timestamp(at.as_us().saturating_add(grace_us)));
        graced.map(|graced| self.ended_at.map_or(graced, |ended| ended.min(graced)))
    }

    /// Whether it is the present one, or was less than `grace` ago.
    pub fn is_live(&self, grace: Duration, now: Timestamp) -> bool {
        self.until(grace).is_none_or(|until| now < until)
    }
}

/// The group of a device that nobody gave another.
pub fn default_group() -> GroupId {
    GroupId::new(api::device::GROUP_DEFAULT).expect("it is a name")
}

/// A device or gateway with every key that it ever had.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    pub id: DeviceId,
    pub serial: String,
    pub role: Role,
    pub zone: ZoneId,
    pub group: GroupId,
    /// Since when it is of that group: who joins a cohort by it joins then.
    pub grouped_at: Timestamp,
    pub standing: Standing,
    pub listed_at: Timestamp,
    pub enrolled_at: Option<Timestamp>,
    pub changed_at: Timestamp,
    /// Oldest first.
    pub keys: Vec<Arc<Key>>,
}

impl Device {
    pub fn keys_for(&self, purpose: Purpose) -> impl Iterator<Item = &Arc<Key>> {
        self.keys.iter().filter(move |key| key.purpose == purpose)
    }

    /// This device with a certificate for `key`: a new key takes the place of the one that it has for this purpose, which
    /// is retired; a key that it has already gets a longer life. A listed device is enrolled by it; how another stands
    /// does not change.
    pub fn with_key(&self, key: Key, now: Timestamp) -> Self {
        let mut next = self.clone();
        if next.standing == Standing::Listed {
            next.standing = Standing::Enrolled;
            next.changed_at = now;
        }
        next.enrolled_at.get_or_insert(now);
        if let Some(same) = next.keys.iter_mut().find(|k| k.spki_sha256 == key.spki_sha256) {
            *same = Arc::new(Key { created_at: same.created_at, ..key });
            return next;
        }
        for old in next.keys.iter_mut() {
            if old.purpose == key.purpose && old.retired_at.is_none() {
                *old = Arc::new(Key { retired_at: Some(now), ..Key::clone(old) });
            }
        }
        next.keys.push(Arc::new(key));
        next
    }

    /// This device without a key that it could show: it has to enrol anew, by its birth certificate. How it stands does not
    /// change.
    pub fn without_keys(&self, now: Timestamp) -> Self {
        let mut next = self.clone();
        for key in &mut next.keys {
            if key.ended_at.is_none() {
                let retired_at = Some(key.retired_at.unwrap_or(now));
                *key = Arc::new(Key { retired_at, ended_at: Some(now), ..Key::clone(key) });
            }
        }
        next
    }

    pub fn shown(&self) -> FleetDevice {
        let ms = |time: Timestamp| time.as_us().div_euclid(1000);
        FleetDevice {
            id: self.id.to_string(),
            serial: self.serial.clone(),
            role: self.role,
            zone: self.zone.to_string(),
            standing: self.standing,
            listed_at_ms: ms(self.listed_at),
            enrolled_at_ms: self.enrolled_at.map(ms),
            changed_at_ms: ms(self.changed_at),
            keys: self
                .keys
                .iter()
                .map(|key| FleetKey {
                    id: key.shown_id(),
                    purpose: key.purpose,
                    created_at_ms: ms(key.created_at),
                    not_after_ms: ms(key.not_after),
                    retired_at_ms: key.retired_at.map(ms),
                })
                .collect(),
        }
    }
}

/// Everything that the registry holds, at one generation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Directory {
    generation: u64,
    devices: BTreeMap<DeviceId, Arc<Device>>,
    serials: HashMap<String, Arc<Device>>,
    /// Which device a key is of, for keys of either purpose.
    by_spki: HashMap<Digest, Arc<Device>>,
    by_id: HashMap<KeyId, Arc<Device>>,
}

impl Directory {
    pub fn new(generation: u64, devices: impl IntoIterator<Item = Device>) -> Self {
        let mut directory = Self { generation, ..Self::default() };
        devices.into_iter().for_each(|device| directory.put(device));
        directory
    }

    /// The next directory: `device` is new, or takes the place of what was there under its id.
    pub fn with(&self, generation: u64, device: Device) -> Self {
        let mut next = self.clone();
        next.generation = generation;
        next.put(device);
        next
    }

    /// The same devices at a later generation: something else that bundles carry has changed.
    pub fn at(&self, generation: u64) -> Self {
        Self { generation, ..self.clone() }
    }

    fn put(&mut self, device: Device) {
        let device = Arc::new(device);
        for key in &device.keys {
            self.by_spki.insert(key.spki_sha256, device.clone());
            self.by_id.insert(key.id, device.clone());
        }
        self.serials.insert(device.serial.clone(), device.clone());
        self.devices.insert(device.id.clone(), device);
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn device(&self, id: &DeviceId) -> Option<&Arc<Device>> {
        self.devices.get(id)
    }

    pub fn by_serial(&self, serial: &str) -> Option<&Arc<Device>> {
        self.serials.get(serial)
    }

    /// A key by its SubjectPublicKeyInfo, whatever its purpose.
    pub fn key_by_spki(&self, spki_sha256: &Digest) -> Option<(&Arc<Device>, &Arc<Key>)> {
        let device = self.by_spki.get(spki_sha256)?;
        let key = device.keys.iter().find(|key| key.spki_sha256 == *spki_sha256)?;
        Some((device, key))
    }

    /// A sealing key by its thumbprint. A TLS key has a thumbprint too, and is none (INV-PURP-1).
    pub fn seal_key(&self, id: &KeyId) -> Option<(&Arc<Device>, &Arc<Key>)> {
        let device = self.by_id.get(id)?;
        let key = device.keys_for(Purpose::Seal).find(|key| key.id == *id)?;
        Some((device, key))
    }

    /// All devices, sorted by id, after the given one.
    pub fn devices(&self, after: Option<&DeviceId>) -> impl Iterator<Item = &Arc<Device>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.devices.range::<DeviceId, _>((from, Bound::Unbounded)).map(|(_, device)| device)
    }

    pub fn len(&self) -> usize {
        self.devices.len()
    }

    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }
}

/// Where a device's standing would have to go, and no edge is drawn (INV-STATE-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("standing cannot go from {} to {}: expected {expected}", from.as_str(), to.as_str())]
pub struct NotDrawn {
    pub from: Standing,
    pub to: Standing,
    pub expected: &'static str,
}

/// Whether standing moves when it is told to go to `to` (INV-STATE-1).
///
/// ```text
/// listed → enrolled ⇄ quarantined → revoked
///    └────────┴────────────┴───────▶ decommissioned
/// ```
///
/// To be where one is told to go is no move and no error, so that a call whose answer was lost can be made again.
/// Revoking is one call from `enrolled` too: both edges, in one step.
pub fn moves(from: Standing, to: Standing) -> Result<bool, NotDrawn> {
    use Standing::{Decommissioned, Enrolled, Listed, Quarantined, Revoked};
    let expected = match (from, to) {
        _ if from == to => return Ok(false),
        (Listed | Quarantined, Enrolled) | (Enrolled, Quarantined) => return Ok(true),
        (Enrolled | Quarantined, Revoked) => return Ok(true),
        (Listed | Enrolled | Quarantined, Decommissioned) => return Ok(true),
        (_, Listed) => "nothing: it is where standing begins",
        (_, Enrolled) => "listed or quarantined",
        (_, Quarantined) => "enrolled",
        (_, Revoked) => "enrolled or quarantined",
        (_, Decommissioned) => "listed, enrolled or quarantined",
    };
    Err(NotDrawn { from, to, expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// INV-STATE-1: the whole table of moves.
    #[test]
    fn standing_moves_along_drawn_edges_only() {
        use Standing::{Decommissioned, Enrolled, Listed, Quarantined, Revoked};
        let drawn = [
            (Listed, Enrolled),
            (Enrolled, Quarantined),
            (Quarantined, Enrolled),
            (Enrolled, Revoked),
            (Quarantined, Revoked),
            (Listed, Decommissioned),
            (Enrolled, Decommissioned),
            (Quarantined, Decommissioned),
        ];
        let all = Standing::ALL;
        for (from, to) in all.into_iter().flat_map(|from| all.map(|to| (from, to))) {
            let moved = moves(from, to);
            if from == to {
                assert_eq!(moved, Ok(false));
            } else if drawn.contains(&(from, to)) {
                assert_eq!(moved, Ok(true), "{from:?} to {to:?}");
            } else {
                let refused = moved.expect_err("no edge is drawn");
                assert_eq!((refused.from, refused.to), (from, to));
            }
        }
        assert_eq!(
            moves(Revoked, Enrolled).unwrap_err().to_string(),
            "standing cannot go from revoked to enrolled: expected listed or quarantined"
        );
    }
}
