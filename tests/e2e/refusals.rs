//! Where Shunt cannot run it says so in one sentence and ends with an error.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use tests::mesh::Mesh;
use tests::setup::{LIMIT, Setup, binary, limited};
use tests::sweep::cgroup2;

/// One clear sentence on standard error, nothing else, and a failure.
#[track_caller]
fn must_refuse(output: &Output, word: &str) {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it should not start: {complaint}");
    assert!(complaint.contains(word), "{word:?} in {complaint:?}");
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
}

#[test]
fn without_root() {
    let mesh = Mesh::new("nobody");
    let setup = Setup::new(&mesh);
    // Wherever it was built, nobody may run this copy.
    let copy = setup.dir().join("shunt");
    fs::copy(binary(), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = limited("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy);
    command.arg("run").arg("--config").arg(setup.dir().join("config"));
    must_refuse(&mesh.node().output(&mut command).unwrap(), "root");
}

#[test]
fn without_cgroup_v2() {
    let mesh = Mesh::new("nocgroup");
    let unmount = format!("umount -l {} && exec \"$@\"", cgroup2().display());
    let prefix =
        [LIMIT[0], LIMIT[1], "unshare", "--mount", "--propagation", "private", "sh", "-c", &unmount, "sh"];
    let output = mesh.node().output(&mut Setup::new(&mesh).command(&prefix)).unwrap();
    must_refuse(&output, "cgroup");
}

#[test]
fn without_its_folder_of_resources() {
    let mut command = limited(binary());
    command.args(["check", "/there/is/none"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    must_refuse(&output, "/there/is/none");
}

#[test]
fn check_tells_problems_from_a_clean_folder() {
    let mesh = Mesh::new("check");
    let entry = tests::yaml::workload_entry("tcp-echo", "v1", "10.0.1.2:9000".parse().unwrap());
    let good = tests::yaml::service("tcp-echo", &[], 9000) + &entry;
    let setup = Setup::new(&mesh).file("good.yaml", &good);
    let check =
        |setup: &Setup| limited(binary()).arg("check").arg(setup.dir().join("config")).output().unwrap();
    assert_eq!(check(&setup).status.code(), Some(0));
    let setup = setup.file("bad.yaml", &good.replace("port: 9000", "port: ninety"));
    let output = check(&setup);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("bad.yaml") && said.contains("tcp-echo") && said.contains("port"), "{said}");
}
