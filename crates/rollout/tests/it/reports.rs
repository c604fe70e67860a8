//! What a signed manifest says to a rollout.

use crate::site::{NEW, OLD, draft};
use model::manifest::{Boot, Component, InstallEnd, Installed, Manifest, Outcome, Slot, Trusted};
use model::{DeviceId, Digest, HardwareId, ProductId, RolloutId, SecurityVersion, Version};
use rollout::{Plan, Report};

fn manifest(running: Digest, boot: Boot) -> Manifest {
    let image = |digest| Installed {
        version: Version::new(1, 0, 0),
        digest,
        length: 5,
        security_version: SecurityVersion(1),
    };
    Manifest {
        device: DeviceId::new("pump-1").unwrap(),
        components: vec![Component {
            product: ProductId::new("pump-app").unwrap(),
            hardware: HardwareId::new("pump-box").unwrap(),
            floor: SecurityVersion(1),
            running: Slot::B,
            boot,
            slots: [Some(image(Digest([9; 32]))), Some(image(running))],
        }],
        director: Trusted::default(),
        images: Trusted::default(),
        outcome: None,
    }
}

fn outcome(rollout: Option<&str>, product: &str, end: InstallEnd) -> Option<Outcome> {
    Some(Outcome {
        rollout: rollout.map(|id| RolloutId::new(id).unwrap()),
        product: ProductId::new(product).unwrap(),
        digest: NEW,
        end,
        reason: String::new(),
    })
}

#[test]
fn what_runs_counts_when_it_is_not_on_trial() {
    let plan = Plan::new(draft()).unwrap();
    for (boot, confirmed) in [
        (Boot::Confirmed, true),
        (Boot::Trial, false),
        (Boot::Reverted, true),
        (Boot::Fallback, true),
    ] {
        let report = Report::of(&plan, &manifest(NEW, boot), 7);
        let expected = Report { number: 7, running: NEW, confirmed, failed: false };
        assert_eq!(report, Some(expected), "{boot:?}");
    }
    let mut other = manifest(NEW, Boot::Confirmed);
    other.components[0].product = ProductId::new("valve-app").unwrap();
    assert_eq!(Report::of(&plan, &other, 7), None, "another product is no part of it");
}

#[test]
fn only_a_bad_end_of_this_rollouts_own_install_is_its_failure() {
    use InstallEnd::{Confirmed, Failed, Reverted, Underway};
    let plan = Plan::new(draft()).unwrap();
    let check = |running, outcome: Option<Outcome>, failed: bool| {
        let manifest = Manifest { outcome: outcome.clone(), ..manifest(running, Boot::Confirmed) };
        let report = Report::of(&plan, &manifest, 1).unwrap();
        assert_eq!(report.failed, failed, "{running}: {outcome:?}");
    };
    for (end, failed) in [(Confirmed, false), (Underway, false), (Reverted, true), (Failed, true)] {
        check(OLD, outcome(Some("r-1"), "pump-app", end), failed);
        // The way back has no rollout's id.
        check(NEW, outcome(None, "pump-app", end), failed);
    }
    check(OLD, None, false);
    check(OLD, outcome(Some("r-2"), "pump-app", Failed), false);
    check(OLD, outcome(None, "pump-app", Failed), false);
    check(OLD, outcome(Some("r-1"), "valve-app", Failed), false);
}
