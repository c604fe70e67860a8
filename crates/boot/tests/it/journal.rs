//! The bytes of a record, and which of many records counts.

use crate::nor::{Nor, Tear};
use crate::sweep::image;
use boot::journal::{Found, RECORD_BYTES, decode, encode};
use boot::{
    Boot, Choice, Digest, Error, Flash, Geometry, Image, Order, Refused, SecurityVersion, Slot,
    Slots, State,
};
use std::convert::Infallible;
use std::fmt::Write;

/// A state with every field in use: 1 confirmed in slot b, 2 on trial in slot a for the second time, and gave up.
fn full() -> State {
    let image = |n: u8, len| Image {
        digest: Digest([n; 32]),
        len,
        security: SecurityVersion(n.into()),
        order: Order(u64::from(n) << 40),
    };
    let begun = State::new(Slot::A, image(2, 0x0002_0406_0810), SecurityVersion(1)).unwrap();
    let armed = begun.arm(image(3, 0x0003_0609_0c0f)).unwrap();
    let trying = armed.decide(|_, _| true).unwrap().next;
    let confirmed = trying.confirm(Slot::B).unwrap();
    let again = confirmed.arm_again(Order(0x0302_0100)).unwrap();
    let trying = again.decide(|_, _| true).unwrap().next;
    trying.give_up(Slot::A, 0x0405).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.chunks(32).fold(String::new(), |mut text, line| {
        line.iter().for_each(|byte| write!(text, "{byte:02x}").expect("into a string"));
        text + "\n"
    })
}

/// Bit by bit, as the standard draws it, apart from the product's own.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 };
        }
    }
    !crc
}

fn sealed(mut record: [u8; RECORD_BYTES]) -> [u8; RECORD_BYTES] {
    let crc = crc32c(&record[..RECORD_BYTES - 4]);
    record[RECORD_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    record
}

#[test]
fn version_1_keeps_its_bytes() {
    let golden = include_str!("../../../../docs/formats/golden/boot-record-v1.hex");
    assert_eq!(hex(&encode(&full(), 0x0506)), golden);
    assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    assert_eq!(sealed(encode(&full(), 0x0506)), encode(&full(), 0x0506));
    let found = Found::Whole { sequence: 0x0506, state: full() };
    assert_eq!(decode(&encode(&full(), 0x0506)), found);
}

#[test]
fn a_record_with_any_bit_changed_is_none() {
    let record = encode(&full(), 7);
    for bit in 0..8 * RECORD_BYTES {
        let mut changed = record;
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decode(&changed), Found::Nothing, "bit {bit}");
    }
    assert_eq!(decode(&[0xFF; RECORD_BYTES]), Found::Nothing);
    assert_eq!(decode(&[0; RECORD_BYTES]), Found::Nothing);
}

#[test]
fn a_whole_record_that_is_not_understood_is_told_from_a_torn_one() {
    let record = encode(&full(), 7);
    let good = |at: usize, byte: u8| {
        let mut changed = record;
        changed[at] = byte;
        decode(&sealed(changed))
    };
    assert!(matches!(good(4, 1), Found::Whole { sequence: 7, .. }), "nothing is changed");
    assert_eq!(good(4, 2), Found::Foreign { sequence: 7, version: 2 });
    let malformed = Found::Foreign { sequence: 7, version: 1 };
    let cases = [
        ("a third slot", 5, 2),
        ("an unknown content", 6, 8),
        ("an unknown ending", 7, 8),
        ("an image below the floor", 16, 4),
        ("a code without its kind", 22, 1),
        ("a reserved byte of an image", 28, 1),
        ("a reserved byte at the end", 187, 1),
    ];
    for (what, at, byte) in cases {
        assert_eq!(good(at, byte), malformed, "{what}");
    }
}

