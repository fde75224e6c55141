//! Sends spans to a collector by OTLP, over gRPC or HTTP.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
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
    cause: Cause,
}

/// Why the last request over HTTP got no answer. The library's own error names no cause.
type Cause = Arc<ArcSwapOption<String>>;

/// Notes the [`Cause`].
#[derive(Debug)]
struct HttpSender {
    client: reqwest::Client,
    cause: Cause,
}

impl HttpClient for HttpSender {
    fn send_bytes<'s, 'a>(
        &'s self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>
    where
        's: 'a,
        Self: 'a,
    {
        Box::pin(async move {
            let sent = self.client.send_bytes(request).await;
            // A key may be in the URL's query.
            let sent = sent.map_err(|error| match error.downcast::<reqwest::Error>() {
                Ok(error) => Box::new(error.without_url()),
                Err(error) => error,
            });
            let cause = sent.as_ref().err().map(|error| Arc::new(describe_error(error.as_ref())));
            self.cause.store(cause);
            sent
        })
    }
}

pub(super) fn new(settings: &config::Traces, endpoint: &Url) -> Result<OnRuntime, ExporterError> {
    if !(0.0..=1.0).contains(&settings.sample) {
        return Err(ExporterError::Sample);
    }
    if !endpoint.username().is_empty() || endpoint.password().is_some() {
        return Err(ExporterError::UserInfo);
    }
    let authorization = settings.authorization.expose();
    if !authorization.is_empty() && endpoint.scheme() == "http" && !is_loopback(endpoint) {
        return Err(ExporterError::Plaintext);
    }
    let cause = Cause::default();
    let exporter = match settings.protocol {
        TracesProtocol::Grpc => grpc(endpoint, authorization)?,
        TracesProtocol::Http => http(endpoint, authorization, Cause::clone(&cause), TIMEOUT)?,
    };
    Ok(OnRuntime::new(exporter, cause))
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

fn http(endpoint: &Url, authorization: &str, cause: Cause, timeout: Duration) -> Result<SpanExporter, ExporterError> {
    let mut url = endpoint.clone();
    url.set_path(&format!("{}/{HTTP_PATH}", endpoint.path().trim_end_matches('/')));
    // A redirect would lead spans to another host.
    let client = reqwest::Client::builder().no_proxy().redirect(Policy::none()).timeout(timeout).build()?;
    let headers = (!authorization.is_empty()).then(|| ("authorization".to_owned(), authorization.to_owned()));
    let builder = SpanExporter::builder().with_http().with_http_client(HttpSender { client, cause });
    let builder = builder.with_headers(headers.into_iter().collect()).with_protocol(Protocol::HttpBinary);
    Ok(builder.with_endpoint(url.as_str()).with_timeout(timeout).build()?)
}

impl OnRuntime {
    fn new(exporter: SpanExporter, cause: Cause) -> Self {
        let exporter = Arc::new(exporter);
        Self { exporter, runtime: Handle::current(), has_failed: AtomicBool::new(false), cause }
    }

    /// Describes why a batch was not sent.
    fn describe(&self, error: &OTelSdkError) -> String {
        self.cause.swap(None).map_or_else(|| describe_error(error as &dyn Error), |cause| cause.as_ref().clone())
    }
}

impl opentelemetry_sdk::trace::SpanExporter for OnRuntime {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exporter = Arc::clone(&self.exporter);
        let sent = self.runtime.spawn(async move { exporter.export(batch).await }).await;
        let sent = sent.unwrap_or_else(|error| Err(OTelSdkError::InternalFailure(error.to_string())));
        match &sent {
            // One line for each outage: a batch is due every few seconds.
            Err(error) if !self.has_failed.swap(true, Ordering::Relaxed) => {
                warn!("spans cannot be sent to traces.endpoint, and are dropped: {}", self.describe(error));
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

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use opentelemetry_sdk::trace::SpanExporter as _;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// Sends a batch to a collector, and checks what the log says.
    async fn check(endpoint: &str, expected: &str) {
        let cause = Cause::default();
        let exporter = http(&endpoint.parse().unwrap(), "", Cause::clone(&cause), Duration::from_secs(2)).unwrap();
        let exporter = OnRuntime::new(exporter, cause);
        let error = exporter.export(Vec::new()).await.unwrap_err();
        let text = exporter.describe(&error);
        assert!(text.contains(expected) && !text.contains("key=secret"), "{endpoint}: {text}");
    }

    /// Has each connection served by a thread. Returns the address.
    fn serve(serve: impl Fn(TcpStream) + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || listener.incoming().flatten().for_each(serve));
        address
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn o19_the_log_names_why_spans_are_not_sent_over_http() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        check(&format!("http://{closed}?key=secret"), "Connection refused").await;
        // No name server is asked for a name with a label that is too long.
        check(&format!("http://{}.invalid?key=secret", "a".repeat(64)), "dns error").await;

        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_no_client_auth();
        let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = Arc::new(config.with_single_cert(vec![certificate.der().clone()], key).unwrap());
        let of_stranger = serve(move |mut stream| {
            let mut tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            // The client refuses the certificate.
            let _ = tls.complete_io(&mut stream);
        });
        check(&format!("https://{of_stranger}?key=secret"), "invalid peer certificate").await;

        let silent = serve(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
        check(&format!("http://{silent}?key=secret"), "timed out").await;
        let broken = serve(|mut stream| {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
        });
        check(&format!("http://{broken}?key=secret"), "status code: 503").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn o19_no_redirect_of_a_collector_is_followed() {
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        let location = elsewhere.local_addr().unwrap();
        for status in [301, 302, 303, 307, 308] {
            let redirects = serve(move |mut stream| {
                let _ = stream.read(&mut [0; 4096]);
                let head = format!("HTTP/1.1 {status} Elsewhere\r\nlocation: http://{location}/v1/traces\r\n");
                let _ = stream.write_all(format!("{head}content-length: 0\r\n\r\n").as_bytes());
            });
            check(&format!("http://{redirects}"), &format!("status code: {status}")).await;
        }
        elsewhere.set_nonblocking(true).unwrap();
        assert_eq!(elsewhere.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "a redirect was followed");
    }
}
