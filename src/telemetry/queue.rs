//! The queue of log lines. A reader of standard error that stalls must not stop the process, so a thread of its own writes the
//! lines. Lines that don't fit into the queue, or that a full disk or a closed pipe refuses, are dropped and counted.
//!
//! `tracing-appender` has such a queue, but prints to standard output when it ends with a reader that stalls.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use tracing::warn;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// Lines that wait. At 200 to 500 bytes a line, up to 4 MiB.
const LINES: usize = 8192;
/// Interval at which dropped lines are reported in the log.
pub(super) const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// Longest time to write the lines that wait when the process ends.
const FLUSH: Duration = Duration::from_secs(1);
/// Pause before the queue is tried again at the end of the process.
const FLUSH_PAUSE: Duration = Duration::from_millis(10);

/// The way of log lines to standard error.
pub(super) struct Queue {
    pub(super) writer: BoxMakeWriter,
    pub(super) dropped: DroppedLines,
    pub(super) flush: Flush,
}

enum Message {
    Line(Vec<u8>),
    /// Everything before it is written.
    Written(SyncSender<()>),
}

/// Puts lines into the queue.
#[derive(Clone)]
struct Lines {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

/// Writes lines at once.
#[derive(Clone)]
struct Direct {
    state: Arc<Mutex<State>>,
    dropped: Arc<AtomicU64>,
}

/// How the text on standard error ends.
#[derive(Default)]
struct State {
    /// True after a line of which only a part was written.
    is_cut: bool,
}

/// Writes the lines that wait when it is dropped, for at most [`FLUSH`].
pub(crate) struct Flush(Option<SyncSender<Message>>);

/// The number of dropped lines.
#[derive(Debug, Clone, Default)]
pub(crate) struct DroppedLines(Arc<AtomicU64>);

impl Queue {
    pub(super) fn start() -> Self {
        let (queue, lines) = sync_channel(LINES);
        let dropped = DroppedLines::default();
        let direct = Direct { state: Arc::default(), dropped: Arc::clone(&dropped.0) };
        let writing = direct.clone();
        // A file has no reader that could stall. Its lines are there when a process is killed.
        if is_file() || thread::Builder::new().name("log".to_owned()).spawn(|| write(lines, writing)).is_err() {
            let writer = BoxMakeWriter::new(move || direct.clone());
            return Self { writer, dropped, flush: Flush(None) };
        }
        let lines = Lines { queue: queue.clone(), dropped: Arc::clone(&dropped.0) };
        Self { writer: BoxMakeWriter::new(move || lines.clone()), dropped, flush: Flush(Some(queue)) }
    }
}

fn is_file() -> bool {
    let copy = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    copy.and_then(|file| file.metadata()).is_ok_and(|it| it.is_file())
}

fn write(lines: Receiver<Message>, mut direct: Direct) {
    for message in lines {
        match message {
            Message::Line(line) => drop(direct.write(&line)),
            Message::Written(done) => drop(done.send(())),
        }
    }
}

impl State {
    /// Writes a whole line. After one that was cut it begins a new line.
    fn put(&mut self, output: &mut impl Write, line: &[u8]) -> io::Result<()> {
        if self.is_cut {
            output.write_all(b"\n")?;
            self.is_cut = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match output.write(rest) {
                Ok(written) if written > 0 => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                failed => {
                    self.is_cut = rest.len() < line.len();
                    return failed.and(Err(ErrorKind::WriteZero.into()));
                }
            }
        }
        Ok(())
    }
}

impl Write for Direct {
    /// Takes a whole line, as the log formats it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.put(&mut io::stderr(), line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Lines {
    /// Takes a whole line, as the log formats it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Message::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        let Some(queue) = &self.0 else { return };
        let (done, written) = sync_channel(1);
        let end = Instant::now() + FLUSH;
        while queue.try_send(Message::Written(done.clone())).is_err() {
            if Instant::now() >= end {
                return;
            }
            thread::sleep(FLUSH_PAUSE);
        }
        // An error means that the time is over.
        let _ = written.recv_timeout(end.saturating_duration_since(Instant::now()));
    }
}

impl DroppedLines {
    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Logs how many lines were dropped since the start, if more than `reported` were. Returns the number that the log has.
    pub(super) fn report(&self, reported: u64) -> u64 {
        let lines = self.count();
        if lines == reported {
            return reported;
        }
        warn!(
            lines,
            "log lines were dropped since the start: standard error was not read in time, or its disk was full"
        );
        // While lines are dropped, this warning may be one of them.
        if self.count() == lines { lines } else { reported }
    }
}

impl Collector for DroppedLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counter = ConstCounter::new(self.count());
        let help = "Lines of the log that were dropped because standard error was not read, or refused them";
        counter.encode(encoder.encode_descriptor("log_lines_dropped", help, None, counter.metric_type())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o3_the_log_names_all_lines_that_were_dropped_before_it_was_read() {
        let (queue, lines) = sync_channel(1);
        let dropped = DroppedLines::default();
        let writer = Lines { queue, dropped: Arc::clone(&dropped.0) };
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            for line in 0..4 {
                warn!(line);
            }
            assert_eq!(dropped.report(0), 0, "the warning was dropped, too");
            let Ok(Message::Line(_)) = lines.recv() else { panic!("the first line") };
            assert_eq!(dropped.report(0), 4);
            let Ok(Message::Line(line)) = lines.recv() else { panic!("the warning") };
            let line = String::from_utf8(line).unwrap();
            assert!(line.contains("lines=4"), "{line}");
            assert_eq!(dropped.report(4), 4);
            assert!(lines.try_recv().is_err(), "nothing is logged twice");
        });
    }
    /// A disk with room for some bytes.
    struct Disk {
        room: usize,
        written: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let fitting = bytes.len().min(self.room);
            if fitting == 0 && !bytes.is_empty() {
                return Err(ErrorKind::StorageFull.into());
            }
            self.written.extend(&bytes[..fitting]);
            self.room -= fitting;
            Ok(fitting)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn o4_a_line_after_one_that_a_full_disk_has_cut_begins_anew() {
        let (mut state, mut disk) = (State::default(), Disk { room: 9, written: Vec::new() });
        state.put(&mut disk, b"first\n").unwrap();
        assert_eq!(state.put(&mut disk, b"second\n").unwrap_err().kind(), ErrorKind::StorageFull);
        assert!(state.put(&mut disk, b"third\n").is_err());
        disk.room = 100;
        state.put(&mut disk, b"fourth\n").unwrap();
        assert_eq!(String::from_utf8(disk.written).unwrap(), "first\nsec\nfourth\n");
    }
}
