//! What leaves a namespace whose workload may only go to certain destinations, whoever put it together.

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
    frames::{ACK, FIN, GRE, Packet, RST, SCTP, SYN, Wire, told},
    policy::{count, inside, know_home, serve, with},
    stage::{DIRECT, DIRECT6, PASS, cluster, snapshot},
    world::{PATIENCE, VIP, World, connect},
};

/// Where datagrams may go, and what stands behind the listener that the kernel routes by itself.
const WAYS: [(&str, u16); 2] = [("10.98.7.0/24", 5000), ("fd98:7::/64", 5000)];
const SERVED: &str = "10.98.0.1:8080";
const SERVED6: &str = "[fd98::1]:8080";

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
fn outside<T: Send>(world: &mut World, work: impl FnOnce(&mut Kernel) -> T + Send) -> T {
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

fn follow(world: &mut World, verdict: EgressVerdict) {
    outside(world, |kernel| kernel.sync(&rules(verdict))).unwrap();
}

fn guard(world: &mut World) {
    let (cookie, side) = (world.workload.cookie(), host_side(world));
    outside(world, |kernel| kernel.guard(cookie, Some(side))).unwrap();
}

fn guarded(world: &World) -> Guarded {
    world.kernel().guarded(world.workload.cookie())
}

fn prepare(world: &mut World, verdict: EgressVerdict) {
    know_home(world);
    follow(world, verdict);
}

/// A world whose workload meets `verdict` and whose packets are looked at, if that asks for it.
fn guarded_world(verdict: EgressVerdict) -> World {
    let mut world = World::new(FailurePolicy::Open);
    prepare(&mut world, verdict);
    guard(&mut world);
    world
}

/// Packets that may leave.
fn allowed() -> Vec<Packet> {
    let hop_by_hop = |protocol| [protocol, 0, 1, 4, 0, 0, 0, 0];
    let mut all = vec![
        Packet::udp("255.255.255.255:67"),
        Packet::udp_from(546, "[ff02::1:2]:547"),
        Packet::udp("[fd98:7::7]:5000").behind(0, &hop_by_hop(17)),
        Packet::udp("[fd98:7::7]:5000").behind(0, &[60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0]),
        Packet::icmp("10.98.8.7", 0),
        Packet::icmp("10.98.8.7", 3),
        Packet::icmp("fd98:8::7", 129),
        Packet::icmp("fd98:8::7", 1),
        Packet::icmp("fd98:8::7", 135),
    ];
    all[0] = Packet::udp_from(68, "255.255.255.255:67");
    for (open, served, shut) in
        [("10.98.7.7:5000", SERVED, "10.98.8.7"), ("[fd98:7::7]:5000", SERVED6, "[fd98:8::7]")]
    {
        all.extend([
            Packet::udp(open),
            Packet::udp(&format!("{shut}:53")),
            Packet::tcp(served, SYN, b""),
            Packet::tcp(served, ACK, b"data"),
            Packet::tcp(&format!("{shut}:53"), SYN, b""),
            Packet::tcp(&format!("{shut}:81"), RST, b""),
            Packet::tcp(&format!("{shut}:81"), RST | ACK, b""),
        ]);
    }
    all
}

/// Packets that may not.
fn forbidden() -> Vec<Packet> {
    let mut all = vec![
        Packet::udp("255.255.255.255:67"),
        Packet::udp_from(68, "10.98.8.7:67"),
        Packet::udp_from(546, "[fd98:8::7]:547"),
        Packet::udp("[fd98:8::7]:5000").behind(0, &[17, 0, 1, 4, 0, 0, 0, 0]),
        Packet::udp("10.77.0.255:5000"),
        Packet::icmp("10.98.8.7", 8),
        Packet::icmp("10.98.7.7", 13),
        Packet::icmp("fd98:8::7", 128),
        Packet::icmp("fd98:7::7", 200),
        // It has options.
        Packet::udp("10.98.7.7:5000").behind(17, &[1, 1, 1, 0]),
    ];
    for (ip, served, shut) in [("10.98.7.7", SERVED, "10.98.8.7"), ("[fd98:7::7]", SERVED6, "[fd98:8::7]")] {
        let other = |protocol| Packet::other(ip.trim_matches(['[', ']']), protocol);
        all.extend([
            Packet::udp(&format!("{shut}:5000")),
            Packet::udp(&format!("{ip}:5001")),
            Packet::udp(&format!("{ip}:5000")).tagged(),
            Packet::udp(served),
            Packet::tcp(&format!("{ip}:5000"), SYN, b""),
            Packet::tcp(&format!("{shut}:81"), SYN, b""),
            Packet::tcp(&format!("{shut}:81"), SYN | FIN, b"early"),
            Packet::tcp(&format!("{shut}:81"), SYN | RST, b""),
            Packet::tcp(&format!("{shut}:81"), ACK, b"data"),
            Packet::tcp(&format!("{shut}:81"), 0, b""),
            Packet::tcp(&format!("{shut}:81"), SYN | ACK, b""),
            Packet::tcp(&format!("{shut}:81"), RST, b"data"),
            other(GRE),
            other(SCTP),
        ]);
    }
    all
}

#[test]
fn frames_go_where_connections_may_and_nowhere_else() {
    let mut world = World::new(FailurePolicy::Open);
    let wire = Wire::open(&world);
    prepare(&mut world, Refuse);
    // There is no device here that takes in what is tagged.
    for packet in allowed().iter().chain(&forbidden()).filter(|packet| !packet.is_tagged) {
        assert!(wire.arrives(&mut world, packet), "nobody looks: {packet:?}");
    }
    guard(&mut world);
    for verdict in [Refuse, Close] {
        follow(&mut world, verdict);
        let before = count(&world, "packet_dropped");
        for packet in allowed() {
            assert!(wire.arrives(&mut world, &packet), "{packet:?}");
        }
        for packet in forbidden() {
            // Of what is tagged nothing more is known.
            if packet.is_tagged {
                wire.send(&packet);
                assert_eq!(await_drop(&mut world), (0, "[::]:0".to_owned()));
                assert!(!wire.hears());
            } else {
                assert!(!wire.arrives(&mut world, &packet), "{packet:?}");
            }
        }
        assert_eq!(count(&world, "packet_dropped") - before, forbidden().len() as u64);
    }
}

/// The protocol and the destination of the next packet that is dropped.
fn await_drop(world: &mut World) -> (u32, String) {
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
fn what_is_no_ip_or_leads_elsewhere_is_dropped() {
    let mut world = guarded_world(Refuse);
    let wire = Wire::open(&world);
    for ethertype in [0x88b5, 0x8847, 0x8035, 0x22f0] {
        wire.send_other(ethertype);
        assert_eq!(await_drop(&mut world), (0, "[::]:0".to_owned()), "{ethertype:#x}");
    }
    // One more address on the way, the last of them being an open one; more headers than anybody needs; one that is cut short.
    let leads_on = Packet::udp("[fd98:7::7]:5000").behind(43, &[17, 2, 0, 1, 0, 0, 0, 0]);
    let many = [60, 0, 1, 4, 0, 0, 0, 0].repeat(8);
    let many = Packet::udp("[fd98:7::7]:5000").behind(60, &many);
    for packet in [leads_on, many] {
        wire.send(&packet);
        assert_eq!(await_drop(&mut world).1, "[fd98:7::7]:0");
    }
}

#[test]
fn of_fragments_the_first_decides() {
    let mut world = guarded_world(Refuse);
    let wire = Wire::open(&world);
    for (open, shut) in [("10.98.7.7:5000", "10.98.8.7:5000"), ("[fd98:7::7]:5000", "[fd98:8::7]:5000")] {
        let [first, second] = Packet::udp(open).halves(8);
        wire.send(&second);
        assert_eq!(await_drop(&mut world).0, 17, "nobody knows whose it is: {open}");
        wire.send(&first);
        assert!(wire.arrives(&mut world, &second), "{open}");
        for half in Packet::udp(shut).halves(8) {
            assert!(!wire.arrives(&mut world, &half), "{half:?}");
        }
        // The flags are in the second half.
        let [first, _] = Packet::tcp(shut, SYN, b"").halves(8);
        assert!(!wire.arrives(&mut world, &first));
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
    outside(&mut world, |kernel| kernel.unenroll(cookie)).unwrap();
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
    outside(&mut world, |kernel| kernel.guard(cookie, Some(gone))).unwrap();
    assert_eq!(why(&world), "no interface has the number 4242 any more");
    guard(&mut world);
    assert_eq!(guarded(&world), Guarded::Attached);
    world.ip("link del eth0");
    outside(&mut world, |kernel| kernel.guard(cookie, None)).unwrap();
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
