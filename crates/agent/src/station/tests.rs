//! What an agent makes of its own files, with a site that certifies all it is asked for.

use super::*;
use disk::{Cut, SimDisk, SyncMode};
use keys::ca::{Authority, Profile};
use keys::est::{Caller, EstError, Operation, Purpose};
use keys::{NotAfter, csr};
use std::sync::Mutex;

struct Site {
    maker: Authority,
    site: Authority,
    asked: Mutex<Vec<Purpose>>,
}

impl Site {
    fn new() -> Self {
        let disk = SimDisk::new(1);
        let authority = |name: &str| {
            let (key, cert) = (format!("/{name}.key"), format!("/{name}.pem"));
            Authority::load_or_create(&disk, Path::new(&key), Path::new(&cert), name, now())
                .unwrap()
        };
        Self { maker: authority("maker"), site: authority("site"), asked: Mutex::default() }
    }

    fn asked(&self) -> Vec<Purpose> {
        self.asked.lock().unwrap().clone()
    }

    /// A device with its birth certificate and its site's authorities.
    fn born(&self, disk: &SharedDisk, dir: &Path) {
        let request = identity::prepare(disk, dir, "PUMP-7").unwrap();
        let key = csr::read(&request).unwrap().spki_der;
        let profile = Profile::IDevId { serial: "PUMP-7".into() };
        let idevid = self.maker.issue(&key, &profile, now(), NotAfter::Never).unwrap();
        let anchors = [self.site.certificate_der().to_vec()];
        identity::provision(disk, dir, &idevid, &anchors).unwrap();
    }
}

impl Est for Site {
    async fn enroll(
        &self,
        _: Caller<'_>,
        _: Operation,
        purpose: Purpose,
        request: &[u8],
    ) -> Result<Vec<Vec<u8>>, EstError> {
        self.asked.lock().unwrap().push(purpose);
        let (device, site): (model::DeviceId, _) = ("pump-7".parse().unwrap(), "site".to_owned());
        let profile = match purpose {
            Purpose::Tls => Profile::DeviceTls { device, site },
            Purpose::Seal => Profile::Seal { name: device, site },
        };
        let key = csr::read(request).unwrap().spki_der;
        let end = Duration::from_secs(now().as_secs() + 90 * 86_400);
        let end = NotAfter::At(UnixTime::since_unix_epoch(end));
        Ok(vec![self.site.issue(&key, &profile, now(), end).unwrap()])
    }
}

fn config(dir: &Path) -> Config {
    let full = crate::backlog::Full::Oldest;
    let bytes_max = crate::backlog::BYTES_DEFAULT;
    Config {
        dir: dir.to_owned(),
        est: String::new(),
        site_ca: None,
        gateways: Vec::new(),
        source: Source::Host { interval: Duration::from_secs(1) },
        backlog: BacklogConfig { dir: dir.to_owned(), bytes_max, full },
        seal_algorithm: Algorithm::Ed25519,
        end_with_stdin: false,
        updates: Updates {
            settings: update::Settings {
                director_root: None,
                image_root: None,
                check_in_ms: 60_000,
                halt_within_ms: 60_000,
                download_rate: None,
            },
            app: None,
            trial: Duration::from_secs(120),
            health_script: None,
        },
    }
}

/// What waits here waits for a person: a minute is for ever.
fn run<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let within = Duration::from_secs(60);
    runtime.block_on(async { tokio::time::timeout(within, work).await.expect("within a minute") })
}

