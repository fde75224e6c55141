//! The gateway: translates between HTTP and the bus. It holds no key and no state, and verifies no credential.

pub(crate) mod backend;
mod listener;
mod routes;

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use hyper::body::Body;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{Method, Request, Version};
use matchit::MatchError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};
use url::Url;

use self::backend::{Backend, RequestContext};
use self::listener::client_address;
pub(crate) use self::listener::limits::Limits;
pub(crate) use self::listener::rate_limits::Rate;
use self::listener::rate_limits::RateLimits;
use self::listener::server::line_ends::BareLineFeed;
pub(crate) use self::listener::server::{Drain, run};
pub(crate) use self::listener::tls::{CERTIFICATE_CHECK_INTERVAL, Certificates};
use self::routes::error::HttpError;
pub(crate) use self::routes::metrics::Metrics;
pub(crate) use self::routes::openapi::DOCUMENT as OPENAPI;
use self::routes::reply::{self, Reply};
use self::routes::request::{self, ParsedRequest, Query, RequestLine};
pub(crate) use self::routes::table::Served;
use self::routes::table::{Found, Routes};
use self::routes::{api_keys, callback, configs, connections, health, openapi, providers, start};
use crate::call::Operation;
use crate::command::Origin;
use crate::oauth::callback::PARAMETERS;
use crate::secret::Secret;
use crate::telemetry::traces;

/// Most bytes of an unread body that are read and discarded so that the client sees the answer.
const MAX_DRAINED_BYTES: usize = 1024 * 1024;
/// Most header lines. The HTTP library has the same limit for HTTP/1.1: for more it would allocate with each request.
const MAX_HEADER_LINES: usize = 100;
/// Label of requests that match no route.
const UNROUTED: &str = "unrouted";

/// The gateway of one listener.
#[derive(Debug)]
pub(crate) struct Gateway {
    backend: Arc<Backend>,
    metrics: Metrics,
    routes: Routes,
    served: Served,
    /// The beginning of start links, as browsers reach the gateway.
    public_url: Option<Url>,
    /// Path that an ingress leaves in front of ours; or empty.
    base_path: String,
    /// Cancelled when the process is about to end.
    leaving: CancellationToken,
}

#[derive(Debug, thiserror::Error)]
#[error("the routes contradict each other")]
pub(crate) struct RouteError(#[from] matchit::InsertError);

/// Labels of a request in the log and the metrics. Its path and query are never among them: they hold secrets.
#[derive(Debug, Clone, Copy)]
struct Label {
    route: &'static str,
    method: &'static str,
}

/// The sender of a request, and the limits that apply to it.
#[derive(Debug, Clone, Copy)]
struct Arrival<'a> {
    limits: &'a Limits,
    rates: &'a RateLimits,
    client: IpAddr,
    request_id: &'a str,
    /// Also in the worker's log.
    traceparent: &'a str,
    body_deadline: Instant,
}

impl Gateway {
    pub(crate) fn new(backend: Arc<Backend>, metrics: Metrics, served: Served) -> Result<Self, RouteError> {
        Ok(Self {
            backend,
            metrics,
            routes: Routes::new(served)?,
            served,
            public_url: None,
            base_path: String::new(),
            leaving: CancellationToken::new(),
        })
    }

    #[must_use]
    pub(crate) fn with_public_url(self, public_url: Url) -> Self {
        Self { public_url: Some(public_url), ..self }
    }

    #[must_use]
    pub(crate) fn with_base_path(self, base_path: String) -> Self {
        Self { base_path, ..self }
    }

    #[must_use]
    pub(crate) fn with_leaving(self, leaving: CancellationToken) -> Self {
        Self { leaving, ..self }
    }

