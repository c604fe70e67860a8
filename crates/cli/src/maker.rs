//! The demo's manufacturer: signs the birth certificates (IDevIDs, IEEE 802.1AR) of devices that made their keys
//! themselves. A real manufacturer has a CA of their own, and the site trusts its certificate instead.

use anyhow::{Context, Result};
use disk::Disk;
use keys::ca::{Authority, Profile};
use keys::{NotAfter, UnixTime, csr, pem};
use std::path::Path;

pub fn authority(disk: &dyn Disk, data: &Path, now: UnixTime) -> Result<Authority> {
    let dir = data.join("maker");
    disk.create_dir_all(&dir)?;
    Ok(Authority::load_or_create(
        disk,
        &dir.join("ca.key"),
        &dir.join("ca.pem"),
        "demo maker CA",
        now,
    )?)
}

/// Signs the CSR in `csr` and writes the certificate to `out`.
pub fn sign(disk: &dyn Disk, data: &Path, csr: &Path, out: &Path, now: UnixTime) -> Result<String> {
    let bytes =
        disk.read(csr, 64 * 1024).with_context(|| format!("cannot read {}", csr.display()))?;
    let request = csr::read(&pem::decode(pem::CERTIFICATE_REQUEST, &bytes)?[0])?;
    let serial = request.serial.context("the request names no serialNumber")?;
    let maker = authority(disk, data, now)?;
    let profile = Profile::IDevId { serial: serial.clone() };
    let der = maker.issue(&request.spki_der, &profile, now, NotAfter::Never)?;
    disk::replace(disk, out, pem::encode(pem::CERTIFICATE, &der).as_bytes())?;
    Ok(serial)
}
