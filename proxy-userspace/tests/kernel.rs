//! The kernel programs, the listeners and the routing rules together, in namespaces and cgroups that each story makes
//! for itself: a workload with one veth to a server that answers for every address.
//!
//! Needs root, and says so. The stories take turns: each moves this whole process into a cgroup of its own.

#![allow(clippy::unwrap_used, reason = "helpers of tests count as tests")]

#[path = "kernel/bytes.rs"]
mod bytes;
#[path = "kernel/changes.rs"]
mod changes;
#[path = "kernel/datagrams.rs"]
mod datagrams;
#[path = "kernel/denier.rs"]
mod denier;
#[path = "kernel/direct.rs"]
mod direct;
#[path = "kernel/egress.rs"]
mod egress;
#[path = "kernel/ends.rs"]
mod ends;
#[path = "kernel/frames.rs"]
mod frames;
#[path = "kernel/guard.rs"]
mod guard;
#[path = "kernel/names.rs"]
mod names;
#[path = "kernel/packets.rs"]
mod packets;
#[path = "kernel/picks.rs"]
mod picks;
#[path = "kernel/policy.rs"]
mod policy;
#[path = "kernel/routes.rs"]
mod routes;
#[path = "kernel/sockets.rs"]
mod sockets;
#[path = "kernel/stage.rs"]
mod stage;
mod world;

use std::{
    collections::BTreeSet,
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    os::fd::AsFd as _,
};

use nix::{
    fcntl::{SpliceFFlags, splice},
    poll::{PollFd, PollFlags},
    sys::socket::{getsockopt, sockopt},
};
use proxy_common::FailurePolicy;
use shunt::{
    kernel::{Kernel, LogLevel},
    node::{Family, Namespace, mounts, routing},
};
use socket2::{Domain, Socket, Type};

use crate::world::{VIP, VIP6, World, hear, snapshot};

const MAPPED: &str = "[::ffff:10.99.0.1]:80";
const STEERED: &str = "steered";
const NATIVE: &str = "native";

#[test]
fn a_claimed_destination_lands_on_the_listener_with_both_addresses_intact() {
    let world = World::new(FailurePolicy::Open);
    assert_eq!(world.greeting(VIP), "steered at 10.99.0.1:80 from 10.77.0.2");
    assert_eq!(world.greeting(VIP6), "steered at [fd99::1]:80 from fd77::2");
    assert_eq!(world.greeting(MAPPED), "steered at 10.99.0.1:80 from 10.77.0.2");
    for vip in [VIP, VIP6, MAPPED] {
        let stream = world.dial(vip).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), vip.parse().unwrap(), "what the client sees");
    }
}

#[test]
fn what_nobody_claims_passes() {
    let world = World::new(FailurePolicy::Open);
    for address in ["10.99.0.1:81", "10.99.0.2:80", "[fd99::1]:81", "[::ffff:10.99.0.2]:80"] {
        assert_eq!(world.who_answers(address), NATIVE, "{address}");
    }
    assert_eq!(world.kernel().counters().unwrap()[..2], [("passed", 4), ("steered", 0)]);
}

#[test]
fn ranges_are_claimed_by_port_and_longest_prefix_and_never_on_loopback() {
    let mut world = World::new(FailurePolicy::Open);
    let rules =
        snapshot(&[], &[("10.98.0.0/16", 80), ("0.0.0.0/0", 8080), ("::/0", 8080), ("fd98::/32", 80)]);
    world.kernel_mut().sync(&rules).unwrap();
    for (address, want) in [
        ("10.98.7.7:80", STEERED),
        ("10.98.7.7:81", NATIVE),
        ("10.99.0.1:80", NATIVE),
        ("10.99.0.1:8080", STEERED),
        ("[fd98::7]:80", STEERED),
        ("[fd99::7]:80", NATIVE),
        ("[fd99::7]:8080", STEERED),
    ] {
        assert_eq!(world.who_answers(address), want, "{address}");
    }
    let _local = ["127.0.0.1:8080", "[::1]:8080"].map(|address| world.local_server(address));
    assert_eq!(world.who_answers("127.0.0.1:8080"), "local");
    assert_eq!(world.who_answers("[::1]:8080"), "local");
}

