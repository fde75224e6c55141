//! Two-step shutdown: stop taking, drain with a deadline, drop. A task that ends by itself is a crash. SIGHUP stops
//! nothing: whoever reads files subscribes to it.

use std::future::Future;

use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

/// The long-running tasks of a process.
#[derive(Clone, Default)]
pub struct Tasks {
    stop: CancellationToken,
    failed: CancellationToken,
    tracker: TaskTracker,
    reload: watch::Sender<u64>,
}

impl Tasks {
    /// Cancelled when everything shall stop taking new work.
    #[must_use]
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Changes with each SIGHUP: files are to be read again.
    #[must_use]
    pub fn reload(&self) -> watch::Receiver<u64> {
        self.reload.subscribe()
    }

    /// From here on SIGHUP is heard and ends nothing. Call it before anything that may take long.
    ///
    /// # Errors
    /// When the system takes no handler.
    pub fn hear_hangups(&self) -> std::io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let (stop, reload) = (self.stop.clone(), self.reload.clone());
        self.tracker.spawn(async move {
            while let Some(Some(())) = stop.run_until_cancelled(hangup.recv()).await {
                info!("SIGHUP: reading files again");
                reload.send_modify(|times| *times += 1);
            }
        });
        Ok(())
    }

    /// Starts a task that runs until [`Tasks::stop`]. If it ends before, or with an error, the process stops.
    pub fn spawn<E: std::fmt::Display>(
        &self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let (stop, failed) = (self.stop.clone(), self.failed.clone());
        self.tracker.spawn(async move {
            match task.await {
                Ok(()) if stop.is_cancelled() => return,
                Ok(()) => error!("{name} ended by itself"),
                Err(error) => error!("{name} failed: {error}"),
            }
            failed.cancel();
            stop.cancel();
        });
    }

    /// Waits for a signal (or, when `with_stdin`, for the end of standard input) or a task's failure, then for all
    /// tasks to end. Gives whether that was asked for.
    pub async fn run(self, with_stdin: bool) -> bool {
        tokio::select! {
            () = asked() => info!("stopping"),
            () = end_of_stdin(), if with_stdin => info!("standard input closed; stopping"),
            () = self.failed.cancelled() => {}
        }
        self.stop.cancel();
        self.tracker.close();
        tokio::select! {
            () = self.tracker.wait() => {}
            () = asked() => info!("stopping at once"),
        }
        !self.failed.is_cancelled()
    }
}

async fn asked() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

async fn end_of_stdin() {
    let (mut stdin, mut buffer) = (tokio::io::stdin(), [0; 64]);
    while stdin.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}
