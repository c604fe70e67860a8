//! The kernel's texts, read without trust: a field that is missing or odd leaves its value out and stops nothing.
//! Pure functions over text. See `proc(5)` and the kernel's `Documentation/admin-guide/iostats.rst`.

use super::MANY_MAX;
use std::collections::BTreeMap;

/// `/proc/diskstats` counts in sectors of this many bytes, whatever the device's own are.
const SECTOR_BYTES: u64 = 512;

/// Clock ticks that cores spent in each state. Time of guests is in `user` and `nice` already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    pub user: u64,
    pub nice: u64,
    pub system: u64,
    pub idle: u64,
    pub iowait: u64,
    pub irq: u64,
    pub softirq: u64,
    pub steal: u64,
}

impl Cpu {
    pub fn parts(&self) -> [(&'static str, u64); 8] {
        [
            ("user", self.user),
            ("nice", self.nice),
            ("system", self.system),
            ("idle", self.idle),
            ("iowait", self.iowait),
            ("irq", self.irq),
            ("softirq", self.softirq),
            ("steal", self.steal),
        ]
    }

    pub fn total(&self) -> u64 {
        self.parts().iter().fold(0, |sum: u64, (_, part)| sum.saturating_add(*part))
    }

    /// Neither idle nor waiting for IO.
    pub fn busy(&self) -> u64 {
        self.total() - self.idle.saturating_add(self.iowait).min(self.total())
    }

    /// What was spent since. `None` if more than a tick went back: the kernel lets `idle` and `iowait` do so a little.
    pub fn since(&self, before: &Self) -> Option<Self> {
        let more = |now: u64, then: u64| {
            if now + 1 >= then { Some(now.saturating_sub(then)) } else { None }
        };
        Some(Self {
            user: more(self.user, before.user)?,
            nice: more(self.nice, before.nice)?,
            system: more(self.system, before.system)?,
            idle: more(self.idle, before.idle)?,
            iowait: self.iowait.saturating_sub(before.iowait),
            irq: more(self.irq, before.irq)?,
            softirq: more(self.softirq, before.softirq)?,
            steal: more(self.steal, before.steal)?,
        })
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    pub all: Cpu,
    pub cores: BTreeMap<u32, Cpu>,
    pub context_switches: Option<u64>,
    pub running: Option<i64>,
    pub blocked: Option<i64>,
}

/// `/proc/stat`.
pub fn stat(text: &str) -> Option<Stat> {
    let mut stat = Stat::default();
    let mut all = None;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("cpu") => all = cpu(words),
            Some("ctxt") => stat.context_switches = words.next().and_then(|w| w.parse().ok()),
            Some("procs_running") => stat.running = words.next().and_then(|w| w.parse().ok()),
            Some("procs_blocked") => stat.blocked = words.next().and_then(|w| w.parse().ok()),
            Some(word) => {
                let core = word.strip_prefix("cpu").and_then(|core| core.parse().ok());
                if let (Some(core), Some(cpu)) = (core, cpu(words)) {
                    stat.cores.insert(core, cpu);
                }
            }
            None => {}
        }
    }
    stat.all = all?;
    Some(stat)
}

/// Kernels before 2.6.11 have fewer columns, later ones more: the first four are needed.
fn cpu<'a>(words: impl Iterator<Item = &'a str>) -> Option<Cpu> {
    let mut ticks = words.map_while(|word| word.parse().ok());
    let mut next = || ticks.next();
    Some(Cpu {
        user: next()?,
        nice: next()?,
        system: next()?,
        idle: next()?,
        iowait: next().unwrap_or(0),
        irq: next().unwrap_or(0),
        softirq: next().unwrap_or(0),
        steal: next().unwrap_or(0),
    })
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    pub one: f64,
    pub five: f64,
    pub fifteen: f64,
    pub tasks: i64,
}

/// `/proc/loadavg`: `0.14 0.31 0.26 1/94 18883`.
pub fn loadavg(text: &str) -> Option<Load> {
    let mut words = text.split_ascii_whitespace();
    let mut load = || words.next()?.parse::<f64>().ok().filter(|load| load.is_finite());
    let (one, five, fifteen) = (load()?, load()?, load()?);
    let tasks = words.next()?.split_once('/')?.1.parse().ok()?;
    Some(Load { one, five, fifteen, tasks })
}

/// In bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub total: u64,
    pub free: u64,
    /// Since Linux 3.14.
    pub available: Option<u64>,
    pub buffers: u64,
    pub cached: u64,
    pub swap_total: u64,
    pub swap_free: u64,
}

