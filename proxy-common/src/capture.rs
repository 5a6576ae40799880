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
    /// The kernel connects to an endpoint that the program draws.
    Direct = 3,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Only tasks in this cgroup (v2 id: the inode of its folder) or below it; 0 means every task of the
    /// namespace.
    pub cgroup_id: u64,
    /// Address that its connections leave from unless they were bound, v4-mapped, for either family; zeros where it
    /// has none. What `consistentHash.useSourceIp` hashes.
    pub source4: [u8; 16],
    /// The same for IPv6.
    pub source6: [u8; 16],
    /// Listeners that are this workload's own stand under this number; 0: it has none. See [`crate::ListenerKey`].
    pub scope: u32,
    /// Port of the daemon's listener on 127.0.0.1 inside the namespace, network order; 0 when there is none.
    pub port4: [u8; 2],
    /// The same on ::1.
    pub port6: [u8; 2],
    /// A [`FailurePolicy`].
    pub failure_policy: u8,
    /// An [`Egress`](crate::Egress).
    pub egress: u8,
    /// [`Workload::DNS`] or nothing.
    pub flags: u8,
    /// Explicit, so that no byte of the value is undefined.
    pub padding: [u8; 5],
}

impl Workload {
    /// The daemon answers its name queries: TCP port 53 is steered, UDP sockets carry the mark that the routing rule for UDP
    /// port 53 asks for.
    pub const DNS: u8 = 1;
}

const _: () = assert!(size_of::<Workload>() == 56 && align_of::<Workload>() == 8);

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
    /// The kernel was sent to an endpoint that the program drew.
    Direct = 5,
    /// A limit was reached (flag UO): `ECONNREFUSED`.
    Overflowed = 6,
    /// Nobody serves the cluster (flag UH): `ECONNREFUSED`.
    Unhealthy = 7,
    /// The route's host or subset does not exist (flag NC): `ECONNREFUSED`.
    Missing = 8,
    /// The daemon has been gone for longer than its lease; the failure policy decided on a direct listener.
    LeaseExpired = 9,
    /// The tables did not hold what a listener promises, or had no room; the failure policy decided.
    TableFailed = 10,
    /// Memory for the books of one connection was not to be had; the failure policy decided.
    Untracked = 11,
    /// A record found no room in the ring buffer: a line of the access log is missing, no count is.
    RecordLost = 12,
    /// No listener takes it and its workload may reach nothing else: given to the daemon, which closes it.
    EgressClosed = 13,
    /// The same, refused here: `ECONNREFUSED`.
    EgressRefused = 14,
    /// A datagram (or `connect()` of a datagram socket) to where its workload may not send any.
    DatagramRefused = 15,
    /// A socket of a kind that a workload under REGISTRY_ONLY may not have (raw, ICMP, SCTP…).
    SocketRefused = 16,
    /// A packet that went around the programs at sockets, dropped at the other end of its namespace's veth pair.
    PacketDropped = 17,
}

impl Counter {
    /// Every counter with the name that metrics and `shunt status` show.
    pub const ALL: [(Self, &'static str); 18] = [
        (Self::Passed, "passed"),
        (Self::Steered, "steered"),
        (Self::FailedOpen, "failed_open"),
        (Self::FailedClosed, "failed_closed"),
        (Self::MarkFailed, "mark_failed"),
        (Self::Direct, "direct"),
        (Self::Overflowed, "overflowed"),
        (Self::Unhealthy, "unhealthy"),
        (Self::Missing, "missing"),
        (Self::LeaseExpired, "lease_expired"),
        (Self::TableFailed, "table_failed"),
        (Self::Untracked, "untracked"),
        (Self::RecordLost, "record_lost"),
        (Self::EgressClosed, "egress_closed"),
        (Self::EgressRefused, "egress_refused"),
        (Self::DatagramRefused, "datagram_refused"),
        (Self::SocketRefused, "socket_refused"),
        (Self::PacketDropped, "packet_dropped"),
    ];
}

// SAFETY: `repr(C)` with its padding spelled out; every bit pattern is a valid value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Workload {}
