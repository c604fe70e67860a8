use super::*;
use api::user::Grant;
use api::{Role, Standing, UserRole};
use evidence::event::Said;
use model::{Timestamp, ZoneId};
use serde_json::json;

fn event(sequence: u64, actor: &str, subject: &str, detail: serde_json::Value) -> Event {
    let detail = detail.as_object().unwrap().clone();
    let said = Said {
        at_ms: 1,
        actor: actor.into(),
        action: "device.list".into(),
        subject: subject.into(),
        detail,
    };
    Event::new(sequence, said).unwrap()
}

fn by_operator(sequence: u64, subject: &str) -> Event {
    event(sequence, "user/anna", subject, json!({}))
}

fn shown(changes: &[Change]) -> Vec<String> {
    let line = |c: &Change| format!("{} {} {:?}", c.kind.as_str(), c.subject, c.sequence);
    changes.iter().map(line).collect()
}

#[test]
fn an_event_changes_its_subject_and_the_device_that_did_it_or_is_named() {
    for (event, expected) in [
        (by_operator(7, "device/pump-1"), vec!["device device/pump-1 Some(7)"]),
        (
            event(7, "device/pump-1", "rollout/r", json!({ "number": 3 })),
            vec!["rollout rollout/r Some(7)", "device device/pump-1 Some(7)"],
        ),
        (
            event(7, "control", "rollout/r", json!({ "device": "pump-1" })),
            vec!["rollout rollout/r Some(7)", "device device/pump-1 Some(7)"],
        ),
        (
            event(7, "gateway/gw-1", "device/gw-1", json!({})),
            vec!["device device/gw-1 Some(7)", "device gateway/gw-1 Some(7)"],
        ),
        (by_operator(7, "token/anna/ci"), vec!["user token/anna/ci Some(7)"]),
        (by_operator(7, "approval/3"), vec!["approval approval/3 Some(7)"]),
        (by_operator(7, "silence/3"), vec!["alert silence/3 Some(7)"]),
        (by_operator(7, "release/pump-1.2.0"), vec!["release release/pump-1.2.0 Some(7)"]),
        (by_operator(7, "site"), vec!["site site Some(7)"]),
        (by_operator(7, "something/new"), vec!["site something/new Some(7)"]),
    ] {
        assert_eq!(shown(&changes(&event).collect::<Vec<_>>()), expected, "{event:?}");
    }
}

#[test]
fn what_changed_more_than_once_is_said_once_where_it_changed_last() {
    let mut tail = Tail::at(3);
    for (sequence, subject) in [(3, "device/a"), (4, "device/b"), (5, "device/a"), (6, "site")] {
        tail.push(&by_operator(sequence, subject));
    }
    let (b, a, site) = ("device device/b Some(4)", "device device/a Some(5)", "site site Some(6)");
    assert_eq!(shown(&tail.since(3).unwrap()), [b, a, site]);
    assert_eq!(shown(&tail.since(5).unwrap()), [a, site]);
    assert_eq!(shown(&tail.since(7).unwrap()), [""; 0]);
    assert_eq!(tail.since(2), Err(Missed), "before what is kept");
    assert_eq!(tail.since(8), Err(Missed), "of another log");
}

#[test]
fn a_thousand_events_are_kept_and_whoever_is_further_behind_has_missed_some() {
    let mut tail = Tail::at(0);
    for sequence in 0..2500 {
        tail.push(&by_operator(sequence, &format!("device/pump-{sequence}")));
    }
    assert_eq!(tail.since(1500).unwrap().len(), KEPT_MAX);
    assert_eq!(tail.since(1499), Err(Missed));
    assert_eq!(tail.kept.len(), KEPT_MAX);
    // What is read after many came at once leaves no hole that nobody hears of.
    assert_eq!(tail.reads_from(2600), 2500);
    assert_eq!(tail.reads_from(9000), 8000);
    tail.push(&by_operator(8000, "site"));
    assert_eq!(tail.since(2500), Err(Missed));
    assert_eq!(shown(&tail.since(8000).unwrap()), ["site site Some(8000)"]);
}

#[test]
fn a_round_names_a_hundred_and_says_of_more_that_they_were_many() {
    let mut round = Round::default();
    for n in 0..NAMED_MAX {
        round.add(ChangeKind::Seen, format!("device/pump-{n}"));
        round.add(ChangeKind::Seen, format!("device/pump-{n}"));
    }
    assert_eq!(round.since(0).len(), NAMED_MAX);
    round.add(ChangeKind::Seen, "device/one-more");
    round.add(ChangeKind::Alert, "alert/3");
    assert_eq!(shown(&round.since(0)), ["alert alert/3 None", "seen site None"]);
    let next = round.after();
    assert!(next.is_empty());
    assert_eq!(shown(&next.since(0)), [""; 0]);
    let missed = next.after().since(0);
    assert_eq!(shown(&missed), ["seen site None", "alert site None"], "a round was missed");
}

