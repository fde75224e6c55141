//! The HTTP edge: translates between HTTP and the bus, and holds no key, no state and no judgement
//! about credentials.

pub(crate) mod backend;
mod listener;
mod routes;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use hyper::body::Body;
use hyper::header::HeaderMap;
use hyper::http::request::Parts;
use hyper::{Method, Request};
use tokio::time::Instant;
use url::Url;

use crate::call::Operation;
use crate::gateway::backend::{Backend, RequestContext};

use crate::secret::Secret;

use self::listener::rate_limits::Gate;
pub(crate) use self::listener::rate_limits::Rate;
pub(crate) use self::listener::server::{Drain, Limits, run};
pub(crate) use self::listener::tls::{Certificates, LOOK};
use self::routes::error::HttpError;
pub(crate) use self::routes::metrics::Metrics;
pub(crate) use self::routes::openapi::DOCUMENT as OPENAPI;
use self::routes::reply::{self, Reply};
use self::routes::request::{self, Asked, Query, Seen};
pub(crate) use self::routes::table::Served;
use self::routes::table::{Found, Routes};
use self::routes::{api_keys, callback, configs, connections, health, openapi};

/// Bytes of a refused body that are read all the same.
const DRAIN: usize = 1024 * 1024;
/// Label of what matches no route.
const UNROUTED: &str = "unrouted";

/// The edge behind one listener.
#[derive(Debug)]
pub(crate) struct Gateway {
    backend: Arc<Backend>,
    metrics: Metrics,
    routes: Routes,
    public_url: Option<Url>,
}

/// The table of routes contradicts itself.
#[derive(Debug, thiserror::Error)]
#[error("the routes contradict each other")]
pub(crate) struct RouteError(#[from] matchit::InsertError);

/// What the log and the metrics say of a request: never its path or query, which hold secrets.
#[derive(Debug, Clone, Copy)]
struct Label {
    route: &'static str,
    method: &'static str,
}

/// What surrounds a request: who sent it, and what it is held to.
#[derive(Debug, Clone, Copy)]
struct Visit<'a> {
    limits: &'a Limits,
    gate: &'a Gate,
    client: IpAddr,
    /// By which the worker's log knows it, too.
    traceparent: &'a str,
    /// By when its body has to be there.
    body_by: Instant,
}

impl Gateway {
    /// An edge that serves these routes.
    ///
    /// # Errors
    /// When the table of routes contradicts itself.
    pub(crate) fn new(backend: Arc<Backend>, metrics: Metrics, served: Served) -> Result<Self, RouteError> {
        Ok(Self { backend, metrics, routes: Routes::new(served)?, public_url: None })
    }

    /// The same, with how browsers reach it: the beginning of the links that it makes itself.
    #[must_use]
    pub(crate) fn at(self, public_url: Url) -> Self {
        Self { public_url: Some(public_url), ..self }
    }

