//! Section `traces`.

use serde::Deserialize;
use url::Url;

use super::form;
use crate::secret::Secret;

/// Section `traces`: where spans are sent by OTLP.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traces {
    /// The collector's URL without a path; `None` sends nothing.
    #[serde(deserialize_with = "form::optional_url")]
    pub endpoint: Option<Url>,
    pub protocol: TracesProtocol,
    /// Share of traces to send, from 0 to 1. A trace that a caller began follows the caller's choice.
    pub sample: f64,
    /// Value of the header `Authorization`; empty for none.
    pub authorization: Secret,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TracesProtocol {
    Grpc,
    /// Protobuf in HTTP requests.
    Http,
}
