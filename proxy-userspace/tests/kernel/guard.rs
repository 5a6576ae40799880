//! Where guards stand, what their workloads can do all the same, and when they go. What they drop is in `packets`.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    sync::Arc,
};

use proxy_common::{FailurePolicy, direct::Denied};
use proxy_traffic::{
    EgressVerdict::{self, Allow, Close, Refuse},
    Snapshot,
};
use shunt::{
    kernel::{Guarded, Kernel, Outside},
    node::{Namespace, veth},
};

use crate::{
    NATIVE, STEERED,
    frames::{ACK, Packet, SYN, Wire, told},
    policy::{inside, know_home, serve, with},
    stage::{DIRECT, DIRECT6, PASS, cluster, snapshot},
    world::{PATIENCE, VIP, World, connect},
};

/// Where datagrams may go, and what stands behind the listener that the kernel routes by itself.
const WAYS: [(&str, u16); 2] = [("10.98.7.0/24", 5000), ("fd98:7::/64", 5000)];
pub(crate) const SERVED: &str = "10.98.0.1:8080";
pub(crate) const SERVED6: &str = "[fd98::1]:8080";

/// Rules with direct listeners beside the world's own.
fn rules(verdict: EgressVerdict) -> Arc<Snapshot> {
    let direct = [(DIRECT, SERVED), (DIRECT6, SERVED6)];
    let base = snapshot(direct.map(|(at, to)| (at, vec![(1, cluster(at, &[to]))])));
    let steered = crate::world::snapshot(&[VIP], &[]);
    let mut all = Snapshot::clone(&base);
    for (at, listener) in steered.listeners.iter() {
        all.listeners.insert(*at, listener.clone());
    }
    let clusters = all.listeners.iter().flat_map(|(_, listener)| &listener.rules);
    let clusters = clusters.flat_map(|rule| &rule.route.destinations).map(|arm| arm.cluster.clone());
    all.clusters = clusters.map(|cluster| (cluster.name.clone(), cluster)).collect();
    with(&all, verdict, &WAYS)
}

/// Does something to the kernel where the other end of the workload's veth pair is.
fn outside(world: &mut World, work: impl FnOnce(&mut Kernel) + Send) {
    let path = format!("/proc/self/fd/{}", world.server.as_fd().as_raw_fd());
    let server = Namespace::open(Path::new(&path)).unwrap();
    let kernel = world.kernel_mut();
    server.enter(|| work(kernel)).unwrap()
}

fn host_side(world: &World) -> Outside {
    let World { workload, server, .. } = world;
    let side = server.enter(|| veth::host_side(workload)).unwrap().unwrap();
    Outside { ifindex: side.ifindex, number: side.number }
}

pub(crate) fn follow(world: &mut World, verdict: EgressVerdict) {
    outside(world, |kernel| {
        kernel.sync(&rules(verdict)).unwrap();
    });
}

pub(crate) fn guard(world: &mut World) {
    let (cookie, side) = (world.workload.cookie(), host_side(world));
    outside(world, |kernel| kernel.guard(cookie, Some(side)).unwrap());
}

fn guarded(world: &World) -> Guarded {
    world.kernel().guarded(world.workload.cookie())
}

pub(crate) fn prepare(world: &mut World, verdict: EgressVerdict) {
    know_home(world);
    follow(world, verdict);
}

/// A world whose workload meets `verdict` and whose packets are looked at, if that asks for it.
pub(crate) fn guarded_world(verdict: EgressVerdict) -> World {
    let mut world = World::new(FailurePolicy::Open);
    prepare(&mut world, verdict);
    guard(&mut world);
    world
}

/// The protocol and the destination of the next packet that is dropped.
pub(crate) fn await_drop(world: &mut World) -> (u32, String) {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some((kind, protocol, to)) = told(world).pop() {
            assert_eq!(kind, Denied::Packet as u32);
            return (protocol, to.to_string());
        }
        assert!(std::time::Instant::now() < deadline, "nothing is dropped");
        std::thread::yield_now();
    }
}