/// A sync that fails stands for whatever may fail there, a full disk too.
#[test]
fn a_rotation_that_stopped_half_way_is_gone_on_with_under_the_key_that_it_made() {
    let dir = Path::new("/d");
    let site = Site::new();
    let (mut stopped, mut half_way) = (0, 0);
    for operation in 0..64 {
        let sim = SimDisk::new(operation);
        let disk = sim.shared();
        site.born(&disk, dir);
        let config = config(dir);
        let mut identity = run(enrolled(&disk, &config, &site)).unwrap();
        let old = seal_key(&identity);
        Counters::begin(&sim, dir, old, None).unwrap();
        assert!(!wants_next_key(old, &identity, now()));

        sim.set_cut(Cut::Never);
        sim.set_sync_mode(SyncMode::FailsOnceAt(operation));
        let tried = run(next_key(&disk, &config, &mut identity, &site, old));
        sim.set_sync_mode(SyncMode::Honest);
        let counters = match tried {
            Ok(counters) => counters,
            Err(_) => {
                stopped += 1;
                let asked = site.asked();
                let is_half_way = seal_key(&identity) != old;
                half_way += usize::from(is_half_way);
                assert_eq!(wants_next_key(old, &identity, now()), is_half_way);
                // As at the next look.
                let counters = run(next_key(&disk, &config, &mut identity, &site, old)).unwrap();
                assert!(!is_half_way || site.asked() == asked, "another key was asked for");
                counters
            }
        };
        let new = seal_key(&identity);
        assert_eq!(counters.key(), new, "operation {operation}");
        assert!(new != old && !wants_next_key(new, &identity, now()));
        let files = disk.list(dir).unwrap();
        let epochs: Vec<_> = files.iter().filter(|name| name.starts_with("epoch-")).collect();
        assert_eq!(epochs, [&format!("epoch-{new}")], "operation {operation}");
    }
    assert!(half_way >= 4 && stopped > half_way, "{half_way} of {stopped}");
}

/// The table "Files" of docs/agent.md.
#[test]
fn a_lost_key_stops_the_agent_until_a_person_removes_what_names_it() {
    const PURPOSES: [&str; 2] = ["tls", "seal"];
    let site = Site::new();
    // Which file, whether it is gone or damaged, and what then: goes on under the same key, asks anew, or does not start.
    for (file, is_gone, starts) in [
        ("tls.pem", true, true),
        ("tls.pem", false, false),
        ("tls.key", true, false),
        ("tls.key", false, false),
        ("seal.current", true, true),
        ("seal.current", false, false),
        ("seal-K.key", true, false),
        ("seal-K.key", false, false),
        ("seal-K.pem", true, false),
        ("seal-K.pem", false, false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (dir, disk): (_, SharedDisk) = (dir.path(), Arc::new(RealDisk));
        let config = config(dir);
        site.born(&disk, dir);
        let identity = run(enrolled(&disk, &config, &site)).unwrap();
        let (tls, seal) = (identity.tls().key.public().id(), seal_key(&identity));
        Counters::begin(&RealDisk, dir, seal, None).unwrap();
        let is_of_tls = file.starts_with(PURPOSES[0]);
        let path = dir.join(file.replace('K', &seal.to_string()));
        match is_gone {
            true => std::fs::remove_file(&path).unwrap(),
            false => std::fs::write(&path, "?").unwrap(),
        }
        let what = format!("{file}, gone: {is_gone}");
        let found = run(enrolled(&disk, &config, &site));
        if starts {
            let identity = found.unwrap();
            assert_eq!(identity.tls().key.public().id(), tls, "{what}: the key is the same");
            assert_eq!(seal_key(&identity), seal, "{what}: the key is the same");
            continue;
        }
        let error = found.map(|_| ()).expect_err(&what).to_string();
        assert!(error.contains(path.to_str().unwrap()), "{what}: it names the file: {error}");

        // What the page says to remove.
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let purpose = PURPOSES[usize::from(!is_of_tls)];
            if name.starts_with(purpose) {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
        let identity = run(enrolled(&disk, &config, &site)).expect(&what);
        assert_eq!(identity.tls().key.public().id() == tls, !is_of_tls, "{what}");
        assert_eq!(seal_key(&identity) == seal, is_of_tls, "{what}");
        Counters::begin(&RealDisk, dir, seal_key(&identity), None).expect(&what);
    }
}
