//! `logweir_server_info`: which host this is, and where its lines are kept.
//!
//! Written as text: the exporter takes a backslash in a label for one that is escaped already, and directories may have any name.

use nix::sys::utsname::uname;
use std::fmt::Write;
use std::path::Path;

const NAME: &str = "logweir_server_info";

/// Adds the gauge to the text of a scrape.
pub fn write(text: &mut String, data_dir: &Path) {
    let host = uname().map(|system| system.nodename().to_string_lossy().into_owned()).unwrap_or_default();
    let (host, data_dir) = (escaped(&host), escaped(&data_dir.to_string_lossy()));
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "# HELP {NAME} Always 1: the name of the host, and the data directory.\n# TYPE {NAME} gauge\n\
         {NAME}{{host=\"{host}\",data_dir=\"{data_dir}\"}} 1"
    );
}

/// A label's value as the text format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::scrape::Scrape;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn any_directory_is_read_back() {
        for dir in ["/var/lib/logweir", "/a \"b\"", "/a\\b\\\\c\\", "/über/日志 🪵", "/a\nb\tc\r", "/a=\"b\",{c}\\n"]
        {
            let mut text = String::new();
            write(&mut text, Path::new(dir));
            assert_eq!(text.lines().count(), 3, "{text}");
            let scrape = Scrape::parse(&text);
            assert_eq!(scrape.label(NAME, "data_dir"), Some(dir), "{text}");
            assert_eq!(scrape.sum(NAME, &[]), 1.0);
            assert!(scrape.label(NAME, "host").is_some_and(|host| !host.is_empty()), "{text}");
        }
        let mut text = String::new();
        write(&mut text, Path::new(OsStr::from_bytes(b"/no\xfftext")));
        assert_eq!(Scrape::parse(&text).label(NAME, "data_dir"), Some("/no\u{fffd}text"));
    }
}
