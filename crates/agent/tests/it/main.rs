//! The device's thread and its link, with real files, real TLS and gateways that do as they are told.

mod application;
mod attackers;
mod flash;
mod gateway;
#[path = "../../src/update/kit.rs"]
mod kit;
mod launch;
mod process;
mod update;

use agent::backlog::{BYTES_DEFAULT, Backlog, BacklogConfig, Full, Outbox};
use agent::clock::{FLOOR, SystemClock};
use agent::counter::Counters;
use agent::driver::{self, Device, SAMPLES_MAX, WORDS_MAX, Word};
use agent::link::{Link, Place};
use agent::pack::Sample;
use agent::seal::Sealer;
use agent::status::Seen;
use disk::{RealDisk, SharedDisk};
use gateway::{Answer, Gateway, Manners, Saw, nonce};
use keys::ca::{Authority, Profile};
use keys::tls::{self, Alpn};
use keys::{NotAfter, UnixTime};
use model::envelope::{Algorithm, LossCause, MESSAGE_BYTES_MAX, decode_loss};
use model::{Header, Kind, Reading, SeriesName, Value};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use trust::cose::{self, SecretKey, Signer as _};

/// A site's authority, and certificates of it.
pub struct Site {
    authority: Authority,
    _dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let now = UnixTime::now();
        let authority =
            Authority::load_or_create(&RealDisk, &path("ca.key"), &path("ca.pem"), "site", now);
        Self { authority: authority.unwrap(), _dir: dir }
    }

    fn anchor(&self) -> Vec<u8> {
        self.authority.certificate_der().to_vec()
    }

    fn gateway(&self, name: &str) -> (Vec<Vec<u8>>, SecretKey) {
        self.issue(&Profile::GatewayTls { gateway: name.parse().unwrap(), site: "site".into() })
    }

    fn device(&self) -> Arc<rustls::ClientConfig> {
        let device = "pump-7".parse().unwrap();
        let (chain, key) = self.issue(&Profile::DeviceTls { device, site: "site".into() });
        tls::client(Some((&chain, &key)), &[self.anchor()], Alpn::None).unwrap()
    }

    fn issue(&self, profile: &Profile) -> (Vec<Vec<u8>>, SecretKey) {
        let key = keys::file::draw(Algorithm::Esp256).unwrap();
        let now = UnixTime::now();
        let end = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 86_400));
        let spki = key.public().to_spki_der();
        let certificate = self.authority.issue(&spki, profile, now, NotAfter::At(end)).unwrap();
        (vec![certificate], key)
    }
}

/// A device at work, without a source: the test is its source.
struct Rig {
    samples: mpsc::Sender<Sample>,
    words: mpsc::Sender<Word>,
    outbox: Outbox,
    seen: watch::Receiver<Seen>,
    move_on: Arc<Notify>,
    stop: watch::Sender<bool>,
    link: tokio::task::JoinHandle<Result<(), agent::backlog::BacklogError>>,
    device: std::thread::JoinHandle<Result<(), agent::backlog::BacklogError>>,
    next: i64,
}

