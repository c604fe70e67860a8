//! `plimsoll factory`: what a golden image needs to become a device of a site, for each serial number, and the signed list by
//! which the site admits all of them at once. `docs/factory.md`.
//!
//! ```text
//! FACTORY/factory.key  factory.pub      Ed25519; signs lists, and nothing else
//! OUT/BATCH.admission                   a signed list: serial numbers, roles, zones, groups; holds no secret
//! OUT/BATCH.bundles                     encrypted under a passphrase: what each device is given
//! ```
//!
//! Never: makes or holds a private key of a device. That is made on the device, where it stays.

mod batch;

use crate::exit::{Ended, Exit};
use crate::place::Place;
use crate::table::{self, Format};
use crate::terminal;
use anyhow::{Context, Result, bail, ensure};
use api::device::GROUP_DEFAULT;
use api::{Cell, Role};
use clap::Subcommand;
use disk::{Disk, RealDisk};
use keys::{file, pem};
use model::admission::{
    ADMISSION_MESSAGE_BYTES_MAX, AdmissionList, ENTRIES_MAX, Entry, Made, is_serial,
};
use model::envelope::Algorithm;
use model::{GroupId, Timestamp, ZoneId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use trust::cose::{PublicKey, Signer as _};

const KEY: &str = "factory.key";
const PUBLIC: &str = "factory.pub";
const CSV_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// A CA, or a root of TUF.
const ANCHOR_BYTES_MAX: u64 = 256 * 1024;
/// The label of a SubjectPublicKeyInfo in PEM (RFC 7468 §13).
const PUBLIC_KEY: &str = "PUBLIC KEY";

#[derive(Subcommand)]
pub enum Factory {
    /// Make the factory's key. Sites that believe this factory get factory.pub, by a way that they trust.
    #[command(after_help = "Example:\n  plimsoll factory init --factory line-3")]
    Init {
        #[arg(long, value_name = "DIR")]
        factory: PathBuf,
    },
    /// Prepare a batch: an encrypted file with what each device is given, and a signed list for the site.
    ///
    /// The CSV has a head line: serial, and, where they differ from the defaults, role, zone, group. The passphrase is asked
    /// for, or is a line on standard input.
    #[command(
        after_help = "Example:\n  plimsoll factory prepare --factory line-3 --csv w12.csv --batch w12 --est https://control.site.internal:18800 --gateway gw-1@gw-1.plant:8883 --site-ca ca.pem --director-root 1.root.json --image-root vendor-1.root.json --out batches"
    )]
    Prepare(Prepare),
    /// Take what one device is given out of a batch, as files for its image. The passphrase is as with `prepare`.
    #[command(
        after_help = "Example:\n  plimsoll factory open batches/w12.bundles --serial PUMP-1 --out image/etc/plimsoll"
    )]
    Open {
        bundles: PathBuf,
        #[arg(long)]
        serial: String,
        /// A directory; made if it is not there.
        #[arg(long)]
        out: PathBuf,
    },
    /// Check a list's signature, and show what it lists.
    #[command(
        after_help = "Example:\n  plimsoll factory show batches/w12.admission --key line-3/factory.pub"
    )]
    Show {
        list: PathBuf,
        #[arg(long)]
        key: PathBuf,
    },
}

#[derive(clap::Args)]
pub struct Prepare {
    #[arg(long, value_name = "DIR")]
    factory: PathBuf,
    #[arg(long, value_name = "FILE")]
    csv: PathBuf,
    /// Its name: 1 to 63 of a-z 0-9 . _ -
    #[arg(long)]
    batch: GroupId,
    /// Where devices enrol: https://HOST:PORT.
    #[arg(long, value_name = "URL")]
    est: String,
    /// As NAME@HOST:PORT; at least one, and better two.
    #[arg(long, required = true, value_name = "NAME@HOST:PORT", value_parser = gateway)]
    gateway: Vec<String>,
    /// The site's CA in PEM: who devices believe to be the site.
    #[arg(long, value_name = "FILE")]
    site_ca: PathBuf,
    /// The first root of the site's Director.
    #[arg(long, value_name = "FILE")]
    director_root: PathBuf,
    /// The first root of the vendor's image repository.
    #[arg(long, value_name = "FILE")]
    image_root: PathBuf,
    /// Of a line that names none.
    #[arg(long, default_value = crate::up::ZONE)]
    zone: ZoneId,
    /// Of a line that names none.
    #[arg(long, default_value = GROUP_DEFAULT)]
    group: GroupId,
    /// A directory; made if it is not there.
    #[arg(long)]
    out: PathBuf,
}

/// What every device of a batch is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Shared {
    batch: String,
    est: String,
    gateways: Vec<String>,
    site_ca: String,
    director_root: String,
    image_root: String,
}

