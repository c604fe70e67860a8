//! INV-LEAST-1: who sees which rows by SQL, through a real control plane over a real store, by the table that stands in
//! `docs/users.md`.

use crate::docs_table::table;
use api::user::{Grant, SESSION_COOKIE};
use api::{Answer, Ownership, Problem, Role, UserRole, path};
use bus::{LogConfig, Shards};
use control::{Config, Control, DirectorConfig, Limits};
use disk::{RealDisk, SharedDisk};
use keys::ca::Authority;
use keys::tls::{self, Alpn};
use keys::{UnixTime, file};
use model::bus::{Batch, Entry};
use model::envelope::{Algorithm, LossCause, LostRange, encode_loss};
use model::uplink::{AttestedBy, QuarantineReason, Record};
use model::{
    Counter, DeviceId, GatewayId, Header, Kind, Reading, SeriesName, Timestamp, Value, ZoneId,
    senml,
};
use reqwest::Method;
use serde_json::json;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Store;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use trust::cose::{self, SecretKey, Signer as _};
use trust::mac::MacKey;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const BUS_KEY: MacKey = MacKey::new([7; 32]);
const PASSWORD: &str = "correct horse battery staple";
const PATIENCE: Duration = Duration::from_secs(60);

/// 2026-01-01T00:00:00Z.
const START_US: i64 = 1_767_225_600_000_000;

const LETTERS: [(&str, UserRole); 5] = [
    ("v", UserRole::Viewer),
    ("o", UserRole::Operator),
    ("r", UserRole::Releaser),
    ("s", UserRole::SecurityOfficer),
    ("a", UserRole::Administrator),
];

/// A device, its zone, and the site that the zone is of.
const PLANT: [(&str, &str, &str); 2] = [("pump-n", "hall", "north"), ("pump-s", "yard", "south")];

/// A site whose control plane asks the store that reads its bus.
struct Site {
    dir: TempDir,
    shards: Shards,
    control: Control,
    http: reqwest::Client,
    stop: oneshot::Sender<()>,
    ingest: JoinHandle<Result<(), store::StoreError>>,
}

/// What somebody shows.
#[derive(Clone, Debug)]
enum Proof {
    Nothing,
    Cookie(String),
    Bearer(String),
}

