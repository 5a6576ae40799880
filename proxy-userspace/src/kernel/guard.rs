//! `guard` at the host's side of workloads' veth pairs: which of them it is attached to, and where it cannot be.

use std::{collections::BTreeMap, ffi::CStr};

use aya::{
    Ebpf,
    maps::{HashMap as BpfHash, MapData},
    programs::{
        LinkOrder, Program, ProgramError, SchedClassifier, TcAttachType,
        links::FdLink,
        tc::{TcAttachOptions, TcError},
    },
};
use nix::net::if_::if_indextoname;
use proxy_common::egress;

use super::{
    error::Error,
    links::{self, Held},
    objects::{self, SharedMaps},
    pins::PinFolder,
    preflight,
};
use crate::cause::chain;

/// The program, and what its pins are named after.
pub(super) const GUARD: &str = "guard";
const GUARDED: &str = "GUARDED";
/// It has links to interfaces.
const OLDEST_KERNEL: (u32, u32) = (6, 6);

/// The one interface that everything comes out of that leaves a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outside {
    /// Its index, in the namespace of whoever calls.
    pub ifindex: u32,
    /// The number by which that namespace knows the workload's.
    pub number: i32,
}

/// Whether a workload's packets are looked at where they leave its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guarded {
    /// They are.
    Attached,
    /// It may go anywhere.
    NotNeeded,
    /// They are not, and why.
    Impossible(String),
}

/// A namespace whose packets are to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) outside: Outside,
    /// Also while no daemon runs.
    pub(super) outlives: bool,
}

/// The guards that stand, and those that should.
#[derive(Default)]
pub(super) struct Guards {
    /// From the first that is wanted.
    loaded: Option<Loaded>,
    /// Where each namespace's packets come out.
    known: BTreeMap<u64, Outside>,
    standing: BTreeMap<u64, (Wanted, Held)>,
    failed: BTreeMap<u64, String>,
}

struct Loaded {
    object: Ebpf,
    guarded: BpfHash<MapData, u32, egress::Guarded>,
}

impl Guards {
    /// Where the packets of the namespace `cookie` come out; `None`: at no one place.
    pub(super) fn know(&mut self, cookie: u64, outside: Option<Outside>) {
        match outside {
            Some(outside) => self.known.insert(cookie, outside),
            None => self.known.remove(&cookie),
        };
    }

    pub(super) fn known(&self) -> impl Iterator<Item = (u64, Outside)> {
        self.known.iter().map(|(cookie, outside)| (*cookie, *outside))
    }

    /// Whether nobody's packets are looked at.
    pub(super) fn is_idle(&self) -> bool {
        self.standing.is_empty()
    }

    /// What to say of a workload whose packets are to be looked at.
    pub(super) fn state(&self, cookie: u64) -> Guarded {
        if self.standing.contains_key(&cookie) {
            return Guarded::Attached;
        }
        let why = self.failed.get(&cookie).cloned();
        Guarded::Impossible(why.unwrap_or_else(|| "no one interface has all its packets".to_owned()))
    }

    /// Attaches where it is wanted and detaches elsewhere. Where that fails the reason is kept, and it is tried again the next time.
    pub(super) fn set(
        &mut self,
        wanted: &BTreeMap<u64, Wanted>,
        shared: &mut SharedMaps,
        mut pins: Option<&mut PinFolder>,
    ) -> Result<(), Error> {
        let mut outcome = Ok(());
        let unwanted: Vec<_> =
            self.standing.extract_if(.., |cookie, (one, _)| wanted.get(cookie) != Some(one)).collect();
        for (_, (one, held)) in unwanted {
            let gone = held.let_go();
            outcome = outcome.and(gone);
            self.forget(one.outside.ifindex);
        }
        self.failed.retain(|cookie, _| wanted.contains_key(cookie));
        for (cookie, one) in wanted {
            if self.standing.contains_key(cookie) {
                continue;
            }
            let pins = pins.as_deref_mut().filter(|_| one.outlives);
            match self.attach(*cookie, one.outside, shared, pins) {
                Ok(held) => {
                    self.failed.remove(cookie);
                    self.standing.insert(*cookie, (*one, held));
                }
                Err(error) => {
                    self.forget(one.outside.ifindex);
                    self.failed.insert(*cookie, chain(&error));
                }
            }
        }
        outcome
    }

    /// Detaches everywhere, pins included.
    pub(super) fn close(self) -> Result<(), Error> {
        self.standing.into_values().map(|(_, held)| held.let_go()).fold(Ok(()), Result::and)
    }

    fn attach(
        &mut self,
        cookie: u64,
        outside: Outside,
        shared: &mut SharedMaps,
        pins: Option<&mut PinFolder>,
    ) -> Result<Held, Error> {
        let loaded = match &mut self.loaded {
            Some(loaded) => loaded,
            none => none.insert(Loaded::load(shared)?),
        };
        let Outside { ifindex, number } = outside;
        let entry = egress::Guarded { netns_cookie: cookie, number, padding: 0 };
        // First of all: packets of nobody are dropped.
        loaded.guarded.insert(ifindex, entry, 0).map_err(|source| Error::Map { name: GUARDED, source })?;
        // One that is gone has an empty name, or none.
        let name = if_indextoname(ifindex).ok().filter(|name| !name.is_empty());
        let name = name.ok_or(Error::NoInterface(ifindex))?;
        let program = loaded.object.program_mut(GUARD).ok_or(Error::Missing(GUARD))?;
        let pins = pins.map(|pins| (pins, u64::from(ifindex)));
        links::hold(program, GUARD, &name.to_string_lossy(), pins, |program| link(program, &name))
    }

    fn forget(&mut self, ifindex: u32) {
        // What cannot be forgotten is of no more use to anybody.
        let _ = self.loaded.as_mut().map(|loaded| loaded.guarded.remove(&ifindex));
    }
}

impl Loaded {
    fn load(shared: &mut SharedMaps) -> Result<Self, Error> {
        if preflight::running_kernel() < OLDEST_KERNEL {
            return Err(Error::Kernel(GUARD, OLDEST_KERNEL.0, OLDEST_KERNEL.1));
        }
        let mut object = shared.load_guard()?;
        let guarded = objects::take(&mut object, GUARDED)?;
        let program: &mut SchedClassifier = objects::program(&mut object, GUARD)?;
        let failed = |source| Error::Program { doing: "loading".into(), name: GUARD, source };
        program.load().map_err(failed)?;
        Ok(Self { object, guarded })
    }
}

/// Where packets that leave the namespace come in on the host's side; whoever else looks at them there has the next word.
fn link(program: &mut Program, interface: &CStr) -> Result<FdLink, ProgramError> {
    let Program::SchedClassifier(program) = program else { return Err(ProgramError::UnexpectedProgramType) };
    let name = interface.to_str().map_err(|_| TcError::from(std::io::Error::from(nix::Error::EINVAL)))?;
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    let link = program.attach_with_options(name, TcAttachType::Ingress, first)?;
    FdLink::try_from(program.take_link(link)?).map_err(|_| ProgramError::NotAttached)
}