#[test]
fn whatever_reads_as_a_state_is_its_one_form() {
    let mut x: u64 = 42;
    let mut random = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    let (mut states, mut foreign) = (0, 0);
    for _ in 0..20_000 {
        // A few bytes of a good record are changed, most of them in the head, and it is sealed again.
        let mut record = encode(&full(), random());
        for _ in 0..=random() % 3 {
            let at = 4 + random() as usize % if random() % 4 == 0 { 184 } else { 20 };
            record[at] = (random() % 10) as u8;
        }
        let record = sealed(record);
        match decode(&record) {
            Found::Nothing => panic!("its checksum is right: {record:?}"),
            Found::Foreign { .. } => foreign += 1,
            Found::Whole { sequence, state } => {
                assert_eq!(encode(&state, sequence), record);
                assert!(state.image().security >= state.floor());
                states += 1;
            }
        }
    }
    println!("seed 42: {states} states, {foreign} refused");
    assert!(states > 1000 && foreign > 1000);
}

#[derive(Debug)]
struct AnyImage;

impl Slots for AnyImage {
    type Error = Infallible;

    fn digest(&mut self, _: Slot, len: u64) -> Result<Option<Digest>, Infallible> {
        Ok(Some(image(u8::from(len != image(0, 0).len), 0).digest))
    }

    fn settle(&mut self, _: Slot) -> Result<(), Infallible> {
        Ok(())
    }
}

fn provisioned(flash: Nor) -> Boot<Nor> {
    Boot::provision(flash, &mut AnyImage, Slot::A, image(0, 0), SecurityVersion(0)).unwrap()
}

fn nor(sectors: u16, sector_len: u32, word_len: u32) -> Nor {
    Nor::new(Geometry { sectors, sector_len, word_len }, Tear::Half)
}

fn load(flash: &Nor) -> Choice {
    Boot::open(flash.clone()).unwrap().load(&mut AnyImage, &mut || {}).unwrap()
}

#[test]
fn the_newest_whole_record_counts_and_a_process_begins_a_sector() {
    let flash = nor(3, 400, 4);
    let mut boot = provisioned(flash.clone());
    assert_eq!(sequence(&flash, 0, 0), Some(1));
    let spare = boot.begin().unwrap();
    assert_eq!(sequence(&flash, 0, 192), None, "an empty slot is begun already");
    boot.arm(&mut AnyImage, spare, image(1, 5)).unwrap();
    assert_eq!(sequence(&flash, 0, 192), Some(2), "the same process goes on behind its own record");
    boot.withdraw().unwrap();
    assert_eq!(sequence(&flash, 1, 0), Some(3), "a full sector gives way to the next one");
    Boot::open(flash.clone()).unwrap().arm_again(&mut AnyImage, Order(6)).unwrap();
    assert_eq!(sequence(&flash, 2, 0), Some(4), "another process begins a sector");
    let choice = load(&flash);
    assert_eq!((choice.slot, choice.image), (Slot::B, image(1, 6)));
    assert_eq!(sequence(&flash, 0, 0), Some(5), "and round");
    assert_eq!(sequence(&flash, 0, 192), None, "it was erased before");
}

#[test]
fn a_process_that_has_nothing_to_record_writes_nothing() {
    let flash = nor(2, 192, 64);
    provisioned(flash.clone());
    let before = flash.bytes(0, 0, 192);
    for _ in 0..3 {
        assert_eq!(load(&flash).slot, Slot::A);
        let mut boot = Boot::open(flash.clone()).unwrap();
        boot.confirm(Slot::A).unwrap();
        boot.withdraw().unwrap();
        boot.raise(SecurityVersion(0)).unwrap();
        boot.begin().unwrap();
    }
    assert_eq!(flash.bytes(0, 0, 192), before);
    assert_eq!(flash.bytes(1, 0, 192), [0xFF; 192]);
}

