//! One contract, two forms.

use crate::plant::START_US;
use model::Timestamp;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::Table;
use store::catalog::{
    Catalog, CatalogError, Commit, FileEntry, Mark, MemoryCatalog, Place, SqliteCatalog, Step,
    trim_below,
};
use store::file::{FileName, taken_name};

/// A process that opens the same catalog.
type Open<'a> = &'a dyn Fn() -> Arc<dyn Catalog>;

fn both(contract: fn(Open)) {
    let memory = MemoryCatalog::new(3);
    contract(&|| Arc::new(memory.clone()));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.sqlite");
    contract(&|| Arc::new(SqliteCatalog::open(&path, 3).unwrap()));
}

fn step(from: &Place, shard: u32, offset: u64) -> Step {
    let name = FileName {
        table: Table::Readings,
        shard,
        first: from.offset,
        last: offset - 1,
        claim: from.claim,
    };
    let file = FileEntry {
        name,
        rows: 7,
        bytes: 1234,
        time_min: START_US,
        time_max: START_US + 5,
        device_min: "a".into(),
        device_max: "z".into(),
    };
    Step {
        shard,
        from: from.clone(),
        offset,
        taken: taken_name(shard, offset, from.claim),
        files: vec![file],
        at: Timestamp(START_US + offset as i64),
        bytes: 100,
        forget_marks: 0,
    }
}

#[test]
fn a_new_catalog_has_its_shards_at_0_and_nothing_else() {
    both(|open| {
        let catalog = open();
        assert_eq!(catalog.shards(), 3);
        assert_eq!(catalog.files().unwrap(), vec![]);
        assert_eq!(catalog.marks(2).unwrap(), vec![]);
        let place = Place { claim: 1, offset: 0, taken: None };
        assert_eq!(catalog.claim(2).unwrap(), place);
    });
}

#[test]
fn a_step_moves_one_shard_and_adds_its_files_and_its_mark() {
    both(|open| {
        let catalog = open();
        let from = catalog.claim(1).unwrap();
        let step = step(&from, 1, 10);
        assert_eq!(catalog.commit(&step).unwrap(), Commit::Done);
        assert_eq!(catalog.files().unwrap(), step.files);
        let mark = Mark { offset: 10, at: Timestamp(START_US + 10), bytes: 100 };
        assert_eq!(catalog.marks(1).unwrap(), vec![mark]);
        assert_eq!(catalog.marks(0).unwrap(), vec![]);
        let place =
            Place { claim: 2, offset: 10, taken: Some("shard-1-000000000010-1.taken".into()) };
        assert_eq!(catalog.claim(1).unwrap(), place);
        assert_eq!(catalog.claim(0).unwrap().offset, 0);
    });
}

#[test]
fn inv_replay_1_a_step_happens_once() {
    both(|open| {
        let catalog = open();
        let from = catalog.claim(0).unwrap();
        let step = step(&from, 0, 5);
        assert_eq!(catalog.commit(&step).unwrap(), Commit::Done);
        let moved = Place { claim: 1, offset: 5, taken: Some(step.taken.clone()) };
        assert_eq!(catalog.commit(&step).unwrap(), Commit::LostPlace(moved));
        assert_eq!(catalog.files().unwrap().len(), 1);
    });
}

/// Each starts from a step that happens, and changes one thing of where it begins.
#[test]
fn inv_replay_1_a_step_from_another_place_changes_nothing() {
    both(|open| {
        let catalog = open();
        let at_0 = catalog.claim(0).unwrap();
        catalog.commit(&step(&at_0, 0, 5)).unwrap();
        let at_5 = Place { claim: 1, offset: 5, taken: Some(taken_name(0, 5, 1)) };
        let changes: [fn(&mut Place); 4] = [
            |place| place.offset = 4,
            |place| place.taken = None,
            |place| place.taken = Some("another".into()),
            |place| place.claim = 2,
        ];
        for change in changes {
            let mut elsewhere = at_5.clone();
            change(&mut elsewhere);
            let answer = catalog.commit(&step(&elsewhere, 0, 9)).unwrap();
            assert_eq!(answer, Commit::LostPlace(at_5.clone()), "{elsewhere:?}");
            assert_eq!(catalog.files().unwrap().len(), 1);
            assert_eq!(catalog.marks(0).unwrap().len(), 1);
        }
        assert_eq!(catalog.commit(&step(&at_5, 0, 9)).unwrap(), Commit::Done);
    });
}

#[test]
fn inv_replay_1_who_claims_later_has_the_shard_alone() {
    both(|open| {
        let (first, second) = (open(), open());
        let old = first.claim(0).unwrap();
        let new = second.claim(0).unwrap();
        assert_eq!((old.claim, new.claim), (1, 2));
        assert_eq!(first.commit(&step(&old, 0, 5)).unwrap(), Commit::LostPlace(new.clone()));
        assert_eq!(second.commit(&step(&new, 0, 5)).unwrap(), Commit::Done);
    });
}

