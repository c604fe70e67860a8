//! What was promised against what is there, once every process has ended.

use crate::message::Sealed;
use crate::recorder::Ack;
use crate::scan::{self, Reading, SetApart};
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

/// One line of the table: a promise in plain words, whether it held, and the figures behind it.
#[derive(Clone, Debug)]
pub struct Line {
    pub promise: &'static str,
    pub held: bool,
    pub figures: String,
}

impl Line {
    /// A promise, its figures, and some of what is wrong with it.
    fn new(promise: &'static str, held: bool, mut figures: String, wrong: &[String]) -> Self {
        for example in wrong.iter().take(3) {
            figures += &format!("\n      {example}");
        }
        Self { promise, held, figures }
    }
}

/// The record of PUBACKs compared with a plain scan of the store's files.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    acked_messages: usize,
    acked_readings: usize,
    stored_readings: usize,
    /// Acknowledged, and neither in the store nor in quarantine: the message, and which of its readings.
    lost: BTreeSet<(Sealed, u32)>,
    /// In the store more than once.
    doubled: Vec<String>,
    /// What was set apart, by reason.
    quarantined: BTreeMap<String, usize>,
    /// How many messages stood behind an earlier one of their key and gateway, so that their order could be looked at.
    followers: usize,
    out_of_order: Vec<String>,
}

impl Comparison {
    pub fn with_store(acks: &[Ack], store: &Path) -> Result<Self> {
        Ok(Self::of(acks, scan::readings(store)?, &scan::quarantine(store)?))
    }

    fn of(acks: &[Ack], mut stored: Vec<Reading>, quarantine: &[SetApart]) -> Self {
        let mut out = Self { stored_readings: stored.len(), ..Self::default() };
        for message in quarantine {
            *out.quarantined.entry(message.reason.clone()).or_default() += 1;
        }
        let mut times = HashMap::new();
        for r in &stored {
            *times.entry((r.key.as_str(), r.epoch, r.sequence, r.index)).or_insert(0) += 1;
        }
        let set_apart: HashSet<_> =
            quarantine.iter().map(|m| (m.key.as_str(), m.epoch, m.sequence)).collect();
        let acked: HashSet<_> =
            acks.iter().filter(|ack| ack.took()).map(|ack| &ack.sealed).collect();
        out.acked_messages = acked.len();
        for sealed in acked {
            out.acked_readings += sealed.readings;
            let (key, epoch, sequence) = (sealed.key.as_str(), sealed.epoch, sealed.sequence);
            if set_apart.contains(&(key, epoch, sequence)) {
                continue;
            }
            let missing = (0..sealed.readings as u32)
                .filter(|index| !times.contains_key(&(key, epoch, sequence, *index)));
            out.lost.extend(missing.map(|index| (sealed.clone(), index)));
        }
        let doubled = times.iter().filter(|(_, n)| **n > 1);
        out.doubled = doubled.map(|(id, n)| format!("{id:?} is there {n} times")).collect();
        out.out_of_order = acked_out_of_order(acks);
        out.look_at_order_of(&mut stored);
        out
    }

    /// A gateway hands up its log in the log's order, and a shard takes in its bus in the bus's order. So of what one
    /// gateway had from one key, a later counter was neither received earlier nor put into an earlier file.
    /// (Which of two gateways brings a message first is nobody's promise, so the rows of each stand for themselves. A
    /// gateway's clock that is set back while it runs shows here as a fall.)
    fn look_at_order_of(&mut self, stored: &mut [Reading]) {
        let counter = |r: &Reading| (r.epoch, r.sequence);
        stored.sort_by(|a, b| {
            let of = |r: &Reading| (r.epoch, r.sequence, r.index);
            (&a.gateway, &a.key, of(a)).cmp(&(&b.gateway, &b.key, of(b)))
        });
        let of_one_key = stored
            .windows(2)
            .filter(|pair| (&pair[0].gateway, &pair[0].key) == (&pair[1].gateway, &pair[1].key));
        for pair in of_one_key {
            let [a, b] = pair else { unreachable!("windows of two") };
            self.followers += usize::from(counter(a) != counter(b));
            let fell_by = a.received_at_us - b.received_at_us;
            let (key, gateway) = (&b.key, &b.gateway);
            let place = format!("{key} {:?} by {gateway}", counter(b));
            if fell_by > 0 {
                self.out_of_order
                    .push(format!("{place} was received {fell_by} µs before {:?}", counter(a)));
            }
            if b.file_first < a.file_first {
                self.out_of_order
                    .push(format!("{place} is in a file before that of {:?}", counter(a)));
            }
        }
    }

