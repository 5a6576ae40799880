//! The text of a file → its documents → resources, each on its own: a broken one costs only itself.

use std::{borrow::Cow, sync::Arc};

use serde::de::DeserializeOwned;
use serde_yaml::{Mapping, Value};

use super::{
    Problem, Severity,
    fields::{self, Step},
    names,
    problem::Report,
    resource::{Item, Key, Kind, Metadata, Resource},
    validate,
};

/// The ConfigMap of the mesh's settings.
const CONFIG_MAP: &str = "istio";

/// What one document (or one item of a `List`) turned out to be.
#[derive(Debug)]
pub(crate) enum Document {
    /// Nobody can say which resource it is.
    Broken(Problem),
    /// Nothing to keep; the problem says why.
    Unused(Problem),
    /// A resource, in force unless it is `None`.
    Named(Key, Option<Resource>, Vec<Problem>),
}

/// What the document `chunk` after line `line` of `file` holds: a `List` several resources, an empty one none.
pub(crate) fn read(file: &Arc<str>, line: usize, chunk: &str) -> Vec<Document> {
    let mut documents = Vec::new();
    match serde_yaml::from_str::<Value>(chunk) {
        Ok(Value::Null) => {}
        Ok(value) => read_value(file, line, prune(value), &mut documents),
        Err(error) => documents.push(Document::Broken(not_yaml(file, line, &error))),
    }
    documents
}

/// The documents with the number of lines before each. Splitting comes before parsing, so that a document that
/// is no YAML does not hide those after it; nothing but a marker can start a line with `---`.
pub(crate) fn split(text: &str) -> Vec<(usize, Cow<'_, str>)> {
    let text = text.trim_start_matches('\u{feff}');
    let mut chunks = Vec::new();
    let (mut line_before, mut begin, mut at) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("..."));
        if rest.is_some_and(|rest| is_marker(line, rest)) {
            chunks.push((line_before, without_directives(&text[begin..at])));
            (line_before, begin) = (number, at + "---".len());
        }
        at += line.len();
    }
    chunks.push((line_before, without_directives(&text[begin..])));
    chunks
}

/// A line that begins or ends a document; something may stand behind one that begins it.
fn is_marker(line: &str, rest: &str) -> bool {
    let begins = line.starts_with('-') && rest.starts_with(char::is_whitespace);
    begins || rest.trim_end().is_empty()
}

/// A directive (`%YAML 1.2`) before the document would need the marker that was just cut off.
fn without_directives(chunk: &str) -> Cow<'_, str> {
    let blank = |line: &&str| line.starts_with('%') || line.trim().is_empty();
    let head: usize = chunk.split_inclusive('\n').take_while(blank).map(str::len).sum();
    if !chunk[..head].contains('%') {
        return chunk.into();
    }
    let lines = chunk[..head].split_inclusive('\n');
    let plain: String = lines.map(|line| if line.starts_with('%') { "\n" } else { line }).collect();
    (plain + &chunk[head..]).into()
}

/// A document that does not parse.
fn not_yaml(file: &str, lines_before: usize, error: &serde_yaml::Error) -> Problem {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or_default();
    let line = lines_before + error.location().map_or(1, |location| location.line());
    broken(file, format!("line {line}: not YAML: {reason}; the resources it held stay as they were"))
}

/// An error on the file as a whole.
fn broken(file: &str, what: String) -> Problem {
    Problem {
        file: file.to_owned(),
        resource: String::new(),
        field: String::new(),
        what,
        severity: Severity::Error,
    }
}

/// `null` is how YAML writes "not given": such fields go.
fn prune(value: Value) -> Value {
    match value {
        Value::Mapping(map) => {
            let given = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Mapping(given.map(|(key, value)| (key, prune(value))).collect())
        }
        Value::Sequence(items) => Value::Sequence(items.into_iter().map(prune).collect()),
        other => other,
    }
}

/// One document, which may be a `List` of several.
fn read_value(file: &Arc<str>, line: usize, value: Value, documents: &mut Vec<Document>) {
    let Value::Mapping(mut map) = value else {
        let what = format!(
            "the document after line {line} is not a resource; it needs apiVersion, kind and metadata"
        );
        documents.push(Document::Broken(broken(file, what)));
        return;
    };
    let is_list = text(&map, "kind").is_some_and(|kind| kind == "List");
    match map.remove("items") {
        Some(Value::Sequence(items)) if is_list => {
            items.into_iter().for_each(|item| read_value(file, line, item, documents));
        }
        Some(items) => {
            map.insert("items".into(), items);
            documents.extend(read_resource(file, line, map));
        }
        None if is_list => {}
        None => documents.extend(read_resource(file, line, map)),
    }
}

/// The string at `key`.
fn text<'a>(map: &'a Mapping, key: &str) -> Option<&'a str> {
    map.get(key).and_then(Value::as_str)
}

