//! Connections that no listener takes, under each policy.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use proxy_common::{FailurePolicy, direct::Denied};
use proxy_traffic::{
    EgressPolicy, EgressScope,
    EgressVerdict::{Allow, Close, Refuse},
    Snapshot,
};
use shunt::node::routing;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    NATIVE, STEERED, address,
    policy::{count, denied_as, enroll_with_names, inside, know_home, rules, serve, with, world},
    world::{Greeter, PATIENCE, VIP, VIP6, World, await_local, connect, disconnect, hear, snapshot},
};

/// Nobody claims these.
const UNCLAIMED: [&str; 3] = ["10.99.0.2:81", "[fd99::2]:81", "[::ffff:10.99.0.2]:81"];
/// As the programs see them.
const SEEN: [&str; 3] = ["10.99.0.2:81", "[fd99::2]:81", "10.99.0.2:81"];

fn assert_refused(world: &World, address: &str) {
    assert_eq!(world.dial(address).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{address}");
}

#[test]
fn what_nobody_claims_is_refused_in_the_kernel_and_told() {
    let mut world = world(FailurePolicy::Open, Refuse, &[]);
    for address in UNCLAIMED {
        assert_refused(&world, address);
    }
    assert_eq!(denied_as(&mut world, Denied::Tcp), SEEN);
    let multipath = world.in_workload(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).unwrap();
        socket.connect_timeout(&address(UNCLAIMED[0]), PATIENCE).unwrap_err().kind()
    });
    assert_eq!(multipath, ErrorKind::ConnectionRefused);
    assert_eq!((count(&world, "egress_refused"), count(&world, "passed")), (4, 0));
    for vip in [VIP, VIP6] {
        assert_eq!(world.who_answers(vip), STEERED, "{vip} is claimed");
    }
}

#[test]
fn what_nobody_claims_comes_to_the_daemon_to_be_closed_with_its_destination_intact() {
    let mut world = world(FailurePolicy::Open, Close, &[]);
    for (address, seen) in UNCLAIMED.into_iter().zip(SEEN) {
        let greeting = world.greeting(address);
        assert!(greeting.starts_with(&format!("steered at {seen} ")), "{greeting}");
    }
    assert_eq!((count(&world, "egress_closed"), count(&world, "steered")), (3, 3));
    assert_eq!(denied_as(&mut world, Denied::Tcp), [""; 0], "the daemon tells of it");
}

#[test]
fn loopback_and_the_workloads_own_addresses_are_nobodys_business() {
    for verdict in [Close, Refuse] {
        let mut world = world(FailurePolicy::Closed, verdict, &[]);
        world.ip("addr add 10.66.0.1/32 dev lo");
        world.ip("addr add fd66::1/128 dev lo nodad");
        world.in_workload(|| await_local("fd66::1"));
        know_home(&mut world);
        let any = ["0.0.0.0:91", "[::1]:91"].map(|address| world.local_server(address));
        for address in ["127.0.0.1:91", "127.9.9.9:91", "0.0.0.0:91", "10.77.0.2:91", "10.66.0.1:91"] {
            assert_eq!(world.who_answers(address), "local", "{verdict:?} {address}");
        }
        for address in ["[::1]:91", "[::]:91", "[::ffff:127.0.0.1]:91", "[::ffff:10.77.0.2]:91"] {
            assert_eq!(world.who_answers(address), "local", "{verdict:?} {address}");
        }
        for address in ["[fd77::2]:92", "[fd66::1]:92"] {
            let _own = world.local_server(address);
            assert_eq!(world.who_answers(address), "local", "{verdict:?} {address}");
        }
        let between = world.in_workload(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&address("10.77.0.2:0")).unwrap();
            socket.connect_timeout(&address("10.66.0.1:91"), PATIENCE).unwrap();
            hear(&socket.into())
        });
        assert_eq!(between, "local at 10.66.0.1:91 from 10.77.0.2", "{verdict:?}");
        drop(any);
        let closed = world.dial("10.77.0.2:91").unwrap_err().kind();
        assert_eq!(closed, ErrorKind::ConnectionRefused, "by the kernel: nobody listens there any more");
        assert_eq!((count(&world, "egress_refused"), count(&world, "egress_closed")), (0, 0));
    }
}

