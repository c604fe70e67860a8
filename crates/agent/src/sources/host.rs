//! This host, as its kernel tells of it in `/proc` and `/sys`.
//!
//! | series | unit | what |
//! | --- | --- | --- |
//! | `cpu/{busy,user,nice,system,iowait,irq,softirq,steal,idle}` | `/` | share of all cores' time since the last sample |
//! | `cpu/<n>/busy` | `/` | the same of one core |
//! | `load/{1,5,15}` | `/` | load averages |
//! | `mem/{total,available,free,buffers,cached}`, `swap/{total,used}` | `B` | |
//! | `mem/used` | `/` | share that is not available |
//! | `fs/<mount>/{size,used,available}` | `B` | local file systems; `root` is `/` |
//! | `disk/<device>/{read,write}` | `B/s` | whole devices, without loops and RAM disks |
//! | `disk/<device>/{reads,writes}` | `1/s` | |
//! | `disk/<device>/busy` | `/` | share of the time with IO in flight |
//! | `net/<interface>/{rx,tx}` | `B/s` | without the loopback |
//! | `net/<interface>/{rx_packets,tx_packets,errors,dropped}` | `1/s` | |
//! | `temp/<sensor>` | `Cel` | thermal zones and hwmon, where the kernel has them |
//! | `host/uptime` | `s` | |
//! | `host/{processes,tasks,running,blocked}` | `count` | |
//! | `host/context_switches` | `1/s` | |
//!
//! Shares are given to 0.0001, rates to 0.1. A rate needs two samples; a counter that went back (a device was plugged
//! anew) gives none. What a host has many of is bounded (INV-COST-1): see [`MANY_MAX`] and [`CORES_MAX`].

mod parse;

use super::{series_name, unit};
use crate::clock::Stamp;
use model::{Reading, SeriesName, Value};
use parse::{Cpu, Disk, Load, Memory, Net, Stat};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// The most disks, interfaces, file systems and sensors of each kind.
pub const MANY_MAX: usize = 16;
/// The most cores that have a series of their own.
pub const CORES_MAX: usize = 64;

/// The most that is read of a file: `/proc/stat` of a machine with 1,000 cores and as many interrupts has 200 KiB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Samples this host.
#[derive(Debug)]
pub struct Host {
    proc: PathBuf,
    sys: PathBuf,
    before: Option<Snapshot>,
    /// What could not be read, told once each.
    told: BTreeSet<&'static str>,
}

/// What the kernel said at one instant. Parts that it did not say are absent.
#[derive(Clone, Debug, Default, PartialEq)]
struct Snapshot {
    uptime_ms: u64,
    stat: Option<Stat>,
    load: Option<Load>,
    memory: Option<Memory>,
    file_systems: Vec<(String, FileSystem)>,
    disks: BTreeMap<String, Disk>,
    nets: BTreeMap<String, Net>,
    temperatures: BTreeMap<String, f64>,
    uptime_s: Option<f64>,
    processes: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct FileSystem {
    size: u64,
    used: u64,
    available: u64,
}

impl Default for Host {
    fn default() -> Self {
        Self::new(Path::new("/proc"), Path::new("/sys"))
    }
}

impl Host {
    /// A host whose kernel speaks through these two directories.
    pub fn new(proc: &Path, sys: &Path) -> Self {
        Self { proc: proc.into(), sys: sys.into(), before: None, told: BTreeSet::new() }
    }

    /// Reads everything once. The first sample has no rates and shares.
    pub fn sample(&mut self, stamp: &Stamp) -> Vec<Reading> {
        let now = self.read(stamp.uptime_ms);
        let readings = readings(self.before.as_ref(), &now, stamp);
        self.before = Some(now);
        readings
    }

    fn read(&mut self, uptime_ms: u64) -> Snapshot {
        Snapshot {
            uptime_ms,
            stat: self.text("stat").and_then(|text| parse::stat(&text)),
            load: self.text("loadavg").and_then(|text| parse::loadavg(&text)),
            memory: self.text("meminfo").and_then(|text| parse::meminfo(&text)),
            file_systems: self.text("self/mounts").map_or(Vec::new(), |text| file_systems(&text)),
            disks: self.text("diskstats").map_or(BTreeMap::new(), |text| {
                parse::diskstats(&text, |name| self.sys.join("block").join(name).exists())
            }),
            nets: self.text("net/dev").map_or(BTreeMap::new(), |text| parse::net_dev(&text)),
            temperatures: self.temperatures(),
            uptime_s: self.text("uptime").and_then(|text| parse::first_number(&text)),
            processes: self.processes(),
        }
    }

