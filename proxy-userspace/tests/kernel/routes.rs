//! Where packets go beside the programs: routing rules, and the other end of a veth pair.

use proxy_common::FailurePolicy;
use shunt::node::{
    Steering, routing,
    veth::{self, Unguardable},
};

use crate::world::{VIP, World};

#[test]
fn routes_are_repaired_when_an_address_goes_and_leftovers_are_replaced() {
    let world = World::new(FailurePolicy::Open);
    let ensure = || routing::ensure(&world.workload, &world.steering).unwrap();
    assert!(!ensure(), "nothing to repair");
    world.ip("addr del 10.77.0.2/24 dev eth0");
    world.ip("addr add 10.77.0.9/24 dev eth0");
    world.ip("route replace default via 10.77.0.1");
    assert!(ensure());
    assert!(!ensure());
    assert_eq!(world.greeting(VIP), "steered at 10.99.0.1:80 from 10.77.0.9");
    world.ip("rule add fwmark 7 lookup 21332 priority 21332");
    assert!(ensure());
    // As older versions had it: for every protocol.
    world.ip(&format!("rule add fwmark {} lookup 21332 priority 21332", world.steering.mark));
    assert!(ensure());
    for family in ["-4", "-6"] {
        let rules = world.ip(&format!("{family} rule"));
        assert_eq!(rules.matches("lookup 21332").count(), 2, "{rules}");
        assert!(rules.contains("ipproto tcp lookup 21332"), "{rules}");
        assert!(rules.contains("ipproto udp dport 53 lookup 21332"), "{rules}");
    }
    assert_eq!(world.ip("-6 route show table 21332").lines().count(), 1);
}

#[test]
fn a_table_with_routes_of_somebody_else_is_not_touched() {
    let world = World::new(FailurePolicy::Open);
    let steering = Steering { table: 500, priority: 500, ..world.steering };
    for (family, theirs) in [("-4", "10.1.0.0/16 dev eth0"), ("-6", "2001:db8::/32 dev eth0")] {
        world.ip(&format!("{family} route add {theirs} table 500"));
        let error = routing::install(&world.workload, &steering).unwrap_err().to_string();
        assert!(error.contains("--route-table"), "{error}");
        routing::remove(&world.workload, &steering).unwrap();
        assert_eq!(world.ip(&format!("{family} route show table 500")).lines().count(), 1);
        assert!(!world.ip(&format!("{family} rule")).contains("lookup 500"));
        world.ip(&format!("{family} route flush table 500"));
    }
}

#[test]
fn the_other_end_of_a_veth_pair_is_found_where_it_is() {
    let world = World::new(FailurePolicy::Open);
    let outside = || world.server.enter(|| veth::host_side(&world.workload)).unwrap();
    let index = world.server.enter(|| nix::net::if_::if_nametoindex("eth0").unwrap()).unwrap();
    assert_eq!(outside().map(|side| side.ifindex), Ok(index));
    let elsewhere = Err(Unguardable::Elsewhere("eth0".to_owned()));
    assert_eq!(world.outside(|| veth::host_side(&world.workload)), elsewhere);
    world.ip("link add second type veth peer name third");
    assert_eq!(outside().map(|side| side.ifindex), Ok(index), "it is down");
    world.ip("link set second up");
    assert_eq!(outside(), Err(Unguardable::Elsewhere("second".to_owned())), "both its ends are inside");
    world.ip("link del second");
    world.ip("link set eth0 down");
    assert_eq!(outside(), Err(Unguardable::Alone));
}
