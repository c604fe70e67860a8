//! A station's identity in a directory: what a device or a gateway is born with, and what its site gave it.
//!
//! ```text
//! idevid.key  idevid.csr  idevid.pem     born with; the maker's authority certified it
//! site-ca.pem                            the site's authorities, placed by who provisions the station
//! tls.key     tls.pem                    P-256, for TLS only
//! seal-<key id>.key  seal-<key id>.pem   seals messages, and nothing else (INV-PURP-1)
//! seal.current                           "current <key id>\n", after a rotation also "retired <key id>\n"
//! ```
//!
//! Each step can be cut off anywhere and is done again: a key is durable before the request that names it leaves, its
//! certificate is durable before `seal.current` names the key, and a key file that no one names yet is used before
//! another is made. So a key that was certified is never lost, and no step leaves more than one file too many.
//!
//! A retired sealing key is erased: what it sealed carries its signature for ever and is never sealed again, so that
//! only a thief could still use it. Its id lives on in the first message of the next key (`prior`).

use crate::UnixTime;
use crate::cert::{self, CertError, Issuers, Leaf, NotAfter, Role};
use crate::csr::{self, CsrError};
use crate::est::{Caller, Est, EstError, Operation, Purpose};
use crate::file::{self, KeyError};
use crate::pem::{self, NotPem};
use crate::tls::{self, Alpn, ClientAuth, TlsError};
use disk::SharedDisk;
use model::envelope::Algorithm;
use model::id::BadName;
use model::{DeviceId, GatewayId, KeyId};
use rustls::{ClientConfig, ServerConfig};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use trust::cose::{SecretKey, Signer as _};

const IDEVID_KEY: &str = "idevid.key";
const IDEVID_CSR: &str = "idevid.csr";
const IDEVID_PEM: &str = "idevid.pem";
const SITE_CA: &str = "site-ca.pem";
const TLS_KEY: &str = "tls.key";
const TLS_PEM: &str = "tls.pem";
const CURRENT: &str = "seal.current";

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("cannot read or write `{}`", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("`{}` holds no certificate", path.display())]
    NotPem { path: PathBuf, source: NotPem },
    #[error("`{}` holds a certificate that cannot be used", path.display())]
    Certificate { path: PathBuf, source: CertError },
    #[error("`{}` holds the certificate of another key than `{}`", cert.display(), key.display())]
    NotItsKey { cert: PathBuf, key: PathBuf },
    #[error("`{}` is a certificate of {found}, expected {expected}", path.display())]
    WrongRole { path: PathBuf, expected: String, found: String },
    #[error("`{}` does not name a key: expected `current <key id>`", path.display())]
    BadPointer { path: PathBuf },
    #[error("the serial number of this station is not a name")]
    BadSerial(#[from] BadName),
    #[error(transparent)]
    Request(#[from] CsrError),
    #[error("cannot enrol: the EST server gave no certificate")]
    Est(#[from] EstError),
    #[error("cannot enrol: the EST server answered without a certificate for the key that asked")]
    NotOurs,
    #[error("cannot enrol: the EST server gave a certificate that cannot be used")]
    Unfit(#[source] CertError),
    #[error("cannot enrol: the EST server gave a certificate of {found}, expected {expected}")]
    OtherRole { expected: String, found: String },
}

impl IdentityError {
    /// How long to wait at least before trying again; `None`: trying again would bring the same answer.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Est(error) => error.retry_after(),
            _ => None,
        }
    }
}

/// As what a station expects to be enrolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Station {
    Device,
    Gateway,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub dir: PathBuf,
    pub station: Station,
    /// Of sealing keys that are made from now on.
    pub seal_algorithm: Algorithm,
}

/// A key that its site has certified.
#[derive(Clone)]
pub struct Certified {
    pub key: Arc<SecretKey>,
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    pub leaf: Leaf,
}

/// A station that is enrolled.
pub struct Identity {
    files: Files,
    id: DeviceId,
    anchors: Vec<Vec<u8>>,
    tls: Certified,
    seal: Certified,
}