impl Site {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk: SharedDisk = Arc::new(RealDisk);
        let bus = LogConfig {
            segment_bytes: 1 << 20,
            bytes_max: 1 << 28,
            record_bytes_max: control::BUS_RECORD_BYTES_MAX as u32,
        };
        let shards = Shards::open(disk.clone(), &dir.path().join("bus"), 2, bus, 64).unwrap();
        let mut config = store::Config::new(dir.path().join("store"));
        // Gaps are shown when rows go into files.
        config.flush.rows_max = 1;
        let writers = shards.writers().to_vec();
        let store = Store::open(disk, config, writers.clone(), BUS_KEY).await.unwrap();
        let store = Arc::new(store);
        let (stop, stopped) = oneshot::channel();
        let running = store.clone();
        let ingest = tokio::spawn(async move { running.run(async { drop(stopped.await) }).await });
        let authority = |name: &str| {
            let (key, cert) = (format!("{name}.key"), format!("{name}.pem"));
            let (key, cert) = (dir.path().join(key), dir.path().join(cert));
            let since = UnixTime::since_unix_epoch(Duration::from_micros(START_US as u64));
            Authority::load_or_create(&RealDisk, &key, &cert, name, since).unwrap()
        };
        let (site, maker) = (Arc::new(authority("site")), authority("maker"));
        let draw = || file::draw(Algorithm::Ed25519).unwrap();
        let director = draw();
        let now = Timestamp(UnixTime::now().as_secs() as i64 * 1_000_000);
        let root =
            control::director::first_root(&[draw(), draw()], director.public(), now).unwrap();
        std::fs::create_dir_all(dir.path().join("control")).unwrap();
        let config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            site: "site".into(),
            registry: dir.path().join("control/registry.sqlite"),
            authority: site.clone(),
            key: file::draw(Algorithm::Esp256).unwrap(),
            certificate: dir.path().join("control.pem"),
            makers: vec![maker.certificate_der().to_vec()],
            token: TOKEN.into(),
            policies: policy::DEFAULT_POLICIES.into(),
            bus_key: BUS_KEY,
            director: DirectorConfig { roots: vec![root], key: director },
            images: None,
            evidence: control::config::Evidence {
                disk: Arc::new(RealDisk),
                dir: dir.path().join("control/evidence"),
                key: draw(),
            },
            traces: Default::default(),
            limits: Limits::default(),
        };
        let control = Control::start(config, store, writers, vec![]).await.unwrap();
        let anchors = [site.certificate_der().to_vec()];
        let tls = tls::client(None, &anchors, Alpn::Http11).unwrap();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(rustls::ClientConfig::clone(&tls))
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .unwrap();
        Self { dir, shards, control, http, stop, ingest }
    }

    async fn end(self) {
        self.control.shutdown().await;
        self.stop.send(()).unwrap();
        self.ingest.await.unwrap().unwrap();
        self.shards.close().await;
        drop(self.dir);
    }

    fn call(&self, proof: &Proof, method: Method, path: &str) -> reqwest::RequestBuilder {
        let base = format!("https://{}", self.control.local_addr());
        let request = self.http.request(method, format!("{base}{path}"));
        match proof {
            Proof::Nothing => request,
            Proof::Bearer(token) => request.bearer_auth(token),
            Proof::Cookie(cookie) => request
                .header("cookie", format!("{SESSION_COOKIE}={cookie}"))
                .header("origin", base),
        }
    }

    async fn post(&self, proof: &Proof, path: &str, body: &serde_json::Value) -> reqwest::Response {
        let request = self.call(proof, Method::POST, path);
        let request = request.header("content-type", "application/json").body(body.to_string());
        request.send().await.unwrap()
    }

    /// As whoever holds the site's directory.
    async fn tell(&self, path: &str, body: &serde_json::Value) {
        let answer = self.post(&Proof::Bearer(TOKEN.into()), path, body).await;
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
    }

    async fn make_site(&self, id: &str, zones: &[&str]) {
        self.tell(path::SITES, &json!({ "id": id, "zones": zones })).await;
    }

    async fn user(&self, name: &str, role: UserRole, at: Option<&str>) -> Proof {
        let grants = [Grant { role, site: at.map(str::to_owned) }];
        let user = json!({ "name": name, "password": PASSWORD, "grants": grants });
        self.tell(path::USERS, &user).await;
        let sign_in = json!({ "user": name, "password": PASSWORD });
        let answer = self.post(&Proof::Nothing, path::SESSION, &sign_in).await;
        assert_eq!(answer.status(), 200, "{name}");
        let set = answer.headers()["set-cookie"].to_str().unwrap();
        let cookie = set.strip_prefix(&format!("{SESSION_COOKIE}=")).unwrap();
        Proof::Cookie(cookie.split(';').next().unwrap().to_owned())
    }

    async fn token(&self, of: &Proof, name: &str, bounds: serde_json::Value) -> Proof {
        let mut token = json!({ "name": name, "days": 1 });
        token.as_object_mut().unwrap().extend(bounds.as_object().unwrap().clone());
        let answer = self.post(of, path::TOKENS, &token).await;
        assert_eq!(answer.status(), 201, "{name}");
        let made: api::user::MadeToken =
            serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        Proof::Bearer(made.secret)
    }

    /// The rows, or the word of the refusal.
    async fn ask(&self, proof: &Proof, sql: &str) -> Result<Vec<Vec<api::Cell>>, String> {
        let answer = self.post(proof, path::QUERY, &json!({ "sql": sql })).await;
        let is_answered = answer.status() == 200;
        let body = answer.bytes().await.unwrap();
        if is_answered {
            return Ok(serde_json::from_slice::<Answer>(&body).unwrap().rows);
        }
        let problem: Problem = serde_json::from_slice(&body).unwrap();
        Err(problem.kind.rsplit(':').next().unwrap().to_owned())
    }

    /// The first column, as a set.
    async fn names(&self, proof: &Proof, sql: &str) -> Result<BTreeSet<String>, String> {
        let rows = self.ask(proof, sql).await?;
        Ok(rows.iter().map(|row| row[0].as_str().unwrap().to_owned()).collect())
    }

    /// A device says something for every table: readings, what is quarantined, a loss that it states, and a gap.
    async fn hear(&self, device: &str, zone: &str, seed: u8) {
        let key = SecretKey::from_random(Algorithm::Ed25519, &[seed; 32]).unwrap();
        let seal = |kind, sequence, payload: &[u8]| {
            let header = Header {
                algorithm: Algorithm::Ed25519,
                kind,
                key: key.public().id(),
                counter: Counter { epoch: 1, sequence },
                uptime_ms: 1,
                wall: None,
                heard: None,
                prior: None,
            };
            cose::seal(&header, payload, &key).unwrap()
        };
        let pack = |at: i64| {
            let series = SeriesName::new("flow").unwrap();
            let (time, value) = (Timestamp(START_US + at), Value::Int(seed.into()));
            senml::encode(&[Reading { time, series, value, unit: None }])
        };
        let lost = LostRange {
            key: key.public().id(),
            epoch: 1,
            first: 7,
            last: 8,
            cause: LossCause::BacklogFull,
        };
        for (message, quarantine) in [
            (seal(Kind::Readings, 0, &pack(1)), None),
            (seal(Kind::LossNotice, 1, &encode_loss(&[lost])), None),
            (format!("noise of {device}").into_bytes(), Some(QuarantineReason::Malformed)),
            // 2 to 4 are missing.
            (seal(Kind::Readings, 5, &pack(2)), None),
        ] {
            let record = Record {
                device: DeviceId::new(device).unwrap(),
                attested_by: AttestedBy::Device,
                received_at: Timestamp(START_US),
                uncertainty_ms: 1,
                fresh: true,
                message,
            };
            let (gateway, zone) = (GatewayId::new("gw-1").unwrap(), ZoneId::new(zone).unwrap());
            let entries = vec![Entry { record, quarantine }];
            let batch = Batch { gateway, zone, entries }.encode();
            let framed = [BUS_KEY.tag(&batch).as_slice(), &batch].concat();
            self.shards.writer_of(device.as_bytes()).append(framed).await.unwrap();
        }
    }
}

