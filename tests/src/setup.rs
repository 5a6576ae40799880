//! How the daemon under test is started: its folders, its arguments, its binary.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::daemon::Daemon;
use crate::mesh::{Mesh, Workload};

/// Words before a command that must end by itself: when it does not, the story fails instead of hanging.
pub const LIMIT: [&str; 2] = ["timeout", "30"];

/// What the daemon is started with.
#[derive(Debug)]
pub struct Setup {
    pub(crate) node: Workload,
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    args: Vec<String>,
    open_files: Option<u32>,
}

impl Setup {
    /// A daemon for the node of `mesh`, with folders of its own and no resources yet.
    pub fn new(mesh: &Mesh) -> Self {
        let dir = std::env::temp_dir().join(mesh.id());
        fs::create_dir_all(dir.join("config")).expect("a folder for the daemon");
        Self { node: mesh.node().clone(), id: mesh.id().to_owned(), dir, args: Vec::new(), open_files: None }
    }

    /// Adds arguments to `shunt run`, separated by spaces.
    pub fn args(mut self, args: &str) -> Self {
        self.args.extend(args.split_whitespace().map(str::to_owned));
        self
    }

    /// Adds a file of resources.
    pub fn file(self, name: &str, text: &str) -> Self {
        fs::write(self.dir.join("config").join(name), text).expect("write resources");
        self
    }

    /// Takes a file of resources away again.
    pub fn without(self, name: &str) -> Self {
        fs::remove_file(self.dir.join("config").join(name)).expect("the file is there");
        self
    }

    /// Lets the daemon have only so many open files.
    pub fn open_files(mut self, limit: u32) -> Self {
        self.open_files = Some(limit);
        self
    }

    /// Starts the daemon and waits until it is ready.
    pub fn start(self) -> Daemon {
        Daemon::start(self)
    }

    /// The daemon's folder; below it are `config`, `run`, `state`, `access.json` and `stderr`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `shunt run` with all its arguments, after `prefix`: a program that execs it, or nothing.
    pub fn command(&self, prefix: &[&str]) -> Command {
        let (run, state, config) = (self.dir.join("run"), self.dir.join("state"), self.dir.join("config"));
        let mut words: Vec<_> = prefix.iter().map(PathBuf::from).collect();
        words.push(binary());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("run").arg("--run-dir").arg(run).arg("--state-dir").arg(state);
        command.arg("--config").arg(config).args(["--instance", &self.id, "--access-log", "json"]);
        command.arg("--access-log-file").arg(self.dir.join("access.json")).args(&self.args);
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn spawn(&self) -> Child {
        let stderr = fs::File::create(self.dir.join("stderr")).expect("a file for the log");
        let limit = self.open_files.map(|limit| format!("--nofile={limit}:{limit}"));
        let prefix: Vec<_> = limit.iter().flat_map(|limit| ["prlimit", limit.as_str()]).collect();
        let mut command = self.command(&prefix);
        self.node.spawn(command.stdout(Stdio::null()).stderr(stderr)).expect("start shunt run")
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// `program`, under [`LIMIT`].
pub fn limited(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(LIMIT[0]);
    command.args(&LIMIT[1..]).arg(program);
    command
}

/// The program under test: `SHUNT_BIN`, else the newest kind of build that is there.
pub fn binary() -> PathBuf {
    if let Some(named) = std::env::var_os("SHUNT_BIN") {
        return named.into();
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| here.join("../target"), PathBuf::from);
    let builds = ["release/shunt", "debug/shunt"].map(|build| target.join(build));
    let found = builds.into_iter().find(|build| build.exists());
    found.expect("no shunt binary: run `cargo build --release -p proxy-userspace`, or set SHUNT_BIN")
}
