//! The tables of the *direct* verdict: listener → arms → cluster → endpoint, and the books that the kernel keeps.
//!
//! The daemon writes the first five; connections write accounts, what is tracked, and events. A region of slots is
//! written before the listener or cluster that points at it, and used again only after a grace time; clusters and
//! endpoints have numbers that are never used twice within a boot.

/// Version of everything in this file and in `capture`: maps of another layout are not taken over.
pub const LAYOUT: u32 = 2;

/// Key of the exact listeners, and data of the longest-prefix key of the ranges: address last, scope and port always
/// whole.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerKey {
    /// 0: every workload; else the [`crate::Workload::scope`] that it is for. Network order.
    pub scope: [u8; 4],
    /// The port, network order.
    pub port: [u8; 2],
    /// The address, v4-mapped; of a range the first.
    pub address: [u8; 16],
}

impl ListenerKey {
    /// Bits of a whole key: what a longest-prefix lookup asks with.
    pub const BITS: u32 = 32 + 16 + 128;
    /// Bits that stand before the address.
    pub const HEAD_BITS: u32 = 32 + 16;
}

/// Value of `LISTENERS` and `RANGES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listener {
    /// A [`crate::Verdict`]; the rest means something for `Direct` only.
    pub verdict: u32,
    /// First of its arms in `SLOTS`: a column of an alias table each, whose members are clusters.
    pub base: u32,
    /// How many there are; 1 needs no draw, 0 is a fault of the tables.
    pub count: u32,
    /// Bits of the prefix (of [`ListenerKey::BITS`]), so that the longer of two scopes' ranges is known.
    pub bits: u32,
}

/// One column of an alias table, or one place of a sequence (then `own` is drawn, and the aliases list all endpoints
/// over and over). Value of the array `SLOTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// `own` is taken when a uniform 32-bit draw is at most this, else `alias`.
    pub threshold: u32,
    /// A cluster's or endpoint's number.
    pub own: u32,
    /// The other one; equal to `own` where a column has none.
    pub alias: u32,
    /// Explicit, so that no byte of the value is undefined.
    pub padding: u32,
}

/// How a cluster's endpoint is chosen.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Balancing {
    /// `RANDOM`: slots are an alias table.
    Random = 0,
    /// `ROUND_ROBIN`: slots are one round, each endpoint as often as its weight says.
    RoundRobin = 1,
    /// `LEAST_REQUEST`: slots are an alias table; of two draws the one with fewer connections of this workload.
    #[default]
    LeastRequest = 2,
    /// `consistentHash.useSourceIp`: slots are a Maglev table.
    SourceHash = 3,
    /// `PASSTHROUGH`: the address that the client dialled; no slots.
    OriginalDestination = 4,
}

/// What `maxConnections` counts together.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LimitScope {
    /// Each workload's connections to the cluster, as Istio's sidecar does.
    #[default]
    Workload = 0,
    /// All workloads' connections to the cluster.
    Node = 1,
    /// Each workload's connections to each endpoint.
    Endpoint = 2,
}

/// Value of `CLUSTERS`; the key is its number, from 1.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Hash of its name, by which a daemon that starts knows it again.
    pub name_hash: u64,
    /// First of its slots.
    pub base: u32,
    /// How many there are; 0: nobody serves it.
    pub count: u32,
    /// `maxConnections`; `u32::MAX`: no limit.
    pub max_connections: u32,
    /// `connectTimeout`; 0: the system's.
    pub connect_timeout_ms: u32,
    /// `tcpKeepalive` is on (flag [`Self::KEEPALIVE`]): seconds before the first probe; 0: the system's.
    pub keepalive_idle_s: u32,
    /// Seconds between probes; 0: the system's.
    pub keepalive_interval_s: u32,
    /// Probes that may stay unanswered; 0: the system's.
    pub keepalive_probes: u32,
    /// A [`Balancing`].
    pub balancing: u8,
    /// A [`LimitScope`].
    pub limit_scope: u8,
    /// Bits below.
    pub flags: u8,
    /// Explicit, so that no byte of the value is undefined.
    pub padding: u8,
}

