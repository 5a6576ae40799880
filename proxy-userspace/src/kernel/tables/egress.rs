//! What each workload may reach beyond its listeners: its policy, its own addresses, and the ways that are open to all.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr},
};

use ipnet::IpNet;
use proxy_common::{
    Egress, FailurePolicy,
    egress::{OwnAddress, Way},
    v4_mapped,
};
use proxy_traffic::{ClusterKind, Listener, Snapshot, Workload};

use super::{super::error::Error, Tables};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Bits that make an address v4-mapped.
const V4_MAPPED_BITS: u32 = 96;

/// A key of `WAYS`: how many of its bits count, and the rest.
type WayKey = (u32, Way);

impl Tables {
    /// What the namespace meets by `policy` that no listener takes.
    pub(in crate::kernel) fn verdict(&self, cookie: u64, policy: &proxy_traffic::Egress) -> Egress {
        let enrolled = self.scopes.enrolled.get(&cookie);
        enrolled.map_or(Egress::Allow, |one| policy.of(&one.workload).verdict)
    }

    /// What `workload` meets by the policy that was synced last.
    pub(in crate::kernel) fn policy(&self, workload: &Workload) -> Egress {
        self.egress.of(workload).verdict
    }

    /// Whether the namespace's packets are to be looked at where they leave it; if so, whether also while no daemon runs.
    pub(in crate::kernel) fn guarding(&self, cookie: u64) -> Option<bool> {
        let enrolled = self.scopes.enrolled.get(&cookie)?;
        let outlives = enrolled.entry.failure_policy == FailurePolicy::Closed as u8;
        (self.policy(&enrolled.workload) != Egress::Allow).then_some(outlives)
    }

    /// The addresses that never leave the namespace.
    pub(in crate::kernel) fn own(&self, cookie: u64) -> BTreeSet<IpAddr> {
        let own = self.maps.own.held.keys().filter(|key| key.netns_cookie == cookie);
        own.map(|key| Ipv6Addr::from(key.address).to_canonical()).collect()
    }

    /// Writes policy and scope of every workload.
    pub(super) fn write_workloads(&mut self) -> Result<(), Error> {
        let scoped = !self.scoped.is_empty();
        for (cookie, enrolled) in &self.scopes.enrolled {
            let scope = if scoped { enrolled.scope } else { 0 };
            let egress = self.egress.of(&enrolled.workload).verdict as u8;
            let entry = proxy_common::Workload { scope, egress, ..enrolled.entry };
            self.maps.workloads.put(*cookie, entry)?;
        }
        Ok(())
    }

    /// Makes `addresses` those that never leave the namespace.
    pub(in crate::kernel) fn set_own(
        &mut self,
        cookie: u64,
        addresses: &BTreeSet<IpAddr>,
    ) -> Result<(), Error> {
        let own = |address: &IpAddr| OwnAddress { netns_cookie: cookie, address: v4_mapped(*address) };
        let wanted: BTreeSet<_> = addresses.iter().map(own).collect();
        for key in &wanted {
            self.maps.own.put(*key, 0)?;
        }
        self.forget_own(|key| key.netns_cookie == cookie && !wanted.contains(key))
    }

    pub(super) fn forget_own(&mut self, unwanted: impl Fn(&OwnAddress) -> bool) -> Result<(), Error> {
        let gone: Vec<_> = self.maps.own.held.keys().copied().filter(|key| unwanted(key)).collect();
        gone.into_iter().try_for_each(|key| self.maps.own.remove(key).map(drop))
    }

    /// Whether packets are looked at as well, which leave for endpoints and not for listeners.
    pub(in crate::kernel) fn guard_packets(&mut self, on: bool) -> Result<(), Error> {
        if self.guards_packets != on
            && let Some(snapshot) = self.last.clone()
        {
            let ways = ways(&snapshot, on);
            self.open_ways(&ways)?;
            self.close_ways(&ways)?;
        }
        self.guards_packets = on;
        Ok(())
    }

    /// Opens those of `wanted` that are not.
    pub(super) fn open_ways(&mut self, wanted: &HashMap<WayKey, u32>) -> Result<(), Error> {
        let table = &mut self.maps.ways;
        table.room_for(wanted.keys().filter(|key| !table.held.contains_key(key)).count())?;
        wanted.iter().try_for_each(|(key, bits)| table.put(*key, *bits).map(drop))
    }

