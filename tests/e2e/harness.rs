//! The harness itself: the mesh connects, and leaves nothing behind.

use std::net::{TcpListener, TcpStream};
use std::path::Path;

use tests::mesh::Mesh;

#[test]
fn workloads_reach_each_other_through_the_node() {
    let mesh = Mesh::new("ping");
    let (left, right) = (mesh.workload("left"), mesh.workload("right"));
    let extra = "10.9.9.9".parse().unwrap();
    right.claim(&mesh, extra);
    for target in [right.v4().into(), right.v6().into(), extra] {
        let listener = right.enter(|| TcpListener::bind((target, 0)).unwrap());
        let port = listener.local_addr().unwrap().port();
        left.enter(|| TcpStream::connect((target, port)).unwrap_or_else(|error| panic!("{target}: {error}")));
    }
}

#[test]
fn a_dropped_mesh_is_gone() {
    let mesh = Mesh::new("gone");
    let path = mesh.workload("client").path();
    let node = mesh.node().path();
    drop(mesh);
    assert!(!path.exists() && !node.exists());
    assert!(Path::new("/run/netns").exists());
}
