//! One workload, one server and one daemon's listeners, made for a story and gone with it.

mod cgroups;
mod daemon;
mod nets;

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _},
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    libc,
    mount::umount,
    sys::resource::{Resource, getrlimit, setrlimit},
};
use proxy_common::{FailurePolicy, Workload};
use proxy_traffic::{Listener, Snapshot, SteerReason, SubnetListener};
use shunt::{
    kernel::{Doors, Kernel, KernelSettings, LogLevel},
    node::{Namespace, Steering, cgroup, routing},
};
use socket2::Socket;

use self::{cgroups::Cgroups, nets::joined_namespaces};

pub(crate) const VIP: &str = "10.99.0.1:80";
pub(crate) const VIP6: &str = "[fd99::1]:80";

/// How long anything may take before a story fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Ports that the server answers on.
const PORTS: [u16; 3] = [80, 81, 8080];

static TURN: Mutex<()> = Mutex::new(());
static COUNT: AtomicUsize = AtomicUsize::new(0);

pub(crate) struct World {
    pub(crate) workload: Namespace,
    pub(crate) steering: Steering,
    pub(crate) pin: Option<PathBuf>,
    kernel: Option<Kernel>,
    daemon: Vec<Greeter>,
    _servers: Vec<Greeter>,
    /// Where whatever the workload sends arrives.
    pub(crate) server: Namespace,
    settings: KernelSettings,
    policy: FailurePolicy,
    cgroups: Cgroups,
    // Last, so that everything else is gone before the next story starts.
    _turn: MutexGuard<'static, ()>,
}

impl World {
    pub(crate) fn new(policy: FailurePolicy) -> Self {
        Self::build(policy, KernelSettings::CLAIMS, false, LogLevel::Off)
    }

    pub(crate) fn with_claims(policy: FailurePolicy, claims: u32) -> Self {
        Self::build(policy, claims, false, LogLevel::Off)
    }

    pub(crate) fn with_log(log: LogLevel) -> Self {
        Self::build(FailurePolicy::Open, KernelSettings::CLAIMS, false, log)
    }

    pub(crate) fn pinned(policy: FailurePolicy) -> Self {
        Self::build(policy, KernelSettings::CLAIMS, true, LogLevel::Off)
    }

    fn build(policy: FailurePolicy, claims: u32, pinned: bool, log: LogLevel) -> Self {
        assert!(
            nix::unistd::Uid::effective().is_root(),
            "these tests attach kernel programs: run them as root"
        );
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("shunt-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let cgroups = Cgroups::make(&name);
        let (workload, server) = joined_namespaces();
        let servers = server.enter(native_servers).unwrap();
        let pin = pinned.then(|| std::env::temp_dir().join(&name));
        let steering = Steering::default();
        let own_cgroup = cgroup::id(&cgroups.path.join("daemon")).unwrap();
        let (endpoints, lease) = (KernelSettings::ENDPOINTS, Duration::from_secs(60));
        let settings = KernelSettings {
            own_cgroup,
            mark: steering.mark,
            claims,
            endpoints,
            lease,
            direct_log_percent: 100,
            pin: pin.clone(),
            log,
        };
        let mut world = Self {
            workload,
            steering,
            pin,
            kernel: None,
            daemon: Vec::new(),
            _servers: servers,
            server,
            settings,
            policy,
            cgroups,
            _turn: turn,
        };
        routing::install(&world.workload, &steering).unwrap();
        world.start_daemon();
        world
    }

    /// A daemon that gives up before it captures anybody.
    pub(crate) fn fail_to_start(&self) {
        Kernel::load(&self.settings).unwrap().close().unwrap();
    }

    pub(crate) fn enroll_work(&mut self) {
        self.enroll(cgroup::id(&self.cgroup("work")).unwrap());
    }

    /// Enrolls the workload and greets whoever is steered; `cgroup_id` 0 means everybody in its namespace.
    pub(crate) fn enroll(&mut self, cgroup_id: u64) {
        let listeners = self.enroll_with(cgroup_id);
        self.daemon = listeners.map(|listener| Greeter::start(listener, "steered")).into();
    }

    /// Enrolls the workload with fresh listeners, IPv4 first.
    pub(crate) fn enroll_with(&mut self, cgroup_id: u64) -> [TcpListener; 2] {
        let Self { kernel, workload, policy, .. } = self;
        enroll_in(kernel.as_mut().unwrap(), workload, *policy, cgroup_id, &[])
    }

    /// Enrolls the server's namespace too, as a workload with these labels.
    pub(crate) fn enroll_server(&mut self, labels: &[(&str, &str)]) {
        let Self { kernel, server, policy, .. } = self;
        let listeners = enroll_in(kernel.as_mut().unwrap(), server, *policy, 0, labels);
        self.daemon.extend(listeners.map(|listener| Greeter::start(listener, "steered")));
    }

    pub(crate) fn with_lease(policy: FailurePolicy, lease: Duration) -> Self {
        let mut world = Self::new(policy);
        world.close_kernel();
        world.settings.lease = lease;
        world.start_daemon();
        world
    }

    pub(crate) fn stop_daemon(&mut self) {
        self.daemon.clear();
    }

    pub(crate) fn drop_kernel(&mut self) {
        self.kernel = None;
    }

    pub(crate) fn close_kernel(&mut self) {
        self.kernel.take().unwrap().close().unwrap();
    }

    pub(crate) fn kernel(&self) -> &Kernel {
        self.kernel.as_ref().unwrap()
    }

    pub(crate) fn kernel_mut(&mut self) -> &mut Kernel {
        self.kernel.as_mut().unwrap()
    }

    pub(crate) fn cgroup(&self, name: &str) -> PathBuf {
        self.cgroups.path.join(name)
    }

    /// While this process is in none of the story's cgroups.
    pub(crate) fn outside<T>(&self, work: impl FnOnce() -> T) -> T {
        cgroup::move_self(&self.cgroups.home).unwrap();
        let outcome = work();
        cgroup::move_self(&self.cgroup("work")).unwrap();
        outcome
    }

    pub(crate) fn in_workload<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.workload.enter(work).unwrap()
    }

