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

use super::{
    Settings,
    claims::{Claims, Held},
};
use crate::{
    Cluster, ClusterName, LimitScope, Listener, Map, Snapshot, SteerReason, SubnetListener, datapath,
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

/// The mesh's listeners with their reasons to be steered.
#[derive(Default)]
pub(super) struct Mesh {
    claims: Claims,
    /// By the numbers that [`Claims`] gives.
    ports: Vec<Place>,
    pub(super) listeners: Map<SocketAddr, Arc<Listener>>,
    pub(super) subnets: Vec<SubnetListener>,
}

/// One port of a captured service.
struct Place {
    listener: Arc<Listener>,
    wishes: Wishes,
    /// Why it would be steered if others were not.
    own: Option<SteerReason>,
}

impl Mesh {
    /// The mesh of a snapshot that somebody else compiled.
    pub(super) fn after(previous: &Snapshot) -> Self {
        let ranges = previous.subnets.iter().map(|range| &range.listener);
        let known = previous.listeners.values().chain(ranges);
        Self {
            ports: known.map(|listener| Place::new(listener.clone())).collect(),
            listeners: previous.listeners.clone(),
            subnets: previous.subnets.clone(),
            claims: Claims::default(),
        }
    }

    /// Takes in the listeners of hosts that were compiled again, and who claims what if that changed. Listeners that
    /// say the same as before are the same in memory.
    pub(super) fn settle(
        &mut self,
        claims: Option<Claims>,
        drafts: BTreeMap<String, Vec<Draft>>,
        edge: &Edge<'_>,
        settings: &Settings,
    ) {
        let moved = claims.is_some();
        claims.into_iter().for_each(|claims| self.renumber(claims));
        let mut shares = moved || edge.changed;
        let mut new = BTreeMap::new();
        for (number, draft) in self.numbered(drafts) {
            let place = &mut self.ports[number];
            place.wishes = draft.wishes;
            shares |= place.weigh(&draft.listener, &self.claims.ports[number], settings);
            new.insert(number, draft.listener);
        }
        if moved {
            let all = self.ports.iter_mut().zip(&self.claims.ports).enumerate();
            for (_, (place, held)) in all.filter(|(number, _)| !new.contains_key(number)) {
                place.weigh(&place.listener.clone(), held, settings);
            }
        }
        if shares {
            self.share(&mut new, edge.gateways);
        } else {
            new.iter_mut().for_each(|(number, listener)| listener.steer = self.ports[*number].steer());
        }
        let changed = new.into_iter().filter_map(|(number, new)| {
            let place = &mut self.ports[number].listener;
            (**place != new).then(|| {
                *place = Arc::new(new);
                number
            })
        });
        let changed: Vec<_> = changed.collect();
        self.publish(moved, &changed);
    }

    /// Gives ports the numbers of `claims`; what is known of them moves along.
    fn renumber(&mut self, claims: Claims) {
        let known = std::mem::take(&mut self.ports).into_iter();
        let mut known: BTreeMap<_, _> = known.map(|place| (place.listener.name.clone(), place)).collect();
        let ports = claims.ports.iter().map(|held| {
            let blank = || Listener { name: held.name.clone(), rules: Vec::new(), ..Listener::default() };
            known.remove(&held.name).unwrap_or_else(|| Place::new(Arc::new(blank())))
        });
        self.ports = ports.collect();
        self.claims = claims;
    }

    fn numbered(&self, drafts: BTreeMap<String, Vec<Draft>>) -> Vec<(usize, Draft)> {
        let numbered = drafts.into_iter().flat_map(|(host, drafts)| {
            let first = self.claims.first(&host).unwrap_or_default();
            drafts.into_iter().enumerate().map(move |(index, draft)| (first + index, draft))
        });
        numbered.collect()
    }

    /// Gives the `new` listeners their reasons, and others that thereby have another one than before.
    fn share(&self, new: &mut BTreeMap<usize, Listener>, gateways: &Map<SocketAddr, Arc<Listener>>) {
        let mut reasons: Vec<_> = self.ports.iter().map(|place| place.own.clone()).collect();
        let held = self.ports.iter().zip(&self.claims.ports).enumerate();
        let held = held.filter(|(_, (_, held))| held.nets().next().is_some());
        let listeners =
            held.map(|(number, (place, _))| (number, new.get(&number).unwrap_or(&place.listener)));
        share_limits(&listeners.collect::<Vec<_>>(), gateways, &mut reasons);
        for (number, (steer, place)) in reasons.into_iter().zip(&self.ports).enumerate() {
            if let Some(listener) = new.get_mut(&number) {
                listener.steer = steer;
            } else if place.listener.steer != steer {
                new.insert(number, Listener { steer, ..(*place.listener).clone() });
            }
        }
    }

    /// Puts what changed, or everything, under its addresses.
    fn publish(&mut self, all: bool, changed: &[usize]) {
        let listener = |number: usize| self.ports[number].listener.clone();
        let exact =
            |number: usize| self.claims.ports[number].exact.iter().map(move |address| (*address, number));
        if all {
            let wanted = (0..self.ports.len()).flat_map(exact);
            let wanted = wanted.map(|(address, number)| (address, listener(number))).collect();
            self.listeners.assign(wanted, Arc::ptr_eq);
        } else {
            for (address, number) in changed.iter().copied().flat_map(exact) {
                self.listeners.insert(address, listener(number));
            }
        }
        if all || changed.iter().any(|number| !self.claims.ports[*number].ranges.is_empty()) {
            let ranges = self.claims.ranges.iter().copied();
            let range = |(subnet, port, number)| SubnetListener { subnet, port, listener: listener(number) };
            self.subnets = ranges.map(range).collect();
        }
    }
}

/// The gateways' listeners, and whether they are not those of the last time.
pub(super) struct Edge<'a> {
    pub(super) gateways: &'a Map<SocketAddr, Arc<Listener>>,
    pub(super) changed: bool,
}

