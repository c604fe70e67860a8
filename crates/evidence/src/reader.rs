//! Reads what a checkpoint covers, from any thread, while the log grows.
//!
//! A tile's file may be longer than what is covered: only its beginning is looked at. What is read is checked against the
//! tree before it is handed out, so that damage is an error with the file's name and never an event.

use crate::checkpoint::Checkpoint;
use crate::error::LogError;
use crate::event::Event;
use crate::export::{self, Earlier, Entry};
use crate::merkle::{self, Hash, Subtrees, leaf_hash};
use crate::note::NoteKey;
use crate::tile::{self, BUNDLE_BYTES_MAX, Resource, WIDTH};
use disk::SharedDisk;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

/// See the module's head. Clones read the same log.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<Shared>,
}

/// What the log and its readers have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub disk: SharedDisk,
    pub dir: PathBuf,
    pub key: NoteKey,
    covered: RwLock<Arc<Checkpoint>>,
}

impl Shared {
    pub fn new(disk: SharedDisk, dir: PathBuf, key: NoteKey, checkpoint: Checkpoint) -> Self {
        Self { disk, dir, key, covered: RwLock::new(Arc::new(checkpoint)) }
    }

    pub fn covered(&self) -> Arc<Checkpoint> {
        self.covered.read().expect("nobody panics while it is set").clone()
    }

    pub fn cover(&self, checkpoint: Checkpoint) {
        *self.covered.write().expect("nobody panics while it is read") = Arc::new(checkpoint);
    }

    /// The first `count` hashes of a tile.
    pub fn tile(&self, level: u8, n: u64, count: u64) -> Result<Vec<Hash>, LogError> {
        let path = self.dir.join(tile::tile_name(level, n));
        let mut bytes = vec![0; count as usize * Hash::BYTES];
        let read = self.disk.read_at(&path, 0, &mut bytes).map_err(LogError::io("read", &path))?;
        if read < bytes.len() {
            let (expected, found) = (format!("{} bytes", bytes.len()), format!("{read} bytes"));
            return Err(LogError::Damaged { path, expected, found });
        }
        Ok(bytes.chunks_exact(Hash::BYTES).map(|hash| Hash(hash.try_into().expect("32"))).collect())
    }

    /// The first `width` leaves of a bundle, each as the tree has it.
    pub fn leaves(&self, n: u64, width: u64) -> Result<Vec<Vec<u8>>, LogError> {
        let path = self.dir.join(tile::entries_name(n));
        let bytes = self.disk.read(&path, BUNDLE_BYTES_MAX).map_err(LogError::io("read", &path))?;
        let hashes = self.tile(0, n, width)?;
        let Some(leaves) = tile::entries(&bytes, width) else {
            let expected = format!("{width} entries");
            let found = format!("{} bytes that are none", bytes.len());
            return Err(LogError::Damaged { path, expected, found });
        };
        for (leaf, hash) in leaves.iter().zip(&hashes) {
            let found = leaf_hash(leaf);
            if found != *hash {
                let (expected, found) = (format!("an entry with hash {hash}"), found.to_string());
                return Err(LogError::Damaged { path, expected, found });
            }
        }
        Ok(leaves.into_iter().map(<[u8]>::to_vec).collect())
    }

