use super::*;
use crate::NotAfter;
use crate::ca::tests::{authority_from, issue};
use crate::ca::{Authority, Profile};
use model::{DeviceId, GatewayId};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConnection, DigitallySignedStruct, DistinguishedName, Error,
    HandshakeKind, ServerConnection, SignatureScheme,
};
use rustls_pki_types::ServerName;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const GATEWAY: &str = "gw-1.gateway.site.internal";
const DAY_S: u64 = 86_400;

/// rustls reads the machine's clock, so these certificates are made around it.
fn now() -> UnixTime {
    UnixTime::now()
}

fn days(from_now: i64) -> UnixTime {
    let seconds = now().as_secs().checked_add_signed(from_now * DAY_S as i64).unwrap();
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

struct World {
    site: Authority,
    maker: Authority,
}

type Own = (SecretKey, Vec<u8>);

impl World {
    fn new() -> Self {
        Self { site: authority_from("site", days(-30)), maker: authority_from("maker", days(-30)) }
    }

    fn site_anchor(&self) -> Vec<Vec<u8>> {
        vec![self.site.certificate_der().to_vec()]
    }

    fn gateway(&self) -> Own {
        let profile =
            Profile::GatewayTls { gateway: GatewayId::new("gw-1").unwrap(), site: "site".into() };
        issue(&self.site, &profile, days(-1), NotAfter::At(days(9)))
    }

    fn device_between(&self, from: i64, to: i64) -> Own {
        let profile =
            Profile::DeviceTls { device: DeviceId::new("pump-1").unwrap(), site: "site".into() };
        issue(&self.site, &profile, days(from), NotAfter::At(days(to)))
    }

    fn device(&self) -> Own {
        self.device_between(-1, 9)
    }

    fn seal(&self) -> Own {
        let profile = Profile::Seal { name: DeviceId::new("pump-1").unwrap(), site: "site".into() };
        issue(&self.site, &profile, days(-1), NotAfter::At(days(9)))
    }

    fn idevid(&self) -> Own {
        let profile = Profile::IDevId { serial: "PUMP-1".into() };
        issue(&self.maker, &profile, days(-1), NotAfter::Never)
    }

    fn server(&self, own: &Own, auth: ClientAuth) -> Arc<ServerConfig> {
        server(std::slice::from_ref(&own.1), &own.0, &self.site_anchor(), auth, Alpn::None).unwrap()
    }

    fn client(&self, own: Option<&Own>) -> Arc<ClientConfig> {
        let own = own.map(|(key, der)| (std::slice::from_ref(der), key));
        client(own, &self.site_anchor(), Alpn::None).unwrap()
    }
}

/// What each end says of the other after a handshake in memory and a byte each way.
#[derive(Debug)]
struct Outcome {
    client: Result<(), Error>,
    server: Result<(), Error>,
    resumed: bool,
    peer: Option<Vec<u8>>,
}

fn meet(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, name: &str) -> Outcome {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(client.clone(), name).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    let mut outcome = Outcome { client: Ok(()), server: Ok(()), resumed: false, peer: None };
    for _ in 0..8 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut bytes = &bytes[..];
        while !bytes.is_empty() && outcome.server.is_ok() {
            server.read_tls(&mut bytes).unwrap();
            outcome.server = server.process_new_packets().map(|_| ());
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut bytes = &bytes[..];
        while !bytes.is_empty() && outcome.client.is_ok() {
            client.read_tls(&mut bytes).unwrap();
            outcome.client = client.process_new_packets().map(|_| ());
        }
    }
    let half_open = Err(Error::HandshakeNotComplete);
    if client.is_handshaking() && outcome.client.is_ok() {
        outcome.client = half_open.clone();
    }
    if server.is_handshaking() && outcome.server.is_ok() {
        outcome.server = half_open;
    }
    let kinds = [client.handshake_kind(), server.handshake_kind()];
    outcome.resumed = kinds.contains(&Some(HandshakeKind::Resumed));
    outcome.peer = server.peer_certificates().map(|chain| chain[0].to_vec());
    outcome
}

fn refused_by_server(outcome: &Outcome, error: Error) {
    assert_eq!(outcome.server, Err(error), "{outcome:?}");
}

fn bad_certificate(error: CertificateError) -> Error {
    Error::InvalidCertificate(error)
}

#[test]
fn two_stations_of_a_site_meet_and_the_server_learns_who_came() {
    let world = World::new();
    let (gateway, device) = (world.gateway(), world.device());
    for auth in [ClientAuth::Required, ClientAuth::Optional] {
        let met = meet(&world.client(Some(&device)), &world.server(&gateway, auth), GATEWAY);
        assert_eq!((&met.client, &met.server), (&Ok(()), &Ok(())));
        assert_eq!(met.peer.as_ref(), Some(&device.1));
    }
}

#[test]
fn a_client_without_a_certificate_is_refused_where_one_is_required() {
    let world = World::new();
    let gateway = world.gateway();
    let bare = world.client(None);
    let met = meet(&bare, &world.server(&gateway, ClientAuth::Required), GATEWAY);
    refused_by_server(&met, Error::NoCertificatesPresented);
    let met = meet(&bare, &world.server(&gateway, ClientAuth::Optional), GATEWAY);
    assert_eq!((&met.client, &met.server, &met.peer), (&Ok(()), &Ok(()), &None));
}

#[test]
fn a_certificate_of_another_authority_is_refused_even_where_none_is_required() {
    let (world, other) = (World::new(), World::new());
    let gateway = world.gateway();
    // The same name, another key: the chain ends in a signature that does not verify.
    for auth in [ClientAuth::Required, ClientAuth::Optional] {
        let met =
            meet(&world.client(Some(&other.device())), &world.server(&gateway, auth), GATEWAY);
        refused_by_server(&met, bad_certificate(CertificateError::BadSignature));
        let met =
            meet(&world.client(Some(&world.idevid())), &world.server(&gateway, auth), GATEWAY);
        refused_by_server(&met, bad_certificate(CertificateError::UnknownIssuer));
    }
    let met = meet(
        &world.client(Some(&world.device())),
        &world.server(&other.gateway(), ClientAuth::Required),
        GATEWAY,
    );
    assert_eq!(met.client, Err(bad_certificate(CertificateError::BadSignature)));
}

/// INV-PURP-1: a key that seals is no key for TLS, at either end, and a device is no server.
#[test]
fn a_certificate_for_another_purpose_is_refused() {
    let world = World::new();
    let (gateway, device, seal) = (world.gateway(), world.device(), world.seal());
    let required = |own| world.server(own, ClientAuth::Required);
    let is_purpose = |result: &Result<(), Error>| {
        matches!(
            result,
            Err(Error::InvalidCertificate(
                CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. }
            ))
        )
    };
    let met = meet(&world.client(Some(&seal)), &required(&gateway), GATEWAY);
    assert!(is_purpose(&met.server), "{met:?}");
    let met = meet(&world.client(Some(&device)), &required(&seal), "pump-1.seal.site.internal");
    assert!(is_purpose(&met.client), "{met:?}");
    let met = meet(&world.client(Some(&device)), &required(&device), "pump-1.device.site.internal");
    assert!(is_purpose(&met.client), "{met:?}");
}

