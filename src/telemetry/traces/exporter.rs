//! Sends spans to a collector by OTLP, over gRPC or HTTP.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::SpanData;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, InvalidHeaderValue};
use reqwest::redirect::Policy;
use tokio::runtime::Handle;
use tracing::{info, warn};
use url::{Host, Url};

use crate::config::{self, TracesProtocol};
use crate::telemetry::describe_error;

/// Longest time for one batch.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Path of the endpoint for spans over HTTP, as the protocol defines it.
const HTTP_PATH: &str = "v1/traces";

#[derive(Debug, thiserror::Error)]
pub(crate) enum ExporterError {
    #[error("traces.sample must be from 0 to 1")]
    Sample,
    #[error("traces.endpoint must be an http:// or https:// URL")]
    Scheme,
    #[error("traces.endpoint must not hold a user or password; set traces.authorization")]
    UserInfo,
    #[error(
        "traces.authorization would be sent without TLS: use an https:// URL in traces.endpoint, or a loopback address"
    )]
    Plaintext,
    #[error("traces.authorization has characters that a header cannot have")]
    Authorization(#[from] InvalidHeaderValue),
    #[error("traces.endpoint cannot be used")]
    Build(#[from] ExporterBuildError),
    #[error("traces.endpoint cannot be used")]
    Client(#[from] reqwest::Error),
}

/// Runs the sends on the process's runtime: the thread that calls it for each batch has none.
#[derive(Debug)]
pub(super) struct OnRuntime {
    exporter: Arc<SpanExporter>,
    runtime: Handle,
    has_failed: AtomicBool,
}

pub(super) fn new(settings: &config::Traces, endpoint: &Url) -> Result<OnRuntime, ExporterError> {
    if !(0.0..=1.0).contains(&settings.sample) {
        return Err(ExporterError::Sample);
    }
    if !matches!(endpoint.scheme(), "http" | "https") {
        return Err(ExporterError::Scheme);
    }
    if !endpoint.username().is_empty() || endpoint.password().is_some() {
        return Err(ExporterError::UserInfo);
    }
    let authorization = settings.authorization.expose();
    if !authorization.is_empty() && endpoint.scheme() == "http" && !is_loopback(endpoint) {
        return Err(ExporterError::Plaintext);
    }
    let exporter = match settings.protocol {
        TracesProtocol::Grpc => grpc(endpoint, authorization)?,
        TracesProtocol::Http => http(endpoint, authorization)?,
    };
    Ok(OnRuntime { exporter: Arc::new(exporter), runtime: Handle::current(), has_failed: AtomicBool::new(false) })
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn grpc(endpoint: &Url, authorization: &str) -> Result<SpanExporter, ExporterError> {
    let mut headers = HeaderMap::new();
    if !authorization.is_empty() {
        let mut value = HeaderValue::from_str(authorization)?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let builder = SpanExporter::builder().with_tonic().with_metadata(MetadataMap::from_headers(headers));
    let builder = builder.with_endpoint(endpoint.as_str()).with_timeout(TIMEOUT);
    let is_tls = endpoint.scheme() == "https";
    let builder = if is_tls { builder.with_tls_config(ClientTlsConfig::new().with_native_roots()) } else { builder };
    Ok(builder.build()?)
}

fn http(endpoint: &Url, authorization: &str) -> Result<SpanExporter, ExporterError> {
    let mut url = endpoint.clone();
    url.set_path(&format!("{}/{HTTP_PATH}", endpoint.path().trim_end_matches('/')));
    // A redirect would lead spans to another host.
    let client = reqwest::Client::builder().no_proxy().redirect(Policy::none()).timeout(TIMEOUT).build()?;
    let headers = (!authorization.is_empty()).then(|| ("authorization".to_owned(), authorization.to_owned()));
    let builder = SpanExporter::builder().with_http().with_http_client(client);
    let builder = builder.with_headers(headers.into_iter().collect()).with_protocol(Protocol::HttpBinary);
    Ok(builder.with_endpoint(url.as_str()).with_timeout(TIMEOUT).build()?)
}

impl opentelemetry_sdk::trace::SpanExporter for OnRuntime {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exporter = Arc::clone(&self.exporter);
        let sent = self.runtime.spawn(async move { exporter.export(batch).await }).await;
        let sent = sent.unwrap_or_else(|error| Err(OTelSdkError::InternalFailure(error.to_string())));
        match &sent {
            // One line for each outage: a batch is due every few seconds.
            Err(error) if !self.has_failed.swap(true, Ordering::Relaxed) => {
                warn!(
                    "spans cannot be sent to traces.endpoint, and are dropped: {}",
                    describe_error(error as &dyn Error)
                );
            }
            Ok(()) if self.has_failed.swap(false, Ordering::Relaxed) => {
                info!("spans are sent to traces.endpoint again");
            }
            Ok(()) | Err(_) => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            exporter.set_resource(resource);
        }
    }
}
