//! The lease: a small statement of the site to one zone, the same bytes for everybody in it.
//!
//! ```text
//! lease   = [zone, number, issued, not_after, policy, revocation, halted]
//!            tstr  u64     i64 µs  i64 µs     u64     u64         [0*64 tstr], in order, none twice
//! ```
//!
//! It is the payload of an envelope of kind *lease*, signed by a key that may sign leases only. `number` grows with each
//! lease of a zone. What is in it is judged in `trust::lease`; here it is only read. `docs/formats/lease.md`.

use crate::cbor::{Malformed, Reason, array_of, array_up_to, at_end, expect};
use crate::id::{RolloutId, ZoneId};
use crate::reading::Timestamp;
use alloc::vec::Vec;
use core::convert::Infallible;
use minicbor::{Decoder, Encoder};

/// Rollouts that one lease can name as halted. A site with more halted rollouts than this halts all installs of the zone
/// by letting the lease run out.
pub const HALTED_MAX: usize = 64;

/// The longest lease: its fields at their widest.
pub const LEASE_BYTES_MAX: usize = 64 + 2 + 5 * 9 + 3 + HALTED_MAX * 65;

/// What the newest word of a zone is, and until when it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub zone: ZoneId,
    /// Grows by one with each lease of the zone.
    pub number: u64,
    pub issued: Timestamp,
    /// Later than `issued`. What is between the two is what a holder counts down on its own clock.
    pub not_after: Timestamp,
    /// The newest generation of the zone's policy bundle.
    pub policy: u64,
    /// The newest revocation epoch.
    pub revocation: u64,
    /// Rollouts of which nothing may be armed, in order, none twice.
    pub halted: Vec<RolloutId>,
}

