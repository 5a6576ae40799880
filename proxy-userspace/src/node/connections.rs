//! The TCP connections of a namespace, and the end of some: what a policy no longer allows is closed with SOCK_DESTROY
//! (CONFIG_INET_DIAG_DESTROY), which resets both ends.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use nix::libc;

use super::{
    Family,
    diag::{self, SocketList},
};

/// `SOCK_DESTROY`.
const DESTROY: u16 = 21;
/// `INET_DIAG_CGROUP_ID`.
const CGROUP_ID: u16 = 21;
/// LISTEN.
const LISTENING: u32 = 1 << 10;
/// ESTABLISHED, SYN_SENT, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING, as in netinet/tcp.h.
const CONNECTED: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// Places in `inet_diag_msg`: `inet_diag_sockid`, and inside it its parts.
const ID: usize = 4;
const ID_LENGTH: usize = 48;
const PORTS: usize = 4;
const ADDRESSES: usize = 8;
/// Place of `inet_diag_sockid` in `inet_diag_req_v2`.
const ASKED_ID: usize = diag::HEADER + 8;

/// One connection, as the end that is in the namespace has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its own end.
    pub source: SocketAddr,
    /// The other end.
    pub destination: SocketAddr,
    /// The v2 cgroup that the socket was made in.
    pub cgroup_id: u64,
    /// Somebody listens on its own port: it came in.
    pub is_inbound: bool,
}

impl SocketList {
    /// Closes every connection of the namespace that `unwanted` picks; how many there were.
    ///
    /// # Errors
    /// When the kernel does not list sockets, or cannot close any.
    pub fn close_connections(&self, unwanted: impl Fn(&Connection) -> bool) -> io::Result<usize> {
        let mut closed = 0;
        for (family, id) in self.unwanted(unwanted)? {
            let mut order = diag::message(family, 0);
            order[ASKED_ID..ASKED_ID + ID_LENGTH].copy_from_slice(&id);
            match self.ask(&diag::sealed(order, DESTROY, libc::NLM_F_ACK), |_| ()) {
                Ok(()) => closed += 1,
                // It ended by itself.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(closed)
    }

    /// Who is to be closed: family and `inet_diag_sockid`.
    fn unwanted(&self, unwanted: impl Fn(&Connection) -> bool) -> io::Result<Vec<(Family, [u8; ID_LENGTH])>> {
        let mut ports = BTreeSet::new();
        let mut found = Vec::new();
        for states in [LISTENING, CONNECTED] {
            for family in [Family::V4, Family::V6] {
                let question = diag::sealed(diag::message(family, states), diag::BY_FAMILY, libc::NLM_F_DUMP);
                self.ask(&question, |message| match parse(message) {
                    Some((connection, _)) if states == LISTENING => {
                        ports.insert(connection.source.port());
                    }
                    Some((connection, id)) => found.push((family, connection, id)),
                    None => {}
                })?;
            }
        }
        let picked = found.into_iter().filter(|(_, connection, _)| {
            let is_inbound = ports.contains(&connection.source.port());
            unwanted(&Connection { is_inbound, ..*connection })
        });
        Ok(picked.map(|(family, _, id)| (family, id)).collect())
    }
}

/// One `inet_diag_msg`, and what names its socket.
fn parse(message: &[u8]) -> Option<(Connection, [u8; ID_LENGTH])> {
    let is_v4 = i32::from(*message.first()?) == libc::AF_INET;
    let end = |index: usize| {
        let port = u16::from_be_bytes(diag::at(message, PORTS + 2 * index)?);
        let octets: [u8; 16] = diag::at(message, ADDRESSES + 16 * index)?;
        let [a, b, c, d, ..] = octets;
        let address: IpAddr =
            if is_v4 { Ipv4Addr::new(a, b, c, d).into() } else { Ipv6Addr::from(octets).to_canonical() };
        Some(SocketAddr::new(address, port))
    };
    let cgroup = diag::find(message.get(diag::ANSWER..)?, CGROUP_ID);
    let cgroup_id = cgroup.and_then(|value| diag::at(value, 0)).map_or(0, u64::from_ne_bytes);
    let connection = Connection { source: end(0)?, destination: end(1)?, cgroup_id, is_inbound: false };
    Some((connection, diag::at(message, ID)?))
}
