//! Control's own certificate: what its listener shows, issued by the site's authority that it holds, and renewed while it
//! serves.
//!
//! Its life is that of every certificate of the site; past two thirds of it another takes its place. So whoever runs
//! control must look ([`Own::look`]) more often than a third of that life; the driver does every ten minutes. A
//! connection that stands keeps what it was shown. The newest one is kept in a file, so that a start under a clock that
//! has lost the time still has one that others believe; a file that cannot be used or written ends nothing.

use crate::enrol::BACKDATED_S;
use arc_swap::ArcSwap;
use disk::SharedDisk;
use keys::ca::{Authority, CaError, Profile};
use keys::cert::CertError;
use keys::tls::{self, Alpn, ClientAuth, TlsError};
use keys::{Issuers, Leaf, NotAfter, UnixTime, pem};
use model::told;
use rustls::ServerConfig;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use trust::cose::{SecretKey, Signer as _};

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("control's own certificate cannot be issued")]
    Issue(#[from] CaError),
    #[error("control's own certificate cannot be read")]
    Read(#[from] CertError),
    #[error("TLS cannot be set up with control's own certificate")]
    Tls(#[from] TlsError),
}

/// What it takes to make one.
#[derive(Debug)]
pub struct Terms {
    pub disk: SharedDisk,
    /// Where the newest is kept.
    pub path: PathBuf,
    pub site: String,
    pub key: SecretKey,
    pub authority: Arc<Authority>,
    /// Whose clients may connect.
    pub issuers: Issuers,
    pub life: Duration,
}

/// The present certificate and the TLS that shows it.
#[derive(Debug)]
pub struct Own {
    terms: Terms,
    present: ArcSwap<Present>,
}

#[derive(Debug)]
struct Present {
    leaf: Leaf,
    tls: Arc<ServerConfig>,
}

impl Own {
    /// Takes the one that was kept, if it is of this authority and key and not due at `now`, or issues another.
    pub fn open(terms: Terms, now: UnixTime) -> Result<Self, CertificateError> {
        let present = match terms.kept() {
            Some((leaf, der)) if !leaf.needs_renewal(now) => terms.present(leaf, der)?,
            _ => terms.issue(now)?,
        };
        Ok(Self { terms, present: ArcSwap::from_pointee(present) })
    }

    /// Issues another one if the present one is due at `now`: connections that begin from then on are shown it. Says
    /// whether it was. After an error the present one stays, and the next look tries again.
    pub fn look(&self, now: UnixTime) -> Result<bool, CertificateError> {
        if !self.present.load().leaf.needs_renewal(now) {
            return Ok(false);
        }
        self.present.store(Arc::new(self.terms.issue(now)?));
        Ok(true)
    }

    /// What a connection that begins now is served with.
    pub fn tls(&self) -> Arc<ServerConfig> {
        self.present.load().tls.clone()
    }

    /// When the present one ends, in seconds since 1970.
    pub fn expires_s(&self) -> u64 {
        match self.present.load().leaf.not_after {
            NotAfter::At(until) => until.as_secs(),
            NotAfter::Never => u64::MAX,
        }
    }
}

impl Terms {
    fn kept(&self) -> Option<(Leaf, Vec<u8>)> {
        let text = self.disk.read(&self.path, pem::FILE_BYTES_MAX).ok()?;
        let der = pem::decode(pem::CERTIFICATE, &text).ok()?.into_iter().next()?;
        let leaf = self.issuers.granted(&der).ok()?;
        let is_ours =
            leaf.role == keys::Role::Control && leaf.spki_der == self.key.public().to_spki_der();
        is_ours.then_some((leaf, der))
    }

    fn issue(&self, now: UnixTime) -> Result<Present, CertificateError> {
        let at = |seconds: u64| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        // Whose clock is behind ours must believe it from the first moment: it takes the place of one that was believed.
        let from = at(now.as_secs().saturating_sub(BACKDATED_S));
        let until = NotAfter::At(at(now.as_secs() + self.life.as_secs()));
        let profile = Profile::Control { site: self.site.clone() };
        let der = self.authority.issue(&self.key.public().to_spki_der(), &profile, from, until)?;
        let text = pem::encode(pem::CERTIFICATE, &der);
        if let Err(error) = disk::replace(self.disk.as_ref(), &self.path, text.as_bytes()) {
            let path = self.path.display();
            tracing::warn!(%path, error = %told(&error), "control's own certificate is not kept");
        }
        self.present(Leaf::parse(&der)?, der)
    }

    fn present(&self, leaf: Leaf, der: Vec<u8>) -> Result<Present, CertificateError> {
        let (auth, alpn) = (ClientAuth::Optional, Alpn::Http11);
        let tls = tls::server(&[der], &self.key, &self.issuers.anchors(), auth, alpn)?;
        Ok(Present { leaf, tls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk::{Cut, SimDisk};
    use model::envelope::Algorithm;
    use std::path::Path;

    const LIFE_DAYS: u64 = 90;

    fn day(days: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000 + days * 86_400))
    }

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_random(Algorithm::Esp256, &[seed; 32]).expect("these bytes do")
    }

    fn authority(disk: &SimDisk) -> Arc<Authority> {
        let (key, cert) = (Path::new("/ca.key"), Path::new("/ca.pem"));
        Arc::new(Authority::load_or_create(disk, key, cert, "site CA", day(0)).unwrap())
    }

    fn terms(disk: &SimDisk, authority: &Arc<Authority>, seed: u8) -> Terms {
        let anchors = vec![authority.certificate_der().to_vec()];
        Terms {
            disk: disk.shared(),
            path: "/control.pem".into(),
            site: "site".into(),
            key: key(seed),
            authority: authority.clone(),
            issuers: Issuers::new("site", anchors.clone(), anchors).unwrap(),
            life: Duration::from_secs(LIFE_DAYS * 86_400),
        }
    }

    /// Gateways and devices refuse one that has expired, and control may run for years.
    #[test]
    fn control_never_shows_a_certificate_that_has_expired_however_long_it_runs() {
        let disk = SimDisk::new(1);
        let own = Own::open(terms(&disk, &authority(&disk), 1), day(0)).unwrap();
        let mut renewed = Vec::new();
        for today in 0..1000 {
            let before = own.tls();
            let is_new = own.look(day(today)).unwrap();
            assert_eq!(is_new, !Arc::ptr_eq(&before, &own.tls()), "day {today}");
            assert!(own.expires_s() > day(today + LIFE_DAYS / 4).as_secs(), "day {today}");
            renewed.extend(is_new.then_some(today));
        }
        assert_eq!(renewed.len(), 16, "every two months: {renewed:?}");
    }

    #[test]
    fn a_start_takes_the_one_that_was_kept_unless_it_is_due_or_anothers() {
        let disk = SimDisk::new(1);
        let authority = authority(&disk);
        let opened = |seed, at| Own::open(terms(&disk, &authority, seed), day(at)).unwrap();
        let first = opened(1, 0).expires_s();
        assert_eq!(first, day(LIFE_DAYS).as_secs());
        assert_eq!(opened(1, 59).expires_s(), first);
        assert_eq!(opened(1, 61).expires_s(), day(61 + LIFE_DAYS).as_secs());
        assert_eq!(opened(2, 62).expires_s(), day(62 + LIFE_DAYS).as_secs(), "another key");
        disk::replace(&disk, Path::new("/control.pem"), b"noise").unwrap();
        assert_eq!(opened(2, 63).expires_s(), day(63 + LIFE_DAYS).as_secs());
        // A clock that has lost the time: what was kept is still believed by others.
        let lost = UnixTime::since_unix_epoch(Duration::ZERO);
        let own = Own::open(terms(&disk, &authority, 2), lost).unwrap();
        assert_eq!(own.expires_s(), day(63 + LIFE_DAYS).as_secs());
    }

    #[test]
    fn a_disk_that_takes_nothing_ends_no_renewal() {
        let disk = SimDisk::new(1);
        let own = Own::open(terms(&disk, &authority(&disk), 1), day(0)).unwrap();
        disk.set_cut(Cut::At(0));
        assert!(own.look(day(70)).unwrap());
        assert_eq!(own.expires_s(), day(70 + LIFE_DAYS).as_secs());
    }
}
