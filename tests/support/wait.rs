//! Waiting for what has to happen.

use std::time::Duration;

use tokio::time::{sleep, timeout};

/// How long something may take that has to happen: twice what a refresh waits that a dead worker left.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// Asks again and again until it is so.
#[track_caller]
pub(crate) fn eventually(what: &str, is_so: impl AsyncFn() -> bool) -> impl Future<Output = ()> {
    let asked_from = std::panic::Location::caller();
    async move {
        let poll = async {
            while !is_so().await {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, poll).await.unwrap_or_else(|_| panic!("{asked_from}: waited in vain: {what}"));
    }
}