/// What one device is given besides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Given {
    serial: String,
    role: Role,
    zone: String,
    group: String,
}

impl Factory {
    pub fn run(self, place: &Place) -> Result<()> {
        match self {
            Self::Init { factory } => init(&factory),
            Self::Prepare(prepare) => prepare.run(place),
            Self::Open { bundles, serial, out } => open(&bundles, &serial, &out),
            Self::Show { list, key } => {
                let list = admitted(&list, &key)?;
                let rows: Vec<Vec<Cell>> = list.entries.iter().map(row).collect();
                if place.json {
                    let (batch, rows) = (&list.batch, listed(&list));
                    tell!("{}", serde_json::json!({ "batch": batch, "entries": rows }));
                    return Ok(());
                }
                let at = u64::try_from(list.made.as_us() / 1000).unwrap_or(0);
                tell!("batch {}, made {}, signed by this factory", list.batch, terminal::time(at));
                table::list(&["serial", "role", "zone", "group"], rows, "device", Format::Table)
            }
        }
    }
}

fn row(entry: &Entry) -> Vec<Cell> {
    let texts =
        [&*entry.serial, role(entry.made).as_str(), entry.zone.as_str(), entry.group.as_str()];
    texts.map(Cell::from).to_vec()
}

fn role(made: Made) -> Role {
    match made {
        Made::Device => Role::Device,
        Made::Gateway => Role::Gateway,
    }
}

fn init(factory: &Path) -> Result<()> {
    let disk = &RealDisk;
    disk.create_dir_all(factory).with_context(|| format!("cannot make {}", factory.display()))?;
    let key = file::generate(disk, &factory.join(KEY), Algorithm::Ed25519)?;
    let text = pem::encode(PUBLIC_KEY, &key.public().to_spki_der());
    disk::replace(disk, &factory.join(PUBLIC), text.as_bytes())
        .with_context(|| format!("cannot write {}", factory.join(PUBLIC).display()))?;
    tell!("key: {}, for nobody else", factory.join(KEY).display());
    tell!(
        "public key: {}, for the sites that believe this factory",
        factory.join(PUBLIC).display()
    );
    crate::log::next_step("plimsoll factory prepare makes a batch");
    Ok(())
}

impl Prepare {
    fn run(self, place: &Place) -> Result<()> {
        let disk = &RealDisk;
        let text = disk.read(&self.csv, CSV_BYTES_MAX);
        let text = text.with_context(|| format!("cannot read {}", self.csv.display()))?;
        let entries = entries(&text, &self.zone, &self.group)
            .with_context(|| format!("{} is no list of devices", self.csv.display()))?;
        let shared = self.shared()?;
        let key = file::load(disk, &self.factory.join(KEY))?;
        let (list, bundles) = self.files();
        for path in [&list, &bundles] {
            ensure!(
                !disk.exists(path)?,
                "{} is there: a batch is made once; give this one another name",
                path.display()
            );
        }
        let passphrase = terminal::password("Passphrase of the batch")?;
        let now = Timestamp(i64::try_from(crate::station::now().as_secs())? * 1_000_000);
        let admission =
            AdmissionList { batch: shared.batch.clone(), made: now, entries: entries.clone() };
        let signed = trust::admission::seal(&admission, &key).context("signing the list")?;
        let given: BTreeMap<String, Given> = entries.iter().map(given).collect();
        let sealed = batch::seal(&shared, &given, &passphrase, &batch::COST)?;
        disk.create_dir_all(&self.out)
            .with_context(|| format!("cannot make {}", self.out.display()))?;
        // The list comes last: where it is, the bundles that it tells of are whole.
        for (path, bytes) in [(&bundles, &sealed), (&list, &signed)] {
            disk::replace(disk, path, bytes)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        let (count, out) = (
            entries.len(),
            serde_json::json!({
                "batch": shared.batch, "devices": entries.len(),
                "list": list.display().to_string(), "bundles": bundles.display().to_string(),
            }),
        );
        place.answer(out.to_string().as_bytes(), || {
            format!(
                "{count} devices: {} for the line, {} for the site",
                bundles.display(),
                list.display()
            )
        })?;
        place.next(&format!(
            "plimsoll device allow --list {} --key factory.pub, at the site",
            list.display()
        ))
    }

    fn files(&self) -> (PathBuf, PathBuf) {
        let batch = &self.batch;
        (self.out.join(format!("{batch}.admission")), self.out.join(format!("{batch}.bundles")))
    }

    /// What is not as it should be is found here, and not on ten thousand devices.
    fn shared(&self) -> Result<Shared> {
        ensure!(
            self.est.starts_with("https://"),
            "expected --est https://HOST:PORT, found {}",
            self.est
        );
        let text = |path: &Path| -> Result<String> {
            let bytes = RealDisk.read(path, ANCHOR_BYTES_MAX);
            let bytes = bytes.with_context(|| format!("cannot read {}", path.display()))?;
            String::from_utf8(bytes).with_context(|| format!("{} is not text", path.display()))
        };
        let site_ca = text(&self.site_ca)?;
        pem::decode(pem::CERTIFICATE, site_ca.as_bytes())
            .with_context(|| format!("{} is no certificate", self.site_ca.display()))?;
        let root = |path: &Path| -> Result<String> {
            let root = text(path)?;
            trust::tuf::Trusted::from_root(root.as_bytes(), None)
                .with_context(|| format!("{} is no root", path.display()))?;
            Ok(root)
        };
        let (director_root, image_root) = (root(&self.director_root)?, root(&self.image_root)?);
        let (batch, est, gateways) =
            (self.batch.to_string(), self.est.clone(), self.gateway.clone());
        Ok(Shared { batch, est, gateways, site_ca, director_root, image_root })
    }
}

fn given(entry: &Entry) -> (String, Given) {
    let Entry { serial, made, zone, group } = entry;
    let (role, zone, group) = (role(*made), zone.to_string(), group.to_string());
    (serial.clone(), Given { serial: serial.clone(), role, zone, group })
}

/// A line of the CSV. Anything else in it is an error: a column that is not read would be believed to count.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    serial: String,
    #[serde(default)]
    role: Option<String>,
    #[serde(default)]
    zone: Option<String>,
    #[serde(default)]
    group: Option<String>,
}

