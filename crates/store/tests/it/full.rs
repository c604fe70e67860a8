//! A disk without room: ingest waits, nothing is lost, and what was stored is answered.

use crate::files;
use crate::plant::{
    Device, NOW, Running, SMALL, START_US, bus_of, on_bus, parts, readings, run_to_end, until,
};
use api::QueryError;
use disk::SimDisk;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use store::catalog::{Catalog, CatalogError, Commit, FileEntry, Mark, Place, SqliteCatalog, Step};
use store::shard::{Flushed, Now, Shard};

/// The real catalog, which can be told to have no more pages than it has: SQLite then answers as on a full disk, and
/// rolls back by itself.
#[test]
fn a_catalog_without_room_is_waited_for_and_nothing_is_lost() {
    const RECORDS: u64 = 150;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.sqlite");
    let catalog = Arc::new(SqliteCatalog::open(&path, 2).unwrap());
    let disk = SimDisk::new(1);
    let parts = parts(disk.shared(), catalog.clone(), SMALL);
    let mut device = Device::new("pump-7", 1);
    let records: Vec<_> = (0..RECORDS)
        .map(|n| {
            let message = device.seal(&readings("t", START_US + n as i64, 10));
            on_bus(vec![device.entry(message)])
        })
        .collect();
    let mut shard = Shard::open(parts.clone(), 0, bus_of(&records)).unwrap();
    catalog.set_pages_max(1).unwrap();
    let mut flushes = 0;
    loop {
        shard.take_in(NOW).unwrap();
        match shard.flush(NOW).unwrap() {
            Flushed::Done { .. } => flushes += 1,
            Flushed::NoRoom => break,
        }
        assert!(shard.next().0 < RECORDS, "its pages were never full");
    }
    let (place, files) = (shard.place().clone(), catalog.files().unwrap());
    assert_eq!(parts.metrics.no_room.with_label_values(&["0"]).get(), 1);
    assert!(!shard.take_in(NOW).unwrap());
    // As often as it is tried: nothing changes, and the catalog goes on to answer.
    let later = Now { uptime: Duration::from_secs(10), wall: NOW.wall };
    assert_eq!(shard.flush(later).unwrap(), Flushed::NoRoom);
    assert_eq!((shard.place(), catalog.files().unwrap()), (&place, files));
    assert_eq!(catalog.claim(1).unwrap().claim, 1);
    // Another process finds it as it was.
    assert_eq!(SqliteCatalog::open(&path, 2).unwrap().marks(0).unwrap().len(), flushes);

    catalog.set_pages_max(1 << 20).unwrap();
    assert_eq!(shard.flush(later).unwrap(), Flushed::Done { trim_below: None });
    assert_eq!(parts.metrics.no_room.with_label_values(&["0"]).get(), 0);
    run_to_end(&mut shard).unwrap();
    assert_eq!(shard.place().offset, RECORDS);
    assert_eq!(files::rows(&disk, "readings").unwrap().len() as u64, 10 * RECORDS);
}

/// What there is room for.
const NOTHING: u8 = 0;
const OPENING: u8 = 1;
const ALL: u8 = 2;

/// The catalog of a disk that is full or is not.
struct OnFull {
    catalog: SqliteCatalog,
    room: Arc<AtomicU8>,
}

fn no_room(attempt: &'static str) -> CatalogError {
    CatalogError::NoRoom { attempt, source: "disk full".into() }
}

impl Catalog for OnFull {
    fn shards(&self) -> u32 {
        self.catalog.shards()
    }

    fn claim(&self, shard: u32) -> Result<Place, CatalogError> {
        // Some are claimed before the disk is full.
        match shard < 2 || self.room.load(Ordering::Acquire) == ALL {
            true => self.catalog.claim(shard),
            false => Err(no_room("claim a shard")),
        }
    }

    fn files(&self) -> Result<Vec<FileEntry>, CatalogError> {
        self.catalog.files()
    }

    fn marks(&self, shard: u32) -> Result<Vec<Mark>, CatalogError> {
        self.catalog.marks(shard)
    }

    fn commit(&self, step: &Step) -> Result<Commit, CatalogError> {
        self.catalog.commit(step)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_on_a_full_disk_answers_what_was_stored_and_ingests_once_there_is_room() {
    const COUNT: &str = "select count(*) from readings";
    let mut device = Device::new("pump-7", 1);
    let running = Running::start(|_| {}).await;
    let message = device.seal(&readings("t", START_US, 5));
    running.put(&device.id, vec![device.entry(message)]).await;
    running.wait_for(COUNT, 5).await;
    let dir = running.end().await;

    let room = Arc::new(AtomicU8::new(NOTHING));
    let (path, has) = (dir.path().join("store/catalog.sqlite"), room.clone());
    let running = Running::start_over(dir, move || match has.load(Ordering::Acquire) {
        NOTHING => Err(no_room("open the catalog")),
        _ => {
            let catalog = SqliteCatalog::open(&path, 4)?;
            Ok(Arc::new(OnFull { catalog, room: has.clone() }))
        }
    });
    // What it cannot know it does not make up.
    let unknown = running.ask(COUNT).await.unwrap_err();
    let why = "the disk has no room to open the catalog; it is tried again";
    assert_eq!(unknown, QueryError::Failed(why.into()));
    let no_room = || {
        let families = running.store.registry().gather();
        let family = families.iter().find(|f| f.name() == "plimsoll_store_no_room").unwrap();
        family.get_metric().iter().map(|m| m.get_gauge().get_value()).collect::<Vec<_>>()
    };
    assert_eq!(no_room(), [1.0; 4]);
    // The bus takes what comes.
    let message = device.seal(&readings("t", START_US + 1, 7));
    running.put(&device.id, vec![device.entry(message)]).await;

    room.store(OPENING, Ordering::Release);
    until("it answers", async || running.ask(COUNT).await.is_ok()).await;
    assert_eq!(running.cell(COUNT).await, 5);
    assert_eq!(no_room(), [1.0; 4]);

    room.store(ALL, Ordering::Release);
    running.wait_for(COUNT, 12).await;
    assert_eq!(no_room(), [0.0; 4]);
    running.end().await;
}
