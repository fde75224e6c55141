//! Metrics of a worker.

mod connections;
mod counted;

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use self::connections::Connections;
pub(crate) use self::connections::Tally;
use self::counted::Results;

#[derive(Debug, Clone)]
pub(crate) struct Measures {
    /// Running commands.
    pub running: Gauge,
    /// Commands that were delivered before.
    pub redelivered: Counter,
    /// Duration of requests to providers.
    pub provider_seconds: Histogram,
    /// Streams that use more than 80 % of their `max_bytes`.
    pub streams_nearly_full: Gauge,
    /// Events that exceeded their account's quota.
    pub events_dropped: Counter,
    pub webhooks_sent: Counter,
    pub webhooks_failed: Counter,
    /// Lead of this process's clock over the server's, in seconds.
    pub clock_ahead_seconds: Gauge<f64, AtomicU64>,
    /// Time from sending a refresh token to the stored record. A crash in between may cost the grant.
    pub refresh_window_seconds: Histogram,
    /// Time from a due refresh to its command on the queue.
    pub schedule_lag_seconds: Histogram,
    pub logins: Results,
    pub refreshes: Results,
    /// Grants that have ended without a deletion.
    pub grants_ended: Results,
    pub connections: Connections,
}

impl Default for Measures {
    fn default() -> Self {
        Self {
            running: Gauge::default(),
            redelivered: Counter::default(),
            provider_seconds: Histogram::new(exponential_buckets(0.005, 2.0, 12)),
            streams_nearly_full: Gauge::default(),
            events_dropped: Counter::default(),
            webhooks_sent: Counter::default(),
            webhooks_failed: Counter::default(),
            clock_ahead_seconds: Gauge::default(),
            refresh_window_seconds: Histogram::new(exponential_buckets(0.005, 2.0, 12)),
            schedule_lag_seconds: Histogram::new(exponential_buckets(0.01, 4.0, 10)),
            logins: Results::default(),
            refreshes: Results::default(),
            grants_ended: Results::default(),
            connections: Connections::default(),
        }
    }
}

impl Measures {
    pub(crate) fn register(&self, registry: &mut Registry) {
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
        registry.register(
            "clock_ahead_seconds",
            "Lead of this machine's clock over the NATS server's",
            self.clock_ahead_seconds.clone(),
        );
        registry.register(
            "streams_nearly_full",
            "Streams that use more than 80 % of their max_bytes",
            self.streams_nearly_full.clone(),
        );
        registry.register("events_dropped", "Events that exceeded their account's quota", self.events_dropped.clone());
        registry.register("webhooks_sent", "Events that the webhook took", self.webhooks_sent.clone());
        registry.register("webhooks_failed", "Events that the webhook did not take", self.webhooks_failed.clone());
        registry.register(
            "schedule_lag_seconds",
            "Time from a due refresh to its command on the queue",
            self.schedule_lag_seconds.clone(),
        );
        self.logins.register(registry, "logins", "Logins that ended, by the reason that events have, or ok");
        self.refreshes.register(registry, "refreshes", "Refreshes that ended, by the reason that events have, or ok");
        let help = "Connections that need a new login, by the reason that events have";
        self.grants_ended.register(registry, "grants_ended", help);
        self.connections.register(registry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::Integration;

    #[test]
    fn f5_labels_are_bounded() {
        let (mut registry, measures) = (Registry::default(), Measures::default());
        measures.register(&mut registry);
        measures.provider_seconds.observe(1.0);
        measures.refreshes.failed(&Integration::parse("slack").unwrap(), "rate_limited");
        measures.connections.show(Tally { active: 3, needs_reauthorization: 1 });
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let labels = text.lines().filter_map(|line| line.split_once('{')).map(|(_, labels)| labels);
        let mut labels = labels.peekable();
        assert!(labels.peek().is_some(), "a histogram has buckets:\n{text}");
        let bounded = ["le=\"", "status=\"", "integration=\"slack\",result=\"rate_limited\""];
        for label in labels {
            assert!(bounded.iter().any(|start| label.starts_with(start)), "{label}");
        }
        assert!(text.contains("connections{status=\"active\"} 3\n"), "{text}");
    }
}