/// In order of serial numbers. What is wrong is told with its line.
fn entries(csv: &[u8], zone: &ZoneId, group: &GroupId) -> Result<Vec<Entry>> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(csv);
    let mut entries = BTreeMap::new();
    let mut ids = BTreeMap::new();
    let head = reader.headers().context("no head line: expected serial,role,zone,group")?.clone();
    for record in reader.records() {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        let at = || format!("line {line}");
        let Line { serial, role, zone: its_zone, group: its_group } =
            record.deserialize(Some(&head)).with_context(at)?;
        let said = |text: Option<String>| text.filter(|text| !text.is_empty());
        ensure!(
            is_serial(&serial),
            "line {line}: expected a serial number of 1 to 63 letters, digits, . _ -, found {serial:?}"
        );
        // Two serial numbers that differ in their case would be one device.
        if let Some(before) = ids.insert(serial.to_ascii_lowercase(), line) {
            bail!("line {line}: {serial} is on line {before} already");
        }
        let made = match said(role).as_deref() {
            None | Some("device") => Made::Device,
            Some("gateway") => Made::Gateway,
            Some(other) => bail!("line {line}: expected device or gateway, found {other:?}"),
        };
        let zone = match said(its_zone) {
            Some(text) => text.parse().with_context(at)?,
            None => zone.clone(),
        };
        let group = match said(its_group) {
            Some(text) => text.parse().with_context(at)?,
            None => group.clone(),
        };
        entries.insert(serial.clone(), Entry { serial, made, zone, group });
        ensure!(
            entries.len() <= ENTRIES_MAX,
            "expected at most {ENTRIES_MAX} devices: make two batches"
        );
    }
    ensure!(!entries.is_empty(), "expected a device at least, found none");
    Ok(entries.into_values().collect())
}

fn gateway(text: &str) -> Result<String, String> {
    let refused = || format!("expected NAME@HOST:PORT, found {text}");
    let (name, place) = text.split_once('@').ok_or_else(refused)?;
    let (host, port) = place.rsplit_once(':').ok_or_else(refused)?;
    let is_whole =
        model::GatewayId::new(name).is_ok() && !host.is_empty() && port.parse::<u16>().is_ok();
    if is_whole { Ok(text.to_owned()) } else { Err(refused()) }
}

