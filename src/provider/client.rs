//! The HTTP client for providers: sends a request that the core has built, once, and reads a
//! bounded answer. No redirects, no proxy of the environment, no address that was not judged.

use std::error::Error as _;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Proxy, Response, redirect};
use url::Url;

use super::guard::{Guard, Lookup, Refusal, Resolver, system_lookup};
use crate::oauth::token::Request;
use crate::system;

const MAX_BODY: usize = 256 * 1024;
const POOL_IDLE: Duration = Duration::from_mins(1);
const POOL_PER_HOST: usize = 16;
const MAX_RETRY_AFTER: u64 = 24 * 3600;
/// How long a provider is waited for, unless settings say otherwise.
pub(crate) const TOTAL_TIMEOUT: Duration = Duration::from_secs(10);

/// How the client is set up.
#[derive(Clone)]
pub(crate) struct Settings {
    /// Whom it may talk to.
    pub guard: Guard,
    /// For name, TCP and TLS together.
    pub connect_timeout: Duration,
    /// From the first byte sent to the last received.
    pub total_timeout: Duration,
    /// Authorities trusted beside the system's.
    pub extra_ca_pem: Option<String>,
    /// The only proxy there is. It resolves names itself, so it has to do the guard's work for them.
    pub proxy: Option<Url>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            guard: Guard::default(),
            connect_timeout: Duration::from_secs(5),
            total_timeout: TOTAL_TIMEOUT,
            extra_ca_pem: None,
            proxy: None,
        }
    }
}

/// A provider's answer, whatever its status.
#[derive(Clone)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// As sent.
    pub content_type: Option<String>,
    /// How long to wait, when the provider says so; at most a day.
    pub retry_after: Option<Duration>,
    /// At most 256 KiB.
    pub body: Bytes,
}

/// The body stays out: it may hold tokens.
impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).field("length", &self.body.len()).finish_non_exhaustive()
    }
}

/// Why there is no answer. No URL and nothing of the request is in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// The settings make no client.
    #[error("the provider client cannot be set up")]
    Setup,
    /// The guard says no.
    #[error("the provider's address is refused: {0}")]
    Refused(Refusal),
    /// No connection.
    #[error("no connection to the provider")]
    Connect,
    /// No answer in time.
    #[error("the provider did not answer in time")]
    Timeout {
        /// Whether a connection stood, so that the request may have arrived.
        connected: bool,
    },
    /// Over 256 KiB.
    #[error("the provider's answer is larger than 256 KiB")]
    TooLarge,
    /// The connection broke, or what came is not HTTP.
    #[error("the provider's answer broke off or is not HTTP")]
    Protocol,
}

impl Error {
    /// Whether the request may have reached the provider: a code sent in it may be spent.
    #[must_use]
    pub(crate) fn sent(&self) -> bool {
        match self {
            Self::Setup | Self::Refused(_) | Self::Connect => false,
            Self::Timeout { connected } => *connected,
            Self::TooLarge | Self::Protocol => true,
        }
    }
}

/// Talks to token, revocation and key endpoints. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    guard: Guard,
}

impl Client {
    /// Sets the client up.
    ///
    /// # Errors
    /// [`Error::Setup`] when the certificates or the proxy are unusable.
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        Self::with_lookup(settings, system_lookup())
    }

    fn with_lookup(settings: &Settings, lookup: Lookup) -> Result<Self, Error> {
        let Settings { guard, connect_timeout, total_timeout, extra_ca_pem, proxy } = settings;
        let proxy_host = proxy.as_ref().and_then(Url::host_str).map(str::to_owned);
        let mut builder = reqwest::Client::builder()
            .https_only(!guard.allow_insecure_urls)
            .redirect(redirect::Policy::none())
            // A code is sent once: nothing below may send it again.
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .connect_timeout(*connect_timeout)
            .timeout(*total_timeout)
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL_PER_HOST)
            .user_agent(concat!("tokenbus/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Resolver { guard: guard.clone(), proxy: proxy_host, lookup });
        if let Some(pem) = extra_ca_pem {
            let authorities = Certificate::from_pem_bundle(pem.as_bytes()).map_err(|_| Error::Setup)?;
            builder = builder.tls_certs_merge(authorities);
        }
        if let Some(url) = proxy {
            builder = builder.proxy(Proxy::all(url.as_str()).map_err(|_| Error::Setup)?);
        }
        let http = builder.build().map_err(|_| Error::Setup)?;
        Ok(Self { http, guard: guard.clone() })
    }

    /// Sends a request once. Redirects are answers like any other.
    ///
    /// # Errors
    /// [`Error`]; [`Error::sent`] says whether the request may have arrived.
    pub(crate) async fn send(&self, request: Request) -> Result<Answer, Error> {
        read(self.post(request).await?).await
    }

    /// The same for whoever wants to know the answer's status alone: its body is not waited for.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn send_for_status(&self, request: Request) -> Result<u16, Error> {
        Ok(self.post(request).await?.status().as_u16())
    }

    async fn post(&self, request: Request) -> Result<Response, Error> {
        let Request { url, headers, content_type, body } = request;
        self.guard.check_url(&url).map_err(Error::Refused)?;
        let mut builder = self.http.post(url).header(CONTENT_TYPE, content_type).body(body.expose().to_owned());
        for (name, value) in headers {
            let mut value = HeaderValue::from_str(value.expose()).map_err(|_| Error::Setup)?;
            value.set_sensitive(name == AUTHORIZATION.as_str());
            builder = builder.header(name, value);
        }
        builder.send().await.map_err(|error| judge(&error))
    }

    /// Fetches a public document, under the same rules.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn get(&self, url: Url) -> Result<Answer, Error> {
        self.guard.check_url(&url).map_err(Error::Refused)?;
        read(self.http.get(url).send().await.map_err(|error| judge(&error))?).await
    }
}

async fn read(mut response: Response) -> Result<Answer, Error> {
    let status = response.status().as_u16();
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let content_type = header(CONTENT_TYPE);
    let retry_after = header(RETRY_AFTER).and_then(|text| wait(text.trim(), system::now()));
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| judge_body(&error))? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(Error::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, content_type, retry_after, body: body.freeze() })
}

/// How long `Retry-After` says to wait, in seconds or as a date (RFC 9110 §10.2.3); a date that is over is no wait.
fn wait(text: &str, now: Timestamp) -> Option<Duration> {
    let seconds = text.parse().ok().or_else(|| {
        let date = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        Some(u64::try_from(date.as_second().saturating_sub(now.as_second())).unwrap_or(0))
    })?;
    Some(Duration::from_secs(seconds.min(MAX_RETRY_AFTER)))
}

fn judge_body(error: &reqwest::Error) -> Error {
    if error.is_timeout() { Error::Timeout { connected: true } } else { Error::Protocol }
}

fn judge(error: &reqwest::Error) -> Error {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(refusal) = cause.downcast_ref::<Refusal>() {
            return if *refusal == Refusal::Resolution { Error::Connect } else { Error::Refused(*refusal) };
        }
        source = cause.source();
    }
    match (error.is_timeout(), error.is_connect()) {
        (true, connecting) => Error::Timeout { connected: !connecting },
        (false, true) => Error::Connect,
        (false, false) => Error::Protocol,
    }
}

#[cfg(test)]
mod tests;