    /// Answers one request, logs and counts it.
    async fn answer<B>(&self, request: Request<B>, peer: IpAddr, limits: &Limits, rates: &RateLimits) -> Reply
    where
        B: Body + Unpin,
        B::Data: Buf,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let began = Instant::now();
        let in_flight = self.metrics.in_flight();
        let (mut head, mut body) = request.into_parts();
        // A base path such as `/hub` is the beginning of the gateway's own paths, too.
        if !self.base_path.is_empty() && self.routes.find(head.uri.path()).is_err() {
            request::remove_base_path(&mut head.uri, &self.base_path);
        }
        let request_id = request::request_id(&head.headers);
        let client = client_address::client(peer, &head.headers, &limits.trusted_proxies);
        let body_deadline = began + limits.body_timeout;
        let asked_by = head.method.clone();
        let mut label = Label { route: UNROUTED, method: method_label(&head.method) };
        let routed = check_head(&head).and_then(|()| self.route(&head, peer, limits, &mut label));
        let is_traced = routed.as_ref().is_ok_and(|(_, operation)| !operation.is_for_monitoring());
        let span = if is_traced { traces::request(label.method, label.route) } else { Span::none() };
        let traceparent = request::traceparent(&head.headers);
        let traceparent = traces::continued(&span, traceparent.as_deref()).or(traceparent);
        let traceparent = traceparent.unwrap_or_else(request::new_traceparent);
        let arrival =
            Arrival { limits, rates, client, request_id: &request_id, traceparent: &traceparent, body_deadline };
        let mut reply = match routed {
            Ok((found, operation)) => {
                self.carry_out(operation, found, head, &mut body, arrival).instrument(span.clone()).await
            }
            Err(error) => rates.admit_address(client).err().unwrap_or(error).reply(false).json(),
        };
        request::drain_body(&mut body, MAX_DRAINED_BYTES, body_deadline).await;
        if asked_by == Method::HEAD {
            reply::drop_body(&mut reply);
        }
        reply::add_common_headers(&mut reply, &request_id);
        let status = reply.status().as_u16();
        traces::answered(&span, status, status >= 500);
        let Label { route, method } = label;
        self.metrics.request(route, method, status);
        drop(in_flight);
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        // A target that docs/operations.md documents for `log.filter`; it must not change with the module's path.
        tracing::info!(target: "tokenbus::http", method, route, status, ms, %client, request_id, traceparent, "request");
        reply
    }

    /// Finds the operation, and checks the size of the request's head.
    fn route(
        &self,
        head: &Parts,
        peer: IpAddr,
        limits: &Limits,
        label: &mut Label,
    ) -> Result<(Found<'_>, Operation), HttpError> {
        let found = self.routes.find(head.uri.path())?;
        label.route = found.row.pattern;
        let operation = found.row.operation(head.method.as_str())?;
        let is_shared = operation == Operation::Metrics && self.served == Served::All;
        if is_shared && !client_address::is_local(peer, &head.headers, &limits.trusted_proxies) {
            return Err(MatchError::NotFound.into());
        }
        let uri_bytes = head.uri.path_and_query().map_or(0, |uri| uri.as_str().len());
        if uri_bytes > limits.uri {
            return Err(HttpError::UriTooLong(limits.uri));
        }
        if head.headers.len() > MAX_HEADER_LINES {
            return Err(HttpError::TooManyHeaders(MAX_HEADER_LINES));
        }
        if header_bytes(&head.headers) > limits.headers {
            return Err(HttpError::HeadersTooLarge(limits.headers));
        }
        Ok((found, operation))
    }

    /// Admits and runs an operation within the request's time limit. Turns every error into its reply.
    async fn carry_out<B>(
        &self,
        operation: Operation,
        found: Found<'_>,
        head: Parts,
        body: &mut B,
        arrival: Arrival<'_>,
    ) -> Reply
    where
        B: Body + Unpin,
        B::Data: Buf,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let html = operation.is_for_browsers() && request::prefers_html(&head.headers);
        let work = async {
            let mut request = admit(operation, found, head, arrival)?;
            let body = request::read_body(body, arrival.limits.body, arrival.body_deadline);
            // A signature covers the body, so its hash is needed before any call. Other bodies are read only by the
            // operations that use them.
            let Some(signed) = request.context.credential.take_if(|credential| credential.is_signed()) else {
                return self.dispatch(request, body, html).await;
            };
            let body = body.await?;
            request.context.credential = Some(signed.with_body_hash(&body));
            self.dispatch(request, std::future::ready(Ok(body)), html).await
        };
        let done = tokio::time::timeout(arrival.limits.request_timeout, work).await;
        let reply = done.unwrap_or(Err(HttpError::Timeout)).unwrap_or_else(|error| {
            let error = error.reply(operation.missing_is_404());
            if operation.is_for_browsers() { callback::failure(&error, None, html) } else { error.json() }
        });
        if operation == Operation::Callback {
            self.metrics.callback(reply.status().as_u16());
        }
        reply
    }

    /// Runs the operation. Only some of them read the body.
    async fn dispatch<F>(&self, request: ParsedRequest, body: F, html: bool) -> Result<Reply, HttpError>
    where
        F: Future<Output = Result<Bytes, HttpError>>,
    {
        let backend = &self.backend;
        match request.operation {
            Operation::Callback => Ok(callback::finish(backend, request, html).await),
            Operation::CallbackForm => callback::redirect_form(backend, request, body.await?).await,
            Operation::StartPage => start::page(backend, request).await,
            Operation::Start => start::start(backend, self.public_url.as_ref(), request, body.await?).await,
            Operation::ListConfigs => configs::list(backend, request).await,
            Operation::GetConfig => configs::get(backend, request).await,
            Operation::PutConfig => configs::put(backend, request, body.await?).await,
            Operation::DeleteConfig => configs::delete(backend, request).await,
            Operation::ListProviders => providers::list(backend, request).await,
            Operation::GetProvider => providers::get(backend, request).await,
            Operation::Login => connections::login(backend, self.public_url.as_ref(), request).await,
            Operation::ListConnections => connections::list(backend, request).await,
            Operation::Token => connections::token(backend, request).await,
            Operation::Refresh => connections::refresh(backend, request).await,
            Operation::Revoke => connections::revoke(backend, request).await,
            Operation::ListKeys => api_keys::list(backend, request).await,
            Operation::CreateKey => api_keys::create(backend, request, body.await?).await,
            Operation::RevokeKey => api_keys::revoke(backend, request).await,
            Operation::Health => Ok(health::alive()),
            Operation::Ready => health::ready(backend, &self.leaving).await,
            Operation::Metrics => health::metrics(&self.metrics),
            Operation::OpenApi => openapi::document(&request),
        }
    }
}

