//! README's table of supported fields keeps its word: every row names a test that exists.

use super::Fault;

/// `exists` tells whether the project has a function of that name.
pub(super) fn faults(readme: &str, exists: impl Fn(&str) -> bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut tables = 0;
    let mut inside = false;
    for (number, line) in readme.lines().enumerate() {
        let cells = cells(line);
        let (Some(first), Some(last)) = (cells.first(), cells.last()) else {
            inside = false;
            continue;
        };
        if is_head(first, last) {
            tables += 1;
            inside = true;
        } else if inside && !first.starts_with(['-', ':']) {
            faults.extend(row(first, last, &exists).into_iter().map(|fault| (number + 1, fault)));
        }
    }
    if tables == 0 {
        faults.push((1, "the table of supported fields, `| field | … | test |`, is missing".to_owned()));
    }
    faults
}

fn is_head(first: &str, last: &str) -> bool {
    let (first, last) = (first.to_lowercase(), last.to_lowercase());
    first.starts_with("field") && last.starts_with("test")
}

fn row(field: &str, last: &str, exists: &impl Fn(&str) -> bool) -> Vec<String> {
    let tests: Vec<_> = last.split('`').skip(1).step_by(2).collect();
    if tests.is_empty() {
        return vec![format!("{field} names no test that shows it")];
    }
    let absent = tests.iter().filter(|test| !exists(test.rsplit("::").next().unwrap_or(test)));
    absent.map(|test| format!("{field} names the test {test}, which is nowhere")).collect()
}

/// None for a line that is no table row.
fn cells(line: &str) -> Vec<&str> {
    let row = line.trim().strip_prefix('|').and_then(|line| line.strip_suffix('|'));
    row.map(|row| row.split('|').map(str::trim).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rows: &str, expected: &[(usize, &str)]) {
        let found =
            faults(&format!("| Field | Meaning | Test |\n|---|---|---|\n{rows}"), |test| test == "splits");
        let same = |(found, expected): (&Fault, &(usize, &str))| {
            found.0 == expected.0 && found.1.contains(expected.1)
        };
        assert!(found.len() == expected.len() && found.iter().zip(expected).all(same), "{found:?}");
    }

    #[test]
    fn each_row_names_a_test_that_exists() {
        check("| `tcp.route` | split | `splits`, `route::splits` |\n", &[]);
        check("| `tcp.route` | split | yes |\n", &[(3, "no test")]);
        check("| `tcp.route` | split | `gone` |\n\n| other | table |\n", &[(3, "gone")]);
    }

    #[test]
    fn the_table_must_be_there() {
        assert!(faults("# Shunt\n", |_| true)[0].1.contains("missing"));
    }
}
