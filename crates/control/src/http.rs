//! From a request to its answer: who calls, may they, do it within its time, say what became of it.

use crate::approvals::call as approvals;
use crate::call::{Call, Unread, text};
use crate::caller::{Caller, Denied, Peer, authorise, recognise};
use crate::endpoint::{Access, Endpoint, Method};
use crate::inventory::call as inventory;
use crate::listener::Remote;
use crate::people::call as people;
use crate::principal::Principal;
use crate::problem::Failure;
use crate::request::{Named, REQUEST_ID};
use crate::rollouts::call as rollouts;
use crate::station::{Station, now};
use crate::{
    alerts, audit, console, est, fleet, gateway, idempotency, images, openapi, query, stream,
};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq as _;
use tracing::Instrument as _;

pub(crate) type Answer = Result<Response, Failure>;

/// The table of endpoints, as a router. Nothing else is reachable (INV-LEAST-1).
pub(crate) fn router(station: Arc<Station>) -> Router {
    let mut router = Router::new();
    for endpoint in Endpoint::ALL.iter().copied() {
        let filter = match endpoint.method() {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
            Method::Delete => MethodFilter::DELETE,
        };
        let serve = move |State(station): State<Arc<Station>>, request: Request| async move {
            serve(&station, endpoint, request).await
        };
        router = router.route(endpoint.path(), on(filter, serve));
    }
    router
        .fallback(|State(station): State<Arc<Station>>, request: Request| async move {
            unknown(&station, Failure::not_found(request.uri().path()))
        })
        .method_not_allowed_fallback(
            |State(station): State<Arc<Station>>, request: Request| async move {
                let failure = Failure::method_not_allowed(request.method().as_str());
                unknown(&station, failure)
            },
        )
        .with_state(station)
}

async fn serve(station: &Arc<Station>, endpoint: Endpoint, mut request: Request) -> Response {
    let id = station.requests.name();
    request.extensions_mut().insert(Named(id.clone()));
    let span = tracing::info_span!("request", id, endpoint = endpoint.as_str());
    let mut response = answer(station, endpoint, request, &id).instrument(span).await;
    name(&mut response, &id);
    response
}

async fn answer(
    station: &Arc<Station>,
    endpoint: Endpoint,
    request: Request,
    id: &str,
) -> Response {
    let started = Instant::now();
    let (head, body) = request.into_parts();
    let waits_for_leave = head.headers.contains_key(header::EXPECT);
    let body = Unread::new(body);
    let limit = time_max(station, endpoint);
    let admitted = admit(station, endpoint, head, body.clone());
    let caller = admitted.as_ref().ok().map(|call| call.caller.clone());
    let answer = match admitted {
        Ok(call) => match tokio::time::timeout(limit, idempotency::once(station, call)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::timed_out()),
        },
        Err(denied) => {
            if let Some(device) = denied.device() {
                station.inventory.refused(device, "a call", denied.word(), None);
            }
            Err(denied.into())
        }
    };
    let name = endpoint.as_str();
    let response = match answer {
        Ok(response) => response,
        Err(failure) => {
            let response = refuse(station, name, failure, id);
            if !waits_for_leave {
                body.hear_out().await;
            }
            response
        }
    };
    let (metrics, took) = (&station.metrics, started.elapsed());
    metrics.request_seconds.with_label_values(&[name]).observe(took.as_secs_f64());
    metrics.requests.with_label_values(&[name, response.status().as_str()]).inc();
    tell(caller.as_ref(), response.status(), took);
    response
}

