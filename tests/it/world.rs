//! One test's world: a bus, tokenbus on it, and a provider.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

use crate::provider::Provider;
use crate::support::nats::Nats;
use crate::support::tokenbus::Tokenbus;

/// The integration that most tests use.
pub(crate) const INTEGRATION: &str = "odd";

pub(crate) struct World {
    pub(crate) tokenbus: Tokenbus,
    pub(crate) provider: Provider,
}

/// A pending login: the parameters for the browser's next request.
pub(crate) struct Login {
    pub(crate) oauth_url: Url,
    pub(crate) state: String,
}

impl World {
    /// A world in which the integration is configured.
    pub(crate) async fn with(provider: Provider) -> Self {
        Self::with_settings(provider, &[]).await
    }

    /// The same with further settings, named as in the environment without `TOKENBUS_`.
    pub(crate) async fn with_settings(provider: Provider, more: &[(&str, &str)]) -> Self {
        let world = Self { tokenbus: Tokenbus::start(more).await, provider };
        world.tokenbus.configure(&world.config()).await;
        world
    }

    /// The same on a bus that is there already.
    pub(crate) async fn on(nats: Nats, provider: Provider) -> Self {
        let world = Self { tokenbus: Tokenbus::start_on(nats, &[]).await, provider };
        world.tokenbus.configure(&world.config()).await;
        world
    }

    /// The integration's config.
    pub(crate) fn config(&self) -> Value {
        json!({
            "integration_id": INTEGRATION, "name": "Odd", "scopes": "read,write", "client_id": "client",
            "client_secret": "canary-client-secret",
            "auth_url": format!("{}/authorize", self.provider.url),
            "token_url": format!("{}/token", self.provider.url),
            "redirect_url": self.tokenbus.callback(),
        })
    }

    /// Begins a login.
    pub(crate) async fn login(&self, connection: &str) -> Login {
        let oauth_url = self.tokenbus.login(INTEGRATION, connection).await;
        let state = parameter(&oauth_url, "state");
        Login { oauth_url, state }
    }

    /// The callback that the provider would send the browser to.
    pub(crate) fn callback(&self, query: &[(&str, &str)]) -> Url {
        let mut url: Url = self.tokenbus.callback().parse().expect("a callback is a URL");
        url.query_pairs_mut().extend_pairs(query);
        url
    }

    /// Begins a login and comes back with a code.
    pub(crate) async fn connect(&self, connection: &str) -> (StatusCode, Value) {
        let login = self.login(connection).await;
        self.tokenbus.arrive(&self.callback(&[("code", "canary-code"), ("state", &login.state)])).await
    }

    /// The connection as the gateway reads it.
    pub(crate) async fn read(&self, connection: &str) -> (StatusCode, Value) {
        self.tokenbus.call(Method::GET, &format!("{INTEGRATION}/oauth-token/{connection}")).await
    }
}

/// The state of an authorization URL as a login answers it.
pub(crate) fn state_of(oauth_url: &Value) -> String {
    let url = oauth_url.as_str().and_then(|url| Url::parse(url).ok());
    parameter(&url.unwrap_or_else(|| panic!("no URL: {oauth_url}")), "state")
}

/// A parameter of an authorization URL.
pub(crate) fn parameter(url: &Url, name: &str) -> String {
    let found = url.query_pairs().find(|(found, _)| found == name).map(|(_, value)| value.into_owned());
    found.unwrap_or_else(|| panic!("no {name} in the authorization URL"))
}
