//! What Linux says of a process.

use std::fs;

/// Ticks of the clock in which Linux counts, on every machine that we know: USER_HZ.
const TICKS_A_SECOND: f64 = 100.0;

/// Seconds of processor time that a process and its threads have used.
pub fn cpu_s(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The name, in brackets, may hold anything; after it come fields 3 and on, and 14 and 15 are what is asked.
    let (_, rest) = stat.rsplit_once(')').expect("a name in brackets");
    let ticks = rest.split_whitespace().skip(11).take(2).map(|n| n.parse::<f64>().unwrap());
    ticks.sum::<f64>() / TICKS_A_SECOND
}

/// MiB of memory that this process has, and the most that it had since [`forget_peak`].
pub fn memory_mib() -> (f64, f64) {
    let status = fs::read_to_string("/proc/self/status").expect("we run");
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("Linux says it");
        let kib = line.split_whitespace().nth(1).expect("a number");
        kib.parse::<f64>().expect("a number") / 1024.0
    };
    (of("VmRSS:"), of("VmHWM:"))
}

pub fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").expect("Linux lets us");
}