/// `/proc/meminfo`.
pub fn meminfo(text: &str) -> Option<Memory> {
    let mut memory = Memory::default();
    let mut total = None;
    for line in text.lines() {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let mut words = rest.split_ascii_whitespace();
        let Some(number) = words.next().and_then(|word| word.parse::<u64>().ok()) else { continue };
        let bytes = match words.next() {
            Some("kB") => number.saturating_mul(1024),
            None => number,
            Some(_) => continue,
        };
        match name {
            "MemTotal" => total = Some(bytes),
            "MemFree" => memory.free = bytes,
            "MemAvailable" => memory.available = Some(bytes),
            "Buffers" => memory.buffers = bytes,
            "Cached" => memory.cached = bytes,
            "SwapTotal" => memory.swap_total = bytes,
            "SwapFree" => memory.swap_free = bytes,
            _ => {}
        }
    }
    memory.total = total?;
    Some(memory)
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    pub reads: u64,
    pub read_bytes: u64,
    pub writes: u64,
    pub written_bytes: u64,
    pub busy_ms: u64,
}

/// `/proc/diskstats`. `is_whole` tells devices from their partitions.
pub fn diskstats(text: &str, is_whole: impl Fn(&str) -> bool) -> BTreeMap<String, Disk> {
    let disk = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(2);
        let name = words.next()?;
        let virtual_only = ["loop", "ram", "zram"].iter().any(|kind| name.starts_with(kind));
        if virtual_only || !is_whole(name) {
            return None;
        }
        let numbers: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
        let disk = Disk {
            reads: *numbers.first()?,
            read_bytes: numbers.get(2)?.saturating_mul(SECTOR_BYTES),
            writes: *numbers.get(4)?,
            written_bytes: numbers.get(6)?.saturating_mul(SECTOR_BYTES),
            busy_ms: *numbers.get(9)?,
        };
        Some((name.to_owned(), disk))
    };
    text.lines().filter_map(disk).take(MANY_MAX).collect()
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Net {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub errors: u64,
    pub dropped: u64,
}

/// `/proc/net/dev`, without the loopback. An interface's name may stand right against its first number.
pub fn net_dev(text: &str) -> BTreeMap<String, Net> {
    let net = |line: &str| {
        let (name, rest) = line.rsplit_once(':')?;
        let name = name.trim();
        let n: Vec<u64> = rest.split_ascii_whitespace().map_while(|w| w.parse().ok()).collect();
        if name == "lo" || name.is_empty() || n.len() < 12 {
            return None;
        }
        let net = Net {
            rx_bytes: n[0],
            rx_packets: n[1],
            tx_bytes: n[8],
            tx_packets: n[9],
            errors: n[2].saturating_add(n[10]),
            dropped: n[3].saturating_add(n[11]),
        };
        Some((name.to_owned(), net))
    };
    text.lines().filter_map(net).take(MANY_MAX).collect()
}

/// `/proc/self/mounts`: name and path of each local file system that keeps data, each device once. A file system of a
/// server is left out: one that does not answer would hold up the sampling.
pub fn mounts(text: &str) -> Vec<(String, String)> {
    const KINDS: [&str; 14] = [
        "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "vfat", "exfat", "zfs", "overlay", "jfs",
        "ubifs", "jffs2", "ntfs3",
    ];
    let mut devices: Vec<&str> = Vec::new();
    let mut mounts = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(device), Some(path), Some(kind)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        if !KINDS.contains(&kind) || devices.contains(&device) {
            continue;
        }
        devices.push(device);
        let path = unescape(path);
        let name = match path.trim_matches('/') {
            "" => "root".to_owned(),
            path => path.replace('/', "-"),
        };
        mounts.push((name, path));
    }
    mounts
}

