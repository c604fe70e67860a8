//! The boot journal and the two slots as files: what [`boot`] asks of a flash, over [`disk::Disk`].
//!
//! ```text
//! <dir>/journal-0, journal-1    sectors: programming appends and syncs, erasing replaces the file by an empty one; behind its
//!                               end a sector reads as 0xFF (docs/formats/boot-journal.md)
//! <dir>/slot-a, slot-b          an image each: the executable itself, no more and no less
//! ```
//!
//! Promises: what [`boot`] asks for, under a disk that cuts and tears: a programmed record is durable when `program` returns,
//! an armed image before its record is. Never: decides what starts.
//!
//! One process has them open at a time (`disk::lock_dir` on the directory). An image is executed where it lies; who starts it
//! gives it the right to be (files of ours are 0600).

use boot::{Digest, Flash, Geometry, Slot, Slots, Spare, measure};
use disk::{File, SharedDisk};
use std::io;
use std::path::{Path, PathBuf};

/// 21 records a sector: an install takes three, so a sector lasts for some installs between two erasures.
const GEOMETRY: Geometry = Geometry { sectors: 2, sector_len: 4096, word_len: 1 };

/// How much of an image is in memory at a time while it is measured.
const MEASURE_BYTES: usize = 64 * 1024;

/// The journal's sectors.
#[derive(Debug)]
pub struct FileFlash {
    disk: SharedDisk,
    dir: PathBuf,
}

impl FileFlash {
    /// Makes the directory, if there is none, and what is in the journal durable: a process that was killed between an append
    /// and its sync has left bytes that are seen and would be gone after the next cut.
    pub fn open(disk: SharedDisk, dir: &Path) -> io::Result<Self> {
        disk.create_dir_all(dir)?;
        let flash = Self { disk, dir: dir.to_owned() };
        for sector in 0..GEOMETRY.sectors {
            match flash.disk.write_again(&flash.path(sector), 0) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                written => written?,
            }
        }
        flash.disk.sync_dir(dir)?;
        Ok(flash)
    }

    fn path(&self, sector: u16) -> PathBuf {
        self.dir.join(format!("journal-{sector}"))
    }
}

impl Flash for FileFlash {
    type Error = io::Error;

    fn geometry(&self) -> Geometry {
        GEOMETRY
    }

    fn read(&mut self, sector: u16, at: u32, into: &mut [u8]) -> io::Result<()> {
        into.fill(Geometry::ERASED);
        match self.disk.read_at(&self.path(sector), at.into(), into) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            read => read.map(|_| ()),
        }
    }

    fn program(&mut self, sector: u16, at: u32, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(sector);
        let len = self.disk.len(&path)?;
        if len != u64::from(at) {
            let what = format!("`{}` has {len} bytes, expected {at}", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let mut file = self.disk.open(&path)?;
        file.append(bytes)?;
        file.sync()
    }

    fn erase(&mut self, sector: u16) -> io::Result<()> {
        disk::replace(&*self.disk, &self.path(sector), &[])
    }
}

/// The journal's sectors, to be looked at beside the process that has them open. What is seen may be some writes old.
#[derive(Debug)]
pub struct Look(FileFlash);

impl Look {
    pub fn new(disk: SharedDisk, dir: &Path) -> Self {
        Self(FileFlash { disk, dir: dir.to_owned() })
    }
}

impl Flash for Look {
    type Error = io::Error;

    fn geometry(&self) -> Geometry {
        GEOMETRY
    }

    fn read(&mut self, sector: u16, at: u32, into: &mut [u8]) -> io::Result<()> {
        self.0.read(sector, at, into)
    }

    fn program(&mut self, _: u16, _: u32, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn erase(&mut self, _: u16) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// The two images.
#[derive(Debug, Clone)]
pub struct FileSlots {
    disk: SharedDisk,
    dir: PathBuf,
}

impl FileSlots {
    /// The directory exists: [`FileFlash::open`] makes it.
    pub fn new(disk: SharedDisk, dir: &Path) -> Self {
        Self { disk, dir: dir.to_owned() }
    }

    /// Where a slot's image lies.
    pub fn path(&self, slot: Slot) -> PathBuf {
        self.dir.join(format!("slot-{slot}"))
    }

    /// Bytes in the spare slot, from which a download can go on. After a power cut the last of them may be wrong: the digest
    /// tells when the image is armed, and then it is written anew.
    pub fn written(&self, spare: &Spare) -> io::Result<u64> {
        match self.disk.len(&self.path(spare.slot())) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            len => len,
        }
    }

    /// Empties the spare slot: an image is written from its beginning.
    pub fn empty(&self, spare: &Spare) -> io::Result<()> {
        disk::replace(&*self.disk, &self.path(spare.slot()), &[])
    }

    /// The spare slot, to append to. Durable when the image is armed, or at a `sync` of the caller's.
    pub fn append(&self, spare: &Spare) -> io::Result<Box<dyn File>> {
        let path = self.path(spare.slot());
        match self.disk.open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.disk.create(&path),
            file => file,
        }
    }
}

impl Slots for FileSlots {
    type Error = io::Error;

    /// An image is the whole file: one byte more, and another program would run.
    fn digest(&mut self, slot: Slot, len: u64) -> io::Result<Option<Digest>> {
        let path = self.path(slot);
        match self.disk.len(&path) {
            Ok(found) if found == len => {}
            Ok(_) => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        }
        let read = |at, into: &mut [u8]| {
            let read = self.disk.read_at(&path, at, into)?;
            if read == into.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
        };
        measure(len, &mut vec![0; MEASURE_BYTES], read).map(Some)
    }

    fn settle(&mut self, slot: Slot) -> io::Result<()> {
        match self.disk.open(&self.path(slot)) {
            // What is not there is not whole, and that is said there.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?.sync()?,
        }
        self.disk.sync_dir(&self.dir)
    }
}
