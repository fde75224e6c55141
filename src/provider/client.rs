//! The HTTP client for providers. Sends a request once and reads a bounded response. Follows no redirect, uses no proxy
//! from the environment, and connects only to addresses that the [`Guard`] allows.

mod conditional;
mod encoding;
mod response;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Body, Certificate, NoProxy, Proxy, Response, redirect};
use tracing::Instrument as _;
use url::Url;

use self::conditional::Conditional;
use self::response::read_response;
pub(crate) use self::response::{MAX_BODY_BYTES, ProviderResponse};
use super::ProviderError;
use super::error::Peer;
use super::guard::{Guard, Lookup, Resolver, system_lookup};
use crate::integration::Method;
use crate::oauth::{self, HttpRequest};
use crate::telemetry::traces;

/// Time after which an unused connection is closed. Servers close idle connections too, and a request that meets the close
/// may have arrived, so a code in it would be lost. Few servers close after less than 5 s.
const POOL_IDLE: Duration = Duration::from_secs(5);
/// Unused connections to keep to one host. Further requests at once open connections of their own.
const POOL_PER_HOST: usize = 16;
/// Default limit for one request without a limit of its own, from connecting to the last byte of the response.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Last part of a time limit, for what the socket already holds. A process that was stopped finds its timers over
/// before it has read the response that arrived meanwhile, and that response may hold the only new tokens.
const HAND_OVER: Duration = Duration::from_millis(250);

#[derive(Clone)]
pub(crate) struct Settings {
    pub guard: Guard,
    /// For name resolution, TCP and TLS together.
    pub connect_timeout: Duration,
    pub total_timeout: Duration,
    /// Certificate authorities trusted in addition to the system's.
    pub extra_ca_pem: Option<String>,
    /// The only proxy that is used. It resolves the providers' names, so it must also keep them from private addresses.
    pub proxy: Option<Url>,
    /// Hosts, suffixes and networks that are reached without the proxy.
    pub no_proxy: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            guard: Guard::default(),
            connect_timeout: Duration::from_secs(5),
            total_timeout: TOTAL_TIMEOUT,
            extra_ca_pem: None,
            proxy: None,
            no_proxy: Vec::new(),
        }
    }
}

/// Talks to token, revocation and key endpoints and to the receiver of webhooks. Cheap to clone; clones share
/// connections.
#[derive(Clone)]
pub(crate) struct Client(Arc<Shared>);

struct Shared {
    /// Replaced when the authorities change.
    http: ArcSwap<reqwest::Client>,
    /// Which URLs the proxy is used for.
    proxied: Matcher,
    settings: Settings,
    lookup: Lookup,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// # Errors
    /// [`ProviderError::Setup`] if the certificates or the proxy are unusable.
    pub(crate) fn new(settings: &Settings) -> Result<Self, ProviderError> {
        Self::with_lookup(settings, system_lookup())
    }

    fn with_lookup(settings: &Settings, lookup: Lookup) -> Result<Self, ProviderError> {
        let http = http_client(settings, Lookup::clone(&lookup)).map_err(|error| ProviderError::Setup(error.into()))?;
        let proxied = Matcher::builder().all(settings.proxy.as_ref().map_or("", Url::as_str));
        let proxied = proxied.no(settings.no_proxy.join(",")).build();
        let http = ArcSwap::from_pointee(http);
        Ok(Self(Arc::new(Shared { http, proxied, settings: settings.clone(), lookup })))
    }

    /// Trusts these authorities beside the system's from the next connection on, in all clones. Reads the system's again.
    pub(super) fn trust(&self, extra_ca_pem: Option<String>) -> Result<(), ProviderError> {
        let settings = Settings { extra_ca_pem, ..self.0.settings.clone() };
        let http = http_client(&settings, Lookup::clone(&self.0.lookup));
        self.0.http.store(Arc::new(http.map_err(|error| ProviderError::Setup(error.into()))?));
        Ok(())
    }