/// Space, tab, newline and backslash stand as octal in a path: `\040`.
fn unescape(path: &str) -> String {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [byte, after @ ..] = rest {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let octal = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal.filter(|_| *byte == b'\\') {
            Some(escaped) => {
                out.push(escaped);
                rest = &after[3..];
            }
            None => {
                out.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A sensor's thousandths of a degree, if they are of this world.
pub fn millidegrees(text: &str) -> Option<f64> {
    let celsius = text.trim().parse::<i64>().ok()? as f64 / 1000.0;
    (-273.15..1000.0).contains(&celsius).then_some(celsius)
}

/// `/proc/uptime`: `1234.56 2345.67`.
pub fn first_number(text: &str) -> Option<f64> {
    text.split_ascii_whitespace().next()?.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_an_old_kernel_and_of_a_new_one() {
        let new = "cpu  10 1 5 100 7 0 2 3 9 9\ncpu0 4 0 2 50 3 0 1 1 0 0\ncpu1 6 1 3 50 4 0 1 2 0 0\n\
                   intr 5 0 0\nctxt 657005\nbtime 1\nprocesses 9\nprocs_running 3\nprocs_blocked 1\n";
        let parsed = stat(new).unwrap();
        assert_eq!(parsed.all.total(), 128);
        assert_eq!(parsed.all.busy(), 21);
        assert_eq!(parsed.cores.keys().copied().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(
            (parsed.context_switches, parsed.running, parsed.blocked),
            (Some(657_005), Some(3), Some(1))
        );
        let old = stat("cpu 10 1 5 100\n").unwrap();
        assert_eq!((old.all.total(), old.all.steal, old.cores.len()), (116, 0, 0));
    }

    #[test]
    fn odd_texts_leave_values_out_and_stop_nothing() {
        assert_eq!(stat(""), None);
        assert_eq!(stat("cpu 1 2 x\n"), None);
        assert_eq!(stat("cpu -1 2 3 4\n"), None);
        let odd = stat("cpu 1 2 3 4\ncpux 1 2 3 4\ncpu7\nctxt\nprocs_running none\n\n").unwrap();
        assert_eq!((odd.cores.len(), odd.context_switches, odd.running), (0, None, None));
        let huge = stat(&format!("cpu {0} {0} {0} {0}\n", u64::MAX)).unwrap();
        assert_eq!(huge.all.total(), u64::MAX);
        assert_eq!(huge.all.busy(), 0);

        assert_eq!(loadavg("0.14 0.31"), None);
        assert_eq!(loadavg("nan 1 1 1/2 3"), None);
        assert_eq!(loadavg("0.1 0.2 0.3 1-94 7"), None);
        assert_eq!(meminfo("MemFree: 1 kB\n"), None);
        assert_eq!(first_number("inf 1"), None);
        assert_eq!(first_number("-3"), None);
        assert_eq!(millidegrees("999999999\n"), None);
        assert_eq!(millidegrees("-274000"), None);
        assert_eq!(net_dev("Inter-| x\n face |y\n eth0: 1 2 3\n"), BTreeMap::new());
        assert_eq!(diskstats("8 0 sda 1 2\n", |_| true), BTreeMap::new());
    }

    #[test]
    fn time_that_goes_back_by_a_tick_is_none_and_by_more_is_another_counter() {
        let before = Cpu { user: 10, idle: 100, iowait: 50, ..Cpu::default() };
        let tick_back = Cpu { user: 12, idle: 99, iowait: 10, ..Cpu::default() };
        let spent = tick_back.since(&before).unwrap();
        assert_eq!((spent.user, spent.idle, spent.iowait), (2, 0, 0));
        assert_eq!(Cpu { user: 8, ..before }.since(&before), None);
    }

    #[test]
    fn memory_is_in_bytes() {
        let memory = meminfo(
            "MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable: 20 kB\nHugePages_Total:  3\n\
             Cached: 5 MB\nSwapTotal: 8 kB\nSwapFree: 2 kB\nodd line\n",
        )
        .unwrap();
        assert_eq!(
            memory,
            Memory {
                total: 1_024_000,
                free: 10_240,
                available: Some(20_480),
                swap_total: 8_192,
                swap_free: 2_048,
                ..Memory::default()
            }
        );
    }

    #[test]
    fn load_and_uptime() {
        let load = loadavg("0.14 0.31 0.26 1/94 18883\n").unwrap();
        assert_eq!(load, Load { one: 0.14, five: 0.31, fifteen: 0.26, tasks: 94 });
        assert_eq!(first_number("1234.56 99\n"), Some(1234.56));
    }

    #[test]
    fn disks_are_whole_devices_in_bytes() {
        let text = "   7  0 loop0 1 0 2 0 0 0 0 0 0 0 0\n 254 0 vda 10 3 100 5 7 2 50 1 0 40 6 9 4 6 9 1 7\n\
                    254 1 vda1 9 0 9 0 9 0 9 0 0 9 9\n 253 0 zram0 1 1 1 1 1 1 1 1 1 1 1\n";
        let disks = diskstats(text, |name| name != "vda1");
        let vda =
            Disk { reads: 10, read_bytes: 51_200, writes: 7, written_bytes: 25_600, busy_ms: 40 };
        assert_eq!(disks, BTreeMap::from([("vda".to_owned(), vda)]));
    }

    #[test]
    fn interfaces_stand_against_their_numbers_and_have_colons() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes\n    lo:   1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n\
                    eth0:288 15 1 2 0 0 0 0 1276 10 3 4 0 0 0 0\neth0:1: 5 1 0 0 0 0 0 0 6 1 0 0 0 0 0 0\n";
        let nets = net_dev(text);
        assert_eq!(nets.keys().collect::<Vec<_>>(), ["eth0", "eth0:1"]);
        let eth0 = Net {
            rx_bytes: 288,
            rx_packets: 15,
            tx_bytes: 1276,
            tx_packets: 10,
            errors: 4,
            dropped: 6,
        };
        assert_eq!(nets["eth0"], eth0);
    }

    #[test]
    fn many_interfaces_are_bounded() {
        let line = |i: usize| format!("v{i}: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n");
        let text: String = (0..1000).map(line).collect();
        assert_eq!(net_dev(&text).len(), MANY_MAX);
    }

    #[test]
    fn file_systems_are_local_and_each_device_once() {
        let text = "proc /proc proc rw 0 0\n/dev/vda / ext4 rw 0 0\n/dev/vda /bind ext4 rw 0 0\n\
                    nas:/x /mnt/nas nfs4 rw 0 0\n/dev/sdb1 /var/my\\040data xfs rw 0 0\nshort line\n";
        assert_eq!(
            mounts(text),
            [
                ("root".to_owned(), "/".to_owned()),
                ("var-my data".to_owned(), "/var/my data".to_owned())
            ]
        );
        assert_eq!(unescape("a\\134b\\9"), "a\\b\\9");
    }
}
