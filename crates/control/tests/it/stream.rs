//! Who listens hears what changes, through the real listener.

use crate::people::{Browser, JsonBody as _};
use crate::world::{Got, Setup, TOKEN, World, in_time};
use api::stream::{ChangeKind, Changed, LAST_EVENT_ID};
use api::{Role, Scope, UserRole, path};
use control::Limits;
use control::registry::{RegistryError, Work, said};
use keys::tls::{self, Alpn};
use model::Timestamp;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

/// A receiver, as a browser is one.
pub struct Ear {
    response: Response,
    unread: String,
    /// The newest `id` that it has read.
    pub last: Option<String>,
}

impl Ear {
    pub async fn at(world: &World, last: Option<&str>) -> Self {
        let request = world.operator(Method::GET, path::STREAM);
        match last {
            Some(last) => Self::of(request.header(LAST_EVENT_ID, last)).await,
            None => Self::of(request).await,
        }
    }

    async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut ear = Self { response, unread: String::new(), last: None };
        assert_eq!(ear.block().await.unwrap(), ["retry: 2000"]);
        ear
    }

    /// It has said where it begins: from here on it hears everything.
    pub async fn new(world: &World) -> Self {
        Self::begun(world.operator(Method::GET, path::STREAM)).await
    }

    async fn begun(request: RequestBuilder) -> Self {
        let mut ear = Self::of(request).await;
        let begin = ear.block().await.unwrap();
        assert!(begin[0].starts_with("id: "), "{begin:?}");
        ear
    }

    /// The lines up to the next empty one; `None` at the end.
    async fn block(&mut self) -> Option<Vec<String>> {
        loop {
            if let Some((block, rest)) = self.unread.split_once("\n\n") {
                let block: Vec<String> = block.lines().map(str::to_owned).collect();
                self.unread = rest.to_owned();
                let mut ids = block.iter().filter_map(|line| line.strip_prefix("id: "));
                self.last = ids.next_back().map(str::to_owned).or(self.last.take());
                return Some(block);
            }
            let chunk = in_time("the stream goes on", self.response.chunk()).await.unwrap()?;
            self.unread.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next change; what only says that the stream lives is passed over.
    pub async fn hear(&mut self) -> Option<(String, Changed)> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| block.iter().find_map(|line| line.strip_prefix(name));
            if let (Some(kind), Some(data)) = (field("event: "), field("data: ")) {
                return Some((kind.to_owned(), serde_json::from_str(data).unwrap()));
            }
        }
    }

    async fn hears(&mut self, expected: &str) {
        let (kind, changed) = self.hear().await.expect("the stream goes on");
        assert_eq!(format!("{kind} {}", changed.subject), expected);
    }
}

