//! The promises of the backlog, attacked: the power is cut, and the process killed, at every write.

use super::*;
use crate::clock::FLOOR;
use crate::counter::Counters;
use crate::pack::{Closed, Pack, Sample, Why};
use crate::sources::replay::Recording;
use disk::{Cuts, Death, Disk as _, Report, SimDisk, SyncMode};
use model::envelope::{Algorithm, MESSAGE_BYTES_MAX};
use model::{KeyId, Reading, Timestamp, senml};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;
use trust::cose::{PublicKey, SecretKey, Signer};

const DIR: &str = "/d";
const KIB: usize = 1024;

/// A key whose signatures nobody checks here: making them would take most of the time.
struct Unsigned(PublicKey);

impl Signer for Unsigned {
    fn public(&self) -> &PublicKey {
        &self.0
    }

    fn sign(&self, _: &[u8]) -> Result<[u8; 64], SignError> {
        Ok([0; 64])
    }
}

static KEY: LazyLock<Arc<Unsigned>> = LazyLock::new(|| {
    let secret = SecretKey::from_random(Algorithm::Ed25519, &[7; 32]).unwrap();
    Arc::new(Unsigned(secret.public().clone()))
});

fn key() -> KeyId {
    KEY.public().id()
}

fn config(full: Full) -> BacklogConfig {
    BacklogConfig { dir: PathBuf::from(DIR), bytes_max: BYTES_MIN, full }
}

fn at(uptime_ms: u64) -> Stamp {
    Stamp { uptime_ms, wall: Timestamp(FLOOR.as_us() + uptime_ms as i64 * 1000), uncertainty_ms: 0 }
}

/// The readings of a row, as far as the backlog cares: its number.
fn payload(row: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![row as u8 | 1; len];
    bytes[..8].copy_from_slice(&row.to_le_bytes());
    bytes[len - 8..].copy_from_slice(&row.to_le_bytes());
    bytes
}

fn row_of(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().unwrap())
}

fn next(row: u64) -> Option<Position> {
    Some(Position { row, ..Position::default() })
}

/// One life of a device: opened, with an epoch of its own.
struct Life {
    backlog: Backlog,
    sealer: Sealer,
    found: Found,
    now: u64,
    /// What the device itself holds to be durable, dropped or handed over in this life.
    known: Known,
}

/// What is known outside the device, over all its lives.
#[derive(Clone, Default)]
struct Known {
    /// What a commit was answered for.
    durable: BTreeMap<Counter, Vec<u8>>,
    /// What the gateway took.
    acknowledged: BTreeMap<Counter, Vec<u8>>,
    /// The rows of all packs, kept or dropped.
    rows: BTreeMap<Counter, u64>,
    epochs: Vec<u32>,
    /// What is pushed and not committed.
    pending: Vec<(u64, Counter)>,
}

impl Life {
    fn begin(disk: &SimDisk, full: Full, known: Known) -> Result<Self, BacklogError> {
        let (backlog, found) = Backlog::open(disk.shared(), config(full))?;
        let durable = backlog.newest().filter(|prior| prior.key == key());
        let dir = Path::new(DIR);
        let counters = Counters::begin(disk, dir, key(), durable.map(|prior| prior.counter));
        let counters = counters.map_err(|e| BacklogError::Io {
            attempt: "count in",
            path: dir.to_owned(),
            source: io::Error::other(e),
        })?;
        let mut known = known;
        known.epochs.push(counters.epoch());
        let sealer = Sealer::new(KEY.clone(), counters, backlog.newest());
        Ok(Self { backlog, sealer, found, now: 1_000_000, known })
    }

    fn push(&mut self, row: u64, len: usize) -> Result<Pushed, BacklogError> {
        self.now += 100;
        let stamp = at(self.now);
        let payload = payload(row, len);
        let pushed = self.backlog.push(&mut self.sealer, &payload, next(row + 1), &stamp)?;
        let counter = match pushed {
            Pushed::Kept { serial, counter } => {
                self.known.pending.push((serial, counter));
                counter
            }
            Pushed::Dropped { counter } => counter,
        };
        self.known.rows.insert(counter, row);
        Ok(pushed)
    }