impl Rig {
    /// Starts a device in a directory; a key is made if there is none.
    fn start(dir: &Path, site: &Site, key: &Arc<SecretKey>, gateways: &[(&str, &Gateway)]) -> Self {
        let disk: SharedDisk = Arc::new(RealDisk);
        let config =
            BacklogConfig { dir: dir.to_owned(), bytes_max: BYTES_DEFAULT, full: Full::Oldest };
        let (backlog, _) = Backlog::open(disk.clone(), config).unwrap();
        let id = key.public().id();
        Counters::create(&*disk, dir, id).unwrap();
        let durable = backlog.newest().map(|prior| prior.counter);
        let counters = Counters::begin(&*disk, dir, id, durable).unwrap();
        let sealer = Sealer::new(key.clone(), counters, backlog.newest());
        let outbox = backlog.outbox();
        let (samples, samples_in) = mpsc::channel(SAMPLES_MAX);
        let (words, words_in) = mpsc::channel(WORDS_MAX);
        let (seen_out, seen) = watch::channel(Seen::default());
        let device = Device {
            backlog,
            sealer,
            clock: Arc::new(SystemClock),
            patient: false,
            status: dir.join("status.json"),
        };
        let device =
            std::thread::spawn(move || driver::run(device, samples_in, words_in, seen_out));
        let (stop, stopped) = watch::channel(false);
        let move_on = Arc::new(Notify::new());
        let place = |(name, gateway): &(&str, &Gateway)| -> Place {
            format!("{name}@{}", gateway.address).parse().unwrap()
        };
        let link = Link {
            device: "pump-7".into(),
            site: "site".into(),
            gateways: gateways.iter().map(place).collect(),
            tls: watch::channel(site.device()).1,
            outbox: outbox.clone(),
            seen: seen.clone(),
            words: words.clone(),
            move_on: move_on.clone(),
            stop: stopped,
        };
        let link = tokio::spawn(link.run());
        Self { samples, words, outbox, seen, move_on, stop, link, device, next: 0 }
    }

    /// Makes the device seal a pack at once: 256 readings fill one.
    async fn pack(&mut self) {
        for _ in 0..256 {
            let reading = Reading {
                time: FLOOR,
                series: SeriesName::new("n").unwrap(),
                value: Value::Int(self.next),
                unit: None,
            };
            self.samples.send(Sample { reading, next: None }).await.unwrap();
            self.next += 1;
        }
    }

    async fn until(&mut self, what: impl FnMut(&Seen) -> bool) {
        let limit = Duration::from_secs(30);
        tokio::time::timeout(limit, self.seen.wait_for(what)).await.expect("within 30 s").unwrap();
    }

    async fn end(self) {
        let (done, is_done) = oneshot::channel();
        self.words.send(Word::Finish(done)).await.unwrap();
        is_done.await.unwrap();
        self.stop.send_replace(true);
        self.link.await.unwrap().unwrap();
        drop(self.words);
        self.device.join().unwrap().unwrap();
    }
}

fn key() -> Arc<SecretKey> {
    Arc::new(keys::file::draw(Algorithm::Ed25519).unwrap())
}

/// Header and payload of an envelope whose signature is the device's.
fn open(envelope: &[u8], key: &SecretKey) -> (Header, Vec<u8>) {
    let open = cose::open(envelope, MESSAGE_BYTES_MAX).unwrap();
    let verified = open.verify(key.public()).unwrap();
    (verified.header().clone(), verified.payload().to_vec())
}

#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again_in_order_with_dup_0() {
    let (site, key, dir) = (Site::new(), key(), tempfile::tempdir().unwrap());
    // Of the first session's envelopes one is acknowledged, then the line is cut.
    let answer = |session, publish| match (session, publish) {
        (0, 0) => Answer::Puback(0),
        (0, 1) => Answer::Nothing,
        (0, _) => Answer::Cut,
        _ => Answer::Puback(0),
    };
    let mut gw = Gateway::start("gw-1", &site, Manners { answer, ..Manners::default() }).await;
    let mut rig = Rig::start(dir.path(), &site, &key, &[("gw-1", &gw)]);
    for _ in 0..4 {
        rig.pack().await;
    }
    let mut sequences = [vec![], vec![]];
    while sequences[1].len() < 3 {
        let (session, envelope) = gw.publish().await;
        sequences[session].push(open(&envelope, &key).0.counter.sequence);
    }
    assert_eq!(sequences[0][..3], [0, 1, 2]);
    assert_eq!(sequences[1], [1, 2, 3]);
    rig.until(|seen| seen.below == 4).await;
    rig.end().await;
}