    /// A file of `/proc`. That one cannot be read is told once: a container may hide some.
    fn text(&mut self, name: &'static str) -> Option<String> {
        match read(&self.proc.join(name)) {
            Ok(text) => Some(text),
            Err(e) => {
                if self.told.insert(name) {
                    tracing::warn!(file = name, error = %e, "cannot read; its series are left out");
                }
                None
            }
        }
    }

    fn processes(&self) -> Option<i64> {
        let entries = fs::read_dir(&self.proc).ok()?;
        let is_process = |name: &[u8]| name.iter().all(u8::is_ascii_digit);
        let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
        Some(names.filter(|name| is_process(name.as_encoded_bytes())).count() as i64)
    }

    fn temperatures(&self) -> BTreeMap<String, f64> {
        let zones =
            entries(&self.sys.join("class/thermal")).into_iter().filter_map(|(name, dir)| {
                let number = name.strip_prefix("thermal_zone")?;
                let kind = read(&dir.join("type")).unwrap_or_default();
                let celsius = parse::millidegrees(&read(&dir.join("temp")).ok()?)?;
                Some((format!("{}-{number}", kind.trim()), celsius))
            });
        let chips = entries(&self.sys.join("class/hwmon")).into_iter().flat_map(|(_, dir)| {
            let chip = read(&dir.join("name")).unwrap_or_default().trim().to_owned();
            entries(&dir).into_iter().filter_map(move |(file, path)| {
                let input = file.strip_prefix("temp")?.strip_suffix("_input")?;
                let label = read(&path.with_file_name(format!("temp{input}_label")));
                let label = label.map_or(input.to_owned(), |label| label.trim().to_owned());
                Some((format!("{chip}-{label}"), parse::millidegrees(&read(&path).ok()?)?))
            })
        });
        zones.chain(chips).take(MANY_MAX).collect()
    }
}

/// Names and paths in a directory, sorted; nothing if it cannot be read.
fn entries(dir: &Path) -> Vec<(String, PathBuf)> {
    let found = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let mut entries: Vec<(String, PathBuf)> = found
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect();
    entries.sort();
    entries
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn file_systems(mounts: &str) -> Vec<(String, FileSystem)> {
    let mounts = parse::mounts(mounts).into_iter().take(MANY_MAX);
    mounts
        .filter_map(|(name, path)| {
            let stat = rustix::fs::statvfs(path.as_str()).ok()?;
            let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
            let file_system = FileSystem {
                size: bytes(stat.f_blocks),
                used: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
                available: bytes(stat.f_bavail),
            };
            (file_system.size > 0).then_some((name, file_system))
        })
        .collect()
}

/// What two snapshots say, as readings.
fn readings(before: Option<&Snapshot>, now: &Snapshot, stamp: &Stamp) -> Vec<Reading> {
    let mut out = Out { stamp, readings: Vec::with_capacity(96) };
    // Nothing has a rate over no time.
    let before = before.filter(|before| before.uptime_ms < now.uptime_ms);
    out.stat(before.and_then(|b| b.stat.as_ref()), now.stat.as_ref());
    if let Some(load) = now.load {
        out.float("load/1", load.one, "/");
        out.float("load/5", load.five, "/");
        out.float("load/15", load.fifteen, "/");
        out.int("host/tasks", load.tasks, "count");
    }
    now.memory.iter().for_each(|memory| out.memory(memory));
    for (name, fs) in &now.file_systems {
        out.bytes(&format!("fs/{name}/size"), fs.size);
        out.bytes(&format!("fs/{name}/used"), fs.used);
        out.bytes(&format!("fs/{name}/available"), fs.available);
    }
    if let Some(before) = before {
        let ms = now.uptime_ms - before.uptime_ms;
        for (name, disk) in &now.disks {
            before.disks.get(name).into_iter().for_each(|then| out.disk(name, then, disk, ms));
        }
        for (name, net) in &now.nets {
            before.nets.get(name).into_iter().for_each(|then| out.net(name, then, net, ms));
        }
        let switches = |s: &Snapshot| s.stat.as_ref().and_then(|stat| stat.context_switches);
        if let (Some(then), Some(now)) = (switches(before), switches(now)) {
            out.rate("host/context_switches", then, now, ms, "1/s");
        }
    }
    for (name, celsius) in &now.temperatures {
        out.float(&format!("temp/{name}"), *celsius, "Cel");
    }
    if let Some(uptime_s) = now.uptime_s {
        out.float("host/uptime", uptime_s, "s");
    }
    if let Some(processes) = now.processes {
        out.int("host/processes", processes, "count");
    }
    out.readings
}

struct Out<'a> {
    stamp: &'a Stamp,
    readings: Vec<Reading>,
}

impl Out<'_> {
    fn put(&mut self, name: &str, value: Value, unit_text: &str) {
        // A device may have any name; one of which nothing is left has no series.
        let Some(series) = series_name(name) else { return };
        self.readings.push(Reading {
            time: self.stamp.wall,
            series,
            value,
            unit: Some(unit(unit_text)),
        });
    }