/// One resource; none: one that is not meant for a mesh.
fn read_resource(file: &Arc<str>, line: usize, mut map: Mapping) -> Option<Document> {
    let place = format!("the document after line {line}");
    let (Some(version), Some(kind_name)) = (text(&map, "apiVersion"), text(&map, "kind")) else {
        let what = format!("{place} lacks apiVersion or kind, or they are not text");
        return Some(Document::Broken(broken(file, what)));
    };
    let (version, kind_name) = (version.to_owned(), kind_name.to_owned());
    let metadata = match metadata(map.remove("metadata").unwrap_or_default()) {
        Ok(metadata) => metadata,
        Err((field, what)) => {
            return Some(Document::Broken(broken(file, format!("{place} ({kind_name}): {field}: {what}"))));
        }
    };
    let Some(kind) = served(&version, &kind_name) else {
        let resource = format!("{kind_name} {}/{}", metadata.namespace, metadata.name);
        let mut report = Report::new(file, resource);
        report.warn("", format!("not used: Shunt does not read {kind_name} of {version}"));
        return Some(Document::Unused(report.problems.remove(0)));
    };
    if kind == Kind::ConfigMap && metadata.name != CONFIG_MAP {
        return other_config_map(file, &metadata, &map);
    }
    if let Some((field, what)) = odd_name(&metadata) {
        return Some(Document::Broken(broken(file, format!("{place} ({kind_name}): {field}: {what}"))));
    }
    let key = Key { kind, namespace: metadata.namespace.clone(), name: metadata.name.clone() };
    let mut report = Report::new(file, key.to_string());
    check_version(kind, &version, &mut report);
    validate::annotations(kind, &metadata.annotations, &mut report);
    let resource = build(file, &key, metadata, map, &mut report);
    let resource = resource.filter(|_| !report.is_fatal());
    Some(Document::Named(key, resource, report.problems))
}

/// Anybody may keep a ConfigMap beside Istio's: nothing is said of it, but of a mesh's that belongs to a revision.
fn other_config_map(file: &str, metadata: &Metadata, map: &Mapping) -> Option<Document> {
    let has_mesh = map.get("data").is_some_and(|data| data.get("mesh").is_some());
    if !has_mesh || !metadata.name.starts_with(CONFIG_MAP) {
        return None;
    }
    let resource = format!("{} {}/{}", Kind::ConfigMap.as_str(), metadata.namespace, metadata.name);
    let mut report = Report::new(file, resource);
    report.warn("metadata.name", format!("not used: the mesh's own is called {CONFIG_MAP}; rename it"));
    Some(Document::Unused(report.problems.remove(0)))
}

/// The kind, if this API group's kind of that name is served.
fn served(version: &str, name: &str) -> Option<Kind> {
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let (kind, _) = Kind::ALL.into_iter().find(|(_, known)| *known == name)?;
    let home = if kind.is_core() { "" } else { "networking.istio.io" };
    (group == home).then_some(kind)
}

/// Versions other than these have other schemas.
fn check_version(kind: Kind, version: &str, report: &mut Report<'_>) {
    let short = version.rsplit('/').next().unwrap_or_default();
    let known = if kind.is_core() { &["v1"][..] } else { &["v1", "v1beta1", "v1alpha3"] };
    if !known.contains(&short) {
        let group = version.strip_suffix(short).unwrap_or_default();
        report.error("apiVersion", format!("{version} is not served; write {group}{}", known[0]));
    }
}

/// Name, namespace, labels; or the field that is wrong and why.
fn metadata(value: Value) -> Result<Metadata, (String, String)> {
    let value = if value.is_null() { Value::Mapping(Mapping::new()) } else { value };
    let mut metadata: Metadata = serde_path_to_error::deserialize(value).map_err(|error| {
        (format!("metadata.{}", error.path()).replace(".?", ""), plain(&error.inner().to_string()))
    })?;
    if metadata.name.is_empty() {
        return Err(("metadata.name".to_owned(), "is missing; a resource needs a name".to_owned()));
    }
    if metadata.namespace.is_empty() {
        metadata.namespace = "default".to_owned();
    }
    Ok(metadata)
}

/// Names become part of hosts files and logs: nothing else may be smuggled in.
fn odd_name(metadata: &Metadata) -> Option<(&'static str, String)> {
    let names = [("metadata.name", &metadata.name), ("metadata.namespace", &metadata.namespace)];
    let is_odd = |name: &str| name.len() > 253 || !name.split('.').all(names::is_label);
    let (field, name) = names.into_iter().find(|(_, name)| is_odd(name))?;
    Some((field, format!("{name:?} is not a name; write letters, digits, - and dots")))
}