/// Refuses heads that a proxy before the gateway may read differently (RFC 9112 §2.2, §3.2).
fn check_head(head: &Parts) -> Result<(), HttpError> {
    if head.extensions.get::<BareLineFeed>().is_some() {
        return Err(HttpError::bad_request("the lines of a request's head must end with CR LF"));
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    // HTTP/2 has `:authority` in place of `Host`.
    let is_missing = host.is_none() && head.version == Version::HTTP_11;
    let is_invalid = host.is_some_and(|host| host.is_empty() || !is_authority(host)) || hosts.next().is_some();
    if is_missing || is_invalid {
        return Err(HttpError::bad_request(
            "a request needs exactly one Host header, with a host and an optional port",
        ));
    }
    Ok(())
}

fn is_authority(host: &HeaderValue) -> bool {
    !host.as_bytes().contains(&b'@') && Authority::try_from(host.as_bytes()).is_ok()
}

/// Parses a request and counts it against the rate limits.
fn admit(
    operation: Operation,
    found: Found<'_>,
    head: Parts,
    arrival: Arrival<'_>,
) -> Result<ParsedRequest, HttpError> {
    let headers = head.headers;
    if !operation.is_for_monitoring() {
        arrival.rates.admit_address(arrival.client)?;
    }
    // A prefetch must not use up a state or a ticket.
    if operation.is_for_browsers() && request::is_prefetch(&headers) {
        return Err(HttpError::bad_request("links of a login are not for prefetching"));
    }
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let line = RequestLine { method: head.method.as_str(), target };
    let credential = if operation == Operation::Callback {
        request::callback_credential(&headers, line)?
    } else if operation.is_open() || is_without_credential(operation) {
        None
    } else {
        let credential = request::credential(&headers, line)?;
        arrival.rates.admit_credential(&credential)?;
        Some(credential)
    };
    let raw_query = head.uri.query().unwrap_or_default();
    let query = if operation.is_for_monitoring() {
        Query::parse_known(raw_query, &[])?
    } else if matches!(operation, Operation::Callback | Operation::CallbackForm) {
        Query::parse_known(raw_query, &PARAMETERS)?
    } else {
        Query::parse(raw_query)?
    };
    let origin = Origin { client_address: Some(arrival.client), request_id: Some(arrival.request_id.to_owned()) };
    let context = RequestContext { credential, origin, traceparent: Some(arrival.traceparent.to_owned()) };
    Ok(ParsedRequest { operation, names: found.names, query, raw_query: Secret::new(raw_query), headers, context })
}

/// Returns true if a credential of the request is ignored: a form or a page carries its own.
fn is_without_credential(operation: Operation) -> bool {
    matches!(operation, Operation::CallbackForm | Operation::StartPage | Operation::Start)
}

/// The size of the headers in HTTP/1.1.
fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

/// Returns a known method's name. Clients can invent others, and labels must come from a fixed set.
fn method_label(method: &Method) -> &'static str {
    let known = ["GET", "PUT", "DELETE", "HEAD", "POST", "PATCH", "OPTIONS", "TRACE", "CONNECT"];
    known.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

#[cfg(test)]
mod tests;
