//! Whether this machine can do what the programs need, one sentence for each thing that is missing.

use std::fs;

use aya::{programs::ProgramType, sys::is_program_supported};

/// Capabilities by number, as linux/capability.h has them.
const NEEDED: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN"), (39, "CAP_BPF")];
/// `bpf_set_retval` in connect programs came with it: refusals say ECONNREFUSED instead of EPERM.
const OLDEST_KERNEL: (u32, u32) = (6, 1);

/// What the machine is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The effective capabilities, a bit each.
    pub capabilities: u64,
    /// Whether a cgroup2 is mounted.
    pub has_cgroup2: bool,
    /// The kernel's version.
    pub kernel: (u32, u32),
    /// Whether the kernel describes its types (/sys/kernel/btf/vmlinux).
    pub has_btf: bool,
    /// Whether it takes connect and socket-lookup programs.
    pub takes_programs: bool,
}

/// Why the machine will not do. Each says how to change that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Rights are missing.
    #[error("{0} is missing: run shunt as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN")]
    Capability(&'static str),
    /// The kernel is too old.
    #[error("Linux {0}.{1} is too old: Linux 6.1 or newer is needed")]
    Kernel(u32, u32),
    /// There is no cgroup2.
    #[error("no cgroup2 is mounted: mount -t cgroup2 none /sys/fs/cgroup")]
    Cgroup2,
    /// There are no type descriptions.
    #[error("/sys/kernel/btf/vmlinux does not exist: a kernel with CONFIG_DEBUG_INFO_BTF=y is needed")]
    Btf,
    /// There are no programs of our kinds.
    #[error(
        "the kernel takes no eBPF connect or socket-lookup programs: CONFIG_CGROUP_BPF=y and CONFIG_BPF_SYSCALL=y are needed"
    )]
    Programs,
}

impl Facts {
    /// Looks around.
    #[must_use]
    pub fn gather() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let supported = |kind| is_program_supported(kind).unwrap_or(false);
        Self {
            capabilities: effective_capabilities(&read("/proc/self/status")),
            has_cgroup2: read("/proc/self/mountinfo").contains(" - cgroup2 "),
            kernel: running_kernel(),
            has_btf: fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false),
            takes_programs: supported(ProgramType::CgroupSockAddr) && supported(ProgramType::SkLookup),
        }
    }
}

/// Whether a machine like this will do.
///
/// # Errors
/// The first thing that is missing.
pub fn preflight(facts: &Facts) -> Result<(), Unfit> {
    if let Some((_, name)) = NEEDED.iter().find(|(bit, _)| facts.capabilities & (1 << bit) == 0) {
        return Err(Unfit::Capability(name));
    }
    if facts.kernel < OLDEST_KERNEL {
        return Err(Unfit::Kernel(facts.kernel.0, facts.kernel.1));
    }
    let rest = [
        (facts.has_cgroup2, Unfit::Cgroup2),
        (facts.has_btf, Unfit::Btf),
        (facts.takes_programs, Unfit::Programs),
    ];
    rest.into_iter().find(|(fine, _)| !fine).map_or(Ok(()), |(_, unfit)| Err(unfit))
}

/// The version of the kernel that runs.
pub(super) fn running_kernel() -> (u32, u32) {
    kernel_version(&fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default())
}

fn effective_capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default()
}

fn kernel_version(release: &str) -> (u32, u32) {
    let mut parts = release.split(|sign: char| !sign.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lack_has_its_sentence() {
        let fit = Facts {
            capabilities: u64::MAX,
            has_cgroup2: true,
            kernel: (6, 1),
            has_btf: true,
            takes_programs: true,
        };
        for (facts, want) in [
            (fit.clone(), Ok(())),
            (Facts { kernel: (7, 0), ..fit.clone() }, Ok(())),
            (Facts { capabilities: 0, ..fit.clone() }, Err(Unfit::Capability("CAP_NET_ADMIN"))),
            (Facts { capabilities: !(1 << 39), ..fit.clone() }, Err(Unfit::Capability("CAP_BPF"))),
            (Facts { kernel: (5, 15), ..fit.clone() }, Err(Unfit::Kernel(5, 15))),
            (Facts { has_cgroup2: false, ..fit.clone() }, Err(Unfit::Cgroup2)),
            (Facts { has_btf: false, ..fit.clone() }, Err(Unfit::Btf)),
            (Facts { takes_programs: false, ..fit }, Err(Unfit::Programs)),
        ] {
            assert_eq!(preflight(&facts), want, "{facts:?}");
        }
    }

    #[test]
    fn reads_what_proc_says() {
        assert_eq!(effective_capabilities("Name:\tx\nCapEff:\t00000000000000ff\n"), 0xff);
        assert_eq!(effective_capabilities(""), 0);
        for (release, want) in [("6.18.44-fc", (6, 18)), ("6.1", (6, 1)), ("7-rc", (7, 0)), ("", (0, 0))] {
            assert_eq!(kernel_version(release), want, "{release}");
        }
    }
}
