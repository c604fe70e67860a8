//! Recordings as they are found, and what is refused.

use super::*;
use std::fmt::Write as _;

fn put(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("recording.csv");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn rows(path: &Path) -> Vec<Row> {
    let recording = Recording::open(path).unwrap();
    all(&recording, recording.start(None))
}

fn all(recording: &Recording, from: Position) -> Vec<Row> {
    let mut rows = recording.rows(from).unwrap();
    let mut out = Vec::new();
    while let Some(row) = rows.next_row().unwrap() {
        out.push(row);
    }
    out
}

/// What a recording says, a line for each column and row.
fn told(text: &str) -> String {
    let (_dir, path) = put(text);
    let recording = match Recording::open(&path) {
        Ok(recording) => recording,
        Err(e) => return e.to_string().replace(path.to_str().unwrap(), "FILE"),
    };
    let mut told = String::new();
    for column in recording.columns() {
        let unit = column.unit.as_ref().map_or("-", |unit| unit.as_str());
        writeln!(told, "{} [{unit}] {:?}", column.series, column.holds).unwrap();
    }
    for name in recording.left_out() {
        writeln!(told, "left out {name:?}").unwrap();
    }
    for row in all(&recording, recording.start(None)) {
        write!(told, "{}:", row.line).unwrap();
        if let Some(time) = row.time {
            write!(told, " {}", time.as_us()).unwrap();
        }
        for cell in &row.cells {
            write!(told, " {}={}", cell.column, cell.value).unwrap();
        }
        row.bad.iter().for_each(|bad| write!(told, " bad: {bad}").unwrap());
        told.push('\n');
    }
    told
}

fn lines(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn columns_are_judged_by_what_they_hold_and_named_by_their_header() {
    let text = "Line;timestamp;Motor Temp [°C];On;Note;RPM (1/min);count\n\
                a;2024-01-02 03:04:05;20.5;true;ok;1500;7\n\
                b;2024-01-02 03:04:06.25;21;False;;1501.5;8\n";
    let base = 1_704_164_645_000_000i64;
    assert_eq!(
        told(text),
        lines(&[
            "Motor_Temp [Cel] Float",
            "On [-] Bool",
            "RPM [1/min] Float",
            "count [-] Int",
            "left out \"Line\"",
            "left out \"Note\"",
            &format!("2: {base} 0=20.5 1=true 2=1500 3=7"),
            &format!("3: {} 0=21 1=false 2=1501.5 3=8", base + 1_250_000),
        ])
    );
}

#[test]
fn a_time_is_read_in_each_form_and_as_utc_without_a_zone() {
    let second = 1_704_164_645_000_000i64;
    for (cell, us) in [
        ("2024-01-02T03:04:05Z", second),
        ("2024-01-02T05:04:05+02:00", second),
        ("2024-01-02 03:04:05.5", second + 500_000),
        ("2024-01-02 03:04:05", second),
        ("2024-01-02", 1_704_153_600_000_000),
        ("1704164645", second),
        ("1704164645.000001", second + 1),
        ("1704164645000", second),
        ("1704164645000.5", second + 500),
        ("1704164645000000", second),
        ("1704164645000000000", second),
    ] {
        assert_eq!(
            told(&format!("ts,v\n{cell},1\n")),
            format!("v [-] Int\n2: {us} 0=1\n"),
            "{cell}"
        );
    }
}

#[test]
fn the_first_column_that_reads_as_a_time_is_the_time() {
    let text = "id,when,v\n7,1704164645,1.5\n8,1704164646,2.5\n";
    assert_eq!(
        told(text),
        lines(&[
            "id [-] Int",
            "v [-] Float",
            "2: 1704164645000000 0=7 1=1.5",
            "3: 1704164646000000 0=8 1=2.5"
        ])
    );
}

/// Each case starts from a recording that is accepted and changes one thing.
#[test]
fn what_is_no_recording_is_refused_with_what_was_expected() {
    assert_eq!(told("time,v\n1704164645,1\n"), "v [-] Int\n2: 1704164645000000 0=1\n");
    let refused = [
        ("", "the recording `FILE` has no rows: expected a line of names and a row at least"),
        (
            "time,v\n",
            "the recording `FILE` has no rows: expected a line of names and a row at least",
        ),
        (
            "1704164645,1\n1704164646,1\n",
            "the recording `FILE` has no line of names: its first line holds `1704164645`",
        ),
        (
            "2024-01-02,1\n2024-01-03,1\n",
            "the recording `FILE` has no line of names: its first line holds `2024-01-02`",
        ),
        (
            "time,v\nnoon,1\n",
            "column `time` of the recording `FILE` is named as a time and its first cell is none: found `noon`",
        ),
        (
            "time,v\n17,1\n",
            "column `time` of the recording `FILE` is named as a time and its first cell is none: found `17`",
        ),
        (
            "a,b\n1,2\n",
            "the recording `FILE` has no time column: expected one named time, timestamp, date, datetime or ts, or one whose first cell reads as a time",
        ),
        (
            "time,v\n1704164645,red\n",
            "the recording `FILE` has no column of numbers beside its time",
        ),
        ("time\n1704164645\n", "the recording `FILE` has no column of numbers beside its time"),
    ];
    for (text, expected) in refused {
        assert_eq!(told(text), expected, "{text:?}");
    }
    let missing = Recording::open(Path::new("/none.csv")).unwrap_err();
    assert_eq!(missing.to_string(), "cannot read the recording `/none.csv`");
    let wide = "c,".repeat(COLUMNS_MAX) + "time\n";
    assert_eq!(told(&wide), "the recording `FILE` has 10001 columns, expected at most 10000");
}

#[test]
fn a_bad_row_is_left_out_and_a_bad_cell_by_itself() {
    let good: String = (10..30).map(|s| format!("17041646{s},{s},1.5\n")).collect();
    let bad = "1704164700,1\n1704164701,1,2,3\nnoon,1,2\n0,1,2\n-5,1,2\n99999999999999,1,2\n1704164702,x,2\n\
               1704164703,2.5,yes\n1704164704,NaN,n/a\n1704164705,,\n1704164706,1e999,-inf\n";
    let told = told(&format!("time,a,b\n{good}{bad}"));
    let bad_lines: Vec<&str> = told.lines().skip(22).collect();
    assert_eq!(
        bad_lines,
        [
            "22: bad: expected 3 fields, found 2",
            "23: bad: expected 3 fields, found 4",
            "24: bad: expected a time, found `noon`",
            "25: bad: expected a time from 1978-07-04 to 9999, found `0`",
            "26: bad: expected a time from 1978-07-04 to 9999, found `-5`",
            "27: bad: expected a time from 1978-07-04 to 9999, found `99999999999999`",
            "28: 1704164702000000 1=2 bad: column `a`: expected a number, found `x`",
            "29: 1704164703000000 0=2.5 bad: column `b`: expected a number, found `yes`",
            "30: 1704164704000000",
            "31: 1704164705000000",
            "32: 1704164706000000 bad: column `a`: expected a number, found `1e999` bad: column `b`: expected a number, found `-inf`",
        ]
    );
}

#[test]
fn names_that_would_fall_together_stay_apart() {
    let text = "time,T 1,T_1,T 1,%,é\n1704164645,1,2,3,4,5\n";
    let names: Vec<String> =
        told(text).lines().take(5).map(|l| l.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(names, ["T_1", "T_1_2", "T_1_3", "column-5", "column-6"]);
}

#[test]
fn quotes_tabs_line_ends_and_a_byte_order_mark_are_understood() {
    let told =
        told("\u{feff}time\t\"a \"\"b\"\"\"\r\n\"2024-01-02 03:04:05\"\t\"1\"\r\n\r\n1x\t2\r\n");
    assert_eq!(
        told,
        lines(&["a_b [-] Int", "2: 1704164645000000 0=1", "4: bad: expected a time, found `1x`"])
    );
}

#[test]
fn a_line_without_end_is_refused_before_it_fills_the_memory() {
    let (_dir, path) = put(&format!("time,v\n1704164645,1{}\n", "0".repeat(LINE_BYTES_MAX)));
    let error = Recording::open(&path).unwrap_err();
    assert!(
        matches!(&error, ReplayError::Csv { source, .. } if source.to_string().contains("1048576 bytes")),
        "{error:?}"
    );
}

#[test]
fn a_replay_goes_on_at_any_cell_as_if_it_had_never_stopped() {
    let mut text = "time,a,b,c\n".to_owned();
    for s in 0..50 {
        let cell = |n: i64| if (s + n) % 3 == 0 { String::new() } else { format!("{}", s * n) };
        writeln!(text, "{},{},{},{}", 1_704_164_645 + s, cell(1), cell(2), cell(5)).unwrap();
        if s % 11 == 0 {
            text.push_str("noon,1,2,3\n");
        }
    }
    let (_dir, path) = put(&text);
    let recording = Recording::open(&path).unwrap();
    let flat = |rows: &[Row]| -> Vec<(Timestamp, u32, Value, Position)> {
        let cells = rows.iter().flat_map(|row| {
            row.cells
                .iter()
                .enumerate()
                .map(|(i, cell)| (row.time.unwrap(), cell.column, cell.value.clone(), row.after(i)))
        });
        cells.collect()
    };
    let whole = flat(&rows(&path));
    assert!(whole.len() > 90);
    for (i, (.., next)) in whole.iter().enumerate() {
        let rest = flat(&all(&recording, recording.start(Some(*next))));
        assert_eq!(rest, whole[i + 1..], "after cell {i}");
    }
    // The end is a place too, and the next lap starts at the top.
    let end = whole.last().unwrap().3;
    assert_eq!(all(&recording, end), []);
    let again = all(&recording, recording.again(1));
    assert_eq!(again.len(), rows(&path).len());
    assert!(again.iter().all(|row| row.at.lap == 1 && row.next.lap == 1));
}

#[test]
fn another_recording_starts_at_its_top() {
    let (_dir, path) = put("time,v\n1704164645,1\n1704164646,2\n");
    let recording = Recording::open(&path).unwrap();
    let second = rows(&path)[1].at;
    assert_eq!(recording.start(Some(second)), second);
    std::fs::write(&path, "time,w\n1704164645,1\n1704164646,2\n").unwrap();
    let other = Recording::open(&path).unwrap();
    assert_eq!(other.start(Some(second)), other.start(None));
    // One that has grown goes on where it was.
    std::fs::write(&path, "time,v\n1704164645,1\n1704164646,2\n1704164647,3\n").unwrap();
    let grown = Recording::open(&path).unwrap();
    assert_eq!(all(&grown, grown.start(Some(second))).len(), 2);
}

#[test]
fn telling_of_bad_rows_is_bounded() {
    let mut bad = BadRows::default();
    let told = (0..1_000_000).filter(|_| bad.count()).count();
    assert_eq!(told, 20 + (5..20).count());
    assert_eq!(bad.0, 1_000_000);
}

/// Public recordings of industry, when they are there (`docs/agent.md` says where they are from).
#[test]
fn public_industrial_recordings_are_read_whole() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/timeseries");
    for (name, count) in [
        ("machine_temperature_system_failure.csv", 22_695),
        ("ambient_temperature_system_failure.csv", 7_267),
    ] {
        let path = dir.join(name);
        if !path.exists() {
            let test = "public_industrial_recordings_are_read_whole";
            println!("SKIPPED: {test}: no {name} in shared/data/timeseries above us");
            return;
        }
        let rows = rows(&path);
        assert_eq!(rows.len(), count, "{name}");
        assert!(rows.iter().all(|row| row.bad.is_empty() && row.cells.len() == 1), "{name}");
    }
}

#[test]
fn the_recording_that_ships_is_read_whole() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recordings/host.csv");
    let recording = Recording::open(&path).unwrap();
    assert_eq!(recording.left_out(), [] as [String; 0]);
    assert!(recording.columns().len() > 40);
    assert!(recording.columns().iter().all(|column| column.unit.is_some()));
    let rows = rows(&path);
    assert_eq!(rows.len(), 600);
    assert!(
        rows.iter().all(|row| row.bad.is_empty() && row.cells.len() == recording.columns().len())
    );
}
