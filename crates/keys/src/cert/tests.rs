use super::*;
use crate::ca::tests::{authority, day, issue, until};
use crate::ca::{Authority, Profile};
use crate::file::draw;
use crate::x509::RcgenKey;
use model::envelope::Algorithm;
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose as Eku, IsCa, KeyUsagePurpose, SanType};

/// A certificate of a device as the site's authority makes it, for a test to change one thing in.
fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = crate::x509::subject("pump-1").unwrap();
    params.subject_alt_names = vec![dns("pump-1.device.site.internal")];
    params.extended_key_usages = vec![Eku::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.is_ca = IsCa::ExplicitNoCa;
    crate::x509::set_validity(&mut params, day(0), until(90));
    params
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(Ia5String::try_from(name).unwrap())
}

fn signed(params: &CertificateParams) -> Vec<u8> {
    let key = draw(Algorithm::Esp256).unwrap();
    params.self_signed(&RcgenKey::new(&key)).unwrap().der().to_vec()
}

fn parse(change: impl FnOnce(&mut CertificateParams)) -> Result<Role, String> {
    let mut params = params();
    change(&mut params);
    Leaf::parse(&signed(&params)).map(|leaf| leaf.role).map_err(|error| error.to_string())
}

#[test]
fn a_certificate_that_fits_no_role_or_two_is_refused() {
    let seal = || Eku::Other(DOCUMENT_SIGNING.to_vec());
    assert_eq!(parse(|_| ()), Ok(Role::Device(DeviceId::new("pump-1").unwrap())));
    let refused = |change: fn(&mut CertificateParams)| parse(change).unwrap_err();
    assert_eq!(
        refused(|p| p.subject_alt_names.push(dns("pump-1.seal.site.internal"))),
        "the certificate fits two roles: `pump-1.device.site.internal` and `pump-1.seal.site.internal`"
    );
    for usages in [
        vec![],
        vec![Eku::ServerAuth],
        vec![Eku::ClientAuth, Eku::ServerAuth],
        vec![seal()],
        vec![Eku::ClientAuth, seal()],
        vec![Eku::ClientAuth, Eku::CodeSigning],
        vec![Eku::Any],
    ] {
        let refused = parse(|p| p.extended_key_usages = usages.clone()).unwrap_err();
        let expected =
            "the certificate fits no role: expected clientAuth alone, found device pump-1 with ";
        assert!(refused.starts_with(expected), "{usages:?}: {refused}");
    }
    for name in [
        "pump-1.printer.site.internal",
        "device.site.internal",
        ".device.site.internal",
        "pump-1.device.internal",
        "pump-1.device..internal",
        "pump-1.device.SITE.internal",
        "PUMP-1.DEVICE.SITE.INTERNAL",
        "x.control.site.internal",
        ".internal",
    ] {
        let refused = parse(|p| p.subject_alt_names = vec![dns(name)]).unwrap_err();
        assert!(
            refused.starts_with("the certificate fits no role: expected <id>.device|"),
            "{name}: {refused}"
        );
    }
    assert!(
        parse(|p| p.subject_alt_names = vec![dns("-.device.site.internal")])
            .unwrap_err()
            .starts_with("the certificate names no role")
    );
    assert_eq!(
        refused(|p| p.subject_alt_names.push(dns("localhost"))),
        "the certificate fits no role: expected no name beside its role's, found 2 names"
    );
    assert_eq!(
        refused(|p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement]),
        "the certificate fits no role: expected key usage digitalSignature, found a key usage without it"
    );
    assert_eq!(
        refused(|p| p.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained)),
        "the certificate fits no role: expected a certificate that is no authority's, found CA true"
    );
}

#[test]
fn a_certificate_without_a_name_of_ours_is_an_idevid_or_nothing() {
    let idevid = |change: fn(&mut CertificateParams)| {
        parse(|p| {
            p.subject_alt_names.clear();
            change(p);
        })
    };
    assert_eq!(idevid(|_| ()), Ok(Role::IDevId { serial: "pump-1".into() }));
    assert!(idevid(|p| p.extended_key_usages.clear()).is_ok());
    assert!(idevid(|p| p.subject_alt_names = vec![dns("pump.example.com")]).is_ok());
    assert_eq!(
        idevid(|p| p.extended_key_usages.push(Eku::ServerAuth)).unwrap_err(),
        "the certificate fits no role: expected an IDevID with clientAuth alone, or none, found serverAuth, clientAuth"
    );
    assert_eq!(
        idevid(|p| p.distinguished_name = rcgen::DistinguishedName::new()).unwrap_err(),
        "the certificate fits no role: expected an IDevID with its serial number in the subject, found none"
    );
}

