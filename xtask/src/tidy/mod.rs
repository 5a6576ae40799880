//! `cargo xtask tidy`: the project's own rules, on every file of the working tree. Also a test.
//!
//! Each rule is a pure function from a text to its faults; this file only walks the tree and reads.

use crate::{done, system};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

mod code;
mod fields;
mod shape;
mod walls;

/// What is wrong at which line, counted from 1.
type Fault = (usize, String);

/// One Rust file as the rules see it.
struct Source {
    /// Below the workspace.
    path: String,
    text: String,
    /// The text with comments and strings blanked, line by line the same.
    code: String,
}

pub(crate) fn main() -> Result<ExitCode> {
    check()?;
    println!("tidy: no fault");
    done()
}

/// # Errors
/// Every fault, one a line, with file and line.
pub(crate) fn check() -> Result<()> {
    let root = system::workspace();
    let mut sources = Vec::new();
    for file in rust_files(&root)? {
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let path = file.strip_prefix(&root)?.to_string_lossy().into_owned();
        sources.push(Source { path, code: code::only(&text), text });
    }
    let readme = fs::read_to_string(root.join("README.md")).unwrap_or_default();
    let faults = faults(&sources, &readme);
    if !faults.is_empty() {
        bail!("the project's rules are broken:\n{}", faults.join("\n"));
    }
    Ok(())
}

fn faults(sources: &[Source], readme: &str) -> Vec<String> {
    let mut all = Vec::new();
    for source in sources {
        let found = [shape::faults(source), walls::faults(source)].concat();
        all.extend(found.into_iter().map(|(line, what)| format!("{}:{line}: {what}", source.path)));
    }
    let readme =
        fields::faults(readme, |test| sources.iter().any(|source| code::has_function(&source.code, test)));
    all.extend(readme.into_iter().map(|(line, what)| format!("README.md:{line}: {what}")));
    all
}

/// All of them but what is built or hidden, in order.
fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if entry.file_type()?.is_dir() {
            if name != "target" && !name.starts_with('.') {
                found.extend(rust_files(&path)?);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_working_tree_is_tidy() {
        check().unwrap_or_else(|faults| panic!("{faults}"));
    }

    #[test]
    fn a_fault_names_file_and_line() {
        let text = "//! Fine.\nuse tokio::net;\n".to_owned();
        let source = Source { path: "proxy-traffic/src/a.rs".into(), code: code::only(&text), text };
        let found = faults(&[source], "| field | test |\n|---|---|\n");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("proxy-traffic/src/a.rs:2: "), "{found:?}");
    }
}
