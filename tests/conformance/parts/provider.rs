//! The authorization server of `tests/provider`.

use super::install;
use crate::support::child::Running;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;
use url::Url;

/// A running authorization server.
pub(crate) struct Provider {
    /// Its issuer identifier; the endpoints are below it.
    pub(crate) issuer: String,
    http: reqwest::Client,
    _process: Running,
    _folder: TempDir,
}

/// A request to the token or revocation endpoint.
#[derive(Debug, Deserialize, PartialEq)]
pub(crate) struct Received {
    /// `token` or `revocation`.
    pub(crate) route: String,
    pub(crate) grant_type: Option<String>,
    pub(crate) client_id: Option<String>,
    /// The client's authentication methods, joined by `+`.
    pub(crate) auth: Option<String>,
    pub(crate) status: u16,
    /// The OAuth error code of the answer.
    pub(crate) error: Option<String>,
}

/// Treatment of a token request.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// Answers 503 without processing the request.
    Unavailable,
    /// Processes the request, but never sends the answer.
    Lost,
}

impl Provider {
    /// Starts a server that knows `clients` (client metadata by RFC 7591 names), with access tokens of an hour.
    pub(crate) async fn start(clients: &[Value]) -> Self {
        Self::with_lifetime(clients, 3600).await
    }

    /// The same with access tokens of `seconds`.
    pub(crate) async fn with_lifetime(clients: &[Value], seconds: u32) -> Self {
        let server = install::provider().join("server.mjs");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let settings = json!({ "clients": clients, "access_token_ttl": seconds });
        let mut process = Running::start(Path::new("node"), &folder.path().join("log"), |command| {
            command.arg(server).arg(settings.to_string());
        });
        let issuer = process.line(|line| Some(serde_json::from_str::<Listening>(line).ok()?.issuer)).await;
        let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        Self { issuer, http, _process: process, _folder: folder }
    }

    pub(crate) fn authorization_endpoint(&self) -> Url {
        self.endpoint("auth")
    }

    pub(crate) fn token_endpoint(&self) -> Url {
        self.endpoint("token")
    }

    pub(crate) fn revocation_endpoint(&self) -> Url {
        self.endpoint("token/revocation")
    }

    /// The requests to the token and revocation endpoints, oldest first.
    pub(crate) async fn received(&self) -> Vec<Received> {
        let answer = self.http.get(self.endpoint("test/requests")).send().await.expect("the provider answers");
        answer.json().await.expect("a list of requests")
    }

    /// Sets the treatment of the next token requests; later ones are served as usual.
    pub(crate) async fn fault(&self, faults: &[Fault]) {
        let names: Vec<_> = faults.iter().map(|fault| fault.name()).collect();
        let sent = self.http.post(self.endpoint("test/faults")).json(&names).send().await;
        sent.and_then(reqwest::Response::error_for_status).expect("the provider takes the faults");
    }

    fn endpoint(&self, path: &str) -> Url {
        Url::parse(&self.issuer).and_then(|issuer| issuer.join(path)).expect("an endpoint's URL")
    }
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Lost => "lost",
        }
    }
}

#[derive(Deserialize)]
struct Listening {
    issuer: String,
}