/// Makes the key that a station is born with, and the request for its certificate (DER; also in `idevid.csr`). Done
/// again, it keeps the key.
pub fn prepare(disk: &SharedDisk, dir: &Path, serial: &str) -> Result<Vec<u8>, IdentityError> {
    cert::device_id(serial)?;
    let files = Files::new(disk, dir);
    disk.create_dir_all(dir).map_err(|source| files.error("", source))?;
    let key = file::load_or_generate(&**disk, &files.path(IDEVID_KEY), Algorithm::Esp256)?;
    let request = csr::make(&key, serial)?;
    files.write(IDEVID_CSR, &pem::encode(pem::CERTIFICATE_REQUEST, &request))?;
    Ok(request)
}

/// Gives a prepared station its birth certificate and its site's authorities (all DER).
pub fn provision(
    disk: &SharedDisk,
    dir: &Path,
    idevid: &[u8],
    site_anchors: &[Vec<u8>],
) -> Result<(), IdentityError> {
    let files = Files::new(disk, dir);
    for anchor in site_anchors {
        cert::certificate(anchor)
            .and_then(|anchor| cert::check_authority(&anchor))
            .map_err(|source| files.bad(SITE_CA, source))?;
    }
    files.write(SITE_CA, &pem::encode_all(pem::CERTIFICATE, site_anchors.iter().map(|a| &**a)))?;
    files.write(IDEVID_PEM, &pem::encode(pem::CERTIFICATE, idevid))?;
    files.idevid().map(|_| ())
}

/// Copies the site's authorities from the file that a station was given into its directory, which is made if need be. It
/// keeps those that it has.
pub fn place_anchors(
    disk: &SharedDisk,
    dir: &Path,
    given: Option<&Path>,
) -> Result<(), IdentityError> {
    let files = Files::new(disk, dir);
    disk.create_dir_all(dir).map_err(|source| files.error("", source))?;
    let Some(given) = given else { return Ok(()) };
    if files.exists(SITE_CA)? {
        return Ok(());
    }
    let given_error = |source| IdentityError::File { path: given.to_owned(), source };
    let bytes = disk.read(given, pem::FILE_BYTES_MAX).map_err(given_error)?;
    disk::replace(&**disk, &files.path(SITE_CA), &bytes)
        .map_err(|source| files.error(SITE_CA, source))
}

/// The authorities that a station's site is known by, from its directory.
pub fn anchors(disk: &SharedDisk, dir: &Path) -> Result<Vec<Vec<u8>>, IdentityError> {
    Files::new(disk, dir).certificates(SITE_CA)
}

/// The identity in the directory; what is missing in it is asked for. Nobody is asked when nothing is missing. A TLS
/// certificate that has run out is asked for anew with the IDevID: a station may have lain on a shelf.
pub async fn enrol_or_load(
    disk: &SharedDisk,
    settings: &Settings,
    est: &impl Est,
    now: UnixTime,
) -> Result<Identity, IdentityError> {
    let files = Files::new(disk, &settings.dir);
    files.settle()?;
    let (idevid, id) = files.idevid()?;
    let anchors = files.certificates(SITE_CA)?;
    let role = match settings.station {
        Station::Device => Role::Device(id.clone()),
        Station::Gateway => Role::Gateway(GatewayId::new(id.as_str())?),
    };
    let tls = match files.tls(&role)? {
        Some(tls) if !has_ended(&tls.leaf, now) => tls,
        _ => {
            let path = files.path(TLS_KEY);
            let key = file::load_or_generate(&**disk, &path, Algorithm::Esp256)?;
            let ask = Ask::new(&idevid, &role, &anchors);
            let tls = ask.enrol(est, Operation::Enroll, Purpose::Tls, Arc::new(key)).await?;
            files.write_chain(TLS_PEM, &tls.chain)?;
            tls
        }
    };
    let role = Role::Seal(id.as_str().to_owned());
    let seal = match files.seal(&role)? {
        Some(seal) => seal,
        None => {
            let ask = Ask::new(&tls, &role, &anchors);
            files.new_seal(&ask, est, settings.seal_algorithm, None).await?
        }
    };
    Ok(Identity { files, id, anchors, tls, seal })
}

impl Identity {
    pub fn id(&self) -> &DeviceId {
        &self.id
    }

    pub fn site(&self) -> &str {
        self.tls.leaf.site.as_deref().expect("a device's or gateway's certificate names its site")
    }

    pub fn anchors(&self) -> &[Vec<u8>] {
        &self.anchors
    }

    pub fn tls(&self) -> &Certified {
        &self.tls
    }

