//! The way-out matrix: everything that a program may try, with what was heard on the wire as the proof.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use socket2::{Domain, Socket, Type};
use tests::datagrams::Datagrams;
use tests::mesh::Workload;
use tests::netns::Netns;
use tests::wiretap::{Packet, Wiretap};
use tests::yaml::external;
use tests::{setup::limited, wait};

use super::Outlook;

const DENIED: [&str; 2] = ["203.0.113.80", "2001:db8::80"];
const ALLOWED: [&str; 2] = ["203.0.113.81", "2001:db8::81"];
const UDP: u16 = 9001;

/// What a way came to: `out`, or why not.
type Ways = BTreeMap<String, String>;

/// A scene whose internet echoes datagrams at both pairs of addresses, and listens to the wire.
struct Prison {
    scene: Outlook,
    tap: Wiretap,
    _echoes: Vec<Datagrams>,
}

impl Prison {
    fn new(name: &str, mode: &str, args: &str) -> Self {
        let scene = Outlook::with_args(name, mode, args);
        let addresses = [DENIED, ALLOWED].concat();
        let echoes = addresses.iter().map(|address| {
            let address: IpAddr = address.parse().expect("an address");
            scene.internet.claim(&scene.mesh, address);
            Datagrams::echo(scene.internet.place(), (address, UDP).into())
        });
        let echoes = echoes.collect();
        let tap = Wiretap::new(scene.internet.place());
        let more = "addresses: [203.0.113.81, \"2001:db8::81\"], resolution: NONE";
        let entry = external("allowed.example", "9000/TCP 9001/UDP", more);
        scene.daemon.apply("allowed.yaml", &entry);
        scene.client.sysctl("net/ipv4/ping_group_range", "0 2147483647");
        Self { scene, tap, _echoes: echoes }
    }

    /// Asserts that `shunt status` says `words` of `workload`.
    #[track_caller]
    fn must_say(&self, workload: &str, words: &str) {
        let status = self.scene.daemon.must("status");
        let line = status.lines().find(|line| line.contains(workload));
        assert!(line.is_some_and(|line| line.contains(words)), "{words:?} of {workload} in {status}");
    }

    /// What all ways from the client to `target` came to.
    fn ways(&self, target: &str) -> Ways {
        ways(&self.scene.client, &next_hop(&self.scene), target)
    }

    /// The packets to `target` that have arrived; what the node itself says to its neighbour is none of them.
    fn packets(&self, target: &str) -> Vec<Packet> {
        let target: IpAddr = target.parse().expect("an address");
        let packets = self.tap.packets(&self.scene.mesh).into_iter();
        packets.filter(|packet| packet.to == target && !is_neighbourly(packet)).collect()
    }

    /// The ways to `target` whose words have arrived.
    fn arrived<'ways>(&self, ways: &'ways Ways, target: &str) -> Vec<&'ways str> {
        let packets = self.packets(target);
        let said = |way: &&str| packets.iter().any(|packet| packet.says(&format!("way {way};")));
        ways.keys().map(String::as_str).filter(said).collect()
    }
}

/// The link-layer address of the node, as the client sees it.
fn next_hop(scene: &Outlook) -> String {
    let link = scene.mesh.node().ip(&format!("link show dev {}", scene.client.far_end()));
    let words: Vec<_> = link.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "link/ether").expect("a veth has an address");
    words[at + 1].to_owned()
}

fn ways(from: &Netns, via: &str, target: &str) -> Ways {
    let mut command = limited(env!("CARGO_BIN_EXE_wayout"));
    let output = from.output(command.args(["--via", via, target])).expect("start wayout");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = |line: &str| line.split_once(' ').map(|(way, end)| (way.to_owned(), end.to_owned()));
    text.lines().map(|text| line(text).unwrap_or_else(|| panic!("odd line {text:?}"))).collect()
}

