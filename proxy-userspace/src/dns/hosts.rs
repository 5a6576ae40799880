//! A name that was asked for → the host of the mesh that is meant.

use proxy_traffic::{Host, Snapshot, Workload};

/// Whose names are looked at.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) workload: &'a Workload,
    /// `cluster.local`.
    pub(super) domain: &'a str,
}

/// A host, and how the name that was asked for is its name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found<'a> {
    pub(super) host: &'a Host,
    /// It is of the cluster, so nobody else knows anything of it.
    pub(super) is_internal: bool,
    /// The name has a search domain behind the host's own, which is its first so many labels.
    pub(super) alias_of: Option<usize>,
}

impl<'a> View<'a> {
    /// Whom `name` means: in lower case, without a final dot. A host without addresses of its own is left to real resolvers.
    pub(super) fn find(&self, name: &str) -> Option<Found<'a>> {
        let found = |host| Found { host, is_internal: false, alias_of: None };
        let found = if let Some(host) = self.visible(name) {
            Found { is_internal: self.is_internal(name), ..found(host) }
        } else if let Some(host) = self.short(name) {
            Found { is_internal: true, ..found(host) }
        } else if let Some((host, labels)) = self.searched(name) {
            Found { alias_of: Some(labels), ..found(host) }
        } else {
            found(self.wildcard(name)?)
        };
        (!found.host.addresses.is_empty()).then_some(found)
    }

    fn visible(&self, name: &str) -> Option<&'a Host> {
        let host = self.snapshot.hosts.get(name)?;
        let exported = host.exported.as_ref();
        exported.is_none_or(|namespaces| namespaces.contains(&self.workload.namespace)).then_some(host)
    }

    fn is_internal(&self, name: &str) -> bool {
        name.strip_suffix(self.domain).is_some_and(|rest| rest.ends_with('.'))
    }

    /// `name`, `name.ns` and `name.ns.svc`, as in a pod whose resolver searches.
    fn short(&self, name: &str) -> Option<&'a Host> {
        let (namespace, domain) = (&self.workload.namespace, self.domain);
        let dots = name.matches('.').count();
        let full = match dots {
            0 => format!("{name}.{namespace}.svc.{domain}"),
            1 => format!("{name}.svc.{domain}"),
            2 if name.ends_with(".svc") => format!("{name}.{domain}"),
            _ => return None,
        };
        self.visible(&full)
    }

    /// A host from outside with one of a pod's search domains behind it, and how many labels are its own.
    fn searched(&self, name: &str) -> Option<(&'a Host, usize)> {
        let rest = name.strip_suffix(self.domain)?.strip_suffix('.')?;
        let within = rest.strip_suffix("svc").and_then(|rest| rest.strip_suffix('.'));
        let own = within.and_then(|rest| rest.strip_suffix(&*self.workload.namespace)?.strip_suffix('.'));
        [own, within, Some(rest)].into_iter().flatten().find_map(|name| {
            let host = self.visible(name).or_else(|| self.wildcard(name))?;
            (!self.is_internal(name)).then(|| (host, name.split('.').count()))
        })
    }

    /// The host of the longest wildcard that covers `name`.
    fn wildcard(&self, name: &str) -> Option<&'a Host> {
        let tails = name.match_indices('.').map(|(at, _)| &name[at..]);
        tails.map(|tail| format!("*{tail}")).find_map(|pattern| self.visible(&pattern))
    }
}
