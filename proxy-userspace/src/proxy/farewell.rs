//! The end of a connection that its workload may not have: what the client is told, and that it hears it.

use std::{
    net::Shutdown,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream, time::timeout};

use super::{Cause, buffer, record::Record, splice};

/// A client that was answered may go on talking for so long, and say so much, before it is cut off: what nobody reads makes
/// the kernel reset the connection, and the answer may be lost with it.
const LINGER: Duration = Duration::from_secs(1);
const LONGEST: u64 = 64 * 1024;
/// Says that the name has no address, as Envoy does.
const UNAVAILABLE: u16 = 503;

/// Ends a connection that has no upstream. What may not leave sees the end of its stream rather than a reset; HTTP an answer.
pub(super) async fn say(downstream: &TcpStream, record: &mut Record) {
    let status = match record.end() {
        (Cause::EgressDenied, true) => record.entrance().context.http_status,
        (Cause::Unresolved, true) => UNAVAILABLE,
        (Cause::EgressDenied | Cause::Unresolved, false) => return end(downstream),
        _ => return,
    };
    let (mut received, mut sent) = (0, 0);
    let answer = response(status, SystemTime::now());
    let both = async {
        sent = write(downstream, answer.as_bytes()).await;
        end(downstream);
        read_out(downstream, &mut received).await;
    };
    // However far it came.
    let _ = timeout(LINGER, both).await;
    record.answered(received, sent);
}

/// No more bytes follow.
fn end(downstream: &TcpStream) {
    // Fails only if the client has gone.
    let _ = SockRef::from(downstream).shutdown(Shutdown::Write);
}

/// What the client took of `bytes`, which its empty window holds.
async fn write(downstream: &TcpStream, bytes: &[u8]) -> u64 {
    let ready = downstream.ready(Interest::WRITABLE).await;
    ready.and_then(|_| splice::write(downstream, bytes)).map_or(0, |sent| sent as u64)
}

/// Takes what the client says until it has ended.
async fn read_out(downstream: &TcpStream, received: &mut u64) {
    while *received < LONGEST && downstream.ready(Interest::READABLE).await.is_ok() {
        match buffer::with(|buffer| splice::read(downstream, &mut buffer[..LONGEST as usize])) {
            Ok(0) => return,
            Ok(read) => *received += read as u64,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// An answer without a body, after which the connection ends.
fn response(status: u16, now: SystemTime) -> String {
    let reason = match status {
        404 => "Not Found",
        UNAVAILABLE => "Service Unavailable",
        _ => "Bad Gateway",
    };
    format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-length: 0\r\nconnection: close\r\ndate: {}\r\nserver: istio-envoy\r\n\r\n",
        date(now)
    )
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7).
fn date(now: SystemTime) -> String {
    // Days of the week from that of 1970-01-01 on.
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let days = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 86400;
    // 1994-11-06T08:49:37Z
    let text = humantime::format_rfc3339_seconds(now).to_string();
    let month = text[5..7].parse::<usize>().unwrap_or(1);
    let (year, day, time) = (&text[..4], &text[8..10], &text[11..19]);
    format!("{}, {day} {} {year} {time} GMT", DAYS[(days % 7) as usize], MONTHS[month - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_as_http_writes_them() {
        for (seconds, want) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
        ] {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), want);
        }
    }
}
