//! Two daemons' programs on the same hooks: each sees the other's, and who of them runs first. Needs root.

#![allow(clippy::unwrap_used, reason = "helpers of tests count as tests")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use shunt::{
    kernel::{Foreign, Kernel, KernelSettings, LogLevel},
    node::cgroup::{self, Mount},
};

/// Two cgroups, one inside the other, that go with the test.
struct Folders {
    outer: PathBuf,
    inner: PathBuf,
}

impl Folders {
    fn make() -> Self {
        let (mount, name) = (Mount::find().unwrap(), format!("shunt-foreign-{}", std::process::id()));
        let inner = mount.create(&format!("{name}/inner")).unwrap();
        Self { outer: mount.root().join(name), inner }
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        cgroup::remove(&self.inner).and_then(|()| cgroup::remove(&self.outer)).unwrap();
    }
}

fn settings() -> KernelSettings {
    KernelSettings {
        direct_log_percent: 0,
        own_cgroup: u64::MAX,
        mark: 1,
        claims: 64,
        endpoints: 64,
        lease: Duration::ZERO,
        pin: None,
        log: LogLevel::Off,
    }
}

fn only(cgroup: &Path) -> BTreeSet<PathBuf> {
    BTreeSet::from([cgroup.to_owned()])
}

/// Hook and turn of programs that both daemons have.
fn connects(foreign: &[Foreign]) -> Vec<(&str, &str, bool)> {
    let connects = foreign.iter().filter(|one| one.hook.starts_with("connect"));
    connects.map(|one| (one.hook, one.name.as_str(), one.before)).collect()
}

#[test]
fn programs_of_a_cgroup_run_before_those_above_it_and_in_the_order_of_attaching() {
    let folders = Folders::make();
    let load = || Kernel::load(&settings()).unwrap();
    let (mut above, mut below, mut later) = (load(), load(), load());
    let (inner, outer) = (only(&folders.inner), only(&folders.outer));
    // Another daemon of this machine's may sit above all of them.
    let strangers: BTreeSet<u32> = above.foreign(&inner).unwrap().iter().map(|one| one.id).collect();
    let others = |kernel: &Kernel, cgroups: &BTreeSet<PathBuf>| -> Vec<Foreign> {
        let all = kernel.foreign(cgroups).unwrap().into_iter();
        all.filter(|one| !strangers.contains(&one.id)).collect()
    };
    above.attach(&outer).unwrap();
    assert_eq!(others(&above, &inner), []);
    below.attach(&inner).unwrap();
    let both = |before| [("connect4", "connect4", before), ("connect6", "connect6", before)];
    assert_eq!(connects(&others(&above, &inner)), both(true));
    assert_eq!(connects(&others(&below, &inner)), both(false));
    assert_eq!(others(&above, &outer), [], "below does not run there");
    later.attach(&inner).unwrap();
    assert_eq!(connects(&others(&later, &inner)).iter().filter(|one| one.2).count(), 2);
    for kernel in [above, below, later] {
        kernel.close().unwrap();
    }
}

#[test]
fn a_folder_that_is_no_cgroup_is_named() {
    let kernel = Kernel::load(&settings()).unwrap();
    let error = kernel.foreign(&only(&std::env::temp_dir())).unwrap_err().to_string();
    assert!(error.contains(&std::env::temp_dir().display().to_string()), "{error}");
}
