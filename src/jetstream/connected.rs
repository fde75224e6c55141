//! Whether this process is connected, as a metric.

use std::fmt;

use async_nats::Client;
use async_nats::connection::State;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;

pub(super) struct Connected(pub(super) Client);

impl Collector for Connected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let gauge = ConstGauge::new(i64::from(self.0.connection_state() == State::Connected));
        let help = "1 while this process is connected to NATS, otherwise 0";
        gauge.encode(encoder.encode_descriptor("nats_connected", help, None, gauge.metric_type())?)
    }
}

impl fmt::Debug for Connected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Connected").finish_non_exhaustive()
    }
}
