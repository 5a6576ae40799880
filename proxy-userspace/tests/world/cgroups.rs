//! The cgroups of one story.

use std::{fs, path::PathBuf};

use shunt::node::cgroup;

/// Cgroups `work`, `work/deeper`, `other` and `daemon`; this process is in `work` meanwhile.
pub(super) struct Cgroups {
    pub(super) path: PathBuf,
    pub(super) home: PathBuf,
}

impl Cgroups {
    pub(super) fn make(name: &str) -> Self {
        let mount = cgroup::Mount::find().unwrap();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        let home = mount.root().join(own);
        for leaf in ["work/deeper", "other", "daemon"] {
            mount.create(&format!("{name}/{leaf}")).unwrap();
        }
        let path = mount.root().join(name);
        cgroup::move_self(&path.join("work")).unwrap();
        Self { path, home }
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        cgroup::move_self(&self.home).unwrap();
        for leaf in ["work/deeper", "work", "other", "daemon", ""] {
            cgroup::remove(&self.path.join(leaf)).unwrap();
        }
    }
}
