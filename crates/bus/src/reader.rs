//! Reading a log from other threads while its writer goes on. Only durable records are shown.

use crate::segment::{Cursor, HEADER_LEN, Header, Stop, path};
use crate::{LogError, Offset};
use disk::SharedDisk;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// What the writer and the readers of one log share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub disk: SharedDisk,
    pub dir: PathBuf,
    index: Mutex<Index>,
}

#[derive(Debug)]
pub(crate) struct Index {
    /// Oldest first; never empty.
    pub segments: VecDeque<Segment>,
    pub end: Offset,
}

#[derive(Debug)]
pub(crate) struct Segment {
    pub first: Offset,
    pub path: PathBuf,
    pub salt: u32,
    /// How long it is, as far as it is durable.
    pub bytes: u64,
    /// Places of some records, in order, `MARK_EVERY` bytes apart or more: where to begin to look for the others.
    marks: Vec<(Offset, u64)>,
    /// Where the last read ended: a reader that goes on from there need not look.
    hint: (Offset, u64),
}

impl Segment {
    /// A mark takes 16 bytes: a log of 1 GiB has 256 KiB of them.
    pub const MARK_EVERY: u64 = 64 * 1024;

    pub fn new(dir: &Path, header: &Header, bytes: u64) -> Self {
        let start = (header.first, HEADER_LEN);
        let path = path(dir, header.first);
        Self {
            first: header.first,
            path,
            salt: header.salt,
            bytes,
            marks: vec![start],
            hint: start,
        }
    }

    pub fn mark(&mut self, (offset, position): (Offset, u64)) {
        let last = self.marks.last().expect("a segment is marked at its start").1;
        if position >= last + Self::MARK_EVERY {
            self.marks.push((offset, position));
        }
    }

    #[cfg(test)]
    pub fn marks(&self) -> usize {
        self.marks.len()
    }

    /// The nearest known place at or before a record.
    fn place_before(&self, offset: Offset) -> (Offset, u64) {
        if self.hint.0 == offset {
            return self.hint;
        }
        let after = self.marks.partition_point(|(marked, _)| *marked <= offset);
        self.marks[after - 1]
    }
}

impl Index {
    pub fn newest(&self) -> &Segment {
        self.segments.back().expect("a log has a segment")
    }

    pub fn newest_mut(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("a log has a segment")
    }

    pub fn first(&self) -> Offset {
        self.segments.front().expect("a log has a segment").first
    }

    /// The offset behind the last record of the segment that holds this one.
    fn end_of_segment_of(&self, offset: Offset) -> Offset {
        let after = self.segments.partition_point(|segment| segment.first <= offset);
        self.segments.get(after).map_or(self.end, |segment| segment.first)
    }

    /// The segment that holds a record between first and end.
    fn segment_of(&mut self, offset: Offset) -> Option<&mut Segment> {
        let after = self.segments.partition_point(|segment| segment.first <= offset);
        self.segments.get_mut(after.checked_sub(1)?)
    }
}

impl Shared {
    pub fn new(disk: SharedDisk, dir: &Path, index: Index) -> Self {
        Self { disk, dir: dir.to_owned(), index: Mutex::new(index) }
    }

    pub fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().expect("nothing panics while it holds the index")
    }
}

/// Reads durable records. Clones are the same.
#[derive(Clone, Debug)]
pub struct LogReader {
    shared: Arc<Shared>,
}

impl LogReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Records from `from` on: at most `records_max`, and of at most `bytes_max` bytes of payload together, but at least
    /// one if there is one. Empty at the end of the log. Blocks on the disk.
    ///
    /// Fails with [`LogError::Trimmed`] below the first record, with [`LogError::BeyondEnd`] above the end.
    pub fn read(
        &self,
        from: Offset,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<(Offset, Vec<u8>)>, LogError> {
        let mut out = Vec::new();
        let mut bytes = 0;
        let mut next = from;
        while out.len() < records_max
            && self.read_segment(&mut next, &mut out, &mut bytes, records_max, bytes_max)?
        {}
        Ok(out)
    }

    /// Reads on within the segment that holds `next`. Says whether there may be more to take.
    fn read_segment(
        &self,
        next: &mut Offset,
        out: &mut Vec<(Offset, Vec<u8>)>,
        bytes: &mut usize,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<bool, LogError> {
        let (path, salt, start, until, last) = {
            let mut index = self.shared.index();
            let (first, end) = (index.first(), index.end);
            if *next < first {
                return Err(LogError::Trimmed { from: *next, first });
            }
            if *next > end {
                return Err(LogError::BeyondEnd { from: *next, end });
            }
            if *next == end {
                return Ok(false);
            }
            let last = index.end_of_segment_of(*next);
            let segment = index.segment_of(*next).expect("a record of the log is in a segment");
            let start = segment.place_before(*next);
            (segment.path.clone(), segment.salt, start, segment.bytes, last)
        };
        let mut cursor = Cursor::new(&*self.shared.disk, &path, salt, start, until);
        let mut places = Vec::new();
        let mut mark_after = start.1 + Segment::MARK_EVERY;
        let mut more = true;
        while !cursor.at_end() {
            let place @ (offset, position) = (cursor.offset, cursor.position);
            if position >= mark_after {
                places.push(place);
                mark_after = position + Segment::MARK_EVERY;
            }
            let step = if offset < *next {
                cursor.skip()
            } else {
                match cursor.peek() {
                    Ok(len) => {
                        let len = len as usize;
                        let enough = out.len() >= records_max || *bytes + len > bytes_max;
                        if enough && (!out.is_empty() || records_max == 0) {
                            more = false;
                            break;
                        }
                        cursor.take().map(|record| {
                            *bytes += len;
                            out.push((offset, record.payload.to_vec()));
                            *next = offset.next();
                        })
                    }
                    Err(stop) => Err(stop),
                }
            };
            if let Err(stop) = step {
                return Err(self.why(stop, &path, position, offset));
            }
        }
        if cursor.at_end() && cursor.offset != last {
            let (expected, found) =
                (format!("records up to {last}"), format!("the end at {}", cursor.offset));
            let stop = Stop::Bad { expected, found };
            return Err(self.why(stop, &path, cursor.position, cursor.offset));
        }
        let hint = (cursor.offset, cursor.position);
        let mut index = self.shared.index();
        // It may have been trimmed meanwhile; another one then has nothing to learn here.
        if let Some(segment) = index.segment_of(start.0).filter(|segment| segment.path == path) {
            places.into_iter().for_each(|place| segment.mark(place));
            segment.hint = hint;
        }
        Ok(more)
    }

    /// A segment that was trimmed under the reader's hands is not a broken one.
    fn why(&self, stop: Stop, file: &Path, position: u64, offset: Offset) -> LogError {
        let first = self.first();
        match stop {
            Stop::Io(e) if e.kind() == io::ErrorKind::NotFound && offset < first => {
                LogError::Trimmed { from: offset, first }
            }
            stop => stop.into_error(file, position, offset),
        }
    }

    /// The offset of the next record to become durable.
    pub fn end(&self) -> Offset {
        self.shared.index().end
    }

    /// The first record that the log still has; the same as [`LogReader::end`] if it has none.
    pub fn first(&self) -> Offset {
        self.shared.index().first()
    }
}
