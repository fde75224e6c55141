//! The steps of the demo: one login from the config to the token subject, with assertions at each step.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_nats::{Message, Subscriber};
use futures_util::StreamExt as _;
use hyper::StatusCode;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;
use url::{Position, Url};

use super::client::{Gateway, Got, LOGIN};
use super::provider::Provider;
use super::screen::{Screen, short, short_url, shown};
use super::stack::{ACCOUNT, Stack};
use crate::jetstream::{header, kv};
use crate::secret::Secret;
use crate::subject::{CONNECTIONS, ConnectionKey, tokens_of};

const CONFIG: &str = "/hub/integrations/demo/oauth-config";
const TOKEN: &str = "/hub/integrations/demo/oauth-token/workspace1";
/// Path of the redirect URL.
pub(super) const CALLBACK: &str = "/hub/integrations/oauth-callback";
/// Longest wait for a message.
const ARRIVAL: Duration = Duration::from_secs(10);
const ANY: &str = "*/*";

pub(super) struct Walk<'a> {
    pub(super) stack: &'a Stack,
    pub(super) gateway: &'a Gateway,
    pub(super) provider: &'a Provider,
    /// Client id and secret at the provider.
    pub(super) client: (&'a str, &'a Secret),
    pub(super) screen: &'a Screen,
}

/// Result of the callback.
struct Connected {
    connection: Value,
    took: Duration,
}

