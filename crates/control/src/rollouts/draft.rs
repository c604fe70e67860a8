//! From what an operator wrote to a plan that can be carried out.

use crate::directory::Device;
use api::rollout::{Cohort, NewRollout, NewSignal};
use model::id::BadName;
use model::release::BadVersion;
use model::{DeviceId, Digest, GroupId, HardwareId, ProductId, RolloutId, Version, ZoneId};
use rollout::{Back, Draft, Limit, Plan, PlanError, Share, Signal, Wave};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Asking is a write, and its answer has no longer to come: sooner than this it never would.
const ASK_AGAIN_MS_MIN: u64 = 50;

/// Why an order cannot be carried out, in the words in which it was written.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DraftError {
    #[error(transparent)]
    BadName(#[from] BadName),
    #[error(transparent)]
    BadVersion(#[from] BadVersion),
    #[error(
        "`{what}`: expected percent above 0 and at most 100 with at most four decimals, found {found}"
    )]
    BadPercent { what: String, found: f64 },
    #[error("signal {name:?}: expected one of `at_most` and `at_least`, found {found}")]
    Limits { name: String, found: &'static str },
    #[error("`ask_again_ms`: expected at least {ASK_AGAIN_MS_MIN}, found {found}")]
    TooSoon { found: u64 },
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl DraftError {
    /// The word of its problem.
    pub fn word(&self) -> &'static str {
        match self {
            Self::BadName(_) => "bad_name",
            Self::BadVersion(_) => "bad_version",
            Self::BadPercent { .. } => "bad_percent",
            Self::Limits { .. } => "bad_limit",
            Self::Plan(PlanError::NoCohort) => "no_cohort",
            Self::TooSoon { .. } | Self::Plan(_) => "bad_plan",
        }
    }
}

/// What is to go where: the names of an order, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub id: Option<RolloutId>,
    pub product: ProductId,
    pub version: Version,
    pub zones: BTreeSet<ZoneId>,
    pub groups: BTreeSet<GroupId>,
    pub devices: BTreeSet<DeviceId>,
}

impl Named {
    pub fn read(new: &NewRollout) -> Result<Self, DraftError> {
        let Cohort { zones, groups, devices } = &new.cohort;
        Ok(Self {
            id: new.id.as_deref().map(RolloutId::new).transpose()?,
            product: ProductId::new(new.product.as_str())?,
            version: new.version.parse()?,
            zones: zones.iter().map(ZoneId::new).collect::<Result<_, _>>()?,
            groups: groups.iter().map(GroupId::new).collect::<Result<_, _>>()?,
            devices: devices.iter().map(DeviceId::new).collect::<Result<_, _>>()?,
        })
    }
}

/// Who belongs to a cohort, of the devices and gateways that are enrolled and run the product. An empty set of zones,
/// groups or devices holds all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Members {
    pub zones: BTreeSet<ZoneId>,
    pub groups: BTreeSet<GroupId>,
    pub devices: BTreeSet<DeviceId>,
    /// What the release is for.
    pub hardware: BTreeSet<HardwareId>,
}

impl Members {
    pub fn may_hold(&self, device: &Device) -> bool {
        (self.zones.is_empty() || self.zones.contains(&device.zone))
            && (self.groups.is_empty() || self.groups.contains(&device.group))
            && (self.devices.is_empty() || self.devices.contains(&device.id))
    }

    pub fn holds(&self, device: &Device, hardware: &HardwareId) -> bool {
        self.may_hold(device) && self.hardware.contains(hardware)
    }

    /// Whether a device could belong to both. It is asked of the lists alone: who joins tomorrow counts too. A device that
    /// moves from one group to another is reached by the second when the first has done with it.
    pub fn overlaps(&self, other: &Self) -> bool {
        fn meet<T: Ord>(one: &BTreeSet<T>, other: &BTreeSet<T>) -> bool {
            one.is_empty() || other.is_empty() || !one.is_disjoint(other)
        }
        meet(&self.zones, &other.zones)
            && meet(&self.groups, &other.groups)
            && meet(&self.devices, &other.devices)
            && !self.hardware.is_disjoint(&other.hardware)
    }
}

/// The form in which it is kept.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    zones: Vec<String>,
    /// Those that were made before there were groups are for all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    devices: Vec<String>,
    hardware: Vec<String>,
}

