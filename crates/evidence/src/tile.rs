//! Tiles and entry bundles: their names, their shapes, and the right edge of the tree (C2SP tlog-tiles).
//!
//! ```text
//! tile/<level>/<n>          up to 256 hashes of 32 bytes; level 0 has the leaves' hashes, a higher one the roots of
//!                           full tiles below it
//! tile/entries/<n>          up to 256 times: length u16, big endian | leaf
//! <n>                       three digits at a time, x before all but the last: 1234067 is x001/x234/067
//! ...                .p/<w> the first w of them: a partial tile
//! ```
//!
//! A partial tile is the beginning of the full one, so that one file per tile, to which is only ever appended, holds them
//! all.

use crate::merkle::{self, Hash, node_hash, perfect_root};

/// Hashes of a full tile.
pub const WIDTH: u64 = 1 << HEIGHT;

/// Levels of the tree that one level of tiles spans.
pub const HEIGHT: u32 = 8;

/// The longest leaf. The length before it could say 65,535; events are shorter, and a bundle has 256 of them.
pub const LEAF_BYTES_MAX: usize = 16 * 1024;

/// The longest bundle.
pub const BUNDLE_BYTES_MAX: u64 = WIDTH * (2 + LEAF_BYTES_MAX as u64);

/// What a name under the log's prefix stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Checkpoint,
    /// Hashes of a tile.
    Tile {
        level: u8,
        n: u64,
        width: u64,
    },
    /// Leaves of a bundle.
    Entries {
        n: u64,
        width: u64,
    },
}

impl Resource {
    /// Reads a name; only the one form of each is a name.
    pub fn parse(name: &str) -> Option<Self> {
        if name == "checkpoint" {
            return Some(Self::Checkpoint);
        }
        let (kind, place) = name.strip_prefix("tile/")?.split_once('/')?;
        let (n, width) = match place.split_once(".p/") {
            None => (place, WIDTH),
            Some((n, width)) => (n, decimal(width).filter(|w| (1..WIDTH).contains(w))?),
        };
        let n = parse_index(n)?;
        match kind {
            "entries" => Some(Self::Entries { n, width }),
            level => {
                let level = decimal(level).filter(|level| *level <= 63)? as u8;
                Some(Self::Tile { level, n, width })
            }
        }
    }

    /// Whether a tree of so many leaves has it.
    pub fn is_in(&self, size: u64) -> bool {
        match *self {
            Self::Checkpoint => true,
            Self::Tile { level, n, width } => has(hashes_at(level, size), n, width),
            Self::Entries { n, width } => has(size, n, width),
        }
    }
}

fn has(hashes: u64, n: u64, width: u64) -> bool {
    n.checked_mul(WIDTH).and_then(|from| from.checked_add(width)).is_some_and(|end| end <= hashes)
}

/// The name of a tile's file.
pub fn tile_name(level: u8, n: u64) -> String {
    format!("tile/{level}/{}", index_name(n))
}

/// The name of a bundle's file.
pub fn entries_name(n: u64) -> String {
    format!("tile/entries/{}", index_name(n))
}

fn index_name(n: u64) -> String {
    let mut name = format!("{:03}", n % 1000);
    let mut rest = n / 1000;
    while rest > 0 {
        name = format!("x{:03}/{name}", rest % 1000);
        rest /= 1000;
    }
    name
}

fn parse_index(text: &str) -> Option<u64> {
    let mut n: u64 = 0;
    let mut parts = text.split('/').peekable();
    while let Some(part) = parts.next() {
        let digits = match parts.peek() {
            Some(_) => part.strip_prefix('x')?,
            None => part,
        };
        if digits.len() != 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        n = n.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
    }
    // x000/001 is another name of 001.
    (index_name(n) == text).then_some(n)
}

/// A decimal number without leading zeroes.
fn decimal(text: &str) -> Option<u64> {
    let plain = text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
    if plain { text.parse().ok() } else { None }
}

