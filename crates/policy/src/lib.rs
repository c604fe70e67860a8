//! Who may do what at a gateway, and why: Cedar policies over the identity that TLS proved.
//!
//! Promises: what no policy permits is denied (INV-AUTH-1); a policy that does not fit the schema is refused when it is
//! read, never when it is asked; each decision names the policies that made it.
//! Never: does IO, reads a clock, or holds the fleet: a decision sees one device and one topic, so its cost does not grow
//! with the site (INV-COST-1).

use cedar_policy::{
    Authorizer, Context, Decision as CedarDecision, Entities, Entity, EntityId, EntityTypeName,
    EntityUid, PolicySet, Request, RestrictedExpression, Schema, ValidationMode, Validator,
};
use model::{DeviceId, ZoneId};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

/// What a site starts with.
pub const DEFAULT_POLICIES: &str = include_str!("default.cedar");

/// The longest policy text that is read.
pub const POLICY_BYTES_MAX: usize = 256 * 1024;

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let (schema, _warnings) = Schema::from_cedarschema_str(include_str!("plimsoll.cedarschema"))
        .expect("the schema is part of this crate and tested");
    schema
});

/// Policies that parsed and fit the schema.
#[derive(Clone, Debug)]
pub struct Policies {
    set: PolicySet,
    authorizer: Authorizer,
}

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("cannot read policies: {found} bytes, expected at most {POLICY_BYTES_MAX}")]
    TooLong { found: usize },
    #[error("cannot read policies: not Cedar")]
    NotCedar(#[source] Box<cedar_policy::ParseErrors>),
    #[error("policies do not fit the schema: {0}")]
    Unfit(String),
    #[error("two policies are called {0:?}")]
    SameName(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Publish,
    Subscribe,
}

/// A device, as far as policies see one.
#[derive(Clone, Copy, Debug)]
pub struct Principal<'a> {
    pub device: &'a DeviceId,
    pub zone: &'a ZoneId,
    pub standing: &'a str,
}

/// The answer, and the names of the policies that made it. Denied without a name: nothing permitted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reasons: Vec<String>,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.allowed, self.reasons.is_empty()) {
            (true, _) => write!(f, "permitted by {}", self.reasons.join(", ")),
            (false, false) => write!(f, "forbidden by {}", self.reasons.join(", ")),
            (false, true) => f.write_str("denied: no policy permits it"),
        }
    }
}

/// `plimsoll/1/<device>/up` or `…/down`. Version 1 of the topic grammar; everything else names nobody's topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub owner: DeviceId,
    pub direction: Direction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Up,
    Down,
}

impl Topic {
    pub fn parse(text: &str) -> Option<Self> {
        let (owner, direction) = text.strip_prefix("plimsoll/1/")?.split_once('/')?;
        let direction = match direction {
            "up" => Direction::Up,
            "down" => Direction::Down,
            _ => return None,
        };
        Some(Self { owner: DeviceId::new(owner).ok()?, direction })
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Up => "up",
            Direction::Down => "down",
        };
        write!(f, "plimsoll/1/{}/{direction}", self.owner)
    }
}