impl From<Members> for Written {
    fn from(members: Members) -> Self {
        let Members { zones, groups, devices, hardware } = members;
        Self {
            zones: zones.iter().map(ToString::to_string).collect(),
            groups: groups.iter().map(ToString::to_string).collect(),
            devices: devices.iter().map(ToString::to_string).collect(),
            hardware: hardware.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<Written> for Members {
    type Error = BadName;

    fn try_from(written: Written) -> Result<Self, BadName> {
        let Written { zones, groups, devices, hardware } = written;
        Ok(Self {
            zones: zones.into_iter().map(ZoneId::new).collect::<Result<_, _>>()?,
            groups: groups.into_iter().map(GroupId::new).collect::<Result<_, _>>()?,
            devices: devices.into_iter().map(DeviceId::new).collect::<Result<_, _>>()?,
            hardware: hardware.into_iter().map(HardwareId::new).collect::<Result<_, _>>()?,
        })
    }
}

/// What the site knows beside the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub rollout: RolloutId,
    pub generation: u64,
    /// Of the image that the vendor names.
    pub digest: Digest,
    /// How many devices the cohort has.
    pub cohort: u64,
}

/// The plan of an order.
pub fn plan(new: &NewRollout, named: &Named, found: Found) -> Result<Plan, DraftError> {
    let waves = new.waves.iter().enumerate().map(|(i, wave)| {
        Ok(Wave {
            share: share(&format!("waves[{i}].percent"), wave.percent)?,
            count_max: wave.count_max,
            soak_ms: wave.soak_ms,
        })
    });
    let waves: Vec<Wave> = waves.collect::<Result<_, DraftError>>()?;
    if new.ask_again_ms < ASK_AGAIN_MS_MIN {
        return Err(DraftError::TooSoon { found: new.ask_again_ms });
    }
    let back = new.back.percents.iter().enumerate();
    let back = back.map(|(i, percent)| share(&format!("back.percents[{i}]"), *percent));
    let Found { rollout, generation, digest, cohort } = found;
    let largest = waves.iter().map(|wave| count(wave, cohort)).max().unwrap_or(0);
    Ok(Plan::new(Draft {
        rollout,
        generation,
        product: named.product.clone(),
        version: named.version,
        digest,
        cohort,
        bound: new.bound.unwrap_or(largest),
        waves,
        prove_within_ms: new.prove_within_ms,
        come_within_ms: new.come_within_ms,
        success_min: share("success_min_percent", new.success_min_percent)?,
        quorum: share("quorum_percent", new.quorum_percent)?,
        signals: new.signals.iter().map(signal).collect::<Result<_, _>>()?,
        ask_again_ms: new.ask_again_ms,
        back: Back {
            by_itself: new.back.by_itself,
            waves: back.collect::<Result<_, _>>()?,
            at_a_time: new.back.at_a_time.unwrap_or(cohort),
        },
    })?)
}

fn count(wave: &Wave, cohort: u64) -> u64 {
    wave.share.of(cohort).min(wave.count_max.unwrap_or(u64::MAX))
}

/// A number that is rounded would be another wave than the one that was ordered.
fn share(what: &str, percent: f64) -> Result<Share, DraftError> {
    let bad = || DraftError::BadPercent { what: what.to_owned(), found: percent };
    let parts = percent * 10_000.0;
    // What decimals lose as binary fractions is far below half a millionth.
    let is_whole = (parts - parts.round()).abs() < 1e-6;
    if !(parts.is_finite() && is_whole && (0.0..=1_000_000.0).contains(&parts)) {
        return Err(bad());
    }
    Share::per_million(parts.round() as u32).ok_or_else(bad)
}

fn signal(new: &NewSignal) -> Result<Signal, DraftError> {
    let limits = |found| DraftError::Limits { name: new.name.clone(), found };
    let limit = match (new.at_most, new.at_least) {
        (Some(most), None) => Limit::AtMost(most),
        (None, Some(least)) => Limit::AtLeast(least),
        (Some(_), Some(_)) => return Err(limits("both")),
        (None, None) => return Err(limits("none")),
    };
    Ok(Signal { name: new.name.clone(), sql: new.sql.clone(), limit })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The rollout of `docs/updates.md`.
    fn ordered() -> Value {
        json!({
            "product": "pump-app",
            "version": "1.3.0",
            "waves": [{ "percent": 10, "soak_ms": 1000 }, { "percent": 50 }, { "percent": 100 }],
            "signals": [{ "name": "flow", "sql": "select 1", "at_least": 3 }],
        })
    }

    fn read(order: Value) -> Result<Plan, DraftError> {
        let new: NewRollout = serde_json::from_value(order).unwrap();
        let rollout = RolloutId::new("r-1").unwrap();
        let found = Found { rollout, generation: 7, digest: Digest([2; 32]), cohort: 30 };
        plan(&new, &Named::read(&new)?, found)
    }

    #[test]
    fn an_order_becomes_a_plan_with_the_defaults_that_the_contract_states() {
        let plan = read(ordered()).unwrap();
        let parts: Vec<u32> = plan.waves.iter().map(|wave| wave.share.into()).collect();
        assert_eq!(parts, [100_000, 500_000, 1_000_000]);
        assert_eq!((plan.waves[0].soak_ms, plan.waves[1].soak_ms), (1000, 0));
        assert_eq!((plan.bound, plan.back.at_a_time, plan.cohort), (30, 30, 30));
        assert_eq!((u32::from(plan.success_min), u32::from(plan.quorum)), (950_000, 900_000));
        assert_eq!((plan.prove_within_ms, plan.come_within_ms), (86_400_000, 604_800_000));
        assert_eq!(plan.signals[0].limit, Limit::AtLeast(3.0));
        assert_eq!((plan.back.by_itself, plan.back.waves.as_slice()), (false, &[Share::ALL][..]));
        let mut few = ordered();
        few["waves"][2]["count_max"] = json!(20);
        assert_eq!(read(few).unwrap().bound, 20, "the largest wave");
    }

    #[test]
    fn an_order_with_one_thing_wrong_is_refused_for_that() {
        type Change = fn(&mut Value);
        let table: [(&str, Change, &str); 14] = [
            ("bad_name", |o| o["product"] = json!("Pump App"), "bad product id"),
            ("bad_name", |o| o["id"] = json!("r 1"), "bad rollout id"),
            ("bad_name", |o| o["cohort"] = json!({ "zones": ["the hall"] }), "bad zone id"),
            ("bad_name", |o| o["cohort"] = json!({ "groups": ["The pilots"] }), "bad group"),
            ("bad_name", |o| o["cohort"] = json!({ "devices": [""] }), "bad device id"),
            ("bad_version", |o| o["version"] = json!("1.3"), "bad version"),
            ("bad_percent", |o| o["waves"][0]["percent"] = json!(0), "`waves[0].percent`"),
            ("bad_percent", |o| o["success_min_percent"] = json!(101), "`success_min_percent`"),
            ("bad_percent", |o| o["quorum_percent"] = json!(33.33333), "`quorum_percent`"),
            ("bad_percent", |o| o["back"] = json!({ "percents": [-1] }), "`back.percents[0]`"),
            ("bad_limit", |o| o["signals"][0]["at_most"] = json!(4), "found both"),
            ("bad_limit", |o| o["signals"][0]["at_least"] = json!(null), "found none"),
            ("bad_plan", |o| o["ask_again_ms"] = json!(1), "expected at least 50, found 1"),
            ("bad_plan", |o| o["waves"][1]["percent"] = json!(10), "wave 2 forward"),
        ];
        for (word, change, says) in table {
            let mut order = ordered();
            change(&mut order);
            let error = read(order).unwrap_err();
            assert_eq!(error.word(), word, "{error}");
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn four_decimals_of_a_percent_count() {
        for (percent, parts) in
            [(0.0001, 1), (12.3456, 123_456), (33.3333, 333_333), (99.9, 999_000)]
        {
            assert_eq!(share("x", percent).map(u32::from), Ok(parts), "{percent}");
        }
        for percent in [f64::NAN, f64::INFINITY, 0.00001, 100.0001, -0.0] {
            assert!(share("x", percent).is_err(), "{percent}");
        }
    }

    #[test]
    fn cohorts_that_could_share_a_device_overlap() {
        let members = |zones: &[&str], devices: &[&str], hardware: &str| Members {
            groups: BTreeSet::new(),
            zones: zones.iter().map(|name| ZoneId::new(*name).unwrap()).collect(),
            devices: devices.iter().map(|name| DeviceId::new(*name).unwrap()).collect(),
            hardware: [HardwareId::new(hardware).unwrap()].into(),
        };
        let hall = members(&["hall"], &[], "box");
        for (other, overlap) in [
            (members(&[], &[], "box"), true),
            (members(&["yard", "hall"], &[], "box"), true),
            (members(&["yard"], &[], "box"), false),
            (members(&[], &["pump-1"], "box"), true),
            (members(&[], &[], "other-box"), false),
        ] {
            assert_eq!((hall.overlaps(&other), other.overlaps(&hall)), (overlap, overlap));
        }
        let one = members(&[], &["pump-1"], "box");
        assert!(!one.overlaps(&members(&[], &["pump-2"], "box")));
        let of = |groups: &[&str]| Members {
            groups: groups.iter().map(|name| GroupId::new(*name).unwrap()).collect(),
            ..members(&[], &[], "box")
        };
        assert!(!of(&["pilot"]).overlaps(&of(&["production", "development"])));
        assert!(of(&["pilot"]).overlaps(&of(&["production", "pilot"])));
        assert!(of(&["pilot"]).overlaps(&of(&[])));
        for kept in [one, of(&["pilot"])] {
            let written = serde_json::to_string(&kept).unwrap();
            assert_eq!(serde_json::from_str::<Members>(&written).unwrap(), kept);
        }
        // As it was written before there were groups.
        let before = r#"{"zones":[],"devices":[],"hardware":["box"]}"#;
        assert_eq!(serde_json::from_str::<Members>(before).unwrap(), of(&[]));
    }
}
