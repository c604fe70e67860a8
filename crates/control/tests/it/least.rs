//! INV-LEAST-1: every call against every caller, by the table that stands in `docs/users.md`.

use crate::docs_table::table;
use crate::people::{Browser, JsonBody as _};
use crate::world::{Certified, Setup, TOKEN, World};
use api::{Problem, Scope, UserRole, path};
use control::endpoint::{Endpoint, Method};
use reqwest::Method as Verb;
use serde_json::json;
use sqlx::{ConnectOptions as _, Connection as _};
use std::collections::BTreeMap;

#[test]
fn the_documented_table_of_roles_is_what_roles_hold() {
    let documented: BTreeMap<&str, Vec<bool>> = table("Roles")
        .into_iter()
        .map(|row| (row[0], row[1..].iter().map(|cell| *cell == "yes").collect()))
        .collect();
    assert_eq!(documented.len(), Scope::ALL.len());
    for scope in Scope::ALL {
        let held: Vec<bool> = UserRole::ALL.iter().map(|role| role.holds(*scope)).collect();
        assert_eq!(documented.get(scope.as_str()), Some(&held), "{scope}");
    }
}

fn verb(method: Method) -> Verb {
    match method {
        Method::Get => Verb::GET,
        Method::Post => Verb::POST,
        Method::Delete => Verb::DELETE,
    }
}

fn name(endpoint: Endpoint) -> String {
    format!("{} {}", verb(endpoint.method()), endpoint.path())
}

/// Who calls, and by what.
enum Proof<'a> {
    Certificate(Option<&'a Certified>),
    Session(&'a Browser),
    Bearer(String),
}

/// Status and, of a refusal, its word. What a success would go on to say is not waited for: it may be a stream.
async fn call(world: &World, endpoint: Endpoint, proof: &Proof<'_>) -> (u16, String) {
    let path = endpoint.path().replace("{id}", "nobody").replace("{name}", "timestamp.json");
    let path = path.replace("{digest}", &"0".repeat(64)).replace("{*name}", "0/000");
    let verb = verb(endpoint.method());
    let request = match proof {
        Proof::Certificate(own) => world.call(*own, verb, &path),
        Proof::Session(browser) => browser.call(verb, &path),
        Proof::Bearer(token) => world.call(None, verb, &path).bearer_auth(token),
    };
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    if status < 400 {
        return (status, String::new());
    }
    let problem: Problem = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    (status, problem.kind.rsplit(':').next().unwrap().to_owned())
}

/// A token whose days are over: no clock is moved, it is written into the file.
async fn expired_token(world: World) -> (World, String) {
    let secret = "e".repeat(64);
    let (digest, path) = (trust::digest(secret.as_bytes()), "control/registry.sqlite");
    let World { dir, site, maker, shards, control } = world;
    control.shutdown().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.path().join(path));
    let mut file = options.connect().await.unwrap();
    sqlx::query("INSERT INTO tokens VALUES ('e1', 'v', 'old', ?, '[\"fleet.read\"]', NULL, NULL, 1, 2, NULL, NULL)")
        .bind(digest.to_string())
        .execute(&mut file)
        .await
        .unwrap();
    file.close().await.unwrap();
    let control =
        crate::world::start(&dir, &site, &maker, &shards, Setup::default()).await.unwrap();
    (World { dir, site, maker, shards, control }, format!("plm_e1_{secret}"))
}

const LETTERS: [(&str, UserRole); 5] = [
    ("v", UserRole::Viewer),
    ("o", UserRole::Operator),
    ("r", UserRole::Releaser),
    ("s", UserRole::SecurityOfficer),
    ("a", UserRole::Administrator),
];

