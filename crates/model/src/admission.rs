//! The admission list: which serial numbers a factory has made, and where each belongs.
//!
//! ```text
//! admission = [batch, made, entries]
//!              tstr   i64 µs  [1*4096 entry], in order of serial numbers, none twice
//! entry     = [serial, role, zone, group]
//!              tstr    0 device / 1 gateway   tstr  tstr
//! ```
//!
//! It is the payload of a message of kind *admission list*, signed by the factory's key. Whoever reads it decides whose
//! factory he believes; the list decides nothing by itself. `docs/formats/admission-list.md`.

use crate::cbor::{Malformed, Reason, array_of, array_up_to, at_end, expect};
use crate::id::{DeviceId, GroupId, ZoneId};
use crate::reading::Timestamp;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::convert::Infallible;
use minicbor::{Decoder, Encoder};

/// A pallet, not a year: who makes more makes more lists.
pub const ENTRIES_MAX: usize = 4096;

/// The longest list: its texts at their widest, each with its head of two bytes.
pub const ADMISSION_BYTES_MAX: usize = 65 + 9 + 4 + ENTRIES_MAX * (2 + 3 * 65);

/// A message of a list: its header and signature beside it.
pub const ADMISSION_MESSAGE_BYTES_MAX: usize = ADMISSION_BYTES_MAX + 512;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionList {
    /// The factory's name for it.
    pub batch: String,
    pub made: Timestamp,
    pub entries: Vec<Entry>,
}

/// As what a serial number was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    Device,
    Gateway,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As it will stand in the IDevID.
    pub serial: String,
    pub made: Made,
    pub zone: ZoneId,
    pub group: GroupId,
}

/// What a serial number has to be for a device to come of it: in lower case it is a device's id.
pub fn is_serial(text: &str) -> bool {
    DeviceId::new(text.to_ascii_lowercase()).is_ok()
}

