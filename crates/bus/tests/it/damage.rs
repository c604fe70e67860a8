//! Damage to what was durable is reported with its file and place, and never skipped; only what was never promised is cut.

use crate::{DIR, SMALL, expect, fill, open, overwrite, payload, read_all, segments, try_open};
use bus::{LogError, Offset};
use disk::{Disk, SimDisk};
use std::path::{Path, PathBuf};

/// A log of some segments whose newest holds several groups.
fn filled() -> (SimDisk, Vec<PathBuf>) {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 0..40);
    assert_eq!(log.end(), Offset(40));
    let segments = segments(&disk);
    assert!(segments.len() >= 4);
    (disk, segments)
}

fn first_of(segment: &Path) -> u64 {
    segment.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

/// The file that an error names.
fn named(e: &LogError) -> PathBuf {
    match e {
        LogError::Corrupt { file, .. }
        | LogError::UnknownVersion { file, .. }
        | LogError::MissingSegment { file, .. } => file.clone(),
        other => panic!("not a report of damage: {other}"),
    }
}

#[test]
fn any_changed_byte_of_an_earlier_segment_is_reported_and_nothing_false_is_read() {
    let (disk, segments) = filled();
    let victim = &segments[1];
    let (first, after) = (first_of(victim), first_of(&segments[2]));
    let whole = disk.read(victim, 1 << 20).unwrap();
    for at in 0..whole.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= change;
            overwrite(&disk, victim, &bytes);
            let e = match try_open(&disk, SMALL) {
                Err(e) => e,
                Ok(log) => {
                    assert!(at >= 44, "a damaged header is seen when the log is opened");
                    let reader = log.reader();
                    // Around the damage everything is what it was.
                    assert_eq!(
                        reader.read(Offset(0), first as usize, 1 << 20).unwrap(),
                        expect(0..first)
                    );
                    assert_eq!(
                        reader.read(Offset(after), 100, 1 << 20).unwrap(),
                        expect(after..40)
                    );
                    // Record by record: each is right or an error.
                    for n in first..after {
                        if let Ok(read) = reader.read(Offset(n), 1, 0) {
                            assert_eq!(read, expect(n..n + 1), "byte {at}");
                        }
                    }
                    reader.read(Offset(first), 1000, 1 << 20).expect_err("the damage is reported")
                }
            };
            assert_eq!(&named(&e), victim, "byte {at}: {e}");
            if let LogError::Corrupt { position, offset, .. } = e {
                assert!(position <= at as u64 && (first..after).contains(&offset.0));
            }
        }
    }
    overwrite(&disk, victim, &whole);
    assert_eq!(read_all(&open(&disk).reader()).unwrap(), expect(0..40));
}

#[test]
fn any_changed_byte_of_the_newest_segment_before_its_last_write_is_reported() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    for n in 0..4 {
        log.append(&payload(n)).unwrap();
        if n != 1 {
            log.commit().unwrap();
        }
    }
    let last_write = log.bytes() as usize - 20 - payload(3).len();
    drop(log);
    let segment = &segments(&disk)[0];
    let whole = disk.read(segment, 1 << 20).unwrap();
    for at in 0..whole.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= change;
            overwrite(&disk, segment, &bytes);
            match try_open(&disk, SMALL) {
                Err(e) => {
                    assert_eq!(&named(&e), segment);
                    assert!(at < last_write);
                    assert_eq!(disk.read(segment, 1 << 20).unwrap(), bytes, "it is left as it is");
                }
                // As it is: damage within the very last write cannot be told from a torn one.
                Ok(log) => {
                    assert!(at >= last_write, "byte {at} of a durable record was cut off silently");
                    assert_eq!(read_all(&log.reader()).unwrap(), expect(0..3));
                }
            }
        }
    }
}

