//! What processes hold of the kernel's eBPF. What nobody holds and nobody has pinned the kernel frees.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

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
    held(&Path::new("/proc").join(pid.to_string()))
}

/// What any process of the host has open.
pub fn held_by_anybody() -> BTreeSet<Object> {
    let processes = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    processes.flat_map(|process| held(&process.path())).collect()
}

/// Of a process that has ended: nothing.
fn held(process: &Path) -> BTreeSet<Object> {
    let descriptors = fs::read_dir(process.join("fdinfo")).into_iter().flatten().flatten();
    // One that was closed meanwhile holds nothing.
    let texts = descriptors.filter_map(|one| fs::read_to_string(one.path()).ok());
    texts.flat_map(|text| text.lines().filter_map(object).collect::<Vec<_>>()).collect()
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