    pub(crate) fn dial(&self, address: &str) -> io::Result<TcpStream> {
        self.in_workload(|| connect(address))
    }

    /// What the one who accepts says: who, at which address, to whom.
    pub(crate) fn greeting(&self, address: &str) -> String {
        hear(&self.dial(address).unwrap_or_else(|error| panic!("{address}: {error}")))
    }

    pub(crate) fn who_answers(&self, address: &str) -> String {
        first_word(&self.greeting(address))
    }

    /// The same for a process in one of the story's cgroups.
    pub(crate) fn who_answers_in(&self, cgroup: &str, address: &str) -> String {
        let (host, port) = address.rsplit_once(':').unwrap();
        let host = host.trim_matches(['[', ']']);
        let procs = self.cgroup(cgroup).join("cgroup.procs");
        let script = format!(
            "echo $$ > {} && exec 3<>/dev/tcp/{host}/{port} && read -r -t 5 line <&3 && echo $line",
            procs.display()
        );
        let output = self.in_workload(|| Command::new("bash").args(["-c", &script]).output().unwrap());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        first_word(&String::from_utf8_lossy(&output.stdout))
    }

    /// A server beside the workload, which answers `local`.
    pub(crate) fn local_server(&self, address: &str) -> Greeter {
        Greeter::start(self.in_workload(|| TcpListener::bind(address).unwrap()), "local")
    }

    pub(crate) fn ip(&self, arguments: &str) -> String {
        self.in_workload(|| ip(arguments))
    }
}

fn enroll_in(
    kernel: &mut Kernel,
    namespace: &Namespace,
    policy: FailurePolicy,
    cgroup_id: u64,
    labels: &[(&str, &str)],
) -> [TcpListener; 2] {
    let listeners = namespace.listen().unwrap();
    let v6 = listeners.v6.unwrap();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port().to_be_bytes();
    let workload = Workload {
        cgroup_id,
        port4: port(&listeners.v4),
        port6: port(&v6),
        source4: proxy_common::Destination::from("10.77.0.2:0".parse::<SocketAddr>().unwrap()).address,
        failure_policy: policy as u8,
        ..Default::default()
    };
    let (netns, cookie) = (namespace.as_fd(), namespace.cookie());
    let about = Arc::new(proxy_traffic::Workload {
        name: "test".to_owned(),
        namespace: "default".to_owned(),
        labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    });
    let doors = Doors { v4: listeners.v4.as_fd(), v6: Some(v6.as_fd()), dns4: None, dns6: None };
    kernel.enroll(netns, cookie, workload, about, &doors).unwrap();
    [listeners.v4, v6]
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(kernel) = self.kernel.take() {
            let closed = kernel.close();
            assert!(thread::panicking() || closed.is_ok(), "{closed:?}");
        }
        // There unless the story's last kernel was closed.
        if let Some(pin) = self.pin.as_deref().filter(|pin| pin.exists()) {
            umount(pin).unwrap();
            fs::remove_dir(pin).unwrap();
        }
    }
}

