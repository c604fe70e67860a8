//! What a rollout over a million devices costs: `cargo run --release -p rollout --example wave_bench [DEVICES]`.

use model::{DeviceId, Digest, ProductId, RolloutId, Version};
use rollout::{Back, Draft, Event, Moment, Plan, Position, Share, State, Wave, open, step};
use std::time::Instant;

fn main() {
    let devices: u64 = std::env::args().nth(1).map_or(1_000_000, |n| n.parse().expect("a number"));
    let rollout = RolloutId::new("r-1").expect("a name");
    let ids: Vec<DeviceId> =
        (0..devices).map(|n| DeviceId::new(format!("pump-{n:07}")).expect("a name")).collect();
    println!("| what | over {devices} devices |\n| --- | --: |");

    let start = Instant::now();
    let plan = Plan::new(draft(rollout.clone(), devices)).expect("a good plan");
    let (state, _) = step(&plan, State::new(), Event::Command(rollout::Command::Start), Moment(1));
    println!("| a rollout is made and started | {:.1} µs |", start.elapsed().as_secs_f64() * 1e6);

    let start = Instant::now();
    let positions: Vec<Position> = ids.iter().map(|id| Position::of(&rollout, id)).collect();
    println!("| the position of every device | {:.0} ms |", start.elapsed().as_secs_f64() * 1e3);

    for percent in [1, 10, 50, 100] {
        let cohort = positions.clone();
        let count = Share::percent(percent).expect("a share").of(devices);
        let start = Instant::now();
        let opened = open(cohort, count).expect("somebody is in it");
        let took = start.elapsed().as_secs_f64() * 1e3;
        let reached = positions.iter().filter(|position| **position <= opened.last).count();
        assert_eq!(reached as u64, count, "exactly so many");
        println!("| a wave of {percent} % is opened over them | {took:.0} ms |");
        if percent == 1 {
            let start = Instant::now();
            let (_, effects) =
                step(&plan, state.clone(), Event::Opened { wave: 0, opened }, Moment(2));
            assert!(!effects.is_empty());
            println!("| the step that takes it | {:.1} µs |", start.elapsed().as_secs_f64() * 1e6);
        }
    }
}

fn draft(rollout: RolloutId, cohort: u64) -> Draft {
    let share = |percent| Share::percent(percent).expect("a share");
    let wave = |percent| Wave { share: share(percent), count_max: None, soak_ms: 3_600_000 };
    Draft {
        rollout,
        generation: 1,
        product: ProductId::new("pump-app").expect("a name"),
        version: Version::new(1, 1, 0),
        digest: Digest([7; 32]),
        cohort,
        waves: [1, 10, 50, 100].map(wave).to_vec(),
        bound: 1000,
        prove_within_ms: 3_600_000,
        come_within_ms: 86_400_000,
        success_min: share(99),
        quorum: share(90),
        signals: Vec::new(),
        ask_again_ms: 60_000,
        back: Back { by_itself: true, waves: vec![share(10), Share::ALL], at_a_time: 1000 },
    }
}