    /// Sends a request once, for at most `limit`, and returns the response with any status, redirects included. `may_send` is
    /// asked when the connection is open, directly before the request leaves, so that no time passes in between. It must not
    /// return true after it has returned false.
    ///
    /// # Errors
    /// If `may_send` returned false, the provider has received nothing of the request.
    pub(crate) async fn send_if(
        &self,
        request: HttpRequest,
        limit: Duration,
        may_send: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<ProviderResponse, ProviderError> {
        within(limit, async { read_response(self.post(request, may_send).await?).await }).await
    }

    /// Sends a request once and returns the response's status without waiting for the body.
    pub(crate) async fn send_for_status(&self, request: HttpRequest) -> Result<u16, ProviderError> {
        within(self.0.settings.total_timeout, async { Ok(self.post(request, || true).await?.status().as_u16()) }).await
    }

    async fn post(
        &self,
        request: HttpRequest,
        may_send: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Response, ProviderError> {
        let HttpRequest { method, url, headers, body } = request;
        self.0.settings.guard.check_url(&url).map_err(ProviderError::Refused)?;
        let peer = self.peer(&url);
        let name = match method {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Delete => "DELETE",
        };
        let span = traces::provider_request(name, url.host_str(), url.port_or_known_default());
        let mut builder = match method {
            Method::Get => self.0.http.load().get(url),
            Method::Post => self.0.http.load().post(url),
            Method::Delete => self.0.http.load().delete(url),
        };
        builder = match body {
            Some(oauth::Body { content_type, text }) => {
                let body = Body::wrap(Conditional::new(text.expose().to_owned().into(), may_send));
                builder.header(CONTENT_TYPE, content_type).body(body)
            }
            None => builder.body(Body::wrap(Conditional::empty(method == Method::Post, may_send))),
        };
        for (name, value) in headers {
            let mut value = HeaderValue::from_str(value.expose())?;
            value.set_sensitive(true);
            builder = builder.header(name.as_ref(), value);
        }
        let sent = builder.send().instrument(span.clone()).await;
        match &sent {
            Ok(response) => traces::answered(&span, response.status().as_u16(), response.status().as_u16() >= 400),
            Err(_) => traces::unanswered(&span),
        }
        sent.map_err(|error| ProviderError::from_send(error, peer))
    }

    fn peer(&self, url: &Url) -> Peer {
        let is_proxied = url.as_str().parse().is_ok_and(|uri| self.0.proxied.intercept(&uri).is_some());
        if is_proxied { Peer::Proxy } else { Peer::Provider }
    }

    /// Fetches a public document under the same rules.
    pub(crate) async fn get(&self, url: Url) -> Result<ProviderResponse, ProviderError> {
        self.0.settings.guard.check_url(&url).map_err(ProviderError::Refused)?;
        let peer = self.peer(&url);
        let fetched = async {
            let answered = self.0.http.load().get(url).send().await;
            read_response(answered.map_err(|error| ProviderError::from_send(error, peer))?).await
        };
        within(self.0.settings.total_timeout, fetched).await
    }
}

/// Runs a request for at most `limit`. A process that stood still has [`HAND_OVER`] at its end.
async fn within<T, E: From<ProviderError>>(
    limit: Duration,
    request: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let mut request = pin!(request);
    if let Ok(done) = tokio::time::timeout(limit.saturating_sub(HAND_OVER), &mut request).await {
        return done;
    }
    let handed_over = tokio::time::timeout(limit.min(HAND_OVER), request).await;
    handed_over.unwrap_or_else(|elapsed| Err(ProviderError::timed_out(elapsed).into()))
}

fn http_client(settings: &Settings, lookup: Lookup) -> Result<reqwest::Client, reqwest::Error> {
    let Settings { guard, connect_timeout, total_timeout: _, extra_ca_pem, proxy, no_proxy } = settings;
    let proxy_host = proxy.as_ref().and_then(Url::host_str).map(str::to_owned);
    let mut builder = reqwest::Client::builder()
        .https_only(!guard.allow_insecure_urls)
        .redirect(redirect::Policy::none())
        // An authorization code must be sent only once, and only the worker decides about retries.
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        .http1_only()
        .connect_timeout(*connect_timeout)
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(POOL_PER_HOST)
        .user_agent(concat!("tokenbus/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(Resolver { guard: guard.clone(), proxy: proxy_host, lookup });
    if let Some(pem) = extra_ca_pem {
        builder = builder.tls_certs_merge(Certificate::from_pem_bundle(pem.as_bytes())?);
    }
    if let Some(url) = proxy {
        builder = builder.proxy(Proxy::all(url.as_str())?.no_proxy(NoProxy::from_string(&no_proxy.join(","))));
    }
    builder.build()
}

#[cfg(test)]
mod tests;
