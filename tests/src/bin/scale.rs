//! How long one changed endpoint takes from the text of its file to the snapshot, in a mesh of many.
//!
//! `scale inline` has ServiceEntries with endpoints, `scale selected` has Services and the WorkloadEntries that their
//! selectors pick. Nothing is captured and nobody connects: it is `proxy-traffic` alone.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    sync::Arc,
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};
use proxy_traffic::{
    Snapshot,
    istio::{Compiler, Settings, Store},
};

#[derive(Debug, Parser)]
#[command(name = "scale", about = "Times the way of one change from text to snapshot")]
struct Arguments {
    /// Who the endpoints are
    #[arg(value_enum)]
    variant: Variant,
    /// Services; each has an address and one port
    #[arg(long, default_value_t = 10_000)]
    services: usize,
    /// Endpoints of each service
    #[arg(long, default_value_t = 10)]
    endpoints: usize,
    /// Files that the resources are spread over
    #[arg(long, default_value_t = 100)]
    files: usize,
    /// Namespaces that the services are spread over
    #[arg(long, default_value_t = 1)]
    namespaces: usize,
    /// Changes to time, one at a time
    #[arg(long, default_value_t = 200)]
    changes: usize,
    /// Give every cluster a limit, by one DestinationRule for the whole mesh
    #[arg(long)]
    limited: bool,
    /// Changes that come together in the last measurement
    #[arg(long, default_value_t = 50)]
    batch: usize,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Variant {
    /// ServiceEntries with inline endpoints
    Inline,
    /// Services with selectors, and WorkloadEntries
    Selected,
}

/// A limit for every host there is.
const LIMIT: &str = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: limit\n  namespace: istio-system\n\
                     spec:\n  host: '*'\n  trafficPolicy:\n    connectionPool:\n      tcp:\n        maxConnections: 1024\n";

/// The texts of all files, resource by resource.
struct World {
    files: Vec<Vec<String>>,
}

/// What is timed: the two halves of a publication.
struct Engine {
    store: Store,
    compiler: Compiler,
    settings: Settings,
    snapshot: Arc<Snapshot>,
}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let mut out = io::stdout().lock();
    let mut world = World::new(&arguments);
    let mut engine = Engine::new();
    let start = Instant::now();
    for file in 0..world.files.len() {
        engine.replace(file, &world.text(file));
    }
    writeln!(out, "read all files       {:>10.3} ms", milliseconds(start.elapsed()))?;
    if arguments.limited {
        engine.replace(world.files.len(), LIMIT);
    }
    let start = Instant::now();
    engine.compile();
    writeln!(out, "first compile        {:>10.3} ms", milliseconds(start.elapsed()))?;
    let snapshot = &engine.snapshot;
    let (listeners, clusters) = (snapshot.listeners.len(), snapshot.clusters.len());
    writeln!(out, "                     {listeners} listeners, {clusters} clusters")?;
    one_by_one(&arguments, &mut world, &mut engine, &mut out)?;
    come_and_go(&arguments, &mut engine, &mut out)?;
    together(&arguments, &mut world, &mut engine, &mut out)
}

