//! What is open and no longer allowed: which connections of a workload end when its policy says so.

use std::{
    collections::{BTreeSet, HashSet},
    fs, io,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use proxy_traffic::Snapshot;

use crate::node::{Connection, Namespace, SocketList, cgroup};

/// Where name servers listen.
const DNS: u16 = 53;

/// Whose connections are looked at.
pub(super) struct Extent<'a> {
    pub(super) namespace: &'a Namespace,
    /// Only those of this cgroup and below; `None`: everybody's.
    pub(super) cgroup: Option<&'a Path>,
    /// The daemon's own cgroup: what it carries for the workload.
    pub(super) daemon: u64,
}

/// Closes what `snapshot` no longer allows; how many there were. Only for workloads that may not reach everything.
///
/// # Errors
/// When sockets or addresses cannot be listed.
pub(super) fn close_existing(
    extent: &Extent<'_>,
    snapshot: &Snapshot,
    sockets: Option<&SocketList>,
) -> io::Result<usize> {
    let sockets = sockets.ok_or_else(|| io::Error::other("the kernel lists no sockets"))?;
    let allowed = Allowed::new(snapshot, extent.namespace.own_addresses()?);
    let cgroups = extent.cgroup.map(below).transpose()?;
    sockets.close_connections(|one| {
        let daemons = one.cgroup_id == extent.daemon;
        let theirs = cgroups.as_ref().is_none_or(|ids| ids.contains(&one.cgroup_id));
        (theirs || daemons) && !one.is_inbound && !allowed.has(one, daemons)
    })
}

/// Where connections may go.
struct Allowed<'a> {
    snapshot: &'a Snapshot,
    own: BTreeSet<IpAddr>,
    endpoints: HashSet<SocketAddr>,
}

impl<'a> Allowed<'a> {
    fn new(snapshot: &'a Snapshot, own: BTreeSet<IpAddr>) -> Self {
        let endpoints = snapshot.clusters.values().flat_map(|cluster| cluster.endpoints());
        Self { snapshot, own, endpoints: endpoints.map(|one| one.address).collect() }
    }

    /// Where a rule asks for names, the daemon's end of a connection tells where it really goes.
    fn has(&self, one: &Connection, daemons: bool) -> bool {
        let to = one.destination;
        let home = to.ip().is_loopback() || self.own.contains(&to.ip());
        let claimed = || {
            let listener = self.snapshot.listener(to);
            listener.is_some_and(|listener| !daemons || !listener.sniff.any())
        };
        home || to.port() == DNS || self.endpoints.contains(&to) || claimed()
    }
}

/// The ids of a cgroup and all below it.
fn below(path: &Path) -> io::Result<HashSet<u64>> {
    let (mut ids, mut waiting) = (HashSet::new(), vec![path.to_owned()]);
    while let Some(path) = waiting.pop() {
        ids.insert(cgroup::id(&path).map_err(io::Error::other)?);
        // One that is removed meanwhile has nobody in it.
        let inside = fs::read_dir(&path).into_iter().flatten().flatten();
        waiting.extend(
            inside.filter(|one| one.file_type().is_ok_and(|kind| kind.is_dir())).map(|one| one.path()),
        );
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proxy_traffic::{Listener, Map, Sniff};

    use super::*;

    #[test]
    fn what_a_rule_claims_stays_open() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let listener = |tls| Arc::new(Listener { sniff: Sniff { tls, http: false }, ..Listener::default() });
        let listeners = [(at("203.0.113.1:80"), listener(false)), (at("203.0.113.1:443"), listener(true))];
        let snapshot = Snapshot { listeners: Map::from(listeners), ..Snapshot::default() };
        let allowed = Allowed::new(&snapshot, ["10.0.0.1".parse().unwrap()].into());
        for (destination, daemons, want) in [
            ("203.0.113.1:80", false, true),
            ("203.0.113.1:80", true, true),
            ("203.0.113.1:443", false, true),
            ("203.0.113.1:443", true, false),
            ("203.0.113.2:80", false, false),
            ("203.0.113.2:53", false, true),
            ("10.0.0.1:9", false, true),
            ("127.0.0.1:9", false, true),
        ] {
            let (source, destination) = (at("10.0.0.1:40000"), at(destination));
            let one = Connection { source, destination, cgroup_id: 1, is_inbound: false };
            assert_eq!(allowed.has(&one, daemons), want, "{destination}");
        }
    }
}
