//! Egress: what leaves, what does not, and what is said of it. This file has the scene; the stories are below it.

mod dns;
mod entries;
mod forged;
mod hostile;
mod killed;
mod policies;
mod seed;
mod segments;
mod telemetry;
mod wayout;

use std::net::IpAddr;

use tests::client::{Dial, connect};
use tests::daemon::Daemon;
use tests::internet::{Curled, ECHO, Internet};
use tests::mesh::{Mesh, Workload};
use tests::server::{self, Server};
use tests::setup::Setup;
use tests::{wait, yaml};

use crate::scene::{VIP4, at};

/// Hosts that exist in every story.
pub(crate) const GOOGLE: (&str, &str) = ("www.google.com", "203.0.113.10");
pub(crate) const CNN: (&str, &str) = ("edition.cnn.com", "203.0.113.11");
pub(crate) const HTTPBIN: (&str, &str) = ("httpbin.org", "203.0.113.20");

/// A mesh with one enrolled client and the Service `tcp-echo`, the internet beside it, and the daemon.
pub(crate) struct Outlook {
    pub(crate) daemon: Daemon,
    /// Enrolled in the namespace `default`, labelled `app: web`.
    pub(crate) client: Workload,
    pub(crate) internet: Internet,
    _tcp_echo: Server,
    pub(crate) mesh: Mesh,
}

impl Outlook {
    /// With this `outboundTrafficPolicy.mode`.
    pub(crate) fn new(name: &str, mode: &str) -> Self {
        Self::with_args(name, mode, "")
    }

    /// The same, and the daemon gets `args`.
    pub(crate) fn with_args(name: &str, mode: &str, args: &str) -> Self {
        let mesh = Mesh::new(name);
        let client = mesh.workload("client");
        let internet = Internet::new(&mesh);
        for (name, address) in [GOOGLE, CNN, HTTPBIN] {
            internet.host(&mesh, name, &[address]);
        }
        let tcp_echo = server::tcp_echo(&mesh.workload("one"), 9000, "one");
        let service = yaml::service("tcp-echo", &[VIP4], 9000)
            + &yaml::workload_entry("tcp-echo", "v1", tcp_echo.address());
        let setup = Setup::new(&mesh).args("--resolver 203.0.113.53").args(args);
        let setup = setup.file("services.yaml", &service).file("mesh.yaml", &yaml::mesh_config(mode, ""));
        let mut daemon = setup.start();
        daemon.enroll(&client, "--label app=web");
        Self { daemon, client, internet, _tcp_echo: tcp_echo, mesh }
    }

    /// Changes `outboundTrafficPolicy.mode`, live.
    #[track_caller]
    pub(crate) fn mode(&self, mode: &str) {
        self.daemon.apply("mesh.yaml", &yaml::mesh_config(mode, ""));
    }

    /// `curl WORDS` in the client.
    #[track_caller]
    pub(crate) fn curl(&self, words: &str) -> Curled {
        self.internet.curl(&self.client, words)
    }

    /// Asserts how `curl WORDS` ends: its exit status and the HTTP status.
    #[track_caller]
    pub(crate) fn must_curl(&self, words: &str, exit: i32, status: u16) -> Curled {
        let curled = self.curl(words);
        assert_eq!((curled.exit, curled.status), (exit, status), "curl {words}: {curled:?}");
        curled
    }

    /// Waits until `curl WORDS` gets 200: names must have been looked up before.
    #[track_caller]
    pub(crate) fn await_curl(&self, words: &str) {
        wait::until(&format!("curl {words} works"), || self.curl(words).status == 200);
    }

    /// Asserts that the echo at `address` of the internet answers.
    #[track_caller]
    pub(crate) fn must_echo(&self, address: &str) {
        connect(&self.client, at(address, ECHO)).must_echo("hello", &format!("{address} hello"));
    }

    /// Asserts that a connection to `address` is accepted and closed.
    #[track_caller]
    pub(crate) fn must_be_closed(&self, address: &str, port: u16) {
        connect(&self.client, at(address, port)).must_be_closed();
    }

    /// Asserts that the Service of the mesh answers.
    #[track_caller]
    pub(crate) fn the_mesh_works(&self) {
        connect(&self.client, at(VIP4, 9000)).must_echo("hello", "one hello");
    }

    /// What somebody gets who connects to `name` and says `hello`, by the system's own resolver.
    #[track_caller]
    pub(crate) fn echo_by_name(&self, name: &str, port: u16) -> String {
        let script = format!("echo hello | busybox nc {name} {port}");
        self.sh(&self.internet.resolv_conf(), &script)
    }

    /// What a shell in the client prints, whose /etc/resolv.conf is `text`.
    #[track_caller]
    pub(crate) fn sh(&self, text: &str, script: &str) -> String {
        let mut command = self.internet.with_names(text, "sh");
        let output = self.client.output(command.args(["-c", script])).expect("start sh");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

/// What the internet answers to a connection to `address`, if it is let through.
pub(crate) fn reaches(client: &Workload, address: IpAddr) -> bool {
    let reached = || -> std::io::Result<bool> {
        let mut connection = Dial::to((address, ECHO).into()).try_connect(client)?;
        std::io::Write::write_all(&mut connection.stream, b"hello\n")?;
        Ok(connection.try_line()? == format!("{address} hello"))
    };
    reached().unwrap_or(false)
}
