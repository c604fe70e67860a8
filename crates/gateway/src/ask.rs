//! What a device asks for over HTTP, read from the head of its request. Pure.
//!
//! Promises: nothing but the table below is asked for; a name that leads anywhere else is none (INV-COST-1).
//! Never: looks at a body, knows who asks.
//!
//! ```text
//! POST /v1/checkin                    application/cose
//! GET  /v1/images/N.root.json         also timestamp.json, N.snapshot.json, N.targets.json; N from 1, without zeros before it
//! GET  /v1/blobs/sha256/HEX           64 digits in lower case; Range: bytes=N- or bytes=N-M
//! ```

use api::path;
use model::Digest;
use std::fmt;
use trust::tuf::Role;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    CheckIn,
    Image(ImageName),
    Blob(Digest),
}

impl Ask {
    /// The label of the counters.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::CheckIn => "checkin",
            Self::Image(_) => "images",
            Self::Blob(_) => "blobs",
        }
    }

    /// Every label, and the one of what is none of them.
    pub const LABELS: [&'static str; 4] = ["checkin", "images", "blobs", "unknown"];
}

/// Why it is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAsked {
    /// Nothing has this name.
    Path,
    /// Something has, and this is not how it is asked for.
    Method { allowed: &'static str },
}

pub fn read(method: &str, path: &str, query: Option<&str>) -> Result<Ask, NotAsked> {
    let ask = if path == path::CHECK_IN {
        Ask::CheckIn
    } else if let Some(name) = below(path, path::IMAGES) {
        Ask::Image(ImageName::read(name).ok_or(NotAsked::Path)?)
    } else if let Some(hex) = below(path, path::BLOBS) {
        let is_lower = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let digest = Digest::from_hex(hex).filter(|_| is_lower);
        Ask::Blob(digest.ok_or(NotAsked::Path)?)
    } else {
        return Err(NotAsked::Path);
    };
    // One name for one thing: with a query it would be another.
    if query.is_some() {
        return Err(NotAsked::Path);
    }
    let allowed = if ask == Ask::CheckIn { "POST" } else { "GET" };
    if method == allowed { Ok(ask) } else { Err(NotAsked::Method { allowed }) }
}

fn below<'a>(path: &'a str, under: &str) -> Option<&'a str> {
    path.strip_prefix(under)?.strip_prefix('/')
}

/// The name of a metadata file of the image repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageName {
    pub role: Role,
    /// 0: the timestamp, which has none in its name.
    version: u64,
}

impl ImageName {
    fn read(name: &str) -> Option<Self> {
        if name == "timestamp.json" {
            return Some(Self { role: Role::Timestamp, version: 0 });
        }
        let (number, file) = name.split_once('.')?;
        let role = match file {
            "root.json" => Role::Root,
            "snapshot.json" => Role::Snapshot,
            "targets.json" => Role::Targets,
            _ => return None,
        };
        let version: u64 = number.parse().ok().filter(|version| *version > 0)?;
        // One name a file: no sign, no zeros before it.
        (version.to_string() == number).then_some(Self { role, version })
    }

    /// Whether what has this name never becomes something else.
    pub const fn is_immutable(&self) -> bool {
        !matches!(self.role, Role::Timestamp)
    }

    /// Whether the name is also asked for to learn that there is no such file yet: a client of TUF goes from root to root
    /// until there is none.
    pub const fn is_probed(&self) -> bool {
        matches!(self.role, Role::Root | Role::Timestamp)
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.role {
            Role::Timestamp => f.write_str("timestamp.json"),
            role => write!(f, "{}.{}.json", self.version, role.as_str()),
        }
    }
}

/// Which bytes of something (RFC 9110 §14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    Whole,
    /// From the first number on, up to and without the second.
    Part(u64, u64),
    /// None of it: 416.
    Outside,
}

/// What `Range` asks of something of so many bytes. One that cannot be read, that counts from the end or that has several
/// parts is as if it were not there (RFC 9110 §14.2 lets a server do so).
pub fn span(range: Option<&str>, len: u64) -> Span {
    let Some((first, last)) = range.and_then(bounds) else { return Span::Whole };
    // A last below the first makes it no range (§14.1.1).
    match last {
        Some(last) if last < first => Span::Whole,
        _ if first >= len => Span::Outside,
        last => Span::Part(first, last.map_or(len, |last| last.saturating_add(1).min(len))),
    }
}