    /// The tree of `size` leaves, which a checkpoint covers.
    pub fn tree(&self, size: u64) -> Tree<'_> {
        Tree { shared: self, size, tiles: RefCell::default() }
    }
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The newest durable checkpoint.
    pub fn checkpoint(&self) -> Arc<Checkpoint> {
        self.shared.covered()
    }

    /// The log's public key: what an auditor is given once, by another way than the log.
    pub fn key(&self) -> &NoteKey {
        &self.shared.key
    }

    pub fn event(&self, sequence: u64) -> Result<Event, LogError> {
        let size = self.checkpoint().size();
        if sequence >= size {
            return Err(LogError::NotCovered { sequence, size });
        }
        let leaves = self.shared.leaves(sequence / WIDTH, sequence % WIDTH + 1)?;
        let leaf = leaves.last().expect("at least one was asked for");
        Event::from_leaf(leaf).map_err(|source| LogError::NotAnEvent { sequence, source })
    }

    /// The root that the log had when it had so many events.
    pub fn root_at(&self, size: u64) -> Result<Hash, LogError> {
        let covered = self.checkpoint().size();
        if size > covered {
            return Err(LogError::NotEarlier { earlier: size, size: covered });
        }
        merkle::root(&self.shared.tree(covered), size)
    }

    /// Proof that an event is in the log, for the checkpoint that comes with it.
    pub fn inclusion(&self, sequence: u64) -> Result<(Arc<Checkpoint>, Vec<Hash>), LogError> {
        let checkpoint = self.checkpoint();
        let size = checkpoint.size();
        if sequence >= size {
            return Err(LogError::NotCovered { sequence, size });
        }
        let proof = merkle::inclusion(&self.shared.tree(size), sequence, size)?;
        Ok((checkpoint, proof))
    }

    /// Proof that the log has only grown since it had `earlier` events, for the checkpoint that comes with it.
    pub fn consistency(&self, earlier: u64) -> Result<(Arc<Checkpoint>, Vec<Hash>), LogError> {
        let checkpoint = self.checkpoint();
        let size = checkpoint.size();
        if earlier > size {
            return Err(LogError::NotEarlier { earlier, size });
        }
        let proof = merkle::consistency(&self.shared.tree(size), earlier, size)?;
        Ok((checkpoint, proof))
    }

    /// What stands under a name of C2SP tlog-tiles below the log's prefix. `None`: there is no such thing, or not yet.
    pub fn resource(&self, name: &str) -> Result<Option<Vec<u8>>, LogError> {
        let checkpoint = self.checkpoint();
        let Some(resource) = Resource::parse(name).filter(|it| it.is_in(checkpoint.size())) else {
            return Ok(None);
        };
        Ok(Some(match resource {
            Resource::Checkpoint => checkpoint.note().as_bytes().to_vec(),
            Resource::Tile { level, n, width } => {
                self.shared.tile(level, n, width)?.iter().flat_map(|hash| hash.0).collect()
            }
            Resource::Entries { n, width } => {
                let mut bundle = Vec::new();
                for leaf in self.shared.leaves(n, width)? {
                    tile::put_entry(&mut bundle, &leaf);
                }
                bundle
            }
        }))
    }

    /// An export of some events, ascending, under the newest checkpoint; with the proof that the log has only grown since
    /// `earlier`, a checkpoint that was kept. What does not verify is not handed out.
    pub fn export(&self, sequences: &[u64], earlier: Option<&str>) -> Result<Vec<u8>, LogError> {
        let shared = &*self.shared;
        let checkpoint = self.checkpoint();
        let size = checkpoint.size();
        let tree = shared.tree(size);

        let earlier = match earlier {
            None => None,
            Some(note) => {
                let earlier = Checkpoint::open(note, &shared.key).map_err(|source| {
                    LogError::Checkpoint { path: PathBuf::from("the earlier checkpoint"), source }
                })?;
                if earlier.size() > size {
                    return Err(LogError::NotEarlier { earlier: earlier.size(), size });
                }
                let proof = merkle::consistency(&tree, earlier.size(), size)?;
                Some(Earlier { checkpoint: earlier, proof })
            }
        };

        let mut entries = Vec::with_capacity(sequences.len());
        // Sequences ascend, so a bundle is read once.
        let mut bundle: (u64, Vec<Vec<u8>>) = (u64::MAX, Vec::new());
        for &sequence in sequences {
            if sequence >= size {
                return Err(LogError::NotCovered { sequence, size });
            }
            let n = sequence / WIDTH;
            if bundle.0 != n {
                bundle = (n, shared.leaves(n, (size - n * WIDTH).min(WIDTH))?);
            }
            let event = Event::from_leaf(&bundle.1[(sequence % WIDTH) as usize])
                .map_err(|source| LogError::NotAnEvent { sequence, source })?;
            entries.push(Entry { event, proof: merkle::inclusion(&tree, sequence, size)? });
        }

        let export = export::write(&shared.key, &checkpoint, earlier.as_ref(), &entries);
        export::verify(export.as_bytes(), &shared.key)
            .map_err(|source| LogError::NotProven { source })?;
        Ok(export.into_bytes())
    }
}

/// The tree of a size that a checkpoint covers, over the tiles on the disk.
pub(crate) struct Tree<'a> {
    shared: &'a Shared,
    size: u64,
    /// Tiles that were read. At most [`TILES_KEPT_MAX`], then it begins anew.
    tiles: RefCell<BTreeMap<(u8, u64), Vec<Hash>>>,
}

/// Two proofs next to each other use the same few tiles: half a megabyte keeps them.
const TILES_KEPT_MAX: usize = 64;

impl Subtrees for Tree<'_> {
    type Error = LogError;

    fn subtree(&self, height: u32, index: u64) -> Result<Hash, LogError> {
        let (level, n, _) = tile::tile_of(height, index);
        let mut tiles = self.tiles.borrow_mut();
        if !tiles.contains_key(&(level, n)) {
            if tiles.len() >= TILES_KEPT_MAX {
                tiles.clear();
            }
            let count = (tile::hashes_at(level, self.size) - n * WIDTH).min(WIDTH);
            tiles.insert((level, n), self.shared.tile(level, n, count)?);
        }
        Ok(tile::subtree_in(&tiles[&(level, n)], height, index))
    }
}
