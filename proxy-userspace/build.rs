//! Compiles the kernel programs, which `kernel` embeds.

use std::{env, error::Error, fs, path::PathBuf};

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

fn main() -> Result<(), Box<dyn Error>> {
    let workspace = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..").canonicalize()?;
    for input in ["proxy-ebpf/src", "proxy-ebpf/Cargo.toml", "proxy-ebpf/Cargo.lock", "proxy-common/src"] {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }
    println!("cargo::rerun-if-changed={}", workspace.join("xtask/src/toolchain.rs").display());

    let out = PathBuf::from(env::var("OUT_DIR")?);
    // TARGET_DIR/PROFILE/build/PACKAGE-HASH/out: all profiles and checks share one build of the programs.
    let target_dir = out.ancestors().nth(4).ok_or("OUT_DIR is not where cargo puts it")?.join("bpf");
    let manifest = workspace.join("proxy-ebpf/Cargo.toml");
    let mut build = toolchain::find(&workspace)?.cargo("build", &manifest, &target_dir);
    if !build.status()?.success() {
        return Err(format!("the kernel programs did not compile: {build:?}").into());
    }
    for program in ["capture", "deliver", "guard"] {
        // Copying over a file would write through a hard link to it, into another build.
        drop(fs::remove_file(out.join(program)));
        fs::copy(target_dir.join(toolchain::TARGET).join("release").join(program), out.join(program))?;
    }
    Ok(())
}
