use super::*;
use crate::file::draw;
use disk::{SimDisk, cut_everywhere};
use std::process::Command;

const KEY: &str = "/ca.key";
const CERT: &str = "/ca.pem";

/// `n` days after the first of January 2026.
pub(crate) fn day(n: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(1_767_225_600 + n * 86_400))
}

pub(crate) fn until(n: u64) -> NotAfter {
    NotAfter::At(day(n))
}

pub(crate) fn authority(name: &str) -> Authority {
    authority_from(name, day(0))
}

pub(crate) fn authority_from(name: &str, now: UnixTime) -> Authority {
    open(&SimDisk::new(1), name, now).unwrap()
}

pub(crate) fn issue_device(
    authority: &Authority,
    device: &str,
    from: UnixTime,
    to: UnixTime,
) -> (SecretKey, Vec<u8>) {
    let profile =
        Profile::DeviceTls { device: DeviceId::new(device).unwrap(), site: "site".into() };
    issue(authority, &profile, from, NotAfter::At(to))
}

pub(crate) fn issue(
    authority: &Authority,
    profile: &Profile,
    from: UnixTime,
    to: NotAfter,
) -> (SecretKey, Vec<u8>) {
    let key = draw(Algorithm::Esp256).unwrap();
    let der = authority.issue(&key.public().to_spki_der(), profile, from, to).unwrap();
    (key, der)
}

fn open(disk: &SimDisk, name: &str, now: UnixTime) -> Result<Authority, CaError> {
    Authority::load_or_create(disk, Path::new(KEY), Path::new(CERT), name, now)
}

fn all_profiles() -> [Profile; 5] {
    let (name, site) = (DeviceId::new("pump-1").unwrap(), || "site".to_owned());
    [
        Profile::IDevId { serial: "PUMP-1".into() },
        Profile::DeviceTls { device: name.clone(), site: site() },
        Profile::Seal { name, site: site() },
        Profile::GatewayTls { gateway: GatewayId::new("gw-1").unwrap(), site: site() },
        Profile::Control { site: site() },
    ]
}

#[test]
fn an_authority_is_itself_again_after_a_restart() {
    let disk = SimDisk::new(1);
    let first = open(&disk, "site", day(0)).unwrap();
    let second = open(&disk, "another name", day(99)).unwrap();
    assert_eq!(first.certificate_der(), second.certificate_der());
    assert_eq!(
        pem::decode(pem::CERTIFICATE, second.certificate_pem().as_bytes()).unwrap(),
        [first.certificate_der()]
    );
}

#[test]
fn a_cut_at_any_write_of_a_new_authority_leaves_one_that_starts() {
    let promise = |disk: &SimDisk| open(disk, "site", day(0)).ok().map(|ca| ca.certificate);
    let check = |disk: &SimDisk, promised: Option<Vec<u8>>| {
        let found = open(disk, "site", day(1)).map_err(|error| error.to_string())?.certificate;
        match promised {
            Some(promised) if promised != found => Err("an authority was lost".to_owned()),
            _ => Ok(()),
        }
    };
    cut_everywhere(0..8, promise, check).holds("an authority's files");
}

#[test]
fn an_authority_that_lost_its_key_or_has_anothers_is_refused_and_not_made_anew() {
    let disk = SimDisk::new(1);
    open(&disk, "site", day(0)).unwrap();
    let key = disk.read(Path::new(KEY), 4096).unwrap();
    let cert = disk.read(Path::new(CERT), 4096).unwrap();
    disk.remove(Path::new(KEY)).unwrap();
    let refused = || open(&disk, "site", day(0)).unwrap_err().to_string();
    assert_eq!(
        refused(),
        "the authority's certificate `/ca.pem` is there, its key `/ca.key` is not"
    );
    file::generate(&disk, Path::new(KEY), Algorithm::Esp256).unwrap();
    assert_eq!(refused(), "the authority's certificate `/ca.pem` is not that of its key `/ca.key`");
    disk::replace(&disk, Path::new(KEY), &key).unwrap();
    assert!(open(&disk, "site", day(0)).is_ok());
    disk::replace(&disk, Path::new(CERT), b"").unwrap();
    assert_eq!(refused(), "`/ca.pem` holds no certificate");
    let leaf = issue_device(&authority("other"), "pump-1", day(0), day(1)).1;
    let leaf = pem::encode(pem::CERTIFICATE, &leaf);
    disk::replace(&disk, Path::new(CERT), leaf.as_bytes()).unwrap();
    assert_eq!(refused(), "`/ca.pem` holds no authority's certificate");
    disk::replace(&disk, Path::new(CERT), &cert).unwrap();
    assert!(open(&disk, "site", day(0)).is_ok());
}

