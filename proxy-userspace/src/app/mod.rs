//! The one place that knows every room: what starts before what, and what ends after what.
//!
//! Start: fitness of the machine → run folder → cgroups → workers → kernel programs → rules → workloads → doors.
//! End, in reverse: nothing new is captured, open connections finish, then rules, programs and cgroups go.

mod answers;
mod cgroups;
mod connects;
mod control;
mod dial;
mod direct;
mod dns;
mod egress;
mod gateways;
mod inbox;
mod names;
mod resources;
mod routes;
mod run_dir;
mod start;
mod status;
mod workloads;

use anyhow::Context as _;
use cgroups::Cgroups;
use control::Control;
use inbox::Signals;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use run_dir::RunDir;

use crate::{kernel, settings::Settings};

/// Runs the daemon until it is told to end.
///
/// # Errors
/// When it cannot start; the message says what to do. Nothing is left behind then.
pub fn run(settings: Settings) -> anyhow::Result<()> {
    kernel::preflight(&kernel::Facts::gather())?;
    let _run_dir = RunDir::take(&settings.run_dir)?;
    raise_descriptor_limit().context("cannot raise the limit of open files")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let signals = Signals::catch().context("cannot catch signals")?;
        let cgroups = Cgroups::make(&settings.instance)?;
        let mut control = Control::new(settings, &cgroups)?;
        let outcome = serve(&mut control, &cgroups, signals).await;
        let closed = control.close();
        outcome.and(closed)
    })
}

async fn serve(control: &mut Control, cgroups: &Cgroups, signals: Signals) -> anyhow::Result<()> {
    let mut inbox = control.open(cgroups, signals)?;
    control.turn(&mut inbox).await;
    control.drain(&mut inbox).await
}

/// A connection takes two descriptors: allow as many as the machine lets us.
fn raise_descriptor_limit() -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
}
