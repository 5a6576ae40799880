//! An error with its causes, as one sentence.

use std::error::Error;

/// The text of `error` followed by those of its causes, each unless what stands before it says it already: some
/// libraries repeat their cause in their own text, others leave it out.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Said(&'static str, #[source] Option<std::fmt::Error>);

    #[test]
    fn a_cause_is_said_once() {
        let cause = std::fmt::Error;
        assert_eq!(chain(&Said("no", None)), "no");
        assert_eq!(chain(&Said("no", Some(cause))), format!("no: {cause}"));
        let told: &'static str = format!("no: {cause}").leak();
        assert_eq!(chain(&Said(told, Some(cause))), told);
    }
}
