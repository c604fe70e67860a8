//! Who this gateway is: enrolled at its first start, renewed before its certificates end.

use crate::config::Config;
use crate::error::{GatewayError, told};
use crate::limits::Backoff;
use crate::sealer::{Epoch, Sealer, epoch};
use disk::SharedDisk;
use keys::UnixTime;
use keys::est;
use keys::identity::{Identity, Settings, Station, anchors, enrol_or_load};
use model::envelope::Algorithm;
use std::time::Duration;
use trust::cose::Signer as _;

/// A list of authorities has a few KiB.
const SITE_CA_BYTES_MAX: u64 = 256 * 1024;
const SITE_CA: &str = "site-ca.pem";

/// Loads the identity, and asks for what is missing in it, until control answers. Refusals that asking again cannot mend
/// end the start.
pub(crate) async fn born(
    config: &Config,
    disk: &SharedDisk,
) -> Result<(Identity, Sealer, est::Server), GatewayError> {
    place_site_ca(config, disk)?;
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
        let sealer = Sealer::begin(&**disk, &config.data, key, last)?;
        break sealer.ok_or(GatewayError::NoMoreEpochs)?;
    };
    Ok((identity, sealer, est))
}

/// Before the first record was admitted nothing was handed up, and so nothing sealed.
fn never_sealed(config: &Config, disk: &SharedDisk) -> Result<bool, GatewayError> {
    let spool = config.data.join("spool");
    let error = |source| GatewayError::File { attempt: "look for", path: spool.clone(), source };
    Ok(!disk.exists(&spool).map_err(error)?)
}

fn place_site_ca(config: &Config, disk: &SharedDisk) -> Result<(), GatewayError> {
    let at = config.data.join(SITE_CA);
    let error = |attempt, path: &std::path::Path| {
        let path = path.to_owned();
        move |source| GatewayError::File { attempt, path, source }
    };
    disk.create_dir_all(&config.data).map_err(error("create", &config.data))?;
    if disk.exists(&at).map_err(error("look for", &at))? {
        return Ok(());
    }
    let Some(given) = &config.site_ca else { return Ok(()) };
    let bytes = disk.read(given, SITE_CA_BYTES_MAX).map_err(error("read", given))?;
    disk::replace(&**disk, &at, &bytes).map_err(error("write", &at))
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
