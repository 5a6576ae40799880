//! `bench scale`: one daemon with thousands of services, and what its clients notice of changes and of its death.

mod calls;
mod folder;
mod report;

use std::fs;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::daemon::{self, Daemon};
use crate::measure::Spread;
use crate::place::{Cgroup, Place};
use crate::scene::Scene;
use crate::{machine, programs, serve};
use calls::Calls;
use folder::{Folder, TOGETHER};
use report::{Load, Report, Start};

/// Connections that stay open through the storm and through the kill.
const HELD: usize = 500;
/// New connections a second meanwhile.
const RATE: u32 = 1000;
/// Files with one service each: those that the storm changes and the connections go to.
const HOT: usize = TOGETHER;
/// Changes that are timed one by one, in each kind of file.
const SINGLE: usize = 7;
/// The daemon, or anything else here, may take so long.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// ServiceEntries, each with one listener.
    #[arg(long, default_value_t = 10_000)]
    services: usize,
    /// Endpoints of all of them together.
    #[arg(long, default_value_t = 100_000)]
    endpoints: usize,
    /// How long the storm of changes lasts; 60 is what Shunt is held to.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Changes a second in the storm.
    #[arg(long, default_value_t = 1000)]
    changes: u32,
    /// Measure the daemon that carries every connection itself.
    #[arg(long)]
    steer: bool,
}

/// Everything that the parts have in common.
struct Stage<'run> {
    daemon: Daemon,
    folder: Folder,
    scene: &'run Scene,
    flags: Vec<&'static str>,
    stop: &'run AtomicBool,
}

/// Runs all parts and prints what they found.
pub(crate) fn run(options: &Options, stop: &AtomicBool) -> Result<()> {
    ensure!(options.services > TOGETHER + 1, "--services: more than {}", TOGETHER + 1);
    ensure!(options.endpoints >= options.services, "--endpoints: at least one for each service");
    ensure!(options.changes > 0 && options.seconds > 0.0, "--changes and --seconds: must be more than zero");
    let scene = Scene::new()?;
    serve_everything(&scene)?;
    let client = scene.another("scale");
    let instance = format!("{}-scale", scene.mesh.id());
    let cgroup = Cgroup::create(&format!("{instance}-client"))?;
    let folder = Folder::create(&scene.dir, options.services, options.endpoints)?;
    let (flags, pins) = flags(options)?;
    let started = Instant::now();
    let mut daemon = Daemon::start(scene.mesh.node(), &instance, &scene.dir, &flags)?;
    daemon.await_ready(PATIENCE)?;
    let start = weigh(&mut daemon, started.elapsed())?;
    daemon.enroll(&client, &cgroup)?;
    let mut stage = Stage { daemon, folder, scene: &scene, flags, stop };
    let place = Place::new(&client, Some(&cgroup));
    let report = place.enter(move || -> Result<Report> {
        stage.until_it_serves()?;
        let (small, large) = (stage.single(0)?, stage.single(TOGETHER)?);
        let storm = stage.storm(options)?;
        let kill = if pins { Some(stage.kill()?) } else { None };
        let said = stage.last_word();
        let folder = (stage.folder.len(), stage.folder.endpoints());
        Ok(Report { folder, start, small, large, storm, kill, said })
    })??;
    report.print()
}

/// The daemon's settings, and whether it leaves its tables in place when it is killed.
fn flags(options: &Options) -> Result<(Vec<&'static str>, bool)> {
    let binary = daemon::binary()?;
    let mut flags = Vec::new();
    if daemon::knows(&binary, "--datapath")? {
        flags.extend(["--datapath", if options.steer { "steer" } else { "auto" }]);
    }
    let pins = !options.steer && daemon::knows(&binary, "--pin")?;
    if pins {
        flags.push("--pin");
    }
    Ok((flags, pins))
}

/// Every endpoint that a service may have is an address of the server.
fn serve_everything(scene: &Scene) -> Result<()> {
    let range = format!("{}/10", folder::ENDPOINTS);
    scene.server.ip(&format!("route add local {range} dev lo"));
    scene.mesh.node().ip(&format!("route add {range} via {}", scene.server.v4()));
    let listener = scene.server.enter(|| serve::listen((Ipv4Addr::UNSPECIFIED, folder::PORT).into()))?;
    thread::spawn(|| serve::run(vec![listener]));
    Ok(())
}