    fn float(&mut self, name: &str, value: f64, unit: &str) {
        if value.is_finite() {
            self.put(name, Value::Float(value), unit);
        }
    }

    fn int(&mut self, name: &str, value: i64, unit: &str) {
        self.put(name, Value::Int(value), unit);
    }

    fn bytes(&mut self, name: &str, value: u64) {
        self.int(name, i64::try_from(value).unwrap_or(i64::MAX), "B");
    }

    fn share(&mut self, name: &str, part: f64, of: f64) {
        if of > 0.0 {
            self.float(name, (part / of * 1e4).round() / 1e4, "/");
        }
    }

    fn rate(&mut self, name: &str, then: u64, now: u64, ms: u64, unit: &str) {
        if let Some(more) = now.checked_sub(then) {
            self.float(name, (more as f64 * 1e4 / ms as f64).round() / 10.0, unit);
        }
    }

    fn stat(&mut self, before: Option<&Stat>, now: Option<&Stat>) {
        let Some(now) = now else { return };
        if let Some(before) = before {
            if let Some(spent) = now.all.since(&before.all) {
                let of = spent.total() as f64;
                self.share("cpu/busy", spent.busy() as f64, of);
                for (name, part) in spent.parts() {
                    self.share(&format!("cpu/{name}"), part as f64, of);
                }
            }
            for (core, cpu) in now.cores.iter().take(CORES_MAX) {
                let spent = before.cores.get(core).and_then(|before: &Cpu| cpu.since(before));
                if let Some(spent) = spent {
                    let of = spent.total() as f64;
                    self.share(&format!("cpu/{core}/busy"), spent.busy() as f64, of);
                }
            }
        }
        now.running.into_iter().for_each(|n| self.int("host/running", n, "count"));
        now.blocked.into_iter().for_each(|n| self.int("host/blocked", n, "count"));
    }

    fn memory(&mut self, memory: &Memory) {
        self.bytes("mem/total", memory.total);
        self.bytes("mem/free", memory.free);
        self.bytes("mem/buffers", memory.buffers);
        self.bytes("mem/cached", memory.cached);
        if let Some(available) = memory.available {
            self.bytes("mem/available", available);
            let used = memory.total.saturating_sub(available);
            self.share("mem/used", used as f64, memory.total as f64);
        }
        self.bytes("swap/total", memory.swap_total);
        self.bytes("swap/used", memory.swap_total.saturating_sub(memory.swap_free));
    }

    fn disk(&mut self, name: &str, then: &Disk, now: &Disk, ms: u64) {
        let name = |what: &str| format!("disk/{name}/{what}");
        self.rate(&name("read"), then.read_bytes, now.read_bytes, ms, "B/s");
        self.rate(&name("write"), then.written_bytes, now.written_bytes, ms, "B/s");
        self.rate(&name("reads"), then.reads, now.reads, ms, "1/s");
        self.rate(&name("writes"), then.writes, now.writes, ms, "1/s");
        if let Some(busy) = now.busy_ms.checked_sub(then.busy_ms) {
            // The kernel counts in ticks, so a little more than the whole time may be told.
            self.share(&name("busy"), (busy as f64).min(ms as f64), ms as f64);
        }
    }

    fn net(&mut self, name: &str, then: &Net, now: &Net, ms: u64) {
        let name = |what: &str| format!("net/{name}/{what}");
        self.rate(&name("rx"), then.rx_bytes, now.rx_bytes, ms, "B/s");
        self.rate(&name("tx"), then.tx_bytes, now.tx_bytes, ms, "B/s");
        self.rate(&name("rx_packets"), then.rx_packets, now.rx_packets, ms, "1/s");
        self.rate(&name("tx_packets"), then.tx_packets, now.tx_packets, ms, "1/s");
        self.rate(&name("errors"), then.errors, now.errors, ms, "1/s");
        self.rate(&name("dropped"), then.dropped, now.dropped, ms, "1/s");
    }
}