impl Policies {
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > POLICY_BYTES_MAX {
            return Err(PolicyError::TooLong { found: text.len() });
        }
        let parsed =
            PolicySet::from_str(text).map_err(|errors| PolicyError::NotCedar(Box::new(errors)))?;
        let set = named(&parsed)?;
        let verdict = Validator::new(SCHEMA.clone()).validate(&set, ValidationMode::Strict);
        if let Some(error) = verdict.validation_errors().next() {
            return Err(PolicyError::Unfit(error.to_string()));
        }
        Ok(Self { set, authorizer: Authorizer::new() })
    }

    /// Whether the device may have a session at a gateway of `zone`.
    pub fn may_connect(&self, who: Principal<'_>, zone: &ZoneId) -> Decision {
        self.ask(who, "connect", uid("Zone", zone.as_str()), Vec::new())
    }

    /// Whether the device may publish to, or subscribe to, a topic at a gateway of `zone`.
    pub fn may_use(
        &self,
        who: Principal<'_>,
        action: Action,
        topic: &str,
        zone: &ZoneId,
    ) -> Decision {
        let verb = match action {
            Action::Publish => "publish",
            Action::Subscribe => "subscribe",
        };
        let resource = uid("Topic", topic);
        let entity = topic_entity(&resource, Topic::parse(topic), zone);
        self.ask(who, verb, resource, vec![entity])
    }

    fn ask(
        &self,
        who: Principal<'_>,
        verb: &str,
        resource: EntityUid,
        mut slice: Vec<Entity>,
    ) -> Decision {
        let principal = uid("Device", who.device.as_str());
        slice.push(device_entity(&principal, who));
        let decided =
            Request::new(principal, uid("Action", verb), resource, Context::empty(), Some(&SCHEMA))
                .ok()
                .zip(Entities::from_entities(slice, Some(&SCHEMA)).ok())
                .map(|(request, entities)| {
                    self.authorizer.is_authorized(&request, &self.set, &entities)
                });
        // A request that does not fit the schema is one that no policy can have meant.
        let Some(response) = decided else {
            return Decision { allowed: false, reasons: Vec::new() };
        };
        let mut reasons: Vec<String> =
            response.diagnostics().reason().map(|id| id.to_string()).collect();
        reasons.sort();
        // Cedar skips a policy that fails to evaluate. A forbid that was skipped must not let anything through.
        let whole = response.diagnostics().errors().next().is_none();
        Decision { allowed: whole && response.decision() == CedarDecision::Allow, reasons }
    }
}

/// Calls each policy by its `@id`, so that a decision can be read by people.
fn named(set: &PolicySet) -> Result<PolicySet, PolicyError> {
    let mut out = PolicySet::new();
    for policy in set.policies() {
        let name = policy.annotation("id").map_or_else(|| policy.id().to_string(), str::to_owned);
        let renamed = policy.new_id(cedar_policy::PolicyId::new(&name));
        out.add(renamed).map_err(|_| PolicyError::SameName(name))?;
    }
    Ok(out)
}

fn uid(kind: &str, id: &str) -> EntityUid {
    let kind =
        EntityTypeName::from_str(&format!("Plimsoll::{kind}")).expect("a name from this file");
    EntityUid::from_type_name_and_id(kind, EntityId::new(id))
}

fn device_entity(uid: &EntityUid, who: Principal<'_>) -> Entity {
    let zone = self::uid("Zone", who.zone.as_str());
    let attributes = HashMap::from([
        ("zone".to_owned(), RestrictedExpression::new_entity_uid(zone)),
        ("standing".to_owned(), RestrictedExpression::new_string(who.standing.to_owned())),
    ]);
    Entity::new(uid.clone(), attributes, HashSet::new()).expect("literals evaluate")
}

