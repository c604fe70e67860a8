use super::*;
use disk::{Cuts, Disk as _, SimDisk, SyncMode};
use std::collections::BTreeSet;
use std::future::Future;
use trust::window::Look;

const KEY: KeyId = KeyId([3; 32]);

/// Small, so that a few messages fill segments and a few segments fill the spool.
fn config() -> SpoolConfig {
    SpoolConfig { bytes_max: 8 * 1024, segment_bytes: 1024, queue_max: 16, remember: 4 }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn claim(sequence: u64, digest: u8) -> Claim {
    let counter = Counter { epoch: 1, sequence };
    Claim { key: KEY, counter, digest: Digest([digest; 32]), fresh: true }
}

fn record(claim: &Claim) -> Record {
    record_of(claim, 200)
}

fn record_of(claim: &Claim, message_len: usize) -> Record {
    Record {
        device: DeviceId::new("pump-1").unwrap(),
        key: claim.key,
        counter: claim.counter,
        digest: claim.digest,
        received_at: Timestamp(1_700_000_000_000_000),
        uncertainty_ms: u32::MAX,
        fresh: claim.fresh,
        bundle: 7,
        message: vec![claim.digest.0[0]; message_len],
    }
}

fn open(disk: &SimDisk) -> Result<Spool, SpoolError> {
    open_with(disk, config())
}

fn open_with(disk: &SimDisk, config: SpoolConfig) -> Result<Spool, SpoolError> {
    let dir = Path::new("/gw");
    let made = disk.create_dir_all(dir);
    made.map_err(|source| KeptError::File { attempt: "create", path: dir.into(), source })?;
    Spool::open(disk.shared(), dir, config, Metrics::new())
}

/// A session, as far as the spool knows one.
struct Sender {
    inlet: Inlet,
    answers: mpsc::Receiver<(u64, Answer)>,
    place: u64,
}

impl Sender {
    fn new() -> Self {
        let (inbox, answers) = mpsc::channel(32);
        Self { inlet: Inlet::new(inbox), answers, place: 0 }
    }

    /// Offers a message, and does not wait for its answer.
    fn offer(&mut self, spool: &Spool, claim: &Claim, message_len: usize) -> Option<Answer> {
        self.place += 1;
        spool.offer(claim, &mut self.inlet, self.place, || record_of(claim, message_len))
    }

    /// Offers a message and waits; `None`: the disk failed before there was an answer.
    async fn ask(&mut self, spool: &Spool, claim: &Claim, message_len: usize) -> Option<Answer> {
        if let Some(answer) = self.offer(spool, claim, message_len) {
            return Some(answer);
        }
        self.answer(spool).await
    }

    async fn answer(&mut self, spool: &Spool) -> Option<Answer> {
        let mut failed = spool.failed();
        let (place, answer) = tokio::select! {
            answered = self.answers.recv() => answered?,
            _ = failed.wait_for(|failed| *failed) => return None,
        };
        assert!(place <= self.place);
        Some(answer)
    }
}

/// In a session of its own.
async fn ask(spool: &Spool, claim: Claim) -> Option<Answer> {
    Sender::new().ask(spool, &claim, 200).await
}

/// Bytes of all files.
fn used(disk: &SimDisk) -> u64 {
    let len = |dir: &str| -> u64 {
        let names = disk.list(Path::new(dir)).unwrap();
        names.iter().filter_map(|name| disk.len(&Path::new(dir).join(name)).ok()).sum()
    };
    len("/gw") + len("/gw/spool")
}

/// Hands up what control would take in one batch. Returns the sequences.
fn hand_up(spool: &Spool, records: usize) -> Result<Vec<u64>, SpoolError> {
    let batch = spool.next(records, 1 << 20)?;
    if let Some((last, _)) = batch.last() {
        let bytes = batch.iter().map(|(_, r)| r.message.len() as u64 + 100).sum();
        spool.answered_below(last.next(), bytes);
    }
    Ok(batch.iter().map(|(_, record)| record.counter.sequence).collect())
}

fn standing(spool: &Spool, claim: &Claim) -> Standing {
    spool.0.ledger().admission.look(claim)
}

#[test]
fn a_message_is_acknowledged_when_it_is_durable_and_a_repeat_is_not_stored_again() {
    let disk = SimDisk::new(1);
    run(async {
        let spool = open(&disk).unwrap();
        assert_eq!(ask(&spool, claim(1, 1)).await, Some(Answer::Accepted));
        assert_eq!(spool.end(), Offset(1));
        assert_eq!(ask(&spool, claim(1, 1)).await, Some(Answer::Accepted));
        assert_eq!(spool.end(), Offset(1), "a repeat takes no room");
        assert_eq!(ask(&spool, claim(1, 2)).await, Some(Answer::Refused(Refusal::Forged)));
        assert_eq!(spool.end(), Offset(1));
        assert_eq!(hand_up(&spool, 9).unwrap(), [1]);
        assert_eq!(spool.0.metrics.repeats.get(), 1);
        assert_eq!(spool.0.metrics.admitted_fresh.get(), 1);
    });
}

/// INV-REPLAY-1: who asks again while the first one waits hears the same answer, from one record.
#[test]
fn a_repeat_of_a_pending_message_waits_for_the_same_commit() {
    let disk = SimDisk::new(1);
    run(async {
        let spool = open(&disk).unwrap();
        let mut sender = Sender::new();
        for _ in 0..3 {
            assert_eq!(sender.offer(&spool, &claim(1, 1), 200), None);
        }
        let forged = sender.offer(&spool, &claim(1, 2), 200);
        assert_eq!(forged, Some(Answer::Refused(Refusal::Forged)));
        for place in 1..=3 {
            assert_eq!(sender.answers.recv().await, Some((place, Answer::Accepted)));
        }
        assert_eq!(spool.end(), Offset(1));
    });
}

#[test]
fn an_old_counter_is_late_and_becomes_history() {
    let disk = SimDisk::new(1);
    run(async {
        let spool = open(&disk).unwrap();
        for sequence in [10, 11, 3] {
            assert_eq!(ask(&spool, claim(sequence, 1)).await, Some(Answer::Accepted));
        }
        assert_eq!(spool.0.metrics.admitted_late.get(), 1);
        assert_eq!(hand_up(&spool, 9).unwrap(), [10, 11, 3], "the order is that of arrival");
    });
}

/// A full spool is said before the window moves, and has room again once control has answered.
#[test]
fn a_full_spool_refuses_and_takes_the_same_message_later() {
    let disk = SimDisk::new(1);
    run(async {
        let spool = open(&disk).unwrap();
        let mut sequence = 0;
        let refused = loop {
            match ask(&spool, claim(sequence, 1)).await.unwrap() {
                Answer::Accepted => sequence += 1,
                Answer::Refused(refusal) => break refusal,
            }
        };
        assert_eq!(refused, Refusal::SpoolFull);
        assert!(sequence > 10);
        assert_eq!(standing(&spool, &claim(sequence, 1)), Standing::Free { late: false });
        assert!(!disk.exists(Path::new("/gw/windows")).unwrap());
        while !hand_up(&spool, 4).unwrap().is_empty() {}
        spool.keep().unwrap();
        // The writer trims between two groups; a record that it has no room for yet tells when it has.
        while ask(&spool, claim(sequence, 1)).await == Some(Answer::Refused(Refusal::SpoolFull)) {
            spool.keep().unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(standing(&spool, &claim(sequence, 1)), Standing::Durable);
        assert_eq!(hand_up(&spool, 99).unwrap(), [sequence]);
    });
}

#[test]
fn a_full_disk_and_its_reserve_refuse_before_the_window_moves() {
    let disk = SimDisk::new(1);
    run(async {
        let spool = open(&disk).unwrap();
        assert_eq!(ask(&spool, claim(1, 1)).await, Some(Answer::Accepted));
        spool.set_low(true);
        let refused = Some(Answer::Refused(Refusal::DiskFull));
        assert_eq!(ask(&spool, claim(2, 1)).await, refused);
        assert_eq!(ask(&spool, claim(1, 1)).await, Some(Answer::Accepted), "repeats need no room");
        spool.set_low(false);
        disk.set_capacity(used(&disk) + 400);
        assert_eq!(ask(&spool, claim(2, 1)).await, Some(Answer::Accepted));
        assert_eq!(ask(&spool, claim(3, 1)).await, refused);
        assert_eq!(standing(&spool, &claim(3, 1)), Standing::Free { late: false });
        disk.set_capacity(u64::MAX);
        assert_eq!(ask(&spool, claim(3, 1)).await, Some(Answer::Accepted));
        assert_eq!(hand_up(&spool, 9).unwrap(), [1, 2, 3]);
    });
}

/// A long message finds no room, and the short one behind it would: the log would have the second before the first.
#[test]
fn nothing_of_a_session_is_taken_behind_what_found_no_room() {
    let behind = Some(Answer::Refused(Refusal::BehindRefused));
    let disk = SimDisk::new(1);
    run(async {
        // The spool's own bound.
        let spool = open(&disk).unwrap();
        let mut sequence = 0;
        while spool.0.writer.bytes() + 1200 < config().bytes_max {
            assert_eq!(ask(&spool, claim(sequence, 1)).await, Some(Answer::Accepted));
            sequence += 1;
        }
        let (long, short) = (claim(sequence, 1), claim(sequence + 1, 1));
        let mut sender = Sender::new();
        let full = Some(Answer::Refused(Refusal::SpoolFull));
        assert_eq!(sender.ask(&spool, &long, 1500).await, full);
        assert_eq!(sender.ask(&spool, &short, 1).await, behind);
        assert_eq!(sender.ask(&spool, &long, 1).await, behind, "until the session ends");
        let known = sender.ask(&spool, &claim(sequence - 1, 1), 200).await;
        assert_eq!(known, Some(Answer::Accepted), "what is durable needs no room");
        assert_eq!(standing(&spool, &short), Standing::Free { late: false });
        // Another session is another order.
        assert_eq!(Sender::new().ask(&spool, &short, 1).await, Some(Answer::Accepted));
    });
    let disk = SimDisk::new(1);
    run(async {
        // A disk that is full: the long message is a group by itself, and the next group has room.
        let spool = open(&disk).unwrap();
        assert_eq!(ask(&spool, claim(0, 1)).await, Some(Answer::Accepted));
        disk.set_capacity(used(&disk) + 400);
        let (long, short) = (claim(1, 1), claim(2, 1));
        let (mut sender, mut next_session) = (Sender::new(), Sender::new());
        assert_eq!(sender.offer(&spool, &long, 1000), None);
        // Both answers may come at once or later, as the disk is slower or faster than we are.
        let at_once = sender.offer(&spool, &short, 1);
        // The device comes again while the long one still waits.
        assert_eq!(next_session.offer(&spool, &long, 1000), None);
        let again_at_once = next_session.offer(&spool, &claim(3, 1), 1);
        for (sender, at_once) in [(&mut sender, at_once), (&mut next_session, again_at_once)] {
            let full = Some(Answer::Refused(Refusal::DiskFull));
            assert_eq!(sender.answer(&spool).await, full);
            let second = match at_once {
                None => sender.answer(&spool).await,
                at_once => at_once,
            };
            assert_eq!(second, behind);
        }
        assert_eq!(spool.end(), Offset(1));
        assert_eq!(ask(&spool, claim(1, 1)).await, Some(Answer::Accepted), "a shorter one fits");
        assert_eq!(hand_up(&spool, 9).unwrap(), [0, 1]);
    });
}

/// Waits for the writer's thread to have trimmed.
async fn begins_at(spool: &Spool, offset: Offset) {
    let trimmed = async {
        while spool.0.reader.first() != offset {
            tokio::task::yield_now().await;
        }
    };
    let patience = std::time::Duration::from_secs(20);
    tokio::time::timeout(patience, trimmed).await.expect("the log is trimmed");
}

/// What others have filled, the gateway empties as far as it is its own: control has answered, segments go.
#[test]
fn a_full_disk_does_not_keep_a_spool_from_giving_up_segments() {
    let disk = SimDisk::new(1);
    run(async {
        let spool = open(&disk).unwrap();
        for sequence in 0..12 {
            assert_eq!(ask(&spool, claim(sequence, 1)).await, Some(Answer::Accepted));
        }
        let full = used(&disk);
        disk.set_capacity(full);
        let refused = Some(Answer::Refused(Refusal::DiskFull));
        assert_eq!(ask(&spool, claim(12, 1)).await, refused);
        // Its own room serves for windows and cursor; what the segments leave is its own first, and then for others.
        assert_eq!(hand_up(&spool, 6).unwrap().len(), 6);
        spool.keep().unwrap();
        assert_eq!(spool.0.durable().cursor, Offset(6));
        begins_at(&spool, Offset(6)).await;
        spool.keep().unwrap();
        assert_eq!(ask(&spool, claim(12, 1)).await, Some(Answer::Accepted));

        // Somebody else has taken all of it. The windows on the disk reach far enough for some more segments.
        disk.set_capacity(0);
        reserve::give_up(&disk, Path::new("/gw")).unwrap();
        assert_eq!(hand_up(&spool, 6).unwrap().len(), 6);
        assert!(spool.keep().unwrap_err().is_for_want_of_room());
        begins_at(&spool, Offset(12)).await;
        assert_eq!(ask(&spool, claim(13, 1)).await, refused);
        assert!(!*spool.failed().borrow());

        // When there is room, everything is kept that was put off.
        disk.set_capacity(u64::MAX);
        spool.keep().unwrap();
        assert_eq!(spool.0.durable().cursor, Offset(12));
        assert_eq!(hand_up(&spool, 9).unwrap(), [12]);
        disk.set_capacity(0);
        assert!(spool.close().await.is_ok(), "an end on a full disk is an end");
    });
    // What the log no longer has was answered for, whatever the cursor on the disk says.
    disk.restart();
    run(async {
        let spool = open(&disk).unwrap();
        assert_eq!(spool.0.metrics.violations("INV-REPLAY-1"), 0);
        assert!(spool.cursor() >= spool.0.reader.first());
        assert_eq!(standing(&spool, &claim(12, 1)), Standing::Durable);
    });
}

/// INV-ACK-1: after a failed sync nobody is answered, and the process hears that it must stop.
#[test]
fn a_failed_sync_answers_nobody_and_is_told() {
    let disk = SimDisk::new(1);
    run(async {
        let spool = open(&disk).unwrap();
        assert_eq!(ask(&spool, claim(1, 1)).await, Some(Answer::Accepted));
        disk.set_sync_mode(SyncMode::FailsFrom(0));
        assert_eq!(ask(&spool, claim(2, 1)).await, None);
        assert!(*spool.failed().borrow());
        disk.set_sync_mode(SyncMode::Honest);
        assert_eq!(Sender::new().offer(&spool, &claim(3, 1), 200), None);
    });
}

/// What a run was promised: everything that it saw acknowledged, and everything that control answered for.
#[derive(Debug, Default)]
struct Promised {
    acked: Vec<u64>,
    handed: BTreeSet<u64>,
}

const MESSAGES: u64 = 30;

async fn live(spool: Spool, promised: &mut Promised) -> Option<()> {
    for sequence in 0..MESSAGES {
        match ask(&spool, claim(sequence, sequence as u8)).await? {
            Answer::Accepted => promised.acked.push(sequence),
            Answer::Refused(_) => return None,
        }
        if sequence % 3 == 2 {
            promised.handed.extend(hand_up(&spool, 2).ok()?);
            spool.keep().ok()?;
        }
    }
    spool.close().await.ok()
}

fn workload(disk: &SimDisk) -> Promised {
    let mut promised = Promised::default();
    run(async {
        let Ok(spool) = open(disk) else { return };
        live(spool.clone(), &mut promised).await;
        ends(spool).await;
    });
    promised
}

/// The thread of a dead process does nothing more to the disk.
async fn ends(spool: Spool) {
    spool.0.writer.clone().close().await;
}

fn check(disk: &SimDisk, promised: Promised) -> Result<(), String> {
    run(async {
        let spool = open(disk).map_err(|e| format!("cannot be opened: {e:?}"))?;
        if spool.0.metrics.violations("INV-REPLAY-1") > 0 {
            return Err("the windows do not reach the log".into());
        }
        let mut kept = Vec::new();
        loop {
            match hand_up(&spool, 7).map_err(|e| format!("cannot be read: {e:?}"))? {
                batch if batch.is_empty() => break,
                batch => kept.extend(batch),
            }
        }
        if !kept.is_sorted() {
            return Err(format!("out of order: {kept:?}"));
        }
        for sequence in &promised.acked {
            if !promised.handed.contains(sequence) && !kept.contains(sequence) {
                return Err(format!("{sequence} was acknowledged and is gone"));
            }
        }
        // What may be sent again after a lost PUBACK is known, and anything else under its counter is a forgery.
        for sequence in promised.acked.iter().rev().take(config().remember - 1) {
            let honest = claim(*sequence, *sequence as u8);
            let forged = claim(*sequence, 99);
            let found = (standing(&spool, &honest), standing(&spool, &forged));
            if found != (Standing::Durable, Standing::Forged) {
                return Err(format!("{sequence} is remembered as {found:?}"));
            }
        }
        Ok(())
    })
}

/// INV-ACK-1, INV-REPLAY-1: the power is cut, or the process killed, at every operation of thirty messages on their
/// way through spool, uplink, checkpoints and trims; then once more while it starts again.
#[test]
fn what_was_acknowledged_survives_a_cut_at_any_write() {
    let recover = |disk: &SimDisk| {
        run(async {
            if let Ok(spool) = open(disk) {
                let _ = spool.keep();
                ends(spool).await;
            }
        });
    };
    Cuts::over(0..2).recovering(&recover).run(workload, check).holds("spool and windows");
}

/// A disk that lies about its syncs must be found out, or the test above proves nothing.
#[test]
fn a_disk_that_lies_is_found_out() {
    let report = Cuts::over(0..2).on(SyncMode::Lies).run(workload, check);
    assert!(!report.broken.is_empty(), "a lying disk kept every promise");
    println!("a lying disk broke {} of {} runs", report.broken.len(), report.runs);
}

#[test]
fn the_run_that_is_cut_everywhere_trims_and_checkpoints() {
    let disk = SimDisk::new(1);
    let promised = workload(&disk);
    assert_eq!(promised.acked.len(), MESSAGES as usize);
    assert!(disk.exists(Path::new("/gw/windows")).unwrap());
    run(async {
        let spool = open(&disk).unwrap();
        assert!(spool.0.reader.first() > Offset(0), "segments were given up");
        assert_eq!(spool.cursor(), Offset(20));
        assert_eq!(spool.0.ledger().folded_to, Offset(MESSAGES));
    });
}

#[test]
fn files_that_are_damaged_or_another_spools_stop_the_start_with_their_names() {
    type Change = fn(&SimDisk);
    let table: &[(&str, &str, Change)] = &[
        ("a bit of the cursor", "`/gw/cursor` is damaged", |d| flip(d, "/gw/cursor", 2)),
        ("a bit of the windows", "`/gw/windows` is damaged", |d| flip(d, "/gw/windows", 40)),
        ("an empty cursor", "`/gw/cursor` is damaged", |d| {
            disk::replace(d, Path::new("/gw/cursor"), b"").unwrap();
        }),
        ("a version that is not known", "`/gw/cursor` is damaged", |d| {
            let bytes = kept::seal(|e| e.array(2)?.u8(2)?.u64(0).map(drop));
            disk::replace(d, Path::new("/gw/cursor"), &bytes).unwrap();
        }),
        ("a cursor beyond the end", "another spool's", |d| {
            disk::replace(d, Path::new("/gw/cursor"), &encode_cursor(Offset(99))).unwrap();
        }),
    ];
    for (what, words, change) in table {
        let disk = SimDisk::new(1);
        workload(&disk);
        change(&disk);
        let error = run(async { open(&disk).map(drop).unwrap_err().to_string() });
        assert!(error.contains(words), "{what}: {error}");
    }
    // Without its windows a gateway starts with an empty memory: what comes again is history, and the store drops it.
    let disk = SimDisk::new(1);
    workload(&disk);
    disk.remove(Path::new("/gw/windows")).unwrap();
    run(async {
        let spool = open(&disk).unwrap();
        let last = claim(MESSAGES - 1, MESSAGES as u8 - 1);
        assert_eq!(
            standing(&spool, &last),
            Standing::Durable,
            "folded from what the log still has"
        );
    });
}

fn flip(disk: &SimDisk, path: &str, at: usize) {
    let mut bytes = disk.read(Path::new(path), 1 << 20).unwrap();
    bytes[at] ^= 1;
    disk::replace(disk, Path::new(path), &bytes).unwrap();
}

/// However many keys remember however much, the next start can read it; what there is no room for is the oldest.
#[test]
fn what_is_written_of_the_windows_can_be_read_again() {
    // Counters whose numbers are as long as they can be.
    let counter = |n: u64| Counter { epoch: u32::MAX, sequence: u64::MAX - 500 + n };
    let key = |n: u8| KeyId([n; 32]);
    let mut admission: Admission<()> = Admission::new(400);
    for n in 0..300 {
        for key in (0..20).map(key) {
            admission.fold(key, counter(n), Digest([n as u8; 32]));
        }
    }
    for bytes_max in [0, 5_000, 50_000, 1 << 20] {
        let bytes = encode_windows(&admission, Offset(u64::MAX), bytes_max);
        let one_each = WINDOWS_HEAD + 20 * (WINDOW_HEAD + WINDOW_MESSAGE);
        let len = bytes.len();
        assert!(len <= bytes_max.max(one_each), "{len} bytes, expected at most {bytes_max}");
        assert!(len * 10 >= bytes_max.min(300_000) * 8, "{len} bytes of {bytes_max} are used");
        let (folded_to, windows) = kept::open(&bytes).and_then(decode_windows).unwrap();
        assert_eq!((folded_to, windows.len()), (Offset(u64::MAX), 20));
        for (key, window) in windows {
            let look = |n| window.look(counter(n), &Digest([n as u8; 32]));
            assert_eq!(look(299), Look::Repeat, "{key}: the newest");
            assert_eq!(look(300), Look::Fresh);
            let oldest = if bytes_max == 1 << 20 { Look::Repeat } else { Look::Late };
            assert_eq!(look(0), oldest, "{key}: the oldest, in {bytes_max} bytes");
        }
    }
}

/// Each second look of the spool counts what it finds.
#[test]
fn what_a_second_look_finds_is_counted() {
    let disk = SimDisk::new(1);
    run(async {
        // INV-COST-1: more answers than the session has room for, which it made for all that it may have in flight.
        let spool = open(&disk).unwrap();
        let (inbox, _answers) = mpsc::channel(1);
        let mut sender = Sender { inlet: Inlet::new(inbox), ..Sender::new() };
        for sequence in 0..2 {
            assert_eq!(sender.offer(&spool, &claim(sequence, 1), 200), None);
        }
        assert_eq!(ask(&spool, claim(2, 1)).await, Some(Answer::Accepted));
        assert_eq!(spool.0.metrics.violations("INV-COST-1"), 1);

        // INV-ACK-1: a record that was durable and cannot be read.
        spool.0.writer.append(b"not a record".to_vec()).await.unwrap();
        assert!(matches!(spool.next(9, 1 << 20), Err(SpoolError::BadRecord { .. })));
        assert_eq!(spool.0.metrics.violations("INV-ACK-1"), 1);
    });
    // INV-REPLAY-1: segments went that the windows had not been folded from. Here somebody put old windows there.
    let disk = SimDisk::new(1);
    workload(&disk);
    let old: Admission<()> = Admission::new(4);
    let bytes = encode_windows(&old, Offset(1), WINDOWS_BYTES_MAX);
    disk::replace(&disk, Path::new("/gw/windows"), &bytes).unwrap();
    run(async {
        let spool = open(&disk).unwrap();
        assert_eq!(spool.0.metrics.violations("INV-REPLAY-1"), 1);
    });
}

/// Golden bytes of version 1: drawn in `docs/formats/gateway-files.md`, never changed.
#[test]
fn the_files_of_version_1_are_read_for_ever() {
    let golden = |text: &str| -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte =
            |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    };
    let small = Record { message: vec![0xd8], ..record(&claim(5, 0xee)) };
    let bytes = golden(include_str!("../../../../docs/formats/golden/gateway-record-v1.hex"));
    assert_eq!(small.encode(), bytes);
    assert_eq!(Record::decode(&bytes), Ok(small));

    let bytes = golden(include_str!("../../../../docs/formats/golden/gateway-cursor-v1.hex"));
    assert_eq!(encode_cursor(Offset(258)), bytes);
    assert_eq!(kept::open(&bytes).and_then(decode_cursor), Ok(Offset(258)));

    let mut admission: Admission<()> = Admission::new(4);
    admission.fold(KEY, Counter { epoch: 1, sequence: 5 }, Digest([0xee; 32]));
    let bytes = golden(include_str!("../../../../docs/formats/golden/gateway-windows-v1.hex"));
    assert_eq!(encode_windows(&admission, Offset(6), WINDOWS_BYTES_MAX), bytes);
    let found = kept::open(&bytes).and_then(decode_windows).unwrap();
    assert_eq!(found, (Offset(6), vec![(KEY, admission.windows()[&KEY].clone())]));
}
