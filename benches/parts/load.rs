//! Load on a service: by clients that each wait for their answer, or at a constant rate that waits for nothing.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

/// Sends the request with that number and waits for its answer. Returns false if the request failed.
pub(crate) type Send =
    Arc<dyn Fn(usize) -> Pin<Box<dyn Future<Output = bool> + std::marker::Send>> + std::marker::Send + Sync>;

/// Times of the requests of one load.
pub(crate) struct Measured {
    took: Duration,
    /// Of the requests that succeeded, sorted.
    latencies: Vec<Duration>,
    pub(crate) failed: usize,
}

impl Measured {
    pub(crate) fn of(took: Duration, requests: &[Option<Duration>]) -> Self {
        let mut latencies: Vec<Duration> = requests.iter().flatten().copied().collect();
        assert!(!latencies.is_empty(), "no request succeeded");
        latencies.sort_unstable();
        Self { took, failed: requests.len() - latencies.len(), latencies }
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    /// A quantile of the latencies in milliseconds.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let last = self.latencies.len() - 1;
        self.latencies[((last as f64 * share).round() as usize).min(last)].as_secs_f64() * 1e3
    }
}

/// Closed loop: each client sends its next request once it has the answer to its last.
pub(crate) async fn closed(clients: usize, requests: usize, send: &Send) -> Measured {
    let (next, began) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (next, send) = (Arc::clone(&next), Arc::clone(send));
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= requests {
                    return latencies;
                }
                let start = Instant::now();
                latencies.push(send(number).await.then(|| start.elapsed()));
            }
        });
    }
    let latencies = tasks.join_all().await.concat();
    Measured::of(began.elapsed(), &latencies)
}

/// Open loop: requests leave at a constant rate. A latency counts from the time at which its request should have left, so a
/// service that stalls is not spared the requests that it held up.
pub(crate) async fn open(per_second: u32, requests: usize, send: &Send) -> Measured {
    let (interval, began) = (Duration::from_secs(1) / per_second, Instant::now());
    let mut tasks = JoinSet::new();
    for number in 0..requests {
        let due = began + interval * u32::try_from(number).expect("not that many");
        tokio::time::sleep_until(due.into()).await;
        let send = Arc::clone(send);
        tasks.spawn(async move { send(number).await.then(|| due.elapsed()) });
    }
    let latencies = tasks.join_all().await;
    Measured::of(began.elapsed(), &latencies)
}
