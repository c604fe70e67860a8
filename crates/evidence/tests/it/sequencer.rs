//! INV-EVID-1: rows get into the log in their order, once, and are released when they are covered and not before; and a
//! table that is not the log's is found out.

use crate::{event, told, try_open};
use disk::{Cuts, SimDisk};
use evidence::sequencer::{Effect, Input, Sequencer, Stopped};
use evidence::{Appended, Event, Head, Log, LogError};
use std::collections::{BTreeSet, HashMap, VecDeque};

/// The sequencer with a table, a log and one call at a time between them: all that can happen, in any order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    sequencer: Sequencer,
    /// Rows that were committed.
    table: u64,
    /// Events that the log has, and that a checkpoint covers.
    appended: u64,
    covered: u64,
    /// Rows of which somebody was told that they are covered.
    released: u64,
    /// Whether a wake, or a start, came after the newest row: nothing else will tell of it.
    told: bool,
    call: Option<Call>,
}

/// A call that was made and is not answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Call {
    /// Rows `from..to` were there when the table was read.
    Read {
        from: u64,
        to: u64,
    },
    Checkpoint,
}

#[derive(Clone, Copy, Debug)]
enum Move {
    Commit,
    Wake,
    Answer,
    Fail,
    /// The process dies; the checkpoint that it was making was durable or not.
    Crash {
        durable: bool,
    },
}

const MOVES: [Move; 6] = [
    Move::Commit,
    Move::Wake,
    Move::Answer,
    Move::Fail,
    Move::Crash { durable: false },
    Move::Crash { durable: true },
];

/// Several times the bound, so that one reading does not get all.
const TABLE_MAX: u64 = 9;
const ROWS_MAX: usize = 2;

impl World {
    fn begin() -> Result<Self, String> {
        let (sequencer, effects) = Sequencer::start(0, ROWS_MAX);
        Self { sequencer, table: 0, appended: 0, covered: 0, released: 0, told: true, call: None }
            .carry_out(effects)
    }

    /// `Ok(None)`: cannot happen now.
    fn after(&self, it: Move) -> Result<Option<Self>, String> {
        let mut next = self.clone();
        let input = match (it, next.call.take()) {
            (Move::Commit, call) if self.table < TABLE_MAX => {
                (next.call, next.table, next.told) = (call, self.table + 1, false);
                return Ok(Some(next));
            }
            (Move::Wake, call) => {
                (next.call, next.told) = (call, true);
                Input::Woken
            }
            (Move::Answer, Some(Call::Read { from, to })) => {
                Input::Rows((from..to).map(event).collect())
            }
            (Move::Answer, Some(Call::Checkpoint)) => {
                next.covered = self.appended;
                Input::Covered { size: next.covered }
            }
            (Move::Fail, Some(Call::Checkpoint)) => {
                // It waits for the next wake.
                next.told = false;
                Input::Failed
            }
            (Move::Crash { durable }, call) => {
                if durable && call == Some(Call::Checkpoint) {
                    next.covered = self.appended;
                }
                (next.appended, next.told) = (next.covered, true);
                let (sequencer, effects) = Sequencer::start(next.covered, ROWS_MAX);
                next.sequencer = sequencer;
                return next.carry_out(effects).map(Some);
            }
            _ => return Ok(None),
        };
        let (sequencer, effects) = next.sequencer.clone().on(input);
        next.sequencer = sequencer;
        next.carry_out(effects).map(Some)
    }

    fn carry_out(mut self, effects: Vec<Effect>) -> Result<Self, String> {
        for effect in effects {
            let is_call = matches!(effect, Effect::Read { .. } | Effect::Checkpoint);
            if is_call && self.call.is_some() {
                return Err("two calls at a time".to_owned());
            }
            match effect {
                Effect::Read { from, rows_max } => {
                    let to = self.table.min(from + rows_max as u64);
                    self.call = Some(Call::Read { from, to: to.max(from) });
                }
                Effect::Append(rows) => {
                    for row in rows {
                        match row.sequence() {
                            n if n > self.appended => return Err(format!("row {n} too early")),
                            n if n == self.appended => self.appended += 1,
                            // The log finds it there, with the same bytes.
                            _ => {}
                        }
                    }
                }
                Effect::Checkpoint => self.call = Some(Call::Checkpoint),
                Effect::Release { below } => self.released = self.released.max(below),
                Effect::Stop(why) => return Err(format!("stopped: {why}")),
            }
        }
        let ordered = [self.released, self.covered, self.appended, self.table];
        if ordered.is_sorted() { Ok(self) } else { Err(format!("not in order: {ordered:?}")) }
    }

