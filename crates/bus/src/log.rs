//! The single writer of a log, and what it does when it is opened after a crash.
//!
//! A commit is one write and one sync of the newest segment; only then do readers see the records and does the
//! caller hear of it (INV-ACK-1). A group is never split over two segments: a segment grows beyond `segment_bytes`
//! only if one group is longer than that.
//!
//! | what fails | then |
//! | --- | --- |
//! | a write, for want of space | the newest segment is cut back to what was durable, and synced; nothing of the group is in the log; it goes on |
//! | any other write, any sync, or that cutting back | the log is poisoned: every later call fails, nothing is retried; open it again |

use crate::reader::{Index, LogReader, Segment, Shared};
use crate::segment::{self, Cursor, HEADER_LEN, Header, HeaderRead, RECORD_HEAD_LEN, Stop};
use crate::{LogError, Offset};
use disk::{File, SharedDisk, is_full};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The bounds of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A new segment is begun when a group would make the newest one longer than this. Trimming removes whole segments.
    pub segment_bytes: u64,
    /// All segments together, heads included. An append that would pass it is refused with [`LogError::Full`]. Below
    /// two segments' lengths it works, and trimming costs a new segment each time.
    pub bytes_max: u64,
    /// The longest payload. A longer one is refused with [`LogError::TooLarge`].
    pub record_bytes_max: u32,
}

/// See the module's head. One at a time per directory: nothing here keeps a second process out.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    config: LogConfig,
    /// The newest segment.
    file: Box<dyn File>,
    /// Appended and not yet written: records whose heads are still to be sealed.
    pending: Vec<u8>,
    pending_records: u64,
    /// Lengths of all segments.
    bytes: u64,
    torn_bytes: u64,
    poisoned: bool,
}

impl Log {
    /// Opens or creates. Cuts a torn tail; refuses damage to what was durable. Everything that the opened log holds is
    /// durable: a killed process may have left whole records that were never synced. Without space for a new log, or for a
    /// segment whose creation was cut, it is [`LogError::DiskFull`].
    pub fn open(disk: SharedDisk, dir: &Path, config: LogConfig) -> Result<Self, LogError> {
        disk.create_dir_all(dir).map_err(LogError::io_or_full("create", dir))?;
        let names = disk.list(dir).map_err(LogError::io("list", dir))?;
        // Other names are none of ours: left alone.
        let mut firsts: Vec<Offset> =
            names.iter().filter_map(|name| segment::parse_name(name)).collect();
        firsts.sort();

        let Some(newest) = firsts.pop() else {
            let header = Header {
                salt: salt(dir)?,
                first: Offset(0),
                before_first: Offset(0),
                before_bytes: 0,
            };
            let path = segment::path(dir, Offset(0));
            let mut file = disk.create(&path).map_err(LogError::io_or_full("create", &path))?;
            file.append(&header.encode()).map_err(LogError::io_or_full("write", &path))?;
            file.sync().map_err(LogError::io("sync", &path))?;
            disk.sync_dir(dir).map_err(LogError::io("sync", dir))?;
            let segments = VecDeque::from([Segment::new(dir, &header, HEADER_LEN)]);
            let newest = Newest { file, end: Offset(0), torn_bytes: 0 };
            return Ok(Self::opened(disk, dir, config, segments, newest));
        };

        let mut segments = VecDeque::with_capacity(firsts.len() + 1);
        for first in firsts {
            let (header, bytes) = read_header(&disk, dir, first)?;
            let header = header?;
            check_order(dir, segments.back(), &header)?;
            segments.push_back(Segment::new(dir, &header, bytes));
        }
        let newest = recover_newest(&disk, dir, newest, &mut segments)?;
        // A name may be one that a killed process never synced.
        disk.sync_dir(dir).map_err(LogError::io("sync", dir))?;
        Ok(Self::opened(disk, dir, config, segments, newest))
    }

    fn opened(
        disk: SharedDisk,
        dir: &Path,
        config: LogConfig,
        segments: VecDeque<Segment>,
        Newest { file, end, torn_bytes }: Newest,
    ) -> Self {
        let bytes = segments.iter().map(|segment| segment.bytes).sum();
        let shared = Arc::new(Shared::new(disk, dir, Index { segments, end }));
        Self {
            shared,
            config,
            file,
            pending: Vec::new(),
            pending_records: 0,
            bytes,
            torn_bytes,
            poisoned: false,
        }
    }

