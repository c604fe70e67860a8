//! Who this gateway is: enrolled at its first start, renewed before its certificates end.

use crate::config::Config;
use crate::error::GatewayError;
use crate::limits::Backoff;
use crate::sealer::{Epoch, Sealer, epoch};
use disk::SharedDisk;
use keys::UnixTime;
use keys::est;
use keys::identity::{Identity, Settings, Station, anchors, enrol_or_load, place_anchors};
use model::envelope::Algorithm;
use model::told;
use std::time::Duration;
use trust::cose::Signer as _;

/// Loads the identity, and asks for what is missing in it, until control answers and the disk has room for the next epoch.
/// Refusals that asking again cannot mend end the start.
pub(crate) async fn born(
    config: &Config,
    disk: &SharedDisk,
) -> Result<(Identity, Sealer, est::Server), GatewayError> {
    place_anchors(disk, &config.data, config.site_ca.as_deref())?;
    let est = est::Server::new(&config.control, anchors(disk, &config.data)?);
    let settings = Settings {
        dir: config.data.clone(),
        station: Station::Gateway,
        seal_algorithm: Algorithm::Ed25519,
    };
    let mut backoff = Backoff::new(config.retry_max);
    let mut identity = loop {
        match enrol_or_load(disk, &settings, &est, UnixTime::now()).await {
            Ok(identity) => break identity,
            Err(error) => retry(error, &mut backoff, "gateway is not enrolled yet").await?,
        }
    };
    if let Some(expected) = config.name.as_ref().filter(|n| n.as_str() != identity.id().as_str()) {
        let (expected, found) = (expected.clone(), identity.id().clone());
        return Err(GatewayError::OtherName { expected, found });
    }
    let sealer = loop {
        let key = identity.seal().key.public().id();
        let last = match epoch(&**disk, &config.data, &key)? {
            Epoch::Known(last) => Some(last),
            Epoch::New => None,
            Epoch::Lost if never_sealed(config, disk)? => None,
            // INV-REPLAY-2: a counter that cannot be read retires its key.
            Epoch::Lost => {
                tracing::warn!(%key, "the epoch of the sealing key is lost: the key is replaced");
                match identity.rotate_seal_key(&est, Algorithm::Ed25519).await {
                    Ok(_) => None,
                    Err(error) => {
                        retry(error, &mut backoff, "sealing key is not replaced yet").await?;
                        continue;
                    }
                }
            }
        };
        let key = identity.seal().key.clone();
        match Sealer::begin(&**disk, &config.data, key, last) {
            Ok(sealer) => break sealer.ok_or(GatewayError::NoMoreEpochs)?,
            // What is in the spool cannot be handed up without it, and it has no room of its own left.
            Err(error) if error.is_full() => {
                let wait = backoff.wait(random(), None);
                let wait_ms = wait.as_millis() as u64;
                tracing::error!(error = %told(&error), wait_ms, "the disk is full: waits for room");
                tokio::time::sleep(wait).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    Ok((identity, sealer, est))
}

/// Before the first record was admitted nothing was handed up, and so nothing sealed.
fn never_sealed(config: &Config, disk: &SharedDisk) -> Result<bool, GatewayError> {
    let spool = config.data.join("spool");
    let error = |source| GatewayError::File { attempt: "look for", path: spool.clone(), source };
    Ok(!disk.exists(&spool).map_err(error)?)
}

async fn retry(
    error: keys::identity::IdentityError,
    backoff: &mut Backoff,
    what: &str,
) -> Result<(), GatewayError> {
    let Some(asked) = error.retry_after() else { return Err(error.into()) };
    let wait = backoff.wait(random(), Some(asked));
    tracing::warn!(error = %told(&error), wait_ms = wait.as_millis() as u64, "{what}");
    tokio::time::sleep(wait).await;
    Ok(())
}

/// A number for jitter. Without randomness every gateway waits the same time, which is all that is lost.
pub(crate) fn random() -> u64 {
    getrandom::u64().unwrap_or(0)
}

/// When to look again whether a certificate nears its end.
pub(crate) const RENEWAL_LOOK: Duration = Duration::from_secs(600);
