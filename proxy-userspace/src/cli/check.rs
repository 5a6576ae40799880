//! `shunt check`: what would be wrong, without a daemon.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use proxy_traffic::{
    Snapshot,
    istio::{self, Store},
};

use super::print;
use crate::source::{Change, Folder};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Folder of YAML files
    folder: PathBuf,
    /// Also print the listeners and clusters that the resources lead to
    #[arg(long)]
    listing: bool,
}

/// Exit code of a folder that cannot be read at all.
const UNREADABLE: u8 = 2;

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let changes = match Folder::new(args.folder.clone()).scan() {
        Ok(changes) => changes,
        Err(error) => {
            writeln!(io::stderr(), "shunt: {error}")?;
            return Ok(ExitCode::from(UNREADABLE));
        }
    };
    let (mut store, mut problems, files) = (Store::new(), Vec::new(), changes.len());
    for (file, change) in changes {
        match change {
            Change::Text(text) => {
                problems.extend(store.replace(&file, &text).iter().map(ToString::to_string))
            }
            Change::Unreadable(why) => problems.push(format!("{file}: {why}")),
            Change::Removed => {}
        }
    }
    let settings = istio::Settings::default();
    let (snapshot, compiled) = istio::compile(store.resources(), &Snapshot::default(), &settings);
    problems.extend(compiled.iter().map(ToString::to_string));
    let mut text = String::new();
    problems.iter().try_for_each(|problem| writeln!(text, "{problem}"))?;
    if args.listing {
        write!(text, "{snapshot}")?;
    }
    writeln!(text, "{files} files, {} problems", problems.len())?;
    print(&text)?;
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
