//! Set up, build, run, test, bench, tidy.
fn main() {}
