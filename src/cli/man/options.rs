//! Makes logweir.toml(5) from the comments in config/logweir.toml, so that each key is explained in one place only.

use super::roff::{escaped, prose};

/// The documented configuration.
const DOCUMENTED: &str = include_str!("../../../config/logweir.toml");

/// The kinds of lines in it.
#[derive(Debug, PartialEq)]
enum Line<'a> {
    Blank,
    Section(&'a str),
    Key(&'a str, &'a str),
    Example(&'a str),
    Prose(&'a str),
}

/// Finds out the kind of a line, without its comment sign: keys are commented out with their defaults.
fn read(line: &str) -> Line<'_> {
    let text = line.strip_prefix('#').unwrap_or(line);
    let text = text.strip_prefix(' ').unwrap_or(text);
    if text.trim().is_empty() {
        return Line::Blank;
    }
    if let Some(name) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        return Line::Section(name);
    }
    if let Some((key, value)) = text.split_once(" = ")
        && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    {
        return Line::Key(key, value);
    }
    if text.starts_with(' ') { Line::Example(text.trim()) } else { Line::Prose(text) }
}

/// The page so far, prose that waits for its key or section, and keys that wait for others with the same prose.
#[derive(Default)]
struct Page {
    text: String,
    about: String,
    keys: Vec<String>,
}

impl Page {
    /// Ends a paragraph of prose.
    fn paragraph(&mut self) {
        self.entry();
        if !self.about.is_empty() {
            self.text += ".PP\n";
            self.text += &std::mem::take(&mut self.about);
        }
    }

    /// Writes the keys gathered so far, with their prose.
    fn entry(&mut self) {
        if self.keys.is_empty() {
            return;
        }
        for (i, key) in std::mem::take(&mut self.keys).into_iter().enumerate() {
            self.text += if i == 0 { ".TP\n" } else { ".TQ\n" };
            self.text += &key;
        }
        if self.about.is_empty() {
            self.about = prose("As above.");
        }
        self.text += &std::mem::take(&mut self.about);
    }
}

/// Makes the page.
pub fn page() -> String {
    let text = format!(
        ".TH LOGWEIR.TOML 5 \"\" \"logweir {}\" logweir\n.SH NAME\nlogweir.toml \\- configuration of the logweir server\n\
         .SH DESCRIPTION\n",
        env!("CARGO_PKG_VERSION")
    );
    let mut page = Page { text, ..Page::default() };
    let mut is_introduction = true;
    for line in DOCUMENTED.lines().map(read) {
        // Prose behind keys is about the next ones.
        if !matches!(line, Line::Key(..)) {
            page.entry();
        }
        match line {
            Line::Blank => page.paragraph(),
            Line::Prose(text) => page.about += &prose(text),
            Line::Example(text) => page.about += &format!(".br\n{}.br\n", prose(text)),
            Line::Section(name) => {
                if is_introduction {
                    page.text += ".SH OPTIONS\n";
                    is_introduction = false;
                }
                page.text += &format!(".SS [{}]\n", escaped(name));
                page.text += &std::mem::take(&mut page.about);
            }
            Line::Key(key, value) => {
                if is_introduction {
                    page.text += ".SH OPTIONS\n";
                    is_introduction = false;
                }
                page.keys.push(format!("\\fB{}\\fR = {}\\&\n", escaped(key), escaped(value)));
            }
        }
    }
    page.paragraph();
    page.text += ".SH \"SEE ALSO\"\n\\fBlogweir\\fR(1), \\fBlogweir\\-serve\\fR(1), \\fBlogweir\\-check\\fR(1)\n";
    page.text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_they_look_like() {
        assert_eq!(read("#io = \"auto\""), Line::Key("io", "\"auto\""));
        assert_eq!(read("# max_age = \"7days\""), Line::Key("max_age", "\"7days\""));
        assert_eq!(
            read("# Lines that begin with \"#key = value\" show"),
            Line::Prose("Lines that begin with \"#key = value\" show")
        );
        assert_eq!(read("# [token.app]"), Line::Section("token.app"));
        assert_eq!(read("#   TOKEN=$(x)"), Line::Example("TOKEN=$(x)"));
        assert_eq!(read("#"), Line::Blank);
    }
}
