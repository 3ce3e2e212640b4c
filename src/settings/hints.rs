//! Turns what the parser says about a wrong value or key into words for people.

/// What the parser calls types, and the same in plain words.
const TYPES: [(&str, &str); 6] = [
    ("expected usize", "expected a whole number without quotes, 0 or more"),
    ("expected a boolean", "expected true or false, without quotes"),
    ("expected a sequence", "expected a list such as [\"a\", \"b\"]"),
    ("expected a string", "expected text in quotes"),
    ("expected a map", "expected a [section]"),
    ("expected struct", "expected a [section], not a value:"),
];

/// The parser's message, in the words of this project; for an unknown key with the nearest known one instead of them all.
pub fn friendlier(message: &str, section: &str, more: &[&str], elsewhere: &[String]) -> String {
    if !message.starts_with("unknown field") {
        return typed(message);
    }
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let Some((unknown, known)) = names.split_first() else { return message.to_string() };
    let section = if section.is_empty() { String::new() } else { format!(" in [{section}]") };
    let mut known = known.to_vec();
    for name in more {
        if !known.contains(name) {
            known.push(name);
        }
    }
    let mut nearest: Vec<(usize, String)> = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(unknown, name), (*name).to_string()))
        .chain(elsewhere.iter().filter_map(|full| {
            // The same key in another section is a likely slip too.
            let (_, name) = full.rsplit_once('.')?;
            Some((strsim::damerau_levenshtein(unknown, name) + 1, full.clone()))
        }))
        .collect();
    nearest.sort();
    match nearest.first() {
        Some((distance, name)) if *distance <= unknown.len().max(4) / 2 => {
            format!("unknown key{section}; did you mean `{name}`?")
        }
        _ => format!("unknown key{section}; known are {}", known.join(", ")),
    }
}

/// `invalid type: string "x", expected usize` becomes `expected a whole number …, not the text "x"`.
fn typed(message: &str) -> String {
    let message = message.replace("unknown variant", "unknown value");
    let Some((found, expected)) = message.split_once(", expected ") else { return message };
    let found = match found.strip_prefix("invalid type: ").or_else(|| found.strip_prefix("invalid value: ")) {
        Some(found) => found
            .replace("string ", "the text ")
            .replace("integer ", "the number ")
            .replace("floating point ", "the number "),
        None => return message,
    };
    let found = match found.as_str() {
        "sequence" => "a list",
        "map" => "a [section]",
        other => other,
    };
    let expected = format!("expected {expected}");
    let expected = TYPES.iter().find(|(theirs, _)| expected.starts_with(theirs)).map_or(&*expected, |(_, ours)| ours);
    format!("{}, not {found}", expected.trim_end_matches(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_named_as_people_call_them() {
        let of = |message: &str| friendlier(message, "", &[], &[]);
        assert_eq!(
            of("invalid type: string \"4\", expected usize"),
            "expected a whole number without quotes, 0 or more, not the text \"4\""
        );
        assert_eq!(
            of("invalid value: integer `-1`, expected usize"),
            "expected a whole number without quotes, 0 or more, not the number `-1`"
        );
        assert_eq!(of("invalid type: sequence, expected a string"), "expected text in quotes, not a list");
        assert_eq!(of("unknown variant `x`, expected `a` or `b`"), "unknown value `x`, expected `a` or `b`");
    }
}