#[test]
fn each_profile_is_read_back_as_its_role_under_both_algorithms() {
    let authority = authority("site");
    for profile in all_profiles() {
        for algorithm in [Algorithm::Esp256, Algorithm::Ed25519] {
            let key = draw(algorithm).unwrap();
            let spki = key.public().to_spki_der();
            let der = authority.issue(&spki, &profile, day(1), until(31)).unwrap();
            let leaf = Leaf::parse(&der).unwrap();
            assert_eq!(leaf.role, profile.role());
            assert_eq!(leaf.spki_der, spki);
            assert_eq!(leaf.spki_sha256, trust::digest(&spki));
            assert_eq!(leaf.public_key().unwrap(), *key.public());
            assert_eq!((leaf.not_before, leaf.not_after), (day(1), until(31)));
            assert_eq!(leaf.issuer, "CN=site");
            let subject = leaf.serial_number.unwrap();
            assert_eq!(subject, profile.role().name());
        }
    }
}

#[test]
fn a_certificate_never_outlives_its_authority_and_only_an_idevid_has_no_end() {
    let authority = authority("site");
    let key = draw(Algorithm::Esp256).unwrap();
    let spki = key.public().to_spki_der();
    let issue = |profile: &Profile, from, to| {
        authority.issue(&spki, profile, from, to).map(|der| Leaf::parse(&der).unwrap().not_after)
    };
    let [idevid, device, ..] = all_profiles();
    assert_eq!(issue(&device, day(0), until(30)).unwrap(), until(30));
    let ten_years =
        NotAfter::At(UnixTime::since_unix_epoch(Duration::from_secs(day(0).as_secs()) + LIFETIME));
    assert_eq!(issue(&device, day(0), until(5000)).unwrap(), ten_years);
    assert_eq!(issue(&idevid, day(0), NotAfter::Never).unwrap(), NotAfter::Never);
    assert_eq!(
        issue(&device, day(0), NotAfter::Never).unwrap_err().to_string(),
        "cannot certify a device's TLS key without an end: only an IDevID has none"
    );
    assert!(matches!(issue(&device, day(2), until(1)), Err(CaError::BadTime { .. })));
    assert!(matches!(issue(&device, day(4000), until(4001)), Err(CaError::BadTime { .. })));
    assert!(matches!(issue(&idevid, day(4000), NotAfter::Never), Err(CaError::BadTime { .. })));
}

#[test]
fn what_a_certificate_cannot_carry_is_refused_before_anything_is_signed() {
    let authority = authority("site");
    let key = draw(Algorithm::Esp256).unwrap().public().to_spki_der();
    let refused = |spki: &[u8], profile: Profile| {
        authority.issue(spki, &profile, day(0), until(1)).unwrap_err().to_string()
    };
    let device = |device: &str, site: &str| Profile::DeviceTls {
        device: DeviceId::new(device).unwrap(),
        site: site.into(),
    };
    assert!(authority.issue(&key, &device("a", "site"), day(0), until(1)).is_ok());
    assert_eq!(refused(&key[1..], device("a", "site")), "cannot certify this key");
    for site in ["", "a.b", "A", "-a", "a-", "a_b", &"x".repeat(64)] {
        assert!(refused(&key, device("a", site)).starts_with("cannot put the site "), "{site:?}");
    }
    assert_eq!(
        refused(&key, device("a..b", "site")),
        "cannot put the name \"a..b.device.site.internal\" into a certificate: expected a DNS name"
    );
    assert_eq!(
        refused(&key, Profile::IDevId { serial: "a_b".into() }),
        "cannot put the subject \"a_b\" into a certificate: expected 1 to 64 of A-Z a-z 0-9 space ' ( ) + , - . / : = ?"
    );
}

