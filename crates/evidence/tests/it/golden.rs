//! The bytes of each format, as `docs/formats/evidence-*.md` draw them, kept for ever.

use crate::{event, grow, key, open};
use disk::SimDisk;
use evidence::{Checkpoint, Event, export, tile};
use std::path::Path;

#[test]
fn a_leaf() {
    assert_golden("evidence-leaf-v1", event(2).leaf());
    assert_eq!(Event::from_leaf(event(2).leaf()), Ok(event(2)));
}

#[test]
fn a_log_of_three_events() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    grow(&mut log, 0..2);
    let earlier = log.reader().checkpoint().note().to_owned();
    grow(&mut log, 2..3);
    let reader = log.reader();
    let resource = |name: &str| reader.resource(name).unwrap().unwrap();

    assert_golden("evidence-tile-v1", &resource("tile/0/000.p/3"));
    let entries = resource("tile/entries/000.p/3");
    assert_golden("evidence-entries-v1", &entries);
    let leaves = tile::entries(&entries, 3).unwrap();
    assert_eq!(leaves, (0..3).map(|n| event(n).leaf().to_vec()).collect::<Vec<_>>());

    let note = resource("checkpoint");
    assert_golden("evidence-checkpoint-v1", &note);
    let read = Checkpoint::open(std::str::from_utf8(&note).unwrap(), &key()).unwrap();
    assert_eq!(read, *reader.checkpoint());

    let exported = reader.export(&[0, 2], Some(&earlier)).unwrap();
    assert_golden("evidence-export-v1", &exported);
    assert_eq!(export::verify(&exported, &key()).unwrap().events, [event(0), event(2)]);
}

fn assert_golden(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/formats/golden")
        .join(format!("{name}.hex"));
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let golden: String = golden.lines().map(str::trim).collect();
    if golden != hex::encode(bytes) {
        let lines: Vec<String> = bytes.chunks(48).map(hex::encode).collect();
        panic!(
            "{} is not what is written today; golden bytes never change: a new version needs a \
             new file. Today:\n{}\n",
            path.display(),
            lines.join("\n")
        );
    }
}
