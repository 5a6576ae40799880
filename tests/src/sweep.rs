//! Names that tell whose a thing is, and the removal of what a killed test run left behind.
//!
//! Every namespace, cgroup, pin and directory of a test is called `sh-PID-N-…`. What belongs to a
//! process that no longer exists is removed at the start of the next run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::umount;

use crate::wait::PATIENCE;

/// A name that starts with `sh-PID-N-`, so that a later run can tell that it is left over.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("sh-{}-{}-{name}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Removes what test processes that are no more have left.
pub fn leftovers() {
    let dead = |directory: &Path| entries(directory).into_iter().filter(|path| is_dead(path));
    for cgroup in dead(&cgroup2()) {
        remove_cgroup(&cgroup);
    }
    for netns in dead(Path::new("/run/netns")) {
        let name = netns.file_name().unwrap_or_default();
        let _ = Command::new("ip").args(["netns", "del"]).arg(name).stderr(Stdio::null()).status();
    }
    for directory in dead(&std::env::temp_dir()) {
        let _ = umount(&directory.join("run/pins"));
        let _ = fs::remove_dir_all(directory);
    }
}

/// Where the cgroup v2 hierarchy is mounted: `/sys/fs/cgroup`, or below it on hybrid hosts.
pub fn cgroup2() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let is_cgroup2 = |line: &&str| line.split(" - ").nth(1).is_some_and(|kind| kind.starts_with("cgroup2 "));
    let line = mounts.lines().find(is_cgroup2).expect("mount cgroup v2: the tests need it");
    PathBuf::from(line.split(' ').nth(4).expect("the fifth field is the mount point"))
}

/// Removes a cgroup with all that is below it; processes that are still in it are ended first.
pub fn remove_cgroup(cgroup: &Path) {
    if !cgroup.exists() {
        return;
    }
    let _ = fs::write(cgroup.join("cgroup.kill"), "1");
    // The kernel empties a killed cgroup a moment later; nothing tells when but trying.
    // No panic when it does not go: this runs while values are dropped, and the next run sweeps.
    let deadline = Instant::now() + PATIENCE;
    while cgroup.exists() && Instant::now() < deadline {
        entries(cgroup).iter().filter(|path| path.is_dir()).for_each(|child| drop(fs::remove_dir(child)));
        if fs::remove_dir(cgroup).is_err() {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let listing = fs::read_dir(directory).into_iter().flatten();
    listing.filter_map(Result::ok).map(|entry| entry.path()).collect()
}

fn is_dead(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(is_dead_name)
}

fn is_dead_name(name: &str) -> bool {
    let pid = name.strip_prefix("sh-").and_then(|rest| rest.split('-').next());
    let pid = pid.and_then(|pid| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}