    pub fn exactly_once(&self) -> Line {
        let figures = format!(
            "{} messages with {} readings acknowledged, {} readings stored; lost {}, doubled {}",
            self.acked_messages,
            self.acked_readings,
            self.stored_readings,
            self.lost.len(),
            self.doubled.len()
        );
        let lost = self.lost.iter().map(|(sealed, index)| format!("{sealed} reading {index}"));
        let wrong: Vec<_> = lost.chain(self.doubled.iter().cloned()).collect();
        // A run in which nothing was acknowledged has shown nothing.
        let held = self.acked_readings > 0 && wrong.is_empty();
        Line::new("every acknowledged reading is stored exactly once", held, figures, &wrong)
    }

    pub fn in_order(&self) -> Line {
        let wrong = &self.out_of_order;
        let figures = format!(
            "{} messages against the one before; {} out of order",
            self.followers,
            wrong.len()
        );
        let held = self.followers > 0 && wrong.is_empty();
        Line::new(
            "the order of each key is kept: acknowledged, received, stored",
            held,
            figures,
            wrong,
        )
    }

    pub fn quarantine_is_empty(&self) -> Line {
        let held = self.quarantined.is_empty();
        let figures = if held { "empty".to_owned() } else { format!("{:?}", self.quarantined) };
        Line::new("quarantine is empty: nothing that was sent is disbelieved", held, figures, &[])
    }

    /// What each victim of a SIGKILL did afterwards, and whether all is there that had been acknowledged by then.
    pub fn went_on(&self, kills: &[Kill]) -> Line {
        let outcomes: Vec<_> = kills.iter().map(|kill| self.outcome(kill)).collect();
        let held = !kills.is_empty() && outcomes.iter().all(Result::is_ok);
        let mut figures = format!("{} SIGKILLs", kills.len());
        for outcome in outcomes {
            figures += &format!("\n      {}", outcome.unwrap_or_else(|wrong| wrong));
        }
        Line { promise: "after SIGKILL each goes on where it was", held, figures }
    }

    fn outcome(&self, kill: &Kill) -> Result<String, String> {
        let name = kill.victim.name();
        let lost: HashSet<_> = self.lost.iter().map(|(sealed, _)| sealed).collect();
        let earlier: HashSet<_> =
            kill.before.iter().filter(|ack| ack.took()).map(|ack| &ack.sealed).collect();
        let missing: Vec<_> = earlier.iter().filter(|sealed| lost.contains(*sealed)).collect();
        if let Some(example) = missing.first() {
            let (missing, earlier) = (missing.len(), earlier.len());
            return Err(format!(
                "{name}: of {earlier} messages acknowledged before its end {missing} are missing: {example}"
            ));
        }
        let later = kill.after.iter().filter(|ack| ack.took() && !earlier.contains(&ack.sealed));
        match &kill.victim {
            Victim::Device(_) => {
                let begun = kill.begun().ok_or_else(|| format!("{name}: began no higher epoch"))?;
                match hole(&kill.after, &begun) {
                    Some(sequence) => Err(format!(
                        "{name}: sequence {sequence} of epoch {} was never acknowledged",
                        begun.old
                    )),
                    None => Ok(format!("{name}: from epoch {} to {}", begun.old, begun.new)),
                }
            }
            Victim::Gateway { gateway, witness } => {
                let of_witness = |ack: &&Ack| ack.gateway == *gateway && ack.device == *witness;
                match later.filter(of_witness).count() {
                    0 => Err(format!("{name}: acknowledged nothing of {witness} that is new")),
                    n => Ok(format!("{name}: acknowledged {n} messages of {witness}")),
                }
            }
            Victim::Control => {
                let stored = |ack: &&Ack| ack.sealed.readings > 0 && !lost.contains(&ack.sealed);
                match later.filter(stored).count() {
                    0 => Err(format!("{name}: took in nothing that is new")),
                    n => Ok(format!("{name}: took in {n} new messages")),
                }
            }
        }
    }
}

