//! Which of three directories holds the log. The others are free, or keep one log that could not be read.

use super::BacklogError;
use crate::record;
use bus::{Log, LogConfig, Offset};
use disk::SharedDisk;
use std::io;
use std::path::{Path, PathBuf};

const SLOTS: u8 = 3;
const FILE_BYTES_MAX: u64 = 64;

#[derive(Debug)]
pub(super) struct Slots {
    disk: SharedDisk,
    dir: PathBuf,
    current: u8,
    unreadable: Option<u8>,
}

/// An empty slot.
#[derive(Debug)]
pub(super) struct Free {
    number: u8,
    pub path: PathBuf,
}

impl Slots {
    pub fn open(disk: SharedDisk, dir: &Path) -> Result<Self, BacklogError> {
        disk.create_dir_all(dir).map_err(failed("create", dir))?;
        let mut slots = Self { disk, dir: dir.to_owned(), current: 0, unreadable: None };
        match slots.read()? {
            Some((current, unreadable)) => {
                (slots.current, slots.unreadable) = (current, unreadable)
            }
            None => {
                slots.current = slots.newest()?;
                tracing::warn!(
                    file = %slots.file().display(), slot = slots.current,
                    "which slot holds the backlog does not read: taking the one with the newest record"
                );
                slots.write()?;
            }
        }
        // What was read may be what a killed process renamed and never synced: it must hold before the others are wiped.
        slots.disk.sync_dir(dir).map_err(failed("sync", dir))?;
        slots.wipe_others()?;
        Ok(slots)
    }

    pub fn path(&self) -> PathBuf {
        self.slot(self.current)
    }

    /// An empty slot, to write the log anew in.
    pub fn free(&self) -> Result<Free, BacklogError> {
        let number = (0..SLOTS)
            .find(|n| *n != self.current && Some(*n) != self.unreadable)
            .expect("of three slots two are taken at most");
        let path = self.slot(number);
        self.wipe(&path)?;
        Ok(Free { number, path })
    }

    /// From now on the log is in that slot: durable when this returns. False: the disk had no room to write that down,
    /// and the log is where it was.
    pub fn switch(&mut self, free: Free) -> Result<bool, BacklogError> {
        let before = (self.current, self.unreadable);
        self.current = free.number;
        match self.write() {
            Ok(()) => Ok(true),
            // Had it come as far as the new name, the next start would believe that.
            Err(BacklogError::Io { source, .. })
                if disk::is_full(&source) && self.read()? == Some(before) =>
            {
                self.current = before.0;
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    /// Keeps the current slot for people to look at, and goes on in an empty one.
    pub fn set_aside(&mut self) -> Result<(), BacklogError> {
        let before = self.unreadable.replace(self.current);
        let number = (0..SLOTS)
            .find(|n| *n != self.current && Some(*n) != before)
            .expect("of three slots two are taken at most");
        self.wipe(&self.slot(number))?;
        self.current = number;
        self.write()?;
        self.wipe_others()
    }

    /// Empties what is neither current nor set aside: left by a cut.
    pub fn wipe_others(&self) -> Result<(), BacklogError> {
        (0..SLOTS)
            .filter(|n| *n != self.current && Some(*n) != self.unreadable)
            .try_for_each(|n| self.wipe(&self.slot(n)))
    }

    fn file(&self) -> PathBuf {
        self.dir.join("current")
    }

    fn slot(&self, number: u8) -> PathBuf {
        self.dir.join(number.to_string())
    }

    /// Which slot is current and which one is set aside, as it is written; `None`: it does not read.
    fn read(&self) -> Result<Option<(u8, Option<u8>)>, BacklogError> {
        let file = self.file();
        match self.disk.read(&file, FILE_BYTES_MAX) {
            Ok(bytes) => Ok(parse(&bytes)),
            // It is first written when a slot is left; until then there is only the first one.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Some((0, None))),
            Err(e) => Err(failed("read", &file)(e)),
        }
    }

    fn write(&self) -> Result<(), BacklogError> {
        let text = line(self.current, self.unreadable);
        let file = self.file();
        disk::replace(&*self.disk, &file, text.as_bytes()).map_err(failed("write", &file))
    }

    fn wipe(&self, slot: &Path) -> Result<(), BacklogError> {
        let names = match self.disk.list(slot) {
            Ok(names) => names,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(failed("list", slot)(e)),
        };
        for name in &names {
            let path = slot.join(name);
            self.disk.remove(&path).map_err(failed("remove", &path))?;
        }
        if names.is_empty() {
            Ok(())
        } else {
            self.disk.sync_dir(slot).map_err(failed("sync", slot))
        }
    }

    /// The slot whose log ends with the highest serial.
    fn newest(&self) -> Result<u8, BacklogError> {
        let mut newest = (0, 0);
        for number in 0..SLOTS {
            let path = self.slot(number);
            if !self.disk.list(&path).is_ok_and(|names| !names.is_empty()) {
                continue;
            }
            let config = LogConfig { segment_bytes: 0, bytes_max: 0, record_bytes_max: 0 };
            let Ok(log) = Log::open(self.disk.clone(), &path, config) else { continue };
            let Some(last) = log.end().0.checked_sub(1) else { continue };
            let read = log.reader().read(Offset(last), 1, usize::MAX).unwrap_or_default();
            let serial = read.first().and_then(|(_, record)| record::decode(record).ok());
            if let Some((header, _)) = serial
                && header.serial >= newest.0
            {
                newest = (header.serial, number);
            }
        }
        Ok(newest.1)
    }
}

fn line(current: u8, unreadable: Option<u8>) -> String {
    let unreadable = unreadable.map_or("-".to_owned(), |n| n.to_string());
    let text = format!("plimsoll-backlog 1 {current} {unreadable} ");
    let crc = crc32c::crc32c(text.as_bytes());
    format!("{text}{crc:08x}\n")
}

fn parse(bytes: &[u8]) -> Option<(u8, Option<u8>)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut words = text.split(' ').skip(2);
    let current: u8 = words.next()?.parse().ok()?;
    let unreadable: Option<u8> = match words.next()? {
        "-" => None,
        number => Some(number.parse().ok()?),
    };
    let known = current < SLOTS && unreadable.is_none_or(|n| n < SLOTS && n != current);
    (known && line(current, unreadable) == text).then_some((current, unreadable))
}

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BacklogError {
    let path = path.to_owned();
    move |source| BacklogError::Io { attempt, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_file_goes_there_and_back_and_a_changed_one_is_none() {
        for (current, unreadable) in [(0, None), (2, Some(1)), (1, None)] {
            let text = line(current, unreadable);
            assert_eq!(parse(text.as_bytes()), Some((current, unreadable)));
            for at in 0..text.len() {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1;
                assert_eq!(parse(&bytes), None, "byte {at}");
            }
        }
        assert_eq!(parse(line(1, Some(1)).as_bytes()), None);
        assert_eq!(parse(line(3, None).as_bytes()), None);
    }
}