/// Protocols that a kernel may have been built without.
fn is_optional(way: &str) -> bool {
    ["sctp", "udp-lite"].contains(&way)
}

/// Ways that the kernel's hooks for connections and datagrams let through to what an entry names.
fn is_named(way: &str) -> bool {
    way.contains("tcp") || (way.contains("udp") && way != "udp-lite")
}

/// Of neighbour discovery, which no router passes on.
fn is_neighbourly(packet: &Packet) -> bool {
    const HOPS: u8 = 255;
    packet.to.is_ipv6() && packet.bytes[6..8] == [58, HOPS] && (133..=137).contains(&packet.bytes[40])
}

/// A segment that begins no connection. Who is connected to the daemon and then gives the socket another way out sends such
/// to a server that knows of no connection: no answer comes of it.
fn is_stray(packet: &Packet) -> bool {
    const SYN: u8 = 2;
    let (protocol, head) = match packet.to {
        IpAddr::V4(_) => (packet.bytes[9], 20),
        IpAddr::V6(_) => (packet.bytes[6], 40),
    };
    protocol == 6 && packet.bytes[head + 13] & SYN == 0
}

#[test]
fn where_everything_may_leave_every_way_is_out() {
    let prison = Prison::new("ways-any", "ALLOW_ANY", "");
    for target in DENIED {
        let ways = prison.ways(target);
        eprintln!("{target}: {ways:#?}");
        let arrived = prison.arrived(&ways, target);
        for (way, end) in &ways {
            let expected = is_optional(way) || (end == "out" && arrived.contains(&way.as_str()));
            assert!(expected, "{way} to {target}: {end}, arrived: {arrived:?}");
        }
    }
}

impl Prison {
    /// Asserts that nothing gets to the denied targets of both families; `blocked` is the way of saying no.
    #[track_caller]
    fn must_stop_everything(&self, blocked: &str) {
        for target in DENIED {
            let ways = self.ways(target);
            eprintln!("{blocked}, {target}: {ways:#?}");
            assert_eq!(self.packets(target), [], "{target}: {ways:#?}");
            for (way, end) in &ways {
                assert!(is_told(way, end, blocked), "{way} to {target}: {end}");
            }
        }
    }

    /// Asserts that to the allowed targets of both families just those ways are open that an entry can name.
    #[track_caller]
    fn must_let_out_what_is_named(&self) {
        for target in ALLOWED {
            let ways = self.ways(target);
            eprintln!("{target}: {ways:#?}");
            let arrived = self.arrived(&ways, target);
            for (way, end) in &ways {
                let out = end == "out" && arrived.contains(&way.as_str());
                // Its frame looks like the datagram that an entry allows.
                let expected = if way == "packet-frame" { out } else { out == is_named(way) };
                assert!(expected, "{way} to {target}: {end}, arrived: {arrived:?}");
            }
        }
    }
}

/// Whether `way` was stopped with the error that it should be.
fn is_told(way: &str, end: &str, blocked: &str) -> bool {
    const UNKNOWN: [&str; 3] = ["stopped EACCES", "stopped EPROTONOSUPPORT", "stopped ESOCKTNOSUPPORT"];
    match way {
        // Who hands over a whole frame hears nothing of its end.
        "packet-frame" => true,
        way if is_optional(way) => UNKNOWN.contains(&end),
        way if way.starts_with("icmp") || way == "ip-raw" => end == "stopped EACCES",
        way if way.starts_with("udp") || blocked == "refuse" => end == "stopped ECONNREFUSED",
        _ => end.starts_with("stopped "),
    }
}

/// With the denied and the allowed target of both families, under one way of saying no.
fn matrix(name: &str, blocked: &str) {
    let prison = Prison::new(name, "REGISTRY_ONLY", &format!("--egress-blocked {blocked}"));
    prison.must_say("default/client", "packets are guarded");
    prison.must_stop_everything(blocked);
    prison.must_let_out_what_is_named();
}

