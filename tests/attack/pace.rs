//! Actions at a fixed pace.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, interval};

/// Starts an action in that pace until the end, and waits for all of them.
pub(crate) async fn every(pace: Duration, end: Instant, action: impl AsyncFn()) {
    let mut pace = interval(pace);
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            _ = pace.tick() => {
                if Instant::now() >= end {
                    break;
                }
                running.push(action());
            }
            Some(()) = running.next() => {}
        }
    }
    while running.next().await.is_some() {}
}
