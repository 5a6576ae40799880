//! What `connect()` needs to know of a workload and of a destination, and what it counts.

/// What the kernel does with one `connect()`. Value of the listener maps.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The kernel connects, untouched.
    Pass = 0,
    /// The connection is delivered to the daemon with its destination intact.
    Steer = 1,
    /// The caller gets `ECONNREFUSED`.
    Refuse = 2,
}

/// What happens to a steered destination while no daemon listens.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FailurePolicy {
    /// The kernel connects as if Shunt were not there.
    #[default]
    Open = 0,
    /// The caller gets `ECONNREFUSED`.
    Closed = 1,
}

/// A workload as the programs see it; the key is the cookie of its network namespace (`SO_NETNS_COOKIE`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Only tasks in this cgroup (v2 id: the inode of its folder) or below it; 0 means every task of the
    /// namespace.
    pub cgroup_id: u64,
    /// Port of the daemon's listener on 127.0.0.1 inside the namespace, network order; 0 when there is none.
    pub port4: [u8; 2],
    /// The same on ::1.
    pub port6: [u8; 2],
    /// A [`FailurePolicy`].
    pub failure_policy: u8,
    /// Explicit, so that no byte of the value is undefined.
    pub padding: [u8; 3],
}

const _: () = assert!(size_of::<Workload>() == 16 && align_of::<Workload>() == 8);

/// What the programs count: the index into a per-CPU array of u64.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counter {
    /// A workload connected to something that no listener claims.
    Passed = 0,
    /// A connection was given to the daemon.
    Steered = 1,
    /// No daemon listened, policy open: the connection went its own way.
    FailedOpen = 2,
    /// No daemon listened, policy closed: `ECONNREFUSED`.
    FailedClosed = 3,
    /// The mark could not be set or cleared; the failure policy decided.
    MarkFailed = 4,
}

impl Counter {
    /// Every counter with the name that metrics and `shunt status` show.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Passed, "passed"),
        (Self::Steered, "steered"),
        (Self::FailedOpen, "failed_open"),
        (Self::FailedClosed, "failed_closed"),
        (Self::MarkFailed, "mark_failed"),
    ];
}

// SAFETY: `repr(C)` with its padding spelled out; every bit pattern is a valid value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Workload {}