#[test]
fn a_step_forgets_the_marks_that_it_names() {
    both(|open| {
        let catalog = open();
        let mut place = catalog.claim(0).unwrap();
        for offset in [5, 9, 12] {
            let mut step = step(&place, 0, offset);
            step.forget_marks = if offset == 12 { 5 } else { 0 };
            assert_eq!(catalog.commit(&step).unwrap(), Commit::Done);
            place = Place { offset, taken: Some(step.taken), ..place };
        }
        let kept: Vec<_> = catalog.marks(0).unwrap().iter().map(|mark| mark.offset).collect();
        assert_eq!(kept, vec![9, 12]);
    });
}

#[test]
fn what_was_committed_is_there_for_the_next_process() {
    both(|open| {
        let files = {
            let catalog = open();
            let place = catalog.claim(2).unwrap();
            catalog.commit(&step(&place, 2, 77)).unwrap();
            catalog.files().unwrap()
        };
        let catalog = open();
        assert_eq!(catalog.files().unwrap(), files);
        assert_eq!(catalog.claim(2).unwrap().offset, 77);
    });
}

#[test]
fn a_shard_that_there_is_not_is_refused() {
    both(|open| {
        assert!(matches!(open().claim(3), Err(CatalogError::NoShard { shard: 3 })));
    });
}

#[test]
fn the_number_of_shards_is_fixed_at_the_first_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.sqlite");
    drop(SqliteCatalog::open(&path, 4).unwrap());
    let error = SqliteCatalog::open(&path, 5).err().unwrap();
    assert_eq!(
        error.to_string(),
        "the catalog has 4 shards, expected 5: the number is fixed at the first start"
    );
}

#[test]
fn a_catalog_of_a_newer_release_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.sqlite");
    drop(SqliteCatalog::open(&path, 4).unwrap());
    set_version(&path, 2);
    let error = SqliteCatalog::open(&path, 4).err().unwrap();
    assert!(matches!(error, CatalogError::Newer { expected: 1, found: 2 }), "{error}");
    set_version(&path, 1);
    assert!(SqliteCatalog::open(&path, 4).is_ok());
}

fn set_version(path: &Path, version: i64) {
    use sqlx::{ConnectOptions, Connection};
    futures::executor::block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
        let mut connection = options.connect().await.unwrap();
        let pragma = sqlx::AssertSqlSafe(format!("PRAGMA user_version = {version}"));
        sqlx::raw_sql(pragma).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
}

#[test]
fn a_name_of_a_file_says_what_is_in_it_and_other_names_are_not_ours() {
    let name = "readings_1m-2-000000000100-000000000249-7.parquet";
    let parsed = FileName::parse(name).unwrap();
    assert_eq!((parsed.table, parsed.shard), (Table::Rollup, 2));
    assert_eq!((parsed.first, parsed.last, parsed.claim), (100, 249, 7));
    for other in [
        "readings-2-100-249-7.parquet",
        "readings-2-000000000100-000000000249-7.parquet.new",
        "readings-2-000000000100-000000000249.parquet",
        "notes-2-000000000100-000000000249-7.parquet",
        "readings-2-000000000100-000000000249-7-1.parquet",
        "README",
    ] {
        assert_eq!(FileName::parse(other), None, "{other}");
    }
}

#[test]
fn the_bus_is_trimmed_by_age_and_by_size_and_only_below_what_is_committed() {
    const HOUR: Duration = Duration::from_secs(3600);
    let mark = |offset, minutes: i64, bytes| Mark {
        offset,
        at: Timestamp(START_US + minutes * 60_000_000),
        bytes,
    };
    let marks = [mark(10, 0, 500), mark(20, 30, 500), mark(30, 60, 500)];
    let at = |minutes: i64| Timestamp(START_US + minutes * 60_000_000);
    let table = [
        ("nothing is committed", &marks[..0], at(999), u64::MAX, None),
        ("all is young", &marks, at(60), u64::MAX, None),
        ("exactly as old as is kept", &marks, at(60), u64::MAX, None),
        ("one is older", &marks, at(61), u64::MAX, Some(10)),
        ("all are older", &marks, at(999), u64::MAX, Some(30)),
        ("all is young and too much", &marks, at(60), 1000, Some(10)),
        ("even one is too much", &marks, at(60), 0, Some(30)),
        ("a clock that went back trims nothing", &marks, at(-999), u64::MAX, None),
    ];
    for (what, marks, now, bytes_max, expected) in table {
        assert_eq!(trim_below(marks, now, HOUR, bytes_max), expected, "{what}");
    }
}
