//! The routing rules and the routing table that turn steered packets to `lo`, per namespace and family.
//!
//! `fwmark MARK ipproto tcp lookup TABLE priority PRIORITY`, the same with `ipproto udp dport 53` for questions to name servers
//! (whose sockets carry the mark all their life), and in the table one route: `local default dev lo src ADDRESS`.
//! The source is the workload's own address, so that servers and logs see who connects. The kernel drops the route
//! when that address goes away, and a killed daemon leaves both behind: [`ensure`] repairs either.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, IpProtocol, RouteNetlinkMessage as Message,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
    route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
    rule::{RuleAction, RuleAttribute as Attribute, RuleMessage, RulePortRange},
};

use super::{Namespace, netlink::Netlink};

/// `lo` is the first interface of every network namespace.
const LOOPBACK: u32 = 1;
/// How often rules are corrected before a kernel that shows others than it was given is let be.
const ROUNDS: u32 = 4;
/// Where name servers listen.
const DNS: u16 = 53;

/// The numbers by which steered packets are routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steering {
    /// Firewall mark of steered sockets.
    pub mark: u32,
    /// Routing table that is ours alone.
    pub table: u32,
    /// Priority of the rules; it must come before the main table's 32766.
    pub priority: u32,
    /// Whether questions to name servers come to the daemon as well.
    pub names: bool,
}

impl Default for Steering {
    fn default() -> Self {
        Self { mark: 0x5348_5554, table: 21332, priority: 21332, names: true }
    }
}

/// Why packets cannot be routed to the daemon.
#[derive(Debug, thiserror::Error)]
#[error("{doing} for steered packets ({family}, table {table}): {source}")]
pub struct Error {
    doing: &'static str,
    family: &'static str,
    table: u32,
    source: io::Error,
}

/// Sets up rule and route in `namespace`, replacing whatever an earlier daemon left under the same numbers.
///
/// # Errors
/// When the namespace cannot be entered, or the kernel refuses a rule or a route.
pub fn install(namespace: &Namespace, steering: &Steering) -> Result<(), Error> {
    ensure(namespace, steering).map(drop)
}

/// Repairs what is missing or wrong; true when anything was. Costs a few listings of what is ours when nothing is.
///
/// # Errors
/// As [`install`].
pub fn ensure(namespace: &Namespace, steering: &Steering) -> Result<bool, Error> {
    let steering = *steering;
    each_family(namespace, steering, move |tables| {
        if !tables.is_usable() {
            return Ok(false);
        }
        tables.must_be_ours().map_err(tables.error("taking the table"))?;
        let rule = tables.ensure_rules().map_err(tables.error("adding the rules"))?;
        let route = tables.ensure_route().map_err(tables.error("adding the route"))?;
        Ok(rule || route)
    })
}

/// Takes rule and route away; what is already gone is no error.
///
/// # Errors
/// When the namespace cannot be entered, or the kernel refuses.
pub fn remove(namespace: &Namespace, steering: &Steering) -> Result<(), Error> {
    each_family(namespace, *steering, |tables| tables.clear().map_err(tables.error("removing"))).map(drop)
}

/// Does `work` for both families inside the namespace; true when one of them answers true.
fn each_family(
    namespace: &Namespace,
    steering: Steering,
    work: impl Fn(&Tables) -> Result<bool, Error> + Send + Sync,
) -> Result<bool, Error> {
    let failed =
        |doing| move |source| Error { doing, family: "both families", table: steering.table, source };
    namespace
        .enter(|| {
            let mut any = false;
            for family in [AddressFamily::Inet, AddressFamily::Inet6] {
                let netlink = Netlink::open().map_err(failed("asking the kernel"))?;
                any |= work(&Tables { netlink, family, steering })?;
            }
            Ok(any)
        })
        .map_err(failed("entering the namespace"))?
}

/// Rules and routes of one family in the calling thread's namespace.
struct Tables {
    netlink: Netlink,
    family: AddressFamily,
    steering: Steering,
}

impl Tables {
    fn is_v6(&self) -> bool {
        self.family == AddressFamily::Inet6
    }

    /// Whether the namespace has this family's loopback address: where it lacks, the daemon has no listener either.
    fn is_usable(&self) -> bool {
        UdpSocket::bind((self.loopback(), 0)).is_ok()
    }

