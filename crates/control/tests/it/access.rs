//! Who may call what.

use crate::world::{Certified, Got, World, day, gateway_profile, secret};
use api::{Role, path};
use control::caller::Caller;
use control::endpoint::{Access, Endpoint, Method};
use control::principal::Principal;
use keys::NotAfter;
use keys::ca::Profile;
use model::envelope::Algorithm;
use model::{DeviceId, Digest};
use reqwest::StatusCode;

fn request(world: &World, own: Option<&Certified>, endpoint: Endpoint) -> reqwest::RequestBuilder {
    let method = match endpoint.method() {
        Method::Get => reqwest::Method::GET,
        Method::Post => reqwest::Method::POST,
        Method::Delete => reqwest::Method::DELETE,
    };
    world.call(
        own,
        method,
        &endpoint
            .path()
            .replace("{id}", "nobody")
            .replace("{name}", "timestamp.json")
            .replace("{digest}", &"0".repeat(64)),
    )
}

/// INV-LEAST-1: every endpoint against every caller, through the listener.
#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_refuses_every_caller_that_its_scope_does_not_admit() {
    let world = World::new().await;
    let born = world.born("pump-9");
    let (device, gateway) = (world.device("pump-1").await, world.gateway("gw-1").await);
    let id = |id: &str| DeviceId::new(id).unwrap();
    let idevid = Caller::IDevId { serial: "PUMP-9".into(), spki_sha256: Digest([0; 32]) };
    let callers = [
        (None, None, Caller::Anonymous),
        (Some(&born), None, idevid),
        (Some(&device.tls), None, Caller::Device(id("pump-1"))),
        (Some(&gateway.tls), None, Caller::Gateway(id("gw-1"))),
        (None, Some(crate::world::TOKEN), Caller::Person(Principal::site_token().into())),
    ];
    let mut refusals = 0;
    for endpoint in Endpoint::ALL.iter().copied() {
        for (own, token, caller) in &callers {
            let mut request = request(&world, *own, endpoint);
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let got = Got::of(request).await;
            let what = format!("{endpoint:?} by {caller:?}: {got:?}");
            if endpoint.access().admits(caller) {
                if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&got.status) {
                    // The work has its own reasons, which are not the table's.
                    let (_, word) = got.refusal();
                    assert!(!["unauthenticated", "out_of_scope"].contains(&&*word), "{what}");
                }
                continue;
            }
            let expected = match caller {
                Caller::Anonymous => (401, "unauthenticated".to_owned()),
                _ => (403, "out_of_scope".to_owned()),
            };
            assert_eq!(got.refusal(), expected, "{what}");
            refusals += 1;
        }
    }
    let counted = world.refused("unauthenticated") + world.refused("out_of_scope");
    assert_eq!(counted, refusals);
    println!("{refusals} refusals of {} calls", Endpoint::ALL.len() * callers.len());
}