    fn commit(&mut self) -> Result<(), BacklogError> {
        self.backlog.commit(&at(self.now))?;
        let pending = std::mem::take(&mut self.known.pending);
        for (serial, counter) in pending {
            if serial < self.backlog.outbox().end() {
                let record = self.backlog.outbox().shelf().record(serial)?;
                self.known.durable.extend(record.map(|(_, envelope)| (counter, envelope)));
            }
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), BacklogError> {
        self.now += 100;
        self.backlog.tick(&mut self.sealer, &at(self.now))?;
        self.commit()
    }

    /// The gateway takes the next so many.
    fn send(&mut self, count: usize) -> Result<(), BacklogError> {
        let outbox = self.backlog.outbox();
        let batch = outbox.read(outbox.below(), count, usize::MAX)?;
        for item in &batch.items {
            let header = open(&item.envelope).0;
            self.known.acknowledged.insert(header.counter, item.envelope.clone());
        }
        self.backlog.acknowledge(batch.next);
        Ok(())
    }
}

fn open(envelope: &[u8]) -> (model::Header, &[u8]) {
    let open = cose::open(envelope, MESSAGE_BYTES_MAX).expect("what was sealed opens");
    (open.header().clone(), open.payload_without_signature_check())
}

fn waiting(backlog: &Backlog) -> BTreeMap<Counter, Vec<u8>> {
    let outbox = backlog.outbox();
    let batch = outbox.read(0, usize::MAX, usize::MAX).unwrap();
    batch.items.into_iter().map(|item| (open(&item.envelope).0.counter, item.envelope)).collect()
}

fn stated<'a>(envelopes: impl Iterator<Item = &'a Vec<u8>>) -> Vec<LostRange> {
    envelopes
        .map(|envelope| open(envelope))
        .filter(|(header, _)| header.kind == Kind::LossNotice)
        .flat_map(|(_, payload)| decode_loss(payload).unwrap())
        .collect()
}

fn is_in(ranges: &[LostRange], counter: &Counter) -> bool {
    ranges
        .iter()
        .any(|r| r.epoch == counter.epoch && (r.first..=r.last).contains(&counter.sequence))
}

/// What must hold whenever the backlog was opened.
fn check(life: &Life) -> Result<(), String> {
    let Known { durable, acknowledged, epochs, .. } = &life.known;
    let waiting = waiting(&life.backlog);
    let stated = stated(waiting.values().chain(acknowledged.values()));
    // INV-REPLAY-2: epochs only grow, and no counter stands for two messages.
    if !epochs.is_sorted_by(|a, b| a < b) {
        return Err(format!("INV-REPLAY-2: epochs {epochs:?}"));
    }
    let mut all: BTreeMap<Counter, &Vec<u8>> = BTreeMap::new();
    for (counter, envelope) in durable.iter().chain(acknowledged).chain(&waiting) {
        if all.insert(*counter, envelope).is_some_and(|before| before != envelope) {
            return Err(format!("INV-REPLAY-2: {counter:?} stands for two messages"));
        }
    }
    // INV-ACK-1: what a commit was answered for is there, was handed over, or is stated.
    for (counter, envelope) in durable {
        let there = waiting.get(counter) == Some(envelope) || acknowledged.contains_key(counter);
        if !there && !is_in(&stated, counter) {
            return Err(format!("INV-ACK-1: {counter:?} was durable and is nowhere"));
        }
    }
    // What is stated as lost is never sent later. It may have been acknowledged, if the power went before the cursor
    // was written: whoever took it keeps it.
    if let Some(counter) = waiting.keys().find(|counter| is_in(&stated, counter)) {
        return Err(format!("{counter:?} is stated as lost and still waits"));
    }
    // Up to the newest that is durable in each epoch nothing is missing.
    let mut ends: BTreeMap<u32, u64> = BTreeMap::new();
    let newest = life.backlog.newest().map(|prior| prior.counter);
    for counter in all.keys().copied().chain(newest) {
        let end = ends.entry(counter.epoch).or_default();
        *end = counter.sequence.max(*end);
    }
    for (epoch, end) in ends {
        for sequence in 0..=end {
            let counter = Counter { epoch, sequence };
            if !all.contains_key(&counter) && !is_in(&stated, &counter) {
                return Err(format!("{counter:?} is below the end {end} and nothing tells of it"));
            }
        }
    }
    rows_once(life, &all, &stated)
}

