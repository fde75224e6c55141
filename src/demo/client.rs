//! The demo's HTTP client: acts as the browser and as a caller of the gateway.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use reqwest::{Client, Method, StatusCode, header, redirect};
use serde_json::Value;

use crate::secret::Secret;

/// Request timeout. Longer than the gateway's deadline, so that the gateway's own error arrives.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest accepted body in bytes.
const MAX_ANSWER: usize = 1024 * 1024;

pub(super) struct Got {
    pub(super) status: StatusCode,
    /// Target of a redirect.
    pub(super) location: Option<String>,
    /// Body as JSON; `null` if it is not JSON.
    pub(super) body: Value,
}

/// Client without redirects and proxy.
#[derive(Clone)]
pub(super) struct Browser(Client);

impl Browser {
    pub(super) fn new() -> anyhow::Result<Self> {
        let client = Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(TIMEOUT).build()?;
        Ok(Self(client))
    }

    pub(super) async fn get(&self, url: &str, accept: &str) -> anyhow::Result<Got> {
        self.send(self.0.get(url).header(header::ACCEPT, accept)).await
    }

    pub(super) async fn post(&self, url: &str, form: String) -> anyhow::Result<Got> {
        let kind = "application/x-www-form-urlencoded";
        self.send(self.0.post(url).header(header::CONTENT_TYPE, kind).body(form)).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Got> {
        let mut response = request.send().await.context("no answer")?;
        let location = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok()).map(str::to_owned);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER {
                bail!("the answer is larger than {MAX_ANSWER} bytes");
            }
        }
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Ok(Got { status: response.status(), location, body })
    }
}

/// The gateway, called with an API key.
#[derive(Clone)]
pub(super) struct Gateway {
    pub(super) browser: Browser,
    pub(super) url: String,
    pub(super) api_key: Secret,
}

/// Path that starts a login of the demo's connection.
pub(super) const LOGIN: &str = "/hub/integrations/demo/oauth-login/workspace1";

impl Gateway {
    /// Sends a request with the API key.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Got> {
        let request = self.browser.0.request(method, format!("{}{path}", self.url));
        let request = request.header("x-api-key", self.api_key.expose()).header(header::ACCEPT, "application/json");
        let request = match body {
            Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(Bytes::from(body.to_string())),
            None => request,
        };
        self.browser.send(request).await
    }

    /// Starts a login and returns its `oauth_url`, which works once.
    pub(super) async fn login(&self) -> anyhow::Result<String> {
        let Got { status, body, .. } = self.call(Method::GET, LOGIN, None).await?;
        match body.get("oauth_url").and_then(Value::as_str) {
            Some(url) if status == StatusCode::OK => Ok(url.to_owned()),
            _ => bail!("{status}: {body}"),
        }
    }
}
