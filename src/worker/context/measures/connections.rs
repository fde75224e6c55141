//! The number of connections by status, as the last repair pass of any worker has found them.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};

use crate::connection::Status;

#[derive(Debug, Clone, Default)]
pub(crate) struct Connections(Family<Labels, Gauge>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    status: &'static str,
}

/// Connections of all accounts, deleted ones left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) active: i64,
    pub(crate) needs_reauthorization: i64,
}

impl Tally {
    /// Adds a connection by its record's status.
    pub(crate) fn add(&mut self, status: &str) {
        if status == Status::Active.as_str() {
            self.active += 1;
        } else if status == Status::NeedsReauthorization.as_str() {
            self.needs_reauthorization += 1;
        }
    }
}

impl Connections {
    pub(crate) fn show(&self, Tally { active, needs_reauthorization }: Tally) {
        for (status, number) in [(Status::Active, active), (Status::NeedsReauthorization, needs_reauthorization)] {
            self.0.get_or_create(&Labels { status: status.as_str() }).set(number);
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Connections of all accounts, as the last repair pass has found them";
        registry.register("connections", help, self.0.clone());
    }
}
