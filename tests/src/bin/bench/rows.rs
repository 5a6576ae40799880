//! The rows of the tables: no proxy, Shunt, and every peer that is there.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Result;

use crate::peers;
use crate::process::Process;
use crate::scene::Scene;
use crate::shunt::{self, Shunt};

/// One way from the client to the backends.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// What the client dials, in turn.
    pub(crate) targets: Vec<SocketAddr>,
    /// The proxy's process; its children count too.
    pub(crate) pid: Option<u32>,
}

/// The rows, and what keeps their proxies running.
pub(crate) struct Rows {
    pub(crate) rows: Vec<Row>,
    /// What was wanted and is not there, with the reason.
    pub(crate) absent: BTreeMap<String, String>,
    _shunt: Option<Shunt>,
    _peers: Vec<Process>,
}

/// All rows in the order of the tables; `--peers` picks among those after `direct`.
pub(crate) const NAMES: [&str; 7] =
    ["shunt", "haproxy", "haproxy-splice", "nginx", "nginx-sidecar", "envoy", "ztunnel"];

/// Starts everything that was asked for.
pub(crate) fn start(scene: &Scene, wanted: &[String]) -> Result<Rows> {
    let [first, second] = scene.backends;
    // The weights are 80 to 20.
    let direct =
        Row { name: "direct".to_owned(), targets: vec![first, first, first, first, second], pid: None };
    let mut rows = Rows { rows: vec![direct], absent: BTreeMap::new(), _shunt: None, _peers: Vec::new() };
    for name in wanted {
        if name == "shunt" {
            let Some(binary) = shunt::binary() else {
                let why = "no binary: set SHUNT_BIN, or build proxy-userspace with --release";
                rows.absent.insert(name.clone(), why.to_owned());
                continue;
            };
            let (both, daemon) = shunt::start(scene, &binary)?;
            rows.rows.extend(both);
            rows._shunt = Some(daemon);
            continue;
        }
        // A peer that does not come up is no reason to measure nothing; the report says so.
        match peers::start(scene, name).unwrap_or_else(|error| Err(format!("{error:#}"))) {
            Ok((row, process)) => {
                rows.rows.push(row);
                rows._peers.push(process);
            }
            Err(why) => drop(rows.absent.insert(name.clone(), why)),
        }
    }
    Ok(rows)
}
