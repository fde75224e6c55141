//! One test's world: a bus, tokenbus on it, and the authorization server, which knows tokenbus as its client.

use super::client::{CLIENT, SECRET, metadata};
use super::provider::Provider;
use super::visitor::{Consent, walk};
use crate::support::tokenbus::{ACCOUNT, Tokenbus};
use reqwest::StatusCode;
use serde_json::{Value, json};
use url::Url;

/// The integration of the authorization server.
pub(crate) const INTEGRATION: &str = "example";
/// The default connection of a test.
pub(crate) const CONNECTION: &str = "workspace1";

pub(crate) struct World {
    pub(crate) tokenbus: Tokenbus,
    pub(crate) provider: Provider,
    client: Value,
}

impl World {
    /// A world in which tokenbus is the client [`CLIENT`] and its integration is configured.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with further settings of tokenbus.
    pub(crate) async fn start_with(settings: &[(&str, &str)]) -> Self {
        let world = Self::unconfigured(metadata(CLIENT), settings).await;
        world.tokenbus.configure(&world.config()).await;
        world
    }

    /// A world in which tokenbus is the client that `client` describes; the redirect URI is filled in here.
    pub(crate) async fn unconfigured(mut client: Value, settings: &[(&str, &str)]) -> Self {
        let tokenbus = Tokenbus::start(settings).await;
        client["redirect_uris"] = json!([tokenbus.callback()]);
        let provider = Provider::start(std::slice::from_ref(&client)).await;
        Self { tokenbus, provider, client }
    }

    /// The integration's config, with the issuer to be checked and PKCE as it is by default.
    pub(crate) fn config(&self) -> Value {
        let has_secret = self.client.get("client_secret").is_some();
        json!({
            "integration_id": INTEGRATION,
            "name": "Example",
            "scopes": "read,write",
            "client_id": self.client["client_id"],
            "client_secret": if has_secret { SECRET } else { "" },
            "token_auth_method": self.client["token_endpoint_auth_method"],
            "auth_url": self.provider.authorization_endpoint(),
            "token_url": self.provider.token_endpoint(),
            "redirect_url": self.tokenbus.callback(),
            "issuer": self.provider.issuer,
        })
    }

    /// The callback after a login at the provider, not yet sent to tokenbus.
    pub(crate) async fn callback(&self, connection: &str, consent: Consent) -> Url {
        let start = self.tokenbus.login(INTEGRATION, connection).await;
        walk(start, &self.tokenbus.callback(), consent).await
    }

    /// Makes a connection.
    pub(crate) async fn connect(&self, connection: &str) -> Value {
        let callback = self.callback(connection, Consent::Allow).await;
        let (status, body) = self.tokenbus.arrive(&callback).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    /// The grant type and status of each token request so far.
    pub(crate) async fn token_requests(&self) -> Vec<(Option<String>, u16)> {
        self.provider.received().await.into_iter().map(|received| (received.grant_type, received.status)).collect()
    }
}

/// The token subject of a connection.
pub(crate) fn token_subject(connection: &str) -> String {
    format!("ms.integration.oauth.{ACCOUNT}.{INTEGRATION}.{connection}")
}

/// A text of a JSON object.
#[track_caller]
pub(crate) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_else(|| panic!("no text {field} in {object}"))
}
