//! What is wrong with a resource, in words that let its owner mend it.

use std::fmt::{self, Write as _};

/// Something wrong with a resource, in words that let its owner mend it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file (or API server) it came from.
    pub file: String,
    /// `VirtualService default/tcp-echo`; empty when the file itself cannot be read as YAML.
    pub resource: String,
    /// `tcp[0].route[1].weight`; empty when the whole resource is meant.
    pub field: String,
    /// What is wrong, and what to write instead.
    pub what: String,
    /// How much of the resource is lost.
    pub severity: Severity,
}

/// What a problem costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The resource is in force, without what the problem names.
    Warning,
    /// The resource is left out; its last good version, if there was one, stays in force.
    Error,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_plain(f, &self.file)?;
        for part in [&self.resource, &self.field, &self.what] {
            if !part.is_empty() {
                f.write_str(": ")?;
                write_plain(f, part)?;
            }
        }
        Ok(())
    }
}

/// One line, whatever a file says: control characters are written as escapes.
fn write_plain(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    text.chars().try_for_each(|char| match char {
        char if char.is_control() => write!(f, "{}", char.escape_default()),
        char => f.write_char(char),
    })
}

/// Collects the problems of one resource while it is read.
pub(crate) struct Report<'a> {
    file: &'a str,
    resource: String,
    /// A document inside the resource that the fields are fields of: `data.mesh`.
    inside: &'static str,
    /// What was found so far.
    pub(crate) problems: Vec<Problem>,
}

impl<'a> Report<'a> {
    /// An empty report on `resource` of `file`.
    pub(crate) fn new(file: &'a str, resource: String) -> Self {
        Self { file, resource, inside: "", problems: Vec::new() }
    }

    /// What follows is about a document inside the resource.
    pub(crate) fn enter(&mut self, inside: &'static str) {
        self.inside = inside;
    }

    /// Something that costs only itself.
    pub(crate) fn warn(&mut self, field: impl Into<String>, what: impl Into<String>) {
        self.add(field.into(), what.into(), Severity::Warning);
    }

    /// Something that costs the resource.
    pub(crate) fn error(&mut self, field: impl Into<String>, what: impl Into<String>) {
        self.add(field.into(), what.into(), Severity::Error);
    }

    /// Whether the resource is lost.
    pub(crate) fn is_fatal(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }

    fn add(&mut self, field: String, what: String, severity: Severity) {
        let parts = [self.inside, &field];
        let field = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
        let (file, resource) = (self.file.to_owned(), self.resource.clone());
        self.problems.push(Problem { file, resource, field, what, severity });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_whatever_the_file_says() {
        let mut report = Report::new("a.yaml", "Kind default/b".to_owned());
        report.warn("x", "\"1\n\u{1b}[2J\" is odd");
        let line = report.problems[0].to_string();
        assert_eq!(line, "a.yaml: Kind default/b: x: \"1\\n\\u{1b}[2J\" is odd");
    }
}
