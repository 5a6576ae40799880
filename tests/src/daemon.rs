//! The daemon under test: `shunt run` in the node of a mesh, and the `shunt` commands that talk to it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output};

use nix::mount::umount;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::mesh::Workload;
use crate::metrics::Metrics;
use crate::setup::{LIMIT, Setup, binary, limited};
use crate::sweep::{cgroup2, remove_cgroup};
use crate::wait;

/// A running daemon; whatever becomes of the story, it ends when this is dropped and leaves nothing.
#[derive(Debug)]
pub struct Daemon {
    setup: Setup,
    child: Child,
    enrolled: Vec<Workload>,
}

impl Daemon {
    /// Starts the daemon and waits until it is ready.
    pub(crate) fn start(setup: Setup) -> Self {
        let child = setup.spawn();
        let mut daemon = Self { setup, child, enrolled: Vec::new() };
        daemon.await_ready();
        daemon
    }

    /// Writes a file of resources in place, as an editor would.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.config(name), text).expect("write resources");
    }

    /// Writes a file of resources and waits until its rules are in force. The text must change something.
    #[track_caller]
    pub fn apply(&self, name: &str, text: &str) {
        let generation = || self.metrics().sum("shunt_snapshot_generation", &[]);
        let before = generation();
        self.write(name, text);
        wait::until(&format!("{name} is in force"), || generation() > before);
    }

    /// Where the file `name` of resources is.
    pub fn config(&self, name: &str) -> PathBuf {
        self.setup.dir.join("config").join(name)
    }

    /// Its folder for the socket and the lock.
    pub fn run_dir(&self) -> PathBuf {
        self.setup.dir.join("run")
    }

    /// `shunt run` with the very same arguments, for a story that tries to start it twice; see [`LIMIT`].
    pub fn command(&self) -> Command {
        self.setup.command(&LIMIT)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs a `shunt` command against this daemon to its end: `cli("status -o json")`.
    pub fn cli(&self, words: &str) -> Output {
        let (verb, rest) = words.split_once(' ').unwrap_or((words, ""));
        let mut command = limited(binary());
        command.arg(verb).arg("--run-dir").arg(self.run_dir()).args(rest.split_whitespace());
        command.output().expect("start shunt")
    }

    /// Like [`Self::cli`], and returns what it printed; fails when the command does.
    #[track_caller]
    pub fn must(&self, words: &str) -> String {
        let output = self.cli(words);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "shunt {words}: {complaint}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Enrols `workload` under its own name; `more` is further arguments, such as `--label app=web`.
    #[track_caller]
    pub fn enroll(&mut self, workload: &Workload, more: &str) {
        let netns = workload.path();
        self.must(&format!("enroll --netns {} --name {} {more}", netns.display(), workload.name()));
        self.enrolled.push(workload.clone());
    }

    /// `shunt exec -- sh -c SCRIPT`, which gives up after a while; returns what it printed, without the last newline.
    #[track_caller]
    pub fn exec(&self, script: &str) -> String {
        let mut command = limited(binary());
        command.arg("exec").arg("--run-dir").arg(self.run_dir());
        let output = command.args(["--", "sh", "-c", script]).output().expect("start shunt");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "shunt exec {script}: {}, {out}{err}", output.status);
        out.trim_end().to_owned()
    }

    /// The access log so far.
    pub fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.setup.dir.join("access.json")).unwrap_or_default();
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for an access-log line that has all of `fields` and returns it: `must_log(&[("cause", "client_fin")])`.
    #[track_caller]
    pub fn must_log(&self, fields: &[(&str, &str)]) -> Value {
        let fits = |line: &Value| fields.iter().all(|(key, value)| field(line, key) == *value);
        wait::find(&format!("a connection is logged with {fields:?}"), || self.log().into_iter().find(fits))
    }

    /// What the daemon wrote to its standard error since it was last started.
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.setup.dir.join("stderr")).unwrap_or_default()
    }

    /// Waits until the daemon's standard error contains `words`.
    #[track_caller]
    pub fn must_say(&self, words: &str) {
        wait::until(&format!("the daemon says {words:?}"), || self.stderr().contains(words));
    }

    /// Asks the TCP door for `path`: status code and body.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: shunt\r\nconnection: close\r\n\r\n");
        let answer = self.setup.node.enter(|| {
            let mut door = TcpStream::connect("127.0.0.1:15000").expect("the TCP door is open");
            door.set_read_timeout(Some(wait::PATIENCE)).expect("a deadline");
            door.write_all(request.as_bytes()).expect("ask");
            let mut answer = String::new();
            door.read_to_string(&mut answer).expect("an answer");
            answer
        });
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("a status"), body.to_owned())
    }

    /// One scrape of `/metrics`.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        let (status, body) = self.get("/metrics");
        assert_eq!(status, 200);
        Metrics::parse(body)
    }

    /// Waits until no connection is open any more and every opened one was closed; returns that scrape.
    #[track_caller]
    pub fn must_settle(&self) -> Metrics {
        wait::find("no connection is open", || {
            let metrics = self.metrics();
            let opened = metrics.sum("istio_tcp_connections_opened_total", &[]);
            let closed = metrics.sum("istio_tcp_connections_closed_total", &[]);
            let open = ["shunt_connections_open", "shunt_direct_connections_open"];
            let open: u64 = open.iter().map(|gauge| metrics.sum(gauge, &[])).sum();
            (open == 0 && opened == closed).then_some(metrics)
        })
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Waits until the process has ended, and asserts that it ended well and left nothing behind.
    #[track_caller]
    pub fn must_end_clean(&mut self) {
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "{status}");
        let mut places = std::mem::take(&mut self.enrolled);
        places.push(self.setup.node.clone());
        for place in places {
            let show = "rule list\nroute list table all";
            let found = place.ip(show) + &place.ip6(show);
            let left: Vec<_> = found.lines().filter(|line| line.contains("21332")).collect();
            assert!(left.is_empty(), "left behind in {}: {left:?}", place.name());
        }
        for left in [self.cgroup(), self.pins()] {
            assert!(!left.exists(), "left behind: {}", left.display());
        }
    }

    /// SIGTERM, and asserts a clean end.
    #[track_caller]
    pub fn stop(&mut self) {
        self.terminate();
        self.must_end_clean();
    }

    /// Kills the daemon without a chance to clean up.
    pub fn kill9(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    /// Starts the daemon again after it has ended, with the same folders and arguments.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.child = self.setup.spawn();
        self.await_ready();
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("the daemon runs");
    }

    #[track_caller]
    fn wait(&mut self) -> ExitStatus {
        wait::find("the daemon ends", || self.child.try_wait().expect("our child"))
    }

    #[track_caller]
    fn await_ready(&mut self) {
        wait::until("the daemon is ready", || {
            let ended = self.child.try_wait().expect("our child");
            assert!(
                ended.is_none(),
                "shunt run ended with {}:\n{}",
                ended.unwrap_or_default(),
                self.stderr()
            );
            self.stderr().lines().any(|line| line.split_whitespace().any(|word| word == "ready"))
        });
    }

    fn cgroup(&self) -> PathBuf {
        cgroup2().join(&self.setup.id)
    }

    fn pins(&self) -> PathBuf {
        self.run_dir().join("pins")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Killing what has ended already is no error that matters here, nor is removing what is not there.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.stderr());
            self.log().iter().rev().take(5).for_each(|line| eprintln!("logged: {line}"));
        }
        let _ = umount(&self.pins());
        remove_cgroup(&self.cgroup());
    }
}

/// A field of an access-log line as text, whatever its JSON type.
pub fn field(line: &Value, key: &str) -> String {
    match line.get(key) {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