#[test]
fn a_certificate_before_or_after_its_time_is_refused() {
    let world = World::new();
    let gateway = world.gateway();
    let server = world.server(&gateway, ClientAuth::Required);
    let late = meet(&world.client(Some(&world.device_between(-9, -1))), &server, GATEWAY);
    assert!(
        matches!(
            late.server,
            Err(Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. }
            ))
        ),
        "{late:?}"
    );
    let early = meet(&world.client(Some(&world.device_between(2, 9))), &server, GATEWAY);
    assert!(
        matches!(
            early.server,
            Err(Error::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }
            ))
        ),
        "{early:?}"
    );
}

#[test]
fn a_server_with_another_name_is_refused() {
    let world = World::new();
    let server = world.server(&world.gateway(), ClientAuth::Required);
    let device = world.device();
    let met = meet(&world.client(Some(&device)), &server, "gw-2.gateway.site.internal");
    assert!(
        matches!(
            met.client,
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
            ))
        ),
        "{met:?}"
    );
}

#[test]
fn an_idevid_without_an_end_opens_the_door_of_who_trusts_its_maker() {
    let world = World::new();
    let control = issue(
        &world.site,
        &Profile::Control { site: "site".into() },
        days(-1),
        NotAfter::At(days(9)),
    );
    let anchors = [world.site.certificate_der().to_vec(), world.maker.certificate_der().to_vec()];
    let chain = [control.1.clone()];
    let server = server(&chain, &control.0, &anchors, ClientAuth::Optional, Alpn::Http11).unwrap();
    let idevid = world.idevid();
    for name in ["control.site.internal", "localhost", "127.0.0.1"] {
        let met = meet(&world.client(Some(&idevid)), &server, name);
        assert_eq!((&met.client, &met.server), (&Ok(()), &Ok(())), "{name}");
        assert_eq!(met.peer.as_ref(), Some(&idevid.1));
    }
}