#[test]
fn connections_that_may_be_made_are_made() {
    for verdict in [Close, Refuse] {
        let mut world = guarded_world(verdict);
        for address in [DIRECT, DIRECT6] {
            assert_eq!(world.who_answers(address), NATIVE, "{verdict:?} {address}");
        }
        assert_eq!(world.who_answers(VIP), STEERED, "{verdict:?}");
        // Of the daemon's own.
        for address in [PASS, "[fd99::1]:81"] {
            assert_eq!(
                inside(&world, "daemon", || world.who_answers(address)),
                NATIVE,
                "{verdict:?} {address}"
            );
        }
        assert_eq!(told(&mut world), [], "{verdict:?}");
        assert_eq!(guarded(&world), Guarded::Attached);
    }
}

/// Sends a line both ways.
fn talk(one: &mut TcpStream, other: &mut TcpStream) {
    one.write_all(b"there").unwrap();
    other.write_all(b"back!").unwrap();
    for stream in [one, other] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes).unwrap();
    }
}

#[test]
fn visitors_are_answered_and_connections_from_before_live_on() {
    let mut world = World::new(FailurePolicy::Open);
    prepare(&mut world, Allow);
    guard(&mut world);
    serve(&world, &["203.0.113.0/24", "2001:db8::/32"]);
    let elsewhere =
        world.server.enter(|| ["0.0.0.0:7000", "[::]:7001"].map(|at| TcpListener::bind(at).unwrap()));
    let early = elsewhere.unwrap().into_iter().zip(["203.0.113.7:7000", "[2001:db8::7]:7001"]);
    let mut early: Vec<_> =
        early.map(|(listener, to)| (world.dial(to).unwrap(), listener.accept().unwrap().0)).collect();
    follow(&mut world, Refuse);
    assert_eq!(guarded(&world), Guarded::Attached);
    for (client, server) in &mut early {
        talk(client, server);
    }
    for at in ["10.77.0.2:91", "[fd77::2]:91"] {
        let listener = world.in_workload(|| TcpListener::bind(at).unwrap());
        let mut visitor = world.server.enter(|| connect(at)).unwrap().unwrap();
        talk(&mut visitor, &mut listener.accept().unwrap().0);
        drop(listener);
        let refused = world.server.enter(|| connect(at)).unwrap().unwrap_err();
        assert_eq!(
            refused.kind(),
            ErrorKind::ConnectionRefused,
            "nobody listens any more, and they hear of it"
        );
    }
    drop(early);
    assert_eq!(told(&mut world), []);
}

#[test]
fn sockets_that_no_program_saw_begin_nothing() {
    let mut world = guarded_world(Refuse);
    let dial = |world: &World| {
        let socket = world.in_workload(|| {
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap()
        });
        socket.set_nonblocking(true).unwrap();
        let begun = socket.connect(&crate::address(PASS)).unwrap_err();
        assert_eq!(begun.raw_os_error(), Some(nix::libc::EINPROGRESS));
        socket
    };
    let wire = Wire::open(&world);
    let socket = inside(&world, "other", || dial(&world));
    assert_eq!(await_drop(&mut world), (6, PASS.to_owned()));
    assert!(socket.peer_addr().is_err(), "it waits still");
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    drop(told(&mut world));
    assert!(!wire.arrives(&mut world, &Packet::tcp_from(port, PASS, ACK, b"as if it were connected")));
}

#[test]
fn neighbours_are_found_again() {
    let mut world = guarded_world(Refuse);
    for address in [DIRECT, DIRECT6] {
        world.ip("neigh flush dev eth0");
        world
            .server
            .enter(|| std::process::Command::new("ip").args(["neigh", "flush", "dev", "eth0"]).status())
            .unwrap()
            .unwrap();
        assert_eq!(world.who_answers(address), NATIVE, "{address}");
    }
    assert_eq!(told(&mut world), []);
}