#[test]
fn a_tail_that_is_torn_anywhere_is_cut_and_the_log_goes_on() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 0..4);
    let durable = log.bytes() as usize;
    for n in 4..8 {
        log.append(&payload(n)).unwrap();
    }
    log.commit().unwrap();
    drop(log);
    let segment = &segments(&disk)[0];
    let whole = disk.read(segment, 1 << 20).unwrap();
    let junk = |at: usize| [&whole[..at], &[0x5a; 700][..]].concat();
    let zeros = |at: usize| [&whole[..at], &[0; 700][..]].concat();
    let hole = |at: usize| {
        let mut bytes = whole.clone();
        bytes[durable..at].fill(0);
        bytes
    };
    for at in durable..=whole.len() {
        for torn in [whole[..at].to_vec(), junk(at), zeros(at), hole(at)] {
            overwrite(&disk, segment, &torn);
            let mut log = open(&disk);
            let end = log.end().0;
            assert!((4..=8).contains(&end));
            fill(&mut log, end..end + 2);
            assert_eq!(read_all(&log.reader()).unwrap(), expect(0..end + 2));
            drop(log);
            assert_eq!(read_all(&open(&disk).reader()).unwrap(), expect(0..end + 2));
            segments_but_first_removed(&disk);
        }
    }
}

fn segments_but_first_removed(disk: &SimDisk) {
    for segment in &segments(disk)[1..] {
        disk.remove(segment).unwrap();
    }
}

#[test]
fn a_record_within_a_payload_does_not_pass_for_one() {
    // A sender who knows the format puts whole records into his payload. After a tear in front of them they must neither
    // be read nor be taken for a proof that the torn record was durable.
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    fill(&mut log, 0..2);
    let durable = log.bytes() as usize;
    let mut forged = Vec::new();
    for offset in 2..10_u64 {
        let mut record =
            [&3_u32.to_le_bytes()[..], &[0; 4], &offset.to_le_bytes(), &[0; 4], b"abc"].concat();
        // He does not know the salt: he leaves it out, or hopes that it is nothing.
        for salt in [&[][..], &[0; 4]] {
            let crc = crc32c::crc32c_append(crc32c::crc32c(salt), &record[..4]);
            let crc = crc32c::crc32c_append(crc, &record[8..]);
            record[4..8].copy_from_slice(&crc.to_le_bytes());
            forged.extend(&record);
        }
    }
    forged.rotate_left(23);
    log.append(&forged).unwrap();
    log.commit().unwrap();
    drop(log);
    let [segment] = &segments(&disk)[..] else { panic!("all in one segment") };
    let mut bytes = disk.read(segment, 1 << 20).unwrap();
    bytes[durable..durable + 20].fill(0);
    overwrite(&disk, segment, &bytes);
    assert_eq!(read_all(&open(&disk).reader()).unwrap(), expect(0..2));
    // Nor where it begins exactly where a record is expected, with the number that is expected there.
    bytes.drain(durable..durable + 20);
    overwrite(&disk, segment, &bytes);
    assert_eq!(read_all(&open(&disk).reader()).unwrap(), expect(0..2));
}

#[test]
fn a_segment_cut_while_it_was_created_is_made_again() {
    let (disk, segments) = filled();
    let newest = segments.last().unwrap();
    let first = first_of(newest);
    let header = disk.read(newest, 1 << 20).unwrap()[..44].to_vec();
    for len in 0..=44 {
        for torn in [header[..len].to_vec(), vec![0; len], vec![0xa5; len]] {
            overwrite(&disk, newest, &torn);
            let mut log = open(&disk);
            assert_eq!(log.end(), Offset(first), "all before it was durable");
            fill(&mut log, first..first + 3);
            drop(log);
            assert_eq!(read_all(&open(&disk).reader()).unwrap(), expect(0..first + 3));
        }
    }
    // Alone in its directory, it keeps the number that it begins with.
    for path in &segments[..segments.len() - 1] {
        disk.remove(path).unwrap();
    }
    overwrite(&disk, newest, &header[..7]);
    let log = open(&disk);
    assert_eq!((log.first(), log.end()), (Offset(first), Offset(first)));
}