/// Each row up to where the recording goes on was sealed once, and none behind it.
fn rows_once(
    life: &Life,
    all: &BTreeMap<Counter, &Vec<u8>>,
    stated: &[LostRange],
) -> Result<(), String> {
    let mut times: BTreeMap<u64, u32> = BTreeMap::new();
    let sealed = all.values().filter_map(|envelope| {
        let (header, payload) = open(envelope);
        (header.kind == Kind::Readings).then(|| row_of(payload))
    });
    let lost = |counter: &Counter| !all.contains_key(counter) && is_in(stated, counter);
    let dropped = life.known.rows.iter().filter(|(counter, _)| lost(counter)).map(|(_, row)| *row);
    sealed.chain(dropped).for_each(|row| *times.entry(row).or_default() += 1);
    let goes_on = life.backlog.position().map_or(0, |position| position.row);
    for row in 0..goes_on.max(times.last_key_value().map_or(0, |(row, _)| row + 1)) {
        let times = times.get(&row).copied().unwrap_or(0);
        if times != u32::from(row < goes_on) {
            return Err(format!("row {row}, going on at {goes_on}, was sealed {times} times"));
        }
    }
    Ok(())
}

fn fresh(disk: &SimDisk) {
    disk.create_dir_all(Path::new(DIR)).unwrap();
    Counters::create(disk, Path::new(DIR), key()).unwrap();
}

/// A device samples while its gateway is there, then away for long, then there again; now and then an envelope is refused.
fn script(life: &mut Life, rows: u64, len: usize) -> Result<(), BacklogError> {
    let start = life.backlog.position().map_or(0, |position| position.row);
    for row in start..start + rows {
        life.push(row, len + (row % 7) as usize)?;
        // Groups of one and two.
        if row % 3 != 0 {
            life.commit()?;
        }
        if row % 9 == 4 {
            life.backlog.refuse(life.backlog.outbox().below() + 1);
        }
        if row % 4 == 0 {
            life.tick()?;
        }
        if row < start + rows / 6 || row > start + 5 * rows / 6 {
            life.send(2)?;
        }
    }
    life.tick()
}

fn cuts(full: Full, sync: SyncMode, seeds: std::ops::Range<u64>, rows: u64, len: usize) -> Report {
    let recover = |disk: &SimDisk| {
        let _ = Life::begin(disk, full, Known::default());
    };
    Cuts::over(seeds).on(sync).recovering(&recover).run(
        |disk| {
            let known = RefCell::new(Known::default());
            let run = || -> Result<(), BacklogError> {
                disk.create_dir_all(Path::new(DIR))
                    .map_err(|_| BacklogError::TooSmall { found: 0 })?;
                Counters::create(disk, Path::new(DIR), key())
                    .map_err(|_| BacklogError::TooSmall { found: 0 })?;
                let mut life = Life::begin(disk, full, Known::default())?;
                let ran = script(&mut life, rows, len);
                known.replace(std::mem::take(&mut life.known));
                ran
            };
            let _ = run();
            known.into_inner()
        },
        |disk, mut known| {
            known.pending.clear();
            let epochs = known.epochs.len();
            let mut life = match Life::begin(disk, full, known) {
                // The key was not made yet: there was nothing to keep.
                Err(BacklogError::Io { attempt: "count in", .. }) if epochs == 0 => return Ok(()),
                life => life.map_err(|e| format!("{e:?}"))?,
            };
            check(&life).map_err(|e| format!("as found: {e}"))?;
            script(&mut life, rows / 2, len).map_err(|e| format!("{e:?}"))?;
            check(&life).map_err(|e| format!("gone on: {e}"))
        },
    )
}

#[test]
fn a_cut_anywhere_loses_and_doubles_nothing_while_the_gateway_is_there() {
    cuts(Full::Oldest, SyncMode::Honest, 0..6, 24, 400).holds("agent backlog, room for all");
}

#[test]
fn a_cut_anywhere_leaves_an_exact_account_when_the_oldest_are_dropped() {
    cuts(Full::Oldest, SyncMode::Honest, 0..2, 48, 30 * KIB).holds("agent backlog, oldest dropped");
}

#[test]
fn a_cut_anywhere_leaves_an_exact_account_when_the_newest_are_dropped() {
    cuts(Full::Newest, SyncMode::Honest, 0..2, 48, 30 * KIB).holds("agent backlog, newest dropped");
}

#[test]
fn a_cut_anywhere_leaves_an_exact_account_when_the_backlog_is_thinned() {
    cuts(Full::EveryNth(3), SyncMode::Honest, 0..2, 30, 30 * KIB).holds("agent backlog, thinned");
}

