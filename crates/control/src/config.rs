//! What control is told at its start.

use crate::director::Terms;
use crate::releases::Source;
use disk::SharedDisk;
use keys::ca::Authority;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use traces::Traces;
use trust::cose::SecretKey;
use trust::mac::MacKey;

/// The shortest bearer token: 128 bits in hex. The token is a key, not a password.
pub const TOKEN_CHARS_MIN: usize = 32;

#[derive(Debug)]
pub struct Config {
    pub listen: SocketAddr,
    pub site: String,
    /// The registry's SQLite file, made if it is not there.
    pub registry: PathBuf,
    /// Signs what enrolment grants, and the listener's own certificate.
    pub authority: Arc<Authority>,
    /// The listener's own key.
    pub key: SecretKey,
    /// Where the listener's own certificate is kept, made if it is not there; renewed while control runs.
    pub certificate: PathBuf,
    /// Authorities whose IDevIDs are believed, in DER.
    pub makers: Vec<Vec<u8>>,
    /// What operators show.
    pub token: String,
    /// Cedar policies for gateways, as text. Refused at the start if they do not parse.
    pub policies: String,
    /// By which ingest knows that uplink judged a batch.
    pub bus_key: MacKey,
    pub director: Director,
    /// `None`: nothing is published, and everything else works.
    pub images: Option<Images>,
    /// The log of what was done.
    pub evidence: Evidence,
    /// Where traces are told of.
    pub traces: Traces,
    pub limits: Limits,
}

/// What the operator's Director is, besides its offline keys, which control never sees.
#[derive(Debug)]
pub struct Director {
    /// Its roots, one after the other, from the first that a device may have on.
    pub roots: Vec<Vec<u8>>,
    /// Signs timestamp, snapshot, targets and leases.
    pub key: SecretKey,
}

/// A vendor's image repository. No key of it is needed, or taken.
#[derive(Debug)]
pub struct Images {
    pub source: Arc<dyn Source>,
    /// The first root that is trusted; needed until one is kept.
    pub first_root: Option<Vec<u8>>,
    /// Where what was taken is kept, so that it never goes back.
    pub kept: PathBuf,
}

/// Where the evidence log is, and who signs its checkpoints.
#[derive(Debug)]
pub struct Evidence {
    pub disk: SharedDisk,
    /// Made if it is not there and the registry knows of no log.
    pub dir: PathBuf,
    /// Ed25519; it signs checkpoints and nothing else. The log's name is the site's, with `/evidence` behind it.
    pub key: SecretKey,
}

/// Every bound, and what happens beyond it.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at a time. One more is closed at once, and counted.
    pub connections_max: usize,
    /// A handshake that takes longer is given up, and counted.
    pub handshake_time_max: Duration,
    /// A connection that sends no whole head for so long, or nothing between two requests, is closed. Longer than clients
    /// pause between two calls, so that they seldom meet a connection that just went.
    pub header_time_max: Duration,
    /// A request that takes longer gets 503. Not for the long poll for a bundle, nor for queries.
    pub request_time_max: Duration,
    /// A query that takes longer gets 503; the store's own bounds are meant to be narrower.
    pub query_time_max: Duration,
    /// Uplink calls at a time, each of which holds up to 13 MiB. One more gets 503 and a time to wait; so does a second
    /// one of the same gateway.
    pub uplinks_max: usize,
    /// How many messages on the bus are remembered, so that a second attempt costs no second append; 136 bytes each. And
    /// as many records of quarantine, 48 bytes each.
    pub known: usize,
    /// Check-ins of one gateway at a time, until their work has ended. One more gets 503 and a time to wait: whatever a
    /// gateway does, the check-ins of the others wait behind so many of it and no more.
    pub check_ins_max: usize,
    /// How long open requests may take to end at a shutdown, before they are cut off.
    pub shutdown_time_max: Duration,
    /// How long a certificate lives, control's own too. A station renews it after two thirds of that.
    pub certificate_life: Duration,
    /// For how long a key that another has replaced may still be used to connect, or by a gateway to hand up: the answer
    /// with the new certificate may have been lost. After that the station enrols with its IDevID again. What a device
    /// sealed is believed under any key that it ever had.
    pub key_grace: Duration,
    /// The most sealing keys of one device in a bundle, the newest: what an older one sealed a gateway refuses and the
    /// device keeps. They are counted in the metrics.
    pub seal_keys_max: usize,
    /// The most new keys of one device and purpose in a day. One more gets 429 and a time to wait.
    pub keys_per_day_max: usize,
    /// How often it is looked which rules of alerts are due, and what time does to alerts. No rule is looked at more often.
    pub alerts_every: Duration,
    /// How often the vendor's repository is looked into.
    pub releases_every: Duration,
    /// Images that are on their way to gateways at a time. One more gets 503 and a time to wait.
    pub blobs_max: usize,
    /// A session that nobody uses for so long is over. Listening to a stream is no use.
    pub session_idle: Duration,
    /// And one that is used is over then: its user signs in again.
    pub session_life: Duration,
    /// Streams of changes at a time. One more gets 503 and a time to wait.
    pub streams_max: usize,
    /// Streams of one person or program at a time, so that none takes the places of the others.
    pub streams_each_max: usize,
    /// How often a stream says something when there is nothing to say. Then it is also asked again who listens.
    pub stream_alive: Duration,
    /// Who listens and takes nothing for so long is let go.
    pub stream_stall: Duration,
    pub director: Terms,
}

const DAY: Duration = Duration::from_secs(86_400);

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            handshake_time_max: Duration::from_secs(10),
            header_time_max: Duration::from_secs(30),
            request_time_max: Duration::from_secs(60),
            query_time_max: Duration::from_secs(600),
            uplinks_max: 16,
            known: 65_536,
            // Twice what a gateway of ours has under way.
            check_ins_max: 64,
            shutdown_time_max: Duration::from_secs(10),
            certificate_life: 90 * DAY,
            key_grace: 7 * DAY,
            // Forty years of a key every two months; five days of the most keys that a device may make. At 180 to 270 bytes
            // each they are under 70 KiB of a bundle, of which a gateway reads 32 MiB.
            seal_keys_max: 256,
            // A device that crashes and re-enrols every hour, twice over.
            keys_per_day_max: 48,
            alerts_every: Duration::from_secs(1),
            releases_every: Duration::from_secs(10),
            blobs_max: 32,
            // NIST SP 800-63B §4.2.3, of AAL2.
            session_idle: Duration::from_secs(30 * 60),
            session_life: Duration::from_secs(12 * 3600),
            // Every open page of a console is one.
            streams_max: 256,
            streams_each_max: 16,
            stream_alive: Duration::from_secs(15),
            stream_stall: Duration::from_secs(60),
            director: Terms::default(),
        }
    }
}
