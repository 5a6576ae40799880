//! What `run` starts must not outlive it, even when it is killed without a chance to clean up.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

#[test]
fn a_tied_child_ends_with_its_killed_parent() {
    let script = format!("{XTASK} tied $$ -- sleep 300 & echo $!; wait");
    let mut parent = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let name = || fs::read_to_string(format!("/proc/{}/comm", line.trim())).unwrap_or_default();
    wait_until(|| name() == "sleep\n");
    parent.kill().unwrap();
    parent.wait().unwrap();
    wait_until(|| !is_alive(line.trim()));
}

#[test]
fn a_child_whose_parent_has_gone_does_not_start() {
    let output = Command::new(XTASK).args(["tied", "1", "--", "echo", "started"]).output().unwrap();
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
}

#[test]
fn a_tied_command_keeps_its_exit_code() {
    let own = std::process::id().to_string();
    let status = Command::new(XTASK).args(["tied", &own, "--", "sh", "-c", "exit 7"]).status().unwrap();
    assert_eq!(status.code(), Some(7));
}

/// A zombie that nobody has waited for yet is as good as gone.
fn is_alive(pid: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

#[track_caller]
fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "did not happen in 10 s");
        thread::sleep(Duration::from_millis(5));
    }
}