#[test]
fn an_address_that_is_given_up_is_like_any_other_again() {
    let mut world = world(FailurePolicy::Open, Refuse, &[]);
    let cookie = world.workload.cookie();
    let _server = world.local_server("10.77.0.2:91");
    assert_eq!(world.who_answers("10.77.0.2:91"), "local");
    world.kernel_mut().set_own(cookie, &BTreeSet::new()).unwrap();
    assert_refused(&world, "10.77.0.2:91");
    know_home(&mut world);
    assert_eq!(world.who_answers("10.77.0.2:91"), "local");
}

#[test]
fn a_policy_that_changes_holds_for_the_next_connection() {
    let mut world = world(FailurePolicy::Open, Allow, &[]);
    for verdict in [Allow, Refuse, Close, Refuse, Allow, Close, Allow] {
        world.kernel_mut().sync(&rules(verdict, &[])).unwrap();
        for address in UNCLAIMED {
            match verdict {
                Allow => assert_eq!(world.who_answers(address), NATIVE, "{address}"),
                Close => assert_eq!(world.who_answers(address), STEERED, "{address}"),
                Refuse => assert_refused(&world, address),
            }
        }
    }
}

#[test]
fn who_is_enrolled_later_meets_the_policy_too() {
    let mut world = world(FailurePolicy::Open, Close, &[]);
    world.enroll_work();
    assert_eq!(world.who_answers(UNCLAIMED[0]), STEERED);
    world.kernel_mut().sync(&rules(Refuse, &[])).unwrap();
    world.enroll_work();
    assert_refused(&world, UNCLAIMED[0]);
}

#[test]
fn what_a_policy_spares_is_open_before_the_policy_holds() {
    let mut world = world(FailurePolicy::Open, Allow, &[]);
    let (to, way) = ("10.98.7.7:5000", [("10.98.7.0/24", 5000)]);
    let _inbox = world.server.enter(|| UdpSocket::bind("0.0.0.0:5000").unwrap()).unwrap();
    let socket = world.in_workload(|| Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap());
    // Listeners enough that writing them takes its time.
    let many: Vec<_> = (1..200).map(|last| format!("10.99.3.{last}:80")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let loose = rules(Allow, &[]);
    let tight = with(&snapshot(&many, &[]), Refuse, &way);
    let over = AtomicBool::new(false);
    let refused = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut refused = 0;
            while !over.load(Ordering::Relaxed) {
                refused += usize::from(socket.send_to(b"x", &address(to)).is_err());
            }
            refused
        });
        for _ in 0..20 {
            world.kernel_mut().sync(&tight).unwrap();
            world.kernel_mut().sync(&loose).unwrap();
        }
        over.store(true, Ordering::Relaxed);
        sender.join().unwrap()
    });
    assert_eq!(refused, 0);
}

#[test]
fn an_address_that_is_local_by_a_route_is_not_taken_by_who_claims_any() {
    let mut world = World::new(FailurePolicy::Open);
    world.ip("route add local 169.254.7.0/24 dev lo");
    world.ip("route add local 203.0.113.0/24 dev lo");
    let _servers = ["169.254.7.7:8080", "203.0.113.7:8081"].map(|address| world.local_server(address));
    let any = snapshot(&[], &[("0.0.0.0/0", 8080), ("::/0", 8080), ("::/0", 8081)]);
    world.kernel_mut().sync(&any).unwrap();
    for (from, to) in [("10.77.0.2:0", "169.254.7.7:8080"), ("10.77.0.2:0", "203.0.113.7:8081")] {
        let heard = world.in_workload(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&address(from)).unwrap();
            socket.connect_timeout(&address(to), PATIENCE).unwrap();
            hear(&socket.into())
        });
        assert!(heard.starts_with("local "), "{to}: {heard}");
    }
    assert_eq!(world.who_answers("10.99.0.9:8080"), STEERED);
    assert_eq!(world.who_answers("[fd99::9]:8081"), STEERED);
}

