//! Which listeners the daemon must carry, and which stay where they were.
//!
//! A limit is counted in one place: where the daemon carries one listener of a limited cluster, it carries all of them.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

use super::Settings;
use crate::{
    Cluster, ClusterName, LimitScope, Listener, Snapshot, SteerReason, SubnetListener, datapath,
    istio::resource::{Annotations, Item},
};

/// The kernel repeats a SYN after this time: a shorter `connectTimeout` it cannot keep.
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(1);

/// What annotations ask of a listener.
#[derive(Clone, Debug, Default)]
pub(super) struct Wishes {
    /// The resource that says `shunt.dev/datapath: steer`.
    steer: Option<String>,
    /// `shunt.dev/overflow`: whether to accept and close.
    closes: Option<bool>,
}

impl Wishes {
    /// Those of one resource.
    pub(super) fn of<T>(item: &Item<T>) -> Self {
        let annotations = &item.metadata.annotations;
        let steer = annotations.get(Annotations::DATAPATH) == Some("steer");
        let closes = match annotations.get(Annotations::OVERFLOW) {
            Some("close") => Some(true),
            Some("refuse") => Some(false),
            _ => None,
        };
        Self { steer: steer.then(|| item.key.to_string()), closes }
    }

    /// Adds those of another; where they disagree, `steer` and `close` win.
    pub(super) fn join(&mut self, other: Self) {
        self.steer = self.steer.take().or(other.steer);
        self.closes = self.closes.max(other.closes);
    }
}

/// A listener of the mesh before anybody knows who carries its connections.
pub(super) struct Draft {
    pub(super) listener: Listener,
    pub(super) wishes: Wishes,
}

/// Everything that is captured; addresses and ranges name a draft by its number.
#[derive(Default)]
pub(super) struct Mesh {
    pub(super) drafts: Vec<Draft>,
    pub(super) exact: BTreeMap<SocketAddr, usize>,
    pub(super) ranges: Vec<(IpNet, u16, usize)>,
}

/// Listeners by address, and by range.
type Listeners = (BTreeMap<SocketAddr, Arc<Listener>>, Vec<SubnetListener>);

/// The listeners with their reasons to be steered; those that `previous` had alike are the same in memory.
pub(super) fn settle(
    mesh: Mesh,
    gateways: &BTreeMap<SocketAddr, Arc<Listener>>,
    previous: &Snapshot,
    settings: &Settings,
) -> Listeners {
    let mut addresses: Vec<Vec<IpNet>> = vec![Vec::new(); mesh.drafts.len()];
    let exact = mesh.exact.iter().map(|(address, index)| (IpNet::from(address.ip()), *index));
    let ranges = mesh.ranges.iter().map(|(subnet, _, index)| (*subnet, *index));
    exact.chain(ranges).for_each(|(address, index)| addresses[index].push(address));
    let placed = || mesh.drafts.iter().zip(&addresses).enumerate();
    let mut reasons: Vec<_> =
        placed().map(|(_, (draft, addresses))| reason(draft, addresses, settings)).collect();
    let held = placed().filter(|(_, (_, addresses))| !addresses.is_empty());
    share_limits(
        &held.map(|(index, (draft, _))| (index, &draft.listener)).collect::<Vec<_>>(),
        gateways,
        &mut reasons,
    );
    let known = by_name(previous);
    let drafts = mesh.drafts.into_iter().zip(reasons);
    let finished = drafts.map(|(draft, steer)| {
        let listener = Listener { steer, ..draft.listener };
        reused(known.get(listener.name.as_str()).copied(), listener)
    });
    let finished: Vec<_> = finished.collect();
    let listener = |index: usize| finished[index].clone();
    let exact = mesh.exact.into_iter().map(|(address, index)| (address, listener(index)));
    let range = |(subnet, port, index)| SubnetListener { subnet, port, listener: listener(index) };
    (exact.collect(), mesh.ranges.into_iter().map(range).collect())
}

