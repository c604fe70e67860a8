//! Users, sessions, tokens and sites, through the real listener.

use crate::world::{Got, Setup, TOKEN, World, in_time};
use api::path;
use api::user::{Grant, MadeToken, Me, SESSION_COOKIE, Sites, Tokens, User, Users};
use api::{Scope, UserRole};
use control::Limits;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

pub const PASSWORD: &str = "correct horse battery staple";

/// What reqwest has behind a feature that the product does not need.
pub trait JsonBody {
    fn json(self, body: &Value) -> Self;
}

impl JsonBody for reqwest::RequestBuilder {
    fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }
}

/// A signed-in browser.
pub struct Browser {
    http: reqwest::Client,
    base: String,
    pub cookie: String,
}

impl Browser {
    pub fn call(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method.clone(), format!("{}{path}", self.base));
        let request = request.header("cookie", format!("{SESSION_COOKIE}={}", self.cookie));
        if method == Method::GET { request } else { request.header("origin", &self.base) }
    }

    pub async fn get(&self, path: &str) -> Got {
        Got::of(self.call(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Got {
        Got::of(self.call(Method::POST, path).json(&body)).await
    }

    pub async fn delete(&self, path: &str) -> Got {
        Got::of(self.call(Method::DELETE, path)).await
    }
}

impl World {
    pub async fn make_user(&self, name: &str, grants: &[(UserRole, Option<&str>)]) {
        let grants: Vec<Grant> = grants
            .iter()
            .map(|(role, site)| Grant { role: *role, site: site.map(str::to_owned) })
            .collect();
        let body = json!({ "name": name, "password": PASSWORD, "grants": grants });
        let got = Got::of(self.operator(Method::POST, path::USERS).json(&body)).await;
        assert_eq!(got.status, 201, "{got:?}");
    }

    pub async fn try_sign_in(&self, name: &str, password: &str) -> Got {
        let body = json!({ "user": name, "password": password });
        Got::of(self.call(None, Method::POST, path::SESSION).json(&body)).await
    }

    pub async fn sign_in(&self, name: &str) -> Browser {
        let got = self.try_sign_in(name, PASSWORD).await;
        assert_eq!(got.status, 200, "{got:?}");
        let set = got.header("set-cookie");
        let value = set.strip_prefix(&format!("{SESSION_COOKIE}=")).unwrap();
        let cookie = value.split(';').next().unwrap().to_owned();
        Browser { http: self.http(None), base: self.base(), cookie }
    }

    pub async fn token(&self, browser: &Browser, scopes: &[Scope]) -> MadeToken {
        let body = json!({ "name": "ci", "scopes": scopes, "days": 1 });
        let got = browser.post(path::TOKENS, body).await;
        assert_eq!(got.status, 201, "{got:?}");
        serde_json::from_slice(&got.body).unwrap()
    }

    pub async fn with_token(&self, secret: &str, method: Method, path: &str) -> Got {
        Got::of(self.call(None, method, path).bearer_auth(secret)).await
    }

    /// Every event's actor, action, subject and detail.
    pub async fn events(&self) -> Vec<(String, String, String, Value)> {
        let got = Got::of(self.operator(Method::GET, path::EVENTS)).await;
        let events: api::event::Events = got.json();
        let told =
            |event: api::event::Event| (event.actor, event.action, event.subject, event.detail);
        events.events.into_iter().map(told).collect()
    }
}

const ADMIN: (UserRole, Option<&str>) = (UserRole::Administrator, None);
const VIEWER: (UserRole, Option<&str>) = (UserRole::Viewer, None);

#[tokio::test(flavor = "multi_thread")]
async fn a_user_signs_in_is_told_who_it_is_and_signs_out() {
    let world = World::new().await;
    world.make_user("anna", &[ADMIN]).await;
    let got = world.try_sign_in("anna", PASSWORD).await;
    let cookie = got.header("set-cookie").to_owned();
    for word in ["Path=/", "Secure", "HttpOnly", "SameSite=Strict"] {
        assert!(cookie.split("; ").any(|part| part == word), "{cookie}");
    }
    let me: Me = got.json();
    assert_eq!((me.actor.as_str(), me.user.as_deref()), ("user/anna", Some("anna")));
    let anna = world.sign_in("anna").await;
    let again: Me = anna.get(path::SESSION).await.json();
    assert_eq!((&again.grants, &again.scopes), (&me.grants, &me.scopes));
    assert!(
        again.scopes.contains(&Scope::UsersWrite) && !again.scopes.contains(&Scope::RolloutsWrite)
    );
    let users: Users = anna.get(path::USERS).await.json();
    assert_eq!((users.users.len(), users.users[0].sessions), (1, 2));
    assert!(users.users[0].signed_in_at_ms.is_some());
    let out = anna.delete(path::SESSION).await;
    assert_eq!(out.status, 204);
    assert!(out.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(anna.get(path::SESSION).await.refusal(), (401, "session_ended".into()));
    let actions: Vec<_> = world.events().await.into_iter().map(|told| (told.0, told.1)).collect();
    let expected = [
        ("token/site", "user.create"),
        ("user/anna", "session.begin"),
        ("user/anna", "session.begin"),
        ("user/anna", "session.end"),
    ];
    assert_eq!(actions, expected.map(|(actor, action)| (actor.to_owned(), action.to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_learns_whether_name_or_password_was_wrong_and_it_is_counted() {
    let world = World::new().await;
    world.make_user("anna", &[ADMIN]).await;
    world.make_user("boris", &[VIEWER]).await;
    let disable = format!("{}/boris/disable", path::USERS);
    assert_eq!(Got::of(world.operator(Method::POST, &disable)).await.status, 200);
    let mut answers = Vec::new();
    for (name, password) in
        [("anna", "another password"), ("nobody", PASSWORD), ("boris", PASSWORD)]
    {
        let got = world.try_sign_in(name, password).await;
        assert_eq!(got.header("set-cookie"), "");
        // But for the name of the request.
        answers.push(api::Problem { instance: None, ..got.problem() });
    }
    assert_eq!(answers[0].status, 401);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    for outcome in ["other_password", "unknown_user", "disabled"] {
        let name = format!("plimsoll_control_sign_ins_total{{outcome=\"{outcome}\"}}");
        assert_eq!(world.metric(&name), 1, "{outcome}");
    }
    // One event for all of them, at the latest when control ends.
    let world = world.restart(Setup::default()).await;
    let told = world.events().await;
    let refused: Vec<_> = told.iter().filter(|told| told.1 == "session.refused").collect();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].3, json!({ "disabled": 1, "other_password": 1, "unknown_user": 1 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_is_delayed_and_open_sessions_go_on() {
    let world = World::new().await;
    world.make_user("anna", &[ADMIN]).await;
    let anna = world.sign_in("anna").await;
    for _ in 0..5 {
        assert_eq!(world.try_sign_in("anna", "not the password").await.status, 401);
    }
    let got = world.try_sign_in("anna", PASSWORD).await;
    assert_eq!(got.refusal(), (429, "too_many_attempts".into()));
    assert!(got.header("retry-after").parse::<u32>().unwrap() >= 1);
    assert_eq!(anna.get(path::SESSION).await.status, 200);
    world.make_user("boris", &[VIEWER]).await;
    world.sign_in("boris").await;
}

/// INV-AUTH-1.
#[tokio::test(flavor = "multi_thread")]
async fn disabling_a_user_or_a_new_password_ends_its_sessions_and_tokens_at_once() {
    let world = World::new().await;
    world.make_user("root", &[ADMIN]).await;
    let root = world.sign_in("root").await;
    for (what, act, body) in [
        ("disable", "disable", json!(null)),
        ("password", "password", json!({ "password": "an entirely new password" })),
    ] {
        world.make_user(what, &[VIEWER]).await;
        let user = world.sign_in(what).await;
        let made = world.token(&user, &[Scope::FleetRead]).await;
        assert_eq!(world.with_token(&made.secret, Method::GET, path::DEVICES).await.status, 200);
        let held = world.control.registry().people();
        let principal = held.by_token(&made.secret, crate::world::now()).unwrap();
        let mut people = world.control.registry().watch_people();
        let got = root.post(&format!("{}/{what}/{act}", path::USERS), body).await;
        assert_eq!(got.status, 200, "{got:?}");
        // The very next call, and who listens on an open stream hears of it.
        assert_eq!(user.get(path::SESSION).await.refusal(), (401, "session_ended".into()));
        let refused = world.with_token(&made.secret, Method::GET, path::DEVICES).await.refusal();
        assert_eq!(refused, (401, "token_revoked".into()), "{what}");
        in_time("people changed", people.changed()).await.unwrap();
        let idle = Limits::default().session_idle;
        let still = people.borrow().is_valid(&principal, crate::world::now(), idle);
        assert!(!still, "{what}");
    }
    // To come back after it takes a new session and a new token.
    let enable = root.post(&format!("{}/disable/enable", path::USERS), json!(null)).await;
    assert_eq!(enable.status, 200);
    world.sign_in("disable").await;
    assert_eq!(world.try_sign_in("password", PASSWORD).await.status, 401);
    assert_eq!(world.try_sign_in("password", "an entirely new password").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_survives_a_restart_and_ends_when_it_is_idle() {
    let world = World::new().await;
    world.make_user("anna", &[ADMIN]).await;
    let anna = world.sign_in("anna").await;
    let made = world.token(&anna, &[Scope::FleetRead]).await;
    let world = world.restart(Setup::default()).await;
    let anna = Browser { http: world.http(None), base: world.base(), ..anna };
    assert_eq!(anna.get(path::SESSION).await.status, 200);
    assert_eq!(world.with_token(&made.secret, Method::GET, path::DEVICES).await.status, 200);
    let limits = Limits { session_idle: Duration::ZERO, ..Limits::default() };
    let world = world.restart(Setup { limits, ..Setup::default() }).await;
    let anna = Browser { http: world.http(None), base: world.base(), ..anna };
    assert_eq!(anna.get(path::SESSION).await.refusal(), (401, "session_ended".into()));
    // When it was used is kept; and what was over is an event, at the latest when control ends.
    let world = world.restart(Setup::default()).await;
    let tokens: Tokens = Got::of(world.operator(Method::GET, path::TOKENS)).await.json();
    assert!(tokens.tokens[0].used_at_ms.is_some());
    let ends: Vec<_> = world.events().await;
    let ends: Vec<_> = ends.iter().filter(|told| told.1 == "session.end").collect();
    assert_eq!((ends.len(), &ends[0].3), (1, &json!({ "why": "over" })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_changes_nothing_for_a_page_of_another_site() {
    let world = World::new().await;
    world.make_user("anna", &[ADMIN]).await;
    let anna = world.sign_in("anna").await;
    let bare = |method: Method, path: &str| {
        let request = world.call(None, method, path);
        request.header("cookie", format!("other=1; {SESSION_COOKIE}={}", anna.cookie))
    };
    let body = json!({ "id": "north", "zones": ["hall"] });
    let post = || bare(Method::POST, path::SITES).json(&body);
    let cross = (403, "cross_site".to_owned());
    assert_eq!(Got::of(post()).await.refusal(), cross, "no Origin");
    for origin in ["https://evil.example", "null", &world.base().replace("https", "http")] {
        assert_eq!(Got::of(post().header("origin", origin)).await.refusal(), cross, "{origin}");
    }
    let own = post().header("origin", world.base());
    assert_eq!(Got::of(own.header("sec-fetch-site", "cross-site")).await.refusal(), cross);
    let read = bare(Method::GET, path::SITES).header("sec-fetch-site", "cross-site");
    assert_eq!(Got::of(read).await.refusal(), cross);
    let sign_in = |header: &'static str, value: &str| {
        let body = json!({ "user": "anna", "password": PASSWORD });
        world.call(None, Method::POST, path::SESSION).json(&body).header(header, value)
    };
    assert_eq!(Got::of(sign_in("origin", "https://evil.example")).await.refusal(), cross);
    assert_eq!(Got::of(sign_in("sec-fetch-site", "cross-site")).await.refusal(), cross);
    assert_eq!(world.refused("cross_site"), 8);
    assert_eq!(Got::of(post().header("origin", world.base())).await.status, 200);
    assert_eq!(Got::of(bare(Method::GET, path::SITES)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_made_by_a_session_and_never_does_more_than_its_user() {
    let world = World::new().await;
    world.make_user("root", &[ADMIN]).await;
    world.make_user("anna", &[(UserRole::Operator, None)]).await;
    let anna = world.sign_in("anna").await;
    let make = |scopes: Value, days: u32| {
        anna.post(path::TOKENS, json!({ "name": "ci", "scopes": scopes, "days": days }))
    };
    assert_eq!(make(json!(["users.write"]), 1).await.refusal(), (403, "beyond_user".into()));
    assert_eq!(make(json!([]), 1).await.refusal(), (400, "no_scope".into()));
    for days in [0, 367] {
        assert_eq!(make(json!(["fleet.read"]), days).await.refusal(), (400, "bad_days".into()));
    }
    let made = world.token(&anna, &[Scope::FleetRead, Scope::FleetNarrow]).await;
    assert!(made.secret.starts_with(&format!("plm_{}_", made.token.id)));
    assert_eq!(make(json!(["fleet.read"]), 1).await.refusal(), (409, "id_taken".into()));
    let by = |method, path: &str| {
        let (world, secret, path) = (&world, made.secret.clone(), path.to_owned());
        async move { world.with_token(&secret, method, &path).await }
    };
    assert_eq!(by(Method::GET, path::DEVICES).await.status, 200);
    assert_eq!(by(Method::GET, path::METRICS).await.refusal(), (403, "out_of_scope".into()));
    let me: Me = by(Method::GET, path::SESSION).await.json();
    assert_eq!((me.actor.as_str(), me.scopes.len()), ("token/anna/ci", 2));
    let body = json!({ "name": "more", "scopes": ["fleet.read"], "days": 1 });
    let request = world.call(None, Method::POST, path::TOKENS).bearer_auth(&made.secret);
    assert_eq!(Got::of(request.json(&body)).await.refusal(), (403, "not_a_session".into()));
    assert_eq!(by(Method::DELETE, path::SESSION).await.refusal(), (409, "not_a_session".into()));
    // What its user loses, it loses.
    let grants = format!("{}/anna/grants", path::USERS);
    let viewer = json!({ "grants": [{ "role": "viewer" }] });
    assert_eq!(Got::of(world.operator(Method::POST, &grants).json(&viewer)).await.status, 200);
    let revoke = format!("{}/nobody/revoke", path::DEVICES);
    assert_eq!(by(Method::POST, &revoke).await.refusal(), (403, "out_of_scope".into()));
    // Another's is not there; one's own goes.
    world.make_user("boris", &[VIEWER]).await;
    let boris = world.sign_in("boris").await;
    let one = format!("{}/{}", path::TOKENS, made.token.id);
    assert_eq!(boris.delete(&one).await.refusal(), (404, "unknown_token".into()));
    let none: Tokens = boris.get(path::TOKENS).await.json();
    assert!(none.tokens.is_empty());
    assert_eq!(anna.delete(&one).await.status, 200);
    assert_eq!(by(Method::GET, path::DEVICES).await.refusal(), (401, "token_revoked".into()));
    let root = world.sign_in("root").await;
    let all: Tokens = root.get(path::TOKENS).await.json();
    assert!(all.tokens.len() == 1 && all.tokens[0].revoked_at_ms.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_administrator_is_neither_disabled_nor_stripped_and_the_refusal_is_an_event() {
    let world = World::new().await;
    world.make_user("anna", &[ADMIN]).await;
    let anna = world.sign_in("anna").await;
    let last = (409, "last_administrator".to_owned());
    let disable = format!("{}/anna/disable", path::USERS);
    assert_eq!(anna.post(&disable, json!(null)).await.refusal(), last);
    let grants = format!("{}/anna/grants", path::USERS);
    assert_eq!(anna.post(&grants, json!({ "grants": [] })).await.refusal(), last);
    let told = world.events().await;
    let refused: Vec<_> = told.iter().filter(|told| told.1 == "user.refused").collect();
    assert_eq!(refused.len(), 2, "{told:?}");
    assert_eq!(anna.get(path::SESSION).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_changes_ones_own_password_by_showing_the_one_before() {
    let world = World::new().await;
    world.make_user("anna", &[VIEWER]).await;
    world.make_user("boris", &[VIEWER]).await;
    let anna = world.sign_in("anna").await;
    let own = format!("{}/anna/password", path::USERS);
    let new = "the second password";
    for before in [json!(null), json!("a wrong password")] {
        let body = json!({ "password": new, "before": before });
        assert_eq!(anna.post(&own, body).await.refusal(), (403, "other_password".into()));
    }
    let short = json!({ "password": "short", "before": PASSWORD });
    assert_eq!(anna.post(&own, short).await.refusal(), (400, "bad_password".into()));
    let others = format!("{}/boris/password", path::USERS);
    let body = json!({ "password": new, "before": PASSWORD });
    assert_eq!(anna.post(&others, body.clone()).await.refusal(), (403, "out_of_scope".into()));
    assert_eq!(anna.post(&own, body).await.status, 200);
    assert_eq!(world.try_sign_in("anna", PASSWORD).await.status, 401);
    assert_eq!(world.try_sign_in("anna", new).await.status, 200);
}

/// A refusal is logged: it must not hold what was typed.
#[tokio::test(flavor = "multi_thread")]
async fn no_password_cookie_or_token_is_in_an_answer_an_event_or_the_registrys_file() {
    let world = World::new().await;
    world.make_user("anna", &[ADMIN]).await;
    let anna = world.sign_in("anna").await;
    let made = world.token(&anna, &[Scope::FleetRead]).await;
    let typed = json!({ "user": "anna", "password": 918_273_645 });
    let got = Got::of(world.call(None, Method::POST, path::SESSION).json(&typed)).await;
    assert_eq!(got.refusal(), (400, "bad_json".into()));
    assert!(!got.problem().detail.contains("918273645"), "{got:?}");
    let events = format!("{:?}", world.events().await);
    let users = format!("{:?}", anna.get(path::USERS).await);
    let people = format!("{:?}", world.control.registry().people());
    let secret = made.secret.rsplit('_').next().unwrap().to_owned();
    let World { dir, control, .. } = world;
    control.shutdown().await;
    let file = std::fs::read(dir.path().join("control/registry.sqlite")).unwrap();
    let file = String::from_utf8_lossy(&file);
    for hidden in [PASSWORD, anna.cookie.as_str(), secret.as_str(), TOKEN] {
        for shown in [&events, &users, &people, &file.to_string()] {
            assert!(!shown.contains(hidden), "{hidden}");
        }
    }
    assert!(!events.contains("argon2") && !people.contains("argon2") && file.contains("argon2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sites_are_zones_and_what_no_site_names_is_of_the_control_planes_own() {
    let world = World::new().await;
    world.device("pump-1").await;
    world.list("pump-2", api::Role::Device, "yard").await;
    let shown = |sites: Sites| -> Vec<(String, Vec<String>)> {
        sites.sites.into_iter().map(|site| (site.id, site.zones)).collect()
    };
    let set = async |id: &str, zones: Value| {
        let body = json!({ "id": id, "zones": zones });
        Got::of(world.operator(Method::POST, path::SITES).json(&body)).await
    };
    let text = |id: &str, zones: &[&str]| {
        (id.to_owned(), zones.iter().map(|zone| zone.to_string()).collect::<Vec<_>>())
    };
    let first: Sites = Got::of(world.operator(Method::GET, path::SITES)).await.json();
    assert_eq!(shown(first), [text("site", &["hall", "yard"])]);
    let north = shown(set("north", json!(["hall"])).await.json());
    assert_eq!(north, [text("north", &["hall"]), text("site", &["yard"])]);
    let moved = shown(set("south", json!(["hall", "yard"])).await.json());
    assert_eq!(moved, [text("north", &[]), text("site", &[]), text("south", &["hall", "yard"])]);
    assert_eq!(set("West", json!([])).await.refusal(), (400, "bad_name".into()));
    let body = json!({ "name": "x", "password": PASSWORD, "grants": [{ "role": "viewer", "site": "west" }] });
    let got = Got::of(world.operator(Method::POST, path::USERS).json(&body)).await;
    assert_eq!(got.refusal(), (404, "unknown_site".into()));
    // Who sees one site sees that site.
    world.make_user("boris", &[(UserRole::Viewer, Some("south"))]).await;
    let boris = world.sign_in("boris").await;
    let seen: Sites = boris.get(path::SITES).await.json();
    assert_eq!(shown(seen), [text("south", &["hall", "yard"])]);
    let created: User = {
        let users: Users = Got::of(world.operator(Method::GET, path::USERS)).await.json();
        users.users.into_iter().next().unwrap()
    };
    assert_eq!(created.grants[0].site.as_deref(), Some("south"));
}
