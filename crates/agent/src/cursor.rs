//! How far the backlog has been acknowledged, written at most once a second and at a clean exit.
//!
//! ```text
//! cursor  = plimsoll-cursor 1 <below> <counter> <counter> <position> <crc32c of all before: 8 hex>\n
//! counter = <key: 64 hex>/<epoch>/<sequence> | -          the last one that is done; the newest that is durable
//! position = <80 hex> | -                                 see `position`
//! ```
//!
//! Nothing rests on it but work saved: if it is lost or old, what was acknowledged is sent again, and the gateway answers
//! an honest repeat. The counters and the position are used only if the backlog itself can no longer be read.

use crate::position::{POSITION_BYTES, Position};
use disk::Disk;
use model::{Counter, KeyId, Prior, hex};
use std::io;
use std::path::Path;

const FILE_BYTES_MAX: u64 = 512;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Every serial below is acknowledged, or was dropped and stated.
    pub below: u64,
    pub done: Option<Prior>,
    pub newest: Option<Prior>,
    pub next: Option<Position>,
}

impl Cursor {
    /// `None`: there is none, or none that can be read.
    pub fn read(disk: &dyn Disk, path: &Path) -> Option<Self> {
        let bytes = disk.read(path, FILE_BYTES_MAX).ok()?;
        let cursor = Self::parse(&bytes);
        if cursor.is_none() {
            tracing::warn!(file = %path.display(), "cursor does not read: sending again what the backlog holds");
        }
        cursor
    }

    pub fn write(&self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        disk::replace(disk, path, self.line().as_bytes())
    }

    fn line(&self) -> String {
        let counter = |c: &Option<Prior>| match c {
            Some(Prior { key, counter: c }) => format!("{key}/{}/{}", c.epoch, c.sequence),
            None => "-".to_owned(),
        };
        let position = self.next.map_or("-".to_owned(), |p| hex::encode(&p.encode()));
        let (done, newest) = (counter(&self.done), counter(&self.newest));
        let text = format!("plimsoll-cursor 1 {} {done} {newest} {position} ", self.below);
        let crc = crc32c::crc32c(text.as_bytes());
        format!("{text}{crc:08x}\n")
    }

    /// Whatever parses is written again and compared, so a cursor has one form.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut words = text.split(' ').skip(2);
        let below = words.next()?.parse().ok()?;
        let done = parse_counter(words.next()?)?;
        let newest = parse_counter(words.next()?)?;
        let next = parse_position(words.next()?)?;
        let cursor = Self { below, done, newest, next };
        (cursor.line() == text).then_some(cursor)
    }
}

fn parse_counter(word: &str) -> Option<Option<Prior>> {
    if word == "-" {
        return Some(None);
    }
    let mut parts = word.split('/');
    let key = KeyId::from_hex(parts.next()?)?;
    let epoch = parts.next()?.parse().ok()?;
    let sequence = parts.next()?.parse().ok()?;
    Some(Some(Prior { key, counter: Counter { epoch, sequence } }))
}

fn parse_position(word: &str) -> Option<Option<Position>> {
    if word == "-" {
        return Some(None);
    }
    let mut bytes = [0; POSITION_BYTES];
    hex::decode_into(word, &mut bytes)?;
    Some(Some(Position::decode(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk::SimDisk;

    #[test]
    fn a_cursor_goes_there_and_back_and_a_changed_one_is_none() {
        let prior =
            |k| Prior { key: KeyId([k; 32]), counter: Counter { epoch: 2, sequence: 1 << 50 } };
        let next = Some(Position { recording: 7, lap: 1, byte: 2, line: 3, row: 4, column: 5 });
        let full = Cursor { below: 9, done: Some(prior(1)), newest: Some(prior(2)), next };
        for cursor in [full, Cursor::default()] {
            let line = cursor.line();
            assert!(line.len() as u64 <= FILE_BYTES_MAX);
            assert_eq!(Cursor::parse(line.as_bytes()), Some(cursor));
            for at in 0..line.len() {
                let mut bytes = line.clone().into_bytes();
                bytes[at] ^= 1;
                assert_eq!(Cursor::parse(&bytes), None, "byte {at}");
                assert_eq!(Cursor::parse(&line.as_bytes()[..at]), None, "cut to {at}");
            }
        }
    }

    #[test]
    fn a_cursor_that_is_not_there_is_none() {
        let disk = SimDisk::new(1);
        assert_eq!(Cursor::read(&disk, Path::new("/cursor")), None);
        Cursor::default().write(&disk, Path::new("/cursor")).unwrap();
        assert_eq!(Cursor::read(&disk, Path::new("/cursor")), Some(Cursor::default()));
    }
}