impl AdmissionList {
    /// The payload of its message. The entries are in order, none twice, and not more than [`ENTRIES_MAX`].
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.entries.len() <= ENTRIES_MAX, "a list has at most {ENTRIES_MAX} entries");
        let mut e = Encoder::new(Vec::with_capacity(128 + self.entries.len() * 64));
        let written: Result<(), minicbor::encode::Error<Infallible>> = (|| {
            e.array(3)?.str(&self.batch)?.i64(self.made.as_us())?;
            e.array(self.entries.len() as u64)?;
            for Entry { serial, made, zone, group } in &self.entries {
                let role = u8::from(*made == Made::Gateway);
                e.array(4)?.str(serial)?.u8(role)?.str(zone.as_str())?.str(group.as_str())?;
            }
            Ok(())
        })();
        written.expect("writing to a Vec cannot fail");
        e.into_writer()
    }

    /// Reads the payload. It has one form: whatever decodes is encoded again and compared.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > ADMISSION_BYTES_MAX {
            return Err(Malformed::new(Reason::Oversize, "a list of at most 4096 serial numbers"));
        }
        let list = Self::decode_fields(bytes)?;
        if list.encode() == bytes {
            Ok(list)
        } else {
            Err(Malformed::new(Reason::NotDeterministic, "deterministic CBOR (RFC 8949 §4.2.1)"))
        }
    }

    fn decode_fields(bytes: &[u8]) -> Result<Self, Malformed> {
        let domain = |expected| Malformed::new(Reason::OutOfDomain, expected);
        let mut d = Decoder::new(bytes);
        array_of(&mut d, 3, "[batch, made, entries]")?;
        let batch = expect(d.str(), "a batch")?;
        // A batch is named as a group is: it becomes the name of a file.
        GroupId::new(batch).map_err(|_| domain("a batch of 1 to 63 of a-z 0-9 . _ -"))?;
        let made = Timestamp(expect(d.i64(), "the time in µs since 1970")?);
        let len = array_up_to(&mut d, ENTRIES_MAX, "at most 4096 serial numbers")?;
        if len == 0 {
            return Err(domain("a serial number at least"));
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(len);
        for _ in 0..len {
            array_of(&mut d, 4, "[serial, role, zone, group]")?;
            let serial = expect(d.str(), "a serial number")?;
            if !is_serial(serial) {
                return Err(domain("a serial number: 1 to 63 letters, digits, . _ -"));
            }
            if entries.last().is_some_and(|before| before.serial.as_str() >= serial) {
                let expected = "serial numbers in order, none twice";
                return Err(Malformed::new(Reason::NotDeterministic, expected));
            }
            let made = match expect(d.u8(), "a role")? {
                0 => Made::Device,
                1 => Made::Gateway,
                _ => return Err(Malformed::new(Reason::UnknownKind, "0 device, 1 gateway")),
            };
            let zone = ZoneId::new(expect(d.str(), "a zone")?).map_err(|_| domain("a zone id"))?;
            let group = GroupId::new(expect(d.str(), "a group")?).map_err(|_| domain("a group"))?;
            entries.push(Entry { serial: serial.to_string(), made, zone, group });
        }
        at_end(&d)?;
        Ok(Self { batch: batch.to_string(), made, entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Item;
    use alloc::format;
    use alloc::vec;

    fn entry(serial: &str, made: Made) -> Entry {
        let (zone, group) = (ZoneId::new("hall").unwrap(), GroupId::new("pilot").unwrap());
        Entry { serial: serial.into(), made, zone, group }
    }

    fn list() -> AdmissionList {
        let entries = vec![entry("GW-2", Made::Gateway), entry("PUMP-1", Made::Device)];
        AdmissionList { batch: "w12".into(), made: Timestamp(1_750_000_000_000_000), entries }
    }

    #[test]
    fn a_list_comes_back_as_it_was_written() {
        assert_eq!(AdmissionList::decode(&list().encode()), Ok(list()));
    }

    #[test]
    fn the_widest_list_is_within_its_bound() {
        let wide = |n: usize| Entry {
            serial: format!("P{n:0>62}"),
            made: Made::Gateway,
            zone: ZoneId::new("z".repeat(63)).unwrap(),
            group: GroupId::new("g".repeat(63)).unwrap(),
        };
        let widest = AdmissionList {
            batch: "b".repeat(63),
            made: Timestamp(i64::MAX),
            entries: (0..ENTRIES_MAX).map(wide).collect(),
        };
        let bytes = widest.encode();
        assert!(bytes.len() <= ADMISSION_BYTES_MAX, "{} bytes", bytes.len());
        assert_eq!(AdmissionList::decode(&bytes), Ok(widest));
    }

    #[test]
    fn a_list_that_was_changed_is_refused_with_its_reason() {
        use Reason::*;
        type Change = fn(&mut Item);
        let table: &[(&str, Reason, Change)] = &[
            ("a batch that is a path", OutOfDomain, |l| *l.at(&[0]) = "../w12".into()),
            ("no batch", BrokenCbor, |l| *l.at(&[0]) = Item::Null),
            ("no serial numbers", OutOfDomain, |l| l.at(&[2]).items().clear()),
            ("a serial number that is no name", OutOfDomain, |l| *l.at(&[2, 0, 0]) = "a b".into()),
            ("a serial number twice", NotDeterministic, |l| *l.at(&[2, 1, 0]) = "GW-2".into()),
            ("another order", NotDeterministic, |l| l.at(&[2]).items().swap(0, 1)),
            ("a third role", UnknownKind, |l| *l.at(&[2, 0, 1]) = 2.into()),
            ("a zone that is no name", OutOfDomain, |l| *l.at(&[2, 0, 2]) = "the hall".into()),
            ("a group that is no name", OutOfDomain, |l| *l.at(&[2, 0, 3]) = "".into()),
            ("a field less", BrokenCbor, |l| drop(l.items().pop())),
            ("a field more in an entry", BrokenCbor, |l| l.at(&[2, 0]).items().push(Item::Null)),
            ("4097 serial numbers", Oversize, |l| {
                l.at(&[2]).items().resize(ENTRIES_MAX + 1, Item::Null);
            }),
            ("a longer form of a role", NotDeterministic, |l| {
                *l.at(&[2, 0, 1]) = Item::Raw(vec![0x18, 0x01]);
            }),
            ("a byte behind it", TrailingBytes, |l| {
                *l = Item::Raw([&l.bytes()[..], &[0]].concat())
            }),
            ("longer than any", Oversize, |l| *l = Item::Raw(vec![0; ADMISSION_BYTES_MAX + 1])),
        ];
        let accepted = list().encode();
        for (what, reason, change) in table {
            let mut tree = Item::read(&accepted);
            change(&mut tree);
            let refused = AdmissionList::decode(&tree.bytes());
            assert_eq!(refused.map_err(|error| error.reason), Err(*reason), "{what}");
        }
        for len in 0..accepted.len() {
            assert_eq!(
                AdmissionList::decode(&accepted[..len]).unwrap_err().reason,
                BrokenCbor,
                "{len}"
            );
        }
    }
}
