//! What a process holds in the kernel's eBPF, and whether the kernel still has it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use nix::libc;

/// A kind of eBPF object, each with numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Attachments.
    Link,
    /// Tables.
    Map,
    /// Programs.
    Program,
}

/// All of them.
pub const KINDS: [Kind; 3] = [Kind::Link, Kind::Map, Kind::Program];

/// One eBPF object; a number is never used again.
pub type Object = (Kind, u32);

/// What the process `pid` has open.
pub fn held_by(pid: u32) -> BTreeSet<Object> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("the process is there").flatten();
    // One that was closed meanwhile holds nothing.
    let texts = descriptors.filter_map(|one| fs::read_to_string(one.path()).ok());
    texts.flat_map(|text| text.lines().filter_map(object).collect::<Vec<_>>()).collect()
}

/// Whether the kernel has `object` still, whoever holds it.
pub fn exists((kind, number): Object) -> bool {
    let command: libc::c_int = match kind {
        Kind::Program => 13,
        Kind::Map => 14,
        Kind::Link => 30,
    };
    // `union bpf_attr` of BPF_*_GET_FD_BY_ID: the number, then what is not asked for.
    let attributes = [number, 0, 0];
    // SAFETY: the kernel reads these attributes, and gives a new descriptor or -1.
    let status =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(&attributes)) };
    match i32::try_from(status) {
        // SAFETY: the descriptor is new, so nobody else owns it.
        Ok(descriptor @ 0..) => drop(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => {
            let error = io::Error::last_os_error();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{kind:?} {number}: {error}");
            return false;
        }
    }
    true
}

/// `map_id: 17`, as `/proc/PID/fdinfo` says it.
fn object(line: &str) -> Option<Object> {
    let (key, number) = line.split_once(':')?;
    let kind = match key {
        "link_id" => Kind::Link,
        "map_id" => Kind::Map,
        "prog_id" => Kind::Program,
        _ => return None,
    };
    Some((kind, number.trim().parse().ok()?))
}