#[test]
fn a_newest_record_of_another_version_is_refused_and_left_alone() {
    let flash = nor(2, 192, 64);
    provisioned(flash.clone());
    let mut record: [u8; RECORD_BYTES] = flash.bytes(0, 0, RECORD_BYTES).try_into().unwrap();
    assert_eq!(load(&flash).slot, Slot::A, "it starts from a good one");
    (record[4], record[8]) = (2, 2);
    flash.put(1, 0, &sealed(record));
    let error = Boot::open(flash.clone()).unwrap_err();
    assert!(matches!(error, Error::Foreign { version: 2 }), "{error:?}");
    let again =
        Boot::provision(flash.clone(), &mut AnyImage, Slot::A, image(0, 0), SecurityVersion(0));
    assert!(matches!(again, Err(Error::Provisioned)), "{again:?}");
    assert_eq!(flash.bytes(1, 0, RECORD_BYTES), sealed(record));
}

#[test]
fn a_region_that_cannot_hold_a_journal_is_refused() {
    for (sectors, sector_len, word_len) in
        [(1, 4096, 16), (2, 128, 16), (2, 4096, 0), (2, 4096, 128), (2, 4100, 5), (2, 200, 16)]
    {
        let flash = NoFlash(Geometry { sectors, sector_len, word_len });
        let error = Boot::open(flash).unwrap_err();
        assert!(matches!(error, Error::Geometry(_)), "{error:?}");
    }
    let error = Boot::open(nor(2, 192, 64)).unwrap_err();
    assert!(matches!(error, Error::NoJournal), "{error:?}");
}

#[derive(Debug)]
struct NoFlash(Geometry);

impl Flash for NoFlash {
    type Error = ();

    fn geometry(&self) -> Geometry {
        self.0
    }

    fn read(&mut self, _: u16, _: u32, _: &mut [u8]) -> Result<(), ()> {
        Err(())
    }

    fn program(&mut self, _: u16, _: u32, _: &[u8]) -> Result<(), ()> {
        Err(())
    }

    fn erase(&mut self, _: u16) -> Result<(), ()> {
        Err(())
    }
}

#[test]
fn what_is_armed_or_provisioned_lies_in_its_slot() {
    let flash = nor(2, 192, 64);
    let (none, floor) = (image(3, 0), SecurityVersion(0));
    let made = Boot::provision(flash.clone(), &mut AnyImage, Slot::A, none, floor);
    let expected = Refused::NotWhole { slot: Slot::A };
    assert!(matches!(made, Err(Error::Refused(refused)) if refused == expected), "{made:?}");
    let above = SecurityVersion(1);
    let made = Boot::provision(flash.clone(), &mut AnyImage, Slot::A, image(0, 0), above);
    let expected = Refused::BelowFloor { floor: above, found: floor };
    assert!(matches!(made, Err(Error::Refused(refused)) if refused == expected), "{made:?}");

    let mut boot = provisioned(flash);
    let spare = boot.begin().unwrap();
    let armed = boot.arm(&mut AnyImage, spare, none);
    let expected = Refused::NotWhole { slot: Slot::B };
    assert!(matches!(armed, Err(Error::Refused(refused)) if refused == expected), "{armed:?}");
    let spare = boot.begin().unwrap();
    boot.arm(&mut AnyImage, spare, image(1, 0)).unwrap();
}

#[test]
fn an_error_names_what_was_expected_and_its_cause() {
    let mut boot = provisioned(nor(2, 192, 64));
    let error = boot.confirm(Slot::B).unwrap_err();
    let cause = match &error {
        Error::Refused(refused) => refused.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(error.to_string(), "the boot journal stays as it is");
    assert_eq!(cause, "expected slot a to run, found slot b");
}

fn sequence(flash: &Nor, sector: u16, at: u32) -> Option<u64> {
    match decode(&flash.bytes(sector, at, RECORD_BYTES).try_into().unwrap()) {
        Found::Whole { sequence, .. } => Some(sequence),
        _ => None,
    }
}
