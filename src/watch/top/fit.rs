//! What fits into a line of a terminal.

use ratatui::text::Line;

/// Columns that a text takes.
pub fn width(text: &str) -> usize {
    Line::raw(text).width()
}

/// A text of at most so many columns: of one that is longer the end is cut, and "…" says so.
pub fn cut(text: &str, most: usize) -> String {
    // A name can be longer than any screen.
    let mut kept: String = text.chars().take(most.saturating_add(1)).collect();
    if kept.len() == text.len() && width(&kept) <= most {
        return kept;
    }
    while !kept.is_empty() && width(&kept) >= most {
        kept.pop();
    }
    if most > 0 { kept + "…" } else { kept }
}

/// The words of a text in lines of at most so many columns; a word that is longer than a line is one alone.
pub fn wrapped<T>(words: Vec<T>, most: usize, width_of: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut lines: Vec<Vec<T>> = Vec::new();
    let mut used = 0;
    for word in words {
        let width = width_of(&word);
        match lines.last_mut() {
            Some(line) if used + 1 + width <= most => {
                line.push(word);
                used += 1 + width;
            }
            _ => {
                lines.push(vec![word]);
                used = width;
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ends_are_cut_and_marked() {
        assert_eq!(["name", "names", "much longer"].map(|t| cut(t, 4)), ["name", "nam…", "muc…"]);
        assert_eq!([0, 1, 2].map(|most| cut("name", most)), ["", "…", "n…"]);
        assert_eq!(cut("日志日志", 5), "日志…", "two columns each");
    }

    #[test]
    fn words_go_on_in_the_next_line() {
        let lines = |most| wrapped(vec!["a", "bcd", "ef"], most, |w: &&str| w.len());
        assert_eq!(lines(5), [vec!["a", "bcd"], vec!["ef"]]);
        assert_eq!(lines(1).len(), 3);
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_it_may_be(text in "\\PC{0,40}", most in 0_usize..30) {
            prop_assert!(width(&cut(&text, most)) <= most);
        }
    }
}
