//! The queue of log lines. A reader of standard error that stalls must not stop the process, so a thread of its own writes the
//! lines, and lines that don't fit into the queue are dropped and counted.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use tracing::warn;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// Lines that wait. At 200 to 500 bytes a line, up to 4 MiB.
const LINES: usize = 8192;
/// Interval at which dropped lines are reported in the log.
pub(super) const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// The way of log lines to standard error.
pub(super) struct Queue {
    pub(super) writer: BoxMakeWriter,
    pub(super) dropped: DroppedLines,
    pub(super) flush: Flush,
}

/// Writes the lines that wait when it is dropped, for at most a second.
#[derive(Debug)]
pub(crate) struct Flush {
    _guard: Option<WorkerGuard>,
}

/// The number of dropped lines.
#[derive(Debug, Clone)]
pub(crate) struct DroppedLines(Option<ErrorCounter>);

impl Queue {
    pub(super) fn start() -> Self {
        if is_file() {
            // A file has no reader that could stall. Its lines are there when a process is killed.
            let writer = BoxMakeWriter::new(io::stderr);
            return Self { writer, dropped: DroppedLines(None), flush: Flush { _guard: None } };
        }
        let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES).thread_name("log");
        let (writer, guard) = builder.finish(io::stderr());
        let dropped = DroppedLines(Some(writer.error_counter()));
        Self { writer: BoxMakeWriter::new(writer), dropped, flush: Flush { _guard: Some(guard) } }
    }
}

fn is_file() -> bool {
    let copy = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    copy.and_then(|file| file.metadata()).is_ok_and(|it| it.is_file())
}

impl DroppedLines {
    fn count(&self) -> usize {
        self.0.as_ref().map_or(0, ErrorCounter::dropped_lines)
    }

    /// Logs the lines that were dropped since that many were. Returns the new number.
    pub(super) fn report(&self, reported: usize) -> usize {
        let dropped = self.count();
        if dropped > reported {
            let lines = dropped - reported;
            warn!(lines, "log lines were dropped: the reader of standard error is too slow");
        }
        dropped
    }
}

impl Collector for DroppedLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counter = ConstCounter::new(u64::try_from(self.count()).unwrap_or(u64::MAX));
        let help = "Lines of the log that were dropped because standard error was not read";
        counter.encode(encoder.encode_descriptor("log_lines_dropped", help, None, counter.metric_type())?)
    }
}