fn topic_entity(uid: &EntityUid, topic: Option<Topic>, zone: &ZoneId) -> Entity {
    let direction = match topic.as_ref().map(|topic| topic.direction) {
        Some(Direction::Up) => "up",
        Some(Direction::Down) => "down",
        None => "",
    };
    let zone = self::uid("Zone", zone.as_str());
    let mut attributes = HashMap::from([
        ("zone".to_owned(), RestrictedExpression::new_entity_uid(zone)),
        ("direction".to_owned(), RestrictedExpression::new_string(direction.to_owned())),
    ]);
    if let Some(topic) = topic {
        let owner = self::uid("Device", topic.owner.as_str());
        attributes.insert("owner".to_owned(), RestrictedExpression::new_entity_uid(owner));
    }
    Entity::new(uid.clone(), attributes, HashSet::new()).expect("literals evaluate")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        device: DeviceId,
        device_zone: ZoneId,
        standing: &'static str,
        gateway_zone: ZoneId,
        action: Action,
        topic: String,
    }

    /// A world in which the default policies permit: each refusal changes one thing in it.
    fn permitted() -> World {
        World {
            device: DeviceId::new("pump-1").unwrap(),
            device_zone: ZoneId::new("hall").unwrap(),
            standing: "enrolled",
            gateway_zone: ZoneId::new("hall").unwrap(),
            action: Action::Publish,
            topic: "plimsoll/1/pump-1/up".into(),
        }
    }

    fn decide(w: &World) -> Decision {
        let who = Principal { device: &w.device, zone: &w.device_zone, standing: w.standing };
        Policies::parse(DEFAULT_POLICIES).unwrap().may_use(who, w.action, &w.topic, &w.gateway_zone)
    }

    #[test]
    fn an_enrolled_device_may_publish_its_own_readings_and_the_decision_says_why() {
        assert_eq!(decide(&permitted()).to_string(), "permitted by publish-own-readings");
    }

    /// INV-AUTH-1: from what is permitted, each single change is denied, and the decision says why.
    #[test]
    fn what_no_policy_permits_is_denied() {
        type Change = fn(&mut World);
        let table: &[(&str, Change, &str)] = &[
            (
                "another's topic",
                |w| w.topic = "plimsoll/1/pump-2/up".into(),
                "denied: no policy permits it",
            ),
            (
                "orders",
                |w| w.topic = "plimsoll/1/pump-1/down".into(),
                "denied: no policy permits it",
            ),
            (
                "outside the grammar",
                |w| w.topic = "plimsoll/1/pump-1/up/x".into(),
                "denied: no policy permits it",
            ),
            (
                "another version",
                |w| w.topic = "plimsoll/2/pump-1/up".into(),
                "denied: no policy permits it",
            ),
            ("subscribing", |w| w.action = Action::Subscribe, "denied: no policy permits it"),
            (
                "another zone",
                |w| w.device_zone = ZoneId::new("yard").unwrap(),
                "denied: no policy permits it",
            ),
            ("quarantined", |w| w.standing = "quarantined", "forbidden by only-the-enrolled"),
            ("revoked", |w| w.standing = "revoked", "forbidden by only-the-enrolled"),
        ];
        for (what, change, why) in table {
            let mut world = permitted();
            change(&mut world);
            let decision = decide(&world);
            assert!(!decision.allowed, "{what}");
            assert_eq!(decision.to_string(), *why, "{what}");
        }
    }

    #[test]
    fn a_device_connects_in_its_own_zone_only() {
        let policies = Policies::parse(DEFAULT_POLICIES).unwrap();
        let w = permitted();
        let who = Principal { device: &w.device, zone: &w.device_zone, standing: w.standing };
        assert!(policies.may_connect(who, &w.gateway_zone).allowed);
        assert!(!policies.may_connect(who, &ZoneId::new("yard").unwrap()).allowed);
        assert!(
            !policies
                .may_connect(Principal { standing: "revoked", ..who }, &w.gateway_zone)
                .allowed
        );
    }

    #[test]
    fn no_policy_at_all_permits_nothing() {
        let w = permitted();
        let who = Principal { device: &w.device, zone: &w.device_zone, standing: w.standing };
        assert!(
            !Policies::parse("").unwrap().may_use(who, w.action, &w.topic, &w.gateway_zone).allowed
        );
    }

    #[test]
    fn a_policy_that_does_not_fit_the_schema_is_refused_when_it_is_read() {
        let typo = DEFAULT_POLICIES.replace("principal.standing", "principal.standng");
        assert!(matches!(Policies::parse(&typo), Err(PolicyError::Unfit(_))));
        assert!(matches!(Policies::parse("permit ("), Err(PolicyError::NotCedar(_))));
        let twice = format!("{DEFAULT_POLICIES}\n{DEFAULT_POLICIES}");
        assert!(matches!(Policies::parse(&twice), Err(PolicyError::SameName(_))));
        let long = " ".repeat(POLICY_BYTES_MAX + 1);
        assert!(matches!(Policies::parse(&long), Err(PolicyError::TooLong { .. })));
    }
}