/// `previous` where it says the same as `new`.
pub(super) fn reused(previous: Option<&Arc<Listener>>, new: Listener) -> Arc<Listener> {
    previous.filter(|previous| ***previous == new).cloned().unwrap_or_else(|| Arc::new(new))
}

/// The listeners of the mesh by name: host and port, which no two have in common.
fn by_name(snapshot: &Snapshot) -> BTreeMap<&str, &Arc<Listener>> {
    let ranges = snapshot.subnets.iter().map(|range| &range.listener);
    snapshot.listeners.values().chain(ranges).map(|listener| (listener.name.as_str(), listener)).collect()
}

/// Why the daemon must carry the connections of one listener, whatever others do.
fn reason(draft: &Draft, addresses: &[IpNet], settings: &Settings) -> Option<SteerReason> {
    let Draft { listener, wishes } = draft;
    if settings.steer_all {
        return Some(SteerReason::Setting);
    }
    if let Some(resource) = &wishes.steer {
        return Some(SteerReason::Annotation(resource.clone()));
    }
    let mut matches = listener.rules.iter().flat_map(|rule| &rule.matches);
    if matches.any(|one| one.source_subnet.is_some()) {
        return Some(SteerReason::SourceSubnet);
    }
    let is_short = |cluster: &&Arc<Cluster>| cluster.connect_timeout < SHORTEST_TIMEOUT && cluster.dials();
    if let Some(cluster) = datapath::reached(listener).find(is_short) {
        return Some(SteerReason::ShortConnectTimeout(cluster.name.clone()));
    }
    if wishes.closes.unwrap_or(settings.overflow_closes)
        && let Some(cluster) = limited(listener).next()
    {
        return Some(SteerReason::OverflowCloses(cluster.name.clone()));
    }
    // Steered at one of its addresses and direct at another, a limit would be counted twice.
    limited(listener).next()?;
    let foreign = |address: &IpNet| {
        let mut routes = listener.rules.iter().map(|rule| &rule.route);
        routes.find_map(|route| datapath::other_family(route, *address))
    };
    addresses.iter().find_map(foreign).map(SteerReason::Family)
}

/// Gives every listener of a limited cluster a reason, as soon as one listener of it has one.
fn share_limits(
    listeners: &[(usize, &Listener)],
    gateways: &BTreeMap<SocketAddr, Arc<Listener>>,
    reasons: &mut [Option<SteerReason>],
) {
    let mut reaching: BTreeMap<&ClusterName, Vec<(usize, &Listener)>> = BTreeMap::new();
    for (index, listener) in listeners.iter().copied() {
        limited(listener).for_each(|one| reaching.entry(&one.name).or_default().push((index, listener)));
    }
    // A gateway is a workload of its own: it shares only what is counted for the whole node.
    let of_node = |cluster: &&Arc<Cluster>| cluster.limit.is_some_and(|one| one.scope == LimitScope::Node);
    let mut counted: VecDeque<(&ClusterName, &str)> = VecDeque::new();
    for listener in gateways.values() {
        counted.extend(limited(listener).filter(of_node).map(|one| (&one.name, listener.name.as_str())));
    }
    for (_, listener) in listeners.iter().filter(|(index, _)| reasons[*index].is_some()) {
        counted.extend(limited(listener).map(|one| (&one.name, listener.name.as_str())));
    }
    while let Some((cluster, by)) = counted.pop_front() {
        for (index, listener) in reaching.remove(cluster).unwrap_or_default() {
            if reasons[index].is_none() {
                reasons[index] = Some(SteerReason::SharedLimit(cluster.clone(), by.to_owned()));
                counted.extend(limited(listener).map(|one| (&one.name, listener.name.as_str())));
            }
        }
    }
}

/// The clusters with a limit that a listener's connections may reach.
fn limited(listener: &Listener) -> impl Iterator<Item = &Arc<Cluster>> {
    datapath::reached(listener).filter(|cluster| cluster.limit.is_some())
}
