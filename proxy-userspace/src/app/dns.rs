//! Joins the rooms that names go through: the daemon's questions and the workloads', on a thread of its own.

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering, mpsc::sync_channel},
    thread,
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, metrics::MetricType};
use proxy_traffic::{Lookup, Map, Snapshot, Workload};
use tokio::{
    net::TcpStream,
    runtime::{self, Handle},
    sync::mpsc,
    task::{AbortHandle, JoinHandle},
};

use super::{dial, start::CLUSTER_DOMAIN};
use crate::{
    dns::{self, Counters, Keeper, Resolver, Sockets, Zone},
    node::{self, Namespace},
    proxy::{Dial, Family, Pending, Resolve, ServeDns},
    settings::{Settings, Switch},
};

/// Changed addresses that wait for the control loop.
const NEWS: usize = 64;

/// What a name was found to be.
pub(super) type News = (String, Vec<IpAddr>);

/// The thread where names are served and looked up. Dropping it ends both.
pub(super) struct Names {
    orders: mpsc::UnboundedSender<Order>,
    handle: Handle,
    resolver: Resolver,
    snapshot: Arc<ArcSwap<Snapshot>>,
    counters: Arc<Counters>,
    /// Whether workloads' questions are answered.
    pub(super) answers: bool,
}

enum Order {
    Follow(Map<String, Lookup>),
    Serve { cookie: u64, sockets: Box<node::NameSockets>, namespace: Arc<Namespace>, zone: Zone },
    Leave(u64),
}

impl Names {
    /// Starts the thread; what changes comes out of the receiver.
    pub(super) fn start(
        settings: &Settings,
        snapshot: Arc<ArcSwap<Snapshot>>,
    ) -> anyhow::Result<(Self, mpsc::Receiver<News>)> {
        let servers = (!settings.egress.resolvers.is_empty()).then(|| settings.egress.resolvers.clone());
        let family = settings.egress.dns_lookup_family;
        let (orders, inbox) = mpsc::unbounded_channel();
        let (news, changes) = mpsc::channel(NEWS);
        let (ready, started) = sync_channel(1);
        let counters = Arc::<Counters>::default();
        let counts = counters.clone();
        let life = move || live(inbox, news, counts, || Resolver::new(servers, family), &ready);
        thread::Builder::new()
            .name("names".into())
            .spawn(life)
            .context("cannot start the thread for names")?;
        let (handle, resolver) = started.recv()?.context("cannot look names up: /etc/resolv.conf")?;
        let answers = settings.egress.dns == Switch::On;
        Ok((Self { orders, handle, resolver, snapshot, counters, answers }, changes))
    }

    /// Keeps up with these names from now on.
    pub(super) fn follow(&self, lookups: &Map<String, Lookup>) {
        self.order(Order::Follow(lookups.clone()));
    }

    /// Answers the questions that arrive at `sockets`, which are those of `workload` in `namespace`.
    pub(super) fn serve(
        &self,
        namespace: &Arc<Namespace>,
        workload: &Arc<Workload>,
        sockets: node::NameSockets,
    ) {
        let zone = Zone::new(self.snapshot.clone(), workload.clone(), CLUSTER_DOMAIN.into());
        let (cookie, namespace) = (namespace.cookie(), namespace.clone());
        self.order(Order::Serve { cookie, sockets: Box::new(sockets), namespace, zone });
    }

    /// Answers nobody of that namespace any more.
    pub(super) fn leave(&self, cookie: u64) {
        self.order(Order::Leave(cookie));
    }

    /// Finds names that clients say first.
    pub(super) fn resolver(&self) -> Arc<dyn Resolve> {
        let Self { handle, resolver, snapshot, .. } = self;
        Arc::new(Said { handle: handle.clone(), resolver: resolver.clone(), snapshot: snapshot.clone() })
    }

    /// Serves questions that come over TCP.
    pub(super) fn streams(&self) -> Option<Arc<dyn ServeDns>> {
        let (snapshot, counters) = (self.snapshot.clone(), self.counters.clone());
        self.answers.then(|| Arc::new(Streams { snapshot, counters }) as Arc<dyn ServeDns>)
    }

    /// `shunt_dns_queries_total`.
    pub(super) fn metrics(&self) -> Box<dyn Collector> {
        Box::new(Queries(self.counters.clone()))
    }

    fn order(&self, order: Order) {
        // Fails only when the thread has ended, with the daemon.
        let _ = self.orders.send(order);
    }
}

type Started = io::Result<(Handle, Resolver)>;

/// The thread's life.
fn live(
    inbox: mpsc::UnboundedReceiver<Order>,
    news: mpsc::Sender<News>,
    counters: Arc<Counters>,
    resolver: impl FnOnce() -> io::Result<Resolver>,
    ready: &std::sync::mpsc::SyncSender<Started>,
) {
    let built = runtime::Builder::new_current_thread().enable_all().build();
    let made = built.and_then(|runtime| {
        let resolver = runtime.block_on(async { resolver() })?;
        Ok((runtime, resolver))
    });
    match made {
        Ok((runtime, resolver)) => {
            // Whoever starts it waits for this.
            let _ = ready.send(Ok((runtime.handle().clone(), resolver.clone())));
            runtime.block_on(obey(inbox, Keeper::new(resolver, news), counters));
        }
        Err(error) => drop(ready.send(Err(error))),
    }
}

