//! Actions at a fixed pace.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::time::{Instant, interval};

use crate::fleet::{Fleet, INTEGRATION};

/// Time of a read, one after another, on the machine for which the attackers' paces are written: two cores, debug builds.
const READ: Duration = Duration::from_millis(6);
/// Reads that are measured.
const READS: u32 = 200;

/// How many times slower this machine reads. The attackers slow down by as much, or they would use up a slow machine, and the
/// run would measure the machine in place of the borders.
pub(crate) async fn slowness(fleet: &Fleet) -> f64 {
    let path = format!("hub/integrations/{INTEGRATION}/oauth-token/none");
    let read = async || {
        let (status, _) = fleet.request(Method::GET, &path, &fleet.admin_keys[0], &json!({})).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    };
    // The first ones open connections and fill caches.
    for _ in 0..READS / 4 {
        read().await;
    }
    let began = Instant::now();
    for _ in 0..READS {
        read().await;
    }
    let read = began.elapsed() / READS;
    let slowness = read.div_duration_f64(READ).max(1.0);
    println!("a read takes {:.1} ms: the attackers are {slowness:.1} times slower", read.as_secs_f64() * 1e3);
    slowness
}

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