impl Place {
    fn new(listener: Arc<Listener>) -> Self {
        Self { listener, wishes: Wishes::default(), own: None }
    }

    /// Finds its own reason as `listener`; true if that may change who shares a limit with whom.
    fn weigh(&mut self, listener: &Listener, held: &Held, settings: &Settings) -> bool {
        let names = |one| limited(one).map(|cluster| &cluster.name);
        let own = reason(listener, &self.wishes, held, settings);
        let as_before = own.is_some() == self.own.is_some() && names(&self.listener).eq(names(listener));
        self.own = own;
        !as_before
    }

    /// Its reason while nobody else's changed.
    fn steer(&self) -> Option<SteerReason> {
        let shared = self.listener.steer.as_ref().filter(|one| matches!(one, SteerReason::SharedLimit(..)));
        self.own.as_ref().or(shared).cloned()
    }
}

/// `previous` where it says the same as `new`.
pub(super) fn reused(previous: Option<&Arc<Listener>>, new: Listener) -> Arc<Listener> {
    previous.filter(|previous| ***previous == new).cloned().unwrap_or_else(|| Arc::new(new))
}

/// Why the daemon must carry the connections of one listener, whatever others do.
fn reason(listener: &Listener, wishes: &Wishes, held: &Held, settings: &Settings) -> Option<SteerReason> {
    if settings.steer_all {
        return Some(SteerReason::Setting);
    }
    if let Some(resource) = &wishes.steer {
        return Some(SteerReason::Annotation(resource.clone()));
    }
    if listener.sniff.any() {
        return Some(SteerReason::Sniff);
    }
    if let Some(cluster) = datapath::reached(listener).find(|cluster| cluster.port.is_some()) {
        return Some(SteerReason::TargetPort(cluster.name.clone()));
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
    let foreign = |address: IpNet| {
        let mut routes = listener.rules.iter().map(|rule| &rule.route);
        routes.find_map(|route| datapath::other_family(route, address))
    };
    held.nets().find_map(foreign).map(SteerReason::Family)
}

/// Gives every listener of a limited cluster a reason, as soon as one listener of it has one.
fn share_limits(
    listeners: &[(usize, &Listener)],
    gateways: &Map<SocketAddr, Arc<Listener>>,
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
