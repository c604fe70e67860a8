use super::*;
use boot::{Image, Order as Number, SecurityVersion as Security, Slot, State};
use disk::SimDisk;

const DIR: &str = "/data/update/pump-app";

fn digest(n: u8) -> Digest {
    Digest([n; 32])
}

fn image(n: u8, order: u64) -> Image {
    Image { digest: boot::Digest([n; 32]), len: 10, security: Security(1), order: Number(order) }
}

fn order(n: u8, rollout: Option<&str>) -> Ordered {
    Ordered {
        rollout: rollout.map(|name| RolloutId::new(name).unwrap()),
        digest: digest(n),
        version: Version::new(1, n.into(), 0),
        length: 10,
        security_version: SecurityVersion(1),
        generation: 17,
    }
}

fn notes() -> Notes {
    let product = ProductId::new("pump-app").unwrap();
    let hardware = HardwareId::new("pump-box").unwrap();
    Notes::new(product, hardware, digest(0), Version::new(1, 0, 0))
}

/// A device that runs image 0 in slot A.
fn state() -> State {
    State::new(Slot::A, image(0, 0), Security(0)).unwrap()
}

/// The journal's own moves: begun, armed, started.
fn tried(number: u64) -> State {
    let armed = state().begin().unwrap().arm(image(1, number)).unwrap();
    armed.decide(|_, _| true).unwrap().next
}

fn next_load(state: State) -> State {
    state.decide(|_, _| true).unwrap().next
}

#[test]
fn notes_come_back_as_they_were_written() {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new(DIR)).unwrap();
    let mut notes = notes();
    for step in 0..4 {
        match step {
            0 => {}
            1 => notes.begin(order(1, Some("r-1")), [Some(digest(0)), None]),
            2 => drop(notes.arm()),
            _ => notes.fail(order(2, None), "it did not \"fit\"\n"),
        }
        notes.write(&disk, Path::new(DIR)).unwrap();
        assert_eq!(Notes::read(&disk, Path::new(DIR)).unwrap(), notes);
    }
}

#[test]
fn notes_with_one_thing_wrong_are_refused_and_nothing_is_guessed() {
    let mut notes = notes();
    notes.begin(order(1, Some("r-1")), [Some(digest(0)), None]);
    let accepted = String::from_utf8(notes.text()).unwrap();
    assert_eq!(Notes::parse(accepted.as_bytes()), Ok(notes));
    for (what, from, to) in [
        ("another format", "\"format\": 1", "\"format\": 2"),
        ("a field more", "\"format\": 1,", "\"format\": 1, \"colour\": 3,"),
        ("a field less", "\"tries\": 0,", ""),
        ("a product that is no name", "\"pump-app\"", "\"Pump App\""),
        ("a rollout that is no name", "\"r-1\"", "\"../r-1\""),
        ("a version of two numbers", "\"1.1.0\"", "\"1.1\""),
        ("a digest that is cut", "0101\"", "01\""),
        ("a number below 0", "\"number\": 0", "\"number\": -1"),
    ] {
        let changed = accepted.replacen(from, to, 1);
        assert_ne!(changed, accepted, "{what}");
        assert!(Notes::parse(changed.as_bytes()).is_err(), "{what}");
    }
    assert!(Notes::parse(&accepted.as_bytes()[..accepted.len() - 3]).is_err(), "cut short");
    let long =
        accepted.replace("\"reason\": \"\"", &format!("\"reason\": \"{}\"", "x".repeat(201)));
    assert!(Notes::parse(long.as_bytes()).is_err(), "a reason of 201 bytes");
}