async fn obey(mut inbox: mpsc::UnboundedReceiver<Order>, mut keeper: Keeper, counters: Arc<Counters>) {
    let mut served: HashMap<u64, Vec<AbortHandle>> = HashMap::new();
    while let Some(order) = inbox.recv().await {
        match order {
            Order::Follow(lookups) => keeper.follow(&lookups),
            Order::Serve { cookie, sockets, namespace, zone } => {
                let node::NameSockets { v4, v6, answers } = *sockets;
                let sockets: Arc<dyn Sockets> = Arc::new(Asking { namespace, answers });
                let tasks = [Some(v4), v6.ok()].into_iter().flatten().map(|socket| {
                    let serving =
                        dns::serve_datagrams(socket, zone.clone(), sockets.clone(), counters.clone());
                    tokio::spawn(async move {
                        if let Err(error) = serving.await {
                            tracing::error!("name queries of a workload are not answered: {error}");
                        }
                    })
                    .abort_handle()
                });
                stop(served.insert(cookie, tasks.collect()));
            }
            Order::Leave(cookie) => stop(served.remove(&cookie)),
        }
    }
}

fn stop(tasks: Option<Vec<AbortHandle>>) {
    tasks.into_iter().flatten().for_each(|task| task.abort());
}

/// The sockets of one namespace.
struct Asking {
    namespace: Arc<Namespace>,
    answers: node::Answers,
}

impl Sockets for Asking {
    fn datagram(&self, v4: bool) -> io::Result<OwnedFd> {
        self.namespace.datagram(dial::of_node(family(v4)))
    }

    fn stream(&self, v4: bool) -> io::Result<OwnedFd> {
        self.namespace.socket(dial::of_node(family(v4)))
    }

    fn answer(&self, resolver: SocketAddr, client: SocketAddr, reply: &[u8]) -> io::Result<()> {
        self.answers.send(resolver, client, reply)
    }
}

fn family(v4: bool) -> Family {
    if v4 { Family::V4 } else { Family::V6 }
}

/// Finds names that clients say first, on the thread that owns the resolver's sockets.
struct Said {
    handle: Handle,
    resolver: Resolver,
    snapshot: Arc<ArcSwap<Snapshot>>,
}

impl Resolve for Said {
    fn resolve(&self, name: &str) -> Pending<'_, Vec<IpAddr>> {
        let (name, resolver) = (name.to_owned(), self.resolver.clone());
        // Private addresses are the proxy's to judge: it knows whether the client dialled one itself.
        let lookup = self.snapshot.load().lookups.get(&name).cloned().unwrap_or_default();
        let mut asking = Asked(self.handle.spawn(async move { resolver.resolve(&name, &lookup).await }));
        Box::pin(async move { (&mut asking.0).await.unwrap_or_default() })
    }
}

/// A question that nobody asks any more when this is dropped: those who wait for a place are not kept from it.
struct Asked(JoinHandle<Vec<IpAddr>>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Serves TCP connections to name servers.
struct Streams {
    snapshot: Arc<ArcSwap<Snapshot>>,
    counters: Arc<Counters>,
}

impl ServeDns for Streams {
    fn serve(
        &self,
        stream: TcpStream,
        workload: &Arc<Workload>,
        resolver: SocketAddr,
        dial: Arc<dyn Dial>,
    ) -> Pending<'_, ()> {
        let zone = Zone::new(self.snapshot.clone(), workload.clone(), CLUSTER_DOMAIN.into());
        let serving = async move {
            dns::serve_stream(stream, resolver, &zone, &Dialled(dial), &self.counters).await;
        };
        Box::pin(serving)
    }
}

/// The same sockets as the proxy's.
struct Dialled(Arc<dyn Dial>);

impl Sockets for Dialled {
    fn datagram(&self, v4: bool) -> io::Result<OwnedFd> {
        self.0.datagram(family(v4))
    }

    fn stream(&self, v4: bool) -> io::Result<OwnedFd> {
        self.0.socket(family(v4))
    }

    fn answer(&self, _: SocketAddr, _: SocketAddr, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// What became of questions, as a metric.
#[derive(Debug)]
struct Queries(Arc<Counters>);

impl Collector for Queries {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Name queries of workloads, by what became of them";
        let mut family = encoder.encode_descriptor("shunt_dns_queries", help, None, MetricType::Counter)?;
        let Counters { answered, forwarded, failed, dropped } = &*self.0;
        let all =
            [("answered", answered), ("forwarded", forwarded), ("failed", failed), ("dropped", dropped)];
        for (result, count) in all {
            let labels = [("result", result)];
            let mut metric = family.encode_family(&labels)?;
            metric.encode_counter::<[(&str, &str); 0], _, u64>(&count.load(Ordering::Relaxed), None)?;
        }
        Ok(())
    }
}