#[test]
fn openssl_finds_nothing_wrong_with_what_is_issued() {
    if Command::new("openssl").arg("version").output().is_err() {
        println!("SKIPPED: openssl_finds_nothing_wrong_with_what_is_issued: no openssl");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let openssl = |args: &[&str]| {
        let out = Command::new("openssl").args(args).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&out.stderr));
        text
    };
    let authority = authority_from("Site's authority", UnixTime::now());
    std::fs::write(at("ca.pem"), authority.certificate_pem()).unwrap();
    let text = openssl(&["x509", "-in", &at("ca.pem"), "-noout", "-text"]);
    for part in ["CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign", "prime256v1"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    for (profile, purpose, parts) in [
        (0, "sslclient", ["TLS Web Client Authentication", "Dec 31 23:59:59 9999 GMT"]),
        (1, "sslclient", ["TLS Web Client Authentication", "DNS:pump-1.device.site.internal"]),
        (2, "any", ["1.3.6.1.5.5.7.3.36", "DNS:pump-1.seal.site.internal"]),
        (3, "sslserver", ["TLS Web Server Authentication", "DNS:gw-1.gateway.site.internal"]),
        (4, "sslserver", ["DNS:control.site.internal", "DNS:localhost, IP Address:127.0.0.1"]),
    ] {
        let profile = &all_profiles()[profile];
        let not_after = match profile {
            Profile::IDevId { .. } => NotAfter::Never,
            _ => NotAfter::At(UnixTime::since_unix_epoch(Duration::from_secs(
                UnixTime::now().as_secs() + 86_400,
            ))),
        };
        let (_, der) = issue(&authority, profile, UnixTime::now(), not_after);
        std::fs::write(at("leaf.pem"), pem::encode(pem::CERTIFICATE, &der)).unwrap();
        let verify = ["verify", "-x509_strict", "-purpose", purpose, "-CAfile", &at("ca.pem")];
        openssl(&[&verify[..], &[&at("leaf.pem")]].concat());
        let text = openssl(&["x509", "-in", &at("leaf.pem"), "-noout", "-text"]);
        let always =
            ["CA:FALSE", "Digital Signature", "Subject Key Identifier", "Authority Key Identifier"];
        for part in always.iter().chain(&parts) {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
    let bag = crate::pkcs7::encode(&[authority.certificate_der().to_vec()]).unwrap();
    std::fs::write(at("bag.p7"), bag).unwrap();
    let printed = openssl(&["pkcs7", "-inform", "DER", "-in", &at("bag.p7"), "-print_certs"]);
    let theirs = pem::decode(pem::CERTIFICATE, printed.as_bytes()).unwrap();
    assert_eq!(theirs, [authority.certificate_der()]);
    let made = at("made.p7");
    let from =
        ["crl2pkcs7", "-nocrl", "-outform", "DER", "-certfile", &at("ca.pem"), "-out", &made];
    openssl(&from);
    let ours = crate::pkcs7::decode(&std::fs::read(&made).unwrap()).unwrap();
    assert_eq!(ours, [authority.certificate_der()]);
    let request = crate::csr::make(&draw(Algorithm::Ed25519).unwrap(), "PUMP-1").unwrap();
    std::fs::write(at("r.der"), request).unwrap();
    openssl(&["req", "-inform", "DER", "-in", &at("r.der"), "-verify", "-noout"]);
}
