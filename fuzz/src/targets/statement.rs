//! What a site says to a zone, and a device of itself: lease and manifest, behind their seals.

use super::{End, depth, key, sealed};
use model::lease::Lease;
use model::manifest::{
    Boot, Component, InstallEnd, Installed, Manifest, Outcome, REASON_BYTES_MAX, Slot, Trusted,
};
use model::{DeviceId, Digest, HardwareId, Kind, ProductId, RolloutId, SecurityVersion, Timestamp};
use model::{Version, ZoneId};
use trust::cose::Signer;
use trust::lease::Leases;

/// The payload, and then the whole message under a key that may sign leases.
pub fn lease(bytes: &[u8]) -> End {
    let lease = match Lease::decode(bytes) {
        Ok(lease) => lease,
        Err(malformed) => return End::refused(depth(&malformed), malformed),
    };
    assert_eq!(lease.encode(), bytes, "a lease has one form");
    let mut leases = Leases::new(lease.zone.clone(), vec![key().public().clone()]);
    let message = sealed(Kind::Lease, (1, 1), bytes);
    let refused = leases.take(&message, 1000, lease.issued);
    // Whatever it says, a holder's own clock goes on.
    assert!(leases.remaining_ms(1000) <= trust::lease::LEASE_MS_MAX);
    assert_eq!(leases.remaining_ms(999), 0);
    assert_eq!(leases.remaining_ms(u64::MAX), 0);
    match refused {
        Ok(_) => {
            let kept = leases.export(2000).expect("it is held");
            let again = Leases::import(lease.zone, vec![key().public().clone()], kept, 5000);
            let again = again.expect("what was taken comes back");
            assert!(again.remaining_ms(5000) <= leases.remaining_ms(2000));
            End::accepted(3)
        }
        Err(refused) => End::refused(2, refused.label()),
    }
}

pub fn leases() -> Vec<Vec<u8>> {
    let rollout = |name: &str| RolloutId::new(name).expect("a good name");
    let lease = Lease {
        zone: ZoneId::new("hall").expect("a good name"),
        number: 41,
        issued: Timestamp(1_800_000_000_000_000),
        not_after: Timestamp(1_800_000_900_000_000),
        policy: 12,
        revocation: 3,
        halted: vec![rollout("r-1"), rollout("r-2"), rollout("r-3")],
    };
    vec![lease.encode(), Lease { halted: vec![], ..lease }.encode()]
}

pub fn manifest(bytes: &[u8]) -> End {
    let manifest = match Manifest::decode(bytes) {
        Ok(manifest) => manifest,
        Err(malformed) => return End::refused(depth(&malformed), malformed),
    };
    let again = Manifest::decode(&manifest.encode());
    assert_eq!(again.as_ref(), Ok(&manifest), "a manifest keeps its meaning");
    // The running slot of each is never empty: this would panic.
    manifest.components.iter().for_each(|component| _ = component.running_image());
    let message = sealed(Kind::Manifest, (1, 1), &manifest.encode());
    let opened = trust::manifest::open(&message, key().public(), &manifest.device);
    assert_eq!(opened.map(|(_, read)| read), Ok(manifest));
    End::accepted(2)
}

pub fn manifests() -> Vec<Vec<u8>> {
    let installed = |minor: u32| Installed {
        version: Version::new(1, minor, 0),
        digest: Digest([minor as u8; 32]),
        length: 5_000_000,
        security_version: SecurityVersion(3),
    };
    let product = |name: &str| ProductId::new(name).expect("a good name");
    let component = |name: &str, running, slots| Component {
        product: product(name),
        hardware: HardwareId::new("pump-box").expect("a good name"),
        floor: SecurityVersion(2),
        running,
        boot: Boot::Trial,
        slots,
    };
    let manifest = Manifest {
        device: DeviceId::new("pump-1").expect("a good name"),
        components: vec![
            component("pump-app", Slot::A, [Some(installed(1)), Some(installed(2))]),
            component("agent", Slot::B, [None, Some(installed(7))]),
        ],
        director: Trusted { root: 1, timestamp: 41, snapshot: 41, targets: 41 },
        images: Trusted { root: 2, timestamp: 7, snapshot: 6, targets: 5 },
        outcome: Some(Outcome {
            rollout: Some(RolloutId::new("r-12").expect("a good name")),
            product: product("pump-app"),
            digest: Digest([2; 32]),
            end: InstallEnd::Reverted,
            reason: "x".repeat(REASON_BYTES_MAX),
        }),
    };
    let bare = Manifest { components: vec![], outcome: None, ..manifest.clone() };
    vec![manifest.encode(), bare.encode()]
}