/// No false report: each end is told exactly when the journal says it, and of the install that is noted.
#[test]
fn how_an_install_ended_is_what_the_journal_says() {
    use InstallEnd::*;
    let mut noted = notes();
    assert_eq!(noted.outcome(&state()), None, "nothing was ever ordered");
    noted.begin(order(1, Some("r-1")), [Some(digest(0)), None]);
    let told = |notes: &Notes, state: &State| notes.outcome(state).map(|o| (o.end, o.reason));
    let end = |notes: &Notes, state: &State| told(notes, state).unwrap().0;
    assert_eq!(end(&noted, &state()), Underway, "it is being fetched");
    let number = noted.arm().unwrap();
    assert_eq!(number, 1);
    assert_eq!(end(&noted, &state()), Underway, "noted, and the power went before it was armed");
    let trial = tried(number);
    assert_eq!(end(&noted, &trial), Underway, "on trial");
    assert_eq!(end(&noted, &trial.confirm(Slot::B).unwrap()), Confirmed);
    let given_up = next_load(trial.give_up(Slot::B, 3).unwrap());
    assert_eq!(end(&noted, &given_up), Reverted);
    let mut explained = noted.clone();
    explained.explain("ended with code 1 after 200 ms on trial");
    let reason = "ended with code 1 after 200 ms on trial".to_owned();
    assert_eq!(told(&explained, &given_up), Some((Reverted, reason)));

    // A trial that was cut short from outside is tried once more, under a number of its own.
    let cut_short = next_load(trial);
    assert_eq!(end(&noted, &cut_short), Underway);
    let mut again = noted.clone();
    assert_eq!(again.arm(), Some(2));
    assert_eq!(end(&again, &cut_short), Underway, "the first try's end is not the second's");
    let second = cut_short.arm_again(Number(2)).unwrap();
    let second = next_load(second);
    assert_eq!(end(&again, &second), Underway);
    assert_eq!(end(&again, &next_load(second)), Reverted, "and not a third time");
    assert_eq!(end(&again, &second.confirm(Slot::B).unwrap()), Confirmed);
    assert_eq!(end(&noted, &second.confirm(Slot::B).unwrap()), Underway, "another install's word");

    // Never whole in its slot.
    let armed = state().begin().unwrap().arm(image(1, number)).unwrap();
    let not_whole = armed.decide(|slot, _| slot == Slot::A).unwrap().next;
    assert_eq!(end(&noted, &not_whole), Underway, "it is fetched anew, once");
    let mut failed = noted.clone();
    failed.fail(order(1, Some("r-1")), "no room");
    assert_eq!(told(&failed, &state()), Some((Failed, "no room".to_owned())));
}

#[test]
fn a_newer_order_counts_its_own_tries_and_versions_of_what_lies_in_the_slots_stay_known() {
    let mut notes = notes();
    notes.begin(order(1, Some("r-1")), [Some(digest(0)), None]);
    notes.arm();
    notes.begin(order(1, Some("r-1")), [Some(digest(0)), Some(digest(1))]);
    assert_eq!(notes.install().unwrap().tries, 1, "the same order goes on counting");
    notes.begin(order(2, Some("r-2")), [Some(digest(1)), Some(digest(0))]);
    assert_eq!(notes.install().unwrap().tries, 0);
    assert_eq!(notes.arm(), Some(2), "a number is never used again");
    notes.begin(order(3, Some("r-3")), [Some(digest(1)), None]);
    for (n, known) in [(0, false), (1, true), (2, false), (3, true)] {
        assert_eq!(notes.version(&digest(n)).is_some(), known, "{n}");
    }
    notes.explain(&"ä".repeat(200));
    assert_eq!(notes.install().unwrap().reason.len(), REASON_BYTES_MAX);
}

/// Never changed: a later format has a number of its own, and this one keeps its reader.
#[test]
fn version_1_of_the_notes_keeps_its_bytes() {
    let mut notes = notes();
    notes.begin(order(1, Some("r-1")), [Some(digest(0)), None]);
    notes.arm();
    notes.explain("it ended");
    let zeros = "00".repeat(32);
    let ones = "01".repeat(32);
    let golden = format!(
        r#"{{
  "format": 1,
  "product": "pump-app",
  "hardware": "pump-box",
  "images": [
    {{
      "sha256": "{zeros}",
      "version": "1.0.0"
    }},
    {{
      "sha256": "{ones}",
      "version": "1.1.0"
    }}
  ],
  "install": {{
    "number": 1,
    "rollout": "r-1",
    "sha256": "{ones}",
    "version": "1.1.0",
    "length": 10,
    "security_version": 1,
    "generation": 17,
    "tries": 1,
    "failed": false,
    "reason": "it ended"
  }}
}}
"#
    );
    assert_eq!(String::from_utf8(notes.text()).unwrap(), golden);
    assert_eq!(Notes::parse(golden.as_bytes()), Ok(notes));
}
