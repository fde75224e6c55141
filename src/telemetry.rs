//! Logging to standard error, as text or JSON.

use std::io::IsTerminal as _;

use tracing::Level;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{Log, LogFormat};

#[derive(Debug, thiserror::Error)]
pub(crate) enum TelemetryError {
    #[error("log.filter is not valid: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Logging was started before.
    #[error(transparent)]
    Started(#[from] TryInitError),
}

/// Starts logging for the whole process.
pub(crate) fn start(settings: &Log) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&settings.filter)?;
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match settings.format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // Below `info`, libraries log payloads, including tokens and credentials. No setting can switch that on.
    let harmless = filter_fn(|of| of.target().starts_with("tokenbus") || *of.level() <= Level::INFO);
    Ok(tracing_subscriber::registry().with(filter).with(lines.with_filter(harmless)).try_init()?)
}