#[test]
fn a_sync_that_does_nothing_is_found_out() {
    for full in [Full::Oldest, Full::Newest, Full::EveryNth(3)] {
        let report = cuts(full, SyncMode::Lies, 0..1, 24, 4 * KIB);
        assert!(
            report.broken.iter().any(|broken| broken.death == Death::PowerCut),
            "{full:?}: the tests above would pass with a disk that loses what it promised to keep"
        );
    }
}

#[test]
fn a_sync_that_fails_stops_the_device_and_nothing_that_was_promised_is_lost() {
    let mut stopped = 0;
    for n in 8..40 {
        let disk = SimDisk::new(n);
        fresh(&disk);
        let mut life = Life::begin(&disk, Full::Oldest, Known::default()).unwrap();
        disk.set_cut(disk::Cut::Never);
        disk.set_sync_mode(SyncMode::FailsOnceAt(n));
        let ran = script(&mut life, 40, 600);
        // A cursor that could not be written stops nobody.
        stopped += u32::from(matches!(ran, Err(BacklogError::Log(_))));
        let mut known = life.known;
        known.pending.clear();
        disk.cut_now();
        disk.reboot();
        disk.set_sync_mode(SyncMode::Honest);
        check(&Life::begin(&disk, Full::Oldest, known).unwrap()).unwrap();
    }
    assert!(stopped > 20, "{stopped}");
}

/// Fills the backlog while the gateway is away, and returns what it then holds.
fn filled(full: Full, rows: u64, len: usize) -> (SimDisk, Life) {
    let disk = SimDisk::new(1);
    fresh(&disk);
    let mut life = Life::begin(&disk, full, Known::default()).unwrap();
    for row in 0..rows {
        life.push(row, len).unwrap();
        life.tick().unwrap();
    }
    (disk, life)
}

fn rows_waiting(life: &Life) -> Vec<u64> {
    let mut rows: Vec<u64> = waiting(&life.backlog)
        .values()
        .map(|envelope| open(envelope))
        .filter(|(header, _)| header.kind == Kind::Readings)
        .map(|(_, payload)| row_of(payload))
        .collect();
    rows.sort_unstable();
    rows
}

#[test]
fn a_full_backlog_keeps_the_newest_when_told_to_drop_the_oldest() {
    let (disk, life) = filled(Full::Oldest, 100, 30 * KIB);
    check(&life).unwrap();
    let rows = rows_waiting(&life);
    assert_eq!(rows.last(), Some(&99));
    assert!(rows.len() > 20 && rows.is_sorted_by(|a, b| b - a == 1), "{rows:?}");
    assert!(bytes_below(&disk) <= BYTES_MIN, "{}", bytes_below(&disk));
    assert_eq!(life.backlog.counts().dropped_full, 100 - rows.len() as u64);
}

#[test]
fn a_full_backlog_keeps_the_oldest_when_told_to_drop_the_newest() {
    let (disk, life) = filled(Full::Newest, 100, 30 * KIB);
    let rows = rows_waiting(&life);
    assert_eq!(rows.first(), Some(&0));
    assert!(rows.len() > 20 && rows.is_sorted_by(|a, b| b - a == 1), "{rows:?}");
    assert!(bytes_below(&disk) <= BYTES_MIN);
    assert_eq!(life.backlog.counts().dropped_full, 100 - rows.len() as u64);
    // Full for 14 s: stated after 1, 2 and 4 s more. The reserve must last.
    assert_eq!(life.backlog.counts().notices, 3);
    // What is not stated yet is stated when there is room.
    let mut life = life;
    assert!(life.backlog.has_unstated());
    life.send(10).unwrap();
    life.push(100, 500).unwrap();
    life.tick().unwrap();
    check(&life).unwrap();
    assert!(!life.backlog.has_unstated());
}

#[test]
fn a_full_backlog_keeps_a_share_of_all_when_told_to_drop_every_second() {
    let (disk, life) = filled(Full::EveryNth(2), 60, 30 * KIB);
    check(&life).unwrap();
    let rows = rows_waiting(&life);
    assert!(life.backlog.counts().thinned > 3);
    assert_eq!(rows.last(), Some(&59));
    assert!(rows.len() > 5 && rows[0] < 10, "it reaches back to the start: {rows:?}");
    assert!(bytes_below(&disk) <= BYTES_MIN);
    // All old notices are folded into the last ones.
    let notices = waiting(&life.backlog).len() - rows.len();
    assert_eq!(notices, 1);
}