/// Says `LABEL at OWN-ADDRESS from PEER` to whoever connects, and holds the connection until it is dropped.
pub(crate) struct Greeter {
    listener: Socket,
    thread: Option<JoinHandle<()>>,
}

impl Greeter {
    pub(crate) fn start(listener: TcpListener, label: &'static str) -> Self {
        listener.set_nonblocking(false).unwrap();
        let handle = listener.try_clone().unwrap().into();
        let thread = thread::spawn(move || {
            let mut held = Vec::new();
            while let Ok((mut stream, peer)) = listener.accept() {
                let own = stream.local_addr().unwrap();
                // A client that is gone already is no concern of ours.
                let _ = writeln!(stream, "{label} at {own} from {}", peer.ip());
                held.push(stream);
                // Those who hold more than this have heard all there is.
                if held.len() > 8192 {
                    held.clear();
                }
            }
        });
        Self { listener: handle, thread: Some(thread) }
    }
}

impl Drop for Greeter {
    fn drop(&mut self) {
        // Wakes the thread: a listener that is shut down accepts no more.
        let _ = self.listener.shutdown(Shutdown::Both);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn native_servers() -> Vec<Greeter> {
    let bind = |address: SocketAddr| {
        let socket = Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None).unwrap();
        if address.is_ipv6() {
            socket.set_only_v6(true).unwrap();
        }
        socket.bind(&address.into()).unwrap();
        socket.listen(128).unwrap();
        Greeter::start(socket.into(), "native")
    };
    let any = PORTS.into_iter().flat_map(|port| [format!("0.0.0.0:{port}"), format!("[::]:{port}")]);
    any.map(|address| bind(address.parse().unwrap())).collect()
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The kernel takes a new IPv6 address into its tables a moment after it took the order.
pub(crate) fn await_local(address: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !ip("-6 route show table local").contains(&format!("local {address} ")) {
        assert!(Instant::now() < deadline, "{address} does not become local");
        thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn connect(address: &str) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&address.parse().unwrap(), PATIENCE)
}

/// The first line that comes.
pub(crate) fn hear(stream: &TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

fn first_word(line: &str) -> String {
    line.split(' ').next().unwrap_or_default().trim_end().to_owned()
}

/// Takes a connected socket back to where it was before it connected.
pub(crate) fn disconnect(socket: &Socket) {
    // SAFETY: zero is a valid value of every field; family 0 is AF_UNSPEC.
    let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    let length = size_of_val(&nowhere) as libc::socklen_t;
    // SAFETY: the socket is open, the address is initialised and of the stated size.
    let status = unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, length) };
    assert_eq!(status, 0, "{}", io::Error::last_os_error());
}

pub(crate) fn raise_descriptor_limit() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
}

/// A snapshot that claims these addresses and ranges.
pub(crate) fn snapshot(exact: &[&str], ranges: &[(&str, u16)]) -> Arc<Snapshot> {
    let listener = Arc::new(Listener {
        name: "test".into(),
        rules: Vec::new(),
        steer: Some(SteerReason::Setting),
        ..Listener::default()
    });
    let listeners = exact.iter().map(|address| (address.parse().unwrap(), Arc::clone(&listener))).collect();
    let subnets = ranges.iter().map(|(subnet, port)| {
        let listener = Arc::clone(&listener);
        SubnetListener { subnet: subnet.parse().unwrap(), port: *port, listener }
    });
    Arc::new(Snapshot { listeners, subnets: subnets.collect(), ..Snapshot::default() })
}