/// Times changes that come alone.
fn one_by_one(
    arguments: &Arguments,
    world: &mut World,
    engine: &mut Engine,
    out: &mut impl io::Write,
) -> io::Result<()> {
    let (mut replaced, mut compiled, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..arguments.changes {
        let file = world.change(turn);
        let text = world.text(file);
        let start = Instant::now();
        engine.replace(file, &text);
        let middle = Instant::now();
        engine.compile();
        let end = Instant::now();
        replaced.push(middle - start);
        compiled.push(end - middle);
        whole.push(end - start);
    }
    for (name, times) in
        [("one change: replace", replaced), ("one change: compile", compiled), ("one change: both", whole)]
    {
        writeln!(out, "{name:<20} {}", spread(times))?;
    }
    Ok(())
}

/// Times services that come and go, which may change who has which address.
fn come_and_go(arguments: &Arguments, engine: &mut Engine, out: &mut impl io::Write) -> io::Result<()> {
    let mut times = Vec::new();
    for turn in 0..20 {
        let text = if turn % 2 == 0 { service_entry(arguments.services, 0, 1) } else { String::new() };
        let start = Instant::now();
        engine.replace(arguments.files + 1, &text);
        engine.compile();
        times.push(start.elapsed());
    }
    writeln!(out, "one service: both    {}", spread(times))
}

/// Times changes that come together, as the daemon takes them in while it is busy with others.
fn together(
    arguments: &Arguments,
    world: &mut World,
    engine: &mut Engine,
    out: &mut impl io::Write,
) -> io::Result<()> {
    let batches = arguments.changes.div_ceil(arguments.batch);
    let mut busy = Duration::ZERO;
    for batch in 0..batches {
        let mut files: Vec<_> =
            (0..arguments.batch).map(|turn| world.change(batch * arguments.batch + turn)).collect();
        files.sort_unstable();
        files.dedup();
        let texts: Vec<_> = files.iter().map(|file| (*file, world.text(*file))).collect();
        let start = Instant::now();
        texts.iter().for_each(|(file, text)| engine.replace(*file, text));
        engine.compile();
        busy += start.elapsed();
    }
    let changes = batches * arguments.batch;
    let rate = changes as f64 / busy.as_secs_f64();
    writeln!(out, "{} together          {rate:>10.0} changes a second", arguments.batch)
}

impl World {
    fn new(arguments: &Arguments) -> Self {
        let mut files = vec![Vec::new(); arguments.files];
        for service in 0..arguments.services {
            let namespace = service % arguments.namespaces;
            let file = &mut files[service * arguments.files / arguments.services];
            match arguments.variant {
                Variant::Inline => file.push(service_entry(service, namespace, arguments.endpoints)),
                Variant::Selected => {
                    file.push(plain_service(service, namespace));
                    file.extend((0..arguments.endpoints).map(|one| workload_entry(service, one, namespace)));
                }
            }
        }
        Self { files }
    }

    fn text(&self, file: usize) -> String {
        self.files[file].concat()
    }

    /// Gives one endpoint another weight; says which file has it.
    fn change(&mut self, turn: usize) -> usize {
        // Far apart, and never the same twice in a row.
        let file = turn * 37 % self.files.len();
        let resource = turn * 13 % self.files[file].len();
        let weights = self.files[file][resource..].iter_mut().find(|text| text.contains("weight: "));
        if let Some(text) = weights {
            let at = text.rfind("weight: ").unwrap_or_default() + "weight: ".len();
            text.replace_range(at..at + 3, &format!("{:3}", 100 + turn % 900));
        }
        file
    }
}

fn service_entry(service: usize, namespace: usize, endpoints: usize) -> String {
    let address = address(240, service);
    let mut text = format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: service-{service}\n  \
         namespace: space-{namespace}\nspec:\n  hosts:\n  - service-{service}.example.com\n  addresses:\n  - {address}\n  \
         location: MESH_INTERNAL\n  resolution: STATIC\n  ports:\n  - number: 9000\n    name: tcp\n    protocol: TCP\n  endpoints:\n"
    );
    for one in 0..endpoints {
        let address = self::address(10, service * endpoints + one);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "  - address: {address}\n    labels:\n      app: service-{service}\n    weight: 100\n"
        );
    }
    text
}

fn plain_service(service: usize, namespace: usize) -> String {
    let address = address(11, service);
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: service-{service}\n  namespace: space-{namespace}\n\
         spec:\n  clusterIP: {address}\n  selector:\n    app: service-{service}\n  ports:\n  - name: tcp\n    port: 9000\n"
    )
}

fn workload_entry(service: usize, one: usize, namespace: usize) -> String {
    let address = address(10, service * 16 + one);
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata:\n  name: service-{service}-{one}\n  \
         namespace: space-{namespace}\nspec:\n  address: {address}\n  labels:\n    app: service-{service}\n    version: v1\n  weight: 100\n"
    )
}

fn address(first: usize, number: usize) -> String {
    format!("{first}.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255)
}

impl Engine {
    fn new() -> Self {
        Self {
            store: Store::new(),
            compiler: Compiler::new(),
            settings: Settings::default(),
            snapshot: Arc::default(),
        }
    }

    fn replace(&mut self, file: usize, text: &str) {
        drop(self.store.replace(&format!("{file}.yaml"), text));
    }

    fn compile(&mut self) {
        let (mut snapshot, _) = self.compiler.compile(self.store.resources(), &self.snapshot, &self.settings);
        snapshot.generation = self.snapshot.generation + 1;
        self.snapshot = Arc::new(snapshot);
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Median, 99th percentile and longest.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: usize| milliseconds(times[(times.len() - 1) * share / 100]);
    format!("{:>10.3} ms  p99 {:.3} ms  longest {:.3} ms", at(50), at(99), at(100))
}
