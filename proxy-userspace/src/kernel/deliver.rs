//! `deliver` in one network namespace: its own copy of the program, with its own sockets, addresses and flags.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap as BpfHash, MapData, SockMap},
    programs::{SkLookup, sk_lookup::SkLookupLink},
};
use proxy_common::v4_mapped;

use super::{
    error::Error,
    objects::{self, SharedMaps},
};

/// What no listener claims is steered too.
const STEERS_ALL: u32 = 1;
/// Questions to name servers come to the daemon.
const ANSWERS: u32 = 2;

/// Addresses that `HOME` has room for.
const ADDRESSES: usize = 256;

/// The daemon's sockets in one namespace.
#[derive(Clone, Copy, Debug)]
pub struct Doors<'a> {
    /// The listener for IPv4.
    pub v4: BorrowedFd<'a>,
    /// That for IPv6, if the namespace has it.
    pub v6: Option<BorrowedFd<'a>>,
    /// Where questions to name servers arrive over IPv4; `None`: nobody answers them.
    pub dns4: Option<BorrowedFd<'a>>,
    /// The same over IPv6.
    pub dns6: Option<BorrowedFd<'a>>,
}

/// The attached program. Dropping it detaches it.
pub(super) struct Delivery {
    _link: SkLookupLink,
    _object: Ebpf,
    home: BpfHash<MapData, [u8; 16], u32>,
    held: BTreeSet<IpAddr>,
    flags: Array<MapData, u32>,
    /// What they are.
    shown: u32,
    answers: bool,
}

impl Delivery {
    /// Puts the sockets in place first, then attaches.
    pub(super) fn attach(
        shared: &mut SharedMaps,
        netns: BorrowedFd<'_>,
        sockets: &Doors<'_>,
    ) -> Result<Self, Error> {
        let mut object = shared.load_deliver()?;
        let mut doors: SockMap<_> = objects::take(&mut object, "DOORS")?;
        for (index, socket) in (0..).zip([Some(sockets.v4), sockets.v6, sockets.dns4, sockets.dns6]) {
            if let Some(socket) = socket {
                doors
                    .set(index, &socket.as_raw_fd(), 0)
                    .map_err(|source| Error::Map { name: "DOORS", source })?;
            }
        }
        let (home, flags) = (objects::take(&mut object, "HOME")?, objects::take(&mut object, "FLAGS")?);
        let program: &mut SkLookup = objects::program(&mut object, "deliver")?;
        let failed = |doing: &str| {
            let doing = doing.to_owned();
            move |source| Error::Program { doing, name: "deliver", source }
        };
        program.load().map_err(failed("loading"))?;
        let link = program.attach(netns).map_err(failed("attaching to a network namespace"))?;
        let link = program.take_link(link).map_err(failed("attaching to a network namespace"))?;
        let answers = sockets.dns4.is_some() || sockets.dns6.is_some();
        let held = BTreeSet::new();
        Ok(Self { _link: link, _object: object, home, held, flags, shown: 0, answers })
    }

    /// Whether what no listener claims is steered.
    pub(super) fn steer_all(&mut self, on: bool) -> Result<(), Error> {
        let flags = if on { STEERS_ALL } else { 0 } | if self.answers { ANSWERS } else { 0 };
        if flags != self.shown {
            self.flags.set(0, flags, 0).map_err(|source| Error::Map { name: "FLAGS", source })?;
            self.shown = flags;
        }
        Ok(())
    }

    /// Makes `addresses` the namespace's own. What finds no room is like any other's address.
    pub(super) fn set_home(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), Error> {
        let failed = |source| Error::Map { name: "HOME", source };
        for address in self.held.difference(addresses) {
            self.home.remove(&v4_mapped(*address)).map_err(failed)?;
        }
        self.held.retain(|address| addresses.contains(address));
        let room = ADDRESSES - self.held.len();
        let fresh: Vec<_> = addresses.difference(&self.held).take(room).copied().collect();
        for address in fresh {
            self.home.insert(v4_mapped(address), 0, 0).map_err(failed)?;
            self.held.insert(address);
        }
        Ok(())
    }
}