#[test]
fn a_workload_with_more_addresses_than_there_is_room_for_is_enrolled_all_the_same() {
    let mut world = world(FailurePolicy::Open, Close, &[]);
    let cookie = world.workload.cookie();
    let many: BTreeSet<IpAddr> = (0..300).map(|low| Ipv4Addr::from(0x0a37_0000 + low).into()).collect();
    world.kernel_mut().set_own(cookie, &many).unwrap();
    world.enroll_work();
    know_home(&mut world);
    let _server = world.local_server("10.77.0.2:91");
    assert_eq!(world.who_answers("10.77.0.2:91"), "local", "there is room again");
}

#[test]
fn each_workload_has_the_policy_of_its_own_sidecar() {
    let mut world = World::new(FailurePolicy::Open);
    know_home(&mut world);
    routing::install(&world.server, &world.steering).unwrap();
    world.enroll_server(&[("app", "web")]);
    let _visited = world.local_server("10.77.0.2:91");
    let visit =
        |world: &World| world.server.enter(|| connect("10.77.0.2:91").map(|stream| hear(&stream))).unwrap();
    for (mesh, web) in [(Allow, Refuse), (Refuse, Allow), (Close, Refuse), (Refuse, Close), (Allow, Close)] {
        let scope = EgressScope {
            namespace: None,
            labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
            policy: EgressPolicy { verdict: web, ..EgressPolicy::default() },
        };
        let mut rules = Snapshot::clone(&rules(mesh, &[]));
        rules.egress.sidecars = vec![scope];
        world.kernel_mut().sync(&Arc::new(rules)).unwrap();
        match mesh {
            Allow => assert_eq!(world.who_answers(UNCLAIMED[0]), NATIVE),
            Close => assert_eq!(world.who_answers(UNCLAIMED[0]), STEERED),
            Refuse => assert_refused(&world, UNCLAIMED[0]),
        }
        match web {
            Allow => assert_eq!(visit(&world).unwrap(), "local at 10.77.0.2:91 from 10.77.0.1", "{mesh:?}"),
            Close => assert_eq!(visit(&world).unwrap(), "steered at 10.77.0.2:91 from 10.77.0.1", "{mesh:?}"),
            Refuse => assert_eq!(visit(&world).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{mesh:?}"),
        }
    }
}

#[test]
fn addresses_go_with_their_workload() {
    let mut world = world(FailurePolicy::Open, Refuse, &[]);
    let used = |world: &World| world.kernel().fill().iter().find(|fill| fill.table == "OWN").unwrap().used;
    assert!(used(&world) >= 4, "two of lo, two of eth0");
    let cookie = world.workload.cookie();
    world.kernel_mut().unenroll(cookie).unwrap();
    assert_eq!((used(&world), world.who_answers(UNCLAIMED[0])), (0, NATIVE.to_owned()));
}

#[test]
fn a_policy_holds_even_when_a_table_is_too_small_for_the_rules_that_came_with_it() {
    let mut world = World::with_claims(FailurePolicy::Open, 8);
    let many: Vec<_> = (1..=20).map(|last| format!("10.99.2.{last}:80")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let rules = with(&snapshot(&many, &[]), Refuse, &[]);
    world.kernel_mut().sync(&rules).unwrap_err();
    assert_refused(&world, UNCLAIMED[0]);
    assert_eq!(world.who_answers(VIP), STEERED);
}

#[test]
fn without_a_daemon_the_failure_policy_decides_on_what_it_would_close() {
    for failure in [FailurePolicy::Open, FailurePolicy::Closed] {
        let mut world = world(failure, Close, &[]);
        world.stop_daemon();
        for address in UNCLAIMED {
            match failure {
                FailurePolicy::Open => assert_eq!(world.who_answers(address), NATIVE, "{address}"),
                FailurePolicy::Closed => assert_refused(&world, address),
            }
        }
        let name = if failure == FailurePolicy::Open { "failed_open" } else { "failed_closed" };
        let counts = [name, "steered", "egress_closed"].map(|name| count(&world, name));
        assert_eq!(counts, [3, 0, 0], "nobody closed anything");
    }
}

#[test]
fn without_a_daemon_what_is_refused_stays_refused() {
    let mut world = world(FailurePolicy::Open, Refuse, &[]);
    world.stop_daemon();
    for address in UNCLAIMED {
        assert_refused(&world, address);
    }
}

#[test]
fn a_socket_that_was_refused_may_go_where_it_may() {
    let world = world(FailurePolicy::Open, Close, &[]);
    let _server = world.local_server("127.0.0.1:91");
    let (first, second) = world.in_workload(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.connect_timeout(&address(UNCLAIMED[0]), PATIENCE).unwrap();
        let marked = socket.mark().unwrap();
        disconnect(&socket);
        socket.connect_timeout(&address("127.0.0.1:91"), PATIENCE).unwrap();
        (marked, socket.mark().unwrap())
    });
    assert_eq!((first, second), (world.steering.mark, 0));
}

#[test]
fn strangers_and_the_daemon_go_where_they_like() {
    for verdict in [Close, Refuse] {
        let mut world = world(FailurePolicy::Closed, verdict, &[]);
        assert_eq!(inside(&world, "other", || world.who_answers(UNCLAIMED[0])), NATIVE, "{verdict:?}");
        assert_eq!(world.outside(|| world.who_answers(UNCLAIMED[1])), NATIVE, "{verdict:?}");
        world.enroll(0);
        assert_eq!(inside(&world, "daemon", || world.who_answers(UNCLAIMED[0])), NATIVE, "{verdict:?}");
        assert_eq!(world.outside(|| world.who_answers(UNCLAIMED[1])), NATIVE, "{verdict:?}");
    }
}

#[test]
fn whoever_claims_any_address_does_not_mean_the_infrastructure() {
    let mut world = World::new(FailurePolicy::Open);
    serve(&world, &["169.254.0.0/16", "fd00:ec2::/32"]);
    let any = snapshot(&[], &[("0.0.0.0/0", 8080), ("::/0", 8080), ("169.254.7.0/24", 81)]);
    let infrastructure = ["169.254.169.254:8080", "[::ffff:169.254.169.254]:8080", "[fd00:ec2::254]:8080"];
    world.kernel_mut().sync(&any).unwrap();
    for address in infrastructure {
        assert_eq!(world.who_answers(address), NATIVE, "{address}");
    }
    for address in ["10.99.0.9:8080", "[fd99::9]:8080", "[fd00:ec2::253]:8080", "169.254.7.7:81"] {
        assert_eq!(world.who_answers(address), STEERED, "{address}");
    }
    world.kernel_mut().sync(&with(&any, Refuse, &[])).unwrap();
    for address in infrastructure {
        assert_refused(&world, address);
    }
}

#[test]
fn a_killed_daemons_pins_go_on_refusing() {
    let mut world = World::pinned(FailurePolicy::Open);
    know_home(&mut world);
    world.kernel_mut().sync(&rules(Refuse, &[])).unwrap();
    world.stop_daemon();
    world.drop_kernel();
    for address in UNCLAIMED {
        assert_refused(&world, address);
    }
    let _own = world.local_server("10.77.0.2:91");
    assert_eq!(world.who_answers("10.77.0.2:91"), "local", "its own addresses are pinned too");
    world.start_daemon_with(&rules(Allow, &[]));
    assert_eq!(world.who_answers(UNCLAIMED[0]), NATIVE);
}

#[test]
fn questions_over_tcp_come_to_the_daemon_if_it_answers_them_and_is_there() {
    let (failure, resolver) = (FailurePolicy::Closed, "203.0.113.53:53");
    for verdict in [Allow, Close, Refuse] {
        let mut world = world(failure, verdict, &[]);
        serve(&world, &["203.0.113.0/24"]);
        let _native =
            Greeter::start(world.server.enter(|| TcpListener::bind("0.0.0.0:53")).unwrap().unwrap(), NATIVE);
        assert_eq!(world.who_answers(resolver), NATIVE, "{verdict:?}: it does not answer them");
        let (_names, listeners) = enroll_with_names(&mut world, failure);
        let greeting = world.greeting(resolver);
        assert!(greeting.starts_with("steered at 203.0.113.53:53 "), "{verdict:?}: {greeting}");
        for home in ["127.0.0.53:53", "10.77.0.2:53"] {
            let _local = world.local_server(home);
            assert_eq!(world.who_answers(home), "local", "{verdict:?} {home}");
        }
        drop(listeners);
        assert_eq!(world.who_answers(resolver), NATIVE, "{verdict:?}: it is gone");
        assert_eq!(count(&world, "failed_closed"), 0, "{verdict:?}");
    }
}
