//! As much of Rust's grammar as the rules need: what is code, what is a word, where a function begins.

/// The text with comments, strings and characters blanked; lines stay where they are.
pub(super) fn only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    let mut previous = ' ';
    while let Some(next) = rest.chars().next() {
        let after_word = previous.is_alphanumeric() || previous == '_';
        let length = if after_word { string(rest) } else { string(rest).or_else(|| prefixed(rest)) };
        if let Some(length) = length.or_else(|| comment(rest)).or_else(|| character(rest)) {
            code.extend(rest[..length].chars().map(|hidden| if hidden == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
            previous = ' ';
        } else {
            code.push(next);
            rest = &rest[next.len_utf8()..];
            previous = next;
        }
    }
    code
}

fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    text.starts_with("/*").then(|| text.find("*/").map_or(text.len(), |end| end + 2))
}

fn string(text: &str) -> Option<usize> {
    text.starts_with('"').then(|| quoted(text, '"'))
}

/// `b"…"`, `c"…"`, `r"…"`, `r#"…"#` and their like.
fn prefixed(text: &str) -> Option<usize> {
    let letters = text.len() - text.trim_start_matches(['b', 'c', 'r']).len();
    let raw = text[..letters].contains('r');
    let hashes = text[letters..].len() - text[letters..].trim_start_matches('#').len();
    let begin = letters + hashes;
    if letters == 0 || letters > 2 || !text[begin..].starts_with('"') || (hashes > 0 && !raw) {
        return None;
    }
    if !raw {
        return Some(letters + quoted(&text[letters..], '"'));
    }
    let close = format!("\"{}", "#".repeat(hashes));
    Some(text[begin + 1..].find(&close).map_or(text.len(), |end| begin + 1 + end + close.len()))
}

/// A character, but not a lifetime.
fn character(text: &str) -> Option<usize> {
    let mut inside = text.strip_prefix('\'')?.chars();
    match (inside.next()?, inside.next()?) {
        ('\\', _) => Some(quoted(text, '\'')),
        (only, '\'') => Some(2 + only.len_utf8()),
        _ => None,
    }
}

/// How long the literal is that `text` begins with.
fn quoted(text: &str, close: char) -> usize {
    let mut escaped = false;
    for (at, next) in text.char_indices().skip(1) {
        if next == close && !escaped {
            return at + 1;
        }
        escaped = next == '\\' && !escaped;
    }
    text.len()
}

/// Where `word` stands by itself, as byte offsets.
pub(super) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |next: Option<char>| next.is_some_and(|next| next.is_alphanumeric() || next == '_');
    let starts_as_word = part(word.chars().next());
    let ends_as_word = part(word.chars().next_back());
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = starts_as_word && part(code[..at].chars().next_back());
        let after = ends_as_word && part(code[at + word.len()..].chars().next());
        !before && !after
    })
}

/// The line of a byte offset, from 1.
pub(super) fn line(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

/// Every function with a body: name, first line, number of lines.
pub(super) fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for at in words(code, "fn") {
        let rest = code[at + 2..].trim_start();
        let name: String = rest.chars().take_while(|next| next.is_alphanumeric() || *next == '_').collect();
        if let (false, Some(length)) = (name.is_empty(), body_end(&code[at..])) {
            found.push((name, line(code, at), code[at..at + length].matches('\n').count() + 1));
        }
    }
    found
}

/// Where the first braces close; none for a declaration without a body.
fn body_end(code: &str) -> Option<usize> {
    let (mut braces, mut brackets) = (0_usize, 0_usize);
    for (at, next) in code.char_indices() {
        match next {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets = brackets.saturating_sub(1),
            ';' if braces == 0 && brackets == 0 => return None,
            '{' => braces += 1,
            '}' if braces <= 1 => return (braces == 1).then_some(at + 1),
            '}' => braces -= 1,
            _ => {}
        }
    }
    None
}

pub(super) fn has_function(code: &str, name: &str) -> bool {
    let declared = format!("fn {name}");
    words(code, &declared).next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_characters_are_no_code() {
        for (text, expected) in [
            ("a // unsafe {\nb", "a            \nb"),
            ("a /* x\ny */ b", "a     \n     b"),
            ("f(\"un\\\"safe {\")", "f(            )"),
            ("r#\"a\"b\"# c", "         c"),
            ("bar\"x\"", "bar   "),
            ("match c { '{' => '\\'' }", "match c {     =>      }"),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
        ] {
            assert_eq!(only(text), expected);
        }
    }

    #[test]
    fn functions_are_measured_whole() {
        let code = "fn a() {\n  if b {\n  }\n}\ntrait T { fn none(x: [u8; 2]); }\nfn one() {}";
        assert_eq!(functions(code), [("a".into(), 1, 4), ("one".into(), 6, 1)]);
        assert!(has_function(code, "one") && !has_function(code, "on"));
    }
}