#[tokio::test]
async fn an_envelope_says_that_its_gateways_nonce_was_heard() {
    let (site, key, dir) = (Site::new(), key(), tempfile::tempdir().unwrap());
    let mut gw = Gateway::start("gw-1", &site, Manners::default()).await;
    let mut rig = Rig::start(dir.path(), &site, &key, &[("gw-1", &gw)]);
    assert_eq!(gw.next().await, Saw::Connect { session: 0 });
    // The nonce is on its way to the device's thread: one of the next packs has it, and all after that one.
    let mut heard = Vec::new();
    while heard.last() != Some(&Some(nonce("gw-1"))) {
        rig.pack().await;
        let header = open(&gw.publish().await.1, &key).0;
        heard.push(header.heard.map(|heard| heard.nonce));
    }
    rig.pack().await;
    let header = open(&gw.publish().await.1, &key).0;
    assert_eq!(header.heard.map(|heard| heard.nonce), Some(nonce("gw-1")));
    rig.end().await;
}

#[tokio::test]
async fn a_gateway_that_says_not_now_is_asked_again_and_then_left_and_nothing_is_lost() {
    for code in [0x87, 0x97] {
        let (site, key, dir) = (Site::new(), key(), tempfile::tempdir().unwrap());
        let answer =
            if code == 0x87 { |_, _| Answer::Puback(0x87) } else { |_, _| Answer::Puback(0x97) };
        let mut full =
            Gateway::start("gw-1", &site, Manners { answer, ..Manners::default() }).await;
        let mut free = Gateway::start("gw-2", &site, Manners::default()).await;
        let mut rig = Rig::start(dir.path(), &site, &key, &[("gw-1", &full), ("gw-2", &free)]);
        rig.pack().await;
        let (_, taken) = free.publish().await;
        rig.until(|seen| seen.below == 1).await;
        rig.end().await;
        let mut asked = Vec::new();
        while let Ok(saw) = full.saw.try_recv() {
            if let Saw::Publish { session, envelope, .. } = saw {
                assert_eq!(envelope, taken, "what is sealed is never sealed again");
                asked.push(session);
            }
        }
        assert_eq!(asked, [0, 1, 2, 3], "{code:#x}");
    }
}

#[tokio::test]
async fn a_refused_envelope_is_stated_as_lost_and_the_rest_goes_on() {
    let (site, key, dir) = (Site::new(), key(), tempfile::tempdir().unwrap());
    let answer = |session, publish| match (session, publish) {
        (0, 1) => Answer::Puback(0x99),
        _ => Answer::Puback(0),
    };
    let mut gw = Gateway::start("gw-1", &site, Manners { answer, ..Manners::default() }).await;
    let mut rig = Rig::start(dir.path(), &site, &key, &[("gw-1", &gw)]);
    for _ in 0..3 {
        rig.pack().await;
    }
    let mut sent = Vec::new();
    while sent.len() < 4 {
        let (header, payload) = open(&gw.publish().await.1, &key);
        sent.push(header.counter.sequence);
        if header.kind == Kind::LossNotice {
            let ranges = decode_loss(&payload).unwrap();
            let ranges: Vec<_> = ranges.iter().map(|r| (r.first, r.last, r.cause)).collect();
            assert_eq!(ranges, [(1, 1, LossCause::Refused)]);
        }
    }
    sent.sort_unstable();
    assert_eq!(sent, [0, 1, 2, 3]);
    rig.until(|seen| seen.below == 4).await;
    rig.end().await;
}

#[tokio::test]
async fn a_gateway_that_takes_short_packets_only_is_left_and_nothing_is_dropped_for_it() {
    let (site, key, dir) = (Site::new(), key(), tempfile::tempdir().unwrap());
    let properties = vec![0x27, 0, 0, 1, 0];
    let mut short =
        Gateway::start("gw-1", &site, Manners { properties, ..Manners::default() }).await;
    let mut long = Gateway::start("gw-2", &site, Manners::default()).await;
    let mut rig = Rig::start(dir.path(), &site, &key, &[("gw-1", &short), ("gw-2", &long)]);
    rig.pack().await;
    let header = open(&long.publish().await.1, &key).0;
    assert_eq!((header.kind, header.counter.sequence), (Kind::Readings, 0));
    assert_eq!(short.next().await, Saw::Connect { session: 0 });
    assert_eq!(short.next().await, Saw::Disconnect { session: 0 });
    rig.until(|seen| seen.below == 1).await;
    rig.end().await;
}

