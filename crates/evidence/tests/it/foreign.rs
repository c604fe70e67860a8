//! Another implementation makes the same proofs from the events alone, and believes ours; names are the specification's.

use crate::{event, grow, open};
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{ConsistencyProof, InclusionProof};
use disk::SimDisk;
use evidence::{Hash, tile};
use sha2::Sha256;

fn bytes(proof: &[Hash]) -> Vec<u8> {
    proof.iter().flat_map(|hash| hash.0).collect()
}

#[test]
fn another_implementation_comes_to_the_same_roots_and_proofs_and_believes_ours() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    let mut theirs = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    let mut before = None;
    let mut grown = 0;
    let mut proofs = 0;
    // Sizes with partial tiles of all kinds, full ones, and a second level that begins.
    for size in [1, 2, 7, 255, 256, 257, 511, 512, 700] {
        let head = grow(&mut log, grown..size);
        (grown..size).for_each(|n| theirs.push(event(n).leaf().to_vec()));
        let root = theirs.root();
        assert_eq!(root.as_bytes()[..], head.root.0, "{size} events");

        for n in (0..size).step_by(1 + size as usize / 40).chain([size - 1]) {
            let (_, ours) = log.reader().inclusion(n).unwrap();
            assert_eq!(theirs.prove_inclusion(n as usize).as_bytes(), bytes(&ours));
            let shown = InclusionProof::from_bytes(bytes(&ours));
            root.verify_inclusion(&event(n).leaf(), n, &shown).unwrap();
            proofs += 1;
        }
        if let Some(old_root) = before {
            let (_, ours) = log.reader().consistency(grown).unwrap();
            let added = (size - grown) as usize;
            assert_eq!(theirs.prove_consistency(added).as_bytes(), bytes(&ours));
            let shown = ConsistencyProof::try_from_bytes(bytes(&ours)).unwrap();
            root.verify_consistency(&old_root, &shown).unwrap();
            proofs += 1;
        }
        before = Some(root);
        grown = size;
    }
    println!("{proofs} proofs are the same in both");
}

#[test]
fn names_are_those_that_the_specification_gives() {
    for (level, n, expected) in [
        (0, 0, "tile/0/000"),
        (1, 999, "tile/1/999"),
        (0, 1000, "tile/0/x001/000"),
        (7, 1_234_067, "tile/7/x001/x234/067"),
        (0, 1_000_000_000, "tile/0/x001/x000/x000/000"),
    ] {
        assert_eq!(tile::tile_name(level, n), expected);
        for (end, width) in [("", 256), (".p/1", 1), (".p/255", 255)] {
            let read = tile::Resource::parse(&format!("{expected}{end}"));
            assert_eq!(read, Some(tile::Resource::Tile { level, n, width }));
        }
    }
    assert_eq!(tile::entries_name(1_234_067), "tile/entries/x001/x234/067");
    let read = tile::Resource::parse("tile/entries/x001/x234/067.p/8");
    assert_eq!(read, Some(tile::Resource::Entries { n: 1_234_067, width: 8 }));
    assert_eq!(tile::Resource::parse("checkpoint"), Some(tile::Resource::Checkpoint));
}

#[test]
fn a_name_in_another_form_is_no_name() {
    let good = "tile/0/x001/067.p/12";
    assert!(tile::Resource::parse(good).is_some());
    for bad in [
        "",
        "tile",
        "tile/",
        "tile/0",
        "tile/0/",
        "tile/0/1",
        "tile/0/0001",
        "tile/00/001",
        "tile/64/000",
        "tile/-1/000",
        "tile/+1/000",
        "tile/0/x000/001",
        "tile/0/001/067",
        "tile/0/x001/x067",
        "tile/0/x001/067.p/0",
        "tile/0/x001/067.p/012",
        "tile/0/x001/067.p/256",
        "tile/0/x001/067.p/",
        "tile/0/x001/067.p/12/",
        "tile/0/../checkpoint",
        "tile/entries/",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
        "/checkpoint",
        "checkpoint/",
        "tile/0/ 01",
    ] {
        assert_eq!(tile::Resource::parse(bad), None, "{bad}");
    }
}

#[test]
fn only_what_a_checkpoint_covers_is_served() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    grow(&mut log, 0..260);
    log.append(&event(260)).unwrap();
    let reader = log.reader();
    let len = |name: &str| reader.resource(name).unwrap().map(|bytes| bytes.len());
    assert_eq!(len("checkpoint"), Some(reader.checkpoint().note().len()));
    assert_eq!(len("tile/0/000"), Some(8192));
    assert_eq!(len("tile/0/000.p/255"), Some(255 * 32), "earlier partial tiles stay");
    assert_eq!(len("tile/0/001.p/4"), Some(4 * 32));
    assert_eq!(len("tile/0/001.p/1"), Some(32));
    assert_eq!(len("tile/1/000.p/1"), Some(32));
    let bundle: usize = (256..260).map(|n| 2 + event(n).leaf().len()).sum();
    assert_eq!(len("tile/entries/001.p/4"), Some(bundle));
    for name in [
        "tile/0/001",
        "tile/0/001.p/5",
        "tile/0/002.p/1",
        "tile/1/000",
        "tile/1/000.p/2",
        "tile/2/000.p/1",
        "tile/63/000.p/1",
        "tile/entries/001.p/5",
        "tile/entries/001",
        "tile/entries/x999/x999/x999/x999/x999/x999/999",
    ] {
        assert_eq!(len(name), None, "{name}");
    }
}
