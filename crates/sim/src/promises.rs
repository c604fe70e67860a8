//! What was promised against what is there, once every process has ended.

use crate::fleet::Fleet;
use crate::recorder::Ack;
use crate::scan;
use anyhow::Result;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

/// One line of the table: a promise in plain words, whether it held, and the figures behind it.
#[derive(Clone, Debug)]
pub struct Line {
    pub promise: &'static str,
    pub held: bool,
    pub figures: String,
}

/// The record of PUBACKs compared with a plain scan of the store's files.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    pub acked_messages: usize,
    pub acked_readings: usize,
    pub stored_readings: usize,
    /// Acknowledged, and neither in the store nor in quarantine.
    pub lost: Vec<String>,
    /// In the store more than once.
    pub doubled: Vec<String>,
    /// Acknowledged and in quarantine, by reason.
    pub quarantined: BTreeMap<String, usize>,
    /// Acknowledged for the first time after a later one of the same key.
    pub out_of_order: Vec<String>,
}

impl Comparison {
    pub fn of(acks: &[Ack], store: &Path) -> Result<Self> {
        let stored = scan::readings(store)?;
        let quarantine = scan::quarantine(store)?;
        let mut out = Self { stored_readings: stored.len(), ..Self::default() };
        out.count_quarantine(&quarantine);
        let set_apart: HashSet<_> =
            quarantine.iter().map(|(key, e, s, _)| (key.as_str(), *e, *s)).collect();
        let acked: HashSet<_> =
            acks.iter().filter(|ack| ack.reason == 0).map(|ack| &ack.sealed).collect();
        out.acked_messages = acked.len();
        for sealed in acked {
            out.acked_readings += sealed.readings;
            let apart = set_apart.contains(&(sealed.key.as_str(), sealed.epoch, sealed.sequence));
            for index in 0..sealed.readings as u32 {
                let id = (sealed.key.clone(), sealed.epoch, sealed.sequence, index);
                if !stored.contains_key(&id) && !apart {
                    out.lost.push(format!("{sealed} reading {index}"));
                }
            }
        }
        out.doubled = stored
            .iter()
            .filter(|(_, n)| **n > 1)
            .map(|(id, n)| format!("{id:?} {n} times"))
            .collect();
        out.out_of_order = out_of_order(acks);
        Ok(out)
    }

    fn count_quarantine(&mut self, quarantine: &[(String, u32, u64, String)]) {
        for (_, _, _, reason) in quarantine {
            *self.quarantined.entry(reason.clone()).or_default() += 1;
        }
    }

    pub fn exactly_once(&self) -> Line {
        let mut figures = format!(
            "{} messages with {} readings acknowledged, {} readings stored; lost {}, doubled {}",
            self.acked_messages,
            self.acked_readings,
            self.stored_readings,
            self.lost.len(),
            self.doubled.len()
        );
        for example in self.lost.iter().chain(&self.doubled).take(3) {
            figures += &format!("\n      {example}");
        }
        Line {
            promise: "every acknowledged reading is stored exactly once",
            // A run in which nothing was acknowledged has shown nothing.
            held: self.acked_readings > 0 && self.lost.is_empty() && self.doubled.is_empty(),
            figures,
        }
    }

    pub fn in_order(&self) -> Line {
        let mut figures = format!("{} out of order", self.out_of_order.len());
        for example in self.out_of_order.iter().take(3) {
            figures += &format!("\n      {example}");
        }
        Line {
            promise: "the order of each key is kept",
            held: self.out_of_order.is_empty(),
            figures,
        }
    }

    /// Quarantine holds nothing but what `explained` names.
    pub fn quarantine_explained(&self, explained: &[&str]) -> Line {
        let held = self.quarantined.keys().all(|reason| explained.contains(&reason.as_str()));
        let figures = match self.quarantined.is_empty() {
            true => "empty".to_owned(),
            false => format!("{:?}", self.quarantined),
        };
        Line { promise: "quarantine is empty or explained", held, figures }
    }
}

/// First acknowledgements of a key that came after a later one of the same gateway. (Between two gateways there is no
/// common order of lines in two records.)
fn out_of_order(acks: &[Ack]) -> Vec<String> {
    let mut newest: HashMap<(&str, &str), (u32, u64)> = HashMap::new();
    let mut seen = HashSet::new();
    let mut wrong = Vec::new();
    for ack in acks.iter().filter(|ack| ack.reason == 0) {
        let counter = (ack.sealed.epoch, ack.sealed.sequence);
        let first = seen.insert((&ack.sealed.key, counter));
        let newest = newest.entry((&ack.gateway, &ack.sealed.key)).or_default();
        if first && counter < *newest {
            wrong.push(format!("{} at {} after {newest:?}", ack.sealed, ack.gateway));
        }
        *newest = counter.max(*newest);
    }
    wrong
}

/// Invariants that any process counted as violated, by asking while they run.
pub fn invariants(fleet: &Fleet) -> Result<Line> {
    let name = "plimsoll_invariant_violations_total";
    let mut violations = fleet.control_metric(name)?;
    for gateway in 0..fleet.gateways.len() {
        violations += fleet.gateway_metric(gateway, name)?;
    }
    let figures = format!("{violations} violations counted");
    Ok(Line {
        promise: "no invariant was violated, by the product's own count",
        held: violations == 0.0,
        figures,
    })
}

/// Prints the table; whether all of it held.
pub fn print(lines: &[Line]) -> bool {
    println!("\n  promise                                                        held   figures");
    for line in lines {
        let held = if line.held { "yes" } else { "NO" };
        println!("  {:<62} {held:<6} {}", line.promise, line.figures);
    }
    let kept = lines.iter().filter(|line| line.held).count();
    println!("\n  {kept} of {} promises kept", lines.len());
    kept == lines.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Sealed;

    fn ack(gateway: &str, epoch: u32, sequence: u64) -> Ack {
        let sealed = Sealed { key: "k".into(), epoch, sequence, readings: 1 };
        Ack { gateway: gateway.into(), device: "d".into(), reason: 0, sealed }
    }

    #[test]
    fn a_repeat_is_not_out_of_order_and_a_late_first_is() {
        assert!(
            out_of_order(&[ack("a", 0, 1), ack("a", 0, 2), ack("a", 0, 1), ack("a", 1, 0)])
                .is_empty()
        );
        assert_eq!(out_of_order(&[ack("a", 0, 2), ack("a", 0, 1)]).len(), 1);
        assert!(out_of_order(&[ack("a", 0, 2), ack("b", 0, 1)]).is_empty());
    }
}