    /// Takes a record into the next group. It is not in the log before [`Log::commit`] returned.
    pub fn append(&mut self, payload: &[u8]) -> Result<Offset, LogError> {
        self.usable()?;
        let len = payload.len() as u64;
        let overhead = HEADER_LEN + RECORD_HEAD_LEN;
        let len_max = u64::from(self.config.record_bytes_max)
            .min(self.config.bytes_max.saturating_sub(overhead));
        if len > len_max {
            return Err(LogError::TooLarge { len, len_max });
        }
        let group = self.pending.len() as u64 + RECORD_HEAD_LEN + len;
        let needs = group + if self.rolls_for(group) { HEADER_LEN } else { 0 };
        if self.bytes + needs > self.config.bytes_max {
            let (bytes, bytes_max) = (self.bytes(), self.config.bytes_max);
            return Err(LogError::Full { needs: RECORD_HEAD_LEN + len, bytes, bytes_max });
        }
        segment::put(&mut self.pending, payload);
        self.pending_records += 1;
        Ok(Offset(self.end().0 + self.pending_records - 1))
    }

    /// Makes everything appended durable; returns the end of the log, which is the offset of the next record.
    ///
    /// On an error none of the group was promised to anybody. After [`LogError::DiskFull`] none of it is in the log
    /// either; after any other one some may be found when the log is opened again.
    pub fn commit(&mut self) -> Result<Offset, LogError> {
        self.usable()?;
        if self.pending.is_empty() {
            return Ok(self.end());
        }
        let mut group = std::mem::take(&mut self.pending);
        let records = std::mem::take(&mut self.pending_records);
        if self.rolls_for(group.len() as u64) {
            self.roll()?;
        }
        self.write(&mut group, records)?;
        group.clear();
        self.pending = group;
        Ok(self.end())
    }

    fn write(&mut self, group: &mut [u8], records: u64) -> Result<(), LogError> {
        let (salt, path, durable, first) = {
            let index = self.shared.index();
            let newest = index.newest();
            (newest.salt, newest.path.clone(), newest.bytes, index.end)
        };
        let mut places = Vec::new();
        segment::seal(group, salt, first, |offset, at| {
            if places.last().is_none_or(|&(_, last)| durable + at >= last + Segment::MARK_EVERY) {
                places.push((offset, durable + at));
            }
        });
        match self.file.append(group) {
            Ok(()) => {}
            Err(e) if is_full(&e) => {
                self.file
                    .truncate(durable)
                    .and_then(|()| self.file.sync())
                    .map_err(|e| self.poison("cut back", &path, e))?;
                return Err(LogError::DiskFull { path, source: Arc::new(e) });
            }
            Err(e) => return Err(self.poison("write", &path, e)),
        }
        self.file.sync().map_err(|e| self.poison("sync", &path, e))?;
        let mut index = self.shared.index();
        index.end = Offset(first.0 + records);
        let newest = index.newest_mut();
        newest.bytes = durable + group.len() as u64;
        places.into_iter().for_each(|place| newest.mark(place));
        self.bytes += group.len() as u64;
        Ok(())
    }

    /// Whether a group of so many bytes goes to a new segment.
    fn rolls_for(&self, group: u64) -> bool {
        let newest = self.shared.index().newest().bytes;
        newest > HEADER_LEN && newest + group > self.config.segment_bytes
    }

    /// Begins a new segment. Its header and its name are durable before a record is written behind it.
    fn roll(&mut self) -> Result<(), LogError> {
        let dir = self.shared.dir.clone();
        let salt = salt(&dir).inspect_err(|_| self.poisoned = true)?;
        let header = {
            let index = self.shared.index();
            let (newest, first) = (index.newest(), index.end);
            Header { salt, first, before_first: newest.first, before_bytes: newest.bytes }
        };
        let disk = self.shared.disk.clone();
        let path = segment::path(&dir, header.first);
        let mut file = match disk.create(&path) {
            Ok(file) => file,
            Err(e) if is_full(&e) => return Err(LogError::DiskFull { path, source: Arc::new(e) }),
            Err(e) => return Err(self.poison("create", &path, e)),
        };
        match file.append(&header.encode()) {
            Ok(()) => {}
            Err(e) if is_full(&e) => {
                // The name must be gone for good: a smaller group may still go to the segment before.
                disk.remove(&path)
                    .and_then(|()| disk.sync_dir(&dir))
                    .map_err(|e| self.poison("remove", &path, e))?;
                return Err(LogError::DiskFull { path, source: Arc::new(e) });
            }
            Err(e) => return Err(self.poison("write", &path, e)),
        }
        file.sync().map_err(|e| self.poison("sync", &path, e))?;
        disk.sync_dir(&dir).map_err(|e| self.poison("sync", &dir, e))?;
        self.file = file;
        self.bytes += HEADER_LEN;
        self.shared.index().segments.push_back(Segment::new(&dir, &header, HEADER_LEN));
        Ok(())
    }