impl Walk<'_> {
    /// Runs all steps and returns the duration of the callback.
    pub(super) async fn all(&self) -> anyhow::Result<Duration> {
        let key = ConnectionKey::parse_kv_key(&format!("{ACCOUNT}.demo.workspace1"))?;
        let mut tenant = self.subscribe(&key).await?;
        self.configure().await?;
        let oauth_url = self.login().await?;
        let callback = self.allow(&oauth_url).await?;
        let connected = self.callback(&callback, &key).await?;
        self.message(&mut tenant, &connected).await?;
        self.entry(&key, &connected).await?;
        self.read_back(&connected).await?;
        Ok(connected.took)
    }

    async fn subscribe(&self, key: &ConnectionKey) -> anyhow::Result<Subscriber> {
        let subject = tokens_of(&key.account);
        self.screen.title("1  A workflow node of the tenant subscribes to its token subject");
        self.screen.field("nats user", "demo (the tenant's own account)");
        self.screen.field("subject", &subject);
        let nats = self.stack.connect("demo").await?;
        let subscriber = nats.client().subscribe(subject).await?;
        nats.client().flush().await?;
        self.screen.check(true, "subscribed")?;
        Ok(subscriber)
    }

    async fn configure(&self) -> anyhow::Result<()> {
        let (id, secret) = self.client;
        let provider = &self.provider.url;
        let config = json!({
            "integration_id": "demo", "name": "Demo provider", "scopes": "profile,files.read",
            "client_id": id, "client_secret": secret.expose(),
            "auth_url": format!("{provider}/authorize"), "token_url": format!("{provider}/token"),
            "revocation_url": format!("{provider}/revoke"), "redirect_url": format!("{}{CALLBACK}", self.gateway.url),
        });
        self.screen.title("2  An admin configures the integration");
        self.screen.request("PUT", CONFIG);
        for name in ["scopes", "client_id", "auth_url", "token_url", "redirect_url"] {
            self.screen.field(name, config.get(name).and_then(Value::as_str).unwrap_or_default());
        }
        self.screen.field("client_secret", short(secret.expose()));
        let Got { status, body, .. } = self.gateway.call(Method::PUT, CONFIG, Some(&config)).await?;
        self.screen.check(
            status == StatusCode::OK && body == json!({ "message": "success" }),
            &format!("{} {body}", status.as_u16()),
        )
    }

    async fn login(&self) -> anyhow::Result<Url> {
        self.screen.title("3  A member of the account asks for a login");
        self.screen.request("GET", LOGIN);
        let Got { status, body, .. } = self.gateway.call(Method::GET, LOGIN, None).await?;
        let url = body.get("oauth_url").and_then(Value::as_str).and_then(|url| Url::parse(url).ok());
        self.screen
            .check(status == StatusCode::OK && url.is_some(), &format!("{} with an oauth_url", status.as_u16()))?;
        let url = url.context("no oauth_url")?;
        self.parameters(&url);
        let parameter = |name: &str| parameter(&url, name).unwrap_or_default();
        self.screen.check(
            url.as_str().starts_with(&format!("{}/authorize?", self.provider.url)),
            "the URL leads to the provider",
        )?;
        self.screen.check(parameter("code_challenge_method") == "S256", "with a PKCE S256 challenge")?;
        self.screen.check(parameter("state").len() >= 22, "and a random state")?;
        Ok(url)
    }

    fn parameters(&self, url: &Url) {
        for (name, value) in url.query_pairs() {
            let is_secret = matches!(&*name, "state" | "code" | "code_challenge");
            self.screen.field(&name, if is_secret { short(&value) } else { value.into_owned() });
        }
    }

    async fn allow(&self, oauth_url: &Url) -> anyhow::Result<Url> {
        self.screen.title("4  A person logs in at the provider and allows access");
        self.screen.request("GET", format!("{}/authorize?… (the oauth_url)", self.provider.url));
        let page = self.gateway.browser.get(oauth_url.as_str(), ANY).await?;
        self.screen.check(page.status == StatusCode::OK, &format!("{} the login page", page.status.as_u16()))?;
        let form = format!("{}&decision=allow", oauth_url.query().unwrap_or_default());
        self.screen.request("POST", format!("{}/authorize (Allow)", self.provider.url));
        let allowed = self.gateway.browser.post(&format!("{}/authorize", self.provider.url), form).await?;
        let to = allowed.location.and_then(|to| Url::parse(&to).ok());
        self.screen.check(allowed.status == StatusCode::SEE_OTHER && to.is_some(), "303 back to the gateway")?;
        let to = to.context("no location")?;
        self.screen.field("location", short_url(&to));
        self.screen
            .check(to.as_str().starts_with(&format!("{}{CALLBACK}?", self.gateway.url)), "to the redirect_url")?;
        let same = parameter(&to, "state").is_some() && parameter(&to, "state") == parameter(oauth_url, "state");
        self.screen.check(same && parameter(&to, "code").is_some(), "with a one-time code and the same state")?;
        Ok(to)
    }

    async fn callback(&self, callback: &Url, key: &ConnectionKey) -> anyhow::Result<Connected> {
        self.screen.title("5  The browser returns to the gateway with the code");
        self.screen.request("GET", short_url(callback));
        let browser = &self.gateway.browser;
        let start = Instant::now();
        // With the account's API key, so that the answer has the tokens.
        let path = &callback[Position::BeforePath..Position::AfterQuery];
        let Got { status, body: connection, .. } = self.gateway.call(Method::GET, path, None).await?;
        let took = start.elapsed();
        self.screen.object(&connection);
        self.screen.check(status == StatusCode::OK, &format!("{} after {} ms", status.as_u16(), took.as_millis()))?;
        self.screen.check(connection.get("status") == Some(&json!("active")), "the connection is active")?;
        self.screen.check(connection.get("subject") == Some(&json!(key.subject())), "its subject is the tenant's")?;
        let number = |name: &str| connection.get(name).and_then(Value::as_u64).unwrap_or_default();
        self.screen.check(number("sequence") > 0 && number("modified") > 0, "it has its sequence and modified")?;
        let issued = self.provider.newest_access_token();
        let given = connection.get("access_token").and_then(Value::as_str).map(Secret::new);
        self.screen.check(
            given.is_some() && given == issued,
            "the provider verified the code_verifier and issued this token",
        )?;
        let again = browser.get(callback.as_str(), "application/json").await?;
        self.screen.check(again.status == StatusCode::UNAUTHORIZED, "the same callback again: 401")?;
        let issued_then = self.provider.newest_access_token();
        self.screen.check(issued_then == issued, "and the code was not sent to the provider again")?;
        Ok(Connected { connection, took })
    }

    async fn message(&self, tenant: &mut Subscriber, connected: &Connected) -> anyhow::Result<()> {
        let Connected { connection, .. } = connected;
        self.screen.title("6  The node receives the token");
        let message = timeout(ARRIVAL, tenant.next()).await.ok().flatten();
        self.screen.check(message.is_some(), "a message arrived")?;
        let Message { subject, headers, payload, .. } = message.context("no message")?;
        let headers = headers.unwrap_or_default();
        let body: Value = serde_json::from_slice(&payload).unwrap_or_default();
        let sequence = header(&headers, "Nats-Sequence");
        self.screen.field("subject", &subject);
        self.screen.field("Nats-Sequence", sequence);
        self.screen.field("Nats-Time-Stamp", header(&headers, "Nats-Time-Stamp"));
        self.screen.object(&body);
        self.screen
            .check(connection.get("subject") == Some(&json!(subject.as_str())), "on the connection's subject")?;
        let expected = connection.get("sequence").and_then(Value::as_u64);
        self.screen.check(
            expected.is_some() && sequence.parse().ok() == expected,
            "Nats-Sequence equals the sequence in the answer",
        )?;
        self.screen.check(body.get("access_token") == connection.get("access_token"), "with the same access token")?;
        self.screen.check(!body.to_string().contains("refresh_token"), "and no refresh token")
    }

    async fn entry(&self, key: &ConnectionKey, connected: &Connected) -> anyhow::Result<()> {
        let Connected { connection, .. } = connected;
        self.screen.title("7  An operator looks at the key-value store");
        self.screen.field("nats user", "operator");
        self.screen.field("bucket", CONNECTIONS);
        self.screen.field("key", key.kv_key());
        let operator = self.stack.connect("operator").await?;
        let entry = kv::get(&operator, CONNECTIONS, &key.kv_key()).await?;
        let value = entry.and_then(|entry| entry.value);
        self.screen.check(value.is_some(), "the entry exists")?;
        let entry: Value = serde_json::from_slice(&value.unwrap_or_default())?;
        self.screen.object(&entry);
        for name in ["sequence", "modified", "subject", "status"] {
            let same = entry.get(name).is_some() && entry.get(name) == connection.get(name);
            self.screen.check(same, &format!("{name} equals the answer's"))?;
        }
        let text = entry.to_string();
        let is_sealed = entry.get("sealed").and_then(Value::as_str).is_some_and(|sealed| sealed.starts_with("v1."));
        for name in ["access_token", "refresh_token"] {
            let clear = connection.get(name).and_then(Value::as_str);
            let is_hidden = clear.is_some_and(|clear| !text.contains(clear));
            self.screen.check(is_sealed && is_hidden, &format!("the {name} is sealed"))?;
        }
        Ok(())
    }

    async fn read_back(&self, connected: &Connected) -> anyhow::Result<()> {
        let Connected { connection, .. } = connected;
        self.screen.title("8  A caller reads the token over HTTP");
        self.screen.request("GET", TOKEN);
        let Got { status, body, .. } = self.gateway.call(Method::GET, TOKEN, None).await?;
        for name in ["sequence", "expiry", "access_token"] {
            self.screen.field(name, body.get(name).map_or_else(String::new, |value| shown(name, value)));
        }
        self.screen.check(status == StatusCode::OK, "200")?;
        self.screen.check(body == *connection, "the same connection, field by field")
    }
}

fn parameter(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}