    fn loopback(&self) -> IpAddr {
        if self.is_v6() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() }
    }

    fn error(&self, doing: &'static str) -> impl FnOnce(io::Error) -> Error {
        let family = if self.is_v6() { "IPv6" } else { "IPv4" };
        let table = self.steering.table;
        move |source| Error { doing, family, table, source }
    }

    /// Replacing or removing what somebody else keeps in the table could cut the machine off.
    fn must_be_ours(&self) -> io::Result<()> {
        if self.routes()?.iter().all(is_our_kind) {
            return Ok(());
        }
        let text = "somebody else has routes in it, which stay as they are; give shunt another --route-table";
        Err(io::Error::new(io::ErrorKind::AlreadyExists, text))
    }

    /// Removing a leftover that says less than our rules may remove one of those in its place, so it is looked at again.
    fn ensure_rules(&self) -> io::Result<bool> {
        for round in 0..ROUNDS {
            if !self.correct_rules()? {
                return Ok(round > 0);
            }
        }
        Ok(true)
    }

    /// Adds what is missing and removes what is not ours as it is; true when there was any.
    fn correct_rules(&self) -> io::Result<bool> {
        let mut leftovers = self.our_rules()?;
        let mut missing = Vec::new();
        let connections = self.rule(&[Attribute::IpProtocol(IpProtocol::Tcp)]);
        let names = self.steering.names.then(|| self.rule(&datagrams()));
        for rule in [Some(connections), names].into_iter().flatten() {
            match leftovers.iter().position(|found| is_same_rule(found, &rule)) {
                Some(place) => drop(leftovers.swap_remove(place)),
                None => missing.push(rule),
            }
        }
        let any = !missing.is_empty() || !leftovers.is_empty();
        for leftover in leftovers {
            self.netlink.change(Message::DelRule(leftover), 0)?;
        }
        for rule in missing {
            self.netlink.change(Message::NewRule(rule), NLM_F_CREATE | NLM_F_EXCL)?;
        }
        Ok(any)
    }

    fn ensure_route(&self) -> io::Result<bool> {
        let wanted = self.route(self.source()?);
        let found = self.our_routes()?;
        if found.len() == 1 && is_same_route(&found[0], &wanted) {
            return Ok(false);
        }
        self.netlink.change(Message::NewRoute(wanted.clone()), NLM_F_CREATE | NLM_F_REPLACE)?;
        for leftover in self.our_routes()?.into_iter().filter(|route| !is_same_route(route, &wanted)) {
            self.netlink.change(Message::DelRoute(leftover), 0)?;
        }
        Ok(true)
    }

    fn clear(&self) -> io::Result<bool> {
        if !self.is_usable() && self.our_rules().is_err() {
            return Ok(false);
        }
        for rule in self.our_rules()? {
            self.netlink.change(Message::DelRule(rule), 0)?;
        }
        for route in self.our_routes()? {
            self.netlink.change(Message::DelRoute(route), 0)?;
        }
        Ok(true)
    }

    /// The rule for marked packets that are of this kind.
    fn rule(&self, kind: &[Attribute]) -> RuleMessage {
        let mut rule = RuleMessage::default();
        rule.header.family = self.family;
        rule.header.action = RuleAction::ToTable;
        rule.attributes = vec![
            Attribute::Priority(self.steering.priority),
            Attribute::FwMark(self.steering.mark),
            Attribute::Table(self.steering.table),
        ];
        rule.attributes.extend_from_slice(kind);
        rule
    }

    /// Rules at our priority that name our mark or our table: ours, or those of a killed daemon with other settings.
    fn our_rules(&self) -> io::Result<Vec<RuleMessage>> {
        let mut question = RuleMessage::default();
        question.header.family = self.family;
        let all = self.netlink.list(Message::GetRule(question))?;
        let ours = all.into_iter().filter_map(|message| match message {
            Message::NewRule(rule) => Some(rule),
            _ => None,
        });
        let Steering { mark, table, priority, .. } = self.steering;
        Ok(ours
            .filter(|rule| {
                let has = |attribute| rule.attributes.contains(&attribute);
                has(Attribute::Priority(priority))
                    && (has(Attribute::FwMark(mark)) || has(Attribute::Table(table)))
            })
            .collect())
    }

    fn route(&self, source: IpAddr) -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header.address_family = self.family;
        route.header.kind = RouteType::Local;
        route.header.scope = RouteScope::Host;
        route.header.protocol = RouteProtocol::Static;
        route.attributes = vec![
            RouteAttribute::Table(self.steering.table),
            RouteAttribute::Oif(LOOPBACK),
            RouteAttribute::PrefSource(source.into()),
        ];
        route
    }

    fn our_routes(&self) -> io::Result<Vec<RouteMessage>> {
        let mut routes = self.routes()?;
        routes.retain(is_our_kind);
        Ok(routes)
    }

    /// Everything in the table.
    fn routes(&self) -> io::Result<Vec<RouteMessage>> {
        let mut question = RouteMessage::default();
        question.header.address_family = self.family;
        question.attributes.push(RouteAttribute::Table(self.steering.table));
        let all = self.netlink.list(Message::GetRoute(question))?;
        let routes = all.into_iter().filter_map(|message| match message {
            Message::NewRoute(route) => Some(route),
            _ => None,
        });
        let table = RouteAttribute::Table(self.steering.table);
        Ok(routes.filter(|route| route.attributes.contains(&table)).collect())
    }

    /// The address that the workload's connections should come from: the one that the kernel would choose for a far
    /// destination, else the first global one, else loopback.
    fn source(&self) -> io::Result<IpAddr> {
        if let Some(address) = self.default_source() {
            return Ok(address);
        }
        Ok(self.first_global()?.unwrap_or_else(|| self.loopback()))
    }

    /// Connecting a UDP socket sends nothing: it only asks for a route. The addresses are reserved for documentation.
    fn default_source(&self) -> Option<IpAddr> {
        let (any, far): (IpAddr, IpAddr) = if self.is_v6() {
            (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into())
        } else {
            (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into())
        };
        let probe = UdpSocket::bind((any, 0)).ok()?;
        probe.connect((far, 9)).ok()?;
        Some(probe.local_addr().ok()?.ip()).filter(is_global)
    }

    fn first_global(&self) -> io::Result<Option<IpAddr>> {
        let mut question = AddressMessage::default();
        question.header.family = self.family;
        let all = self.netlink.list(Message::GetAddress(question))?;
        let addresses = all.into_iter().filter_map(|message| match message {
            Message::NewAddress(address) => Some(address),
            _ => None,
        });
        let mut usable: Vec<_> = addresses.filter(is_primary).collect();
        usable.sort_by_key(|address| address.header.index);
        Ok(usable.iter().find_map(own_address).filter(is_global))
    }
}