fn bounds(range: &str) -> Option<(u64, Option<u64>)> {
    let (unit, spec) = range.split_once('=')?;
    let (first, last) = spec.trim().split_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !unit.trim().eq_ignore_ascii_case("bytes") || !is_number(first) {
        return None;
    }
    let last = match last {
        "" => None,
        last if is_number(last) => Some(last.parse().ok()?),
        _ => return None,
    };
    Some((first.parse().ok()?, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str) -> Result<Ask, NotAsked> {
        read("GET", path, None)
    }

    fn blob(digits: &str) -> String {
        format!("/v1/blobs/sha256/{digits}")
    }

    #[test]
    fn what_a_device_may_ask_for_is_read() {
        assert_eq!(read("POST", "/v1/checkin", None), Ok(Ask::CheckIn));
        for name in [
            "timestamp.json",
            "1.root.json",
            "20.snapshot.json",
            "18446744073709551615.targets.json",
        ] {
            let Ok(Ask::Image(read)) = get(&format!("/v1/images/{name}")) else { panic!("{name}") };
            assert_eq!(read.to_string(), name);
        }
        assert_eq!(get(&blob(&"0a".repeat(32))), Ok(Ask::Blob(Digest([10; 32]))));
    }

    /// From a name that is one, each single change makes it none. No path of a caller ever reaches a disk.
    #[test]
    fn a_name_that_is_none_of_ours_leads_nowhere() {
        for name in [
            "",
            "0.root.json",
            "01.root.json",
            "+1.root.json",
            "1.root",
            "1.root.json/",
            "1.timestamp.json",
            "root.json",
            "1.mirrors.json",
            "../1.root.json",
            "1.Root.json",
            "%31.root.json",
            "18446744073709551616.targets.json",
            "timestamp.json.new",
        ] {
            assert_eq!(get(&format!("/v1/images/{name}")), Err(NotAsked::Path), "{name:?}");
        }
        for digits in
            ["", "..", &"0a".repeat(31), &"0a".repeat(33), &"0A".repeat(32), &"0g".repeat(32)]
        {
            assert_eq!(get(&blob(digits)), Err(NotAsked::Path), "{digits:?}");
        }
        for path in [
            "/",
            "/metrics",
            "/v1/checkin/",
            "/v1/images",
            "/v1/imagesx/timestamp.json",
            "/v1/gateway/bundle",
        ] {
            assert_eq!(get(path), Err(NotAsked::Path), "{path}");
        }
        assert_eq!(read("POST", "/v1/checkin", Some("device=pump-2")), Err(NotAsked::Path));
        assert_eq!(get("/v1/checkin"), Err(NotAsked::Method { allowed: "POST" }));
        assert_eq!(
            read("POST", "/v1/images/timestamp.json", None),
            Err(NotAsked::Method { allowed: "GET" })
        );
    }

    #[test]
    fn a_range_says_from_where_and_one_that_cannot_be_read_is_not_there() {
        for (range, expected) in [
            (None, Span::Whole),
            (Some("bytes=0-"), Span::Part(0, 10)),
            (Some("bytes=4-"), Span::Part(4, 10)),
            (Some("Bytes=4-6"), Span::Part(4, 7)),
            (Some("bytes=9-9"), Span::Part(9, 10)),
            (Some("bytes=4-99"), Span::Part(4, 10)),
            (Some("bytes=4-18446744073709551615"), Span::Part(4, 10)),
            (Some("bytes=10-"), Span::Outside),
            (Some("bytes=99-100"), Span::Outside),
            (Some("bytes=-3"), Span::Whole),
            (Some("bytes=6-4"), Span::Whole),
            (Some("bytes=0-1,4-5"), Span::Whole),
            (Some("bytes=+1-"), Span::Whole),
            (Some("bytes=1"), Span::Whole),
            (Some("items=1-"), Span::Whole),
            (Some("bytes=99999999999999999999-"), Span::Whole),
            (Some(""), Span::Whole),
        ] {
            assert_eq!(span(range, 10), expected, "{range:?}");
        }
        assert_eq!(span(Some("bytes=0-"), 0), Span::Outside);
    }
}
