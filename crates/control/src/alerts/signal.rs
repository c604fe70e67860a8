//! What a rule's signal says now: rows of SQL or samples of metrics become subjects with a value each.

use super::step::{Found, Ms};
use api::alert::{Condition, Rule};
use api::{Answer, Ask, Cell};
use prometheus::proto::{MetricFamily, MetricType};
use std::collections::{BTreeMap, HashMap};

/// Stands for the time at which a question is asked, in milliseconds since 1970.
const NOW: &str = "$now_ms";
/// Rows of an answer. What is beyond is said to be.
pub const ROWS_MAX: usize = 10_000;
/// A question of a rule is asked again and again: it has to be cheap.
pub const QUESTION_TIME_MAX_MS: u64 = 10_000;
/// A gauge of such a name is a time in seconds since 1970, and counts as the seconds from now until then.
const TIME: &str = "_timestamp_seconds";
/// Subjects are names, not texts.
const SUBJECT_BYTES_MAX: usize = 200;

/// What is put in is a number alone, so nothing in it can be read as SQL.
pub fn question(sql: &str, now: Ms) -> Ask {
    Ask {
        sql: sql.replace(NOW, &now.to_string()),
        rows_max: Some(ROWS_MAX),
        time_max_ms: Some(QUESTION_TIME_MAX_MS),
    }
}

/// Rows as subjects. An answer of another form is an error that says what was expected and found.
pub fn rows(rule: &Rule, answer: Answer) -> Result<(Vec<Found>, bool), String> {
    let column = |name: &str| answer.columns.iter().position(|column| column.name == name);
    let names: Vec<&str> = answer.columns.iter().map(|column| column.name.as_str()).collect();
    let Some(subject_at) = column("subject") else {
        return Err(format!("expected a column `subject`, found {}", names.join(", ")));
    };
    let value_at = column("value");
    if value_at.is_none() && rule.when != Condition::Absent {
        return Err(format!("expected a column `value`, found {}", names.join(", ")));
    }
    let gateway_at = column("gateway");
    let mut found = Vec::with_capacity(answer.rows.len());
    for row in &answer.rows {
        let Some(Cell::String(subject)) = row.get(subject_at) else {
            let cell = row.get(subject_at).unwrap_or(&Cell::Null);
            return Err(format!("expected a text as `subject`, found {cell}"));
        };
        let value = match value_at.and_then(|at| row.get(at)) {
            Some(Cell::Number(number)) => number.as_f64().unwrap_or(f64::NAN),
            // What is not known is above and below nothing.
            None | Some(Cell::Null) => unknown(rule),
            Some(other) => return Err(format!("expected a number as `value`, found {other}")),
        };
        let group = match gateway_at.and_then(|at| row.get(at)) {
            Some(Cell::String(gateway)) if rule.group_by_gateway => Some(name(gateway)),
            _ => None,
        };
        found.push(Found { subject: name(subject), group, value });
    }
    Ok((found, answer.truncated))
}

/// A rule of absence needs no value.
fn unknown(rule: &Rule) -> f64 {
    if rule.when == Condition::Absent { 0.0 } else { f64::NAN }
}

fn name(text: &str) -> String {
    let printable: String = text.chars().filter(|c| !c.is_control()).collect();
    let mut end = printable.len().min(SUBJECT_BYTES_MAX);
    while !printable.is_char_boundary(end) {
        end -= 1;
    }
    printable[..end].to_owned()
}

/// What counters stood at when a rule last looked: a rule counts what they have grown by since, from 0 at the start of the
/// process.
#[derive(Debug, Default)]
pub struct Meter(HashMap<(String, String), f64>);

/// What a rule saw of its counters, to be remembered once what it found is durable.
#[derive(Debug, Default)]
pub struct Seen(Vec<(String, f64)>);

impl Meter {
    /// Samples as subjects: one for each set of labels beyond those that have to match, `site` where there are none.
    pub fn samples(
        &self,
        rule: &str,
        families: &BTreeMap<String, MetricFamily>,
        metric: &str,
        labels: &BTreeMap<String, String>,
        now: Ms,
    ) -> Result<(Vec<Found>, Seen), String> {
        let Some(family) = families.get(metric) else {
            return Err(format!("this process has no metric `{metric}`"));
        };
        let kind = family.get_field_type();
        let mut sums: BTreeMap<String, f64> = BTreeMap::new();
        for sample in family.get_metric() {
            let of = |label: &str| {
                sample.get_label().iter().find(|l| l.name() == label).map(|l| l.value())
            };
            if labels.iter().any(|(label, value)| of(label) != Some(value)) {
                continue;
            }
            let rest = sample.get_label().iter().filter(|l| !labels.contains_key(l.name()));
            let rest: Vec<String> = rest
                .filter(|l| !l.value().is_empty())
                .map(|l| format!("{}={}", l.name(), l.value()))
                .collect();
            let subject = if rest.is_empty() { "site".to_owned() } else { rest.join(",") };
            let value = match kind {
                MetricType::COUNTER => sample.get_counter().get_value(),
                MetricType::GAUGE if metric.ends_with(TIME) => {
                    let at = sample.get_gauge().get_value();
                    // 0: there is no such time.
                    if at == 0.0 {
                        continue;
                    }
                    at - now as f64 / 1000.0
                }
                MetricType::GAUGE => sample.get_gauge().get_value(),
                _ => {
                    let expected = "expected a counter or a gauge";
                    return Err(format!("{expected}, found that `{metric}` is a histogram"));
                }
            };
            *sums.entry(subject).or_default() += value;
        }
        let mut seen = Seen::default();
        let found = sums.into_iter().map(|(subject, value)| {
            let shown = name(&subject);
            let value = match kind {
                MetricType::COUNTER => {
                    let key = (rule.to_owned(), subject);
                    let known = self.0.get(&key).copied().unwrap_or(0.0);
                    seen.0.push((key.1, value));
                    value - known
                }
                _ => value,
            };
            Found { subject: shown, group: None, value }
        });
        let found = found.collect();
        Ok((found, seen))
    }

    pub fn remember(&mut self, rule: &str, Seen(seen): Seen) {
        let named = seen.into_iter().map(|(subject, value)| ((rule.to_owned(), subject), value));
        self.0.extend(named);
    }

    /// Of a rule that is there no more, or another one now.
    pub fn forget(&mut self, rule: &str) {
        self.0.retain(|(known, _), _| known != rule);
    }
}
