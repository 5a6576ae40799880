//! `bench dns`: queries for names at a steady rate, from a workload that is left alone and from one whose queries the daemon
//! takes, at the same time and to the same name server.

use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::internet::{Internet, RESOLVERS, wire};
use tests::mesh::{Mesh, Workload};
use tests::setup::Setup;
use tests::yaml::service;

/// What the daemon may add to the 99th percentile.
const BAR_MICROS: f64 = 1000.0;
/// A query that is not answered by then is lost.
const LATE: Duration = Duration::from_secs(2);
/// A name that only the name server knows.
const OUTSIDE: &str = "www.example.com";
/// A name that only the daemon knows.
const INSIDE: &str = "tcp-echo.default.svc.cluster.local";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Queries a second of each client.
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// How long it lasts.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
}

/// The queries of one client.
struct Row {
    what: &'static str,
    /// Microseconds, sorted.
    latencies: Vec<f64>,
    asked: usize,
}

/// Measures and prints.
pub(crate) fn run(options: &Options, stop: &AtomicBool) -> Result<()> {
    let queries = options.rate * options.seconds;
    ensure!(
        (1..=60_000).contains(&queries),
        "--rate by --seconds: from 1 to 60000, as many as there are numbers"
    );
    let mesh = Mesh::new("names");
    let internet = Internet::new(&mesh);
    internet.host(&mesh, OUTSIDE, &["203.0.113.10"]);
    let clients = ["alone", "forwarded", "answered"].map(|name| mesh.workload(name));
    let setup = Setup::new(&mesh).args("--resolver 203.0.113.53");
    let mut daemon = setup.file("service.yaml", &service("tcp-echo", &["10.96.0.10"], 9000)).start();
    clients[1..].iter().for_each(|client| daemon.enroll(client, ""));
    let plans = [
        ("name server, no daemon", OUTSIDE),
        ("forwarded by the daemon", OUTSIDE),
        ("answered by the daemon", INSIDE),
    ];
    let rows = thread::scope(|scope| {
        let begin = |((what, name), client)| scope.spawn(move || measure(what, name, client, options, stop));
        let running: Vec<_> = plans.into_iter().zip(&clients).map(begin).collect();
        running.into_iter().map(|row| row.join().expect("no panic")).collect::<Result<Vec<_>>>()
    })?;
    daemon.stop();
    report(&rows, options)
}

/// Asks for `name` at the rate, whether answers come or not: a query that has to wait in line is late from its turn on.
fn measure(
    what: &'static str,
    name: &str,
    client: &Workload,
    options: &Options,
    stop: &AtomicBool,
) -> Result<Row> {
    let queries = options.rate * options.seconds;
    let resolver: SocketAddr = format!("{}:53", RESOLVERS[0]).parse()?;
    let socket = client.enter(|| UdpSocket::bind("0.0.0.0:0"))?;
    socket.set_read_timeout(Some(LATE))?;
    let begun = Instant::now() + Duration::from_millis(100);
    let turn = |number: u32| begun + Duration::from_secs(1) * number / options.rate;
    let (latencies, asked) = thread::scope(|scope| {
        let hearing = scope.spawn(|| hear(&socket, queries, turn));
        let mut asked = 0;
        while asked < queries && !stop.load(Ordering::Relaxed) {
            thread::sleep(turn(asked).saturating_duration_since(Instant::now()));
            socket.send_to(&wire::ask(asked as u16, name, wire::A), resolver)?;
            asked += 1;
        }
        Ok::<_, anyhow::Error>((hearing.join().expect("no panic"), asked))
    })?;
    Ok(Row { what, latencies, asked: asked as usize })
}

/// How long each answer took from its query's turn, until the last or until nothing comes any more.
fn hear(socket: &UdpSocket, queries: u32, turn: impl Fn(u32) -> Instant) -> Vec<f64> {
    let mut buffer = [0; 1500];
    let mut latencies = Vec::with_capacity(queries as usize);
    while latencies.len() < queries as usize {
        let Ok(size) = socket.recv(&mut buffer) else { break };
        let number = u32::from(u16::from_be_bytes([buffer[0], buffer[1]]));
        // An answer without an address is none.
        if wire::read(&buffer[..size]).is_some_and(|answer| !answer.addresses.is_empty()) {
            latencies.push(turn(number).elapsed().as_secs_f64() * 1e6);
        }
    }
    latencies.sort_by(f64::total_cmp);
    latencies
}

fn report(rows: &[Row], options: &Options) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{} queries a second for {} s from each client, all at the same time\n",
        options.rate, options.seconds
    )?;
    writeln!(out, "| row | asked | answered | p50, µs | p99, µs | longest, µs |\n|---|---|---|---|---|---|")?;
    for Row { what, latencies, asked } in rows {
        let at = |share: f64| {
            latencies.get((latencies.len() as f64 * share) as usize).or_else(|| latencies.last())
        };
        let [p50, p99, longest] = [0.5, 0.99, 1.0].map(|share| at(share).copied().unwrap_or(f64::NAN));
        writeln!(out, "| {what} | {asked} | {} | {p50:.0} | {p99:.0} | {longest:.0} |", latencies.len())?;
    }
    let p99 = |row: &Row| row.latencies.get(row.latencies.len() * 99 / 100).copied().unwrap_or(f64::INFINITY);
    for row in &rows[1..] {
        let added = p99(row) - p99(&rows[0]);
        let verdict = if added <= BAR_MICROS { "met" } else { "missed" };
        writeln!(out, "\n{}: p99 {added:+.0} µs, at most {BAR_MICROS:+.0}: {verdict}", row.what)?;
    }
    Ok(())
}