    /// The key that seals from now on.
    pub fn seal(&self) -> &Certified {
        &self.seal
    }

    /// The end that calls, as this station.
    pub fn client_config(&self, alpn: Alpn) -> Result<Arc<ClientConfig>, TlsError> {
        tls::client(Some((&self.tls.chain, &self.tls.key)), &self.anchors, alpn)
    }

    /// The end that listens, as this station: for those that the same site certified.
    pub fn server_config(
        &self,
        auth: ClientAuth,
        alpn: Alpn,
    ) -> Result<Arc<ServerConfig>, TlsError> {
        tls::server(&self.tls.chain, &self.tls.key, &self.anchors, auth, alpn)
    }

    pub fn tls_needs_renewal(&self, now: UnixTime) -> bool {
        self.tls.leaf.needs_renewal(now)
    }

    pub fn seal_needs_rotation(&self, now: UnixTime) -> bool {
        self.seal.leaf.needs_renewal(now)
    }

    /// A new certificate for the present TLS key. The key stays, so that gateways which have not heard of the renewal
    /// yet still let it in.
    pub async fn renew_tls(&mut self, est: &impl Est) -> Result<(), IdentityError> {
        let ask = Ask::new(&self.tls, &self.tls.leaf.role, &self.anchors);
        let key = self.tls.key.clone();
        let tls = ask.enrol(est, Operation::Reenroll, Purpose::Tls, key).await?;
        self.files.write_chain(TLS_PEM, &tls.chain)?;
        self.tls = tls;
        Ok(())
    }

    /// A new sealing key, current once this returns; the old one is erased then. After an error or a cut the old one
    /// seals on, or, if the new one's certificate was durable already, the next start goes on with the new one.
    pub async fn rotate_seal_key(
        &mut self,
        est: &impl Est,
        algorithm: Algorithm,
    ) -> Result<KeyId, IdentityError> {
        let ask = Ask::new(&self.tls, &self.seal.leaf.role, &self.anchors);
        let old = self.seal.key.public().id();
        self.seal = self.files.new_seal(&ask, est, algorithm, Some(old)).await?;
        Ok(self.seal.key.public().id())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, tls, seal, .. } = self;
        write!(f, "Identity({}, {tls:?}, {seal:?})", files.dir.display())
    }
}

impl fmt::Debug for Certified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {:?}", self.leaf.role, self.key)
    }
}

fn has_ended(leaf: &Leaf, now: UnixTime) -> bool {
    matches!(leaf.not_after, NotAfter::At(until) if now > until)
}

/// One question to an EST server, and what its answer must be.
struct Ask<'a> {
    caller: Caller<'a>,
    /// What the caller's own certificate names: a request has the subject of who asks (RFC 7030 §4.2.2).
    subject: &'a str,
    role: &'a Role,
    anchors: &'a [Vec<u8>],
}

impl<'a> Ask<'a> {
    fn new(who: &'a Certified, role: &'a Role, anchors: &'a [Vec<u8>]) -> Self {
        let caller = Caller { chain: &who.chain, key: &who.key };
        Self { caller, subject: who.leaf.role.name(), role, anchors }
    }

    async fn enrol(
        &self,
        est: &impl Est,
        operation: Operation,
        purpose: Purpose,
        key: Arc<SecretKey>,
    ) -> Result<Certified, IdentityError> {
        let request = csr::make(&*key, self.subject)?;
        let answer = est.enroll(self.caller, operation, purpose, &request).await?;
        let spki = key.public().to_spki_der();
        let is_ours = |der: &&Vec<u8>| Leaf::parse(der).is_ok_and(|leaf| leaf.spki_der == spki);
        let der = answer.iter().find(is_ours).ok_or(IdentityError::NotOurs)?.clone();
        let leaf = granted(&der, self.anchors).map_err(IdentityError::Unfit)?;
        if leaf.role != *self.role {
            let (expected, found) = (self.role.to_string(), leaf.role.to_string());
            return Err(IdentityError::OtherRole { expected, found });
        }
        Ok(Certified { key, chain: vec![der], leaf })
    }
}

/// What a certificate says, if one of the anchors signed it. No time is looked at: this station's clock may be wrong,
/// and an end that is right will say so.
fn granted(der: &[u8], anchors: &[Vec<u8>]) -> Result<Leaf, CertError> {
    let site = Leaf::parse(der)?.site.unwrap_or_default();
    Issuers::new(&site, anchors.to_vec(), vec![])?.granted(der)
}

