//! The rows of the tables: no proxy, Shunt both ways, address translation, and every peer that is there.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Result;
use tests::netns::Netns;

use crate::place::Place;
use crate::process::Process;
use crate::scene::Scene;
use crate::shunt::{self, Datapath, Shunt};
use crate::{nat, peers};

/// The client dials the backends: what every other row is compared with.
pub(crate) const NO_PROXY: &str = "no-proxy";

/// One way from the client to the backends.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// What the client dials, in turn.
    pub(crate) targets: Vec<SocketAddr>,
    /// The proxy's process; its children count too.
    pub(crate) pid: Option<u32>,
    /// Where the client is.
    pub(crate) place: Place,
}

/// The rows, and what keeps their proxies running.
pub(crate) struct Rows {
    pub(crate) rows: Vec<Row>,
    /// What was wanted and is not there, with the reason.
    pub(crate) absent: BTreeMap<String, String>,
    _shunts: Vec<Shunt>,
    _peers: Vec<Process>,
    _nodes: Vec<Netns>,
}

/// All rows in the order of the tables; `--peers` picks among those after `no-proxy`.
pub(crate) const NAMES: [&str; 10] = [
    "shunt-direct",
    "shunt-steered",
    "iptables",
    "nftables",
    "haproxy",
    "haproxy-splice",
    "nginx",
    "nginx-sidecar",
    "envoy",
    "ztunnel",
];

impl Row {
    /// Whether Shunt is what it measures.
    pub(crate) fn is_shunt(&self) -> bool {
        self.name.starts_with("shunt")
    }
}

/// Starts everything that was asked for.
pub(crate) fn start(scene: &Scene, wanted: &[String]) -> Result<Rows> {
    let [first, second] = scene.backends;
    // The weights are 80 to 20.
    let targets = vec![first, first, first, first, second];
    let place = Place::new(&scene.client, None);
    let floor = Row { name: NO_PROXY.to_owned(), targets, pid: None, place };
    let (_shunts, _peers, _nodes) = Default::default();
    let mut rows = Rows { rows: vec![floor], absent: BTreeMap::new(), _shunts, _peers, _nodes };
    for name in wanted {
        // A row that does not come up is no reason to measure nothing; the report says so.
        if let Err(why) = rows.add(scene, name) {
            rows.absent.insert(name.clone(), format!("{why:#}"));
        }
    }
    Ok(rows)
}

impl Rows {
    fn add(&mut self, scene: &Scene, name: &str) -> Result<()> {
        if let Some(datapath) = Datapath::of_row(name) {
            let (rows, daemon) = shunt::start(scene, datapath)?;
            self.rows.extend(rows);
            self._shunts.push(daemon);
        } else if nat::NAMES.contains(&name) {
            let (row, node) = nat::start(scene, name)?;
            self.rows.push(row);
            self._nodes.push(node);
        } else {
            let (row, process) = peers::start(scene, name)?.map_err(anyhow::Error::msg)?;
            self.rows.push(row);
            self._peers.push(process);
        }
        Ok(())
    }
}