/// INV-AUTH-1. Also against a client that would resume if it were let: rustls' default one.
#[test]
fn no_session_is_ever_resumed_and_the_verifier_is_asked_each_time() {
    let world = World::new();
    let (gateway, device) = (world.gateway(), world.device());
    let ours = world.client(Some(&device));
    let mut eager = ClientConfig::clone(&ours);
    eager.resumption = Resumption::in_memory_sessions(8);
    eager.enable_early_data = true;
    let verifier = |config: &mut ServerConfig| {
        let roots = Arc::new(roots(&world.site_anchor()).unwrap());
        let inner = WebPkiClientVerifier::builder_with_provider(roots, PROVIDER.clone());
        let counting = Arc::new(Counting { inner: inner.build().unwrap(), calls: 0.into() });
        // The verifier of a finished configuration cannot be reached, so it is made again round the same one.
        let mut fresh = ServerConfig::builder_with_provider(PROVIDER.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(counting.clone())
            .with_single_cert(
                certificates(std::slice::from_ref(&gateway.1)),
                private_key(&gateway.0),
            )
            .unwrap();
        fresh.session_storage = config.session_storage.clone();
        fresh.send_tls13_tickets = config.send_tls13_tickets;
        fresh.max_early_data_size = config.max_early_data_size;
        fresh.ticketer = config.ticketer.clone();
        *config = fresh;
        counting
    };
    let mut config = ServerConfig::clone(&world.server(&gateway, ClientAuth::Required));
    let counting = verifier(&mut config);
    let server = Arc::new(config);
    for (i, client) in [Arc::new(eager.clone()), ours].iter().cycle().take(6).enumerate() {
        let met = meet(client, &server, GATEWAY);
        assert_eq!((&met.client, &met.server, met.resumed), (&Ok(()), &Ok(()), false));
        assert_eq!(counting.calls.load(Ordering::SeqCst), i + 1);
    }
    // The trap is real: a server with rustls' defaults lets the same client back in unasked.
    let mut defaults = ServerConfig::clone(&server);
    let fresh = ServerConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates(std::slice::from_ref(&gateway.1)), private_key(&gateway.0))
        .unwrap();
    defaults.session_storage = fresh.session_storage.clone();
    defaults.send_tls13_tickets = fresh.send_tls13_tickets;
    let (defaults, eager) = (Arc::new(defaults), Arc::new(eager));
    meet(&eager, &defaults, GATEWAY);
    let asked = counting.calls.load(Ordering::SeqCst);
    let met = meet(&eager, &defaults, GATEWAY);
    assert!(met.resumed, "if rustls changed this, the test above proves nothing: {met:?}");
    assert_eq!(counting.calls.load(Ordering::SeqCst), asked);
}