/// The files of one directory.
struct Files {
    disk: SharedDisk,
    dir: PathBuf,
}

/// What `seal.current` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pointer {
    current: KeyId,
    retired: Option<KeyId>,
}

impl Files {
    fn new(disk: &SharedDisk, dir: &Path) -> Self {
        Self { disk: disk.clone(), dir: dir.to_owned() }
    }

    /// What is seen from here on is durable: who wrote it may have been killed before it was. Sealing keys that never
    /// came to have their name are erased.
    fn settle(&self) -> Result<(), IdentityError> {
        let dir = |source| self.error("", source);
        for name in self.disk.list(&self.dir).map_err(dir)? {
            if name.starts_with("seal-") && name.ends_with(".key.new") {
                self.disk.remove(&self.path(&name)).map_err(|source| self.error(&name, source))?;
            }
        }
        self.disk.sync_dir(&self.dir).map_err(dir)
    }

    fn idevid(&self) -> Result<(Certified, DeviceId), IdentityError> {
        let chain = self.certificates(IDEVID_PEM)?;
        let certified = self.certified(IDEVID_KEY, IDEVID_PEM, chain)?;
        let Role::IDevId { serial } = &certified.leaf.role else {
            return Err(self.wrong_role(IDEVID_PEM, "an IDevID", &certified.leaf.role));
        };
        let id = cert::device_id(serial)?;
        Ok((certified, id))
    }

    fn tls(&self, role: &Role) -> Result<Option<Certified>, IdentityError> {
        if self.exists(TLS_PEM)? {
            self.of_role(TLS_KEY, TLS_PEM, role).map(Some)
        } else {
            Ok(None)
        }
    }

    /// The current sealing key, after what a cut left undone is done.
    fn seal(&self, role: &Role) -> Result<Option<Certified>, IdentityError> {
        let mut pointer = self.pointer()?;
        self.erase_retired(pointer)?;
        let certified = self.loose_keys(pointer)?.into_iter().find(|(_, certified)| *certified);
        if let Some((id, _)) = certified {
            pointer = Some(self.point_at(id, pointer.map(|pointer| pointer.current))?);
        }
        let Some(Pointer { current, .. }) = pointer else { return Ok(None) };
        self.of_role(&seal_key(current), &seal_pem(current), role).map(Some)
    }

    /// A new sealing key, from its file to `seal.current`.
    async fn new_seal(
        &self,
        ask: &Ask<'_>,
        est: &impl Est,
        algorithm: Algorithm,
        old: Option<KeyId>,
    ) -> Result<Certified, IdentityError> {
        self.settle()?;
        let pointer = self.pointer()?;
        self.erase_retired(pointer)?;
        let key = match self.loose_keys(pointer)?.first() {
            // Left by a cut or by an answer that was not yes.
            Some((id, _)) => file::load(&*self.disk, &self.path(&seal_key(*id)))?,
            None => {
                let key = file::draw(algorithm)?;
                file::save(&*self.disk, &self.path(&seal_key(key.public().id())), &key)?;
                key
            }
        };
        let seal = ask.enrol(est, Operation::Enroll, Purpose::Seal, Arc::new(key)).await?;
        let id = seal.key.public().id();
        self.write_chain(&seal_pem(id), &seal.chain)?;
        self.point_at(id, old)?;
        Ok(seal)
    }

    fn point_at(&self, current: KeyId, retired: Option<KeyId>) -> Result<Pointer, IdentityError> {
        let mut text = format!("current {current}\n");
        if let Some(retired) = retired {
            text.push_str(&format!("retired {retired}\n"));
        }
        self.write(CURRENT, &text)?;
        let pointer = Pointer { current, retired };
        self.erase_retired(Some(pointer))?;
        Ok(pointer)
    }

    fn pointer(&self) -> Result<Option<Pointer>, IdentityError> {
        if !self.exists(CURRENT)? {
            return Ok(None);
        }
        let text = self.read(CURRENT)?;
        let bad = || IdentityError::BadPointer { path: self.path(CURRENT) };
        let mut lines = std::str::from_utf8(&text).map_err(|_| bad())?.lines();
        let mut id = |word: &str| {
            lines
                .next()
                .map(|line| line.strip_prefix(word).and_then(KeyId::from_hex).ok_or_else(bad))
        };
        let current = id("current ").ok_or_else(bad)??;
        let retired = id("retired ").transpose()?;
        if lines.next().is_some() {
            return Err(bad());
        }
        Ok(Some(Pointer { current, retired }))
    }