    /// Answers one request of that peer, whatever it is; logs and counts it.
    async fn answer<B>(&self, request: Request<B>, peer: IpAddr, limits: &Limits, gate: &Gate) -> Reply
    where
        B: Body + Unpin,
        B::Data: Buf,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let began = Instant::now();
        let in_flight = self.metrics.in_flight();
        let (head, mut body) = request.into_parts();
        let request_id = request::request_id(&head.headers);
        let traceparent = request::traceparent(&head.headers).unwrap_or_else(request::new_traceparent);
        let client = gate.client(peer, &head.headers);
        let visit = Visit { limits, gate, client, traceparent: &traceparent, body_by: began + limits.body_timeout };
        let mut label = Label { route: UNROUTED, method: method_label(&head.method) };
        let mut reply = match self.found(&head, limits, &mut label) {
            Ok((found, operation)) => self.run(operation, found, head, &mut body, visit).await,
            Err(error) => gate.admit_address(client).err().unwrap_or(error).answer(false).json(),
        };
        request::drain(&mut body, DRAIN, visit.body_by).await;
        reply::seal_headers(&mut reply, &request_id);
        let status = reply.status().as_u16();
        let Label { route, method } = label;
        self.metrics.request(route, method, status);
        drop(in_flight);
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        // A target that docs/operations.md documents for `log.filter`; it must not change with the module's path.
        tracing::info!(target: "tokenbus::http", method, route, status, ms, %client, request_id, traceparent, "request");
        reply
    }

    fn found(&self, head: &Parts, limits: &Limits, label: &mut Label) -> Result<(Found<'_>, Operation), HttpError> {
        let found = self.routes.find(head.uri.path())?;
        label.route = found.row.pattern;
        let operation = found.row.operation(head.method.as_str())?;
        let uri = head.uri.path_and_query().map_or(0, |uri| uri.as_str().len());
        if uri > limits.uri {
            return Err(HttpError::bad(format!("the URI is longer than {} bytes", limits.uri)));
        }
        if size(&head.headers) > limits.headers {
            return Err(HttpError::HeadersTooLarge(limits.headers));
        }
        Ok((found, operation))
    }

    async fn run<B>(&self, operation: Operation, found: Found<'_>, head: Parts, body: &mut B, visit: Visit<'_>) -> Reply
    where
        B: Body + Unpin,
        B::Data: Buf,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let html = operation.is_for_browsers() && request::prefers_html(&head.headers);
        let work = async {
            let mut asked = asked(operation, found, head, visit)?;
            let body = request::body(body, visit.limits.body, visit.body_by);
            let Some(signed) = asked.context.credential.take_if(|credential| credential.is_signed()) else {
                return self.reply(asked, body, html).await;
            };
            let body = body.await?;
            asked.context.credential = Some(signed.over(&body));
            self.reply(asked, std::future::ready(Ok(body)), html).await
        };
        let done = tokio::time::timeout(visit.limits.request_timeout, work).await;
        let reply = done.unwrap_or(Err(HttpError::Timeout)).unwrap_or_else(|error| {
            let answer = error.answer(operation.missing_is_404());
            if operation.is_for_browsers() { callback::failed(&answer, None, html) } else { answer.json() }
        });
        if operation == Operation::Callback {
            self.metrics.callback(reply.status().as_u16());
        }
        reply
    }

    /// Does what is asked; only two operations read the body.
    async fn reply<F>(&self, asked: Asked, body: F, html: bool) -> Result<Reply, HttpError>
    where
        F: Future<Output = Result<Bytes, HttpError>>,
    {
        let backend = &self.backend;
        match asked.operation {
            Operation::Callback => Ok(callback::finish(backend, asked, html).await),
            Operation::Start => callback::start(backend, asked).await,
            Operation::ListConfigs => configs::list(backend, asked).await,
            Operation::GetConfig => configs::get(backend, asked).await,
            Operation::PutConfig => configs::put(backend, asked, body.await?).await,
            Operation::DeleteConfig => configs::delete(backend, asked).await,
            Operation::Login => connections::login(backend, self.public_url.as_ref(), asked).await,
            Operation::ListConnections => connections::list(backend, asked).await,
            Operation::Token => connections::token(backend, asked).await,
            Operation::Refresh => connections::refresh(backend, asked).await,
            Operation::Revoke => connections::revoke(backend, asked).await,
            Operation::ListKeys => api_keys::list(backend, asked).await,
            Operation::CreateKey => api_keys::create(backend, asked, body.await?).await,
            Operation::RevokeKey => api_keys::revoke(backend, asked).await,
            Operation::Health => health::alive(&asked),
            Operation::Ready => health::ready(backend, &asked).await,
            Operation::Metrics => health::metrics(&self.metrics, &asked),
            Operation::OpenApi => openapi::document(&asked),
        }
    }
}

/// Takes a request apart and counts it. A browser that only guesses is turned away before anything is asked.
fn asked(operation: Operation, found: Found<'_>, head: Parts, visit: Visit<'_>) -> Result<Asked, HttpError> {
    let headers = head.headers;
    if !operation.is_watched() {
        visit.gate.admit_address(visit.client)?;
    }
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let seen = Seen { method: head.method.as_str(), target };
    if operation.is_for_browsers() && request::is_prefetch(&headers) {
        return Err(HttpError::bad("links of a login are not for prefetching"));
    }
    let credential = if operation == Operation::Callback {
        request::credential_beside(&headers, seen)?
    } else if operation.is_open() || operation == Operation::Start {
        None
    } else {
        let credential = request::credential(&headers, seen)?;
        visit.gate.admit_credential(&credential)?;
        Some(credential)
    };
    let raw_query = head.uri.query().unwrap_or_default();
    let query = Query::parse(raw_query)?;
    let context = RequestContext { credential, traceparent: Some(visit.traceparent.to_owned()) };
    Ok(Asked { operation, names: found.names, query, raw_query: Secret::new(raw_query), headers, context })
}

/// Bytes of the headers as HTTP/1.1 would write them.
fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

/// The method when it is a known one; anybody can make up others.
fn method_label(method: &Method) -> &'static str {
    let known = ["GET", "PUT", "DELETE", "HEAD", "POST", "PATCH", "OPTIONS", "TRACE", "CONNECT"];
    known.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

#[cfg(test)]
mod tests;
