//! The Merkle tree: hashes, roots, proofs and their verification (RFC 6962 §2.1; RFC 9162 §2.1.3.2 and §2.1.4.2).
//!
//! A proof is made from perfect subtrees, whose hashes never change once they are complete: that is what lets tiles be
//! written once and kept.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use std::convert::Infallible;
use std::fmt;

/// A hash of the tree. Shown in base64, as C2SP writes it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    pub const BYTES: usize = 32;

    /// The root of the tree without leaves: SHA-256 of nothing.
    pub fn of_no_leaves() -> Self {
        Self(Sha256::digest([]).into())
    }

    /// Reads the one base64 form that [`fmt::Display`] writes.
    pub fn from_base64(text: &str) -> Option<Self> {
        Some(Self(STANDARD.decode(text).ok()?.try_into().ok()?))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The hash of a leaf. Its first byte keeps a leaf from being shown as a node.
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Hash(Sha256::new().chain_update([0]).chain_update(leaf).finalize().into())
}

/// The hash above two others.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Hash(
        Sha256::new()
            .chain_update([1])
            .chain_update(left.0)
            .chain_update(right.0)
            .finalize()
            .into(),
    )
}

/// Where the hashes of perfect subtrees come from.
pub trait Subtrees {
    type Error;

    /// The hash over the leaves `index << height .. (index + 1) << height`, all of which exist.
    fn subtree(&self, height: u32, index: u64) -> Result<Hash, Self::Error>;
}

/// Leaf hashes in memory.
impl Subtrees for [Hash] {
    type Error = Infallible;

    fn subtree(&self, height: u32, index: u64) -> Result<Hash, Infallible> {
        let width = 1 << height;
        let from = (index as usize) * width;
        Ok(perfect_root(&self[from..from + width]))
    }
}

/// The root over a number of hashes that is a power of two.
pub fn perfect_root(hashes: &[Hash]) -> Hash {
    debug_assert!(hashes.len().is_power_of_two());
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        row = row.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
    }
    row[0]
}

/// The root of the tree of the first `size` leaves.
pub fn root<S: Subtrees + ?Sized>(tree: &S, size: u64) -> Result<Hash, S::Error> {
    if size == 0 { Ok(Hash::of_no_leaves()) } else { range(tree, 0, size) }
}

/// Proof that leaf `index` is in the tree of `size` leaves: the siblings from the leaf up. `index` lies below `size`.
pub fn inclusion<S: Subtrees + ?Sized>(
    tree: &S,
    index: u64,
    size: u64,
) -> Result<Vec<Hash>, S::Error> {
    debug_assert!(index < size);
    let mut path = Vec::new();
    let (mut start, mut end) = (0, size);
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            path.push(range(tree, middle, end)?);
            end = middle;
        } else {
            path.push(range(tree, start, middle)?);
            start = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// Proof that the tree of `old` leaves is the beginning of the tree of `new` leaves. `old` is at most `new`. The proof
/// between equal sizes, and from an empty tree, has no hashes.
pub fn consistency<S: Subtrees + ?Sized>(
    tree: &S,
    old: u64,
    new: u64,
) -> Result<Vec<Hash>, S::Error> {
    debug_assert!(old <= new);
    let mut path = Vec::new();
    if old == 0 {
        return Ok(path);
    }
    let (mut start, mut end) = (0, new);
    // Whether the verifier knows the hash of what is left: it is the old root itself.
    let mut is_old_root = true;
    while old < end {
        let middle = start + split(end - start);
        if old <= middle {
            path.push(range(tree, middle, end)?);
            end = middle;
        } else {
            path.push(range(tree, start, middle)?);
            start = middle;
            is_old_root = false;
        }
    }
    if !is_old_root {
        path.push(range(tree, start, end)?);
    }
    path.reverse();
    Ok(path)
}

/// A proof does not prove what it was shown for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the proof does not lead to the signed root")]
pub struct NotProven;

/// Checks that `leaf` is leaf `index` of the tree of `size` leaves with this root. Steps of RFC 9162 §2.1.3.2.
pub fn verify_inclusion(
    index: u64,
    size: u64,
    leaf: Hash,
    path: &[Hash],
    root: &Hash,
) -> Result<(), NotProven> {
    // 1.
    if index >= size {
        return Err(NotProven);
    }
    // 2. and 3.
    let (mut f, mut s) = (index, size - 1);
    let mut r = leaf;
    for p in path {
        // 4a.
        if s == 0 {
            return Err(NotProven);
        }
        // 4b.
        if f & 1 == 1 || f == s {
            r = node_hash(p, &r);
            while f & 1 == 0 && f != 0 {
                (f, s) = (f >> 1, s >> 1);
            }
        } else {
            r = node_hash(&r, p);
        }
        // 4c.
        (f, s) = (f >> 1, s >> 1);
    }
    // 5.
    if s == 0 && r == *root { Ok(()) } else { Err(NotProven) }
}

/// Checks that the tree of `old` leaves is the beginning of the tree of `new` leaves. Steps of RFC 9162 §2.1.4.2, and
/// what it leaves open: equal sizes have equal roots, and an empty tree is the beginning of any.
pub fn verify_consistency(
    (old, old_root): (u64, &Hash),
    (new, new_root): (u64, &Hash),
    path: &[Hash],
) -> Result<(), NotProven> {
    let check = |holds: bool| if holds { Ok(()) } else { Err(NotProven) };
    if old >= new {
        return check(old == new && old_root == new_root && path.is_empty());
    }
    if old == 0 {
        return check(*old_root == Hash::of_no_leaves() && path.is_empty());
    }
    // 1. and 2.
    let (first, rest) = match path {
        [] => return Err(NotProven),
        path if old.is_power_of_two() => (old_root, path),
        [first, rest @ ..] => (first, rest),
    };
    // 3.
    let (mut f, mut s) = (old - 1, new - 1);
    // 4.
    while f & 1 == 1 {
        (f, s) = (f >> 1, s >> 1);
    }
    // 5.
    let (mut fr, mut sr) = (*first, *first);
    for c in rest {
        // 6a.
        if s == 0 {
            return Err(NotProven);
        }
        // 6b.
        if f & 1 == 1 || f == s {
            fr = node_hash(c, &fr);
            sr = node_hash(c, &sr);
            while f & 1 == 0 && f != 0 {
                (f, s) = (f >> 1, s >> 1);
            }
        } else {
            sr = node_hash(&sr, c);
        }
        // 6c.
        (f, s) = (f >> 1, s >> 1);
    }
    // 7.
    check(s == 0 && fr == *old_root && sr == *new_root)
}

/// The hash over the leaves `start..end`. `start` is where a tree that begins at leaf 0 is split, so that every left part
/// is perfect.
fn range<S: Subtrees + ?Sized>(tree: &S, start: u64, end: u64) -> Result<Hash, S::Error> {
    let len = end - start;
    if len.is_power_of_two() {
        let height = len.trailing_zeros();
        return tree.subtree(height, start >> height);
    }
    let middle = start + split(len);
    Ok(node_hash(&range(tree, start, middle)?, &range(tree, middle, end)?))
}

/// The largest power of two below `len`, which is at least 2.
fn split(len: u64) -> u64 {
    1 << (len - 1).ilog2()
}
