//! Results of logins and refreshes, counted by integration. Labels are bounded: an operator's configs and a fixed list of
//! reasons, and no account, because tenants come and go.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::subject::Integration;

/// Most integrations and reasons that have time series of their own. At most a few thousand series in all, which a process
/// and Prometheus hold easily.
const MAX_VALUES: usize = 100;
/// Label of all values above the limit.
const OTHER: &str = "other";
/// Result of a login or refresh that stored new tokens.
const OK: &str = "ok";

/// Results of one kind of work.
#[derive(Debug, Clone, Default)]
pub(crate) struct Results {
    counted: Family<Labels, Counter>,
    integrations: Values,
    outcomes: Values,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    integration: String,
    result: String,
}

/// The first [`MAX_VALUES`] values of a label.
#[derive(Debug, Clone, Default)]
struct Values(Arc<Mutex<BTreeSet<String>>>);

impl Results {
    /// Counts tokens that were stored.
    pub(crate) fn succeeded(&self, integration: &Integration) {
        self.count(integration, OK);
    }

    /// Counts a failure, by the reason that events have.
    pub(crate) fn failed(&self, integration: &Integration, reason: &str) {
        self.count(integration, reason);
    }

    fn count(&self, integration: &Integration, result: &str) {
        let integration = self.integrations.bounded(integration.as_str());
        self.counted.get_or_create(&Labels { integration, result: self.outcomes.bounded(result) }).inc();
    }

    pub(super) fn register(&self, registry: &mut Registry, name: &str, help: &str) {
        registry.register(name, help, self.counted.clone());
    }
}

impl Values {
    fn bounded(&self, value: &str) -> String {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(value) {
            if known.len() >= MAX_VALUES {
                return OTHER.to_owned();
            }
            known.insert(value.to_owned());
        }
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn o19_integrations_above_the_limit_count_as_other() {
        let (mut registry, results) = (Registry::default(), Results::default());
        results.register(&mut registry, "refreshes", "Refreshes");
        for number in 0..MAX_VALUES + 20 {
            let integration = Integration::parse(&format!("i{number}")).unwrap();
            results.failed(&integration, "rate_limited");
            results.succeeded(&integration);
        }
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let series: Vec<&str> = text.lines().filter(|line| line.starts_with("refreshes_total{")).collect();
        assert_eq!(series.len(), 2 * (MAX_VALUES + 1), "{text}");
        assert!(series.contains(&r#"refreshes_total{integration="other",result="rate_limited"} 20"#), "{text}");
        assert!(series.contains(&r#"refreshes_total{integration="i7",result="ok"} 1"#), "{text}");
    }
}