fn bytes_below(disk: &SimDisk) -> u64 {
    let mut bytes = 0;
    for slot in ["0", "1", "2"] {
        let dir = Path::new(DIR).join("backlog").join(slot);
        let names = disk.list(&dir).unwrap_or_default();
        bytes += names.iter().map(|name| disk.len(&dir.join(name)).unwrap()).sum::<u64>();
    }
    bytes
}

#[test]
fn the_first_message_of_an_epoch_names_the_last_that_was_durable_before() {
    let disk = SimDisk::new(1);
    fresh(&disk);
    let mut known = Known::default();
    let mut newest = None;
    for _ in 0..3 {
        let mut life = Life::begin(&disk, Full::Oldest, known).unwrap();
        for row in 0..3 {
            life.push(row, 100).unwrap();
        }
        life.commit().unwrap();
        let epoch = life.sealer.epoch();
        let priors: Vec<Option<Prior>> = waiting(&life.backlog)
            .iter()
            .filter(|(counter, _)| counter.epoch == epoch)
            .map(|(_, envelope)| open(envelope).0.prior)
            .collect();
        assert_eq!(priors, [newest, None, None]);
        newest = Some(Prior { key: key(), counter: Counter { epoch, sequence: 2 } });
        known = life.known;
        disk.restart();
    }
}

#[test]
fn a_dropped_link_between_epochs_is_carried_on_by_the_notice() {
    let disk = SimDisk::new(1);
    fresh(&disk);
    let mut life = Life::begin(&disk, Full::Oldest, Known::default()).unwrap();
    life.push(0, 100).unwrap();
    life.commit().unwrap();
    let newest = life.backlog.newest();
    disk.restart();
    let mut life = Life::begin(&disk, Full::Oldest, life.known).unwrap();
    for row in 1..60 {
        life.push(row, 30 * KIB).unwrap();
        life.tick().unwrap();
    }
    let links: Vec<Prior> =
        waiting(&life.backlog).values().filter_map(|e| open(e).0.prior).collect();
    assert_eq!(links, Vec::from_iter(newest));
    check(&life).unwrap();
}

#[test]
fn a_full_disk_drops_the_newest_says_so_and_goes_on_when_there_is_room() {
    for full in [Full::Oldest, Full::Newest, Full::EveryNth(2)] {
        let disk = SimDisk::new(1);
        fresh(&disk);
        let mut life = Life::begin(&disk, full, Known::default()).unwrap();
        for row in 0..4 {
            life.push(row, 2 * KIB).unwrap();
            life.commit().unwrap();
        }
        disk.set_capacity(bytes_below(&disk) + 3 * KIB as u64);
        for row in 4..40 {
            life.push(row, 2 * KIB).unwrap();
            life.tick().unwrap();
        }
        let counts = life.backlog.counts();
        assert!(counts.dropped_disk_full > 30, "{full:?}: {counts:?}");
        assert!(rows_waiting(&life).len() < 8);
        disk.set_capacity(u64::MAX);
        life.now += 2_000;
        for row in 40..44 {
            life.push(row, 2 * KIB).unwrap();
            life.tick().unwrap();
        }
        check_lost_rows(&life, 44);
        // And again as the next process finds it.
        let known = life.known;
        disk.restart();
        check_lost_rows(&Life::begin(&disk, full, known).unwrap(), 44);
    }
}