#[tokio::test]
async fn a_device_that_is_told_to_moves_on_to_the_next_gateway_and_round_again() {
    let (site, key, dir) = (Site::new(), key(), tempfile::tempdir().unwrap());
    let mut one = Gateway::start("gw-1", &site, Manners::default()).await;
    let mut two = Gateway::start("gw-2", &site, Manners::default()).await;
    let mut rig = Rig::start(dir.path(), &site, &key, &[("gw-1", &one), ("gw-2", &two)]);
    rig.pack().await;
    one.publish().await;
    rig.until(|seen| seen.below == 1).await;
    rig.move_on.notify_one();
    assert_eq!(one.next().await, Saw::Disconnect { session: 0 });
    rig.pack().await;
    assert_eq!(open(&two.publish().await.1, &key).0.counter.sequence, 1);
    rig.until(|seen| seen.below == 2).await;
    rig.move_on.notify_one();
    rig.pack().await;
    let (session, envelope) = one.publish().await;
    assert_eq!((session, open(&envelope, &key).0.counter.sequence), (1, 2));
    rig.end().await;
}

#[tokio::test]
async fn a_gateway_of_another_name_or_site_is_not_talked_to() {
    let (site, other, key, dir) = (Site::new(), Site::new(), key(), tempfile::tempdir().unwrap());
    let mut misnamed = Gateway::start("gw-9", &site, Manners::default()).await;
    let mut foreign = Gateway::start("gw-2", &other, Manners::default()).await;
    let mut ours = Gateway::start("gw-3", &site, Manners::default()).await;
    let gateways = [("gw-1", &misnamed), ("gw-2", &foreign), ("gw-3", &ours)];
    let mut rig = Rig::start(dir.path(), &site, &key, &gateways);
    rig.pack().await;
    ours.publish().await;
    assert!(misnamed.saw.try_recv().is_err() && foreign.saw.try_recv().is_err());
    rig.until(|seen| seen.below == 1).await;
    rig.end().await;
}

#[tokio::test]
async fn what_a_device_sealed_while_no_gateway_was_there_is_sent_by_its_next_life() {
    let (site, key, dir) = (Site::new(), key(), tempfile::tempdir().unwrap());
    let mut gw = Gateway::start("gw-1", &site, Manners::default()).await;
    let nowhere =
        Gateway { address: "127.0.0.1:1".parse().unwrap(), saw: mpsc::unbounded_channel().1 };
    let mut rig = Rig::start(dir.path(), &site, &key, &[("gw-1", &nowhere)]);
    for _ in 0..3 {
        rig.pack().await;
    }
    rig.until(|seen| seen.end == 3).await;
    assert_eq!(rig.outbox.below(), 0);
    rig.end().await;
    let mut rig = Rig::start(dir.path(), &site, &key, &[("gw-1", &gw)]);
    rig.pack().await;
    let mut counters = Vec::new();
    let mut priors = Vec::new();
    for _ in 0..4 {
        let header = open(&gw.publish().await.1, &key).0;
        counters.push((header.counter.epoch, header.counter.sequence));
        priors.extend(header.prior.map(|prior| (prior.counter.epoch, prior.counter.sequence)));
    }
    assert_eq!(counters, [(1, 0), (1, 1), (1, 2), (2, 0)]);
    assert_eq!(priors, [(1, 2)]);
    rig.until(|seen| seen.below == 4).await;
    rig.end().await;
}