    /// All calls succeed. It is woken once, if the newest row has not been told of, and then nobody wakes it.
    fn settles(&self) -> Result<(), String> {
        let mut world = self.clone();
        if !world.told {
            world = world.after(Move::Wake)?.ok_or("a wake is always possible")?;
        }
        for _ in 0..100 {
            match world.call {
                Some(_) => world = world.after(Move::Answer)?.ok_or("a call can be answered")?,
                None if world.released == world.table => return Ok(()),
                None => return Err(format!("rests with rows that are not released: {world:?}")),
            }
        }
        Err("never rests".to_owned())
    }
}

#[test]
fn in_every_order_of_calls_wakes_failures_and_crashes_rows_are_logged_once_and_released_in_the_end()
{
    let first = World::begin().unwrap();
    let mut came_from: HashMap<World, Option<(World, Move)>> =
        HashMap::from([(first.clone(), None)]);
    let mut queue = VecDeque::from([first]);
    while let Some(world) = queue.pop_front() {
        if let Err(e) = world.settles() {
            panic!("{e}: {}", trace(&came_from, &world));
        }
        for it in MOVES {
            match world.after(it) {
                Ok(None) => {}
                Ok(Some(next)) if came_from.contains_key(&next) => {}
                Ok(Some(next)) => {
                    came_from.insert(next.clone(), Some((world.clone(), it)));
                    queue.push_back(next);
                }
                Err(e) => panic!("{e} after {it:?}: {}", trace(&came_from, &world)),
            }
        }
    }
    println!("{} states explored", came_from.len());
    assert!(came_from.len() > 500);
}

fn trace(came_from: &HashMap<World, Option<(World, Move)>>, world: &World) -> String {
    let mut moves = Vec::new();
    let mut at = world;
    while let Some(Some((before, it))) = came_from.get(at) {
        moves.push(format!("{it:?}"));
        at = before;
    }
    moves.reverse();
    format!("{} -> {world:?}", moves.join(", "))
}

#[test]
fn a_table_that_is_not_the_logs_stops_everything() {
    let stopped = |size: u64, rows: &[u64]| {
        let (sequencer, effects) = Sequencer::start(size, ROWS_MAX);
        let from = size.saturating_sub(1);
        let expected = [Effect::Release { below: size }, Effect::Read { from, rows_max: ROWS_MAX }];
        assert_eq!(effects, expected);
        let (sequencer, effects) =
            sequencer.on(Input::Rows(rows.iter().copied().map(event).collect()));
        let [Effect::Stop(why)] = effects[..] else { return None };
        assert!(sequencer.is_stopped());
        // And it stays so.
        let (sequencer, effects) = sequencer.on(Input::Woken);
        assert!(sequencer.is_stopped() && effects.is_empty());
        println!("{why}");
        Some(why)
    };
    assert_eq!(stopped(5, &[4, 5]), None, "the table goes on where the log ends");
    assert_eq!(stopped(5, &[4]), None, "nothing new");
    assert_eq!(stopped(0, &[]), None, "a new table and a new log");
    assert_eq!(stopped(5, &[]), Some(Stopped::TableBehind { expected: 4 }));
    assert_eq!(stopped(5, &[5]), Some(Stopped::Gap { expected: 4, found: 5 }));
    assert_eq!(stopped(5, &[4, 6]), Some(Stopped::Gap { expected: 5, found: 6 }));
    assert_eq!(stopped(5, &[4, 4]), Some(Stopped::Gap { expected: 5, found: 4 }));
    assert_eq!(stopped(0, &[1]), Some(Stopped::Gap { expected: 0, found: 1 }));
    let too_many = Stopped::TooMany { rows_max: 2, found: 3 };
    assert_eq!(stopped(0, &[0, 1, 2]), Some(too_many));
}