impl Cluster {
    /// Health does not count: so few are healthy that all are used.
    pub const PANIC: u8 = 1;
    /// The host or subset does not exist (NC, not UH).
    pub const MISSING: u8 = 2;
    /// Failures of its endpoints are reported at once.
    pub const OUTLIER: u8 = 4;
    /// `tcpKeepalive` is set.
    pub const KEEPALIVE: u8 = 8;
    /// `max_connections` of a cluster without a limit.
    pub const UNLIMITED: u32 = u32::MAX;
}

/// Value of `ENDPOINTS`; the key is its number, from 1. An endpoint belongs to one cluster.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Where to connect, v4-mapped.
    pub address: [u8; 16],
    /// The port, network order.
    pub port: [u8; 2],
    /// 1: ejected, to be passed over unless the cluster panics.
    pub ejected: u8,
    /// Explicit, so that no byte of the value is undefined.
    pub padding: u8,
    /// Its cluster.
    pub cluster: u32,
}

/// Key of `ACCOUNTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountKey {
    /// The workload; 0: all of them together.
    pub netns_cookie: u64,
    /// The cluster.
    pub cluster: u32,
    /// The endpoint; 0: the cluster as a whole, or the original destination.
    pub endpoint: u32,
}

/// Value of `ACCOUNTS`: only ever added to, by atomic instructions, and made by whoever needs it first.
///
/// An account with an endpoint counts what became of connections to it. One without counts what never got one, holds
/// the round robin's place and, unless the limit's scope says otherwise, the limit's count. That with cookie 0 and an
/// endpoint holds its run of failures.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Reserved or open now.
    pub active: u64,
    /// Next place of the round robin.
    pub cursor: u64,
    /// Established.
    pub opened: u64,
    /// Established and ended.
    pub closed: u64,
    /// Never established: refused, timed out, unreachable (UF).
    pub failed: u64,
    /// Never established, because the application gave up first (DC).
    pub abandoned: u64,
    /// Limit reached (UO).
    pub overflowed: u64,
    /// Nobody there (UH).
    pub unhealthy: u64,
    /// No such host or subset (NC).
    pub missing: u64,
    /// Bytes that clients sent, of ended connections.
    pub received: u64,
    /// Bytes that clients got, of ended connections. Istio's words: seen from the server.
    pub sent: u64,
    /// Sum of smoothed round-trip times at the end of connections, in microseconds.
    pub rtt_us: u64,
    /// Failures in a row.
    pub run: u64,
}

/// What a socket remembers (SK_STORAGE `TRACKED`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracked {
    /// A state of `limit`; only ever exchanged.
    pub state: u64,
    /// Whose account it is on.
    pub netns_cookie: u64,
    /// When connect() was called, CLOCK_MONOTONIC in ns.
    pub started_ns: u64,
    /// Its cluster.
    pub cluster: u32,
    /// Its endpoint; 0: the original destination.
    pub endpoint: u32,
    /// The application's TCP_USER_TIMEOUT, given back once established.
    pub user_timeout_ms: u32,
    /// Bits below.
    pub flags: u32,
    /// Where the application wanted to go: what `getpeername` says.
    pub original: [u8; 16],
    /// The port of that, network order.
    pub original_port: [u8; 2],
    /// The endpoint's port, network order.
    pub endpoint_port: [u8; 2],
    /// A [`LimitScope`] as it was when the connection was counted.
    pub limit_scope: u8,
    /// Explicit, so that no byte of the value is undefined.
    pub padding: [u8; 3],
    /// The endpoint's address, v4-mapped.
    pub endpoint_address: [u8; 16],
    /// Low half of the bytes that had come when the client's FIN was acknowledged: one more later is the server's FIN.
    pub came_before_fin: u32,
    /// Explicit, so that no byte of the value is undefined.
    pub end_padding: u32,
}

impl Tracked {
    /// TCP_USER_TIMEOUT is ours.
    pub const TIMEOUT_SET: u32 = 1;
    /// A SYN was sent again.
    pub const RETRIED: u32 = 2;
    /// It was established.
    pub const ESTABLISHED: u32 = 4;
    /// Its cluster wants failures reported.
    pub const OUTLIER: u32 = 8;
    /// `getpeername` shows `original`.
    pub const REWRITTEN: u32 = 16;
    /// The client ended its stream first.
    pub const CLIENT_ENDED: u32 = 32;
    /// The server ended its stream first.
    pub const SERVER_ENDED: u32 = 64;
    /// To be counted when the kernel begins to connect, not before (MPTCP: nothing else would tell that it never did).
    pub const LATE: u32 = 128;
}

