//! What a gateway is told: its own zone's devices with the keys that count, and the policies.
//!
//! | key | is in the bundle |
//! | --- | --- |
//! | TLS, present | always |
//! | TLS, replaced | until its grace ends, with that time: a gateway that hears of no newer bundle must know it too |
//! | sealing, present or replaced | always: a backlog is in strict order, so one message that is refused for its key would hold up all behind it for ever, and nobody knows what a backlog still holds |
//! | any, of a revoked or decommissioned device | never |
//!
//! So that a device which makes key after key cannot make the bundle too long for its gateway, only its newest sealing
//! keys are in it, up to [`Keys::seal_max`]. What an older one sealed stays in the device's backlog (INV-COST-1).

use crate::directory::{Device, Directory, Key};
use api::{Bundle, BundleDevice, BundleKey, Purpose, Role, Standing};
use model::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// Which keys of a device a bundle has.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// For how long a TLS key that another has replaced may still connect.
    pub tls_grace: Duration,
    /// The most sealing keys of one device.
    pub seal_max: usize,
}

/// Compiles the bundle of one gateway. Devices that are listed and were never seen are left out: they have no keys.
pub fn compile(
    directory: &Directory,
    gateway: &Device,
    site: &str,
    policies: &str,
    keys: Keys,
    now: Timestamp,
) -> Bundle {
    let of_zone = |device: &&Arc<Device>| {
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
            .map(|device| entry(device, keys, now))
            .collect(),
        policies: policies.to_owned(),
    }
}

/// A device that is quarantined keeps its keys here, since it may come back. Of a revoked one the standing is enough for
/// a gateway to say whom it refuses, and why.
fn entry(device: &Device, keys: Keys, now: Timestamp) -> BundleDevice {
    let counts = !device.standing.has_ended();
    let tls = device.keys_for(Purpose::Tls).filter(|key| key.is_live(keys.tls_grace, now));
    let tls: Vec<_> = tls.filter(|_| counts).collect();
    let seal = device.keys_for(Purpose::Seal).skip(left_out(device, keys.seal_max));
    let until = |key: &&Arc<Key>| {
        let until = key.until(keys.tls_grace)?;
        Some((key.spki_sha256.to_string(), until.as_us().div_euclid(1000)))
    };
    BundleDevice {
        id: device.id.to_string(),
        zone: device.zone.to_string(),
        // Gateways that do not know the other word refuse it by this one.
        standing: if counts { device.standing } else { Standing::Revoked },
        tls_keys: tls.iter().map(|key| key.spki_sha256.to_string()).collect(),
        tls_keys_until_ms: tls.iter().filter_map(until).collect(),
        seal_keys: seal
            .filter(|_| counts)
            .map(|key| BundleKey { id: key.id.to_string(), spki: model::hex::encode(&key.spki) })
            .collect(),
    }
}

