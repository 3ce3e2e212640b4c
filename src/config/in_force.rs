//! Lists every value of a configuration that is in force, as a configuration file.

use crate::settings::Places;
use std::collections::BTreeMap;
use std::fmt;

/// See the module documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// The keys of each section; those without a section come first.
    sections: BTreeMap<String, Vec<Setting>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    key: String,
    /// As TOML; `None`: not set, and there is no default.
    value: Option<String>,
    /// Where it is written; `None`: it is a default.
    place: Option<String>,
}

impl InForce {
    /// What was noted while the configuration was checked.
    pub(super) fn of(places: &Places) -> InForce {
        let mut sections: BTreeMap<String, Vec<Setting>> = BTreeMap::new();
        for (path, value) in places.all_in_force() {
            let (section, key) = path.rsplit_once('.').unwrap_or(("", &path));
            let place = places.place_of(&path).map(String::from);
            sections.entry(section.into()).or_default().push(Setting { key: key.into(), value, place });
        }
        InForce { sections }
    }

    /// All keys, with their sections.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let of = |(section, settings): (&String, &Vec<Setting>)| {
            let dot = if section.is_empty() { "" } else { "." };
            settings.iter().map(|s| format!("{section}{dot}{}", s.key)).collect::<Vec<_>>()
        };
        self.sections.iter().flat_map(of).collect()
    }
}

impl fmt::Display for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (section, settings) in &self.sections {
            if !section.is_empty() {
                writeln!(f, "\n[{section}]")?;
            }
            for Setting { key, value, place } in settings {
                let place = place.as_ref().map(|place| format!("  # {place}")).unwrap_or_default();
                match value {
                    Some(value) => writeln!(f, "{key} = {value}{}", place.replace('\n', " "))?,
                    None => writeln!(f, "# {key} is not set")?,
                }
            }
        }
        Ok(())
    }
}
