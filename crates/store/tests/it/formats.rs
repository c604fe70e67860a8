//! Golden bytes of what the store writes for itself, and refusal of everything that is not it.

use crate::plant::{Device, START_US, batch, readings};
use std::path::Path;
use store::ingest::ingest;
use store::memory::Memory;

fn memory() -> Memory {
    let mut memory = Memory::default();
    let mut first = Device::new("pump-1", 1);
    let mut second = Device::new("pump-2", 2);
    let mut entries = Vec::new();
    for _ in 0..2 {
        let message = first.seal(&readings("t", START_US, 1));
        entries.push(first.entry(message));
    }
    first.rotate(3);
    let message = first.seal(&readings("t", START_US, 1));
    entries.push(first.entry(message));
    let message = second.state_lost(4, 7);
    entries.push(second.entry(message));
    ingest(&mut memory, batch(entries));
    memory
}

#[test]
fn the_memory_of_a_shard() {
    let bytes = memory().encode(2, 77);
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/formats/golden/store-memory-v1.hex");
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let golden: String = golden.lines().map(str::trim).collect();
    let today: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if golden != today {
        let lines: Vec<_> = today.as_bytes().chunks(96).map(String::from_utf8_lossy).collect();
        panic!(
            "{} is not what is written today; golden bytes never change: a new version needs a new file. Today:\n{}\n",
            path.display(),
            lines.join("\n")
        );
    }
    assert_eq!(Memory::decode(&bytes, 2, 77), Ok(memory()));
}

#[test]
fn inv_replay_1_a_memory_with_any_bit_turned_is_refused() {
    let bytes = memory().encode(2, 77);
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(Memory::decode(&changed, 2, 77).is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(Memory::decode(&bytes[..len], 2, 77).is_err(), "{len} bytes");
    }
    assert!(Memory::decode(&[bytes.as_slice(), &[0]].concat(), 2, 77).is_err());
}

#[test]
fn a_memory_of_another_shard_or_offset_is_refused() {
    let bytes = memory().encode(2, 77);
    let error = Memory::decode(&bytes, 1, 77).unwrap_err();
    assert_eq!(
        (error.expected.as_str(), error.found.as_str()),
        ("shard 1 at offset 77", "shard 2 at offset 77")
    );
    assert!(Memory::decode(&bytes, 2, 78).is_err());
}
