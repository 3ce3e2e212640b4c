//! Reads options from environment variables.

/// Variables that stand for an option of the command line.
const NAMED: [&str; 6] =
    ["LOGWEIR_CONFIG", "LOGWEIR_LISTEN", "LOGWEIR_DATA_DIR", "LOGWEIR_ADMIN", "LOGWEIR_NO_SANDBOX", "LOGWEIR_SHIP"];

/// Keys that are in no section; `data_dir` has a flag and variable of its own.
const TOP: [&str; 3] = ["engine", "shutdown_timeout", "drain_delay"];

/// Overrides from the environment: `LOGWEIR_STORAGE__SYNC_INTERVAL=1s` is `storage.sync_interval`, `LOGWEIR_ENGINE=epoll` is `engine`.
/// Other names without a double underscore do not count, because a container platform sets some with the same beginning.
#[must_use]
pub fn overrides_from_environment(variables: impl Iterator<Item = (String, String)>) -> Vec<(String, String, String)> {
    let mut found: Vec<_> = variables
        .filter_map(|(name, value)| {
            let key = name.strip_prefix("LOGWEIR_")?;
            (key.contains("__") || TOP.contains(&key.to_lowercase().as_str()))
                .then(|| (key.to_lowercase().replace("__", "."), value, format!("environment variable {name}")))
        })
        .collect();
    found.sort();
    found
}

/// Variables that do nothing but resemble one of logweir's, each with the one that was probably meant. A container platform sets
/// others with the same beginning (`LOGWEIR_PORT_5170_TCP`); those resemble none.
#[must_use]
pub fn near_misses(names: impl Iterator<Item = String>, keys: &[String]) -> Vec<(String, String)> {
    let variable = |key: &String| format!("LOGWEIR_{}", key.to_uppercase().replace('.', "__"));
    let of_keys: Vec<String> = keys.iter().filter(|key| key.contains('.')).map(variable).collect();
    let known: Vec<String> =
        NAMED.iter().map(ToString::to_string).chain(TOP.iter().map(|key| variable(&key.to_string()))).collect();
    let is_near = |name: &str, meant: &str| {
        let distance = strsim::damerau_levenshtein(name, meant);
        let is_longer = name.strip_prefix(meant).is_some_and(|more| more.len() <= 3);
        distance > 0 && (distance == 1 || is_longer || (distance == 2 && name.len() > "LOGWEIR_".len() + 4))
    };
    // One underscore where two belong; in between may be the name of a listener or stream.
    let is_flat = |name: &str, key: &str| match key.replace("__", "_").split_once("_NAME_") {
        None => key.replace("__", "_") == name,
        Some((before, after)) => {
            let inner = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            inner.is_some_and(|inner| inner.len() > 2 && inner.starts_with('_') && inner.ends_with('_'))
        }
    };
    let is_taken = |name: &str| {
        let key = name.strip_prefix("LOGWEIR_");
        key.is_some_and(|key| key.contains("__")) || known.iter().any(|known| known == name)
    };
    let mut found: Vec<(String, String)> = names
        .filter(|name| !is_taken(name))
        .filter_map(|name| {
            let flat = of_keys.iter().find(|key| is_flat(&name, key));
            let named = || known.iter().find(|known| is_near(&name, known)).cloned();
            Some((name.clone(), flat.cloned().or_else(named)?))
        })
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_found_and_what_a_platform_sets_is_not() {
        let names = [
            "LOGWEIR_LISTN",
            "LOGWEIR_DATADIR",
            "LOGWEIR_STORAGE_SYNC_INTERVAL",
            "LOGWEIR_LISTEN",
            "LOGWEIR_ENGINE",
            "LOGWEIR_PORT",
            "LOGWEIR_SERVICE_HOST",
            "LOGWEIR_PORT_5170_TCP_ADDR",
            "LOGWEIR_BUFFER__MEMORY",
            "OTHER_LISTEN",
            "LOGWEIR__ENGINE",
            "LOGWEIR_LISTENERS",
            "LOGWEIR_LISTENER_LINES_ADDRESS",
            "LOGWEIR_LISTENER_LINES_PORT",
            "LOGWIER_ADMIN",
        ];
        let keys = crate::config::all_keys(crate::protocol::Protocols::default());
        let found = near_misses(names.iter().map(ToString::to_string), &keys);
        let expected = [
            ("LOGWEIR_DATADIR", "LOGWEIR_DATA_DIR"),
            ("LOGWEIR_LISTENERS", "LOGWEIR_LISTEN"),
            ("LOGWEIR_LISTENER_LINES_ADDRESS", "LOGWEIR_LISTENER__NAME__ADDRESS"),
            ("LOGWEIR_LISTN", "LOGWEIR_LISTEN"),
            ("LOGWEIR_STORAGE_SYNC_INTERVAL", "LOGWEIR_STORAGE__SYNC_INTERVAL"),
            ("LOGWEIR__ENGINE", "LOGWEIR_ENGINE"),
            ("LOGWIER_ADMIN", "LOGWEIR_ADMIN"),
        ];
        assert_eq!(found, expected.map(|(a, b)| (a.to_string(), b.to_string())));
    }
}
