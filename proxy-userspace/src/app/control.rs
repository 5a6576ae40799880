//! The control loop: changed files, questions, time and signals, one after the other on one thread.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use proxy_traffic::{Cluster, Snapshot, Workload};
use tokio::sync::mpsc;

use super::{
    answers,
    cgroups::Cgroups,
    connects::Connects,
    direct::Direct,
    dns::{Names, News},
    gateways::Gateways,
    inbox::{Inbox, Signals, Tick},
    names::{self, Memory},
    resources::Resources,
    start::{self, CLUSTER_DOMAIN},
    workloads::{Extent, Workloads},
};
use crate::{
    admin::{self, Answer, Ask, Enrolment},
    cause::chain,
    kernel::Kernel,
    metrics::Metrics,
    node::Namespace,
    proxy::{self, AccessLog, Workers},
    settings::Settings,
    source::{Changes, Folder},
};

/// How long a start waits for the addresses of names.
const FIRST_NAMES: Duration = Duration::from_secs(2);

/// Everything that the daemon is, between start and end.
pub(super) struct Control {
    pub(super) settings: Settings,
    pub(super) started: Instant,
    pub(super) ready: bool,
    /// Whether programs and tables of an earlier daemon were there to be taken over.
    pub(super) adopted: bool,
    /// Whether the start succeeded.
    opened: bool,
    pub(super) resources: Resources,
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) connects: Connects,
    pub(super) gateways: Gateways,
    pub(super) exec: admin::ExecContext,
    access_log: AccessLog,
    memory: Memory,
    own_hosts: String,
    /// Clusters with outlier detection.
    watched: Vec<Arc<Cluster>>,
    workers: Workers,
    /// What names are now; the inbox takes it.
    news: Option<mpsc::Receiver<News>>,
    // After `workers`: capture ends when nobody is left to serve it.
    pub(super) workloads: Workloads,
}