/// How many hashes a level of tiles has in a tree of `size` leaves.
pub fn hashes_at(level: u8, size: u64) -> u64 {
    size.checked_shr(HEIGHT * u32::from(level)).unwrap_or(0)
}

/// The subtree of `height` below the top of a tile, as it stands in that tile: its `index` counts over the whole tree.
/// `hashes` are those of the tile that [`tile_of`] names.
pub fn subtree_in(hashes: &[Hash], height: u32, index: u64) -> Hash {
    let width = 1 << (height % HEIGHT);
    let from = (index as usize % (WIDTH as usize / width)) * width;
    perfect_root(&hashes[from..from + width])
}

/// Which tile holds a subtree: level, number, and how many of its hashes are needed.
pub fn tile_of(height: u32, index: u64) -> (u8, u64, u64) {
    let level = (height / HEIGHT) as u8;
    let below = height % HEIGHT;
    let n = index >> (HEIGHT - below);
    let needs = ((index + 1) << below) - n * WIDTH;
    (level, n, needs)
}

/// Adds a leaf to a bundle.
pub fn put_entry(bundle: &mut Vec<u8>, leaf: &[u8]) {
    let len = u16::try_from(leaf.len()).expect("a leaf is at most LEAF_BYTES_MAX long");
    bundle.extend_from_slice(&len.to_be_bytes());
    bundle.extend_from_slice(leaf);
}

/// The first `width` leaves of a bundle. `None`: it does not have them.
pub fn entries(bundle: &[u8], width: u64) -> Option<Vec<&[u8]>> {
    let mut rest = bundle;
    let mut leaves = Vec::with_capacity(width as usize);
    for _ in 0..width {
        let (len, behind) = rest.split_first_chunk::<2>()?;
        let (leaf, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        leaves.push(leaf);
        rest = behind;
    }
    Some(leaves)
}

/// How many bytes of a bundle some leaves take.
pub fn entries_len(leaves: &[&[u8]]) -> u64 {
    leaves.iter().map(|leaf| 2 + leaf.len() as u64).sum()
}

/// The right edge of a tree: the hashes of each level that are not in a full tile yet. Enough to add leaves and to know
/// the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    size: u64,
    levels: Vec<Vec<Hash>>,
}

impl Edge {
    /// The edge of a tree of `size` leaves; `partial` gives the hashes of the partial tile of a level, `len` of them.
    pub fn load<E>(
        size: u64,
        mut partial: impl FnMut(u8, u64, u64) -> Result<Vec<Hash>, E>,
    ) -> Result<Self, E> {
        let mut levels = Vec::new();
        for level in 0_u8.. {
            let hashes = hashes_at(level, size);
            if hashes == 0 {
                break;
            }
            let (n, len) = (hashes / WIDTH, hashes % WIDTH);
            levels.push(if len == 0 { Vec::new() } else { partial(level, n, len)? });
        }
        Ok(Self { size, levels })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf; tells each hash that this adds to a tile, level by level from the lowest.
    pub fn push(&mut self, leaf: Hash, mut added: impl FnMut(u8, Hash)) {
        self.size += 1;
        let mut hash = leaf;
        for level in 0_u8.. {
            if self.levels.len() == usize::from(level) {
                self.levels.push(Vec::with_capacity(WIDTH as usize));
            }
            let tile = &mut self.levels[usize::from(level)];
            tile.push(hash);
            added(level, hash);
            if (tile.len() as u64) < WIDTH {
                return;
            }
            hash = perfect_root(tile);
            tile.clear();
        }
    }

    pub fn root(&self) -> Hash {
        let mut root: Option<Hash> = None;
        // From the right: the lowest level, and in it the smallest perfect subtree.
        for tile in &self.levels {
            let mut end = tile.len();
            while end > 0 {
                let width = 1 << end.trailing_zeros();
                let perfect = perfect_root(&tile[end - width..end]);
                root = Some(root.map_or(perfect, |right| node_hash(&perfect, &right)));
                end -= width;
            }
        }
        root.unwrap_or_else(merkle::Hash::of_no_leaves)
    }
}