#[derive(Debug)]
struct Counting {
    inner: Arc<dyn ClientCertVerifier>,
    calls: AtomicUsize,
}

impl ClientCertVerifier for Counting {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.inner.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[test]
fn tls_1_2_is_refused_at_both_ends() {
    let world = World::new();
    let (gateway, device) = (world.gateway(), world.device());
    let old = |own: Option<&Own>| {
        let builder = ClientConfig::builder_with_provider(PROVIDER.clone())
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots(&world.site_anchor()).unwrap());
        let (key, der) = own.unwrap();
        let chain = certificates(std::slice::from_ref(der));
        Arc::new(builder.with_client_auth_cert(chain, private_key(key)).unwrap())
    };
    let met = meet(&old(Some(&device)), &world.server(&gateway, ClientAuth::Required), GATEWAY);
    assert!(matches!(met.server, Err(Error::PeerIncompatible(_))), "{met:?}");
    let old_server = ServerConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates(std::slice::from_ref(&gateway.1)), private_key(&gateway.0))
        .unwrap();
    let met = meet(&world.client(Some(&device)), &Arc::new(old_server), GATEWAY);
    assert!(met.client.is_err() && met.server.is_err(), "{met:?}");
}

#[test]
fn the_clock_is_never_earlier_than_what_this_end_has_seen_signed() {
    let world = World::new();
    let ahead = world.device_between(1, 9);
    let clock = clock(std::slice::from_ref(&ahead.1), &world.site_anchor()).unwrap();
    assert_eq!(clock.current_time(), Some(cert::not_before(&ahead.1).unwrap()));
    let behind = super::clock(&[], &world.site_anchor()).unwrap();
    assert!(behind.current_time().unwrap() >= days(0).min(now()));
}

#[test]
fn a_configuration_that_could_not_work_is_refused_when_it_is_made() {
    let world = World::new();
    let (gateway, device) = (world.gateway(), world.device());
    let chain = [gateway.1.clone()];
    let make = |key: &SecretKey, anchors: &[Vec<u8>]| {
        server(&chain, key, anchors, ClientAuth::Required, Alpn::None)
            .map(|_| ())
            .map_err(|e| e.to_string())
    };
    assert_eq!(make(&gateway.0, &world.site_anchor()), Ok(()));
    assert_eq!(
        make(&device.0, &world.site_anchor()).unwrap_err(),
        "the certificate of this end cannot be used for TLS with its key"
    );
    assert_eq!(
        make(&gateway.0, &[]).unwrap_err(),
        "no anchors: expected at least one authority to verify the other end against"
    );
    assert_eq!(
        make(&gateway.0, std::slice::from_ref(&device.1)).unwrap_err(),
        "the certificate of this end or an anchor cannot be read"
    );
}

/// RFC 7301: one port for MQTT and HTTP. Foreign MQTT clients name nothing, and what neither speaks is told in the handshake.
#[test]
fn the_listener_of_devices_takes_mqtt_http_and_who_names_nothing() {
    let world = World::new();
    let (gateway, device) = (world.gateway(), world.device());
    let chain = std::slice::from_ref(&gateway.1);
    let anchors = world.site_anchor();
    let server = |alpn| server(chain, &gateway.0, &anchors, ClientAuth::Required, alpn).unwrap();
    let calls = |names: &[&[u8]]| {
        let mut client = (*world.client(Some(&device))).clone();
        client.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
        Arc::new(client)
    };
    let both = server(Alpn::MqttOrHttp11);
    let names: &[&[&[u8]]] = &[&[], &[b"mqtt"], &[HTTP11], &[b"h2", HTTP11]];
    for names in names {
        let met = meet(&calls(names), &both, GATEWAY);
        assert_eq!((&met.client, &met.server), (&Ok(()), &Ok(())), "{names:?}");
    }
    let met = meet(&calls(&[b"h2"]), &both, GATEWAY);
    refused_by_server(&met, Error::NoApplicationProtocol);
}
