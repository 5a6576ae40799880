//! Name servers that lie: what they say must not lead the daemon where the workload has no business.

use std::net::IpAddr;

use tests::client::connect;
use tests::internet::Lie;
use tests::internet::wire::{self, A};
use tests::server::{self, Server};
use tests::yaml::external;

use super::{GOOGLE, HTTPBIN, Outlook};

const METADATA: &str = "169.254.169.254";

/// Answers that lead inside, under the names `lie-0.example` and so on.
fn lies(private: IpAddr) -> Vec<Vec<IpAddr>> {
    let address = |text: &str| text.parse().expect("an address");
    let mapped = match private {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        v6 => v6,
    };
    vec![
        vec![address("127.0.0.1")],
        vec![address("127.8.8.8"), address("::1")],
        vec![address("0.0.0.0"), address("::")],
        vec![private],
        vec![mapped],
        vec![address(METADATA)],
        vec![address("fd00:ec2::254")],
        vec![address("::ffff:127.0.0.1"), address("::ffff:169.254.169.254")],
        vec![address("64:ff9b::7f00:1"), address("fe80::1")],
        vec![address("255.255.255.255"), address("224.0.0.1"), address("ff02::1")],
        vec![],
    ]
}

/// Web servers where no lie should lead: nobody must come.
fn traps(scene: &Outlook) -> (IpAddr, Vec<Server>) {
    let private = scene.mesh.workload("private");
    for address in [METADATA, "fd00:ec2::254"] {
        private.claim(&scene.mesh, address.parse().expect("an address"));
    }
    let places = [&private, &scene.client, scene.mesh.node()];
    (private.v4().into(), places.map(|place| server::tcp_echo(place, 80, "trap")).into())
}

#[test]
fn no_lie_leads_inside() {
    let scene = Outlook::with_args("lies", "REGISTRY_ONLY", "--dns-lookup-family all");
    let (private, traps) = traps(&scene);
    let lies = lies(private);
    let mut entries = external(HTTPBIN.0, "80/HTTP", "resolution: DNS");
    for (number, addresses) in lies.iter().enumerate() {
        let name = format!("lie-{number}.example");
        scene.internet.zone().set(&name, addresses, 0);
        entries += &external(&name, "80/HTTP", "resolution: DNS");
    }
    // Half a lie: what is true in it holds.
    let halves = [private, HTTPBIN.1.parse().unwrap(), METADATA.parse().unwrap()];
    scene.internet.zone().set("half.example", &halves, 0);
    entries += &external("half.example", "80/HTTP", "resolution: DNS");
    scene.daemon.apply("lies.yaml", &entries);
    scene.await_curl("http://httpbin.org/");
    scene.await_curl("http://half.example/");
    for (number, lie) in lies.iter().enumerate() {
        let name = format!("lie-{number}.example");
        // By the daemon's name service, and by an address that the client has from elsewhere.
        for resolve in [String::new(), format!("--resolve {name}:80:{}", GOOGLE.1)] {
            let said = scene.curl(&format!("{resolve} http://{name}/"));
            assert_ne!(said.status, 200, "{lie:?}: {said:?}");
        }
    }
    (0..5).for_each(|_| drop(scene.must_curl("http://half.example/", 0, 200)));
    assert!(traps.iter().all(|trap| trap.accepted() == 0), "{traps:?}");
    // They are there for who has business there.
    for address in [private, METADATA.parse().unwrap()] {
        connect(scene.mesh.node(), (address, 80).into()).must_echo("hello", "trap hello");
    }
}

#[test]
fn private_addresses_are_an_answer_where_the_entry_names_them() {
    let scene = Outlook::new("named", "REGISTRY_ONLY");
    let private = scene.mesh.workload("private");
    let server = server::tcp_echo(&private, 9000, "private");
    scene.internet.zone().set("inside.example", &[private.ip4()], 60);
    let entry = |more: &str| external("inside.example", "9000/TCP", &format!("resolution: DNS{more}"));
    scene.daemon.apply("inside.yaml", &entry("").replace("MESH_EXTERNAL", "MESH_INTERNAL"));
    tests::wait::until("it answers", || scene.echo_by_name("inside.example", 9000) == "private hello");
    assert!(server.accepted() > 0);
}

#[test]
fn an_answer_that_is_none_costs_nobody_else() {
    let scene = Outlook::new("garbage", "REGISTRY_ONLY");
    let zone = scene.internet.zone();
    let shapes: [Lie; 7] = [
        |_| Vec::new(),
        |_| vec![0xff; 600],
        |query| query.to_vec(),
        // Ten records are promised, none is there.
        |query| [&query[..2], &[0x81, 0x80, 0, 1, 0, 10, 0, 0, 0, 0], &query[12..]].concat(),
        // Another question's answer.
        |query| forged(&[&query[..2], &wire::ask(0, "other.example", A)[2..]].concat()),
        // Another query's.
        |query| forged(&[&[query[0] ^ 1, query[1]], &query[2..]].concat()),
        // A name that points at itself.
        |query| {
            [
                &query[..2],
                &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0],
                &query[12..],
                &[0xc0, query.len() as u8, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 203, 0, 113, 20],
            ]
            .concat()
        },
    ];
    let mut entries = external(HTTPBIN.0, "80/HTTP", "resolution: DNS");
    for (number, shape) in shapes.into_iter().enumerate() {
        let name = format!("odd-{number}.example");
        zone.lie(&name, shape);
        entries += &external(&name, "80/HTTP", "resolution: DNS");
    }
    scene.daemon.apply("odd.yaml", &entries);
    scene.await_curl("http://httpbin.org/");
    for number in 0..shapes.len() {
        let name = format!("odd-{number}.example");
        tests::wait::until(&format!("{name} is asked for"), || !zone.asked(&name).is_empty());
        let said = scene.curl(&format!("--resolve {name}:80:{} http://{name}/", GOOGLE.1));
        assert_ne!(said.status, 200, "shape {number}: {said:?}");
    }
    scene.must_curl("http://httpbin.org/", 0, 200);
    assert!(scene.internet.requests().iter().all(|request| request.host == HTTPBIN.0));
}

/// The address of [`HTTPBIN`] for whatever is asked.
fn forged(query: &[u8]) -> Vec<u8> {
    let query = wire::parse(query).expect("a query");
    wire::answer(&query, wire::NO_ERROR, &[HTTPBIN.1.parse().expect("an address")], 60)
}
