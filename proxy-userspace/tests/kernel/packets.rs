//! What leaves a namespace whose workload may only go to certain destinations, put together by hand.

use proxy_common::FailurePolicy;
use proxy_traffic::EgressVerdict::{Close, Refuse};

use crate::{
    frames::{ACK, FIN, GRE, Packet, RST, SCTP, SYN, Wire},
    guard::{SERVED, SERVED6, await_drop, follow, guard, guarded_world, prepare},
    policy::count,
    world::World,
};

/// Packets that may leave.
fn allowed() -> Vec<Packet> {
    let hop_by_hop = |protocol| [protocol, 0, 1, 4, 0, 0, 0, 0];
    let mut all = vec![
        Packet::udp_from(68, "255.255.255.255:67"),
        Packet::udp_from(546, "[ff02::1:2]:547"),
        Packet::udp("[fd98:7::7]:5000").behind(0, &hop_by_hop(17)),
        Packet::udp("[fd98:7::7]:5000").behind(0, &[60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0]),
        Packet::icmp("10.98.8.7", 0),
        Packet::icmp("10.98.8.7", 3),
        Packet::icmp("fd98:8::7", 129),
        Packet::icmp("fd98:8::7", 1),
        Packet::icmp("fd98:8::7", 135),
    ];
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
