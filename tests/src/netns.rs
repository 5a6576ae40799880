//! One network namespace: create it, run code and commands inside, remove it.
//!
//! A thread enters with `setns`, so that files, cgroups and processes stay the host's: `ip netns exec`
//! would remount /sys and hide the cgroup filesystem from the daemon.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use nix::sched::{CloneFlags, setns};

/// A named network namespace that is removed when it is dropped.
#[derive(Debug)]
pub struct Netns {
    name: String,
    handle: File,
}

impl Netns {
    /// Creates the namespace `name`, with its loopback interface up.
    pub fn create(name: &str) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "run as root: the tests make network namespaces");
        run(Command::new("ip").args(["netns", "add", name]));
        let handle = File::open(path_of(name)).expect("the namespace was just made");
        let netns = Self { name: name.to_owned(), handle };
        netns.ip("link set lo up");
        // Interfaces come up at once instead of asking around for a second who else has their address.
        netns.sysctl("net/ipv6/conf/default/accept_dad", "0");
        netns.sysctl("net/ipv6/conf/default/dad_transmits", "0");
        netns
    }

    /// Its name, as `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path, as `shunt enroll --netns` wants it.
    pub fn path(&self) -> PathBuf {
        path_of(&self.name)
    }

    /// Runs `work` on a thread of its own inside the namespace and returns its result; a panic passes through.
    /// Sockets that `work` makes stay in the namespace wherever they are used later.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&self.handle, CloneFlags::CLONE_NEWNET).expect("enter the network namespace");
            work()
        };
        let result = thread::scope(|scope| scope.spawn(inside).join());
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts `command` inside the namespace.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.enter(|| command.spawn())
    }

    /// Runs `command` inside the namespace to its end.
    pub fn output(&self, command: &mut Command) -> io::Result<Output> {
        self.enter(|| command.output())
    }

    /// Runs `ip` inside the namespace, one command per line, and returns what it printed.
    pub fn ip(&self, batch: &str) -> String {
        self.batch(&[], batch)
    }

    /// Like [`Self::ip`], for commands that speak of IPv6 without naming an address.
    pub fn ip6(&self, batch: &str) -> String {
        self.batch(&["-6"], batch)
    }

    fn batch(&self, family: &[&str], batch: &str) -> String {
        let mut command = Command::new("ip");
        command
            .args(family)
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("start ip (package iproute2)");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(batch.as_bytes()).expect("ip reads its commands");
        drop(stdin);
        let output = child.wait_with_output().expect("ip ends");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip in {}: {complaint}\n{batch}", self.name);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Sets a `net` sysctl of the namespace, such as `net/ipv4/ip_forward`.
    pub fn sysctl(&self, key: &str, value: &str) {
        let file = format!("/proc/sys/{key}");
        self.enter(|| std::fs::write(&file, value)).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // Never a panic here: a failing test is already on its way out, and the next run sweeps.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).stderr(Stdio::null()).status();
    }
}

/// Where iproute2 keeps the handle of a named namespace.
fn path_of(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}");
}