/// Writes events of these subjects, all in one step.
async fn happens(world: &World, subjects: Vec<String>) {
    let step = world.control.registry().step(|step| -> Work<'_, (), RegistryError> {
        Box::pin(async move {
            for subject in subjects {
                step.say(said(Timestamp(1), "token/site", "test.note", subject, json!({}))).await?;
            }
            Ok(())
        })
    });
    step.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_listens_hears_what_changes_in_order_with_the_event_that_tells_of_it() {
    let world = World::new().await;
    world.list("pump-0", Role::Device, "hall").await;
    let mut ear = Ear::new(&world).await;
    assert_eq!(ear.last.as_deref(), Some("0"));
    world.list("pump-1", Role::Device, "hall").await;
    let (kind, changed) = ear.hear().await.unwrap();
    assert_eq!(kind, ChangeKind::Device.as_str());
    assert_eq!((changed.subject.as_str(), changed.sequence), ("device/pump-1", Some(1)));
    assert_eq!(ear.last.as_deref(), Some("1"));
    // What is heard is there to be asked for.
    let fleet: api::Fleet = Got::of(world.operator(Method::GET, path::DEVICES)).await.json();
    assert_eq!(fleet.devices.len(), 2);
    let subjects = ["rollout/r", "site", "device/pump-0"].map(str::to_owned);
    happens(&world, subjects.into()).await;
    for expected in ["rollout rollout/r", "site site", "device device/pump-0"] {
        ear.hears(expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_away_hears_what_it_missed_and_nothing_twice() {
    let world = World::new().await;
    world.list("pump-0", Role::Device, "hall").await;
    let ear = Ear::new(&world).await;
    let last = ear.last.clone();
    drop(ear);
    world.list("pump-1", Role::Device, "hall").await;
    world.list("pump-2", Role::Device, "hall").await;
    let mut ear = Ear::at(&world, last.as_deref()).await;
    ear.hears("device device/pump-1").await;
    ear.hears("device device/pump-2").await;
    // Also when control was away.
    let world = world.restart(Setup::default()).await;
    let mut ear = Ear::at(&world, Some("1")).await;
    ear.hears("device device/pump-2").await;
    world.list("pump-3", Role::Device, "hall").await;
    ear.hears("device device/pump-3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_missed_more_than_is_kept_is_told_to_ask_for_everything_and_goes_on_from_there() {
    // No rule of alerts says anything of its own in between.
    let limits = Limits { alerts_every: Duration::from_secs(86_400), ..Limits::default() };
    let world = World::with(Setup { limits, ..Setup::default() }).await;
    let many = |from: usize| (from..from + 1001).map(|n| format!("device/pump-{n}")).collect();
    happens(&world, many(0)).await;
    let mut ear = Ear::at(&world, Some("0")).await;
    for n in 1..1001 {
        ear.hears(&format!("device device/pump-{n}")).await;
    }
    happens(&world, many(0)).await;
    let mut away = Ear::at(&world, Some("1000")).await;
    away.hears("reset site").await;
    assert_eq!(away.last.as_deref(), Some("2001"));
    world.list("pump-1", Role::Device, "hall").await;
    away.hears("device device/pump-1").await;
    // A log that has fewer events than it heard of is not the one that it knew.
    let mut other = Ear::at(&world, Some("9007")).await;
    other.hears("reset site").await;
    assert_eq!(other.last.as_deref(), Some("2002"));

    let no_number = world.operator(Method::GET, path::STREAM).header(LAST_EVENT_ID, "seven");
    let got = Got::of(no_number).await;
    assert_eq!(got.refusal(), (400, "bad_last_event_id".into()));
    assert!(got.problem().detail.contains("\"seven\""), "{got:?}");
}

/// INV-COST-1.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_takes_nothing_is_let_go_and_its_place_is_free_again() {
    let stall = Duration::from_millis(50);
    let limits = Limits { streams_max: 1, stream_stall: stall, ..Limits::default() };
    let world = World::with(Setup { limits, ..Setup::default() }).await;
    // One that holds back as little as a system lets it.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(1024).unwrap();
    let stream = socket.connect(world.control.local_addr()).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let tls = tls::client(None, &world.anchors(), Alpn::Http11).unwrap();
    let mut stream = TlsConnector::from(tls).connect(name, stream).await.unwrap();
    let head = format!(
        "GET {} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n",
        path::STREAM
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).await.unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200");
    world.counted("plimsoll_control_streams", 1).await;
    let another = || Got::of(world.operator(Method::GET, path::STREAM));
    assert_eq!(another().await.refusal(), (503, "busy".into()));

    let long = "x".repeat(200);
    in_time("the receiver is let go", async {
        while world.metric("plimsoll_control_streams") == 1 {
            happens(&world, (0..900).map(|n| format!("rollout/{n}-{long}")).collect()).await;
        }
    })
    .await;
    assert_eq!(another().await.status, 200);
}

/// INV-COST-1.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_the_places_of_the_others() {
    let limits = Limits { streams_each_max: 2, ..Limits::default() };
    let world = World::with(Setup { limits, ..Setup::default() }).await;
    let held = [Ear::at(&world, Some("0")).await, Ear::at(&world, Some("0")).await];
    let got = Got::of(world.operator(Method::GET, path::STREAM)).await;
    assert_eq!(got.refusal(), (503, "busy".into()));
    assert!(got.problem().detail.contains("at most 2 streams of `token/site`"), "{got:?}");
    drop(held);
    world.counted("plimsoll_control_streams", 0).await;
    Ear::at(&world, Some("0")).await;
}

/// INV-AUTH-1, INV-LEAST-1.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_at_once_with_the_session_the_token_or_the_rights_that_began_it() {
    let world = World::new().await;
    world.list("pump-0", Role::Device, "hall").await;
    let north = json!({ "id": "north", "zones": ["yard"] });
    let got = Got::of(world.operator(Method::POST, path::SITES).json(&north)).await;
    assert_eq!(got.status, 200, "{got:?}");
    for name in ["anna", "boris", "clara"] {
        world.make_user(name, &[(UserRole::Viewer, None)]).await;
    }
    let (anna, boris, clara) =
        (world.sign_in("anna").await, world.sign_in("boris").await, world.sign_in("clara").await);
    let made = world.token(&boris, &[Scope::FleetRead]).await;
    let listen = |browser: &Browser| Ear::begun(browser.call(Method::GET, path::STREAM));
    let mut of_anna = listen(&anna).await;
    let with_token = world.call(None, Method::GET, path::STREAM).bearer_auth(&made.secret);
    let mut of_token = Ear::begun(with_token).await;
    let (mut of_boris, mut of_clara) = (listen(&boris).await, listen(&clara).await);
    async fn ends(ear: &mut Ear) {
        while let Some((kind, changed)) = ear.hear().await {
            assert_ne!(changed.subject, "device/pump-1", "{kind}: it is over");
        }
    }
    let got = Got::of(world.operator(Method::POST, "/v1/users/anna/disable")).await;
    assert_eq!(got.status, 200);
    ends(&mut of_anna).await;
    assert_eq!(boris.delete(&format!("/v1/tokens/{}", made.token.id)).await.status, 200);
    ends(&mut of_token).await;
    let grants = json!({ "grants": [{ "role": "viewer", "site": "north" }] });
    let got = Got::of(world.operator(Method::POST, "/v1/users/boris/grants").json(&grants)).await;
    assert_eq!(got.status, 200, "{got:?}");
    ends(&mut of_boris).await;
    // Whoever may still listen hears of all that is his to hear.
    world.list("pump-1", Role::Device, "hall").await;
    of_clara.hears("device device/pump-1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_says_that_it_lives_and_a_request_s_time_does_not_end_it() {
    let soon = Duration::from_millis(20);
    let limits = Limits { stream_alive: soon, request_time_max: soon * 10, ..Limits::default() };
    let world = World::with(Setup { limits, ..Setup::default() }).await;
    world.list("pump-0", Role::Device, "hall").await;
    let mut ear = Ear::new(&world).await;
    // Twice as long as a request may take.
    for _ in 0..20 {
        assert_eq!(ear.block().await.unwrap(), [": alive"]);
        assert_eq!(ear.block().await.unwrap(), ["id: 0"]);
    }
    world.list("pump-1", Role::Device, "hall").await;
    ear.hears("device device/pump-1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_a_stream_in_good_order() {
    let world = World::new().await;
    let mut ear = Ear::at(&world, Some("0")).await;
    let World { control, .. } = world;
    // A shutdown that had to cut it off would take longer than this.
    let at_once = Limits::default().shutdown_time_max / 2;
    tokio::time::timeout(at_once, control.shutdown()).await.expect("it waits for nobody");
    while let Some((kind, _)) = ear.hear().await {
        assert_eq!(kind, "reset", "the log had no event to have heard of");
    }
}
