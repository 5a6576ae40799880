//! Finds what builds for `bpfel-unknown-none`: a compiler with the source of its own library, and bpf-linker.
//!
//! The build script of proxy-userspace includes this file too, so it uses `std` alone. Installing is left to
//! `cargo xtask setup`.

#![allow(dead_code, reason = "two programs include this file, and each uses its part")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What the kernel programs are compiled for.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// Variables by which an outer cargo, or clippy, would talk into the build; those with a prefix are below.
const LEAKS: [&str; 14] = [
    "CARGO",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_INCREMENTAL",
    "CARGO_MAKEFLAGS",
    "CARGO_TARGET_DIR",
    "CLIPPY_ARGS",
    "LD_LIBRARY_PATH",
    "MAKEFLAGS",
    "RUSTC",
    "RUSTC_LINKER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

const LEAKING_PREFIXES: [&str; 6] =
    ["CARGO_BUILD_", "CARGO_CFG_", "CARGO_FEATURE_", "CARGO_PKG_", "CARGO_PROFILE_", "CARGO_TARGET_"];

/// A compiler, its cargo and a linker that fit together.
#[derive(Debug)]
pub(crate) struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    linker: PathBuf,
    /// A stable compiler needs to be told that it may build its library.
    bootstrap: bool,
}

/// Finds a toolchain. `workspace` is the folder of the outermost Cargo.toml.
///
/// # Errors
/// What is missing, in words that end in the command that installs it.
pub(crate) fn find(workspace: &Path) -> Result<Toolchain, String> {
    let linker = linker(workspace).ok_or(
        "bpf-linker is neither in PATH, in cargo's bin folder nor in target/tools/bin: run `cargo xtask setup`",
    )?;
    let (bin, bootstrap) = rustup_nightly()
        .map(|bin| (bin, false))
        .or_else(|| has_library_source(Path::new("/usr/bin/rustc")).then(|| ("/usr/bin".into(), true)))
        .filter(|(bin, _)| bin.join("cargo").is_file())
        .ok_or(
            "no compiler with the source of its library was found (a rustup nightly with rust-src, or \
             Debian's rustc-web, cargo-web and rust-web-src): run `cargo xtask setup`",
        )?;
    Ok(Toolchain { cargo: bin.join("cargo"), rustc: bin.join("rustc"), linker, bootstrap })
}

impl Toolchain {
    /// `cargo ACTION` for the kernel programs, in release profile, shielded from the cargo that runs us.
    /// Artifacts land in `target_dir/bpfel-unknown-none/release`.
    pub(crate) fn cargo(&self, action: &str, manifest: &Path, target_dir: &Path) -> Command {
        let mut command = Command::new(&self.cargo);
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if LEAKS.contains(&&*text) || LEAKING_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        let flags = ["-Cdebuginfo=2", "-Clink-arg=--btf", &format!("-Clinker={}", self.linker.display())];
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f")).env("RUSTC", &self.rustc);
        if self.bootstrap {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        command.args([action, "--release", "--locked", "-Zbuild-std=core", "--target", TARGET]);
        command.arg("--manifest-path").arg(manifest).arg("--target-dir").arg(target_dir);
        command
    }
}

/// bpf-linker, in the places where it is installed.
fn linker(workspace: &Path) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(cargo_bins()).chain([workspace.join("target/tools/bin")]);
    folders.map(|folder| folder.join("bpf-linker")).find(|file| file.is_file())
}

/// Where `cargo install` puts programs.
fn cargo_bins() -> impl Iterator<Item = PathBuf> {
    let own = env::var_os("CARGO_HOME").map(|home| Path::new(&home).join("bin"));
    let usual = env::var_os("HOME").map(|home| Path::new(&home).join(".cargo/bin"));
    own.into_iter().chain(usual)
}

/// The bin folder of a rustup nightly with the rust-src component; the newest name first, `nightly` before dates.
fn rustup_nightly() -> Option<PathBuf> {
    let home = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".rustup")))?;
    let entries = fs::read_dir(home.join("toolchains")).ok()?.flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.starts_with("nightly"));
    names.sort_by_key(|name| (name.starts_with("nightly-2"), std::cmp::Reverse(name.clone())));
    let bins = names.iter().map(|name| home.join("toolchains").join(name).join("bin"));
    bins.into_iter().find(|bin| has_library_source(&bin.join("rustc")))
}

/// Whether the compiler's own library can be built.
fn has_library_source(rustc: &Path) -> bool {
    let sysroot = Command::new(rustc).env_remove("RUSTUP_TOOLCHAIN").args(["--print", "sysroot"]).output();
    sysroot.is_ok_and(|output| {
        let sysroot = String::from_utf8_lossy(&output.stdout);
        Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
    })
}
