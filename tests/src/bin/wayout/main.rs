//! Every way that a program may try to get something out of its network namespace, one after the other.
//!
//! `wayout [--device NAME] [--via MAC] TARGET` prints one line for each way: `NAME out`, or `NAME stopped WHY`. What it sends
//! says `way NAME`, so that whoever listens at the target or on the wire can tell what has arrived: that, not this program's
//! word, is the proof. The target serves lines over TCP at port 9000 (see `Internet`) and echoes datagrams at port 9001.
//! `wayout --given TARGET` tries one way only: the TCP socket that it was given as its standard input.

mod address;
mod packets;
mod tcp;
mod udp;
mod uring;

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use clap::Parser;

/// An answer that takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(1);
const TCP_PORT: u16 = 9000;
const UDP_PORT: u16 = 9001;

#[derive(Debug, Parser)]
#[command(name = "wayout", about = "Tries every way out of a network namespace")]
struct Cli {
    /// Whom to reach
    target: IpAddr,
    /// Interface that leads out
    #[arg(long, default_value = "eth0")]
    device: String,
    /// Link-layer address of the next hop, for frames that are made by hand
    #[arg(long, default_value = "ff:ff:ff:ff:ff:ff")]
    via: String,
    /// Only connect the socket that is the standard input
    #[arg(long)]
    given: bool,
}

/// Whom to reach and how; each way has its own `tag`.
struct Target<'cli> {
    cli: &'cli Cli,
    tag: String,
}

impl Target<'_> {
    fn ip(&self) -> IpAddr {
        self.cli.target
    }
}

/// `Ok`: something was sent and, where an answer is to be had, answered.
type Way = fn(&Target<'_>) -> io::Result<()>;

/// Ways that both families have.
const BOTH: [(&str, Way); 17] = [
    ("tcp-connect", tcp::connect),
    ("tcp-fast-open-sendto", tcp::fast_open_sendto),
    ("tcp-fast-open-sockopt", tcp::fast_open_sockopt),
    ("tcp-bound-late", tcp::bound_late),
    ("tcp-unmarked-late", tcp::unmarked_late),
    ("tcp-fast-open-bound-late", tcp::fast_open_bound_late),
    ("tcp-io-uring", tcp::io_uring),
    ("mptcp", tcp::mptcp),
    ("tcp-after-unspec", tcp::after_unspec),
    ("tcp-bound-to-device", tcp::bound_to_device),
    ("udp-connect", udp::connect),
    ("udp-sendto", udp::send),
    ("udp-bound-to-device", udp::bound_to_device),
    ("icmp-ping", packets::ping),
    ("icmp-raw", packets::icmp),
    ("ip-raw", packets::ip),
    ("udp-lite", udp::lite),
];

/// Ways to an IPv4 address.
const V4: [(&str, Way); 9] = [
    ("tcp-mapped", tcp::mapped),
    ("tcp-fast-open-mapped", tcp::fast_open_mapped),
    ("mptcp-mapped", tcp::mptcp_mapped),
    ("tcp-io-uring-mapped", tcp::io_uring_mapped),
    ("udp-connect-mapped", udp::connect_mapped),
    ("udp-connect-v4-on-v6-socket", udp::connect_v4_on_v6),
    ("udp-sendto-mapped", udp::send_mapped),
    ("udp-sendto-v4-on-v6-socket", udp::send_v4_on_v6),
    ("udp-sendto-unspec", udp::send_unspec),
];

/// Ways that may not be there at all in this kernel, and one that no hook of a socket sees.
const LAST: [(&str, Way); 2] = [("sctp", tcp::sctp), ("packet-frame", packets::frame)];

fn main() -> io::Result<()> {
    let cli = Cli::parse();
    let ways: Vec<_> = match (cli.given, cli.target) {
        (true, _) => vec![("given-socket", tcp::given as Way)],
        (_, IpAddr::V4(_)) => [&BOTH[..], &V4, &LAST].concat(),
        (_, IpAddr::V6(_)) => [&BOTH[..], &LAST].concat(),
    };
    let mut out = io::stdout().lock();
    for (name, way) in ways {
        let target = Target { cli: &cli, tag: format!("way {name};") };
        // On a thread of its own: what is left of a ring interrupts whoever made it.
        let outcome = thread::scope(|scope| scope.spawn(|| way(&target)).join());
        match outcome.unwrap_or_else(|_| Err(io::ErrorKind::Other.into())) {
            Ok(()) => writeln!(out, "{name} out")?,
            Err(error) => writeln!(out, "{name} stopped {}", why(&error))?,
        }
    }
    Ok(())
}

/// In one word.
fn why(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{:?}", nix::errno::Errno::from_raw(number)),
        None => format!("{:?}", error.kind()),
    }
}