/// What SQL shows within a call, and who may say what over MQTT, are other tests' matter.
#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_against_every_role_and_none() {
    let world = World::new().await;
    let site = json!({ "id": "elsewhere", "zones": [] });
    let made = world.operator(Verb::POST, path::SITES).json(&site).send().await.unwrap();
    assert_eq!(made.status(), 200);
    for (letter, role) in LETTERS {
        world.make_user(letter, &[(role, None)]).await;
        world.make_user(&format!("{letter}-there"), &[(role, Some("elsewhere"))]).await;
    }
    let (world, expired) = expired_token(world).await;
    let born = world.born("pump-9");
    let (device, gateway) = (world.device("pump-1").await, world.gateway("gw-1").await);
    let mut people = BTreeMap::new();
    for user in
        LETTERS.iter().flat_map(|(letter, _)| [letter.to_string(), format!("{letter}-there")])
    {
        people.insert(user.clone(), world.sign_in(&user).await);
    }
    let gone = world.sign_in("v").await;
    let revoked = world.token(&gone, &[Scope::FleetRead]).await;
    let revoke = format!("{}/{}", path::TOKENS, revoked.token.id);
    assert_eq!(gone.delete(&revoke).await.status, 200);
    assert_eq!(gone.delete(path::SESSION).await.status, 204);

    let rows: BTreeMap<&str, Vec<&str>> =
        table("Who may call what").into_iter().map(|row| (row[0], row[1..].to_vec())).collect();
    let known: Vec<String> = Endpoint::ALL.iter().map(|endpoint| name(*endpoint)).collect();
    let missing: Vec<_> = known.iter().filter(|name| !rows.contains_key(name.as_str())).collect();
    assert!(missing.is_empty(), "docs/users.md, \"Who may call what\": add a row for {missing:?}");
    assert_eq!(rows.len(), known.len(), "docs/users.md has rows of calls that are not there");

    let (mut wrong, mut calls) = (Vec::new(), 0);
    // The call that ends the session by which it is made comes last.
    let last = |endpoint: &&Endpoint| **endpoint == Endpoint::SignOut;
    let order = Endpoint::ALL.iter().filter(|e| !last(e)).chain(Endpoint::ALL.iter().filter(last));
    for endpoint in order.copied() {
        let name = name(endpoint);
        let row = &rows[name.as_str()];
        let has = |column: usize, letter: &str| row[column].split(' ').any(|one| one == letter);
        let is_public = has(0, "n");
        let out = || (403, "out_of_scope");
        let mut callers = vec![
            ("nobody".to_owned(), Proof::Certificate(None), is_public, (401, "unauthenticated")),
            ("i".to_owned(), Proof::Certificate(Some(&born)), has(0, "i"), out()),
            ("d".to_owned(), Proof::Certificate(Some(&device.tls)), has(0, "d"), out()),
            ("g".to_owned(), Proof::Certificate(Some(&gateway.tls)), has(0, "g"), out()),
            ("expired".into(), Proof::Bearer(expired.clone()), is_public, (401, "token_expired")),
            (
                "revoked".into(),
                Proof::Bearer(revoked.secret.clone()),
                is_public,
                (401, "token_revoked"),
            ),
            ("ended".into(), Proof::Session(&gone), is_public, (401, "session_ended")),
            ("guessed".into(), Proof::Bearer("plm_a_b".into()), is_public, (401, "bad_token")),
            ("the site's token".into(), Proof::Bearer(TOKEN.into()), !row[1].is_empty(), out()),
        ];
        for (letter, _) in LETTERS {
            let there = format!("{letter}-there");
            callers.push((letter.into(), Proof::Session(&people[letter]), has(1, letter), out()));
            callers.push((there.clone(), Proof::Session(&people[&there]), has(2, letter), out()));
        }
        for (who, proof, may, (status, word)) in callers {
            calls += 1;
            let found = call(&world, endpoint, &proof).await;
            let refusal = (status, word.to_owned());
            let doors =
                ["unauthenticated", "out_of_scope", "session_ended", "bad_token", "cross_site"];
            let is_right = match may {
                true => !doors.contains(&found.1.as_str()) && !found.1.starts_with("token_"),
                false => found == refusal,
            };
            if !is_right {
                wrong.push(format!("{name} by {who}: may {may}, found {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    println!("{calls} calls of {} endpoints, as documented", known.len());
    let violations = world.metric("plimsoll_invariant_violations_total{invariant=\"INV-LEAST-1\"}");
    assert_eq!(violations, 0);
}
