//! Capture by steering: what a wrong way to remember destinations would get wrong.

use tests::client::{Connection, Dial, connect};
use tests::server;
use tests::yaml::service_entry;

use crate::datapath::Datapath;
use crate::scene::{Scene, answer, at};

twice! {
    sixty_destinations_are_held_open_with_twenty_ports,
    one_source_port_reaches_two_destinations_at_once,
    the_server_sees_the_workloads_address,
    the_client_sees_the_address_it_asked_for,
    what_no_listener_claims_never_meets_the_daemon,
    a_neighbour_that_is_not_enrolled_is_left_alone,
}

fn sixty_destinations_are_held_open_with_twenty_ports(datapath: Datapath) {
    let scene = Scene::echo("sixty", datapath);
    scene.at_two.ip("route add local 10.99.0.0/24 dev lo");
    scene.mesh.node().ip(&format!("route add 10.99.0.0/24 via {}", scene.at_two.v4()));
    let entry = |n: u16| {
        let endpoint = at(&format!("10.99.0.{n}"), 9000);
        service_entry(&format!("d{n}.example"), &[format!("10.98.0.{n}")], 9000, endpoint)
    };
    scene.daemon.apply("sixty.yaml", &(1..=60).map(entry).collect::<String>());
    scene.client.sysctl("net/ipv4/ip_local_port_range", "40000 40019");
    let mut open: Vec<Connection> =
        (1..=60).map(|n| connect(&scene.client, at(&format!("10.98.0.{n}"), 9000))).collect();
    for connection in &mut open {
        assert!((40_000..40_020).contains(&connection.local().port()));
        connection.must_echo("held", "two held");
    }
}

fn one_source_port_reaches_two_destinations_at_once(datapath: Datapath) {
    let scene = Scene::echo("fixed", datapath);
    let addresses = ["10.96.0.60".to_owned()];
    scene
        .daemon
        .apply("second.yaml", &service_entry("second.example", &addresses, 9000, scene.two.address()));
    let dial = |vip: &str| Dial::to(at(vip, 9000)).from_port(5_555).connect(&scene.client);
    let (mut first, mut second) = (dial(crate::scene::VIP4), dial("10.96.0.60"));
    for _ in 0..3 {
        first.must_echo("hello", "one hello");
        second.must_echo("hello", "two hello");
    }
    assert_eq!((first.local().port(), second.local().port()), (5_555, 5_555));
}

fn the_server_sees_the_workloads_address(datapath: Datapath) {
    let scene = Scene::with_server("source", datapath, |workload| server::who_am_i(workload, 9000, "one"));
    for to in [scene.vip(), at(crate::scene::VIP6, 9000)] {
        assert_eq!(connect(&scene.client, to).line(), format!("one {}", scene.client.v4()));
    }
    let addresses = ["fd00:96::70".to_owned()];
    let endpoint = (scene.at_one.v6(), 9000).into();
    scene.daemon.apply("six.yaml", &service_entry("six.example", &addresses, 9000, endpoint));
    assert_eq!(connect(&scene.client, at("fd00:96::70", 9000)).line(), format!("one {}", scene.client.v6()));
}

fn the_client_sees_the_address_it_asked_for(datapath: Datapath) {
    let scene = Scene::echo("asked", datapath);
    for to in [scene.vip(), at(crate::scene::VIP6, 9000)] {
        assert_eq!(connect(&scene.client, to).peer(), to);
    }
}

fn what_no_listener_claims_never_meets_the_daemon(datapath: Datapath) {
    let scene = Scene::echo("pass", datapath);
    connect(&scene.client, scene.two.address())
        .must_echo("direct", "two direct")
        .half_close()
        .must_be_closed();
    connect(&scene.client, (scene.at_two.v6(), 9000).into()).must_echo("direct", "two direct");
    let loopback = server::tcp_echo(&scene.client, 9000, "myself");
    connect(&scene.client, at("127.0.0.1", 9000)).must_echo("direct", "myself direct");
    connect(&scene.client, loopback.address()).must_echo("direct", "myself direct");
    // The log is in order: when the captured connection is there, any other would be.
    connect(&scene.client, scene.vip()).must_echo("captured", "one captured");
    scene.must_log(&[("original_destination", &scene.vip().to_string())]);
    assert_eq!(scene.daemon.log().len(), 1);
}

fn a_neighbour_that_is_not_enrolled_is_left_alone(datapath: Datapath) {
    let scene = Scene::echo("stranger", datapath);
    let stranger = scene.mesh.workload("stranger");
    let native = scene.mesh.workload("native");
    native.claim(&scene.mesh, scene.vip().ip());
    let _native = server::tcp_echo(&native, 9000, "native");
    assert_eq!(answer(&stranger, scene.vip()), "native");
    assert_eq!(answer(&scene.client, scene.vip()), "one");
    assert_eq!(scene.daemon.metrics().sum("istio_tcp_connections_opened_total", &[]), 1);
}
