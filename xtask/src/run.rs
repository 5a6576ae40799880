//! `cargo xtask run`: the tcp-echo example with two versions of its server, or one command inside that mesh.

use crate::{
    build,
    children::{self, Signals},
    setup, system, tcp_echo,
};
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::{
    ffi::OsString,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    time::{Duration, Instant},
};

const RUN_DIR: &str = "/run/shunt";
const EXAMPLE: &str = "config/examples/tcp-echo";
const GATEWAY: &str = "127.0.0.1:31400";
const METRICS: &str = "127.0.0.1:15000";
const START_LIMIT: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A command to run inside the mesh; without one the example runs until Ctrl-C
    #[arg(last = true)]
    command: Vec<OsString>,
}

pub(crate) fn main(arguments: &Arguments) -> Result<ExitCode> {
    if !system::is_root() {
        bail!("Shunt loads kernel programs and joins network namespaces: run it as root");
    }
    setup::ensure(setup::Purpose::Work)?;
    build::release()?;
    let answered = UnixStream::connect(Path::new(RUN_DIR).join("admin.sock")).is_ok();
    match (arguments.command.is_empty(), answered) {
        (true, true) => bail!(
            "a daemon runs already in {RUN_DIR}: use it with `cargo xtask run -- CMD`, or stop it first"
        ),
        (true, false) => example(),
        (false, true) => Err(inside(Command::new(system::shunt()), &arguments.command).exec().into()),
        (false, false) => one_command(&arguments.command),
    }
}

/// Runs until a signal, then drains.
fn example() -> Result<ExitCode> {
    let signals = Signals::catch()?;
    let mut daemon = start(None)?;
    if ready(&mut daemon, &signals)? {
        print!("{}", what_to_try());
        std::io::stdout().flush()?;
        while daemon.try_wait()?.is_none() && signals.wait(None)?.is_none() {}
    }
    Ok(children::exit_code(stop(&mut daemon, &signals)?))
}

/// Everything quietly around one command, whose status is ours.
fn one_command(command: &[OsString]) -> Result<ExitCode> {
    let signals = Signals::catch()?;
    let log = system::target().join("run.log");
    let mut daemon = start(Some(&log))?;
    let log_hint = || format!("nothing was run; the daemon's log is in {}", log.display());
    if !ready(&mut daemon, &signals).with_context(log_hint)? {
        return Ok(children::exit_code(stop(&mut daemon, &signals)?));
    }
    let child = inside(children::tied(system::shunt())?, command).spawn();
    let outcome = child.map_err(Into::into).and_then(|mut child| wait(&mut child, &signals));
    let stopped = stop(&mut daemon, &signals)?;
    if !stopped.success() {
        eprintln!("the daemon did not end well ({stopped}); its log is in {}", log.display());
    }
    Ok(children::exit_code(outcome?))
}

fn inside(mut shunt: Command, command: &[OsString]) -> Command {
    shunt.args(["exec", "--run-dir", RUN_DIR, "--"]).args(command);
    shunt
}

/// The servers and the daemon. The daemon has a process group of its own: Ctrl-C reaches it through us, once.
fn start(log: Option<&Path>) -> Result<Child> {
    for address in [GATEWAY, METRICS] {
        TcpListener::bind(address).with_context(|| format!("the example needs {address}"))?;
    }
    for (version, address) in [("one", [127, 0, 0, 11]), ("two", [127, 0, 0, 12])] {
        tcp_echo::start(&[9000, 9001].map(|port| SocketAddr::from((address, port))), version)?;
    }
    let mut daemon = children::tied(system::shunt())?;
    daemon.args(["run", "--config"]).arg(example_folder());
    daemon.args(["--gateway-address", "127.0.0.1", "--run-dir", RUN_DIR]);
    if let Some(log) = log {
        fs::create_dir_all(system::target())?;
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        daemon.stdout(file.try_clone()?).stderr(file);
    }
    daemon.process_group(0).stdin(Stdio::null()).spawn().context("cannot start the daemon")
}

fn example_folder() -> PathBuf {
    system::workspace().join(EXAMPLE)
}

/// Waits until the daemon serves; false when a signal came first.
fn ready(daemon: &mut Child, signals: &Signals) -> Result<bool> {
    let begun = Instant::now();
    while !healthy() {
        if signals.wait(Some(Duration::from_millis(20)))?.is_some() {
            return Ok(false);
        }
        if let Some(status) = daemon.try_wait()? {
            bail!("the daemon ended before it was ready ({status})");
        }
        if begun.elapsed() > START_LIMIT {
            stop(daemon, signals)?;
            bail!("the daemon was not ready within {} s", START_LIMIT.as_secs());
        }
    }
    Ok(true)
}

fn healthy() -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(METRICS)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(format!("GET /healthz/ready HTTP/1.1\r\nHost: {METRICS}\r\n\r\n").as_bytes())?;
        let mut status = String::new();
        BufReader::new(stream).read_line(&mut status)?;
        Ok(status)
    };
    ask().is_ok_and(|status| status.contains(" 200"))
}

/// Until the command ends. Ctrl-C in the terminal has reached it already, being of our process group; what others
/// send to us alone is passed on.
fn wait(command: &mut Child, signals: &Signals) -> Result<ExitStatus> {
    loop {
        if let Some(status) = command.try_wait()? {
            return Ok(status);
        }
        if let Some(signal) = signals.wait(None)?.filter(|signal| *signal != Signal::SIGINT) {
            children::send(command, signal)?;
        }
    }
}

/// Asks the daemon to drain and waits for it; a second signal to us ends it at once.
fn stop(daemon: &mut Child, signals: &Signals) -> Result<ExitStatus> {
    if daemon.try_wait()?.is_none() {
        children::send(daemon, Signal::SIGTERM)?;
    }
    loop {
        if let Some(status) = daemon.try_wait()? {
            return Ok(status);
        }
        if signals.wait(None)?.is_some() {
            daemon.kill()?;
        }
    }
}

fn what_to_try() -> String {
    format!(
        "
Shunt runs with {EXAMPLE}: tcp-echo answers as \"one\" (v1) or \"two\" (v2). In another terminal try
  (date; sleep 1) | nc -N {}                      through the gateway
  (date; sleep 1) | cargo xtask run -- nc -N tcp-echo 9000     from inside the mesh
Then change the weights in {EXAMPLE}/routing.yaml: the next connection follows. Ctrl-C drains and ends.

",
        GATEWAY.replace(':', " "),
    )
}