#[test]
fn an_address_on_lo_that_nobody_claims_is_not_stolen() {
    let world = World::new(FailurePolicy::Open);
    world.ip("addr add 10.66.0.1/32 dev lo");
    world.ip("addr add fd66::1/128 dev lo nodad");
    world.in_workload(|| world::await_local("fd66::1"));
    for address in ["10.66.0.1:80", "[fd66::1]:80"] {
        let _server = world.local_server(address);
        assert_eq!(world.who_answers(address), "local", "{address}");
    }
}

#[test]
fn an_address_of_the_machine_is_not_stolen_even_when_it_is_claimed() {
    let mut world = World::new(FailurePolicy::Open);
    world.ip("addr add 10.66.0.1/32 dev lo");
    world.ip("addr add fd66::1/128 dev lo nodad");
    world.in_workload(|| world::await_local("fd66::1"));
    let claimed = ["10.66.0.1:80", "[fd66::1]:80"];
    world.kernel_mut().sync(&snapshot(&claimed, &[])).unwrap();
    for address in claimed {
        let _server = world.local_server(address);
        // A daemon that met itself here would dial itself again, and again.
        for who in ["work", "other", "daemon"] {
            assert_eq!(world.who_answers_in(who, address), "local", "{who} at {address}");
        }
    }
}

#[test]
fn a_loopback_address_is_claimed_when_it_is_listed() {
    let mut world = World::new(FailurePolicy::Open);
    world.kernel_mut().sync(&snapshot(&["127.0.0.1:90"], &[])).unwrap();
    assert_eq!(world.who_answers("127.0.0.1:90"), STEERED);
}

#[test]
fn only_tasks_of_the_workloads_cgroup_are_captured() {
    let world = World::new(FailurePolicy::Open);
    assert_eq!(world.who_answers_in("work", VIP), STEERED);
    assert_eq!(world.who_answers_in("work/deeper", VIP), STEERED);
    assert_eq!(world.who_answers_in("other", VIP), NATIVE);
}

#[test]
fn the_daemons_own_cgroup_is_exempt() {
    let mut world = World::new(FailurePolicy::Open);
    world.enroll(0);
    assert_eq!(world.who_answers_in("other", VIP), STEERED);
    assert_eq!(world.who_answers_in("daemon", VIP), NATIVE);
}

#[test]
fn without_a_daemon_an_open_policy_lets_connections_go_their_own_way() {
    let mut world = World::new(FailurePolicy::Open);
    world.stop_daemon();
    for vip in [VIP, VIP6, MAPPED] {
        assert_eq!(world.who_answers(vip), NATIVE, "{vip}");
    }
    assert_eq!(world.kernel().counters().unwrap()[2], ("failed_open", 3));
}

#[test]
fn without_a_daemon_a_closed_policy_refuses() {
    let mut world = World::new(FailurePolicy::Closed);
    world.stop_daemon();
    for vip in [VIP, VIP6, MAPPED] {
        assert_eq!(world.dial(vip).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{vip}");
    }
    assert_eq!(world.who_answers("10.99.0.1:81"), NATIVE);
    assert_eq!(world.kernel().counters().unwrap()[3], ("failed_closed", 3));
}

#[test]
fn a_socket_that_was_steered_once_goes_elsewhere_unmarked() {
    let world = World::new(FailurePolicy::Open);
    let (steered, passed, greeting) = world.in_workload(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.connect_timeout(&address(VIP), world::PATIENCE).unwrap();
        let steered = getsockopt(&socket, sockopt::Mark).unwrap();
        world::disconnect(&socket);
        socket.connect_timeout(&address("10.99.0.1:81"), world::PATIENCE).unwrap();
        let passed = getsockopt(&socket, sockopt::Mark).unwrap();
        (steered, passed, hear(&socket.into()))
    });
    assert_eq!((steered, passed), (world.steering.mark, 0));
    assert!(greeting.starts_with(NATIVE), "{greeting}");
}

