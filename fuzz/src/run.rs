//! Runs one target: picks a kept input, changes it, looks how it ends.

use crate::memory;
use crate::mutate::{Random, mutate};
use crate::targets::{End, Target};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// No parser of ours may need so long for one message, even unoptimised on a loaded machine.
const INPUT_TIME_MAX: Duration = Duration::from_secs(2);

/// What a run came to.
#[derive(Debug, Default)]
pub struct Report {
    pub executions: u64,
    /// How many inputs got past the first parser: the rest of the target was tried this often.
    pub past_first: u64,
    /// How many were accepted to the end.
    pub accepted: u64,
    /// Every way in which an input ended, and how often.
    pub ends: BTreeMap<End, u64>,
    /// Inputs that ended in a way that none before had.
    pub found: Vec<Vec<u8>>,
    /// The most memory that one input took.
    pub peak_bytes: usize,
}

/// An input that broke a promise.
#[derive(Debug)]
pub struct Broken {
    pub input: Vec<u8>,
    pub what: String,
}

/// Tries every input of `corpus` as it is, then changed ones while `more` says so; it is given the number of
/// executions.
pub fn run(
    target: &Target,
    corpus: Vec<Vec<u8>>,
    seed: u64,
    mut more: impl FnMut(u64) -> bool,
) -> Result<Report, Broken> {
    let mut report = Report::default();
    // What is made once for all inputs (policies, tables) is not the first input's.
    let _ = catch_unwind(AssertUnwindSafe(|| (target.run)(&corpus[0])));
    for input in &corpus {
        execute(target, input, &mut report)?;
    }
    let mut corpus = corpus;
    let mut random = Random::new(seed);
    while more(report.executions) {
        let mut input = corpus[random.below(corpus.len())].clone();
        let other = random.below(corpus.len());
        mutate(&mut input, &corpus[other], target.len_max, &mut random);
        if execute(target, &input, &mut report)? {
            report.found.push(input.clone());
            corpus.push(input);
        }
    }
    Ok(report)
}

/// True if the input ended in a new way.
fn execute(target: &Target, input: &[u8], report: &mut Report) -> Result<bool, Broken> {
    let broken = |what: String| Broken { input: input.to_vec(), what };
    let began = Instant::now();
    let (result, peak) = memory::peak_of(|| catch_unwind(AssertUnwindSafe(|| (target.run)(input))));
    let end = result.map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
        broken(format!("it panics: {said}"))
    })?;
    if began.elapsed() > INPUT_TIME_MAX {
        return Err(broken(format!("it takes {} ms", began.elapsed().as_millis())));
    }
    let memory_max = target.memory_fixed + target.memory_per_byte * input.len();
    if peak > memory_max {
        let len = input.len();
        return Err(broken(format!(
            "{len} bytes take {peak} bytes of memory, more than {memory_max}"
        )));
    }
    report.executions += 1;
    report.past_first += u64::from(end.depth > 0);
    report.accepted += u64::from(end.is_accepted());
    report.peak_bytes = report.peak_bytes.max(peak);
    let times = report.ends.entry(end).or_default();
    *times += 1;
    Ok(*times == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{corpus, targets};

    #[test]
    fn every_target_accepts_its_seeds() {
        for target in targets::all() {
            for seed in (target.seeds)() {
                let end = (target.run)(&seed);
                assert!(end.is_accepted(), "{}: a seed ends as {end:?}", target.name);
            }
        }
    }

    /// Parsers bound their work and memory by the length of what they read, whatever it says of itself (INV-COST-1).
    #[test]
    fn every_target_survives_changed_inputs() {
        let seed = 1;
        for target in targets::all() {
            let corpus = corpus::load(&target).expect("the corpus can be read");
            let report =
                run(&target, corpus, seed, |executions| executions < 3000).unwrap_or_else(|b| {
                    panic!("{}, seed {seed}: {}: {:02x?}", target.name, b.what, b.input)
                });
            assert!(report.past_first > 30, "{}: nothing got past the first parser", target.name);
            assert!(report.ends.len() > 3, "{}: {:?}", target.name, report.ends);
        }
    }

    #[test]
    fn an_input_that_panics_is_told() {
        let target = Target {
            run: |bytes| {
                assert!(bytes.len() < 40, "too long for this parser");
                End::accepted(1)
            },
            seeds: || vec![vec![0; 30]],
            ..targets::all().remove(0)
        };
        let broken = run(&target, (target.seeds)(), 1, |_| true).expect_err("it breaks");
        assert!(broken.what.contains("too long for this parser"));
        assert!(broken.input.len() >= 40);
    }
}
