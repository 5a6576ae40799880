//! Who is looked after, and which of them no rule can tell apart. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use proxy_traffic::Workload;

use super::plan::{self, Scope};

/// A workload in its namespace.
#[derive(Clone, Debug)]
pub(super) struct Enrolled {
    /// What the programs need to know; its scope is for [`Scopes`] to say.
    pub(super) entry: proxy_common::Workload,
    pub(super) workload: Arc<Workload>,
    pub(super) scope: u32,
}

/// The workloads by cookie, and their classes.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    pub(super) enrolled: HashMap<u64, Enrolled>,
    classes: BTreeMap<u32, Class>,
}

#[derive(Debug)]
struct Class {
    workload: Arc<Workload>,
    members: usize,
}

impl Scopes {
    /// The classes that there are.
    pub(super) fn all(&self) -> Vec<Scope> {
        self.classes.iter().map(|(number, class)| (*number, class.workload.clone())).collect()
    }

    /// Counts `workload` in; its class, and whether that is a new one.
    pub(super) fn join(&mut self, workload: &Arc<Workload>) -> (u32, bool) {
        let mut number = plan::scope_number(workload);
        loop {
            match self.classes.get_mut(&number) {
                Some(class) if alike(&class.workload, workload) => {
                    class.members += 1;
                    return (number, false);
                }
                // Two classes with one number are next to impossible, and must not be one all the same.
                Some(_) => number += 1,
                None => {
                    self.classes.insert(number, Class { workload: workload.clone(), members: 1 });
                    return (number, true);
                }
            }
        }
    }

    /// Counts one out; whether its class is no more.
    pub(super) fn leave(&mut self, number: u32) -> bool {
        let Some(class) = self.classes.get_mut(&number) else { return false };
        class.members -= 1;
        let over = class.members == 0;
        if over {
            self.classes.remove(&number);
        }
        over
    }
}

fn alike(one: &Workload, other: &Workload) -> bool {
    one.namespace == other.namespace && one.labels == other.labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(name: &str, namespace: &str, app: &str) -> Arc<Workload> {
        let labels = BTreeMap::from([("app".to_owned(), app.to_owned())]);
        Arc::new(Workload { name: name.to_owned(), namespace: namespace.to_owned(), labels })
    }

    #[test]
    fn a_class_is_a_namespace_with_labels_and_ends_with_its_last_workload() {
        let mut scopes = Scopes::default();
        let (first, fresh) = scopes.join(&workload("a", "default", "web"));
        assert!(first > 0 && fresh);
        assert_eq!(scopes.join(&workload("b", "default", "web")), (first, false));
        let (other, fresh) = scopes.join(&workload("a", "shop", "web"));
        assert!(other != first && fresh);
        assert!(scopes.join(&workload("a", "default", "api")).0 != first);
        assert!(!scopes.leave(first));
        assert!(scopes.leave(first));
        assert_eq!(scopes.all().len(), 2);
        assert_eq!(
            scopes.join(&workload("c", "default", "web")),
            (first, true),
            "the same after every start"
        );
    }
}