/// What a driver does, with a table in memory that survives everything. Returns what was released.
fn drive(log: &mut Log, table: &[Event], released: &mut u64) -> Result<(), LogError> {
    let (mut sequencer, effects) = Sequencer::start(log.reader().checkpoint().size(), 7);
    let mut effects = VecDeque::from(effects);
    while let Some(effect) = effects.pop_front() {
        let input = match effect {
            Effect::Read { from, rows_max } => {
                let from = (from as usize).min(table.len());
                let to = (from + rows_max).min(table.len());
                Input::Rows(table[from..to].to_vec())
            }
            Effect::Append(rows) => {
                rows.iter().try_for_each(|row| log.append(row).map(|_| ()))?;
                continue;
            }
            Effect::Checkpoint => Input::Covered { size: log.checkpoint()?.size() },
            Effect::Release { below } => {
                *released = (*released).max(below);
                continue;
            }
            Effect::Stop(why) => panic!("{why}"),
        };
        let (next, more) = sequencer.on(input);
        sequencer = next;
        effects.extend(more);
    }
    Ok(())
}

#[test]
fn a_cut_at_any_write_releases_no_row_that_the_log_has_not() {
    let table: Vec<Event> = (0..40).map(event).collect();
    let workload = |disk: &SimDisk| {
        let mut released = 0;
        // The table grows while the log does.
        for rows in [3, 4, 20, 40] {
            let Ok(mut log) = try_open(disk.shared(), None) else { break };
            if drive(&mut log, &table[..rows], &mut released).is_err() {
                break;
            }
        }
        released
    };
    let check = |disk: &SimDisk, released: u64| {
        let tell = |e: LogError| model::told(&e);
        let mut log = try_open(disk.shared(), None).map_err(tell)?;
        let covered = log.reader().checkpoint().size();
        if covered < released {
            return Err(format!("{released} rows were released, {covered} are covered"));
        }
        let mut again = 0;
        drive(&mut log, &table, &mut again).map_err(tell)?;
        let leaves: BTreeSet<Vec<u8>> = (0..40)
            .map(|n| log.reader().event(n).map(|e| e.leaf().to_vec()))
            .collect::<Result<_, _>>()
            .map_err(tell)?;
        let all = again == 40 && log.next() == 40 && leaves.len() == 40;
        if all { Ok(()) } else { Err(format!("{again} released, {} in the log", log.next())) }
    };
    Cuts::over(0..8).run(workload, check).holds("sequencer and log");
}

#[test]
fn a_table_that_was_restored_and_went_on_is_found_by_the_row_that_both_have() {
    let disk = SimDisk::new(1);
    let table: Vec<Event> = (0..9).map(event).collect();
    let mut released = 0;
    drive(&mut try_open(disk.shared(), None).unwrap(), &table, &mut released).unwrap();
    assert_eq!(released, 9);
    let known: Head = try_open(disk.shared(), None).unwrap().reader().checkpoint().head();

    // Restored to 6 rows, and since then others were written: as many as there were, or more.
    for more in [9, 12] {
        let restored: Vec<Event> = table[..6]
            .iter()
            .cloned()
            .chain((6..more).map(|n| told(n, "after the restore")))
            .collect();
        let mut log = try_open(disk.shared(), Some(known)).unwrap();
        let forked = drive(&mut log, &restored, &mut released).unwrap_err();
        assert!(matches!(forked, LogError::Rewritten { sequence: 8 }), "{forked}");
        assert_eq!(log.reader().checkpoint().head(), known, "nothing was appended");
    }
    let mut log = try_open(disk.shared(), Some(known)).unwrap();
    assert_eq!(log.append(&table[8]).unwrap(), Appended::Known);
}
