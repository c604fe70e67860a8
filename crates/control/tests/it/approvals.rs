//! What widens can need two people: asked for by one, done when a second says yes. Through the real listener.

use crate::people::{Browser, JsonBody as _, PASSWORD};
use crate::rollouts::Plant;
use crate::world::{Got, Setup, World};
use api::UserRole::{Administrator, Operator, Releaser, SecurityOfficer, Viewer};
use api::approval::{Approval, Approvals, TwoPeople, Widening};
use api::{Scope, Standing, path};
use control::Limits;
use control::approvals::decide::{No, State};
use control::approvals::{ActError, ApprovalError, Word};
use model::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Two administrators, a security officer, an operator and a releaser, all signed in; what needs two is set.
struct Crew {
    world: World,
    anna: Browser,
    sofia: Browser,
    otto: Browser,
    rosa: Browser,
}

const ALL: [Widening; 3] = Widening::ALL;

impl Crew {
    async fn new(needed_for: &[Widening]) -> Self {
        Self::with(World::new().await, needed_for).await
    }

    async fn with(world: World, needed_for: &[Widening]) -> Self {
        for (name, role) in [
            ("anna", Administrator),
            ("boris", Administrator),
            ("sofia", SecurityOfficer),
            ("otto", Operator),
            ("rosa", Releaser),
        ] {
            world.make_user(name, &[(role, None)]).await;
        }
        let anna = world.sign_in("anna").await;
        let (sofia, otto) = (world.sign_in("sofia").await, world.sign_in("otto").await);
        let rosa = world.sign_in("rosa").await;
        if !needed_for.is_empty() {
            let set = anna.post(path::TWO_PEOPLE, json!({ "needed_for": needed_for })).await;
            assert_eq!(set.json::<TwoPeople>().needed_for.len(), needed_for.len());
        }
        Self { world, anna, sofia, otto, rosa }
    }

    /// A device that is in quarantine.
    async fn quarantined(&self, id: &str) {
        let device = self.world.device(id).await;
        assert_eq!(self.world.tell(&device.id, "quarantine").await.status, 200);
    }

    fn standing(&self, id: &str) -> Standing {
        let id = model::DeviceId::new(id).unwrap();
        self.world.control.registry().directory().device(&id).unwrap().standing
    }

    /// The newest events: actor, action, subject, detail.
    async fn last(&self, count: usize) -> Vec<(String, String, String, Value)> {
        let mut events = self.world.events().await;
        events.split_off(events.len() - count)
    }
}

fn asked(got: &Got) -> Approval {
    assert_eq!(got.status, 202, "{got:?}");
    serde_json::from_slice(&got.body).unwrap()
}

fn release(id: &str) -> String {
    format!("{}/{id}/release", path::DEVICES)
}