#[test]
fn a_newest_segment_without_header_does_not_hide_damage_before_it() {
    let (disk, segments) = filled();
    let [.., before, newest] = &segments[..] else { unreachable!() };
    overwrite(&disk, newest, &[]);
    let mut bytes = disk.read(before, 1 << 20).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    overwrite(&disk, before, &bytes);
    let e = try_open(&disk, SMALL).unwrap_err();
    assert_eq!(&named(&e), before);
    // Nor that the segment before it is too short.
    let len = bytes.len() - 20 - payload(first_of(newest) - 1).len();
    overwrite(&disk, before, &bytes[..len]);
    let e = try_open(&disk, SMALL).unwrap_err();
    assert!(matches!(&e, LogError::Corrupt { file, offset, .. }
        if file == before && offset.0 == first_of(newest) - 1));
}

#[test]
fn records_that_are_whole_and_in_each_others_place_are_reported() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    for n in 0..40_u64 {
        log.append(&n.to_le_bytes()).unwrap();
        log.commit().unwrap();
    }
    drop(log);
    let victim = &segments(&disk)[1];
    let (first, len) = (first_of(victim), 20 + 8);
    let mut bytes = disk.read(victim, 1 << 20).unwrap();
    bytes[44 + len..44 + 3 * len].rotate_left(len);
    overwrite(&disk, victim, &bytes);
    let e = open(&disk).reader().read(Offset(first), 100, 1 << 20).unwrap_err();
    assert!(
        matches!(&e, LogError::Corrupt { file, offset, .. }
        if file == victim && *offset == Offset(first + 1)),
        "{e}"
    );
}

#[test]
fn a_missing_segment_in_the_middle_is_named() {
    let (disk, segments) = filled();
    disk.remove(&segments[1]).unwrap();
    let e = try_open(&disk, SMALL).unwrap_err();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(matches!(&e, LogError::MissingSegment { file, before, expected }
        if *file == segments[2] && *before == name(&segments[0]) && *expected == name(&segments[1])));
    assert!(e.to_string().contains(&name(&segments[1])), "{e}");
}

#[test]
fn an_earlier_segment_of_another_length_is_reported() {
    let (disk, segments) = filled();
    let whole = disk.read(&segments[1], 1 << 20).unwrap();
    for len in (0..whole.len()).chain([whole.len() + 1, whole.len() + 100]) {
        let mut bytes = whole.clone();
        bytes.resize(len, 0);
        overwrite(&disk, &segments[1], &bytes);
        assert_eq!(named(&try_open(&disk, SMALL).unwrap_err()), segments[1]);
    }
}

#[test]
fn a_segment_under_another_name_is_reported() {
    let (disk, segments) = filled();
    let other = Path::new(DIR).join("00000000000000000999.log");
    disk.rename(segments.last().unwrap(), &other).unwrap();
    assert_eq!(named(&try_open(&disk, SMALL).unwrap_err()), other);
}

#[test]
fn an_unknown_version_is_named_and_left_alone() {
    let (disk, segments) = filled();
    for victim in [&segments[0], segments.last().unwrap()] {
        let whole = disk.read(victim, 1 << 20).unwrap();
        // Also where only the header is there: it is not taken for one that was cut.
        for len in [whole.len(), 44, 30, 12] {
            let mut bytes = whole[..len].to_vec();
            bytes[8] = 2;
            overwrite(&disk, victim, &bytes);
            let e = try_open(&disk, SMALL).unwrap_err();
            assert!(
                matches!(&e, LogError::UnknownVersion { file, expected: 1, found: 2 } if file == victim)
            );
            assert!(e.to_string().contains("has format version 2, expected 1"));
            assert_eq!(disk.read(victim, 1 << 20).unwrap(), bytes);
        }
        overwrite(&disk, victim, &whole);
    }
}

#[test]
fn a_reader_reports_a_segment_that_vanished() {
    let (disk, segments) = filled();
    let log = open(&disk);
    disk.remove(&segments[1]).unwrap();
    let e = read_all(&log.reader()).unwrap_err();
    assert!(matches!(&e, LogError::Io { attempt: "read", path, .. } if *path == segments[1]));
}