/// One line a request. What machines ask all the time is told where somebody looks for it.
fn tell(caller: Option<&Caller>, status: StatusCode, took: Duration) {
    let (status, took_us) = (status.as_u16(), u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    match caller {
        Some(Caller::Person(person)) => {
            tracing::info!(actor = %person.actor, status, took_us, "request answered");
        }
        Some(caller) => {
            tracing::debug!(actor = caller.kind().as_str(), status, took_us, "request answered");
        }
        // That it was refused is told already.
        None => {}
    }
}

fn name(response: &mut Response, id: &str) {
    let id = HeaderValue::from_str(id).expect("digits and a dash");
    response.headers_mut().insert(REQUEST_ID, id);
}

/// Says what is refused, and counts it, once.
fn refuse(station: &Station, endpoint: &str, mut failure: Failure, id: &str) -> Response {
    let (status, reason) = (failure.status.as_u16(), failure.word);
    station.metrics.refused.with_label_values(&[reason]).inc();
    if status >= 500 {
        tracing::warn!(endpoint, status, reason, detail = %failure.detail, "request failed");
    } else {
        tracing::info!(endpoint, status, reason, detail = %failure.detail, "request refused");
    }
    failure.request = Some(id.to_owned());
    failure.into_response()
}

/// What is no call of the table.
fn unknown(station: &Station, failure: Failure) -> Response {
    let id = station.requests.name();
    let mut response = refuse(station, "unknown", failure, &id);
    name(&mut response, &id);
    response
}

/// No call without an identity that counts now and a scope that admits it (INV-AUTH-1, INV-LEAST-1).
fn admit(station: &Station, endpoint: Endpoint, head: Parts, body: Unread) -> Result<Call, Denied> {
    let peer = head.extensions.get::<Peer>().cloned().unwrap_or(Peer::Anonymous);
    let directory = station.registry.directory();
    let from = head.extensions.get::<Remote>();
    let from = from.map_or(IpAddr::from(Ipv4Addr::UNSPECIFIED), |Remote(from)| *from);
    let shown = head.headers.get(header::AUTHORIZATION);
    let caller = match (endpoint.access(), shown, people::cookie(&head.headers)) {
        (Access::Public, ..) => {
            expect_own_pages(&head, endpoint)?;
            Caller::Anonymous
        }
        (_, Some(word), _) => Caller::Person(Arc::new(by_token(station, word)?)),
        (_, None, Some(cookie)) => {
            let person = by_cookie(station, cookie)?;
            expect_own_pages(&head, endpoint)?;
            expect_own_origin(&head, endpoint)?;
            Caller::Person(Arc::new(person))
        }
        (_, None, None) => recognise(&peer, &directory, station.limits.key_grace, now())?,
    };
    authorise(endpoint.access(), &caller, &directory)?;
    Ok(Call { endpoint, peer, from, caller, directory, head, body })
}

fn by_token(station: &Station, word: &HeaderValue) -> Result<Principal, Denied> {
    if is_token(word, &station.token) {
        return Ok(Principal::site_token());
    }
    let word = word.to_str().ok().and_then(|word| word.split_once(' '));
    match word {
        Some((scheme, shown)) if scheme.eq_ignore_ascii_case("bearer") => {
            station.registry.people().by_token(shown.trim(), now())
        }
        _ => Err(Denied::BadToken),
    }
}

fn by_cookie(station: &Station, cookie: &str) -> Result<Principal, Denied> {
    let digest = trust::digest(cookie.as_bytes());
    station.registry.people().by_session(&digest, now(), station.limits.session_idle)
}

/// A browser says from where it was sent here (Fetch Metadata). Another site's page gets nothing by a user's cookie, nor signs
/// anybody in.
fn expect_own_pages(head: &Parts, endpoint: Endpoint) -> Result<(), Denied> {
    let is_of_people = endpoint == Endpoint::SignIn || endpoint.access() != Access::Public;
    let site = head.headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
    if is_of_people && site == Some("cross-site") {
        return Err(Denied::CrossSite { found: "`Sec-Fetch-Site: cross-site`".into() });
    }
    let origin = head.headers.get(header::ORIGIN);
    match (endpoint, origin) {
        (Endpoint::SignIn, Some(_)) => expect_own_origin(head, endpoint),
        _ => Ok(()),
    }
}

/// What changes something by a cookie comes from a page of this very host, and says so.
fn expect_own_origin(head: &Parts, endpoint: Endpoint) -> Result<(), Denied> {
    if endpoint.method() == Method::Get {
        return Ok(());
    }
    let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    let (origin, host) = (text(header::ORIGIN), text(header::HOST));
    let own = host.map(|host| format!("https://{host}"));
    match origin {
        Some(origin) if own.is_some_and(|own| own.eq_ignore_ascii_case(origin)) => Ok(()),
        Some(origin) => Err(Denied::CrossSite { found: format!("`Origin: {origin}`") }),
        None => Err(Denied::CrossSite { found: "no header `Origin`".into() }),
    }
}

/// Compares digests, in constant time: how long it takes says nothing about the token.
fn is_token(word: &HeaderValue, token: &model::Digest) -> bool {
    let Some((scheme, shown)) = word.to_str().ok().and_then(|word| word.split_once(' ')) else {
        return false;
    };
    let shown = trust::digest(shown.trim().as_bytes());
    scheme.eq_ignore_ascii_case("bearer") && bool::from(shown.as_bytes().ct_eq(token.as_bytes()))
}

fn time_max(station: &Station, endpoint: Endpoint) -> Duration {
    match endpoint {
        // Reports ask questions.
        Endpoint::Query | Endpoint::WeeklyReport | Endpoint::WeeklyReportPage => {
            station.limits.query_time_max
        }
        Endpoint::Bundle => gateway::WAIT_MAX + station.limits.request_time_max,
        _ => station.limits.request_time_max,
    }
}

/// Boxed: each kind of call has a future of its own size.
pub(crate) fn carry_out<'a>(
    station: &'a Arc<Station>,
    call: Call,
) -> Pin<Box<dyn Future<Output = Answer> + Send + 'a>> {
    match call.endpoint {
        Endpoint::CaCerts | Endpoint::SealCaCerts => Box::pin(est::ca_certs(station)),
        Endpoint::Enroll | Endpoint::Reenroll | Endpoint::SealEnroll | Endpoint::SealReenroll => {
            Box::pin(est::enroll(station, call))
        }
        Endpoint::Bundle => Box::pin(gateway::bundle(station, call)),
        Endpoint::Uplink => Box::pin(gateway::uplink(station, call)),
        Endpoint::Images => Box::pin(images::metadata(station, call)),
        Endpoint::Blob => Box::pin(images::blob(station, call)),
        Endpoint::Releases => Box::pin(images::releases(station, call)),
        Endpoint::RefreshReleases => Box::pin(images::refresh(station, call)),
        Endpoint::CheckIn => Box::pin(rollouts::check_in(station, call)),
        Endpoint::Software => Box::pin(rollouts::software(station, call)),
        Endpoint::Rollouts => Box::pin(rollouts::list(station, call)),
        Endpoint::NewRollout => Box::pin(rollouts::create(station, call)),
        Endpoint::Rollout => Box::pin(rollouts::one(station, call)),
        Endpoint::RolloutStart
        | Endpoint::RolloutPause
        | Endpoint::RolloutResume
        | Endpoint::RolloutHalt
        | Endpoint::RolloutRevert
        | Endpoint::RolloutAbort => Box::pin(rollouts::command(station, call)),
        Endpoint::RolloutSignals => Box::pin(rollouts::signals(station, call)),
        Endpoint::RolloutDevices => Box::pin(rollouts::devices(station, call)),
        Endpoint::Me => Box::pin(async move { people::me(station, &call) }),
        Endpoint::SignIn => Box::pin(people::sign_in(station, call)),
        Endpoint::SignOut => Box::pin(people::sign_out(station, call)),
        Endpoint::Users => Box::pin(people::users(station, call)),
        Endpoint::NewUser => Box::pin(people::create_user(station, call)),
        Endpoint::UserGrants => Box::pin(people::grant(station, call)),
        Endpoint::UserPassword => Box::pin(people::set_password(station, call)),
        Endpoint::UserDisable => Box::pin(people::disable_user(station, call)),
        Endpoint::UserEnable => Box::pin(people::enable_user(station, call)),
        Endpoint::UserSessionsEnd => Box::pin(people::end_sessions(station, call)),
        Endpoint::Tokens => Box::pin(people::tokens(station, call)),
        Endpoint::NewToken => Box::pin(people::create_token(station, call)),
        Endpoint::TokenRevoke => Box::pin(people::revoke_token(station, call)),
        Endpoint::Sites => Box::pin(people::sites(station, call)),
        Endpoint::NewSite => Box::pin(people::assign_site(station, call)),
        Endpoint::Query => Box::pin(query::query(station, call)),
        Endpoint::Devices => Box::pin(fleet::devices(station, call)),
        Endpoint::Revoke | Endpoint::Quarantine | Endpoint::Release | Endpoint::Decommission => {
            Box::pin(fleet::set_standing(station, call))
        }
        Endpoint::DeviceReenrol => Box::pin(fleet::take_keys(station, call)),
        Endpoint::Ownership => Box::pin(fleet::list(station, call)),
        Endpoint::DeviceGroup => Box::pin(fleet::set_group(station, call)),
        Endpoint::Inventory => Box::pin(inventory::list(station, call)),
        Endpoint::InventorySummary => Box::pin(inventory::summary(station, call)),
        Endpoint::Device => Box::pin(inventory::one(station, call)),
        Endpoint::Forensics => Box::pin(inventory::forensics(station, call)),
        Endpoint::History => Box::pin(inventory::history(station, call)),
        Endpoint::Events => Box::pin(audit::events(station, call)),
        Endpoint::EvidenceCheckpoint => Box::pin(audit::checkpoint(station, call)),
        Endpoint::EvidenceTile => Box::pin(audit::tile(station, call)),
        Endpoint::EvidenceExport => Box::pin(audit::export(station, call)),
        Endpoint::TwoPeople => Box::pin(async move { approvals::two_people(station, &call) }),
        Endpoint::TwoPeoplePut => Box::pin(approvals::set_two_people(station, call)),
        Endpoint::Approvals => Box::pin(approvals::list(station, call)),
        Endpoint::Approval => Box::pin(approvals::one(station, call)),
        Endpoint::Approve => Box::pin(approvals::approve(station, call)),
        Endpoint::RefuseApproval => Box::pin(approvals::refuse(station, call)),
        Endpoint::Alerts => Box::pin(alerts::list(station, call)),
        Endpoint::AlertAcknowledge => Box::pin(alerts::acknowledge(station, call)),
        Endpoint::Silences => Box::pin(alerts::silences(station, call)),
        Endpoint::NewSilence => Box::pin(alerts::silence(station, call)),
        Endpoint::SilenceEnd => Box::pin(alerts::end_silence(station, call)),
        Endpoint::AlertRules => Box::pin(alerts::rules(station, call)),
        Endpoint::AlertRulePut => Box::pin(alerts::put_rule(station, call)),
        Endpoint::AlertTargets => Box::pin(alerts::targets(station, call)),
        Endpoint::AlertTargetPut => Box::pin(alerts::put_target(station, call)),
        Endpoint::AlertTargetDelete => Box::pin(alerts::delete_target(station, call)),
        Endpoint::AlertTargetTest => Box::pin(alerts::test_target(station, call)),
        Endpoint::WeeklyReport => Box::pin(alerts::weekly(station, call)),
        Endpoint::WeeklyReportPage => Box::pin(alerts::weekly_page(station, call)),
        Endpoint::AlertRuleDelete => Box::pin(alerts::delete_rule(station, call)),
        Endpoint::Console | Endpoint::ConsolePage | Endpoint::ConsoleFile => {
            Box::pin(async move { console::console(&call) })
        }
        Endpoint::Stream => Box::pin(stream::listen(station, call)),
        Endpoint::OpenApi => Box::pin(async { Ok(text("application/json", openapi::document())) }),
        Endpoint::Metrics => Box::pin(fleet::metrics(station, call)),
        Endpoint::Health => Box::pin(async { health(station) }),
    }
}

