//! Requests to a provider's token endpoint. `revocation` has those to its revocation endpoint.
//!
//! A client may have two secrets while one replaces the other. A refusal of the client's authentication is tried again
//! with the next secret: the provider has then not looked at the grant, so neither code nor refresh token is spent.

pub(crate) mod revocation;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::connection::lifecycle::Meaning;
use crate::integration::IntegrationOauthConfig;
use crate::oauth::error::ErrorKind;
use crate::oauth::token::{self, ClientAuthentication, RequestError, TokenError, TokenSet};
use crate::oauth::{PostRequest, ProviderAnswer};
use crate::protocol::records::LONGEST_WRITE;
use crate::provider::{self, ProviderError};
use crate::system;
use crate::worker::context::Context;
use crate::worker::lease::Lease;

/// Reason why a token request returned no tokens.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoTokens {
    /// Nothing was sent: the config does not fit.
    #[error(transparent)]
    Request(RequestError),
    /// The request may have arrived.
    #[error(transparent)]
    Unreachable(#[from] ProviderError),
    #[error("{error}")]
    Refused {
        #[source]
        error: TokenError,
        /// Shortest wait before the next request, if the provider asks for one.
        retry_after: Option<Duration>,
        answer: Box<ProviderAnswer>,
    },
}

impl NoTokens {
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Request(_) | Self::Unreachable(_) => None,
            Self::Refused { retry_after, .. } => *retry_after,
        }
    }

    /// The provider's answer, as operators see it.
    pub(super) fn answer(&self) -> Option<&ProviderAnswer> {
        match self {
            Self::Request(_) | Self::Unreachable(_) => None,
            Self::Refused { answer, .. } => Some(answer),
        }
    }

    /// What the failure of a refresh says about the grant.
    pub(super) fn meaning(&self) -> Meaning {
        match self {
            Self::Request(_) => Meaning::ClientRefused,
            Self::Unreachable(_) => Meaning::Temporary,
            Self::Refused { error, .. } => match error {
                TokenError::RateLimited | TokenError::ServerError(_) => Meaning::Temporary,
                TokenError::Unauthorized | TokenError::Unreadable | TokenError::TooLarge => Meaning::Unclear,
                TokenError::Oauth(code) => match code.kind() {
                    ErrorKind::InvalidGrant => Meaning::DeadGrant,
                    ErrorKind::InvalidClient => Meaning::ClientRefused,
                    // A provider that fails for a while answers with a status of 5xx or 429.
                    ErrorKind::Temporary | ErrorKind::Other => Meaning::Unclear,
                },
            },
        }
    }

    /// The reason in events, from a fixed list.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Request(_) => "client_authentication",
            Self::Unreachable(_) => "provider_unreachable",
            Self::Refused { error, .. } => error.reason(),
        }
    }
}

/// Logs an answer without tokens.
fn log(answer: &ProviderAnswer, what: &str) {
    let ProviderAnswer { status, error, detail } = answer;
    let (error, detail) = (error.as_deref(), detail.as_deref());
    warn!(provider_status = status, provider_error = error, provider_detail = detail, "{what}");
}

/// Requests tokens, with all tries together within the config's `timeout`. Sends nothing once the lease is lost.
pub(super) async fn request_tokens(
    context: &Context,
    lease: &Arc<Lease>,
    config: &IntegrationOauthConfig,
    variables: &BTreeMap<String, String>,
    build: impl Fn(&ClientAuthentication) -> Result<PostRequest, RequestError>,
) -> Result<TokenSet, NoTokens> {
    let timeout = config.timeout();
    context.limits.needs.extend(timeout.saturating_add(LONGEST_WRITE));
    provider::within(timeout, try_each_secret(context, lease, config, variables, build)).await
}

/// Sends the request with each of the client's secrets in turn, until the provider does not reject the client.
async fn try_each_secret(
    context: &Context,
    lease: &Arc<Lease>,
    config: &IntegrationOauthConfig,
    variables: &BTreeMap<String, String>,
    build: impl Fn(&ClientAuthentication) -> Result<PostRequest, RequestError>,
) -> Result<TokenSet, NoTokens> {
    // Replaced by the first try: attempt 0 always has an authentication.
    let mut refused = NoTokens::Request(RequestError::NoClientKey);
    for attempt in 0.. {
        let auth = ClientAuthentication::of(config, attempt, variables, context.clock.now(), &system::random_id());
        let Some(auth) = auth.map_err(NoTokens::Request)? else { break };
        let began = Instant::now();
        let held = Arc::clone(lease);
        let request = build(&auth).map_err(NoTokens::Request)?;
        let sent = context.provider.send_if(request.clone(), config.timeout(), move || held.is_held()).await;
        context.measures.provider_seconds.observe(began.elapsed().as_secs_f64());
        let response = sent?;
        let (content_type, retry_after) = (response.content_type.as_deref(), response.retry_after);
        let parsed = token::parse_response(response.status, content_type, &response.body, config, context.clock.now());
        let error = match parsed {
            Ok(tokens) => return Ok(tokens),
            Err(error) => error,
        };
        let answer = Box::new(ProviderAnswer::read(response.status, &response.body, &request));
        log(&answer, "the provider issued no tokens");
        refused = NoTokens::Refused { error, retry_after, answer };
        if !error.allows_next_secret() {
            break;
        }
    }
    Err(refused)
}
