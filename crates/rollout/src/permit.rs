//! The only row that a rollout has of a device.

use crate::Moment;
use crate::plan::Plan;
use crate::text;
use model::Digest;
use model::manifest::{Boot, InstallEnd, Manifest};
use serde::{Deserialize, Serialize};

/// The leave of one device to install one release, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permit {
    pub known: Known,
    /// What the device ran when it got its leave, and goes back to.
    #[serde(with = "text::digest")]
    pub was: Digest,
    /// The number of the report by which it last moved: an older one moves it no more.
    pub heard: u64,
}

/// What is known of a device with a permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Known {
    /// It may install. By `due` it is silent.
    Issued { due: Moment },
    /// It might have installed: nobody knows. It counts as a failure and stays within the bound.
    Silent,
    /// It runs the release, confirmed, by its own signed word.
    Proven,
    /// It ran the release before anybody gave leave. There is nothing to take back.
    Had,
    /// It could not, or went back by itself.
    Failed,
    /// It shall go back. By `due` it is silent.
    Back { due: Moment },
    /// It was told to go back and has not shown that it did.
    BackSilent,
    /// It was told to go back and could not.
    Stuck,
    /// It runs something else than the release again.
    WentBack,
}

/// What a device said of itself in its newest manifest, as far as this rollout asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Report {
    /// Grows with each manifest of this device that the caller has admitted.
    pub number: u64,
    /// The image that runs.
    pub running: Digest,
    /// It is not on trial.
    pub confirmed: bool,
    /// The newest install that this rollout ordered, forward or back, ended otherwise than installed.
    pub failed: bool,
}

impl Report {
    /// What a manifest says to a plan's rollout. `number` is the caller's: see there. `None`: the device has no such
    /// product, and so no part in this rollout.
    pub fn of(plan: &Plan, manifest: &Manifest, number: u64) -> Option<Self> {
        let component = manifest.components.iter().find(|c| c.product == plan.product)?;
        let running = component.running_image().digest;
        let failed = manifest.outcome.as_ref().is_some_and(|outcome| {
            let ended_badly = matches!(outcome.end, InstallEnd::Reverted | InstallEnd::Failed);
            let is_forward = outcome.rollout.as_ref() == Some(&plan.rollout);
            // The way back is ordered outside the rollout's id, to who runs its release.
            let is_back = outcome.rollout.is_none() && running == plan.digest;
            ended_badly && outcome.product == plan.product && (is_forward || is_back)
        });
        Some(Self { number, running, confirmed: component.boot != Boot::Trial, failed })
    }
}