fn weigh(daemon: &mut Daemon, ready: Duration) -> Result<Start> {
    let pid = daemon.pid()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mib = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1024.0
    };
    let tables_mib = programs::table_bytes(pid)? as f64 / f64::from(1 << 20);
    Ok(Start { seconds: ready.as_secs_f64(), rss_mib: mib("VmRSS:"), peak_mib: mib("VmHWM:"), tables_mib })
}

impl Stage<'_> {
    fn until_it_serves(&self) -> Result<()> {
        let last = Folder::vip(self.folder.len() - 1);
        self.wait("the last service answers", || calls::ask(last).is_ok()).map(drop)
    }

    /// Milliseconds from the moment a file is in place to the answer of the endpoint that is new in it.
    fn single(&mut self, service: usize) -> Result<Spread> {
        let vip = Folder::vip(service);
        let mut millis = Vec::new();
        for _ in 0..SINGLE {
            let new = self.folder.change(service)?;
            let took =
                self.wait("a changed endpoint is reached", || calls::ask(vip).is_ok_and(|by| by == new))?;
            millis.push(took.as_secs_f64() * 1e3);
            // Far enough from the next one that nobody takes the two for a burst.
            thread::sleep(Duration::from_millis(100));
        }
        Spread::of(&millis).context("at least one change")
    }

    /// Changes an endpoint of one service after the other, while connections to all of them are made.
    fn storm(&mut self, options: &Options) -> Result<Load> {
        let mut held = calls::hold(HELD, HOT)?;
        let pid = self.daemon.pid()?;
        let (cpu, rules) = (machine::process_seconds(pid)?, self.rules());
        let calls = Calls::start(RATE, HOT);
        let (started, pause) = (Instant::now(), Duration::from_secs(1) / options.changes);
        let mut changes = 0;
        while started.elapsed().as_secs_f64() < options.seconds && !self.stop.load(Ordering::Relaxed) {
            self.folder.change(changes as usize % HOT)?;
            changes += 1;
            thread::sleep((pause * changes).saturating_sub(started.elapsed()));
        }
        let seconds = started.elapsed().as_secs_f64();
        let new = self.folder.change(0)?;
        let settled =
            self.wait("the last change counts", || calls::ask(Folder::vip(0)).is_ok_and(|by| by == new))?;
        let tally = calls.finish();
        let (cpu, rules) = (machine::process_seconds(pid)? - cpu, self.rules() - rules);
        Ok(Load { seconds, changes, rules, settled, cpu, held_lost: calls::lost(&mut held), tally })
    }

    /// Kills the daemon under load, starts it again, and counts what was lost.
    fn kill(&mut self) -> Result<Load> {
        let mut held = calls::hold(HELD, HOT)?;
        let calls = Calls::start(RATE, HOT);
        let started = Instant::now();
        thread::sleep(Duration::from_secs(1));
        self.daemon.kill()?;
        thread::sleep(Duration::from_secs(3));
        self.daemon.restart(self.scene.mesh.node(), &self.flags)?;
        let begun = Instant::now();
        self.daemon.await_ready(PATIENCE)?;
        let settled = begun.elapsed();
        thread::sleep(Duration::from_secs(1));
        let (tally, seconds) = (calls.finish(), started.elapsed().as_secs_f64());
        let held_lost = calls::lost(&mut held);
        Ok(Load { seconds, changes: 0, rules: 0, settled, cpu: 0.0, held_lost, tally })
    }

    /// How often the daemon has said that there are new rules.
    fn rules(&self) -> usize {
        self.daemon.output().lines().filter(|line| line.contains("new rules")).count()
    }

    fn last_word(&self) -> String {
        let output = self.daemon.output();
        output.lines().rfind(|line| line.contains("new rules")).unwrap_or("nothing about rules").to_owned()
    }

    fn wait(&self, what: &str, done: impl Fn() -> bool) -> Result<Duration> {
        let started = Instant::now();
        while !done() {
            if self.stop.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            ensure!(
                started.elapsed() < PATIENCE,
                "waited {PATIENCE:?} in vain until {what}; the daemon said:\n{}",
                self.daemon.output()
            );
        }
        Ok(started.elapsed())
    }
}
