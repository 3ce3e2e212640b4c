//! Escapes text for roff(7).

/// Escapes text, so that no character of it is a request or an escape of roff.
pub fn escaped(text: &str) -> String {
    let mut out = String::new();
    for (at, c) in text.char_indices() {
        match c {
            '.' if at == 0 => out.push_str("\\&."),
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '\'' => out.push_str("\\(aq"),
            '`' => out.push_str("\\(ga"),
            '^' => out.push_str("\\(ha"),
            '~' => out.push_str("\\(ti"),
            c if c.is_ascii() => out.push(c),
            c => out.push_str(&format!("\\[u{:04X}]", u32::from(c))),
        }
    }
    out
}

/// A line of prose, with its newline.
pub fn prose(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", escaped(line))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_taken_for_a_request() {
        assert_eq!(escaped(".TH x\\n"), "\\&.TH x\\en");
        assert_eq!(prose("'it' a-b\n§"), "\\(aqit\\(aq a\\-b\n\\[u00A7]\n");
    }
}
