//! Requests to the provider's API with a new access token: whose account the connection is, facts that the token answer lacks,
//! and tokens that replace the new ones.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::timeout;
use tracing::warn;

use super::{NoTokens, ProviderCalls};
use crate::connection::StoredConnection;
use crate::integration::{ApiRequest, IntegrationOauthConfig, LoginRequests, Placeholders};
use crate::oauth::token::{RequestError, Response, TokenError, TokenSet, has_large_values, plain_values};
use crate::oauth::{Identity, ProviderAnswer, api_request};
use crate::secret::Secret;
use crate::system;

/// Longest time for identity and metadata together. They only add to a connection that works without them.
const FACTS_TIME: Duration = Duration::from_secs(5);

/// Fields of a config that have a request, as events name them.
const IDENTITY: &str = "identity";
const METADATA_REQUEST: &str = "metadata_request";

/// The connection for which a request is made.
#[derive(Debug, Clone, Copy)]
pub(in crate::worker) struct ApiAccess<'a> {
    pub(in crate::worker) config: &'a IntegrationOauthConfig,
    pub(in crate::worker) variables: &'a BTreeMap<String, String>,
    pub(in crate::worker) access_token: &'a Secret,
    pub(in crate::worker) scope: &'a str,
}

impl<'a> ApiAccess<'a> {
    pub(in crate::worker) fn of(
        config: &'a IntegrationOauthConfig,
        stored: &'a StoredConnection,
        access_token: &'a Secret,
    ) -> Self {
        let scope = stored.connection.scope.as_deref().unwrap_or_default();
        Self { config, variables: &stored.issued_at.variables, access_token, scope }
    }
}

/// Answers to the requests of a login.
#[derive(Debug, Default)]
pub(in crate::worker) struct Facts {
    pub(in crate::worker) identity: Option<Identity>,
    pub(in crate::worker) metadata: Map<String, Value>,
    pub(in crate::worker) missing: Vec<Missing>,
    /// True if a value for the metadata is too large to keep.
    pub(in crate::worker) has_large_values: bool,
}

/// A request without a usable answer.
#[derive(Debug)]
pub(in crate::worker) struct Missing {
    /// The config's field.
    pub(in crate::worker) field: &'static str,
    pub(in crate::worker) answer: Option<ProviderAnswer>,
}

impl ProviderCalls<'_> {
    /// Requests identity and metadata at the same time, as the config at the login says. A failure of one leaves the other's
    /// facts as they are.
    pub(in crate::worker) async fn facts(&self, requests: &LoginRequests, access: ApiAccess<'_>) -> Facts {
        let mut facts = Facts::default();
        let identity = async {
            let (rule, request) =
                requests.identity.as_ref().and_then(|rule| rule.request.as_ref().map(|it| (rule, it)))?;
            let answer = self.answer(IDENTITY, request, access).await;
            let read = |answer: Value| {
                let identity = Identity::read(&answer, &rule.id, rule.label.as_ref());
                identity.ok_or_else(|| {
                    warn!("the answer to the request `identity` has no text or number at the path `identity.id`");
                    None
                })
            };
            Some(answer.and_then(read))
        };
        let metadata = async {
            let (rule, request) =
                requests.metadata.as_ref().and_then(|rule| rule.request.as_ref().map(|it| (rule, it)))?;
            let answer = self.answer(METADATA_REQUEST, request, access).await;
            Some(answer.map(|answer| (plain_values(&answer, &rule.paths), has_large_values(&answer, &rule.paths))))
        };
        let (identity, metadata) = tokio::join!(identity, metadata);
        match identity {
            Some(Ok(identity)) => facts.identity = Some(identity),
            Some(Err(answer)) => facts.missing.push(Missing { field: IDENTITY, answer }),
            None => {}
        }
        match metadata {
            Some(Ok((metadata, has_large_values))) => {
                (facts.metadata, facts.has_large_values) = (metadata, has_large_values);
            }
            Some(Err(answer)) => facts.missing.push(Missing { field: METADATA_REQUEST, answer }),
            None => {}
        }
        facts
    }

    /// Sends the requests again if one of them failed, and adds their facts to the connection.
    pub(in crate::worker) async fn add_missing_facts(
        &self,
        config: &IntegrationOauthConfig,
        mut stored: StoredConnection,
    ) -> StoredConnection {
        let Some(access_token) = stored.connection.access_token.clone().filter(|_| stored.grant.facts_missing) else {
            return stored;
        };
        let access = ApiAccess::of(config, &stored, &access_token);
        let Facts { identity, metadata, missing, has_large_values: _ } =
            self.facts(&stored.issued_at.requests, access).await;
        stored.connection.identity = stored.connection.identity.or(identity);
        stored.connection.metadata.extend(metadata);
        stored.connection = stored.connection.without_tokens_in_facts();
        stored.grant.facts_missing = !missing.is_empty();
        stored
    }

    /// Exchanges the new access token for another one.
    pub(in crate::worker) async fn upgrade(
        &self,
        request: &ApiRequest,
        access: ApiAccess<'_>,
    ) -> Result<TokenSet, NoTokens> {
        let now = self.context.clock.now();
        let calls = Self { reconnects: true, ..*self };
        calls.api(request, access, |response| response.tokens(access.config, now)).await
    }

    /// `field` is the config's field that has the request.
    async fn answer(
        &self,
        field: &str,
        request: &ApiRequest,
        access: ApiAccess<'_>,
    ) -> Result<Value, Option<ProviderAnswer>> {
        // At most half of the command's time: with a short `timeout`, an API that hangs must not keep the refresh token from
        // being sent.
        let time = FACTS_TIME.min(self.time.left(access.config.timeout()) / 2);
        #[expect(clippy::redundant_closure_for_method_calls, reason = "a closure takes responses of any lifetime")]
        let answered = timeout(time, self.api(request, access, |response| response.json())).await;
        match answered {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                warn!(reason = error.reason(), "the request `{field}` failed: {error}");
                Err(error.answer().cloned())
            }
            Err(elapsed) => {
                warn!("the request `{field}` took too long: {elapsed}");
                Err(None)
            }
        }
    }

    async fn api<T>(
        &self,
        request: &ApiRequest,
        access: ApiAccess<'_>,
        judge: impl Fn(&Response<'_>) -> Result<T, TokenError>,
    ) -> Result<T, NoTokens> {
        let ApiAccess { config, variables, access_token, scope } = access;
        // The request may be one that only the config of the login had. The present config's secrets don't go to its host.
        let is_present = config.has_request(request, variables);
        if !is_present && request.sends_client_secret() {
            return Err(NoTokens::Request(RequestError::IssuedElsewhere));
        }
        let (no_headers, no_secret) = (BTreeMap::new(), Secret::default());
        let (shared_headers, client_secret) =
            if is_present { (&config.token_headers, &config.client_secret) } else { (&no_headers, &no_secret) };
        let more = [
            ("access_token", access_token.expose()),
            ("client_id", config.client_id.as_str()),
            ("client_secret", client_secret.expose()),
        ];
        let (nonce, redirect_url) = (system::random_id(), config.redirect_url.as_str());
        let placeholders = Placeholders { variables, scope, redirect_url, nonce: &nonce, more: &more };
        let request = api_request(request, shared_headers, access_token, &placeholders);
        let request = request.ok_or(NoTokens::Request(RequestError::IssuedElsewhere))?;
        self.send(config, request, Some(access_token), judge).await
    }
}
