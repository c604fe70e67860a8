//! A rule that can be relied on: what was sent or shipped, with every bound seen to.

use super::step::Sum;
use api::alert::{Condition, Rule, Signal};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The most rules of a site's own, beside those that are shipped.
pub const RULES_MAX: usize = 200;
/// A look at a question a second is what a store can be asked for; a day is the longest that makes a rule.
const EVERY_MS: (u64, u64) = (1000, 86_400_000);
const FOR_MS_MAX: u64 = 30 * 86_400_000;
/// Told twice within a minute, a person has had no time to do anything.
const ESCALATE_MS: (u64, u64) = (60_000, 7 * 86_400_000);
const ID_CHARS_MAX: usize = 64;
const SENTENCE_BYTES_MAX: usize = 500;
const SQL_BYTES_MAX: usize = 16 * 1024;

/// Why something is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: expected {expected}, found {found}")]
pub struct BadRule {
    pub field: &'static str,
    pub expected: String,
    pub found: String,
}

/// The rules that come with the software, by id.
pub fn shipped() -> &'static BTreeMap<String, Rule> {
    static SHIPPED: LazyLock<BTreeMap<String, Rule>> = LazyLock::new(|| {
        let rules: Vec<Rule> =
            serde_json::from_str(include_str!("rules.json")).expect("a test reads it");
        let checked = |rule: Rule| {
            check(&rule).expect("a test checks each");
            (rule.id.clone(), rule)
        };
        rules.into_iter().map(checked).collect()
    });
    &SHIPPED
}

pub fn check(rule: &Rule) -> Result<(), BadRule> {
    let bad = |field, expected: &str, found: &dyn std::fmt::Display| {
        Err(BadRule { field, expected: expected.to_owned(), found: found.to_string() })
    };
    if !is_id(&rule.id) {
        return bad("id", "1 to 64 lower case letters, digits and -", &format!("{:?}", rule.id));
    }
    let sentence = rule.sentence.len();
    let is_line = !rule.sentence.chars().any(char::is_control);
    if rule.sentence.trim().is_empty() || sentence > SENTENCE_BYTES_MAX || !is_line {
        return bad("sentence", "one line of 1 to 500 bytes", &format!("{sentence} bytes"));
    }
    if !(EVERY_MS.0..=EVERY_MS.1).contains(&rule.every_ms) {
        return bad("every_ms", "1000 to 86400000", &rule.every_ms);
    }
    if rule.for_ms > FOR_MS_MAX {
        return bad("for_ms", "at most 2592000000, which is 30 days", &rule.for_ms);
    }
    if let Some(after) = rule.escalate_after_ms
        && !(ESCALATE_MS.0..=ESCALATE_MS.1).contains(&after)
    {
        return bad("escalate_after_ms", "60000 to 604800000, which is a minute to 7 days", &after);
    }
    if let Some(runbook) = &rule.runbook
        && !runbook.strip_suffix(".md").is_some_and(is_id)
    {
        let expected = "the name of a page of docs/runbooks, as gateway-away.md";
        return bad("runbook", expected, &format!("{runbook:?}"));
    }
    match rule.when {
        Condition::Above(bound) | Condition::Below(bound) if !bound.is_finite() => {
            return bad("when", "a finite number", &bound);
        }
        Condition::Absent if !matches!(rule.signal, Signal::Sql(_)) => {
            return bad("when", "above or below: only SQL names subjects that can go", &"absent");
        }
        _ => {}
    }
    match &rule.signal {
        Signal::Sql(sql) if sql.trim().is_empty() || sql.len() > SQL_BYTES_MAX => {
            bad("signal.sql", "1 to 16384 bytes of SQL", &format!("{} bytes", sql.len()))
        }
        Signal::Metric { name, .. } if !is_metric(name) => {
            bad("signal.metric.name", "the name of a metric", &format!("{name:?}"))
        }
        Signal::Sql(_) | Signal::Metric { .. } | Signal::Silence { .. } => Ok(()),
    }
}

pub fn is_id(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=ID_CHARS_MAX).contains(&text.len()) && text.chars().all(fits)
}

fn is_metric(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    (1..=200).contains(&name.len()) && name.chars().all(fits)
}