/// The backlog at its limit and the disk full at once, with every amount of room around where thinning begins to work:
/// it finds none for the copy, for its records, for the notices, or for the name of the slot.
#[test]
fn a_full_disk_under_a_full_backlog_drops_the_newest_and_thins_when_there_is_room() {
    const FULL: Full = Full::EveryNth(2);
    let thinned = |room: u64| -> bool {
        let (disk, mut life) = filled(FULL, 12, 30 * KIB);
        assert_eq!(life.backlog.counts().thinned, 0);
        let (bytes, limit) = life.backlog.fill();
        assert!(bytes + 33 * KIB as u64 > limit, "the next one does not fit: {bytes} of {limit}");
        disk.set_capacity(disk.used() + room);
        for row in 12..20 {
            life.push(row, 30 * KIB).unwrap_or_else(|e| panic!("{room} bytes: {e:?}"));
            life.tick().unwrap_or_else(|e| panic!("{room} bytes: {e:?}"));
        }
        let thinned = life.backlog.counts().thinned > 0;
        if !thinned {
            assert_eq!(rows_waiting(&life), Vec::from_iter(0..12), "{room} bytes");
            assert!(disk.used() <= bytes_below(&disk) + KIB as u64, "the copy gave its room back");
        }
        disk.set_capacity(u64::MAX);
        life.now += 61_000;
        for row in 20..24 {
            life.push(row, 30 * KIB).unwrap();
            life.tick().unwrap();
        }
        assert!(life.backlog.counts().thinned > 0, "{room} bytes");
        check_lost_rows(&life, 24);
        let known = life.known;
        disk.restart();
        check_lost_rows(&Life::begin(&disk, FULL, known).unwrap(), 24);
        thinned
    };
    let (mut too_little, mut enough) = (0, 1 << 20);
    assert!(!thinned(too_little) && thinned(enough));
    while enough - too_little > 1 {
        let between = (too_little + enough) / 2;
        if thinned(between) { enough = between } else { too_little = between }
    }
    // From no room for the name alone down to none for the notices and the last records.
    for room in (enough.saturating_sub(100)..enough).chain((0..enough).step_by(5_000)).chain(0..50)
    {
        assert!(!thinned(room), "{room} of {enough} bytes");
    }
}

/// As `check`, where sealed envelopes may have been lost too: then their rows are known by counter only.
fn check_lost_rows(life: &Life, rows: usize) {
    let envelopes = waiting(&life.backlog);
    let stated = stated(envelopes.values());
    let newest = life.backlog.newest().unwrap().counter;
    let mut there = 0;
    for sequence in 0..=newest.sequence {
        let counter = Counter { sequence, epoch: 1 };
        let waits = envelopes.contains_key(&counter);
        assert_ne!(waits, is_in(&stated, &counter), "{counter:?}");
        there += usize::from(waits);
    }
    let lost = newest.sequence as usize + 1 - there;
    let notices = life.backlog.counts().notices as usize;
    assert!(rows_waiting(life).len() + lost + notices >= rows);
}

#[test]
fn what_the_gateway_refuses_for_good_is_stated_once_and_never_sent_again() {
    let disk = SimDisk::new(1);
    fresh(&disk);
    let mut life = Life::begin(&disk, Full::Oldest, Known::default()).unwrap();
    for row in 0..6 {
        life.push(row, 100).unwrap();
    }
    life.commit().unwrap();
    for serial in [0, 2, 3, 99] {
        life.backlog.refuse(serial);
    }
    life.tick().unwrap();
    assert_eq!(rows_waiting(&life), [1, 4, 5]);
    assert_eq!(life.backlog.counts().dropped_refused, 3);
    let refused = stated(waiting(&life.backlog).values());
    let ranges: Vec<_> = refused.iter().map(|r| (r.first, r.last, r.cause)).collect();
    assert_eq!(ranges, [(0, 0, LossCause::Refused), (2, 3, LossCause::Refused)]);
    // The first is done by being stated, so only what follows waits; after a restart too.
    assert_eq!(life.backlog.outbox().below(), 1);
    life.backlog.refuse(2);
    life.now += 5_000;
    life.tick().unwrap();
    assert_eq!(life.backlog.counts().notices, 1, "a serial that was stated is not stated again");
    disk.restart();
    let life = Life::begin(&disk, Full::Oldest, Known::default()).unwrap();
    assert_eq!(rows_waiting(&life), [1, 4, 5]);
    assert_eq!(life.found.waiting, 4);
}

#[test]
fn a_gateway_that_refuses_every_notice_is_sent_ever_fewer() {
    let disk = SimDisk::new(1);
    fresh(&disk);
    let mut life = Life::begin(&disk, Full::Oldest, Known::default()).unwrap();
    life.push(0, 100).unwrap();
    life.commit().unwrap();
    for _ in 0..10_000 {
        let outbox = life.backlog.outbox();
        for item in outbox.read(0, 64, usize::MAX).unwrap().items {
            life.backlog.refuse(item.serial);
        }
        life.tick().unwrap();
    }
    // 1,000 seconds: after 1, 2, 4, ... 512 s, and the first two.
    let notices = life.backlog.counts().notices;
    assert!((8..=11).contains(&notices), "{notices}");
}

