use super::*;
use crate::ca::tests::{authority, day, until};
use crate::ca::{Authority, Profile};
use disk::{Cuts, SimDisk, SyncMode};
use std::collections::BTreeSet;
use std::sync::Mutex;

const DIR: &str = "/d";
const SERIAL: &str = "PUMP-1";

/// A site that certifies whom it should, in memory. It stands for another machine: no cut touches it.
struct Site {
    maker: Authority,
    site: Authority,
    station: Station,
    answer: Answer,
    /// Of TLS certificates.
    not_after: NotAfter,
    asked: Mutex<Vec<(Operation, Purpose, Vec<u8>)>>,
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Certify,
    Refuse,
    AnotherKey,
    AnotherRole,
    AnotherAuthority,
    NobodyIsAsked,
}

impl Site {
    fn new(station: Station) -> Self {
        Self {
            maker: authority("maker"),
            site: authority("site"),
            station,
            answer: Answer::Certify,
            not_after: until(90),
            asked: Mutex::default(),
        }
    }

    /// How many different keys were certified for a purpose.
    fn certified(&self, purpose: Purpose) -> usize {
        let asked = self.asked.lock().unwrap();
        let keys = asked.iter().filter(|(_, of, _)| *of == purpose).map(|(_, _, key)| key);
        keys.collect::<BTreeSet<_>>().len()
    }

    fn issue(
        &self,
        caller: Caller<'_>,
        operation: Operation,
        purpose: Purpose,
        csr: &[u8],
    ) -> Vec<u8> {
        let csr = csr::read(csr).unwrap();
        let who = Leaf::parse(&caller.chain[0]).unwrap();
        assert_eq!(caller.key.public().to_spki_der(), who.spki_der, "TLS would have refused");
        assert_eq!(csr.serial.as_deref(), Some(who.role.name()));
        let expected = match (operation, purpose) {
            (Operation::Enroll, Purpose::Tls) => Role::IDevId { serial: SERIAL.into() },
            _ => self.tls_profile().role(),
        };
        assert_eq!(who.role, expected, "{operation:?} for {purpose:?}");
        self.asked.lock().unwrap().push((operation, purpose, csr.spki_der.clone()));
        let seal = Profile::Seal { name: DeviceId::new("pump-1").unwrap(), site: "site".into() };
        let other = draw_spki();
        let (by, key, profile) = match (self.answer, purpose) {
            (Answer::AnotherKey, _) => (&self.site, &other, self.tls_profile()),
            (Answer::AnotherAuthority, _) => (&self.maker, &csr.spki_der, self.tls_profile()),
            (Answer::AnotherRole, Purpose::Tls) | (_, Purpose::Seal) => {
                (&self.site, &csr.spki_der, seal)
            }
            (_, Purpose::Tls) => (&self.site, &csr.spki_der, self.tls_profile()),
        };
        by.issue(key, &profile, day(0), self.not_after).unwrap()
    }

    fn tls_profile(&self) -> Profile {
        let site = "site".to_owned();
        match self.station {
            Station::Device => {
                Profile::DeviceTls { device: DeviceId::new("pump-1").unwrap(), site }
            }
            Station::Gateway => {
                Profile::GatewayTls { gateway: GatewayId::new("pump-1").unwrap(), site }
            }
        }
    }
}

impl Est for Site {
    async fn enroll(
        &self,
        caller: Caller<'_>,
        operation: Operation,
        purpose: Purpose,
        csr: &[u8],
    ) -> Result<Vec<Vec<u8>>, EstError> {
        match self.answer {
            Answer::NobodyIsAsked => panic!("{operation:?} for {purpose:?} was asked for"),
            Answer::Refuse => {
                self.asked.lock().unwrap().push((
                    operation,
                    purpose,
                    csr::read(csr).unwrap().spki_der,
                ));
                let endpoint = "https://c/est".to_owned();
                Err(EstError::Refused { endpoint, status: 403, detail: "not listed".into() })
            }
            _ => {
                let issued = self.issue(caller, operation, purpose, csr);
                Ok(vec![self.site.certificate_der().to_vec(), issued])
            }
        }
    }
}

fn draw_spki() -> Vec<u8> {
    file::draw(Algorithm::Esp256).unwrap().public().to_spki_der()
}

