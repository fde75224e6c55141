//! Section `log`.

use std::path::Path;

use serde::Deserialize;

use super::environment::PREFIX;

/// Section `log`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Log filter, such as `info` or `tokenbus=debug`.
    pub filter: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The format of the log as far as it can be read, for the line that says why the settings cannot be.
pub(crate) fn log_format(file: Option<&Path>) -> LogFormat {
    let name = format!("{PREFIX}LOG__FORMAT");
    let format = super::variables()
        .filter_map(Result::ok)
        .find(|(given, _)| given.eq_ignore_ascii_case(&name))
        .map(|(_, format)| format);
    let format = format.or_else(|| format_in(&std::fs::read_to_string(file?).ok()?));
    if format.as_deref() == Some("json") { LogFormat::Json } else { LogFormat::Text }
}

/// Finds the format in a file that may be broken elsewhere.
fn format_in(text: &str) -> Option<String> {
    let (settings, _errors) = toml::de::DeTable::parse_recoverable(text);
    let log = settings.get_ref().get("log")?.get_ref().as_table()?;
    log.get("format")?.get_ref().as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o17_the_format_is_found_in_a_broken_file() {
        #[track_caller]
        fn check(text: &str, expected: Option<&str>) {
            assert_eq!(format_in(text).as_deref(), expected, "{text}");
        }
        check("[log]\nformat = \"json\"\n", Some("json"));
        check("[nats]\nurl = nats://x\n[log]\nformat = \"json\"\n", Some("json"));
        check("log.format = \"json\"\n[nats\nurl", Some("json"));
        check("[log]\nformat = \"json\"\nformat = \"json\"\n", Some("json"));
        check("[log]\nformat = 1\n", None);
        check("[nats]\n", None);
        check("\u{1}", None);
    }
}
