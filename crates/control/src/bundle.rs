//! What a gateway is told: its own zone's devices with the keys that count now, and the policies.

use crate::directory::{Device, Directory, Key};
use api::{Bundle, BundleDevice, BundleKey, Purpose, Role, Standing};
use model::Timestamp;
use std::time::Duration;

/// For how long a key that another has replaced stays good at gateways.
#[derive(Clone, Copy, Debug)]
pub struct Grace {
    /// A sealing key: messages that it sealed may wait in the device's backlog.
    pub seal: Duration,
    /// A TLS key: the answer with the new certificate may have been lost on its way.
    pub tls: Duration,
}

/// Compiles the bundle of one gateway. Devices that are listed and were never seen are left out: they have no keys.
pub fn compile(
    directory: &Directory,
    gateway: &Device,
    site: &str,
    policies: &str,
    grace: Grace,
    now: Timestamp,
) -> Bundle {
    let of_zone = |device: &&std::sync::Arc<Device>| {
        device.zone == gateway.zone
            && device.role == Role::Device
            && device.standing != Standing::Listed
    };
    Bundle {
        format: 1,
        site: site.to_owned(),
        generation: directory.generation(),
        gateway: gateway.id.to_string(),
        zone: gateway.zone.to_string(),
        devices: directory
            .devices(None)
            .filter(of_zone)
            .map(|device| entry(device, grace, now))
            .collect(),
        policies: policies.to_owned(),
    }
}

/// A device that is quarantined or revoked keeps its keys here, so that a gateway can say who it refuses, and why.
fn entry(device: &Device, grace: Grace, now: Timestamp) -> BundleDevice {
    let live = |purpose, grace| {
        device.keys_for(purpose).filter(move |key: &&std::sync::Arc<Key>| key.is_live(grace, now))
    };
    BundleDevice {
        id: device.id.to_string(),
        zone: device.zone.to_string(),
        standing: device.standing,
        tls_keys: live(Purpose::Tls, grace.tls).map(|key| key.spki_sha256.to_string()).collect(),
        seal_keys: live(Purpose::Seal, grace.seal)
            .map(|key| BundleKey { id: key.id.to_string(), spki: hex(&key.spki) })
            .collect(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ZoneId;
    use model::envelope::Algorithm;
    use trust::cose::{SecretKey, Signer as _};

    const DAY_US: i64 = 86_400_000_000;

    fn key(seed: u8, purpose: Purpose) -> Key {
        let secret = SecretKey::from_random(Algorithm::Ed25519, &[seed; 32]).expect("any bytes do");
        let public = secret.public().clone();
        let spki = public.to_spki_der();
        Key {
            purpose,
            id: public.id(),
            spki_sha256: trust::digest(&spki),
            public,
            spki,
            created_at: Timestamp(0),
            not_after: Timestamp(0),
            retired_at: None,
        }
    }

    fn device(id: &str, role: Role, zone: &str) -> Device {
        Device {
            id: keys::cert::device_id(id).unwrap(),
            serial: id.to_owned(),
            role,
            zone: ZoneId::new(zone).unwrap(),
            standing: Standing::Listed,
            listed_at: Timestamp(0),
            enrolled_at: None,
            changed_at: Timestamp(0),
            keys: Vec::new(),
        }
    }

    fn bundle(devices: Vec<Device>, now: Timestamp) -> Bundle {
        let gateway = device("gw-1", Role::Gateway, "hall");
        let grace =
            Grace { seal: Duration::from_secs(30 * 86_400), tls: Duration::from_secs(7 * 86_400) };
        let directory = Directory::new(4, devices.into_iter().chain([gateway.clone()]));
        compile(&directory, &gateway, "site", "permit (principal, action, resource);", grace, now)
    }

    #[test]
    fn a_gateway_is_told_of_its_own_zones_devices_only() {
        let now = Timestamp(0);
        let with_key =
            |id, zone, seed| device(id, Role::Device, zone).with_key(key(seed, Purpose::Tls), now);
        let mut gone = with_key("pump-3", "hall", 3);
        gone.standing = Standing::Revoked;
        let told = bundle(
            vec![
                with_key("pump-2", "hall", 2),
                with_key("pump-1", "hall", 1),
                gone,
                with_key("fan-1", "yard", 4),
                device("pump-4", Role::Device, "hall"),
            ],
            now,
        );
        let devices: Vec<_> = told.devices.iter().map(|d| (d.id.as_str(), d.standing)).collect();
        assert_eq!(
            devices,
            [
                ("pump-1", Standing::Enrolled),
                ("pump-2", Standing::Enrolled),
                ("pump-3", Standing::Revoked),
            ]
        );
        assert_eq!((told.format, told.generation, told.zone.as_str()), (1, 4, "hall"));
        assert_eq!(told.devices[0].tls_keys, [key(1, Purpose::Tls).spki_sha256.to_string()]);
    }

    /// What was sealed before a rotation is still on its way after it.
    #[test]
    fn a_replaced_key_stays_for_its_grace() {
        let start = Timestamp(0);
        let pump = [(1, Purpose::Seal), (2, Purpose::Tls), (3, Purpose::Seal), (4, Purpose::Tls)]
            .into_iter()
            .fold(device("pump-1", Role::Device, "hall"), |pump, (seed, purpose)| {
                pump.with_key(key(seed, purpose), start)
            });
        let counts = |day: i64| {
            let told = bundle(vec![pump.clone()], Timestamp(day * DAY_US));
            (told.devices[0].tls_keys.len(), told.devices[0].seal_keys.len())
        };
        assert_eq!(counts(0), (2, 2));
        assert_eq!(counts(6), (2, 2));
        assert_eq!(counts(7), (1, 2));
        assert_eq!(counts(29), (1, 2));
        assert_eq!(counts(30), (1, 1));
        let told = bundle(vec![pump.clone()], Timestamp(30 * DAY_US));
        assert_eq!(told.devices[0].seal_keys[0].id, key(3, Purpose::Seal).id.to_string());
        let spki: String =
            key(3, Purpose::Seal).spki.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(told.devices[0].seal_keys[0].spki, spki);
    }
}