#[test]
fn without_the_daemon_closed_stays_closed() {
    let mut prison = Prison::new("ways-killed", "REGISTRY_ONLY", "--failure-policy closed");
    prison.must_say("default/client", "packets are guarded");
    prison.scene.daemon.kill9();
    prison.must_stop_everything("refuse");
    prison.must_let_out_what_is_named();
    prison.scene.daemon.start_again();
    prison.must_stop_everything("close");
    prison.scene.daemon.stop();
    assert!(super::reaches(&prison.scene.client, DENIED[0].parse().unwrap()));
}

#[test]
fn close_stops_every_way() {
    matrix("ways-close", "close");
}

#[test]
fn refuse_stops_every_way() {
    matrix("ways-refuse", "refuse");
}

/// A namespace whose link leads past the node: nobody stands there to look at frames.
#[test]
fn without_a_guard_only_a_frame_is_out() {
    let mut prison = Prison::new("ways-bare", "REGISTRY_ONLY", "");
    let far = prison.scene.internet.place().clone();
    let bare = Bare::new(&prison.scene, &far);
    prison.scene.daemon.must(&format!("enroll --name bare --netns {}", bare.netns.path().display()));
    prison.must_say("default/bare", "packets are not guarded");
    for target in DENIED {
        let ways = ways(&bare.netns, &bare.via, target);
        let mut arrived = prison.arrived(&ways, target);
        arrived.retain(|way| !way.ends_with("-late"));
        assert_eq!(arrived, ["packet-frame"], "{target}: {ways:#?}");
        let others = prison.packets(target).into_iter();
        let others =
            others.filter(|packet| !is_stray(packet) && packet.says("way ") && !packet.says("packet-frame"));
        assert_eq!(others.collect::<Vec<_>>(), [], "{target}: {ways:#?}");
    }
    prison.scene.daemon.must("unenroll bare");
    prison.scene.daemon.stop();
}

struct Bare {
    netns: Netns,
    via: String,
}

impl Bare {
    fn new(scene: &Outlook, far: &Workload) -> Self {
        let netns = Netns::create(&format!("{}-bare", scene.mesh.id()));
        far.ip(&format!(
            "link add bare type veth peer name eth0 netns {}
             addr add 10.77.0.1/24 dev bare
             addr add fd77::1/64 dev bare nodad
             link set bare up",
            netns.name()
        ));
        netns.ip("addr add 10.77.0.2/24 dev eth0
             addr add fd77::2/64 dev eth0 nodad
             link set eth0 up
             route add default via 10.77.0.1
             route add default via fd77::1");
        netns.sysctl("net/ipv4/ping_group_range", "0 2147483647");
        let link = far.ip("link show dev bare");
        let words: Vec<_> = link.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "link/ether").expect("a veth has an address");
        let via = words[at + 1].to_owned();
        Self { netns, via }
    }
}

/// A socket is its maker's, whoever holds it: this one was made where nothing is forbidden.
#[test]
fn a_socket_from_outside_is_out() {
    let prison = Prison::new("ways-given", "REGISTRY_ONLY", "");
    let outside = prison.scene.mesh.node().enter(|| Socket::new(Domain::IPV4, Type::STREAM, None)).unwrap();
    let mut command: Command = limited(env!("CARGO_BIN_EXE_wayout"));
    command.args(["--given", DENIED[0]]).stdin(Stdio::from(OwnedFd::from(outside)));
    let output = prison.scene.client.output(&mut command).expect("start wayout");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "given-socket out\n");
    let from = |packet: &Packet| {
        Ipv4Addr::new(packet.bytes[12], packet.bytes[13], packet.bytes[14], packet.bytes[15])
    };
    wait::until("it has arrived", || !prison.packets(DENIED[0]).is_empty());
    let own = prison.scene.client.v4();
    assert!(prison.packets(DENIED[0]).iter().all(|packet| from(packet) != own));
}
