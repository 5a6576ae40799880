//! `deliver` in one network namespace: its own copy of the program, with its own two listeners.

use std::os::fd::{AsRawFd, BorrowedFd};

use aya::{
    Ebpf,
    maps::SockMap,
    programs::{SkLookup, sk_lookup::SkLookupLink},
};

use super::{
    error::Error,
    objects::{self, SharedMaps},
};

/// The attached program. Dropping it detaches it.
pub(super) struct Delivery {
    _link: SkLookupLink,
    _object: Ebpf,
}

impl Delivery {
    /// Puts the listeners in place first, then attaches.
    pub(super) fn attach(
        shared: &mut SharedMaps,
        netns: BorrowedFd<'_>,
        v4: BorrowedFd<'_>,
        v6: Option<BorrowedFd<'_>>,
    ) -> Result<Self, Error> {
        let mut object = shared.load_deliver()?;
        let mut doors: SockMap<_> = objects::take(&mut object, "DOORS")?;
        for (index, listener) in [(0, Some(v4)), (1, v6)] {
            if let Some(listener) = listener {
                doors
                    .set(index, &listener.as_raw_fd(), 0)
                    .map_err(|source| Error::Map { name: "DOORS", source })?;
            }
        }
        let program: &mut SkLookup = objects::program(&mut object, "deliver")?;
        let failed = |doing: &str| {
            let doing = doing.to_owned();
            move |source| Error::Program { doing, name: "deliver", source }
        };
        program.load().map_err(failed("loading"))?;
        let link = program.attach(netns).map_err(failed("attaching to a network namespace"))?;
        let link = program.take_link(link).map_err(failed("attaching to a network namespace"))?;
        Ok(Self { _link: link, _object: object })
    }
}
