//! What one has without a proxy: destination addresses rewritten at random by iptables or nftables.
//!
//! Each has a node of its own between client and server, so that connections are tracked there and for nobody else. The
//! way is as long as through the mesh's node: two veth pairs.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use tests::netns::Netns;

use crate::place::Place;
use crate::rows::Row;
use crate::scene::{self, PORT, Scene};

/// The peers of this kind.
pub(crate) const NAMES: [&str; 2] = ["iptables", "nftables"];

/// Makes the node of the peer called `name` with its rules, and the row through it. Fails where the program or the
/// kernel's part is not there.
pub(crate) fn start(scene: &Scene, name: &str) -> Result<(Row, Netns)> {
    let number = if name == NAMES[0] { 1 } else { 2 };
    let vip = Ipv4Addr::new(10, 97, 0, number);
    let node = Netns::create(&format!("{}-{name}", scene.mesh.id()));
    connect(scene, &node, number, vip);
    if name == NAMES[0] {
        iptables(&node, vip, scene.backends)?
    } else {
        nftables(&node, vip, scene.backends)?
    }
    // Two minutes of remembering each closed connection would fill the table in two rounds.
    node.sysctl("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "5");
    let row = Row {
        name: name.to_owned(),
        targets: vec![SocketAddr::from((vip, PORT))],
        pid: None,
        place: Place::new(&scene.client, None),
    };
    row.place.enter(|| crate::idle::echo_once(row.targets[0]))?.with_context(|| format!("dial {vip}"))?;
    Ok((row, node))
}

/// Client and server get one more interface each, to and from the new node.
fn connect(scene: &Scene, node: &Netns, number: u8, vip: Ipv4Addr) {
    node.sysctl("net/ipv4/ip_forward", "1");
    let (near, far) = (77 + 2 * number, 78 + 2 * number);
    let ends: [(&Netns, u8); 2] = [(&scene.client, near), (&scene.server, far)];
    for (place, net) in ends {
        node.ip(&format!(
            "link add v{net} type veth peer name nat{number} netns {place}
             addr add 10.{net}.0.1/24 dev v{net}
             link set v{net} up",
            place = place.name()
        ));
        place.ip(&format!("addr add 10.{net}.0.2/24 dev nat{number}\nlink set nat{number} up"));
    }
    let backends = scene.backends.map(|backend| format!("route add {}/32 via 10.{far}.0.2\n", backend.ip()));
    node.ip(&backends.concat());
    scene.client.ip(&format!("route add {vip}/32 via 10.{near}.0.1"));
    scene.server.ip(&format!("route add 10.{near}.0.0/24 via 10.{far}.0.1"));
    [node, &scene.client, &scene.server].into_iter().for_each(scene::tune);
}

fn iptables(node: &Netns, vip: Ipv4Addr, [first, second]: [SocketAddr; 2]) -> Result<()> {
    let matches = format!("-t nat -A PREROUTING -d {vip} -p tcp --dport {PORT}");
    let draw = "-m statistic --mode random --probability 0.8";
    for rule in [
        format!("{matches} {draw} -j DNAT --to-destination {first}"),
        format!("{matches} -j DNAT --to-destination {second}"),
    ] {
        run(node, Command::new("iptables").args(rule.split(' ')), "")?;
    }
    Ok(())
}

fn nftables(node: &Netns, vip: Ipv4Addr, [first, second]: [SocketAddr; 2]) -> Result<()> {
    let [(a, b), (c, d)] = [first, second].map(|backend| (backend.ip(), backend.port()));
    let rules = format!(
        "table ip bench {{
  chain prerouting {{
    type nat hook prerouting priority dstnat;
    ip daddr {vip} tcp dport {PORT} dnat to numgen random mod 100 map {{ 0-79 : {a} . {b}, 80-99 : {c} . {d} }}
  }}
}}
"
    );
    run(node, Command::new("nft").args(["-f", "-"]), &rules)
}

fn run(node: &Netns, command: &mut Command, input: &str) -> Result<()> {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = node.spawn(command).context("not present: `cargo xtask setup --bench` installs it")?;
    child.stdin.take().context("piped")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(!complaint.trim().is_empty(), "{command:?}: {}", output.status);
    bail!("this kernel does not take the rules: {}", complaint.trim().replace('\n', "; "))
}
