//! The other end of a namespace's veth pair, where everything that leaves it can be seen.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use netlink_packet_route::{
    RouteNetlinkMessage as Message,
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    nsid::{NsidAttribute, NsidMessage},
};

use super::{Namespace, netlink::Netlink};

/// Why nobody can stand where a namespace's packets leave it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unguardable {
    /// It is the namespace that the daemon is in: there is no outside.
    #[error("it is the daemon's own network namespace")]
    Own,
    /// No interface but loopback is up.
    #[error("it has no interface that is up")]
    Alone,
    /// Packets leave by something else than one veth.
    #[error("packets also leave it by {0}, which is no veth with its other end here")]
    Elsewhere(String),
    /// Several pairs.
    #[error("it has several veth pairs")]
    Several,
    /// The kernel does not say.
    #[error("its interfaces cannot be listed: {0}")]
    Unlisted(String),
}

/// Where everything comes out that leaves a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostSide {
    /// The index of the interface, in the calling thread's namespace.
    pub ifindex: u32,
    /// The number by which the calling thread's namespace knows the other.
    pub number: i32,
}

/// The interface in the calling thread's namespace that everything comes out of that leaves `namespace`.
///
/// # Errors
/// When there is no such interface, or not just one.
pub fn host_side(namespace: &Namespace) -> Result<HostSide, Unguardable> {
    let unlisted = |error: io::Error| Unguardable::Unlisted(error.to_string());
    if namespace.is_own {
        return Err(Unguardable::Own);
    }
    let theirs = namespace.enter(links).and_then(|links| links).map_err(unlisted)?;
    let ours = links().map_err(unlisted)?;
    let number = number(namespace.as_fd()).map_err(unlisted)?;
    let mut found = Vec::new();
    for link in theirs.iter().filter(|link| link.is_up && !link.is_loopback) {
        let is_peer = |one: &&Link| {
            let paired = Some(one.index) == link.peer && one.peer == Some(link.index);
            link.is_veth && one.is_veth && paired && one.peers_namespace == number
        };
        match number.zip(ours.iter().find(is_peer)) {
            Some((number, peer)) => found.push(HostSide { ifindex: peer.index, number }),
            None => return Err(Unguardable::Elsewhere(link.name.clone())),
        }
    }
    match found[..] {
        [] => Err(Unguardable::Alone),
        [only] => Ok(only),
        _ => Err(Unguardable::Several),
    }
}

/// What matters of an interface.
struct Link {
    index: u32,
    name: String,
    is_up: bool,
    is_loopback: bool,
    is_veth: bool,
    /// The other end's index, in its own namespace.
    peer: Option<u32>,
    /// The number by which this namespace knows the other end's.
    peers_namespace: Option<i32>,
}

/// The interfaces of the calling thread's namespace.
fn links() -> io::Result<Vec<Link>> {
    let all = Netlink::open()?.list(Message::GetLink(LinkMessage::default()))?;
    let links = all.into_iter().filter_map(|message| match message {
        Message::NewLink(link) => Some(link),
        _ => None,
    });
    Ok(links.map(|link| read(&link)).collect())
}

fn read(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        is_up: flags.contains(LinkFlags::Up),
        is_loopback: flags.contains(LinkFlags::Loopback),
        is_veth: false,
        peer: None,
        peers_namespace: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Link(peer) => link.peer = Some(*peer),
            LinkAttribute::LinkNetNsId(number) => link.peers_namespace = Some(*number),
            LinkAttribute::LinkInfo(about) => {
                link.is_veth = about.contains(&LinkInfo::Kind(InfoKind::Veth));
            }
            _ => {}
        }
    }
    link
}

/// The number by which the calling thread's namespace knows another; `None`: it has none.
fn number(namespace: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let mut question = NsidMessage::default();
    question.attributes.push(NsidAttribute::Fd(namespace.as_raw_fd().unsigned_abs()));
    let Some(Message::NewNsId(answer)) = Netlink::open()?.get(Message::GetNsId(question))? else {
        return Ok(None);
    };
    let number = answer.attributes.iter().find_map(|attribute| match attribute {
        NsidAttribute::Id(number) => Some(*number),
        _ => None,
    });
    Ok(number.filter(|number| *number >= 0))
}
