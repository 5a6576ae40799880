//! Other people's programs on the hooks that ours are on: who decides before us, and who after.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    path::{Path, PathBuf},
};

use aya::programs::loaded_programs;
use nix::libc;

use super::{Error, Kernel};

/// `BPF_PROG_QUERY`, and its flag for programs of the cgroups above, in the order in which they run.
const QUERY: libc::c_int = 16;
const EFFECTIVE: u32 = 1;
/// Programs that one hook of one cgroup may have; the kernel allows 64 a cgroup.
const MOST: usize = 1024;

/// The hooks that the datapath uses, by their number in linux/bpf.h.
const HOOKS: [(u32, &str); 9] = [
    (2, "sock_create"),
    (14, "sendmsg4"),
    (15, "sendmsg6"),
    (10, "connect4"),
    (11, "connect6"),
    (29, "getpeername4"),
    (30, "getpeername6"),
    (3, "sock_ops"),
    (34, "sock_release"),
];

/// A program of somebody else's that runs on the same hook as ours, for the same tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The cgroup that was looked at; the program may be attached above it.
    pub cgroup: PathBuf,
    /// The hook.
    pub hook: &'static str,
    /// The program, by the kernel's number.
    pub id: u32,
    /// Its name; empty when it has none.
    pub name: String,
    /// Whether it runs before ours: it can then change what ours sees, else what ours made of it.
    pub before: bool,
}

impl Kernel {
    /// Everybody else's programs that run together with ours for tasks of `cgroups`.
    ///
    /// # Errors
    /// When a folder is no cgroup2, or the kernel does not say.
    pub fn foreign(&self, cgroups: &BTreeSet<PathBuf>) -> Result<Vec<Foreign>, Error> {
        let own = self.capture.programs().filter_map(|(_, program)| program.info().ok());
        let own: BTreeSet<u32> = own.map(|info| info.id()).collect();
        let mut all = Vec::new();
        for cgroup in cgroups {
            on_hooks(cgroup, &own, &mut all)?;
        }
        name(&mut all);
        Ok(all)
    }
}

fn on_hooks(cgroup: &Path, own: &BTreeSet<u32>, all: &mut Vec<Foreign>) -> Result<(), Error> {
    let folder = File::open(cgroup).map_err(Error::file("opening the cgroup", cgroup))?;
    for (number, hook) in HOOKS {
        let programs = query(folder.as_fd(), number);
        let programs = programs.map_err(Error::file("listing the programs of the cgroup", cgroup))?;
        let others = others(&programs, own);
        all.extend(others.map(|(id, before)| Foreign {
            cgroup: cgroup.to_owned(),
            hook,
            id,
            name: String::new(),
            before,
        }));
    }
    Ok(())
}

/// Those of `programs`, which stand in the order in which they run, that are not ours; nobody where ours are not.
fn others(programs: &[u32], own: &BTreeSet<u32>) -> impl Iterator<Item = (u32, bool)> {
    let ours = programs.iter().position(|id| own.contains(id));
    let others = programs.iter().enumerate().filter(|(_, id)| !own.contains(id));
    others.filter_map(move |(place, &id)| ours.map(|ours| (id, place < ours)))
}

/// The programs that run on a hook for tasks of a cgroup. Below it there may be more, which run before these.
fn query(cgroup: BorrowedFd<'_>, hook: u32) -> io::Result<Vec<u32>> {
    /// The part of `union bpf_attr` that the call reads.
    #[repr(C)]
    struct Attributes {
        cgroup: u32,
        hook: u32,
        query_flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        padding: u32,
        program_flags: u64,
    }
    let mut ids = vec![0_u32; MOST];
    let mut attributes = Attributes {
        cgroup: cgroup.as_raw_fd().cast_unsigned(),
        hook,
        query_flags: EFFECTIVE,
        attach_flags: 0,
        ids: ids.as_mut_ptr().expose_provenance() as u64,
        count: MOST as u32,
        padding: 0,
        program_flags: 0,
    };
    // SAFETY: the attributes are initialised and of the stated size, the cgroup is open, and the kernel writes at most
    // `count` numbers to `ids`, which is as long and outlives the call.
    let status = unsafe { libc::syscall(libc::SYS_bpf, QUERY, &raw mut attributes, size_of::<Attributes>()) };
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    ids.truncate(attributes.count as usize);
    Ok(ids)
}

/// Gives each its name; listing the machine's programs is spared when there is nobody to name.
fn name(foreign: &mut [Foreign]) {
    if foreign.is_empty() {
        return;
    }
    // One that is unloaded meanwhile has no name.
    let loaded = loaded_programs().filter_map(Result::ok);
    let names: HashMap<u32, String> =
        loaded.filter_map(|program| Some((program.id(), program.name_as_str()?.to_owned()))).collect();
    for one in foreign {
        one.name = names.get(&one.id).cloned().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_stands_before_the_first_of_ours_runs_before() {
        let own = BTreeSet::from([7, 8]);
        for (programs, want) in [
            (&[][..], &[][..]),
            (&[7], &[]),
            (&[1, 7, 2], &[(1, true), (2, false)]),
            (&[7, 1, 8, 2], &[(1, false), (2, false)]),
            (&[1, 2], &[]),
        ] {
            assert_eq!(others(programs, &own).collect::<Vec<_>>(), want);
        }
    }
}