impl Control {
    /// Everything that can be made without changing anything for anybody.
    pub(super) fn new(settings: Settings, cgroups: &Cgroups) -> anyhow::Result<Self> {
        let (memory, hosts) = Memory::open(&settings.state_dir);
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::with_hosts(hosts)));
        let (metrics, connects) = (Arc::new(Metrics::new()), Connects::default());
        metrics.register(Box::new(connects.clone()));
        let access_log = start::access_log(&settings, metrics.clone())?;
        let (names, news) = Names::start(&settings, snapshot.clone())?;
        metrics.register(names.metrics());
        let workers =
            start::workers(&settings, snapshot.clone(), metrics.clone(), access_log.clone(), &names)?;
        let kernel = Kernel::load(&start::kernel(&settings, cgroups)?)?;
        let direct = Direct::new(&metrics, snapshot.clone(), access_log.clone(), settings.lease);
        let daemon = cgroups.daemon_id()?;
        Ok(Self {
            started: Instant::now(),
            ready: false,
            adopted: kernel.is_adopted(),
            opened: false,
            resources: Resources::new(start::istio(&settings), snapshot.clone()),
            gateways: Gateways::new(settings.gateway_labels()),
            workloads: Workloads::new(kernel, direct, names, start::places(&settings, cgroups), daemon),
            exec: start::exec_context(&settings, cgroups),
            watched: Vec::new(),
            own_hosts: fs::read_to_string("/etc/hosts").unwrap_or_default(),
            settings,
            snapshot,
            metrics,
            connects,
            access_log,
            memory,
            workers,
            news: Some(news),
        })
    }

    /// Reads the rules, captures the workloads and opens the doors, in this order.
    pub(super) fn open(&mut self, cgroups: &Cgroups, signals: Signals) -> anyhow::Result<Inbox> {
        let mut folder = Folder::new(self.settings.config.clone());
        let watch = folder.watch()?;
        let changes = folder.scan()?;
        let names = self.first_names(changes);
        self.follow(|resources| resources.resolve(names));
        self.enroll_local(cgroups)?;
        self.enroll_again();
        self.workloads.settle()?;
        let news = self.news.take().context("started twice")?;
        let inbox = Inbox::open(&self.settings, &self.workloads.kernel, folder, watch, news, signals)?;
        (self.ready, self.opened) = (true, true);
        tracing::info!("ready");
        Ok(inbox)
    }

    /// Compiles `changes`, and waits a moment for what the names in them are: an earlier daemon's endpoints are still in force, and
    /// are not to give way to none.
    fn first_names(&mut self, changes: Changes) -> Vec<News> {
        let wanted = self.resources.apply(changes).lookups.clone();
        self.workloads.names.follow(&wanted);
        let (deadline, mut found) = (Instant::now() + FIRST_NAMES, Vec::new());
        while found.len() < wanted.len() && Instant::now() < deadline {
            match self.news.as_mut().and_then(|news| news.try_recv().ok()) {
                Some(one) => found.push(one),
                // The names' own thread is at work; nothing else waits for this one yet.
                None => thread::sleep(Duration::from_millis(1)),
            }
        }
        found
    }

    /// Turns until a signal says to end, then drains.
    pub(super) async fn turn(&mut self, inbox: &mut Inbox) {
        loop {
            let watched = !self.watched.is_empty();
            tokio::select! {
                () = inbox.signals.recv() => break,
                Some(changes) = inbox.changes.recv() => self.apply(changes),
                Some(first) = inbox.news.recv() => {
                    let mut all = vec![first];
                    while let Ok(next) = inbox.news.try_recv() {
                        all.push(next);
                    }
                    self.follow(|resources| resources.resolve(all));
                }
                Some((ask, reply)) = inbox.asked.recv() => drop(reply.send(self.answer(ask))),
                () = inbox.records.ready() => self.workloads.read_records(),
                tick = inbox.ticks.next(watched) => self.tick(tick),
            }
        }
    }

    fn apply(&mut self, changes: Changes) {
        self.follow(|resources| resources.apply(changes));
    }

    /// Publishes what a change leads to: proxy first, then the kernel, then names and gateways.
    fn follow(&mut self, publish: impl FnOnce(&mut Resources) -> Arc<Snapshot>) {
        let before = self.snapshot.load_full();
        let snapshot = publish(&mut self.resources);
        // Also those that are no longer watched: nobody of theirs stays ejected.
        for cluster in self.watched.iter().filter_map(|watched| snapshot.clusters.get(&watched.name)) {
            cluster.state.sweep(cluster, proxy::now());
        }
        self.watched = snapshot.clusters.values().filter(|one| one.outlier.is_some()).cloned().collect();
        if let Err(error) = self.workloads.kernel.sync(&snapshot) {
            tracing::error!("the kernel's tables are not up to date: {error}");
        }
        self.workloads.follow(&before, &snapshot);
        if !self.opened || before.hosts != snapshot.hosts {
            self.name(&snapshot);
        }
        self.gateways.follow(&snapshot, &self.workers);
        self.metrics.published(snapshot.generation, self.resources.problems().len());
    }

    /// Tells workloads the names of `snapshot`, and the next start their addresses.
    fn name(&mut self, snapshot: &Snapshot) {
        let text =
            names::hosts_file(&self.own_hosts, &snapshot.hosts, &self.settings.namespace, CLUSTER_DOMAIN);
        if let Err(error) = names::rewrite(&self.exec.hosts, &text) {
            tracing::warn!(
                "{}: {error}; names inside `shunt exec` are out of date",
                self.exec.hosts.display()
            );
        }
        if let Err(error) = self.memory.save(&snapshot.hosts) {
            tracing::warn!(
                "{}: {error}; hosts may change their address at the next start",
                self.memory.path().display()
            );
        }
    }

    fn tick(&mut self, tick: Tick) {
        match tick {
            Tick::Tend => {
                self.workloads.tend(&self.metrics, &self.snapshot.load());
                self.gateways.follow(&self.snapshot.load(), &self.workers);
            }
            Tick::Upkeep => self.workloads.keep_up(),
            Tick::Health => {
                // What the daemon's own connections found counts for the kernel's too, so it is told in any case.
                for cluster in &self.watched {
                    cluster.state.sweep(cluster, proxy::now());
                }
                self.workloads.tell_health();
            }
            Tick::Audit => self.workloads.audit(),
        }
    }

    fn answer(&mut self, ask: Ask) -> Answer {
        match ask {
            Ask::Enroll(enrolment) => {
                let name = enrolment.name.clone();
                let done = self.enroll(enrolment).and_then(|()| self.remember());
                answers::done(done, format!("workload {name} is captured from now on\n"))
            }
            Ask::Unenroll(name) => {
                let done = self.workloads.remove(&name).and_then(|()| self.remember());
                answers::done(
                    done,
                    format!("workload {name} is left alone from now on; open connections live on\n"),
                )
            }
            other => {
                self.workloads.refresh(&other);
                answers::answer(self, &other)
            }
        }
    }

    /// The processes that `shunt exec` starts.
    fn enroll_local(&mut self, cgroups: &Cgroups) -> anyhow::Result<()> {
        let workload = Workload {
            name: self.settings.name.clone(),
            namespace: self.settings.namespace.clone(),
            labels: self.settings.labels.iter().cloned().collect(),
        };
        let cgroup = Some(cgroups.workload().to_owned());
        let extent = Extent { namespace: Arc::new(Namespace::current()?), netns: None, cgroup };
        self.workloads.add(workload, extent, &self.workers)
    }

    fn enroll(&mut self, enrolment: Enrolment) -> anyhow::Result<()> {
        let Enrolment { name, namespace, labels, netns, cgroup } = enrolment;
        let opened = Namespace::open(&netns);
        let opened = opened.with_context(|| format!("{} is no network namespace", netns.display()))?;
        // Programs are attached where no other place covers them, which only plain paths can tell.
        let plain =
            |path: PathBuf| fs::canonicalize(&path).with_context(|| format!("cgroup {}", path.display()));
        let cgroup = cgroup.map(plain).transpose()?;
        let extent = Extent { namespace: Arc::new(opened), netns: Some(netns), cgroup };
        self.workloads.add(Workload { name, namespace, labels }, extent, &self.workers)
    }

    /// Where enrolments outlive a crash.
    fn enrolments_file(&self) -> PathBuf {
        self.settings.run_dir.join("workloads.json")
    }

    fn remember(&self) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(&self.workloads.enrolments())?;
        Ok(fs::write(self.enrolments_file(), text)?)
    }

    /// Takes up what a killed daemon had enrolled; what is gone by now is only mentioned.
    fn enroll_again(&mut self) {
        let text = fs::read_to_string(self.enrolments_file()).unwrap_or_default();
        let before: Vec<Enrolment> = serde_json::from_str(&text).unwrap_or_default();
        for enrolment in before {
            let name = enrolment.name.clone();
            match self.enroll(enrolment) {
                Ok(()) => tracing::info!("workload {name} is captured again"),
                Err(error) => {
                    tracing::warn!("workload {name} is not captured again: {}", chain(error.as_ref()))
                }
            }
        }
    }

    /// Captures nothing new and lets open connections finish; a second signal cuts that short.
    pub(super) async fn drain(&mut self, inbox: &mut Inbox) -> anyhow::Result<()> {
        let patience = self.settings.drain_timeout;
        tracing::info!("draining: nothing new is captured, open connections have {patience:?} to finish");
        self.ready = false;
        if let Err(error) = self.workloads.release() {
            // Open connections are worth finishing all the same.
            tracing::warn!("{}", chain(error.as_ref()));
        }
        self.gateways.close();
        let drained = self.workers.drain(patience);
        tokio::pin!(drained);
        loop {
            tokio::select! {
                drained = &mut drained => {
                    tracing::info!(finished = drained.finished, cut = drained.cut, "drained");
                    return Ok(());
                }
                Some((ask, reply)) = inbox.asked.recv() => {
                    self.workloads.refresh(&ask);
                    drop(reply.send(answers::while_draining(self, &ask)));
                }
                () = inbox.records.ready() => self.workloads.read_records(),
                () = inbox.ticks.upkeep() => self.workloads.keep_up(),
                () = inbox.signals.recv() => break,
            }
        }
        tracing::info!("told twice: ending now");
        Ok(())
    }

    /// Leaves nothing behind; but a start that failed leaves a killed daemon's enrolments to the next one.
    pub(super) fn close(mut self) -> anyhow::Result<()> {
        self.workloads.read_records();
        self.access_log.flush();
        let closed = self.workloads.close();
        let enrolments = self.opened.then_some("workloads.json");
        for file in ["admin.sock", "hosts"].into_iter().chain(enrolments) {
            drop(fs::remove_file(self.settings.run_dir.join(file)));
        }
        closed
    }
}