    /// Sealing keys that `seal.current` does not name, and whether they have a certificate. By the order of writes
    /// there is at most one.
    fn loose_keys(&self, pointer: Option<Pointer>) -> Result<Vec<(KeyId, bool)>, IdentityError> {
        let names = self.disk.list(&self.dir).map_err(|source| self.error("", source))?;
        let mut loose = Vec::new();
        for name in names {
            let id = name.strip_prefix("seal-").and_then(|name| name.strip_suffix(".key"));
            let Some(id) = id.and_then(KeyId::from_hex) else { continue };
            if pointer.is_none_or(|pointer| id != pointer.current && Some(id) != pointer.retired) {
                loose.push((id, self.exists(&seal_pem(id))?));
            }
        }
        Ok(loose)
    }

    /// The private half first: without it the rest is harmless.
    fn erase_retired(&self, pointer: Option<Pointer>) -> Result<(), IdentityError> {
        let Some(Pointer { retired: Some(id), .. }) = pointer else { return Ok(()) };
        for name in [seal_key(id), seal_pem(id)] {
            if self.exists(&name)? {
                let path = self.path(&name);
                self.disk.remove(&path).map_err(|source| self.error(&name, source))?;
                self.disk.sync_dir(&self.dir).map_err(|source| self.error("", source))?;
            }
        }
        Ok(())
    }

    fn of_role(&self, key: &str, pem: &str, role: &Role) -> Result<Certified, IdentityError> {
        let certified = self.certified(key, pem, self.certificates(pem)?)?;
        if certified.leaf.role == *role {
            Ok(certified)
        } else {
            Err(self.wrong_role(pem, &role.to_string(), &certified.leaf.role))
        }
    }

    fn certified(
        &self,
        key_name: &str,
        pem_name: &str,
        chain: Vec<Vec<u8>>,
    ) -> Result<Certified, IdentityError> {
        let key = file::load(&*self.disk, &self.path(key_name))?;
        let leaf = Leaf::parse(&chain[0]).map_err(|source| self.bad(pem_name, source))?;
        if leaf.spki_der != key.public().to_spki_der() {
            let (cert, key) = (self.path(pem_name), self.path(key_name));
            return Err(IdentityError::NotItsKey { cert, key });
        }
        Ok(Certified { key: Arc::new(key), chain, leaf })
    }

    fn certificates(&self, name: &str) -> Result<Vec<Vec<u8>>, IdentityError> {
        pem::decode(pem::CERTIFICATE, &self.read(name)?)
            .map_err(|source| IdentityError::NotPem { path: self.path(name), source })
    }

    fn write_chain(&self, name: &str, chain: &[Vec<u8>]) -> Result<(), IdentityError> {
        self.write(name, &pem::encode_all(pem::CERTIFICATE, chain.iter().map(|der| &**der)))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), IdentityError> {
        disk::replace(&*self.disk, &self.path(name), text.as_bytes())
            .map_err(|source| self.error(name, source))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, IdentityError> {
        let read = self.disk.read(&self.path(name), pem::FILE_BYTES_MAX);
        read.map_err(|source| self.error(name, source))
    }

    fn exists(&self, name: &str) -> Result<bool, IdentityError> {
        self.disk.exists(&self.path(name)).map_err(|source| self.error(name, source))
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.dir.clone() } else { self.dir.join(name) }
    }

    fn error(&self, name: &str, source: io::Error) -> IdentityError {
        IdentityError::File { path: self.path(name), source }
    }

    fn bad(&self, name: &str, source: CertError) -> IdentityError {
        IdentityError::Certificate { path: self.path(name), source }
    }

    fn wrong_role(&self, name: &str, expected: &str, found: &Role) -> IdentityError {
        let (expected, found) = (expected.to_owned(), found.to_string());
        IdentityError::WrongRole { path: self.path(name), expected, found }
    }
}

fn seal_key(id: KeyId) -> String {
    format!("seal-{id}.key")
}

fn seal_pem(id: KeyId) -> String {
    format!("seal-{id}.pem")
}

#[cfg(test)]
mod tests;
