//! Small things that every CBOR parser of ours shares.

use core::fmt;
use minicbor::data::Type;
use minicbor::decode::Decoder;

/// Why bytes are not the message that they should be. Each reason is a label of a counter, so there are few of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Not CBOR, or not the types that this place asks for.
    BrokenCbor,
    /// Bytes left over after the message.
    TrailingBytes,
    /// CBOR, but not in the one deterministic form (RFC 8949 §4.2.1).
    NotDeterministic,
    /// Longer, or more, than the bound of this place.
    Oversize,
    /// A kind, version or algorithm that this build does not know (INV-MIX-1).
    UnknownKind,
    /// A name, number or time outside its domain.
    OutOfDomain,
}

impl Reason {
    pub const ALL: [Reason; 6] = [
        Self::BrokenCbor,
        Self::TrailingBytes,
        Self::NotDeterministic,
        Self::Oversize,
        Self::UnknownKind,
        Self::OutOfDomain,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BrokenCbor => "broken_cbor",
            Self::TrailingBytes => "trailing_bytes",
            Self::NotDeterministic => "not_deterministic",
            Self::Oversize => "oversize",
            Self::UnknownKind => "unknown_kind",
            Self::OutOfDomain => "out_of_domain",
        }
    }
}

/// A refusal to parse: the reason that is counted, and where and what for the person who reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    pub reason: Reason,
    pub expected: &'static str,
}

impl Malformed {
    pub const fn new(reason: Reason, expected: &'static str) -> Self {
        Self { reason, expected }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}", self.reason.as_str(), self.expected)
    }
}

impl core::error::Error for Malformed {}

/// Turns a decoder's complaint into ours, with what this place expected.
pub fn expect<T>(
    result: Result<T, minicbor::decode::Error>,
    expected: &'static str,
) -> Result<T, Malformed> {
    result.map_err(|_| Malformed::new(Reason::BrokenCbor, expected))
}

/// Reads the head of an array that must have a definite length of exactly `len`.
pub fn array_of(d: &mut Decoder<'_>, len: u64, expected: &'static str) -> Result<(), Malformed> {
    match expect(d.array(), expected)? {
        Some(found) if found == len => Ok(()),
        _ => Err(Malformed::new(Reason::BrokenCbor, expected)),
    }
}

/// Reads the head of an array of at most `max` items; an indefinite length is refused.
pub fn array_up_to(
    d: &mut Decoder<'_>,
    max: usize,
    expected: &'static str,
) -> Result<usize, Malformed> {
    match expect(d.array(), expected)? {
        Some(found) if found <= max as u64 => Ok(found as usize),
        Some(_) => Err(Malformed::new(Reason::Oversize, expected)),
        None => Err(Malformed::new(Reason::BrokenCbor, expected)),
    }
}

/// What `read` reads, or null.
pub fn nullable<'b, T>(
    d: &mut Decoder<'b>,
    read: impl FnOnce(&mut Decoder<'b>) -> Result<T, Malformed>,
) -> Result<Option<T>, Malformed> {
    if expect(d.datatype(), "a value or null")? == Type::Null {
        expect(d.null(), "null")?;
        Ok(None)
    } else {
        read(d).map(Some)
    }
}

/// Nothing may follow the message.
pub fn at_end(d: &Decoder<'_>) -> Result<(), Malformed> {
    if d.position() == d.input().len() {
        Ok(())
    } else {
        Err(Malformed::new(Reason::TrailingBytes, "the end of the message"))
    }
}
