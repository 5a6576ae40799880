//! What most stories start from: an enrolled client, the Service `tcp-echo` with two versions, and the daemon.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;
use tests::client::Dial;
use tests::daemon::{Daemon, field};
use tests::mesh::{Mesh, Workload};
use tests::server::{self, Server};
use tests::setup::Setup;
use tests::yaml;

use crate::datapath::Datapath;

/// The addresses of the Service `tcp-echo`; its port is 9000.
pub(crate) const VIP4: &str = "10.96.0.10";
pub(crate) const VIP6: &str = "fd00:96::10";

/// The scene. All connections go to version v1 until a story applies another `routing.yaml`.
pub(crate) struct Scene {
    pub(crate) daemon: Daemon,
    pub(crate) datapath: Datapath,
    /// Enrolled, labelled `app: web`.
    pub(crate) client: Workload,
    /// The server of version v1, in the workload `at_one`.
    pub(crate) one: Server,
    pub(crate) at_one: Workload,
    /// The server of version v2: tcp-echo that answers `two …`.
    pub(crate) two: Server,
    pub(crate) at_two: Workload,
    pub(crate) mesh: Mesh,
}

impl Scene {
    /// Both versions are tcp-echo, and answer `one …` and `two …`.
    pub(crate) fn echo(name: &str, datapath: Datapath) -> Self {
        Self::with_args(name, datapath, "")
    }

    /// Both versions are tcp-echo; the daemon gets `args`.
    pub(crate) fn with_args(name: &str, datapath: Datapath, args: &str) -> Self {
        let tcp_echo = |workload: &Workload| server::tcp_echo(workload, 9000, "one");
        Self::set(name, datapath, |setup| setup.args(args), tcp_echo)
    }

    /// Version v1 is a server of the story's choice.
    pub(crate) fn with_server(
        name: &str,
        datapath: Datapath,
        start: impl FnOnce(&Workload) -> Server,
    ) -> Self {
        Self::set(name, datapath, |setup| setup, start)
    }

    /// Neither DestinationRule nor VirtualService are there: a gateway's story brings its own.
    pub(crate) fn unrouted(name: &str, datapath: Datapath) -> Self {
        let tcp_echo = |workload: &Workload| server::tcp_echo(workload, 9000, "one");
        Self::set(name, datapath, |setup| setup.without("routing.yaml").without("subsets.yaml"), tcp_echo)
    }

    /// Everything is the story's choice.
    pub(crate) fn set(
        name: &str,
        datapath: Datapath,
        prepare: impl FnOnce(Setup) -> Setup,
        start: impl FnOnce(&Workload) -> Server,
    ) -> Self {
        let mesh = Mesh::new(name);
        let client = mesh.workload("client");
        let (at_one, at_two) = (mesh.workload("one"), mesh.workload("two"));
        let (one, two) = (start(&at_one), server::tcp_echo(&at_two, 9000, "two"));
        let setup = Setup::new(&mesh).args(datapath.args()).file("services.yaml", &services(&one, &two));
        let setup = setup.file("subsets.yaml", &yaml::subsets("tcp-echo", &["v1", "v2"]));
        let setup = setup.file("routing.yaml", &yaml::split(&[("v1", 100)]));
        let mut daemon = prepare(setup).start();
        daemon.enroll(&client, "--label app=web");
        let scene = Self { daemon, datapath, client, one, at_one, two, at_two, mesh };
        scene.must_say_its_verdict();
        scene
    }

    /// Asserts that what the story is about is what will happen; how else would it notice?
    #[track_caller]
    fn must_say_its_verdict(&self) {
        assert_eq!(self.route(self.vip())["verdict"], self.datapath.verdict());
    }

    /// What `shunt routes` says of the address `to`.
    #[track_caller]
    pub(crate) fn route(&self, to: SocketAddr) -> Value {
        let routes: Value = serde_json::from_str(&self.daemon.must("routes -o json")).expect("JSON");
        let is_it = |row: &&Value| field(row, "address") == to.to_string();
        let row = routes.as_array().expect("a list").iter().find(is_it);
        row.unwrap_or_else(|| panic!("{to} in {routes}")).clone()
    }

    /// Waits for an access-log line of the story's datapath that has all of `fields`, and returns it.
    #[track_caller]
    pub(crate) fn must_log(&self, fields: &[(&str, &str)]) -> Value {
        self.daemon.must_log(&[fields, &[("path", self.datapath.path())]].concat())
    }

    /// The IPv4 address of `tcp-echo`.
    pub(crate) fn vip(&self) -> SocketAddr {
        at(VIP4, 9000)
    }

    /// Where the daemon's gateways listen, as the client reaches them.
    pub(crate) fn gateway(&self) -> SocketAddr {
        (self.mesh.node().v4(), 31400).into()
    }

    /// Who answers `count` connections of the client to `tcp-echo`, one after the other.
    pub(crate) fn answers(&self, count: usize) -> BTreeMap<String, usize> {
        answers(&self.client, self.vip(), count)
    }
}

/// The Service and its two endpoints.
fn services(one: &Server, two: &Server) -> String {
    [
        yaml::service("tcp-echo", &[VIP4, VIP6], 9000),
        yaml::workload_entry("tcp-echo", "v1", one.address()),
        yaml::workload_entry("tcp-echo", "v2", two.address()),
    ]
    .concat()
}

/// Who answers `count` connections from `workload` to the tcp-echo at `to`, one after the other.
pub(crate) fn answers(workload: &Workload, to: SocketAddr, count: usize) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    workload.enter(|| {
        for _ in 0..count {
            let mut connection = Dial::to(to).connect_here().expect("connect");
            let answer = connection.send("hello\n").line();
            let who = answer.strip_suffix(" hello").unwrap_or_else(|| panic!("odd answer {answer:?}"));
            *answers.entry(who.to_owned()).or_default() += 1;
        }
    });
    answers
}

/// Who answers one connection from `workload` to `to`.
pub(crate) fn answer(workload: &Workload, to: SocketAddr) -> String {
    answers(workload, to, 1).into_keys().next().expect("one answer")
}

/// A socket address.
pub(crate) fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an IP address"), port)
}
