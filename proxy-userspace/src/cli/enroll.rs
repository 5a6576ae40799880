//! `shunt enroll` and `shunt unenroll`.

use std::{
    path::{PathBuf, absolute},
    process::ExitCode,
};

use hyper::Method;

use super::{RunDir, print};
use crate::{
    admin::{Enrolment, client},
    settings::key_value,
};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The network namespace: /run/netns/NAME, or /proc/PID/ns/net of a process that stays
    #[arg(long, value_name = "PATH")]
    netns: PathBuf,
    /// Name of the workload, unique on this node
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Its Kubernetes namespace
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,
    /// A label, as sourceLabels match it; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    labels: Vec<(String, String)>,
    /// Only the processes of this cgroup v2 folder and below
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,
    #[command(flatten)]
    run_dir: RunDir,
}

#[derive(clap::Args)]
pub(super) struct Name {
    /// Name of the workload
    name: String,
    #[command(flatten)]
    run_dir: RunDir,
}

pub(super) fn enroll(args: Args) -> anyhow::Result<ExitCode> {
    let own = ["/proc/self", "/proc/thread-self"].iter().any(|own| args.netns.starts_with(own));
    anyhow::ensure!(
        !own,
        "--netns {} ends with this command; name a file that stays, /run/netns/NAME or /proc/PID/ns/net",
        args.netns.display()
    );
    let enrolment = Enrolment {
        name: args.name,
        namespace: args.namespace,
        labels: args.labels.into_iter().collect(),
        // The daemon may stand in another folder.
        netns: absolute(args.netns)?,
        cgroup: args.cgroup.map(absolute).transpose()?,
    };
    let body = serde_json::to_vec(&enrolment)?;
    print(&client::ask(&args.run_dir.admin_socket(), Method::POST, "/workloads", body)?)
}

pub(super) fn unenroll(args: &Name) -> anyhow::Result<ExitCode> {
    // In a path they may mean something else, and no workload is called so.
    let odd = |byte: u8| !byte.is_ascii_alphanumeric() && !b"-_.".contains(&byte);
    anyhow::ensure!(
        !args.name.bytes().any(odd),
        "there is no workload {:?}; `shunt status` lists them",
        args.name
    );
    let path = format!("/workloads/{}", args.name);
    print(&client::ask(&args.run_dir.admin_socket(), Method::DELETE, &path, Vec::new())?)
}