impl Lease {
    /// The payload of the lease's envelope.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.halted.len() <= HALTED_MAX, "a lease names at most {HALTED_MAX} rollouts");
        let mut e = Encoder::new(Vec::with_capacity(128 + self.halted.len() * 65));
        let written: Result<(), minicbor::encode::Error<Infallible>> = (|| {
            e.array(7)?.str(self.zone.as_str())?.u64(self.number)?;
            e.i64(self.issued.as_us())?.i64(self.not_after.as_us())?;
            e.u64(self.policy)?.u64(self.revocation)?;
            e.array(self.halted.len() as u64)?;
            for rollout in &self.halted {
                e.str(rollout.as_str())?;
            }
            Ok(())
        })();
        written.expect("writing to a Vec cannot fail");
        e.into_writer()
    }

    /// Reads the payload of a lease. It has one form: whatever decodes is encoded again and compared, since holders
    /// compare leases of one number by their bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > LEASE_BYTES_MAX {
            return Err(Malformed::new(Reason::Oversize, "a lease of at most 64 halted rollouts"));
        }
        let lease = Self::decode_fields(bytes)?;
        if lease.encode() == bytes {
            Ok(lease)
        } else {
            Err(Malformed::new(Reason::NotDeterministic, "deterministic CBOR (RFC 8949 §4.2.1)"))
        }
    }

    fn decode_fields(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut d = Decoder::new(bytes);
        array_of(&mut d, 7, "[zone, number, issued, not_after, policy, revocation, halted]")?;
        let zone = ZoneId::new(expect(d.str(), "a zone")?)
            .map_err(|_| Malformed::new(Reason::OutOfDomain, "a zone id"))?;
        let number = expect(d.u64(), "the lease's number")?;
        let issued = Timestamp(expect(d.i64(), "the time of issue in µs since 1970")?);
        let not_after = Timestamp(expect(d.i64(), "the end in µs since 1970")?);
        if not_after <= issued {
            return Err(Malformed::new(Reason::OutOfDomain, "a lease that ends after its issue"));
        }
        let policy = expect(d.u64(), "a policy generation")?;
        let revocation = expect(d.u64(), "a revocation epoch")?;
        let len = array_up_to(&mut d, HALTED_MAX, "at most 64 halted rollouts")?;
        let mut halted = Vec::with_capacity(len);
        for _ in 0..len {
            let rollout = RolloutId::new(expect(d.str(), "a rollout")?)
                .map_err(|_| Malformed::new(Reason::OutOfDomain, "a rollout id"))?;
            if halted.last().is_some_and(|before| *before >= rollout) {
                return Err(Malformed::new(
                    Reason::NotDeterministic,
                    "rollouts in order, none twice",
                ));
            }
            halted.push(rollout);
        }
        at_end(&d)?;
        Ok(Self { zone, number, issued, not_after, policy, revocation, halted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Item;
    use alloc::vec;

    fn lease() -> Lease {
        Lease {
            zone: ZoneId::new("press-hall").unwrap(),
            number: 41,
            issued: Timestamp(1_750_000_000_000_000),
            not_after: Timestamp(1_750_000_900_000_000),
            policy: 12,
            revocation: 3,
            halted: vec![RolloutId::new("r-1").unwrap(), RolloutId::new("r-2").unwrap()],
        }
    }

    #[test]
    fn a_lease_comes_back_as_it_was_written() {
        assert_eq!(Lease::decode(&lease().encode()), Ok(lease()));
        let bare = Lease { halted: vec![], ..lease() };
        assert_eq!(Lease::decode(&bare.encode()), Ok(bare));
    }

    #[test]
    fn the_widest_lease_is_within_its_bound() {
        let rollout = |n: usize| RolloutId::new(alloc::format!("{n:0>63}")).unwrap();
        let widest = Lease {
            zone: ZoneId::new("z".repeat(63)).unwrap(),
            number: u64::MAX,
            issued: Timestamp(i64::MIN),
            not_after: Timestamp(i64::MAX),
            policy: u64::MAX,
            revocation: u64::MAX,
            halted: (0..HALTED_MAX).map(rollout).collect(),
        };
        let bytes = widest.encode();
        assert!(bytes.len() <= LEASE_BYTES_MAX, "{} bytes", bytes.len());
        assert_eq!(Lease::decode(&bytes), Ok(widest));
    }

    #[test]
    fn a_lease_that_was_changed_is_refused_with_its_reason() {
        use Reason::*;
        type Change = fn(&mut Item);
        let table: &[(&str, Reason, Change)] = &[
            ("a zone that is no name", OutOfDomain, |l| *l.at(&[0]) = "Press Hall".into()),
            ("no zone", BrokenCbor, |l| *l.at(&[0]) = Item::Null),
            ("a number below 0", BrokenCbor, |l| *l.at(&[1]) = (-1).into()),
            ("a time that is a float", BrokenCbor, |l| *l.at(&[2]) = Item::Float(1.75e15)),
            ("an end that is the issue", OutOfDomain, |l| {
                *l.at(&[3]) = 1_750_000_000_000_000.into();
            }),
            ("an end before the issue", OutOfDomain, |l| *l.at(&[3]) = 0.into()),
            ("a revocation epoch below 0", BrokenCbor, |l| *l.at(&[5]) = (-3).into()),
            ("a rollout that is no name", OutOfDomain, |l| *l.at(&[6, 0]) = "".into()),
            ("a rollout twice", NotDeterministic, |l| *l.at(&[6, 1]) = "r-1".into()),
            ("rollouts in another order", NotDeterministic, |l| l.at(&[6]).items().swap(0, 1)),
            ("65 rollouts", Oversize, |l| {
                l.at(&[6]).items().resize(HALTED_MAX + 1, "r-1".into());
            }),
            ("a field less", BrokenCbor, |l| drop(l.items().pop())),
            ("a field more", BrokenCbor, |l| l.items().push(Item::Null)),
            ("a longer form of the number", NotDeterministic, |l| {
                *l.at(&[1]) = Item::Raw(vec![0x19, 0x00, 0x29]);
            }),
            ("no array", BrokenCbor, |l| *l = Item::Null),
            ("a byte behind it", TrailingBytes, |l| {
                *l = Item::Raw([&l.bytes()[..], &[0]].concat())
            }),
            ("longer than any lease", Oversize, |l| *l = Item::Raw(vec![0; LEASE_BYTES_MAX + 1])),
        ];
        let accepted = lease().encode();
        for (what, reason, change) in table {
            let mut tree = Item::read(&accepted);
            change(&mut tree);
            let refused = Lease::decode(&tree.bytes());
            assert_eq!(refused.map_err(|error| error.reason), Err(*reason), "{what}");
        }
        for len in 0..accepted.len() {
            assert_eq!(Lease::decode(&accepted[..len]).unwrap_err().reason, BrokenCbor, "{len}");
        }
    }
}