fn health(station: &Station) -> Answer {
    match station.fatal() {
        None => Ok(text("text/plain", "serves\n")),
        Some(fatal) => Err(Failure::internal(&fatal)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Config, Control, Limits};
    use api::user::Grant;
    use api::{Ask, Query, QueryError, UserRole, Within};
    use axum::body::Body;
    use bus::{LogConfig, Shards};
    use disk::RealDisk;
    use keys::UnixTime;
    use keys::ca::Authority;
    use model::envelope::Algorithm;
    use model::{DeviceId, Digest};
    use std::net::SocketAddr;
    use tempfile::TempDir;
    use trust::cose::Signer as _;

    struct NoStore;

    impl Query for NoStore {
        fn query(
            &self,
            _: Ask,
            _: Option<Arc<Within>>,
        ) -> Pin<Box<dyn Future<Output = Result<api::Answer, QueryError>> + Send + '_>> {
            Box::pin(async { Err(QueryError::Failed("there is no store".into())) })
        }
    }

    async fn control(dir: &TempDir) -> Control {
        control_with(dir, Arc::new(NoStore), vec![]).await
    }

    const DAY: Duration = Duration::from_secs(86_400);

    /// A control plane over a directory, with another store and the figures of other stations.
    pub(crate) async fn control_with(
        dir: &TempDir,
        query: Arc<dyn Query>,
        registries: Vec<prometheus::Registry>,
    ) -> Control {
        // Tests here look at rules by hand, at times of their own.
        let limits = Limits { alerts_every: DAY, ..Limits::default() };
        let at = |name: &str| dir.path().join(name);
        let (key, cert) = (at("ca.key"), at("ca.pem"));
        let authority =
            Authority::load_or_create(&RealDisk, &key, &cert, "site CA", UnixTime::now()).unwrap();
        let bus = LogConfig { segment_bytes: 4096, bytes_max: 1 << 20, record_bytes_max: 4000 };
        let shards = Shards::open(Arc::new(RealDisk), &at("bus"), 1, bus, 8).unwrap();
        let config = Config {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            site: "site".into(),
            registry: at("registry.sqlite"),
            makers: vec![authority.certificate_der().to_vec()],
            authority: Arc::new(authority),
            key: keys::file::draw(Algorithm::Esp256).unwrap(),
            certificate: at("control.pem"),
            token: "0123456789abcdef0123456789abcdef".into(),
            policies: policy::DEFAULT_POLICIES.into(),
            bus_key: trust::mac::MacKey::new([7; 32]),
            director: director(),
            images: None,
            evidence: crate::config::Evidence {
                disk: Arc::new(RealDisk),
                dir: at("evidence"),
                // The same after a restart: the log goes on under it.
                key: trust::cose::SecretKey::from_random(Algorithm::Ed25519, &[9; 32]).unwrap(),
            },
            traces: Default::default(),
            limits,
        };
        Control::start(config, query, shards.writers().to_vec(), registries).await.unwrap()
    }

    fn director() -> crate::DirectorConfig {
        let draw = || keys::file::draw(Algorithm::Ed25519).unwrap();
        let (offline, key) = ([draw(), draw()], draw());
        let root = crate::director::first_root(&offline, key.public(), crate::station::now());
        crate::DirectorConfig { roots: vec![root.unwrap()], key }
    }

    fn callers() -> Vec<Caller> {
        let id = || DeviceId::new("pump-1").unwrap();
        let mut callers = vec![
            Caller::Anonymous,
            Caller::IDevId { serial: "PUMP-1".into(), spki_sha256: Digest([1; 32]) },
            Caller::Device(id()),
            Caller::Gateway(id()),
        ];
        for role in UserRole::ALL {
            for site in [None, Some("north".to_owned())] {
                let grants = vec![Grant { role: *role, site }];
                let person = Principal { grants, ..Principal::site_token() };
                callers.push(Caller::Person(Arc::new(person)));
            }
        }
        callers
    }

    /// INV-LEAST-1: as if the table of endpoints had let everybody in.
    #[tokio::test]
    async fn whoever_gets_past_the_table_of_scopes_is_refused_by_the_work_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let control = control(&dir).await;
        let station = control.station();
        let violations = station.metrics.violations.with_label_values(&["INV-LEAST-1"]);
        let mut refused = 0;
        for endpoint in Endpoint::ALL.iter().copied() {
            for caller in callers().into_iter().filter(|caller| !endpoint.access().admits(caller)) {
                let request = Request::builder()
                    .uri(endpoint.path().replace("{id}", "pump-1"))
                    .header(header::CONTENT_TYPE, "application/cose")
                    .header(header::CONTENT_ENCODING, "zstd");
                let call = Call {
                    endpoint,
                    peer: Peer::Anonymous,
                    from: Ipv4Addr::LOCALHOST.into(),
                    caller: caller.clone(),
                    directory: station.registry.directory(),
                    head: request.body(()).unwrap().into_parts().0,
                    body: Unread::new(Body::empty()),
                };
                let answer = carry_out(station, call).await;
                let failure = answer.expect_err("this work is not for this caller");
                assert_eq!(failure.word, "out_of_scope", "{endpoint:?} by {caller:?}");
                refused += 1;
                assert_eq!(violations.get(), refused, "{endpoint:?} by {caller:?}");
            }
        }
        println!("{refused} pairs of endpoint and caller");
        assert!(refused > 40);
    }

    /// INV-LEAST-1: a device of a site that one does not reach is no device to one, and a token's groups bound its rollouts.
    #[tokio::test]
    async fn who_reaches_another_site_or_another_group_is_told_of_nothing_here() {
        let dir = tempfile::tempdir().unwrap();
        let control = control(&dir).await;
        let station = control.station();
        let entry: api::Ownership = serde_json::from_value(
            serde_json::json!({ "serial": "pump-1", "role": "device", "zone": "hall" }),
        )
        .unwrap();
        control.list(&entry).await.unwrap();
        let at = |site: Option<&str>| {
            let site = site.map(str::to_owned);
            let grants = UserRole::ALL.iter().map(|role| Grant { role: *role, site: site.clone() });
            Principal { grants: grants.collect(), ..Principal::site_token() }
        };
        let ask = async |endpoint: Endpoint, person: Principal, body: &'static str| {
            let uri = endpoint.path().replace("{id}", "pump-1");
            let head = Request::builder().uri(uri).header(header::CONTENT_TYPE, "application/json");
            let call = Call {
                endpoint,
                peer: Peer::Anonymous,
                from: Ipv4Addr::LOCALHOST.into(),
                caller: Caller::Person(Arc::new(person)),
                directory: station.registry.directory(),
                head: head.body(()).unwrap().into_parts().0,
                body: Unread::new(Body::from(body)),
            };
            carry_out(station, call).await
        };
        for (site, total) in [(None, 1), (Some("site"), 1), (Some("north"), 0)] {
            let found = ask(Endpoint::Inventory, at(site), "").await.unwrap();
            let found = axum::body::to_bytes(found.into_body(), usize::MAX).await.unwrap();
            let found: api::device::Inventory = serde_json::from_slice(&found).unwrap();
            assert_eq!(found.total, total, "{site:?}");
        }
        let north = crate::principal::Reach::Sites(["north".to_owned()].into());
        let refused = inventory::device_within(station, &north, "pump-1".into()).unwrap_err();
        assert_eq!(refused.word, "unknown_device");
        let everywhere = crate::principal::Reach::Everywhere;
        assert!(inventory::device_within(station, &everywhere, "pump-1".into()).is_ok());
        let mut ci = at(None);
        let scopes = api::Scope::ALL.iter().copied().collect();
        let groups = Some(["development".to_owned()].into());
        ci.bounds = Some(crate::principal::Bounds { scopes, sites: None, groups });
        let order =
            r#"{"product": "p", "version": "1.0.0", "cohort": {"groups": ["pilot"]}, "waves": []}"#;
        let refused = ask(Endpoint::NewRollout, ci.clone(), order).await.unwrap_err();
        assert_eq!(refused.word, "beyond_groups");
        // A gate's SQL sees every site: whoever may not ask it does not ask it by a rollout.
        let gated = r#"{"product": "p", "version": "1.0.0", "waves": [],
            "signals": [{"name": "n", "sql": "select 1", "at_most": 1}]}"#;
        let refused = ask(Endpoint::NewRollout, at(Some("site")), gated).await.unwrap_err();
        assert_eq!(refused.word, "out_of_scope");
        assert_ne!(
            ask(Endpoint::NewRollout, at(None), gated).await.unwrap_err().word,
            "out_of_scope"
        );
        let order = r#"{"product": "p", "version": "1.0.0", "cohort": {"groups": ["development"]}, "waves": []}"#;
        let refused = ask(Endpoint::NewRollout, ci, order).await.unwrap_err();
        assert_eq!(refused.word, "no_repository", "it got past its bounds");
    }
}
