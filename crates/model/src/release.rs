//! What a vendor says of an image besides its bytes.

use crate::id::{HardwareId, ProductId};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

/// The version of a release: three numbers, compared in order. There are no labels behind it: a version that is not for
/// everybody is a matter of channels, and an order that two readers may see differently is no order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl Version {
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadVersion {
    pub found: String,
}

impl fmt::Display for BadVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.found.chars().take(80).collect();
        write!(
            f,
            "bad version: expected three numbers below 2^32 without leading zeros, as in 1.2.0, found {shown:?}"
        )
    }
}

impl core::error::Error for BadVersion {}

impl FromStr for Version {
    type Err = BadVersion;

    fn from_str(text: &str) -> Result<Self, BadVersion> {
        // `u32::from_str` takes a sign and leading zeros; a version has one form only.
        let number = |part: &str| {
            let plain = part == "0" || !part.starts_with(['0', '+']);
            if plain { part.parse::<u32>().ok() } else { None }
        };
        let mut parts = text.split('.').map(number);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Some(major)), Some(Some(minor)), Some(Some(patch)), None) => {
                Ok(Self { major, minor, patch })
            }
            _ => Err(BadVersion { found: text.into() }),
        }
    }
}

/// How far an image is from known weaknesses. A device has a floor; what is below it never boots (BOOT-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SecurityVersion(pub u32);

impl fmt::Display for SecurityVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The most kinds of hardware that one image may be for.
pub const HARDWARE_MAX: usize = 16;
/// The most versions that one release may ask to have been installed before.
pub const MUST_PASS_MAX: usize = 16;

/// A release, as the vendor's metadata states it of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    pub product: ProductId,
    pub version: Version,
    pub security_version: SecurityVersion,
    /// What the image runs on.
    pub hardware: Vec<HardwareId>,
    /// Versions that may not be jumped over on the way to this one.
    pub must_pass: Vec<Version>,
}

impl Release {
    /// The first version that a device which runs `from` has to install before this one. There is none on the way back
    /// to an older release.
    pub fn first_to_pass(&self, from: Version) -> Option<Version> {
        self.must_pass.iter().copied().filter(|via| from < *via && *via < self.version).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_version_is_three_numbers_and_has_one_form() {
        for good in ["0.0.0", "1.2.0", "10.0.4294967295"] {
            assert_eq!(alloc::format!("{}", good.parse::<Version>().unwrap()), good);
        }
        for bad in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "1.2.",
            ".1.2",
            "01.2.3",
            "1.02.3",
            "+1.2.3",
            "1.2.-3",
            " 1.2.3",
            "1.2.4294967296",
            "1.2.3-rc1",
            "1.2.3+7",
            "v1.2.3",
            "1..3",
            "1.2.x",
            "00.0.0",
        ] {
            assert!(bad.parse::<Version>().is_err(), "{bad:?}");
        }
        assert!(Version::new(1, 10, 0) > Version::new(1, 9, 9), "numbers, not text");
    }

    #[test]
    fn no_version_that_must_be_passed_is_jumped_over() {
        let v = |minor| Version::new(1, minor, 0);
        let release = Release {
            product: ProductId::new("pump-app").unwrap(),
            version: v(6),
            security_version: SecurityVersion(1),
            hardware: vec![HardwareId::new("pump-box").unwrap()],
            must_pass: vec![v(4), v(2), v(7), v(6)],
        };
        assert_eq!(release.first_to_pass(v(1)), Some(v(2)), "the lowest first");
        assert_eq!(release.first_to_pass(v(2)), Some(v(4)), "it runs the first already");
        assert_eq!(release.first_to_pass(v(4)), None, "this very version is no step to itself");
        assert_eq!(release.first_to_pass(v(6)), None, "again");
        assert_eq!(release.first_to_pass(v(9)), None, "the way back has no steps");
    }
}
