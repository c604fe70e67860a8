//! Where in a recording the replay goes on.
//!
//! It stands in the header of every backlog record, beside the envelope whose readings came before it: what is durable
//! has been replayed, what is not has not, and no cut can come between the two.

/// Everything before this place is sealed and durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The first bytes of SHA-256 over the recording's header line and first row: another recording starts at its top.
    pub recording: u64,
    /// How many times the recording has been played to its end (`--loop`).
    pub lap: u32,
    /// The row: its place in the file in bytes, the line that it starts at, and its number among the rows, all from 0.
    pub byte: u64,
    pub line: u64,
    pub row: u64,
    /// The next series of that row, in the order of the columns.
    pub column: u32,
}

/// How many bytes a position takes in a record.
pub const POSITION_BYTES: usize = 40;

impl Position {
    /// All integers in little endian, in the order of the fields.
    pub fn encode(&self) -> [u8; POSITION_BYTES] {
        let mut out = [0; POSITION_BYTES];
        out[0..8].copy_from_slice(&self.recording.to_le_bytes());
        out[8..12].copy_from_slice(&self.lap.to_le_bytes());
        out[12..20].copy_from_slice(&self.byte.to_le_bytes());
        out[20..28].copy_from_slice(&self.line.to_le_bytes());
        out[28..36].copy_from_slice(&self.row.to_le_bytes());
        out[36..40].copy_from_slice(&self.column.to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8; POSITION_BYTES]) -> Self {
        let u32_at = |at: usize| {
            u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a slice of four bytes"))
        };
        let u64_at = |at: usize| {
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a slice of eight bytes"))
        };
        Self {
            recording: u64_at(0),
            lap: u32_at(8),
            byte: u64_at(12),
            line: u64_at(20),
            row: u64_at(28),
            column: u32_at(36),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_goes_there_and_back() {
        let position =
            Position { recording: u64::MAX - 1, lap: 2, byte: 3, line: 4, row: 5, column: 6 };
        assert_eq!(Position::decode(&position.encode()), position);
    }
}
