//! Golden bytes (`docs/formats/log-segment.md`), kept for ever: what is written today is what was written then, and
//! what was written then is still read.

use super::*;
use crate::reader::Segment;
use crate::{Log, LogConfig};
use disk::SimDisk;

const SALT: u32 = 0x5a17_c0de;
const FIRST: Offset = Offset(7);

/// Two writes: one of two records, one of one.
const WRITES: [&[&[u8]]; 2] = [&[b"first of two", b""], &[b"alone"]];

fn golden() -> Vec<u8> {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/formats/golden/log-segment-v1.hex");
    let text = std::fs::read_to_string(file).expect("the golden bytes are in the repository");
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn written() -> Vec<u8> {
    let header =
        Header { salt: SALT, first: FIRST, before_first: Offset(2), before_bytes: 1_000_000 };
    let mut bytes = header.encode().to_vec();
    let mut next = FIRST;
    for write in WRITES {
        let mut records = Vec::new();
        write.iter().for_each(|payload| put(&mut records, payload));
        seal(&mut records, SALT, next, |offset, _| next = offset.next());
        bytes.extend(records);
    }
    bytes
}

#[test]
fn a_segment_is_written_as_its_golden_bytes() {
    let hex: String = written().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(written(), golden(), "written today: {hex}");
}

#[test]
fn the_golden_segment_is_read() {
    let disk = SimDisk::new(1);
    let (dir, config) = (
        Path::new("/log"),
        LogConfig { segment_bytes: 1 << 20, bytes_max: 1 << 20, record_bytes_max: 100 },
    );
    disk.create_dir_all(dir).unwrap();
    disk::replace(&disk, &path(dir, FIRST), &golden()).unwrap();
    let log = Log::open(disk.shared(), dir, config).unwrap();
    assert_eq!((log.first(), log.end()), (FIRST, Offset(10)));
    let read = log.reader().read(FIRST, 10, 1000).unwrap();
    let expected = [(7, &b"first of two"[..]), (8, b""), (9, b"alone")];
    assert_eq!(read, expected.map(|(n, payload)| (Offset(n), payload.to_vec())));
}

#[test]
fn a_whole_record_proves_that_the_write_before_it_was_durable_and_not_its_own() {
    let bytes = golden();
    let record = |n: usize| [44, 44 + 20 + 12, 44 + 20 + 12 + 20][n];
    let proof = |from: usize, bad: u64| proof_of_damage(&bytes[from..], SALT, Offset(bad));
    // Were record 7 or 8 bad, record 9 says that they had been durable.
    assert_eq!(proof(record(0), 7), Some(((record(2) - record(0)) as u64, Offset(9))));
    assert_eq!(proof(record(1), 8), Some(((record(2) - record(1)) as u64, Offset(9))));
    // Were record 9 bad, nobody says so; and record 8 does not speak for record 7, which was written with it.
    assert_eq!(proof(record(2), 9), None);
    assert_eq!(proof_of_damage(&bytes[record(0)..record(2)], SALT, FIRST), None);
    // Nor does a record of another segment.
    assert_eq!(proof_of_damage(&bytes[record(0)..], SALT ^ 1, FIRST), None);
}

#[test]
fn a_segment_that_ends_before_the_next_one_begins_is_reported_when_it_is_read() {
    // Both are whole, and the headers agree: only the records are too few.
    let (dir, disk) = (Path::new("/log"), SimDisk::new(1));
    disk.create_dir_all(dir).unwrap();
    let before_bytes = golden().len() as u64;
    let next = Header { salt: SALT, first: Offset(12), before_first: FIRST, before_bytes };
    disk::replace(&disk, &path(dir, FIRST), &golden()).unwrap();
    disk::replace(&disk, &path(dir, next.first), &next.encode()).unwrap();
    let config = LogConfig { segment_bytes: 1 << 20, bytes_max: 1 << 20, record_bytes_max: 100 };
    let reader = Log::open(disk.shared(), dir, config).unwrap().reader();
    assert_eq!(reader.read(FIRST, 2, 1000).unwrap().len(), 2);
    for from in [7, 9, 10, 11] {
        assert!(matches!(
            reader.read(Offset(from), 100, 1000),
            Err(LogError::Corrupt { offset: Offset(10), .. })
        ));
    }
    assert_eq!(reader.read(Offset(12), 100, 1000).unwrap(), []);
}

#[test]
fn marks_are_few() {
    let header = Header { salt: SALT, first: FIRST, before_first: FIRST, before_bytes: 0 };
    let mut segment = Segment::new(Path::new("/log"), &header, HEADER_LEN);
    for n in 0..100_000 {
        segment.mark((Offset(FIRST.0 + n), HEADER_LEN + n * 21));
    }
    assert!(segment.marks() as u64 <= 1 + 100_000 * 21 / Segment::MARK_EVERY);
}

#[test]
fn only_names_that_we_write_are_segments() {
    for first in [0, 1, 42, u64::MAX] {
        assert_eq!(parse_name(&file_name(Offset(first))), Some(Offset(first)));
    }
    let names = ["", ".log", "1.log", "+0000000000000000001.log", "00000000000000000001.log.new"];
    for name in names {
        assert_eq!(parse_name(name), None, "{name}");
    }
}
