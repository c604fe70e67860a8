//! The tree against the vectors that Certificate Transparency's implementations share (the eight leaves, roots and
//! proofs of the RFC 6962 reference tests), and against itself at every size.

use evidence::Hash;
use evidence::merkle::{
    self, consistency, inclusion, leaf_hash, root, verify_consistency, verify_inclusion,
};
use evidence::tile::Edge;

const LEAVES: [&str; 8] = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
];

const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

const INCLUSIONS: [(u64, u64, &[&str]); 4] = [
    (0, 1, &[]),
    (
        0,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        &[
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
];

const CONSISTENCIES: [(u64, u64, &[&str]); 4] = [
    (1, 1, &[]),
    (
        1,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        &[
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        &[
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
];

fn hash(text: &str) -> Hash {
    Hash(hex::decode(text).unwrap().try_into().unwrap())
}

fn reference_leaves() -> Vec<Hash> {
    LEAVES.iter().map(|leaf| leaf_hash(&hex::decode(leaf).unwrap())).collect()
}

/// So many leaves, none like another.
fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
}

fn root_of(leaves: &[Hash], size: u64) -> Hash {
    let Ok(root) = root(leaves, size);
    root
}

fn inclusion_of(leaves: &[Hash], index: u64, size: u64) -> Vec<Hash> {
    let Ok(path) = inclusion(leaves, index, size);
    path
}

fn consistency_of(leaves: &[Hash], old: u64, new: u64) -> Vec<Hash> {
    let Ok(path) = consistency(leaves, old, new);
    path
}

#[test]
fn roots_are_those_of_the_reference_tree() {
    let leaves = reference_leaves();
    for (size, expected) in ROOTS.iter().enumerate() {
        assert_eq!(root_of(&leaves, size as u64), hash(expected), "{size} leaves");
    }
}

#[test]
fn proofs_are_those_of_the_reference_tree() {
    let leaves = reference_leaves();
    for (index, size, path) in INCLUSIONS {
        let path: Vec<Hash> = path.iter().map(|p| hash(p)).collect();
        assert_eq!(inclusion_of(&leaves, index, size), path, "leaf {index} of {size}");
        let root = hash(ROOTS[size as usize]);
        assert_eq!(verify_inclusion(index, size, leaves[index as usize], &path, &root), Ok(()));
    }
    for (old, new, path) in CONSISTENCIES {
        let path: Vec<Hash> = path.iter().map(|p| hash(p)).collect();
        assert_eq!(consistency_of(&leaves, old, new), path, "{old} to {new}");
        let (before, after) = (hash(ROOTS[old as usize]), hash(ROOTS[new as usize]));
        assert_eq!(verify_consistency((old, &before), (new, &after), &path), Ok(()));
    }
}

/// Sizes around each power of two up to two levels of tiles are in it.
const SIZE_MAX: u64 = 70;

#[test]
fn every_leaf_of_every_size_has_a_proof_that_holds_for_it_and_for_nothing_else() {
    let leaves = leaves(SIZE_MAX);
    let mut refused = 0;
    for size in 1..=SIZE_MAX {
        let root = root_of(&leaves, size);
        for index in 0..size {
            let leaf = leaves[index as usize];
            let path = inclusion_of(&leaves, index, size);
            assert_eq!(verify_inclusion(index, size, leaf, &path, &root), Ok(()));

            let mut must_fail = |index, size, leaf, path: &[Hash], root: &Hash| {
                assert!(verify_inclusion(index, size, leaf, path, root).is_err());
                refused += 1;
            };
            let other = leaf_hash(b"another");
            must_fail(index, size, other, &path, &root);
            must_fail(index, size, leaf, &path, &other);
            must_fail(size, size, leaf, &path, &root);
            must_fail(index, size, leaf, &[&path[..], &[other]].concat(), &root);
            must_fail(index, size, leaf, &[&[other], &path[..]].concat(), &root);
            for at in 0..path.len() {
                let mut changed = path.clone();
                changed[at].0[31] ^= 1;
                must_fail(index, size, leaf, &changed, &root);
                changed.remove(at);
                must_fail(index, size, leaf, &changed, &root);
            }
            for wrong in (0..size).filter(|wrong| *wrong != index) {
                must_fail(wrong, size, leaf, &path, &root);
            }
        }
    }
    println!("{refused} wrong proofs refused");
}

#[test]
fn every_size_continues_every_smaller_one_and_no_other() {
    let leaves = leaves(SIZE_MAX);
    let roots: Vec<Hash> = (0..=SIZE_MAX).map(|size| root_of(&leaves, size)).collect();
    let mut refused = 0;
    for new in 0..=SIZE_MAX {
        for old in 0..=new {
            let path = consistency_of(&leaves, old, new);
            let (before, after) = (&roots[old as usize], &roots[new as usize]);
            assert_eq!(verify_consistency((old, before), (new, after), &path), Ok(()));

            let mut must_fail = |old: (u64, &Hash), new: (u64, &Hash), path: &[Hash]| {
                assert!(verify_consistency(old, new, path).is_err(), "{old:?} {new:?}");
                refused += 1;
            };
            let other = leaf_hash(b"another");
            must_fail((old, &other), (new, after), &path);
            must_fail((old, before), (new, after), &[&path[..], &[other]].concat());
            if old > 0 {
                must_fail((old, before), (new, &other), &path);
            }
            for at in 0..path.len() {
                let mut changed = path.clone();
                changed[at].0[0] ^= 1;
                must_fail((old, before), (new, after), &changed);
                changed.remove(at);
                must_fail((old, before), (new, after), &changed);
            }
            for wrong in (1..new).filter(|wrong| *wrong != old && old > 0) {
                must_fail((wrong, before), (new, after), &path);
            }
            if old < new {
                // What shrinks does not continue.
                must_fail((new, after), (old, before), &path);
            }
        }
    }
    println!("{refused} wrong proofs refused");
}

#[test]
fn the_right_edge_knows_the_root_at_every_size() {
    // Over two full tiles.
    let leaves = leaves(600);
    let mut edge = Edge::default();
    assert_eq!(edge.root(), Hash::of_no_leaves());
    for (n, leaf) in leaves.iter().enumerate() {
        edge.push(*leaf, |_, _| {});
        let size = n as u64 + 1;
        assert_eq!((edge.size(), edge.root()), (size, root_of(&leaves, size)));
    }
}

#[test]
fn a_leaf_is_never_a_node() {
    let (left, right) = (leaf_hash(b"l"), leaf_hash(b"r"));
    let both = [left.0, right.0].concat();
    assert_ne!(leaf_hash(&both), merkle::node_hash(&left, &right));
}