/// What is the matter, with subject, value and count put in.
pub fn sentence(rule: &Rule, subject: &str, sum: &Sum) -> String {
    let Sum { count, value, one, .. } = sum;
    let text = rule.sentence.replace("{subject}", subject).replace("{value}", &number(*value));
    match one {
        _ if subject == super::step::OTHERS => {
            format!("{text} ({count} beyond those that have an alert of their own)")
        }
        Some(one) if *count > 1 => format!("{text} ({one} and {} more)", count - 1),
        Some(one) => format!("{text} ({one})"),
        None if *count > 1 => format!("{text} ({count} in all)"),
        None => text,
    }
}

/// As a person writes it: whole if it is whole, else with three places at the most.
pub fn number(value: f64) -> String {
    let rounded = (value * 1000.0).round() / 1000.0;
    if rounded.is_finite() { format!("{rounded}") } else { format!("{value}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Role;
    use api::alert::Priority;

    fn rule() -> Rule {
        Rule {
            id: "pumps-hot".into(),
            sentence: "{subject} is at {value} °C".into(),
            priority: Priority::Warning,
            signal: Signal::Sql("select device as subject, 1 as value from readings".into()),
            when: Condition::Above(80.0),
            for_ms: 60_000,
            every_ms: 10_000,
            escalate_after_ms: Some(3_600_000),
            runbook: Some("gaps.md".into()),
            group_by_gateway: false,
            latched: false,
            owner: None,
            enabled: true,
        }
    }

    #[test]
    fn a_rule_with_one_thing_wrong_is_refused_for_that() {
        assert_eq!(check(&rule()), Ok(()));
        type Spoil = fn(&mut Rule);
        let spoils: [(&str, Spoil); 17] = [
            ("id", |r| r.id = String::new()),
            ("id", |r| r.id = "Pumps".into()),
            ("id", |r| r.id = "a".repeat(65)),
            ("sentence", |r| r.sentence = " ".into()),
            ("sentence", |r| r.sentence = "x".repeat(501)),
            ("sentence", |r| r.sentence = "two\nlines".into()),
            ("every_ms", |r| r.every_ms = 999),
            ("every_ms", |r| r.every_ms = 86_400_001),
            ("for_ms", |r| r.for_ms = 2_592_000_001),
            ("escalate_after_ms", |r| r.escalate_after_ms = Some(59_999)),
            ("escalate_after_ms", |r| r.escalate_after_ms = Some(604_800_001)),
            ("runbook", |r| r.runbook = Some("../../etc/passwd.md".into())),
            ("when", |r| r.when = Condition::Above(f64::NAN)),
            ("when", |r| {
                r.when = Condition::Absent;
                r.signal = Signal::Silence { role: Role::Device };
            }),
            ("signal.sql", |r| r.signal = Signal::Sql("  ".into())),
            ("signal.sql", |r| r.signal = Signal::Sql("x".repeat(16_385))),
            ("signal.metric.name", |r| {
                r.signal = Signal::Metric { name: "a b".into(), labels: BTreeMap::new() };
            }),
        ];
        for (field, spoil) in spoils {
            let mut spoilt = rule();
            spoil(&mut spoilt);
            assert_eq!(check(&spoilt).map_err(|bad| bad.field), Err(field), "{spoilt:?}");
        }
    }

    #[test]
    fn a_sentence_says_what_and_how_much_and_for_how_many_it_stands() {
        let rule = rule();
        let of = |subject: &str, count, value, one: Option<&str>| {
            sentence(&rule, subject, &Sum::new(count, value, one.map(str::to_owned)))
        };
        assert_eq!(of("pump-1", 1, 81.25, None), "pump-1 is at 81.25 °C");
        assert_eq!(of("gw-1", 1, 81.0, Some("pump-1")), "gw-1 is at 81 °C (pump-1)");
        assert_eq!(of("gw-1", 7, 81.0, Some("pump-1")), "gw-1 is at 81 °C (pump-1 and 6 more)");
        assert_eq!(of("gw-1", 7, 81.0, None), "gw-1 is at 81 °C (7 in all)");
        assert_eq!(
            of(super::super::step::OTHERS, 12, 90.123_456, None),
            "others is at 90.123 °C (12 beyond those that have an alert of their own)"
        );
    }
}