fn settings(station: Station) -> Settings {
    Settings { dir: DIR.into(), station, seal_algorithm: Algorithm::Ed25519 }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn born(disk: &SimDisk, site: &Site) -> Result<(), IdentityError> {
    let disk = disk.shared();
    let request = prepare(&disk, Path::new(DIR), SERIAL)?;
    let key = csr::read(&request).unwrap().spki_der;
    let profile = Profile::IDevId { serial: SERIAL.into() };
    let idevid = site.maker.issue(&key, &profile, day(0), NotAfter::Never).unwrap();
    provision(&disk, Path::new(DIR), &idevid, &[site.site.certificate_der().to_vec()])
}

fn start(disk: &SimDisk, site: &Site) -> Result<Identity, IdentityError> {
    start_at(disk, site, day(1))
}

fn start_at(disk: &SimDisk, site: &Site, now: UnixTime) -> Result<Identity, IdentityError> {
    run(enrol_or_load(&disk.shared(), &settings(site.station), site, now))
}

fn rotate(identity: &mut Identity, site: &Site) -> Result<KeyId, IdentityError> {
    run(identity.rotate_seal_key(site, Algorithm::Ed25519))
}

fn seal_files(disk: &SimDisk) -> Vec<String> {
    use disk::Disk as _;
    let names = disk.list(Path::new(DIR)).unwrap();
    names.into_iter().filter(|name| name.starts_with("seal-")).collect()
}

#[test]
fn a_station_enrols_once_and_asks_nobody_afterwards() {
    for station in [Station::Device, Station::Gateway] {
        let disk = SimDisk::new(1);
        let mut site = Site::new(station);
        born(&disk, &site).unwrap();
        let first = start(&disk, &site).unwrap();
        assert_eq!(first.id().as_str(), "pump-1");
        assert_eq!(first.site(), "site");
        assert_eq!(first.tls().leaf.role, site.tls_profile().role());
        assert_eq!(first.seal().leaf.role, Role::Seal("pump-1".into()));
        assert_eq!(first.tls().key.public().algorithm(), Algorithm::Esp256);
        assert_eq!(first.seal().key.public().algorithm(), Algorithm::Ed25519);
        assert!(!first.tls_needs_renewal(day(59)) && first.tls_needs_renewal(day(60)));
        first.client_config(Alpn::Http11).unwrap();
        first.server_config(ClientAuth::Required, Alpn::None).unwrap();
        disk.reboot();
        site.answer = Answer::NobodyIsAsked;
        let second = start(&disk, &site).unwrap();
        assert_eq!(second.tls().chain, first.tls().chain);
        assert_eq!(second.seal().chain, first.seal().chain);
        assert_eq!(second.anchors(), [site.site.certificate_der()]);
        let shown = format!("{second:?}");
        assert!(shown.len() < 400 && shown.contains("pump-1"), "{shown}");
    }
}

#[test]
fn a_cut_at_any_write_of_an_enrolment_loses_no_key_that_was_certified() {
    let site = Site::new(Station::Device);
    let workload = |disk: &SimDisk| {
        site.asked.lock().unwrap().clear();
        born(disk, &site).and_then(|()| start(disk, &site)).ok().map(|id| id.seal.key.public().id())
    };
    let again = |disk: &SimDisk| {
        let _ = born(disk, &site).and_then(|()| start(disk, &site));
    };
    let check = |disk: &SimDisk, promised: Option<KeyId>| {
        born(disk, &site).map_err(|error| error.to_string())?;
        let identity = start(disk, &site).map_err(|error| error.to_string())?;
        let certified = [Purpose::Tls, Purpose::Seal].map(|of| site.certified(of));
        if certified != [1, 1] {
            return Err(format!("{certified:?} keys were certified for TLS and seals"));
        }
        if promised.is_some_and(|promised| promised != identity.seal.key.public().id()) {
            return Err("a station that was enrolled seals with another key".into());
        }
        match seal_files(disk).len() {
            2 => Ok(()),
            _ => Err(format!("{:?}", seal_files(disk))),
        }
    };
    let cuts = Cuts::over(0..2).recovering(&again);
    cuts.run(workload, check).holds("an enrolment");
    let lied = Cuts::over(0..1).recovering(&again).on(SyncMode::Lies).run(workload, check);
    assert!(!lied.broken.is_empty(), "a sync that does nothing was not noticed");
}

#[test]
fn a_cut_at_any_write_of_a_rotation_leaves_one_key_that_seals_and_loses_none() {
    let site = Site::new(Station::Device);
    let workload = |disk: &SimDisk| {
        site.asked.lock().unwrap().clear();
        let mut identity = born(disk, &site).and_then(|()| start(disk, &site)).ok()?;
        let old = identity.seal.key.public().id();
        Some((old, rotate(&mut identity, &site).ok()))
    };
    let again = |disk: &SimDisk| {
        let _ = born(disk, &site).and_then(|()| start(disk, &site));
    };
    let check = |disk: &SimDisk, promised: Option<(KeyId, Option<KeyId>)>| {
        let Some((old, new)) = promised else { return Ok(()) };
        let mut identity = start(disk, &site).map_err(|error| error.to_string())?;
        let found = identity.seal.key.public().id();
        if new.is_some_and(|new| new != found) {
            return Err("the new key was current and is not any more".into());
        }
        if found == old {
            rotate(&mut identity, &site).map_err(|error| error.to_string())?;
        }
        let certified = site.certified(Purpose::Seal);
        if certified != 2 {
            return Err(format!("{certified} sealing keys were certified for one rotation"));
        }
        let current = identity.seal.key.public().id();
        match seal_files(disk) {
            files if files == [seal_key(current), seal_pem(current)] => Ok(()),
            files => Err(format!("beside {current}: {files:?}")),
        }
    };
    Cuts::over(0..2).recovering(&again).run(workload, check).holds("a rotation");
}

#[test]
fn a_rotation_that_is_refused_leaves_the_old_key_and_asks_for_the_same_new_one_again() {
    let disk = SimDisk::new(1);
    let mut site = Site::new(Station::Device);
    born(&disk, &site).unwrap();
    let mut identity = start(&disk, &site).unwrap();
    let old = identity.seal.key.public().id();
    site.answer = Answer::Refuse;
    let error = rotate(&mut identity, &site).unwrap_err();
    assert_eq!(error.to_string(), "cannot enrol: the EST server gave no certificate");
    assert_eq!(error.retry_after(), None);
    assert_eq!(identity.seal.key.public().id(), old);
    assert_eq!(start(&disk, &site).unwrap().seal.key.public().id(), old);
    rotate(&mut identity, &site).unwrap_err();
    site.answer = Answer::Certify;
    let new = rotate(&mut identity, &site).unwrap();
    assert_ne!(new, old);
    assert_eq!(site.certified(Purpose::Seal), 2, "the first key, and one new one asked for thrice");
    assert_eq!(seal_files(&disk), [seal_key(new), seal_pem(new)], "the old key is erased");
    let third = rotate(&mut identity, &site).unwrap();
    assert_eq!(seal_files(&disk), [seal_key(third), seal_pem(third)]);
    assert_eq!(start(&disk, &site).unwrap().seal.key.public().id(), third);
}

#[test]
fn a_renewal_keeps_the_key_and_a_station_from_the_shelf_enrols_anew() {
    let disk = SimDisk::new(1);
    let mut site = Site::new(Station::Device);
    born(&disk, &site).unwrap();
    let mut identity = start(&disk, &site).unwrap();
    let key = identity.tls.leaf.spki_sha256;
    site.not_after = until(180);
    run(identity.renew_tls(&site)).unwrap();
    assert_eq!(identity.tls.leaf.spki_sha256, key);
    assert_eq!(identity.tls.leaf.not_after, until(180));
    let asked = site.asked.lock().unwrap().last().unwrap().clone();
    assert_eq!((asked.0, asked.1), (Operation::Reenroll, Purpose::Tls));
    site.answer = Answer::NobodyIsAsked;
    assert_eq!(start_at(&disk, &site, day(180)).unwrap().tls.leaf.not_after, until(180));
    site.answer = Answer::Certify;
    site.not_after = until(900);
    let back = start_at(&disk, &site, day(800)).unwrap();
    assert_eq!(back.tls.leaf.spki_sha256, key);
    assert_eq!(back.tls.leaf.not_after, until(900));
    let asked = site.asked.lock().unwrap().last().unwrap().clone();
    assert_eq!((asked.0, asked.1), (Operation::Enroll, Purpose::Tls));
}

#[test]
fn an_answer_that_does_not_fit_is_refused_and_nothing_of_it_is_kept() {
    for (answer, expected) in [
        (Answer::Refuse, "cannot enrol: the EST server gave no certificate"),
        (
            Answer::AnotherKey,
            "cannot enrol: the EST server answered without a certificate for the key that asked",
        ),
        (
            Answer::AnotherRole,
            "cannot enrol: the EST server gave a certificate of seal of pump-1, expected device pump-1",
        ),
        (
            Answer::AnotherAuthority,
            "cannot enrol: the EST server gave a certificate that cannot be used",
        ),
    ] {
        let disk = SimDisk::new(1);
        let mut site = Site::new(Station::Device);
        born(&disk, &site).unwrap();
        site.answer = answer;
        assert_eq!(start(&disk, &site).unwrap_err().to_string(), expected);
        site.answer = Answer::Certify;
        assert!(start(&disk, &site).is_ok(), "{answer:?} left something behind");
        assert_eq!(site.certified(Purpose::Tls), 1);
    }
}

#[test]
fn files_that_do_not_fit_together_are_refused_by_name_and_left_as_they_are() {
    use disk::Disk as _;
    let disk = SimDisk::new(1);
    let mut site = Site::new(Station::Device);
    born(&disk, &site).unwrap();
    let seal = start(&disk, &site).unwrap().seal.key.public().id();
    site.answer = Answer::NobodyIsAsked;
    let at = |name: &str| Path::new(DIR).join(name);
    let read = |name: &str| disk.read(&at(name), 1 << 16).unwrap();
    let with = |name: &str, bytes: &[u8]| {
        let whole = read(name);
        disk::replace(&disk, &at(name), bytes).unwrap();
        let error = start(&disk, &site).unwrap_err().to_string();
        assert_eq!(read(name), bytes, "{name} was touched");
        disk::replace(&disk, &at(name), &whole).unwrap();
        start(&disk, &site).unwrap();
        error
    };
    let seal_pem = seal_pem(seal);
    assert_eq!(with(IDEVID_PEM, b""), "`/d/idevid.pem` holds no certificate");
    assert_eq!(
        with(IDEVID_PEM, &read(TLS_PEM)),
        "`/d/idevid.pem` holds the certificate of another key than `/d/idevid.key`"
    );
    assert_eq!(with(SITE_CA, b"?"), "`/d/site-ca.pem` holds no certificate");
    assert_eq!(
        with(TLS_PEM, &read(IDEVID_PEM)),
        "`/d/tls.pem` holds the certificate of another key than `/d/tls.key`"
    );
    assert_eq!(
        with(TLS_PEM, &pem_of(b"?")),
        "`/d/tls.pem` holds a certificate that cannot be used"
    );
    assert_eq!(
        with(&seal_pem, &read(TLS_PEM)),
        format!(
            "`/d/{seal_pem}` holds the certificate of another key than `/d/{}`",
            seal_key(seal)
        )
    );
    for pointer in ["", "current", "current 00\n", "retired 00\n", &format!("current {seal}\n\n")] {
        assert_eq!(
            with(CURRENT, pointer.as_bytes()),
            "`/d/seal.current` does not name a key: expected `current <key id>`",
            "{pointer:?}"
        );
    }
    assert_eq!(
        run(enrol_or_load(&disk.shared(), &settings(Station::Gateway), &site, day(1)))
            .unwrap_err()
            .to_string(),
        "`/d/tls.pem` is a certificate of device pump-1, expected gateway pump-1"
    );
    disk.remove(&at(&seal_key(seal))).unwrap();
    assert_eq!(
        start(&disk, &site).unwrap_err().to_string(),
        format!("cannot read private key `/d/{}`", seal_key(seal))
    );
}

fn pem_of(der: &[u8]) -> Vec<u8> {
    pem::encode(pem::CERTIFICATE, der).into_bytes()
}
