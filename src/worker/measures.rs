//! What workers count.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Counters of the commands of a process.
#[derive(Debug, Clone)]
pub struct Measures {
    pub(super) running: Gauge,
    pub(super) redelivered: Counter,
    pub(super) provider_seconds: Histogram,
    pub(super) refresh_window_seconds: Histogram,
}

impl Default for Measures {
    fn default() -> Self {
        Self {
            running: Gauge::default(),
            redelivered: Counter::default(),
            provider_seconds: Histogram::new(exponential_buckets(0.005, 2.0, 12)),
            refresh_window_seconds: Histogram::new(exponential_buckets(0.005, 2.0, 12)),
        }
    }
}

impl Measures {
    /// Shows them under their names.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("commands_running", "Commands being worked on", self.running.clone());
        registry.register("commands_redelivered", "Commands that came a second time or more", self.redelivered.clone());
        registry.register(
            "provider_seconds",
            "Time from a request to a provider to its answer",
            self.provider_seconds.clone(),
        );
        registry.register(
            "refresh_window_seconds",
            "Time from sending a refresh token to the stored record: a crash in between may cost the grant",
            self.refresh_window_seconds.clone(),
        );
    }
}
