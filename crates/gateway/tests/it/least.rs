//! INV-LEAST-1: every topic of MQTT against every caller, by the tables that stand in `docs/users.md`.

use crate::client::{Client, connect, packet, publish, text, tls};
use crate::docs_table::table;
use crate::site::{Device, SITE, authority, eventually, issue, plant, secret, stopped};
use api::Standing;
use disk::SimDisk;
use gateway::Gateway;
use gateway::refusal::Refusal;
use keys::ca::Profile;
use model::GatewayId;
use model::envelope::Algorithm;
use rustls::ClientConfig;
use std::collections::BTreeMap;
use std::sync::Arc;

/// As `POST /v1/tokens` gives them.
const TOKEN: &str = "plm_a1_0123456789abcdef0123456789abcdef";

#[derive(Clone, Copy, Debug)]
enum Act {
    Publish,
    Subscribe,
}

impl Act {
    fn packet(self, topic: &str, payload: &[u8]) -> Vec<u8> {
        match self {
            Self::Publish => publish(topic, 1, payload),
            Self::Subscribe => {
                let mut body = vec![0, 1, 0];
                text(&mut body, topic);
                body.push(1);
                packet(0x82, &body)
            }
        }
    }

    /// The first byte of its answer.
    fn answer(self) -> u8 {
        match self {
            Self::Publish => 0x40,
            Self::Subscribe => 0x90,
        }
    }
}

/// A CONNECT with a user's name and a password.
fn connect_with_password(client_id: &str, password: &str) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x05\xc2\0\x3c\0".to_vec();
    for word in [client_id, "anna", password] {
        text(&mut body, word);
    }
    packet(0x10, &body)
}

/// How often each reason was counted.
fn counts(gateway: &Gateway) -> BTreeMap<&'static str, u64> {
    let count = |refusal: &Refusal| (refusal.as_str(), gateway.metrics().refused(*refusal));
    Refusal::ALL.iter().map(count).collect()
}

/// What was counted since `before`, which is one refusal.
async fn refused_since(gateway: &Gateway, before: &BTreeMap<&'static str, u64>) -> Refusal {
    eventually("a refusal is counted", || counts(gateway) != *before).await;
    let after = counts(gateway);
    let more = Refusal::ALL.iter().filter(|refusal| {
        let word = refusal.as_str();
        after[word] > before[word]
    });
    let more: Vec<Refusal> = more.copied().collect();
    assert_eq!(more.len(), 1, "{more:?}");
    more[0]
}

/// All that comes until the gateway ends the connection, or `enough` has come.
async fn packets(client: &mut Client, enough: usize) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    while packets.len() < enough
        && let Some(packet) = client.next().await
    {
        packets.push(packet);
    }
    packets
}

/// Who comes: what it shows in TLS, and its CONNECT.
struct Caller {
    tls: Arc<ClientConfig>,
    connect: Vec<u8>,
}

