//! Two-step shutdown: stop taking, drain with a deadline, drop. A task that ends by itself is a crash. SIGHUP stops
//! nothing: whoever reads files subscribes to it.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

/// The long-running tasks of a process.
#[derive(Clone, Default)]
pub(crate) struct Tasks {
    stop: CancellationToken,
    failed: CancellationToken,
    tracker: TaskTracker,
    reload: watch::Sender<u64>,
}

impl Tasks {
    /// Cancelled when everything shall stop taking new work.
    #[must_use]
    pub(crate) fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Changes with each SIGHUP: files are to be read again.
    #[must_use]
    pub(crate) fn reload(&self) -> watch::Receiver<u64> {
        self.reload.subscribe()
    }

    /// From here on signals are heard: SIGHUP ends nothing, and what asks for an end waits for [`Tasks::run`]. Call it
    /// before anything that may take long.
    ///
    /// # Errors
    /// When the system takes no handler.
    pub(crate) fn hear_signals(&self) -> std::io::Result<Ends> {
        let mut hangup = signal(SignalKind::hangup())?;
        let ends = Ends { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
        let (stop, reload) = (self.stop.clone(), self.reload.clone());
        self.tracker.spawn(async move {
            while let Some(Some(())) = stop.run_until_cancelled(hangup.recv()).await {
                info!("SIGHUP: reading files again");
                reload.send_modify(|times| *times += 1);
            }
        });
        Ok(ends)
    }

    /// Starts a task that runs until [`Tasks::stop`]. If it ends before, with an error or in a panic, the process stops.
    pub(crate) fn spawn<E: std::fmt::Display>(
        &self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let (stop, failed) = (self.stop.clone(), self.failed.clone());
        self.tracker.spawn(async move {
            // What a panic leaves behind is not looked at again: the process ends.
            match AssertUnwindSafe(task).catch_unwind().await {
                Ok(Ok(())) if stop.is_cancelled() => return,
                Ok(Ok(())) => error!("{name} ended by itself"),
                Ok(Err(error)) => error!("{name} failed: {error}"),
                Err(_) => error!("{name} panicked"),
            }
            failed.cancel();
            stop.cancel();
        });
    }

    /// Waits for a signal (or, when `with_stdin`, for the end of standard input) or a task's failure, then for all
    /// tasks to end. Gives whether that was asked for.
    pub(crate) async fn run(self, mut ends: Ends, with_stdin: bool) -> bool {
        tokio::select! {
            () = ends.asked() => info!("stopping"),
            () = end_of_stdin(), if with_stdin => info!("standard input closed; stopping"),
            () = self.failed.cancelled() => {}
        }
        self.stop.cancel();
        self.tracker.close();
        tokio::select! {
            () = self.tracker.wait() => {}
            () = ends.asked() => info!("stopping at once"),
        }
        !self.failed.is_cancelled()
    }
}

/// The signals that ask for an end.
#[derive(Debug)]
pub(crate) struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn end_of_stdin() {
    let (mut stdin, mut buffer) = (tokio::io::stdin(), [0; 64]);
    while stdin.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use super::*;

    #[track_caller]
    fn check(what: &'static str, task: impl Future<Output = Result<(), Infallible>> + Send + 'static) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let ended = runtime.block_on(async {
            let tasks = Tasks::default();
            tasks.spawn(what, task);
            let ends = tasks.hear_signals().unwrap();
            tokio::time::timeout(Duration::from_mins(1), tasks.run(ends, false)).await
        });
        assert_eq!(ended, Ok(false), "{what}");
    }

    #[test]
    fn a_part_that_ends_or_panics_stops_the_process() {
        check("a part that ends", std::future::ready(Ok(())));
        check("a part that panics", async { panic!("as a test wants it") });
    }
}
