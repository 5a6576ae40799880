//! What `/metrics` said, and questions to it.

/// One scrape.
#[derive(Clone, Debug)]
pub struct Metrics(String);

impl Metrics {
    /// Takes the text of a scrape.
    pub fn parse(text: String) -> Self {
        Self(text)
    }

    /// The sum of all series of `name` that carry every one of `labels`; 0 when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let wanted: Vec<_> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        self.series(name).filter(|line| wanted.iter().all(|label| line.contains(label))).map(value).sum()
    }

    /// The lines of `name`.
    pub fn series<'text>(&'text self, name: &'text str) -> impl Iterator<Item = &'text str> {
        self.0.lines().filter(move |line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
        })
    }

    /// The whole text, for messages.
    pub fn text(&self) -> &str {
        &self.0
    }
}

fn value(line: &str) -> u64 {
    let number = line.rsplit(' ').next().unwrap_or_default();
    number.parse::<f64>().unwrap_or_else(|_| panic!("no value in {line:?}")) as u64
}