#[test]
fn a_damaged_record_is_stepped_over_and_stated() {
    let disk = SimDisk::new(1);
    fresh(&disk);
    let mut life = Life::begin(&disk, Full::Oldest, Known::default()).unwrap();
    for row in 0..200 {
        life.push(row, KIB).unwrap();
        life.commit().unwrap();
    }
    // A bit of row 20 turns, in a segment that is closed.
    let slot = Path::new(DIR).join("backlog/0");
    let name = disk.list(&slot).unwrap().into_iter().next().unwrap();
    let path = slot.join(name);
    let mut bytes = disk.read(&path, 1 << 20).unwrap();
    let needle = payload(20, KIB);
    let place = bytes.windows(KIB).position(|window| window == needle).unwrap();
    bytes[place + 500] ^= 4;
    disk::replace(&disk, &path, &bytes).unwrap();
    disk.restart();

    let mut life = Life::begin(&disk, Full::Oldest, Known::default()).unwrap();
    assert_eq!((life.found.damaged, &life.found.set_aside), (1, &None));
    life.tick().unwrap();
    let expected: Vec<u64> = (0..200).filter(|row| *row != 20).collect();
    assert_eq!(rows_waiting(&life), expected);
    let ranges = stated(waiting(&life.backlog).values());
    let ranges: Vec<_> = ranges.iter().map(|r| (r.epoch, r.first, r.last, r.cause)).collect();
    assert_eq!(ranges, [(1, 20, 20, LossCause::Unreadable)]);
}

#[test]
fn a_log_that_cannot_be_opened_is_set_aside_and_stated_as_far_as_the_cursor_knows() {
    let disk = SimDisk::new(1);
    fresh(&disk);
    let mut life = Life::begin(&disk, Full::Oldest, Known::default()).unwrap();
    for row in 0..200 {
        life.push(row, KIB).unwrap();
        life.commit().unwrap();
    }
    life.send(50).unwrap();
    life.now += 2_000;
    life.tick().unwrap();
    let slot = Path::new(DIR).join("backlog/0");
    let name = disk.list(&slot).unwrap().into_iter().nth(1).unwrap();
    disk.remove(&slot.join(name)).unwrap();
    disk.sync_dir(&slot).unwrap();
    disk.restart();

    let mut life = Life::begin(&disk, Full::Oldest, Known::default()).unwrap();
    assert!(life.found.set_aside.is_some());
    assert_eq!(life.backlog.position(), next(200));
    life.push(200, KIB).unwrap();
    life.commit().unwrap();
    let ranges = stated(waiting(&life.backlog).values());
    let ranges: Vec<_> = ranges.iter().map(|r| (r.epoch, r.first, r.last, r.cause)).collect();
    assert_eq!(ranges, [(1, 50, 199, LossCause::Unreadable)]);
    assert_eq!(rows_waiting(&life), [200]);
    assert!(!disk.list(&slot).unwrap().is_empty(), "kept for people to look at");
}

#[test]
fn a_lost_slot_file_is_made_up_for_by_the_newest_record() {
    let (disk, life) = filled(Full::EveryNth(2), 40, 30 * KIB);
    let rows = rows_waiting(&life);
    let known = life.known;
    disk.restart();
    disk::replace(&disk, &Path::new(DIR).join("backlog/current"), b"garbage").unwrap();
    let life = Life::begin(&disk, Full::EveryNth(2), known).unwrap();
    assert_eq!(rows_waiting(&life), rows);
    check(&life).unwrap();
}