async fn decide(by: &Browser, approval: &Approval, verb: &str) -> Got {
    let body = if verb == "refuse" { json!({ "reason": "not now" }) } else { json!({}) };
    by.post(&format!("{}/{}/{verb}", path::APPROVALS, approval.id), body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_comes_back_from_quarantine_by_two_people_and_its_event_names_both() {
    let crew = Crew::new(&ALL).await;
    crew.quarantined("pump-1").await;
    let got = crew.sofia.post(&release("pump-1"), json!({})).await;
    let approval = asked(&got);
    assert_eq!(crew.standing("pump-1"), Standing::Quarantined, "asked for, not done");
    assert_eq!((approval.what, approval.state.as_str()), (Widening::QuarantineRelease, "open"));
    assert_eq!(approval.subject, "device/pump-1");
    assert_eq!(approval.seconds, [Operator, Administrator]);
    assert_eq!(approval.until_ms - approval.asked_at_ms, 24 * 3_600_000);
    // The same again asks nothing new.
    assert_eq!(asked(&crew.sofia.post(&release("pump-1"), json!({})).await).id, approval.id);
    // Neither who asked, nor who has no such role, nor a program.
    assert_eq!(decide(&crew.sofia, &approval, "approve").await.refusal().1, "same_person");
    assert_eq!(decide(&crew.rosa, &approval, "approve").await.refusal().1, "not_a_second");
    let token = crew.world.token(&crew.otto, &[Scope::ApprovalsWrite]).await;
    let approve = format!("{}/{}/approve", path::APPROVALS, approval.id);
    let got = crew.world.with_token(&token.secret, Method::POST, &approve).await;
    assert_eq!(got.refusal().1, "not_a_session");
    let got = Got::of(crew.world.operator(Method::POST, &approve)).await;
    assert_eq!(got.refusal().1, "not_a_session", "the site's token is nobody's second");
    assert_eq!(crew.standing("pump-1"), Standing::Quarantined);
    let done: Approval = decide(&crew.otto, &approval, "approve").await.json();
    assert_eq!((done.state.as_str(), done.decided_by.as_deref()), ("approved", Some("user/otto")));
    assert_eq!(crew.standing("pump-1"), Standing::Enrolled);
    let last = crew.last(2).await;
    assert_eq!((last[0].0.as_str(), last[0].1.as_str()), ("user/otto", "approval.approve"));
    assert_eq!((last[1].0.as_str(), last[1].1.as_str()), ("user/sofia", "device.release"));
    for (_, _, _, detail) in &last {
        assert_eq!(
            (&detail["asked_by"], &detail["approved_by"]),
            (&json!("user/sofia"), &json!("user/otto"))
        );
        assert_eq!(detail["approval"], json!(approval.id));
    }
    // A yes is said once.
    assert_eq!(decide(&crew.anna, &approval, "approve").await.refusal(), (409, "not_open".into()));
}

/// What was asked of a device that has been quarantined anew since is not what somebody says yes to.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_changed_since_it_was_asked_fails_with_its_reason() {
    let crew = Crew::new(&ALL).await;
    crew.quarantined("pump-1").await;
    let first = asked(&crew.sofia.post(&release("pump-1"), json!({})).await);
    let id = model::DeviceId::new("pump-1").unwrap();
    assert_eq!(crew.world.tell(&id, "revoke").await.status, 200);
    let got = decide(&crew.otto, &first, "approve").await;
    assert_eq!(got.refusal(), (409, "approval_failed".into()));
    assert_eq!(crew.standing("pump-1"), Standing::Revoked);
    let page: Approvals = crew.otto.get(&format!("{}?state=failed", path::APPROVALS)).await.json();
    assert_eq!(page.approvals.len(), 1);
    assert!(page.approvals[0].reason.as_ref().unwrap().contains("has changed since"));
    assert_eq!(crew.last(1).await[0].1, "approval.fail");
    // Who asked has to have the right still when it is done.
    crew.quarantined("pump-2").await;
    let second = asked(&crew.sofia.post(&release("pump-2"), json!({})).await);
    let disable = format!("{}/sofia/disable", path::USERS);
    assert_eq!(crew.anna.post(&disable, json!({})).await.status, 200);
    let got = decide(&crew.otto, &second, "approve").await;
    assert_eq!(got.refusal(), (409, "approval_failed".into()));
    assert_eq!(crew.standing("pump-2"), Standing::Quarantined);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_do_more_is_said_by_two_and_no_password_is_shown_or_kept() {
    let crew = Crew::new(&[Widening::GrantRoles]).await;
    let acts = [
        (
            path::USERS.to_owned(),
            json!({ "name": "nina", "password": PASSWORD, "grants": [{ "role": "viewer" }] }),
        ),
        (
            format!("{}/otto/grants", path::USERS),
            json!({ "grants": [{ "role": "operator" }, { "role": "releaser" }] }),
        ),
        (format!("{}/rosa/password", path::USERS), json!({ "password": "another long password" })),
        (path::SITES.to_owned(), json!({ "id": "north", "zones": ["hall"] })),
        (path::TWO_PEOPLE.to_owned(), json!({ "needed_for": [] })),
    ];
    let mut open = Vec::new();
    for (path, body) in acts {
        let approval = asked(&crew.anna.post(&path, body).await);
        assert_eq!(approval.what, Widening::GrantRoles, "{path}");
        open.push(approval);
    }
    let people = crew.world.control.registry().people();
    assert!(people.user("nina").is_none() && !people.has_site("north"));
    assert!(people.needs_two(Widening::GrantRoles));
    let mut shown = String::new();
    for approval in &open {
        let one: Approval =
            crew.sofia.get(&format!("{}/{}", path::APPROVALS, approval.id)).await.json();
        assert!(one.act.is_some());
        shown.push_str(&serde_json::to_string(&one).unwrap());
        // By another administrator it would be two of one trade.
        let boris = crew.world.sign_in("boris").await;
        assert_eq!(decide(&boris, approval, "approve").await.refusal().1, "not_a_second");
        let done: Approval = decide(&crew.sofia, approval, "approve").await.json();
        assert_eq!(done.state, "approved", "{}", approval.sentence);
    }
    let people = crew.world.control.registry().people();
    assert!(people.user("nina").is_some() && people.has_site("north"));
    assert_eq!(people.user("otto").unwrap().grants.len(), 2);
    assert!(people.two_people().is_empty());
    assert_eq!(crew.world.try_sign_in("rosa", PASSWORD).await.status, 401);
    assert_eq!(crew.world.try_sign_in("rosa", "another long password").await.status, 200);
    shown.push_str(&format!("{:?}", crew.world.events().await));
    assert!(
        !shown.contains("argon2") && !shown.contains(PASSWORD) && !shown.contains("another long")
    );
    crew.world.control.registry().close().await;
    let file = crew.world.dir.path().join("control/registry.sqlite");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    let mut file = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let kept: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM approvals WHERE secret IS NOT NULL OR act IS NOT NULL",
    )
    .fetch_one(&mut file)
    .await
    .unwrap();
    assert_eq!(kept, 0, "what is decided keeps neither act nor hash");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_without_a_canary_begins_by_two_and_one_with_a_canary_by_one() {
    let crew = Crew::with(Plant::new().await.world, &ALL).await;
    let order = |id: &str, more: Value| {
        let mut order = json!({
            "id": id, "product": "pump-app", "version": "1.1.0", "waves": [{ "percent": 100 }], "start": true,
        });
        order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        order
    };
    let begun = asked(&crew.rosa.post(path::ROLLOUTS, order("all", json!({}))).await);
    assert_eq!((begun.what, begun.subject.as_str()), (Widening::EmergencyRollout, "rollout/all"));
    assert_eq!(crew.rosa.get(&format!("{}/all", path::ROLLOUTS)).await.refusal().0, 404);
    // Ordered by one, begun by two.
    let plain = crew.rosa.post(path::ROLLOUTS, order("later", json!({ "start": false }))).await;
    assert_eq!(plain.status, 201, "{plain:?}");
    let start = crew.rosa.post(&format!("{}/later/start", path::ROLLOUTS), json!({})).await;
    let start = asked(&start);
    let one: Approval = decide(&crew.otto, &begun, "approve").await.json();
    assert_eq!(one.state, "approved");
    let rollout: api::rollout::Rollout =
        crew.rosa.get(&format!("{}/all", path::ROLLOUTS)).await.json();
    assert_eq!(rollout.phase, "running");
    let last = crew.world.events().await;
    let created = last.iter().find(|event| event.1 == "rollout.create" && event.2 == "rollout/all");
    let (actor, _, _, detail) = created.unwrap();
    assert_eq!((actor.as_str(), &detail["approved_by"]), ("user/rosa", &json!("user/otto")));
    // The first one stands in its way now: it fails, and is not begun.
    let got = decide(&crew.sofia, &start, "approve").await;
    assert_eq!(got.refusal(), (409, "approval_failed".into()), "{got:?}");
    assert_eq!(
        crew.rosa.post(&format!("{}/all/abort", path::ROLLOUTS), json!({})).await.status,
        200
    );
    let again = asked(&crew.rosa.post(&format!("{}/later/start", path::ROLLOUTS), json!({})).await);
    assert_eq!(decide(&crew.sofia, &again, "approve").await.status, 200);
    let later: api::rollout::Rollout =
        crew.rosa.get(&format!("{}/later", path::ROLLOUTS)).await.json();
    assert_eq!(later.phase, "running");
    assert_eq!(
        crew.rosa.post(&format!("{}/later/abort", path::ROLLOUTS), json!({})).await.status,
        200
    );
    let canary = json!({ "waves": [{ "percent": 10, "count_max": 1 }, { "percent": 100 }] });
    assert_eq!(crew.rosa.post(path::ROLLOUTS, order("canary", canary)).await.status, 201);
}

/// INV-LEAST-1: nothing that narrows waits for anybody.
#[tokio::test(flavor = "multi_thread")]
async fn what_narrows_needs_one_person_whatever_the_setting() {
    let crew = Crew::with(Plant::new().await.world, &ALL).await;
    let canary = |id: &str| {
        json!({ "id": id, "product": "pump-app", "version": "1.1.0",
            "waves": [{ "percent": 10, "count_max": 1 }, { "percent": 100 }], "start": true })
    };
    assert_eq!(crew.rosa.post(path::ROLLOUTS, canary("r")).await.status, 201);
    let token = crew.world.token(&crew.otto, &[Scope::FleetRead]).await;
    let rosas = crew.world.token(&crew.rosa, &[Scope::FleetRead]).await;
    let (devices, users, rollouts) = (path::DEVICES, path::USERS, path::ROLLOUTS);
    let none = json!({});
    assert_eq!(crew.world.control.registry().people().two_people().len(), ALL.len());
    let narrows = [
        (&crew.otto, Method::POST, format!("{devices}/pump-1/quarantine"), none.clone(), 200),
        (&crew.otto, Method::POST, format!("{devices}/pump-1/revoke"), none.clone(), 200),
        (&crew.otto, Method::POST, format!("{devices}/pump-2/decommission"), none.clone(), 200),
        (&crew.otto, Method::POST, format!("{rollouts}/r/pause"), none.clone(), 200),
        // What was begun goes on, and goes back, by one.
        (&crew.rosa, Method::POST, format!("{rollouts}/r/resume"), none.clone(), 200),
        (&crew.otto, Method::POST, format!("{rollouts}/r/halt"), none.clone(), 200),
        (&crew.rosa, Method::POST, format!("{rollouts}/r/revert"), none.clone(), 200),
        (
            &crew.sofia,
            Method::DELETE,
            format!("{}/{}", path::TOKENS, token.token.id),
            none.clone(),
            200,
        ),
        (&crew.sofia, Method::DELETE, format!("{users}/otto/sessions"), none.clone(), 204),
        (&crew.sofia, Method::POST, format!("{users}/otto/disable"), none.clone(), 200),
        // Fewer rights, one's own password, more things that need two: nobody may do more by it.
        (&crew.anna, Method::POST, format!("{users}/rosa/grants"), json!({ "grants": [] }), 200),
        (
            &crew.sofia,
            Method::DELETE,
            format!("{}/{}", path::TOKENS, rosas.token.id),
            none.clone(),
            200,
        ),
    ];
    for (by, method, path, body, status) in narrows {
        let got = Got::of(by.call(method, &path).json(&body)).await;
        assert_eq!(got.status, status, "{path}: {got:?}");
    }
    let own = json!({ "password": "another long password", "before": PASSWORD });
    assert_eq!(crew.sofia.post(&format!("{users}/sofia/password"), own).await.status, 200);
    let page: Approvals = crew.anna.get(path::APPROVALS).await.json();
    assert!(page.approvals.is_empty(), "{page:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_setting_cannot_lock_a_site_nor_be_dropped_by_one() {
    let world = World::new().await;
    world.make_user("anna", &[(Administrator, None), (SecurityOfficer, None)]).await;
    let anna = world.sign_in("anna").await;
    let set = |words: Value| anna.post(path::TWO_PEOPLE, json!({ "needed_for": words }));
    assert_eq!(set(json!(["grant_roles"])).await.refusal(), (409, "no_second_person".into()));
    world.make_user("sofia", &[(SecurityOfficer, None)]).await;
    assert_eq!(set(json!(["quarantine_release"])).await.refusal(), (400, "bad_two_people".into()));
    assert_eq!(set(json!(["grant_roles"])).await.status, 200);
    assert_eq!(set(json!(["grant_roles", "quarantine_release"])).await.status, 200, "more, by one");
    let fewer = asked(&set(json!(["grant_roles"])).await);
    assert_eq!(decide(&anna, &fewer, "approve").await.refusal().1, "same_person");
    // The site's token is no person, and can do nothing that needs two.
    let body = json!({ "needed_for": [] });
    let got = Got::of(world.operator(Method::POST, path::TWO_PEOPLE).json(&body)).await;
    assert_eq!(got.refusal(), (403, "not_a_person".into()));
    let user =
        json!({ "name": "eve", "password": PASSWORD, "grants": [{ "role": "security_officer" }] });
    let got = Got::of(world.operator(Method::POST, path::USERS).json(&user)).await;
    assert_eq!(got.refusal(), (403, "not_a_person".into()));
    let kept: TwoPeople = anna.get(path::TWO_PEOPLE).await.json();
    assert_eq!(kept.needed_for, [Widening::QuarantineRelease, Widening::GrantRoles]);
    // It is kept over a restart, and the way back is the file of a control plane that is stopped.
    let world = world.restart(Setup::default()).await;
    assert!(world.control.registry().people().needs_two(Widening::QuarantineRelease));
    let World { dir, site, maker, shards, control } = world;
    control.shutdown().await;
    let file = dir.path().join("control/registry.sqlite");
    let registry = control::Registry::open_for_repair(&file).await.unwrap();
    let before = registry.break_two_people(crate::world::now()).await.unwrap();
    assert_eq!(before.len(), 2);
    registry.close().await;
    let control =
        crate::world::start(&dir, &site, &maker, &shards, Setup::default()).await.unwrap();
    let world = World { dir, site, maker, shards, control };
    assert!(world.control.registry().people().two_people().is_empty());
    let last = world.events().await.pop().unwrap();
    assert_eq!((last.0.as_str(), last.1.as_str()), ("token/site", "settings.two_people"));
    assert_eq!(last.3["offline"], json!(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_says_no_and_takes_back_and_so_many_are_open_and_no_more() {
    let crew = Crew::new(&ALL).await;
    for n in 0..9 {
        crew.quarantined(&format!("pump-{n}")).await;
    }
    let mut open = Vec::new();
    for n in 0..8 {
        open.push(asked(&crew.sofia.post(&release(&format!("pump-{n}")), json!({})).await));
    }
    let ninth = crew.sofia.post(&release("pump-8"), json!({})).await;
    assert_eq!(ninth.refusal(), (409, "too_many".into()));
    // Who asked takes it back, and anybody who reaches it says no, with a reason.
    let no_reason = crew
        .otto
        .post(&format!("{}/{}/refuse", path::APPROVALS, open[1].id), json!({ "reason": " " }))
        .await;
    assert_eq!(no_reason.refusal(), (400, "bad_text".into()));
    let back: Approval = decide(&crew.sofia, &open[0], "refuse").await.json();
    assert_eq!((back.state.as_str(), back.decided_by.as_deref()), ("refused", Some("user/sofia")));
    let no: Approval = decide(&crew.rosa, &open[1], "refuse").await.json();
    assert_eq!(no.reason.as_deref(), Some("not now"));
    assert_eq!(decide(&crew.otto, &open[1], "approve").await.refusal(), (409, "not_open".into()));
    assert_eq!(crew.standing("pump-1"), Standing::Quarantined);
    assert_eq!(crew.sofia.post(&release("pump-8"), json!({})).await.status, 202);
    // By page, newest first.
    let first: Approvals = crew.otto.get(&format!("{}?limit=2", path::APPROVALS)).await.json();
    let next = first.next.clone().unwrap();
    assert_eq!(first.approvals[0].subject, "device/pump-8");
    let rest: Approvals =
        crew.otto.get(&format!("{}?after={next}&state=open", path::APPROVALS)).await.json();
    assert_eq!((rest.approvals.len(), rest.next), (5, None));
    assert_eq!(crew.otto.get(&format!("{}?state=maybe", path::APPROVALS)).await.status, 400);
}

/// INV-LEAST-1: what is asked at one site is not there for who is of another.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_of_another_site_neither_sees_nor_decides_it() {
    let world = World::new().await;
    let site = json!({ "id": "north", "zones": ["north-hall"] });
    assert_eq!(Got::of(world.operator(Method::POST, path::SITES).json(&site)).await.status, 200);
    world.make_user("nora", &[(Operator, Some("north"))]).await;
    world.make_user("nick", &[(SecurityOfficer, Some("north"))]).await;
    world.make_user("olaf", &[(Operator, Some(crate::world::SITE))]).await;
    world.make_user("vera", &[(Viewer, None)]).await;
    let crew = Crew::with(world, &ALL).await;
    let device = crew.world.enrolled("pump-1", api::Role::Device, "north-hall").await;
    assert_eq!(crew.world.tell(&device.id, "quarantine").await.status, 200);
    let nick = crew.world.sign_in("nick").await;
    let approval = asked(&nick.post(&release("pump-1"), json!({})).await);
    assert_eq!(approval.sites, Some(vec!["north".to_owned()]));
    let at = format!("{}/{}", path::APPROVALS, approval.id);
    let olaf = crew.world.sign_in("olaf").await;
    assert_eq!(olaf.get(&at).await.refusal(), (404, "unknown_approval".into()));
    assert_eq!(decide(&olaf, &approval, "approve").await.refusal().1, "unknown_approval");
    assert_eq!(decide(&olaf, &approval, "refuse").await.refusal().1, "unknown_approval");
    let seen: Approvals = olaf.get(path::APPROVALS).await.json();
    assert!(seen.approvals.is_empty());
    // An auditor of every site sees it, and decides nothing.
    let vera = crew.world.sign_in("vera").await;
    assert_eq!(vera.get(&at).await.status, 200);
    assert_eq!(decide(&vera, &approval, "approve").await.refusal().1, "out_of_scope");
    let nora = crew.world.sign_in("nora").await;
    assert_eq!(decide(&nora, &approval, "approve").await.status, 200);
    assert_eq!(crew.standing("pump-1"), Standing::Enrolled);
}

/// What is refused by the act itself, after the yes was written: neither is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_yes_to_what_cannot_be_done_is_taken_back_with_it() {
    let crew = Crew::new(&[Widening::GrantRoles]).await;
    let nina =
        json!({ "name": "nina", "password": PASSWORD, "grants": [{ "role": "administrator" }] });
    let first = asked(&crew.anna.post(path::USERS, nina.clone()).await);
    let second = asked(&crew.anna.post(path::USERS, nina).await);
    assert_ne!(first.id, second.id, "what has a password beside is another each time");
    assert_eq!(decide(&crew.sofia, &first, "approve").await.status, 200);
    let got = decide(&crew.sofia, &second, "approve").await;
    assert_eq!(got.refusal(), (409, "approval_failed".into()));
    let events = crew.world.events().await;
    let approved = events.iter().filter(|event| event.1 == "approval.approve").count();
    assert_eq!((approved, events.last().unwrap().1.as_str()), (1, "approval.fail"));
    let one: Approval = crew.sofia.get(&format!("{}/{}", path::APPROVALS, second.id)).await.json();
    assert_eq!((one.state.as_str(), one.act), ("failed", None));
}

/// INV-LEAST-1, INV-EVID-1: the power is cut at any byte of what the registry writes. The yes, what it does and the events of
/// both are there, or none of it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_between_the_yes_and_what_it_does_leaves_both_or_none() {
    let crew = Crew::new(&ALL).await;
    crew.quarantined("pump-1").await;
    let approval = asked(&crew.sofia.post(&release("pump-1"), json!({})).await);
    let file = crew.world.dir.path().join("control/registry.sqlite");
    let journal = crew.world.dir.path().join("control/registry.sqlite-wal");
    let (whole, before) = (std::fs::read(&file).unwrap(), std::fs::read(&journal).unwrap());
    assert_eq!(decide(&crew.otto, &approval, "approve").await.status, 200);
    let after = std::fs::read(&journal).unwrap();
    assert!(after.starts_with(&before), "the journal has only grown");
    assert_eq!(std::fs::read(&file).unwrap(), whole, "nothing was taken over from it yet");
    let (mut none, mut both) = (0, 0);
    let frame = 4096 + 24;
    let cuts = (before.len()..=after.len()).step_by(frame / 8).chain([after.len()]);
    for cut in cuts {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("registry.sqlite");
        std::fs::write(&copy, &whole).unwrap();
        std::fs::write(dir.path().join("registry.sqlite-wal"), &after[..cut]).unwrap();
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&copy);
        let mut file = sqlx::ConnectOptions::connect(&options).await.unwrap();
        let found: (String, String, i64, i64) = sqlx::query_as(
            "SELECT (SELECT state FROM approvals WHERE number = 1),
                    (SELECT standing FROM devices WHERE id = 'pump-1'),
                    (SELECT count(*) FROM events WHERE action = 'approval.approve'),
                    (SELECT count(*) FROM events WHERE action = 'device.release')",
        )
        .fetch_one(&mut file)
        .await
        .unwrap();
        match (found.0.as_str(), found.1.as_str(), found.2, found.3) {
            ("open", "quarantined", 0, 0) => none += 1,
            ("approved", "enrolled", 1, 1) => both += 1,
            torn => panic!("cut at {cut} of {}: {torn:?}", after.len()),
        }
    }
    println!("{none} cuts left none of it, {both} all of it");
    assert!(none > 0 && both > 0);
}

/// The clock is an argument: at its end nothing is done, a microsecond before it is.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_is_never_done_to_the_microsecond() {
    let day = Duration::from_secs(86_400);
    let limits = Limits { session_life: 3 * day, session_idle: 3 * day, ..Limits::default() };
    let world = World::with(Setup { limits, ..Setup::default() }).await;
    let crew = Crew::with(world, &ALL).await;
    crew.quarantined("pump-1").await;
    let approval = asked(&crew.sofia.post(&release("pump-1"), json!({})).await);
    let registry = crew.world.control.registry();
    let number = approval.id.parse().unwrap();
    let until = registry.approval(number).await.unwrap().until;
    let cookie = trust::digest(crew.otto.cookie.as_bytes());
    let otto = registry.people().by_session(&cookie, crate::world::now(), 3 * day).unwrap();
    let word = |at: i64| Word {
        number,
        by: Arc::new(otto.clone()),
        idle: 3 * day,
        at: Timestamp(until.as_us() + at),
    };
    for at in [0, 1, day.as_micros() as i64] {
        let refused = registry.approve(word(at)).await.unwrap_err();
        let no = ActError::Approval(ApprovalError::No(No::NotOpen(State::Expired)));
        assert_eq!(refused.to_string(), no.to_string());
        assert_eq!(crew.standing("pump-1"), Standing::Quarantined);
    }
    registry.approve(word(-1)).await.unwrap();
    assert_eq!(crew.standing("pump-1"), Standing::Enrolled);
}
