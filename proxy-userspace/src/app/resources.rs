//! From changed files to the next snapshot: the last good resources, what is wrong with them, and telling
//! people once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arc_swap::ArcSwap;
use proxy_traffic::{
    Snapshot,
    istio::{self, Problem, Severity},
};

use super::dns::News;
use crate::source::{Change, Changes};

/// Every resource, and the snapshot made of them.
pub(super) struct Resources {
    store: istio::Store,
    compiler: istio::Compiler,
    settings: istio::Settings,
    /// Files that cannot be read at all.
    unreadable: BTreeMap<String, Problem>,
    /// Everything that is wrong now, reading and compiling.
    problems: Vec<Problem>,
    snapshot: Arc<ArcSwap<Snapshot>>,
}

impl Resources {
    /// Nothing read yet; `snapshot` is what later snapshots are compiled against and published to.
    pub(super) fn new(settings: istio::Settings, snapshot: Arc<ArcSwap<Snapshot>>) -> Self {
        let (store, compiler) = (istio::Store::new(), istio::Compiler::new());
        Self { store, compiler, settings, unreadable: BTreeMap::new(), problems: Vec::new(), snapshot }
    }

    /// What is wrong now.
    pub(super) fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Takes `changes` in and publishes the snapshot they lead to: new connections follow it from here on.
    pub(super) fn apply(&mut self, changes: Changes) -> Arc<Snapshot> {
        for (file, change) in changes {
            self.take(file, change);
        }
        self.publish()
    }

    /// Takes in what names were found to be, and publishes the snapshot that it leads to: without any the one that is in force.
    pub(super) fn resolve(&mut self, news: Vec<News>) -> Arc<Snapshot> {
        if news.is_empty() {
            return self.snapshot.load_full();
        }
        for (name, addresses) in news {
            tracing::debug!("{name} is {addresses:?}");
            self.store.resolve(&name, addresses);
        }
        self.publish()
    }

    fn publish(&mut self) -> Arc<Snapshot> {
        let previous = self.snapshot.load();
        let (mut snapshot, compiled) =
            self.compiler.compile(self.store.resources(), &previous, &self.settings);
        snapshot.generation = previous.generation + 1;
        let snapshot = Arc::new(snapshot);
        self.snapshot.store(snapshot.clone());
        let read = self.unreadable.values().chain(self.store.problems()).cloned();
        let problems = read.chain(compiled.iter().cloned()).collect();
        self.report(problems);
        tracing::info!(
            generation = snapshot.generation,
            listeners = snapshot.listeners.len() + snapshot.subnets.len(),
            gateways = snapshot.gateways.len(),
            clusters = snapshot.clusters.len(),
            problems = self.problems.len(),
            "new rules are in force for new connections"
        );
        snapshot
    }

    fn take(&mut self, file: String, change: Change) {
        self.unreadable.remove(&file);
        match change {
            Change::Text(text) => drop(self.store.replace(&file, &text)),
            Change::Unreadable(why) => drop(self.unreadable.insert(file.clone(), unreadable(file, &why))),
            Change::Removed => self.store.remove(&file),
        }
    }

    /// Says what is new and what is mended since the last time.
    fn report(&mut self, problems: Vec<Problem>) {
        if problems == self.problems {
            return;
        }
        let words = |list: &[Problem]| list.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let (before, now) = (words(&self.problems), words(&problems));
        now.difference(&before).for_each(|problem| tracing::warn!("{problem}"));
        before.difference(&now).for_each(|problem| tracing::info!("mended: {problem}"));
        self.problems = problems;
    }
}

fn unreadable(file: String, why: &str) -> Problem {
    Problem {
        file,
        resource: String::new(),
        field: String::new(),
        what: format!("{why}; what it said before stays in force"),
        severity: Severity::Error,
    }
}