/// What an [`Event`] tells.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// An established connection ended.
    Closed = 1,
    /// One was refused before it had an endpoint; see [`Event::cause`].
    Refused = 2,
    /// One was never established.
    Failed = 3,
    /// The workload may not reach `original`: an [`Denied`] in `cause` says what it tried.
    Denied = 4,
}

/// What a workload under REGISTRY_ONLY tried: the `cause` of an [`Event`] of kind `Denied`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// `connect()` over TCP.
    Tcp = 1,
    /// A datagram, or `connect()` over UDP.
    Udp = 2,
    /// A socket of another kind; its protocol is in `run`, there is no destination.
    Socket = 3,
    /// A packet that no socket program saw; its protocol is in `run`.
    Packet = 4,
}

/// Why, as far as the kernel can tell: how the access log's `cause` is found.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventCause {
    /// Nothing more is known.
    #[default]
    Unknown = 0,
    /// The client ended its stream first.
    ClientFin = 1,
    /// The server ended its stream first.
    ServerFin = 2,
    /// Reset by the client (or it was killed with data unread).
    ClientReset = 3,
    /// Reset by the server, or timed out.
    ServerReset = 4,
    /// The endpoint refused.
    ConnectRefused = 5,
    /// The endpoint did not answer in time.
    ConnectTimeout = 6,
    /// The application gave up.
    ClientGone = 7,
    /// Limit reached (UO).
    Overflow = 8,
    /// Nobody there (UH).
    NoEndpoint = 9,
    /// No such host or subset (NC).
    NoCluster = 10,
}

/// One record in the ring buffer `EVENTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// An [`EventKind`].
    pub kind: u32,
    /// An [`EventCause`].
    pub cause: u32,
    /// The workload.
    pub netns_cookie: u64,
    /// When it was written, CLOCK_MONOTONIC in ns.
    pub at_ns: u64,
    /// Since connect() was called, in ns.
    pub duration_ns: u64,
    /// Bytes that the client sent.
    pub received: u64,
    /// Bytes that the client got.
    pub sent: u64,
    /// The cluster.
    pub cluster: u32,
    /// The endpoint, 0 where there is none.
    pub endpoint: u32,
    /// Smoothed round-trip time in microseconds.
    pub rtt_us: u32,
    /// Failures of the endpoint in a row, this one included (kind `Failed`, clusters with outlier detection).
    pub run: u32,
    /// The client's address, v4-mapped; zeros where it had none yet.
    pub source: [u8; 16],
    /// The address that it dialled.
    pub original: [u8; 16],
    /// The client's port, network order.
    pub source_port: [u8; 2],
    /// The port that it dialled.
    pub original_port: [u8; 2],
    /// 1: the access log asked for a line (it may be sampled); 0: only outlier detection did.
    pub logged: u8,
    /// Explicit, so that no byte of the value is undefined.
    pub padding: [u8; 3],
}

const _: () = {
    assert!(size_of::<ListenerKey>() == 22 && align_of::<ListenerKey>() == 1);
    assert!(size_of::<Listener>() == 16 && size_of::<Slot>() == 16);
    assert!(size_of::<Cluster>() == 40 && size_of::<Endpoint>() == 24);
    assert!(size_of::<AccountKey>() == 16 && size_of::<Account>() == 104);
    assert!(size_of::<Tracked>() == 88 && size_of::<Event>() == 104);
};

macro_rules! plain_bytes {
    ($($name:ident),+) => {
        $(
            // SAFETY: `repr(C)` integers and byte arrays with their padding spelled out; every bit pattern is valid.
            #[cfg(feature = "user")]
            unsafe impl aya::Pod for $name {}
        )+
    };
}
plain_bytes!(ListenerKey, Listener, Slot, Cluster, Endpoint, AccountKey, Account, Tracked, Event);
