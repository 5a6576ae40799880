//! The name that a client said → the address that is dialled for it. Where the client was going does not decide: a client that
//! says an allowed name and dials somebody else is led to who has the name.

use std::net::{IpAddr, SocketAddr};

use proxy_common::egress::{is_off_limits, is_private};
use proxy_traffic::{Error, Sniffed};
use tokio::net::TcpStream;

use super::{
    record::Record,
    upstream::{Target, gone},
};

/// Where to dial for the name in `sniffed`: on `port`, else the one that the client dialled.
pub(super) async fn find(
    target: &Target,
    port: Option<u16>,
    sniffed: &Sniffed,
    record: &Record,
    downstream: &TcpStream,
) -> Result<SocketAddr, Error> {
    let dialled = record.destination();
    let Some(name) = sniffed.name() else {
        return Err(Error::Unresolved("a client that says no name".into()));
    };
    let addresses = match name.parse::<IpAddr>() {
        // Says nothing that dialling it did not.
        Ok(address) => vec![address].into_iter().filter(|address| *address == dialled.ip()).collect(),
        Err(_) => {
            let resolver = &record.entrance().context.resolver;
            tokio::select! {
                biased;
                found = resolver.resolve(name) => found,
                () = gone(downstream) => return Err(Error::DownstreamClosed { endpoint: dialled }),
                () = tokio::time::sleep(target.timeout) => Vec::new(),
            }
        }
    };
    let port = port.unwrap_or_else(|| dialled.port());
    choose(&addresses, dialled.ip(), |count| fastrand::usize(..count))
        .map(|address| SocketAddr::new(address, port))
        .map_err(|off_limits| match off_limits {
            Some(address) => Error::OffLimits(SocketAddr::new(address, port)),
            None => Error::Unresolved(name.into()),
        })
}

/// The address that was dialled if it is one of them, else any, of the same family if there is one. Without any, one that nobody
/// is led to. `draw` gives a number below the one it is asked with.
fn choose(
    addresses: &[IpAddr],
    dialled: IpAddr,
    draw: impl FnOnce(usize) -> usize,
) -> Result<IpAddr, Option<IpAddr>> {
    let canonical = addresses.iter().map(IpAddr::to_canonical);
    let (off_limits, usable): (Vec<_>, Vec<_>) = canonical.partition(|address| is_off_limits(*address));
    if usable.contains(&dialled) {
        return Ok(dialled);
    }
    // To a network of somebody's own nobody is led by a name alone: only who dials there himself.
    let (private, usable): (Vec<_>, Vec<_>) = usable.into_iter().partition(|address| is_private(*address));
    let alike = |address: &&IpAddr| address.is_ipv4() == dialled.is_ipv4();
    let family: Vec<_> = usable.iter().filter(alike).copied().collect();
    let candidates = if family.is_empty() { usable } else { family };
    match candidates.len() {
        0 => Err(off_limits.first().or_else(|| private.first()).copied()),
        count => Ok(candidates[draw(count)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dialled_address_stays_if_the_name_has_it() {
        for (addresses, dialled, draw, want) in [
            ("203.0.113.1 203.0.113.2", "203.0.113.2", 0, Ok("203.0.113.2")),
            ("203.0.113.1 203.0.113.2", "198.51.100.1", 1, Ok("203.0.113.2")),
            ("2001:db8::1 203.0.113.1", "198.51.100.1", 0, Ok("203.0.113.1")),
            ("203.0.113.1 2001:db8::1", "2001:db8::9", 0, Ok("2001:db8::1")),
            ("2001:db8::1", "198.51.100.1", 0, Ok("2001:db8::1")),
            ("::ffff:203.0.113.1", "203.0.113.1", 0, Ok("203.0.113.1")),
            ("", "203.0.113.1", 0, Err(None)),
            // What nobody is led to does not count, also if it was dialled.
            ("169.254.169.254", "169.254.169.254", 0, Err(Some("169.254.169.254"))),
            ("169.254.169.254 203.0.113.1", "169.254.169.254", 0, Ok("203.0.113.1")),
            ("127.0.0.1 ::1", "203.0.113.1", 0, Err(Some("127.0.0.1"))),
            ("::ffff:127.0.0.1", "203.0.113.1", 0, Err(Some("127.0.0.1"))),
            ("fd00:ec2::254", "203.0.113.1", 0, Err(Some("fd00:ec2::254"))),
            ("0.0.0.0", "203.0.113.1", 0, Err(Some("0.0.0.0"))),
            ("10.0.0.1", "10.0.0.1", 0, Ok("10.0.0.1")),
            ("10.0.0.1", "203.0.113.1", 0, Err(Some("10.0.0.1"))),
            ("fd00::1 100.64.0.1 203.0.113.1", "10.0.0.1", 0, Ok("203.0.113.1")),
        ] {
            let parse = |text: &str| text.parse::<IpAddr>().unwrap();
            let all: Vec<_> = addresses.split_whitespace().map(parse).collect();
            let got = choose(&all, parse(dialled), |count| draw.min(count - 1));
            assert_eq!(got, want.map(parse).map_err(|error| error.map(parse)), "{addresses} for {dialled}");
        }
    }
}
