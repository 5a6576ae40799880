//! Every resource in its last good version.
//!
//! Pure: others read the files and say what they hold. A change of one document costs that document and a look at the
//! others' text: what is written as before is not read again, and its resources stay the same pointers.

use std::{collections::BTreeMap, net::IpAddr, ops::Range, sync::Arc};

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
    documents: Vec<Read>,
    resources: BTreeMap<Key, Resource>,
    problems: Vec<Problem>,
}

/// A document's text, and what was read there.
type Read = (String, Arc<[Document]>);

/// Documents that take the place of others of a file.
struct Patch {
    place: Range<usize>,
    documents: Vec<Read>,
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
        let file = self.files.get_key_value(file).map_or_else(|| Arc::from(file), |(name, _)| name.clone());
        let known = self.files.entry(file.clone()).or_default();
        let patch = known.read(&file, text);
        if let Some(changed) = known.changed_plainly(&patch) {
            self.put(&file, &changed, |known| known.patch(patch));
        } else {
            let next = known.next(&file, patch);
            let changed = changed(&known.resources, &next.resources);
            self.put(&file, &changed, |known| *known = next);
        }
        self.files.get(&file).map(|known| known.problems.clone()).unwrap_or_default()
    }

    /// Forgets `file` and what it brought.
    pub fn remove(&mut self, file: &str) {
        if let Some((name, known)) = self.files.get_key_value(file) {
            let (name, gone): (_, Vec<_>) = (name.clone(), known.resources.keys().cloned().collect());
            self.put(&name, &gone, |known| *known = File::default());
            self.files.remove(file);
        }
    }

    /// Takes `addresses` as what `name` of [`crate::Snapshot::lookups`] resolves to from now on; none: it does not.
    pub fn resolve(&mut self, name: &str, addresses: Vec<IpAddr>) {
        if addresses.is_empty() {
            self.merged.resolved.remove(name);
        } else {
            self.merged.resolved.insert(name.to_owned(), addresses.into());
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

    /// As [`Self::replace`], reading every document again.
    #[cfg(test)]
    pub(super) fn replace_anew(&mut self, file: &str, text: &str) -> Vec<Problem> {
        let known = self.files.get_mut(file);
        if let Some(known) = known {
            // One that is not plain, so that nobody takes the short way.
            let key = Key { kind: super::resource::Kind::Pod, namespace: String::new(), name: String::new() };
            known.documents = vec![("?".to_owned(), [Document::Named(key, None, Vec::new())].into())];
        }
        self.replace(file, text)
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

    /// Changes what `file` holds. Where two files bring the same resource, the first file has it.
    fn put(&mut self, file: &Arc<str>, changed: &[Key], edit: impl FnOnce(&mut File)) {
        let before: Vec<_> = changed.iter().map(|key| self.in_force(key)).collect();
        let known = self.files.entry(file.clone()).or_default();
        edit(known);
        let brought: Vec<_> = changed.iter().map(|key| known.resources.contains_key(key)).collect();
        changed.iter().zip(brought).for_each(|(key, brought)| self.own(file, key, brought));
        let after = changed.iter().map(|key| self.in_force(key));
        let changes: Vec<Change> = before.into_iter().zip(after).collect();
        self.merged.apply(&changes);
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

/// The resources that are not the same in `newer`.
fn changed(older: &BTreeMap<Key, Resource>, newer: &BTreeMap<Key, Resource>) -> Vec<Key> {
    let is_same = |key: &Key, resource: &Resource| older.get(key).is_some_and(|one| one.is(resource));
    let new = newer.iter().filter(|(key, resource)| !is_same(key, resource)).map(|(key, _)| key);
    let gone = older.keys().filter(|key| !newer.contains_key(key));
    new.chain(gone).cloned().collect()
}

/// The resources of documents that are good throughout.
fn good(documents: &[Read]) -> Option<BTreeMap<&Key, &Resource>> {
    let mut all = BTreeMap::new();
    for document in documents.iter().flat_map(|(_, documents)| documents.iter()) {
        match document {
            Document::Named(key, Some(resource), problems) if problems.is_empty() => {
                all.insert(key, resource).is_none().then_some(())?;
            }
            _ => return None,
        }
    }
    Some(all)
}

/// `file` brings `key`, which `owner` brings already.
fn clash(file: &str, key: &Key, owner: &str) -> Problem {
    let mut report = Report::new(file, key.to_string());
    report.error("", format!("left out: {owner} has a resource of this name already; rename or remove one"));
    report.problems.remove(0)
}

impl File {
    /// What is to be put where in the documents so that they are those of `text`. Those before and after that are
    /// written as before, and those that only moved, are not read again, unless their problems say a line.
    fn read(&self, file: &Arc<str>, text: &str) -> Patch {
        let chunks = document::split(text);
        let is_kept = |(text, documents): &Read, chunk: &str| text == chunk && !is_broken(documents);
        let known = self.documents.as_slice();
        let mut pairs = known.iter().zip(&chunks);
        let head = pairs.position(|(read, (_, chunk))| !is_kept(read, chunk));
        let head = head.unwrap_or_else(|| known.len().min(chunks.len()));
        let mut pairs = known[head..].iter().rev().zip(chunks[head..].iter().rev());
        let tail = pairs.position(|(read, (_, chunk))| !is_kept(read, chunk));
        let tail = tail.unwrap_or_else(|| (known.len() - head).min(chunks.len() - head));
        let place = head..known.len() - tail;
        let moved = known[place.clone()].iter().filter(|(_, documents)| !is_broken(documents));
        let moved: BTreeMap<&str, _> = moved.map(|(text, documents)| (text.as_str(), documents)).collect();
        let new = chunks[head..chunks.len() - tail].iter().map(|(line, chunk)| {
            let same = moved.get(&**chunk).map(|documents| Arc::clone(documents));
            (chunk.to_string(), same.unwrap_or_else(|| document::read(file, *line, chunk).into()))
        });
        Patch { place, documents: new.collect() }
    }

    /// The resources that `patch` changes, where nothing is wrong with the file before or after: then the others are
    /// not looked at.
    fn changed_plainly(&self, patch: &Patch) -> Option<Vec<Key>> {
        if !self.problems.is_empty() {
            return None;
        }
        let (old, new) = (good(&self.documents[patch.place.clone()])?, good(&patch.documents)?);
        let is_free = |key: &&Key| old.contains_key(*key) || !self.resources.contains_key(*key);
        if !new.keys().all(is_free) {
            return None;
        }
        let is_same = |key: &Key, resource: &Resource| old.get(key).is_some_and(|one| one.is(resource));
        let put = new.iter().filter(|(key, resource)| !is_same(key, resource)).map(|(key, _)| *key);
        let gone = old.keys().filter(|key| !new.contains_key(*key)).copied();
        Some(put.chain(gone).cloned().collect())
    }

    /// Puts a patch in place that [`Self::changed_plainly`] found plain.
    fn patch(&mut self, patch: Patch) {
        for key in good(&self.documents[patch.place.clone()]).into_iter().flat_map(BTreeMap::into_keys) {
            self.resources.remove(key);
        }
        for (key, resource) in good(&patch.documents).into_iter().flatten() {
            self.resources.insert(key.clone(), resource.clone());
        }
        self.documents.splice(patch.place, patch.documents);
    }

    /// What the file holds with `patch`, document by document. Takes the documents out of what it held.
    fn next(&mut self, file: &str, patch: Patch) -> Self {
        let mut documents = std::mem::take(&mut self.documents);
        documents.splice(patch.place, patch.documents);
        let mut next = Self::default();
        let mut complete = true;
        for document in documents.iter().flat_map(|(_, documents)| documents.iter()) {
            complete &= next.take(file, document, self);
        }
        if !complete {
            for (key, resource) in &self.resources {
                next.resources.entry(key.clone()).or_insert_with(|| resource.clone());
            }
        }
        next.documents = documents;
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

/// Whether nobody can say what a part of them brings; what is said of it names a line.
fn is_broken(documents: &[Document]) -> bool {
    documents.iter().any(|document| matches!(document, Document::Broken(_)))
}

/// An error also says what is in force instead.
fn outcome(mut problem: Problem, kept: bool) -> Problem {
    if problem.severity == Severity::Error {
        problem.what.push_str(if kept { "; its last good version stays in force" } else { "; left out" });
    }
    problem
}