/// Not loopback and not bound to one link.
fn is_global(address: &IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !address.is_loopback() && !address.is_unspecified() && !link_local
}

/// A global address of a real interface that is not a second one and may be used already.
fn is_primary(address: &AddressMessage) -> bool {
    let unfit = AddressHeaderFlags::Secondary
        | AddressHeaderFlags::Tentative
        | AddressHeaderFlags::Deprecated
        | AddressHeaderFlags::Dadfailed;
    let header = &address.header;
    header.index != LOOPBACK && header.scope == AddressScope::Universe && !header.flags.intersects(unfit)
}

/// On point-to-point links `Address` is the peer's, so `Local` counts first.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

/// Questions to name servers.
fn datagrams() -> [Attribute; 2] {
    let dns = RulePortRange { start: DNS, end: DNS };
    [Attribute::IpProtocol(IpProtocol::Udp), Attribute::DestinationPortRange(dns)]
}

/// The kernel lists more attributes than we give, but a rule for every protocol, as older versions had, lists less.
fn is_same_rule(found: &RuleMessage, wanted: &RuleMessage) -> bool {
    found.header.action == wanted.header.action
        && wanted.attributes.iter().all(|attribute| found.attributes.contains(attribute))
}

/// Everything to `lo`: what an earlier daemon may have left, with whatever source address.
fn is_our_kind(route: &RouteMessage) -> bool {
    let header = &route.header;
    header.kind == RouteType::Local
        && header.destination_prefix_length == 0
        && route.attributes.contains(&RouteAttribute::Oif(LOOPBACK))
}

fn is_same_route(found: &RouteMessage, wanted: &RouteMessage) -> bool {
    found.header.kind == wanted.header.kind
        && found.header.destination_prefix_length == 0
        && wanted.attributes.iter().all(|attribute| found.attributes.contains(attribute))
}
