//! Every resource in its last good version.
//!
//! Pure: others read the files and say what they hold.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use super::{
    Problem, Resources, Severity,
    document::{self, Document},
    problem::Report,
    resource::{Key, Resource},
};

/// Every resource of every file, each in its last good version.
#[derive(Debug, Default)]
pub struct Store {
    files: BTreeMap<String, File>,
    merged: Resources,
}

/// What one file brought.
#[derive(Debug, Default)]
struct File {
    resources: BTreeMap<Key, Resource>,
    problems: Vec<Problem>,
}

impl Store {
    /// A store that holds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes `text` as what `file` holds from now on, and says what is wrong with it.
    ///
    /// A resource that is no longer good keeps its last good version, and one that is gone is removed; while a
    /// document of the file cannot be named, nothing is removed, since it may be the one that seems gone.
    pub fn replace(&mut self, file: &str, text: &str) -> Vec<Problem> {
        let previous = self.files.remove(file).unwrap_or_default();
        let next = merge(file, document::read(&Arc::from(file), text), previous);
        let problems = next.problems.clone();
        self.files.insert(file.to_owned(), next);
        self.rebuild();
        problems
    }

    /// Forgets `file` and what it brought.
    pub fn remove(&mut self, file: &str) {
        self.files.remove(file);
        self.rebuild();
    }

    /// What is in force.
    #[must_use]
    pub fn resources(&self) -> &Resources {
        &self.merged
    }

    /// What is wrong with the files as they are now, file by file.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.files.values().flat_map(|file| &file.problems)
    }

    /// One view over all files: where two bring the same resource, the first file has it.
    fn rebuild(&mut self) {
        let mut merged = Resources::default();
        let mut owners: BTreeMap<&Key, &str> = BTreeMap::new();
        for (name, file) in &self.files {
            for (key, resource) in &file.resources {
                match owners.entry(key) {
                    Entry::Vacant(owner) => {
                        owner.insert(name);
                        merged.push(resource.clone());
                    }
                    Entry::Occupied(owner) => merged.clashes.push(clash(name, key, owner.get())),
                }
            }
        }
        merged.sort();
        self.merged = merged;
    }
}

/// `file` brings `key`, which `owner` brings already.
fn clash(file: &str, key: &Key, owner: &str) -> Problem {
    let mut report = Report::new(file, key.to_string());
    report.error("", format!("left out: {owner} has a resource of this name already; rename or remove one"));
    report.problems.remove(0)
}

/// What a file that held `previous` holds after it was read anew.
fn merge(file: &str, documents: Vec<Document>, mut previous: File) -> File {
    let mut next = File::default();
    let mut complete = true;
    for document in documents {
        match document {
            Document::Broken(problem) => {
                complete = false;
                next.problems.push(problem);
            }
            Document::Unused(problem) => next.problems.push(problem),
            Document::Named(key, _, _) if next.resources.contains_key(&key) => {
                next.problems.push(clash(file, &key, "this file"));
            }
            Document::Named(key, resource, problems) => {
                let last_good = previous.resources.remove(&key);
                let kept = last_good.is_some();
                next.problems.extend(problems.into_iter().map(|problem| outcome(problem, kept)));
                if let Some(resource) = resource.or(last_good) {
                    next.resources.insert(key, resource);
                }
            }
        }
    }
    if !complete {
        previous.resources.into_iter().for_each(|(key, resource)| {
            next.resources.entry(key).or_insert(resource);
        });
    }
    next
}

/// An error also says what is in force instead.
fn outcome(mut problem: Problem, kept: bool) -> Problem {
    if problem.severity == Severity::Error {
        problem.what.push_str(if kept { "; its last good version stays in force" } else { "; left out" });
    }
    problem
}
