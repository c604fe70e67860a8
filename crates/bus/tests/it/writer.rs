//! The writer thread: order, groups, bounds, failure, end.

use crate::{DIR, SMALL, expect, open, open_with, payload, read_all, segments};
use bus::{Lane, LogConfig, LogError, Offset, Writer};
use disk::{Disk, File, SimDisk, SyncMode};
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const ROOMY: LogConfig =
    LogConfig { segment_bytes: 1 << 20, bytes_max: 1 << 24, record_bytes_max: 1 << 16 };

/// Far longer than anything here takes: a promise that is broken fails its test and does not hang it.
const PATIENCE: Duration = Duration::from_secs(20);

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn many_appenders_each_find_their_record_at_the_offset_they_were_told() {
    let disk = SimDisk::new(1);
    let writer = Writer::start(open(&disk), "test", 10_000);
    let told: Vec<(Offset, Vec<u8>)> = std::thread::scope(|scope| {
        let appenders: Vec<_> = (0..8_u64)
            .map(|appender| {
                let writer = writer.clone();
                scope.spawn(move || {
                    let append = async |n| {
                        let payload = format!("{appender} {n}").into_bytes();
                        (writer.append(payload.clone()).await.unwrap(), payload)
                    };
                    block(async {
                        let mut told = Vec::new();
                        for n in 0..200 {
                            told.push(append(n).await);
                        }
                        told
                    })
                })
            })
            .collect();
        let each = appenders.into_iter().map(|appender| appender.join().unwrap());
        each.inspect(|told| assert!(told.is_sorted(), "an appender's own order is kept"))
            .flatten()
            .collect()
    });
    let mut told = told;
    told.sort();
    assert_eq!(told.len(), 1600);
    assert_eq!(read_all(&writer.reader()).unwrap(), told, "dense, and each as told");
    assert_eq!(*writer.durable_end().borrow(), Offset(1600));
    assert!(!*writer.failed().borrow());
}

#[test]
fn the_order_of_submits_is_the_order_in_the_log() {
    let disk = SimDisk::new(1);
    let writer = Writer::start(open(&disk), "test", 1000);
    let answers: Vec<_> = (0..100).map(|n| writer.submit(payload(n)).unwrap()).collect();
    for (n, answer) in (0..100).zip(answers) {
        assert_eq!(answer.blocking_recv().unwrap().unwrap(), Offset(n));
        // Who is told can read.
        assert_eq!(writer.reader().read(Offset(n), 1, 0).unwrap(), expect(n..n + 1));
        assert!(*writer.durable_end().borrow() > Offset(n));
    }
    block(writer.close());
    assert_eq!(read_all(&open(&disk).reader()).unwrap(), expect(0..100));
}

/// A disk whose syncs wait until they are let through, and are counted.
#[derive(Clone, Debug)]
struct SlowDisk {
    disk: SimDisk,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    closed: bool,
    waiting: usize,
    syncs: usize,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        state.syncs += 1;
        self.moved.notify_all();
        while state.closed {
            state = self.moved.wait(state).unwrap();
        }
        state.waiting -= 1;
    }

    fn set_closed(&self, closed: bool) {
        self.state.lock().unwrap().closed = closed;
        self.moved.notify_all();
    }

    fn wait_for_a_sync(&self) {
        let state = self.state.lock().unwrap();
        let waiting = |state: &mut GateState| state.waiting == 0;
        let (_state, waited) = self.moved.wait_timeout_while(state, PATIENCE, waiting).unwrap();
        assert!(!waited.timed_out(), "no sync came");
    }

    fn syncs(&self) -> usize {
        self.state.lock().unwrap().syncs
    }
}

#[derive(Debug)]
struct SlowFile(Box<dyn File>, Arc<Gate>);

impl File for SlowFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.append(bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.1.pass();
        self.0.sync()
    }
    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}

