//! Every resource in its last good version.
//!
//! Pure: others read the files and say what they hold. A change of one document costs that document and a look at the
//! others' text: what is written as before is not read again, and its resources stay the same pointers.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Problem, Resources, Severity,
    document::{self, Document},
    problem::Report,
    resource::{Change, Key, Resource},
};

/// Every resource of every file, each in its last good version.
#[derive(Debug, Default)]
pub struct Store {
    files: BTreeMap<Arc<str>, File>,
    /// The files that bring each resource, in order: the first has it.
    owners: BTreeMap<Key, Vec<Arc<str>>>,
    /// What the other files' resources are told.
    clashes: BTreeMap<(Arc<str>, Key), Problem>,
    merged: Resources,
}

/// What one file brought.
#[derive(Debug, Default)]
struct File {
    /// What was read, by text. What cannot be named is not kept: its problem says a line.
    documents: BTreeMap<String, Arc<[Document]>>,
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
        let file: Arc<str> =
            self.files.get_key_value(file).map_or_else(|| file.into(), |(name, _)| name.clone());
        let next = File::read(&file, text, self.files.get_mut(&file));
        let problems = next.problems.clone();
        self.put(&file, next);
        problems
    }

    /// Forgets `file` and what it brought.
    pub fn remove(&mut self, file: &str) {
        if let Some((name, _)) = self.files.get_key_value(file) {
            self.put(&name.clone(), File::default());
            self.files.remove(file);
        }
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

    /// Makes `file` hold `next`. Where two files bring the same resource, the first file has it.
    fn put(&mut self, file: &Arc<str>, next: File) {
        let changed = changed(self.files.get(file), &next);
        let before: Vec<_> = changed.iter().map(|key| self.in_force(key)).collect();
        for key in &changed {
            self.own(file, key, next.resources.contains_key(key));
        }
        self.files.insert(file.clone(), next);
        let after = changed.iter().map(|key| self.in_force(key));
        let changes: Vec<Change> = before.into_iter().zip(after).collect();
        self.merged.apply(&changes);
    }

    /// What [`Self::resources`] says, from the files alone.
    #[cfg(test)]
    pub(super) fn resources_anew(&self) -> Resources {
        let mut anew = Resources::default();
        let mut owners: BTreeMap<&Key, &str> = BTreeMap::new();
        for (name, file) in &self.files {
            for (key, resource) in &file.resources {
                match owners.get(key) {
                    Some(owner) => anew.clashes.push(clash(name, key, owner)),
                    None => anew.apply(&[(None, Some(resource.clone()))]),
                }
                owners.entry(key).or_insert(name);
            }
        }
        anew
    }

    fn in_force(&self, key: &Key) -> Option<Resource> {
        let owner = self.owners.get(key)?.first()?;
        self.files.get(owner)?.resources.get(key).cloned()
    }

    /// Notes whether `file` brings `key`, and who is told that he does not have it.
    fn own(&mut self, file: &Arc<str>, key: &Key, brings: bool) {
        let mut owners = self.owners.remove(key).unwrap_or_default();
        let contested = owners.len() > 1;
        if contested {
            owners.iter().for_each(|other| drop(self.clashes.remove(&(other.clone(), key.clone()))));
        }
        owners.retain(|other| other != file);
        if brings {
            let place = owners.partition_point(|other| other < file);
            owners.insert(place, file.clone());
        }
        if let [first, others @ ..] = owners.as_slice() {
            for other in others {
                self.clashes.insert((other.clone(), key.clone()), clash(other, key, first));
            }
        }
        if contested || owners.len() > 1 {
            self.merged.clashes = self.clashes.values().cloned().collect();
        }
        if !owners.is_empty() {
            self.owners.insert(key.clone(), owners);
        }
    }
}

/// The resources that are not the same in `next`.
fn changed(previous: Option<&File>, next: &File) -> Vec<Key> {
    let nothing = BTreeMap::new();
    let older = previous.map_or(&nothing, |file| &file.resources);
    let is_same = |key: &Key, resource: &Resource| older.get(key).is_some_and(|one| one.is(resource));
    let new = next.resources.iter().filter(|(key, resource)| !is_same(key, resource)).map(|(key, _)| key);
    let gone = older.keys().filter(|key| !next.resources.contains_key(key));
    new.chain(gone).cloned().collect()
}

/// `file` brings `key`, which `owner` brings already.
fn clash(file: &str, key: &Key, owner: &str) -> Problem {
    let mut report = Report::new(file, key.to_string());
    report.error("", format!("left out: {owner} has a resource of this name already; rename or remove one"));
    report.problems.remove(0)
}

impl File {
    /// What a file that held `previous` holds with this `text`. Takes the documents out of `previous`.
    fn read(file: &Arc<str>, text: &str, previous: Option<&mut Self>) -> Self {
        let mut nothing = Self::default();
        let previous = previous.unwrap_or(&mut nothing);
        let mut next = Self::default();
        let mut complete = true;
        let mut known = std::mem::take(&mut previous.documents);
        for (line, chunk) in document::split(text) {
            let (chunk, documents) = match known.remove_entry(&chunk) {
                Some(same) => same,
                None => {
                    let documents = document::read(file, line, &chunk).into();
                    (chunk, documents)
                }
            };
            documents.iter().for_each(|document| complete &= next.take(file, document, previous));
            if !documents.iter().any(|document| matches!(document, Document::Broken(_))) {
                next.documents.entry(chunk).or_insert(documents);
            }
        }
        if !complete {
            for (key, resource) in &previous.resources {
                next.resources.entry(key.clone()).or_insert_with(|| resource.clone());
            }
        }
        next
    }

    /// Takes in one document; false when nobody can say what it brings.
    fn take(&mut self, file: &str, document: &Document, previous: &Self) -> bool {
        match document {
            Document::Broken(problem) => {
                self.problems.push(problem.clone());
                return false;
            }
            Document::Unused(problem) => self.problems.push(problem.clone()),
            Document::Named(key, _, _) if self.resources.contains_key(key) => {
                self.problems.push(clash(file, key, "this file"));
            }
            Document::Named(key, resource, problems) => {
                let last_good = previous.resources.get(key);
                let kept = last_good.is_some();
                self.problems.extend(problems.iter().map(|problem| outcome(problem.clone(), kept)));
                if let Some(resource) = resource.as_ref().or(last_good) {
                    self.resources.insert(key.clone(), resource.clone());
                }
            }
        }
        true
    }
}

/// An error also says what is in force instead.
fn outcome(mut problem: Problem, kept: bool) -> Problem {
    if problem.severity == Severity::Error {
        problem.what.push_str(if kept { "; its last good version stays in force" } else { "; left out" });
    }
    problem
}
