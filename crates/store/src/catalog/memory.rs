//! The catalog in memory: for the simulator, and for tests that cut the power around a step.

use super::{Catalog, CatalogError, Commit, FileEntry, Mark, Place, Step};
use crate::file::FileName;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// Where in a step a hook is called: its failure is the death of the process there, or before it a disk that is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitPoint {
    /// Nothing has happened.
    Before,
    /// It has happened, and nobody was told.
    After,
}

type Hook = Arc<dyn Fn(CommitPoint) -> io::Result<()> + Send + Sync>;

/// Clones are the same catalog, as two processes see it.
#[derive(Clone)]
pub struct MemoryCatalog {
    state: Arc<Mutex<State>>,
    hook: Hook,
}

#[derive(Debug, Default)]
struct State {
    shards: Vec<Place>,
    files: BTreeMap<FileName, FileEntry>,
    marks: BTreeMap<(u32, u64), Mark>,
}

impl MemoryCatalog {
    pub fn new(shards: u32) -> Self {
        let nowhere = Place { claim: 0, offset: 0, taken: None };
        let state = State { shards: vec![nowhere; shards as usize], ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), hook: Arc::new(|_| Ok(())) }
    }

    /// Calls `hook` before and after every step. When it fails, the step's answer is an error.
    pub fn with_hook(
        self,
        hook: impl Fn(CommitPoint) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { hook: Arc::new(hook), ..self }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the catalog")
    }

    fn hook(&self, point: CommitPoint) -> Result<(), CatalogError> {
        let attempt = "move the shard";
        (self.hook)(point).map_err(|e| match point == CommitPoint::Before && disk::is_full(&e) {
            true => CatalogError::NoRoom { attempt, source: Box::new(e) },
            false => CatalogError::Failed { attempt, source: Box::new(e) },
        })
    }
}

impl Catalog for MemoryCatalog {
    fn shards(&self) -> u32 {
        self.state().shards.len() as u32
    }

    fn claim(&self, shard: u32) -> Result<Place, CatalogError> {
        let mut state = self.state();
        let place = state.shards.get_mut(shard as usize).ok_or(CatalogError::NoShard { shard })?;
        place.claim += 1;
        Ok(place.clone())
    }

    fn files(&self) -> Result<Vec<FileEntry>, CatalogError> {
        Ok(self.state().files.values().cloned().collect())
    }

    fn marks(&self, shard: u32) -> Result<Vec<Mark>, CatalogError> {
        let state = self.state();
        Ok(state
            .marks
            .range((shard, 0)..=(shard, u64::MAX))
            .map(|(_, mark)| mark.clone())
            .collect())
    }

    fn commit(&self, step: &Step) -> Result<Commit, CatalogError> {
        self.hook(CommitPoint::Before)?;
        {
            let mut state = self.state();
            let shard = step.shard;
            let place =
                state.shards.get_mut(shard as usize).ok_or(CatalogError::NoShard { shard })?;
            if *place != step.from {
                return Ok(Commit::LostPlace(place.clone()));
            }
            place.offset = step.offset;
            place.taken = Some(step.taken.clone());
            let files = step.files.iter().map(|file| (file.name.clone(), file.clone()));
            state.files.extend(files);
            state.marks.retain(|(of, offset), _| *of != shard || *offset > step.forget_marks);
            let mark = Mark { offset: step.offset, at: step.at, bytes: step.bytes };
            state.marks.insert((shard, step.offset), mark);
        }
        self.hook(CommitPoint::After)?;
        Ok(Commit::Done)
    }
}