impl Disk for SlowDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(SlowFile(self.disk.create(path)?, self.gate.clone())))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(SlowFile(self.disk.open(path)?, self.gate.clone())))
    }
    fn read_at(&self, path: &Path, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.disk.read_at(path, offset, into)
    }
    fn len(&self, path: &Path) -> io::Result<u64> {
        self.disk.len(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn write_again(&self, path: &Path, from: u64) -> io::Result<()> {
        self.disk.write_again(path, from)
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
}

fn slow(config: LogConfig, queue_max: usize) -> (Writer, Arc<Gate>, SimDisk) {
    let disk = SimDisk::new(1);
    let gate = Arc::new(Gate::default());
    let slow = Arc::new(SlowDisk { disk: disk.clone(), gate: gate.clone() });
    let log = bus::Log::open(slow, Path::new(DIR), config).unwrap();
    gate.set_closed(true);
    (Writer::start(log, "test", queue_max), gate, disk)
}

#[test]
fn nothing_is_acknowledged_or_read_before_the_sync_returned_and_one_sync_serves_all_that_waited() {
    let (writer, gate, _) = slow(ROOMY, 100);
    let before = gate.syncs();
    let mut first = writer.submit(payload(0)).unwrap();
    gate.wait_for_a_sync();
    let mut rest: Vec<_> = (1..50).map(|n| writer.submit(payload(n)).unwrap()).collect();
    assert!(first.try_recv().is_err());
    assert_eq!(writer.reader().end(), Offset(0), "not durable, not shown");
    assert_eq!(*writer.durable_end().borrow(), Offset(0));
    gate.set_closed(false);
    assert_eq!(first.blocking_recv().unwrap().unwrap(), Offset(0));
    for (n, answer) in (1..50).zip(rest.drain(..)) {
        assert_eq!(answer.blocking_recv().unwrap().unwrap(), Offset(n));
    }
    assert_eq!(gate.syncs() - before, 2, "one for the first, one for all that waited");
}

#[test]
fn a_full_queue_refuses_at_once_and_takes_again() {
    let (writer, gate, _) = slow(ROOMY, 3);
    let first = writer.submit(payload(0)).unwrap();
    gate.wait_for_a_sync();
    let waiting: Vec<_> = (1..4)
        .map(|n| {
            writer.room_for(payload(n).len()).expect("to ask takes no room");
            writer.submit(payload(n)).unwrap()
        })
        .collect();
    let refused = writer.submit(payload(4)).unwrap_err();
    assert!(matches!(refused, LogError::QueueFull { queued: 3, .. }));
    assert_eq!(writer.room_for(payload(4).len()).unwrap_err().to_string(), refused.to_string());
    assert!(refused.is_for_want_of_room());
    assert!(matches!(block(writer.append(payload(4))), Err(LogError::QueueFull { .. })));
    gate.set_closed(false);
    for (n, answer) in (0..4).zip([first].into_iter().chain(waiting)) {
        assert_eq!(answer.blocking_recv().unwrap().unwrap(), Offset(n));
    }
    assert_eq!(block(writer.append(payload(4))).unwrap(), Offset(4));
    assert_eq!(read_all(&writer.reader()).unwrap(), expect(0..5));
}

#[test]
fn the_queue_is_bounded_in_bytes_too() {
    let large = LogConfig { segment_bytes: 1 << 30, bytes_max: 1 << 30, record_bytes_max: 1 << 24 };
    let (writer, gate, _) = slow(large, 1000);
    let first = writer.submit(payload(0)).unwrap();
    gate.wait_for_a_sync();
    // One that is longer than the bound may wait alone.
    let long = writer.submit(vec![1; 1 << 24]).unwrap();
    assert!(matches!(writer.submit(vec![1; 1]), Err(LogError::QueueFull { queued: 1, .. })));
    gate.set_closed(false);
    assert_eq!(first.blocking_recv().unwrap().unwrap(), Offset(0));
    assert_eq!(long.blocking_recv().unwrap().unwrap(), Offset(1));
}

#[test]
fn what_waits_counts_against_the_bound_of_the_log() {
    let (writer, gate, disk) = slow(LogConfig { bytes_max: 1000, ..SMALL }, 100);
    let mut answers = vec![writer.submit(vec![0; 80]).unwrap()];
    gate.wait_for_a_sync();
    let refused = loop {
        match writer.submit(vec![0; 80]) {
            Ok(answer) if answers.len() < 100 => answers.push(answer),
            Ok(_) => panic!("100 records of 100 bytes are taken into 1,000"),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, LogError::Full { needs: 100, bytes_max: 1000, .. }));
    assert!(matches!(writer.submit(vec![0; 5000]), Err(LogError::TooLarge { len: 5000, .. })));
    gate.set_closed(false);
    let queued = answers.len() as u64;
    let results: Vec<_> =
        answers.into_iter().map(|answer| answer.blocking_recv().unwrap()).collect();
    // The head of a new segment may have taken the place of the last one.
    let taken = results.iter().take_while(|result| result.is_ok()).count() as u64;
    assert!(queued - taken <= 1 && (7..=9).contains(&taken), "{taken} of {queued}");
    for (n, result) in (0..).zip(results) {
        match result {
            Ok(offset) => assert_eq!(offset, Offset(n)),
            Err(e) => assert!(n >= taken && matches!(e, LogError::Full { .. })),
        }
    }
    // The reader catches up and trims: there is room again.
    writer.trim(Offset(taken));
    let (mut offset, start) = (block(writer.append(vec![0; 80])), Instant::now());
    while matches!(offset, Err(LogError::Full { .. })) && start.elapsed() < PATIENCE {
        std::thread::yield_now();
        offset = block(writer.append(vec![0; 80]));
    }
    assert_eq!(offset.unwrap(), Offset(taken));
    block(writer.close());
    assert!(open(&disk).first() > Offset(0));
}

#[test]
fn a_failed_sync_fails_all_that_waited_and_everything_after() {
    // INV-ACK-1
    for mode in [SyncMode::FailsFrom(0), SyncMode::FailsOnceAt(0)] {
        let (writer, gate, disk) = slow(ROOMY, 100);
        gate.set_closed(false);
        assert_eq!(block(writer.append(payload(0))).unwrap(), Offset(0));
        gate.set_closed(true);
        disk.set_sync_mode(mode);
        let in_flight = writer.submit(payload(1)).unwrap();
        gate.wait_for_a_sync();
        let waiting = writer.submit(payload(2)).unwrap();
        let reader = writer.reader();
        gate.set_closed(false);
        assert!(matches!(
            in_flight.blocking_recv().unwrap(),
            Err(LogError::Io { attempt: "sync", .. })
        ));
        assert!(matches!(waiting.blocking_recv().unwrap(), Err(LogError::Poisoned { .. })));
        let mut failed = writer.failed();
        block(failed.wait_for(|failed| *failed)).unwrap();
        assert!(matches!(writer.submit(payload(3)), Err(LogError::Poisoned { .. })));
        assert!(matches!(block(writer.append(payload(3))), Err(LogError::Poisoned { .. })));
        assert_eq!(*writer.durable_end().borrow(), Offset(1));
        assert_eq!(read_all(&reader).unwrap(), expect(0..1));
        block(writer.close());
    }
}

#[test]
fn a_full_disk_refuses_the_group_and_the_writer_goes_on() {
    let disk = SimDisk::new(1);
    let log = open_with(&disk, ROOMY);
    disk.set_capacity(log.bytes() + 50);
    let writer = Writer::start(log, "test", 100);
    for _ in 0..3 {
        let refused = block(writer.append(vec![1; 1000])).unwrap_err();
        assert!(matches!(refused, LogError::DiskFull { .. }) && refused.is_for_want_of_room());
    }
    assert!(!*writer.failed().borrow());
    disk.set_capacity(u64::MAX);
    assert_eq!(block(writer.append(payload(0))).unwrap(), Offset(0));
    assert_eq!(read_all(&writer.reader()).unwrap(), expect(0..1));
}

/// A sender does not overtake itself, whether it is the log or the disk that has no room, and at once or later.
#[test]
fn nothing_of_a_lane_is_taken_behind_what_found_no_room() {
    let (writer, gate, _) = slow(LogConfig { bytes_max: 1000, ..SMALL }, 100);
    let lane = Lane::new();
    let before = writer.submit_in(&lane, vec![0; 80]).unwrap();
    assert!(matches!(writer.submit_in(&lane, vec![0; 950]), Err(LogError::Full { .. })));
    let behind = writer.submit_in(&lane, vec![0; 1]).unwrap_err();
    assert!(matches!(behind, LogError::Behind) && behind.is_for_want_of_room());
    let other = writer.submit_in(&Lane::new(), vec![0; 1]).unwrap();
    gate.set_closed(false);
    assert_eq!(before.blocking_recv().unwrap().unwrap(), Offset(0), "it went before");
    assert_eq!(other.blocking_recv().unwrap().unwrap(), Offset(1));

    let (writer, gate, disk) = slow(SMALL, 100);
    let lane = Lane::new();
    let before = writer.submit_in(&lane, payload(0)).unwrap();
    gate.wait_for_a_sync();
    // As long as a segment may be: a group by itself.
    let long = writer.submit_in(&lane, vec![1; 580]).unwrap();
    let short = writer.submit_in(&lane, vec![1; 10]).unwrap();
    let other = writer.submit(payload(1)).unwrap();
    let used: u64 = segments(&disk).iter().map(|file| disk.len(file).unwrap()).sum();
    disk.set_capacity(used + 300);
    gate.set_closed(false);
    assert_eq!(before.blocking_recv().unwrap().unwrap(), Offset(0));
    assert!(matches!(long.blocking_recv().unwrap(), Err(LogError::DiskFull { .. })));
    assert!(matches!(short.blocking_recv().unwrap(), Err(LogError::Behind)));
    assert_eq!(other.blocking_recv().unwrap().unwrap(), Offset(1));
    assert!(matches!(writer.submit_in(&lane, vec![1]), Err(LogError::Behind)));
    assert_eq!(read_all(&writer.reader()).unwrap(), expect(0..2));
}

#[test]
fn close_commits_what_waits_and_then_the_log_can_be_opened_again() {
    let (writer, gate, disk) = slow(ROOMY, 100);
    let other = writer.clone();
    let answers: Vec<_> = (0..20).map(|n| writer.submit(payload(n)).unwrap()).collect();
    gate.set_closed(false);
    block(writer.close());
    for (n, answer) in (0..20).zip(answers) {
        assert_eq!(answer.blocking_recv().unwrap().unwrap(), Offset(n));
    }
    assert!(matches!(other.submit(payload(20)), Err(LogError::Closed { .. })));
    assert!(!*other.failed().borrow(), "an end is not a failure");
    block(other.close());
    assert_eq!(read_all(&open(&disk).reader()).unwrap(), expect(0..20));
}

#[test]
fn dropping_every_writer_commits_what_waits() {
    let (writer, gate, _) = slow(ROOMY, 100);
    let answer = writer.submit(payload(0)).unwrap();
    let reader = writer.reader();
    drop(writer);
    gate.set_closed(false);
    assert_eq!(answer.blocking_recv().unwrap().unwrap(), Offset(0));
    assert_eq!(read_all(&reader).unwrap(), expect(0..1));
}

#[test]
fn readers_go_on_while_the_writer_appends_begins_segments_and_trims() {
    let disk = SimDisk::new(1);
    let writer = Writer::start(open(&disk), "test", 10_000);
    std::thread::scope(|scope| {
        let ahead = writer.clone();
        scope.spawn(move || {
            block(async {
                for n in 0..3000 {
                    ahead.append(payload(n)).await.unwrap();
                }
            });
        });
        // One that follows and trims; one that reads from the start and is overtaken by the trims.
        let follower = writer.clone();
        scope.spawn(move || {
            let (reader, mut next) = (follower.reader(), 0);
            let mut end = follower.durable_end();
            while next < 3000 {
                block(end.wait_for(|end| end.0 > next)).unwrap();
                let read = reader.read(Offset(next), 100, 5000).unwrap();
                assert_eq!(read, expect(next..next + read.len() as u64));
                next += read.len() as u64;
                follower.trim(Offset(next));
            }
        });
        let reader = writer.reader();
        scope.spawn(move || {
            let start = Instant::now();
            while reader.first() < Offset(2900) {
                assert!(start.elapsed() < PATIENCE, "nothing is trimmed");
                let first = reader.first();
                match reader.read(first, 50, 5000) {
                    Ok(read) => assert_eq!(read, expect(first.0..first.0 + read.len() as u64)),
                    Err(LogError::Trimmed { .. }) => {}
                    Err(e) => panic!("{e}"),
                }
            }
        });
    });
    assert_eq!(writer.reader().end(), Offset(3000));
}
