//! `shunt routes` and `shunt status`.

use std::{fmt::Display, process::ExitCode};

use hyper::Method;
use serde::de::DeserializeOwned;

use super::{RunDir, print};
use crate::admin::{Routes, Status, client};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    run_dir: RunDir,
    /// `text` for people, `json` for programs
    #[arg(short, long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

pub(super) fn routes(args: &Args) -> anyhow::Result<ExitCode> {
    show::<Routes>(args, "/routes")
}

pub(super) fn status(args: &Args) -> anyhow::Result<ExitCode> {
    show::<Status>(args, "/status")
}

fn show<View: DeserializeOwned + Display>(args: &Args, path: &str) -> anyhow::Result<ExitCode> {
    let json = client::ask(&args.run_dir.admin_socket(), Method::GET, path, Vec::new())?;
    if args.output == "json" {
        return print(&json);
    }
    let view: View = serde_json::from_str(&json)?;
    print(&view.to_string())
}