/// What a cell such as `v o r s a: all` says that a role sees.
fn documented(cell: &str, letter: &str) -> Option<String> {
    let (letters, rows) = cell.split_once(": ")?;
    letters.split(' ').any(|one| one == letter).then(|| rows.to_owned())
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_of_sql_against_every_role_and_none() {
    let site = Site::start().await;
    for (n, (device, zone, of)) in PLANT.iter().enumerate() {
        let entry = Ownership {
            serial: (*device).into(),
            role: Role::Device,
            zone: (*zone).into(),
            group: None,
        };
        site.control.list(&entry).await.unwrap();
        site.hear(device, zone, n as u8 + 1).await;
        site.make_site(of, &[zone]).await;
    }
    site.make_site("elsewhere", &[]).await;
    let all = Proof::Bearer(TOKEN.into());
    let rows = table("SQL");
    let start = Instant::now();
    for row in &rows {
        let sql = format!("select distinct device from {}", row[0]);
        while site.names(&all, &sql).await != Ok(set(&["pump-n", "pump-s"])) {
            assert!(start.elapsed() < PATIENCE, "never in {}", row[0]);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let sql = "select table_name from information_schema.tables where table_schema = 'public'";
    let tables: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(site.names(&all, sql).await, Ok(set(&tables)), "docs/users.md, \"SQL\": its tables");

    let (mut wrong, mut asked) = (Vec::new(), 0);
    let mut expect = async |who: &str,
                            proof: &Proof,
                            table: &str,
                            seen: Result<BTreeSet<String>, &str>| {
        // By name, by number, and by a condition that fails on a row that is not to be seen.
        let hidden = PLANT
            .iter()
            .find(|(device, ..)| seen.as_ref().is_ok_and(|seen| !seen.contains(*device)));
        let hidden = hidden.map_or("nobody", |(device, ..)| device);
        let trap = "1 / cast(device <> '{}' as int) = 1".replace("{}", hidden);
        for (sql, what) in [
            (format!("select device from {table}"), "names"),
            (
                format!("select device from (select device, count(*) from {table} group by 1)"),
                "counts",
            ),
            (format!("select device from {table} where {trap}"), "a condition"),
            (format!("select device from {table} union select device from {table}"), "a union"),
        ] {
            asked += 1;
            let found = site.names(proof, &sql).await;
            if found != seen.clone().map_err(str::to_owned) {
                wrong.push(format!("{table} by {who}, {what}: expected {seen:?}, found {found:?}"));
            }
        }
    };
    for (letter, role) in LETTERS {
        let everywhere = site.user(letter, role, None).await;
        let mut callers = vec![(letter.to_owned(), everywhere, 2, set(&["pump-n", "pump-s"]))];
        for (device, _, of) in PLANT {
            let name = format!("{letter}-{of}");
            let proof = site.user(&name, role, Some(of)).await;
            callers.push((name, proof, 3, set(&[device])));
        }
        let name = format!("{letter}-elsewhere");
        let proof = site.user(&name, role, Some("elsewhere")).await;
        callers.push((name, proof, 3, set(&[])));
        for row in &rows {
            for (who, proof, column, reached) in &callers {
                let seen = match documented(row[*column], letter).as_deref() {
                    Some("all") if *column == 2 => Ok(reached.clone()),
                    Some("its own") if *column == 3 => Ok(reached.clone()),
                    None => Err("out_of_scope"),
                    Some(other) => panic!("docs/users.md, \"SQL\": no test knows `{other}`"),
                };
                expect(who, proof, row[0], seen).await;
            }
        }
        let named = format!("select {} from readings limit 0", rows[0][1]);
        assert_eq!(site.ask(&callers[0].1, &named).await, Ok(vec![]), "a row is known by a column");
    }
    // None, and what a token is bounded to.
    let anna = site.user("anna", UserRole::Administrator, None).await;
    let north = json!({ "scopes": ["telemetry.read"], "sites": ["north"] });
    let north = site.token(&anna, "north", north).await;
    let blind = site.token(&anna, "blind", json!({ "scopes": ["fleet.read"] })).await;
    let guess = Proof::Bearer("plm_a_b".into());
    for row in &rows {
        expect("nobody", &Proof::Nothing, row[0], Err("unauthenticated")).await;
        expect("who guesses", &guess, row[0], Err("bad_token")).await;
        expect("a token for other work", &blind, row[0], Err("out_of_scope")).await;
        expect("a token of a site", &north, row[0], Ok(set(&["pump-n"]))).await;
    }
    // A zone that moves to another site takes its rows along at the next question, and a user who is disabled sees none.
    site.make_site("north", &[]).await;
    for row in &rows {
        expect("a token of a site without zones", &north, row[0], Ok(set(&[]))).await;
    }
    site.tell(&format!("{}/anna/disable", path::USERS), &json!(null)).await;
    for row in &rows {
        expect("a token of a disabled user", &north, row[0], Err("token_revoked")).await;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    println!("{asked} questions over {} tables, answered as documented", rows.len());
    site.end().await;
}
