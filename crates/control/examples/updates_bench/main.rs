//! What updates cost a control plane, through its real listener, registry, Director and evidence log. Prints Markdown.
//!
//! ```text
//! updates_bench cohort [DEVICES]     a rollout over a fleet (1000000) is made, and its waves are opened
//! updates_bench check-ins [DEVICES]  check-ins that change nothing, and such that get their device a permit (3000 in a round)
//! ```
//!
//! Each figure stands beside a peer's, of the same run: SQLite over the same rows of the same file, and nginx (`apt-get install
//! nginx-light sqlite3`) under the same calls. The load comes out of another process, so that its time is not the server's.

mod check_ins;
mod cohort;
#[path = "../../tests/it/contract.rs"]
mod contract;
mod load;
mod nginx;
mod plant;
mod process;
mod profile;
#[path = "../../tests/it/vendor.rs"]
#[expect(dead_code, reason = "the tests of its other half use the rest")]
mod vendor;
#[path = "../../tests/it/world.rs"]
#[expect(dead_code, reason = "the tests of its other half use the rest")]
mod world;

fn main() {
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_default();
    let first = args.next();
    let devices = |otherwise: usize| {
        first.as_ref().map_or(otherwise, |n| n.parse().expect("expected a number of devices"))
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match what.as_str() {
        "cohort" => runtime.block_on(cohort::run(devices(1_000_000))),
        "check-ins" => runtime.block_on(check_ins::run(devices(3000))),
        load::WORD => runtime.block_on(load::run(first.expect("a directory").as_ref())),
        other => panic!("expected `cohort` or `check-ins`, found {other:?}"),
    }
}

/// The one in the middle.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
