//! Names and digests. Each is a type of its own, so that a zone cannot be passed where a device is meant.

use crate::hex;
use alloc::string::String;
use core::fmt;

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadName {
    pub what: &'static str,
    pub expected: &'static str,
    pub found: String,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.found.chars().take(80).collect();
        write!(f, "bad {}: expected {}, found {:?}", self.what, self.expected, shown)
    }
}

impl core::error::Error for BadName {}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $expected:literal, $ok:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            pub fn new(text: impl Into<String>) -> Result<Self, BadName> {
                let text: String = text.into();
                let ok: fn(&[u8]) -> bool = $ok;
                if ok(text.as_bytes()) {
                    Ok(Self(text))
                } else {
                    Err(BadName { what: $what, expected: $expected, found: text })
                }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl core::str::FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = BadName;
            fn try_from(text: &str) -> Result<Self, BadName> {
                Self::new(text)
            }
        }
    };
}

/// The names of devices, gateways and zones stand in topics, paths and certificates, so they hold nothing that any of
/// those would have to escape.
fn plain(bytes: &[u8]) -> bool {
    let first = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let rest = |b: u8| first(b) || matches!(b, b'.' | b'_' | b'-');
    matches!(bytes, [head, tail @ ..] if bytes.len() <= 63 && first(*head) && tail.iter().all(|b| rest(*b)))
}

/// RFC 8428 §4.5.1: a SenML name starts with a letter or digit and holds only these characters.
fn senml_name(bytes: &[u8]) -> bool {
    let first = |b: u8| b.is_ascii_alphanumeric();
    let rest = |b: u8| first(b) || matches!(b, b'-' | b':' | b'.' | b'/' | b'_');
    matches!(bytes, [head, tail @ ..] if bytes.len() <= 128 && first(*head) && tail.iter().all(|b| rest(*b)))
}

name!(
    /// One device, as the operator knows it: its IDevID's serial number in lower case.
    DeviceId, "device id", "1 to 63 of a-z 0-9 . _ - starting with a letter or digit", plain
);
name!(
    /// One gateway. A gateway is enrolled as a device is; the type says in which of the two roles it is spoken of.
    GatewayId, "gateway id", "1 to 63 of a-z 0-9 . _ - starting with a letter or digit", plain
);
name!(
    /// A set of devices of equal trust (IEC 62443).
    ZoneId, "zone id", "1 to 63 of a-z 0-9 . _ - starting with a letter or digit", plain
);
name!(
    /// Devices that a release reaches at the same stage: development, pilot, production, or a name of one's own.
    GroupId, "group", "1 to 63 of a-z 0-9 . _ - starting with a letter or digit", plain
);
name!(
    /// A piece of software that a vendor releases: what a slot holds versions of.
    ProductId, "product id", "1 to 63 of a-z 0-9 . _ - starting with a letter or digit", plain
);
name!(
    /// What an image is built for. A device's own never changes.
    HardwareId, "hardware id", "1 to 63 of a-z 0-9 . _ - starting with a letter or digit", plain
);
name!(
    /// One release on its way to one cohort.
    RolloutId, "rollout id", "1 to 63 of a-z 0-9 . _ - starting with a letter or digit", plain
);
name!(
    /// What is measured, within a device: `cpu/0/user`.
    SeriesName, "series name", "1 to 128 of A-Z a-z 0-9 - : . / _ starting with a letter or digit (RFC 8428 §4.5.1)",
    senml_name
);
name!(
    /// A unit from the SenML units registry (RFC 8428 §12.1, RFC 8798), or the device's own.
    Unit, "unit", "1 to 32 printable ASCII characters",
    |bytes| !bytes.is_empty() && bytes.len() <= 32 && bytes.iter().all(|b| (0x21..0x7f).contains(b))
);

macro_rules! bytes32 {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            pub fn from_hex(text: &str) -> Option<Self> {
                let mut bytes = [0; $len];
                hex::decode_into(text, &mut bytes)?;
                Some(Self(bytes))
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = core::array::TryFromSliceError;
            fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
                Ok(Self(bytes.try_into()?))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex::write(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

bytes32!(
    /// The SHA-256 thumbprint of a public key's required COSE_Key members (RFC 9679 §3).
    KeyId, 32
);
bytes32!(
    /// SHA-256 of some bytes.
    Digest, 32
);
bytes32!(
    /// A gateway's word for one session, by which a device shows that it hears that gateway now.
    Nonce, 16
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_a_topic_or_a_path_would_misread_is_refused() {
        for bad in ["", "A", "a/b", "a+b", "#", "../x", "-a", "a b", "a\0", "é", &"x".repeat(64)] {
            assert!(DeviceId::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "0", "pump-7", "ps.0001_b", &"x".repeat(63)] {
            assert_eq!(DeviceId::new(good).unwrap().as_str(), good);
        }
        assert!(SeriesName::new("cpu/0:user_x-y.z").is_ok());
        assert!(SeriesName::new("/cpu").is_err());
    }

    #[test]
    fn a_refused_name_says_what_was_expected_and_found() {
        let error = DeviceId::new("A b").unwrap_err();
        assert_eq!(
            alloc::format!("{error}"),
            "bad device id: expected 1 to 63 of a-z 0-9 . _ - starting with a letter or digit, found \"A b\""
        );
    }

    #[test]
    fn hex_goes_there_and_back() {
        let id = KeyId(core::array::from_fn(|i| i as u8 * 7));
        assert_eq!(KeyId::from_hex(&alloc::format!("{id}")), Some(id));
        assert_eq!(KeyId::from_hex("zz"), None);
    }
}
