//! The gateway's metrics. Labels come from fixed sets only: route patterns, known methods, statuses. A client cannot add
//! time series.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// The registry of the whole process. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    registry: Arc<Mutex<Registry>>,
    requests: Family<Request, Counter>,
    callbacks: Family<Callback, Counter>,
    in_flight: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: &'static str,
    method: &'static str,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Callback {
    outcome: &'static str,
}

/// Counts a request as in flight until it is dropped.
#[derive(Debug)]
pub(in crate::gateway) struct InFlight(Gauge);

impl Metrics {
    /// A registry with the gateway's own metrics. Their names begin with `tokenbus_`.
    #[must_use]
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("tokenbus");
        let requests = Family::default();
        registry.register("http_requests", "HTTP requests answered", requests.clone());
        let callbacks = Family::default();
        registry.register("callbacks", "Providers' callbacks by how they ended", callbacks.clone());
        let in_flight = Gauge::default();
        registry.register("http_requests_in_flight", "HTTP requests being answered", in_flight.clone());
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The running program", build);
        Self { registry: Arc::new(Mutex::new(registry)), requests, callbacks, in_flight }
    }

    /// Adds metrics of other modules.
    pub(crate) fn register(&self, with: impl FnOnce(&mut Registry)) {
        with(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Writes all metrics in the OpenMetrics text format.
    pub(crate) fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }

    pub(in crate::gateway) fn in_flight(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    pub(in crate::gateway) fn request(&self, route: &'static str, method: &'static str, code: u16) {
        self.requests.get_or_create(&Request { route, method, code }).inc();
    }

    pub(in crate::gateway) fn callback(&self, code: u16) {
        let outcome = match code {
            200 => "connected",
            401 => "unauthorized",
            429 => "limited",
            400..=499 => "refused",
            503 => "unavailable",
            504 => "deadline",
            _ => "failed",
        };
        self.callbacks.get_or_create(&Callback { outcome }).inc();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_route_and_code_and_includes_other_modules_metrics() {
        let metrics = Metrics::new();
        let other = Counter::<u64>::default();
        metrics.register(|registry| registry.register("refreshes", "Refreshes", other.clone()));
        other.inc();
        metrics.request("/healthz", "GET", 200);
        metrics.callback(502);
        let running = metrics.in_flight();
        let text = metrics.encode().unwrap();
        for line in [
            r#"tokenbus_http_requests_total{route="/healthz",method="GET",code="200"} 1"#,
            r#"tokenbus_callbacks_total{outcome="failed"} 1"#,
            "tokenbus_http_requests_in_flight 1",
            "tokenbus_refreshes_total 1",
            concat!(r#"tokenbus_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} not in\n{text}");
        }
        drop(running);
        assert!(metrics.encode().unwrap().contains("tokenbus_http_requests_in_flight 0"));
    }
}