#[test]
fn a_backlog_that_is_too_small_or_thinned_by_nothing_is_refused() {
    let disk = SimDisk::new(1);
    let opened = |bytes_max, full| {
        let config = BacklogConfig { dir: PathBuf::from(DIR), bytes_max, full };
        Backlog::open(disk.shared(), config).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(opened(BYTES_MIN, Full::Newest), Ok(()));
    assert_eq!(
        opened(BYTES_MIN - 1, Full::Newest),
        Err("a backlog of 1048575 bytes is too small: expected at least 1048576".into())
    );
    for n in [0, 1, 17] {
        assert_eq!(
            opened(BYTES_MIN, Full::EveryNth(n)),
            Err(format!("every {n}-th envelope cannot be dropped: expected 2 to 16"))
        );
    }
}

#[test]
fn a_record_of_a_later_version_stops_the_agent_and_stays() {
    let disk = SimDisk::new(1);
    fresh(&disk);
    let slot = Path::new(DIR).join("backlog/0");
    let mut log = Log::open(disk.shared(), &slot, log_config(&config(Full::Oldest))).unwrap();
    log.append(&[2; 100]).unwrap();
    log.commit().unwrap();
    let error = Backlog::open(disk.shared(), config(Full::Oldest)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "record 0 of the backlog cannot be understood; it is left untouched"
    );
    assert_eq!(log.reader().read(Offset(0), 1, 1000).unwrap()[0].1, [2; 100]);
}

/// Replays a recording into the backlog, in packs that end in the middle of rows, to its end or the first error.
fn replay(life: &mut Life, recording: &Recording) -> Result<(), BacklogError> {
    let from = recording.start(life.backlog.position());
    let mut rows = recording.rows(from).unwrap();
    let mut pack = Pack::default();
    let mut packs = 0;
    let mut push = |life: &mut Life, closed: Option<Closed>| -> Result<(), BacklogError> {
        let Some(closed) = closed else { return Ok(()) };
        life.now += 100;
        let (stamp, payload) = (at(life.now), senml::encode(&closed.readings));
        life.backlog.push(&mut life.sealer, &payload, closed.next, &stamp)?;
        packs += 1;
        // Groups of one and two.
        if packs % 3 != 0 { life.backlog.commit(&stamp) } else { Ok(()) }
    };
    let mut samples = 0;
    while let Some(row) = rows.next_row().unwrap() {
        for (i, cell) in row.cells.iter().enumerate() {
            let column = &recording.columns()[cell.column as usize];
            let reading = Reading {
                time: row.time.unwrap(),
                series: column.series.clone(),
                value: cell.value.clone(),
                unit: None,
            };
            let sample = Sample { reading, next: Some(row.after(i)) };
            let filled = pack.add(sample, life.now).unwrap();
            push(life, filled)?;
            samples += 1;
            if samples % 7 == 0 {
                push(life, pack.close(Why::Asked))?;
            }
        }
    }
    push(life, pack.close(Why::Asked))?;
    life.tick()
}

#[test]
fn a_cut_anywhere_replays_each_cell_of_a_recording_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("r.csv");
    let mut text = "time,a,b,c\n".to_owned();
    for s in 0..40 {
        let b = if s % 4 == 0 { String::new() } else { s.to_string() };
        text.push_str(&format!("{},{s},{b},{}.5\n", 1_704_164_645 + s, s * 2));
    }
    std::fs::write(&file, text).unwrap();
    let recording = Recording::open(&file).unwrap();
    let mut expected = Vec::new();
    let mut rows = recording.rows(recording.start(None)).unwrap();
    while let Some(row) = rows.next_row().unwrap() {
        let cells = row.cells.into_iter();
        expected.extend(cells.map(|c| format!("{:?} {} {}", row.time, c.column, c.value)));
    }
    expected.sort();

    let recover = |disk: &SimDisk| {
        let _ = Life::begin(disk, Full::Oldest, Known::default());
    };
    let workload = |disk: &SimDisk| {
        let run = || -> Result<(), BacklogError> {
            let made = disk
                .create_dir_all(Path::new(DIR))
                .map_err(drop)
                .and_then(|()| Counters::create(disk, Path::new(DIR), key()).map_err(drop));
            made.map_err(|()| BacklogError::TooSmall { found: 0 })?;
            replay(&mut Life::begin(disk, Full::Oldest, Known::default())?, &recording)
        };
        let _ = run();
    };
    let check = |disk: &SimDisk, (): ()| {
        let mut life = match Life::begin(disk, Full::Oldest, Known::default()) {
            // The key was not made yet.
            Err(BacklogError::Io { attempt: "count in", .. }) => return Ok(()),
            life => life.map_err(|e| format!("{e:?}"))?,
        };
        replay(&mut life, &recording).map_err(|e| format!("{e:?}"))?;
        let mut cells = Vec::new();
        for envelope in waiting(&life.backlog).values() {
            for reading in senml::decode(open(envelope).1).unwrap() {
                let columns = recording.columns().iter();
                let column = columns.take_while(|c| c.series != reading.series).count();
                cells.push(format!("{:?} {column} {}", Some(reading.time), reading.value));
            }
        }
        cells.sort();
        if cells == expected {
            Ok(())
        } else {
            Err(format!("{} cells of {}", cells.len(), expected.len()))
        }
    };
    Cuts::over(0..4).recovering(&recover).run(workload, check).holds("agent replay");
}
