//! Istio's tcp-echo: answers each line with a prefix and the line. Used by `run`, and by itself for one version more.

use anyhow::{Context, Result};
use std::{
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::ExitCode,
    thread::{self, JoinHandle},
    time::Duration,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where to listen; may be given more than once
    #[arg(long, required = true)]
    listen: Vec<SocketAddr>,
    /// What every answer starts with
    #[arg(long)]
    prefix: String,
}

pub(crate) fn main(arguments: &Arguments) -> Result<ExitCode> {
    for server in start(&arguments.listen, &arguments.prefix)? {
        let _ = server.join();
    }
    Ok(ExitCode::FAILURE)
}

/// Listens everywhere before it returns; the servers end with the process.
///
/// # Errors
/// An address that is taken, by name.
pub(crate) fn start(listen: &[SocketAddr], prefix: &str) -> Result<Vec<JoinHandle<()>>> {
    let bind = |address: &SocketAddr| TcpListener::bind(address).with_context(|| taken(address));
    let listeners = listen.iter().map(bind).collect::<Result<Vec<_>>>()?;
    let serve = |listener| {
        let prefix = prefix.to_owned();
        thread::spawn(move || accept(&listener, &prefix))
    };
    Ok(listeners.into_iter().map(serve).collect())
}

fn taken(address: &SocketAddr) -> String {
    format!("cannot listen on {address} (`ss -ltnp sport = :{}` shows who does)", address.port())
}

fn accept(listener: &TcpListener, prefix: &str) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // Out of descriptors, most likely: some connection has to end first.
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        let prefix = prefix.to_owned();
        // A client that goes away in the middle is no news here, nor is a thread too many: the socket closes.
        let _ = thread::Builder::new().stack_size(64 << 10).spawn(move || echo(&stream, &prefix));
    }
}

/// Until the client's end of stream, after which everything has been answered.
fn echo(stream: &TcpStream, prefix: &str) -> io::Result<()> {
    let mut writer = stream;
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream);
    while reader.read_until(b'\n', &mut line)? > 0 {
        let answer = [prefix.as_bytes(), b" ", &line].concat();
        writer.write_all(&answer)?;
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Read,
        net::{Ipv4Addr, Shutdown},
    };

    #[test]
    fn answers_lines_and_still_answers_after_a_half_close() {
        let (client, server) = pair();
        thread::spawn(move || echo(&server, "one"));
        (&client).write_all(b"hello\nwithout end").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        (&client).read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "one hello\none without end");
    }

    #[test]
    fn a_taken_port_is_named() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = holder.local_addr().unwrap();
        let error = start(&[address], "one").unwrap_err();
        assert!(format!("{error:#}").contains(&address.to_string()), "{error:#}");
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }
}