/// What one device is given, as files that its packages read.
fn open(bundles: &Path, serial: &str, out: &Path) -> Result<()> {
    let disk = &RealDisk;
    let bytes = disk.read(bundles, batch::BYTES_MAX);
    let bytes = bytes.with_context(|| format!("cannot read {}", bundles.display()))?;
    let passphrase = terminal::password("Passphrase of the batch")?;
    let (shared, given): (Shared, Option<Given>) = batch::open(&bytes, serial, &passphrase)?;
    let Some(given) = given else {
        let what = format!("{serial} is not of batch {}", shared.batch);
        return Err(Ended::new(Exit::NotFound, what).into());
    };
    disk.create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let files = [
        ("agent.env", environment(&shared, &given)),
        ("serial", format!("{}\n", given.serial)),
        ("site-ca.pem", shared.site_ca),
        ("director-1.root.json", shared.director_root),
        ("image-1.root.json", shared.image_root),
    ];
    for (name, text) in &files {
        let path = out.join(name);
        // Nothing of it is a secret, and the agent's own user reads it in the image.
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    tell!("{serial}: {} files in {}", files.len(), out.display());
    crate::log::next_step(&format!(
        "on the device, where its key is made: plimsoll-agent prepare --data /var/lib/plimsoll-agent --serial {serial}"
    ));
    Ok(())
}

/// `/etc/plimsoll/agent.env` of the Debian package.
fn environment(shared: &Shared, given: &Given) -> String {
    let gateways: Vec<_> = shared.gateways.iter().map(|at| format!("--gateway {at}")).collect();
    format!(
        "# {} of batch {}\nPLIMSOLL_EST=\"{}\"\nPLIMSOLL_AGENT_ARGS=\"{} --director-root \
         /etc/plimsoll/director-1.root.json --image-root /etc/plimsoll/image-1.root.json\"\n",
        given.serial,
        shared.batch,
        shared.est,
        gateways.join(" ")
    )
}

/// A list that this factory signed. What is not believed is not looked at.
pub fn admitted(list: &Path, key: &Path) -> Result<AdmissionList> {
    let read = |path: &Path, max: usize| {
        RealDisk.read(path, max as u64).with_context(|| format!("cannot read {}", path.display()))
    };
    let text = read(key, 64 * 1024)?;
    let der = pem::decode(PUBLIC_KEY, &text)
        .with_context(|| format!("{} is no public key in PEM", key.display()))?;
    let der = der.first().context("no public key in PEM")?;
    let key = PublicKey::from_spki_der(der)?;
    let message = read(list, ADMISSION_MESSAGE_BYTES_MAX)?;
    trust::admission::open(&message, &key).map_err(|refused| {
        let what = format!("{} is not believed: {refused}", list.display());
        Ended::new(Exit::Failed, what)
            .next("nothing was admitted; ask the factory for its list and its key")
            .into()
    })
}

/// Whom a list admits, as the API takes them.
pub fn listed(list: &AdmissionList) -> Vec<serde_json::Value> {
    let entry = |entry: &Entry| {
        serde_json::json!({
            "serial": entry.serial, "role": role(entry.made).as_str(),
            "zone": entry.zone.as_str(), "group": entry.group.as_str(),
        })
    };
    list.entries.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(csv: &str) -> Result<Vec<Entry>, String> {
        let (zone, group) = ("hall".parse().unwrap(), "production".parse().unwrap());
        entries(csv.as_bytes(), &zone, &group).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_line_is_a_serial_number_and_what_differs_from_the_defaults() {
        let found = read("serial,role,zone,group\nPUMP-2,,,\nGW-1,gateway,yard,pilot\n").unwrap();
        let shown: Vec<_> = found.iter().map(|entry| serde_json::json!(row(entry))).collect();
        assert_eq!(
            shown,
            [
                serde_json::json!(["GW-1", "gateway", "yard", "pilot"]),
                serde_json::json!(["PUMP-2", "device", "hall", "production"]),
            ]
        );
        assert_eq!(read("serial\nP-1\nP-2\n").unwrap().len(), 2);
    }

    #[test]
    fn what_is_wrong_with_a_list_is_told_with_its_line() {
        for (csv, told) in [
            ("serial\n", "found none"),
            ("serial\nP 1\n", "line 2: expected a serial number"),
            ("serial\nP-1\nP-1\n", "line 3: P-1 is on line 2 already"),
            ("serial\nP-1\np-1\n", "line 3: p-1 is on line 2 already"),
            ("serial,role\nP-1,pump\n", "line 2: expected device or gateway, found \"pump\""),
            ("serial,zone\nP-1,the hall\n", "line 2"),
            ("serial,colour\nP-1,red\n", "colour"),
            ("zone\nhall\n", "serial"),
        ] {
            let refused = read(csv).unwrap_err();
            assert!(refused.contains(told), "{csv:?}: {refused}");
        }
        let many: String = (0..=ENTRIES_MAX).map(|n| format!("P-{n}\n")).collect();
        assert!(read(&format!("serial\n{many}")).unwrap_err().contains("two batches"));
    }

    #[test]
    fn a_gateway_is_a_name_and_a_place() {
        assert!(gateway("gw-1@10.0.0.1:8883").is_ok());
        for bad in ["gw-1", "gw-1@plant", "@plant:1", "gw-1@:1", "gw-1@plant:99999", "GW 1@plant:1"]
        {
            assert!(gateway(bad).is_err(), "{bad}");
        }
    }
}
