//! One `connect()` as the kernel hands it over: typed reads, and the few things a program can do to it.
//!
//! Each context field is read by a volatile access of its own: the verifier accepts no merged ones.

use core::{
    ffi::c_void,
    mem::{offset_of, size_of},
    ptr::{addr_of, addr_of_mut, from_mut, null_mut, read_volatile, write_volatile},
};

use aya_ebpf::{
    EbpfContext as _,
    bindings::{bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as TupleV4},
    helpers::generated::{
        bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_netns_cookie,
        bpf_get_prandom_u32, bpf_getsockopt, bpf_set_retval, bpf_setsockopt, bpf_sk_lookup_tcp, bpf_sk_release,
        bpf_skc_to_mptcp_sock,
    },
    programs::SockAddrContext,
};
use proxy_common::{
    Destination,
    direct::{Cluster, Tracked},
};
use proxy_ebpf::{v4_mapped, words};

const SOCK_STREAM: u32 = 1;
const IPPROTO_TCP: u32 = 6;
const SOL_SOCKET: i32 = 1;
const SOL_TCP: i32 = 6;
const SO_KEEPALIVE: i32 = 9;
const SO_MARK: i32 = 36;
const TCP_KEEPIDLE: i32 = 4;
const TCP_KEEPINTVL: i32 = 5;
const TCP_KEEPCNT: i32 = 6;
const TCP_USER_TIMEOUT: i32 = 18;
const ECONNREFUSED: i32 = 111;
const BPF_F_CURRENT_NETNS: u64 = u64::MAX;
/// Deeper cgroups than this do not exist in practice; the verifier wants a bound.
const CGROUP_DEPTH: i32 = 32;

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

    /// Sets the socket's firewall mark; false when the kernel refuses.
    #[inline(always)]
    pub(crate) fn set_mark(&self, mark: u32) -> bool {
        self.set(SOL_SOCKET, SO_MARK, mark)
    }

    /// Gives up after `timeout_ms` without an answer, unless the application wants to sooner. Gives what the
    /// application had set, if that has to be given back.
    #[inline(always)]
    pub(crate) fn set_connect_timeout(&self, timeout_ms: u32) -> Option<u32> {
        let before = self.get(SOL_TCP, TCP_USER_TIMEOUT)?;
        let sooner = before != 0 && before <= timeout_ms;
        (!sooner && self.set(SOL_TCP, TCP_USER_TIMEOUT, timeout_ms)).then_some(before)
    }

    /// Gives the application's TCP_USER_TIMEOUT back.
    #[inline(always)]
    pub(crate) fn restore_timeout(&self, timeout_ms: u32) {
        // The kernel took the same option a moment ago; if it does not now, the socket is no worse than it was.
        self.set(SOL_TCP, TCP_USER_TIMEOUT, timeout_ms);
    }

    /// Turns keepalive on, as the cluster wants it; 0 leaves what the system says.
    #[inline(always)]
    pub(crate) fn set_keepalive(&self, cluster: &Cluster) {
        // An option that the kernel does not take leaves the system's value in force, as 0 does.
        self.set(SOL_SOCKET, SO_KEEPALIVE, 1);
        if cluster.keepalive_idle_s != 0 {
            self.set(SOL_TCP, TCP_KEEPIDLE, cluster.keepalive_idle_s);
        }
        if cluster.keepalive_interval_s != 0 {
            self.set(SOL_TCP, TCP_KEEPINTVL, cluster.keepalive_interval_s);
        }
        if cluster.keepalive_probes != 0 {
            self.set(SOL_TCP, TCP_KEEPCNT, cluster.keepalive_probes);
        }
    }

    #[inline(always)]
    fn set(&self, level: i32, option: i32, mut value: u32) -> bool {
        let length = size_of::<u32>() as i32;
        // SAFETY: the value is four initialised bytes on the stack and outlives the call.
        unsafe {
            bpf_setsockopt(self.context.as_ptr(), level, option, from_mut(&mut value).cast(), length) == 0
        }
    }

    #[inline(always)]
    fn get(&self, level: i32, option: i32) -> Option<u32> {
        let mut value = 0_u32;
        let length = size_of::<u32>() as i32;
        // SAFETY: the value is four bytes on the stack and outlives the call.
        let status =
            unsafe { bpf_getsockopt(self.context.as_ptr(), level, option, from_mut(&mut value).cast(), length) };
        (status == 0).then_some(value)
    }

    /// What the socket remembers; null: nothing.
    #[inline(always)]
    pub(crate) fn tracked(&self) -> *mut Tracked {
        // SAFETY: the socket is this context's.
        unsafe { crate::maps::tracked(self.socket()) }
    }

    /// The same, made if need be; null: there is no memory.
    #[inline(always)]
    pub(crate) fn track(&self) -> *mut Tracked {
        // SAFETY: the socket is this context's.
        unsafe { crate::maps::track(self.socket()) }
    }

    /// Whether the socket is a part of an MPTCP connection: then its owner never lets go of it by itself.
    #[inline(always)]
    pub(crate) fn is_mptcp(&self) -> bool {
        // SAFETY: the socket is this context's; what comes back is only compared with null.
        unsafe { bpf_skc_to_mptcp_sock(self.socket()) != null_mut() }
    }

    #[inline(always)]
    fn socket(&self) -> *mut c_void {
        field!(self, __bindgen_anon_1.sk).cast()
    }

    /// The IPv4 address that the socket is bound to; 0: none.
    #[inline(always)]
    pub(crate) fn bound4(&self) -> u32 {
        let socket = field!(self, __bindgen_anon_1.sk);
        if socket.is_null() {
            return 0;
        }
        // SAFETY: not null, and the kernel allows reads of a full socket's address.
        unsafe { read_volatile(addr_of!((*socket).src_ip4)) }
    }

    /// The IPv6 address that the socket is bound to; zeros: none.
    #[inline(always)]
    pub(crate) fn bound6(&self) -> [u32; 4] {
        let socket = field!(self, __bindgen_anon_1.sk);
        if socket.is_null() {
            return [0; 4];
        }
        // SAFETY: not null, and the kernel allows reads of a full socket's address, word by word.
        unsafe {
            [
                read_volatile(addr_of!((*socket).src_ip6[0])),
                read_volatile(addr_of!((*socket).src_ip6[1])),
                read_volatile(addr_of!((*socket).src_ip6[2])),
                read_volatile(addr_of!((*socket).src_ip6[3])),
            ]
        }
    }

    /// Puts another IPv4 address in the place of the one that the call names.
    #[inline(always)]
    pub(crate) fn write4(&self, address: &[u8; 16], port: [u8; 2]) {
        let context = self.context.sock_addr;
        let word = u32::from_ne_bytes([address[12], address[13], address[14], address[15]]);
        // SAFETY: the kernel passes a valid `bpf_sock_addr` and allows writes of these fields.
        unsafe { write_volatile(addr_of_mut!((*context).user_ip4), word) };
        self.write_port(port);
    }

    /// Puts another IPv6 address, or a v4-mapped one, in the place of the one that the call names.
    #[inline(always)]
    pub(crate) fn write6(&self, a: &[u8; 16], port: [u8; 2]) {
        let context = self.context.sock_addr;
        // SAFETY: the kernel passes a valid `bpf_sock_addr` and allows writes of these fields, word by word.
        unsafe {
            write_volatile(addr_of_mut!((*context).user_ip6[0]), u32::from_ne_bytes([a[0], a[1], a[2], a[3]]));
            write_volatile(addr_of_mut!((*context).user_ip6[1]), u32::from_ne_bytes([a[4], a[5], a[6], a[7]]));
            write_volatile(addr_of_mut!((*context).user_ip6[2]), u32::from_ne_bytes([a[8], a[9], a[10], a[11]]));
            write_volatile(addr_of_mut!((*context).user_ip6[3]), u32::from_ne_bytes([a[12], a[13], a[14], a[15]]));
        }
        self.write_port(port);
    }

    #[inline(always)]
    fn write_port(&self, port: [u8; 2]) {
        let context = self.context.sock_addr;
        let word = u32::from(u16::from_ne_bytes(port));
        // SAFETY: as above.
        unsafe { write_volatile(addr_of_mut!((*context).user_port), word) };
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

/// A uniform random number.
#[inline(always)]
pub(crate) fn random() -> u32 {
    // SAFETY: no argument.
    unsafe { bpf_get_prandom_u32() }
}

/// Whether the calling task is in the cgroup `id`, itself and not below it.
#[inline(always)]
pub(crate) fn in_cgroup(id: u64) -> bool {
    // SAFETY: no argument; the calling task is the one that connects.
    id == unsafe { bpf_get_current_cgroup_id() }
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
