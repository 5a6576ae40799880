//! One `connect()` as the kernel hands it over: typed reads, and the few things a program can do to it.
//!
//! Each context field is read by a volatile access of its own: the verifier accepts no merged ones.

use core::{
    mem::{offset_of, size_of},
    ptr::{addr_of, addr_of_mut, from_mut, read_volatile, write_volatile},
};

use aya_ebpf::{
    EbpfContext as _,
    bindings::{bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as TupleV4},
    helpers::generated::{
        bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_netns_cookie, bpf_getsockopt,
        bpf_set_retval, bpf_setsockopt, bpf_sk_lookup_tcp, bpf_sk_release, bpf_skc_to_mptcp_sock,
    },
    programs::SockAddrContext,
};
use proxy_common::{
    Destination,
    direct::{Cluster, Tracked},
};
use proxy_ebpf::{v4_mapped, word, words};

use crate::maps;

const SOCK_STREAM: u32 = 1;
pub(crate) const IPPROTO_TCP: u32 = 6;
pub(crate) const TCP_USER_TIMEOUT: i32 = 18;
const TCP_KEEPIDLE: i32 = 4;
const TCP_KEEPINTVL: i32 = 5;
const TCP_KEEPCNT: i32 = 6;
const SOL_TCP: i32 = IPPROTO_TCP as i32;
const SOL_SOCKET: i32 = 1;
const SO_KEEPALIVE: i32 = 9;
const SO_MARK: i32 = 36;
const ECONNREFUSED: i32 = 111;
/// `lo` is the first interface of every network namespace.
const LOOPBACK: u32 = 1;
const BPF_F_CURRENT_NETNS: u64 = u64::MAX;
/// Deeper cgroups than this do not exist in practice; the verifier wants a bound.
const CGROUP_DEPTH: i32 = 32;

/// Writes one field of the context.
macro_rules! set_field {
    ($connect:expr, $value:expr, $($field:tt)+) => {{
        let context = $connect.context.sock_addr;
        // SAFETY: the kernel passes a valid `bpf_sock_addr` and allows writes of this field.
        unsafe { write_volatile(addr_of_mut!((*context).$($field)+), $value) }
    }};
}

/// Reads one field of the context.
macro_rules! field {
    ($connect:expr, $($field:tt)+) => {{
        let context = $connect.context.sock_addr;
        // SAFETY: the kernel passes a valid `bpf_sock_addr` and allows reads of this field.
        unsafe { read_volatile(addr_of!((*context).$($field)+)) }
    }};
}

/// One `connect()`.
pub(crate) struct Connect {
    context: SockAddrContext,
}

impl Connect {
    #[inline(always)]
    pub(crate) fn new(context: SockAddrContext) -> Self {
        Self { context }
    }

    /// The context itself, for the log macros.
    #[inline(always)]
    pub(crate) fn context(&self) -> &SockAddrContext {
        &self.context
    }

    #[inline(always)]
    pub(crate) fn netns_cookie(&self) -> u64 {
        // SAFETY: the context is the one this program was called with.
        unsafe { bpf_get_netns_cookie(self.context.as_ptr()) }
    }

    #[inline(always)]
    pub(crate) fn is_tcp(&self) -> bool {
        field!(self, type_) == SOCK_STREAM && field!(self, protocol) == IPPROTO_TCP
    }

    /// The protocol of its socket.
    #[inline(always)]
    pub(crate) fn protocol(&self) -> u32 {
        field!(self, protocol)
    }

    /// Where `connect4` wants to go.
    #[inline(always)]
    pub(crate) fn destination4(&self) -> Destination {
        Destination { address: v4_mapped(field!(self, user_ip4)), port: self.port() }
    }

    /// Where `connect6` wants to go.
    #[inline(always)]
    pub(crate) fn destination6(&self) -> Destination {
        let address = words([
            field!(self, user_ip6[0]),
            field!(self, user_ip6[1]),
            field!(self, user_ip6[2]),
            field!(self, user_ip6[3]),
        ]);
        Destination { address, port: self.port() }
    }

    #[inline(always)]
    fn port(&self) -> [u8; 2] {
        let bytes = field!(self, user_port).to_ne_bytes();
        [bytes[0], bytes[1]]
    }

    /// The socket's firewall mark.
    #[inline(always)]
    pub(crate) fn mark(&self) -> u32 {
        let socket = field!(self, __bindgen_anon_1.sk);
        if socket.is_null() {
            return 0;
        }
        // SAFETY: not null, and the kernel allows reads of a full socket's mark.
        unsafe { read_volatile(addr_of!((*socket).mark)) }
    }

