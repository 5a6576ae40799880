//! The network of one story.

use std::{fs::File, os::fd::AsRawFd as _, path::Path, thread};

use nix::sched::{CloneFlags, unshare};
use shunt::node::Namespace;

use super::{await_local, ip};

/// A workload at 10.77.0.2 and fd77::2 whose every packet goes to a server that answers for any address.
pub(super) fn joined_namespaces() -> (Namespace, Namespace) {
    let (workload_file, workload) = fresh_namespace();
    let (server_file, server) = fresh_namespace();
    let server_path = format!("/proc/{}/fd/{}", std::process::id(), server_file.as_raw_fd());
    workload
        .enter(|| {
            ip("link set lo up");
            ip(&format!("link add eth0 type veth peer name eth0 netns {server_path}"));
        })
        .unwrap();
    server
        .enter(|| {
            ip("link set lo up");
            ip("addr add 10.77.0.1/24 dev eth0");
            ip("addr add fd77::1/64 dev eth0 nodad");
            ip("link set eth0 up");
            ip("route add local 10.98.0.0/15 dev lo");
            ip("-6 route add local fd98::/15 dev lo");
        })
        .unwrap();
    workload
        .enter(|| {
            ip("addr add 10.77.0.2/24 dev eth0");
            ip("addr add fd77::2/64 dev eth0 nodad");
            ip("link set eth0 up");
            ip("route add default via 10.77.0.1");
            ip("-6 route add default via fd77::1");
            await_local("fd77::2");
        })
        .unwrap();
    server.enter(|| await_local("fd77::1")).unwrap();
    drop(workload_file);
    (workload, server)
}

fn fresh_namespace() -> (File, Namespace) {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    };
    let file = thread::spawn(make).join().unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let namespace = Namespace::open(Path::new(&path)).unwrap();
    (file, namespace)
}
