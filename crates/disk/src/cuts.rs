//! Cut at every write: run a workload once for each operation at which the power can be cut, or the process be killed,
//! and ask afterwards what must hold.
//!
//! ```
//! use disk::{Disk, SimDisk, cut_everywhere};
//! use std::path::Path;
//!
//! // The workload stops at its first error and returns what it was promised until then.
//! let workload = |disk: &SimDisk| {
//!     let path = Path::new("/count");
//!     let counted = |n: u8| disk::replace(disk, path, &[n]).is_ok();
//!     (1..=3).take_while(|n| counted(*n)).last()
//! };
//! // The check sees the disk as the next process finds it.
//! let check = |disk: &SimDisk, promised: Option<u8>| match disk.read(Path::new("/count"), 1) {
//!     Ok(found) if found.first().copied() >= promised => Ok(()),
//!     Err(_) if promised.is_none() => Ok(()),
//!     other => Err(format!("promised {promised:?}, found {other:?}")),
//! };
//! cut_everywhere(0..8, workload, check).holds("count");
//! ```

use crate::{Cut, SimDisk, SyncMode};
use std::fmt;
use std::ops::Range;

/// How the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// With the machine: what was not synced is kept, torn or lost.
    PowerCut,
    /// By itself: everything it wrote is seen by the next one, and only what was synced is durable.
    Killed,
}

/// What is run.
#[derive(Clone)]
pub struct Cuts<'a> {
    seeds: Range<u64>,
    sync: SyncMode,
    recover: Option<&'a dyn Fn(&SimDisk)>,
}

/// Each seed, each operation, each death, with an honest disk: see [`Cuts::run`].
pub fn cut_everywhere<T>(
    seeds: Range<u64>,
    workload: impl Fn(&SimDisk) -> T,
    check: impl Fn(&SimDisk, T) -> Result<(), String>,
) -> Report {
    Cuts::over(seeds).run(workload, check)
}

impl<'a> Cuts<'a> {
    /// A seed decides what survives a cut.
    pub fn over(seeds: Range<u64>) -> Self {
        Self { seeds, sync: SyncMode::Honest, recover: None }
    }

    /// On a disk that lies or fails: with [`SyncMode::Lies`] a test that is worth its name finds loss.
    pub fn on(mut self, sync: SyncMode) -> Self {
        self.sync = sync;
        self
    }

    /// What the next process does first (it opens what is there): its power is cut, once, at an operation that changes
    /// with the seed and the first cut, or at its end, before the check is made.
    pub fn recovering(mut self, recover: &'a dyn Fn(&SimDisk)) -> Self {
        self.recover = Some(recover);
        self
    }

    /// Runs the workload on a new disk for each seed: first undisturbed, to count its operations, then cut at each of
    /// them, by each death. The workload stops at its first error and returns what it was promised; the check then sees
    /// the disk as the next process finds it.
    pub fn run<T>(
        &self,
        workload: impl Fn(&SimDisk) -> T,
        check: impl Fn(&SimDisk, T) -> Result<(), String>,
    ) -> Report {
        let mut report = Report {
            points: 0,
            seeds: self.seeds.clone().count() as u64,
            runs: 0,
            broken: Vec::new(),
        };
        for seed in self.seeds.clone() {
            let whole = At { seed, operation: None, death: Death::PowerCut };
            let operations = self.run_once(whole, &workload, &check, &mut report);
            report.points = report.points.max(operations);
            for operation in 0..operations {
                for death in [Death::PowerCut, Death::Killed] {
                    let at = At { seed, operation: Some(operation), death };
                    self.run_once(at, &workload, &check, &mut report);
                }
            }
        }
        report
    }

    /// Returns how many operations the workload did.
    fn run_once<T>(
        &self,
        at: At,
        workload: &impl Fn(&SimDisk) -> T,
        check: &impl Fn(&SimDisk, T) -> Result<(), String>,
        report: &mut Report,
    ) -> u64 {
        // Says where, should the workload or the check panic.
        let _told = TellIfPanicking(at);
        let disk = SimDisk::new(at.seed);
        disk.set_sync_mode(self.sync);
        disk.set_cut(at.operation.map_or(Cut::Never, Cut::At));
        let promised = workload(&disk);
        let operations = disk.operations();
        disk.cut_now();
        at.death.befall(&disk);
        if let Some(recover) = self.recover {
            disk.set_cut(Cut::At((at.seed + at.operation.unwrap_or(0)) % RECOVERY_CUT_MAX));
            recover(&disk);
            disk.cut_now();
            Death::PowerCut.befall(&disk);
        }
        if let Err(what) = check(&disk, promised) {
            let At { seed, operation, death } = at;
            report.broken.push(Broken { seed, operation, death, what });
        }
        report.runs += 1;
        operations
    }
}

/// Opening what a cut left takes a handful of operations: cut, sync, make again, sync the directory.
const RECOVERY_CUT_MAX: u64 = 8;

impl Death {
    fn befall(self, disk: &SimDisk) {
        match self {
            Self::PowerCut => disk.reboot(),
            Self::Killed => disk.restart(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct At {
    seed: u64,
    operation: Option<u64>,
    death: Death,
}

struct TellIfPanicking(At);

impl Drop for TellIfPanicking {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("cut_everywhere: {:?}", self.0);
        }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
#[must_use]
pub struct Report {
    /// Operations of the workload: where it was cut.
    pub points: u64,
    pub seeds: u64,
    /// How often the check was made.
    pub runs: u64,
    pub broken: Vec<Broken>,
}

/// A check that failed.
#[derive(Clone, Debug)]
pub struct Broken {
    pub seed: u64,
    /// `None`: after the whole workload.
    pub operation: Option<u64>,
    pub death: Death,
    pub what: String,
}

impl Report {
    /// Prints what was done; panics if a check failed, or if there was nothing to cut.
    #[track_caller]
    pub fn holds(&self, what: &str) {
        println!("{what}: {} cut points, {} seeds, {} runs", self.points, self.seeds, self.runs);
        assert!(self.points > 0, "{what}: the workload changed nothing, so nothing was cut");
        if let Some(first) = self.broken.first() {
            panic!(
                "{what}: {} of {} runs broke the promise; the first: {first}",
                self.broken.len(),
                self.runs
            );
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, operation, death, what } = self;
        match operation {
            Some(operation) => write!(f, "seed {seed}, {death:?} at operation {operation}: {what}"),
            None => write!(f, "seed {seed}, {death:?} at the end: {what}"),
        }
    }
}