#[test]
fn bytes_that_are_no_certificate_are_refused() {
    let good = signed(&params());
    assert!(Leaf::parse(&good).is_ok());
    let refused = |bytes: &[u8]| Leaf::parse(bytes).unwrap_err();
    assert_eq!(refused(&good[..good.len() - 1]), CertError::Malformed { found: "something else" });
    assert_eq!(
        refused(&[&good[..], b"x"].concat()),
        CertError::Malformed { found: "bytes after it" }
    );
    assert_eq!(refused(&vec![0x30; BYTES_MAX + 1]), CertError::Malformed { found: "more" });
    assert_eq!(refused(b""), CertError::Malformed { found: "something else" });
}

#[test]
fn a_role_counts_only_under_the_authority_that_may_grant_it() {
    let (site, maker, other) = (authority("site"), authority("maker"), authority("site"));
    let issuers = Issuers::new(
        "site",
        vec![site.certificate_der().to_vec()],
        vec![maker.certificate_der().to_vec()],
    )
    .unwrap();
    let device = Profile::DeviceTls { device: DeviceId::new("p").unwrap(), site: "site".into() };
    let idevid = Profile::IDevId { serial: "P".into() };
    let identify = |by: &Authority, profile: &Profile| {
        issuers.identify(&issue(by, profile, day(0), until(9)).1, day(1)).map(|leaf| leaf.role)
    };
    assert_eq!(identify(&site, &device), Ok(device.role()));
    assert_eq!(identify(&maker, &idevid), Ok(idevid.role()));
    let refused =
        |by: &Authority, profile: &Profile| identify(by, profile).unwrap_err().to_string();
    assert_eq!(
        refused(&maker, &device),
        "role device p is not granted by an authority that may grant it: expected the site's authority, found issuer `CN=maker`"
    );
    assert_eq!(
        refused(&site, &idevid),
        "role IDevID \"P\" is not granted by an authority that may grant it: expected a maker's authority, found issuer `CN=site`"
    );
    // Another key under the same name.
    assert!(refused(&other, &device).starts_with("role device p is not granted"));
    let elsewhere = Profile::DeviceTls { device: DeviceId::new("p").unwrap(), site: "b".into() };
    assert_eq!(refused(&site, &elsewhere), "the certificate is of site `b`, expected `site`");
}

#[test]
fn a_certificate_counts_from_its_first_second_to_its_last() {
    let site = authority("site");
    let issuers = Issuers::new("site", vec![site.certificate_der().to_vec()], vec![]).unwrap();
    let profile = Profile::Control { site: "site".into() };
    let der = issue(&site, &profile, day(1), until(2)).1;
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let (from, to) = (day(1).as_secs(), day(2).as_secs());
    assert_eq!(
        issuers.identify(&der, at(from - 1)),
        Err(CertError::NotYet { from, now: from - 1 })
    );
    assert!(issuers.identify(&der, at(from)).is_ok());
    assert!(issuers.identify(&der, at(to)).is_ok());
    assert_eq!(
        issuers.identify(&der, at(to + 1)),
        Err(CertError::Expired { until: to, now: to + 1 })
    );
    assert!(issuers.granted(&der).is_ok());
}

#[test]
fn renewal_is_due_after_two_thirds_of_a_lifetime_and_never_without_an_end() {
    let site = authority("site");
    let device = Profile::IDevId { serial: "p".into() };
    let leaf = |to| Leaf::parse(&issue(&site, &device, day(0), to).1).unwrap();
    let (ninety, never) = (leaf(until(90)), leaf(NotAfter::Never));
    assert!(!ninety.needs_renewal(day(59)));
    assert!(ninety.needs_renewal(day(60)));
    assert!(!never.needs_renewal(day(2_900_000)), "year 9965");
    assert!(never.check_valid(day(2_900_000)).is_ok());
}

#[test]
fn what_is_no_authority_grants_nothing() {
    let leaf = signed(&params());
    let error = Issuers::new("site", vec![leaf], vec![]).unwrap_err();
    assert!(matches!(error, CertError::NotAnAuthority { .. }));
}
