//! Waiting for expected events.

use std::time::Duration;

use tokio::time::{sleep, timeout};

/// Longest time for an expected event: twice the hold of a refresh that a dead worker left.
pub(crate) const PATIENCE: Duration = Duration::from_mins(4);

/// Polls until the condition is true.
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
