//! Logging: to standard error, as text or JSON.

use std::io::IsTerminal as _;

use tracing::Level;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{Log, LogFormat};

/// Why logging did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TelemetryError {
    /// `log.filter` is not valid.
    #[error("log.filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// A second start.
    #[error(transparent)]
    Started(#[from] TryInitError),
}

/// Starts logging for the whole process.
///
/// # Errors
/// [`TelemetryError`].
pub(crate) fn start(settings: &Log) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&settings.filter)?;
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match settings.format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // Below `info` libraries log what they carry, tokens and credentials included: nobody can ask for that.
    let harmless = filter_fn(|of| of.target().starts_with("tokenbus") || *of.level() <= Level::INFO);
    Ok(tracing_subscriber::registry().with(filter).with(lines.with_filter(harmless)).try_init()?)
}
