//! Who may reach what no listener takes: the policy of the mesh and those of its Sidecars.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use super::{Problems, Settings};
use crate::{
    Egress, EgressPolicy, EgressScope, EgressVerdict,
    istio::{
        Resources,
        resource::{Annotations, Item, Labels, MeshConfig, Mode, OutboundTrafficPolicy, Sidecar},
    },
};

/// A Sidecar.
type One = Arc<Item<Sidecar>>;

/// The mesh's settings, if it has any.
fn mesh<'a>(resources: &'a Resources, settings: &Settings) -> Option<&'a Item<MeshConfig>> {
    let mut all = resources.config_maps.iter();
    all.find(|item| item.key.namespace == settings.root_namespace).map(Arc::as_ref)
}

/// `settings`, and what the mesh says instead.
pub(super) fn settings<'a>(resources: &Resources, settings: &'a Settings) -> Cow<'a, Settings> {
    let timeout = mesh(resources, settings).and_then(|item| item.spec.connect_timeout);
    match timeout {
        Some(timeout) if timeout.0 != settings.connect_timeout => {
            Cow::Owned(Settings { connect_timeout: timeout.0, ..settings.clone() })
        }
        _ => Cow::Borrowed(settings),
    }
}

/// The policies, in the order in which they are asked.
pub(super) fn policies(resources: &Resources, settings: &Settings, problems: &mut Problems) -> Egress {
    let root = &settings.root_namespace;
    let mesh = mesh(resources, settings);
    report_mesh(resources, root, problems);
    let own = mesh.map_or_else(|| Saying::nothing(settings), |item| Saying::new(item, settings));
    let (selecting, plain): (Vec<_>, Vec<_>) =
        resources.sidecars.iter().partition(|item| item.spec.workload_selector.is_some());
    let (of_root, of_namespaces): (Vec<_>, Vec<_>) =
        plain.into_iter().partition(|item| item.key.namespace == *root);
    let mut taken: BTreeMap<_, &One> = BTreeMap::new();
    let mut sidecars = Vec::new();
    for item in selecting.into_iter().chain(of_namespaces).chain(of_root) {
        let selector = item.spec.workload_selector.as_ref().map(|selector| &selector.labels);
        if let Some(&older) = taken.get(&(&item.key.namespace, selector)) {
            report_younger(item, older, problems);
            continue;
        }
        taken.insert((&item.key.namespace, selector), item);
        sidecars.push(scope(item, selector, root, &own));
    }
    Egress { mesh: own.policy(), sidecars }
}

fn scope(item: &One, selector: Option<&Labels>, root: &str, mesh: &Saying) -> EgressScope {
    let everywhere = selector.is_none() && item.key.namespace == root;
    EgressScope {
        namespace: (!everywhere).then(|| item.key.namespace.clone()),
        labels: selector.cloned().unwrap_or_default(),
        policy: mesh.within(item).policy(),
    }
}

/// What a mesh or a Sidecar says, and what holds where it says nothing.
struct Saying {
    mode: Mode,
    /// Who says the mode.
    source: String,
    /// Annotation `shunt.dev/egress-existing`.
    closes_existing: bool,
    /// Annotation `shunt.dev/egress-blocked`.
    refuses: bool,
}

impl Saying {
    /// Nobody says anything.
    fn nothing(settings: &Settings) -> Self {
        let refuses = settings.egress_refuses;
        Self { mode: Mode::AllowAny, source: String::new(), closes_existing: false, refuses }
    }

    fn new(item: &Item<MeshConfig>, settings: &Settings) -> Self {
        Self::nothing(settings).with(item, item.spec.outbound_traffic_policy.as_ref())
    }

    /// What a Sidecar of this mesh says.
    fn within(&self, item: &Item<Sidecar>) -> Self {
        let mesh = Self { source: self.source.clone(), ..*self };
        mesh.with(item, item.spec.outbound_traffic_policy.as_ref())
    }

    fn with<T>(self, item: &Item<T>, policy: Option<&OutboundTrafficPolicy>) -> Self {
        let said = |name, yes, no| match item.metadata.annotations.get(name) {
            Some(value) if value == yes => Some(true),
            Some(value) if value == no => Some(false),
            _ => None,
        };
        let closes_existing = said(Annotations::EGRESS_EXISTING, "close", "keep");
        let refuses = said(Annotations::EGRESS_BLOCKED, "refuse", "close");
        Self {
            mode: policy.map_or(self.mode, |policy| policy.mode.unwrap_or_default()),
            source: if policy.is_some() { item.key.to_string() } else { self.source },
            closes_existing: closes_existing.unwrap_or(self.closes_existing),
            refuses: refuses.unwrap_or(self.refuses),
        }
    }

    fn policy(&self) -> EgressPolicy {
        let verdict = match self.mode {
            Mode::AllowAny | Mode::AllowAnyDynamicDns => EgressVerdict::Allow,
            Mode::RegistryOnly if self.refuses => EgressVerdict::Refuse,
            Mode::RegistryOnly => EgressVerdict::Close,
        };
        EgressPolicy { verdict, closes_existing: self.closes_existing, source: self.source.clone() }
    }
}

/// ConfigMaps that look like the mesh's and are not, and a root namespace that is not ours.
fn report_mesh(resources: &Resources, root: &str, problems: &mut Problems) {
    for item in &resources.config_maps {
        if item.key.namespace != root {
            let what = format!("is not used: the mesh's own is in the namespace {root} (--root-namespace)");
            problems.warn(&**item, "metadata.namespace", what);
        } else if item.spec.root_namespace.as_ref().is_some_and(|name| name != root) {
            let what = format!("has no effect: --root-namespace says {root}, and that stays in force");
            problems.warn(&**item, "data.mesh: rootNamespace", what);
        }
    }
}

/// Two of one namespace are about the same workloads.
fn report_younger(item: &One, older: &One, problems: &mut Problems) {
    let (field, whom) = match item.spec.workload_selector {
        Some(_) => ("workloadSelector", "selects the same workloads"),
        None => ("", "is about every workload of the namespace, too,"),
    };
    problems.warn(
        &**item,
        field,
        format!("left out: {} {whom} and comes first, by age, then name; remove one", older.key),
    );
}
