//! What one line says, as text or JSON.

use std::fmt::Write;

use super::{Entry, Format};

/// Strings are cut here: names come from outside.
const LONGEST: usize = 256;

/// A field's value.
enum Value {
    Number(u128),
    Text(String),
}

/// Appends `entry` and a newline.
pub(super) fn append(format: Format, entry: &Entry, out: &mut String) {
    let fields = fields(entry);
    if format == Format::Json {
        out.push('{');
    }
    for (index, (key, value)) in fields.iter().enumerate() {
        match format {
            Format::Text => append_text(key, value, index > 0, out),
            Format::Json => append_json(key, value, index > 0, out),
        }
    }
    out.push_str(if format == Format::Json { "}\n" } else { "\n" });
}

/// All fields, in the order of the line.
fn fields(entry: &Entry) -> [(&'static str, Value); 14] {
    let text = |value: &dyn std::fmt::Display| Value::Text(value.to_string());
    let or_dash = |value: Option<String>| Value::Text(value.unwrap_or_else(|| "-".to_owned()));
    [
        ("time", Value::Text(humantime::format_rfc3339_millis(entry.time).to_string())),
        ("duration_ms", Value::Number(entry.duration.as_millis())),
        ("workload", Value::Text(format!("{}/{}", entry.workload.namespace, entry.workload.name))),
        ("source", text(&entry.source)),
        ("original_destination", text(&entry.destination)),
        ("route", or_dash(entry.route.as_ref().map(|route| route.name.clone()))),
        ("cluster", or_dash(entry.cluster.as_ref().map(ToString::to_string))),
        ("endpoint", or_dash(entry.endpoint.map(|endpoint| endpoint.to_string()))),
        ("sent_bytes", Value::Number(entry.sent.into())),
        ("received_bytes", Value::Number(entry.received.into())),
        ("response_flags", text(&entry.flag)),
        ("cause", text(&entry.cause.as_str())),
        ("path", text(&entry.path)),
        ("requested_server_name", or_dash(entry.server_name.as_deref().map(str::to_owned))),
    ]
}

fn append_text(key: &str, value: &Value, more: bool, out: &mut String) {
    let space = if more { " " } else { "" };
    // Writing to a String does not fail.
    let _ = match value {
        Value::Number(number) => write!(out, "{space}{key}={number}"),
        Value::Text(text) if is_plain(text) => write!(out, "{space}{key}={text}"),
        Value::Text(text) => write!(out, "{space}{key}={}", quoted(text)),
    };
}

fn append_json(key: &str, value: &Value, more: bool, out: &mut String) {
    let comma = if more { "," } else { "" };
    let _ = match value {
        Value::Number(number) => write!(out, "{comma}\"{key}\":{number}"),
        Value::Text(text) => write!(out, "{comma}\"{key}\":{}", quoted(text)),
    };
}

/// Whether text can stand without quotes and be split at spaces and at the first `=`.
fn is_plain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'=');
    !text.is_empty() && text.len() <= LONGEST && text.bytes().all(plain)
}

/// A JSON string, cut to [`LONGEST`] bytes of the original.
fn quoted(text: &str) -> String {
    let cut = &text[..text.floor_char_boundary(LONGEST)];
    // JSON leaves DEL and the C1 controls as they are; terminals would act on them.
    cut.chars().fold(String::from('"'), |mut out, char| {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            char if char.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(char))),
            char => out.push(char),
        }
        out
    }) + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_strings_are_quoted_escaped_and_cut() {
        assert_eq!(quoted("a\n\u{1b}\u{9b}\"\\"), r#""a\u000a\u001b\u009b\"\\""#);
        assert_eq!(quoted(&"ä".repeat(500)).len(), LONGEST + 2);
        assert!(is_plain("outbound|9000|v1|tcp-echo.default.svc.cluster.local"));
        for odd in ["", "a b", "a=b", "a\"", "ä", "a\n"] {
            assert!(!is_plain(odd), "{odd:?}");
        }
    }
}