    /// Removes whole segments all of whose records lie below. The newest one stays, unless everything in the log lies
    /// below and a full segment would find no room beside it: then an empty one takes its place, so that a log whose
    /// reader has caught up is never full.
    pub fn trim(&mut self, below: Offset) -> Result<(), LogError> {
        self.usable()?;
        let newest = self.shared.index().newest().bytes;
        let record_max = u64::from(self.config.record_bytes_max) + RECORD_HEAD_LEN + HEADER_LEN;
        let segment_max = self.config.segment_bytes.max(record_max);
        let cramped = newest.saturating_add(segment_max) > self.config.bytes_max;
        if below >= self.end() && newest > HEADER_LEN && cramped && self.pending.is_empty() {
            self.roll()?;
        }
        loop {
            let oldest = {
                let mut index = self.shared.index();
                match index.segments.get(1) {
                    // Out of the index before it is out of the directory: readers hear `Trimmed`.
                    Some(second) if second.first <= below => index.segments.pop_front(),
                    _ => None,
                }
            };
            let Some(oldest) = oldest else { return Ok(()) };
            let path = oldest.path.clone();
            let bytes = oldest.bytes;
            if let Err(e) = self.shared.disk.remove(&path) {
                self.shared.index().segments.push_front(oldest);
                return Err(LogError::io("remove", &path)(e));
            }
            self.bytes -= bytes;
            // One by one: of two removals that are synced together a cut may keep the second only, which would look
            // like a segment lost from the middle.
            let dir = self.shared.dir.clone();
            self.shared.disk.sync_dir(&dir).map_err(|e| self.poison("sync", &dir, e))?;
        }
    }

    /// The offset of the next record to become durable.
    pub fn end(&self) -> Offset {
        self.shared.index().end
    }

    /// The first record that the log still has; the same as [`Log::end`] if it has none.
    pub fn first(&self) -> Offset {
        self.shared.index().first()
    }

    /// What counts against `bytes_max`: all segments, and what is appended and not yet committed.
    pub fn bytes(&self) -> u64 {
        self.bytes + self.pending.len() as u64
    }

    /// What opening cut off behind the last whole record: bytes that nobody was promised. For the station to count.
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Whether a failed write or sync has closed this log for good.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    pub fn reader(&self) -> LogReader {
        LogReader::new(self.shared.clone())
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.shared.dir
    }

    fn usable(&self) -> Result<(), LogError> {
        if self.poisoned {
            Err(LogError::Poisoned { dir: self.shared.dir.clone() })
        } else {
            Ok(())
        }
    }

    fn poison(&mut self, attempt: &'static str, path: &Path, e: io::Error) -> LogError {
        self.poisoned = true;
        self.pending.clear();
        self.pending_records = 0;
        LogError::io(attempt, path)(e)
    }
}

fn salt(dir: &Path) -> Result<u32, LogError> {
    getrandom::u32().map_err(|e| LogError::io("draw a salt for", dir)(e.into()))
}

/// The header of a segment and the length of its file. The inner error is a bad header.
fn read_header(
    disk: &SharedDisk,
    dir: &Path,
    first: Offset,
) -> Result<(Result<Header, LogError>, u64), LogError> {
    let file = segment::path(dir, first);
    let bytes = disk.len(&file).map_err(LogError::io("measure", &file))?;
    let mut head = [0; HEADER_LEN as usize];
    let read = disk.read_at(&file, 0, &mut head).map_err(LogError::io("read", &file))?;
    let corrupt = |expected: String, found: String| LogError::Corrupt {
        file: file.clone(),
        position: 0,
        offset: first,
        expected,
        found,
    };
    let header = match Header::decode(&head[..read]) {
        HeaderRead::Good(header) if header.first == first => Ok(header),
        HeaderRead::Good(header) => {
            // A whole header under another name was not cut: somebody renamed the file.
            let expected = format!("a segment that starts at record {first}");
            return Err(corrupt(expected, format!("one that starts at {}", header.first)));
        }
        HeaderRead::UnknownVersion(found) => {
            return Err(LogError::UnknownVersion { file, expected: segment::VERSION, found });
        }
        HeaderRead::Bad { expected, found } => Err(corrupt(expected.into(), found)),
    };
    Ok((header, bytes))
}

/// A segment follows the one before it without a gap, and that one has the length that it had then.
fn check_order(dir: &Path, before: Option<&Segment>, header: &Header) -> Result<(), LogError> {
    let Some(before) = before else { return Ok(()) };
    if header.before_first != before.first {
        return Err(LogError::MissingSegment {
            file: segment::path(dir, header.first),
            before: segment::file_name(before.first),
            expected: segment::file_name(header.before_first),
        });
    }
    if header.before_bytes != before.bytes {
        return Err(LogError::Corrupt {
            file: before.path.clone(),
            position: before.bytes.min(header.before_bytes),
            offset: header.first,
            expected: format!("{} bytes", header.before_bytes),
            found: format!("{} bytes", before.bytes),
        });
    }
    Ok(())
}