/// INV-LEAST-1: the whole table of machines, written out once more by hand. What people may is `docs/users.md`'s table.
#[test]
fn each_machine_may_call_what_it_is_for_and_nothing_else() {
    for endpoint in Endpoint::ALL.iter().copied() {
        let expected = match endpoint {
            Endpoint::CaCerts | Endpoint::SealCaCerts | Endpoint::OpenApi | Endpoint::Health => {
                Access::Public
            }
            Endpoint::Console | Endpoint::ConsolePage | Endpoint::ConsoleFile => Access::Public,
            // Nobody has proven anything before he signs in.
            Endpoint::SignIn => Access::Public,
            Endpoint::Enroll | Endpoint::Reenroll => Access::Enrol,
            Endpoint::SealEnroll | Endpoint::SealReenroll => Access::Enrol,
            Endpoint::Bundle | Endpoint::Uplink | Endpoint::CheckIn => Access::Gateway,
            Endpoint::Images | Endpoint::Blob => Access::Gateway,
            other => {
                let access = other.access();
                let people =
                    matches!(access, Access::SignedIn | Access::Within(_) | Access::Whole(_));
                assert!(people, "{other:?}");
                access
            }
        };
        assert_eq!(endpoint.access(), expected, "{endpoint:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_sites_token_makes_an_operator() {
    let world = World::new().await;
    let ask = || world.call(None, reqwest::Method::GET, path::DEVICES);
    let right = crate::world::TOKEN;
    assert_eq!(Got::of(ask().bearer_auth(right)).await.status, 200);
    let lower = format!("bearer {right}");
    assert_eq!(Got::of(ask().header("authorization", lower)).await.status, 200);
    let wrong = [
        format!("Bearer {}", right.replace('0', "1")),
        format!("Bearer {right}0"),
        format!("Bearer {}", &right[1..]),
        format!("Basic {right}"),
        right.to_owned(),
        "Bearer ".to_owned(),
        String::new(),
    ];
    for word in &wrong {
        let got = Got::of(ask().header("authorization", word)).await;
        assert_eq!(got.refusal(), (401, "bad_token".into()), "{word:?}");
        assert_eq!(got.header("www-authenticate"), "Bearer realm=\"plimsoll\"");
    }
    assert_eq!(world.refused("bad_token"), wrong.len() as u64);
    // A gateway does not become an operator by guessing, nor stay a gateway while it guesses.
    let gateway = world.gateway("gw-1").await;
    let guess = world.call(Some(&gateway.tls), reqwest::Method::GET, path::GATEWAY_BUNDLE);
    let got = Got::of(guess.bearer_auth("guess")).await;
    assert_eq!(got.refusal(), (401, "bad_token".into()));
}

/// INV-AUTH-1: from a gateway that gets its bundle, each single change is refused with its reason.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_counts_only_as_the_registry_has_it() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    world.enrolled("gw-2", Role::Gateway, "hall").await;
    world.device("pump-1").await;
    let bundle = |own: &Certified| {
        Got::of(world.call(Some(own), reqwest::Method::GET, path::GATEWAY_BUNDLE))
    };
    assert_eq!(bundle(&gateway.tls).await.status, 200);

    let by = |by, profile: &Profile| {
        Certified::by(by, secret(Algorithm::Esp256), profile, NotAfter::At(day(1)))
    };
    let refused = [
        (
            "a maker's gateway",
            by(&world.maker, &gateway_profile("gw-1")),
            "unrecognised_certificate",
        ),
        ("a key that is not its own", by(&world.site, &gateway_profile("gw-1")), "not_its_key"),
        (
            "a gateway that nobody listed",
            by(&world.site, &gateway_profile("gw-7")),
            "unknown_caller",
        ),
        ("a device as a gateway", by(&world.site, &gateway_profile("pump-1")), "other_role"),
        (
            "a gateway of another site",
            by(
                &world.site,
                &Profile::GatewayTls {
                    gateway: model::GatewayId::new("gw-1").unwrap(),
                    site: "other".into(),
                },
            ),
            "unrecognised_certificate",
        ),
    ];
    for (what, own, reason) in &refused {
        let before = world.refused(reason);
        assert_eq!(bundle(own).await.refusal(), (403, reason.to_string()), "{what}");
        assert_eq!(world.refused(reason), before + 1, "{what}");
    }

    assert_eq!(world.tell(&gateway.id, "quarantine").await.status, 200);
    assert_eq!(bundle(&gateway.tls).await.refusal(), (403, "quarantined".into()));
    assert_eq!(world.tell(&gateway.id, "release").await.status, 200);
    assert_eq!(bundle(&gateway.tls).await.status, 200);
    // On a connection that was open before, and on a new one.
    let open = world.http(Some(&gateway.tls));
    let ask = || open.get(format!("{}{}", world.base(), path::GATEWAY_BUNDLE));
    assert_eq!(Got::of(ask()).await.status, 200);
    assert_eq!(world.tell(&gateway.id, "revoke").await.status, 200);
    assert_eq!(Got::of(ask()).await.refusal(), (403, "revoked".into()));
    assert_eq!(bundle(&gateway.tls).await.refusal(), (403, "revoked".into()));
    let other = DeviceId::new("gw-2").unwrap();
    let standing = world.control.registry().directory().device(&other).unwrap().standing;
    assert_eq!(standing, api::Standing::Enrolled, "nobody else is touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_a_problem_too() {
    let world = World::new().await;
    let got = Got::of(world.operator(reqwest::Method::GET, "/v2/devices")).await;
    assert_eq!(got.refusal(), (404, "not_found".into()));
    assert!(got.problem().detail.contains("\"/v2/devices\""));
    let got = Got::of(world.operator(reqwest::Method::DELETE, path::DEVICES)).await;
    assert_eq!(got.refusal(), (405, "method_not_allowed".into()));
    assert_eq!(got.header("allow"), "GET,HEAD");
    assert_eq!((world.refused("not_found"), world.refused("method_not_allowed")), (1, 1));
    let health = Got::of(world.call(None, reqwest::Method::GET, path::HEALTH)).await;
    assert_eq!((health.status.as_u16(), health.body.as_slice()), (200, &b"serves\n"[..]));
}