/// The resource, if its shape is right; its problems go to `report`.
fn build(
    file: &Arc<str>,
    key: &Key,
    metadata: Metadata,
    map: Mapping,
    report: &mut Report<'_>,
) -> Option<Resource> {
    let body = body(key.kind, map, report)?;
    let envelope = Envelope { file, key, metadata };
    Some(match key.kind {
        Kind::VirtualService => {
            Resource::VirtualService(envelope.item(body, report, validate::virtual_service)?)
        }
        Kind::DestinationRule => {
            Resource::DestinationRule(envelope.item(body, report, validate::destination_rule)?)
        }
        Kind::ServiceEntry => Resource::ServiceEntry(envelope.item(body, report, validate::service_entry)?),
        Kind::WorkloadEntry => {
            Resource::WorkloadEntry(envelope.item(body, report, validate::workload_entry)?)
        }
        Kind::Gateway => Resource::Gateway(envelope.item(body, report, validate::gateway)?),
        Kind::Service => Resource::Service(envelope.item(body, report, validate::service)?),
        Kind::Pod => Resource::Pod(envelope.item(body, report, validate::pod)?),
        Kind::Sidecar => Resource::Sidecar(envelope.item(body, report, validate::sidecar)?),
        Kind::ConfigMap => Resource::ConfigMap(envelope.item(body, report, validate::mesh_config)?),
    })
}

/// The part that the kind's type describes: `spec`, for a Pod `spec` and `status`, for a ConfigMap what `mesh` says.
fn body(kind: Kind, mut map: Mapping, report: &mut Report<'_>) -> Option<Value> {
    let (known, home) = match kind {
        Kind::ConfigMap => (&["apiVersion", "kind", "data", "binaryData", "immutable"][..], "data.mesh"),
        _ => (&["apiVersion", "kind", "spec", "status"][..], "spec"),
    };
    for key in map.keys().filter_map(Value::as_str).filter(|key| !known.contains(key)) {
        let what = format!("is not a field of {} and has no effect; is it part of {home}?", kind.as_str());
        report.warn(key, what);
    }
    match kind {
        Kind::Pod => return Some(Value::Mapping(map)),
        Kind::ConfigMap => return mesh(map.remove("data").unwrap_or_default(), report),
        _ => {}
    }
    let spec = map.remove("spec");
    if spec.is_none() {
        report.error("spec", "is missing; everything a resource wants stands under spec");
    }
    spec
}

/// What the text under `mesh` says: YAML of its own.
fn mesh(mut data: Value, report: &mut Report<'_>) -> Option<Value> {
    report.enter("data.mesh");
    let text = data.get_mut("mesh").map(std::mem::take);
    let parsed = match &text {
        None => {
            report.warn("", "is missing: Istio's defaults are in force");
            Ok(Value::Null)
        }
        Some(Value::String(text)) => serde_yaml::from_str(text),
        Some(_) => {
            report.error("", "is not text; write mesh: |- and indent what follows");
            return None;
        }
    };
    match parsed {
        Ok(Value::Null) => Some(Value::Mapping(Mapping::new())),
        Ok(value) => Some(prune(value)),
        Err(error) => {
            report.error("", format!("not YAML: {error}"));
            None
        }
    }
}

/// What surrounds a spec.
struct Envelope<'a> {
    file: &'a Arc<str>,
    key: &'a Key,
    metadata: Metadata,
}

impl Envelope<'_> {
    /// Reads and checks the spec.
    fn item<T: DeserializeOwned>(
        self,
        body: Value,
        report: &mut Report<'_>,
        validate: impl FnOnce(&T, &mut Report<'_>),
    ) -> Option<Arc<Item<T>>> {
        let spec = typed(self.key.kind, body, report)?;
        validate(&spec, report);
        Some(Arc::new(Item { file: self.file.clone(), key: self.key.clone(), metadata: self.metadata, spec }))
    }
}

/// `value` as a `T`. Fields that `T` does not have are reported, and so is the field that does not fit.
fn typed<T: DeserializeOwned>(kind: Kind, value: Value, report: &mut Report<'_>) -> Option<T> {
    let mut unread = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(value, &mut track);
    let result = serde_ignored::deserialize(deserializer, |path| {
        let mut steps = Vec::new();
        walk(&path, &mut steps);
        unread.push(steps);
    });
    fields::all_unread(kind, &unread, report);
    result
        .map_err(|error: serde_yaml::Error| {
            let path = track.path().to_string();
            report.error(if path == "." { "" } else { &path }, plain(&error.to_string()));
        })
        .ok()
}

/// The steps of a path, outermost first.
fn walk(path: &serde_ignored::Path<'_>, steps: &mut Vec<Step>) {
    use serde_ignored::Path;
    match path {
        Path::Root => {}
        Path::Seq { parent, index } => {
            walk(parent, steps);
            steps.push(Step::Index(*index));
        }
        Path::Map { parent, key } => {
            walk(parent, steps);
            steps.push(Step::Field(key.clone()));
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            walk(parent, steps);
        }
    }
}

/// A message of serde without the words of programming languages.
fn plain(message: &str) -> String {
    let words = [
        ("expected i64", "expected a whole number"),
        ("expected u32", "expected a whole number"),
        ("expected struct ", "expected the fields of "),
        ("expected a sequence", "expected a list"),
        ("invalid type: sequence", "invalid type: list"),
        ("expected a map", "expected fields"),
        ("invalid type: map", "invalid type: fields"),
    ];
    let text = words.iter().fold(message.to_owned(), |text, (from, to)| text.replace(from, to));
    match text.as_str() {
        text if text.starts_with("invalid type") && text.ends_with("expected a string") => {
            format!("{text}; put it in quotes")
        }
        _ => text,
    }
}
