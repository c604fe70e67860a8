//! While rows move from memory into files, a question sees each of them once.

use crate::plant::{Device, Running, START_US, readings};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// From the first question to the last: it takes some ten seconds.
const PATIENCE: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_is_never_seen_twice_and_never_vanishes_during_flushes() {
    const PACKS: u64 = 150;
    const READINGS: u64 = 6;
    // Each pack is a flush, or every other one.
    let running = Arc::new(Running::start(|config| config.flush.rows_max = 10).await);
    // Counted once they are durable on the bus, so what a question sees may be more, and never less than before.
    let done = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(watch::Sender::new(0u64));
    let ask = {
        let (running, done, asked) = (running.clone(), done.clone(), asked.clone());
        async move {
            let sql = "select count(*), count(distinct concat(key, '/', sequence, '/', \"index\")), \
                       count(distinct sequence), \
                       (select coalesce(sum(count), 0) from readings_1m) from readings";
            let mut seen = 0;
            let start = Instant::now();
            while !done.load(Ordering::Acquire) || seen < PACKS * READINGS {
                let row = running.ask(sql).await.unwrap().rows.remove(0);
                let [rows, distinct, packs, rolled_up] =
                    [0, 1, 2, 3].map(|i| row[i].as_u64().unwrap());
                assert_eq!(rows, distinct, "a row is seen twice");
                assert_eq!(rows, packs * READINGS, "a part of a pack is seen");
                assert_eq!(rows, rolled_up, "the rollup is of another instant");
                assert!(rows >= seen, "{seen} rows were there, and then {rows}");
                seen = rows;
                let what = "rows were put on the bus, and are not all seen";
                assert!(start.elapsed() < PATIENCE, "{} {what}: {seen}", PACKS * READINGS);
                asked.send_modify(|asked| *asked += 1);
            }
        }
    };
    let asking = tokio::spawn(ask);
    // All of one device, so that the rows of one shard are counted: shards step each by itself.
    let mut device = Device::new("pump-7", 1);
    for pack in 0..PACKS {
        let message = device.seal(&readings("t", START_US + pack as i64, READINGS as usize));
        running.put(&device.id, vec![device.entry(message)]).await;
        if pack % 4 == 3 {
            // Lets questions fall between steps, however fast this machine is.
            let before = *asked.borrow();
            let mut asked = asked.subscribe();
            while *asked.borrow_and_update() == before && !asking.is_finished() {
                let _ = tokio::time::timeout(Duration::from_secs(1), asked.changed()).await;
            }
        }
    }
    done.store(true, Ordering::Release);
    asking.await.unwrap();
    let steps = running.store.snapshot().version;
    println!("{} questions during {steps} steps", *asked.borrow());
    assert!(steps >= 20, "only {steps} steps");
}