    /// Closes the others.
    pub(super) fn close_ways(&mut self, wanted: &HashMap<WayKey, u32>) -> Result<(), Error> {
        let table = &mut self.maps.ways;
        let gone: Vec<_> = table.held.keys().copied().filter(|key| !wanted.contains_key(key)).collect();
        gone.into_iter().try_for_each(|key| table.remove(key).map(drop))
    }
}

/// Every open way, with its number of bits. Packets of TCP are looked at by themselves only where there is a guard.
pub(super) fn ways(snapshot: &Snapshot, packets: bool) -> HashMap<WayKey, u32> {
    let mut ways: BTreeSet<WayKey> =
        snapshot.datagrams.iter().map(|(net, port)| way(UDP, *net, *port)).collect();
    if packets {
        let endpoints = snapshot.clusters.values().flat_map(|cluster| cluster.endpoints());
        ways.extend(endpoints.map(|one| way(TCP, one.address.ip().into(), one.address.port())));
        let exact = snapshot.listeners.iter().filter(|(_, listener)| passes_on(listener));
        ways.extend(exact.map(|(address, _)| way(TCP, address.ip().into(), address.port())));
        let ranges = snapshot.subnets.iter().filter(|range| passes_on(&range.listener));
        ways.extend(ranges.map(|range| way(TCP, range.subnet, range.port)));
    }
    ways.into_iter().map(|key| (key, key.0)).collect()
}

/// Whether the kernel lets connections go on to an address that only the client knows. The daemon needs no way for that.
fn passes_on(listener: &Listener) -> bool {
    if listener.steer.is_some() || listener.sniff.any() {
        return false;
    }
    let mut arms = listener.rules.iter().flat_map(|rule| &rule.route.destinations);
    arms.any(|arm| matches!(arm.cluster.kind, ClusterKind::OriginalDestination | ClusterKind::Named(_)))
}

fn way(protocol: u8, net: IpNet, port: u16) -> WayKey {
    let mapped = if net.addr().is_ipv4() { V4_MAPPED_BITS } else { 0 };
    let bits = Way::PORT_BITS + mapped + u32::from(net.prefix_len());
    (bits, Way::to(protocol, port.to_be_bytes(), v4_mapped(net.network())))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proxy_traffic::{Cluster, Destination, Route, Rule, Sniff, SteerReason, SubnetListener};

    use super::*;

    #[test]
    fn a_way_is_a_port_of_a_range() {
        let datagrams = [("0.0.0.0/0".parse().unwrap(), 123), ("2001:db8::/32".parse().unwrap(), 53)];
        let snapshot = Snapshot { datagrams: datagrams.into(), ..Snapshot::default() };
        let mut found: Vec<_> = ways(&snapshot, true).into_iter().collect();
        found.sort();
        let any = Way::to(UDP, 123_u16.to_be_bytes(), v4_mapped("0.0.0.0".parse().unwrap()));
        let net = Way::to(UDP, 53_u16.to_be_bytes(), v4_mapped("2001:db8::".parse().unwrap()));
        assert_eq!(found, [((64, net), 64), ((128, any), 128)]);
    }

    #[test]
    fn packets_need_a_way_where_the_kernel_lets_connections_go_on_by_themselves() {
        let passthrough = Cluster::passthrough(Duration::from_secs(1));
        let route = Route {
            name: "any".into(),
            destinations: vec![Destination { weight: 1, cluster: passthrough.into() }],
        };
        let rules = vec![Rule { matches: Vec::new(), route: route.into() }];
        let direct = Listener { rules, ..Listener::default() };
        let steered = Listener { steer: Some(SteerReason::Setting), ..direct.clone() };
        let sniffed = Listener { sniff: Sniff { tls: true, http: false }, ..direct.clone() };
        for (listener, count) in [(direct, 1), (steered, 0), (sniffed, 0)] {
            let any =
                SubnetListener { subnet: "0.0.0.0/0".parse().unwrap(), port: 443, listener: listener.into() };
            let snapshot = Snapshot { subnets: vec![any], ..Snapshot::default() };
            assert_eq!(ways(&snapshot, true).len(), count, "{:?}", snapshot.subnets[0].listener);
            assert_eq!(ways(&snapshot, false).len(), 0);
        }
    }
}