/// The newest segment, ready to be written to.
struct Newest {
    file: Box<dyn File>,
    end: Offset,
    torn_bytes: u64,
}

/// Reads the newest segment to the end of its whole records and cuts what is torn behind them. Its last write is written
/// again: the process before may have stopped because its sync failed, and a sync alone would not make good for that.
fn recover_newest(
    disk: &SharedDisk,
    dir: &Path,
    first: Offset,
    segments: &mut VecDeque<Segment>,
) -> Result<Newest, LogError> {
    let path = segment::path(dir, first);
    let (header, len) = read_header(disk, dir, first)?;
    let header = match header {
        Ok(header) => {
            check_order(dir, segments.back(), &header)?;
            header
        }
        Err(_) if len <= HEADER_LEN => {
            // Its creation was cut. All of the segment before was durable then, up to the record that is this one's name.
            tracing::info!(file = %path.display(), "segment cut while it was created: made again");
            return recreate_newest(disk, dir, first, segments);
        }
        Err(e) => return Err(e),
    };
    let mut segment = Segment::new(dir, &header, len);
    let mut cursor = Cursor::new(&**disk, &path, header.salt, (first, HEADER_LEN), len);
    // Without a record the header is the last write.
    let mut last_write = 0;
    let torn = loop {
        if cursor.at_end() {
            break None;
        }
        let place = (cursor.offset, cursor.position);
        match cursor.take() {
            Ok(record) => {
                segment.mark(place);
                if record.behind == 0 {
                    last_write = place.1;
                }
            }
            Err(Stop::Io(e)) => return Err(LogError::io("read", &path)(e)),
            Err(stop) => break Some((place, stop)),
        }
    };
    let (end, whole) = match &torn {
        None => (cursor.offset, len),
        Some(((offset, position), _)) => (*offset, *position),
    };
    let mut file = disk.open(&path).map_err(LogError::io("open", &path))?;
    if let Some(((offset, position), stop)) = torn {
        // At most one segment's length.
        let mut tail = vec![0; (len - position) as usize];
        let read = disk.read_at(&path, position, &mut tail).map_err(LogError::io("read", &path))?;
        tail.truncate(read);
        if segment::proof_of_damage(&tail, header.salt, offset).is_some() {
            return Err(stop.into_error(&path, position, offset));
        }
        tracing::info!(
            file = %path.display(), record = offset.0, position, bytes = len - position,
            "torn tail cut: none of it was acknowledged"
        );
        file.truncate(position).map_err(LogError::io("cut", &path))?;
    }
    disk.write_again(&path, last_write).map_err(LogError::io("sync", &path))?;
    segment.bytes = whole;
    segments.push_back(segment);
    Ok(Newest { file, end, torn_bytes: len - whole })
}

fn recreate_newest(
    disk: &SharedDisk,
    dir: &Path,
    first: Offset,
    segments: &mut VecDeque<Segment>,
) -> Result<Newest, LogError> {
    let path = segment::path(dir, first);
    if let Some(before) = segments.back() {
        let end = check_to_end(disk, before)?;
        if end != first {
            return Err(LogError::Corrupt {
                file: before.path.clone(),
                position: before.bytes,
                offset: end,
                expected: format!("records up to {first}"),
                found: format!("the end at {end}"),
            });
        }
    }
    let (before_first, before_bytes) =
        segments.back().map_or((first, 0), |before| (before.first, before.bytes));
    let header = Header { salt: salt(dir)?, first, before_first, before_bytes };
    let mut file = disk.open(&path).map_err(LogError::io("open", &path))?;
    file.truncate(0).map_err(LogError::io("cut", &path))?;
    file.append(&header.encode()).map_err(LogError::io_or_full("write", &path))?;
    file.sync().map_err(LogError::io("sync", &path))?;
    segments.push_back(Segment::new(dir, &header, HEADER_LEN));
    Ok(Newest { file, end: first, torn_bytes: 0 })
}

/// Reads a segment that has no torn tail to allow for; returns the offset behind its last record.
fn check_to_end(disk: &SharedDisk, segment: &Segment) -> Result<Offset, LogError> {
    let start = (segment.first, HEADER_LEN);
    let mut cursor = Cursor::new(&**disk, &segment.path, segment.salt, start, segment.bytes);
    while !cursor.at_end() {
        let (offset, position) = (cursor.offset, cursor.position);
        cursor.take().map_err(|stop| stop.into_error(&segment.path, position, offset))?;
    }
    Ok(cursor.offset)
}
