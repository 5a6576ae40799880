//! What all services together come to: ports that speak HTTP, ways for datagrams, and who is served at any address.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{entry::Entry, protocol::Protocol};

/// The port where browsers ask.
const HTTP: u16 = 80;

/// Kept up to date by what changed.
#[derive(Default)]
pub(super) struct Tallies {
    http: BTreeMap<u16, usize>,
    datagrams: BTreeMap<(IpNet, u16), usize>,
    /// Hosts that are served at any address, by port.
    anywhere: BTreeMap<u16, BTreeSet<String>>,
}

impl Tallies {
    /// `host` was `before` and is `after`; the ports at any address that this may change.
    pub(super) fn edit(
        &mut self,
        host: &str,
        before: Option<&Entry>,
        after: Option<&Entry>,
    ) -> BTreeSet<u16> {
        let mut ports = BTreeSet::new();
        if let Some(entry) = before {
            http(entry).for_each(|port| count_out(&mut self.http, &port));
            entry.datagrams.iter().for_each(|way| count_out(&mut self.datagrams, way));
            for port in entry.anywhere() {
                ports.insert(port.number);
                if let Some(hosts) = self.anywhere.get_mut(&port.number) {
                    hosts.remove(host);
                }
            }
        }
        if let Some(entry) = after {
            http(entry).for_each(|port| *self.http.entry(port).or_default() += 1);
            entry.datagrams.iter().for_each(|way| *self.datagrams.entry(*way).or_default() += 1);
            for port in entry.anywhere() {
                ports.insert(port.number);
                self.anywhere.entry(port.number).or_default().insert(host.to_owned());
            }
        }
        self.anywhere.retain(|_, hosts| !hosts.is_empty());
        ports
    }

    /// See [`crate::Snapshot::http_ports`].
    pub(super) fn http_ports(&self) -> BTreeSet<u16> {
        self.http.keys().copied().chain([HTTP]).collect()
    }

    /// See [`crate::Snapshot::datagrams`].
    pub(super) fn datagrams(&self) -> BTreeSet<(IpNet, u16)> {
        self.datagrams.keys().copied().collect()
    }

    /// The ports that are taken at any address.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        self.anywhere.keys().copied()
    }

    /// Who is served at any address on `port`.
    pub(super) fn hosts(&self, port: u16) -> impl Iterator<Item = &String> {
        self.anywhere.get(&port).into_iter().flatten()
    }
}

fn http(entry: &Entry) -> impl Iterator<Item = u16> {
    let ports = entry.ports.iter().filter(|port| port.protocol == Protocol::Http);
    ports.map(|port| port.number)
}

fn count_out<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