#[test]
fn everybody_hears_of_what_he_may_ask_for_and_of_nothing_else() {
    let device = |id: &str, zone: &str| crate::directory::Device {
        id: DeviceId::new(id).unwrap(),
        serial: id.to_uppercase(),
        role: Role::Device,
        zone: ZoneId::new(zone).unwrap(),
        group: model::GroupId::new("production").unwrap(),
        grouped_at: Timestamp(0),
        standing: Standing::Listed,
        listed_at: Timestamp(0),
        enrolled_at: None,
        changed_at: Timestamp(0),
        keys: Vec::new(),
    };
    let directory = Directory::new(1, [device("pump-1", "north-hall"), device("pump-2", "south")]);
    let mut people = People::new("plant");
    people.put_site("north", [ZoneId::new("north-hall").unwrap()].into());
    let of_north = |id: &RolloutId, reach: &Reach| id.as_str() == "n" && reach.covers("north");
    let fleet = Fleet { directory: &directory, people: &people, reaches_rollout: of_north };
    let subjects = [
        "device/pump-1",
        "device/pump-2",
        "device/gone",
        "rollout/n",
        "rollout/s",
        "release/r",
        "alert/1",
        "user/anna",
        "token/anna/ci",
        "user/bert",
        "approval/1",
        "site",
    ];
    let heard = |grants: &[(UserRole, Option<&str>)]| {
        let grant = |(role, site): &(UserRole, Option<&str>)| Grant {
            role: *role,
            site: site.map(str::to_owned),
        };
        let person = Arc::new(Principal {
            user: Some("anna".into()),
            grants: grants.iter().map(grant).collect(),
            ..Principal::site_token()
        });
        let change = |subject: &str| Change {
            kind: kind_of(subject),
            subject: subject.into(),
            sequence: None,
        };
        let may = |subject: &&str| fleet.may_hear(&person, &change(subject));
        subjects.into_iter().filter(may).collect::<Vec<_>>()
    };
    assert_eq!(heard(&[]), ["user/anna", "token/anna/ci"], "one's own");
    assert_eq!(
        heard(&[(UserRole::Viewer, Some("north"))]),
        ["device/pump-1", "rollout/n", "release/r", "user/anna", "token/anna/ci"],
        "nothing of another site, and nothing that is of all of them"
    );
    assert_eq!(
        heard(&[(UserRole::Viewer, None)]),
        [
            "device/pump-1",
            "device/pump-2",
            "device/gone",
            "rollout/n",
            "rollout/s",
            "release/r",
            "alert/1",
            "user/anna",
            "token/anna/ci",
            "approval/1",
            "site"
        ]
    );
    assert_eq!(heard(&[(UserRole::Administrator, None)]), subjects);
}

#[test]
fn a_line_is_what_the_standard_says_whatever_its_subject_holds() {
    let change = Change {
        kind: ChangeKind::Site,
        subject: "x\ndata: \"forged\"\n\n".into(),
        sequence: Some(7),
    };
    let same = Change { kind: ChangeKind::Device, subject: "device/a".into(), sequence: Some(7) };
    let plain = Change { kind: ChangeKind::Seen, subject: "device/a".into(), sequence: None };
    let written: String = texts(&[same, change, plain]).collect();
    assert_eq!(
        written,
        "event: device\ndata: {\"subject\":\"device/a\",\"sequence\":7}\n\n\
         id: 7\nevent: site\ndata: {\"subject\":\"x\\ndata: \\\"forged\\\"\\n\\n\",\"sequence\":7}\n\n\
         event: seen\ndata: {\"subject\":\"device/a\"}\n\n"
    );
}

/// Who is cut off between two texts and comes again with the number that it has heard misses nothing.
#[test]
fn a_number_comes_with_the_last_that_its_event_changed_also_where_a_text_ends() {
    let mut tail = Tail::at(0);
    for sequence in 0..LINES_MAX as u64 {
        let actor = format!("device/pump-{sequence}");
        tail.push(&event(sequence, &actor, &format!("rollout/r-{sequence}"), json!({})));
    }
    tail.push(&by_operator(LINES_MAX as u64, "site"));
    let changes = tail.since(0).unwrap();
    assert_eq!(changes.len(), 2 * LINES_MAX + 1);
    let odd: Vec<String> = texts(&changes[1..]).collect();
    assert_eq!(odd.len(), 2);
    let last_id = |text: &str| {
        let id = text.lines().rev().find_map(|line| line.strip_prefix("id: "));
        id.unwrap().parse::<u64>().unwrap()
    };
    let heard = last_id(&odd[0]);
    let rest: Vec<Change> = tail.since(heard + 1).unwrap();
    let told: String = odd[0].clone() + &texts(&rest).collect::<String>();
    for change in &changes[1..] {
        assert!(told.contains(&*change.subject), "{change:?}");
    }
}
