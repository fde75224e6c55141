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
    #[derive(Deserialize)]
    struct Partial {
        log: PartialLog,
    }
    #[derive(Deserialize)]
    struct PartialLog {
        format: String,
    }
    let in_file = || {
        let text = std::fs::read_to_string(file?).ok()?;
        Some(toml::from_str::<Partial>(&text).ok()?.log.format)
    };
    let format = super::env(&format!("{PREFIX}LOG__FORMAT")).or_else(in_file);
    if format.as_deref() == Some("json") { LogFormat::Json } else { LogFormat::Text }
}