    /// Whether the application bound the socket to an interface that leads out: such a socket's packets are not routed to `lo`.
    #[inline(always)]
    pub(crate) fn is_bound_outside(&self) -> bool {
        let socket = field!(self, __bindgen_anon_1.sk);
        if socket.is_null() {
            return false;
        }
        // SAFETY: not null, and the kernel allows reads of this field of a full socket.
        let device = unsafe { read_volatile(addr_of!((*socket).bound_dev_if)) };
        device != 0 && device != LOOPBACK
    }

    /// The address that the application bound the socket to, if it did.
    #[inline(always)]
    pub(crate) fn bound_source(&self, v4_only: bool) -> Option<[u8; 16]> {
        let socket = field!(self, __bindgen_anon_1.sk);
        if socket.is_null() {
            return None;
        }
        // SAFETY: not null, and the kernel allows reads of these fields of a full socket, word by word.
        let read = |at: *const u32| unsafe { read_volatile(at) };
        if v4_only {
            // SAFETY: only the field's place.
            let address = read(unsafe { addr_of!((*socket).src_ip4) });
            return (address != 0).then(|| v4_mapped(address));
        }
        // SAFETY: as above.
        let at = |index: usize| read(unsafe { addr_of!((*socket).src_ip6).cast::<u32>().add(index) });
        let address = [at(0), at(1), at(2), at(3)];
        (address[0] | address[1] | address[2] | address[3] != 0).then(|| words(address))
    }

    /// Sets the socket's firewall mark; false when the kernel refuses.
    #[inline(always)]
    pub(crate) fn set_mark(&self, mark: u32) -> bool {
        self.set_option(SOL_SOCKET, SO_MARK, mark)
    }

    #[inline(always)]
    fn set_option(&self, level: i32, name: i32, mut value: u32) -> bool {
        let length = size_of::<u32>() as i32;
        // SAFETY: the value is four initialised bytes on the stack and outlives the call.
        unsafe {
            bpf_setsockopt(self.context.as_ptr(), level, name, from_mut(&mut value).cast(), length) == 0
        }
    }

    /// Bounds the connect in time, unless the application's own bound is tighter; the application's own.
    #[inline(always)]
    pub(crate) fn bound(&self, milliseconds: u32) -> Option<u32> {
        let mut theirs = 0_u32;
        let length = size_of::<u32>() as i32;
        // SAFETY: the value is four initialised bytes on the stack and outlives the call.
        let status = unsafe {
            bpf_getsockopt(
                self.context.as_ptr(),
                SOL_TCP,
                TCP_USER_TIMEOUT,
                from_mut(&mut theirs).cast(),
                length,
            )
        };
        // A kernel that cannot tell: nearly nobody sets it.
        let theirs = if status == 0 { theirs } else { 0 };
        if theirs != 0 && theirs < milliseconds {
            return None;
        }
        self.set_option(SOL_TCP, TCP_USER_TIMEOUT, milliseconds).then_some(theirs)
    }

    /// Gives the application's own bound back.
    #[inline(always)]
    pub(crate) fn unbound(&self, theirs: u32) {
        self.set_option(SOL_TCP, TCP_USER_TIMEOUT, theirs);
    }

    /// Sets what `tcpKeepalive` asks for. A kernel that refuses keeps its own ways: no connect fails for that.
    #[inline(always)]
    pub(crate) fn keep_alive(&self, cluster: &Cluster) {
        if cluster.flags & Cluster::KEEPALIVE == 0 {
            return;
        }
        self.set_option(SOL_SOCKET, SO_KEEPALIVE, 1);
        if cluster.keepalive_idle_s != 0 {
            self.set_option(SOL_TCP, TCP_KEEPIDLE, cluster.keepalive_idle_s);
        }
        if cluster.keepalive_interval_s != 0 {
            self.set_option(SOL_TCP, TCP_KEEPINTVL, cluster.keepalive_interval_s);
        }
        if cluster.keepalive_probes != 0 {
            self.set_option(SOL_TCP, TCP_KEEPCNT, cluster.keepalive_probes);
        }
    }

