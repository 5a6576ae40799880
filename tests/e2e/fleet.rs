//! A second service in the scene, `fleet`, with as many endpoints as a story wants and no rule of its own: what
//! traffic policies are shown on.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tests::client::{Connection, Dial};
use tests::mesh::Workload;
use tests::server::{self, Server};
use tests::yaml;

use crate::datapath::Datapath;
use crate::scene::{Scene, answers, at};

/// The address of the Service `fleet`; its port is 9000.
const VIP: &str = "10.96.0.70";
/// Endpoint N serves at the workload `two`, on this port and N.
const FIRST_PORT: u16 = 9100;

/// The scene with the fleet. Endpoint N answers `N …`.
pub(crate) struct Fleet {
    pub(crate) scene: Scene,
    servers: Vec<Option<Server>>,
}

impl Fleet {
    /// `count` endpoints that serve, under the traffic policy `policy`.
    pub(crate) fn new(name: &str, datapath: Datapath, count: usize, policy: &str) -> Self {
        Self::with(Scene::echo(name, datapath), count, &yaml::traffic_policy("fleet", policy, ""))
    }

    /// In a scene of the story's choice, with the DestinationRule `rule`.
    pub(crate) fn with(scene: Scene, count: usize, rule: &str) -> Self {
        let mut fleet = Self { scene, servers: (0..count).map(|_| None).collect() };
        (0..count).for_each(|index| fleet.serve(index));
        let all: Vec<_> = (0..count).collect();
        fleet.scene.daemon.apply("fleet.yaml", &(fleet.members(&all) + rule));
        fleet
    }

    /// Where it is dialled.
    pub(crate) fn vip(&self) -> SocketAddr {
        at(VIP, 9000)
    }

    /// The Service and those endpoints that `members` names.
    pub(crate) fn members(&self, members: &[usize]) -> String {
        let entry =
            |index: &usize| yaml::workload_entry("fleet", &format!("v{index}"), self.endpoint(*index));
        yaml::service("fleet", &[VIP], 9000) + &members.iter().map(entry).collect::<String>()
    }

    /// Where endpoint `index` is.
    pub(crate) fn endpoint(&self, index: usize) -> SocketAddr {
        (self.scene.at_two.v4(), FIRST_PORT + index as u16).into()
    }

    /// How many connections endpoint `index` has accepted since it last began to serve.
    pub(crate) fn accepted(&self, index: usize) -> usize {
        self.servers[index].as_ref().map_or(0, Server::accepted)
    }

    /// Endpoint `index` begins to serve.
    pub(crate) fn serve(&mut self, index: usize) {
        let port = FIRST_PORT + index as u16;
        self.servers[index] = Some(server::tcp_echo(&self.scene.at_two, port, &index.to_string()));
    }

    /// Endpoint `index` refuses from here on.
    pub(crate) fn stop(&mut self, index: usize) {
        self.servers[index] = None;
    }

    /// Who answers `count` connections of the client, one after the other.
    pub(crate) fn answers(&self, count: usize) -> BTreeMap<String, usize> {
        answers(&self.scene.client, self.vip(), count)
    }

    /// One connection of the client that is served, or none.
    pub(crate) fn hello(&self) -> Option<Connection> {
        hello(&self.scene.client, self.vip())
    }
}

/// A connection from `workload` to the tcp-echo at `to`, and who answered it; none when it was turned away, whoever
/// did that.
pub(crate) fn hello(workload: &Workload, to: SocketAddr) -> Option<Connection> {
    workload.enter(|| hello_here(to))
}

/// The same from the calling thread's namespace.
pub(crate) fn hello_here(to: SocketAddr) -> Option<Connection> {
    let mut connection = Dial::to(to).connect_here().ok()?;
    // A close that comes first is a failure to write or to read.
    std::io::Write::write_all(&mut connection.stream, b"hello\n").ok()?;
    connection.try_line().ok()?.ends_with(" hello").then_some(connection)
}
