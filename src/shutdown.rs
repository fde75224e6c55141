//! Shutdown in two steps: tasks stop taking new work and drain with a deadline, then the process ends. A task that ends
//! earlier counts as a crash and stops the process. SIGHUP stops nothing; tasks that read files subscribe to it.

use std::error::Error;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use crate::telemetry;

/// The long-running tasks of a process.
#[derive(Clone, Default)]
pub(crate) struct Tasks {
    leaving: CancellationToken,
    stop: CancellationToken,
    failed: CancellationToken,
    tracker: TaskTracker,
    reload: watch::Sender<u64>,
}

impl Tasks {
    /// Cancelled when tasks must stop taking new work.
    #[must_use]
    pub(crate) fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Cancelled at a stop signal, before [`Tasks::stop`]: load balancers should send their requests elsewhere.
    #[must_use]
    pub(crate) fn leaving(&self) -> CancellationToken {
        self.leaving.clone()
    }

    /// Changes on each SIGHUP: read your files again.
    #[must_use]
    pub(crate) fn reload(&self) -> watch::Receiver<u64> {
        self.reload.subscribe()
    }

    /// Installs signal handlers. From then on SIGHUP does not end the process, and SIGTERM and SIGINT take effect in
    /// [`Tasks::run`]. Call it before steps that may take long.
    pub(crate) fn listen_for_signals(&self) -> std::io::Result<StopSignals> {
        let mut hangup = signal(SignalKind::hangup())?;
        let stop_signals =
            StopSignals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
        let (stop, reload) = (self.stop.clone(), self.reload.clone());
        self.tracker.spawn(async move {
            while let Some(Some(())) = stop.run_until_cancelled(hangup.recv()).await {
                info!("received SIGHUP; reading files again");
                reload.send_modify(|times| *times += 1);
            }
        });
        Ok(stop_signals)
    }

    /// Starts a task that runs until [`Tasks::stop`]. If it ends earlier, fails or panics, the process stops.
    pub(crate) fn spawn<E: Into<Box<dyn Error + Send + Sync>>>(
        &self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let (stop, failed) = (self.stop.clone(), self.failed.clone());
        self.tracker.spawn(async move {
            // Unwind safe: the process ends, so nothing uses the task's state after a panic.
            match AssertUnwindSafe(task).catch_unwind().await {
                Ok(Ok(())) if stop.is_cancelled() => return,
                Ok(Ok(())) => error!("{name} ended unexpectedly; stopping"),
                Ok(Err(error)) => error!("{name} failed; stopping: {}", telemetry::describe_error(&*error.into())),
                Err(_) => error!("{name} panicked; stopping"),
            }
            failed.cancel();
            stop.cancel();
        });
    }

    /// Runs `starting`, which starts the tasks. Then waits for a stop signal, for the end of standard input if `with_stdin`, or for
    /// a task that fails; then for all tasks to end. A stop during `starting` drops it. After a signal, tasks continue for `delay`. A
    /// second signal ends each wait. Returns true if no task failed.
    pub(crate) async fn run<E>(
        self,
        starting: impl Future<Output = Result<(), E>>,
        mut stop_signals: StopSignals,
        with_stdin: bool,
        delay: Duration,
    ) -> Result<bool, E> {
        let mut end_of_stdin = pin!(end_of_stdin());
        tokio::select! {
            started = starting => started?,
            () = stop_signals.recv() => {
                info!("received a stop signal during the start; stopping");
                return Ok(self.end(stop_signals).await);
            }
            () = &mut end_of_stdin, if with_stdin => {
                info!("standard input closed during the start; stopping");
                return Ok(self.end(stop_signals).await);
            }
        }
        tokio::select! {
            () = stop_signals.recv() => {
                if delay.is_zero() {
                    info!("received a stop signal; stopping");
                } else {
                    info!("received a stop signal; stopping in {delay:?}, and not ready until then");
                }
                self.leaving.cancel();
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    () = stop_signals.recv() => info!("received a second stop signal; stopping now"),
                    () = self.failed.cancelled() => {}
                }
            }
            () = end_of_stdin, if with_stdin => info!("standard input closed; stopping"),
            () = self.failed.cancelled() => {}
        }
        Ok(self.end(stop_signals).await)
    }

    /// Stops all tasks and waits for their end. Returns true if none failed.
    async fn end(self, mut stop_signals: StopSignals) -> bool {
        self.leaving.cancel();
        self.stop.cancel();
        self.tracker.close();
        tokio::select! {
            () = self.tracker.wait() => {}
            () = stop_signals.recv() => info!("received a second stop signal; stopping at once"),
        }
        !self.failed.is_cancelled()
    }
}

/// From now on SIGHUP does not end the process. Call it before the first file is read: a SIGHUP that comes before
/// [`Tasks::listen_for_signals`] then has nothing to renew.
pub(crate) fn survive_hangup() -> std::io::Result<()> {
    // The handler stays without its receiver.
    signal(SignalKind::hangup()).map(drop)
}

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    async fn recv(&mut self) {
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

    use super::*;

    #[track_caller]
    fn check(name: &'static str, task: impl Future<Output = Result<(), Infallible>> + Send + 'static) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let ended = runtime.block_on(async {
            let tasks = Tasks::default();
            tasks.spawn(name, task);
            let stop_signals = tasks.listen_for_signals().unwrap();
            let starting = std::future::ready(Ok::<(), Infallible>(()));
            let run = tasks.run(starting, stop_signals, false, Duration::ZERO);
            tokio::time::timeout(Duration::from_mins(1), run).await
        });
        assert_eq!(ended, Ok(Ok(false)), "{name}");
    }

    #[test]
    fn a_task_that_ends_or_panics_stops_the_process() {
        check("a task that ends", std::future::ready(Ok(())));
        check("a task that panics", async { panic!("on purpose") });
    }
}