    /// What the socket remembers of an earlier connect.
    #[inline(always)]
    pub(crate) fn tracked(&self) -> Option<&'static mut Tracked> {
        let socket = field!(self, __bindgen_anon_1.sk);
        if socket.is_null() { None } else { maps::tracked(socket.cast()) }
    }

    /// What the socket remembers from now on.
    #[inline(always)]
    pub(crate) fn track(&self) -> Option<&'static mut Tracked> {
        let socket = field!(self, __bindgen_anon_1.sk);
        if socket.is_null() { None } else { maps::track(socket.cast()) }
    }

    /// The daemon connects: `guard` lets it go where a workload may not.
    #[inline(always)]
    pub(crate) fn is_ours(&self) {
        let socket = field!(self, __bindgen_anon_1.sk);
        if !socket.is_null() {
            maps::is_ours(socket.cast());
        }
    }

    /// A workload connects to the daemon: `guard` lets nothing of it out, whatever becomes of its mark.
    #[inline(always)]
    pub(crate) fn is_kept_inside(&self) {
        let socket = field!(self, __bindgen_anon_1.sk);
        if !socket.is_null() {
            maps::is_kept_inside(socket.cast());
        }
    }

    /// Whether the socket is a subflow of MPTCP, of whose end before its first SYN nobody is told.
    #[inline(always)]
    pub(crate) fn is_mptcp(&self) -> bool {
        let socket = field!(self, __bindgen_anon_1.sk);
        // SAFETY: not null, a socket of the kernel's; the answer is only compared with null.
        !socket.is_null() && !unsafe { bpf_skc_to_mptcp_sock(socket.cast()) }.is_null()
    }

    /// Makes the kernel connect there, or `getpeername` say so. A v4-mapped address stays mapped.
    #[inline(always)]
    pub(crate) fn go_to(&self, to: &Destination, v4_only: bool) {
        if v4_only {
            set_field!(self, word(&to.address, 3), user_ip4);
        } else {
            set_field!(self, word(&to.address, 0), user_ip6[0]);
            set_field!(self, word(&to.address, 1), user_ip6[1]);
            set_field!(self, word(&to.address, 2), user_ip6[2]);
            set_field!(self, word(&to.address, 3), user_ip6[3]);
        }
        set_field!(self, u32::from(u16::from_ne_bytes(to.port)), user_port);
    }

    /// Makes `connect()` fail with ECONNREFUSED once the program returns 0; a bare 0 would say EPERM.
    #[inline(always)]
    pub(crate) fn refuse(&self) {
        // SAFETY: sets the return value of the call that this program decides on; a constant, as verifiers want.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
    }

    /// Whether somebody listens on 127.0.0.1:`port` in this network namespace.
    #[inline(always)]
    pub(crate) fn listens4(&self, port: [u8; 2]) -> bool {
        let mut tuple = empty_tuple();
        tuple.__bindgen_anon_1.ipv4.daddr = u32::from_ne_bytes([127, 0, 0, 1]);
        tuple.__bindgen_anon_1.ipv4.dport = u16::from_ne_bytes(port);
        self.listens(&mut tuple, size_of::<TupleV4>())
    }

    /// Whether somebody listens on \[::1\]:`port` in this network namespace.
    #[inline(always)]
    pub(crate) fn listens6(&self, port: [u8; 2]) -> bool {
        let mut tuple = empty_tuple();
        tuple.__bindgen_anon_1.ipv6.daddr = [0, 0, 0, u32::from_ne_bytes([0, 0, 0, 1])];
        tuple.__bindgen_anon_1.ipv6.dport = u16::from_ne_bytes(port);
        self.listens(&mut tuple, size_of::<bpf_sock_tuple>())
    }

    #[inline(always)]
    fn listens(&self, tuple: &mut bpf_sock_tuple, length: usize) -> bool {
        // SAFETY: `length` bytes of the tuple are initialised; a socket that is found is released at once.
        unsafe {
            let found =
                bpf_sk_lookup_tcp(self.context.as_ptr(), tuple, length as u32, BPF_F_CURRENT_NETNS, 0);
            if found.is_null() {
                return false;
            }
            bpf_sk_release(found.cast());
        }
        true
    }
}

/// The cgroup of the calling task, itself.
#[inline(always)]
pub(crate) fn current_cgroup() -> u64 {
    // SAFETY: no argument; the calling task is the one that connects.
    unsafe { bpf_get_current_cgroup_id() }
}

/// Whether the calling task is in the cgroup `id` or anywhere below it.
#[inline(always)]
pub(crate) fn below_cgroup(id: u64) -> bool {
    for level in 0..CGROUP_DEPTH {
        // SAFETY: any level is a valid argument; 0 says that the task's cgroup is not that deep.
        let ancestor = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
        if ancestor == id {
            return true;
        }
        if ancestor == 0 {
            return false;
        }
    }
    false
}

#[inline(always)]
fn empty_tuple() -> bpf_sock_tuple {
    const { assert!(offset_of!(bpf_sock_tuple, __bindgen_anon_1) == 0) };
    // SAFETY: plain integers; zero is a valid value of each.
    unsafe { core::mem::zeroed() }
}
