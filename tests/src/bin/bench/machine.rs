//! What /proc says: how busy the machine is, what a process holds, and what the machine is.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The kernel counts CPU time for user space in hundredths of a second, whatever its own tick.
const TICKS: f64 = 100.0;

/// Busy time of all cores since boot: everything but idle, waiting for disks, and time stolen by the host.
pub(crate) fn busy_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let numbers: Vec<f64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guest time is part of user.
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|&column: &usize| numbers.get(column)).sum::<f64>();
    Ok(busy / TICKS)
}

/// CPU time of one process so far.
pub(crate) fn process_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // The name, in parentheses, may contain blanks; user and system time are the 14th and 15th of all fields.
    let fields = stat.rsplit(") ").next().unwrap_or_default().split_whitespace();
    Ok(fields.skip(11).take(2).filter_map(|word| word.parse::<f64>().ok()).sum::<f64>() / TICKS)
}

/// `pid` and all its descendants.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        let children = format!("/proc/{0}/task/{0}/children", found[next]);
        let text = fs::read_to_string(children).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
        next += 1;
    }
    found
}

/// Proportional memory of `pid` and its descendants, in KiB.
pub(crate) fn pss_kib(pid: u32) -> Result<f64> {
    let mut sum = 0.0;
    for pid in family(pid) {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let line = text.lines().find(|line| line.starts_with("Pss:"));
        let value = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        sum += value.with_context(|| format!("{path} has no Pss"))?;
    }
    Ok(sum)
}

/// Open files of `pid` and its descendants.
pub(crate) fn open_files(pid: u32) -> Result<usize> {
    let count = |pid| {
        let path = format!("/proc/{pid}/fd");
        Ok(fs::read_dir(&path).with_context(|| format!("read {path}"))?.count())
    };
    family(pid).into_iter().map(count).sum()
}

/// Lets this process and its children open as many files as it may; returns how many that is.
pub(crate) fn raise_file_limit() -> Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raise the limit of open files")?;
    Ok(hard)
}

/// What later readers need to know about the machine.
pub(crate) fn facts() -> BTreeMap<String, String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpuinfo = read("/proc/cpuinfo");
    let field = |key: &str| cpuinfo.lines().find(|line| line.starts_with(key));
    let model = field("model name").and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown");
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let fact = |key: &str, value: String| (key.to_owned(), value);
    BTreeMap::from([
        fact("kernel", read("/proc/sys/kernel/osrelease")),
        fact("cores", cores.to_string()),
        fact("cpu", model.to_owned()),
        fact("congestion control, machine's default", read("/proc/sys/net/ipv4/tcp_congestion_control")),
        fact("load before", read("/proc/loadavg")),
    ])
}
