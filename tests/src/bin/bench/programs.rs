//! What a daemon's kernel programs cost, as the kernel itself counts it, and how much memory its tables take.
//!
//! Read from `/proc/PID/fdinfo`: no tool has to be there, and nobody else's programs get into the sum.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// The kernel's numbers of the places that Shunt's programs are attached to.
const PLACES: [(u32, &str); 8] = [
    (3, "sockops"),
    (10, "connect4"),
    (11, "connect6"),
    (2, "sock_create"),
    (29, "getpeername4"),
    (30, "getpeername6"),
    (34, "sock_release"),
    (36, "sk_lookup"),
];

/// Calls of one kind of program and the time they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) calls: u64,
    pub(crate) nanos: u64,
}

/// While it lives, the kernel takes the time of every program.
pub(crate) struct Statistics {
    before: String,
}

/// What one file descriptor of a process says about itself.
type Info = BTreeMap<String, String>;

impl Statistics {
    /// Switches it on for the whole machine, or says why that cannot be.
    pub(crate) fn on() -> Result<Self> {
        let before = fs::read_to_string(STATISTICS).with_context(|| format!("read {STATISTICS}"))?;
        fs::write(STATISTICS, "1").with_context(|| format!("write {STATISTICS}"))?;
        Ok(Self { before })
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        // Left on it costs everybody a little; there is nobody here to tell.
        let _ = fs::write(STATISTICS, self.before.trim());
    }
}

/// The counters of `pid`'s programs by the place they are attached to.
pub(crate) fn counts(pid: u32) -> Result<BTreeMap<String, Count>> {
    let infos = infos(pid)?;
    let number = |info: &Info, key: &str| info.get(key).and_then(|value| value.parse::<u64>().ok());
    let attached: BTreeMap<u64, u32> = infos
        .iter()
        .filter_map(|info| Some((number(info, "prog_id")?, number(info, "attach_type")? as u32)))
        .collect();
    let programs: BTreeMap<u64, Count> = infos
        .iter()
        .filter_map(|info| {
            let (calls, nanos) = (number(info, "run_cnt")?, number(info, "run_time_ns")?);
            Some((number(info, "prog_id")?, Count { calls, nanos }))
        })
        .collect();
    let mut by_place = BTreeMap::<String, Count>::new();
    for (id, count) in programs {
        let sum = by_place.entry(name(attached.get(&id).copied())).or_default();
        *sum = Count { calls: sum.calls + count.calls, nanos: sum.nanos + count.nanos };
    }
    Ok(by_place)
}

/// What the kernel says it keeps for `pid`'s maps, in bytes; storage of single sockets is not in it.
pub(crate) fn table_bytes(pid: u32) -> Result<u64> {
    let maps: BTreeMap<String, u64> = infos(pid)?
        .into_iter()
        .filter_map(|info| Some((info.get("map_id")?.clone(), info.get("memlock")?.parse().ok()?)))
        .collect();
    Ok(maps.values().sum())
}

fn name(place: Option<u32>) -> String {
    let known = place.and_then(|place| PLACES.iter().find(|(number, _)| *number == place));
    match (known, place) {
        (Some((_, name)), _) => (*name).to_owned(),
        (None, Some(place)) => format!("attached at {place}"),
        (None, None) => "attached elsewhere".to_owned(),
    }
}

fn infos(pid: u32) -> Result<Vec<Info>> {
    let folder = format!("/proc/{pid}/fdinfo");
    let files = fs::read_dir(&folder).with_context(|| format!("read {folder}"))?;
    // A file that was closed meanwhile is not one of those that we look for.
    let texts = files.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok());
    Ok(texts.map(|text| parse(&text)).collect())
}

fn parse(text: &str) -> Info {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let info = parse("pos:\t0\nprog_type:\t18\nrun_time_ns:\t99\nrun_cnt:\t3\nprog_id:\t7\n");
        assert_eq!((info["run_cnt"].as_str(), info["prog_id"].as_str()), ("3", "7"));
        assert_eq!(name(Some(10)), "connect4");
        assert_eq!(name(Some(99)), "attached at 99");
    }
}
