//! Logging to standard error, as text or JSON, and traces.

mod queue;
pub(crate) mod traces;

use std::error::Error;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{Level, error, info, warn};
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

pub(crate) use self::queue::DroppedLines;
use self::queue::Queue;
use self::traces::{ExporterError, Started, Traces};
use crate::config::{self, Log, LogFormat};

#[derive(Debug, thiserror::Error)]
pub(crate) enum TelemetryError {
    #[error("log.filter is not valid: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error(
        "log.filter has a word that is no level (error, warn, info, debug, trace, off); give a module its level, as in \
         `tokenbus=debug`"
    )]
    Word,
    /// Logging was started before.
    #[error(transparent)]
    Started(#[from] TryInitError),
    #[error(transparent)]
    Settings(#[from] config::SettingsError),
    #[error(transparent)]
    Reload(#[from] reload::Error),
    #[error(transparent)]
    Traces(#[from] ExporterError),
}

/// Sends the spans and writes the lines that wait when it is dropped.
pub(crate) struct Flush {
    // First, because it may log.
    _traces: Option<Traces>,
    _lines: queue::Flush,
}

/// The running log.
#[derive(Debug, Clone)]
pub(crate) struct Logging {
    filter: reload::Handle<EnvFilter, Registry>,
    pub(crate) dropped: DroppedLines,
}

/// Starts logging for the whole process, and traces if it has any. What waits is written when the [`Flush`] is dropped.
pub(crate) fn start(settings: &Log, traces: Option<&config::Traces>) -> Result<(Logging, Flush), TelemetryError> {
    let (filter, handle) = reload::Layer::new(parse_filter(&settings.filter)?);
    let Queue { writer, dropped, flush } = Queue::start();
    let lines = fmt::layer().with_writer(writer).with_ansi(std::io::stderr().is_terminal());
    let lines = match settings.format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // Below `info`, libraries log payloads, including tokens and credentials. No setting can switch that on.
    let harmless = filter_fn(|of| {
        of.target() != traces::TARGET && (of.target().starts_with("tokenbus") || *of.level() <= Level::INFO)
    });
    // The hint keeps that of the other filter, so that lines below its level cost nothing.
    let harmless = harmless.with_max_level_hint(LevelFilter::TRACE);
    // The filter is the log's alone: it does not decide what is traced.
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter.and(harmless)));
    let started = traces.map(traces::start).transpose()?.flatten();
    let (spans, traces) = started.map(|Started { layer, traces }| (layer, traces)).unzip();
    subscriber.with(spans).try_init()?;
    Ok((Logging { filter: handle, dropped }, Flush { _traces: traces, _lines: flush }))
}

/// Parses `log.filter`. The library takes a word alone for the name of a module, so a misspelt level would silence the log.
fn parse_filter(text: &str) -> Result<EnvFilter, TelemetryError> {
    let is_word = |part: &str| part.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '_' | ':' | '-'));
    let words = text.split(',').map(str::trim).filter(|part| !part.is_empty() && is_word(part));
    for word in words {
        word.parse::<LevelFilter>().map_err(|_| TelemetryError::Word)?;
    }
    Ok(EnvFilter::try_new(text)?)
}

/// Logs panics as lines of the log. The default hook writes to standard error itself, and would wait for its reader.
pub(crate) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        error!(place, "panic: {}", text.unwrap_or("without a text"));
    }));
}

impl Logging {
    /// Until `stop`: reads `log.filter` from the settings again on SIGHUP, and logs how many lines were dropped.
    pub(crate) async fn keep_current(
        self,
        settings: Option<PathBuf>,
        mut reload: watch::Receiver<u64>,
        stop: CancellationToken,
    ) {
        let mut reported = 0;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = reload.changed() => match self.reload(settings.as_deref()) {
                    Ok(filter) => info!(filter, "log.filter was read again"),
                    Err(error) => warn!("log.filter stays as it was: {}", describe_error(&error)),
                },
                () = tokio::time::sleep(queue::REPORT_INTERVAL) => reported = self.dropped.report(reported),
            }
        }
    }

    fn reload(&self, settings: Option<&Path>) -> Result<String, TelemetryError> {
        let filter = config::log_filter(settings)?;
        self.filter.reload(parse_filter(&filter)?)?;
        Ok(filter)
    }
}

/// Joins an error and its causes. A cause whose text is already in an outer error's text is left out.
pub(crate) fn describe_error(error: &(dyn Error + 'static)) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_described_with_each_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot start")]
        struct Outer(#[source] Middle);
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read the file: {0}")]
        struct Middle(#[source] std::io::Error);

        let error = Outer(Middle(std::io::Error::other("the disk is gone")));
        assert_eq!(describe_error(&error), "cannot start: cannot read the file: the disk is gone");
    }

    #[test]
    fn o17_a_misspelt_level_does_not_silence_the_log() {
        for text in
            ["", "info", "WARN", "off", "3", "info,async_nats=warn", "info,tokenbus::http=warn", "tokenbus[call]=debug"]
        {
            assert!(parse_filter(text).is_ok(), "{text}");
        }
        for text in ["warning", "infos", "info,debg", "information, tokenbus=debug", "tokenbus::http"] {
            let error = parse_filter(text).unwrap_err().to_string();
            assert!(error.contains("no level") && !error.contains(text), "{error}");
        }
    }
}