/// How many sealing keys of a device no bundle has, since it has had so many newer ones.
pub fn left_out(device: &Device, seal_max: usize) -> usize {
    device.keys_for(Purpose::Seal).count().saturating_sub(seal_max)
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
            ended_at: None,
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
            group: crate::directory::default_group(),
            grouped_at: Timestamp(0),
            keys: Vec::new(),
        }
    }

    fn bundle(devices: Vec<Device>, now: Timestamp) -> Bundle {
        let gateway = device("gw-1", Role::Gateway, "hall");
        let keys = Keys { tls_grace: Duration::from_secs(7 * 86_400), seal_max: 3 };
        let directory = Directory::new(4, devices.into_iter().chain([gateway.clone()]));
        compile(&directory, &gateway, "site", "permit (principal, action, resource);", keys, now)
    }

    /// What an old gateway could not read would keep it from its whole bundle.
    #[test]
    fn a_decommissioned_device_is_a_revoked_one_to_gateways() {
        let now = Timestamp(0);
        let pump = device("pump-1", Role::Device, "hall").with_key(key(1, Purpose::Tls), now);
        let gone = Device { standing: Standing::Decommissioned, ..pump };
        let told = bundle(vec![gone], now).devices.remove(0);
        assert_eq!((told.standing, told.tls_keys), (Standing::Revoked, vec![]));
    }

    /// A key's grace is for an answer that was lost. One that was taken away has none.
    #[test]
    fn a_device_that_is_to_enrol_anew_connects_by_none_of_its_keys_and_its_backlog_is_taken() {
        let pump = rotated(&[0, 2]);
        assert_eq!(told(&pump, 3).tls_keys.len(), 2, "the present one, and the one before");
        let pump = pump.without_keys(Timestamp(3 * DAY_US));
        let entry = told(&pump, 3);
        assert_eq!((entry.tls_keys, entry.standing), (vec![], Standing::Enrolled));
        assert_eq!(entry.seal_keys.len(), 2);
        let anew = pump.with_key(key(9, Purpose::Tls), Timestamp(3 * DAY_US));
        let keys = told(&anew, 3).tls_keys;
        assert_eq!(keys, [key(9, Purpose::Tls).spki_sha256.to_string()]);
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

    /// A device whose keys were replaced at these days: each time both, the newest being the present ones.
    fn rotated(days: &[i64]) -> Device {
        let start = device("pump-1", Role::Device, "hall");
        days.iter().zip(1..).fold(start, |pump, (day, n)| {
            let at = Timestamp(day * DAY_US);
            let pump = pump.with_key(key(2 * n, Purpose::Seal), at);
            pump.with_key(key(2 * n + 1, Purpose::Tls), at)
        })
    }

    fn told(pump: &Device, day: i64) -> BundleDevice {
        bundle(vec![pump.clone()], Timestamp(day * DAY_US)).devices.remove(0)
    }

    /// A gateway that does not know a key answers 0x87, and the device keeps the message and all that is behind it.
    #[test]
    fn what_any_key_of_a_device_sealed_is_admitted_however_late_it_comes() {
        let pump = rotated(&[0, 60, 120]);
        let all = [2, 4, 6].map(|n| key(n, Purpose::Seal).id.to_string());
        for day in [120, 150, 151, 5000] {
            let ids: Vec<_> = told(&pump, day).seal_keys.into_iter().map(|key| key.id).collect();
            assert_eq!(ids, all, "day {day}");
        }
        let hex: String =
            key(6, Purpose::Seal).spki.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(told(&pump, 120).seal_keys[2].spki, hex);
        let quarantined = Device { standing: Standing::Quarantined, ..pump };
        assert_eq!(told(&quarantined, 120).seal_keys.len(), 3, "it may come back");
    }

    /// INV-COST-1.
    #[test]
    fn of_a_device_that_makes_key_after_key_the_newest_stay() {
        let pump = rotated(&[0, 0, 1, 1, 2]);
        let ids: Vec<_> = told(&pump, 2).seal_keys.into_iter().map(|key| key.id).collect();
        assert_eq!(ids, [6, 8, 10].map(|n| key(n, Purpose::Seal).id.to_string()));
        assert_eq!(left_out(&pump, 3), 2);
        assert_eq!(left_out(&pump, 5), 0);
    }

    /// A gateway that is cut off, or hears of no change for years, must not go on with a key that leaked and was replaced.
    #[test]
    fn a_replaced_tls_key_is_told_with_the_time_at_which_it_ends() {
        let pump = rotated(&[0, 10]);
        let (old, new) = (key(3, Purpose::Tls).spki_sha256, key(5, Purpose::Tls).spki_sha256);
        for day in [10, 16] {
            let told = told(&pump, day);
            assert_eq!(told.tls_keys, [old.to_string(), new.to_string()], "day {day}");
            let until = [(old.to_string(), 17 * DAY_US / 1000)];
            assert_eq!(told.tls_keys_until_ms.into_iter().collect::<Vec<_>>(), until);
        }
        let told = told(&pump, 17);
        assert_eq!(told.tls_keys, [new.to_string()]);
        assert!(told.tls_keys_until_ms.is_empty());
    }

    #[test]
    fn a_revoked_device_has_no_keys_at_gateways() {
        let mut pump = rotated(&[0, 10]);
        pump.standing = Standing::Revoked;
        let told = told(&pump, 10);
        assert_eq!(
            (told.standing, told.tls_keys, told.seal_keys),
            (Standing::Revoked, vec![], vec![])
        );
    }
}