#[test]
fn a_guard_stands_as_long_as_the_policy_asks_for_it() {
    let mut world = World::new(FailurePolicy::Open);
    let wire = Wire::open(&world);
    let packet = Packet::udp("10.98.8.7:5000");
    let ways = |world: &World| world.kernel().fill().iter().find(|fill| fill.table == "WAYS").unwrap().used;
    prepare(&mut world, Allow);
    assert_eq!(guarded(&world), Guarded::NotNeeded);
    guard(&mut world);
    for verdict in [Allow, Refuse, Close, Allow, Close] {
        follow(&mut world, verdict);
        let (state, used) = if verdict == Allow { (Guarded::NotNeeded, 2) } else { (Guarded::Attached, 4) };
        assert_eq!((guarded(&world), ways(&world)), (state, used), "{verdict:?}");
        assert_eq!(wire.arrives(&mut world, &packet), verdict == Allow, "{verdict:?}");
    }
    let cookie = world.workload.cookie();
    outside(&mut world, |kernel| kernel.unenroll(cookie).unwrap());
    assert_eq!((guarded(&world), ways(&world)), (Guarded::NotNeeded, 2));
    assert!(wire.arrives(&mut world, &packet));
}

#[test]
fn where_there_is_no_place_for_a_guard_the_reason_is_known() {
    let mut world = World::new(FailurePolicy::Open);
    prepare(&mut world, Refuse);
    let why = |world: &World| match guarded(world) {
        Guarded::Impossible(why) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(why(&world), "no one interface has all its packets");
    let (cookie, side) = (world.workload.cookie(), host_side(&world));
    let gone = Outside { ifindex: 4242, ..side };
    outside(&mut world, |kernel| kernel.guard(cookie, Some(gone)).unwrap());
    assert_eq!(why(&world), "no interface has the number 4242 any more");
    guard(&mut world);
    assert_eq!(guarded(&world), Guarded::Attached);
    world.ip("link del eth0");
    outside(&mut world, |kernel| kernel.guard(cookie, None).unwrap());
    assert_eq!(why(&world), "no one interface has all its packets");
    follow(&mut world, Close);
}

#[test]
fn a_killed_daemons_guard_stands_where_the_failure_policy_is_closed() {
    for policy in [FailurePolicy::Open, FailurePolicy::Closed] {
        let mut world = World::pinned(policy);
        let wire = Wire::open(&world);
        let (shut, open) = (Packet::udp("10.98.8.7:5000"), Packet::udp("10.98.7.7:5000"));
        prepare(&mut world, Refuse);
        guard(&mut world);
        assert!(!wire.arrives(&mut world, &shut));
        world.stop_daemon();
        world.drop_kernel();
        let is_open = policy == FailurePolicy::Open;
        assert_eq!(wire.both_arrive(&shut, &open), is_open);
        world.fail_to_start();
        assert_eq!(wire.both_arrive(&shut, &open), is_open, "one that did not take over");
        world.start_daemon_with(&rules(Refuse));
        guard(&mut world);
        assert_eq!(guarded(&world), Guarded::Attached);
        assert!(!wire.arrives(&mut world, &shut));
        assert_eq!(world.who_answers(DIRECT), NATIVE);
        world.close_kernel();
        assert!(wire.both_arrive(&shut, &open));
    }
}

#[test]
fn the_next_daemon_takes_a_guard_over_without_a_gap() {
    let mut world = World::pinned(FailurePolicy::Closed);
    let wire = Wire::open(&world);
    let (shut, served) = (Packet::udp("10.98.8.7:5000"), Packet::tcp(SERVED, SYN, b""));
    prepare(&mut world, Refuse);
    guard(&mut world);
    world.stop_daemon();
    world.drop_kernel();
    world.load_daemon_with(&rules(Refuse));
    assert!(!wire.both_arrive(&shut, &served), "the old one's guard, with the new one's rules");
    guard(&mut world);
    assert!(!wire.arrives(&mut world, &shut));
    world.attach_daemon();
    assert!(!wire.arrives(&mut world, &shut));
    assert!(wire.arrives(&mut world, &served));
    follow(&mut world, Allow);
    assert!(wire.both_arrive(&shut, &served));
}