/// The names of the series of some readings, in order: the columns of a recording.
pub fn columns(readings: &[Reading]) -> Vec<(SeriesName, String)> {
    let unit = |r: &Reading| r.unit.as_ref().map_or(String::new(), |u| u.as_str().to_owned());
    readings.iter().map(|r| (r.series.clone(), unit(r))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FLOOR;

    fn stamp(uptime_ms: u64) -> Stamp {
        Stamp::new(uptime_ms, FLOOR, 0)
    }

    fn value(readings: &[Reading], name: &str) -> Option<Value> {
        readings.iter().find(|r| r.series.as_str() == name).map(|r| r.value.clone())
    }

    fn snapshot(uptime_ms: u64, busy: u64, idle: u64) -> Snapshot {
        let all = Cpu { user: busy, idle, ..Cpu::default() };
        let stat = Stat { all, cores: BTreeMap::from([(0, all)]), ..Stat::default() };
        Snapshot { uptime_ms, stat: Some(stat), ..Snapshot::default() }
    }

    #[test]
    fn a_share_is_of_the_time_between_two_samples() {
        let first = snapshot(1_000, 100, 100);
        let second = snapshot(2_000, 125, 175);
        assert_eq!(value(&readings(None, &first, &stamp(0)), "cpu/busy"), None);
        let readings = readings(Some(&first), &second, &stamp(2_000));
        assert_eq!(value(&readings, "cpu/busy"), Some(Value::Float(0.25)));
        assert_eq!(value(&readings, "cpu/idle"), Some(Value::Float(0.75)));
        assert_eq!(value(&readings, "cpu/0/busy"), Some(Value::Float(0.25)));
    }

    #[test]
    fn a_counter_that_went_back_gives_no_rate() {
        let net = |rx_bytes| Net { rx_bytes, ..Net::default() };
        let with = |uptime_ms, rx| Snapshot {
            uptime_ms,
            nets: BTreeMap::from([("eth0".to_owned(), net(rx))]),
            ..Snapshot::default()
        };
        let up = readings(Some(&with(0, 1_000)), &with(500, 1_500), &stamp(0));
        assert_eq!(value(&up, "net/eth0/rx"), Some(Value::Float(1_000.0)));
        let back = readings(Some(&with(0, 1_000)), &with(500, 10), &stamp(0));
        assert_eq!(value(&back, "net/eth0/rx"), None);
        assert_eq!(value(&back, "net/eth0/tx"), Some(Value::Float(0.0)));
        let no_time = readings(Some(&with(500, 1_000)), &with(500, 1_500), &stamp(0));
        assert!(no_time.is_empty());
    }

    #[test]
    fn this_very_host_gives_readings_that_a_pack_can_carry() {
        let mut host = Host::default();
        let first = host.sample(&stamp(1_000));
        let second = host.sample(&stamp(2_000));
        for name in ["mem/total", "load/1", "host/uptime", "host/processes", "fs/root/size"] {
            assert!(value(&first, name).is_some(), "{name} is missing");
        }
        assert!(value(&second, "cpu/busy").is_some() || value(&second, "host/running").is_some());
        assert!(second.len() >= first.len() && second.len() < 256);
        let bytes = model::senml::encode(&second);
        assert_eq!(model::senml::decode(&bytes).unwrap(), second);
        let names: BTreeSet<&str> = second.iter().map(|r| r.series.as_str()).collect();
        assert_eq!(names.len(), second.len(), "each series once");
    }

    #[test]
    fn a_host_that_says_nothing_gives_nothing_and_is_told_of_once() {
        let empty = tempfile::tempdir().unwrap();
        let mut host = Host::new(empty.path(), empty.path());
        let readings = host.sample(&stamp(1));
        assert_eq!(value(&readings, "host/processes"), Some(Value::Int(0)));
        assert_eq!(readings.len(), 1);
        assert_eq!(host.told.len(), 7);
    }

    #[test]
    fn sensors_are_named_by_what_they_sit_on() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("class/thermal/thermal_zone0/type", "x86_pkg_temp\n");
        put("class/thermal/thermal_zone0/temp", "47000\n");
        put("class/thermal/thermal_zone1/temp", "not a number\n");
        put("class/hwmon/hwmon2/name", "nvme\n");
        put("class/hwmon/hwmon2/temp1_input", "38850\n");
        put("class/hwmon/hwmon2/temp1_label", "Composite\n");
        put("class/hwmon/hwmon2/temp2_input", "-1500\n");
        let readings = Host::new(dir.path(), dir.path()).sample(&stamp(1));
        assert_eq!(value(&readings, "temp/x86_pkg_temp-0"), Some(Value::Float(47.0)));
        assert_eq!(value(&readings, "temp/nvme-Composite"), Some(Value::Float(38.85)));
        assert_eq!(value(&readings, "temp/nvme-2"), Some(Value::Float(-1.5)));
    }
}