/// First acknowledgements of a key that came after a later one of the same gateway. (Between two gateways there is no
/// common order of lines in two records.)
fn acked_out_of_order(acks: &[Ack]) -> Vec<String> {
    let mut newest: HashMap<(&str, &str), (u32, u64)> = HashMap::new();
    let mut seen = HashSet::new();
    let mut wrong = Vec::new();
    for ack in acks.iter().filter(|ack| ack.took()) {
        let counter = (ack.sealed.epoch, ack.sealed.sequence);
        let first = seen.insert((&ack.sealed.key, counter));
        let newest = newest.entry((&ack.gateway, &ack.sealed.key)).or_default();
        if first && counter < *newest {
            wrong.push(format!("{} acknowledged by {} after {newest:?}", ack.sealed, ack.gateway));
        }
        *newest = counter.max(*newest);
    }
    wrong
}

/// One SIGKILL, and what the record showed of it.
#[derive(Clone, Debug)]
pub struct Kill {
    pub victim: Victim,
    /// The record when it was dead.
    pub before: Vec<Ack>,
    /// The record when it had gone on.
    pub after: Vec<Ack>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Victim {
    Device(String),
    /// The witness was with another gateway when this one died, and came to it afterwards: an acknowledgement of the
    /// witness cannot be one that the dead gateway had sent and that was still on its way.
    Gateway {
        gateway: String,
        witness: String,
    },
    Control,
}

impl Victim {
    fn name(&self) -> &str {
        match self {
            Self::Device(name) | Self::Gateway { gateway: name, .. } => name,
            Self::Control => "the control plane",
        }
    }
}

/// A key whose device began a higher epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    key: String,
    old: u32,
    new: u32,
}

impl Kill {
    /// The epoch that the device began after its end, under a key that it had before. `None`: none yet.
    pub fn begun(&self) -> Option<Begun> {
        let Victim::Device(device) = &self.victim else { return None };
        let newest = |acks: &[Ack]| {
            let mut newest = BTreeMap::new();
            for ack in acks.iter().filter(|ack| ack.took() && ack.device == *device) {
                let epoch: &mut u32 = newest.entry(ack.sealed.key.clone()).or_default();
                *epoch = ack.sealed.epoch.max(*epoch);
            }
            newest
        };
        let after = newest(&self.after);
        newest(&self.before).into_iter().find_map(|(key, old)| {
            let new = *after.get(&key)?;
            (new > old).then_some(Begun { key, old, new })
        })
    }
}

/// A sequence that was passed over in the epoch that ended. Messages are sent in order, so when one of the higher epoch was
/// acknowledged, every durable one of the old epoch was.
fn hole(acks: &[Ack], begun: &Begun) -> Option<u64> {
    let of_old = |sealed: &&Sealed| sealed.key == begun.key && sealed.epoch == begun.old;
    let sealed = acks.iter().filter(|ack| ack.took()).map(|ack| &ack.sealed);
    let sequences: BTreeSet<u64> = sealed.filter(of_old).map(|sealed| sealed.sequence).collect();
    (0..).zip(&sequences).find(|(expected, found)| expected != *found).map(|(expected, _)| expected)
}

/// Invariants that processes counted as violated.
pub fn invariants(violations: f64) -> Line {
    let figures = format!("{violations} violations counted by gateways, control plane and store");
    let promise = "no invariant was violated, by the product's own count";
    Line::new(promise, violations == 0.0, figures, &[])
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
mod tests;