#[test]
fn one_source_port_reaches_two_destinations() {
    let mut world = World::new(FailurePolicy::Open);
    world.kernel_mut().sync(&snapshot(&[VIP, "10.99.0.2:80"], &[])).unwrap();
    let connect = |to: &str| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address("10.77.0.2:45000")).unwrap();
        socket.connect(&address(to)).unwrap();
        socket.into()
    };
    let (first, second) = world.in_workload(|| (connect(VIP), connect("10.99.0.2:80")));
    assert_eq!(hear(&first), "steered at 10.99.0.1:80 from 10.77.0.2");
    assert_eq!(hear(&second), "steered at 10.99.0.2:80 from 10.77.0.2");
}

#[test]
fn sixty_destinations_share_twenty_ephemeral_ports() {
    let mut world = World::new(FailurePolicy::Open);
    let addresses: Vec<_> = (1..=60).map(|last| format!("10.99.1.{last}:80")).collect();
    let listed: Vec<_> = addresses.iter().map(String::as_str).collect();
    world.kernel_mut().sync(&snapshot(&listed, &[])).unwrap();
    world.in_workload(|| fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40019").unwrap());
    world::raise_descriptor_limit();
    let held = world.in_workload(|| {
        let dials = addresses.iter().flat_map(|address| (0..20).map(move |_| world::connect(address)));
        dials.collect::<Result<Vec<_>, _>>()
    });
    for (index, stream) in held.unwrap().iter().enumerate() {
        assert_eq!(hear(stream), format!("steered at {} from 10.77.0.2", addresses[index / 20]));
    }
}

#[test]
fn a_change_of_claims_writes_only_the_difference() {
    let mut world = World::new(FailurePolicy::Open);
    let kernel = world.kernel_mut();
    let change = |kernel: &mut Kernel, exact: &[&str], ranges: &[(&str, u16)]| {
        let synced = kernel.sync(&snapshot(exact, ranges)).unwrap();
        (synced.inserted, synced.removed)
    };
    assert_eq!(change(kernel, &[VIP, VIP6], &[]), (0, 0));
    assert_eq!(change(kernel, &[VIP, "10.99.0.3:80"], &[("10.98.0.0/16", 80)]), (2, 1));
    assert_eq!(change(kernel, &[], &[]), (0, 3));
    assert_eq!(world.who_answers(VIP), NATIVE);
}

#[test]
fn a_full_map_is_named_and_leaves_the_old_claims_in_force() {
    let mut world = World::with_claims(FailurePolicy::Open, 8);
    let many: Vec<_> = (1..=20).map(|last| format!("10.99.2.{last}:80")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let ranges: Vec<_> = (0..20).map(|last| format!("10.98.{last}.0/24")).collect();
    let ranges: Vec<_> = ranges.iter().map(|range| (range.as_str(), 80)).collect();
    for (rules, name) in
        [(snapshot(&many, &[]), "LISTENERS"), (snapshot(&["10.99.2.1:80"], &ranges), "RANGES")]
    {
        let error = world.kernel_mut().sync(&rules).unwrap_err().to_string();
        assert!(error.contains(&format!("{name} is full at 8")), "{error}");
        assert_eq!(world.who_answers(VIP), STEERED);
        assert_eq!(world.who_answers("10.99.2.1:80"), NATIVE);
    }
}

#[test]
fn nothing_is_left_when_the_daemon_lets_go() {
    let mut world = World::new(FailurePolicy::Open);
    let cookie = world.workload.cookie();
    world.kernel_mut().unenroll(cookie).unwrap();
    assert_eq!(world.who_answers(VIP), NATIVE);
    world.enroll_work();
    assert_eq!(world.who_answers(VIP), STEERED);
    world.drop_kernel();
    assert_eq!(world.who_answers(VIP), NATIVE);
    routing::remove(&world.workload, &world.steering).unwrap();
    for family in ["-4", "-6"] {
        assert!(!world.ip(&format!("{family} rule")).contains("21332"));
        assert!(!world.ip(&format!("{family} route show table all")).contains("21332"));
    }
}

#[test]
fn attaching_elsewhere_lets_the_old_cgroup_go() {
    let mut world = World::new(FailurePolicy::Open);
    world.enroll(0);
    let other = world.cgroup("other");
    world.kernel_mut().attach(&BTreeSet::from([other])).unwrap();
    assert_eq!(world.who_answers_in("other", VIP), STEERED);
    assert_eq!(world.who_answers_in("work", VIP), NATIVE);
}

#[test]
fn pins_refuse_for_a_daemon_that_died_and_go_with_one_that_was_told_to() {
    let mut world = World::pinned(FailurePolicy::Closed);
    assert_eq!(world.who_answers(VIP), STEERED);
    world.stop_daemon();
    world.drop_kernel();
    assert_eq!(world.dial(VIP).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(world.who_answers("10.99.0.1:81"), NATIVE);
    world.fail_to_start();
    assert_eq!(world.dial(VIP).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    world.start_daemon();
    assert_eq!(world.who_answers(VIP), STEERED);
    world.close_kernel();
    assert_eq!(world.who_answers(VIP), NATIVE);
    assert!(!world.pin.as_ref().unwrap().exists());
}

#[test]
fn pins_that_somebody_removed_do_not_keep_a_daemon_from_ending() {
    let mut world = World::pinned(FailurePolicy::Closed);
    let pins = world.pin.clone().unwrap();
    for pin in fs::read_dir(&pins).unwrap().flatten() {
        let _ = fs::remove_file(pin.path());
    }
    world.kernel_mut().attach(&BTreeSet::new()).unwrap();
    assert_eq!(world.who_answers(VIP), NATIVE);
    world.close_kernel();
    assert!(!pins.exists());
}

#[test]
fn an_accepted_connection_can_be_spliced_from_the_first_byte() {
    let mut world = World::new(FailurePolicy::Open);
    let [listener, _v6] = world.enroll_with(0);
    listener.set_nonblocking(false).unwrap();
    let mut client = world.dial(VIP).unwrap();
    client.write_all(b"early").unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let mut poll = [PollFd::new(accepted.as_fd(), PollFlags::POLLIN)];
    nix::poll::poll(&mut poll, 5000_u16).unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let moved = splice(&accepted, None, &writer, None, 64, SpliceFFlags::SPLICE_F_NONBLOCK).unwrap();
    let mut bytes = vec![0; moved];
    reader.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, b"early");
}

#[test]
fn pooled_sockets_belong_to_the_namespace() {
    let world = World::new(FailurePolicy::Open);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let home = server.local_addr().unwrap().into();
    for _ in 0..40 {
        let socket: Socket = world.workload.socket(Family::V4).unwrap().into();
        assert!(socket.nonblocking().unwrap());
        socket.set_nonblocking(false).unwrap();
        socket.connect(&home).expect_err("what this process listens on is not reachable from there");
    }
    let socket: Socket = Namespace::current().unwrap().socket(Family::V4).unwrap().into();
    socket.set_nonblocking(false).unwrap();
    socket.connect(&home).unwrap();
}

#[test]
fn a_hosts_file_is_shown_to_one_thread_alone() {
    let file = std::env::temp_dir().join(format!("shunt-test-hosts-{}", std::process::id()));
    fs::write(&file, "240.240.0.1 echo\n").unwrap();
    let before = fs::read_to_string("/etc/hosts").unwrap();
    let look = || mounts::bind_hosts(&file).and_then(|()| fs::read_to_string("/etc/hosts"));
    let inside = std::thread::scope(|scope| scope.spawn(look).join().unwrap());
    fs::remove_file(&file).unwrap();
    assert_eq!(inside.unwrap(), "240.240.0.1 echo\n");
    assert_eq!(fs::read_to_string("/etc/hosts").unwrap(), before);
}

#[test]
fn the_programs_pass_the_verifier_at_every_log_level() {
    for level in [LogLevel::Off, LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug] {
        let world = World::with_log(level);
        assert_eq!(world.who_answers(VIP), STEERED, "{level:?}");
    }
}

fn address(text: &str) -> socket2::SockAddr {
    text.parse::<SocketAddr>().unwrap().into()
}