/// Every device but `pump-1` and `pump-2` has no session, for the reason of its row; and without one nothing is heard of it.
#[tokio::test(flavor = "multi_thread")]
async fn every_mqtt_topic_against_every_caller_and_none() {
    let (site, pump, gateway) = plant(&SimDisk::new(1)).await;
    let (at, ca) = (gateway.local_addr(), site.ca.certificate_der().to_vec());
    let neighbour = site.device("pump-2");
    let mut entries = vec![pump.entry(), neighbour.entry()];
    let mut bundled = |id: &str, standing: Standing, zone: &str| {
        let device = site.device(id);
        let mut entry = device.entry();
        (entry.standing, entry.zone) = (standing, zone.into());
        entries.push(entry);
        device
    };
    let yard = bundled("pump-3", Standing::Enrolled, "yard");
    let listed = bundled("pump-4", Standing::Listed, "hall");
    let quarantined = bundled("pump-5", Standing::Quarantined, "hall");
    let revoked = bundled("pump-6", Standing::Revoked, "hall");
    let decommissioned = bundled("pump-7", Standing::Decommissioned, "hall");
    let (stranger, rekeyed) = (site.device("pump-8"), site.device("pump-1"));
    site.knows(&gateway, entries).await;

    let certified = |by: &keys::ca::Authority, profile: &Profile, until_days| {
        let key = secret(Algorithm::Esp256);
        (vec![issue(by, &key, profile, until_days)], key)
    };
    let a_device = |of: &str| Profile::DeviceTls { device: pump.id.clone(), site: of.to_owned() };
    let shown =
        |(chain, key): (Vec<Vec<u8>>, trust::cose::SecretKey)| tls(Some((&chain, &key)), &ca);
    let own =
        |device: &Device| Caller { tls: device.shown(), connect: connect(device.id.as_str()) };
    let as_pump = |tls| Caller { tls, connect: connect("pump-1") };
    let gateway_tls =
        Profile::GatewayTls { gateway: GatewayId::new("gw-2").unwrap(), site: SITE.into() };
    let born = Profile::IDevId { serial: "pump-1".into() };
    let seal = Profile::Seal { name: pump.id.clone(), site: SITE.into() };
    let mut callers = BTreeMap::from([
        ("one of another zone", own(&yard)),
        ("one that the bundle does not name", own(&stranger)),
        ("one that is listed and not enrolled", own(&listed)),
        ("one in quarantine", own(&quarantined)),
        ("one that is revoked", own(&revoked)),
        ("one that is decommissioned", own(&decommissioned)),
        ("one with a key that is not its own any more", own(&rekeyed)),
        ("one under another's name", Caller { tls: neighbour.shown(), connect: connect("pump-1") }),
        ("another site's device", as_pump(shown(certified(&site.ca, &a_device("other"), 30)))),
        (
            "a gateway",
            Caller { tls: shown(certified(&site.ca, &gateway_tls, 30)), connect: connect("gw-2") },
        ),
        ("a birth certificate", as_pump(shown(certified(&site.maker, &born, 30)))),
        ("a certificate that seals", as_pump(shown(certified(&site.ca, &seal, 30)))),
        (
            "another authority's certificate",
            as_pump(shown(certified(&authority("site"), &a_device(SITE), 30))),
        ),
        ("a certificate that has ended", as_pump(shown(certified(&site.ca, &a_device(SITE), -10)))),
        ("no certificate", as_pump(tls(None, &ca))),
        (
            "no certificate, but a user's name and token",
            Caller { tls: tls(None, &ca), connect: connect_with_password("pump-1", TOKEN) },
        ),
    ]);
    // A name and a password beside a device's certificate are read over.
    let with_password =
        Caller { tls: neighbour.shown(), connect: connect_with_password("pump-2", TOKEN) };

    let topics = table("MQTT");
    let mut stored = 0;
    let (mut wrong, mut tries) = (Vec::new(), 0);
    for row in &topics {
        let topic = row[0].replace("{id}", "pump-1");
        for (who, caller, columns) in [
            ("itself", &own(&pump), [1, 2]),
            ("another of its zone", &own(&neighbour), [3, 4]),
            ("another with a user's token", &with_password, [3, 4]),
        ] {
            for (act, column) in [Act::Publish, Act::Subscribe].into_iter().zip(columns) {
                tries += 1;
                let before = counts(&gateway);
                let mut client = Client::dial(at, caller.tls.clone()).await.unwrap();
                let connack = client.ask(&caller.connect).await.expect("CONNACK");
                assert_eq!((connack[0], connack[3]), (0x20, 0), "{who}");
                let message = pump.message(1, stored, None);
                let answer = client.ask(&act.packet(&topic, &message)).await.unwrap();
                let code = match answer[0] {
                    // DISCONNECT, and then the end.
                    0xe0 => answer[2],
                    // Without a code: success.
                    0x40 => answer.get(4).copied().unwrap_or(0),
                    _ => *answer.last().unwrap(),
                };
                let is_refused = code >= 0x80;
                let found = match is_refused {
                    true => {
                        let refusal = refused_since(&gateway, &before).await;
                        assert_eq!(refusal.code(), code, "{refusal}");
                        refusal.as_str()
                    }
                    false => "yes",
                };
                if matches!(act, Act::Publish) && !is_refused {
                    stored += 1;
                }
                if found != row[column] {
                    wrong.push(format!("{act:?} {topic} by {who}: {}, found {found}", row[column]));
                }
            }
        }
    }
    for row in table("Who has a session") {
        let (who, expected) = (row[0], row[1]);
        if expected == "yes" {
            continue;
        }
        let caller = callers.remove(who).unwrap_or_else(|| panic!("no test comes as `{who}`"));
        for topic in &topics {
            let topic = topic[0].replace("{id}", "pump-1");
            for act in [Act::Publish, Act::Subscribe] {
                tries += 1;
                let before = counts(&gateway);
                let mut heard = Vec::new();
                // In TLS 1.3 a client may believe in a session until it reads.
                if let Ok(mut client) = Client::dial(at, caller.tls.clone()).await {
                    let message = pump.message(1, stored, None);
                    let all = [caller.connect.clone(), act.packet(&topic, &message)].concat();
                    heard.extend(client.ask(&all).await);
                    heard.extend(packets(&mut client, usize::MAX).await);
                }
                let refusal = refused_since(&gateway, &before).await;
                let is_silent = heard.iter().all(|packet| packet[0] != act.answer());
                let told: Vec<u8> = heard.iter().filter(|p| p[0] == 0x20).map(|p| p[3]).collect();
                let is_told = told.iter().all(|code| *code == refusal.code() && *code >= 0x80);
                if refusal.as_str() != expected || !is_silent || !is_told {
                    wrong.push(format!(
                        "{act:?} {topic} by {who}: {expected}, found {refusal:?}, {heard:02x?}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let left: Vec<_> = callers.keys().collect();
    assert!(left.is_empty(), "docs/users.md, \"Who has a session\": add a row for {left:?}");
    // Control hears of what was permitted, and of nothing else.
    let taken = site.has_taken(stored as usize).await;
    assert!(taken.iter().all(|taken| taken.device == "pump-1"));
    stopped(gateway).await;
    assert_eq!(site.taken().len() as u64, stored);
    println!("{tries} tries, {stored} of them stored, as documented");
}
